"""How charts are drawn: colours, shapes, type; and from Altair's chart to SVG and PNG, without browser or network."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import altair as alt
import vl_convert

from relaxloss.report import formatting

INK, RULE, PAPER = "#33373d", "#dcdfe4", "#ffffff"
MEMBERS, TESTS = "#0072b2", "#e69f00"
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
WIDTH = 720  # of a figure's data area, all its panels together
COLOURS = {
    "none": "#4d4d4d",
    "relaxloss": "#d55e00",
    "memguard": "#0072b2",
    "advreg": "#117733",
    "early_stopping": "#56b4e9",
    "dropout": "#aa4499",
    "label_smoothing": "#999933",
    "confidence_penalty": "#332288",
    "distillation": "#44aa99",
    "dpsgd": "#882255",
    "hamp": "#e69f00",
    "selena": "#cc79a7",
    "ccl": "#6a8caf",
    "crl": "#8c6d46",
}
SPARE = ("#7f7fff", "#00a08a", "#b2182b", "#a6761d", "#5c5c8a", "#3b7d23")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
Records = list[dict[str, Any]]


@dataclass(frozen=True)
class Figure:
    """A Vega-Lite spec, its file's name, and its caption: what it shows, of how many, at which settings."""

    name: str
    spec: dict[str, Any]
    caption: str


def colours(defenses: Iterable[str]) -> dict[str, str]:
    """A colour per defense: our own have the same in every report, others theirs in order of appearance."""
    names = list(dict.fromkeys(defenses))
    others = [name for name in names if name not in COLOURS]
    return {name: COLOURS.get(name) or SPARE[others.index(name) % len(SPARE)] for name in names}


def colour(defenses: Iterable[str], **legend: Any) -> alt.Color:
    """The colour of the field ``defense``, which holds names as readers see them."""
    found = colours(defenses)
    scale = alt.Scale(domain=[formatting.title(name) for name in found], range=list(found.values()))
    return alt.Color("defense:N", scale=scale, legend=alt.Legend(title=None, **legend))


def shape(defenses: Iterable[str]) -> alt.Shape:
    """The point's shape, so that not everything hangs on colours."""
    names = [formatting.title(name) for name in dict.fromkeys(defenses)]
    scale = alt.Scale(domain=names, range=[SHAPES[i % len(SHAPES)] for i in range(len(names))])
    return alt.Shape("defense:N", scale=scale)


def powers(low: float, high: float) -> list[float]:
    """The powers of ten from `low` to `high`, every second one if there are more than six."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    return [10.0**power for power in range(first, last + 1, 1 + (last - first > 6))]


def finished(chart: Any, **datasets: Records) -> dict[str, Any]:
    """The spec with the theme, and with the data under their names.

    They are put in here because Altair would check every number of theirs against its schema.
    """
    axis = alt.AxisConfig(
        labelColor=INK, titleColor=INK, domainColor=INK, tickColor=INK, gridColor=RULE, gridWidth=0.7,
        titleFontWeight=400, labelFontSize=11, titleFontSize=12,
    )  # fmt: skip
    legend = alt.LegendConfig(labelColor=INK, labelFontSize=12, symbolSize=90, labelLimit=280)
    header = alt.HeaderConfig(labelColor=INK, labelFontSize=12, labelFontWeight=600)
    title = alt.TitleConfig(color=INK, fontSize=12, fontWeight=600, anchor="start", frame="group", offset=6)
    config = alt.Config(
        axis=axis, legend=legend, header=header, title=title, view=alt.ViewConfig(stroke=None), font=FONT,
        background=PAPER, padding={"left": 5, "top": 5, "bottom": 5, "right": 30},  # for a reader's wider letters
    )  # fmt: skip
    spec: dict[str, Any] = chart.properties(config=config).to_dict()
    return spec | {"datasets": {name: [_finite(item) for item in items] for name, items in datasets.items()}}


def _finite(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(item, float) and not math.isfinite(item) else item for name, item in record.items()
    }


def svg(figure: Figure) -> str:
    """The figure as SVG text; its ids are its own, so that one page can hold several, and the same every time."""
    version = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
    text: str = vl_convert.vegalite_to_svg(figure.spec, vl_version=version, allowed_base_urls=[])
    for number, identifier in enumerate(dict.fromkeys(re.findall(r'\bid="([^"]+)"', text))):
        uses = rf'(\bid="|url\(#|href="#){re.escape(identifier)}(?=["\)])'
        text = re.sub(uses, rf"\g<1>{figure.name}-{number}", text)
    return text


def png(drawn: str) -> bytes:
    """SVG text as PNG, at twice its size."""
    content: bytes = vl_convert.svg_to_png(drawn, scale=2)
    return content
