"""Shadow attacks against slow forms: loops over samples, exact fractions, planted distributions, and no leak at all."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from scipy.stats import norm, spearmanr
from sklearn.metrics import roc_auc_score

from relaxloss.attacks import functional as fn
from relaxloss.attacks.functional import likelihood
from relaxloss.errors import UserError

INF = math.inf


# --- LiRA ----------------------------------------------------------------------------------------------------------


def slow_lira(t: list[float], s: np.ndarray, has: np.ndarray, online: bool, own: bool) -> list[float]:
    """Algorithm 1, sample by sample, for one query and finite statistics."""
    groups = [[[float(s[k, n]) for k in range(len(s)) if has[k, n] == side] for n in range(len(t))] for side in (1, 0)]
    pooled = []
    for group in groups:
        freedom = sum(len(g) - 1 for g in group if g)
        total = sum(statistics.variance(g) * (len(g) - 1) for g in group if len(g) > 1)
        pooled.append(math.sqrt(total / freedom) if freedom else 0.0)
    pooled = [pooled[0] or pooled[1] or 1.0, pooled[1] or pooled[0] or 1.0]
    shifts = [statistics.mean(i) - statistics.mean(o) for i, o in zip(*groups, strict=True) if i and o]
    shift = statistics.mean(shifts) if shifts else 0.0
    scores = []
    for n, (inside, outside) in enumerate(zip(*groups, strict=True)):
        mean_in = statistics.mean(inside) if inside else statistics.mean(outside) + shift
        mean_out = statistics.mean(outside) if outside else statistics.mean(inside) - shift
        sigmas = [
            statistics.stdev(group) if own and len(group) > 1 and len(set(group)) > 1 else one
            for group, one in zip((inside, outside), pooled, strict=True)
        ]
        if online:
            scores.append(norm.logpdf(t[n], mean_in, sigmas[0]) - norm.logpdf(t[n], mean_out, sigmas[1]))
        else:
            scores.append((t[n] - mean_out) / sigmas[1])
    return scores


def planted(seed: int, models: int, samples: int, queries: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Statistics (models, queries, samples) and independent membership; some samples degenerate in several ways."""
    rng = np.random.default_rng(seed)
    has = rng.random((models, samples)) < 0.5
    has[:, 0], has[:, 1] = True, False  # no OUT, no IN
    has[:, 2] = np.arange(models) == 1  # a single IN
    s = rng.normal(size=(models, queries, samples)) * rng.uniform(0.5, 2, samples) + 1.5 * has[:, None]
    s[:, :, 3] = 0.1  # no spread at all
    s[:, :, 4] = np.where(has[:, 4], 0.3, s[:, 0, 4])[:, None]  # no spread among IN
    return s, has


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("variance", ["global", "sample"])
@pytest.mark.parametrize("shadows", [3, 8, 70])
def test_lira_equals_the_loop(online: bool, variance: str, shadows: int) -> None:
    s, has = planted(shadows, shadows + 1, 40, queries=3)
    want = np.mean(
        [slow_lira(list(s[0, a]), s[1:, a], has[1:], online, variance == "sample") for a in range(3)], axis=0
    )
    got = fn.lira(s[0], s[1:], has[1:], online=online, variance=variance)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)
    one = fn.lira(s[0, 0], s[1:, 0], has[1:], online=online, variance=variance)
    np.testing.assert_allclose(
        one, slow_lira(list(s[0, 0]), s[1:, 0], has[1:], online, variance == "sample"), rtol=1e-9, atol=1e-9
    )


def test_auto_takes_own_variance_from_64_models_on() -> None:
    for shadows, variance in ((62, "global"), (63, "sample")):
        s, has = planted(1, shadows + 1, 30)
        args = (s[0, 0], s[1:, 0], has[1:])
        np.testing.assert_array_equal(fn.lira(*args), fn.lira(*args, variance=variance))


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("variance", ["auto", "global", "sample"])
@pytest.mark.parametrize(("models", "queries"), [(4, 1), (9, 2), (66, 1)])
def test_leave_one_out_equals_each_target(online: bool, variance: str, models: int, queries: int) -> None:
    s, has = planted(models, models, 50, queries)
    s[0, :, 6] = 1e5  # its removal cancels nearly all digits of the group's squares
    s[1, :, 7], s[2, :, 7] = INF, -INF
    got = fn.lira_leave_one_out(s, has, online=online, variance=variance)
    for j in range(models):
        rest = np.arange(models) != j
        want = fn.lira(s[j], s[rest], has[rest], online=online, variance=variance)
        np.testing.assert_allclose(got[j], want, rtol=1e-7, atol=1e-7)
    if queries == 1:
        np.testing.assert_array_equal(fn.lira_leave_one_out(s[:, 0], has, online=online, variance=variance), got)


