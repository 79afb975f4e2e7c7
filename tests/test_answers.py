"""What a trained model answers to the rows of a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from relaxloss import answers, cli, data, trained
from relaxloss.data import Dataset
from relaxloss.errors import UserError
from relaxloss.task import Recipe

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
    found = answers.table(model, patients / name, keep=["ward", "outcome"])
    assert list(found.columns) == ["ward", "outcome", "predicted", "prob_alive", "prob_dead"]
    expected = np.exp(model.predict_log_proba(dataset.x))
    assert np.array_equal(found[["prob_alive", "prob_dead"]], expected)
    assert list(found["predicted"]) == [("alive", "dead")[place] for place in expected.argmax(1)]
    assert list(found["outcome"]) == list(pd.read_csv(patients / "patients.csv")["outcome"])


def test_arrays_are_answered_too(blobs: Dataset, tmp_path: Path) -> None:
    model = trained.train(blobs, "none", recipe=TINY)
    np.savez(tmp_path / "new.npz", x=blobs.x[:5].astype(np.float64))
    found = answers.table(model, tmp_path / "new.npz")
    assert np.array_equal(found.drop(columns="predicted"), np.exp(model.predict_log_proba(blobs.x[:5])))
    assert list(found.columns) == ["predicted", "prob_0", "prob_1", "prob_2", "prob_3"]


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
    pd.DataFrame({"age": [1], "prob_dead": [1]}).to_csv(tmp_path / "odd.csv", index=False)
    for model, name, keep, said in (
        (of_table, "absent.csv", [], "there is no such file"),
        (of_table, "y.npz", [], "trained on a table; expected a file of .csv"),
        (of_arrays, "patients.csv", [], "trained on arrays; expected a file of .npz"),
        (of_arrays, "y.npz", [], "holds y; expected x, the rows to predict"),
        (of_table, "patients.csv", ["aeg"], "unknown column of patients.csv to keep 'aeg': did you mean 'age'"),
        (of_table, "odd.csv", [], "the table has no column 'ward'"),
    ):
        with pytest.raises(UserError, match=said.replace("(", r"\(")):
            answers.table(model, tmp_path / name, keep=keep)
    named = pd.read_csv(patients / "patients.csv").assign(prob_dead=1.0)
    named.to_csv(patients / "named.csv", index=False)
    with pytest.raises(UserError, match="cannot keep prob_dead"):
        answers.table(of_table, patients / "named.csv", keep=["prob_dead"])
    with pytest.raises(UserError, match="unknown kind of file"):
        answers.check(tmp_path / "out.xlsx", overwrite=False)
