"""The samples of an audit before any attack: against shuffled labels, brute force and scipy's own test."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from relaxloss import sides


def test_chance_is_that_of_shuffled_labels() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(4, 60, p=[0.5, 0.3, 0.15, 0.05])
    predicted = np.where(rng.random(60) < 0.2, labels, rng.choice(4, 60, p=[0.7, 0.1, 0.1, 0.1]))
    shuffled = np.array([(predicted == rng.permutation(labels)).mean() for _ in range(20_000)])
    right, chance, p = sides.better_than_chance(predicted, labels)
    assert right == (predicted == labels).mean()
    assert chance == pytest.approx(shuffled.mean(), abs=0.002)
    z = scipy.stats.norm.isf(p)
    assert (right - chance) / z == pytest.approx(shuffled.std(), rel=0.02)  # the variance's closed form


def test_a_constant_answer_is_no_better_than_chance() -> None:
    labels = np.array([0] * 95 + [1] * 5)
    assert sides.better_than_chance(np.zeros(100, int), labels) == (0.95, 0.95, 1.0)
    assert sides.better_than_chance(labels, labels)[2] < 1e-10


def test_copies_are_counted_pair_by_pair() -> None:
    rng = np.random.default_rng(1)
    outputs, labels = rng.integers(0, 3, (80, 3)).astype(float), rng.integers(0, 2, 80)
    member = rng.random(80) < 0.5
    inside, outside = np.flatnonzero(member), np.flatnonzero(~member)
    same = [any((outputs[i] == outputs[j]).all() and labels[i] == labels[j] for i in inside) for j in outside]
    assert 0 < sum(same) < len(same)
    assert sides.copies(outputs, labels, member) == np.mean(same)


def test_saturated_outputs_are_no_copies() -> None:
    logits = np.where(np.eye(3)[np.arange(60) % 3] > 0, 0.0, -np.inf)  # probabilities of 0 and 1
    assert sides.copies(logits, np.arange(60) % 3, np.arange(60) < 30) == 0
    assert sides.copies(np.tile([0.1, 0.2], (60, 1)), np.zeros(60, int), np.arange(60) < 30) == 1


def test_the_mix_is_tested_as_scipy_does_and_rare_classes_as_one() -> None:
    counts = np.array([[40, 60, 3, 2], [60, 45, 1, 4]])
    labels = np.concatenate([np.repeat(np.arange(4), row) for row in counts])
    member = np.repeat([True, False], counts.sum(axis=1))
    p, said = sides.class_mix(labels, member, ("a", "b", "c", "d"))
    pooled = np.column_stack([counts[:, :2], counts[:, 2:].sum(axis=1)])
    assert p == scipy.stats.chi2_contingency(pooled, correction=False).pvalue
    assert said == "class a is 38.1% of the members and 54.5% of the non-members"
    assert sides.class_mix(np.zeros(20, int), np.arange(20) < 10, ("a", "b"))[0] == 1
