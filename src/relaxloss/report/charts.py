"""The figures of a result: accuracy against leakage, loss histograms, ROC curves, training history."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import altair as alt
import pandas as pd

from relaxloss import defenses
from relaxloss.errors import UserError
from relaxloss.experiments.result import Result
from relaxloss.report import formatting
from relaxloss.report.comparison import single_records, tables
from relaxloss.report.style import INK, MEMBERS, TESTS, WIDTH, Figure, Records, colour, finished, powers, shape, svg

MODES = {"adaptive": "adaptive attacks", "nonadaptive": "non-adaptive attacks"}
GROUPS = {"member": "members", "test": "test samples"}


def figures(result: Result, table: pd.DataFrame | None = None) -> list[Figure]:
    """All figures for which there is data; `table` is `tables.summary` of the result, if it is there already."""
    lines = tables.summary(result) if table is None else table
    drawn = (each(result, lines) for each in (tradeoff, losses, shift, roc, history))
    return [figure for figure in drawn if figure is not None]


def drawn(result: Result, table: pd.DataFrame) -> list[tuple[Figure, str]]:
    """The figures, each with its SVG."""
    return [(figure, svg(figure)) for figure in figures(result, table)]


def tradeoff(result: Result, table: pd.DataFrame) -> Figure | None:
    """Test accuracy against the strongest attack's AUC: a curve per defense, a point per setting, a panel per mode."""
    points: Records = []
    for defense, group in table.groupby("defense", sort=False):
        for order, line in enumerate(tables.records(in_sweep_order(group))):
            for mode, panel in MODES.items():
                if math.isfinite(line[f"auc_{mode}"]):
                    point = {"defense": formatting.title(str(defense)), "order": order, "mode": panel}
                    point |= {f"auc{end}": line[f"auc_{mode}{end}"] for end in ("", "_low", "_high")}
                    point |= {f"accuracy{end}": 100 * line[f"top1{end}"] for end in ("", "_low", "_high")}
                    points.append(point | {"label": ", ".join(value for _, value in formatting.fields(line["label"]))})
    if not points:
        return None
    panels = [panel for panel in MODES.values() if any(point["mode"] == panel for point in points)]
    lowest = min(point[name] for point in points for name in ("auc", "auc_low") if math.isfinite(point[name]))
    scale = alt.Scale(domain=[min(lowest, 0.48) - 0.01, 1.01], nice=False, zero=False)
    axis = alt.Axis(values=[tenth / 10 for tenth in range(11)], format=".1f")
    accuracies = [float(point["accuracy"]) for point in points]
    shown = [point for point in points if point["defense"] == formatting.title("relaxloss")]
    _label(shown, 1.01 - lowest, max(accuracies) - min(accuracies))
    base = alt.Chart().encode(
        x=alt.X("auc:Q", title="AUC of the strongest attack", scale=scale, axis=axis),
        y=alt.Y("accuracy:Q", title="test accuracy (%)", scale=alt.Scale(zero=False, padding=12)),
        color=colour(table["defense"], symbolOpacity=1, symbolStrokeWidth=0),
    )
    layers = [_guessing("guess", x=alt.X("x:Q", scale=scale, axis=axis))]
    barred = int(table["seeds"].max()) > 1 or len(table) <= 8
    if barred:
        layers.append(base.mark_rule(opacity=0.5).encode(x="auc_low:Q", x2="auc_high:Q"))
        layers.append(base.mark_rule(opacity=0.5).encode(y="accuracy_low:Q", y2="accuracy_high:Q"))
    layers.append(base.mark_line(strokeWidth=1.5, opacity=0.75).encode(order="order:Q"))
    layers.append(base.mark_point(filled=True, size=60, opacity=1).encode(shape=shape(table["defense"])))
    own = table.loc[table["defense"] == "relaxloss", "label"]
    if len(own) > 1:
        texts = base.mark_text(align="left", dx=7, dy=-7, fontSize=10).encode(text="text:N")
        layers.append(
            texts.transform_filter(alt.FieldEqualPredicate(field="defense", equal=formatting.title("relaxloss")))
        )
    spec = finished(_facet(layers, "points", panels, 320), points=points, guess=[{"x": 0.5}])
    varying = ", ".join(dict.fromkeys(name for label in own for name, _ in formatting.fields(label)))
    caption = (
        f"Test accuracy against the AUC of the strongest attack, for {_count(len(table), 'setting')} of "
        f"{_count(table['defense'].nunique(), 'method')}. Further up is more useful, further left is more private; "
        "0.5 (dashed) is guessing."
        + (f" Numbers beside RelaxLoss, where there is room: {varying}." if len(own) > 1 else "")
        + (f" Bars: {'; '.join(dict.fromkeys(table['interval']))}." if barred else "")
        + _samples(result, "asked", "tested")
    )
    return Figure("tradeoff", spec, caption)


