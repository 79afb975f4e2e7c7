"""The experiment: stages glued together, cached by content, killed and resumed."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch

from relaxloss import attacks, defenses, metrics, report, signals
from relaxloss.attacks import Attack, Evidence
from relaxloss.attacks.base import Needs
from relaxloss.compute.engine import Engine
from relaxloss.data import Dataset
from relaxloss.defenses import DPSGD, NONE, Defense, MemGuard, NoDefense, RelaxLoss
from relaxloss.errors import MissingExtra, UserError
from relaxloss.experiments import jobs
from relaxloss.experiments.plan import Experiment, Plan
from relaxloss.experiments.result import COLUMNS
from relaxloss.experiments.run import Quiet, run
from relaxloss.games import FiveFolds
from relaxloss.storage.store import Store
from relaxloss.training.task import Recipe, Task

TINY = Recipe(model="mlp:hidden=32", epochs=30, milestones=(20,), batch_size=32)
ATTACKS = ("loss", "entropy", "neural:epochs=5")
SPEC = Experiment("blobs", defenses=("none", "relaxloss:alpha=0.8"), attacks=ATTACKS, recipe=TINY)


class Counter(Quiet):
    """Counts the jobs that really ran."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def done(self, key: str, seconds: float) -> None:
        self.ran.append(key)


def pick(rows: pd.DataFrame, **where: object) -> pd.Series:
    for column, value in where.items():
        rows = rows[rows[column].isna() if value is None else rows[column] == value]
    assert len(rows) == 1, rows
    return rows.iloc[0]


@pytest.fixture(scope="module")
def done(blobs: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    out = tmp_path_factory.mktemp("run")
    return out, run(SPEC, out, data=blobs, engine=Engine("inprocess")).rows


def test_rows_are_tidy_and_both_shadow_modes_stand_side_by_side(done: tuple[Path, pd.DataFrame]) -> None:
    rows = done[1]
    assert tuple(rows.columns) == COLUMNS
    none = pick(rows, defense="none", measure="auc", attack="loss", adaptive=True)
    same = pick(rows, defense="none", measure="auc", attack="loss", adaptive=False)
    assert none["value"] == same["value"]  # a plain threshold attack's AUC needs no shadow
    relaxed = pick(rows, defense="relaxloss", measure="auc", attack="loss", adaptive=True)
    assert none["low"] < none["value"] < none["high"]
    assert relaxed["value"] < none["value"]
    assert relaxed["settings"] == "alpha=0.8,flatten=all,upper=1.0"
    fpr = pick(rows, defense="none", measure="tpr_at_0.001_fpr", attack="loss", adaptive=True)
    assert np.isnan(fpr["value"])
    assert "60 non-members give 0.1 false positives, fewer than 10" in fpr["note"]
    top = pick(rows, defense="none", measure="auc", attack="max", adaptive=True)
    assert (
        top["value"]
        == rows[(rows.measure == "auc") & (rows.defense == "none") & (rows.adaptive == True)][  # noqa: E712
            "value"
        ]
        .iloc[:3]
        .max()
    )


def test_utility_rows_equal_a_computation_by_hand(done: tuple[Path, pd.DataFrame], blobs: Dataset) -> None:
    out, rows = done
    plan = Plan(SPEC, blobs, blobs)
    design = plan.designs[0]
    key = plan.signal_keys(SPEC.defenses[0], 0, 0)["plain"]
    logits = np.load(Store(out / "store").path("signals", key) / "logits.npy").astype(np.float64)
    test = np.setdiff1d(design.asked, design.members(0))
    assert pick(rows, defense="none", measure="top1", adaptive=None)["value"] == pytest.approx(
        (logits[test].argmax(1) == blobs.y[test]).mean()
    )
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(300), blobs.y]
    members = design.members(0)
    assert pick(rows, defense="none", measure="member_loss", adaptive=None)["value"] == pytest.approx(
        losses[members].mean(), rel=1e-9
    )
    auc = pick(rows, defense="none", measure="auc", attack="loss", adaptive=True)["value"]
    pairs = losses[members][:, None] - losses[test][None]
    assert auc == pytest.approx(((pairs < 0) + 0.5 * (pairs == 0)).mean())
    hits, sure = logits.argmax(1) == blobs.y, np.exp(logits - np.log(np.exp(logits).sum(1))[:, None]).max(1)
    bins = np.minimum((sure[test] * 15).astype(int), 14)
    apart = [abs(hits[test][bins == k].sum() - sure[test][bins == k].sum()) / len(test) for k in range(15)]
    by_hand = {
        "train_top1": hits[members].mean(),
        "accuracy_gap": hits[members].mean() - hits[test].mean(),
        "member_loss_variance": losses[members].var(),
        "test_loss": losses[test].mean(),
        "test_loss_variance": losses[test].var(),
        "loss_gap": losses[test].mean() - losses[members].mean(),
        "calibration_error": sum(apart),
    }
    for name, value in by_hand.items():
        assert pick(rows, defense="none", measure=name, adaptive=None)["value"] == pytest.approx(value), name
    kept = Store(out / "store")
    shadow = np.load(kept.path("signals", plan.signal_keys(NONE, 0, 1)["plain"]) / "logits.npy").astype(np.float64)
    theirs, fit = shadow[np.arange(300), blobs.y] - np.log(np.exp(shadow).sum(1)), design.fit
    values = np.sort(theirs[fit])
    cuts = np.r_[values, (values[1:] + values[:-1]) / 2]
    member, asked, truth = design.member[1, fit], -losses[design.asked], design.member[0, design.asked]
    balanced = np.array([((theirs[fit] >= c)[member].mean() + (theirs[fit] < c)[~member].mean()) / 2 for c in cuts])
    best = cuts[balanced > balanced.max() - 1e-12]
    found = pick(rows, defense="none", measure="balanced_accuracy", attack="loss", adaptive=True)["value"]
    among = [((asked >= c)[truth].mean() + (asked < c)[~truth].mean()) / 2 for c in best]
    assert min(abs(found - each) for each in among) < 1e-9, "at a threshold that is best on the shadow"
    own = max(((asked >= c)[truth].mean() + (asked < c)[~truth].mean()) / 2 for c in asked)
    assert max(among) < own, "which the target's own is not"


