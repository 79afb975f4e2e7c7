"""Small files in the formats in which the published data sets come."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from relaxloss.data.dataset import sources
from relaxloss.data.published.archives import Upstream


def bits(rows: int, width: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((rows, width)) < 0.4).astype(np.uint8)


def tar(path: Path, **members: bytes) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name.replace("__", "/"))
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def shrink(monkeypatch: pytest.MonkeyPatch, name: str, rows: int) -> type[Upstream]:
    """The source, expecting `rows` rows instead of the upstream number, and no particular digest."""
    cls = sources[name]
    monkeypatch.setattr(cls, "shape", (rows, *cls.shape[1:]))
    monkeypatch.setattr(cls, "sha256", None)
    return cls


# upstream formats


def write_cifar(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    fine = name == "cifar100"
    counts = {"train.bin": 250, "test.bin": 50} if fine else {f"data_batch_{n}.bin": 10 for n in range(1, 6)}
    counts |= {} if fine else {"test_batch.bin": 10}
    x = rng.integers(0, 256, (sum(counts.values()), 3, 32, 32), np.uint8)
    y = np.arange(len(x)) % (100 if fine else 10)
    members, start = {}, 0
    for member, count in counts.items():
        rows = slice(start, start + count)
        coarse = [rng.integers(0, 20, (count, 1), np.uint8)] if fine else []
        record = np.hstack([*coarse, y[rows, None].astype(np.uint8), x[rows].reshape(count, -1)])
        members[f"folder__{member}"] = record.tobytes()
        start += count
    archive = "cifar-100-binary.tar.gz" if fine else "cifar-10-binary.tar.gz"
    tar(folder / archive, **dict(reversed(members.items())))  # the order in the archive must not matter
    return x, y


def write_bits(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    width, classes = {"purchase100": (600, 100), "location30": (446, 30), "texas100": (6169, 100)}[name]
    x, y = bits(2 * classes, width), np.arange(2 * classes)[::-1] % classes
    if name == "texas100":
        feats = "".join(",".join(map(str, row.tolist())) + "\n" for row in x)
        labels = "".join(f"{label + 1}\n" for label in y)
        tar(folder / "dataset_texas.tgz", texas__100__feats=feats.encode(), texas__100__labels=labels.encode())
    else:
        quote = '"' if name == "location30" else ""
        text = "".join(
            f"{quote}{label + 1}{quote}," + ",".join(map(str, row.tolist())) + "\n"
            for row, label in zip(x, y, strict=True)
        )
        inside, outside = ("bangkok", "location") if quote else ("dataset_purchase", "purchase")
        tar(folder / f"dataset_{outside}.tgz", **{inside: text.encode()})
    return x, y


def write_tiles(folder: Path, name: str, *, each: int = 1) -> tuple[np.ndarray, np.ndarray]:
    kinds = ["TUMOR", "STROMA", "COMPLEX", "LYMPHO", "DEBRIS", "MUCOSA", "ADIPOSE", "EMPTY"]
    x, y = [], []
    with zipfile.ZipFile(folder / "Kather_texture_2016_image_tiles_5000.zip", "w") as archive:
        archive.writestr("__MACOSX/Kather/01_TUMOR/._a.txt", b"no image")
        for label in reversed(range(8)):
            colour = (10 * label, 255 - label, 100)
            content = io.BytesIO()
            Image.new("RGB", (150, 150), colour).save(content, "TIFF")
            for tile in "abcdefgh"[:each]:
                archive.writestr(f"Kather/0{label + 1}_{kinds[label]}/{tile}.tif", content.getvalue())
                x.insert(0, np.broadcast_to(np.array(colour, np.uint8)[:, None, None], (3, 64, 64)))
                y.insert(0, label)
    return np.stack(x), np.array(y)


WRITERS = {
    "cifar10": write_cifar,
    "cifar100": write_cifar,
    "purchase100": write_bits,
    "texas100": write_bits,
    "location30": write_bits,
    "ch_mnist": write_tiles,
}
