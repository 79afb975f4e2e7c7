"""Persons with several samples: together in or out of every model, and asked about together."""

from __future__ import annotations

import datetime
import decimal
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from command_line import call
from relaxloss import data, trained
from relaxloss.compute.engine import Engine
from relaxloss.data import Dataset, npz
from relaxloss.errors import UserError
from relaxloss.evaluation import rows as measures
from relaxloss.evaluation.grouping import Grouping
from relaxloss.experiments.plan import Experiment, Plan
from relaxloss.experiments.result import Result
from relaxloss.experiments.run import run
from relaxloss.experiments.tuned import Tuned
from relaxloss.games import Design, FiveFolds, Game, RandomHalves, TuningFolds
from relaxloss.storage.store import Store, unpack_arrays
from relaxloss.training.task import Recipe

TINY = Recipe(model="mlp:hidden=64", epochs=30, milestones=(20,), batch_size=32)
GAMES: tuple[Game, ...] = (
    FiveFolds(shadows=3),
    RandomHalves(models=6),
    RandomHalves(models=6, canaries=20, canary_kind="mislabelled"),
    TuningFolds(),
    TuningFolds(reference=True, drawing=1),
)


def visits(persons: int = 150, each: int = 6, seed: int = 0) -> Dataset:
    """Persons whose rows lie close together, with a label of their own, in an order that tells nothing."""
    rng = np.random.default_rng(seed)
    own, y = rng.normal(size=(persons, 12)), rng.integers(0, 4, persons)
    own[:, :4] += 0.8 * np.eye(4)[y]
    whose = rng.permutation(np.arange(persons).repeat(each))
    x = own[whose] + 0.3 * rng.normal(size=(len(whose), 12))
    return Dataset("visits", x.astype(np.float32), y[whose], 4, "made for tests", groups=7 * whose - 30)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result, Result]:
    """The same rows, split by person and by row."""
    out = tmp_path_factory.mktemp("persons")
    spec = Experiment("visits", attacks="blackbox", defenses=("none",), recipe=TINY)
    found = [
        run(spec, out, data=each, engine=Engine("inprocess")) for each in (visits(), replace(visits(), groups=None))
    ]
    return out, found[0], found[1]


def best(result: Result, measure: str = "auc") -> pd.Series:
    rows = result.rows[(result.rows["measure"] == measure) & (result.rows["adaptive"] != False)]  # noqa: E712
    return rows[rows["attack"].isin(["", "max"])].iloc[0]


@pytest.mark.parametrize("game", GAMES, ids=str)
def test_nobody_is_on_two_sides(game: Game) -> None:
    dataset = visits()
    design = game.draw_from(dataset, seed=3)
    assert design.member.shape[1] == len(dataset)
    for person in np.unique(dataset.groups):
        own = np.flatnonzero(dataset.groups == person)
        for line in (*design.member, *(np.isin(np.arange(900), part) for part in sets(design))):
            assert line[own].all() or not line[own].any()
    plain = game.draw(np.zeros(150, int), 4, seed=3)  # a drawing of the persons
    for mine, theirs in zip(sets(design), sets(plain), strict=True):
        assert len(mine) == 6 * len(theirs)
    assert design.member.sum() == 6 * plain.member.sum()
    if plain.labels is not None:
        assert design.labels is not None
        changed = design.labels != dataset.y
        assert changed.sum() == 6 * 20
        assert set(np.flatnonzero(changed)) == set(design.asked)


def sets(design: Design) -> tuple[np.ndarray, ...]:
    return design.asked, design.fit, design.reference, design.test


def test_one_sample_each_is_no_groups(blobs: Dataset) -> None:
    each = replace(blobs, groups=np.arange(len(blobs)))
    for game in GAMES[:2]:
        one, other = game.draw_from(blobs, 0), game.draw_from(each, 0)
        assert np.array_equal(one.member, other.member)
        assert all(map(np.array_equal, sets(one), sets(other)))


def test_the_most_vulnerable_are_persons() -> None:
    dataset = visits()
    first = [int(np.flatnonzero(dataset.persons == person)[0]) for person in (5, 80)]
    game = RandomHalves(models=4, canaries=2, canary_kind="vulnerable", chosen=tuple(first))
    assert set(dataset.persons[game.draw_from(dataset, 0).asked]) == {5, 80}
    with pytest.raises(UserError, match="got 900 in `chosen`; expected places in this data set of 900 samples"):
        replace(game, chosen=(0, 900)).draw_from(dataset, 0)


