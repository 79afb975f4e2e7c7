"""How well can membership be inferred from a model that `trained.train` made? The very model that is to be shipped.

Who was in it is known from its ``private``; it is there, so that it can be asked whatever an attacker asks, its
gradients too. Shadows, trained as it was on samples drawn anew, make the strongest attacks possible.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from relaxloss import seeds, signals
from relaxloss.attacks import Attack, Evidence
from relaxloss.attacks.gradient import GradientNorm
from relaxloss.auditing import audit
from relaxloss.auditing.audit import Audit
from relaxloss.auditing.predictions import Predictions
from relaxloss.compute.engine import Engine
from relaxloss.data import Dataset
from relaxloss.errors import UserError
from relaxloss.evaluation import comparability, flags
from relaxloss.experiments import jobs
from relaxloss.experiments.jobs import DatasetHandle
from relaxloss.experiments.plan import queries_of, unmet
from relaxloss.experiments.run import Experiment, Failures, Plan, ProgressListener, Quiet, run_trainings, with_repairs
from relaxloss.games import Redrawn
from relaxloss.signals import Signals
from relaxloss.storage.store import Store, pack_weights
from relaxloss.trained import NETWORK, Trained


@dataclass(frozen=True, eq=False)
class Shadows:
    """What K shadows answered about the whole data, and who is in them ``(K, M)``."""

    signals: tuple[Signals, ...]
    member: Any


def audit_model(
    model: Trained,
    data: Dataset,
    *,
    shadows: int = 0,
    attacks: str | Sequence[Attack | str] = "all",
    store: Path | str | None = None,
    engine: Engine | None = None,
    reference: Dataset | DatasetHandle | None = None,
    watch: ProgressListener | None = None,
    name: str = "model",
    level: float = 0.95,
    seed: int = 0,
) -> Audit:
    """Audit a trained model: its members against the samples that its training held out for the test.

    Args:
        model: from `relaxloss.train`, or loaded with its ``private``.
        data: the very data that it was trained on.
        shadows: how many further models are trained with the same defense and recipe, each on those of the members and
            test samples that a coin chooses, on average as many as the model has members; with a test share of 0.2, 32
            or more tell something. 0: none, and attacks that need shadows are listed as not measured.
        attacks: as ``relaxloss compare --attacks`` takes them, or objects.
        store: where the shadows rest, so that an audit that was cut off goes on; None: they are not kept.
        engine: where they are trained.
        reference: what goes to workers in the data's place (`relaxloss.experiments.run.reference_to`), if not they.
        watch: who is told of the progress.
        name: what the model is called in the report.
        level: of all intervals.
        seed: of the shadows, of the halves, and of attacks that draw random numbers.

    Raises:
        UserError: the model was loaded without its ``private``, held nothing out, or was trained on other data; or a
            shadow cannot be trained.
    """
    pool = _pool(model, data)
    chosen = audit.chosen_of(attacks)
    outside = np.sort(model.split["reference"])
    target = _target(model, data, queries_of(chosen))
    found = Shadows((), np.zeros((0, len(data)), bool))
    with contextlib.ExitStack() as stack:
        if shadows:
            place = store if store is not None else stack.enter_context(tempfile.TemporaryDirectory())
            game = _game(model, data, pool, outside, shadows)
            plan = _plan(model, data, reference or data, game, chosen, seed)
            found = _shadows(plan, Store(Path(place)), engine or Engine(), watch or Quiet())
        evidence = Evidence(
            target.take(pool),
            pool,
            found.signals,
            found.member,
            pool,
            outside,
            target.take(outside) if len(outside) else None,
            data.num_classes,
            seeds.seed(seed, "attack"),
            data.x,
        )
        return audit.run(
            _predictions(model, data, pool, target, found),
            name=name, attacks=chosen, adaptive=True, level=level, seed=seed, evidence=evidence,
            known=_known(model, data, pool, target),
        )  # fmt: skip


def source(model: Trained, shadows: int) -> dict[str, Any]:
    """What is audited, as the report names it: the weights' files by their digests, the defense, and how many shadows.

    Nothing of the data: who guesses a person's row could check the guess by a digest of all rows.
    """
    weights = pack_weights(model.network.state_dict())
    found = {"file": NETWORK, "bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}
    if model.release is not model.network:
        found["release"] = hashlib.sha256(pack_weights(model.release.state_dict())).hexdigest()
    return found | {"defense": model.card["defense"], "shadows": shadows}


def _pool(model: Trained, data: Dataset) -> Any:
    """The places of the members and of the test samples, in ascending order."""
    if not model.split or not model.fingerprint:
        raise UserError(
            "the model does not say who was in it; expected the directory that relaxloss train wrote, with its "
            "private/split.npz (if an earlier version wrote it: train again)"
        )
    if data.fingerprint != model.fingerprint:
        raise UserError(
            f"these are not the very data that the model was trained on ({model.card['dataset']}, got {data.name}); "
            "expected the same file, unchanged, read with the same --label, --drop, --columns and --group as in the "
            "training, which printed the command"
        )
    if not len(model.split["test"]):
        raise UserError(
            "the model held no samples out (test=0), so that there are no non-members to compare with; train it with "
            "--test 0.2, or audit its predictions on other samples (relaxloss audit predictions.csv)"
        )
    return np.sort(np.concatenate([model.split["members"], model.split["test"]]))


def _target(model: Trained, data: Dataset, queries: Iterable[str]) -> Signals:
    """What the model answers about the whole data."""
    return Signals.join((signals.observe(model.release, model.network, data, query) for query in queries), data.y)


def _game(model: Trained, data: Dataset, pool: Any, outside: Any, shadows: int) -> Redrawn:
    share = len(model.split["members"]) / len(pool)  # of the samples, so that a shadow has as many, whosever they are
    return Redrawn(shadows, tuple(pool.tolist()), tuple(outside.tolist()), share)


def _plan(
    model: Trained,
    data: Dataset,
    reference: Dataset | DatasetHandle,
    game: Redrawn,
    chosen: Sequence[Attack],
    seed: int,
) -> Plan:
    """The shadows' trainings, and what they are asked for the attacks that can be made."""
    usable = [each for each in chosen if not unmet(each, game) and not isinstance(each, GradientNorm)]  # the target's
    return Plan(
        Experiment(
            data.name, defenses=(model.defense,), attacks=tuple(usable) or "loss", game=game,
            recipe=model.recipe, shadows="same", seeds=(seed,),
        ),
        data,
        reference,
    )  # fmt: skip


