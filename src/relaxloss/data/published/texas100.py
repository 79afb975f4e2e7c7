"""Texas100 (Shokri et al. 2017): hospital stays in Texas; the class is the stay's main procedure, of the 100 commonest.

No SHA-256 is published for the archive, so none is pinned: row count, width and labels are checked, and the provenance
gives the digest of the file that was read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from relaxloss.data.dataset import Array, sources
from relaxloss.data.published.archives import Upstream, read_bits, tar_member
from relaxloss.errors import UserError


@sources.register("texas100")
@dataclass(frozen=True)
class Texas100(Upstream):
    """67,330 hospital stays × 6,169 bits, 100 classes."""

    about = "Texas100: 67,330 hospital stays x 6,169 bits, 100 main procedures (Shokri et al. 2017)"
    urls = (
        "https://github.com/privacytrustlab/datasets/raw/master/dataset_texas.tgz",
        "https://www.comp.nus.edu.sg/~reza/files/dataset_texas.tgz",
    )
    shape = (67_330, 6_169)
    num_classes = 100

    def read(self, path: Path) -> tuple[Array, Array]:
        """``texas/100/feats`` and, row by row beside it, ``texas/100/labels`` (1 to 100)."""
        with tar_member(path, "100/labels") as stream:
            y = np.array([int(label) for label in stream.read().split()], np.int64) - 1
        with tar_member(path, "100/feats") as stream:
            x, _ = read_bits(stream, self.shape[1], labelled=False)
        if len(x) != len(y):
            raise UserError(f"{path}: has {len(x)} rows of features and {len(y)} labels; expected as many of each")
        return x, y
