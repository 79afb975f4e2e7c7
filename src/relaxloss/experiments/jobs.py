"""The two kinds of jobs that a plan consists of: train a model and observe it; score attacks on what was observed.

A job carries specs and keys; its result is files by stage and key, which the driver puts into the store.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from relaxloss import data as data_sets
from relaxloss import seeds, signals
from relaxloss.attacks import Attack, Evidence, check
from relaxloss.attacks.base import Scores, checked
from relaxloss.data import Dataset
from relaxloss.data.tabular.column_descriptions import Known
from relaxloss.defenses import Defense
from relaxloss.defenses.base import fitted, released
from relaxloss.errors import UserError, one_line
from relaxloss.games import Design, Game
from relaxloss.signals import Signals
from relaxloss.storage.store import MissingEntry, Store, pack_array, pack_arrays, pack_weights, unpack_weights
from relaxloss.training import Fit, Progress, Session
from relaxloss.training.task import Network, Recipe, Samples, Task, make_network

Files = dict[str, bytes]
WEIGHTS, HISTORY, FACTS, ARRAYS = "weights.safetensors", "history.json", "facts.json", "arrays.npz"


@dataclass(frozen=True)
class DatasetHandle:
    """A data set by name, with the fingerprint that it must have; workers load it themselves, once."""

    name: str
    label: str | None
    drop: tuple[str, ...]
    columns: tuple[tuple[str, Known], ...]
    group: str | None
    fingerprint: str


@functools.lru_cache(maxsize=2)
def _loaded(reference: DatasetHandle) -> Dataset:
    dataset = data_sets.load(
        reference.name,
        label=reference.label,
        drop=reference.drop,
        columns=dict(reference.columns),
        group=reference.group,
    )
    if dataset.fingerprint != reference.fingerprint:
        raise UserError(f"data set {reference.name} changed while the experiment ran; run the command again")
    return dataset


def resolve(data: Dataset | DatasetHandle) -> Dataset:
    """The data set itself."""
    return data if isinstance(data, Dataset) else _loaded(data)


@dataclass(frozen=True)
class Observation:
    """One query to one release: where it is stored, and whose release it is."""

    key: str
    defense: Defense
    query: str


@dataclass(frozen=True)
class TrainJob:
    """Train row `row` of a drawn game, unless the store at `stored` has its files, and make the observations.

    Attributes:
        scratch: where checkpoints and the progress go; None: nowhere.
        every: seconds between checkpoints.
    """

    key: str
    data: Dataset | DatasetHandle
    game: Game
    seed: int
    row: int
    trainer: Defense
    recipe: Recipe
    observations: tuple[Observation, ...]
    stored: Path | None = None
    scratch: Path | None = None
    every: float = 30.0

    @property
    def work(self) -> float:
        """The share of the whole that it is, in epochs of plain training; observing counts little."""
        return 1.0 if self.stored is not None else self.recipe.epochs * self.trainer.effort


@dataclass(frozen=True)
class Failure:
    """What failed, in one line, and the traceback if it was no `UserError`."""

    text: str
    trace: str = ""

    @staticmethod
    def of(error: Exception) -> Failure:
        """That of the error being handled."""
        return Failure(one_line(error), "" if isinstance(error, UserError) else traceback.format_exc())


@dataclass(frozen=True)
class JobResult:
    """A job's result.

    Attributes:
        files: by (stage, key).
        seconds: spent training, or scoring.
        failures: by key, why an observation, or an attack's scores, could not be made.
    """

    files: dict[tuple[str, str], Files]
    seconds: float
    failures: dict[str, Failure] = field(default_factory=dict)


def task_of(dataset: Dataset, design: Design, row: int, seed: int, recipe: Recipe) -> Task:
    """What the defender of one row may see. Rows of equal number share their seed across defenses."""
    return Task.of(
        dataset,
        design.members(row),
        reference=design.reference,
        labels=design.labels,
        recipe=recipe,
        seed=seeds.seed(seed, "model", row),
    )


def network_of(defense: Defense, task: Task, state: Mapping[str, Any]) -> Network:
    """A network with stored weights, in eval mode."""
    trainer = defense.trainer
    network = make_network(trainer, task.encoder, task.shape, task.num_classes, task.recipe, task.seed)
    network.load_state_dict(dict(state))
    return network.eval()


def train_and_observe(job: TrainJob) -> JobResult:
    """Run a `TrainJob`."""
    dataset = resolve(job.data)
    design = job.game.draw_from(dataset, job.seed)
    task = task_of(dataset, design, job.row, job.seed, job.recipe)
    start = time.monotonic()
    produced: dict[tuple[str, str], Files] = {}
    files = require(Store(job.stored), "train", job.key) if job.stored is not None else None
    if files is None:
        monitor = None
        if job.row in design.targets[:1]:  # its history is the one that results show
            monitor = Samples.of(dataset, design.test_of(job.row), design.labels).watched(len(task.members))
        session = Session(job.scratch, job.every, monitor, functools.partial(_tell, job, os.getppid()))
        fit = fitted(job.trainer, task, session)
        files = fit_files(fit)
        produced["train", job.key] = files
    seconds = time.monotonic() - start
    failures: dict[str, Failure] = {}
    for defense in dict.fromkeys(observation.defense for observation in job.observations):
        mine = tuple(each for each in job.observations if each.defense == defense)
        name = WEIGHTS if defense.snapshot is None else snapshot_name(defense.snapshot)
        try:
            network = network_of(defense, task, unpack_weights(files[name]))
            release = released(defense, network, task).eval()
        except Exception as error:  # of the defenses that share this training, only this one is lost
            failures |= dict.fromkeys((each.key for each in mine), Failure.of(error))
            continue
        for each in mine:
            try:
                produced["signals", each.key] = _observed(each.query, release, network, dataset, design)
            except Exception as error:  # and of the queries only this one
                failures[each.key] = Failure.of(error)
    return JobResult(produced, seconds, failures)


def _observed(query: str, release: nn.Module, network: Network, dataset: Dataset, design: Design) -> Files:
    """What is seen of a release by one query."""
    arrays = signals.observe(release, network, dataset, query, dataset.y if design.labels is None else design.labels)
    if query == "plain":
        arrays |= signals.differences(release, network, dataset, arrays["logits"])
    return {f"{name}.npy": pack_array(array) for name, array in arrays.items()}


def fit_files(fit: Fit) -> Files:
    """A training's result as files."""
    files = {
        WEIGHTS: pack_weights(fit.network.state_dict()),
        HISTORY: json.dumps(fit.history).encode(),
        FACTS: json.dumps(fit.facts).encode(),
    }
    for epoch, state in fit.snapshots.items():
        files[snapshot_name(epoch)] = pack_weights(state)
    return files


