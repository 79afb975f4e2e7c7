"""The blind baseline finds what the samples alone tell, at the size that theory says, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from sklearn.naive_bayes import GaussianNB
from torch import nn

from relaxloss import blind, metrics
from relaxloss.asked import Asked
from relaxloss.integrations.sklearn import audit_estimator
from relaxloss.integrations.torch import audit_module


def population(
    seed: int, n: int = 2000, shift: float = 0.0, width: int = 4
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, labels and membership; members' first column is larger by `shift` deviations."""
    chance = np.random.default_rng(seed)
    member = chance.random(n) < 0.5
    x = chance.normal(size=(n, width))
    x[:, 0] += shift * member
    return x, chance.integers(0, 3, n), member


def singly(n: int) -> Asked:
    return Asked.of(np.arange(n), np.arange(n))


@pytest.mark.parametrize("width", [4, 80])
def test_a_shift_is_found_at_its_size(width: int) -> None:
    x, y, member = population(0, 8000, 1.0, width)
    found = blind.scores(x, y, member, singly(len(y)), 0)
    assert found is not None
    best = scipy.stats.norm.cdf(1 / np.sqrt(2))
    assert best - 0.03 < metrics.auc(*found) < best + 0.015
    assert 0.45 * len(y) < len(found[0]) < 0.55 * len(y), "one half, on which it was not fitted"


def test_wide_rows_and_images_are_told_by_fewer_numbers() -> None:
    x, y, member = population(0, 1500, width=600)
    x += member[:, None]  # all columns
    found = blind.scores(x, y, member, singly(len(y)), 0)
    assert found is not None
    assert metrics.auc(*found) > 0.95
    images = np.random.default_rng(0).integers(0, 200, (1500, 1, 9, 9)) + 10 * member[:, None, None, None]
    found = blind.scores(images.astype(np.uint8), y, member, singly(len(y)), 0)
    assert found is not None
    assert metrics.auc(*found) > 0.8


def test_one_population_is_told_apart_by_chance_only() -> None:
    areas, raised = [], 0
    for seed in range(40):
        x, y, member = population(seed, 400)
        found = blind.scores(x, y, member, singly(len(y)), seed)
        assert found is not None
        areas.append(metrics.auc(*found))
        low, high = metrics.auc_interval(*found, 0.95)
        raised += not low <= 0.5 <= high
    assert abs(np.mean(areas) - 0.5) < 4 * np.std(areas) / np.sqrt(40)
    assert raised <= 6, "at 95 %"


def test_persons_are_on_one_side_of_the_halves() -> None:
    """A person's rows are alike: a half that held some of them would know the others."""
    chance = np.random.default_rng(0)
    person = np.repeat(np.arange(200), 5)
    x = chance.normal(size=(200, 4))[person]
    member = (np.arange(200) < 100)[person]
    asked = Asked.of(np.arange(1000), person)
    found = blind.scores(x, np.zeros(1000, np.int64), member, asked, 0)
    assert found is not None
    assert 70 < len(found[0]) < 130
    low, high = metrics.auc_interval(*found, 0.999)
    assert low < 0.5 < high


def test_too_few_are_not_told() -> None:
    x, y, _ = population(0, 20)
    assert blind.scores(x, y, np.arange(20) < 1, singly(20), 0) is None


def names(audit: Any) -> set[str]:
    return {flag.name for flag in audit.flags}


def test_audits_that_have_the_samples_flag_another_year() -> None:
    for shift in (0.0, 1.5):
        x, y, member = population(1, 1000, shift)
        frame = pd.DataFrame(x, columns=list("abcd")).assign(ward=np.where(x[:, 1] > 0, "north", "south"))
        frame.iloc[3, 2] = np.inf
        dense = x.astype(np.float32)
        model = nn.Linear(4, 3)
        tensors = [(torch.from_numpy(dense[part]), torch.from_numpy(y[part])) for part in (member, ~member)]
        pairs = (x[member], y[member], x[~member], y[~member])
        found = [
            audit_module(model, *tensors, attacks="loss"),
            audit_estimator(GaussianNB().fit(x[member], y[member]), *pairs, attacks="loss"),
            audit_estimator(
                Ignoring().fit(None, y), frame[member], y[member], frame[~member], y[~member], attacks="loss"
            ),
        ]
        assert ["blind_baseline" in names(each) for each in found] == [shift > 0] * 3
        if not shift:
            assert all("blind_baseline" in each.passed for each in found)


class Ignoring(GaussianNB):
    """Says the same of everybody, whatever is in the frame."""

    def fit(self, x: Any, y: Any) -> Ignoring:
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, x: Any) -> np.ndarray:
        return np.full((len(x), len(self.classes_)), 1 / len(self.classes_))
