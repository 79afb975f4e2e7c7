"""Run every experiment that has a directory under results/, cheapest first, and put its tables and charts back there.

    python scripts/reproduce.py [NAME ...]     # all, or those named: location30, ablations/x, ablations
    python scripts/reproduce.py --list         # what there is, whether its data is at hand, and roughly what it costs
    python scripts/reproduce.py --prepare      # first unpack the data directory's files by its own prepare.py

The spec is ``results/<name>/experiment.toml``; its ``note`` says what stands in for what. Models and scores rest in
``runs/store``, so that a run which was cut off resumes, and what two of them need is trained once. Data:
``$RELAXLOSS_DATA``. An experiment whose data is not at hand is passed over, with the file that is missing; with
``--download`` its source is asked for it.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from relaxloss import data, defenses, games, models, report
from relaxloss.data.dataset import sources
from relaxloss.errors import UserError
from relaxloss.report import charts
from relaxloss.report.comparison import folder
from relaxloss.storage.store import write_atomically

ROOT = Path(__file__).resolve().parent.parent
SPEC = "experiment.toml"
# Training, in samples per second and core: (model, precision) as measured, one thread. bfloat16 is fast only where the
# processor computes in it; elsewhere it is emulated, at a tenth of float32's rate.
RATES = {("mlp", "float32"): 9_000, ("resnet20", "float32"): 312}
RATES_BF16 = {("mlp", "bf16"): 14_000, ("resnet20", "bf16"): 480}
RATES_EMULATED = {("resnet20", "bf16"): 19}


@dataclass(frozen=True)
class Entry:
    """One experiment under results/."""

    name: str
    folder: Path
    spec: dict[str, Any]

    @property
    def missing(self) -> Path | None:
        """The file without which it cannot run."""
        return data.missing(self.spec["dataset"])

    @property
    def is_part(self) -> bool:
        """Whether it is one of several runs of the same experiment, told by its name: ``seed0``, ``seed1``, ..."""
        return self.folder.name.startswith("seed")

    @property
    def done(self) -> bool:
        """Whether there are results of it."""
        return folder.has_results(self.folder)


def entries(root: Path) -> tuple[list[Entry], list[str]]:
    """All experiments below the folder, cheapest first (what cannot be told comes last); and the specs with a mistake.

    The latter as sentences: one mistaken file keeps nobody from the rest.
    """
    found, mistaken = [], []
    for path in sorted(root.rglob(SPEC)):
        name = path.parent.relative_to(root).as_posix()
        try:
            entry = Entry(name, path.parent, tomllib.loads(path.read_text(encoding="utf-8")))
            found.append((core_hours(entry), entry))
        except (UserError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            mistaken.append(f"{name}: {path} has a mistake ({type(error).__name__}: {error}): mend it")
    return [entry for _, entry in sorted(found, key=lambda each: each[0])], mistaken


def core_hours(entry: Entry) -> float:
    """Roughly how long its trainings take on one core; infinite if the size of its data or the rate is not known.

    Networks are counted as trained: one of a trainer serves all defenses that share it.
    """
    spec, game = entry.spec, games.parse(entry.spec.get("game", "five_folds"))
    recipe = spec.get("recipe", {})
    model, precision = models.parse(recipe.get("model", "mlp")).name, recipe.get("precision", "float32")
    emulated = torch.backends.cpu.get_cpu_capability() != "AVX512"
    rate = (RATES | (RATES_EMULATED if emulated else RATES_BF16)).get((model, precision))
    size = rows(spec)
    if rate is None or size is None:
        return math.inf
    passes = recipe.get("epochs", 120) * len(spec.get("seeds", [0]))
    if isinstance(game, games.FiveFolds):
        members, networks, plain = size // 5, 1 + game.shadows, game.shadows
    else:
        share = 1 - game.reference - game.test
        members, networks, plain = int(size * share * (1 if game.canaries else 0.5)), game.models, game.models
    listed = spec.get("defenses", ["none"])
    chosen = defenses.parse_list(",".join(listed)) if isinstance(listed[0], str) else map(defenses.parse, listed)
    trainers = {defense.trainer for defense in chosen}
    work = sum(networks * trainer.effort for trainer in trainers)
    if spec.get("shadows", "both") != "same" and defenses.NONE not in trainers:
        work += plain
    return float(passes * members * work / rate / 3600)


def rows(spec: dict[str, Any]) -> int | None:
    """How many samples the experiment's data set has, read from its labels alone where that will do."""
    name = spec["dataset"]
    prepared = data.directory() / f"{name}.npz"
    if prepared.is_file():
        with np.load(prepared, allow_pickle=False) as arrays:
            return len(arrays["y"])
    if data.missing(name) is None:
        return len(data.load(name, label=spec.get("label"), drop=spec.get("drop", ())))
    shape = getattr(sources[name], "shape", None) if name in sources.names() else None
    return shape[0] if shape else None


def show(found: list[Entry]) -> None:
    """The list: name, results or not, data at hand or what is missing, core-hours, note."""
    for entry in found:
        hours = core_hours(entry)
        cost = "not measured" if math.isinf(hours) else f"{hours:.2g} core-hours"
        at_hand = f"lacks {entry.missing.name}" if entry.missing else "data at hand"
        done = "results there" if entry.done else "not run yet"
        what = entry.spec.get("note") or f"{entry.spec['dataset']}, {len(entry.spec.get('defenses', [1]))} settings"
        print(f"{entry.name}\n    {what}\n    {done}; {at_hand}; {cost}")