def _label(points: Records, width: float, height: float) -> None:
    """Give points of the trade-off their label as ``text``, in their order, where it lies over no other.

    Args:
        points: those to be labelled.
        width: how far the chart reaches in AUC.
        height: and in accuracy.
    """
    room_x, room_y = 0.016 * width, 0.04 * height  # of a letter
    texts: Records = []
    for point in points:
        near = (
            abs(point["auc"] - each["auc"]) < room_x * max(len(point["label"]), len(each["label"]))
            and abs(point["accuracy"] - each["accuracy"]) < room_y
            for each in texts
            if each["mode"] == point["mode"]
        )
        point["text"] = "" if any(near) else point["label"]
        if point["text"]:
            texts.append(point)


def in_sweep_order(group: pd.DataFrame) -> pd.DataFrame:
    """The settings of one defense along its sweep: by the one number that varies; where several do, by their places.

    As they were listed, where that does not order them either.
    """
    read = [dict(formatting.fields(label)) for label in group["label"]]
    try:
        (name,) = {name for each in read for name in each}
        places = [float(each[name]) for each in read]
    except (ValueError, KeyError):
        try:
            places = [_place_in_sweep(line["defense"], line["settings"]) for line in tables.records(group)]
        except (UserError, ValueError):
            return group
    return group.iloc[sorted(range(len(places)), key=places.__getitem__)]


def _place_in_sweep(name: str, settings: str) -> float:
    defense = defenses.parse(f"{name}:{settings}")
    return [dataclasses.replace(defense, **point) for point in defense.sweep].index(defense)


def losses(result: Result, table: pd.DataFrame) -> Figure | None:
    """Histograms of the losses of members and test samples, a panel per defense."""
    if not len(result.histograms):
        return None
    bins, means = _bins(result, table)
    top = max((item["right"] for item in bins if item["share"] > 0), default=1.0)
    bins = [item for item in bins if item["left"] < top]
    scale = alt.Scale(domain=list(GROUPS.values()), range=[MEMBERS, TESTS])
    legend = alt.Legend(title=None, orient="top", symbolOpacity=0.8)
    base = alt.Chart().encode(color=alt.Color("membership:N", scale=scale, legend=legend))
    x_scale = alt.Scale(domain=[0, top], nice=False)
    bars = base.mark_bar(opacity=0.55, binSpacing=0).encode(
        x=alt.X("left:Q", bin=alt.BinParams(binned=True), title="loss (nats)", scale=x_scale),
        x2="right:Q",
        y=alt.Y("share:Q", stack=None, title="share (%)", axis=alt.Axis(tickCount=4), scale=alt.Scale(nice=4)),
    )
    rules = (
        base.mark_rule(strokeWidth=1.5, strokeDash=[4, 3]).encode(x="mean:Q").properties(data=alt.NamedData("means"))
    )
    drawn = []
    for panel in dict.fromkeys(item["panel"] for item in bins):
        here = alt.FieldEqualPredicate(field="panel", equal=panel)
        both = alt.layer(bars.transform_filter(here), rules.transform_filter(here), data=alt.NamedData("bins"))
        drawn.append(both.properties(width=WIDTH / 2, height=110, title=panel))
    chart = alt.concat(*drawn, columns=2, bounds="flush", spacing={"row": 76, "column": 56}).resolve_scale(
        y="independent"
    )
    caption = (
        "Losses of members and of test samples; dashed: their means. The more the two shapes overlap, the less a loss "
        "tells an attacker. The last bin holds what lies beyond it; each panel has its own vertical scale."
    )
    if "gap" in result.records:
        caption += f" The shapes are of the first model, with {result.facts['members']:,} members, the means of all."
    else:
        caption += _samples(result, "trained", "tested")
    return Figure("losses", finished(chart, bins=bins, means=means), caption)


