"""Every flag: raised by a bad fact, silent on a good one at the edge, undecided without the fact."""

from __future__ import annotations

import dataclasses
import math

import pytest

from relaxloss.errors import UserError
from relaxloss.evaluation.comparability import LabelFit
from relaxloss.evaluation.flags import CHECKS, Facts, passed, raised, undecided

# flag, facts that raise it, what the detail must say, the nearest facts that do not
CASES = [
    (
        "few_nonmembers",
        {"nonmembers": 9_999, "lowest_fpr": 0.001},
        "9,999",
        {"nonmembers": 10_000, "lowest_fpr": 0.001},
    ),
    ("few_nonmembers", {"nonmembers": 99, "lowest_fpr": 0.1}, "9.9", {"nonmembers": 100, "lowest_fpr": 0.1}),
    ("few_shadows", {"shadows": 15}, "15", {"shadows": 16}),
    ("few_shadows", {"shadows": 0}, "0", {"shadows": 64}),
    ("few_shadows", {"shadows": 16, "shadows_each": 3.2}, "only 3.2", {"shadows": 16, "shadows_each": 7.6}),
    ("non_adaptive_only", {"adaptive": False}, "defense", {"adaptive": True}),
    ("randomised_release", {"changed_on_repeat": 0.25}, "25.00%", {"changed_on_repeat": 0.0}),
    ("release_changes_labels", {"changed_labels": 0.001}, "0.10%", {"changed_labels": 0.0}),
    ("quantised_scores", {"tied_pairs": 0.06}, "6.0%", {"tied_pairs": 0.05}),
    ("quantised_scores", {"tied_pairs": 0.0, "tied_top": 30}, "30 non-members share", {"tied_pairs": 0.0}),
    ("masking", {"label_only_advantage": (0.01, 0.2)}, "0.010 to 0.200", {"label_only_advantage": (-0.01, 0.2)}),
    ("reference_overlap", {"reference_overlap": 1}, "1 asked", {"reference_overlap": 0}),
    ("auc_below_half", {"auc_intervals": {"loss": (0.3, 0.49)}}, "loss 0.300", {"auc_intervals": {"loss": (0.3, 0.5)}}),
    ("epsilon_meaningless", {"dp": True}, "no finite", {"dp": False}),
    ("epsilon_meaningless", {"dp": True, "epsilon": math.inf}, "no finite", {"dp": True, "epsilon": 10.0}),
    ("epsilon_meaningless", {"dp": True, "epsilon": math.nan}, "no finite", {"dp": True, "epsilon": 0.0}),
    ("epsilon_meaningless", {"dp": True, "epsilon": 10.1}, "10.1", {"dp": True, "epsilon": 1, "delta": 1e-5}),
    (
        "epsilon_meaningless",
        {"dp": True, "epsilon": 2, "most_of_one": 6},
        "ε is at most 12",
        {"dp": True, "epsilon": 2},
    ),
    (
        "epsilon_meaningless",
        {"dp": True, "epsilon": 1.0, "uncovered": ("the table's means",)},
        "ε of 1 is the training's alone; released without noise: the table's means",
        {"dp": True, "epsilon": 1.0, "uncovered": ()},
    ),
    (
        "epsilon_meaningless",
        {"dp": True, "epsilon": 1.0, "delta": 1e-3, "members": 1000},
        "0.001",
        {"dp": True, "epsilon": 1.0, "delta": 1e-5, "members": 1000},
    ),
    ("idle_defense", {"idle": "the loss never fell to alpha"}, "never fell", {"idle": ""}),
    (
        "no_better_than_chance",
        {"label_fit": {"the members": LabelFit(0.9, 0.5, 0.9, 1e-9), "shadow 3": LabelFit(0.51, 0.5, 0.9, 0.051)}},
        "labels of shadow 3 get a probability of 51.0% on average",
        {"label_fit": {"the members": LabelFit(0.9, 0.5, 0.9, 1e-9), "shadow 3": LabelFit(0.51, 0.5, 0.9, 0.05)}},
    ),
    ("copies", {"copies": 0.011}, "1.1% of the non-members", {"copies": 0.01}),
    ("no_skill", {"skill": (0.97, 0.96, 0.965)}, "the accuracy is 97.0%, and", {"skill": (0.97, 0.966, 0.965)}),
    ("repeats", {"repeats": 0.011}, "1.1% of the samples repeat", {"repeats": 0.01}),
    ("columns_exchanged", {"exchanged": (0.2, 0.26, 5.1)}, "would get 26.0%", {"exchanged": (0.2, 0.25, 9.0)}),
    ("columns_exchanged", {"exchanged": (0.2, 0.9, 5.1)}, "would get 90.0%", {"exchanged": (0.2, 0.9, 5.0)}),
    ("class_mix", {"class_mix": (9e-4, 0.021, "b is rare")}, "b is rare", {"class_mix": (1e-3, 0.021, "b is rare")}),
    ("class_mix", {"class_mix": (1e-9, 0.021, "b is rare")}, "b is rare", {"class_mix": (1e-9, 0.02, "b is rare")}),
    (
        "different_populations",
        {"bystanders": (0.53, 0.501, 0.559)},
        "AUC of 0.530 (99.9% interval 0.501 to 0.559)",
        {"bystanders": (0.53, 0.5, 0.56)},
    ),
    ("different_populations", {"bystanders": (0.4, 0.35, 0.45)}, "0.400", {"bystanders": (0.4, 0.3, 0.5)}),
    ("blind_baseline", {"blind": (0.6, 0.51, 0.69)}, "told with an AUC of 0.600", {"blind": (0.4, 0.3, 0.49)}),
    (
        "rows_per_person",
        {"rows_per_person": (0.6, 0.51, 0.69)},
        "AUC of 0.600 (99.9% interval 0.510 to 0.690)",
        {"rows_per_person": (0.5, 0.5, 0.5)},
    ),
    ("unlike_shadows", {"unlike": (0.9, 0.84, 5.1)}, "0.900, the shadows' tells theirs", {"unlike": (0.9, 0.84, 5.0)}),
    (
        "unlike_shadows",
        {"unlike": (0.84, 0.9, -5.1)},
        "0.840, the shadows' tells theirs",
        {"unlike": (0.86, 0.9, -9.0)},
    ),
    ("selection_on_asked", {"selected_on_asked": True}, "chose", {"selected_on_asked": False}),
]
NAMES = [check.name for check in CHECKS]


