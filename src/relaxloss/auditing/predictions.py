"""Predictions of any framework's model on members and non-members: arrays in, checked log-probabilities or logits out.

Everything that can be wrong with them is found here, once, so that nothing behind this file checks again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from relaxloss import validation
from relaxloss.errors import UserError, unknown

Kind = Literal["auto", "probs", "logits"]
Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

KINDS = ("auto", "probs", "logits")
FEWEST_ROWS = 10
MOST_CLASSES = 10_000
TOLERANCE = 1e-3  # by which a row of probabilities may miss a sum of 1


@dataclass(frozen=True, eq=False)
class Predictions:
    """What one model, and perhaps K shadow models, answered for N samples.

    Attributes:
        logits: ``(N, C)`` float64; log-probabilities if probabilities were given, so ``-inf`` is legal.
        labels: ``(N,)`` the true classes' places among the C columns.
        member: ``(N,)`` whether the model was trained on the sample.
        classes: the C names.
        kind: what was given, ``probs`` or ``logits``; ``answers``: the model itself, to be asked.
        ids: ``(N,)`` the samples' own names, or their persons' where these have several; None: they have none.
        shadow_logits: ``(K, N, C)``; K = 0 without shadows, and where an `Evidence` holds their answers.
        shadow_member: ``(K, N)`` which shadow was trained on which sample.
        groups: ``(N,)`` the person that each sample is of, as numbers; None: each is of another.
        notes: what was decided in reading, in sentences.
        source: where they came from: for a file its name, size and sha256.
    """

    logits: Floats
    labels: Ints
    member: Bools
    classes: tuple[str, ...]
    kind: Literal["probs", "logits", "answers"]
    ids: npt.NDArray[np.str_] | None
    shadow_logits: Floats
    shadow_member: Bools
    groups: Ints | None = None
    notes: tuple[str, ...] = ()
    source: Mapping[str, Any] = field(default_factory=dict)

    @property
    def persons(self) -> Ints:
        """Whose sample each is ``(N,)``: each of another where there are no `groups`."""
        return np.arange(len(self.member)) if self.groups is None else self.groups


def of_arrays(
    outputs: Any,
    labels: Any,
    member: Any,
    *,
    kind: Kind = "auto",
    classes: Sequence[str] | None = None,
    ids: Any = None,
    groups: Any = None,
    shadow_outputs: Any = None,
    shadow_member: Any = None,
    where: str = "",
    source: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> Predictions:
    """Check everything and put it into one form.

    Args:
        outputs: ``(N, C)`` probabilities or logits; one column, or ``(N,)``: of class 1 of two.
        labels: ``(N,)`` the true classes: names in `classes`, or places from 0.
        member: ``(N,)`` true for the samples that the model was trained on; also 0 and 1, or words.
        kind: ``auto``: probabilities if all numbers lie in 0..1 and every row sums to 1 within 0.001, else logits.
        classes: the columns' names.
        ids: ``(N,)`` names of the samples, all different.
        groups: ``(N,)`` whose sample each is, where persons have several: names or numbers.
        shadow_outputs: ``(K, N, C)``, of the same kind.
        shadow_member: ``(K, N)`` booleans.
        where: what starts each message: the file.
        source: see `Predictions`.
        notes: what was decided before.

    Raises `UserError`, in one paragraph: what was got, what was expected, what to do.
    """
    at = f"{where}: " if where else ""
    if kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    values = validation.numbers(outputs, f"{at}the predictions", (1, 2))
    n, samples = len(values), np.size(member)
    if values.ndim == 2 and n != samples == values.shape[1]:
        raise UserError(
            f"{at}got predictions {values.shape} for {samples} samples; expected one row per sample and one column per "
            "class: are they transposed?"
        )
    if n < FEWEST_ROWS:
        turned = " (is the array transposed?)" if values.ndim == 2 and values.shape[1] >= FEWEST_ROWS else ""
        raise UserError(
            f"{at}got {n} samples, an array {values.shape}{turned}; expected at least {FEWEST_ROWS} rows, one per "
            "sample: an audit that tells anything has 100s"
        )
    values = values.reshape(n, -1)
    if not 1 <= values.shape[1] <= MOST_CLASSES:
        raise UserError(
            f"{at}got predictions of shape {values.shape}; expected 1 to {MOST_CLASSES:,} classes: "
            "one row per sample and one column per class (are they transposed, or are there columns that are no class?)"
        )
    flags = validation.membership(validation.column(member, n, f"{at}member"), f"{at}member")
    found, taken = _kind_of(values, kind, at)
    codes, names, said = validation.labels(validation.column(labels, n, f"{at}labels"), values.shape[1], classes, at)
    own = None if ids is None else validation.ids(validation.column(ids, n, f"{at}ids"), at)
    shadows, has = _shadows(shadow_outputs, shadow_member, values.shape, found, at)
    persons = None
    if groups is not None:
        persons, called = validation.groups(validation.column(groups, n, f"{at}groups"), flags, has, at)
        own = called[persons] if own is None or len(called) < n else own
        said = [
            *said,
            f"The {n:,} samples are of {len(called):,} persons (or groups), who are asked about with all of theirs: an "
            "attack's score of a person is the mean of the samples', and with rows=max the largest.",
        ]
    everything = (*taken, *said, *notes)
    return Predictions(
        _as_logits(values, found), codes, flags, names, found, own, shadows, has, persons, everything, source or {}
    )


def of_groups(
    outputs: Mapping[str, tuple[Any, Any]],
    labels: tuple[Any, Any],
    *,
    shadows: Any = None,
    classes: Sequence[str] | None = None,
    ids: Any = None,
    groups: Any = None,
) -> Predictions:
    """The predictions of `auditing.audit`'s arguments: by kind a pair (members', non-members')."""
    kinds = [kind for kind, pair in outputs.items() if any(part is not None for part in pair)]
    if len(kinds) != 1:
        got = "both logits and probabilities" if kinds else "neither logits nor probabilities"
        raise UserError(
            f"got {got}; expected one kind: give member_logits and nonmember_logits, or member_probs and "
            "nonmember_probs"
        )
    kind, parts, columns = kinds[0], [], []
    for group, values, own in zip(("member", "nonmember"), outputs[kinds[0]], labels, strict=True):
        if values is None:
            raise UserError(
                f"got no {group}_{kind}; expected (n, C) numbers for members and for non-members: give both"
            )
        part = validation.numbers(values, f"{group}_{kind}", (1, 2))
        parts.append(part[:, None] if part.ndim == 1 else part)
        columns.append(validation.column(own, len(part), f"{group}_labels"))
    if parts[0].shape[1] != parts[1].shape[1]:
        raise UserError(
            f"member_{kind} have {parts[0].shape[1]} classes and nonmember_{kind} {parts[1].shape[1]}; expected the "
            "same columns in the same order: ask the same model about both groups"
        )
    both, member = np.concatenate(columns), np.repeat([True, False], [len(part) for part in parts])
    values = np.concatenate(parts)
    digest = hashlib.sha256()
    for array in (values, both.astype(str), member):
        digest.update(array.tobytes())
    shadow_outputs, shadow_member = _stacked(shadows, both)
    source = {"file": "arrays in memory", "bytes": values.nbytes, "sha256": digest.hexdigest()}
    return of_arrays(
        values, both, member, kind="probs" if kind == "probs" else "logits", classes=classes, ids=ids, groups=groups,
        shadow_outputs=shadow_outputs, shadow_member=shadow_member, source=source,
    )  # fmt: skip


