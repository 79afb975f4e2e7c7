"""Location30 (Shokri et al. 2017): which places in Bangkok a user checked in at; the class is one of 30 kinds of user.

No SHA-256 is published for the archive, so none is pinned: row count, width and labels are checked, and the provenance
gives the digest of the file that was read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from relaxloss.data.dataset import Array, sources
from relaxloss.data.published.archives import Upstream, read_bits, tar_member


@sources.register("location30")
@dataclass(frozen=True)
class Location30(Upstream):
    """5,010 users × 446 places and place types, 30 classes."""

    about = "Location30: 5,010 users x 446 places and place types (bits), 30 kinds of user (Shokri et al. 2017)"
    urls = ("https://github.com/privacytrustlab/datasets/raw/master/dataset_location.tgz",)
    shape = (5_010, 446)
    num_classes = 30

    def read(self, path: Path) -> tuple[Array, Array]:
        """``bangkok``: the label in quotes, 1 to 30, then the bits."""
        with tar_member(path, "bangkok") as stream:
            x, y = read_bits(stream, self.shape[1], labelled=True)
        return x, y - 1
