"""The result of an experiment: the tidy table and the curves, read from a store in which all jobs are done."""

from __future__ import annotations

import dataclasses
import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from relaxloss import flags, jobs, measures, metrics, selection
from relaxloss.defenses import Composed, Defense
from relaxloss.games import Design
from relaxloss.jobs import ARRAYS, require
from relaxloss.plan import Plan, Scored
from relaxloss.signals import Signals
from relaxloss.store import Store, unpack_arrays
from relaxloss.version import __version__

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
        roc: the strongest attack's ROC curve per defense.
        history: loss and accuracy per epoch of the first target of each defense.
        facts: the experiment as a dict, the data set's provenance, versions and dates.
        flags: warnings about the evaluation itself.
        failures: jobs that failed, with their reasons.
    """

    rows: pd.DataFrame
    histograms: pd.DataFrame
    roc: pd.DataFrame
    history: pd.DataFrame
    facts: dict[str, Any]
    flags: tuple[flags.Flag, ...] = ()
    failures: tuple[str, ...] = ()
    out: Path | None = None


def collect(plan: Plan, store: Store, *, out: Path | None = None, seconds: float = 0.0) -> Result:
    """Read the rows and the curves of a finished experiment from its store."""
    experiment, dataset = plan.experiment, plan.dataset
    rows: list[dict[str, Any]] = []
    histograms: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    history: list[dict[str, Any]] = []
    warned: dict[flags.Flag, list[str]] = {}
    _, scored = plan.score_jobs(store)
    for seed, design in plan.designs.items():
        labels = dataset.y if design.labels is None else design.labels
        for defense in experiment.defenses:
            head = {**names_of(defense), "seed": seed}
            first = design.targets[0]
            files = require(store, "train", plan.train_key(defense.trainer, seed, first))
            own_history = json.loads(files[jobs.HISTORY])
            history += [head | epoch for epoch in own_history]
            own_facts = json.loads(files[jobs.FACTS])
            for fact, value in own_facts.items():
                if isinstance(value, (int, float)):
                    rows.append(head | {"adaptive": None} | measures.row(fact, value, n=1))
            for item in _utility(plan, store, defense, seed, design, labels):
                rows.append(head | {"adaptive": None} | item)
            observed = _signals(plan, store, defense, seed, first, labels)
            for which, places in (("member", design.members(first)), ("test", design.test_of(first))):
                losses = metrics.losses(observed.logits[0, places], labels[places])
                bins = measures.loss_histogram(losses, dataset.num_classes)
                histograms += [head | {"membership": which} | item for item in bins]
            for adaptive in plan.modes:
                mine = [s for s in scored if (s.defense, s.adaptive, s.seed) == (defense, adaptive, seed)]
                found, table = _attack_rows(plan, store, mine, design, labels, seed, adaptive)
                rows += [head | {"adaptive": adaptive} | item for item in found]
                strongest = max(table, key=lambda name: metrics.auc(*table[name]))
                thin = measures.thinned_roc(*table[strongest])
                curves += [head | {"adaptive": adaptive, "attack": strongest} | item for item in thin]
            facts = evaluation_facts(plan, defense, design, own_facts, own_history, table, strongest)
            for flag in flags.raised(facts):
                warned.setdefault(flag, []).append(str(defense))
    whole = {"dataset": dataset.name, "model": str(plan.recipe.model), "game": str(experiment.game)}
    table_of_rows = pd.DataFrame([whole | item for item in rows])
    return Result(
        table_of_rows[list(COLUMNS)],
        pd.DataFrame(histograms),
        pd.DataFrame(curves),
        pd.DataFrame(history),
        facts_of(plan, seconds),
        flags=tuple(_said_of(flag, names, len(experiment.defenses)) for flag, names in warned.items()),
        out=out,
    )


def _said_of(flag: flags.Flag, names: list[str], defenses: int) -> flags.Flag:
    """The flag with the defenses it was raised for, unless for all."""
    listed = list(dict.fromkeys(names))
    return flag if len(listed) == defenses else dataclasses.replace(flag, detail=f"{', '.join(listed)}: {flag.detail}")


def evaluation_facts(
    plan: Plan,
    defense: Defense,
    design: Design,
    own_facts: dict[str, Any],
    history: list[dict[str, float]],
    table: dict[str, tuple[Any, Any]],
    strongest: str,
) -> flags.Facts:
    """What is known about the evaluation of one defense, for the flags."""
    changes = defense.trainer != defense and defense.snapshot is None  # a release that is not the network itself
    unchanged = None if changes else 0.0
    confidences = {name: part for name, part in table.items() if name.partition(":")[0] not in flags.DISCRETE}
    best = max(confidences, key=lambda name: metrics.auc(*confidences[name]), default=None)
    label_only = next((name for name in table if name.startswith("label_only")), None)
    advantage = None
    if label_only and best:
        advantage = metrics.auc_difference_interval(table[label_only][0], *table[best])
    return flags.Facts(
        nonmembers=int((~table[strongest][1]).sum()),
        lowest_fpr=min(measures.FPRS),
        shadows=len(design.member) - 1,
        adaptive=True in plan.modes,
        changed_on_repeat=None if defense.randomised else 0.0,
        changed_labels=unchanged,
        tied_pairs=metrics.tied_share(*table[best]) if best else None,
        label_only_advantage=advantage,
        reference_overlap=len(np.intersect1d(design.asked, design.reference)),
        auc_intervals={name: metrics.auc_interval(*part, flags.AUC_LEVEL) for name, part in table.items()},
        dp="epsilon" in own_facts,
        epsilon=own_facts.get("epsilon"),
        delta=own_facts.get("delta"),
        members=int(design.member[design.targets[0]].sum()),
        selected_on_asked=selection.on_asked(plan.experiment.tuned, defense, design, plan.dataset),
        idle=defense.idle(history),
    )


def _utility(plan: Plan, store: Store, defense: Defense, seed: int, design: Design, labels: Any) -> list[measures.Row]:
    """Utility pooled over the targets: every member and every test sample of each counts once."""
    members: list[tuple[Any, Any]] = []
    tests: list[tuple[Any, Any]] = []
    for target in design.targets:
        observed = _signals(plan, store, defense, seed, target, labels)
        for group, places in ((members, design.members(target)), (tests, design.test_of(target))):
            group.append((observed.logits[0, places], labels[places]))
    parts = [np.concatenate(part) for group in (members, tests) for part in zip(*group, strict=True)]
    distinct = len(np.unique(np.concatenate([design.test_of(target) for target in design.targets])))
    return measures.utility(*parts, distinct=distinct, level=plan.experiment.level)


def _attack_rows(
    plan: Plan, store: Store, scored: list[Scored], design: Design, labels: Any, seed: int, adaptive: bool
) -> tuple[list[measures.Row], dict[str, tuple[Any, Any]]]:
    """All rows of one defense, one kind of shadows and one seed; and the pooled scores by attack."""
    targets = list(design.targets)
    member = design.member[targets][:, design.asked].reshape(-1)
    asked_labels = np.tile(labels[design.asked], len(targets))
    rehearsed = design.shadows(targets[0])[0]
    level = plan.experiment.level
    rows, table = [], {}
    fair = np.repeat([target != rehearsed for target in targets], len(design.asked))  # not the rehearsal's own model
    for item in scored:
        arrays = unpack_arrays(require(store, "scores", item.key)[ARRAYS])
        scores = arrays["scores"].reshape(-1)
        name = str(item.attack)
        table[name] = scores
        rows += measures.attack(name, scores, member, level=level)
        rehearsal = (arrays["rehearsal"], design.member[rehearsed, design.fit], labels[design.fit])
        rows += measures.decision(
            name, scores[fair], member[fair], asked_labels[fair], rehearsal, plan.dataset.num_classes, level=level
        )
    rows += measures.worst(table, member, seed=seed, level=level)
    return rows, {name: (scores, member) for name, scores in table.items()}


def _signals(plan: Plan, store: Store, defense: Defense, seed: int, row: int, labels: Any) -> Signals:
    key = plan.signal_keys(defense, seed, row)["plain"]
    return Signals.join([unpack_arrays(require(store, "signals", key)[ARRAYS])], labels)


def names_of(defense: Defense) -> dict[str, str]:
    """The columns ``defense`` and ``settings`` of a defense: its name, and all its fields."""
    if isinstance(defense, Composed):
        parts = [names_of(part) for part in defense.parts]
        return {key: "+".join(part[key] for part in parts) for key in ("defense", "settings")}
    values = {item.name: getattr(defense, item.name) for item in dataclasses.fields(defense)}
    return {"defense": defense.name, "settings": ",".join(f"{name}={value}" for name, value in values.items())}


def facts_of(plan: Plan, seconds: float) -> dict[str, Any]:
    """What the result was made of and with."""
    return {
        "experiment": plan.experiment.settings() | {"recipe": plan.recipe.settings()},
        "provenance": plan.dataset.provenance,
        "samples": len(plan.dataset),
        "num_classes": plan.dataset.num_classes,
        "members": int(plan.designs[plan.experiment.seeds[0]].member[0].sum()),
        "relaxloss": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(seconds, 1),
    }