def test_the_mean_over_a_persons_samples() -> None:
    rng = np.random.default_rng(1)
    persons, samples = rng.integers(0, 40, 500), np.sort(rng.choice(500, 200, replace=False))
    values = rng.normal(size=(3, 200))
    asked = Grouping.of(samples, persons)
    frame = pd.DataFrame(values.T).assign(person=persons[samples], sample=samples).groupby("person")
    np.testing.assert_allclose(asked.mean(values), frame[[0, 1, 2]].mean().to_numpy().T)
    assert np.array_equal(asked.largest(values), frame[[0, 1, 2]].max().to_numpy().T)
    assert list(asked.scores("lira:x=1", values)) == ["lira:x=1", "lira:x=1,rows=max"]
    assert asked.records.tolist() == frame["sample"].first().tolist()
    values[0, 3] = np.inf
    assert np.isfinite(asked.mean(values)).all()
    alone = Grouping.of(samples, np.arange(500)[::-1])
    assert np.array_equal(alone.mean(values), values[:, ::-1]), "each sample's own, infinite ones too"


def test_persons_are_asked_about(results: tuple[Path, Result, Result]) -> None:
    out, result, _ = results
    plan = Plan(Experiment("visits", attacks="blackbox", defenses=("none",), recipe=TINY), visits(), visits())
    design, dataset = plan.designs[0], visits()
    for scored in plan.score_jobs(Store(out / "store"))[1]:
        files = Store(out / "store").get("scores", scored.key)
        assert files is not None
        scores = unpack_arrays(files["arrays.npz"])["scores"][0]
        frame = pd.DataFrame({"person": dataset.groups[design.asked], "score": scores})
        frame["member"] = design.member[0, design.asked]
        for name, of in ((str(scored.attack), "mean"), (f"{scored.attack}:rows=max", "max")):
            of_each = frame.groupby("person").agg({"score": of, "member": "first"})
            rows = result.rows[(result.rows["measure"] == "auc") & (result.rows["attack"] == name)]
            mine = rows[rows["adaptive"] == scored.adaptive]
            assert mine["value"].item() == pytest.approx(roc_auc_score(of_each["member"], of_each["score"]), abs=1e-12)
            assert mine["n"].item() == len(of_each) == 60
    assert len(result.records) <= 60
    assert result.facts["persons"] == 150
    (why,) = set(result.rows[result.rows["measure"] == "balanced_accuracy_per_class"]["note"])
    assert why == "not measured: a person's samples may be of several classes"


def test_rows_would_tell_too_little_leakage_and_too_much_accuracy(results: tuple[Path, Result, Result]) -> None:
    _, persons, rows = results
    assert best(rows, "top1")["value"] > best(persons, "top1")["value"] + 0.1
    assert best(rows)["value"] < best(persons)["value"] - 0.1
    widths = [best(each, "top1")["high"] - best(each, "top1")["low"] for each in (persons, rows)]
    assert widths[0] > 1.5 * widths[1], "30 persons, and not 180 rows"


def test_several_targets_ask_about_persons(tmp_path: Path) -> None:
    spec = Experiment(
        "visits", attacks="loss,lira", defenses=("none",), recipe=TINY.lasting(6), game="random_halves:models=4"
    )
    result = run(spec, tmp_path, data=visits(60, 3), engine=Engine("inprocess"))
    asked = 60 - 2 * 6
    rows = result.rows
    assert set(rows[(rows["measure"] == "auc") & rows["attack"].isin(["loss", "lira", "max"])]["n"]) == {4 * asked}
    assert set(rows[rows["measure"] == "epsilon_lower_bound"]["n"]) == {asked}
    assert set(rows[rows["measure"] == "leaking_records"]["n"]) == {asked}
    assert len(result.records) == asked


def test_what_tuned_is_told_by_persons() -> None:
    dataset = visits()
    tuned = Tuned("relaxloss", (TuningFolds(),), 0, dataset.fingerprint)
    asked = FiveFolds().draw_from(dataset, 0).asked
    assert not np.isin(asked, tuned.used(dataset)).any()
    assert np.isin(asked, tuned.used(replace(dataset, groups=None))).any(), "another split"


