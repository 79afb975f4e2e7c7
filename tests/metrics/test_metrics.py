"""Metrics against scikit-learn, brute force and the formulas; bad input; speed."""

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

from membership_audits import audits, gaussians
from relaxloss import metrics
from relaxloss.errors import UserError
from relaxloss.metrics.curve import allowed

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


@pytest.mark.parametrize("n", [1_000, 7])
def test_rates_are_the_counts_over_the_size_to_the_last_digit(n: int) -> None:
    """So that who looks for ``fpr <= k / n`` finds the point with k false positives."""
    scores, member = np.arange(2.0 * n), np.arange(2 * n) % 2 == 0
    fpr, tpr, _ = metrics.roc(scores, member)
    assert set(fpr) == set(tpr) == {k / n for k in range(n + 1)}
    assert all(tpr[fpr <= k / n].max() == metrics.tpr_at_fpr(scores, member, k / n) for k in range(n + 1))


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


def test_ties_at_the_threshold_are_counted_where_they_hide_half_of_the_false_positives() -> None:
    others = np.r_[np.arange(960.0), np.full(40, 2000.0)]
    member, scores = np.arange(1100) < 100, np.r_[np.full(100, 3000.0), others]
    assert metrics.tied_top(scores, member, 0.05) == 0, "50 permitted: the 40 and ten below them"
    assert metrics.tied_top(scores, member, 0.01) == 40, "10 permitted, and no threshold has between 0 and 40"
    scores[100 : 100 + 30] = 2500.0  # and 30 above: 30 permitted are reached, of 61 a half is not
    assert metrics.tied_top(scores, member, 0.03) == 0
    assert metrics.tied_top(scores, member, 0.061) == 40
    assert metrics.tied_top(scores, member, 0.059) == 0
