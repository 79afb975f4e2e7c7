"""Single records: which of them leak, by how much, and how many would look so by chance.

In a game of several models each record is in some of them and not in others, so that its own models can be compared.
With one target there is one answer per record: how exposed it is among the others, and nothing about itself.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from relaxloss import metrics
from relaxloss.attacks.base import Scores
from relaxloss.attacks.functional.shapes import bounded
from relaxloss.errors import UserError
from relaxloss.evaluation.rows import FPRS, Row, row

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
DISCOVERY = 0.05  # false discovery rate of the records that are said to leak
LEAKING = "leaking_records"
SHOWN = 50  # members listed where there is one target


def vulnerability(margins: Scores, scores: Scores, member: Bools, records: Ints) -> pd.DataFrame:
    """How much each record's own presence moves the models, the most vulnerable first: one line per record.

    Args:
        margins: ``(T, N)`` the true class's logit margin of each record under each of T models.
        scores: ``(T, N)`` an attack's scores, for the accusations.
        member: ``(T, N)`` who was in which model, by a fair coin each.
        records: ``(N,)`` the records' places in the data set.

    Columns: ``rank``; ``record``; ``models_in`` and ``models_out``; ``gap = (mean margin in − mean out) / σ``, with
    one σ for all records, each centred on its own two means; ``auc``, the share of pairs (a model with the record, one
    without) in which the one with it has the larger margin; ``p_value`` of that share, one-sided and exact: the
    probability of so many pairs or more if the record's presence moved nothing (Mann and Whitney 1947; ties count as
    lost, which is on the safe side); ``by_chance = N·p``, how many of N records would look so if nothing leaked; and
    per FPR ``found_at_<fpr>_fpr``, in how many of the models that have the record the attack accuses it at the pooled
    threshold, and ``accused_at_<fpr>_fpr``, in how many of those that lack it (NaN where the FPR is not resolvable).

    The ranks are by `gap`. The first of many is partly luck: measured again on new models it would look less bad.
    Margins and not an attack's scores are compared within a record, because a shadow attack's scores of one record
    are built from the very models that they would be compared across.
    """
    (x,) = bounded(np.asarray(margins, dtype=np.float64))
    inside = member.sum(axis=0)
    outside = len(member) - inside
    both = (inside > 0) & (outside > 0)
    means = [np.einsum("tn,tn->n", x, part) / np.maximum(part.sum(axis=0), 1) for part in (member, ~member)]
    squares = float(np.square(x - np.where(member, *means)).sum())
    freedom = int(np.maximum(inside - 1, 0).sum() + np.maximum(outside - 1, 0).sum())
    sigma = np.sqrt(squares / freedom) if freedom and squares else 1.0
    wins, ties = _pairs(x, member)
    table = pd.DataFrame({"record": records, "models_in": inside, "models_out": outside})
    table["gap"] = np.where(both, (means[0] - means[1]) / sigma, np.nan)
    table["auc"] = np.where(both, (wins + ties / 2) / np.maximum(inside * outside, 1), np.nan)
    table["p_value"] = _p_values(wins, inside, len(member))
    table["by_chance"] = len(table) * table["p_value"]
    others = np.sort(scores[~member])
    for fpr in FPRS:
        hits = np.full((2, len(table)), np.nan)
        if metrics.resolvable(len(others), fpr):
            above = scores > metrics.threshold_at_fpr(scores.reshape(-1), member.reshape(-1), fpr)
            hits[:] = (above & member).sum(axis=0), (above & ~member).sum(axis=0)
        table[f"found_at_{fpr:g}_fpr"], table[f"accused_at_{fpr:g}_fpr"] = hits
    table = table.sort_values(["gap", "record"], ascending=[False, True], na_position="last", ignore_index=True)
    table.insert(0, "rank", np.arange(1, 1 + len(table)))
    return table


def leaking(table: pd.DataFrame) -> Row:
    """How many records of a table of `vulnerability` leak for certain, as a row of the result table.

    The step-up rule of Benjamini and Hochberg (1995) on the p values: of the records counted, 5 % are expected to be
    there by chance.
    """
    p = np.sort(table["p_value"].to_numpy())
    passed = np.flatnonzero(p <= DISCOVERY * np.arange(1, 1 + len(p)) / len(p))
    return row(LEAKING, float(passed[-1] + 1 if len(passed) else 0), n=len(p),
               note=f"false discovery rate {DISCOVERY:g}")  # fmt: skip


def exposed(scores: Scores, member: Bools, records: Ints) -> pd.DataFrame:
    """The members with the highest scores of one target's attack: ``rank, record, score, fpr``, `SHOWN` at most.

    ``fpr`` is the share of non-members that score as high: so many are accused wrongly before the record is. One
    answer per record cannot tell whether its presence moved it: an easy record scores high in any model.
    """
    rank, fpr = exposure(scores, member)
    table = pd.DataFrame({"rank": rank, "record": records, "score": scores, "fpr": fpr})[member]
    return table.sort_values(["rank", "record"], ignore_index=True).head(SHOWN)


def exposure(scores: Scores, member: Bools) -> tuple[Ints, Scores]:
    """Each score's rank among all (1: the highest; ties share the best), and the share of non-members as high."""
    others = np.sort(scores[~member])
    rank = 1 + len(scores) - np.searchsorted(np.sort(scores), scores, "right")
    return rank, (len(others) - np.searchsorted(others, scores, "left")) / len(others)


