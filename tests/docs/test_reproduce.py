"""What `make reproduce` runs: the specs under results/, cheapest first, those whose data is at hand."""

from __future__ import annotations

import math
import re
import runpy
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from relaxloss import defenses
from relaxloss.experiments.plan import Experiment, attacks_for
from relaxloss.specs import build

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "reproduce.py"))
SPECS = sorted((ROOT / "results").rglob("experiment.toml"))


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.parent.relative_to(ROOT / "results").as_posix())
def test_every_spec_is_an_experiment(path: Path) -> None:
    experiment = experiment_of(path)
    assert experiment.recipe is not None
    parts = [path] if not path.parent.name.startswith("seed") else path.parent.parent.glob("seed*/experiment.toml")
    plain = {seed for part in map(experiment_of, parts) if defenses.NONE in part.defenses for seed in part.seeds}
    assert set(experiment.seeds) <= plain, "there is nothing to compare with, in it or in another part at its seeds"
    if experiment.dataset in ("tafeng100", "diab100", "crc5"):
        assert "stands in for" in experiment.note


def experiment_of(path: Path) -> Experiment:
    """The experiment of a spec under results/."""
    fields: dict[str, Any] = tomllib.loads(path.read_text())
    if isinstance(fields["attacks"], str):
        fields["attacks"] = attacks_for(fields["attacks"], build(Experiment, {"dataset": "d"}).game)[0]
    if isinstance(fields["defenses"][0], str):
        fields["defenses"] = defenses.parse_list(",".join(fields["defenses"]))
    return build(Experiment, fields)


