"""Shadows of a model that is not ours, fitted through the engine: what the bridges share."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from relaxloss import seeds
from relaxloss.compute.engine import Engine
from relaxloss.errors import UserError
from relaxloss.games import coins


class Job(Protocol):
    """A shadow to be fitted, on the samples that `member` ``(N,)`` says."""

    @property
    def member(self) -> npt.NDArray[np.bool_]:
        """Who is in it."""
        ...


J = TypeVar("J", bound=Job)
R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Fitted(Generic[R]):
    """What became of the jobs.

    Attributes:
        results: of those that were fitted, in their order.
        member: ``(K, N)`` who is in these.
        failed: what is to be said of the others; empty if there are none.
    """

    results: list[R]
    member: npt.NDArray[np.bool_]
    failed: str

    def notes(self, how: str) -> list[str]:
        """What the report says of them; `how` ends in the verb."""
        if not self.results:
            return []
        share = f"{self.member.mean():.0%} of these samples on average, chosen by a coin for each"
        return [f"The shadow models ({len(self.results)}) {how} {share}.", *([self.failed] if self.failed else [])]


def check_count(shadows: Any) -> None:
    """Refuse what is no number of shadows."""
    if isinstance(shadows, bool) or not isinstance(shadows, (int, np.integer)) or shadows < 0:
        raise UserError(f"got shadows={shadows!r}; expected how many models are fitted, or 0 for none")


def drawn(
    seed: int, shadows: int, persons: npt.NDArray[np.int64], member: npt.NDArray[np.bool_]
) -> list[tuple[npt.NDArray[np.bool_], int]]:
    """Who is in each shadow ``(N,)``, and its seed: a coin for each person, so that on average as many as members."""
    heads = coins(seeds.rng(seed, "shadows"), shadows, persons, member.mean())
    return [(own, seeds.seed(seed, "shadow", place)) for place, own in enumerate(heads)]


def rows(member: npt.NDArray[np.bool_], seed: int) -> npt.NDArray[np.int64]:
    """The places of a shadow's samples, in a random order: what a fit holds out at the end is of nobody's side."""
    return seeds.rng(seed, "order").permutation(np.flatnonzero(member))


def fitted(engine: Engine, fit: Callable[[J], R], jobs: Sequence[J], n: int) -> Fitted[R]:
    """Fit the shadows of n samples. If some cannot be fitted, the rest must do; if most cannot, it ends at once.

    Raises:
        UserError: of those that came to an end, half or more failed.
    """
    found: dict[int, R] = {}
    errors: dict[int, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        stop = Path(folder) / "stop"
        try:
            for outcome in engine.run(_Unless(fit, stop), jobs):
                if outcome.result is not None:
                    found[outcome.index] = outcome.result[0]
                elif outcome.error:
                    errors[outcome.index] = outcome.error
                if len(errors) > 1 and len(errors) >= len(found):
                    stop.touch()
        except pickle.PicklingError as error:
            raise UserError(
                f"the shadows cannot be sent to other processes ({error}); expected what can be pickled: fit them in "
                'this process, engine=relaxloss.compute.engine.Engine("inprocess")'
            ) from None
    said = (
        f"{len(errors)} of {len(jobs)} shadows cannot be fitted, the first for this: {errors[min(errors)]}"
        if errors
        else ""
    )
    if errors and len(errors) >= len(found):
        raise UserError(said)
    kept = sorted(found)
    member = np.array([jobs[place].member for place in kept], bool).reshape(len(kept), n)
    return Fitted([found[place] for place in kept], member, f"{said}. The others are used." if said else "")


@dataclass(frozen=True)
class _Unless(Generic[J, R]):
    """The function, and nothing once the file is there."""

    function: Callable[[J], R]
    stop: Path

    def __call__(self, job: J) -> tuple[R] | None:
        return None if self.stop.exists() else (self.function(job),)
