"""Tuning: a defense's strength chosen on folds that the final evaluation never asks about.

Settings are measured as any experiment is, in the game `TuningFolds` and with adaptive attacks only; all of them share
one store, so that a tuning which was cut off goes on where it was, and nothing is trained twice.
"""

from __future__ import annotations

import dataclasses
import decimal
import math
import platform
import re
import time
import typing
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from relaxloss import defenses, metrics
from relaxloss.compute.engine import Engine
from relaxloss.data import Dataset
from relaxloss.defenses import NONE, Composed, Defense
from relaxloss.errors import UserError, unknown
from relaxloss.evaluation import rows as measures
from relaxloss.evaluation.rows import TPRS
from relaxloss.experiments.plan import Experiment
from relaxloss.experiments.result import names_of
from relaxloss.experiments.run import ProgressListener, Quiet, load_data, run
from relaxloss.experiments.tuned import Tuned
from relaxloss.games import FiveFolds, TuningFolds
from relaxloss.provenance import __version__
from relaxloss.tuning.search import DIGITS, Goal, Point, Range, search

Line = dict[str, Any]
DOWN = decimal.Context(prec=DIGITS, rounding=decimal.ROUND_FLOOR)
SETTINGS = 8  # tried at most, if the caller does not say


@dataclass(frozen=True)
class TunedField:
    """The one number of a defense that is chosen, and where it may lie."""

    defense: Defense
    field: str
    range: Range

    def at(self, value: float) -> Defense:
        """The defense at this strength; of a composed one, the first part that has the field changes."""
        exact = int(value) if self.range.whole else value
        if not isinstance(self.defense, Composed):
            return replace(self.defense, **{self.field: exact})
        parts = list(self.defense.parts)
        place = next(i for i, part in enumerate(parts) if self.field in _numeric(part))
        parts[place] = replace(parts[place], **{self.field: exact})
        return Composed(parts=tuple(parts))

    def spec(self, value: float) -> str:
        """The defense at this strength as a spec that names it, also where it is the default."""
        found, named = [], False
        for part in self._parts(self.at(value)):
            text = str(part)
            if self.field in _numeric(part) and not named:
                named = True
                if not re.search(rf"[:,]{self.field}=", text):
                    text += f"{',' if ':' in text else ':'}{self.field}={getattr(part, self.field)}"
            found.append(text)
        return "+".join(found)

    @staticmethod
    def _parts(defense: Defense) -> tuple[Defense, ...]:
        return defense.parts if isinstance(defense, Composed) else (defense,)

    @property
    def given(self) -> float | None:
        """The strength that the defense was given with, or has by default."""
        value = next(getattr(part, self.field) for part in self._parts(self.defense) if self.field in _numeric(part))
        return None if value is None else float(value)


def strength_of(
    defense: Defense,
    num_classes: int,
    *,
    field: str | None = None,
    low: float | None = None,
    high: float | None = None,
) -> TunedField:
    """The strength of a defense: the named field, or the only one that its sweep varies; the range is the sweep's.

    A field in nats ends at log C, a guess's loss. A strength that was set by hand widens the sweep's range, so that it
    is compared; outside of a range that was set by hand as well it is a `UserError`.
    """
    parts = defense.parts if isinstance(defense, Composed) else (defense,)
    known = {name: part for part in reversed(parts) for name in _numeric(part)}
    if field is None:
        varied = [found for part in parts if (found := _varied(part)) is not None]
        if not varied:
            raise UserError(
                f"{defense} has no single strength to tune: its sweep varies "
                f"{' and '.join(sorted({name for part in parts for name in _fields(part)})) or 'nothing'}; "
                "name a numeric field and its range with --field, --low and --high "
                f"({', '.join(known) or 'it has none'})"
            )
        field = varied[0]
    if field not in known:
        raise unknown(f"numeric field of {defense}", field, known)
    part = known[field]
    swept = [float(each[field]) for each in part.sweep if isinstance(each.get(field), (int, float))]
    if (low is None or high is None) and not swept:
        raise UserError(f"nobody knows the range of {field} of {defense}: give both --low and --high")
    most = math.log(num_classes) if field in part.in_nats else math.inf
    given, plain = getattr(part, field), next(each.default for each in dataclasses.fields(part) if each.name == field)
    by_hand = [float(given)] if given is not None and given != plain else []
    if any((low is not None and value < low) or (high is not None and value > high) for value in by_hand):
        raise UserError(f"{defense}: {field}={given:g} lies outside the range to search; widen --low and --high")
    low = min([*swept, *by_hand]) if low is None else low
    high = max([float(DOWN.create_decimal_from_float(min(max(swept), most))), *by_hand]) if high is None else high
    strength = TunedField(defense, field, Range(low, high, _numeric(part)[field]))
    for end in (low, high):
        strength.at(end).check(num_classes)  # a value that the field cannot have is an error now, not after an hour
    return strength


