"""Metrics against scikit-learn, scipy, brute force and the formulas; intervals against simulated audits."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from relaxloss import metrics
from relaxloss.errors import UserError
from relaxloss.metrics.curve import allowed

LEVELS = st.sampled_from([-math.inf, -2.0, -1.0, -0.5, 0.0, 0.25, 1.0, 3.0, math.inf])


@st.composite
def audits(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Few samples with many ties and infinities, both groups present."""
    member = draw(st.lists(st.booleans(), min_size=2, max_size=30).filter(lambda m: any(m) and not all(m)))
    return np.array(draw(st.lists(LEVELS, min_size=len(member), max_size=len(member)))), np.array(member)


def gaussians(seed: int, n: int, mu: float, step: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    member = np.arange(n) % 2 == 0
    return rounded(rng.normal(size=n) + mu * member, step), member


def rounded(scores: np.ndarray, step: float) -> np.ndarray:
    return np.floor(scores / step) * step if step else scores


# Points


@pytest.mark.parametrize("scores", ["continuous", "tied", "binary", "constant", "perfect", "reversed"])
def test_auc_and_roc_equal_scikit_learn(scores: str) -> None:
    s, member = gaussians(0, 501, 1.0)
    s = {
        "continuous": s,
        "tied": np.round(s),
        "binary": (s > 0.5) * 1.0,
        "constant": s * 0,
        "perfect": member * 2.0,
        "reversed": member * -2.0,
    }[scores]
    assert metrics.auc(s, member) == pytest.approx(sklearn.metrics.roc_auc_score(member, s), abs=1e-12)
    for ours, theirs in zip(
        metrics.roc(s, member), sklearn.metrics.roc_curve(member, s, drop_intermediate=False), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


@given(audits())
def test_auc_is_the_share_of_pairs_won(audit: tuple[np.ndarray, np.ndarray]) -> None:
    s, member = audit
    a, b = s[member][:, None], s[~member][None]
    assert metrics.auc(s, member) == pytest.approx(((a > b) + 0.5 * (a == b)).mean(), abs=1e-12)
    assert metrics.tied_share(s, member) == pytest.approx((a == b).mean(), abs=1e-12)


@given(audits(), st.sampled_from([0.0, 0.001, 0.1, 0.2, 0.29, 1 / 3, 0.5, 0.7, 1.0]))
def test_tpr_at_fpr_is_the_best_of_all_thresholds(audit: tuple[np.ndarray, np.ndarray], fpr: float) -> None:
    s, member = audit
    rates = [(0.0, 0.0)] + [(np.mean(s[~member] >= t), np.mean(s[member] >= t)) for t in s]
    assert metrics.tpr_at_fpr(s, member, fpr) == max(tpr for rate, tpr in rates if rate <= fpr)


def test_the_allowed_false_positives_are_the_largest_count_that_keeps_the_rate() -> None:
    for n, fpr in itertools.product([*range(1, 130), 12_000], [0, 0.001, 0.01, 0.07, 0.1, 0.29, 0.3, 0.57, 0.999, 1]):
        assert allowed(n, fpr) == max(k for k in range(n + 1) if k / n <= fpr)
    assert [metrics.resolvable(n, 0.001) for n in (9_999, 10_000, 12_000)] == [False, True, True]


@given(audits())
def test_best_threshold_is_the_highest_score_that_no_other_beats(audit: tuple[np.ndarray, np.ndarray]) -> None:
    s, member = audit
    best = metrics.best_threshold(s, member)
    accuracy = {t: metrics.balanced_accuracy(s, member, t) for t in s}
    for t, value in accuracy.items():
        assert value == pytest.approx(sklearn.metrics.balanced_accuracy_score(member, s >= t), abs=1e-12)
    top = max(accuracy.values())
    assert best == max(t for t, value in accuracy.items() if value >= top - 1e-12)


@given(audits(), st.data())
def test_best_thresholds_are_those_of_each_class_or_the_global_one(
    audit: tuple[np.ndarray, np.ndarray], data: st.DataObject
) -> None:
    s, member = audit
    labels = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(s), max_size=len(s))))
    found = metrics.best_thresholds(s, member, labels, 5)
    for c in range(5):
        mine = labels == c
        both = member[mine].any() and not member[mine].all()
        assert found[c] == (
            metrics.best_threshold(s[mine], member[mine]) if both else metrics.best_threshold(s, member)
        )
    theirs = sklearn.metrics.balanced_accuracy_score(member, s >= found[labels])
    assert metrics.balanced_accuracy(s, member, found[labels]) == pytest.approx(theirs, abs=1e-12)


