"""Running an experiment: its plan's jobs go through the engine, their results into the store, the rows come out."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar

from relaxloss import data as data_sets
from relaxloss.compute.engine import Engine, Outcome
from relaxloss.data import Dataset
from relaxloss.data.tabular import column_descriptions
from relaxloss.errors import UserError
from relaxloss.experiments import jobs
from relaxloss.experiments.jobs import DatasetHandle, Failure, JobResult
from relaxloss.experiments.plan import Experiment, Plan
from relaxloss.experiments.result import Result, collect
from relaxloss.storage.store import MissingEntry, Store, repair

T = TypeVar("T")
REPAIRS = 3  # times that damaged entries are made again in one run


class ProgressListener(Protocol):
    """Who is told what happens; `relaxloss.compute.progress` has a terminal's."""

    def log(self, text: str) -> None: ...
    def begin(self, stage: str, jobs: Mapping[str, tuple[str, float]], cached: int, scratch: Path) -> None: ...
    def done(self, key: str, seconds: float) -> None: ...
    def end(self) -> None: ...


class Quiet:
    """A watch that says nothing."""

    def log(self, text: str) -> None: ...
    def begin(self, stage: str, jobs: Mapping[str, tuple[str, float]], cached: int, scratch: Path) -> None: ...
    def done(self, key: str, seconds: float) -> None: ...
    def end(self) -> None: ...


def load_data(experiment: Experiment) -> Dataset:
    """The experiment's data set."""
    return data_sets.load(
        experiment.dataset,
        label=experiment.label,
        drop=experiment.drop,
        columns=experiment.columns,
        group=experiment.group,
    )


def reference_to(
    dataset: Dataset, name: str, *, label: str | None, drop: Sequence[str], columns: Mapping[str, Any],
    group: str | None,
) -> Dataset | DatasetHandle:  # fmt: skip
    """What goes to workers: how they load the data set themselves; or the data, where they cannot.

    The rest is what `relaxloss.data.load` was given.
    """
    if not data_sets.known_to_workers(name):
        return dataset
    return DatasetHandle(
        name, label, tuple(drop), tuple(column_descriptions.read(columns).items()), group, dataset.fingerprint
    )


def run(
    experiment: Experiment,
    out: Path | str,
    *,
    data: Dataset | None = None,
    engine: Engine | None = None,
    watch: ProgressListener | None = None,
    store: Path | str | None = None,
) -> Result:
    """Run what is not yet in the store, by default ``out/store``, and read the rows from it.

    A failed job stops no other, and whatever succeeded is stored. A defense of which a model failed, or every attack on
    it, is left out of the result, and so is an attack that failed on any other defense, or its query to a model did,
    for the strongest of several attacks must be the strongest of the same ones: ``Result.failures`` says why, and a
    warning is raised. The result's facts name the experiment that is left. If nothing is left, `UserError` is raised
    (or `RuntimeError`, with the traceback, if it was none of the user's doing).
    """
    watch, engine = watch or Quiet(), engine or Engine()
    dataset = data if data is not None else load_data(experiment)
    reference = dataset if data is not None else reference_to(
        dataset, experiment.dataset, label=experiment.label, drop=experiment.drop, columns=experiment.columns,
        group=experiment.group,
    )  # fmt: skip
    plan = Plan(experiment, dataset, reference)
    kept = Store(Path(out) / "store" if store is None else Path(store))
    started = time.time()

    def made() -> tuple[Result, Failures]:
        failed = Failures(watch)
        sound = _scored(kept, engine, watch, run_trainings(kept, engine, watch, plan, failed), failed)
        return collect(sound, kept, out=Path(out), seconds=time.time() - started), failed

    result, failed = with_repairs(kept, watch, made)
    if not failed.texts:
        return result
    count = len(failed.texts)
    warnings.warn(
        f"{count} job{'s' * (count > 1)} failed, and the result is of the rest: see its failures", stacklevel=2
    )
    return replace(result, failures=tuple(failed.texts))


def with_repairs(store: Store, watch: ProgressListener, make: Callable[[], T]) -> T:
    """What `make` makes as the store's one writer; anew, without what was damaged, as often as it meets damage."""
    with store.writing():
        for attempt in range(1 + REPAIRS):
            try:
                made = make()
                break
            except MissingEntry:  # it was damaged: remove it, with others like it, and make them again
                repair(store)
                if attempt == REPAIRS:
                    raise
            finally:  # also when it is interrupted: a terminal gets its cursor back
                watch.end()
        with contextlib.suppress(OSError):
            (store.root / "scratch").rmdir()
    return made