def test_leave_one_out_with_targets_of_their_own() -> None:
    s, has = planted(0, 7, 40, queries=2)
    targets = s + np.random.default_rng(1).normal(size=s.shape)
    got = fn.lira_leave_one_out(s, has, targets=targets)
    for j in range(7):
        rest = np.arange(7) != j
        np.testing.assert_allclose(got[j], fn.lira(targets[j], s[rest], has[rest]), rtol=1e-9, atol=1e-9)


def test_infinite_statistics_keep_their_order() -> None:
    rng = np.random.default_rng(0)
    s, has = rng.normal(size=(16, 30)), rng.random((16, 30)) < 0.5
    s[has] += 2
    s[3, :10] = np.where(has[3, :10], INF, -INF)
    t = np.zeros(30)
    t[:3] = -INF, s[np.isfinite(s)].max(), INF
    assert np.isfinite(fn.lira(t, s, has)).all()
    same, member = np.tile(s[:, [20]], 30), np.tile(has[:, [20]], 30)  # scores differ by t alone
    scores = fn.lira(t, same, member, online=False)
    assert scores[0] < scores[1] < scores[2]
    hard = np.where(rng.random((16, 30)) < 0.5, INF, -INF)  # a model that gives labels only
    assert np.isfinite(fn.lira(hard[0], hard[1:], has[1:])).all()


def oracle_case(seed: int, mu: float, std_in: float, std_out: float) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    has = rng.random((65, 20_000)) < 0.5
    s = np.where(has, mu + std_in * rng.normal(size=has.shape), std_out * rng.normal(size=has.shape))
    ratio = norm.logpdf(s[0], mu, std_in) - norm.logpdf(s[0], 0, std_out)
    return s[0], s[1:], has[0], has[1:], ratio


def tpr(scores: np.ndarray, member: np.ndarray, fpr: float) -> float:
    threshold = np.sort(scores[~member])[::-1][int(fpr * (~member).sum())]
    return float((scores[member] > threshold).mean())


@pytest.mark.parametrize(("variance", "least", "most"), [("sample", 0.955, 0.968), ("global", 0.977, 0.985)])
def test_lira_against_the_oracle_likelihood_ratio(variance: str, least: float, most: float) -> None:
    t, s, member, has, ratio = oracle_case(0, 1.0, 1.0, 1.0)
    scores = fn.lira(t, s, has, variance=variance)
    assert least < spearmanr(scores, ratio)[0] < most
    ideal = norm.cdf(1 / math.sqrt(2))
    assert ideal - 0.025 < roc_auc_score(member, scores) < ideal + 0.007
    found = tpr(scores, member, 0.01)  # the oracle's Phi(1 - 2.326) = .092, less what estimated moments cost
    assert 0.065 < found < 0.105