def test_what_the_charts_show_is_what_was_measured(done: tuple[Path, pd.DataFrame], blobs: Dataset) -> None:
    result = run(SPEC, done[0], data=blobs)
    plan = Plan(SPEC, blobs, blobs)
    design = plan.designs[0]
    for defense in SPEC.defenses:
        path = Store(done[0] / "store").path("signals", plan.signal_keys(defense, 0, 0)["plain"])
        logits = np.load(path / "logits.npy").astype(np.float64)
        losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(300), blobs.y]
        top = 3 * np.log(4)
        for which, places in (("member", design.members(0)), ("test", np.setdiff1d(design.asked, design.members(0)))):
            mine = result.histograms[
                (result.histograms["defense"] == defense.name) & (result.histograms["membership"] == which)
            ]
            want, edges = np.histogram(losses[places].clip(max=top), 60, (0, top))
            np.testing.assert_allclose(mine["share"], want / len(places))
            np.testing.assert_allclose(mine["left"], edges[:-1])
        curve = result.roc[(result.roc["defense"] == defense.name) & (result.roc["adaptive"] == True)]  # noqa: E712
        if set(curve["attack"]) == {"loss"}:
            inside, outside = -losses[design.members(0)], -losses[np.setdiff1d(design.asked, design.members(0))]
            for line in curve.to_dict("records"):
                cut = [c for c in np.r_[np.inf, outside, inside] if (outside >= c).mean() <= line["fpr"]]
                assert line["tpr"] == pytest.approx(max((inside >= c).mean() for c in cut))


def test_a_second_run_does_nothing_and_says_the_same(done: tuple[Path, pd.DataFrame], blobs: Dataset) -> None:
    watch = Counter()
    again = run(SPEC, done[0], data=blobs, watch=watch)
    assert watch.ran == []
    pd.testing.assert_frame_equal(again.rows, done[1])


