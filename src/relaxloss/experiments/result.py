"""The result of an experiment: the tidy table and the curves, read from a store in which all jobs are done."""

from __future__ import annotations

import dataclasses
import json
import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from relaxloss import metrics
from relaxloss.attacks import functional
from relaxloss.defenses import Composed, Defense
from relaxloss.evaluation import comparability, flags, one_run_audit, score_facts
from relaxloss.evaluation import records as record_room
from relaxloss.evaluation import rows as measures
from relaxloss.evaluation.grouping import Grouping
from relaxloss.experiments import jobs, tuned
from relaxloss.experiments.jobs import ARRAYS, require
from relaxloss.experiments.plan import Plan, Scored
from relaxloss.games import Design
from relaxloss.provenance import __version__
from relaxloss.signals import Signals
from relaxloss.specs import Spec, digest
from relaxloss.storage.store import Store, unpack_arrays

COLUMNS = (
    *("dataset", "model", "defense", "settings", "game", "adaptive", "seed"),
    *("measure", "attack", "value", "low", "high", "n", "note"),
)


@dataclass(frozen=True, eq=False)
class Result:
    """What an experiment found.

    Attributes:
        rows: the tidy table; see `COLUMNS`.
        histograms: shares of member and test losses per defense, in bins.
        roc: per defense, the ROC curve of the strongest attack that orders samples.
        history: loss and accuracy per epoch of the first target of each defense.
        facts: the experiment as a dict, the data set's provenance, versions and dates.
        flags: warnings about the evaluation itself.
        failures: jobs that failed, with their reasons.
        records: which records leak: `records.vulnerability` in a game of several targets, `records.exposed` of one.
    """

    rows: pd.DataFrame
    histograms: pd.DataFrame
    roc: pd.DataFrame
    history: pd.DataFrame
    facts: dict[str, Any]
    flags: tuple[flags.Flag, ...] = ()
    failures: tuple[str, ...] = ()
    out: Path | None = None
    records: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame)


def collect(plan: Plan, store: Store, *, out: Path | None = None, seconds: float = 0.0) -> Result:
    """Read the rows and the curves of a finished experiment from its store."""
    experiment, dataset = plan.experiment, plan.dataset
    rows: list[dict[str, Any]] = []
    histograms: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    history: list[dict[str, Any]] = []
    records: list[pd.DataFrame] = []
    warned: dict[flags.Flag, list[str]] = {}
    _, scored = plan.score_jobs(store)
    for seed, design in plan.designs.items():
        labels = dataset.y if design.labels is None else design.labels
        first = design.targets[0]
        members = design.members(first)
        asked = Grouping.of(design.asked, dataset.persons)
        copied = comparability.copied_rows(dataset.x, labels, members, np.setdiff1d(design.asked, members))
        for defense in experiment.defenses:
            head = {**names_of(defense), "seed": seed}
            files = require(store, "train", plan.train_key(defense.trainer, seed, first))
            own_history = json.loads(files[jobs.HISTORY])[: defense.snapshot]  # a snapshot's ends with its epoch
            history += [head | epoch for epoch in own_history]
            own_facts = json.loads(files[jobs.FACTS])
            for fact, value in own_facts.items():
                if isinstance(value, (int, float)):
                    rows.append(head | {"adaptive": None} | measures.row(fact, value, n=1))
            useful = _utility(plan, store, defense, seed, design, labels)
            rows += [head | {"adaptive": None} | item for item in useful]
            arrays = jobs.observed(store, plan.signal_keys(defense, seed, first)["plain"])
            observed = Signals.join([arrays], labels)
            for which, places in (("member", design.members(first)), ("test", design.test_of(first))):
                seen = observed.take(places)
                losses = metrics.losses(seen.plain, seen.labels)
                bins = measures.loss_histogram(losses, dataset.num_classes)
                histograms += [head | {"membership": which} | item for item in bins]
            for adaptive in plan.modes:
                mine = [s for s in scored if (s.defense, s.adaptive, s.seed) == (defense, adaptive, seed)]
                found, table = _attack_rows(plan, store, mine, design, asked, labels, seed)
                found += _one_run_rows(plan, design, asked, table, seed)
                rows += [head | {"adaptive": adaptive} | item for item in found]
                scores, (_, member) = {name: part[0] for name, part in table.items()}, next(iter(table.values()))
                strongest = score_facts.graded(scores, member)  # of two scores, no curve and no order of records
                thin = measures.thinned_roc(*table[strongest])
                curves += [head | {"adaptive": adaptive, "attack": strongest} | item for item in thin]
            listed = _records(plan, store, defense, seed, design, asked, labels, table[strongest][0])
            if design.several:
                rows.append(head | {"adaptive": None} | record_room.leaking(listed))
            if dataset.groups is not None:
                listed["samples"] = dataset.counts[dataset.persons[listed["record"]]]
            listed.insert(2, "label", dataset.y[listed["record"]])
            if design.labels is not None:
                listed.insert(3, "trained_as", design.labels[listed["record"]])
            about = head | {"adaptive": adaptive, "attack": strongest}
            records.append(pd.DataFrame([about] * len(listed)).join(listed))
            released = arrays.get("release", (0.0, np.nan))  # of an older store, where only releases were asked twice
            facts = evaluation_facts(plan, defense, design, asked, own_facts, own_history, scores, member, released)
            skill = measures.skill(useful, labels[design.test_of(first)])
            for flag in flags.raised(dataclasses.replace(facts, copies=copied, skill=skill)):
                warned.setdefault(flag, []).append(str(defense))
    whole = {"dataset": dataset.name, "model": str(plan.recipe.model), "game": experiment.game.brief}
    table_of_rows = pd.DataFrame([whole | item for item in rows])
    return Result(
        table_of_rows[list(COLUMNS)],
        pd.DataFrame(histograms),
        pd.DataFrame(curves),
        pd.DataFrame(history),
        facts_of(plan, seconds),
        flags=tuple(_said_of(flag, names, len(experiment.defenses)) for flag, names in warned.items()),
        out=out,
        records=pd.concat(records, ignore_index=True),
    )


