"""How well can membership be inferred from this model? Of any framework, from its predictions alone.

No model is trained or even seen here. Attacks that need more than the predictions are listed as not measured.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.stats

from relaxloss.attacks import Attack, Evidence, parse_list
from relaxloss.attacks.base import Scores, checked
from relaxloss.auditing import predictions, summary
from relaxloss.auditing.predictions import Predictions
from relaxloss.errors import UserError
from relaxloss.evaluation import flags, one_run_audit, score_facts
from relaxloss.evaluation import rows as measures
from relaxloss.evaluation.flags import Flag
from relaxloss.evaluation.grouping import Grouping
from relaxloss.experiments.result import COLUMNS
from relaxloss.provenance import __version__
from relaxloss.signals import Signals
from relaxloss.storage.store import write_atomically
from relaxloss.validation import listed

UNFAIR = 1e-6  # p-value below which a share of members is no fair coin's
LACKING = {
    "white_box": "not measured: needs the model's gradients, and there are only predictions",
    "perturbed": "not measured: needs answers to perturbed queries, and there are only answers to plain ones",
}


@dataclass(frozen=True, eq=False)
class Audit:
    """What an audit found.

    Attributes:
        rows: the tidy table, with the columns of `results.COLUMNS`.
        worst: the strongest attack: its name, AUC and TPRs with intervals (None where not measured), and the same for
            the attack chosen on one half of the samples and measured on the other (``selected_...``); ``shown``:
            whether its AUC is above one half at the level corrected for the number of attacks (Bonferroni).
        records: one line per sample, the most exposed first: ``index`` (members first, or the file's row, from 0),
            ``id``, ``label``, ``predicted``, ``member``, ``score`` of the strongest attack, ``rank`` (1: most exposed),
            and ``fpr``, the share of non-members that must be accused before the sample is. Where persons have several
            samples, one line per person, with how many ``samples``; the rest is of the first of them.
        flags: warnings about this evaluation.
        passed: names of the flags that were looked at and not raised.
        undecided: names of those that nobody could decide, with the facts that are missing.
        unmeasured: attacks that could not be made, with the reasons.
        histogram: shares of the strongest attack's scores, of members and of non-members, in bins.
        roc: its ROC curve.
        facts: what was audited, with what, when.
    """

    rows: pd.DataFrame
    worst: dict[str, Any]
    records: pd.DataFrame
    flags: tuple[Flag, ...]
    passed: tuple[str, ...]
    undecided: dict[str, tuple[str, ...]]
    unmeasured: dict[str, str]
    histogram: pd.DataFrame
    roc: pd.DataFrame
    facts: dict[str, Any]

    def to_html(self, path: Path | str) -> Path:
        """Write the page, one file with everything in it, and return its path."""
        page = importlib.import_module("relaxloss.report.audit.page")  # by name: that room is above this one
        write_atomically(Path(path), page.html(self))
        return Path(path)

    def to_json(self, path: Path | str) -> Path:
        """Write all but the records and curves as JSON, with null for what was not measured; return its path."""
        content = {
            "facts": self.facts,
            "worst": self.worst,
            "rows": self.rows.to_dict("records"),
            "flags": [dataclasses.asdict(flag) for flag in self.flags],
            "flags_passed": list(self.passed),
            "flags_undecided": self.undecided,
            "not_measured": self.unmeasured,
        }
        write_atomically(Path(path), json.dumps(_null(content), indent=1, allow_nan=False, ensure_ascii=False))
        return Path(path)


def audit(
    *,
    member_labels: npt.ArrayLike,
    nonmember_labels: npt.ArrayLike,
    member_logits: npt.ArrayLike | None = None,
    nonmember_logits: npt.ArrayLike | None = None,
    member_probs: npt.ArrayLike | None = None,
    nonmember_probs: npt.ArrayLike | None = None,
    shadows: Any = None,
    classes: Sequence[str] | None = None,
    ids: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
    **settings: Any,
) -> Audit:
    """Audit a model's predictions on samples that it was trained on and on samples that it was not.

    Args:
        member_labels: ``(n,)`` true classes of the members: columns from 0, or names in `classes`.
        nonmember_labels: ``(m,)`` those of the non-members.
        member_logits: ``(n, C)``; of two classes one column will do, the log-odds of class 1.
        nonmember_logits: ``(m, C)``.
        member_probs: probabilities in the place of logits.
        nonmember_probs: and those of the non-members.
        shadows: other models, trained as this one on other samples: a pair ``(K, N, C), (K, N)`` of their outputs on
            the same N = n + m samples, members first, and of who was trained on which; or a list of K triples
            ``(outputs, labels, member)``. They make the strongest attacks possible.
        classes: the columns' names.
        ids: ``(N,)`` names of the samples, members first.
        groups: ``(N,)`` whose sample each is, members first, where persons have several (visits, images, sentences):
            then persons are asked about, each with all samples: each attack's scores of these are averaged, and, as an
            attack of its own (``rows=max``), the largest is taken. Each person must be on one side.
        settings: see `run`.

    Raises `UserError` for whatever is wrong with them; see `predictions.of_arrays`.
    """
    found = predictions.of_groups(
        {"logits": (member_logits, nonmember_logits), "probs": (member_probs, nonmember_probs)},
        (member_labels, nonmember_labels),
        shadows=shadows,
        classes=classes,
        ids=ids,
        groups=groups,
    )
    return run(found, **settings)


def run(
    found: Predictions,
    *,
    name: str = "model",
    attacks: str | Sequence[Attack | str] = "all",
    adaptive: bool | None = None,
    coin_flips: bool = False,
    guesses: int | None = None,
    delta: float = 0.0,
    level: float = 0.95,
    seed: int = 0,
    evidence: Evidence | None = None,
    known: Mapping[str, Any] | None = None,
    lacking: Mapping[str, str] | None = None,
) -> Audit:
    """Audit checked predictions.

    Args:
        found: from `predictions.of_arrays` or `prediction_files.read`.
        name: what the model is called in the report.
        attacks: as ``relaxloss compare --attacks`` takes them, or objects.
        adaptive: whether the shadows were trained as the target was, defense included; None: not known.
        coin_flips: whether each sample, or person, was trained on by a fair coin flip; then ε is bounded from below
            (`onerun`).
        guesses: how many samples the one-run audit guesses; None: several numbers are tried, and corrected for.
        delta: δ of that bound.
        level: of all intervals.
        seed: of the halves and of attacks that draw random numbers.
        evidence: what an attacker sees of the samples in `found`; None: the predictions in it.
        known: facts for the flags (`flags.Facts`) that predictions do not tell.
        lacking: why there are no answers to a query, by its name, if not because there are only predictions.
    """
    evidence = evidence or evidence_of(found, seed)
    chosen = chosen_of(attacks)
    table, unmeasured = scores_of(evidence, chosen, LACKING | dict(lacking or {}))
    if not table:
        raise UserError(f"none of the attacks can be made: {'; '.join(f'{k}: {v}' for k, v in unmeasured.items())}")
    asked = Grouping.of(np.arange(len(found.member)), found.persons)
    table = {name: own for attack, scores in table.items() for name, own in asked.scores(attack, scores).items()}
    member = found.member[asked.records]
    if coin_flips:
        _fair(member)
    rows = _utility(found, asked, level)
    for attack, scores in table.items():
        rows += measures.attack(attack, scores, member, level=level)
        rows += _decisions(attack, scores, found, asked, level, seed)
    rows += measures.worst(table, member, rows, seed=seed, level=level)
    rows += [measures.row("auc", np.nan, n=len(member), attack=each, note=why) for each, why in unmeasured.items()]
    how = adaptive if len(found.shadow_member) else None
    facts = dataclasses.replace(summary.facts(table, found, asked, rows, how, evidence), **(known or {}))
    if why := _no_bound(facts, coin_flips=coin_flips):
        rows.append(measures.row(one_run_audit.MEASURE, np.nan, n=len(member), note=f"not measured: {why}"))
    else:
        rows.append(one_run_audit.bound(table, member, guesses=guesses, delta=delta, level=level, seed=seed))
    head = {"dataset": name, "model": "", "defense": "", "settings": "", "game": "audit", "seed": seed}
    lines = [head | {"adaptive": how if item["attack"] else None} | item for item in rows]
    worst = summary.worst(rows)
    worst |= summary.shown(table, member, worst, level)
    worst["graded"] = score_facts.graded(table, member)  # of two scores, no curve and no order of records
    strongest = table[worst["graded"]]
    return Audit(
        pd.DataFrame(lines)[list(COLUMNS)],
        worst,
        summary.records(strongest, found, asked),
        (*flags.raised(facts), *summary.design_flags(found, asked)),
        flags.passed(facts),
        flags.undecided(facts),
        unmeasured,
        pd.DataFrame(summary.histogram(strongest, member)),
        pd.DataFrame(measures.thinned_roc(strongest, member)),
        _facts(found, asked, name, level, seed)
        | {"blind": facts.blind, "bystanders": facts.bystanders}
        | {"by_class": summary.by_class(table, found, asked, level)}
        | {"classes": list(found.classes), "labels": np.bincount(found.labels).tolist()},
    )


def _no_bound(facts: flags.Facts, *, coin_flips: bool) -> str:
    """Why ε cannot be bounded; empty if it can."""
    if not coin_flips:
        return "nobody said that each sample (or person) was trained on by a fair coin flip of its own"
    if facts.repeats is not None and facts.repeats > flags.COPIES:
        return f"{facts.repeats:.1%} of the samples repeat another, so that not each has a coin of its own"
    return ""


def _fair(member: npt.NDArray[np.bool_]) -> None:
    """Refuse coin flips that no fair coin gives."""
    inside, n = int(member.sum()), len(member)
    if scipy.stats.binomtest(inside, n).pvalue < UNFAIR:
        raise UserError(
            f"coin flips were said to choose the members, and {inside:,} of {n:,} samples are members; a fair coin "
            f"makes about {n // 2:,}: leave --coin-flips (coin_flips=) out, or hand over all samples that had a coin"
        )


def chosen_of(attacks: str | Sequence[Attack | str]) -> tuple[Attack, ...]:
    """The attacks of a list as the command line takes it, or of objects and such lists."""
    given = (attacks,) if isinstance(attacks, str) else attacks
    if strange := [repr(item) for item in given if not isinstance(item, (str, Attack))]:
        raise UserError(
            f"attacks holds {listed(strange)}; expected names of attacks and of sets, or attacks as objects"
        )
    chosen = tuple(each for item in given for each in (parse_list(item) if isinstance(item, str) else (item,)))
    if not chosen:
        raise UserError("attacks is empty; name at least one, or a set such as blackbox")
    return chosen


def evidence_of(found: Predictions, seed: int) -> Evidence:
    """What an attacker has who sees the predictions and nothing else."""
    places = np.arange(len(found.labels))
    return Evidence(
        target=Signals(found.logits[None], found.labels),
        asked=places,
        shadows=tuple(Signals(logits[None], found.labels) for logits in found.shadow_logits),
        shadow_member=found.shadow_member,
        fit=places,
        population=places[:0],
        population_target=None,
        num_classes=found.logits.shape[1],
        seed=seed,
    )


def scores_of(
    evidence: Evidence, chosen: Sequence[Attack], lacking: Mapping[str, str]
) -> tuple[dict[str, Scores], dict[str, str]]:
    """The scores ``(N,)`` of every attack that can be made, and why the others cannot: `lacking`, by queries."""
    table: dict[str, Scores] = {}
    unmeasured: dict[str, str] = {}
    # RMIA's population: the asked samples. Which they are moves no rank, for the share that x beats grows with x's
    # own ratio; so none must be known as a non-member.
    own = dataclasses.replace(evidence, population=evidence.asked, population_target=evidence.target)
    for attack in chosen:
        mine = own if attack.name == "rmia" else evidence
        why = _unmet(attack, mine, lacking)
        if why is None:
            try:
                table[str(attack)] = checked(attack, attack.score(mine), len(evidence.asked))
                continue
            except UserError as error:
                why = f"not measured: {error}"
        unmeasured[str(attack)] = why
    return table, unmeasured


def _unmet(attack: Attack, evidence: Evidence, lacking: Mapping[str, str]) -> str | None:
    needs, has = attack.needs, len(evidence.shadows)
    seen = {"white_box": evidence.target.gradient_norms, "perturbed": evidence.target.hits}
    if reasons := [lacking[query] for query in needs.queries if query in seen and seen[query] is None]:
        return reasons[0]
    nobody = not has and evidence.population_target is None
    if has < needs.shadows or (attack.name == "quantile" and nobody):  # it learns from known non-members
        return "not measured: needs shadows" + (f", {needs.shadows} or more: got {has}" if has else "")
    inside = evidence.shadow_member[:, evidence.fit]
    if needs.aligned and not evidence.aligned:
        return "not measured: needs shadows that were trained on some of the samples"
    if attack.name == "neural" and (inside.all() or not inside.any()):
        return "not measured: needs shadows that were trained on some of the samples and not on others"
    if needs.population and evidence.population_target is None:
        return "not measured: needs further samples that no model was trained on"
    return None


def _utility(found: Predictions, asked: Grouping, level: float) -> list[measures.Row]:
    inside = found.member
    persons, others = (measures.persons_of(asked.person[side]) for side in (inside, ~inside))
    with np.errstate(invalid="ignore"):  # infinite losses: no mean, no variance
        rows = measures.utility(
            found.logits[inside], found.labels[inside], found.logits[~inside], found.labels[~inside],
            distinct=others, distinct_members=persons, level=level,
        )  # fmt: skip
    for item in rows:
        if not math.isfinite(item["value"]) and not item["note"]:
            item |= {
                "value": np.nan,
                "note": "not measured: some true classes have a probability of 0, an infinite loss",
            }
    return rows


def _decisions(
    name: str, scores: Scores, found: Predictions, asked: Grouping, level: float, seed: int
) -> list[measures.Row]:
    """Balanced accuracy at thresholds chosen on one half of whom is asked, measured on the other."""
    member, labels = found.member[asked.records], found.labels[asked.records]
    half = measures.half(len(scores), None, seed=seed, stream="thresholds")
    if any(part.all() or not part.any() for part in (member[half], member[~half])):
        return []
    rows = measures.decision(
        name, scores[~half], member[~half], (scores[half], member[half]),
        (labels[~half], labels[half]) if asked.single else None, found.logits.shape[1], level=level,
    )  # fmt: skip
    return [item | {"note": item["note"] or "threshold chosen on the other half"} for item in rows]


def _facts(found: Predictions, asked: Grouping, name: str, level: float, seed: int) -> dict[str, Any]:
    persons = {}
    if not asked.single:
        member = found.member[asked.records]
        persons = {"persons": {"members": int(member.sum()), "nonmembers": int((~member).sum())}}
    return {
        "name": name,
        "source": dict(found.source),
        "samples": len(found.member),
        "members": int(found.member.sum()),
        "nonmembers": int((~found.member).sum()),
        **persons,
        "num_classes": len(found.classes),
        "kind": found.kind,
        "shadows": len(found.shadow_member),
        "notes": list(found.notes),
        "level": level,
        "seed": seed,
        "relaxloss": __version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


def _null(value: Any) -> Any:
    """The same with None for NaN and infinities, and Python's numbers for numpy's: JSON knows no others."""
    if isinstance(value, dict):
        return {str(key): _null(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_null(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
