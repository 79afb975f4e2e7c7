"""The blind baseline finds what the samples alone tell, at the size that theory says, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from sklearn.naive_bayes import GaussianNB
from torch import nn

from relaxloss.evaluation import blind_baseline
from relaxloss.evaluation.grouping import Grouping
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


def singly(n: int) -> Grouping:
    return Grouping.of(np.arange(n), np.arange(n))


@pytest.mark.parametrize("width", [4, 80])
def test_a_shift_is_found_at_its_size(width: int) -> None:
    x, y, member = population(0, 4000, 1.0, width)
    found = blind_baseline.auc(x, y, member, singly(len(y)), 0, 0.95)
    assert found is not None
    best = scipy.stats.norm.cdf(1 / np.sqrt(2))
    assert best - 0.03 < found[0] < best + 0.015
    assert found[1] < best < found[2]
    assert 0.03 < found[2] - found[1] < 0.06


def test_what_no_line_tells_is_found_too() -> None:
    x, y, member = population(0, 1500)
    x[:, 1] *= np.where(member, 3, 1)
    found = blind_baseline.auc(x, y, member, singly(len(y)), 0, 0.95)
    assert found is not None
    assert found[1] > 0.6


def test_a_few_hundred_that_drift_are_told() -> None:
    """A small linear drift in each of several columns."""
    x, y, member = population(0, 1200, width=6)
    x += 0.2 * member[:, None]
    found = blind_baseline.auc(x, y, member, singly(len(y)), 0, 0.999)
    assert found is not None
    assert found[1] > 0.5


def test_wide_rows_and_images_are_told_by_fewer_numbers() -> None:
    x, y, member = population(0, 1500, width=600)
    x += member[:, None]  # all columns
    images = np.random.default_rng(0).integers(0, 200, (1500, 1, 9, 9)) + 10 * member[:, None, None, None]
    for each, least in ((x, 0.95), (images.astype(np.uint8), 0.8)):
        found = blind_baseline.auc(each, y, member, singly(len(y)), 0, 0.95)
        assert found is not None
        assert found[0] > least


def test_one_population_is_told_apart_by_chance_only() -> None:
    found = [blind_baseline.auc(*population(seed, 300), singly(300), seed, 0.95) for seed in range(30)]
    areas, low, high = np.array(found, float).T
    assert abs(areas.mean() - 0.5) < 4 * areas.std() / np.sqrt(30)
    assert ((low > 0.5) | (high < 0.5)).sum() <= 5, "at 95 %"


def test_persons_are_in_one_fold() -> None:
    """A person's rows are alike: who was fitted on some of them would know the others."""
    chance = np.random.default_rng(0)
    person = np.repeat(np.arange(200), 5)
    x = chance.normal(size=(200, 4))[person]
    member = (np.arange(200) < 100)[person]
    found = blind_baseline.auc(x, np.zeros(1000, np.int64), member, Grouping.of(np.arange(1000), person), 0, 0.999)
    assert found is not None
    assert found[1] < 0.5 < found[2]


def test_too_few_are_not_told() -> None:
    x, y, _ = population(0, 60)
    assert blind_baseline.auc(x, y, np.arange(60) < 20, singly(60), 0, 0.95) is None


def names(audit: Any) -> set[str]:
    return {flag.name for flag in audit.flags}


def test_audits_that_have_the_samples_flag_another_year(tmp_path: Path) -> None:
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
        for each in found:
            area, low, high = each.facts["blind"]
            assert low < area < high
            page = each.to_html(tmp_path / "audit.html").read_text(encoding="utf-8")
            assert f"with an AUC of {area:.3f}" in " ".join(page.split())
            assert ("But without the model an AUC of" in page) == (shift > 0)
            if not shift:
                assert "blind_baseline" in each.passed


class Ignoring(GaussianNB):
    """Says the same of everybody, whatever is in the frame."""

    def fit(self, x: Any, y: Any) -> Ignoring:
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, x: Any) -> np.ndarray:
        return np.full((len(x), len(self.classes_)), 1 / len(self.classes_))
