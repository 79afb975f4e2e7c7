"""Shadows of a model that is not ours, fitted through the engine: what the bridges share."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from relaxloss.engine import Engine
from relaxloss.errors import UserError


class Job(Protocol):
    """A shadow to be fitted, on the samples that `member` ``(N,)`` says."""

    @property
    def member(self) -> npt.NDArray[np.bool_]:
        """Who is in it."""
        ...


J = TypeVar("J", bound=Job)
R = TypeVar("R")


def check_count(shadows: Any) -> None:
    """Refuse what is no number of shadows."""
    if isinstance(shadows, bool) or not isinstance(shadows, (int, np.integer)) or shadows < 0:
        raise UserError(f"got shadows={shadows!r}; expected how many models are fitted, or 0 for none")


def share(jobs: Sequence[Job]) -> str:
    """How large a part of the samples they have, in words."""
    mean = np.mean([job.member.mean() for job in jobs])
    return f"{mean:.0%} of these samples on average, chosen by a coin for each"


def results(engine: Engine, fitted: Callable[[J], R], jobs: Sequence[J]) -> list[R]:
    """What `fitted` gives of each job, in their order; a `UserError` if one fails."""
    try:
        outcomes = sorted(engine.run(fitted, jobs), key=lambda outcome: outcome.index)
    except pickle.PicklingError as error:
        raise UserError(
            f"the shadows cannot be sent to other processes ({error}); expected what can be pickled: fit them in this "
            'process, engine=relaxloss.engine.Engine("inprocess")'
        ) from None
    found = []
    for outcome in outcomes:
        if outcome.result is None:
            raise UserError(f"shadow {outcome.index + 1} of {len(jobs)} cannot be fitted: {outcome.error}")
        found.append(outcome.result)
    return found