def summing(values: Floats) -> Bools:
    """Which rows ``(N, C)`` sum to 1 as probabilities: nearly, or as near as rounding to 1 to 4 digits explains."""
    with np.errstate(invalid="ignore"):  # infinities are refused later
        missed = np.abs(values.sum(axis=1) - 1)
        if (missed <= TOLERANCE).all() or not ((values >= 0) & (values <= 1)).all():
            return np.asarray(missed <= TOLERANCE)
    for digits in (1, 2, 3, 4):
        scaled = values * 10.0**digits
        if (np.abs(scaled - np.round(scaled)) < 1e-6).all():
            rounded = min(0.5 * values.shape[1] / 10**digits, 0.5)  # 0s and 1s of several labels are not rounded
            return np.asarray(missed <= max(TOLERANCE, rounded + 1e-9))
    return np.asarray(missed <= TOLERANCE)


def _kind_of(values: Floats, kind: Kind, at: str) -> tuple[Literal["probs", "logits"], list[str]]:
    """Probabilities or logits, and the sentence that says which were taken."""
    outside = (values < 0) | (values > 1)
    sums = values.sum(axis=1)
    off = ~summing(values) if values.shape[1] > 1 else np.zeros(len(values), bool)
    several = values.shape[1] > 1
    if kind != "logits" and outside.any() and (values >= 0).all() and (values <= 100 * (1 + TOLERANCE)).all():
        hundred = (np.abs(sums - 100) <= 100 * TOLERANCE).all() if several else True
        if hundred:
            seen = "every row sums to 100" if several else "the numbers go from 0 to 100 and none is negative"
            raise UserError(
                f"{at}{seen}, so that they look like per cent; expected probabilities{' that sum to 1' * several}: "
                "divide them by 100 (if they are logits after all, say --kind logits, or member_logits=)"
            )
    if kind == "probs" or (kind == "auto" and not outside.any() and off.mean() < 0.5):
        if outside.any():
            rows = np.flatnonzero(outside.any(axis=1))
            odd = values[rows[0]][outside[rows[0]]][0]
            raise UserError(
                f"{at}expected probabilities, got {odd:.4g} in row {rows[0] + 1} and numbers outside 0..1 in "
                f"{len(rows):,} of {len(values):,} rows: these look like logits (say --kind logits, or member_logits=)"
            )
        if off.any():
            row = int(off.argmax())
            raise UserError(
                f"{at}expected probabilities, but {int(off.sum()):,} of {len(values):,} rows do not sum to 1 (the "
                f"first: row {row + 1}, {sums[row]:.4g}): is a class's column missing, or one too many? Give every "
                "class its column, or normalise the rows"
            )
        seen = ": all lie in 0..1" + (", and every row sums to 1." if values.shape[1] > 1 else ".")
        return "probs", ["The numbers were taken as probabilities" + (", as said." if kind == "probs" else seen)]
    if values.shape[1] > 1 and not outside.any() and not off.any():
        raise UserError(
            f"{at}expected logits, but all numbers lie in 0..1 and every row sums to 1: these are probabilities (say "
            "--kind probs, or member_probs=)"
        )
    said = "The numbers were taken as logits" + (", as said." if kind == "logits" else ": they are no probabilities.")
    if not outside.any() and values.shape[1] > 1:
        said += " But all lie in 0..1, and rows do not sum to 1: if each class has a probability of its own, normalise."
    if (dead := np.isneginf(values).all(axis=1)).any():
        raise UserError(
            f"{at}row {int(dead.argmax()) + 1} is -inf in every class; expected at least one finite logit in each row"
        )
    return "logits", [said]


