"""The page of an audit, and the directory around it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import jinja2
import markupsafe

from relaxloss.attacks import Attack
from relaxloss.auditing.audit import Audit
from relaxloss.evaluation import flags, one_run_audit
from relaxloss.report import formatting, style
from relaxloss.report.audit import sentences
from relaxloss.report.charts import GROUPS
from relaxloss.report.comparison.page import embedded
from relaxloss.report.style import INK, MEMBERS, TESTS, WIDTH, Figure
from relaxloss.storage import directories
from relaxloss.storage.store import write_atomically
from relaxloss.validation import listed

NAME = "report.html"


def save(audit: Audit, out: Path | str) -> Path:
    """Write report.html, audit.json, results.csv and records.csv into a directory; return the page's path."""
    out = Path(out)
    directories.claim(out, "audit")
    write_atomically(out / "results.csv", audit.rows.to_csv(index=False))
    write_atomically(out / "records.csv", audit.records.to_csv(index=False))
    audit.to_json(out / directories.MARKS["audit"])
    return audit.to_html(out / NAME)


def keep(
    out: Path, of: Mapping[str, Any], *, overwrite: bool, coin_flips: bool = False, seed: int = 0,
    attacks: Sequence[Attack] = (),
) -> None:  # fmt: skip
    """A clear error if the directory holds an audit that this one would replace with less.

    That is one of another source than `of`, at another seed, with an attack that is not among `attacks`, where these
    are given, or with a bound of ε.
    """

    def lost(there: dict[str, Any]) -> str:
        source, before = there["facts"]["source"], there["facts"]["seed"]
        if source.get("sha256") != of.get("sha256"):
            return f"the audit of {source.get('file', 'other arrays')}{' of another model' * ('shadows' in source)}"
        if source.get("shadows", 0) > of.get("shadows", 0):
            return f"the audit with {source['shadows']} shadow models"
        if before != seed:
            return f"the audit at seed {before}"
        made = {row["attack"] for row in there["rows"] if row["measure"] == "auc" and row["value"] is not None}
        gone = {name.replace(",rows=max", "").replace(":rows=max", "") for name in made - {"max", "selected"}}
        if attacks and (gone := gone - set(map(str, attacks))):
            return f"an audit with {listed(sorted(gone), 3)}, too"
        usual = {"label": "label", "member": "member", "kind": "auto", "group": "", "defense": "", "release": ""}
        other = [name for name, plain in usual.items() if (source.get(name) or plain) != (of.get(name) or plain)]
        if other:
            return f"the audit of {source.get('file')} with another {' and '.join(other)}"
        bounds = [row["value"] for row in there["rows"] if row["measure"] == one_run_audit.MEASURE]
        return "a lower bound of ε, from --coin-flips" if bounds and bounds[0] is not None and not coin_flips else ""

    directories.keep(out, "audit", lost, overwrite)