@pytest.mark.parametrize(("name", "bad", "detail", "good"), CASES)
def test_raised_by_the_bad_fact_alone(name: str, bad: dict, detail: str, good: dict) -> None:
    (flag,) = raised(Facts(**bad))
    assert flag.name == name
    assert detail in flag.detail
    assert min(map(len, (flag.raised_if, flag.why, flag.what_to_do))) > 20
    assert raised(Facts(**good)) == ()
    assert passed(Facts(**good)) == (name,)
    assert set(undecided(Facts(**good))) == set(NAMES) - {name}


def test_the_cases_cover_every_flag_and_every_fact() -> None:
    assert {case[0] for case in CASES} == set(NAMES)
    assert len(set(NAMES)) == len(NAMES) == 22
    known = {field.name for field in dataclasses.fields(Facts)}
    assert {fact for case in CASES for fact in case[1]} == known
    assert all(set(check.needs) <= known for check in CHECKS)


def test_what_is_not_known_is_undecided_and_says_what_is_missing() -> None:
    assert raised(Facts()) == ()
    assert passed(Facts()) == ()
    assert list(undecided(Facts())) == NAMES
    assert undecided(Facts(nonmembers=5))["few_nonmembers"] == ("lowest_fpr",)


def test_raised_passed_and_undecided_share_out_the_flags() -> None:
    facts = Facts(nonmembers=500, lowest_fpr=0.01, shadows=64, adaptive=False, dp=True)
    names = [flag.name for flag in raised(facts)]
    assert names == ["few_nonmembers", "non_adaptive_only", "epsilon_meaningless"]
    assert passed(facts) == ("few_shadows",)
    assert sorted([*names, *passed(facts), *undecided(facts)]) == sorted(NAMES)


def test_only_the_attacks_below_half_are_named() -> None:
    (flag,) = raised(Facts(auc_intervals={"loss": (0.6, 0.7), "entropy": (0.2, 0.3), "neural": (0.4, 0.6)}))
    assert "entropy" in flag.detail
    assert "loss" not in flag.detail
    assert "neural" not in flag.detail


@pytest.mark.parametrize(
    "facts",
    [
        {"tied_pairs": math.nan},
        {"changed_labels": 1.5},
        {"changed_on_repeat": -0.1},
        {"delta": math.nan},
        {"nonmembers": -1},
        {"label_only_advantage": (0.2, 0.1)},
        {"label_only_advantage": (math.nan, 0.1)},
        {"auc_intervals": {"loss": (math.nan, math.nan)}},
        {"auc_intervals": {}},
    ],
)
def test_a_fact_that_is_no_measurement_is_refused_and_not_passed(facts: dict) -> None:
    with pytest.raises(UserError, match="expected"):
        Facts(**facts)
