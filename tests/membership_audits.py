"""Small simulated audits, shared by the tests of the metrics."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st

LEVELS = st.sampled_from([-math.inf, -2.0, -1.0, -0.5, 0.0, 0.25, 1.0, 3.0, math.inf])


@st.composite
def audits(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Few samples with many ties and infinities, both groups present."""
    member = draw(st.lists(st.booleans(), min_size=2, max_size=30).filter(lambda m: any(m) and not all(m)))
    return np.array(draw(st.lists(LEVELS, min_size=len(member), max_size=len(member)))), np.array(member)


def gaussians(seed: int, n: int, mu: float, step: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    member = np.arange(n) % 2 == 0
    return rounded(rng.normal(size=n) + mu * member, step), member


def rounded(scores: np.ndarray, step: float) -> np.ndarray:
    return np.floor(scores / step) * step if step else scores