def html(audit: Audit) -> str:
    """The page's text: no scripts, no references to anything outside it."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("relaxloss.report", "templates"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    figures = [histogram(audit), roc(audit)]
    said = sentences.sentences(audit)
    members = audit.records[audit.records["member"]]
    return environment.get_template("audit.html.j2").render(
        audit=audit,
        facts=audit.facts,
        counts=_counts(audit),
        headline=said,
        lines=sentences.measured(audit),
        columns=sentences.SHOWN,
        model=sentences.lines(audit)[""],
        utility=sentences.UTILITY,
        known=sentences.FACTS,
        unmeasured=sentences.unmeasured(audit),
        blank=sentences.blank(audit),
        told=sentences.told_without(audit),
        exposed=sentences.exposed(audit),
        graded=sentences.graded(audit),
        by_class=audit.facts["by_class"][: sentences.CLASSES],
        named=formatting.attack,
        alone=int((members["fpr"] == 0).sum()),
        percent=sentences.percent(audit),
        kind=sentences.KINDS[audit.facts["kind"]],
        figures=[(figure, markupsafe.Markup(embedded(style.svg(figure), figure.name))) for figure in figures],
        titled=flags.title,
        value=_value,
        interval=_interval,
        ink=style.INK,
        rule=style.RULE,
        paper=style.PAPER,
        none_hue=style.COLOURS[formatting.NONE],
    )


def _value(line: dict[str, Any], name: str) -> str:
    return formatting.value(*_share(line, name))


def _interval(line: dict[str, Any], name: str) -> str:
    return formatting.interval(*_share(line, name))


def _share(line: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
    """A balanced accuracy under a name that `words` writes in per cent."""
    if not name.startswith("balanced"):
        return line, name
    return {f"top1{end}": line.get(f"{name}{end}", math.nan) for end in ("", "_low", "_high", "_note")}, "top1"


def histogram(audit: Audit) -> Figure:
    """The strongest attack's scores of members and of non-members."""
    names = GROUPS | {"test": "non-members"}
    bins = [
        {
            "group": names[str(row["membership"])],
            "left": row["left"],
            "right": row["right"],
            "share": 100 * row["share"],
        }
        for row in audit.histogram.to_dict("records")
    ]
    scale = alt.Scale(domain=list(names.values()), range=[MEMBERS, TESTS])
    attack = formatting.attack(audit.worst["graded"])
    chart = (
        alt.Chart(alt.NamedData("bins"))
        .mark_bar(opacity=0.55, binSpacing=0)
        .encode(
            x=alt.X("left:Q", bin=alt.BinParams(binned=True), title=f"score of the attack {attack}",
                    scale=alt.Scale(domain=[bins[0]["left"], bins[-1]["right"]], nice=False)),
            x2="right:Q",
            y=alt.Y("share:Q", stack=None, title="share (%)", axis=alt.Axis(tickCount=4)),
            color=alt.Color("group:N", scale=scale, legend=alt.Legend(title=None, orient="top", symbolOpacity=0.8)),
        )
        .properties(width=WIDTH, height=200)
    )  # fmt: skip
    caption = (
        f"What {sentences.graded(audit)} sees: the scores of members and of non-members. The more the two shapes "
        f"overlap, the less it learns. Scores beyond the axis's ends are in the outer bins. {_count(audit)}"
    )
    return Figure("scores", style.finished(chart, bins=bins), caption)


def roc(audit: Audit) -> Figure:
    """The strongest attack's ROC curve on logarithmic axes."""
    low = float(audit.roc["fpr"].min())
    points = [{"fpr": row["fpr"], "tpr": row["tpr"]} for row in audit.roc.to_dict("records") if row["tpr"] > 0]
    scale = alt.Scale(type="log", domain=[low, 1], nice=False)
    axis = alt.Axis(format="~%", values=style.powers(low, 1))
    x = alt.X("fpr:Q", title="false alarms: non-members called members", scale=scale, axis=axis)
    y = alt.Y("tpr:Q", title="members found", scale=scale, axis=axis)
    curve = alt.Chart(alt.NamedData("points")).mark_line(
        strokeWidth=2, interpolate="step-after", clip=True, color=MEMBERS
    )
    guess = alt.Chart(alt.NamedData("guess")).mark_line(strokeDash=[3, 3], strokeWidth=1, color=INK, opacity=0.6)
    chart = alt.layer(guess.encode(x=x, y=y), curve.encode(x=x, y=y)).properties(width=WIDTH / 2, height=WIDTH / 2)
    caption = (
        f"ROC curve of {sentences.graded(audit)} on logarithmic axes: the left end shows how many members are found "
        f"with hardly a false alarm. Dashed: guessing. {_count(audit)}"
    )
    guesses = [{"fpr": low, "tpr": low}, {"fpr": 1.0, "tpr": 1.0}]
    return Figure("roc", style.finished(chart, points=points, guess=guesses), caption)


def _counts(audit: Audit) -> dict[str, Any]:
    """How many ``members`` and ``nonmembers`` were asked about: persons, where these have several samples."""
    found: dict[str, Any] = audit.facts.get("persons", audit.facts)
    return found


def _count(audit: Audit) -> str:
    counts, of = _counts(audit), " (persons)" if "persons" in audit.facts else ""
    return f"n = {counts['members']:,} members and {counts['nonmembers']:,} non-members{of}."
