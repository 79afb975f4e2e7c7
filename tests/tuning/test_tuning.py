"""Tuning: the folds that choose are not the folds that are asked about, and the search does what a dense grid does."""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import relaxloss as rl
from relaxloss import defenses, metrics, tuning
from relaxloss.compute.engine import Engine
from relaxloss.data import Dataset
from relaxloss.errors import UserError
from relaxloss.evaluation.rows import TPRS
from relaxloss.experiments import tuned as selection
from relaxloss.experiments.plan import Experiment
from relaxloss.experiments.run import Quiet, run
from relaxloss.games import FiveFolds, TuningFolds, five_folds, parse
from relaxloss.report.tuning import page as tuning_page
from relaxloss.report.tuning import sentences
from relaxloss.training.task import Recipe
from relaxloss.tuning import Objective, strength_of
from relaxloss.tuning.search import Goal, Point, Range, first, following, search

LABELS = np.random.default_rng(0).integers(0, 5, 1003)
VIEWS = [TuningFolds(*each) for each in itertools.product((0, 1), (False, True), (False, True))]
TINY = Recipe(model="mlp:hidden=32", epochs=30, milestones=(20,), batch_size=32)
SPEC = Experiment("blobs", attacks=("loss", "entropy"), recipe=TINY)
HERE = Engine("inprocess")


class Counter(Quiet):
    """Counts the jobs of the stage ``train`` that really ran."""

    def __init__(self) -> None:
        self.stage, self.trained = "", 0

    def begin(self, stage: str, jobs: Any, cached: int, scratch: Path) -> None:
        self.stage = stage

    def done(self, key: str, seconds: float) -> None:
        self.trained += self.stage == "train"


# The game


@pytest.mark.parametrize("seed", [0, 1, 2, 10, 11])
@pytest.mark.parametrize("game", VIEWS, ids=str)
def test_no_asked_sample_has_any_part_in_tuning(game: TuningFolds, seed: int) -> None:
    final, own = FiveFolds(shadows=4).draw(LABELS, 5, seed), game.draw(LABELS, 5, seed)
    used = np.flatnonzero(own.member.any(axis=0)), own.asked, own.fit, own.reference, own.test_of(0), own.test_of(1)
    for part in used:
        assert not np.intersect1d(part, final.asked).size
    assert len(own.asked)
    assert parse(str(game)) == game


@pytest.mark.parametrize("game", VIEWS, ids=str)
def test_roles_are_those_of_a_five_fold_game(game: TuningFolds) -> None:
    design = game.draw(LABELS, 5, 3)
    size = 120 if game.reference else 200
    (target,) = design.targets
    (shadow,) = design.shadows(target)
    ours, theirs = set(design.members(target)), set(design.members(shadow))
    assert len(ours) == len(theirs) == size
    assert len(design.asked) == len(design.fit) == 2 * size
    assert ours < set(design.asked)
    assert theirs < set(design.fit)
    assert not theirs & set(design.asked), "the shadow's members are not asked about"
    assert len(design.reference) == (size if game.reference else 0)
    everybody = set(design.asked) | set(design.fit) | theirs
    assert not set(design.reference) & everybody
    assert set(design.test_of(target)) == set(design.asked) - ours


def test_models_have_the_final_size_and_swapping_trains_nothing_new() -> None:
    folds = five_folds(len(LABELS), 7)
    plain, swapped = (TuningFolds(swapped=each).draw(LABELS, 5, 7) for each in (False, True))
    assert np.array_equal(plain.member, swapped.member)
    assert np.array_equal(plain.members(0), folds[2])
    assert np.array_equal(plain.members(1), folds[4])
    assert len(plain.members(0)) == len(FiveFolds().draw(LABELS, 5, 7).members(0))
    assert set(plain.asked) == set(folds[2]) | set(folds[3])
    assert set(swapped.asked) == set(folds[4]) | set(folds[3])
    drawings = [tuple(TuningFolds(drawing).draw(LABELS, 5, 7).members(0)) for drawing in range(4)]
    assert len(set(drawings)) == 4


def test_fitting_on_half_of_the_asked_samples_tells_nothing_about_the_target() -> None:
    """The worst case: an attack that knows by heart whom its shadow lacks, and tells nothing else apart."""
    areas = []
    for seed in range(400):
        design = TuningFolds(swapped=bool(seed % 2)).draw(LABELS[:203], 5, seed)
        scores = -np.isin(design.asked, design.fit).astype(np.float64)
        assert 0.45 < -scores.mean() < 0.55
        areas.append(metrics.auc(scores, design.member[design.targets[0], design.asked]))
    assert abs(np.mean(areas) - 0.5) < 3 * np.std(areas) / math.sqrt(len(areas))