def _said_of(flag: flags.Flag, names: list[str], defenses: int) -> flags.Flag:
    """The flag with the defenses it was raised for, unless for all."""
    listed = list(dict.fromkeys(names))
    return flag if len(listed) == defenses else dataclasses.replace(flag, detail=f"{', '.join(listed)}: {flag.detail}")


def evaluation_facts(
    plan: Plan,
    defense: Defense,
    design: Design,
    asked: Grouping,
    own_facts: dict[str, Any],
    history: list[dict[str, float]],
    scores: dict[str, Any],
    member: Any,
    released: Iterable[float],
) -> flags.Facts:
    """What is known about the evaluation of one defense, for the flags; `released` is from `signals.differences`."""
    changed_labels, changed_on_repeat = map(float, released)
    return flags.Facts(
        **score_facts.facts(scores, member, _clusters(design, asked)),
        shadows=len(design.member) - 1,
        adaptive=True in plan.modes,
        changed_on_repeat=None if np.isnan(changed_on_repeat) else changed_on_repeat,
        changed_labels=changed_labels,
        reference_overlap=len(np.intersect1d(design.asked, design.reference)),
        **flags.claims(own_facts, plan.dataset, design.members(design.targets[0])),
        uncovered=defense.uncovered(plan.dataset),
        selected_on_asked=tuned.on_asked(plan.experiment.tuned, defense, design, plan.dataset),
        idle=defense.idle(history),
    )


def _utility(plan: Plan, store: Store, defense: Defense, seed: int, design: Design, labels: Any) -> list[measures.Row]:
    """Utility pooled over the targets: every member and every test sample of each counts once."""
    members: list[tuple[Any, Any]] = []
    tests: list[tuple[Any, Any]] = []
    for target in design.targets:
        observed = _signals(plan, store, defense, seed, target, labels)
        for group, places in ((members, design.members(target)), (tests, design.test_of(target))):
            seen = observed.take(places)
            group.append((seen.plain, seen.labels))
    parts = [np.concatenate(part) for group in (members, tests) for part in zip(*group, strict=True)]
    distinct, distinct_members = (
        measures.persons_of(plan.dataset.persons[np.unique(np.concatenate([of(target) for target in design.targets]))])
        for of in (design.test_of, design.members)
    )
    return measures.utility(*parts, distinct=distinct, distinct_members=distinct_members, level=plan.experiment.level)


def _attack_rows(
    plan: Plan, store: Store, scored: list[Scored], design: Design, asked: Grouping, labels: Any, seed: int
) -> tuple[list[measures.Row], dict[str, tuple[Any, Any]]]:
    """All rows of one defense, one kind of shadows and one seed; and the pooled scores by attack."""
    targets = list(design.targets)
    fit = Grouping.of(design.fit, plan.dataset.persons)
    member = design.member[targets][:, asked.records].reshape(-1)
    rehearsed = list(design.shadows(targets[0])[:1])  # whose thresholds are used; none in a game without shadows
    level = plan.experiment.level
    rows, table = [], {}
    clusters = _clusters(design, asked)
    fair = np.repeat([target not in rehearsed for target in targets], len(asked.records))  # not its own model
    classes = None  # a person's samples may be of several
    if plan.dataset.most_of_one == 1:
        classes = np.tile(labels[asked.records], len(targets))[fair], labels[fit.records]
    for item in scored:
        arrays = unpack_arrays(require(store, "scores", item.key)[ARRAYS])
        rehearsals = fit.scores(str(item.attack), arrays["rehearsal"])
        for name, found in asked.scores(str(item.attack), arrays["scores"]).items():
            table[name] = scores = found.reshape(-1)
            rows += measures.attack(name, scores, member, clusters=clusters, level=level)
            rehearsal = rehearsals[name], design.member[rehearsed][:, fit.records].reshape(-1)
            rows += measures.decision(
                name, scores[fair], member[fair], rehearsal, classes, plan.dataset.num_classes,
                clusters=clusters and clusters.take(fair), level=level,
            )  # fmt: skip
    rows += measures.worst(table, member, rows, seed=seed, clusters=clusters, level=level)
    return rows, {name: (scores, member) for name, scores in table.items()}


