"""Does `relaxloss tune` beat a hand-set strength? Tune on the tuning folds, compare on the samples asked about.

    python scripts/tune_study.py location30
    python scripts/tune_study.py tafeng100 --hand relaxloss:alpha=0.8,upper=0.3

At every seed the hand-set defense is measured on the tuning folds; its leakage there is the bound, and the most
accurate strength within it is chosen. Then no defense, the hand-set and the tuned one are compared on folds 1 and 2 of
the same seed, which had no part in the choice. Writes ``results/tuning/<data>.json``; models and scores rest in
``runs/tuning/<data>-<seed>/store``, so that a study which was cut off resumes.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from scipy import special

from relaxloss import defenses, tuning
from relaxloss.compute.engine import Engine
from relaxloss.compute.progress import Terminal
from relaxloss.experiments import run
from relaxloss.experiments.plan import Experiment
from relaxloss.experiments.result import names_of
from relaxloss.provenance import __version__
from relaxloss.storage.store import write_atomically

ROOT = Path(__file__).resolve().parent.parent
MEASURES = {"top1": ("top1", ""), "auc": ("auc", "max"), "selected_auc": ("auc", "selected")}


def main() -> None:
    """Run the study, seed by seed; the file is written anew after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--hand", default="relaxloss:alpha=1.0", help="the defense as set by hand")
    parser.add_argument("--defense", default="relaxloss", help="the defense whose strength is tuned")
    parser.add_argument("--seeds", default="10,11,12")
    parser.add_argument("--settings", type=int, default=tuning.SETTINGS)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    found = []
    for seed in map(int, given.seeds.split(",")):
        found.append(one(given, seed))
        path = ROOT / "results" / "tuning" / f"{given.data}.json"
        write_atomically(path, json.dumps(content(given, found), indent=1) + "\n")
        print(f"{path.relative_to(ROOT)}: {json.dumps(found[-1]['final'], indent=1)}", flush=True)


def one(given: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One seed: the bound, the choice, and the comparison on the asked samples."""
    from rich.console import Console

    out = ROOT / "runs" / "tuning" / f"{given.data}-{seed}"
    engine, watch = Engine(workers=given.workers), Terminal(Console(stderr=True), log=out / "log.txt")
    base = Experiment(given.data, seeds=(seed,), shadows="same")
    hand = defenses.parse(given.hand)
    strength = tuning.strength_of(defenses.parse(given.defense), run.load_data(base).num_classes)
    games = tuning.games_of(strength, base, given.repeats)
    (line,) = tuning.measure(base, [hand], games, out, engine=engine, watch=watch)
    tuned = tuning.tune(
        base, out, defense=given.defense, objective=tuning.Objective(max_auc=line["auc"]), settings=given.settings,
        repeats=given.repeats, engine=engine, watch=watch,
    )  # fmt: skip
    compared = tuple(dict.fromkeys([defenses.NONE, hand, tuned.chosen]))
    final = Experiment(given.data, defenses=compared, seeds=(seed,), shadows="same", tuned=tuned.final.tuned)
    result = run.run(final, out, engine=engine, watch=watch)
    roles = {"none": defenses.NONE, "hand": hand, "tuned": tuned.chosen}
    return {
        "seed": seed,
        "bound": line["auc"],
        "hand_on_tuning_folds": {name: line[name] for name in ("top1", "auc")},
        "tuned": str(tuned.chosen),
        "met": tuned.met,
        "table": [
            {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
            for row in tuned.table.drop(columns=[c for c in tuned.table if c.endswith("note")]).to_dict("records")
        ],
        "facts": tuned.facts,
        "flags": [flag.name for flag in result.flags],
        "final": {role: numbers(result.rows, defense) for role, defense in roles.items()},
    }


def numbers(rows: Any, defense: Any) -> dict[str, Any]:
    """A defense's accuracy and leakage on the asked samples, each with its interval."""
    names = names_of(defense)
    mine = rows[(rows["defense"] == names["defense"]) & (rows["settings"] == names["settings"])]
    found: dict[str, Any] = {"spec": str(defense)}
    for name, (measure, attack) in MEASURES.items():
        row = mine[(mine["measure"] == measure) & (mine["attack"] == attack)].iloc[0]
        found |= {name: float(row["value"]), f"{name}_low": float(row["low"]), f"{name}_high": float(row["high"])}
    found["n"] = int(mine[mine["measure"] == "auc"]["n"].iloc[0])
    return found


def content(given: argparse.Namespace, found: list[dict[str, Any]]) -> dict[str, Any]:
    """The file: how it was made, the seeds, and the differences between the tuned and the hand-set one over them."""
    differences = {}
    for name in MEASURES:
        values = [seed["final"]["tuned"][name] - seed["final"]["hand"][name] for seed in found]
        mean, low, high = statistics.fmean(values), math.nan, math.nan
        if len(values) > 2:
            half = float(special.stdtrit(len(values) - 1, 0.975)) * statistics.stdev(values) / math.sqrt(len(values))
            low, high = mean - half, mean + half
        differences[name] = {"mean": mean, "low": low, "high": high, "each": values}
        differences[name] = {
            k: None if isinstance(v, float) and math.isnan(v) else v for k, v in differences[name].items()
        }
    return {
        "command": f"python scripts/tune_study.py {given.data} --hand {given.hand} --defense {given.defense} "
        f"--seeds {given.seeds} --settings {given.settings} --repeats {given.repeats}",
        "data": given.data,
        "hand": given.hand,
        "defense": given.defense,
        "bound": "the hand-set defense's strongest adaptive attack AUC on the tuning folds of the seed",
        "tuned_less_hand": differences,
        "interval": "95 % t-interval over the seeds",
        "relaxloss": __version__,
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "seeds": found,
    }


if __name__ == "__main__":
    main()
