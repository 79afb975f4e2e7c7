"""What release-time defenses share: the network beneath, chance drawn from a query's content, and the kept label.

A release that draws afresh for each query is averaged away by asking again. So the chance is a function of the query:
a keyed hash (BLAKE2b) of the row's values. The key comes from the task's seed and is saved with the release: who knows
the seed or holds the file can repeat the draws, so both are as secret as the split. Rows that differ in any value have
independent draws: an attacker who may ask for near-copies of a row can still average over them.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from relaxloss import seeds
from relaxloss.errors import UserError
from relaxloss.training.task import Network, Task

KEY = 32  # bytes


def secret_key(task: Task | None, name: str) -> torch.Tensor:
    """The defense's key from the task's seed, uint8 ``(32,)``; zeros for a shell without a task."""
    key = seeds.rng(task.seed, name, "key").bytes(KEY) if task else bytes(KEY)
    return torch.from_numpy(np.frombuffer(key, np.uint8).copy())


def digests(x: torch.Tensor, key: torch.Tensor) -> list[bytes]:
    """16 bytes of keyed BLAKE2b for each row of `x` ``(B, ...)``; rows that are equal in value have equal digests."""
    values = x.detach().to("cpu", torch.float32).flatten(1) + 0.0  # uint8 1 and float 1.0, -0.0 and 0.0 are the same
    rows = torch.where(values.isnan(), torch.nan, values).numpy()
    secret = key.cpu().numpy().tobytes()
    return [hashlib.blake2b(row, key=secret, digest_size=16).digest() for row in rows]


def uniforms(hashed: list[bytes]) -> npt.NDArray[np.float64]:
    """One number in [0, 1) for each digest ``(B,)``."""
    words = np.frombuffer(b"".join(hashed), "<u8").reshape(-1, 2)[:, 0]
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def beneath(release: nn.Module) -> Network:
    """The network inside a release, however many releases are around it."""
    for module in release.modules():
        if isinstance(module, Network):
            return module
    raise UserError(f"got a {type(release).__name__}; expected a relaxloss Network, or a release around one")


def keep_label(output: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """`output` ``(B, C)`` with ``argmax(1) == label``: where rounding made a tie, the label's entry is one ulp up."""
    top, answered = output.max(1)
    own = output.gather(1, label[:, None])[:, 0]
    above = torch.nextafter(top, torch.full_like(top, torch.inf))
    return output.scatter(1, label[:, None], torch.where(answered == label, own, above)[:, None])
