"""The samples of an audit before any attack: against shuffled labels, brute force and scipy's own test."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import scipy.stats

from relaxloss.evaluation import comparability


def test_chance_is_that_of_shuffled_labels() -> None:
    rng = np.random.default_rng(0)
    logits, labels = 3 * rng.normal(size=(400, 4)), rng.choice(4, 400, p=[0.5, 0.3, 0.15, 0.05])
    logits[np.arange(400), labels] += 0.4
    p = scipy.special.softmax(logits, axis=1)
    shuffled = np.array([p[np.arange(400), rng.permutation(labels)].mean() for _ in range(5_000)])
    fit = comparability.label_fit(logits, labels)
    assert fit is not None
    assert fit.found == pytest.approx(p[np.arange(400), labels].mean())
    assert fit.chance == pytest.approx(shuffled.mean(), abs=0.002)
    drawn = [p[np.arange(400), [rng.choice(4, p=row) for row in p]].mean() for _ in range(300)]
    assert fit.claimed == pytest.approx(np.mean(drawn), abs=0.01)
    z = scipy.stats.norm.isf(fit.p)
    assert (fit.found - fit.chance) / z == pytest.approx(shuffled.std(), rel=0.02)  # the variance's closed form


def test_labels_in_other_rows_are_at_chance_and_those_of_a_rare_outcome_are_not() -> None:
    rng = np.random.default_rng(1)
    rare = rng.random(5000) < 0.02
    logits = np.stack([np.zeros(5000), -4.5 + 2 * rare + rng.normal(size=5000)], axis=1)  # never predicted, well ranked
    assert logits.argmax(axis=1).mean() < 0.01
    fit = comparability.label_fit(logits, rare.astype(int))
    assert fit is None or fit.p < 1e-6
    y = rng.integers(0, 3, 500)
    sure = 4 * np.eye(3)[y] + rng.normal(size=(500, 3))
    right, moved = comparability.label_fit(sure, y), comparability.label_fit(sure, np.roll(y, 1))
    assert right is not None
    assert moved is not None
    assert right.p < 1e-10
    assert moved.p > 0.01
    assert moved.claimed > moved.chance + 0.4


def test_where_nothing_can_be_told_nothing_is_said() -> None:
    labels = np.array([0] * 95 + [1] * 5)
    assert comparability.label_fit(np.zeros((100, 2)), labels) is None
    assert comparability.label_fit(np.tile([3.0, 0.0], (100, 1)), labels) is None
    assert comparability.label_fit(10 * np.eye(2)[[0, 1] * 5], np.array([0, 1] * 5)) is None  # ten rows


def test_copies_are_counted_pair_by_pair() -> None:
    rng = np.random.default_rng(1)
    outputs, labels = rng.integers(0, 3, (80, 3)).astype(float), rng.integers(0, 2, 80)
    member = rng.random(80) < 0.5
    inside, outside = np.flatnonzero(member), np.flatnonzero(~member)
    outputs[outside] += 100 * np.arange(len(outside))[:, None]  # no two non-members are alike
    outputs[outside[:9]], labels[outside[:9]] = outputs[inside[:9]], labels[inside[:9]]
    same = [any((outputs[i] == outputs[j]).all() and labels[i] == labels[j] for i in inside) for j in outside]
    assert comparability.copies(outputs, labels, member) == np.mean(same) > 0.2


def test_copied_rows_are_those_with_a_members_row_and_label() -> None:
    x = np.array([[1.0, np.nan], [2, 0], [1, np.nan], [1, np.nan], [2, 1], [2, 0]], np.float32)
    labels = np.array([0, 1, 0, 1, 1, 1])
    assert (
        comparability.copied_rows(x, labels, np.array([0, 1]), np.array([2, 3, 4, 5])) == 0.5
    )  # the third has another label
    assert comparability.copied_rows(x, labels, np.array([0]), np.array([4])) == 0
    assert comparability.copied_rows(x, labels, np.array([0]), np.array([], int)) is None


def test_saturated_outputs_are_no_copies() -> None:
    logits = np.where(np.eye(3)[np.arange(60) % 3] > 0, 0.0, -np.inf)  # probabilities of 0 and 1
    assert comparability.copies(logits, np.arange(60) % 3, np.arange(60) < 30) == 0


def test_of_coarse_outputs_it_cannot_be_told_whether_they_are_copies() -> None:
    rng = np.random.default_rng(2)
    p = rng.choice([0.2, 0.4, 0.6, 0.8], 400)
    outputs = np.log(np.stack([p, 1 - p], axis=1))
    assert comparability.copies(outputs, np.zeros(400, int), np.arange(400) < 200) is None
    assert comparability.copies(np.tile([0.1, 0.2], (60, 1)), np.zeros(60, int), np.arange(60) < 30) is None


def test_the_mix_is_tested_as_scipy_does_and_rare_classes_as_one() -> None:
    counts = np.array([[40, 60, 3, 2], [60, 45, 1, 4]])
    labels = np.concatenate([np.repeat(np.arange(4), row) for row in counts])
    member = np.repeat([True, False], counts.sum(axis=1))
    p, distance, said = comparability.class_mix(labels, member, ("a", "b", "c", "d"))
    pooled = np.column_stack([counts[:, :2], counts[:, 2:].sum(axis=1)])
    assert p == scipy.stats.chi2_contingency(pooled, correction=False).pvalue
    assert distance == pytest.approx(np.abs(counts[0] / 105 - counts[1] / 110).sum() / 2)
    assert said == "class a is 38.1% of the members and 54.5% of the non-members"
    assert comparability.class_mix(np.zeros(20, int), np.arange(20) < 10, ("a", "b"))[0] == 1


def test_repeats_are_rows_of_one_side_and_not_coarse_outputs() -> None:
    rng = np.random.default_rng(4)
    member, labels = np.arange(1200) < 600, rng.integers(0, 3, 1200)
    fine = rng.normal(size=(1200, 3))
    assert comparability.repeats(fine, labels, member) == 0
    again = fine.copy()
    again[600:] = fine[600:650].repeat(12, axis=0)  # 50 non-members, twelve times each
    of_them = labels.copy()
    of_them[600:] = labels[600:650].repeat(12)
    assert comparability.repeats(again, of_them, member) == 0.5
    forest = rng.beta(np.where(member, 9, 3), 1.5)  # members surer, of a hundred trees
    votes = np.log(np.clip(np.stack([forest.round(2), 1 - forest.round(2)], axis=1), 1e-12, 1))
    assert comparability.repeats(votes, (rng.random(1200) < 0.3).astype(int), member) == 0


def test_exchanged_columns_are_found_and_a_poor_model_is_none() -> None:
    rng = np.random.default_rng(5)
    labels = rng.choice(5, 1500, p=[0.05, 0.25, 0.4, 0.25, 0.05])
    logits = rng.normal(size=(1500, 5)) - 0.9 * np.abs(np.arange(5) - labels[:, None])  # of ordered classes
    p = scipy.special.softmax(logits, axis=1)
    best, same, none = comparability.exchanged(logits, labels)
    assert best == same == pytest.approx(p[np.arange(1500), labels].mean())
    assert none == 0
    for order in ([4, 3, 2, 1, 0], [0, 2, 1, 3, 4], [0, 4, 3, 2, 1], [4, 1, 2, 3, 0], [1, 2, 3, 4, 0]):
        found, other, deviations = comparability.exchanged(logits[:, order], labels)
        assert other == pytest.approx(best)
        assert found < other - 0.02
        assert deviations > comparability.EXCHANGED, order
    for seed in range(100):  # models that know next to nothing, and know most classes not at all
        rng = np.random.default_rng(seed)
        labels = rng.choice(20, 300, p=np.arange(1, 21) / 210)
        logits = np.log(np.arange(1, 21)) + rng.normal(size=(300, 20)) + 0.5 * np.eye(20)[labels]
        found, other, deviations = comparability.exchanged(logits, labels)
        assert deviations <= comparability.EXCHANGED or other - found <= 0.05
