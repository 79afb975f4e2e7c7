"""Utility metrics against torch, scikit-learn and loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics
import torch

from relaxloss import metrics
from relaxloss.errors import UserError
from relaxloss.evaluation import rows as measures

# Utility


def test_losses_equal_torch_and_keep_tiny_ones() -> None:
    rng = np.random.default_rng(7)
    z, y = rng.normal(size=(500, 7)) * 20, rng.integers(0, 7, 500)
    z[:100][np.arange(7)[None] == (y[:100, None] + 1) % 7] = -np.inf
    theirs = torch.nn.functional.cross_entropy(torch.tensor(z), torch.tensor(y), reduction="none").numpy()
    np.testing.assert_allclose(metrics.losses(z, y), theirs, atol=1e-12)
    assert metrics.losses([[60.0, 0.0, 0.0]], [0])[0] == pytest.approx(
        2 * math.exp(-60), rel=1e-12, abs=0
    )  # torch says 0
    tall = [[1e5, -1e5], [-np.inf, 0.0], [0.0, -np.inf], [1000.0, 1000.0]]
    np.testing.assert_allclose(metrics.losses(tall, [1, 0, 0, 1]), [2e5, np.inf, 0.0, math.log(2)])
    assert metrics.losses([[3.0]], [0])[0] == 0.0


def test_summary_of_losses() -> None:
    values = np.array([0.5, 1.5, 4.0])
    assert metrics.summary(values) == metrics.Summary(mean=2.0, variance=np.var(values, ddof=1), n=3, infinite=0)
    with_infinite = metrics.summary([1.0, math.inf])
    assert (with_infinite.mean, with_infinite.infinite) == (math.inf, 1)
    assert math.isnan(with_infinite.variance)
    with pytest.raises(UserError, match="losses"):
        metrics.summary([math.nan])


def test_top_k_equals_scikit_learn_and_argmax_at_ties() -> None:
    rng = np.random.default_rng(8)
    z, y = rng.normal(size=(400, 6)), rng.integers(0, 6, 400)
    for k in (1, 2, 5):
        assert metrics.top_k(z, y, k) == pytest.approx(sklearn.metrics.top_k_accuracy_score(y, z, k=k))
    assert metrics.top_k(z, y, 6) == 1.0
    flat = np.zeros((400, 6))
    assert metrics.top_k(flat, y) == np.mean(y == flat.argmax(axis=1))
    assert metrics.top_k(flat, y, 5) == np.mean(y < 5)  # equal logits give no free credit
    hits = round(400 * metrics.top_k(z, y, 2))
    assert metrics.accuracy_interval(z, y, 2) == metrics.wilson(hits, 400)


def test_a_record_that_several_models_answered_for_counts_once_in_the_intervals() -> None:
    rng = np.random.default_rng(3)
    logits, labels = rng.normal(size=(300, 4)), rng.integers(0, 4, 300)
    rows = {
        item["measure"]: item
        for item in measures.utility(logits, labels, logits, labels, distinct=60, distinct_members=30)
    }
    for name, count in (("top1", 60), ("train_top1", 30)):
        low, high = metrics.wilson(rows[name]["value"] * count, count)
        assert (rows[name]["low"], rows[name]["high"]) == pytest.approx((low, high), abs=1e-6)
        assert rows[name]["n"] == 300


@pytest.mark.parametrize("bins", [2, 15])
def test_calibration_error_equals_a_loop_over_bins(bins: int) -> None:
    rng = np.random.default_rng(9)
    z = rng.normal(size=(800, 4)) * 2
    # right in 6 of 10 whatever the confidence: too humble below, too sure above, so that merged bins would cancel
    y = np.where(rng.random(800) < 0.6, z.argmax(axis=1), z.argmin(axis=1))
    p = torch.softmax(torch.tensor(z), 1).numpy()
    expected = 0.0
    for b in range(bins):
        inside = [i for i in range(800) if b / bins < p[i].max() <= (b + 1) / bins]
        if inside:
            accuracy = np.mean([p[i].argmax() == y[i] for i in inside])
            expected += abs(accuracy - p[inside].max(1).mean()) * len(inside) / 800
    assert expected > 0.05
    assert metrics.calibration_error(z, y, bins) == pytest.approx(expected, abs=1e-12)
    assert metrics.calibration_error([[0.0, -np.inf]], [0]) == 0.0
