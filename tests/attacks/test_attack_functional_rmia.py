"""Shadow attacks against slow forms: loops over samples, exact fractions, planted distributions, and no leak at all."""

from __future__ import annotations

import math
import statistics
from fractions import Fraction

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from relaxloss.attacks import functional as fn
from relaxloss.errors import UserError

INF = math.inf


# --- RMIA and its kin ----------------------------------------------------------------------------------------------


def slow_ratio(p: float, shadows: np.ndarray, has: np.ndarray, a: float | None) -> Fraction:
    """``p / Pr`` in exact fractions."""
    use = [Fraction(float(q)) for q, h in zip(shadows, has, strict=True) if a is None or not h or has.all()]
    mean = sum(use, Fraction(0)) / len(use)
    if a is not None and not has.all():
        mean = ((1 + Fraction(a)) * mean + 1 - Fraction(a)) / 2
    return Fraction(float(p)) / mean


@pytest.mark.parametrize("gamma", [1.0, 2.0, 0.5])
@pytest.mark.parametrize("a", [None, 0.0, 0.25, 1.0])
def test_rmia_equals_the_full_matrix(gamma: float, a: float | None) -> None:
    rng = np.random.default_rng(3)
    k, n, z = 6, 60, 80
    p, q = rng.beta(2, 1, size=n + z), rng.beta(2, 1, size=(k, n + z))
    has = rng.random((k, n + z)) < 0.5
    has[:, 5] = True
    copies = rng.integers(40, size=n + z)  # about every column stands in several places: exact ties
    p, q, has = p[copies], q[:, copies], has[:, copies]
    ratios = [slow_ratio(p[i], q[:, i], has[:, i], a) for i in range(n + z)]
    want = [float(sum((ratios[i] > Fraction(gamma) * ratios[n + j]) for j in range(z))) / z for i in range(n)]
    population = fn.Population(np.log(p[n:]), np.log(q[:, n:]), has[:, n:])
    got = fn.rmia(np.log(p[:n]), np.log(q[:, :n]), has[:, :n], population, gamma, a)
    np.testing.assert_array_equal(got, want)
    if gamma == 1:
        assert sum(r in ratios[n:] for r in ratios[:n]) > n / 2  # ties there were
        exact = [math.log(r) for r in ratios[:n]]
        np.testing.assert_allclose(fn.base(np.log(p[:n]), np.log(q[:, :n]), has[:, :n], offline_a=a), exact, atol=1e-13)


def test_rmia_population_without_membership_is_out_of_every_shadow() -> None:
    rng = np.random.default_rng(0)
    lp, has = -rng.exponential(size=(5, 30)), rng.random((5, 30)) < 0.5
    out = np.zeros((4, 10), bool)
    args = (lp[0, :20], lp[1:, :20], has[1:, :20])
    np.testing.assert_array_equal(
        fn.rmia(*args, fn.Population(lp[0, 20:], lp[1:, 20:]), offline_a=0.3),
        fn.rmia(*args, fn.Population(lp[0, 20:], lp[1:, 20:], out), offline_a=0.3),
    )


def test_rmia_does_not_underflow() -> None:
    rng = np.random.default_rng(0)
    lp = -rng.exponential(size=(9, 50))
    has = rng.random((8, 50)) < 0.5
    population = fn.Population(lp[0, 30:], lp[1:, 30:])
    near = fn.rmia(lp[0, :30], lp[1:, :30], has[:, :30], population)
    far = fn.rmia(lp[0, :30] - 2000, lp[1:, :30] - 2000, has[:, :30], population)
    assert len(np.unique(near)) > 10
    np.testing.assert_allclose(far, near, atol=1 / 20)  # one z at most: rounding of numbers near 2000


def test_zero_probabilities() -> None:
    lp = np.array([-INF, -INF, -1.0])
    shadows = np.array([[-INF, -1.0, -INF], [-INF, -2.0, -INF]])
    ratio = fn.base(lp, shadows, np.zeros((2, 3), bool))
    assert ratio.tolist() == [0.0, -INF, INF]
    ratio = fn.base(lp, shadows, np.zeros((2, 3), bool), offline_a=1.0)
    assert ratio.tolist() == [0.0, -INF, INF]
    score = fn.rmia(lp, shadows, np.zeros((2, 3), bool), fn.Population([-1.0, -1.0], [[-1.0, -0.5]] * 2))
    assert score.tolist() == [0.5, 0.0, 1.0]