def test_a_mix_up_of_the_two_spreads_is_caught() -> None:
    """The AUC hardly shows it, so scores are compared with the oracle's."""
    t, s, member, has, ratio = oracle_case(1, 1.0, 0.7, 1.0)
    right = fn.lira(t, s, has, variance="global")
    inside, outside = likelihood._groups(s, has)
    swapped = inside._replace(squares=outside.squares), outside._replace(squares=inside.squares)
    one_for_both = inside, outside._replace(squares=inside.squares)
    np.testing.assert_array_equal(likelihood._score(t, inside, outside, True, False), right)
    assert np.abs(right - ratio).mean() < 0.3
    for wrong in (swapped, one_for_both):
        scores = likelihood._score(t, *wrong, True, False)
        assert roc_auc_score(member, scores) > roc_auc_score(member, right) - 0.02
        assert np.abs(scores - ratio).mean() > 0.55
        assert np.corrcoef(scores, ratio)[0, 1] < 0.93 < 0.97 < np.corrcoef(right, ratio)[0, 1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target": np.zeros(4)}, r"\(K, N\)"),
        ({"target": np.full(5, np.nan)}, "NaN"),
        ({"shadows": np.zeros((3, 5, 5))}, "expected"),
        ({"shadows": np.zeros((0, 5)), "member": np.zeros((0, 5), bool)}, "expected"),
        ({"member": np.zeros((3, 5))}, "booleans"),
        ({"member": np.zeros((5, 3), bool)}, "booleans"),
        ({"member": np.zeros((3, 5), bool)}, "no asked sample has an IN shadow"),
        ({"member": np.ones((3, 5), bool)}, "no asked sample has an OUT shadow"),
        ({"shadows": np.ones((1, 5)), "member": np.eye(1, 5, dtype=bool)}, "has both an IN and an OUT shadow"),
        ({"shadows": np.ones((2, 5)), "member": np.eye(1, 5, dtype=bool).repeat(2, 0)}, "has both an IN and an OUT"),
        ({"variance": "own"}, "'auto'"),
    ],
)
def test_lira_refuses(change: dict, words: str) -> None:
    good = {"target": np.zeros(5), "shadows": np.ones((3, 5)), "member": np.eye(3, 5, dtype=bool)}
    fn.lira(**good)
    with pytest.raises(UserError, match=words):
        fn.lira(**(good | change))
    assert np.isfinite(fn.lira(np.zeros(5), np.ones((3, 5)), np.zeros((3, 5), bool), online=False)).all()


# --- no leak: one half; a balanced design: not ----------------------------------------------------------------------


def shadow_attacks(s: np.ndarray, has: np.ndarray) -> dict[str, np.ndarray]:
    """Every attack on the model of row 0, from margins."""
    lp = -np.logaddexp(0, -s)
    margins, probabilities = (s[0], s[1:], has[1:]), (lp[0], lp[1:], has[1:])
    population = fn.Population(*probabilities)
    return {
        "lira_global": fn.lira(*margins, variance="global"),
        "lira_sample": fn.lira(*margins, variance="sample"),
        "lira_offline": fn.lira(*margins, online=False),
        "rmia": fn.rmia(*probabilities, population),
        "rmia_offline": fn.rmia(*probabilities, population, offline_a=0.5),
        "difficulty_calibration": fn.difficulty_calibration(*probabilities),
        "attack_r": fn.attack_r(*margins),
    }


@pytest.mark.parametrize("shadows", [4, 16, 64])
def test_no_leak_gives_one_half(shadows: int) -> None:
    rng = np.random.default_rng(shadows)
    draws: dict[str, list[float]] = {}
    for _ in range(60):
        has = rng.random((shadows + 1, 200)) < 0.5
        margins = rng.normal(size=has.shape) + 2 * rng.normal(size=200)
        for name, scores in shadow_attacks(margins, has).items():
            draws.setdefault(name, []).append(roc_auc_score(has[0], scores))
    for name, aucs in draws.items():
        error = np.std(aucs, ddof=1) / math.sqrt(len(aucs))
        assert 0 < error < 0.01
        assert abs(np.mean(aucs) - 0.5) < 3.5 * error, name


def test_an_exactly_balanced_design_leaks() -> None:
    """With every sample in half of the models, the shadows' counts alone tell; LiRA's spreads feel them, too."""
    rng = np.random.default_rng(0)
    margins = rng.normal(size=(4, 5000))  # nothing to find
    balanced = np.argsort(rng.random((4, 5000)), axis=0) < 2
    independent = rng.random((4, 5000)) < 0.5
    assert roc_auc_score(balanced[0], -balanced[1:].sum(axis=0)) == 1.0
    assert roc_auc_score(balanced[0], fn.lira(margins[0], margins[1:], balanced[1:], variance="sample")) > 0.6
    assert abs(roc_auc_score(independent[0], -independent[1:].sum(axis=0)) - 0.5) < 0.03
    quiet = fn.lira(margins[0], margins[1:], independent[1:], variance="sample")
    assert abs(roc_auc_score(independent[0], quiet) - 0.5) < 0.03
