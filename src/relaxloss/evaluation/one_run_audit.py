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
from relaxloss.evaluation.rows import Row, row

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
    all r and all attacks in `table`, scores ``(N,)`` each), so that the best of them may be taken.
    """
    m = len(member)
    if guesses is not None and not 2 <= guesses <= m:
        raise UserError(f"guesses={guesses}; expected 2 to {m}, the number of samples, or None: several are tried")
    halves = {guesses // 2} if guesses is not None else {max(1, int(share * m) // 2) for share in SHARES}
    shuffled = seeds.rng(seed, "one_run").permutation(m)  # ties must not be broken by the order of the samples
    truth = member[shuffled]
    tries, best = len(table) * len(halves), row(MEASURE, -1.0, n=m)
    for name, scores in table.items():
        right = truth[np.argsort(scores[shuffled], kind="stable")]
        for half in sorted(halves):
            correct = int((~right[:half]).sum() + right[m - half :].sum())
            epsilon = metrics.one_run_epsilon(m, 2 * half, correct, delta, (1 - level) / tries)
            if epsilon > best["value"]:
                said = f"{correct:,} of {2 * half:,} guesses right, δ = {delta:g}, {100 * level:g} % confidence"
                best = row(MEASURE, epsilon, n=m, attack=name, note=f"{said}, corrected for {tries} tries")
    return best
