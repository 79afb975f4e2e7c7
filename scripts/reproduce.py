"""Run every experiment that has a directory under results/, cheapest first, and put its tables and charts back there.

    python scripts/reproduce.py [NAME ...]

The spec is ``results/<name>/experiment.toml``; models and scores rest in ``runs/<name>/store``, so that a run which was
cut off resumes. Data: ``$RELAXLOSS_DATA`` (an experiment whose data is not at hand is passed over, and said).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(names: list[str]) -> int:
    """Run the named experiments, or all; the number of those that failed."""
    specs = {path.parent.name: path for path in (ROOT / "results").glob("*/experiment.toml")}
    failed = 0
    for name in names or sorted(specs, key=lambda name: cost(specs[name])):
        print(f"== {name}", flush=True)
        out = ROOT / "runs" / name
        command = [sys.executable, "-m", "relaxloss", "compare", str(specs[name]), "--out", str(out)]
        if subprocess.run(command, check=False).returncode:
            print(f"{name} did not run; see above", flush=True)
            failed += 1
            continue
        keep(out, specs[name].parent)
    subprocess.run([sys.executable, str(ROOT / "scripts" / "fill_docs.py")], check=False)
    return failed


def cost(path: Path) -> float:
    """Roughly how long an experiment takes: epochs, models and settings, and images are dear."""
    spec = tomllib.loads(path.read_text())
    models = spec["game"].get("models", 1 + spec["game"].get("shadows", 1))
    dear = 100.0 if spec["recipe"]["model"]["name"] != "mlp" else 1.0
    return float(spec["recipe"]["epochs"] * models * len(spec["defenses"]) * len(spec["seeds"]) * dear)


def keep(run: Path, results: Path) -> None:
    """Copy what is small and readable: no store, no page, no bitmaps."""
    for name in ("experiment.toml", "results.csv"):
        shutil.copyfile(run / name, results / name)
    for name in ("details", "charts"):
        shutil.rmtree(results / name, ignore_errors=True)
        shutil.copytree(run / name, results / name, ignore=shutil.ignore_patterns("*.png"))


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
