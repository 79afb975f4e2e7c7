"""Intervals over records and models: they cover where those that count each score once do not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from relaxloss import metrics
from relaxloss.errors import UserError
from relaxloss.metrics import Clusters

FPR = 0.01


def game(seed: int, records: int = 200, models: int = 16, *, sensitive: float = 0.0, model: float = 0.0):
    """Scores of every record under every model; a record's and a model's own effect come with membership."""
    rng = np.random.default_rng(seed)
    member = rng.random((models, records)) < 0.5
    effect = 1 + sensitive * rng.normal(size=records) + model * rng.normal(size=(models, 1))
    scores = effect * member + rng.normal(size=(models, records))
    clusters = Clusters(np.tile(np.arange(records), models), np.repeat(np.arange(models), records))
    return scores.reshape(-1), member.reshape(-1), clusters


@pytest.mark.parametrize(
    ("sensitive", "model", "naive_fails"), [(0.0, 0.0, False), (2.0, 0.0, True), (0.0, 1.0, True), (1.0, 0.3, True)]
)
def test_intervals_cover_in_95_percent_of_simulated_games(sensitive: float, model: float, naive_fails: bool) -> None:
    """Closed form: members are N(1, 1 + sensitive² + model²), the others N(0, 1)."""
    spread, draws = np.sqrt(1 + sensitive**2 + model**2), 80
    auc = stats.norm.cdf(1 / np.hypot(spread, 1))
    tpr = stats.norm.sf((stats.norm.isf(FPR) - 1) / spread)
    middle = (stats.norm.cdf(0.5 / spread) + stats.norm.cdf(0.5)) / 2  # balanced accuracy at the threshold ½
    covered = np.zeros(4)
    for draw in range(draws):
        scores, member, clusters = game(draw, sensitive=sensitive, model=model)
        found = (
            (metrics.clustered_auc_interval(scores, member, clusters), auc),
            (metrics.clustered_tpr_interval(scores, member, clusters, FPR), tpr),
            (metrics.clustered_balanced_accuracy_interval(scores, member, 0.5, clusters), middle),
            (metrics.auc_interval(scores, member), auc),
        )
        covered += [low <= truth <= high for (low, high), truth in found]
    least = stats.binom.ppf(0.001, draws, 0.95)
    assert (covered[:3] >= least).all(), covered
    assert (covered[3] < 0.75 * draws) == naive_fails, covered


def test_independent_scores_have_nearly_the_plain_intervals() -> None:
    """One record per score: what is added is Student's t of the clusters only."""
    rng = np.random.default_rng(0)
    member = np.arange(4000) % 2 == 0
    scores = rng.normal(size=4000) + member
    clusters = Clusters(np.arange(4000), rng.integers(0, 200, 4000))
    for mine, plain in (
        (metrics.clustered_auc_interval(scores, member, clusters), metrics.auc_interval(scores, member)),
        (
            metrics.clustered_tpr_interval(scores, member, clusters, FPR),
            metrics.tpr_interval(scores, member, FPR, threshold="estimated"),
        ),
    ):
        width = (mine[1] - mine[0]) / (plain[1] - plain[0])
        assert 0.97 < width < 1.25
        assert mine[0] <= plain[0] + 0.005
        assert mine[1] >= plain[1] - 0.005


def test_scores_repeated_over_models_count_once() -> None:
    """If all 16 models say the same, 16 times the scores tell no more than once."""
    rng = np.random.default_rng(1)
    once, member = rng.normal(size=500) + (np.arange(500) < 250), np.arange(500) < 250
    clusters = Clusters(np.tile(np.arange(500), 16), np.repeat(np.arange(16), 500))
    hits = np.tile(once > 1, 16)
    assert metrics.design_effect(hits, clusters) == pytest.approx(16, rel=0.01)
    low, high = metrics.clustered_auc_interval(np.tile(once, 16), np.tile(member, 16), clusters)
    plain = metrics.auc_interval(once, member)
    assert high - low == pytest.approx(plain[1] - plain[0], rel=0.12)  # t with 15 degrees of freedom


def test_the_paired_difference_holds_the_truth_and_equal_attacks_differ_by_nothing() -> None:
    scores, member, clusters = game(3, sensitive=1.0)
    low, high = metrics.clustered_auc_difference_interval(scores, scores, member, clusters)
    assert low == pytest.approx(0, abs=1e-12)
    assert high == pytest.approx(0, abs=1e-12)
    weaker = scores + np.random.default_rng(0).normal(size=len(scores))
    low, high = metrics.clustered_auc_difference_interval(scores, weaker, member, clusters)
    assert 0 < low < metrics.auc(scores, member) - metrics.auc(weaker, member) < high


@pytest.mark.parametrize("shift", [-50.0, 50.0])
def test_none_and_all_found_keep_a_width(shift: float) -> None:
    scores, member, clusters = game(0)
    low, high = metrics.clustered_tpr_interval(scores + shift * member, member, clusters, FPR)
    assert high - low > 0.005  # one of 200 records, not one of 1,600 scores
    assert (low, high)[int(shift > 0)] == float(shift > 0)


def test_clusters_of_another_length_are_refused() -> None:
    scores, member, clusters = game(0)
    with pytest.raises(UserError, match="clusters have shapes"):
        metrics.clustered_auc_interval(scores, member, Clusters(clusters.records[1:], clusters.models))