def test_too_few_samples_are_explained() -> None:
    TuningFolds(reference=True).draw(LABELS[:45], 5, 0)
    with pytest.raises(UserError, match="at least 45"):
        TuningFolds(reference=True).draw(LABELS[:44], 5, 0)


# The search, without training


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


CURVES: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {  # accuracy and leakage by place
    "accuracy falls": (lambda u: 0.6 - 0.2 * u, lambda u: 0.9 - 0.35 * u),
    "accuracy rises, then falls": (lambda u: 0.5 + 0.08 * math.exp(-30 * (u - 0.45) ** 2), lambda u: 0.95 - 0.4 * u),
    "the peak is forbidden": (lambda u: 0.5 + 0.1 * math.exp(-20 * (u - 0.2) ** 2), lambda u: 0.9 - 0.3 * u),
    "accuracy rises": (lambda u: 0.5 + 0.1 * u, lambda u: 0.9 - 0.3 * u),
    "a cliff": (lambda u: 0.6 - 0.3 * logistic(40 * (u - 0.7)), lambda u: 0.55 + 0.4 * logistic(-25 * (u - 0.5))),
}


@pytest.mark.parametrize("settings", [8, 12])
@pytest.mark.parametrize("goal", [Goal(bound=0.75), Goal(bound=0.7), Goal(floor=0.52)], ids=str)
@pytest.mark.parametrize("curve", CURVES)
def test_the_search_finds_what_a_dense_grid_finds(curve: str, goal: Goal, settings: int) -> None:
    accuracy, leakage = CURVES[curve]
    range_ = Range(0.1, 3.0)

    def point(strength: float) -> Point:
        u = range_.place(strength)
        return Point(strength, accuracy(u), leakage(u))

    dense = goal.best([point(range_.at(u)) for u in np.linspace(0, 1, 2001)])
    tried = search(lambda asked: [point(each) for each in asked], goal, range_, settings=settings)
    best = goal.best(tried)
    assert len(tried) <= settings
    assert goal.met(best)
    assert goal.gain(best) > goal.gain(dense) - (0.025 if settings == 8 else 0.015)


def test_noise_of_a_real_size_costs_little() -> None:
    """At 0.01 of noise in the leakage and in the accuracy, 200 searches lose on average less than twice the noise."""
    rng, range_, goal = np.random.default_rng(0), Range(0.1, 3.0), Goal(bound=0.75)
    accuracy, leakage = CURVES["accuracy falls"]
    losses, excess = [], []
    for _ in range(200):
        noisy = lambda asked: [  # noqa: E731
            Point(s, accuracy(u) + rng.normal(0, 0.01), leakage(u) + rng.normal(0, 0.01))
            for s, u in ((each, range_.place(each)) for each in asked)
        ]
        place = range_.place(goal.best(search(noisy, goal, range_)).strength)
        losses.append(accuracy((0.9 - 0.75) / 0.35) - accuracy(place))
        excess.append(leakage(place) - 0.75)
    assert np.mean(losses) < 0.02
    assert np.mean(excess) < 0.01


def test_unmeetable_bounds_end_at_the_least_leaky_setting() -> None:
    range_, goal = Range(0.1, 3.0), Goal(bound=0.55)
    tried = search(lambda asked: [Point(s, 0.5, 0.9 - 0.1 * range_.place(s)) for s in asked], goal, range_)
    best = goal.best(tried)
    assert not goal.met(best)
    assert best.strength == 3.0
    tried = search(lambda asked: [Point(s, 0.5, 0.6 + (range_.place(s) - 0.6) ** 2) for s in asked], goal, range_)
    assert abs(range_.place(goal.best(tried).strength) - 0.6) < 0.06, "it looks around the least leaky one, too"


def test_ranges_round_within_themselves_and_a_given_strength_is_tried() -> None:
    assert first(Range(0.1, 3.0), given=1.0) == (0.1, 0.311, 1.0, 3.0)
    assert first(Range(0.1, 3.0), given=1.0, grid=2) == (0.1, 1.0)
    assert first(Range(0.1, 0.9)) == (0.1, 0.367, 0.633, 0.9)
    assert first(Range(0.1, 3.0), given=7.0) == first(Range(0.1, 3.0))
    whole = Range(5, 250, whole=True)
    assert first(whole, given=20) == (5, 20, 68, 250)
    assert all(float(value).is_integer() for value in first(whole))
    near = [Point(s, 0.5, 0.9) for s in (5, 6)]
    assert following(near, Goal(bound=0.8), Range(5, 6, whole=True)) is None, "no whole number lies between"
    for low, high in ((1.0, 1.0), (2.0, 1.0), (0.0, math.inf), (math.nan, 1.0)):
        with pytest.raises(UserError, match="low"):
            Range(low, high)