@dataclass
class Failures:
    """What failed, in words, and the first traceback that is not of a `UserError`."""

    watch: ProgressListener
    texts: list[str] = field(default_factory=list)
    trace: str = ""

    def add(self, name: str, error: str, trace: str = "") -> None:
        """One more; what was said before is not said again."""
        if f"{name}: {error}" in self.texts:
            return
        self.texts.append(f"{name}: {error}")
        first = "" if self.trace else trace  # the others' will be alike
        self.trace = self.trace or trace
        self.watch.log("\n".join([f"failed: {self.texts[-1]}", *first.splitlines()]))

    def end(self) -> NoReturn:
        """There is nothing left to compare."""
        if self.trace:
            raise RuntimeError("\n".join([*self.texts, self.trace]))
        done = "what succeeded is stored; mend the cause and run the same command again"
        raise UserError("\n".join([*self.texts, done]))


def run_trainings(store: Store, engine: Engine, watch: ProgressListener, plan: Plan, failed: Failures) -> Plan:
    """Run the trainings; the plan of the defenses whose models are all there."""
    train_jobs, cached = plan.train_jobs(store)
    names = {job.key: (f"{job.trainer} seed {job.seed} model {job.row}", job.work) for job in train_jobs}
    watch.begin("train", names, cached, store.root / "scratch")
    for outcome in engine.run(jobs.train_and_observe, train_jobs):
        job = train_jobs[outcome.index]
        about = {
            "spec": str(job.trainer),
            "recipe": job.recipe.settings(),
            "seed": job.seed,
            "row": job.row,
            "data": plan.dataset.name,
        }
        _put(store, outcome, about, failed, names[job.key][0])
        for each in job.observations:
            why = outcome.result.failures.get(each.key) if outcome.result else None
            if why is not None:
                failed.add(
                    f"{each.defense} seed {job.seed} model {job.row}, {plan.asking(each.query)}", why.text, why.trace
                )
        watch.done(job.key, outcome.result.seconds if outcome.result else 0)
    if not failed.texts:
        return plan
    left = plan.observed(store)
    return left if left is not None else failed.end()


def _scored(store: Store, engine: Engine, watch: ProgressListener, plan: Plan, failed: Failures) -> Plan:
    """Score the attacks; the plan of the defenses and attacks whose scores are all there."""
    score_jobs, scored = plan.score_jobs(store)
    cached = len(scored) - sum(len(job.attacks) for job in score_jobs)
    names = {str(index): ("scores", float(len(job.attacks))) for index, job in enumerate(score_jobs)}
    watch.begin("score", names, cached, store.root / "scratch")
    why: dict[str, Failure] = {}
    for outcome in engine.run(jobs.score, score_jobs):
        job = score_jobs[outcome.index]
        if outcome.result is None and outcome.kind is not MissingEntry:
            whole = Failure(outcome.error, "" if outcome.user_error else outcome.trace)
            why |= dict.fromkeys((key for key, _ in job.attacks), whole)
        else:
            _put(store, outcome, {"attacks": [str(attack) for _, attack in job.attacks]}, failed, "scores")
            why |= outcome.result.failures if outcome.result else {}
        watch.done(str(outcome.index), outcome.result.seconds if outcome.result else 0)
    if not why:
        return plan
    broken = {(item.defense, item.attack): why[item.key] for item in scored if item.key in why}
    defenses, attacks = plan.experiment.defenses, plan.experiment.attacks
    lost = [each for each in defenses if all((each, attack) in broken for attack in attacks)]
    kept = tuple(each for each in defenses if each not in lost)
    for defense in lost if kept else ():
        first = broken[defense, attacks[0]]
        failed.add(f"{defense} is left out, for every attack on it failed: {attacks[0]}", first.text, first.trace)
    for attack in attacks:
        victims = [each for each in kept or defenses if (each, attack) in broken]
        if victims:
            first = broken[victims[0], attack]
            on = f"on {', '.join(map(str, victims))}" if len(victims) < len(kept or defenses) else "on every defense"
            failed.add(f"attack {attack} is left out, for it failed {on}", first.text, first.trace)
    left = tuple(each for each in attacks if not any((defense, each) in broken for defense in kept))
    if kept and not left:  # no attack succeeded on all: keep them all, on the defenses that none failed on
        left, kept = attacks, tuple(each for each in kept if not any((each, attack) in broken for attack in attacks))
    return plan.only(kept, left) if kept and left else failed.end()


def _put(store: Store, outcome: Outcome[JobResult], about: dict[str, Any], failed: Failures, name: str) -> None:
    if outcome.result is None:
        if outcome.kind is MissingEntry:
            raise MissingEntry(outcome.error)
        failed.add(name, outcome.error, "" if outcome.user_error else outcome.trace)
        return
    for (stage, key), files in outcome.result.files.items():
        store.put(stage, key, files, about | {"seconds": round(outcome.result.seconds, 2)})


__all__ = ["Experiment", "Plan", "ProgressListener", "Quiet", "Result", "collect", "load_data", "run"]
