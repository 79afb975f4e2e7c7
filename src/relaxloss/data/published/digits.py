"""Handwritten digits of 8 × 8 pixels (Alpaydin & Kaynak 1998), as scikit-learn ships them: nothing to download."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from relaxloss.data.dataset import Dataset, Source, sources


@sources.register("digits")
@dataclass(frozen=True)
class Digits(Source):
    """1,797 digits as a table of 64 numbers from 0 to 16, standardised on the members as any table is; 10 classes."""

    about = "digits: 1,797 handwritten digits as 64 numbers from 0 to 16, 10 classes (scikit-learn's copy)"
    num_classes = 10
    embedded = True

    def fetch(self, folder: Path) -> Dataset:
        """From scikit-learn; `folder` stays untouched."""
        from sklearn.datasets import load_digits  # half a second that nobody else should pay

        x, y = load_digits(return_X_y=True)
        return Dataset(self.name, x.astype(np.float32), y.astype(np.int64), 10, self.about)