def _bins(result: Result, table: pd.DataFrame) -> tuple[Records, Records]:
    """The bins' shares (the mean over seeds), and the means of the losses, as far as they lie on the axis."""
    bins: Records = []
    means: Records = []
    for line in tables.records(tables.representatives(table)):
        found = _of(result.histograms, line)
        mean = found.groupby(["membership", "left", "right"], sort=False)["share"].mean()
        for item in tables.records(mean.reset_index()):
            known = {
                "panel": formatting.called(line),
                "membership": GROUPS[item["membership"]],
                "share": 100 * item["share"],
            }
            bins.append({"left": item["left"], "right": item["right"]} | known)
        for group, name in GROUPS.items():
            if line[f"{group}_loss"] <= found["right"].max():
                means.append({"panel": formatting.called(line), "membership": name, "mean": line[f"{group}_loss"]})
    return bins, means


def shift(result: Result, table: pd.DataFrame) -> Figure | None:
    """How α moves the losses: mean, variance, and the gap between members and test samples, over RelaxLoss's α.

    Drawn of the most settings among which nothing but α varies, if they are three or more; no defense is α = 0.
    """
    groups: dict[frozenset[tuple[str, str]], list[tuple[float, tables.Line]]] = {}
    for line in tables.records(table[table["defense"] == "relaxloss"]):
        given = dict(formatting.fields(line["settings"]))
        alpha = float(given.pop("alpha"))
        groups.setdefault(frozenset(given.items()), []).append((alpha, line))
    largest = max(groups, key=lambda each: len(groups[each]), default=frozenset())
    lines = sorted(groups.get(largest, []), key=lambda each: each[0])
    if len(lines) < 3:
        return None
    lines = [(0.0, line) for line in tables.records(table[table["defense"] == formatting.NONE])[:1]] + lines
    points: Records = []
    for alpha, line in lines:
        for which, group in GROUPS.items():
            for measure in ("loss", "loss_variance"):
                point = {"alpha": alpha, "measure": measure, "group": group, "value": line[f"{which}_{measure}"]}
                points += [point] if 0 < point["value"] < math.inf else []
        points.append({"alpha": alpha, "measure": "gap", "group": None, "value": 100 * line["accuracy_gap"]})
    variances = [point["value"] for point in points if point["measure"] == "loss_variance"] or [1.0]
    ticks = powers(min(variances) / 10, max(variances) * 10)
    axes = {
        "loss": alt.Y("value:Q", title="mean loss (nats)"),
        "loss_variance": alt.Y("value:Q", title="variance of the loss (nats²)", scale=alt.Scale(type="log"),
                               axis=alt.Axis(values=ticks, format="~g")),
        "gap": alt.Y("value:Q", title="training less test accuracy (points)"),
    }  # fmt: skip
    base = alt.Chart(alt.NamedData("points")).mark_line(strokeWidth=1.5, point=alt.OverlayMarkDef(size=40))
    base = base.encode(x=alt.X("alpha:Q", title="α of RelaxLoss (nats)"))
    both = alt.Color(
        "group:N", scale=alt.Scale(domain=list(GROUPS.values()), range=[MEMBERS, TESTS]), legend=alt.Legend(title=None)
    )
    drawn = []
    for measure, y in axes.items():
        panel = base.encode(y=y, color=alt.value(INK) if measure == "gap" else both)
        panel = panel.transform_filter(alt.FieldEqualPredicate(field="measure", equal=measure))
        drawn.append(panel.properties(width=WIDTH / 3, height=220))
    caption = (
        "What α does to the losses: their mean, their variance (on a logarithmic axis), and the gap in accuracy "
        "between members and test samples. α = 0 is training without defense." + _samples(result, "trained", "tested")
    )
    return Figure("shift", finished(alt.hconcat(*drawn, spacing=30), points=points), caption)