def snapshot_name(epoch: int) -> str:
    """The file of a snapshot's weights."""
    return f"epoch-{epoch:04d}.safetensors"


def _tell(job: TrainJob, parent: int, progress: Progress) -> None:
    """Write down how far the training is; end it if the process that started this one is gone."""
    if os.getppid() != parent:
        raise SystemExit("the driver is gone")
    if job.scratch is not None:
        with contextlib.suppress(OSError):  # a full disk must not end a training over a progress bar
            _write_progress(job.scratch, progress)


def _write_progress(scratch: Path, progress: Progress) -> None:
    last = {name: round(value, 6) for name, value in progress.last.items()}
    text = json.dumps({"phase": progress.phase, "epoch": progress.epoch, "epochs": progress.epochs, **last})
    scratch.mkdir(parents=True, exist_ok=True)
    path = scratch / "progress.json"
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(text)
    part.replace(path)


@dataclass(frozen=True)
class ScoreJob:
    """Score attacks on one defense's targets, with the given shadows.

    Attributes:
        root: the store's directory, read only.
        target_keys: per target row, the keys of its signals.
        shadow_keys: per row, the keys of the shadow's signals.
        attacks: (key, attack) of what is to be scored.
    """

    root: Path
    data: Dataset | DatasetHandle
    game: Game
    seed: int
    target_keys: Mapping[int, tuple[str, ...]]
    shadow_keys: Mapping[int, tuple[str, ...]]
    attacks: tuple[tuple[str, Attack], ...]