def test_a_model_is_trained_on_persons(tmp_path: Path) -> None:
    dataset = visits()
    model = trained.train(dataset, "none", recipe=replace(TINY, epochs=2, milestones=()), test=0.2, reference=0.1)
    whose = [set(dataset.persons[part]) for part in model.split.values()]
    assert [len(each) for each in whose] == [30, 15, 105]
    assert sum(map(len, model.split.values())) == 900
    assert len(set.union(*whose)) == 150
    assert dataset.fingerprint != replace(dataset, groups=None).fingerprint
    with pytest.raises(UserError, match="groups is int64 \\(899,\\); expected int64 \\(900,\\)"):
        replace(dataset, groups=np.arange(899))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    dataset = visits(60, 4)
    frame = pd.DataFrame(dataset.x, columns=[f"v{k}" for k in range(12)])
    frame["patient"] = [f"p{person}" for person in dataset.persons]
    frame["outcome"] = np.array(["a", "b", "c", "d"])[dataset.y]
    frame.to_csv(tmp_path / "visits.csv", index=False)
    return tmp_path / "visits.csv"


def test_the_column_of_persons_is_no_feature(table: Path) -> None:
    dataset = data.load(table, label="outcome", group="patient")
    assert [column.name for column in dataset.columns] == [f"v{k}" for k in range(12)]
    names = pd.read_csv(table)["patient"]
    assert dataset.groups is not None
    assert pd.crosstab(names, dataset.groups).gt(0).sum(axis=1).eq(1).all()
    assert len(np.unique(dataset.groups)) == 60
    assert "persons 'patient': 60, of 4 rows each" in dataset.provenance
    frame = pd.read_csv(table)
    frame["patient"] = frame["patient"].astype("category")
    frame.to_parquet(table.with_suffix(".parquet"))
    other = data.load(table.with_suffix(".parquet"), label="outcome", group="patient")
    assert len(np.unique(other.groups)) == 60


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": "pateint"}, "unknown column of persons of visits.csv 'pateint': did you mean 'patient'"),
        ({"group": "outcome"}, "'outcome' names the persons; it is no label and no feature: name it once"),
        ({"group": "patient", "drop": "patient"}, "'patient' names the persons"),
        ({"group": "patient", "columns": {"patient": ["p1"]}}, "'patient' names the persons"),
    ],
)
def test_a_column_of_persons_that_is_none(table: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        data.load(table, label="outcome", **options)  # type: ignore[arg-type]


def test_rows_of_nobody_are_refused(table: Path) -> None:
    frame = pd.read_csv(table)
    frame.loc[[3, 8], "patient"] = None
    frame.to_csv(table, index=False)
    with pytest.raises(UserError, match="the column of persons 'patient' is empty in 2 of 240 rows"):
        data.load(table, label="outcome", group="patient")
    with pytest.raises(UserError, match="label, drop, columns and group are for CSV and Parquet files"):
        data.load("digits", group="patient")


def test_the_command_line_takes_persons(table: Path, tmp_path: Path) -> None:
    options = ("--data", str(table), "--label", "outcome", "--group", "patient", "--recipe", "model=mlp:hidden=8")
    short = ("--epochs", "2", "--quiet")
    done = call("compare", *options, *short, "--attacks", "loss", "--defenses", "none", "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    rows = pd.read_csv(tmp_path / "run" / "results.csv")
    assert set(rows[rows["attack"] == "loss"]["n"]) == {24}
    assert "60, of 4 rows each" in (tmp_path / "run" / "report.html").read_text()
    done = call("train", *options, *short, "--defense", "dpsgd:noise=2", "--out", str(tmp_path / "model"))
    assert done.returncode == 0, done.stderr
    assert "epsilon_is_of: one person, with all their samples" in done.stdout
    done = call("tune", *options, *short, "--max-auc", "0.9", "--attacks", "loss", "--settings", "2",
                "--out", str(tmp_path / "tune"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 'group = "patient"' in (tmp_path / "tune" / "compare.toml").read_text()


def test_what_few_persons_have_is_rare_however_many_rows_they_have(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whose = np.arange(60).repeat(6)
    frame = pd.DataFrame({"patient": whose, "age": rng.normal(size=360), "ward": np.where(whose < 4, "secret", "open")})
    frame["outcome"] = rng.choice(["ill", "well"], 360)
    frame["name"] = [f"name {each}" for each in whose]
    frame.to_csv(tmp_path / "wards.csv", index=False)
    dataset = data.load(tmp_path / "wards.csv", label="outcome", group="patient", drop="name")
    seen = dataset.encoder(np.arange(360)).seen
    assert seen.tolist() == [True, False], "open, and not secret, which four persons have in 24 rows"
    rows = replace(dataset, groups=None)
    assert rows.encoder(np.arange(360)).seen.all()
    with_names = data.load(tmp_path / "wards.csv", label="outcome", group="patient")
    with pytest.raises(
        UserError, match="name has 60 different texts in 360 rows of 60 persons, so that it tells persons"
    ):
        trained.train(with_names, recipe=TINY.lasting(1))
    frame["outcome"] = np.where(whose < 4, "rare", frame["outcome"])
    frame.to_csv(tmp_path / "wards.csv", index=False)
    dataset = data.load(tmp_path / "wards.csv", label="outcome", group="patient", drop="name")
    with pytest.warns(UserWarning, match=r"fewer than 5 members have the class rare \([1-4]\)"):
        trained.train(dataset, recipe=TINY.lasting(1))


def test_groups_are_prepared_along(tmp_path: Path) -> None:
    dataset = visits()
    npz.write(dataset, tmp_path / "visits.npz")
    again = data.load("visits", folder=tmp_path)
    assert again.groups is not None
    assert np.array_equal(again.persons, dataset.persons)
    assert again.fingerprint == dataset.fingerprint
    np.savez(tmp_path / "own.npz", x=dataset.x, y=dataset.y, groups=np.array([f"p{each}" for each in dataset.groups]))
    assert data.load(tmp_path / "own.npz").num_persons == 150
    np.savez(tmp_path / "own.npz", x=dataset.x, y=dataset.y, groups=np.arange(3))
    with pytest.raises(UserError, match=r"groups has shape \(3,\); expected \(900,\)"):
        data.load(tmp_path / "own.npz")


def test_accuracy_of_a_few_with_many_rows_is_no_surer_than_theirs() -> None:
    """Three persons with 200 rows, 97 with one: intervals hold the truth as often as they say, or more."""
    rng, missed = np.random.default_rng(0), 0
    whose = np.repeat(np.arange(100), [200] * 3 + [1] * 97)
    for _ in range(200):
        right = (rng.random(100) < 0.5)[whose]
        logits = np.stack([right, ~right], axis=1).astype(float)
        labels = np.zeros(len(whose), np.int64)
        rows = measures.utility(logits, labels, logits, labels, distinct=measures.persons_of(whose))
        top1 = next(each for each in rows if each["measure"] == "top1")
        missed += not top1["low"] <= 0.5 <= top1["high"]
    assert missed <= stats.binom.ppf(0.999, 200, 0.05)
    assert measures.persons_of(np.arange(50).repeat(7)) == 50


@pytest.mark.parametrize(
    ("values", "persons"),
    [
        ([f"P{k // 4}{' ' * (k % 2)}" for k in range(240)], 60),  # a blank behind the name
        ([bool(k % 2) for k in range(240)], 2),
        ([datetime.date(2020, 1, 1 + k // 10) for k in range(240)], 24),
        ([decimal.Decimal(k // 4) / 10 for k in range(240)], 60),
        ([1.5 * (k // 4) for k in range(240)], 60),
        ([2**53 + k // 4 for k in range(240)], 60),
    ],
)
def test_persons_are_called_by_anything(table: Path, values: list[object], persons: int) -> None:
    path = table.with_suffix(".parquet")
    pd.read_csv(table).assign(patient=values).to_parquet(path)
    assert data.load(path, label="outcome", group="patient").num_persons == persons


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([np.nan if k < 5 else float(k // 4) for k in range(240)], "is empty in 5 of 240 rows"),
        ([1e19 + k for k in range(240)], "holds numbers of 16 digits or more as floating point"),
        ([[k] for k in range(240)], "holds list<element: int64>; expected persons' numbers or names"),
    ],
)
def test_persons_that_cannot_be_told(table: Path, values: list[object], message: str) -> None:
    path = table.with_suffix(".parquet")
    pd.read_csv(table).assign(patient=values).to_parquet(path)
    with pytest.raises(UserError, match=re.escape(message)):
        data.load(path, label="outcome", group="patient")


def test_too_few_persons() -> None:
    few = replace(visits(), groups=np.arange(900) // 300)
    with pytest.raises(UserError, match=r"got test=0\.2 of 3 persons, which is nobody"):
        trained.train(few, recipe=TINY)
    for game in (FiveFolds(), RandomHalves(models=4)):
        with pytest.raises(UserError, match="visits has 900 samples of 3 persons, who count as one sample each: "):
            game.draw_from(few, 0)
    with pytest.raises(UserError, match=r"groups is list; expected int64 \(900,\)"):
        replace(visits(), groups=[1] * 900)