def test_equal_gains_are_decided_by_the_slack() -> None:
    points = [Point(1, 0.5, 0.74), Point(2, 0.5, 0.6), Point(3, 0.5, 0.7)]
    assert Goal(bound=0.75).best(points).strength == 2
    assert Goal(bound=0.6).met(points[1]), "exactly at the bound is within it"


# Strengths


def test_strengths_come_from_the_sweeps() -> None:
    for name, field, ends in (
        ("relaxloss", "alpha", (0.1, 3.0)), ("dropout", "rate", (0.1, 0.9)), ("early_stopping", "epoch", (5, 250)),
        ("memguard", "budget", (0.1, 1.0)), ("label_smoothing", "smoothing", (0.05, 0.9)),
    ):  # fmt: skip
        found = strength_of(defenses.parse(name), 30)
        assert (found.field, found.range.low, found.range.high) == (field, *ends)
    assert strength_of(defenses.parse("relaxloss"), 2).range.high == 0.693, "log 2: a guess's loss"
    assert strength_of(defenses.parse("relaxloss"), 4).range.high == 1.38, "log 4 = 1.386, rounded down"
    assert strength_of(defenses.parse("hamp"), 30, field="gamma").range.low == 0.1
    assert strength_of(defenses.parse("early_stopping"), 30).at(17.0) == defenses.parse("early_stopping:epoch=17")


def test_a_strength_set_by_hand_widens_the_range() -> None:
    low = strength_of(defenses.parse("relaxloss:alpha=0.05"), 30)
    assert (low.range.low, low.range.high, first(low.range, low.given)[0]) == (0.05, 3.0, 0.05)
    assert strength_of(defenses.parse("relaxloss:alpha=3.2"), 30).range.high == 3.2
    long = strength_of(defenses.parse("confidence_penalty:beta=123.456"), 30)
    assert first(long.range, long.given)[-1] == 123.456
    assert first(Range(0.012351, 3.0), 0.012351)[0] == 0.012351
    assert strength_of(defenses.parse("relaxloss"), 30, low=1.5).range.low == 1.5, "the default is nobody's hand"


def test_composed_defenses_are_tuned_in_their_first_part() -> None:
    found = strength_of(defenses.parse("relaxloss:upper=0.5+memguard:budget=0.3"), 30)
    assert found.at(0.7) == defenses.parse("relaxloss:alpha=0.7,upper=0.5+memguard:budget=0.3")
    assert found.spec(1.0) == "relaxloss:upper=0.5,alpha=1.0+memguard:budget=0.3"
    assert defenses.parse(found.spec(1.0)) == found.at(1.0)
    assert strength_of(defenses.parse("crl:center_t=2"), 30, field="t", low=0.05, high=1).spec(0.1) == (
        "crl:center_t=2.0,t=0.1"
    )
    second = strength_of(defenses.parse("relaxloss+memguard"), 30, field="budget")
    assert second.at(0.4) == defenses.parse("relaxloss+memguard:budget=0.4")