def most_vulnerable(table: pd.DataFrame, count: int) -> tuple[int, ...]:
    """The `count` records with the largest gaps, in ascending order: without defense, or else under the first listed.

    Over several seeds a record's gap is the mean over those that asked about it.
    """
    if "gap" not in table:
        raise UserError(
            "the run has no table of vulnerable records; expected a finished run of the game random_halves, of which "
            "details/records.csv tells how each record moves the models"
        )
    defense = "none" if (table["defense"] == "none").any() else table["defense"].iloc[0]
    lines = table[table["defense"] == defense]
    lines = lines[lines["settings"] == lines["settings"].iloc[0]]
    gaps = lines.groupby("record")["gap"].mean().dropna().sort_values(ascending=False, kind="stable")
    if not 1 <= count <= len(gaps):
        raise UserError(
            f"got canaries={count}; expected 1 to {len(gaps):,}, the number of records that the run asked about"
        )
    return tuple(sorted(int(record) for record in gaps.index[:count]))


def _pairs(x: Scores, member: Bools) -> tuple[Ints, Ints]:
    """Per record, pairs (model with it, model without it) that the first wins, and ties; in O(T) passes over (T, N)."""
    wins, ties = np.zeros((2, x.shape[1]), dtype=np.int64)
    for own, has in zip(x, member, strict=True):
        wins += has * ((own > x) & ~member).sum(axis=0)
        ties += has * ((own == x) & ~member).sum(axis=0)
    return wins, ties


def _p_values(wins: Ints, inside: Ints, models: int) -> Scores:
    """``P(as many wins or more)`` per record if its presence moved nothing."""
    null = null_of_wins(models)
    found = np.ones(len(wins))
    for size in np.unique(inside):
        mine = inside == size
        found[mine] = null[size][wins[mine]]
    return found


def null_of_wins(models: int) -> list[Scores]:
    """For 0 .. `models` models in and the rest out: ``P(wins >= w)``, w = 0, 1, ..., if all orders are equally likely.

    Mann and Whitney's recursion over the largest value, which is one of the a inside or of the b outside:
    ``P_ab(w) = a/(a+b) P_(a-1)b(w − b) + b/(a+b) P_a(b-1)(w)``.
    """
    found = []
    above: list[Scores] = []
    for a in range(models + 1):
        line = [np.ones(1)]
        for b in range(1, models - a + 1):
            chances = np.zeros(a * b + 1)
            if a:
                chances[b:] += a / (a + b) * above[b]
            chances[: a * (b - 1) + 1] += b / (a + b) * line[b - 1]
            line.append(chances)
        found.append(np.cumsum(line[-1][::-1])[::-1])
        found[-1][0] = 1.0  # which rounding misses
        above = line
    return found
