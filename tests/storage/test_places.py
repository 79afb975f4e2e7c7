"""Directories: said early if nothing can be written there, and results in them are not lost to another run."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

import relaxloss as rl
from command_line import call
from relaxloss import attacks
from relaxloss.compute.engine import Engine
from relaxloss.data import Dataset
from relaxloss.errors import UserError
from relaxloss.experiments.plan import Experiment
from relaxloss.storage import directories
from relaxloss.training.task import Recipe

TINY = Recipe(model="mlp:hidden=8", epochs=2, milestones=(), batch_size=64)
SPEC = Experiment("blobs", defenses=("none", "dropout"), attacks=("loss", "entropy"), recipe=TINY)
HERE = Engine("inprocess")


@pytest.fixture(scope="module")
def done(blobs: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    rl.compare(SPEC, out, data=blobs, engine=HERE)
    return out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"defenses": ("none",)}, "defenses dropout, which this experiment lacks"),
        ({"attacks": ("loss",)}, "attacks entropy, which"),
        ({"seeds": (1,)}, "seeds 0, which"),
        ({"shadows": "same"}, "shadows both"),
        ({"recipe": replace(TINY, epochs=3)}, "they are of a recipe with epochs 2"),
        ({"game": "five_folds:shadows=2"}, "they are of the game five_folds"),
    ],
)
def test_what_another_run_lacks_is_not_replaced(done: Path, blobs: Dataset, change: dict, said: str) -> None:
    before = (done / "results.csv").read_bytes()
    with pytest.raises(UserError, match=rf"{said}.*Give another --out \(out=...\), or --overwrite"):
        rl.compare(replace(SPEC, **change), done, data=blobs, engine=HERE)
    assert (done / "results.csv").read_bytes() == before


def test_more_of_the_same_replaces_and_other_data_does_not(done: Path, blobs: Dataset) -> None:
    rl.compare(replace(SPEC, note="again"), done, data=blobs, engine=HERE)
    rl.compare(replace(SPEC, defenses=("dropout", "none", "flooding")), done, data=blobs, engine=HERE)
    other = replace(blobs, x=blobs.x + 1)
    more = replace(SPEC, defenses=("dropout", "none", "flooding"))
    with pytest.raises(UserError, match=r"they are of other data \(blobs\)"):
        rl.compare(more, done, data=other, engine=HERE)
    rl.compare(replace(more, seeds=(1,)), done, data=blobs, engine=HERE, overwrite=True)
    assert set(pd.read_csv(done / "results.csv")["seed"]) == {1}


def predictions(folder: Path, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(3), 40)
    table = pd.DataFrame(p, columns=["a", "b", "c"]).assign(label=rng.choice(["a", "b", "c"], 40), member=[0, 1] * 20)
    table.to_csv(folder / f"p{seed}.csv", index=False)
    return folder / f"p{seed}.csv"


def test_an_audit_replaces_its_own_and_no_other(tmp_path: Path, done: Path) -> None:
    first, second, out = predictions(tmp_path, 0), predictions(tmp_path, 1), tmp_path / "audit"
    for _ in range(2):
        assert call("audit", str(first), "--out", str(out)).returncode == 0
    refused = call("audit", str(second), "--out", str(out))
    assert refused.returncode == 2
    assert "the audit of p0.csv" in refused.stderr
    assert call("audit", str(second), "--out", str(out), "--overwrite").returncode == 0
    assert call("audit", str(second), "--out", str(out), "--coin-flips").returncode == 0
    assert call("audit", str(second), "--out", str(out), "--coin-flips").returncode == 0
    assert "a lower bound of ε, from --coin-flips" in call("audit", str(second), "--out", str(out)).stderr
    assert "holds the results of relaxloss compare" in call("audit", str(first), "--out", str(done)).stderr
    assert "holds the results of relaxloss audit" in call("report", str(out)).stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "--data", "digits"),
        ("compare", "--data", "digits"),
        ("tune", "--data", "digits", "--max-auc", "0.6"),
        ("audit", "{p}"),
    ],
)
def test_a_place_that_cannot_be_written_is_said_before_the_work(arguments: tuple[str, ...], tmp_path: Path) -> None:
    given = [part.replace("{p}", str(predictions(tmp_path, 0))) for part in arguments]
    (tmp_path / "file").write_text("")
    told = call(*given, "--out", str(tmp_path / "file" / "below"))
    assert (told.returncode, told.stdout) == (2, "")
    assert "cannot write into --out" in told.stderr
    assert "epoch" not in told.stderr
    assert "is a file; expected a directory" in call(*given, "--out", str(tmp_path / "file")).stderr


def test_a_new_place_is_not_made_by_looking(tmp_path: Path) -> None:
    directories.writable(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


def test_another_commands_results_give_way_when_asked_to(tmp_path: Path, blobs: Dataset) -> None:
    assert call("audit", str(predictions(tmp_path, 0)), "--out", str(tmp_path / "x")).returncode == 0
    diverging = replace(SPEC, defenses=("none",), recipe=replace(TINY, lr=1e30))
    with pytest.raises(UserError, match="not finite"):  # nothing to show for it: the audit stays one
        rl.compare(diverging, tmp_path / "x", data=blobs, engine=HERE, overwrite=True)
    assert (tmp_path / "x" / "audit.json").is_file()
    rl.compare(SPEC, tmp_path / "x", data=blobs, engine=HERE, overwrite=True)
    assert not (tmp_path / "x" / "audit.json").exists()
    rl.compare(SPEC, tmp_path / "x", data=blobs, engine=HERE)
    assert call("report", str(tmp_path / "x")).returncode == 0


def test_results_that_cannot_be_read_are_not_replaced(tmp_path: Path, blobs: Dataset) -> None:
    rl.compare(SPEC, tmp_path, data=blobs, engine=HERE)
    (tmp_path / "details" / "facts.json").write_text("{")
    with pytest.raises(UserError, match=r"what they are cannot be read from details/facts.json \(JSONDecodeError"):
        rl.compare(SPEC, tmp_path, data=blobs, engine=HERE)


def test_what_failed_does_not_replace_what_had_succeeded(
    tmp_path: Path, blobs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    rl.compare(SPEC, tmp_path / "run", data=blobs, engine=HERE)
    monkeypatch.setattr(attacks.attacks["entropy"], "score", lambda self, evidence: 1 / 0)
    with pytest.warns(UserWarning, match="1 job failed"), pytest.raises(UserError, match="attacks entropy, which"):
        rl.compare(SPEC, tmp_path / "run", data=blobs, engine=HERE, store=tmp_path / "other")
    with pytest.warns(UserWarning, match="1 job failed"):
        rl.compare(SPEC, tmp_path / "part", data=blobs, engine=HERE)
    rl.compare(replace(SPEC, attacks=("loss",)), tmp_path / "part", data=blobs, engine=HERE)  # holds no more than that


def test_the_same_file_with_other_columns_is_another_audit(tmp_path: Path) -> None:
    path = predictions(tmp_path, 0)
    table = pd.read_csv(path).assign(other=[1, 0] * 20)
    table.columns = [f"prob_{name}" if name in "abc" else name for name in table.columns]
    table.to_csv(path, index=False)
    assert call("audit", str(path), "--out", str(tmp_path / "x")).returncode == 0
    told = call("audit", str(path), "--member", "other", "--out", str(tmp_path / "x"))
    assert "the audit of p0.csv with another member" in told.stderr


def test_a_name_that_no_disk_takes_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write into --out"):
        directories.writable(tmp_path / ("a" * 300))


def test_the_usual_columns_by_name_are_no_other_audit(tmp_path: Path) -> None:
    path, out = predictions(tmp_path, 0), tmp_path / "x"
    for more in ((), ("--label", "label"), ("--member", "member")):
        assert call("audit", str(path), "--out", str(out), *more).returncode == 0
    written = json.loads((out / "audit.json").read_text())
    for name in ("label", "member", "kind"):
        del written["facts"]["source"][name]  # as an earlier version wrote it
    (out / "audit.json").write_text(json.dumps(written))
    assert call("audit", str(path), "--out", str(out)).returncode == 0


def test_an_attack_that_nobody_registered_runs_twice(tmp_path: Path, blobs: Dataset) -> None:
    @dataclass(frozen=True)
    class Mine(attacks.Attack):
        name: ClassVar[str] = "mine"

        def score(self, evidence: attacks.Evidence) -> np.ndarray:
            return evidence.target.logits[0].max(axis=1).astype(float)

    spec = replace(SPEC, attacks=(Mine(), attacks.parse("loss")))
    for _ in range(2):
        assert "mine" in set(rl.compare(spec, tmp_path, data=blobs, engine=HERE).rows["attack"])
    with pytest.raises(UserError, match="they have other attacks"):
        rl.compare(replace(SPEC, attacks=("loss",)), tmp_path, data=blobs, engine=HERE)