TRANSFORMS: list[Callable[[np.ndarray], np.ndarray]] = [np.arctan, lambda s: 3 * s - 1, lambda s: np.cbrt(s)]


@given(audits(), st.sampled_from(TRANSFORMS))
def test_only_the_order_counts(
    audit: tuple[np.ndarray, np.ndarray], transform: Callable[[np.ndarray], np.ndarray]
) -> None:
    s, member = audit
    t = transform(s)
    for measure in (metrics.auc, metrics.auc_interval, metrics.tied_share):
        assert measure(s, member) == measure(t, member)
    for fpr in (0.0, 0.1, 0.5):
        assert metrics.tpr_at_fpr(s, member, fpr) == metrics.tpr_at_fpr(t, member, fpr)
        assert metrics.tpr_interval(s, member, fpr) == metrics.tpr_interval(t, member, fpr)
    assert transform(np.array([metrics.best_threshold(s, member)]))[0] == metrics.best_threshold(t, member)


@given(audits())
def test_swapping_sides_mirrors_the_auc_and_its_interval(audit: tuple[np.ndarray, np.ndarray]) -> None:
    s, member = audit
    low, high = metrics.auc_interval(s, member)
    for mirrored in ((-s, member), (s, ~member)):
        assert metrics.auc(*mirrored) == pytest.approx(1 - metrics.auc(s, member), abs=1e-12)
        assert metrics.auc_interval(*mirrored) == pytest.approx((1 - high, 1 - low), abs=1e-9)
    assert metrics.auc_interval(-s, ~member) == pytest.approx((low, high), abs=1e-9)
    assert 0 <= low <= metrics.auc(s, member) <= high <= 1
    assert high - low > 1e-3


# Intervals


def kernel(s: np.ndarray, member: np.ndarray) -> np.ndarray:
    a, b = s[member][:, None], s[~member][None]
    return (a > b) + 0.5 * (a == b)


def test_auc_interval_equals_the_formula_written_out() -> None:
    s, member = gaussians(1, 90, 1.0, step=0.5)
    psi = kernel(s, member)
    n, m = psi.shape
    area = sum(psi[i, j] for i in range(n) for j in range(m)) / (n * m)
    parts = [
        sum((psi[i].mean() - area) ** 2 for i in range(n)) / (n - 1) / n,
        sum((psi[:, j].mean() - area) ** 2 for j in range(m)) / (m - 1) / m,
    ]
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (n - 1) + parts[1] ** 2 / (m - 1))
    half = stats.t.ppf(0.95, freedom) * math.sqrt(sum(parts)) / (area * (1 - area))
    odds = [math.log(area / (1 - area)) + sign * half for sign in (-1, 1)]
    expected = [1 / (1 + math.exp(-o)) for o in odds]
    assert metrics.auc_interval(s, member, level=0.9) == pytest.approx(expected, rel=1e-9)


def test_degenerate_auc_intervals_are_exact_and_never_certain() -> None:
    member = np.arange(100) < 50
    for s, expected in (
        (member * 1.0, (0.025 ** (1 / 50), 1.0)),
        (~member * 1.0, (0.0, 1 - 0.025 ** (1 / 50))),
        (member * 0.0, (0.5 - (1 - 0.05 ** (1 / 50)) / 2, 0.5 + (1 - 0.05 ** (1 / 50)) / 2)),
    ):
        assert metrics.auc_interval(s, member) == pytest.approx(expected, abs=1e-12)
    one = np.array([True] + [False] * 99)
    low, high = metrics.auc_interval(np.arange(100.0), one)
    assert low == 0.0
    assert high == pytest.approx(0.975)  # one member, below everybody: AUC 0, and little is known


def truth(mu: float, step: float) -> tuple[float, np.ndarray, np.ndarray]:
    """Closed form: AUC, and the survival functions of the non-members and members at every threshold, upwards."""
    edges = np.arange(-10, 14, step)
    others, members = (np.diff(stats.norm.cdf(edges, shift)) for shift in (0, mu))
    area = float((members * (np.cumsum(others) - others / 2)).sum())
    return area, np.cumsum(others[::-1])[::-1], np.cumsum(members[::-1])[::-1]


