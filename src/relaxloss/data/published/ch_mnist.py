"""CH-MNIST: eight kinds of tissue in colorectal histology tiles (Kather et al. 2016), 64 × 64 as in the paper.

Tiles of one slide may fall on both sides of a random split, so test accuracy flatters; the tiles carry no slide number
to split by.
"""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from relaxloss.data.dataset import Array, sources
from relaxloss.data.published.archives import Upstream
from relaxloss.errors import MissingExtra, UserError

TILE, SIDE = 150, 64


@sources.register("ch_mnist")
@dataclass(frozen=True)
class ChMnist(Upstream):
    """5,000 colour tiles of 150 × 150, resized to 64 × 64 (antialiased bilinear), 8 classes of 625."""

    about = "CH-MNIST: 5,000 histology tiles resized to 64x64, 8 tissue classes (Kather et al. 2016, CC BY 4.0)"
    urls = ("https://zenodo.org/record/53169/files/Kather_texture_2016_image_tiles_5000.zip",)
    sha256 = "936d0b95ae0f04f1f7b18a2b7e8c55776c3e887d102f645bcee752d1a6626a32"
    shape = (5_000, 3, SIDE, SIDE)
    num_classes = 8

    def read(self, path: Path) -> tuple[Array, Array]:
        """Folders ``01_TUMOR`` ... ``08_EMPTY`` give the classes 0 ... 7; tiles in the order of their names."""
        try:
            from PIL import Image, UnidentifiedImageError
        except ImportError:
            raise MissingExtra("ch_mnist (its tiles are TIFF images)", "images") from None
        images, labels = [], []
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                kind = re.fullmatch(r"0([1-8])_[A-Z]+", PurePosixPath(name).parent.name)
                if kind is None or not name.lower().endswith((".tif", ".tiff")):
                    continue
                try:
                    with Image.open(io.BytesIO(archive.read(name)), formats=["TIFF"]) as tile:
                        if tile.size != (TILE, TILE):
                            raise UserError(f"{path}: {name} is {tile.size}; expected {TILE} by {TILE} pixels")
                        small = tile.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
                except UnidentifiedImageError:
                    raise UserError(f"{path}: {name} is no TIFF image; delete the file and try again") from None
                images.append(np.asarray(small))
                labels.append(int(kind[1]) - 1)
        if not images:
            raise UserError(
                f"{path}: holds no tiles; expected eight class folders 01_TUMOR ... 08_EMPTY of TIFF images"
            )
        return np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2)), np.array(labels, np.int64)
