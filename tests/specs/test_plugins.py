"""A third party's defense, attack, data set and model: one file each, found through the entry-point group."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

DEFENSE = '''
from dataclasses import dataclass
from relaxloss import defenses
from relaxloss.defenses import Defense

@defenses.register("louder")
@dataclass(frozen=True)
class Louder(Defense):
    """Scales the loss."""
    about = "scales the loss"
    neutral = {"factor": 1.0}
    active = {"factor": 2.0}
    factor: float = 2.0

    def loss(self, logits, targets, state):
        return super().loss(logits, targets, state) * self.factor
'''
ATTACK = '''
from dataclasses import dataclass
import numpy as np
from relaxloss import attacks
from relaxloss.attacks import Attack

@attacks.register("largest_logit")
@dataclass(frozen=True)
class LargestLogit(Attack):
    """The largest logit."""
    about = "the largest logit"

    def score(self, evidence):
        return evidence.target.logits[0].max(1).astype(np.float64)
'''
DATA = '''
from dataclasses import dataclass
import numpy as np
from relaxloss import data
from relaxloss.data import Dataset, Source

@data.register("stripes")
@dataclass(frozen=True)
class Stripes(Source):
    """Bits."""
    about = "random bits"
    embedded = True

    def fetch(self, folder):
        rng = np.random.default_rng(0)
        x = rng.integers(0, 2, (200, 16)).astype(np.uint8)
        return Dataset("stripes", x, (x[:, 0] + x[:, 1]).astype(np.int64), 3, "random bits")
'''
MODEL = '''
from dataclasses import dataclass
from torch import nn
from relaxloss import models
from relaxloss.models import Model

@models.register("linear")
@dataclass(frozen=True)
class Linear(Model):
    """One linear layer."""
    about = "one linear layer"

    def build(self, shape, num_classes):
        return nn.Linear(shape[0], num_classes)
'''


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A site directory with an installed distribution of four modules, and nothing registered by hand."""
    for name, code in (("my_defense", DEFENSE), ("my_attack", ATTACK), ("my_data", DATA), ("my_model", MODEL)):
        (tmp_path / f"{name}.py").write_text(code)
    info = tmp_path / "thirdparty-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thirdparty\nVersion: 1.0\n")
    names = ("my_defense", "my_attack", "my_data", "my_model")
    (info / "entry_points.txt").write_text("[relaxloss.plugins]\n" + "".join(f"{name} = {name}\n" for name in names))
    return dict(os.environ, PYTHONPATH=str(tmp_path), OMP_NUM_THREADS="1")


def relaxloss(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", "relaxloss", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_plugins_are_listed_compared_and_conform(environment: dict[str, str], tmp_path: Path) -> None:
    listed = relaxloss(environment, "list")
    for about in ("scales the loss", "the largest logit", "random bits", "one linear layer"):
        assert about in listed
    out = tmp_path / "run"
    relaxloss(
        environment, "compare", "--data", "stripes", "--defenses", "none,louder:factor=3", "--attacks",
        "largest_logit,loss", "--model", "linear", "--epochs", "3", "--out", str(out), "--quiet",
        "--engine", "inprocess",
    )  # fmt: skip
    table = (out / "results.csv").read_text()
    assert "louder" in table
    assert "largest_logit" in table
    tests = Path(__file__).parents[1]
    for suite, name in (("defenses/test_defenses.py", "louder"), ("attacks/test_attacks.py", "largest_logit")):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider", str(tests / suite)],
            env=environment, capture_output=True, text=True, check=False, cwd=tests.parent,
        )  # fmt: skip
        assert name in done.stdout, f"{suite} does not pick {name} up:\n{done.stdout[-2000:]}"


def test_a_plugin_that_cannot_be_loaded_keeps_nobody_from_the_others(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "my_attack.py").write_text("import no_such_module_at_all\n")
    command = [sys.executable, "-m", "relaxloss", "list"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "the plugin my_attack (my_attack) is left out: ModuleNotFoundError" in " ".join(done.stderr.split())
    assert "scales the loss" in done.stdout


def test_an_error_in_somebody_elses_code_is_not_called_ours(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "my_defense.py").write_text(DEFENSE.replace("* self.factor", "* self.no_such_field"))
    command = [sys.executable, "-m", "relaxloss", "train", "--data", "stripes", "--defense", "louder", "--out", "m"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert "defect of relaxloss" not in done.stderr
    assert "my_defense.py, line 16, which is not relaxloss's" in done.stderr


SCRIPT = (
    DEFENSE
    + DATA
    + """
import relaxloss as rl
from torch import nn
from relaxloss.engine import Engine

def net(shape, classes):
    return nn.Linear(shape[0], classes)

if __name__ == "__main__":
    recipe = rl.Recipe(model="__main__:net", epochs=3, milestones=())
    experiment = rl.Experiment("stripes", defenses=("none", "louder"), attacks=("loss",), recipe=recipe)
    here = rl.compare(experiment, "here", engine=Engine("inprocess"))
    there = rl.compare(experiment, "there", engine=Engine("processes", 2))
    assert here.rows.equals(there.rows)
    print(len(there.rows), "rows")
"""
)


def test_a_script_that_registers_everything_itself_runs_in_worker_processes(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "script.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(" rows\n")


def test_files_are_named_before_the_verb(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, code in (("own_defense", DEFENSE), ("own_attack", ATTACK), ("own_data", DATA), ("own_model", MODEL)):
        (folder / f"{name}.py").write_text(code)
    plugins = [part for file in sorted(folder.glob("*.py")) for part in ("--plugin", str(file))]
    plain = dict(os.environ, OMP_NUM_THREADS="1")
    out = tmp_path / "run"
    relaxloss(
        plain, *plugins, "compare", "--data", "stripes", "--defenses", "none,louder:factor=3", "--attacks",
        "largest_logit", "--model", "linear", "--epochs", "2", "--out", str(out), "--quiet",
        "--engine", "processes", "--workers", "2",
    )  # fmt: skip
    assert "louder" in (out / "results.csv").read_text()
    assert "scales the loss" in relaxloss(plain, *plugins, "list", "defenses")

    def error(file: str, code: str | None = None) -> str:
        if code is not None:
            (folder / file).write_text(code)
        command = [sys.executable, "-m", "relaxloss", "--plugin", str(folder / file), "list"]
        done = subprocess.run(command, env=plain, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        return " ".join(done.stderr.split())

    assert "there is another module random" in error("random.py", DEFENSE)
    assert "cannot be imported: ZeroDivisionError: division by zero (broken.py, line 1)" in error(
        "broken.py", "1 / 0\n"
    )
    assert "expected a .py file that is there" in error("nowhere.py")