def _numeric(part: Defense) -> dict[str, bool]:
    """The numeric fields of a defense, and whether they take whole numbers only."""
    found = {}
    for name, hint in typing.get_type_hints(type(part)).items():
        kinds = {hint, *typing.get_args(hint)}
        if name in {field.name for field in dataclasses.fields(part)} and kinds & {int, float}:
            found[name] = float not in kinds
    return found


def _fields(part: Defense) -> list[str]:
    """The fields that a defense's sweep varies."""
    settings = [replace(type(part)(), **each).settings() for each in part.sweep]
    return [name for name in settings[0] if len({str(each[name]) for each in settings}) > 1] if settings else []


def _varied(part: Defense) -> str | None:
    found = _fields(part)
    return found[0] if len(found) == 1 and found[0] in _numeric(part) else None


@dataclass(frozen=True)
class Objective:
    """What the user asks for, exactly one of the first three.

    Attributes:
        max_auc: the bound on the strongest adaptive attack's AUC.
        max_tpr: the bound on its true-positive rate at the false-positive rate `fpr`.
        keep_accuracy: no bound: the least leaky setting that loses at most this share of accuracy to no defense.
    """

    max_auc: float | None = None
    max_tpr: float | None = None
    keep_accuracy: float | None = None
    fpr: float = 0.01

    def __post_init__(self) -> None:
        given = [name for name in ("max_auc", "max_tpr", "keep_accuracy") if getattr(self, name) is not None]
        if len(given) != 1:
            raise UserError(
                f"got {' and '.join(given) or 'no bound'}; expected exactly one of max_auc, max_tpr and keep_accuracy"
            )
        if self.max_auc is not None and not 0.5 < self.max_auc < 1:
            raise UserError(f"got max_auc={self.max_auc:g}; expected a number between 0.5 (guessing) and 1 (certainty)")
        if self.fpr not in measures.FPRS:
            raise UserError(f"got fpr={self.fpr:g}; expected one of {', '.join(f'{fpr:g}' for fpr in measures.FPRS)}")
        if self.max_tpr is not None and not self.fpr < self.max_tpr < 1:
            raise UserError(
                f"got max_tpr={self.max_tpr:g}; expected a number between fpr={self.fpr:g} (guessing) and 1 (certainty)"
            )
        if self.keep_accuracy is not None and not 0 <= self.keep_accuracy < 1:
            raise UserError(f"got keep_accuracy={self.keep_accuracy:g}; expected a share of all samples, 0 or a little")

    @property
    def measure(self) -> str:
        """The measure of leakage."""
        return "auc" if self.max_tpr is None else f"tpr_at_{self.fpr:g}_fpr"

    def goal(self, baseline: Line) -> Goal:
        """The goal, given the line of no defense."""
        if self.keep_accuracy is not None:
            return Goal(floor=baseline["top1"] - self.keep_accuracy)
        return Goal(bound=self.max_auc if self.max_auc is not None else self.max_tpr)


@dataclass(frozen=True, eq=False)
class Tuning:
    """What a tuning found.

    Attributes:
        chosen: the defense at the strength chosen.
        met: whether it meets the goal; if not, no setting tried does, and it is the nearest to it.
        objective: what was asked for.
        goal: the bound on the leakage, or the floor of the accuracy.
        strength: the field that was searched, and its range.
        table: a line per setting, no defense first, in order of strength: ``spec``, ``strength``; ``top1``, ``auc`` and
            the TPRs of the strongest adaptive attack, each with ``_low`` and ``_high``; ``attack``; ``met``;
            ``chosen``; ``order`` of trial; ``note``. All are of the data that chose: too kind to the chosen setting.
        final: the experiment that measures the chosen setting on the samples that had no part in the choice.
        facts: the data set's provenance, the games, versions, dates.
    """

    chosen: Defense
    met: bool
    objective: Objective
    goal: Goal
    strength: TunedField
    table: pd.DataFrame
    final: Experiment
    facts: dict[str, Any]

    @property
    def bound(self) -> float | None:
        """The bound on the leakage; None where the accuracy was to be kept."""
        return self.goal.bound

    @property
    def spec(self) -> str:
        """The chosen setting as ``name:field=value``."""
        return str(self.line["spec"])

    @property
    def line(self) -> Line:
        """The chosen setting's line of the table."""
        (found,) = self.table[self.table["chosen"]].to_dict("records")
        return {str(name): value for name, value in found.items()}


