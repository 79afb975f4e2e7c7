"""One result from several: runs of the same experiment with other seeds or other defenses, side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pandas as pd

from relaxloss.errors import UserError
from relaxloss.evaluation.flags import Flag
from relaxloss.experiments.result import Result

FREE = ("defenses", "seeds", "tuned", "note")  # what may differ between the parts; the first part's note stands
WHO = ["defense", "settings", "seed"]
CURVES = ("rows", "histograms", "roc", "history", "records")


def merge(results: Sequence[Result]) -> Result:
    """The union of the results' defenses and seeds.

    Where two parts hold the same defense, settings and seed, the first part's is taken, whole. The facts say the
    versions and dates of all parts, and the precisions that they were trained in, which may differ as machines do. The
    data is the same if its fingerprint is, whatever it is called.

    Raises:
        UserError: the experiments differ in more than `FREE`, are on other data or with other code, or there is none.
    """
    if not results:
        raise UserError("got no result to merge; expected at least one run's directory")
    first = results[0]
    for other in results[1:]:
        _same(first, other)
    frames: dict[str, list[pd.DataFrame]] = {name: [] for name in CURVES}
    taken: set[tuple[Any, ...]] = set()
    for result in results:
        mine = set(result.rows[WHO].itertuples(index=False, name=None)) - taken
        taken |= mine
        for name in CURVES:
            frame = getattr(result, name)
            if len(frame):
                inside = [who in mine for who in frame[WHO].itertuples(index=False, name=None)]
                frames[name].append(frame[inside])
    name = first.rows["dataset"].iloc[0] if len(first.rows) else ""
    frames["rows"] = [frame.assign(dataset=name) for frame in frames["rows"]]
    tables: dict[str, Any] = {
        name: pd.concat(parts, ignore_index=True) if parts else pd.DataFrame() for name, parts in frames.items()
    }
    return Result(
        **tables,
        facts=_facts([result.facts for result in results]),
        flags=_flags(results),
        failures=tuple(dict.fromkeys(text for result in results for text in result.failures)),
    )


def _flags(results: Sequence[Result]) -> tuple[Flag, ...]:
    """The parts' flags, each with its part's defenses if it names nobody and is not raised in all parts alike."""
    shared = set(results[0].flags).intersection(*(other.flags for other in results[1:]))
    found: dict[Flag, None] = {}
    for result in results:
        names = tuple(dict.fromkeys(result.rows["defense"]))
        for flag in result.flags:
            known = flag in shared or flag.detail.startswith(names)
            found[flag if known else dataclasses.replace(flag, detail=f"{', '.join(names)}: {flag.detail}")] = None
    return tuple(found)


def _same(first: Result, other: Result) -> None:
    one, two = (
        _compared(result.facts, "fingerprint" in first.facts.keys() & other.facts.keys()) for result in (first, other)
    )
    for name in one.keys() | two.keys():
        if name not in FREE and one.get(name) != two.get(name):
            raise UserError(
                f"the results do not belong together: {name} is {one.get(name)} in one and {two.get(name)} in "
                f"another; only {', '.join(FREE)} and the recipe's precision may differ"
            )
    one, two = first.facts.get("code", {}), other.facts.get("code", {})
    for name in one.keys() & two.keys():
        if one[name] != two[name]:
            raise UserError(
                f"the results do not belong together: the code of {name} is not the same (version {one[name]} in one, "
                f"{two[name]} in another); run both again with the same code"
            )


def _compared(facts: dict[str, Any], fingerprint: bool) -> dict[str, Any]:
    """What must be equal. Runs of a version that wrote no fingerprint have only the data's name and size."""
    recipe = {name: value for name, value in facts["experiment"]["recipe"].items() if name != "precision"}
    given = dict(facts["experiment"]) | {"recipe": recipe}
    about = {name: given.pop(name, None) or None for name in ("columns", "group")}  # which older versions lack
    if not fingerprint:  # which holds both
        return {**given, **about, "samples": facts["samples"]}
    return {**given, "dataset": f"data of the fingerprint {facts['fingerprint']}"}


def _facts(parts: list[dict[str, Any]]) -> dict[str, Any]:
    merged = dict(parts[0])
    for name in ("relaxloss", "torch", "python"):
        merged[name] = ", ".join(dict.fromkeys(str(part[name]) for part in parts))
    dates = sorted({str(part["date"]) for part in parts})
    merged["date"] = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    precisions = [part.get("precision", part["experiment"]["recipe"].get("precision")) for part in parts]
    merged["precision"] = ", ".join(dict.fromkeys(filter(None, precisions)))
    merged["code"] = {name: text for part in reversed(parts) for name, text in part.get("code", {}).items()}
    merged["parts"] = len(parts)
    merged["seconds"] = round(sum(part["seconds"] for part in parts), 1)
    experiments = [part["experiment"] for part in parts]
    merged["experiment"] = experiments[0] | {
        "seeds": sorted({seed for experiment in experiments for seed in experiment["seeds"]}),
        "defenses": _distinct(each for experiment in experiments for each in experiment.get("defenses", ())),
    }
    if tuned := _distinct(each for experiment in experiments for each in experiment.get("tuned", ())):
        merged["experiment"]["tuned"] = tuned
    return merged


def _distinct(items: Any) -> list[Any]:
    found: list[Any] = []
    for item in items:
        if item not in found:
            found.append(item)
    return found
