"""A torch data set's samples, or a pair of arrays, checked and in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, default_collate
from torch.utils.data import Dataset as TorchDataset

from relaxloss import validation
from relaxloss.errors import UserError, one_line
from relaxloss.signals import TWICE

Array: TypeAlias = npt.NDArray[Any]
FORMS = "a pair (x, y) of arrays, or a torch Dataset of such pairs (x may be a mapping of a model's named inputs)"


@dataclass(frozen=True, eq=False)
class Samples(TorchDataset[Any]):
    """Samples in memory; as a data set, pairs (x, y).

    Attributes:
        x: by the names of the model's arguments, ``(n, ...)`` each; one without a name is called "".
        dtypes: as what torch has them, where numpy has no such type.
        y: ``(n, ...)`` what was given as labels.
    """

    x: dict[str, Array]
    dtypes: dict[str, torch.dtype]
    y: Array

    @property
    def labels(self) -> Array:
        """``(n,)``"""
        return self.y.reshape(len(self.y))

    @property
    def bytes(self) -> npt.NDArray[np.uint8]:
        """Something ``(n, D)`` that is equal where samples are."""
        flat = [np.ascontiguousarray(each).reshape(len(each), -1) for each in self.x.values()]
        return np.concatenate([each.view(np.uint8) for each in flat], axis=1)

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, place: int) -> tuple[Any, Any]:
        row = {key: each[0] for key, each in self.tensors(slice(place, place + 1)).items()}
        y = self.y[place]
        return row.get("", row), torch.as_tensor(np.array(y)) if self.y.dtype.kind in "fiub" else y

    def tensors(self, places: Any) -> dict[str, torch.Tensor]:
        """The inputs of the samples at these places."""
        return {key: torch.from_numpy(np.array(each[places])).to(self.dtypes[key]) for key, each in self.x.items()}

    def at(self, places: npt.NDArray[np.int64]) -> Samples:
        """Some of the samples."""
        return replace(self, x={key: each[places] for key, each in self.x.items()}, y=self.y[places])

    def joined(self, other: Samples) -> Samples:
        """And those of the other."""
        if self.form != other.form:
            raise UserError(f"members have {self.form} and non-members {other.form}; expected the same of a sample")
        x = {key: np.concatenate([each, other.x[key]]) for key, each in self.x.items()}
        return replace(self, x=x, y=np.concatenate([self.y, other.y]))

    @property
    def form(self) -> str:
        """Types and shapes."""
        told = [
            f"x{f'[{key!r}]' if key else ''} {self.dtypes[key]} {('N', *each.shape[1:])}"
            for key, each in self.x.items()
        ]
        return f"{', '.join(told)} and y {self.y.dtype.kind} {('N', *self.y.shape[1:])}".replace("'N'", "N")


def read(samples: Any, what: str) -> Samples:
    """The samples in memory."""
    if isinstance(samples, DataLoader):
        raise UserError(f"got a DataLoader as {what}; expected its data set, in a fixed order: give loader.dataset")
    if isinstance(samples, IterableDataset):
        raise UserError(f"got an IterableDataset as {what}, which has no order; expected {FORMS}: read it first")
    if isinstance(samples, TensorDataset):
        samples = samples.tensors
    if isinstance(samples, (tuple, list)) and len(samples) == 2:
        x, y = samples
    elif hasattr(samples, "__getitem__") and hasattr(samples, "__len__") and not isinstance(samples, (tuple, Mapping)):
        x, y = _collated(samples, what)
    else:
        many = f" of {len(samples)}" if isinstance(samples, (tuple, Mapping)) else ""
        raise UserError(f"got a {type(samples).__name__}{many} as {what}; expected {FORMS}")
    given = {str(key): each for key, each in x.items()} if isinstance(x, Mapping) else {"": x}
    labels = validation.as_array(y, f"{what}: y")
    n = len(labels) if labels.ndim else 0
    validation.column(labels, n, f"{what}: y")
    if not given:
        raise UserError(f"{what}: x holds no inputs; expected at least one")
    arrays, dtypes = {}, {}
    for key, each in given.items():
        array = arrays[key] = validation.as_array(each, f"{what}: x")
        named = f"{what}: x{f'[{key!r}]' if key else ''}"
        if array.dtype.kind not in "fiub" or array.shape[:1] != (n,):
            raise UserError(f"{named} is {array.dtype} {array.shape}; expected numbers, {n} rows, one per label")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise UserError(f"{named} holds NaN or infinite values; expected finite numbers, as the model takes them")
        dtypes[key] = each.dtype if isinstance(each, torch.Tensor) else torch.from_numpy(array[:0].copy()).dtype
    return Samples(arrays, dtypes, labels)


def _collated(samples: Any, what: str) -> tuple[Any, Any]:
    """All samples of a map-style data set as one batch; refuse one that gives others when it is read again."""
    try:
        pairs = [samples[place] for place in range(len(samples))]
        if isinstance(pairs[0], Mapping):
            raise UserError(
                f"{what} gives mappings with {', '.join(map(str, pairs[0]))}; expected pairs (x, y), with the labels "
                "apart: ({name: values, ...}, labels)"
            )
        x, y = default_collate(pairs)
        again = default_collate([samples[place][0] for place in range(min(len(samples), TWICE))])
    except UserError:
        raise
    except Exception as error:  # of the user's data set
        raise UserError(
            f"{what} cannot be read as pairs (x, y) of one shape: {one_line(error)}; expected {FORMS}: pad or "
            "crop them, or make them tensors"
        ) from None
    both = [(x[key], again[key]) for key in x] if isinstance(x, Mapping) else [(x, again)]
    if not all(torch.equal(one[: len(other)], other) for one, other in both):
        raise UserError(
            f"{what} gives other samples when it is read again: it augments at random, and a member would be asked "
            "about as nobody trained on it; expected the samples as the model is asked in use: give it the transform "
            "of the test, and let fit augment"
        )
    return x, y