def test_processes_give_the_same_table_to_the_last_digit(
    done: tuple[Path, pd.DataFrame], blobs: Dataset, tmp_path: Path
) -> None:
    other = run(SPEC, tmp_path, data=blobs, engine=Engine("processes", 2))
    pd.testing.assert_frame_equal(other.rows, done[1], check_exact=True)


def test_a_new_attack_or_defense_repeats_nothing_else(done: tuple[Path, pd.DataFrame], blobs: Dataset) -> None:
    watch = Counter()
    more = replace(SPEC, attacks=(*SPEC.attacks, "confidence"))
    run(more, done[0], data=blobs, watch=watch)
    assert sorted(watch.ran) == ["0", "1", "2", "3"], "scores only: four jobs, no training"
    watch = Counter()
    run(replace(SPEC, defenses=("none", "relaxloss:alpha=0.3")), done[0], data=blobs, watch=watch)
    assert len([key for key in watch.ran if len(key) > 3]) == 2, "target and shadow of the new setting only"


def test_every_part_of_the_specification_is_in_the_key(blobs: Dataset) -> None:
    base = Plan(SPEC, blobs, blobs).train_key(SPEC.defenses[1], 0, 0)
    changed = Dataset("blobs", blobs.x + 1, blobs.y, 4, "")
    others = [
        Plan(replace(SPEC, recipe=replace(TINY, epochs=31)), blobs, blobs).train_key(SPEC.defenses[1], 0, 0),
        Plan(replace(SPEC, seeds=(1,)), blobs, blobs).train_key(SPEC.defenses[1], 1, 0),
        Plan(SPEC, blobs, blobs).train_key(SPEC.defenses[1], 0, 1),
        Plan(SPEC, blobs, blobs).train_key(SPEC.defenses[0], 0, 0),
        Plan(SPEC, changed, changed).train_key(SPEC.defenses[1], 0, 0),
    ]
    assert len({base, *others}) == 6
    same = Plan(replace(SPEC, shadows="same", attacks=("loss",)), blobs, blobs)
    assert same.train_key(SPEC.defenses[1], 0, 0) == base, "attacks and shadow modes are no part of a training"


def test_lists_are_read_as_the_command_line_reads_them() -> None:
    written = Experiment("blobs", defenses="none,relaxloss:alpha=0.8,upper=0.3", attacks="paper,lira_offline")
    assert [str(each) for each in written.defenses] == ["none", "relaxloss:alpha=0.8,upper=0.3"]
    assert written.attacks == (*attacks.parse_list("paper"), attacks.parse("lira_offline"))
    mixed = Experiment(
        "blobs", defenses=("all", RelaxLoss(alpha=0.3)), attacks=("whitebox", "whitebox", attacks.parse("loss"))
    )
    assert mixed.defenses == (*defenses.parse_list("all"), RelaxLoss(alpha=0.3))
    assert len(mixed.attacks) == 5


def test_random_halves_make_every_model_a_target(blobs: Dataset, tmp_path: Path) -> None:
    spec = replace(
        SPEC, game="random_halves:models=4", attacks=("loss",), recipe=replace(TINY, epochs=15, milestones=())
    )
    rows = run(spec, tmp_path, data=blobs, engine=Engine("inprocess")).rows
    asked = Plan(spec, blobs, blobs).designs[0].asked
    assert pick(rows, defense="none", measure="auc", attack="loss", adaptive=True)["n"] == 4 * len(asked)


def test_mislabelled_canaries_are_found(blobs: Dataset, tmp_path: Path) -> None:
    spec = replace(
        SPEC, game="random_halves:models=6,canaries=30,canary_kind=mislabelled", attacks=("loss",), defenses=("none",)
    )
    rows = run(spec, tmp_path, data=blobs, engine=Engine("inprocess")).rows
    canaries = pick(rows, measure="auc", attack="loss", adaptive=True)["value"]
    assert canaries > 0.8, "a wrong label that was trained on has a far lower loss than one that was not"