def test_rmia_and_base_rank_alike() -> None:
    rng = np.random.default_rng(5)
    has = rng.random((17, 400)) < 0.5
    lp = -np.logaddexp(0, -(rng.normal(size=has.shape) + has + rng.normal(size=400)))
    population = fn.Population(*(lambda v: (v[0], v[1:]))(-np.logaddexp(0, -rng.normal(size=(17, 5000)))))
    by_base = roc_auc_score(has[0], fn.base(lp[0], lp[1:], has[1:]))
    by_rmia = roc_auc_score(has[0], fn.rmia(lp[0], lp[1:], has[1:], population))
    assert by_rmia == pytest.approx(by_base, abs=0.002)
    assert by_base > 0.65  # well above the same target's plain loss, samples differing in difficulty
    assert by_base > roc_auc_score(has[0], lp[0]) + 0.02


def test_broken_ties_rank_as_base_and_stay_within_a_step() -> None:
    rng = np.random.default_rng(6)
    lp, has = -rng.exponential(size=(5, 300)), rng.random((5, 300)) < 0.5
    population = fn.Population(-rng.exponential(size=7), -rng.exponential(size=(4, 7)))
    args = (lp[0], lp[1:], has[1:])
    plain, broken = fn.rmia(*args, population), fn.rmia(*args, population, break_ties=True)
    assert len(np.unique(plain)) <= 8
    assert ((broken - plain > 0) & (broken - plain < 1 / 7)).all()
    np.testing.assert_array_equal(np.argsort(broken), np.argsort(fn.base(*args)))


def test_tuned_a_is_the_best_candidate() -> None:
    rng = np.random.default_rng(2)
    has = rng.random((12, 3000)) < 0.5
    lp = -np.logaddexp(0, -(2 * rng.normal(size=3000) + rng.normal(size=has.shape) + 2 * has))
    candidates = (0.0, 0.2, 0.5, 1.0)
    others = np.arange(12) != 4
    aucs = [roc_auc_score(has[4], fn.base(lp[4], lp[others], has[others], offline_a=a)) for a in candidates]
    assert max(aucs) - min(aucs) > 0.005
    assert fn.rmia_tune_a(lp, has, shadow=4, candidates=candidates) == candidates[int(np.argmax(aucs))]


def test_difficulty_calibration_and_attack_r_equal_their_loops() -> None:
    rng = np.random.default_rng(4)
    s, has = rng.integers(6, size=(8, 40)).astype(float), rng.random((8, 40)) < 0.5
    has[:, 0], has[:, 1] = True, False
    calibrated, quantile = fn.difficulty_calibration(s[0], s[1:], has[1:]), fn.attack_r(s[0], s[1:], has[1:])
    for n in range(40):
        out = [s[k, n] for k in range(1, 8) if not has[k, n]]
        assert calibrated[n] == pytest.approx(s[0, n] - statistics.mean(out or s[1:, n]))
        want = statistics.mean((v < s[0, n]) + 0.5 * (v == s[0, n]) for v in out) if out else 0.5
        assert quantile[n] == pytest.approx(want)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda t, s, h: fn.base(-t, -s, h), "log-probabilities"),
        (lambda t, s, h: fn.base(t, s, h, offline_a=1.5), "0 to 1"),
        (lambda t, s, h: fn.base(t[:2], s, h), "expected"),
        (lambda t, s, h: fn.rmia(t, s, h, fn.Population(t, s), gamma=0.0), "positive"),
        (lambda t, s, h: fn.rmia(t, s, h, fn.Population(t[:0], s[:, :0])), "empty"),
        (lambda t, s, h: fn.rmia(t, s, h, fn.Population(t, s[:2])), "shadows"),
        (lambda t, s, h: fn.rmia_tune_a(s[:1], h[:1]), "at least 2"),
        (lambda t, s, h: fn.rmia_tune_a(s, np.zeros_like(h)), "every sample or none"),
        (lambda t, s, h: fn.attack_r(t, s, h.astype(int)), "booleans"),
        (lambda t, s, h: fn.difficulty_calibration(np.append(t[:-1], np.nan), s, h), "NaN"),
        (lambda t, s, h: fn.lira_leave_one_out(s[:1], h[:1]), "at least 2"),
    ],
)
def test_shadow_attacks_refuse(call, words: str) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match=words):
        call(-rng.random(5) - 0.1, -rng.random((3, 5)) - 0.1, np.eye(3, 5, dtype=bool))
