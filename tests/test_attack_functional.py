"""Pure scores against slow formulas: 120-digit decimals, exact fractions, loops over samples, planted distributions."""

from __future__ import annotations

import math
import statistics
from decimal import Decimal, getcontext
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import norm, spearmanr
from sklearn.metrics import roc_auc_score

from relaxloss.attacks import functional as fn
from relaxloss.attacks.functional import likelihood
from relaxloss.errors import UserError

getcontext().prec = 120
INF = math.inf


# --- statistics of one model ---------------------------------------------------------------------------------------


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


def test_auto_takes_own_variance_from_64_shadows_on() -> None:
    for shadows, variance in ((63, "global"), (64, "sample")):
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
        ({"variance": "own"}, "'auto'"),
    ],
)
def test_lira_refuses(change: dict, words: str) -> None:
    good = {"target": np.zeros(5), "shadows": np.ones((3, 5)), "member": np.eye(3, 5, dtype=bool)}
    fn.lira(**good)
    with pytest.raises(UserError, match=words):
        fn.lira(**(good | change))
    assert np.isfinite(fn.lira(np.zeros(5), np.ones((3, 5)), np.zeros((3, 5), bool), online=False)).all()


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