def check_auc_coverage(n: int, area: float, step: float, audits: int = 2000) -> None:
    mu = math.sqrt(2) * stats.norm.ppf(area)
    true = truth(mu, step)[0] if step else area
    rng = np.random.default_rng([n, round(100 * area), round(10 * step)])
    member = np.arange(n) % 2 == 0
    draws = rounded(rng.normal(size=(audits, n)) + mu * member, step)
    covered = np.mean([low <= true <= high for low, high in (metrics.auc_interval(s, member) for s in draws)])
    assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize(
    ("n", "area", "step"), [*itertools.product([100], [0.5, 0.8, 0.95], [0, 0.5, 2]), (1000, 0.95, 2), (1000, 0.5, 0)]
)
def test_auc_interval_covers_in_simulated_audits(n: int, area: float, step: float) -> None:
    check_auc_coverage(n, area, step)


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 0.5, 2])
@pytest.mark.parametrize("area", [0.5, 0.6, 0.7, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("n", [100, 300, 1000, 3000, 10_000])
def test_auc_interval_covers_over_the_whole_grid(n: int, area: float, step: float) -> None:
    check_auc_coverage(n, area, step)


@pytest.mark.parametrize(("rates", "n"), [((0.9, 0.6), 100), ((1.0, 0.95), 2000)])
def test_auc_interval_covers_for_scores_of_two_values(rates: tuple[float, float], n: int) -> None:
    """As the correctness attack gives them; at (1, .95) all members score alike."""
    rng = np.random.default_rng(2)
    member = np.arange(n) % 2 == 0
    draws = rng.random((1000, n)) < np.where(member, *rates)
    true = (1 + rates[0] - rates[1]) / 2
    covered = np.mean([low <= true <= high for low, high in (metrics.auc_interval(s, member) for s in draws)])
    assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize(("n", "correlation"), [(100, 0.0), (100, 0.9), (400, 0.7)])
def test_auc_difference_interval_covers(n: int, correlation: float) -> None:
    rng = np.random.default_rng(3)
    member = np.arange(n) % 2 == 0
    noise = rng.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], size=(1000, n))
    draws = noise + member[:, None] * [1.6, 0.8]
    true = stats.norm.cdf(1.6 / math.sqrt(2)) - stats.norm.cdf(0.8 / math.sqrt(2))
    intervals = np.array([metrics.auc_difference_interval(d[:, 0], d[:, 1], member) for d in draws])
    assert 0.93 <= np.mean((intervals[:, 0] <= true) & (true <= intervals[:, 1])) <= 0.97
    unpaired = np.diff([metrics.auc_interval(d[:, 0], member) for d in draws[:50]]).mean()
    if correlation == 0.9:
        assert np.diff(intervals[:50]).mean() < unpaired  # pairing helps: narrower than one AUC's own interval


def test_auc_difference_interval_at_the_edges() -> None:
    s, member = gaussians(4, 200, 1.0)
    low, high = metrics.auc_difference_interval(s, np.exp(s), member)
    assert low == pytest.approx(0, abs=1e-9)
    assert high - low < 1e-9  # the same attack in another scale
    low, high = metrics.auc_difference_interval(member * 1.0, member * 2.0 + s * 0.01, member)
    assert low <= 0 <= high
    assert high - low > 0.02  # two attacks that never failed are not proved equal
    assert metrics.auc_difference_interval(s, -s, member) == pytest.approx(
        [-x for x in metrics.auc_difference_interval(-s, s, member)[::-1]]
    )


def check_tpr_coverage(n: int, mu: float, fpr: float, low: float, audits: int = 2000, step: float = 0.0) -> None:
    rng = np.random.default_rng([n, round(10 * mu), round(1000 * fpr)])
    if step:
        _, false, true = truth(mu, step)
        sought = true[false <= fpr].max()
    else:
        sought = stats.norm.sf(stats.norm.isf(fpr) - mu)
    member = np.arange(2 * n) % 2 == 0
    covered = []
    for _ in range(audits):
        s = rounded(rng.normal(size=2 * n) + mu * member, step)
        below, above = metrics.tpr_interval(s, member, fpr)
        covered.append(below <= sought <= above)
    # Clopper-Pearson errs on the side of caution where the counts are small
    assert low <= np.mean(covered) <= (0.975 if n * fpr >= 50 else 0.995)