SPEC = """note = "a stand-in"
dataset = "{data}"
defenses = ["none", "relaxloss:alpha=1", "early_stopping:epoch=5", "early_stopping:epoch=10", "hamp:train=false"]
attacks = "loss"
seeds = [0, 1]
{more}

[recipe]
model = "mlp:hidden=8"
epochs = {epochs}
"""


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three experiments, one of them nested, and one whose data is not there."""
    home = tmp_path / "data"
    home.mkdir()
    monkeypatch.setenv("RELAXLOSS_DATA", str(home))
    rng = np.random.default_rng(0)
    np.savez(home / "shop.npz", x=rng.integers(0, 2, (200, 12), np.uint8), y=np.arange(200) % 4)
    root = tmp_path / "results"
    for name, values in {
        "long": {"data": "shop", "epochs": 90, "more": ""},
        "ablations/short": {"data": "shop", "epochs": 3, "more": ""},
        "ablations/away": {"data": "bank", "epochs": 1, "more": ""},
    }.items():
        (root / name).mkdir(parents=True)
        (root / name / "experiment.toml").write_text(SPEC.format(**values))
    return root


def test_cheapest_first_by_the_work_that_there_is(results: Path) -> None:
    found, mistaken = SCRIPT["entries"](results)
    assert mistaken == []
    assert [entry.name for entry in found] == ["ablations/short", "long", "ablations/away"]
    # 40 members, 3 epochs, 2 seeds, target and shadow; none (HAMP's release too), relaxloss and one early stopping
    assert SCRIPT["core_hours"](found[0]) == pytest.approx(40 * 3 * 2 * 6 / 9_000 / 3600)
    assert SCRIPT["core_hours"](found[1]) == pytest.approx(30 * SCRIPT["core_hours"](found[0]))
    assert math.isinf(SCRIPT["core_hours"](found[2])), "what is not known is not said to be cheap"


def test_list_says_what_is_at_hand_and_what_it_costs(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert SCRIPT["main"](["--list", "--results", str(results)]) == 0
    said = capsys.readouterr().out
    assert said.count("a stand-in") == 3
    assert "lacks bank.npz; not measured" in said
    assert "not run yet; data at hand; 4.4e-05 core-hours" in said


def test_an_experiment_runs_and_one_without_data_is_passed_over(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    scope = SCRIPT["main"].__globals__
    monkeypatch.setitem(scope, "ROOT", tmp_path)
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "fill_docs.py").write_text("")
    (tmp_path / "README.md").write_text("![accuracy and leakage](results/sweep/charts/tradeoff.svg)")
    assert SCRIPT["main"](["ablations", "--workers", "1", "--results", str(results)]) == 0
    said = capfd.readouterr().out
    away = tmp_path / "data" / "bank.npz"
    assert f"== ablations/away: passed over, {away} is missing\n" in said
    kept = results / "ablations" / "short"
    assert len([*kept.rglob("*.csv.gz")]) == 5
    assert not [*kept.rglob("*.csv")]
    assert not (kept / "charts").exists(), "no document shows them"
    rows = pd.read_csv(kept / "results.csv.gz")
    assert set(rows["defense"]) == {"none", "relaxloss", "early_stopping", "hamp"}
    assert tomllib.loads((kept / "experiment.toml").read_text())["note"] == "a stand-in", "it outlives the run"
    assert (tmp_path / "runs" / "store").is_dir(), "so that it can resume"
    assert not (results / "long" / "results.csv.gz").exists()
    assert not (results / "ablations" / "charts").exists(), "these are different experiments"
    shutil.copytree(kept, results / "sweep" / "seed0")
    assert SCRIPT["main"](["sweep", "--workers", "1", "--results", str(results)]) == 0
    assert [path.name for path in (results / "sweep" / "charts").iterdir()] == ["tradeoff.svg"]
    assert "<svg" in (results / "sweep" / "charts" / "tradeoff.svg").read_text(), "of all parts together"
    with pytest.raises(SystemExit):
        SCRIPT["main"](["nonsense", "--results", str(results)])
    (tmp_path / "scripts" / "fill_docs.py").write_text("raise SystemExit(1)")
    capfd.readouterr()
    shutil.copytree(kept, results / "again" / "seed0")
    shutil.copytree(kept, results / "again" / "seed1")
    (results / "again" / "seed1" / "results.csv").write_text("garbage")
    assert SCRIPT["main"](["again/seed0", "--workers", "1", "--results", str(results)]) == 2
    said = capfd.readouterr().out
    assert re.search(r"again: its charts are not drawn anew: .*seed1.*damaged", said)
    assert "the documents are not filled" in said


@pytest.mark.parametrize(
    "text",
    [
        'dataset = "shop"\ndefenses = ["relaxlos:alpha=1"]',
        "dataset = ",
        "note = 'no data'",
        'dataset = "shop"\nrecipe = 3',
    ],
)
def test_one_mistaken_spec_keeps_nobody_from_the_rest(
    results: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (results / "wrong").mkdir()
    (results / "wrong" / "experiment.toml").write_text(text)
    assert SCRIPT["main"](["--list", "--results", str(results)]) == 1
    said = capsys.readouterr().out
    assert said.startswith(f"== wrong: {results / 'wrong' / 'experiment.toml'} has a mistake (")
    assert said.count("a stand-in") == 3


def test_prepare_uses_the_data_directorys_own_script(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "data"
    (home / "bank.csv").write_text("a,b\n")
    (home / "prepare.py").write_text(
        "import pathlib, shutil, sys\nout = pathlib.Path(sys.argv[1]); out.mkdir(parents=True)\n"
        "shutil.copyfile(pathlib.Path(__file__).parent / 'shop.npz', out / 'bank.npz')\n"
    )
    out = tmp_path / "prepared"
    before = {path.name for path in home.iterdir()}
    SCRIPT["prepare"](out)
    assert {path.name for path in out.iterdir()} == {"bank.npz", "bank.csv"}
    assert {path.name for path in home.iterdir()} == before, "the data directory itself is only read"
    assert all(entry.missing is None for entry in SCRIPT["entries"](results)[0] if entry.name == "ablations/away")


def test_documents_wait_for_what_has_not_run(tmp_path: Path) -> None:
    fill = runpy.run_path(str(ROOT / "scripts" / "fill_docs.py"))
    for kind in ("compared", "poster"):
        folder = ROOT / "results" / "not-there"
        assert fill["KINDS"][kind](folder) == "Not run yet: `python scripts/reproduce.py not-there`.\n"
    assert fill["note_of"](ROOT / "results" / "tafeng100").endswith("stands in for Purchase100")