def score(job: ScoreJob) -> JobResult:
    """Run a `ScoreJob`: per attack ``scores (T, N)``, and ``rehearsal (F,)`` on the first target's first shadow.

    The rehearsal is NaN where there are too few shadows for it. An attack that fails stops no other.
    """
    start = time.monotonic()
    dataset = resolve(job.data)
    design = job.game.draw_from(dataset, job.seed)
    labels = dataset.y if design.labels is None else design.labels
    store = Store(job.root)
    read = functools.cache(functools.partial(signals_of, store, labels=labels))
    rows = tuple(evidence_of(job, design, dataset, read, target) for target in job.target_keys)
    produced: dict[tuple[str, str], Files] = {}
    failures: dict[str, Failure] = {}
    for key, attack in job.attacks:
        try:
            with seeds.isolated(job.seed, "score", str(attack)):  # of an attack that draws from the global generators
                produced["scores", key] = {ARRAYS: pack_arrays(_scores(attack, rows))}
        except Exception as error:
            failures[key] = Failure.of(error)
    return JobResult(produced, time.monotonic() - start, failures)


def _scores(attack: Attack, rows: tuple[Evidence, ...]) -> dict[str, Scores]:
    for evidence in rows:
        check(attack, evidence)
    scores = np.stack(
        [checked(attack, mine, len(row.asked)) for mine, row in zip(attack.score_all(rows), rows, strict=True)]
    )
    rehearsal = np.full(len(rows[0].fit), np.nan)
    if len(rows[0].shadows) >= attack.needs.rehearsal:
        tried = np.asarray(attack.score(rows[0].mirrored()[0]))
        if tried.dtype.kind != "f" or not np.isnan(tried).any():  # NaN: it cannot be rehearsed on these samples
            rehearsal = checked(attack, tried, len(rehearsal))
    return {"scores": scores, "rehearsal": rehearsal}


def evidence_of(job: ScoreJob, design: Design, dataset: Dataset, read: Any, target: int) -> Evidence:
    """The attacker's evidence against one target."""
    whole: Signals = read(job.target_keys[target])
    shadows = tuple(row for row in design.shadows(target) if row in job.shadow_keys)
    return Evidence(
        whole.take(design.asked),
        design.asked,
        tuple(read(job.shadow_keys[row]) for row in shadows),
        design.member[list(shadows)],
        design.fit,
        design.reference,
        whole.take(design.reference) if len(design.reference) else None,
        dataset.num_classes,
        seeds.seed(job.seed, "attack"),
        dataset.x,
    )


def signals_of(store: Store, keys: tuple[str, ...], *, labels: Any) -> Signals:
    """One model's signals from the entries of its queries."""
    return Signals.join([observed(store, key) for key in keys], labels)


def observed(store: Store, key: str) -> Mapping[str, Any]:
    """What one query to a model gave, by the arrays' names; as `require`."""
    folder = store.verified("signals", key)
    if folder is None:
        raise _missing("signals", key)
    return signals.read(folder)


def require(store: Store, stage: str, key: str) -> Files:
    """An entry that must be there; `MissingEntry` if it is not, or is damaged: then it is to be made again."""
    files = store.get(stage, key)
    if files is None:
        raise _missing(stage, key)
    return files


def _missing(stage: str, key: str) -> MissingEntry:
    return MissingEntry(f"{stage} {key} is missing from the store; run the same command again")