def test_every_query_is_asked_with_the_label_that_was_trained_on(blobs: Dataset, tmp_path: Path) -> None:
    game = "random_halves:models=4,canaries=60,canary_kind=mislabelled"
    spec = replace(
        SPEC, game=game, attacks=("grad_w_l2", "label_only:rule=count"), defenses=("none",), shadows="same",
        recipe=replace(TINY, epochs=60, milestones=(40,)),
    )  # fmt: skip
    rows = run(spec, tmp_path, data=blobs, engine=Engine("inprocess")).rows
    for attack in ("grad_w_l2", "label_only:rule=count"):
        assert pick(rows, measure="auc", attack=attack, adaptive=True)["value"] > 0.8, attack


def test_failures_of_the_user_are_collected_and_the_rest_is_kept(blobs: Dataset, tmp_path: Path) -> None:
    spec = replace(SPEC, recipe=replace(TINY, lr=1e30), defenses=("none",))
    with pytest.raises(UserError, match=r"none seed 0 model 0.*diverged"):
        run(spec, tmp_path, data=blobs, engine=Engine("inprocess"))


def test_a_defense_that_fails_takes_nothing_of_the_others(
    blobs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Defense, *_: object) -> torch.Tensor:
        raise ZeroDivisionError("by my own loss")

    whole = run(replace(SPEC, attacks=("loss",)), tmp_path / "whole", data=blobs)
    monkeypatch.setattr(RelaxLoss, "loss", broken)
    with pytest.warns(UserWarning, match="2 jobs failed"):
        found = run(replace(SPEC, attacks=("loss",)), tmp_path / "run", data=blobs, engine=Engine("inprocess"))
    expected = whole.rows[whole.rows["defense"] == "none"].reset_index(drop=True)
    pd.testing.assert_frame_equal(found.rows, expected)
    assert [each["name"] for each in found.facts["experiment"]["defenses"]] == ["none"]
    assert len(found.failures) == 2, "a target and a shadow"
    assert re.fullmatch(
        r"relaxloss:alpha=0.8 seed 0 model 0: ZeroDivisionError: by my own loss \(test_experiment.py, line \d+\)",
        found.failures[0],
    )
    with pytest.raises(RuntimeError, match=r"by my own loss[\s\S]*Traceback"):
        run(replace(SPEC, defenses=SPEC.defenses[1:]), tmp_path / "run", data=blobs, engine=Engine("inprocess"))
    monkeypatch.undo()
    assert run(replace(SPEC, attacks=("loss",)), tmp_path / "run", data=blobs).failures == ()


def test_an_attack_that_fails_is_left_out_and_named(
    blobs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attacks.attacks["entropy"], "score", lambda self, evidence: evidence.target.logits[0])
    with pytest.warns(UserWarning, match="1 job failed"):
        found = run(replace(SPEC, attacks=("loss", "entropy")), tmp_path, data=blobs, engine=Engine("inprocess"))
    (text,) = found.failures
    assert text.startswith("attack entropy is left out, for it failed on every defense: attack entropy gave scores of")
    assert set(found.rows["attack"].dropna()) >= {"loss", "max"}
    assert "entropy" not in set(found.rows["attack"])
    with pytest.raises(UserError, match="attack entropy gave scores of shape"):
        run(replace(SPEC, attacks=("entropy",)), tmp_path, data=blobs, engine=Engine("inprocess"))


def broken_on_relaxloss(monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]) -> None:
    """The attacks fail where the mean loss of the fit samples is RelaxLoss's, and so on no other model."""
    for name in names:
        right = attacks.attacks[name].score

        def score(self: Attack, evidence: Evidence, right: Any = right) -> np.ndarray:
            members = metrics.losses(evidence.shadows[0].logits[0], evidence.shadows[0].labels)
            held = members[evidence.shadow_member[0]].mean() > 0.4
            return right(self, evidence) * (np.nan if held else 1)

        monkeypatch.setattr(attacks.attacks[name], "score", score)


