"""Columns that are described beforehand: read as described, and the released model holds nothing else of them."""

from __future__ import annotations

import datetime
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from command_line import call
from relaxloss import data, trained
from relaxloss.data import Column, Dataset, npz
from relaxloss.data.tabular import column_descriptions
from relaxloss.defenses import parse
from relaxloss.errors import UserError
from relaxloss.trained import Trained
from relaxloss.training.task import Recipe

TINY = Recipe(model="mlp:hidden=16", epochs=2, milestones=(1,), batch_size=32)
COLUMNS: dict[str, Any] = {
    "age": [0, 60],
    "since": [datetime.date(2020, 1, 1), datetime.date(2021, 1, 1)],
    "ward": ["icu", "neuro", "zoo", "never seen"],
    "stage": ["4", "1", "2", "3"],
}
TOML = """
age = [0, 60]
since = [2020-01-01, 2021-01-01]
ward = ["icu", "neuro", "zoo", "never seen"]
stage = ["4", "1", "2", "3"]
"""


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"age": rng.normal(50, 9, 120).round(1), "ward": rng.choice(["icu", "neuro", "zoo"], 120)})
    frame["since"] = pd.to_datetime("2020-01-01") + pd.to_timedelta(rng.integers(0, 366, 120), unit="D")
    frame["stage"] = pd.Series(rng.integers(1, 4, 120)).mask(frame.index == 7)  # a number missing: fractions in pandas
    frame.loc[3, "age"] = np.nan
    frame["outcome"] = np.where(frame.ward == "icu", "ill", "well")
    frame.to_csv(tmp_path / "patients.csv", index=False)
    return tmp_path / "patients.csv"


def test_the_encoder_holds_the_description_and_nothing_of_the_members(patients: Path) -> None:
    dataset = data.load(patients, label="outcome", columns=COLUMNS)
    assert [column.categories for column in dataset.columns] == [
        None,
        ("icu", "neuro", "never seen", "zoo"),
        None,
        ("1", "2", "3", "4"),
    ]
    few, others = dataset.encoder(np.arange(3)), dataset.encoder(np.arange(60, 120))
    for name, value in few.state_dict().items():
        assert torch.equal(value, others.state_dict()[name]), "whoever the members are"
    frame = pd.read_csv(patients, parse_dates=["since"])
    got = few(torch.from_numpy(dataset.x)).numpy()
    age = ((frame.age.clip(0, 60) - 30) / (60 / np.sqrt(12))).fillna(0)
    day = (frame.since - pd.Timestamp("2020-01-01")).dt.days
    wards = np.array([[ward == name for name in ("icu", "neuro", "never seen", "zoo")] for ward in frame.ward])
    stages = np.array([[stage == number for number in (1, 2, 3, 4)] for stage in frame.stage])
    expected = np.column_stack([age, wards, (day - 183) / (366 / np.sqrt(12)), stages])
    np.testing.assert_allclose(got, expected, atol=2e-4)
    assert "values taken to the ends of the described range: age (" in dataset.provenance
    assert dataset.fingerprint != data.load(patients, label="outcome", columns=COLUMNS | {"age": [0, 61]}).fingerprint


def test_what_is_not_described_is_fitted_as_before(patients: Path) -> None:
    plain, some = (data.load(patients, label="outcome", columns=each) for each in ({}, {"ward": COLUMNS["ward"]}))
    members = np.arange(70)
    one, two = plain.encoder(members), some.encoder(members)
    assert torch.equal(one.offset[[0, 2, 3]], two.offset[[0, 2, 3]])
    assert torch.equal(one.scale[[0, 2, 3]], two.scale[[0, 2, 3]])


WRONG = {
    "unknown column": ({"aeg": [0, 60]}, "did you mean 'age'"),
    "one end": ({"age": [60]}, "two ends of a range"),
    "turned round": ({"age": [60, 0]}, "from low to high"),
    "truths": ({"ward": [True, False]}, "categories"),
    "twice": ({"ward": ["icu", "icu"]}, "none twice"),
    "a category is missing": ({"ward": ["icu", "zoo"]}, "column 'ward' holds 'neuro'; expected only"),
    "text as a range": ({"ward": [0, 1]}, "holds text"),
    "numbers as categories": ({"age": ["0", "60"]}, "column 'age' holds"),
    "dates as numbers": ({"since": [0, 60]}, "holds dates"),
    "not dates": ({"since": ["then", "now"]}, "holds dates"),
    "another unit": ({"age": [0, 6]}, r"of 120 values are beyond the range 0 to 6 .* of another unit\?"),
    "no mapping": (["age"], "is list"),
}