def prepare(out: Path) -> None:
    """Let the data directory's own prepare.py write `out`, take tables along, and use `out` from now on."""
    home = data.directory()
    script = home / "prepare.py"
    if not script.is_file():
        sys.exit(f"{home} has no prepare.py; expected the script that unpacks its files: leave --prepare out")
    subprocess.run([sys.executable, str(script), str(out)], check=True)
    for path in home.glob("*.csv*"):
        if not (out / path.name).exists():
            shutil.copyfile(path, out / path.name)
    os.environ["RELAXLOSS_DATA"] = str(out)
    print(f"from now on: RELAXLOSS_DATA={out}", flush=True)


def run(entry: Entry, workers: int | None) -> bool:
    """Run or resume it, so many jobs at a time, and keep its results; whether that went well."""
    print(f"== {entry.name}", flush=True)
    out = ROOT / "runs" / entry.name
    command = [sys.executable, "-m", "relaxloss", "compare", str(entry.folder / SPEC), "--out", str(out), "--overwrite"]
    command += ["--store", str(ROOT / "runs" / "store"), *(["--workers", str(workers)] if workers else [])]
    if subprocess.run(command, check=False).returncode:
        print(f"{entry.name} did not run; see above", flush=True)
        return False
    keep(out, entry.folder)
    return True


def keep(run: Path, results: Path) -> None:
    """Copy the spec, the tables (compressed) and the charts that a document shows. The results come last, as a mark."""
    for name in ("results.csv", "results.csv.gz"):
        (results / name).unlink(missing_ok=True)
    for name in ("details", "charts"):
        shutil.rmtree(results / name, ignore_errors=True)
    shutil.copytree(run / "details", results / "details", ignore=shutil.ignore_patterns("*.csv"))
    for chart in sorted((run / "charts").glob("*.svg")):
        if is_shown(results / "charts" / chart.name):
            write_atomically(results / "charts" / chart.name, chart.read_bytes())
    write_atomically(results / SPEC, (run / SPEC).read_bytes())
    for table in (*sorted((run / "details").glob("*.csv")), run / "results.csv"):
        folder.write_table(results / table.relative_to(run), table.read_bytes(), compress=True)


def is_shown(chart: Path) -> bool:
    """Whether README.md or a document shows the chart, or links to it."""
    documents = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    name = "results/" + chart.as_posix().rpartition("/results/")[2]
    return any(name in path.read_text(encoding="utf-8") for path in documents if path.is_file())


def draw(home: Path) -> bool:
    """The charts of a folder of parts, which are runs of one experiment with other seeds or defenses each.

    Whether they could be drawn: a part may be damaged.
    """
    try:
        result = report.load(home)
    except UserError as error:
        print(f"{home.name}: its charts are not drawn anew: {error}", flush=True)
        return False
    for figure, text in charts.drawn(result, report.summary(result)):
        path = home / "charts" / f"{figure.name}.svg"
        if is_shown(path):
            write_atomically(path, text)
    return True


def main(arguments: list[str]) -> int:
    """List, or run the named experiments, or all; the number of those that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="experiments, or folders of them; all if left out")
    parser.add_argument("--list", action="store_true", help="show them, and run nothing")
    parser.add_argument(
        "--prepare", action="store_true", help="run the data directory's prepare.py into runs/data first"
    )
    parser.add_argument("--download", action="store_true", help="let sources fetch what is missing")
    parser.add_argument("--workers", type=int, help="jobs at a time; as many as cores if left out")
    parser.add_argument("--results", type=Path, default=ROOT / "results", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.prepare:
        prepare(ROOT / "runs" / "data")
    found, mistaken = entries(given.results)
    for text in mistaken:
        print(f"== {text}", flush=True)
    for name in given.names:
        if not any(below(entry.name, name) for entry in found):
            parser.error(f"no experiment {name!r}; known: {', '.join(sorted(entry.name for entry in found))}")
    found = [entry for entry in found if not given.names or any(below(entry.name, name) for name in given.names)]
    if given.list:
        show(found)
        return len(mistaken)
    failed = len(mistaken)
    for entry in found:
        if entry.missing and not (given.download and entry.spec["dataset"] in sources.names()):
            hint = "; --prepare may unpack it" if (entry.missing.parent / "prepare.py").is_file() else ""
            print(f"== {entry.name}: passed over, {entry.missing} is missing{hint}", flush=True)
            continue
        failed += not run(entry, given.workers)
    for home in sorted({entry.folder.parent for entry in found if entry.done and entry.is_part}):
        failed += not draw(home)
    if subprocess.run([sys.executable, str(ROOT / "scripts" / "fill_docs.py")], check=False).returncode:
        print("the documents are not filled; see above", flush=True)
        failed += 1
    return failed


def below(name: str, folder: str) -> bool:
    """Whether the experiment is the folder, or lies in it."""
    return name == folder or name.startswith(folder.rstrip("/") + "/")


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
