"""The command line as a person uses it: exit codes, messages, and the files that are left."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from command_line import call
from relaxloss import defenses
from relaxloss.defenses import early_stopping
from relaxloss.errors import UserError
from relaxloss.trained import Trained

QUICK = ("--model", "mlp:hidden=16", "--epochs", "4", "--engine", "inprocess")


def test_it_is_a_program_too(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "relaxloss", "compare", "--data", "digts"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean 'digits'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("cli") / "run"
    done = call("compare", "--data", "digits", "--defenses", "none,relaxloss:alpha=1,upper=0.9", "--attacks",
                "loss,entropy", *QUICK, "--out", str(out))  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_compare_leaves_the_contracts_files_and_says_where(run: tuple[Path, str]) -> None:
    out, said = run
    assert said.rstrip().endswith(f"report: {out / 'report.html'}")
    for name in ("experiment.toml", "results.csv", "report.html", "log.txt", "store"):
        assert (out / name).exists(), name
    assert {path.suffix for path in (out / "charts").iterdir()} == {".svg", ".png"}
    written = tomllib.loads((out / "experiment.toml").read_text())
    assert written["defenses"][1] == {"name": "relaxloss", "alpha": 1.0, "flatten": "all", "upper": 0.9}
    assert written["recipe"]["epochs"] == 4
    assert written["recipe"]["milestones"] == [2, 3], "a shorter schedule keeps its shape"
    rows = pd.read_csv(out / "results.csv")
    assert {"dataset", "defense", "settings", "adaptive", "measure", "value", "low", "high", "n"} <= set(rows.columns)


def test_the_written_experiment_repeats_the_run(run: tuple[Path, str], tmp_path: Path) -> None:
    again = call("compare", str(run[0] / "experiment.toml"), "--engine", "inprocess", "--out", str(tmp_path / "again"))
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "again" / "results.csv").read_text() == (run[0] / "results.csv").read_text()


def test_a_file_may_name_sets_and_only_some_fields(tmp_path: Path) -> None:
    (tmp_path / "e.toml").write_text(
        'dataset = "digits"\ndefenses = ["none", "early_stopping:epoch=none"]\nattacks = ["loss", "entropy"]\n'
        '[recipe]\nepochs = 2\nmodel = "mlp:hidden=8"\n'
    )
    done = call("compare", "e.toml", "--engine", "inprocess", "--out", "run", "-q", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = tomllib.loads((tmp_path / "run" / "experiment.toml").read_text())
    assert (written["recipe"]["epochs"], written["recipe"]["milestones"]) == (2, [1, 2])
    assert written["defenses"][1] == {"name": "early_stopping", "epoch": "none"}


def test_report_is_written_again(run: tuple[Path, str]) -> None:
    page = run[0] / "report.html"
    page.unlink()
    done = call("report", str(run[0]))
    assert done.returncode == 0, done.stderr
    assert page.exists()


def test_store_is_listed_verified_and_tidied(run: tuple[Path, str]) -> None:
    out = run[0]
    assert "relaxloss:upper=0.9" in call("store", "ls", str(out)).stdout
    assert ", 0 damaged" in call("store", "verify", str(out)).stdout
    weights = next((out / "store" / "train").glob("*/weights.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    done = call("store", "verify", str(out))
    assert (done.returncode, "1 damaged" in done.stdout) == (2, True)
    assert "removed 1 damaged" in call("store", "gc", str(out)).stdout
    assert ", 0 damaged" in call("store", "verify", str(out)).stdout


def test_a_training_without_a_checkpoint_ends_well(tmp_path: Path) -> None:
    """One that stops early, and soon, writes none."""
    done = call("train", "--data", "digits", "--defense", "early_stopping:epoch=2", "--epochs", "4", "--out",
                str(tmp_path / "model"), "--recipe", "model=mlp:hidden=16")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "test_accuracy" in done.stdout
    assert not (tmp_path / "model" / "private" / "checkpoints").exists()
    seeds = {Trained.load(tmp_path / "model").seed}
    call("train", "--data", "digits", "--epochs", "1", "--out", str(tmp_path / "other"))
    assert len(seeds | {Trained.load(tmp_path / "other").seed}) == 2, "a secret one each"


def test_train_ships_a_model_that_loads(tmp_path: Path) -> None:
    done = call("train", "--data", "digits", "--defense", "relaxloss:alpha=0.5", "--epochs", "3", "--out",
                str(tmp_path / "model"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "test_accuracy" in done.stdout
    assert not list((tmp_path / "model").rglob("*.checkpoint")), "checkpoints may hold what the defense throws away"
    x = np.zeros((2, 64), np.float32)
    first = Trained.load(tmp_path / "model").predict_log_proba(x)
    assert first.shape == (2, 10)
    again = ("train", "--data", "digits", "--epochs", "1", "--out", str(tmp_path / "model"))
    refused = call(*again)
    assert (refused.returncode, "holds a model already" in refused.stderr) == (2, True)
    assert np.array_equal(Trained.load(tmp_path / "model").predict_log_proba(x), first)
    assert call(*again, "--overwrite").returncode == 0
    assert not np.array_equal(Trained.load(tmp_path / "model").predict_log_proba(x), first)


def test_a_users_own_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"age": rng.normal(50, 9, 200), "ward": rng.choice(["a", "b"], 200)})
    frame["outcome"] = np.where(frame.age + 9 * (frame.ward == "a") > 54, "ill", "well")
    frame.loc[:9, "age"] = np.nan
    frame.to_csv(tmp_path / "patients.csv", index=False)
    done = call("compare", "--data", "patients.csv", "--label", "outcome", "--attacks", "loss", *QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "10" in done.stderr
    assert "missing" in done.stderr, "what was done about missing values is said"
    assert (tmp_path / "runs" / "patients" / "report.html").exists()
    written = tomllib.loads((tmp_path / "runs" / "patients" / "experiment.toml").read_text())["defenses"]
    assert [(line["name"], line.get("alpha")) for line in written] == [("none", None), ("relaxloss", 0.35)], (
        "left out: no defense and RelaxLoss, whose default alpha is above the loss of a guess between two"
    )


def test_a_sweep_has_the_settings_that_the_classes_and_epochs_allow() -> None:
    few = defenses.swept(defenses.parse_list("all", 2), 2, 20)
    assert {each.level for each in few if each.name == "flooding"} == {0.35, 0.1, 0.2, 0.5}
    assert {each.alpha for each in few if each.name == "relaxloss"} == {0.35, 0.1, 0.2, 0.5}
    assert {each.epoch for each in few if each.name == "early_stopping"} == {5, 10, 15, 20}
    many = defenses.swept(defenses.parse_list("all", 30), 30, 300)
    assert {each.alpha for each in many if each.name == "crl"} == {0.1, 0.2, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 3.0}
    assert {each.epoch for each in many if each.name == "early_stopping"} == set(early_stopping.CURVE)
    assert few[0] == many[0] == defenses.NONE


def test_one_name_is_explained_with_its_fields() -> None:
    said = call("list", "relaxloss").stdout
    assert said.startswith("defense relaxloss\n")
    assert re.search(r"^alpha +1\.0 +\S", said, re.MULTILINE)
    assert "relaxloss:alpha=0.1" in said
    assert "milestones  " in call("list", "recipe").stdout
    assert "relaxloss_unstopped" in call("list", "defenses").stdout
    for name, said in (
        ("location30", "30 kinds of user"),
        ("blackbox", "the set correctness"),
        ("cifar10-resnet20", ""),
    ):
        shown = call("list", name).stdout.splitlines()
        assert said in " ".join(" ".join(shown).split())
        assert any(line.startswith(name) for line in shown)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list", "defences"), "did you mean 'defenses'"),
        (("compare",), "no data given"),
        (("compare", "--data", "digts"), "did you mean 'digits'"),
        (("compare", "--data", "digits", "--defenses", "relaxlos"), "did you mean 'relaxloss'"),
        (("compare", "--data", "digits", "--attacks", "neurral"), "did you mean 'neural'"),
        (("compare", "--data", "digits", "--game", "five_fold"), "did you mean 'five_folds'"),
        (("compare", "--data", "digits", "--shadows", "some"), "'same', 'undefended' or 'both'"),
        (("compare", "--data", "digits", "--seeds", "a"), "seeds"),
        (("compare", "--data", "digits", "--recipe", "lrr=1"), "did you mean 'lr'"),
        (("compare", "--data", "digits", "--model", "resnet20", "--epochs", "1"), "takes images"),
        (("compare", "--data", "digits", "--engine", "process"), "did you mean 'processes'"),
        (("compare", "--data", "digits", "--workers", "0"), "workers=0"),
        (("compare", "--data", "digits", "--recipe", "epochs=abc"), "epochs=abc"),
        (("compare", "--data", "digits", "--recipe", "lr=inf"), "finite"),
        (("compare", "--data", "digits", "--recipe", "batch_size=1"), "batch_size=1"),
        (("compare", "--data", "digits", "--model", "nonet:build"), "No module named 'nonet'"),
        (("compare", "--data", "digits", "--address", "x"), "only ray and dask"),
        (("compare", "--data", "digits", "--out", "bad.toml"), "is a file"),
        (("train", "--data", "digits", "--out", "bad.toml"), "is a file"),
        (("compare", "--data", "digits", "--store", "bad.toml"), "--store bad.toml is a file"),
        (("compare", "game.toml"), "got the game 5"),
        (("compare", "no.toml"), "cannot read no.toml"),
        (("compare", "bad.toml"), "is not TOML"),
        (("compare", "strange.toml"), "did you mean 'dataset'"),
        (("train", "--out", "m", "--data", "digits", "--test", "1.5"), "test=1.5"),
        (("tune", "--max-auc", "0.6"), "no data given"),
        (("tune", "--data", "digits"), "exactly one of max_auc"),
        (("tune", "--data", "digits", "--max-auc", "0.4"), "max_auc=0.4"),
        (("tune", "--data", "digits", "--max-auc", "0.6", "--defense", "ccl"), "no single strength"),
        (("tune", "--data", "digits", "--max-auc", "0.6", "--low", "2", "--high", "1"), "--low below --high"),
        (("tune", "--data", "digits", "--max-auc", "0.6", "--field", "alfa"), "did you mean 'alpha'"),
        (("tune", "--data", "digits", "--max-auc", "0.6", "--attacks", "lira"), "random_halves"),
        (("tune", "--data", "digits", "--max-auc", "0.6", "--out", "bad.toml"), "is a file"),
        (("report", "nowhere"), "nowhere"),
        (("compare", "--data", "digits", "--defenses", "relaxloss:alpha=2.4"), "a guess has a loss of log 10 = 2.303"),
        (("train", "--data", "digits", "--out", "m", "--defense", "flooding:level=3"), "less, such as level=1.2"),
        (("store", "ls", "nowhere"), "holds no store"),
    ],
)
def test_wrong_input_is_explained_and_exits_with_two(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("= 1")
    (tmp_path / "strange.toml").write_text('datasets = "digits"')
    (tmp_path / "game.toml").write_text('dataset = "digits"\ngame = 5')
    done = call(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_tune_prints_the_spec_last_and_leaves_the_comparison_to_run(tmp_path: Path) -> None:
    tune = ("tune", "--data", "digits", "--attacks", "loss", "--settings", "2", "--seed", "3", *QUICK, "-q", "--out")
    done = call(*tune, "tuned", "--max-auc", "0.9", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    *_, following, spec = done.stdout.rstrip().splitlines()
    assert isinstance(defenses.parse(spec), defenses.RelaxLoss)
    assert following == "next: relaxloss compare tuned/compare.toml --out tuned/compare"
    for name in ("tuning.csv", "tuning.json", "report.html", "store"):
        assert (tmp_path / "tuned" / name).exists(), name
    done = call(*following.split()[2:], "--engine", "inprocess", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "chosen on folds 3 to 5 of the five folds of seed 3" in " ".join(done.stdout.split())
    written = tomllib.loads((tmp_path / "tuned" / "compare" / "experiment.toml").read_text())
    assert (written["seeds"], written["recipe"]["epochs"]) == ([3], 4)
    assert written["tuned"][0]["games"][1]["swapped"] is True
    other = (*tune, "tuned", "--max-auc", "0.501", "--high", "0.11")
    done = call(*other, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "a tuning of relaxloss for {'max_auc': 0.9, 'fpr': 0.01} at seed 3" in done.stderr
    done = call("report", "tuned", cwd=tmp_path)  # which would replace the tuning's page
    assert "holds the results of relaxloss tune" in done.stderr
    done = call(*other, "--overwrite", cwd=tmp_path)
    assert done.returncode == 0, "that no setting meets the bound is a finding, not a mistake"
    assert "None of the 2 settings tried" in done.stdout


def test_the_options_of_a_tuning_reach_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def stop(*_: Any, **given: Any) -> None:
        asked.update(given)
        raise UserError("far enough")

    monkeypatch.setattr("relaxloss.api.tune", stop)
    options = {"max_auc": 0.6, "max_tpr": 0.2, "fpr": 0.001, "keep_accuracy": 0.02, "low": 0.1, "high": 2.0}
    options |= {"settings": 3, "repeats": 2, "field": "alpha", "defense": "relaxloss:upper=0.9"}
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    assert call("tune", "--data", "digits", *words, "--out", str(tmp_path / "t")).returncode == 2
    assert {name: asked[name] for name in options} == options


@pytest.mark.parametrize(("option", "value"), [("--adaptive", True), ("--non-adaptive", False), (None, None)])
def test_whether_shadows_were_adaptive_is_passed_on(
    option: str | None, value: bool | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Any] = []

    def stop(*_: Any, **given: Any) -> None:
        asked.append(given["adaptive"])
        raise UserError("far enough")

    monkeypatch.setattr("relaxloss.auditing.audit.run", stop)
    rng = np.random.default_rng(0)
    arrays = {"logits": rng.normal(size=(40, 3)), "labels": np.arange(40) % 3, "member": np.arange(40) < 20}
    shadows = {"shadow_logits": rng.normal(size=(2, 40, 3)), "shadow_member": rng.random((2, 40)) < 0.5}
    np.savez(tmp_path / "p.npz", **arrays, **shadows)
    done = call("audit", str(tmp_path / "p.npz"), "--out", str(tmp_path / "a"), *([option] if option else []))
    assert done.returncode == 2
    assert asked == [value]


def test_what_is_our_own_fault_ends_with_1_and_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("relaxloss.report.print_summary", broken)
    monkeypatch.setattr("relaxloss.api.compare", lambda *_, **__: None)
    done = call("compare", "--data", "digits", "--quiet", "--out", str(tmp_path / "run"))
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


@pytest.mark.parametrize(
    ("verb", "said"),
    [("compare", "run the same command again to go on"), ("train", "goes on from the last checkpoint")],
)
def test_what_is_interrupted_says_how_to_go_on(
    verb: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("relaxloss.api.compare", interrupted)
    monkeypatch.setattr("relaxloss.trained.train", interrupted)
    done = call(verb, "--data", "digits", "--quiet", "--out", str(tmp_path / "out"))
    assert done.returncode == 130
    assert said in " ".join(done.stderr.split())


def test_options_that_would_do_nothing_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = str(tmp_path / "p.npz")
    np.savez(path, logits=rng.normal(size=(40, 3)), labels=np.arange(40) % 3, member=np.arange(40) < 20)
    for option, said in (
        (("--adaptive",), "holds no shadow models"),
        (("--engine", "processes"), "--engine is for the audit of a model"),
        (("--workers", "2"), "--workers is for the audit of a model"),
        (("--trust-code",), "--trust-code is for the audit of a model"),
    ):
        done = call("audit", path, "--out", str(tmp_path / "a"), *option)
        assert (done.returncode, said in " ".join(done.stderr.split())) == (2, True), done.stderr
    done = call("tune", "--data", "digits", "--max-auc", "0.6", "--fpr", "0.001", "--out", str(tmp_path / "t"))
    assert (done.returncode, "give --max-tpr" in done.stderr) == (2, True)


def test_a_stream_without_our_letters_costs_nothing(tmp_path: Path) -> None:
    """As a pipe on Windows: the work is done, and what it found is printed as far as it can be."""
    rng = np.random.default_rng(0)
    member = np.arange(400) < 200
    np.savez(tmp_path / "p.npz", logits=rng.normal(size=(400, 3)), labels=np.arange(400) % 3, member=member)
    words = [sys.executable, "-m", "relaxloss", "audit", "p.npz", "--coin-flips", "--attacks", "loss", "--out", ":x:"]
    done = subprocess.run(
        words, capture_output=True, check=False, cwd=tmp_path, env=dict(os.environ, PYTHONIOENCODING="cp1252")
    )
    assert done.returncode == 0, done.stderr
    assert b"report: :x:" in done.stdout


def test_an_audit_with_fewer_attacks_does_not_replace_one_with_more(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "p.npz", logits=rng.normal(size=(40, 3)), labels=np.arange(40) % 3, member=np.arange(40) < 20)
    audit = ("audit", str(tmp_path / "p.npz"), "--out", str(tmp_path / "a"), "--quiet", "--attacks")
    assert call(*audit, "loss").returncode == 0
    assert call(*audit, "loss,entropy").returncode == 0
    done = call(*audit, "loss")
    assert (done.returncode, "an audit with entropy, too" in " ".join(done.stderr.split())) == (2, True), done.stderr
    assert call(*audit, "loss", "--overwrite").returncode == 0