def games_of(strength: TunedField, experiment: Experiment, repeats: int) -> tuple[TuningFolds, ...]:
    """The games that each setting is measured in: every drawing, and with the roles of its two models swapped."""
    needy = any(strength.at(end).needs_reference() for end in (strength.range.low, strength.range.high))
    needy = needy or any(attack.needs.population for attack in experiment.attacks)
    return tuple(TuningFolds(drawing, swapped, needy) for drawing in range(repeats) for swapped in (False, True))


def measure(
    experiment: Experiment,
    tried: Sequence[Defense],
    games: Sequence[TuningFolds],
    out: Path | str,
    *,
    data: Dataset | None = None,
    engine: Engine | None = None,
    watch: ProgressListener | None = None,
) -> list[Line]:
    """A line per defense: its utility and the strongest adaptive attack, as means over the games.

    The ends of an interval are the means of the games' ends: that is no narrower than the interval of the mean, however
    much the games have in common.
    """
    found: list[list[Line]] = [[] for _ in tried]
    for game in games:
        each = replace(experiment, defenses=tuple(tried), game=game, shadows="same", tuned=())
        result = run(each, out, data=data, engine=engine, watch=watch)
        if result.failures:  # no setting is chosen by what happened to succeed
            raise UserError("\n".join(result.failures))
        rows = result.rows
        for defense, lines in zip(tried, found, strict=True):
            names = names_of(defense)
            mine, epochs = (
                each[(each["defense"] == names["defense"]) & (each["settings"] == names["settings"])]
                for each in (rows, result.history)
            )
            history: Any = epochs.to_dict("records")
            lines.append(_line(mine) | {"idle": defense.idle(history)})
    return [{"spec": str(defense)} | _mean(lines) for defense, lines in zip(tried, found, strict=True)]


def _line(rows: pd.DataFrame) -> Line:
    """One game's line: accuracy, and of each measure of leakage the attack with the largest value."""
    line: Line = {"note": ""}
    attacks = rows[~rows["attack"].isin(["", "max", "selected"])]
    for name in ("top1", "auc", *TPRS):
        found = rows[rows["measure"] == name] if name == "top1" else attacks[attacks["measure"] == name]
        row = max(found.to_dict("records"), key=lambda each: -math.inf if math.isnan(each["value"]) else each["value"])
        line |= {name: float(row["value"]), f"{name}_low": float(row["low"]), f"{name}_high": float(row["high"])}
        line[f"{name}_note"] = str(row["note"])
        if name == "auc":
            line["attack"] = str(row["attack"])
    return line


def _mean(lines: Sequence[Line]) -> Line:
    idle = lines[0]["idle"] if all(line["idle"] for line in lines) else ""
    mean: Line = {"attack": " or ".join(dict.fromkeys(line["attack"] for line in lines)), "idle": idle}
    mean["note"] = f"never came to act: {idle}" if idle else ""
    for name, value in lines[0].items():
        if isinstance(value, float):
            mean[name] = math.fsum(line[name] for line in lines) / len(lines)
        elif name.endswith("_note"):
            mean[name] = next((line[name] for line in lines if line[name]), "")
    return mean


