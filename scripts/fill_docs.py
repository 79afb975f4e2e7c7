"""Fill the tables of README.md and docs/*.md from the files under results/, so that no number is typed by hand.

A block is ``<!-- results KIND PATH -->`` ... ``<!-- end -->``. ``python scripts/fill_docs.py`` rewrites the blocks;
``--check`` only says whether they are up to date (tests/docs/test_docs.py does that in every test run).
"""

from __future__ import annotations

import functools
import json
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from relaxloss import defenses, report
from relaxloss.evaluation import flags
from relaxloss.report import formatting
from relaxloss.report.comparison.folder import has_results

ROOT = Path(__file__).resolve().parent.parent
POSTER = ROOT / "results" / "poster" / "poster.json"
MEASURES = {
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "auc_nonadaptive": "worst attack AUC, non-adaptive",
    "auc_adaptive": "worst attack AUC, adaptive",
}
BLOCK = re.compile(r"(<!-- results (\w+) (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main(check: bool) -> int:
    """Rewrite, or check, every document; the number of documents that are out of date."""
    stale = 0
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        old = path.read_text()
        new = BLOCK.sub(lambda match: match[1] + KINDS[match[2]](ROOT / match[3]) + match[4], old)
        if new != old:
            stale += 1
            print(f"{path.name}: {'out of date' if check else 'filled'}")
            if not check:
                path.write_text(new)
    return stale


def compared(folder: Path) -> str:
    """The summary of a run: utility and the strongest attack, adaptive and not."""
    return _compared(folder, summary(folder).to_dict("records"))


def repeated(folder: Path) -> str:
    """As `compared`, of those settings that were run at every seed."""
    lines = summary(folder)
    return _compared(folder, lines[lines["seeds"] == lines["seeds"].max()].to_dict("records"))


def undominated(folder: Path) -> str:
    """Of a run's settings those that no other beats in accuracy and in adaptive leakage, and no defense, RelaxLoss."""
    lines = summary(folder).sort_values(["auc_adaptive", "top1"], ascending=[True, False])
    best = lines["top1"] > lines["top1"].cummax().shift(fill_value=-1.0)
    return _compared(folder, lines[best | lines["defense"].isin(["none", "relaxloss"])].to_dict("records"))


def _compared(folder: Path, lines: list[Any]) -> str:
    """The lines as a table; where some are of fewer seeds, with a column that says of how many."""
    counts = {line["seeds"] for line in lines}
    uneven = len(counts) > 1
    head = ("defense", *(("seeds",) if uneven else ()), "test accuracy, %", "member loss (variance)")
    head += ("AUC, adaptive", "AUC, non-adaptive")
    rows = [
        (
            _name(line),
            *((str(line["seeds"]),) if uneven else ()),
            _interval(line, "top1", 100, 1),
            f"{line['member_loss']:.3g} ({line['member_loss_variance']:.2g})",
            *(_interval(line, f"auc_{mode}", 1, 3) for mode in ("adaptive", "nonadaptive")),
        )
        for line in lines
    ]
    return _table(head, rows) + _origin(folder, load(folder), min(counts, default=0))


def frontier(folder: Path) -> str:
    """What each defense leaks at a given accuracy, settings chosen on the other seeds; the least of each in bold."""
    result = load(folder)
    table = report.frontier(result, summary(folder))
    lowest = table[table["defense"] != "none"].groupby("share")["auc"].min()
    rows, differences = [], []
    for defense, group in table.groupby("defense", sort=False):
        cells = []
        for line in group.to_dict("records"):
            auc = _interval(line, "auc", 1, 3)
            auc = f"**{auc}**" if line["auc"] == lowest[line["share"]] else auc
            accuracy = f"{100 * line['top1']:.1f} %" + (f", {line['settings']}" if line["settings"] else "")
            cells.append(f"{auc} ({accuracy})" if line["auc"] == line["auc"] else "-")
        rows.append((f"`{defense}`", *cells))
        if defense != "relaxloss":
            cells = [_interval(line, "difference", 1, 3) for line in group.to_dict("records")]
            differences.append((f"`{defense}`", *(cell.replace("not measured", "-") for cell in cells)))
    head = tuple(f"{share:.0%} of the accuracy" for share in table["share"].unique())
    return (
        _table(("defense", *head), rows)
        + "\nThe AUC less that of RelaxLoss at the same seed, and its interval:\n\n"
        + _table(("defense", *head), differences)
        + _origin(folder, result)
    )


def levels(folder: Path) -> str:
    """RelaxLoss beside flooding, which is RelaxLoss without its flattening epochs, at the same levels of the loss."""
    result = load(folder)
    lines = {_name(line).strip("`"): line for line in summary(folder).to_dict("records")}
    rows = []
    for point in defenses.parse("relaxloss").sweep:
        pair = (f"relaxloss:alpha={point['alpha']}", f"flooding:level={point['alpha']}")
        cells = [
            _interval(lines[str(defenses.parse(spec))], name, *form)
            for spec in pair
            for name, form in (("top1", (100, 1)), ("auc_adaptive", (1, 3)))
        ]
        rows.append((f"{point['alpha']:g}", *cells))
    head = ("level, nats", "RelaxLoss: accuracy, %", "AUC, adaptive", "flooding: accuracy, %", "AUC, adaptive")
    return _table(head, rows) + _origin(folder, result)


def poster(folder: Path) -> str:
    """The poster's numbers beside ours: no defense, and RelaxLoss as the paper sets it (the first that we ran).

    Of a run without shadows there is no adaptive attack, and no threshold.
    """
    known = json.loads(POSTER.read_text())
    setting = known["ours"][folder.name]
    result = load(folder)
    table = summary(folder)
    none, ours = (table[table["defense"] == name].iloc[0] for name in ("none", "relaxloss"))
    head = ("%", "poster: none", "RelaxLoss", "Δ", "ours: none", "RelaxLoss", "Δ", "Δ less the poster's")
    rows = []
    for measure, (before, after, change) in known["settings"][setting].items():
        our_change = float(ours[f"delta_{measure}"])
        cells = (f"{before:.1f}", f"{after:.1f}", f"{change:+.1f}")
        cells += (_interval(none, measure, 100, 1), _interval(ours, measure, 100, 1))
        rows.append((MEASURES[measure], *cells, _change(our_change), _change(our_change - change)))
    for adaptive, name in ((False, "an undefended"), (True, "a defended")):
        found = result.rows[(result.rows["measure"] == "balanced_accuracy") & (result.rows["adaptive"] == adaptive)]
        found = found[found["attack"] != "correctness"].groupby(["settings", "attack"])["value"].mean().dropna()
        if found.empty:
            continue
        pair = [found[line["settings"]].max() for line in (none, ours)]
        cells = ("", "", "", *(f"{100 * value:.1f}" for value in pair), _change(100 * (pair[1] / pair[0] - 1)), "")
        rows.append((f"worst attack accuracy at {name} shadow's threshold, correctness left out", *cells))
    return (
        f"Poster: {setting}; ours: `{folder.name}`, `relaxloss:{ours['settings']}`. Δ: relative change, in %.\n\n"
        + (_table(head, rows) + _origin(folder, result))
    )


def worst(folder: Path) -> str:
    """Average records beside canaries: the runs ``<name>_halves``, ``<name>_mislabelled``, ``<name>_vulnerable``.

    The strongest adaptive attack of each run; every model is attacked once, with all the others as its shadows.
    """
    stem = folder.name.removesuffix("_halves")
    folders = {"average": folder} | {kind: folder.with_name(f"{stem}_{kind}") for kind in ("mislabelled", "vulnerable")}
    found = {kind: load(each) for kind, each in folders.items() if runs(each)}
    head, rows = ["defense", "test accuracy, %"], {}
    for kind in found:
        head += [f"{kind}: AUC", "TPR % at 1 % FPR", "TPR % at 0.1 % FPR"]
        for line in summary(folders[kind]).to_dict("records"):
            rows.setdefault(_name(line), [_interval(line, "top1", 100, 1)]).extend(
                [
                    _interval(line, "auc_adaptive", 1, 3),
                    *(_interval(line, f"tpr_at_{fpr}_fpr_adaptive", 100, 1) for fpr in ("0.01", "0.001")),
                ]
            )
    said = "".join(
        f"{kind}: `{result.rows['game'].iloc[0]}`{_origin(folders[kind], result)}" for kind, result in found.items()
    )
    return _table(tuple(head), [(name, *cells) for name, cells in rows.items()]) + "\n" + said


def _name(line: Any) -> str:
    """A defense's spec, in type."""
    parts = formatting.parts(line["defense"], line["settings"])
    return "`" + "+".join(str(defenses.parse(":".join(part))) for part in parts) + "`"


def of_run(fill: Callable[[Path], str]) -> Callable[[Path], str]:
    """The block that `fill` makes of a run's folder; where there are no results yet, how to get them."""
    return lambda folder: fill(folder) if runs(folder) else not_run(folder)


def runs(folder: Path) -> list[Path]:
    """The folder, or the parts in it, that have results and not only the spec of an experiment."""
    return [path for path in [folder, *sorted(folder.glob("*"))] if has_results(path)]


def specs(folder: Path) -> list[Path]:
    """The experiment of the folder, or of each of its parts."""
    return [run / "experiment.toml" for run in runs(folder)]


@functools.cache
def load(folder: Path) -> Any:
    """The folder's result; several blocks show the same."""
    return report.load(folder)


@functools.cache
def summary(folder: Path) -> Any:
    """The summary of the folder's result."""
    return report.summary(load(folder))


def not_run(folder: Path) -> str:
    """What stands where results will."""
    return f"Not run yet: `python scripts/reproduce.py {folder.relative_to(ROOT / 'results').as_posix()}`.\n"


def note_of(folder: Path) -> str:
    """The experiment's lines on what it is, such as what stands in for what; what several parts say, once."""
    notes = [tomllib.loads(path.read_text(encoding="utf-8")).get("note", "") for path in specs(folder)]
    return "; ".join(dict.fromkeys(clause for note in notes for clause in filter(None, note.split("; "))))


def _origin(folder: Path, result: Any, fewest: int = 0) -> str:
    """Under a table: what it was made of and with; `fewest`: the seeds of the line that has the fewest."""
    facts = result.facts
    most = len(facts["experiment"]["seeds"])
    seeds = f"{fewest} to {most} seeds" if 0 < fewest < most else f"{most} seed{'s' * (most > 1)}"
    note = note_of(folder)
    precisions = f"precision {facts['precision']}, " if ", " in facts.get("precision", "") else ""
    settings = ", ".join(f"`{each.relative_to(ROOT).as_posix()}`" for each in specs(folder))
    brackets = f"intervals at {facts['experiment']['level']:.0%}"
    if most == 2:  # too few for an interval over seeds
        brackets = "in brackets the two seeds' own values"
    return (
        f"\n{note and note + '. '}{facts['provenance']}; "
        f"{facts['members']:,} members, {seeds}, "
        f"{brackets}; relaxloss {facts['relaxloss']}, torch {facts['torch']}, "
        f"{precisions}{facts['date']}; all settings: {settings}.\n"
    )


def benchmark(path: Path) -> str:
    """A paired benchmark: how long, and the ratio to the first line of its group."""
    content = json.loads(path.read_text())
    rows = []
    for group, lines in content["results"].items():
        for name, line in lines.items():
            if not isinstance(line, dict):
                continue  # a count, such as of repetitions
            factor = line.get("ratio", line.get("times_faster"))
            unit = "x the time" if "ratio" in line else "x faster"
            rows.append((group, name, f"{line['microseconds']:,.0f}", f"{factor:.3g} {unit}"))
    head = ("what", "how", "µs", "against the first line")
    threads = f"{content['threads']} thread" + ("s" if content["threads"] > 1 else "")
    return _table(head, rows) + f"\n{threads}, torch {content['torch']}, {content['date']}.\n"


def memguard(path: Path) -> str:
    """The neural attack's accuracy at each of MemGuard's budgets, published and ours, mean and deviation over seeds."""
    content = json.loads(path.read_text())
    rows = []
    for line in content["rows"]:
        deviation = "not measured" if line["deviation"] is None else f"{line['deviation']:.3f}"
        ours, gap = f"{line['ours']:.3f}", f"{line['ours'] - line['published']:+.3f}"
        rows.append((f"{line['budget']:g}", f"{line['published']:.2f}", ours, deviation, gap))
    head = ("budget ε", "published accuracy", "ours, mean", "deviation over seeds", "difference")
    runs = content["runs"]
    shown = {
        name: sum(run[name] for run in runs) / len(runs)
        for name in ("train_accuracy", "test_accuracy", "surrogate_accuracy")
    }
    return (
        _table(head, rows)
        + f"\n{sum(line['within'] for line in content['rows'])} of {len(rows)} within ±0.04 of the published accuracy. "
        f"{len(runs)} seeds; `{content['command']}`. The target: {shown['train_accuracy']:.1%} "
        f"training and {shown['test_accuracy']:.1%} test accuracy; the defender's own surrogate tells "
        f"{shown['surrogate_accuracy']:.1%} of members and others apart before the noise. relaxloss "
        f"{content['relaxloss']}, torch {content['torch']}, {content['date']}.\n"
    )


def tuned(path: Path) -> str:
    """A study of tuning: at each seed what was chosen, and no defense, the hand-set one and it on the asked samples."""
    if not path.is_file():
        return f"Not run yet: `python scripts/tune_study.py {path.stem}`.\n"
    content = json.loads(path.read_text())
    head = (
        "seed",
        "chosen",
        "none: accuracy, %",
        "AUC",
        f"`{content['hand']}`: accuracy, %",
        "AUC",
        "chosen: accuracy, %",
    )
    rows = []
    for seed in content["seeds"]:
        cells = [
            _interval(seed["final"][role], name, *form)
            for role in ("none", "hand", "tuned")
            for name, form in (("top1", (100, 1)), ("auc", (1, 3)))
        ]
        same = seed["final"]["tuned"]["spec"] == seed["final"]["hand"]["spec"]
        rows.append((str(seed["seed"]), "the hand-set one" if same else f"`{seed['tuned']}`", *cells))
    changes = {name: content["tuned_less_hand"][name] for name in ("top1", "auc")}
    said = [
        f"{what} {factor * change['mean']:+.{digits}f}"
        + (
            ""
            if change["low"] is None
            else f" [{factor * change['low']:+.{digits}f}, {factor * change['high']:+.{digits}f}]"
        )
        for (what, factor, digits), change in zip((("accuracy", 100, 1), ("AUC", 1, 3)), changes.values(), strict=True)
    ]
    seeds = len(content["seeds"])
    interval = content["interval"] if changes["auc"]["low"] is not None else "too few for an interval"
    return (
        _table((*head, "AUC"), rows)
        + f"\nChosen less hand-set, over {seeds} seed{'s' * (seeds > 1)}: {', '.join(said)} "
        f"({interval}); adaptive attacks. `{content['command']}`; relaxloss {content['relaxloss']}, "
        f"torch {content['torch']}, {content['date']}.\n"
    )


def warnings_table(path: Path) -> str:
    """The warnings about an evaluation, as the code has them."""
    rows = [(f"{check.title} (`{check.name}`)", check.raised_if, check.what_to_do) for check in flags.CHECKS]
    return _table(("warning", "raised if", "what to do"), rows)


def _interval(line: Any, name: str, factor: float, digits: int) -> str:
    value, low, high = (factor * line[key] for key in (name, f"{name}_low", f"{name}_high"))
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]" if value == value else "not measured"


def _change(per_cent: float) -> str:
    return f"{per_cent:+.1f}" if per_cent == per_cent else ""


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


KINDS: dict[str, Callable[[Path], str]] = {
    "compared": of_run(compared),
    "repeated": of_run(repeated),
    "undominated": of_run(undominated),
    "frontier": of_run(frontier),
    "levels": of_run(levels),
    "poster": of_run(poster),
    "worst": worst,
    "tuned": tuned,
    "benchmark": benchmark,
    "memguard": memguard,
    "flags": warnings_table,
}

if __name__ == "__main__":
    check = "--check" in sys.argv[1:]
    sys.exit(1 if main(check) and check else 0)