def roc(result: Result, table: pd.DataFrame) -> Figure | None:
    """ROC curves of each defense's strongest attack on logarithmic axes, first seed, a panel per mode."""
    if not len(result.roc):
        return None
    shown = tables.representatives(table)
    points: Records = []
    for line in tables.records(shown):
        found = _first_seed(_of(result.roc, line))
        found = found[found["tpr"] > 0]
        for adaptive, fpr, tpr in zip(found["adaptive"], found["fpr"], found["tpr"], strict=True):
            panel = MODES["adaptive" if adaptive else "nonadaptive"]
            points.append(
                {"defense": formatting.title(line["defense"]), "mode": panel, "fpr": float(fpr), "tpr": float(tpr)}
            )
    if not points:
        return None
    panels = [panel for panel in MODES.values() if any(point["mode"] == panel for point in points)]
    low = min(point["fpr"] for point in points)
    scale = alt.Scale(type="log", domain=[low, 1], nice=False)
    axis = alt.Axis(format="~%", values=powers(low, 1))
    x = alt.X("fpr:Q", title="false-positive rate", scale=scale, axis=axis)
    y = alt.Y("tpr:Q", title="true-positive rate", scale=scale, axis=axis)
    curve = alt.Chart().mark_line(strokeWidth=1.8, interpolate="step-after", clip=True)
    curve = curve.encode(x=x, y=y, color=colour(shown["defense"]))
    guess = _guessing("guess", x=alt.X("x:Q", scale=scale), y=alt.Y("x:Q", scale=scale))
    chart = _facet([guess, curve], "points", panels, 320)
    caption = (
        f"ROC curves of the strongest attack on {_named(shown)}, on logarithmic axes: the left end shows how many "
        f"members are found with hardly a false accusation. Dashed: guessing. Shown is {_seeds(result.roc, shown)}."
        + _samples(result, "asked")
    )
    return Figure("roc", finished(chart, points=points, guess=[{"x": low}, {"x": 1.0}]), caption)


