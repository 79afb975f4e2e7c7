"""What scores tell of an evaluation: the same of a comparison and of an audit."""

from __future__ import annotations

import numpy as np

from relaxloss import metrics
from relaxloss.evaluation import score_facts
from relaxloss.evaluation.flags import Facts, raised

N = 2000
MEMBER = np.repeat([True, False], N)
RNG = np.random.default_rng(0)
RIGHT = np.r_[RNG.random(N) < 0.95, RNG.random(N) < 0.6].astype(float)  # an AUC of .675
NOTHING = RNG.normal(size=2 * N)


def flagged(**scores: np.ndarray) -> set[str]:
    return {flag.name for flag in raised(Facts(**score_facts.facts(scores, MEMBER)))}


def test_correctness_beside_confidences_that_tell_nothing_is_masking() -> None:
    assert "masking" in flagged(correctness=RIGHT, confidence=NOTHING, loss=NOTHING)
    assert "masking" not in flagged(correctness=RIGHT, confidence=RIGHT + 0.1 * NOTHING)
    found = score_facts.facts({"correctness": RIGHT, "confidence": NOTHING}, MEMBER)["label_only_advantage"]
    want = metrics.auc_difference_interval(RIGHT, NOTHING, MEMBER, 0.999)
    assert found == want


def test_labels_that_find_nobody_mask_nothing() -> None:
    worse = np.where(MEMBER, -0.3, 0) + NOTHING, np.where(MEMBER, -0.6, 0) + NOTHING[::-1]
    assert "masking" not in flagged(label_only=worse[0], confidence=worse[1])


def test_sure_answers_that_are_all_alike_leave_no_low_rate() -> None:
    sure = np.minimum(NOTHING + 0.3 * MEMBER, 1.2)
    assert "quantised_scores" in flagged(loss=sure)
    assert "quantised_scores" not in flagged(loss=NOTHING)


def test_right_or_wrong_alone_has_ties_by_design() -> None:
    assert score_facts.facts({"correctness": RIGHT}, MEMBER).keys() == {"nonmembers", "lowest_fpr", "auc_intervals"}
    assert score_facts.graded({"correctness": RIGHT, "loss": NOTHING}, MEMBER) == "loss"
    assert score_facts.graded({"correctness": RIGHT}, MEMBER) == "correctness"


def test_where_there_are_several_models_the_intervals_are_of_records_and_models() -> None:
    clusters = metrics.Clusters(np.arange(2 * N) % 500, np.arange(2 * N) // 500)
    own = score_facts.facts({"loss": RIGHT}, MEMBER, clusters)["auc_intervals"]["loss"]
    assert own == metrics.clustered_auc_interval(RIGHT, MEMBER, clusters, 0.999)
