"""How names and numbers are written in tables, charts and on the page."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from relaxloss import defenses
from relaxloss.errors import UserError
from relaxloss.evaluation import flags
from relaxloss.evaluation.flags import Flag

NONE = "none"
PROPER = {
    "none": "no defense",
    "relaxloss": "RelaxLoss",
    "memguard": "MemGuard",
    "advreg": "AdvReg",
    "dpsgd": "DP-SGD",
    "hamp": "HAMP",
    "selena": "SELENA",
    "ccl": "CCL",
    "crl": "CRL",
}


def title(defense: str) -> str:
    """A defense's name for readers: ``relaxloss`` → ``RelaxLoss``, ``label_smoothing`` → ``label smoothing``."""
    return "+".join(PROPER.get(part, part.replace("_", " ")) for part in defense.split("+"))


def fields(settings: str) -> list[tuple[str, str]]:
    """``alpha=1.0,flatten=all`` → its names and values; those of composed defenses one after the other."""
    pieces = re.split(r"[,+]\s*(?=[A-Za-z_]\w*=)", settings.lstrip("+"))
    return [(name, short(value)) for name, found, value in (piece.partition("=") for piece in pieces) if found]


def short(value: str) -> str:
    """A value without a needless decimal point: ``1.0`` → ``1``."""
    return re.sub(r"^(-?\d+)\.0$", r"\1", value)


class Acting(NamedTuple):
    """A field that has an effect, of the part of that number of a composed defense."""

    part: int
    name: str
    value: str
    at_default: bool


def labels(settings: Iterable[str], defense: str = "") -> list[str]:
    """Short forms of one defense's settings, by the fields that have an effect.

    Of several, the fields that vary among them; of a single one, those that are not at their defaults, or else (and of
    a defense that is not known here) the first.
    """
    read = [_acting(defense, each) for each in settings]
    if len(read) == 1:
        return [_short_form([each for each in read[0] if not each.at_default] or read[0][:1])]
    values: dict[tuple[int, str], set[str]] = {}
    for each in itertools.chain(*read):
        values.setdefault(each[:2], set()).add(each.value)
    everywhere = set.intersection(*({each[:2] for each in line} for line in read))
    return [
        _short_form(
            each for each in line if len(values[each[:2]]) > 1 or (each[:2] not in everywhere and not each.at_default)
        )
        for line in read
    ]


def parts(defense: str, settings: str) -> Iterator[tuple[str, str]]:
    """Name and settings of each part of a composed defense, as `results.names_of` wrote them together."""
    return itertools.zip_longest(defense.split("+"), re.split(r"\+(?!\d)", settings), fillvalue="")  # not within 1e+05


def _acting(defense: str, settings: str) -> list[Acting]:
    """The fields that have an effect; of a defense that is not known here, all, as if at their defaults."""
    found = []
    for place, (part, text) in enumerate(parts(defense, settings)):
        idle: tuple[str, ...] = ()
        defaults: dict[str, str] = {}
        with contextlib.suppress(UserError):
            spec = defenses.parse(f"{part}:{text}")
            idle = spec.without_effect
            defaults = {field.name: short(str(field.default)) for field in dataclasses.fields(spec)}
        found += [
            Acting(place, name, value, defaults.get(name, value) == value)
            for name, value in fields(text)
            if name not in idle
        ]
    return found


def _short_form(acting: Iterable[Acting]) -> str:
    return written((each.name, each.value) for each in acting)


def written(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values as ``a=1, b=2``."""
    return ", ".join(f"{name}={value}" for name, value in pairs)


def called(line: Mapping[str, Any]) -> str:
    """A line's defense with its short settings: ``RelaxLoss (alpha=1)``."""
    return title(line["defense"]) + (f" ({line['label']})" if line["label"] else "")


def percent(value: float, digits: int = 1) -> str:
    """A share as per cent, without the sign."""
    return f"{100 * value:.{digits}f}"


def area(value: float) -> str:
    """An AUC."""
    return f"{value:.3f}"


def signed(value: float) -> str:
    """A relative change in per cent, with its sign; what rounds to zero has none."""
    text = f"{value:+.1f}"
    return "0.0" if float(text) == 0 else text


def plain(value: float) -> str:
    """A loss or a variance: three digits that count, however small."""
    return f"{value:.3f}" if value == 0 or 0.01 <= abs(value) < 1000 else f"{value:.2g}"


WRITERS = {"auc": area, "selected_auc": area, "delta": signed}
SHARES = ("top1", "top5", "train_top1", "accuracy_gap", "calibration_error", "tpr")


def value(row: Mapping[str, Any], name: str) -> str:
    """A quantity of a line of `tables.summary`; what was not measured is said, and never a number."""
    number = float(row[name])
    if math.isnan(number):
        return str(row.get(f"{name}_note") or "not measured").split(":")[0]
    if name.startswith(SHARES):
        return percent(number)
    for start, write in WRITERS.items():
        if name.startswith(start):
            return write(number)
    return plain(number)


NAMES = {
    "top1": "test accuracy",
    "top5": "top-5 accuracy",
    "auc": "AUC",
    "selected_auc": "AUC of the attack chosen on half",
}
MODES = {"adaptive": "adaptive", "nonadaptive": "non-adaptive"}


def quantity(name: str) -> str:
    """A column of `tables.summary` in words: ``tpr_at_0.01_fpr_adaptive`` → ``adaptive TPR at 1 % FPR``."""
    measure, _, mode = name.rpartition("_")
    if mode in MODES:
        return f"{MODES[mode]} {quantity(measure)}"
    if name.startswith("tpr_at_"):
        return f"TPR at {100 * float(name.split('_')[2]):g} % FPR"
    return NAMES.get(name, name.replace("_", " "))


def interval(row: Mapping[str, Any], name: str) -> str:
    """The quantity's interval as ``low to high``; empty if it has none."""
    low, high = (float(row.get(f"{name}_{end}", math.nan)) for end in ("low", "high"))
    if math.isnan(low) or math.isnan(high) or math.isnan(float(row[name])):
        return ""
    write = percent if name.startswith(SHARES) else area if "auc" in name else plain
    return f"{write(low)} to {write(high)}"


def grouped(flags: Iterable[Flag]) -> list[Flag]:
    """One flag per rule, with all that was found against it."""
    found: dict[str, list[Flag]] = {}
    for flag in flags:
        found.setdefault(flag.name, []).append(flag)
    return [dataclasses.replace(same[0], detail="; ".join(flag.detail for flag in same)) for same in found.values()]


def attack(name: str) -> str:
    """An attack's name in a sentence: ``entropy:rows=max`` → ``entropy, the largest of a person's``."""
    plain, _, rest = name.partition(":")
    said = plain.replace("_", " ")
    return said + (", the largest of a person's" if rest == "rows=max" else f" ({rest})" if rest else "")


def warning(flag: Flag) -> str:
    """A flag as one paragraph: what was found, the rule, why it matters, what to do."""
    return (
        f"Warning ({flags.title(flag.name)}): {flag.detail}. Raised if {flag.raised_if}. {flag.why} {flag.what_to_do}"
    )


def duration(seconds: float) -> str:
    """``8 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
