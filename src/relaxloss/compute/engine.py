"""The engine: runs independent jobs in this process, in local worker processes, or on a Ray or Dask cluster.

A job is a picklable argument; the function maps it to a result. Results come back as they are ready, to the one
process that writes them down. A worker that dies takes no result with it: its job is run again.
"""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import joblib
import torch
from joblib.externals import loky
from joblib.externals.loky.process_executor import BrokenProcessPool

from relaxloss.errors import MissingExtra, UserError, one_line, unknown
from relaxloss.specs import DIGESTS

J = TypeVar("J")
R = TypeVar("R")
Name = Literal["auto", "inprocess", "processes", "ray", "dask"]
ENGINES: tuple[Name, ...] = ("auto", "inprocess", "processes", "ray", "dask")
RETRIES = 2

# Otherwise glibc returns large blocks to the system after every step, and asks for them again at the next.
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "2000000000"}


@dataclass(frozen=True)
class Outcome(Generic[R]):
    """What became of job `index`: its result, or the message and the traceback of its failure."""

    index: int
    result: R | None = None
    error: str = ""
    trace: str = ""
    kind: type[BaseException] | None = None

    @property
    def user_error(self) -> bool:
        """Whether the user can mend it."""
        return self.kind is not None and issubclass(self.kind, UserError)


@dataclass(frozen=True)
class Engine:
    """How jobs are run; never part of a result's key.

    Attributes:
        name: ``auto`` takes local processes where there are several jobs and several cores.
        workers: how many jobs at a time; None: as many as cores, or as the cluster has.
        address: of a Ray or Dask cluster that is already there.
    """

    name: Name = "auto"
    workers: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise unknown("engine", self.name, ENGINES)
        if self.workers is not None and self.workers < 1:
            raise UserError(f"got workers={self.workers}; expected at least 1")
        if self.address is not None and self.name not in ("ray", "dask"):
            raise UserError(f"got an address for engine {self.name}; only ray and dask have one")
        if self.name == "inprocess" and self.workers not in (None, 1):
            raise UserError(f"got workers={self.workers} for engine inprocess, which is one; use processes")

    def run(self, function: Callable[[J], R], jobs: Sequence[J]) -> Iterator[Outcome[R]]:
        """Outcomes in the order of completion. A failed job does not stop the others."""
        workers = self.workers or available_cores()
        name = self.name
        if name == "auto":
            name = "processes" if min(workers, len(jobs)) > 1 else "inprocess"
        if name == "inprocess" or not jobs:
            with single_thread():
                for index, job in enumerate(jobs):
                    yield _attempt(function, index, job)
            return
        pending = dict(enumerate(jobs))
        for attempt in range(1 + RETRIES):
            try:
                with self._backend(name, workers):
                    parallel = joblib.Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1)
                    tasks = [joblib.delayed(_attempt)(function, index, job) for index, job in pending.items()]
                    for outcome in parallel(tasks):
                        del pending[outcome.index]
                        yield outcome
                return
            except BrokenProcessPool:
                if attempt == RETRIES:
                    for index in pending:
                        message = "its worker process died three times (out of memory?); try --workers 1"
                        yield Outcome(index, error=message, kind=UserError)

    @contextlib.contextmanager
    def _backend(self, name: str, workers: int) -> Iterator[None]:
        if name == "processes":
            _renew_workers()
            before = {key: os.environ.get(key) for key in ALLOCATOR}
            os.environ.update(ALLOCATOR)  # inherited by the workers, which start now
            try:
                with joblib.parallel_config(backend="loky", inner_max_num_threads=1):
                    yield
            finally:
                for key, value in before.items():
                    os.environ.pop(key) if value is None else os.environ.update({key: value})
            return
        with _cluster(name, self.address), joblib.parallel_config(backend=name):
            yield


_known: set[str] = set()  # digests of third parties' code that the running workers may have loaded


def _renew_workers() -> None:
    """Stop the workers of an earlier run if code came in since: theirs may be an older version of the same module."""
    new = set(DIGESTS.values()) - _known
    if _known and new:
        loky.get_reusable_executor().shutdown(wait=True)
    _known.update(new)


@contextlib.contextmanager
def _cluster(name: str, address: str | None) -> Iterator[Any]:
    try:
        if name == "ray":
            import ray
            from ray.util.joblib import register_ray

            register_ray()
            if not ray.is_initialized():
                ray.init(address=address, log_to_driver=False)
            yield ray
        else:
            from dask.distributed import Client

            with Client(address) if address else Client(threads_per_worker=1) as client:
                yield client
    except ImportError as error:
        raise MissingExtra(f"--engine {name} ({error})", name) from None


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """One thread for torch inside the block."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def available_cores() -> int:
    """The cores this process may use (containers and cgroups respected)."""
    return int(joblib.cpu_count())


def _attempt(function: Callable[[J], R], index: int, job: J) -> Outcome[R]:
    torch.set_num_threads(1)
    try:
        return Outcome(index, function(job))
    except Exception as error:
        kind = type(error) if isinstance(error, UserError) else Exception
        return Outcome(index, error=one_line(error), trace=traceback.format_exc(), kind=kind)
