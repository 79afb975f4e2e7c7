"""What a trained model answers to the rows of a file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from relaxloss import cli, data, trained
from relaxloss.data import Dataset
from relaxloss.errors import UserError
from relaxloss.trained import Trained, predict_file
from relaxloss.training.task import Recipe

TINY = Recipe(model="mlp:hidden=16", epochs=2, milestones=(1,), batch_size=32)


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({
        "age": rng.integers(20, 90, 200), "ward": rng.choice(["A", "B", None], 200),
        "came": pd.date_range("2020-01-01", periods=200), "outcome": rng.choice(["alive", "dead"], 200),
    })  # fmt: skip
    frame.to_csv(tmp_path / "patients.csv", index=False)
    frame.to_parquet(tmp_path / "patients.parquet")
    return tmp_path


@pytest.mark.parametrize("name", ["patients.csv", "patients.parquet"])
def test_a_file_is_answered_as_the_training_data_are(patients: Path, name: str) -> None:
    dataset = data.load(patients / "patients.csv", label="outcome")
    model = trained.train(dataset, "none", recipe=TINY)
    found = predict_file.table(model, patients / name, keep=["ward", "outcome"])
    assert list(found.columns) == ["ward", "outcome", "predicted", "prob_alive", "prob_dead"]
    expected = np.exp(model.predict_log_proba(dataset.x))
    assert np.array_equal(found[["prob_alive", "prob_dead"]], expected)
    assert list(found["predicted"]) == [("alive", "dead")[place] for place in expected.argmax(1)]
    assert list(found["outcome"]) == list(pd.read_csv(patients / "patients.csv")["outcome"])


def test_arrays_are_answered_too(blobs: Dataset, tmp_path: Path) -> None:
    model = trained.train(blobs, "none", recipe=TINY)
    np.savez(tmp_path / "new.npz", x=blobs.x[:5].astype(np.float64))
    found = predict_file.table(model, tmp_path / "new.npz")
    assert np.array_equal(found.drop(columns="predicted"), np.exp(model.predict_log_proba(blobs.x[:5])))
    assert list(found.columns) == ["predicted", "prob_0", "prob_1", "prob_2", "prob_3"]


@pytest.fixture
def codes(tmp_path: Path) -> tuple[Path, Trained]:
    """A model of columns whose text may look like something else, and its data."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({
        "icd": rng.choice(["0089", "0123", "4567", "K70"], 300),
        "smoker": rng.choice(["True", "False", "unknown"], 300),
        "sex": rng.choice(["true", "false"], 300), "age": rng.integers(20, 90, 300),
        "id": [f"{place:03d}" for place in range(300)], "outcome": rng.choice(["01", "1.0", "yes"], 300),
    })  # fmt: skip
    path = tmp_path / "codes.csv"
    frame.to_csv(path, index=False)
    return path, trained.train(data.load(path, label="outcome", drop="id"), "none", recipe=TINY)


def test_text_is_text_in_a_file_of_few_rows_too(codes: tuple[Path, Trained]) -> None:
    path, model = codes
    whole = pd.read_csv(path, dtype=str)
    answers_of_all = predict_file.table(model, path)
    some = whole[whole["icd"].isin(["0123", "4567"]) & (whole["smoker"] != "unknown")]
    for rows in (some, whole[whole["icd"] == "0123"], whole.iloc[:1]):
        rows.to_csv(path.with_name("few.csv"), index=False)
        pd.testing.assert_frame_equal(
            predict_file.table(model, path.with_name("few.csv")), answers_of_all.loc[rows.index].reset_index(drop=True)
        )