@pytest.mark.parametrize(("columns", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_description_is_explained(patients: Path, columns: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        data.load(patients, label="outcome", columns=columns)


def test_all_columns_that_cannot_be_used_are_said_at_once(patients: Path) -> None:
    with pytest.raises(UserError, match=r"patients.csv: column 'age'.*; column 'ward' holds 'neuro'"):
        data.load(patients, label="outcome", columns={"age": [0, 6], "ward": ["icu", "zoo"]})


def test_values_beyond_the_bounds_of_a_data_set_are_refused() -> None:
    column = Column("age", known=True, bounds=(0.0, 1.0))
    with pytest.raises(UserError, match="has no bounds"):
        Dataset("mine", np.zeros((9, 1), np.float32), np.arange(9) % 2, 2, "made", (Column("age", known=True),))
    with pytest.raises(UserError, match="beyond its bounds"):
        Dataset("mine", np.full((9, 1), 2, np.float32), np.arange(9) % 2, 2, "made", (column,))


def test_descriptions_are_for_tables_only(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="columns and group are for CSV"):
        data.load("digits", columns=COLUMNS)
    np.savez(tmp_path / "a.npz", x=np.zeros((20, 2), np.float32), y=np.arange(20) % 2)
    with pytest.raises(UserError, match="columns and group are for CSV"):
        data.load(tmp_path / "a.npz", columns=COLUMNS)


def test_a_prepared_file_keeps_them(patients: Path, tmp_path: Path) -> None:
    dataset = data.load(patients, label="outcome", columns=COLUMNS)
    npz.write(dataset, tmp_path / "kept.npz")
    assert data.load(tmp_path / "kept.npz").fingerprint == dataset.fingerprint


def test_epsilon_covers_what_is_described(patients: Path, tmp_path: Path) -> None:
    private = parse("dpsgd:target_epsilon=5.0")
    whole = data.load(patients, label="outcome", columns=COLUMNS)
    assert private.uncovered(whole) == ()
    made = trained.train(whole, private, recipe=TINY, seed=None)
    assert "epsilon_does_not_cover" not in made.facts
    guessed = trained.train(whole, private, recipe=TINY, seed=7).facts["epsilon_does_not_cover"]
    assert guessed.startswith("whom a guess of the seed tells the noise")
    assert "7" not in guessed
    part = data.load(patients, label="outcome", columns={name: COLUMNS[name] for name in ("age", "ward")})
    assert re.search(
        r"of the members in since, stage$",
        trained.train(part, private, recipe=TINY, seed=None).facts["epsilon_does_not_cover"],
    )
    made.save(tmp_path / "model")
    back = Trained.load(tmp_path / "model")
    frame = pd.read_csv(patients)
    assert np.array_equal(back.predict_log_proba(frame), made.predict_log_proba(whole.x)), "ages beyond the range too"
    assert (frame.age > 60).any()


def test_the_command_line_takes_a_file_of_them(patients: Path, tmp_path: Path) -> None:
    (tmp_path / "columns.toml").write_text(TOML)
    assert column_descriptions.read(tomllib.loads(TOML)) == column_descriptions.read(COLUMNS)
    options = ("--data", str(patients), "--label", "outcome", "--columns", str(tmp_path / "columns.toml"))
    tiny = ("--model", "mlp:hidden=16", "--epochs", "2")
    out = tmp_path / "run"
    done = call(
        *("compare", *options, *tiny, "--defenses", "none,dpsgd:target_epsilon=5", "--attacks", "loss,neural"),
        *("--shadows", "same", "--engine", "processes", "--workers", "2", "--out", str(out)),
    )
    assert done.returncode == 0, done.stderr
    page = (out / "report.html").read_text()
    assert "released without noise" not in page
    spec = tomllib.loads((out / "experiment.toml").read_text())
    assert spec["columns"]["since"] == ["2020-01-01", "2021-01-01"]
    again = call("compare", str(out / "experiment.toml"), "--out", str(out), "--engine", "inprocess")
    assert again.returncode == 0, again.stderr
    assert "train: nothing left" in again.stderr or "[1/" not in again.stderr, "all of it is in the store"
    plain = tmp_path / "plain"
    call(
        *("compare", *options[:4], *tiny, "--defenses", "dpsgd:target_epsilon=5", "--attacks", "loss,neural"),
        *("--shadows", "same", "--engine", "inprocess", "--out", str(plain)),
    )
    assert "released without noise" in (plain / "report.html").read_text()
    done = call("train", *options, *tiny, "--out", str(tmp_path / "model"))
    assert done.returncode == 0, done.stderr
    (tmp_path / "columns.toml").write_text("age = ")
    assert "is not TOML" in call("train", *options, *tiny, "--out", str(tmp_path / "other")).stderr


def test_a_private_model_ships_nothing_of_its_members_that_has_no_noise(patients: Path, tmp_path: Path) -> None:
    made = trained.train(data.load(patients, label="outcome", columns=COLUMNS), "dpsgd:target_epsilon=5.0", recipe=TINY)
    made.save(tmp_path / "model")
    shipped = {path.name: path.read_text() for path in (tmp_path / "model").glob("*.[jc]*")}
    assert list(shipped) == ["model.json"]
    assert not {"train_accuracy", "missing values"} & set(
        re.findall("train_accuracy|missing values", shipped["model.json"])
    )
    assert made.facts["train_accuracy"] is not None
    assert Trained.load(tmp_path / "model").facts == made.facts
    assert len(Trained.load(tmp_path / "model").history) == len(made.history)
    shutil.rmtree(tmp_path / "model" / "private")
    back = Trained.load(tmp_path / "model")
    assert back.facts == {name: value for name, value in made.facts.items() if name != "train_accuracy"}
    assert np.array_equal(back.predict(pd.read_csv(patients)), made.predict(pd.read_csv(patients)))