@pytest.mark.parametrize(("n", "mu", "fpr"), [(1000, 2, 0.01), (1000, 1, 0.1), (500, 0, 0.2), (200, 1, 0.05)])
def test_tpr_interval_covers_the_tpr_at_the_true_fpr(n: int, mu: float, fpr: float) -> None:
    check_tpr_coverage(n, mu, fpr, low=0.93)


@pytest.mark.slow
@pytest.mark.parametrize("mu", [0, 1, 2])
@pytest.mark.parametrize(
    ("n", "fpr"), [(50, 0.2), (200, 0.05), (1000, 0.01), (5000, 0.01), (5000, 0.1), (10_000, 0.001), (12_000, 0.001)]
)
def test_tpr_interval_covers_over_the_whole_grid(n: int, mu: float, fpr: float) -> None:
    check_tpr_coverage(n, mu, fpr, low=0.93)


def test_clopper_pearson_of_a_given_threshold_covers_its_own_tpr_and_is_too_sure_of_the_one_sought() -> None:
    rng = np.random.default_rng(5)
    n, mu, fpr = 1000, 2.0, 0.01
    member = np.arange(2 * n) % 2 == 0
    sought = stats.norm.sf(stats.norm.isf(fpr) - mu)
    own, aimed = [], []
    for _ in range(2000):
        s = rng.normal(size=2 * n) + mu * member
        low, high = metrics.tpr_interval(s, member, fpr, threshold="given")
        threshold = np.sort(s[~member])[-11]  # 10 of 1,000 may lie above
        hits = int((s[member] > threshold).sum())
        assert hits / n == metrics.tpr_at_fpr(s, member, fpr)
        own.append(low <= stats.norm.sf(threshold - mu) <= high)
        aimed.append(low <= sought <= high)
    assert 0.93 <= np.mean(own) <= 0.97
    assert np.mean(aimed) < 0.6  # why "estimated" is the default
    reference = stats.binomtest(hits, n).proportion_ci(0.95, method="exact")
    assert (low, high) == pytest.approx((reference.low, reference.high), rel=1e-9)


@given(audits(), st.sampled_from([0.0, 0.05, 0.3, 1.0]))
def test_the_estimated_interval_holds_the_given_one_and_the_point(
    audit: tuple[np.ndarray, np.ndarray], fpr: float
) -> None:
    point = metrics.tpr_at_fpr(*audit, fpr)
    low, high = metrics.tpr_interval(*audit, fpr)
    given_low, given_high = metrics.tpr_interval(*audit, fpr, threshold="given")
    assert 0 <= low <= given_low + 1e-12
    assert given_low <= point <= given_high
    assert given_high - 1e-12 <= high <= 1
    assert high - low > 1e-3


def test_proportions_equal_scipy() -> None:
    for n in (1, 7, 200):
        for hits, level in itertools.product({0, 1, n // 2, n}, (0.8, 0.95)):
            test = stats.binomtest(hits, n)
            for ours, method in ((metrics.clopper_pearson, "exact"), (metrics.wilson, "wilson")):
                theirs = test.proportion_ci(level, method=method)
                assert ours(hits, n, level) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_balanced_accuracy_interval_covers() -> None:
    rng = np.random.default_rng(6)
    member = np.arange(120) % 3 == 0
    true = (stats.norm.sf(0.5, 1.5) + stats.norm.cdf(0.5)) / 2
    draws = rng.normal(size=(1500, 120)) + 1.5 * member
    intervals = np.array([metrics.balanced_accuracy_interval(s, member, 0.5) for s in draws])
    assert 0.93 <= np.mean((intervals[:, 0] <= true) & (true <= intervals[:, 1])) <= 0.97
    low, high = metrics.balanced_accuracy_interval(member * 1.0, member, 0.5)
    assert low < 0.96
    assert high == 1.0


# One run


def p_value(m: int, r: int, v: int, epsilon: float, delta: float) -> float:
    """The formula with exact binomial coefficients and plain loops."""
    q = 1 / (1 + math.exp(-epsilon))
    mass = [math.comb(r, k) * q**k * (1 - q) ** (r - k) for k in range(r + 1)]
    worst = max((sum(mass[v - k] for k in range(1, i + 1)) / i for i in range(1, v + 1)), default=0.0)
    return sum(mass[v:]) + 2 * m * delta * worst


def test_one_run_epsilon_has_the_published_value() -> None:
    assert metrics.one_run_epsilon(1000, 100, 75, 1e-4, 0.05) == pytest.approx(0.673, abs=5e-4)


@pytest.mark.parametrize(
    ("m", "r", "v", "delta"),
    [(1000, 100, 75, 1e-4), (100, 100, 90, 0.0), (50, 20, 20, 1e-5), (200, 60, 40, 1e-6), (40, 40, 38, 1e-3)],
)
def test_one_run_epsilon_is_where_the_p_value_reaches_beta(m: int, r: int, v: int, delta: float) -> None:
    epsilon = metrics.one_run_epsilon(m, r, v, delta, 0.05)
    assert epsilon > 0.1
    assert p_value(m, r, v, epsilon - 1e-6, delta) < 0.05 <= p_value(m, r, v, epsilon + 1e-6, delta)


def test_one_run_epsilon_is_zero_without_evidence_and_overstates_at_most_as_often_as_beta() -> None:
    for v in (0, 10, 50, 55):
        assert metrics.one_run_epsilon(100, 100, v, 1e-5, 0.05) == 0.0
    assert metrics.one_run_epsilon(100, 0, 0, 1e-5, 0.05) == 0.0
    for true in (0.0, 0.5, 2.0):  # randomised response with ε attains the bound
        q = 1 / (1 + math.exp(-true))
        too_high = [v for v in range(81) if metrics.one_run_epsilon(80, 80, v, 0.0, 0.05) > true]
        assert 0.01 < stats.binom.pmf(too_high, 80, q).sum() <= 0.05


# Utility


def test_losses_equal_torch_and_keep_tiny_ones() -> None:
    rng = np.random.default_rng(7)
    z, y = rng.normal(size=(500, 7)) * 20, rng.integers(0, 7, 500)
    z[:100][np.arange(7)[None] == (y[:100, None] + 1) % 7] = -np.inf
    theirs = torch.nn.functional.cross_entropy(torch.tensor(z), torch.tensor(y), reduction="none").numpy()
    np.testing.assert_allclose(metrics.losses(z, y), theirs, atol=1e-12)
    assert metrics.losses([[60.0, 0.0, 0.0]], [0])[0] == pytest.approx(2 * math.exp(-60), rel=1e-12)  # torch says 0
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


def test_calibration_error_equals_a_loop_over_bins() -> None:
    rng = np.random.default_rng(9)
    z, y = rng.normal(size=(800, 4)) * 2, rng.integers(0, 4, 800)
    p = torch.softmax(torch.tensor(z), 1).numpy()
    expected = 0.0
    for b in range(10):
        inside = [i for i in range(800) if b / 10 < p[i].max() <= (b + 1) / 10]
        if inside:
            expected += (
                abs(np.mean([p[i].argmax() == y[i] for i in inside]) - p[inside].max(1).mean()) * len(inside) / 800
            )
    assert expected > 0.1
    assert metrics.calibration_error(z, y, bins=10) == pytest.approx(expected, abs=1e-12)
    assert metrics.calibration_error([[0.0, -np.inf]], [0]) == 0.0


# Bad input


@pytest.mark.parametrize(
    ("scores", "member", "said"),
    [
        ([1.0, 2.0], [True], "shape"),
        ([[1.0, 2.0]], [[True, False]], "shape"),
        ([1.0, math.nan], [True, False], "NaN"),
        ([1.0, 2.0], [True, True], "2 of 2 samples are members"),
        ([1.0, 2.0], [0, 0], "0 of 2 samples are members"),
        ([], [], "0 of 0"),
        ([1.0, 2.0], [1, 2], "0 and 1"),
        ([1.0, 2.0], ["yes", "no"], "0 and 1"),
        ([1.0, 2.0], [1.0, math.nan], "0 and 1"),
        (["a", "b"], [True, False], "numbers"),
        ([1.0, 2.0], [None, True], "0 and 1"),
    ],
)
def test_bad_scores_and_members_are_refused_by_all(scores: list, member: list, said: str) -> None:
    for measure in (metrics.auc, metrics.roc, metrics.tpr_at_fpr, metrics.auc_interval, metrics.best_threshold):
        with pytest.raises(UserError, match=said):
            measure(scores, member)
    for call in (
        lambda: metrics.balanced_accuracy(scores, member, 0.0),
        lambda: metrics.best_thresholds(scores, member, [0, 0], 1),
        lambda: metrics.auc_difference_interval(scores, scores, member),
    ):
        with pytest.raises(UserError, match=said):
            call()


@pytest.mark.parametrize(
    "call",
    [
        lambda s, m: metrics.tpr_at_fpr(s, m, 1.5),
        lambda s, m: metrics.tpr_at_fpr(s, m, math.nan),
        lambda s, m: metrics.auc_interval(s, m, level=95),
        lambda s, m: metrics.tpr_interval(s, m, level=0),
        lambda s, m: metrics.tpr_interval(s, m, threshold="guessed"),
        lambda s, m: metrics.balanced_accuracy(s, m, [0.0]),
        lambda s, m: metrics.balanced_accuracy(s, m, math.nan),
        lambda s, m: metrics.best_thresholds(s, m, [0, 1, 2], 2),
        lambda s, m: metrics.best_thresholds(s, m, [0.0, 1.0, 1.0], 2),
        lambda s, m: metrics.best_thresholds(s, m, [0, 1], 2),
        lambda s, m: metrics.auc_difference_interval(s, s[:2], m),
        lambda s, m: metrics.resolvable(0, 0.1),
        lambda s, m: metrics.wilson(3, 2),
        lambda s, m: metrics.clopper_pearson(0, 0),
        lambda s, m: metrics.one_run_epsilon(10, 11, 5, 0.0, 0.05),
        lambda s, m: metrics.one_run_epsilon(10, 5, 6, 0.0, 0.05),
        lambda s, m: metrics.one_run_epsilon(10, 5, 3, 0.0, 1.0),
        lambda s, m: metrics.one_run_epsilon(10, 5, 3, -0.1, 0.05),
        lambda s, m: metrics.losses([[0.0, math.nan]], [0]),
        lambda s, m: metrics.losses([[0.0, math.inf]], [0]),
        lambda s, m: metrics.losses([[-math.inf, -math.inf]], [0]),
        lambda s, m: metrics.losses([[0.0, 1.0]], [2]),
        lambda s, m: metrics.losses([[0.0, 1.0]], [-1]),
        lambda s, m: metrics.losses([[0.0, 1.0]], [0.0]),
        lambda s, m: metrics.losses([[0.0, 1.0]], [0, 1]),
        lambda s, m: metrics.losses([["a", "b"]], [0]),
        lambda s, m: metrics.top_k([[0.0, 1.0]], [0], 3),
        lambda s, m: metrics.top_k([[0.0, 1.0]], [0], 0),
        lambda s, m: metrics.calibration_error([[0.0, 1.0]], [0], bins=0),
    ],
)
def test_other_bad_arguments_are_refused(call: Callable[[list, list], object]) -> None:
    with pytest.raises(UserError, match=r"expected|numbers"):
        call([0.0, 1.0, 2.0], [False, True, True])


def test_arguments_are_left_as_they_were() -> None:
    s, member = gaussians(10, 50, 1.0)
    before = s.copy(), member.copy()
    for measure in (metrics.auc, metrics.roc, metrics.tied_share, metrics.best_threshold, metrics.tpr_interval):
        measure(s, member)
    metrics.losses(z := np.ones((2, 2)), [0, 1])
    assert (z == 1).all()
    assert (s == before[0]).all()
    assert (member == before[1]).all()


@settings(max_examples=20)
@given(audits())
def test_numbers_of_other_types_give_the_same(audit: tuple[np.ndarray, np.ndarray]) -> None:
    s, member = audit
    expected = metrics.auc(s, member)
    assert metrics.auc(s.astype(np.float32), member.astype(np.uint8)) == expected
    assert metrics.auc(s.tolist(), member.tolist()) == expected
    assert metrics.auc(torch.tensor(s), torch.tensor(member)) == expected


def test_best_threshold_is_a_hundred_times_faster_than_trying_every_score() -> None:
    s, member = gaussians(11, 40_000, 1.0)
    members, others = s[member], s[~member]
    metrics.best_threshold(s, member)
    fast = min(timed(lambda: metrics.best_threshold(s, member)) for _ in range(5))
    tried = s[::100]  # one score in a hundred, so the naive search is charged a hundredth of its time
    slow = min(timed(lambda: max((members >= t).mean() - (others >= t).mean() for t in tried)) for _ in range(2))
    assert 100 * slow / fast >= 100


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