def test_what_is_kept_is_kept_to_the_letter(codes: tuple[Path, Trained]) -> None:
    path, model = codes
    frame = pd.read_csv(path, dtype=str)[lambda each: each["outcome"] != "yes"].head(40)
    frame["id"] = ["12345678901234567", None, *frame["id"][2:]]
    frame.to_csv(path.with_name("few.csv"), index=False)
    found = predict_file.table(model, path.with_name("few.csv"), keep=("id", "outcome", "id", "age"))
    assert list(found.columns[:4]) == ["id", "outcome", "age", "predicted"]
    assert list(found["id"].fillna("")) == list(frame["id"].fillna(""))
    assert list(found["outcome"]) == list(frame["outcome"])
    frame["age"] = frame["age"].astype(int)
    frame["id"] = pd.array([12345678901234567, None, *range(38)], dtype="Int64")
    frame.to_parquet(path.with_name("few.parquet"))
    found = predict_file.table(model, path.with_name("few.parquet"), keep=("id",))
    assert found["id"][0] == 12345678901234567


def test_an_index_that_pandas_wrote_is_a_column(codes: tuple[Path, Trained]) -> None:
    path, model = codes
    frame = pd.read_csv(path, dtype=str).astype({"age": int})
    frame.set_index("age").to_parquet(path.with_name("few.parquet"))
    pd.testing.assert_frame_equal(
        predict_file.table(model, path.with_name("few.parquet")), predict_file.table(model, path)
    )


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_command_writes_what_an_audit_reads(
    patients: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    monkeypatch.chdir(patients)
    dataset = data.load("patients.csv", label="outcome")
    model = trained.train(dataset, "none", recipe=TINY)
    model.save("model")
    frame = pd.read_csv("patients.csv")
    frame["member"] = np.isin(np.arange(200), model.split["members"])
    frame.to_csv("asked.csv", index=False)

    def command(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["relaxloss", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0)

    asked = ("predict", "model", "asked.csv", "--keep", "outcome,member", "--out", f"answers.{suffix}")
    assert not command(*asked)
    assert f"predictions: answers.{suffix} (200 rows)" in capsys.readouterr().out
    read = {"csv": pd.read_csv, "parquet": pd.read_parquet}[suffix](f"answers.{suffix}")
    assert np.array_equal(read["prob_dead"], np.exp(model.predict_log_proba(dataset.x))[:, 1]), "to the last digit"
    assert command(*asked) == 2
    assert "is there already" in capsys.readouterr().err
    assert not command(*asked, "--overwrite")
    assert not command("audit", f"answers.{suffix}", "--label", "outcome", "-q")


def test_what_cannot_be_answered_is_explained(patients: Path, blobs: Dataset, tmp_path: Path) -> None:
    of_table = trained.train(data.load(patients / "patients.csv", label="outcome"), "none", recipe=TINY)
    of_arrays = trained.train(blobs, "none", recipe=TINY)
    np.savez(tmp_path / "y.npz", y=blobs.y)
    np.savez(tmp_path / "x.npz", x=blobs.x)
    (tmp_path / "twice.csv").write_text("age,age,ward\n1,2,A\n")
    pd.DataFrame({"age": [1], "prob_dead": [1]}).to_csv(tmp_path / "odd.csv", index=False)
    for model, name, keep, said in (
        (of_table, "absent.csv", [], "there is no such file"),
        (of_table, "y.npz", [], "trained on a table; expected a file of .csv"),
        (of_arrays, "patients.csv", [], "trained on arrays; expected a file of .npz"),
        (of_arrays, "y.npz", [], "holds y; expected x, the rows to predict"),
        (of_table, "patients.csv", ["aeg"], "unknown column of patients.csv to keep 'aeg': did you mean 'age'"),
        (of_table, "odd.csv", [], "the table has no column 'ward'"),
        (of_arrays, "x.npz", ["age"], "has no columns to keep (age)"),
        (of_table, "twice.csv", ["age"], "has several columns named age"),
    ):
        with pytest.raises(UserError, match=re.escape(said)):
            predict_file.table(model, tmp_path / name, keep=keep)
    named = pd.read_csv(patients / "patients.csv").assign(prob_dead=1.0)
    named.to_csv(patients / "named.csv", index=False)
    with pytest.raises(UserError, match="cannot keep prob_dead"):
        predict_file.table(of_table, patients / "named.csv", keep=["prob_dead"])
    with pytest.raises(UserError, match="unknown kind of file"):
        predict_file.check(tmp_path / "out.xlsx", overwrite=False)
