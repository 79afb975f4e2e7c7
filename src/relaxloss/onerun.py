"""The one-run audit (Steinke, Nasr, Jagielski, NeurIPS 2023): a lower bound of ε from guesses about coin flips.

It holds only if every asked sample went into the training set, or did not, by a fair coin flip of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from relaxloss import metrics, seeds
from relaxloss.attacks.base import Scores
from relaxloss.errors import UserError
from relaxloss.measures import Row, row

MEASURE = "epsilon_lower_bound"
SHARES = (0.02, 0.1, 0.4, 1.0)  # of the samples that are guessed, unless their number was fixed beforehand


def bound(
    table: Mapping[str, Scores],
    member: npt.NDArray[np.bool_],
    *,
    guesses: int | None = None,
    delta: float = 0.0,
    level: float = 0.95,
    seed: int = 0,
) -> Row:
    """The largest lower bound of ε at confidence `level`, as a row of the result table.

    Of r guesses, the r/2 highest scores are called members and the r/2 lowest non-members. Unless `guesses` fixes r,
    several r are tried; `metrics.one_run_epsilon` is asked at confidence ``1 - (1 - level) / tries`` (Bonferroni over
    all r, all attacks in `table` and all models), so that the best of them may be taken.

    Args:
        table: each attack's scores, ``(N,)`` of one model, or ``(T, N)`` of T models.
        member: ``(N,)`` or ``(T, N)``. Each model is an audit of its own: given all other models and who is in them,
            its coins are still fair. Right guesses are never added up over models: a shadow attack on one model uses
            the coins of the others, so that their numbers are not independent.
    """
    truth = np.atleast_2d(member)
    models, m = truth.shape
    if guesses is not None and not 2 <= guesses <= m:
        raise UserError(f"guesses={guesses}; expected 2 to {m}, the number of samples, or None: several are tried")
    halves = {guesses // 2} if guesses is not None else {max(1, int(share * m) // 2) for share in SHARES}
    shuffled = seeds.rng(seed, "one_run").permutation(m)  # ties must not be broken by the order of the samples
    truth = truth[:, shuffled]
    tries, best = len(table) * len(halves) * models, row(MEASURE, -1.0, n=m)
    for name, scores in table.items():
        order = np.argsort(np.atleast_2d(scores)[:, shuffled], axis=1, kind="stable")
        right = np.take_along_axis(truth, order, axis=1)
        for half in sorted(halves):
            # the model with the most right guesses has the largest bound of this attack and this r
            correct = int(((~right[:, :half]).sum(axis=1) + right[:, m - half :].sum(axis=1)).max())
            epsilon = metrics.one_run_epsilon(m, 2 * half, correct, delta, (1 - level) / tries)
            if epsilon > best["value"]:
                said = f"{correct:,} of {2 * half:,} guesses right, δ = {delta:.3g}, {100 * level:g} % confidence"
                said += f" in the best of {models} models" if models > 1 else ""
                best = row(MEASURE, epsilon, n=m, attack=name, note=f"{said}, corrected for {tries:,} tries")
    return best
