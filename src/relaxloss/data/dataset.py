"""The data set: arrays with a name and a provenance, and the sources that bring one into memory."""

from __future__ import annotations

import functools
import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import platformdirs
import torch
from torch import nn

from relaxloss.errors import UserError
from relaxloss.specs import Registry, Spec

Array = npt.NDArray[Any]
Kind = Literal["image", "bits", "table"]

# A category of fewer members is treated as missing: its one-hot weights are all about these few, and a saved model that
# names it would say that one of them was there. Five is what statistics offices ask of a cell of a table.
FEWEST_MEMBERS = 5


@dataclass(frozen=True)
class Column:
    """One column of a table: numeric, or categorical with its categories (then the data hold their codes 0, 1, ...).

    `dates`: numeric, and the numbers are days since 1970-01-01. They enter no fingerprint: training sees numbers.
    `known`: what the encoder needs of it was said beforehand (`described`), so that nothing is taken from the members:
    its categories, or its `bounds`, the least and the largest number.
    """

    name: str
    categories: tuple[str | None, ...] | None = None  # None: of a saved model, a category that it does not name
    dates: bool = field(default=False, repr=False)
    known: bool = field(default=False, repr=False)
    bounds: tuple[float, float] | None = field(default=None, repr=False)

    def written(self, kept: Sequence[bool] = ()) -> list[Any]:
        """As JSON holds it, with None in place of the categories that are not `kept` ``(K,)``, if that is given."""
        named = list(self.categories) if self.categories else None
        if named and kept:
            named = [name if keep else None for name, keep in zip(named, kept, strict=True)]
        known = [True, list(self.bounds) if self.bounds else None] if self.known else []
        return [self.name, named, self.dates, *known]

    @staticmethod
    def read(name: Any, categories: Any, dates: Any = False, known: Any = False, bounds: Any = None) -> Column:
        """From what `written` gave."""
        named = tuple(None if each is None else str(each) for each in categories) if categories else None
        ends = None if bounds is None else (float(bounds[0]), float(bounds[1]))
        return Column(str(name), named, bool(dates), bool(known), ends)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled samples in memory.

    Attributes:
        name: what the data set is called in tables and reports.
        x: ``(M, ...)``: images uint8 ``(M, channels, height, width)``, bits uint8 ``(M, D)`` of 0 and 1, or float32
            ``(M, D)``, where NaN marks a missing value and categorical columns hold codes.
        y: ``(M,)`` int64 in ``0 .. num_classes - 1``.
        num_classes: C.
        provenance: one line on where the data come from and what was done to them.
        columns: the columns of a table, in order; empty for images, bits and plain numeric arrays.
        classes: what the labels 0, 1, ... are called; empty where they have no names.
        groups: ``(M,)`` int64, whose sample each is, where persons have several: any numbers; None: each of another.
            All samples of a person stay together, in or out of a model, and attackers are asked about persons.
    """

    name: str
    x: Array
    y: Array
    num_classes: int
    provenance: str
    columns: tuple[Column, ...] = field(default=(), repr=False)
    classes: tuple[str, ...] = field(default=(), repr=False)
    groups: Array | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        x, y = self.x, self.y
        if x.dtype not in (np.uint8, np.float32):
            raise UserError(f"{self.name}: x has dtype {x.dtype}; expected uint8 (images, bits) or float32")
        if x.ndim not in (2, 4) or 0 in x.shape[1:]:
            raise UserError(
                f"{self.name}: x has shape {x.shape}; expected (M, D), or (M, channels, height, width) for images"
            )
        if x.ndim == 4 and x.dtype != np.uint8:
            raise UserError(
                f"{self.name}: images are {x.dtype}; expected uint8, 0 to 255 (multiply and round, if 0 to 1)"
            )
        if y.shape != (len(x),) or y.dtype != np.int64:
            raise UserError(
                f"{self.name}: y is {y.dtype} {y.shape}; expected int64 ({len(x)},), one label per row of x"
            )
        if len(y) == 0:
            raise UserError(f"{self.name}: the data set is empty; expected at least one sample")
        if y.min() < 0 or y.max() >= self.num_classes:
            raise UserError(
                f"{self.name}: labels run from {y.min()} to {y.max()}; expected 0 to {self.num_classes - 1} "
                f"for {self.num_classes} classes"
            )
        if self.kind == "bits" and x.max() > 1:
            raise UserError(
                f"{self.name}: x is uint8 (M, D) and holds {x.max()}; expected bits (0, 1), or float32 values"
            )
        if x.dtype == np.float32 and np.isinf(x).any():
            raise UserError(f"{self.name}: x holds infinite values; replace them, or mark them missing with NaN")
        whose = self.groups
        if whose is not None and not (
            isinstance(whose, np.ndarray) and whose.shape == y.shape and whose.dtype == np.int64
        ):
            got = f"{whose.dtype} {whose.shape}" if isinstance(whose, np.ndarray) else type(whose).__name__
            raise UserError(
                f"{self.name}: groups is {got}; expected int64 ({len(y)},), the person of each row as a number, such "
                "as numpy.unique(names, return_inverse=True)[1]"
            )
        self._check_names()

    def _check_names(self) -> None:
        if self.classes and len(self.classes) != self.num_classes:
            raise UserError(
                f"{self.name}: got names of {len(self.classes)} classes; expected {self.num_classes}, one per class"
            )
        if len(set(self.classes)) < len(self.classes):
            twice = next(name for name in self.classes if self.classes.count(name) > 1)
            raise UserError(f"{self.name}: two classes are called {twice!r}; expected a name of its own for each")
        if not self.columns:
            return
        if self.kind != "table" or len(self.columns) != self.x.shape[1]:
            raise UserError(
                f"{self.name}: got {len(self.columns)} columns for x of {self.x.dtype} {self.x.shape}; "
                "expected one column per feature of a float32 table"
            )
        for index, column in enumerate(self.columns):
            if column.categories is not None:
                codes = self.x[:, index]
                codes = codes[~np.isnan(codes)]
                if ((codes < 0) | (codes >= len(column.categories)) | (codes != np.floor(codes))).any():
                    raise UserError(
                        f"{self.name}: column {column.name!r} holds codes outside its categories; "
                        f"expected whole numbers from 0 to {len(column.categories) - 1}, or NaN"
                    )
            if column.known and column.categories is None and column.bounds is None:
                raise UserError(
                    f"{self.name}: column {column.name!r} of numbers is said to be known, and has no bounds; expected "
                    "Column(..., known=True, bounds=(low, high))"
                )
            if column.bounds is not None:
                low, high = column.bounds
                if ((self.x[:, index] < low) | (self.x[:, index] > high)).any():
                    raise UserError(
                        f"{self.name}: column {column.name!r} holds values beyond its bounds; expected {low:g} to "
                        f"{high:g}, or NaN: clip them"
                    )

    def __len__(self) -> int:
        return len(self.y)

    @property
    def kind(self) -> Kind:
        """What a sample is: an image, a row of bits, or a row of numbers and categories."""
        if self.x.ndim == 4:
            return "image"
        return "bits" if self.x.dtype == np.uint8 else "table"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one encoded sample: what the network's first layer receives."""
        if self.kind != "table" or not self.columns:
            return tuple(self.x.shape[1:])
        return (sum(len(column.categories) if column.categories else 1 for column in self.columns),)

    @functools.cached_property
    def persons(self) -> Array:
        """Whose sample each is ``(M,)``, as numbers from 0; each of another where there are no `groups`."""
        return np.arange(len(self)) if self.groups is None else np.unique(self.groups, return_inverse=True)[1]

    @functools.cached_property
    def counts(self) -> Array:
        """How many samples each person has ``(P,)``."""
        return np.bincount(self.persons)

    @property
    def num_persons(self) -> int:
        """P, how many persons the samples are of."""
        return len(self.counts)

    def samples_of(self, persons: Array) -> Array:
        """The places of all samples of the given persons, in ascending order."""
        return np.flatnonzero(np.isin(self.persons, persons))

    def persons_with(self, codes: Array, rows: Array, size: int) -> Array:
        """How many persons have each of the `codes` ``(n,)``, from 0 to ``size - 1``, in the given rows ``(n,)``."""
        pairs = np.unique(codes.astype(np.int64) * self.num_persons + self.persons[rows])
        return np.bincount(pairs // self.num_persons, minlength=size)

    @property
    def most_of_one(self) -> int:
        """The most samples that one person has."""
        return int(self.counts.max())

    @functools.cached_property
    def fingerprint(self) -> str:
        """24 hex digits of SHA-256 over everything that splits and training can see."""
        digest = hashlib.sha256()
        digest.update(repr((self.x.shape, self.x.dtype.str, self.num_classes, self.columns)).encode())
        if any(column.categories for column in self.columns):
            digest.update(f"rarer than {FEWEST_MEMBERS} is missing".encode())
        if any(column.known for column in self.columns):
            digest.update(repr([(column.known, column.bounds) for column in self.columns]).encode())
        digest.update(np.ascontiguousarray(self.x).tobytes())
        digest.update(np.ascontiguousarray(self.y).tobytes())
        if self.groups is not None:
            digest.update(self.persons.tobytes())
        return digest.hexdigest()[:24]

    def encoder(self, members: Array) -> Encoder:
        """The module that turns rows of `x` into the network's input, fitted on the rows `members` only."""
        return Encoder.fit(self, members)


class Encoder(nn.Module):
    """Raw rows → network input, as a part of the released model.

    Images: ``(x / 255 - 0.5) / 0.25``, constants that say nothing about anybody. Bits: as floats. Tables: numeric
    columns standardised with the members' mean and deviation (0 where all members are alike, whatever comes later),
    missing values replaced by the members' mean; categorical columns one-hot, where a category that fewer than 5
    members have is all zeros, as is a missing one. Of columns that are known beforehand nothing is fitted: the middle
    of the range stands for the mean, the deviation of a uniform distribution over it for the deviation, and every
    category is kept.
    """

    offset: torch.Tensor
    scale: torch.Tensor
    seen: torch.Tensor

    def __init__(self, offset: torch.Tensor, scale: torch.Tensor, seen: torch.Tensor, sizes: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("offset", offset)
        self.register_buffer("scale", scale)
        self.register_buffer("seen", seen)
        self.sizes = tuple(sizes)  # categories per column, 0 for a numeric one; empty without categorical columns

    @staticmethod
    def blank(dataset: Dataset) -> Encoder:
        """An encoder of the data set's shape with nothing fitted: what a saved state is loaded into."""
        sizes = [len(column.categories or ()) for column in dataset.columns]
        if dataset.kind == "image":
            return Encoder(torch.tensor(127.5), torch.tensor(63.75), torch.ones(0, dtype=torch.bool), ())
        if dataset.kind == "bits":
            return Encoder(torch.tensor(0.0), torch.tensor(1.0), torch.ones(0, dtype=torch.bool), ())
        width = dataset.x.shape[1]
        used = sizes if any(sizes) else ()
        return Encoder(torch.zeros(width), torch.ones(width), torch.ones(sum(used), dtype=torch.bool), used)

    @staticmethod
    def fit(dataset: Dataset, members: Array) -> Encoder:
        """Statistics of the member rows; see the class."""
        encoder = Encoder.blank(dataset)
        if dataset.kind != "table":
            return encoder
        x = dataset.x[members].astype(np.float64)
        known = ~np.isnan(x)
        count = np.maximum(known.sum(0), 1)
        mean = np.where(known, x, 0).sum(0) / count
        deviation = np.sqrt(np.where(known, (x - mean) ** 2, 0).sum(0) / count)
        encoder.offset.copy_(torch.from_numpy(mean))
        # Exactly 0 for a constant column, as float32 values sum exactly in float64: no weight of it was trained, and
        # whatever else it holds later must not meet one, so that it is encoded as 0 (a difference over infinity).
        scale = deviation.astype(np.float32)
        encoder.scale.copy_(torch.from_numpy(np.where(scale > 0, scale, np.inf)))
        start = 0
        for column, about in enumerate(dataset.columns):
            if about.categories:
                encoder.offset[column], encoder.scale[column] = 0, 1  # the mean of codes is nothing's, and no use
                size = len(about.categories)
                if not about.known:
                    has = known[:, column]
                    members_of = dataset.persons_with(x[has, column], members[has], size)
                    encoder.seen[start : start + size] = torch.from_numpy(members_of >= FEWEST_MEMBERS)
                start += size
            elif about.bounds is not None:
                low, high = about.bounds
                encoder.offset[column], encoder.scale[column] = (low + high) / 2, (high - low) / math.sqrt(12)
        return encoder

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, ...)`` raw → ``(B, ...)`` float32."""
        numeric = (x.to(torch.float32) - self.offset) / self.scale
        if x.ndim == 2:
            numeric = torch.nan_to_num(numeric)  # the mean is 0 here
        if not self.sizes:
            return numeric
        pieces, start = [], 0
        for column, size in enumerate(self.sizes):
            if not size:
                pieces.append(numeric[:, column : column + 1])
                continue
            codes = torch.arange(size, device=x.device, dtype=x.dtype)
            hot = (x[:, column : column + 1] == codes) & self.seen[start : start + size]
            pieces.append(hot.to(torch.float32))
            start += size
        return torch.cat(pieces, 1)


@dataclass(frozen=True)
class Source(Spec):
    """Where a named data set comes from. A source overrides `fetch`, and says in `about` what it is, in one line.

    `load` first looks for a prepared ``<name>.npz`` in the data directory, so that a file which is already there is
    used and nothing is downloaded; else it calls `fetch` and, unless `embedded`, writes that file for the next time.
    With `num_classes`, a prepared file may lack some of the classes and still means the same labels.
    """

    about: ClassVar[str] = ""
    num_classes: ClassVar[int | None] = None
    embedded: ClassVar[bool] = False

    def file(self) -> str:
        """The name of the upstream file in the data directory; empty where it is not just one file."""
        return ""

    def fetch(self, folder: Path) -> Dataset:
        """Bring the upstream files into `folder` (verified, never extracted onto the disk) and read them."""
        raise NotImplementedError


sources: Registry[Source] = Registry("data set", "relaxloss.data.published")


def directory() -> Path:
    """The data directory: ``$RELAXLOSS_DATA``, or the platform's user cache."""
    given = os.environ.get("RELAXLOSS_DATA")
    return Path(given).expanduser() if given else Path(platformdirs.user_cache_dir("relaxloss")) / "data"
