"""Running an experiment: its plan's jobs go through the engine, their results into the store, the rows come out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from relaxloss import data as data_sets
from relaxloss import jobs
from relaxloss.data import Dataset
from relaxloss.engine import Engine, Outcome
from relaxloss.errors import UserError
from relaxloss.jobs import Produced, Reference
from relaxloss.plan import Experiment, Plan
from relaxloss.results import Result, collect
from relaxloss.store import MissingEntry, Store, repair

REPAIRS = 3  # times that damaged entries are made again in one run


class Watch(Protocol):
    """Who is told what happens; `relaxloss.progress` has a terminal's."""

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
    return data_sets.load(experiment.dataset, label=experiment.label, drop=experiment.drop)


def run(
    experiment: Experiment,
    out: Path | str,
    *,
    data: Dataset | None = None,
    engine: Engine | None = None,
    watch: Watch | None = None,
    store: Path | str | None = None,
) -> Result:
    """Run what is not yet in the store, by default ``out/store``, and read the rows from it.

    A failed job does not stop the others; if any failed for a reason of the user's, `UserError` is raised at the end
    with what failed, and everything that did not is stored.
    """
    watch, engine = watch or Quiet(), engine or Engine()
    dataset = data if data is not None else load_data(experiment)
    reference = dataset if data is not None else Reference(
        experiment.dataset, experiment.label, experiment.drop, dataset.fingerprint
    )  # fmt: skip
    plan = Plan(experiment, dataset, reference)
    kept = Store(Path(out) / "store" if store is None else Path(store))
    started = time.time()
    with kept.writing():
        for attempt in range(1 + REPAIRS):
            try:
                failures = _run_jobs(kept, engine, watch, plan)
                if failures:
                    done = "what succeeded is stored; mend the cause and run the same command again"
                    raise UserError("\n".join([*failures, done]))
                result = collect(plan, kept, out=Path(out), seconds=time.time() - started)
                break
            except MissingEntry:  # it was damaged, and is removed by now: make it again, with others like it
                repair(kept)
                if attempt == REPAIRS:
                    raise
            finally:  # also when it is interrupted: a terminal gets its cursor back
                watch.end()
        with contextlib.suppress(OSError):
            (kept.root / "scratch").rmdir()
    return result


def _run_jobs(store: Store, engine: Engine, watch: Watch, plan: Plan) -> list[str]:
    failures: list[str] = []
    train_jobs, cached = plan.train_jobs(store)
    names = {job.key: (f"{job.trainer} seed {job.seed} model {job.row}", job.work) for job in train_jobs}
    watch.begin("train", names, cached, store.root / "scratch")
    for train_outcome in engine.run(jobs.train_and_observe, train_jobs):
        train_job = train_jobs[train_outcome.index]
        about = {
            "spec": str(train_job.trainer),
            "recipe": train_job.recipe.settings(),
            "seed": train_job.seed,
            "row": train_job.row,
            "data": plan.dataset.name,
        }
        _put(store, train_outcome, about, failures, names[train_job.key][0])
        watch.done(train_job.key, train_outcome.result.seconds if train_outcome.result else 0)
    if not failures:
        score_jobs, scored = plan.score_jobs(store)
        cached = len(scored) - sum(len(job.attacks) for job in score_jobs)
        names = {str(index): ("scores", float(len(job.attacks))) for index, job in enumerate(score_jobs)}
        watch.begin("score", names, cached, store.root / "scratch")
        for outcome in engine.run(jobs.score, score_jobs):
            job = score_jobs[outcome.index]
            _put(store, outcome, {"attacks": [str(attack) for _, attack in job.attacks]}, failures, "scores")
            watch.done(str(outcome.index), outcome.result.seconds if outcome.result else 0)
    return failures


def _put(store: Store, outcome: Outcome[Produced], about: dict[str, Any], failures: list[str], name: str) -> None:
    if outcome.result is None:
        if outcome.kind is MissingEntry:
            raise MissingEntry(outcome.error)
        if not outcome.user_error:
            raise RuntimeError(f"{name}: {outcome.error}\n{outcome.trace}")
        failures.append(f"{name}: {outcome.error}")
        return
    for (stage, key), files in outcome.result.files.items():
        store.put(stage, key, files, about | {"seconds": round(outcome.result.seconds, 2)})


__all__ = ["Experiment", "Plan", "Quiet", "Result", "Watch", "collect", "load_data", "run"]