def history(result: Result, table: pd.DataFrame) -> Figure | None:
    """Mean and variance of the loss of members and test samples by epoch, first seed and first target."""
    if not len(result.history):
        return None
    shown = tables.representatives(table)
    points: Records = []
    for line in tables.records(shown):
        found = _first_seed(_of(result.history, line)).drop_duplicates("epoch", keep="last")
        for which, group in (("train", "members"), ("test", "test samples")):
            for measure in ("loss", "loss_variance"):
                if f"{which}_{measure}" in found:
                    head = {"defense": formatting.title(line["defense"]), "group": group, "measure": measure}
                    values = found[f"{which}_{measure}"]
                    known = (values > 0) & (values < math.inf)
                    pairs = zip(found["epoch"][known], values[known], strict=True)
                    points += [head | {"epoch": int(epoch), "value": float(value)} for epoch, value in pairs]
    if not points:
        return None
    dash_scale = alt.Scale(domain=list(GROUPS.values()), range=[[1, 0], [4, 3]])
    base = alt.Chart(alt.NamedData("points")).mark_line(strokeWidth=1.5).encode(
        x=alt.X("epoch:Q", title="epoch", scale=alt.Scale(nice=False), axis=alt.Axis(tickCount=6)),
        color=colour(shown["defense"]),
        strokeDash=alt.StrokeDash("group:N", scale=dash_scale, legend=alt.Legend(title=None)),
    )  # fmt: skip
    variances = [item["value"] for item in points if item["measure"] == "loss_variance"] or [1.0]
    ticks = powers(min(variances) / 10, max(variances) * 10)
    axes = {
        "loss": alt.Y("value:Q", title="mean loss (nats)"),
        "loss_variance": alt.Y("value:Q", title="variance of the loss", scale=alt.Scale(type="log"),
                               axis=alt.Axis(values=ticks, format="~g")),
    }  # fmt: skip
    drawn = [
        base.encode(y=y)
        .transform_filter(alt.FieldEqualPredicate(field="measure", equal=measure))
        .properties(width=WIDTH / 2, height=260)
        for measure, y in axes.items()
    ]
    caption = (
        f"Mean and variance of the loss in the training of {_named(shown)}: of members, as they are trained on, and of "
        f"test samples. Shown is the first target of {_seeds(result.history, shown)}; the variance is on a logarithmic "
        "axis."
    )
    return Figure("history", finished(alt.hconcat(*drawn, spacing=30), points=points), caption)


def _named(shown: pd.DataFrame) -> str:
    return "; ".join(formatting.called(line) for line in tables.records(shown))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _of(frame: pd.DataFrame, line: dict[str, Any]) -> pd.DataFrame:
    found: pd.DataFrame = frame[(frame["defense"] == line["defense"]) & (frame["settings"] == line["settings"])]
    return found


def _first_seed(found: pd.DataFrame) -> pd.DataFrame:
    """A defense's first seed: in merged runs not all defenses have the same."""
    first: pd.DataFrame = found[found["seed"] == found["seed"].min()]
    return first


def _seeds(frame: pd.DataFrame, shown: pd.DataFrame) -> str:
    firsts = {int(found["seed"].min()) for line in tables.records(shown) if len(found := _of(frame, line))}
    return f"seed {firsts.pop()}" if len(firsts) == 1 else "the first seed of each defense"


def _samples(result: Result, *which: str) -> str:
    """How many samples and seeds a figure rests on."""
    rows = result.rows
    places = {
        "asked": (rows["measure"] == "auc") & (rows["attack"] == "max"),
        "tested": rows["measure"] == "top1",
        "trained": rows["measure"] == "train_top1",
    }
    names = {"asked": "asked samples", "tested": "test samples", "trained": "members"}
    if "gap" in result.records:  # several models: each number counts a sample once per model
        asked = f"answers about {single_records.attacked(result):,} asked samples"
        names = {"asked": asked, "tested": "answers about test samples", "trained": "answers about members"}
    counts = [f"{int(rows.loc[places[each], 'n'].iloc[0]):,} {names[each]}" for each in which if places[each].any()]
    seeds = rows["seed"].nunique()
    return f" n = {', '.join(counts)}{f' in each of {seeds} seeds' if seeds > 1 else ', 1 seed'}."


def _guessing(data: str, **encoding: Any) -> Any:
    chart = alt.Chart(alt.NamedData(data))
    mark = chart.mark_line if "y" in encoding else chart.mark_rule
    return mark(strokeDash=[3, 3], strokeWidth=1, color=INK, opacity=0.6).encode(**encoding)


def _facet(layers: list[Any], data: str, panels: list[str], height: int) -> Any:
    layered = alt.layer(*layers, data=alt.NamedData(data)).properties(width=WIDTH / len(panels), height=height)
    return layered.facet(column=alt.Column("mode:N", title=None, sort=panels), spacing=24)