def tune(
    experiment: Experiment,
    out: Path | str,
    *,
    defense: Defense | str = "relaxloss",
    objective: Objective,
    field: str | None = None,
    low: float | None = None,
    high: float | None = None,
    settings: int = SETTINGS,
    repeats: int = 1,
    data: Dataset | None = None,
    engine: Engine | None = None,
    watch: ProgressListener | None = None,
) -> Tuning:
    """Choose a defense's strength on the tuning folds of the experiment's only seed.

    Raises:
        UserError: the defense has no such strength, the range or the numbers make no sense, the experiment has several
            seeds or another game than `FiveFolds`, or every setting failed.
    """
    watch, started = watch or Quiet(), time.time()
    seed = _only_seed(experiment)
    if settings < 2 or repeats < 1:
        raise UserError(f"got settings={settings} and repeats={repeats}; expected at least 2 settings and 1 repeat")
    dataset = data if data is not None else load_data(experiment)
    strength = strength_of(defenses.parse(defense), dataset.num_classes, field=field, low=low, high=high)
    games = games_of(strength, experiment, repeats)
    if objective.max_tpr is not None:
        _resolvable(objective.fpr, games, dataset, seed)
    lines: list[Line] = []

    def evaluate(tried: Sequence[Defense]) -> list[Line]:
        assert watch is not None
        try:
            measured = measure(experiment, tried, games, out, data=data, engine=engine, watch=watch)
        except (UserError, RuntimeError) as error:  # the latter of a plugin's own
            if len(tried) == 1:
                if not lines:
                    raise  # nothing works: it is not this setting's fault
                return [{"spec": str(tried[0]), "note": f"failed: {str(error).splitlines()[0]}"}]
            return [line for each in tried for line in evaluate([each])]
        for line in measured:
            if math.isnan(line[objective.measure]):
                raise UserError(
                    f"{objective.measure} cannot be bounded: {line[f'{objective.measure}_note']}; bound the AUC"
                )
            watch.log(f"{line['spec']}: accuracy {line['top1']:.3f}, {objective.measure} {line[objective.measure]:.3f}")
        return measured

    lines += [line | {"strength": math.nan, "order": 0} for line in evaluate([NONE])]
    goal = objective.goal(lines[0])

    def points(strengths: tuple[float, ...]) -> list[Point]:
        found = evaluate([strength.at(value) for value in strengths])
        order = int(lines[-1]["order"]) + 1
        lines.extend(
            line | {"spec": strength.spec(value), "strength": value, "order": order + i}
            for i, (line, value) in enumerate(zip(found, strengths, strict=True))
        )
        return [_point(line, objective) for line in lines[-len(found) :] if "top1" in line]

    tried = search(points, goal, strength.range, settings=settings, given=strength.given)
    if not tried:
        raise UserError("\n".join(["every setting failed:", *(line["note"] for line in lines if line["note"])]))
    best = goal.best(tried)
    chosen = strength.at(best.strength)
    final = replace(
        experiment,
        defenses=tuple(dict.fromkeys([NONE, *experiment.defenses, chosen])),
        tuned=(*experiment.tuned, Tuned(chosen, games, seed, dataset.fingerprint)),
    )
    for line in lines:
        line["met"] = "top1" in line and goal.met(_point(line, objective))
        line["chosen"] = line["strength"] == best.strength
    table = pd.DataFrame(lines).sort_values("strength", na_position="first", ignore_index=True)
    facts = _facts(dataset, experiment, games, tuple(map(float, (strength.range.low, strength.range.high))))
    facts["seconds"] = round(time.time() - started, 1)
    return Tuning(chosen, goal.met(best), objective, goal, strength, table, final, facts)


def _resolvable(fpr: float, games: Sequence[TuningFolds], dataset: Dataset, seed: int) -> None:
    """A clear error before any training if the non-members that a game asks about allow too few false positives."""
    for game in games:
        design = game.draw_from(dataset, seed)
        others = len(np.unique(dataset.persons[design.asked[~design.member[design.targets[0], design.asked]]]))
        if not metrics.resolvable(others, fpr):
            raise UserError(
                f"max_tpr at fpr={fpr:g} cannot be measured: {others:,} non-members give {fpr * others:.1f} false "
                "positives, fewer than 10; bound the AUC"
            )


def _point(line: Line, objective: Objective) -> Point:
    return Point(float(line["strength"]), float(line["top1"]), float(line[objective.measure]))


def _only_seed(experiment: Experiment) -> int:
    if not isinstance(experiment.game, FiveFolds):
        raise UserError(
            f"got the game {experiment.game}; tuning plays on folds 3 to 5 of five_folds, which {experiment.game.name} "
            "does not have"
        )
    if len(experiment.seeds) > 1:
        raise UserError(
            f"got the seeds {', '.join(map(str, experiment.seeds))}; expected one: the folds that choose at one "
            "seed hold samples that another seed asks about; tune at each seed by itself"
        )
    return experiment.seeds[0]


def _facts(
    dataset: Dataset, experiment: Experiment, games: tuple[TuningFolds, ...], ends: tuple[float, ...]
) -> dict[str, Any]:
    """What chose, what it was made of and with."""
    seed = experiment.seeds[0]
    designs = [game.draw_from(dataset, seed) for game in games]
    used = Tuned(NONE, games, seed, dataset.fingerprint).used(dataset)
    return {
        "data": dataset.name,
        "provenance": dataset.provenance,
        "fingerprint": dataset.fingerprint,
        "samples": len(dataset),
        "seed": seed,
        "folds": "folds 3, 4 and 5 of the five folds of this seed; folds 1 and 2, which are asked about, had no part",
        "games": [str(game) for game in games],
        "samples_used": len(used),
        "members": int(designs[0].member[0].sum()),
        "final_members": int(FiveFolds().draw_from(dataset, seed).member[0].sum()),
        "asked_per_game": len(np.unique(dataset.persons[designs[0].asked])),
        "attacks": [str(attack) for attack in experiment.attacks],
        "range": list(ends),
        "recipe": None if experiment.recipe is None else experiment.recipe.settings(),
        "level": experiment.level,
        "relaxloss": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }
