"""Intervals against scipy, the formulas written out, and their coverage of the truth in simulated audits."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from membership_audits import audits, gaussians, rounded
from relaxloss import metrics

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


@pytest.mark.parametrize("level", [0.95, 0.999])
@pytest.mark.parametrize(
    ("rates", "sizes"),
    [((0.9, 0.6), (50, 50)), ((1.0, 0.95), (1000, 1000)), ((0.956, 0.956), (50, 5000)), ((0.956, 0.956), (5000, 50)),
     ((0.98, 0.956), (50, 5000)), ((0.99, 0.9), (50, 5000)), ((0.98, 0.98), (100, 2000))],
)  # fmt: skip
def test_auc_interval_covers_for_scores_of_two_values(
    rates: tuple[float, float], sizes: tuple[int, int], level: float
) -> None:
    """As the correctness attack gives them: with few errors on a side, or none. Clopper-Pearson covers at least."""
    rng = np.random.default_rng(2)
    member = np.arange(sum(sizes)) < sizes[0]
    draws = rng.random((1000, len(member))) < np.where(member, *rates)
    true = (1 + rates[0] - rates[1]) / 2
    covered = np.mean([low <= true <= high for low, high in (metrics.auc_interval(s, member, level) for s in draws)])
    assert covered >= level - 1.6 * math.sqrt(level * (1 - level) / 1000)
    if level == 0.95:
        assert covered <= 0.99


@pytest.mark.parametrize(
    ("top", "sizes"), [((0.98, 0.9), (50, 5000)), ((0.9, 0.98), (5000, 50)), ((0.97, 0.97), (40, 40))]
)
def test_auc_interval_covers_where_one_side_shows_no_variance(top: tuple[float, float], sizes: tuple[int, int]) -> None:
    """Most scores are the highest of three: 50 members may all have it."""
    rng = np.random.default_rng(2)
    member = np.arange(sum(sizes)) < sizes[0]
    rates = np.where(member, *top)
    draws = np.where(rng.random((400, len(member))) < rates, 2, rng.integers(0, 2, (400, len(member))))
    (a, b), rest = top, np.array([1 - each for each in top])
    true = a * (1 - b) + a * b / 2 + rest[0] * rest[1] / 2
    covered = np.mean([low <= true <= high for low, high in (metrics.auc_interval(s, member) for s in draws)])
    assert covered >= 0.93


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
        below, above = metrics.tpr_interval(s, member, fpr, threshold="estimated")
        covered.append(below <= sought <= above)
    # Clopper-Pearson errs on the side of caution where the counts are small
    assert low <= np.mean(covered) <= (0.975 if n * fpr >= 50 else 0.995)


@pytest.mark.parametrize(("n", "mu", "fpr"), [(1000, 2, 0.01), (1000, 1, 0.1), (500, 0, 0.2), (200, 1, 0.05)])
def test_tpr_interval_covers_the_tpr_at_the_true_fpr(n: int, mu: float, fpr: float) -> None:
    check_tpr_coverage(n, mu, fpr, low=0.93)


@pytest.mark.parametrize("fpr", [0.01, 0.1, 0.2])
def test_tpr_interval_covers_with_ties(fpr: float) -> None:
    """The TPR sought is then that of a coarse threshold, whose own FPR may lie far below."""
    check_tpr_coverage(1000, 1.0, fpr, low=0.93, step=0.5)


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
        low, high = metrics.tpr_interval(s, member, fpr)
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
    low, high = metrics.tpr_interval(*audit, fpr, threshold="estimated")
    given_low, given_high = metrics.tpr_interval(*audit, fpr)
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
    wrong = np.arange(120) < 30  # 10 of 40 members missed, 20 of 80 others called
    low, high = metrics.balanced_accuracy_interval(member ^ wrong, member, 0.5)
    (tpr_low, tpr_high), (fpr_low, fpr_high) = metrics.wilson(30, 40), metrics.wilson(20, 80)
    assert low == pytest.approx(0.75 - math.hypot(0.75 - tpr_low, fpr_high - 0.25) / 2)
    assert high == pytest.approx(0.75 + math.hypot(tpr_high - 0.75, 0.25 - fpr_low) / 2)
    assert metrics.balanced_accuracy_interval(member, member, 0.5)[1] == 1.0


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
