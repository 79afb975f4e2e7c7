"""The page of a tuning, and the directory around it."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import altair as alt
import jinja2
import markupsafe

from relaxloss import tuning
from relaxloss.data import Dataset
from relaxloss.defenses import Defense
from relaxloss.evaluation.rows import TPRS
from relaxloss.experiments.plan import Experiment
from relaxloss.experiments.run import load_data
from relaxloss.report import formatting, style
from relaxloss.report.comparison import page, tables
from relaxloss.report.style import INK, WIDTH, Figure
from relaxloss.report.tuning import sentences
from relaxloss.storage import directories
from relaxloss.storage.store import write_atomically
from relaxloss.tuning import Objective, Tuning

NAME = "report.html"
SHOWN = ("top1", "auc", *TPRS)


def save(tuning: Tuning, out: Path | str) -> Path:
    """Write tuning.csv, tuning.json, compare.toml, charts/ and report.html into a directory; return the page's path."""
    out = Path(out)
    directories.claim(out, "tune")
    write_atomically(out / "tuning.csv", tuning.table.to_csv(index=False, lineterminator="\n"))
    write_atomically(out / directories.MARKS["tune"], json.dumps(summary(tuning), indent=1, allow_nan=False) + "\n")
    write_atomically(out / sentences.COMPARISON, page.written(tuning.final.settings()))
    figure = frontier(tuning)
    drawn = style.svg(figure)
    write_atomically(out / "charts" / f"{figure.name}.svg", drawn)
    write_atomically(out / "charts" / f"{figure.name}.png", style.png(drawn))
    write_atomically(out / NAME, html(tuning, figure, drawn, out))
    return out / NAME


def lost(
    there: dict[str, Any], *, experiment: Experiment, data: Dataset | None, defense: Defense, objective: Objective,
    field: str | None, low: float | None, high: float | None, repeats: int,
) -> str:  # fmt: skip
    """What a tuning's JSON holds that another tuning would not; empty if it is the same one."""
    dataset = data if data is not None else load_data(experiment)
    strength = tuning.strength_of(defense, dataset.num_classes, field=field, low=low, high=high)
    recipe = experiment.recipe
    mine = {
        "asked_for": {name: value for name, value in dataclasses.asdict(objective).items() if value is not None},
        "seed": experiment.seeds[0],
        "fingerprint": dataset.fingerprint,
        "attacks": [str(attack) for attack in experiment.attacks],
        "recipe": None if recipe is None else recipe.settings(),
        "field": strength.field,
        "range": [float(strength.range.low), float(strength.range.high)],
        "games": [str(game) for game in tuning.games_of(strength, experiment, repeats)],
        "settings": defense.settings(),
    }
    mine = json.loads(json.dumps(mine))
    changed = [name for name in list(mine)[:-1] if there[name] != mine[name]]
    if _without(there["settings"], strength.field) != _without(mine["settings"], strength.field):
        changed.append("settings")
    old = f"a tuning of {there['chosen'].partition(':')[0]} for {there['asked_for']} at seed {there['seed']}"
    return f"{old}, with another {', '.join(changed)}" if changed else ""


def _without(settings: Any, field: str) -> Any:
    """A defense's settings, or those of a composed one's parts, without the field that was tuned."""
    if isinstance(settings, dict):
        return {name: _without(value, field) for name, value in settings.items() if name != field}
    return [_without(value, field) for value in settings] if isinstance(settings, list) else settings


def summary(tuning: Tuning) -> dict[str, Any]:
    """The choice, what was asked for, and what chose it, in JSON's types."""
    line = tuning.line
    return {
        "chosen": tuning.spec,
        "settings": tuning.chosen.settings(),
        "met": tuning.met,
        "asked_for": {name: value for name, value in dataclasses.asdict(tuning.objective).items() if value is not None},
        "bound": tuning.goal.bound,
        "floor": tuning.goal.floor,
        "field": tuning.strength.field,
        "strength": line["strength"],
        "on_tuning_folds": {
            f"{name}{end}": None if math.isnan(line[f"{name}{end}"]) else line[f"{name}{end}"]
            for name in SHOWN
            for end in ("", "_low", "_high")
        },
        "chose": sentences.chose(tuning),
        **tuning.facts,
    }


