"""A small worst-case run, end to end: canaries of each kind, single records, the bound of epsilon, and the report."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from relaxloss import api, cli, metrics, report
from relaxloss.compute.engine import Engine
from relaxloss.data import Dataset
from relaxloss.errors import UserError
from relaxloss.evaluation import one_run_audit, records
from relaxloss.evaluation.grouping import Grouping
from relaxloss.experiments import result as results
from relaxloss.experiments.plan import Experiment
from relaxloss.experiments.result import Result
from relaxloss.games import RandomHalves, parse
from relaxloss.training.task import Recipe

TINY = Recipe(model="mlp:hidden=32", epochs=12, milestones=(8,), batch_size=32)
AVERAGE = Experiment(
    "blobs",
    defenses=("none", "relaxloss:alpha=0.8"),
    attacks=("loss", "lira"),
    game=RandomHalves(models=10),
    recipe=TINY,
)


@pytest.fixture(scope="module")
def average(blobs: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("average")
    return out, api.compare(AVERAGE, out, data=blobs, engine=Engine("inprocess"))


def test_the_table_of_records_is_that_of_the_models(average: tuple[Path, Result], blobs: Dataset) -> None:
    out, result = average
    design = AVERAGE.game.draw(blobs.y, 4, 0)
    table = report.load(out).records
    pd.testing.assert_frame_equal(table, result.records, check_exact=True)
    assert len(table) == 2 * len(design.asked)
    mine = table[table["defense"] == "none"].set_index("record").loc[design.asked]
    assert (mine["models_in"].to_numpy() == design.member[:, design.asked].sum(0)).all()
    assert (mine["label"].to_numpy() == blobs.y[design.asked]).all()
    assert mine["adaptive"].all()
    assert mine["auc"].mean() > 0.6  # ten models of 120 members each remember them
    relaxed = table[table["defense"] == "relaxloss"]
    assert relaxed["gap"].mean() < mine["gap"].mean()
    rows = result.rows[result.rows["measure"] == records.LEAKING]
    assert list(rows["n"]) == [len(design.asked)] * 2


def test_the_bound_of_epsilon_is_of_the_first_model_and_corrected(average: tuple[Path, Result]) -> None:
    rows = average[1].rows
    bounds = rows[rows["measure"] == one_run_audit.MEASURE]
    assert len(bounds) == 4  # two defenses, adaptive and not
    assert (bounds["value"] >= 0).all()
    assert bounds["note"].str.contains("δ = 1e-05, 95 % confidence, corrected for 8 tries").all()  # 2 attacks, 4 r


def test_the_bound_of_epsilon_counts_the_first_models_coins() -> None:
    """Scores of several models: the first one's tell its own coins, the others' tell nothing."""
    game = RandomHalves(models=4)
    design, rng = game.draw(np.zeros(1000, np.int64), 2, 0), np.random.default_rng(0)
    asked = Grouping.of(design.asked, np.arange(1000))
    member = design.member[:, design.asked]
    scores = np.concatenate([3.0 * member[0] + rng.normal(size=len(design.asked)), rng.normal(size=member[1:].size)])
    plan: Any = SimpleNamespace(experiment=SimpleNamespace(game=game, level=0.95))
    (row,) = results._one_run_rows(plan, design, asked, {"a": (scores, member.reshape(-1))}, 0)
    want = one_run_audit.bound({"a": scores[: len(design.asked)]}, member[0], delta=1e-5)["value"]
    assert row["value"] == pytest.approx(want)
    assert row["value"] > 1


def test_the_bound_is_that_of_a_slow_count() -> None:
    rng = np.random.default_rng(0)
    member = rng.random(400) < 0.5
    scores = rng.normal(size=400) + 3 * member
    found = one_run_audit.bound({"a": scores, "chance": rng.random(400)}, member, guesses=100, delta=1e-5)
    ranked = sorted(zip(scores, member, strict=True))
    correct = sum(not m for _, m in ranked[:50]) + sum(m for _, m in ranked[-50:])
    assert found["value"] == pytest.approx(metrics.one_run_epsilon(400, 100, correct, 1e-5, 0.05 / 2))
    assert found["value"] > 1


def test_intervals_of_a_game_with_several_models_are_wider_than_scores_counted_once(
    average: tuple[Path, Result],
) -> None:
    rows = average[1].rows
    line = rows[(rows["measure"] == "auc") & (rows["attack"] == "lira") & (rows["defense"] == "none")].iloc[0]
    n = int(line["n"])
    auc = line["value"]
    assert n == 10 * 240
    assert line["high"] - line["low"] > 2 * 1.96 * np.sqrt(auc * (1 - auc) / n)


def test_canaries_are_the_most_vulnerable_of_another_run(average: tuple[Path, Result], blobs: Dataset, tmp_path: Path):
    out = average[0]
    game = cli.vulnerable_game("random_halves:models=6,canaries=30,canary_kind=vulnerable", out)
    table = average[1].records
    best = table[table["defense"] == "none"].sort_values("gap", ascending=False)["record"][:30]
    assert set(game.chosen) == set(best)
    assert len(cli.vulnerable_game("random_halves:models=6", out).chosen) == 100
    design = game.draw(blobs.y, 4, 1)
    assert set(design.asked) == set(best)
    assert not set(design.asked) & {*design.reference, *design.test}
    assert (design.member.all(0).sum()) >= 300 - 60 - 30  # all others are in every model
    assert parse(str(game)) == game
    assert len(game.brief) < 100
    experiment = replace(AVERAGE, game=game, defenses=AVERAGE.defenses[:1], seeds=(1,))
    result = api.compare(experiment, tmp_path, data=blobs, engine=Engine("inprocess"))
    assert set(result.records["record"]) == set(best)
    assert set(result.rows["game"]) == {game.brief}
    again = cli._read_toml(tmp_path / "experiment.toml")
    assert parse(again["game"]) == game
    text = said(result)
    assert "30 the samples that another run" in text
    assert "worst case" in text


def said(result: Result) -> str:
    out = io.StringIO()
    report.print_summary(result, Console(file=out, width=100))
    text = out.getvalue()
    text.encode("ascii")
    return re.sub(r"\s+", " ", text)


def test_the_report_says_who_was_asked_and_which_records_leak(average: tuple[Path, Result]) -> None:
    out, result = average
    text = said(result)
    assert "Attacked were 240 samples as they come, each in about half of the 10 models" in text
    assert "Single records" in text
    page = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", (out / "report.html").read_text()))
    assert "Attacked were 240 samples as they come" in page
    assert "ε at least" in page
    first = result.records.iloc[0]
    assert re.search(rf"{first['record']} {first['label']} {first['gap']:.3f} ", page)
    assert "would look so, or worse, if nothing leaked" in page
    assert "Raised if the attacks had fewer than 16 shadow models" in page
    assert "Raised if the attacks had fewer than 16 shadow models" in text


def test_mislabelled_canaries_are_said_and_stand_out(blobs: Dataset, tmp_path: Path) -> None:
    game = RandomHalves(models=8, canaries=40, canary_kind="mislabelled")
    experiment = replace(AVERAGE, game=game, defenses=AVERAGE.defenses[:1], recipe=replace(TINY, epochs=30))
    result = api.compare(experiment, tmp_path, data=blobs, engine=Engine("inprocess"))
    assert (result.records["label"] != result.records["trained_as"]).all()
    assert result.records["auc"].mean() > 0.8
    assert "canaries only: 40 samples with a random wrong label" in said(result)
    assert "trained as" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("game", "said"),
    [
        ("random_halves:canaries=3,canary_kind=vulnerable", "--canaries-from"),
        ("random_halves:canaries=3,canary_kind=vulnerable,chosen=1/2", "2 different samples"),
        ("random_halves:canaries=2,canary_kind=vulnerable,chosen=1/1", "1 different samples"),
        ("random_halves:canaries=2,canary_kind=vulnerable,chosen=1/300", "0 to 299"),
        ("random_halves:canaries=2,chosen=1/2", "set canary_kind=vulnerable"),
    ],
)
def test_canaries_that_do_not_fit_are_explained(game: str, said: str, blobs: Dataset) -> None:
    with pytest.raises(UserError, match=said):
        parse(game).draw(blobs.y, 4, 0)


def test_canaries_from_another_game_or_data_are_refused(average: tuple[Path, Result], images: Dataset) -> None:
    with pytest.raises(UserError, match="goes with the game random_halves"):
        cli.vulnerable_game("five_folds", average[0])
    with pytest.raises(UserError, match="that run was on blobs"):
        cli._same_data(average[0], images)


def test_naming_canaries_moves_nobody_else(blobs: Dataset) -> None:
    """The held-out samples are those of the same seed without canaries, if the chosen were not among them."""
    plain = RandomHalves(models=4).draw(blobs.y, 4, 0)
    chosen = tuple(int(place) for place in plain.asked[:10])
    named = RandomHalves(models=4, canaries=10, canary_kind="vulnerable", chosen=chosen).draw(blobs.y, 4, 0)
    assert np.array_equal(plain.reference, named.reference)
    assert np.array_equal(plain.test, named.test)


def test_a_run_with_one_target_lists_exposed_members_only(blobs: Dataset, tmp_path: Path) -> None:
    experiment = replace(AVERAGE, game=parse("five_folds"), attacks=AVERAGE.attacks[:1], defenses=AVERAGE.defenses[:1])
    result = api.compare(experiment, tmp_path, data=blobs, engine=Engine("inprocess"))
    assert list(result.records.columns[-5:]) == ["rank", "record", "label", "score", "fpr"]
    assert len(result.records) == records.SHOWN
    assert set(result.records["record"]) <= set(experiment.game.draw(blobs.y, 4, 0).members(0))
    assert not result.rows["measure"].isin([one_run_audit.MEASURE, records.LEAKING]).any()
    assert "this list does not say which records leak" in re.sub(r"\s+", " ", (tmp_path / "report.html").read_text())
    assert "Single records" not in said(result)
