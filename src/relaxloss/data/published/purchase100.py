"""Purchase100 (Shokri et al. 2017): what customers bought, in 100 purchase styles found by clustering.

No SHA-256 is published for the archive, so none is pinned: row count, width and labels are checked, and the provenance
gives the digest of the file that was read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from relaxloss.data.dataset import Array, sources
from relaxloss.data.published.archives import Upstream, read_bits, tar_member


@sources.register("purchase100")
@dataclass(frozen=True)
class Purchase100(Upstream):
    """197,324 customers × 600 products, 100 classes."""

    about = "Purchase100: 197,324 customers x 600 products (bits), 100 purchase styles (Shokri et al. 2017)"
    urls = (
        "https://github.com/privacytrustlab/datasets/raw/master/dataset_purchase.tgz",
        "https://www.comp.nus.edu.sg/~reza/files/dataset_purchase.tgz",
    )
    shape = (197_324, 600)
    num_classes = 100

    def read(self, path: Path) -> tuple[Array, Array]:
        """``dataset_purchase``: label 1 to 100, then the bits."""
        with tar_member(path, "dataset_purchase") as stream:
            x, y = read_bits(stream, self.shape[1], labelled=True)
        return x, y - 1
