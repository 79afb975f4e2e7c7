"""Named random streams: every use of chance has a name, and its own generator derived from that name.

Streams with different names are independent, so that a defense which draws more numbers, or none, changes neither
the initial weights nor the order of the batches: a neutral defense equals no defense bit for bit.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator

import numpy as np
import torch


def seed(run: int | str, *names: int | str) -> int:
    """A 63-bit seed: the first 8 bytes of SHA-256 over the run and the names, separated by ``/``."""
    text = "/".join(str(part) for part in (run, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(run: int | str, *names: int | str, device: str = "cpu") -> torch.Generator:
    """A torch generator for the named stream."""
    return torch.Generator(device=device).manual_seed(seed(run, *names))


def rng(run: int | str, *names: int | str) -> np.random.Generator:
    """A numpy generator for the named stream."""
    return np.random.default_rng(seed(run, *names))


@contextlib.contextmanager
def isolated(run: int | str, *names: int | str) -> Iterator[None]:
    """Run a block on named streams of the global generators of torch, numpy and Python; then put the caller's back.

    For code that can draw from nothing else: the default initialisation of layers, dropout, a user's own model or
    defense.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    ours, others = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=list(devices)):
            chosen = seed(run, *names)
            torch.manual_seed(chosen)
            np.random.seed(chosen % 2**32)  # noqa: NPY002
            random.seed(chosen)
            yield
    finally:
        np.random.set_state(ours)  # noqa: NPY002
        random.setstate(others)