def html(tuning: Tuning, figure: Figure, drawn: str, out: Path) -> str:
    """The page's text: no scripts, no references to anything outside it."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("relaxloss.report", "templates"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("tuning.html.j2").render(
        facts=tuning.facts,
        headline=sentences.sentences(tuning),
        lines=tables.records(tuning.table),
        shown={name: formatting.quantity(name) + ("" if name == "auc" else ", %") for name in SHOWN},
        value=formatting.value,
        interval=formatting.interval,
        figure=figure,
        svg=markupsafe.Markup(page.embedded(drawn, figure.name)),
        command=sentences.command(out),
        spec=tuning.spec,
        settings=page.written(tuning.final.settings()),
        level=f"{100 * tuning.facts['level']:g}",
        duration=formatting.duration(tuning.facts["seconds"]),
        ink=style.INK,
        rule=style.RULE,
        paper=style.PAPER,
        none_hue=style.COLOURS[formatting.NONE],
    )


def frontier(tuning: Tuning) -> Figure:
    """Accuracy and leakage over the strength, with the bound (or the floor) and no defense as lines."""
    measure, field = tuning.objective.measure, tuning.strength.field
    panels = {
        "top1": ("test accuracy (%)", 100.0, tuning.goal.floor),
        measure: (
            formatting.quantity(measure) + ("" if measure == "auc" else " (%)"),
            1.0 if measure == "auc" else 100.0, tuning.goal.bound,
        ),
    }  # fmt: skip
    tried = tuning.table[(tuning.table["order"] > 0) & tuning.table["top1"].notna()]
    points = [
        {"strength": line["strength"], "panel": name, "state": _state(line), "order": line["strength"]}
        | {end or "value": factor * line[f"{name}{'_' * bool(end)}{end}"] for end in ("", "low", "high")}
        for line in tables.records(tried)
        for name, (_, factor, _) in panels.items()
    ]
    rules = [
        {"panel": name, "value": factor * value, "what": what}
        for name, (_, factor, limit) in panels.items()
        for what, value in (("asked for", limit), ("no defense", float(tuning.table.iloc[0][name])))
        if value is not None
    ]
    log = tuning.strength.range.log
    scale = alt.Scale(type="log" if log else "linear", nice=False, zero=False, padding=12)
    states = ["chosen", "within the goal", "not within it"]
    colours = alt.Scale(domain=states, range=[style.COLOURS["relaxloss"], style.MEMBERS, style.COLOURS["none"]])
    shapes = alt.Scale(domain=states, range=["diamond", "circle", "cross"])
    dashes = alt.Scale(domain=["asked for", "no defense"], range=[[6, 2], [2, 3]])
    drawn = []
    for name, (title, _, _) in panels.items():
        here = alt.FieldEqualPredicate(field="panel", equal=name)
        y = alt.Y("value:Q", title=title, scale=alt.Scale(zero=False, padding=12))
        base = alt.Chart(alt.NamedData("points")).transform_filter(here)
        base = base.encode(x=alt.X("strength:Q", title=f"{field} of {tuning.strength.defense.name}", scale=scale), y=y)
        state = alt.Color("state:N", scale=colours, legend=alt.Legend(title=None))
        limits = alt.Chart(alt.NamedData("rules")).transform_filter(here).mark_rule(color=INK, strokeWidth=1)
        legend = alt.Legend(title=None, symbolType="stroke")
        layers = [
            limits.encode(y=y, strokeDash=alt.StrokeDash("what:N", scale=dashes, legend=legend)),
            base.mark_line(strokeWidth=1.2, opacity=0.5, color=INK).encode(order="order:Q"),
            base.mark_rule(opacity=0.6).encode(y=alt.Y("low:Q"), y2="high:Q", color=state),
            base.mark_point(filled=True, size=80, opacity=1).encode(
                color=state, shape=alt.Shape("state:N", scale=shapes, legend=alt.Legend(title=None))
            ),
        ]
        drawn.append(alt.layer(*layers).properties(width=WIDTH / 2, height=260))
    caption = (
        f"Test accuracy and the {formatting.quantity(measure)} of the strongest adaptive attack over {field}, on the "
        f"folds that chose it. Bars: {100 * tuning.facts['level']:g} % intervals. "
        f"n = {tuning.facts['asked_per_game']:,} samples (or persons, with all of theirs) asked about in each of "
        f"{len(tuning.facts['games'])} games."
    )
    return Figure("tuning", style.finished(alt.hconcat(*drawn, spacing=30), points=points, rules=rules), caption)


def _state(line: dict[str, Any]) -> str:
    return "chosen" if line["chosen"] else "within the goal" if line["met"] else "not within it"