@pytest.mark.parametrize(
    ("spec", "options", "said"),
    [
        ("none", {}, "no single strength to tune"),
        ("ccl", {}, "varies a and beta"),
        ("relaxloss", {"field": "alfa"}, "did you mean 'alpha'"),
        ("relaxloss", {"field": "flatten"}, "numeric field"),
        ("relaxloss", {"field": "upper", "low": 0.1}, "both --low and --high"),
        ("relaxloss", {"low": 2.0, "high": 1.0}, "--low below --high"),
        ("dropout", {"high": 1.5}, "rate=1.5"),
        ("relaxloss", {"high": 3.5}, "a guess has a loss of log 30"),
        ("relaxloss", {"low": -1.0}, "alpha=-1"),
        ("relaxloss:alpha=5", {}, "a guess has a loss of log 30"),
        ("relaxloss:alpha=0.3", {"low": 0.5}, "alpha=0.3 lies outside the range to search"),
    ],
)
def test_wrong_strengths_are_explained(spec: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        strength_of(defenses.parse(spec), 30, **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "no bound; expected exactly one"),
        ({"max_auc": 0.6, "keep_accuracy": 0.0}, "max_auc and keep_accuracy; expected exactly one"),
        ({"max_auc": 0.5}, "between 0.5"),
        ({"max_auc": 1.0}, "between 0.5"),
        ({"max_tpr": 0.005}, "between fpr=0.01"),
        ({"max_tpr": 0.05, "fpr": 0.02}, "one of 0.01, 0.001"),
        ({"keep_accuracy": -0.1}, "keep_accuracy=-0.1"),
    ],
)
def test_wrong_wishes_are_explained(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Objective(**options)


def test_wrong_experiments_are_explained(tuned: tuple[tuning.Tuning, Path], blobs: Dataset) -> None:
    for change, options, said in (
        ({"seeds": (0, 1)}, {}, "tune at each seed by itself"),
        ({"game": "random_halves:models=4"}, {}, "does not have"),
        ({}, {"settings": 1}, "at least 2 settings"),
        ({}, {"repeats": 0}, "1 repeat"),
        ({}, {"max_auc": None, "max_tpr": 0.05}, "cannot be measured: 60 non-members"),
    ):
        with pytest.raises(UserError, match=said):
            rl.tune(
                replace(SPEC, **change), out=tuned[1], data=blobs, engine=HERE, overwrite=True,
                **{"max_auc": 0.6} | options,
            )  # fmt: skip


# The whole


@pytest.fixture(scope="module")
def tuned(blobs: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[tuning.Tuning, Path]:
    out = tmp_path_factory.mktemp("tuning")
    return rl.tune(SPEC, max_auc=0.6, out=out, settings=6, data=blobs, engine=HERE), out


def search_only(out: Path, settings: int, **more: Any) -> tuning.Tuning:
    """What `tuned` is, without a page."""
    return tuning.tune(SPEC, out, objective=Objective(max_auc=0.6), settings=settings, engine=HERE, **more)


def test_another_tuning_is_not_replaced(tuned: tuple[tuning.Tuning, Path], blobs: Dataset) -> None:
    rl.tune(SPEC, max_auc=0.6, out=tuned[1], settings=6, data=blobs, engine=HERE)
    other = replace(blobs, x=blobs.x + 1)
    for changed, options, said in (
        (SPEC, {"data": other}, "another fingerprint"),
        (SPEC, {"defense": "relaxloss:flatten=official"}, "another settings"),
        (replace(SPEC, attacks=("entropy",)), {}, "another attacks"),
        (SPEC, {"max_auc": 0.7}, "another asked_for"),
        (SPEC, {"field": "upper", "low": 0.5, "high": 1.0}, "another field, range"),
        (SPEC, {"high": 0.5}, "another range"),
        (SPEC, {"repeats": 2}, "another games"),
    ):
        with pytest.raises(UserError, match=said):
            rl.tune(changed, out=tuned[1], engine=HERE, **{"data": blobs, "max_auc": 0.6} | options)


def test_the_most_accurate_setting_within_the_bound_is_chosen(tuned: tuple[tuning.Tuning, Path]) -> None:
    found, _ = tuned
    table = found.table
    none, settings = table.iloc[0], table.iloc[1:]
    assert none["spec"] == "none"
    assert found.met
    assert none["auc"] > 0.65 > 0.6 >= found.line["auc"], "the bound is active: no defense does not meet it"
    allowed = settings[settings["auc"] <= 0.6]
    assert 0 < len(allowed) < len(settings), "the bound divides the settings"
    assert found.line["top1"] == allowed["top1"].max()
    assert list(settings["met"]) == list(settings["auc"] <= 0.6)
    assert (found.bound, found.chosen) == (0.6, found.strength.at(found.line["strength"]))
    assert len(settings) == 6
    assert 1.0 in set(settings["strength"]), "the default is tried, too"


def test_the_numbers_are_those_of_the_experiments_in_the_store(
    tuned: tuple[tuning.Tuning, Path], blobs: Dataset
) -> None:
    found, out = tuned
    counter = Counter()
    parts = []
    for swapped in (False, True):
        spec = replace(SPEC, defenses=(found.chosen,), game=TuningFolds(swapped=swapped), shadows="same")
        rows = run(spec, out, data=blobs, engine=HERE, watch=counter).rows
        worst = rows[(rows["measure"] == "auc") & (rows["attack"] == "max") & (rows["adaptive"] == True)]  # noqa: E712
        parts.append((rows[rows["measure"] == "top1"]["value"].item(), worst["value"].item()))
    assert counter.trained == 0
    assert (found.line["top1"], found.line["auc"]) == pytest.approx(tuple(np.mean(parts, axis=0)), rel=1e-12)


def test_a_second_tuning_trains_nothing_and_says_the_same(tuned: tuple[tuning.Tuning, Path], blobs: Dataset) -> None:
    found, out = tuned
    counter = Counter()
    again = search_only(out, 6, data=blobs, watch=counter)
    assert counter.trained == 0
    pd.testing.assert_frame_equal(again.table, found.table, check_exact=True)
    more = search_only(out, 7, data=blobs, watch=counter)
    assert counter.trained == 2, "a further setting is a target and a shadow"
    assert len(more.table) == len(found.table) + 1


def test_asked_samples_can_be_anything(tuned: tuple[tuning.Tuning, Path], blobs: Dataset, tmp_path: Path) -> None:
    """Not a bit of the tuning changes when folds 1 and 2 are replaced; it does when one tuning sample is."""
    found, _ = tuned
    asked = FiveFolds().draw(blobs.y, 4, 0).asked
    rng = np.random.default_rng(5)
    for places, same in ((asked, True), (np.setdiff1d(np.arange(300), asked)[:1], False)):
        x, y = blobs.x.copy(), blobs.y.copy()
        x[places] = rng.normal(50, 9, x[places].shape)
        y[places] = (y[places] + 1) % 4
        other = Dataset("blobs", x, y, 4, "with other samples")
        again = search_only(tmp_path / str(same), 6 if same else 2, data=other)
        if same:
            pd.testing.assert_frame_equal(again.table, found.table, check_exact=True)
        else:
            assert again.table["auc"].iloc[0] != found.table["auc"].iloc[0]


def test_the_directory_says_what_chose(tuned: tuple[tuning.Tuning, Path]) -> None:
    found, out = tuned
    content = json.loads((out / "tuning.json").read_text())
    assert defenses.parse(content["chosen"]) == found.chosen
    assert content["met"]
    assert content["bound"] == 0.6
    assert (content["seed"], content["samples_used"], content["members"]) == (0, 180, 60)
    assert content["games"] == ["tuning_folds", "tuning_folds:swapped=true"]
    assert content["on_tuning_folds"]["auc"] == found.line["auc"]
    assert content["on_tuning_folds"]["tpr_at_0.001_fpr"] is None
    table = pd.read_csv(out / "tuning.csv")
    assert list(table["auc"]) == pytest.approx(list(found.table["auc"]), rel=1e-12)
    page = (out / "report.html").read_text()
    assert "no sample of folds 1 and 2" in page
    assert "<script" not in page
    assert {path.suffix for path in (out / "charts").iterdir()} == {".svg", ".png"}


def test_the_final_report_says_which_data_chose_and_no_flag_is_raised(
    tuned: tuple[tuning.Tuning, Path], blobs: Dataset
) -> None:
    found, out = tuned
    assert found.final.defenses == (defenses.NONE, found.chosen)
    result = rl.compare(found.final, out / "compare", data=blobs, engine=HERE)
    assert "selection_on_asked" not in {flag.name for flag in result.flags}
    said = f"{found.chosen} was chosen on folds 3 to 5 of the five folds of seed 0"
    assert said in (out / "compare" / "report.html").read_text()
    elsewhere = run(replace(found.final, seeds=(1,)), out / "compare", data=blobs, engine=HERE)
    flags = {flag.name: flag.detail for flag in elsewhere.flags}
    assert flags["selection_on_asked"].startswith(f"{found.chosen}: "), "seed 1 asks about samples that chose"


def test_what_chose_on_other_data_is_undecided(blobs: Dataset) -> None:
    tuned = selection.Tuned(defenses.parse("relaxloss"), (TuningFolds(),), 0, "another")
    design = FiveFolds().draw(blobs.y, 4, 0)
    assert selection.on_asked((tuned,), tuned.defense, design, blobs) is None
    assert selection.on_asked((tuned,), defenses.NONE, design, blobs) is False
    elsewhere = replace(tuned, data="x" * 24)
    here = replace(tuned, data=blobs.fingerprint)
    touched = selection.on_asked((here,), here.defense, design, blobs)
    for order in ((elsewhere, here), (here, elsewhere)):
        assert selection.on_asked(order, here.defense, design, blobs) is (True if touched else None)


def test_a_bound_that_no_setting_meets_is_said(
    tuned: tuple[tuning.Tuning, Path], blobs: Dataset, tmp_path: Path
) -> None:
    found = tuning.tune(
        SPEC, tuned[1], objective=Objective(max_auc=0.501), settings=4, high=1.0, data=blobs, engine=HERE
    )
    tuning_page.save(found, tmp_path)
    assert not found.met
    assert found.line["auc"] == found.table["auc"].min() > 0.501
    assert not found.table["met"].any()
    assert "None of the 4 settings tried" in (tmp_path / "report.html").read_text()
    assert json.loads((tmp_path / "tuning.json").read_text())["met"] is False


def test_accuracy_can_be_kept_instead(tuned: tuple[tuning.Tuning, Path], blobs: Dataset) -> None:
    found = tuning.tune(SPEC, tuned[1], objective=Objective(keep_accuracy=0.04), settings=6, data=blobs, engine=HERE)
    none, settings = found.table.iloc[0], found.table.iloc[1:]
    kept = settings[settings["top1"] >= none["top1"] - 0.04]
    assert found.met
    assert 0 < len(kept) < len(settings)
    assert found.line["auc"] == kept["auc"].min() < none["auc"] - 0.02


def test_a_choice_that_never_acted_is_said(blobs: Dataset, tmp_path: Path) -> None:
    short = replace(SPEC, recipe=replace(TINY, epochs=1, milestones=()))
    found = tuning.tune(
        short,
        tmp_path,
        defense="relaxloss",
        objective=Objective(max_auc=0.9),
        high=0.2,
        settings=2,
        data=blobs,
        engine=HERE,
    )
    assert found.line["note"].startswith("never came to act: the training loss came down to")
    assert found.table["note"][0] == "", "no defense never acts, and nobody expects it to"
    said = " ".join(sentences.sentences(found))
    assert "It never came to act: the training loss" in said
    assert "never came to act" in tuning_page.html(found, tuning_page.frontier(found), "<svg/>", tmp_path)


def test_a_setting_that_fails_is_passed_over(blobs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(experiment: Any, tried: Any, *_args: Any, **_more: Any) -> list[dict[str, Any]]:
        if any(getattr(each, "alpha", 0) > 1 for each in tried):
            raise UserError("training diverged")
        line = {f"{name}{end}": 0.6 for name in ("top1", "auc", *TPRS) for end in ("", "_low", "_high")}
        return [{"spec": str(each), "note": "", "idle": "", "attack": "loss"} | line for each in tried]

    monkeypatch.setattr(sys.modules[tuning.Tuning.__module__], "measure", measured)
    found = rl.tune(SPEC, max_auc=0.7, out=tmp_path, data=blobs)
    failed = found.table[found.table["note"] != ""]
    assert list(failed["note"]) == ["failed: training diverged"]
    assert failed["strength"].item() == 1.38
    assert found.met
    with pytest.raises(UserError, match="every setting failed"):
        rl.tune(SPEC, max_auc=0.7, low=1.1, high=1.3, out=tmp_path, data=blobs, overwrite=True)


def test_defenses_with_a_reference_set_play_nested_folds(blobs: Dataset, tmp_path: Path) -> None:
    spec = replace(SPEC, recipe=replace(TINY, epochs=3, milestones=()), attacks=("loss",))
    found = rl.tune(
        spec, defense="distillation:on=reference", field="weight", low=0.5, high=1.0, max_auc=0.7, out=tmp_path,
        settings=2, data=blobs, engine=HERE,
    )  # fmt: skip
    assert found.facts["games"] == ["tuning_folds:reference=true", "tuning_folds:swapped=true,reference=true"]
    assert found.facts["members"] == 36
    assert "36 members and not 60" in (tmp_path / "report.html").read_text()


def test_a_strength_that_failed_is_passed_over_and_the_search_goes_on() -> None:
    """The leakage falls, and the accuracy is best at 6."""
    goal, range_ = Goal(bound=0.6), Range(0.0, 9.0)

    def tried(failing: set[float]) -> list[float]:
        asked: list[float] = []

        def measure(strengths: tuple[float, ...]) -> list[Point]:
            asked.extend(strengths)
            return [Point(s, 0.9 - 0.01 * abs(s - 6), 0.9 - 0.05 * s) for s in strengths if s not in failing]

        search(measure, goal, range_, settings=8)
        return asked

    whole = tried(set())
    without = tried({whole[4]})
    assert len(without) == len(set(without)) > 5