def _as_logits(values: Floats, kind: str) -> Floats:
    """``(..., 1 or C)`` as logits or log-probabilities of at least two classes."""
    with np.errstate(divide="ignore"):  # log 0 = -inf is meant
        if values.shape[-1] > 1:
            return np.log(values) if kind == "probs" else values
        other = np.log1p(-values) if kind == "probs" else np.zeros_like(values)
        return np.concatenate([other, np.log(values) if kind == "probs" else values], axis=-1)


def _shadows(outputs: Any, member: Any, shape: tuple[int, ...], kind: str, at: str) -> tuple[Floats, Bools]:
    n, columns = shape
    if outputs is None and member is None:
        return np.zeros((0, n, max(columns, 2))), np.zeros((0, n), bool)
    if outputs is None or member is None:
        has, lacks = ("membership", "predictions") if outputs is None else ("predictions", "membership")
        raise UserError(f"{at}got the shadows' {has} without their {lacks}; expected both, or neither")
    values = validation.numbers(outputs, f"{at}the shadows' predictions", (2, 3))
    if values.ndim == 2:
        values = values[..., None]
    if len(values) == 0:
        raise UserError(f"{at}got 0 shadow models; expected at least one, or leave the shadows out")
    if values.shape[1:] != (n, columns):
        raise UserError(
            f"{at}the shadows' predictions have shape {values.shape}; expected (K, {n}, {columns}): every shadow "
            "answers for the same samples in the same order (members first, then non-members), with the same classes"
        )
    flags = validation.as_array(member, f"{at}the shadows' membership")
    if flags.shape != (len(values), n):
        raise UserError(
            f"{at}the shadows' membership has shape {flags.shape}; expected {(len(values), n)}, one row per shadow"
        )
    if flags.dtype.kind not in "biu" or not ((flags == 0) | (flags == 1)).all():
        raise UserError(
            f"{at}the shadows' membership is {flags.dtype}; expected true and false (or 0 and 1): which shadow was "
            "trained on which sample"
        )
    for place, block in enumerate(values):
        _kind_of(block, "probs" if kind == "probs" else "logits", f"{at}shadow {place + 1}: ")
    return _as_logits(values, kind), flags.astype(bool)


def _stacked(shadows: Any, labels: npt.NDArray[Any]) -> tuple[Any, Any]:
    """The shadows' outputs ``(K, N, C)`` and membership ``(K, N)`` from either form."""
    if shadows is None:
        return None, None
    if isinstance(shadows, tuple) and len(shadows) == 2:
        return shadows
    outputs: list[Floats] = []
    members = []
    for place, item in enumerate(shadows):
        what = f"shadow {place + 1}"
        if not isinstance(item, (tuple, list)) or len(item) != 3:
            raise UserError(
                f"{what} is a {type(item).__name__}; expected a list of triples (outputs, labels, member), or one "
                "pair of arrays (K, N, C) and (K, N): give one of the two"
            )
        values = validation.numbers(item[0], f"{what}'s outputs", (1, 2))
        own = validation.as_array(item[1], f"{what}'s labels")
        if len(values) != len(labels) or not np.array_equal(own, labels):
            raise UserError(
                f"{what} has {len(values)} outputs and other labels than the target ({len(labels)} samples); expected "
                "answers for the same samples in the same order: members first, then non-members"
            )
        if outputs and values.shape != outputs[0].shape:
            raise UserError(
                f"{what} has outputs {values.shape}, the first has {outputs[0].shape}; expected equal shapes: give "
                "every shadow the same classes"
            )
        outputs.append(values)
        members.append(validation.as_array(item[2], f"{what}'s membership"))
    if not outputs:
        raise UserError("got 0 shadow models; expected at least one, or shadows=None: leave them out")
    if len({each.shape for each in members}) > 1:
        raise UserError("the shadows' memberships have different lengths; expected one value per sample in each")
    return np.stack(outputs), np.stack(members)