def test_an_attack_that_fails_on_one_defense_is_left_out_for_all(
    blobs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = replace(SPEC, attacks=("loss", "entropy"), shadows="same")
    broken_on_relaxloss(monkeypatch, ("entropy",))
    with pytest.warns(UserWarning, match="1 job failed"):
        found = run(spec, tmp_path, data=blobs, engine=Engine("inprocess"))
    assert set(found.rows["defense"]) == {"none", "relaxloss"}
    assert found.failures == (
        "attack entropy is left out, for it failed on relaxloss:alpha=0.8: attack entropy gave NaN for 120 of 120 "
        "samples; expected numbers: see its score()",
    )
    assert found.facts["experiment"]["attacks"] == [{"name": "loss"}]


def test_a_defense_on_which_every_attack_fails_is_left_out(
    blobs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = replace(SPEC, attacks=("loss", "entropy"), shadows="same")
    broken_on_relaxloss(monkeypatch, ("loss", "entropy"))
    with pytest.warns(UserWarning, match="1 job failed"):
        found = run(spec, tmp_path, data=blobs, engine=Engine("inprocess"))
    assert set(found.rows["defense"]) == {"none"}
    assert {"loss", "entropy"} <= set(found.rows["attack"])
    assert found.failures[0].startswith("relaxloss:alpha=0.8 is left out, for every attack on it failed: loss")


def test_failures_in_different_places_leave_what_none_failed_on(
    blobs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = jobs._scores

    def scores(attack: Attack, rows: tuple[Evidence, ...]) -> Any:
        seen = rows[0].shadows[0]
        loss = metrics.losses(seen.logits[0], seen.labels)[rows[0].shadow_member[0]].mean()
        bad = {"loss": loss > 0.4, "entropy": loss <= 0.4 and loss > 0.05}[attack.name]
        return 1 / 0 if bad else whole(attack, rows)

    monkeypatch.setattr(jobs, "_scores", scores)
    specs = ("none", "relaxloss:alpha=0.8", "relaxloss:alpha=0.2")
    spec = replace(SPEC, defenses=specs, attacks=("loss", "entropy"), shadows="same")
    with pytest.warns(UserWarning, match="2 jobs failed"):
        found = run(spec, tmp_path, data=blobs, engine=Engine("inprocess"))
    assert set(found.rows["defense"]) == {"none"}
    assert {"loss", "entropy"} <= set(found.rows["attack"])


def test_a_release_that_fails_takes_nothing_of_the_defenses_that_share_its_training(
    blobs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Defense, *_: object) -> None:
        raise ValueError("release broke")

    monkeypatch.setattr(MemGuard, "release", broken)
    spec = replace(SPEC, defenses=("none", "memguard"), attacks=("loss",))
    with pytest.warns(UserWarning, match="2 jobs failed"):
        found = run(spec, tmp_path, data=blobs, engine=Engine("inprocess"))
    assert set(found.rows["defense"]) == {"none"}
    assert found.failures[0].startswith(
        "memguard seed 0 model 0, query plain (needed by all attacks): ValueError: release broke"
    )
    assert len(list((tmp_path / "store" / "train").iterdir())) == 2


def test_a_query_that_fails_takes_only_the_attacks_that_need_it(
    blobs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = replace(SPEC, attacks=("loss", "grad_x_l1"))
    whole = run(replace(spec, attacks=("loss",)), tmp_path / "whole", data=blobs, engine=Engine("inprocess"))
    monkeypatch.setitem(signals.QUERIES, "white_box", lambda *_: 1 / 0)
    with pytest.warns(UserWarning, match="4 jobs failed"):
        found = run(spec, tmp_path / "run", data=blobs, engine=Engine("inprocess"))
    pd.testing.assert_frame_equal(found.rows, whole.rows)
    assert found.facts["experiment"]["attacks"] == [{"name": "loss"}]
    assert found.failures[0].startswith("none seed 0 model 0, query white_box (needed by grad_x_l1): ZeroDivisionError")
    with pytest.raises(RuntimeError, match="query white_box"):
        run(replace(spec, attacks=("grad_x_l1",)), tmp_path / "run", data=blobs, engine=Engine("inprocess"))


def test_a_query_that_fails_for_every_attack_takes_the_defense(
    blobs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = signals.QUERIES["white_box"]

    def query(release: Any, network: Any, *rest: Any) -> Any:
        return right(release, network, *rest) if release is network else 1 / 0

    monkeypatch.setitem(signals.QUERIES, "white_box", query)
    spec = replace(SPEC, defenses=("none", "memguard"), attacks=("grad_x_l1",), shadows="same")
    with pytest.warns(UserWarning, match="2 jobs failed"):
        found = run(spec, tmp_path, data=blobs, engine=Engine("inprocess"))
    assert set(found.rows["defense"]) == {"none"}
    assert "grad_x_l1" in set(found.rows["attack"])


def test_a_bug_in_the_only_attack_is_told_with_its_traceback(
    blobs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attacks.attacks["loss"], "score", lambda self, evidence: 1 / 0)
    with pytest.raises(RuntimeError, match=r"ZeroDivisionError[\s\S]*Traceback"):
        run(replace(SPEC, attacks=("loss",)), tmp_path, data=blobs, engine=Engine("inprocess"))


def test_an_unknown_query_is_said_before_the_first_training(
    blobs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attacks.attacks["loss"], "needs", Needs(queries=("plane",)))
    with pytest.raises(UserError, match=r"unknown query that attack loss needs 'plane': did you mean 'plain'"):
        run(replace(SPEC, attacks=("loss",)), tmp_path, data=blobs)


def test_undefended_shadows_alone_are_trained(blobs: Dataset, tmp_path: Path) -> None:
    rows = run(replace(SPEC, shadows="undefended", attacks=("loss",)), tmp_path, data=blobs).rows
    assert set(rows["adaptive"].dropna()) == {False}
    assert pick(rows, defense="relaxloss", measure="balanced_accuracy", adaptive=False)["n"] == 120


def test_without_shadows_only_the_targets_are_trained(
    done: tuple[Path, pd.DataFrame], blobs: Dataset, tmp_path: Path
) -> None:
    """The same targets and AUC as beside shadows; what shadows would give is not measured, and that is said."""
    spec = replace(SPEC, game="five_folds:shadows=0", attacks=("loss",))
    result = run(spec, tmp_path, data=blobs)
    store = Store(tmp_path / "store")
    assert len(list(store.root.glob("train/*/manifest.json"))) == len(spec.defenses)
    rows = result.rows
    assert set(rows["adaptive"].dropna()) == {False}
    for defense in ("none", "relaxloss"):
        want = {"defense": defense, "measure": "auc", "attack": "loss", "adaptive": False}
        assert pick(rows, **want)["value"] == pick(done[1], **want)["value"]
        missing = pick(rows, **want | {"measure": "balanced_accuracy"})
        assert np.isnan(missing["value"])
        assert missing["note"].startswith("not measured")
    assert {"few_shadows", "non_adaptive_only"} <= {flag.name for flag in result.flags}
    with pytest.raises(UserError, match=r"attack neural cannot run .* needs a shadow or more \(the game has 0\)"):
        run(replace(spec, attacks=("neural",)), tmp_path, data=blobs)


@pytest.mark.parametrize("stage", ["train", "signals", "scores"])
def test_a_damaged_result_is_made_again_within_the_run(
    done: tuple[Path, pd.DataFrame], blobs: Dataset, tmp_path: Path, stage: str
) -> None:
    shutil.copytree(done[0], tmp_path / "run")
    victims = [path for path in (tmp_path / "run" / "store" / stage).glob("*/*") if path.name != "manifest.json"]
    for path in victims:
        path.write_bytes(path.read_bytes() + b"x")
    if stage == "signals":  # nothing reads signals while the scores made of them are there
        shutil.rmtree(tmp_path / "run" / "store" / "scores")
    with pytest.warns(UserWarning, match="is damaged; it will be made again"):
        rows = run(SPEC, tmp_path / "run", data=blobs, engine=Engine("inprocess")).rows
    pd.testing.assert_frame_equal(rows, done[1], check_exact=True)


def test_a_defense_that_never_acted_is_said_to_be_idle(blobs: Dataset, tmp_path: Path) -> None:
    short = replace(
        SPEC, defenses=("relaxloss:alpha=0.01",), attacks=("loss",), recipe=replace(TINY, epochs=2, milestones=())
    )
    named = replace(blobs, classes=("north", "east", "south", "west"))
    result = run(short, tmp_path, data=named)
    flags = {flag.name: flag for flag in result.flags}
    assert "never to alpha=0.01" in flags["idle_defense"].detail
    page = report.write(result, tmp_path).read_text()
    assert re.search(r'class="headline">This compares plain training with itself, for the training loss came', page)
    assert blobs.fingerprint in page
    assert re.search(r"<td>(north|east|south|west)</td>", page)
    assert "where single records must not leave" in page


def test_copies_of_members_among_the_asked_are_flagged(blobs: Dataset, tmp_path: Path) -> None:
    spec = replace(SPEC, defenses=("none",), attacks=("loss",))
    assert "copies" not in {flag.name for flag in run(spec, tmp_path / "a", data=blobs).flags}
    twice = replace(blobs, x=np.tile(blobs.x[:150], (2, 1)), y=np.tile(blobs.y[:150], 2))
    design = FiveFolds().draw(twice.y, twice.num_classes, 0)
    people = {place % 150 for place in design.members(0)}
    share = np.mean([place % 150 in people for place in design.asked if place not in design.members(0)])
    raised = {flag.name: flag.detail for flag in run(spec, tmp_path / "b", data=twice).flags}
    assert raised["copies"] == f"{share:.1%} of the non-members are copies of a member"
    assert share > 0.1


def test_a_changed_own_network_is_another_model(
    blobs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    keys = []
    for width in (3, 4):
        code = f"from torch import nn\ndef net(shape, classes):\n    return nn.Linear(shape[0], classes)  # {width}\n"
        (tmp_path / "ownnet.py").write_text(code)
        sys.modules.pop("ownnet", None)
        spec = replace(SPEC, recipe=replace(TINY, model="ownnet:net"))
        keys.append(Plan(spec, blobs, blobs).train_key(SPEC.defenses[0], 0, 0))
    assert keys[0] != keys[1]


def test_the_longest_trainings_come_first(blobs: Dataset, tmp_path: Path) -> None:
    specs = ("none", "dropout", "distillation", "selena:k=4,l=1", "early_stopping:epoch=3", "hamp:train=false")
    found, stored = Plan(replace(SPEC, defenses=specs), blobs, blobs).train_jobs(Store(tmp_path))
    assert [job.trainer.name for job in found[:4]] == ["selena"] * 2 + ["distillation"] * 2
    assert [job.work / TINY.epochs for job in found] == [4, 4, 2, 2, *[1] * 6]
    assert stored == 0


def test_runs_that_share_a_store_train_nothing_twice(blobs: Dataset, tmp_path: Path) -> None:
    def trained() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in (tmp_path / "shared" / "train").iterdir()}

    run(SPEC, tmp_path / "one", data=blobs, store=tmp_path / "shared")
    before = trained()
    more = replace(SPEC, defenses=(*SPEC.defenses, "dropout"))
    second = run(more, tmp_path / "two", data=blobs, store=tmp_path / "shared")
    after = trained()
    assert before.items() < after.items()
    assert len(after) - len(before) == 2, "a target and a shadow of dropout's"
    assert not (tmp_path / "two" / "store").exists()
    pd.testing.assert_frame_equal(second.rows, run(more, tmp_path / "alone", data=blobs).rows)


def test_a_missing_extra_is_said_before_the_first_training(
    blobs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DPSGD, "requires", "no_such_module")
    experiment = Experiment("blobs", defenses=("none", "dpsgd+memguard"), attacks=("loss",))
    with pytest.raises(MissingExtra, match=r"dpsgd needs an optional dependency.*relaxloss\[dpsgd\]"):
        run(experiment, tmp_path, data=blobs)
    assert not (tmp_path / "store" / "train").exists()


def test_bad_experiments_are_explained() -> None:
    for change, said in (
        ({"defenses": ()}, "defenses is empty"),
        ({"defenses": ("none", "none")}, "none stands twice"),
        ({"shadows": "some"}, "shadows"),
        ({"attacks": ("los",)}, "did you mean 'loss'"),
        ({"level": 2}, "level"),
    ):
        with pytest.raises(UserError, match=said):
            replace(SPEC, **change)


SCRIPT = """
import sys
import numpy as np
from relaxloss.engine import Engine
sys.path.insert(0, {tests!r})
import test_experiment as t
from relaxloss.data import Dataset
d = np.load({data!r})
t.run(t.SPEC, {out!r}, data=Dataset("blobs", d["x"], d["y"], 4, ""), engine=Engine("processes", 2))
"""


def finished(folder: Path) -> list[Path]:
    """What the store holds."""
    return [path for path in (folder / "run" / "store").glob("*/*/manifest.json") if path.parts[-3] != "scratch"]


def kill_and_rerun(blobs: Dataset, folder: Path, times: int, rng: random.Random) -> pd.DataFrame:
    """Start the run in a process of its own, kill it at random moments, and finish it here."""
    np.savez(folder / "blobs.npz", x=blobs.x, y=blobs.y)
    code = SCRIPT.format(tests=str(Path(__file__).parent), data=str(folder / "blobs.npz"), out=str(folder / "run"))
    for _ in range(times):
        before = len(finished(folder))
        process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], start_new_session=True)
        while process.poll() is None and len(finished(folder)) == before:
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 0.5))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() in (0, -signal.SIGKILL)
        assert len(finished(folder)) > before
        for entry in Store(folder / "run" / "store").entries(verify=True):
            assert entry.sound, entry
    made = {path: path.stat().st_mtime_ns for path in finished(folder)}
    rows = run(SPEC, folder / "run", data=blobs, engine=Engine("inprocess")).rows
    assert all(path.stat().st_mtime_ns == moment for path, moment in made.items()), "no finished job is done again"
    return rows


def test_kill_minus_nine_and_rerun(done: tuple[Path, pd.DataFrame], blobs: Dataset, tmp_path: Path) -> None:
    rows = kill_and_rerun(blobs, tmp_path, 2, random.Random(0))
    pd.testing.assert_frame_equal(rows, done[1], check_exact=True)
    assert not list((tmp_path / "run" / "store").glob("scratch/*"))


@pytest.mark.slow
def test_kill_minus_nine_ten_times(done: tuple[Path, pd.DataFrame], blobs: Dataset, tmp_path: Path) -> None:
    for attempt in range(10):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        rows = kill_and_rerun(blobs, folder, 1, random.Random(attempt))
        pd.testing.assert_frame_equal(rows, done[1], check_exact=True)


class Dice(torch.nn.Module):
    """Answers class 0 to a third of the queries, at random each time."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        log_p = self.network(x).log_softmax(1)
        log_p[torch.rand(len(x)) < 1 / 3, 0] = 9.0
        return log_p.log_softmax(1)


@dataclass(frozen=True)
class Gamble(NoDefense):
    """A release that rolls dice."""

    name: ClassVar[str] = "gamble"
    trainer: ClassVar[Defense] = NONE  # type: ignore[assignment]

    def release(self, network: torch.nn.Module, task: Task | None) -> torch.nn.Module:
        return Dice(network)


def test_a_release_that_changes_labels_or_answers_is_flagged_with_its_share(blobs: Dataset, tmp_path: Path) -> None:
    recipe = replace(TINY, epochs=3, milestones=(2,))
    hamp = "hamp:train=false"
    spec = Experiment("blobs", defenses=(NONE, Gamble(), hamp), attacks=("loss",), recipe=recipe)
    with torch.random.fork_rng():
        result = run(spec, tmp_path, data=blobs, engine=Engine("inprocess"))
    raised = {flag.name: flag.detail for flag in result.flags}
    for name, low, high in (("release_changes_labels", 15, 33), ("randomised_release", 33, 60)):
        assert raised[name].startswith("gamble: "), raised  # and neither no defense nor HAMP
        assert low < float(re.search(r"([0-9.]+)%", raised[name])[1]) < high, raised[name]


def test_a_network_that_answers_at_random_is_flagged_too(blobs: Dataset, tmp_path: Path) -> None:
    recipe = replace(TINY, model="test_model_audit:restless")
    spec = Experiment("blobs", attacks=("loss",), recipe=recipe)
    with torch.random.fork_rng():
        result = run(spec, tmp_path, data=blobs, engine=Engine("inprocess"))
    raised = {flag.name: flag.detail for flag in result.flags}
    assert raised["randomised_release"].startswith("100.00%")
    assert "release_changes_labels" not in raised, "there is no network beneath it"
