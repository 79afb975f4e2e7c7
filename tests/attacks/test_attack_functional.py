"""The statistics of one model against their textbook formulas in 120-digit decimals."""

from __future__ import annotations

import math
from decimal import Decimal, getcontext

import numpy as np
import pytest

from relaxloss.attacks import functional as fn
from relaxloss.errors import UserError

getcontext().prec = 120
INF = math.inf


def slow(name: str, z: list[float], y: int) -> float:
    """The textbook formula on probabilities of 120 digits."""
    weights = [Decimal(0) if v == -INF else Decimal(v).exp() for v in z]
    p = [w / sum(weights) for w in weights]

    def log(v: Decimal) -> Decimal:
        return v.ln() if v > 0 else Decimal("-Infinity")

    def times(a: Decimal, b: Decimal) -> Decimal:
        return Decimal(0) if a == 0 else a * b

    rest = sum((p[c] for c in range(len(p)) if c != y), Decimal(0))
    best = max(z[c] for c in range(len(z)) if c != y)
    if name == "correctness":
        return z.index(max(z)) == y if z.count(max(z)) == 1 else (z[y] == max(z)) / z.count(max(z))
    if name == "confidence":
        return float(p[y])
    if name == "loss":
        return float(log(p[y]))
    if name == "entropy":
        return float(sum(times(v, log(v)) for v in p))
    if name == "modified_entropy":
        return float(times(rest, log(p[y])) + sum(times(p[c], log(1 - p[c])) for c in range(len(p)) if c != y))
    if name == "logit_margin":
        return float(log(p[y]) - log(rest))
    assert name == "hinge"
    return z[y] - best


NAMES = ["correctness", "confidence", "loss", "entropy", "modified_entropy", "logit_margin", "hinge"]
ROWS = [
    [0.3, -1.2, 2.5],
    [0.0, 0.0, 0.0],
    [5.0, 5.0, -INF],
    [40.0, 0.0, -3.0],
    [-40.0, 3.0, 3.0],
    [0.0, -INF, -INF],
    [-INF, 1.0, 0.5],
    [90.0, -10.0, -INF],
    [1e-9, 0.0, -1e-9],
    [-100.0, -INF, -101.5],
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("label", [0, 1, 2])
def test_statistic_equals_its_formula(name: str, label: int) -> None:
    labels = np.full(len(ROWS), label)
    got = getattr(fn, name)(np.array(ROWS), labels)
    assert got.dtype == np.float64
    np.testing.assert_allclose(
        got, [slow(name, row, label) for row in ROWS], rtol=1e-14, atol=1e-15 * (name == "logit_margin")
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_statistic_on_random_logits_and_queries(name: str, classes: int) -> None:
    rng = np.random.default_rng(classes)
    logits = rng.normal(scale=6, size=(2, 20, classes)).astype(np.float32)
    labels = rng.integers(classes, size=20)
    labels[:5] = logits[0, :5].argmax(-1)
    got = getattr(fn, name)(logits, labels)
    want = [[slow(name, [float(v) for v in z], int(y)) for z, y in zip(query, labels, strict=True)] for query in logits]
    np.testing.assert_allclose(got, want, rtol=1e-12)
    np.testing.assert_allclose(getattr(fn, name)(logits[1], labels), want[1], rtol=1e-12)


def test_confident_samples_do_not_tie() -> None:
    logits = np.array([[0.0, -40.0], [0.0, -50.0], [0.0, -700.0], [800.0, 0.0], [0.0, -INF]])
    for name in ("loss", "logit_margin", "hinge", "modified_entropy", "entropy"):
        scores = getattr(fn, name)(logits, np.zeros(5, np.int64))
        assert (np.diff(scores[:3]) > 0).all(), name
        assert scores[4] == scores.max(), name
    assert fn.loss(logits, np.zeros(5, np.int64))[1] == pytest.approx(-math.exp(-50), rel=1e-12)


def test_impossible_labels_score_lowest() -> None:
    logits, labels = np.array([[-INF, 0.0, 0.0], [-800.0, 0.0, 0.0]]), np.array([0, 0])
    for name in ("loss", "modified_entropy", "logit_margin", "hinge"):
        impossible, unlikely = getattr(fn, name)(logits, labels)
        assert impossible == -INF < unlikely < -700 / 2


def test_inputs_are_left_as_they_were() -> None:
    logits, labels = np.random.default_rng(0).normal(size=(3, 4, 5)), np.array([0, 1, 2, 3])
    before = logits.copy()
    for name in NAMES:
        getattr(fn, name)(logits, labels)
    np.testing.assert_array_equal(logits, before)


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        (np.zeros(3), np.zeros(3, int), "shape"),
        (np.zeros((3, 1)), np.zeros(3, int), "C >= 2"),
        (np.array([["a", "b"]]), np.array([0]), "expected numbers"),
        (np.zeros((3, 2)), np.zeros(2, int), r"shape \(3,\)"),
        (np.zeros((3, 2)), np.zeros(3), "integers"),
        (np.zeros((3, 2)), np.array([0, 1, 2]), "0 to 1"),
        (np.zeros((3, 2)), np.array([0, -1, 1]), "0 to 1"),
        (np.array([[0.0, np.nan]]), np.array([0]), "NaN"),
        (np.array([[0.0, INF]]), np.array([0]), r"\+inf"),
        (np.array([[-INF, -INF]]), np.array([0]), "-inf in every class"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_statistics_refuse(name: str, logits: np.ndarray, labels: np.ndarray, words: str) -> None:
    with pytest.raises(UserError, match=words):
        getattr(fn, name)(logits, labels)