def _shadows(plan: Plan, store: Store, engine: Engine, watch: ProgressListener) -> Shadows:
    """Train and observe them, but for those in the store."""
    (defense,), (seed,) = plan.experiment.defenses, plan.experiment.seeds
    design = plan.designs[seed]

    def made() -> tuple[Signals, ...]:
        failed = Failures(watch)
        run_trainings(store, engine, watch, plan, failed)
        if failed.texts:
            failed.end()
        keys = (tuple(plan.signal_keys(defense, seed, row).values()) for row in range(len(design.member)))
        return tuple(jobs.signals_of(store, key, labels=plan.dataset.y) for key in keys)

    return Shadows(with_repairs(store, watch, made), design.member)


def _predictions(model: Trained, data: Dataset, pool: Any, target: Signals, shadows: Shadows) -> Predictions:
    answers = target.take(pool).plain.astype(np.float64)
    card, split = model.card, model.split
    notes = [
        f"The model was trained with the defense {card['defense']} on {len(split['members']):,} of the {len(data):,} "
        f"samples of {data.name}.",
        "Members are the samples that the model was trained on, non-members those that its training held out for the "
        "test.",
    ]
    count = len(shadows.signals)
    if count:
        share = shadows.member[:, pool].mean()
        notes.append(
            f"The {count} shadow models were trained with the same defense and recipe, each on {share:.0%} of these "
            "samples on average, chosen by a coin for each."
        )
    groups = None
    if data.groups is not None:
        groups = np.unique(data.persons[pool], return_inverse=True)[1]
        notes.append("Persons are asked about, each with all of theirs, and named by the first of them.")
    notes.append("Rows are those of the data, counted from 0.")
    return Predictions(
        logits=answers,
        labels=data.y[pool],
        member=np.isin(pool, model.split["members"]),
        classes=data.classes or tuple(map(str, range(data.num_classes))),
        kind="answers",
        ids=np.array([f"{'row' if groups is None else 'first row'} {row}" for row in pool]),
        shadow_logits=np.zeros((0, *answers.shape)),  # the evidence has them
        shadow_member=shadows.member[:, pool],
        groups=groups,
        notes=tuple(notes),
        source=source(model, count),
    )


def _known(model: Trained, data: Dataset, pool: Any, target: Signals) -> dict[str, Any]:
    """What the flags can know of a model that is there, and of the data that it was trained on."""
    defense, split = model.defense, model.split
    changed, repeated = map(float, signals.differences(model.release, model.network, data, target.plain)["release"])
    history: list[dict[str, float]] = [
        {str(name): value for name, value in row.items()} for row in model.history.to_dict("records")
    ]
    return {
        "changed_labels": changed,
        "changed_on_repeat": repeated,
        "reference_overlap": len(np.intersect1d(pool, split["reference"])),
        **flags.claims(model.facts, data, split["members"]),
        "uncovered": defense.uncovered(data),
        "idle": defense.idle(history) if history else None,
        "copies": comparability.copied_rows(data.x, data.y, split["members"], split["test"]),
    }