def _clusters(design: Design, asked: Grouping) -> metrics.Clusters | None:
    """Which record and which model each pooled score is of; None where there is one target."""
    if not design.several:
        return None
    targets, records = np.array(design.targets), asked.records
    return metrics.Clusters(np.tile(records, len(targets)), np.repeat(targets, len(records)))


def _one_run_rows(
    plan: Plan, design: Design, asked: Grouping, table: dict[str, tuple[Any, Any]], seed: int
) -> list[measures.Row]:
    """The lower bound of ε where coins decided who is in a target: the first target is a one-run audit of its own.

    Given all other models and who is in them, its coins are still fair. One model, fixed beforehand: the best of K
    would cost a correction of K, and right guesses cannot be added up over models, as a shadow attack on one uses the
    coins of the others. δ is the same for all defenses, so that their bounds compare: 1e-5, or a tenth of one over the
    members if that is smaller.
    """
    if not plan.experiment.game.aligned:
        return []
    first, records = design.targets[0], asked.records
    scores = {name: part[0][: len(records)] for name, part in table.items()}
    delta = min(1e-5, 0.1 / len(design.members(first)))
    member = design.member[first, records]
    return [one_run_audit.bound(scores, member, delta=delta, level=plan.experiment.level, seed=seed)]


def _records(
    plan: Plan, store: Store, defense: Defense, seed: int, design: Design, asked: Grouping, labels: Any, scores: Any
) -> pd.DataFrame:
    """Which records leak under one defense, by the strongest attack of the mode that heads the report."""
    member = design.member[list(design.targets)][:, asked.records]
    if not design.several:
        return record_room.exposed(scores, member[0], asked.records)
    margins = []
    for target in design.targets:
        seen = _signals(plan, store, defense, seed, target, labels).take(design.asked)
        margins.append(asked.mean(functional.logit_margin(seen.plain, seen.labels)))
    return record_room.vulnerability(np.stack(margins), scores.reshape(member.shape), member, asked.records)


def _signals(plan: Plan, store: Store, defense: Defense, seed: int, row: int, labels: Any) -> Signals:
    return jobs.signals_of(store, (plan.signal_keys(defense, seed, row)["plain"],), labels=labels)


def names_of(defense: Defense) -> dict[str, str]:
    """The columns ``defense`` and ``settings`` of a defense: its name, and all its fields."""
    if isinstance(defense, Composed):
        parts = [names_of(part) for part in defense.parts]
        return {key: "+".join(part[key] for part in parts) for key in ("defense", "settings")}
    values = {item.name: getattr(defense, item.name) for item in dataclasses.fields(defense)}
    return {"defense": defense.name, "settings": ",".join(f"{name}={value}" for name, value in values.items())}


def code_of(**used: Iterable[Spec]) -> dict[str, str]:
    """By kind and name, the version of each spec's code, and the digest of a third party's."""
    found: dict[str, str] = {}
    for kind, each in ((kind, each) for kind, group in used.items() for each in group):
        for part in each.parts if isinstance(each, Composed) else (each,):
            found[f"{kind} {part.name}"] = " ".join(filter(None, (str(part.version), digest(type(part)))))
    return found


def facts_of(plan: Plan, seconds: float) -> dict[str, Any]:
    """What the result was made of and with."""
    return {
        "experiment": plan.experiment.settings() | {"recipe": plan.recipe.settings()},
        "code": code_of(
            defense=plan.experiment.defenses,
            attack=plan.experiment.attacks,
            game=(plan.experiment.game,),
            model=(plan.recipe.model,),
        ),
        "provenance": plan.dataset.provenance,
        "fingerprint": plan.dataset.fingerprint,
        "samples": len(plan.dataset),
        **({} if plan.dataset.groups is None else {"persons": plan.dataset.num_persons}),
        "num_classes": plan.dataset.num_classes,
        "classes": list(plan.dataset.classes),
        "members": int(plan.designs[plan.experiment.seeds[0]].member[0].sum()),
        "relaxloss": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(seconds, 1),
    }
