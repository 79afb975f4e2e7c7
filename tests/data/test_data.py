"""Data sets by name: prepared files, sources read from small files in the upstream format, and the encoder."""

import functools
import http.server
import io
import os
import tarfile
import threading
import zipfile
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from published_files import WRITERS, bits, shrink, tar, write_bits
from relaxloss import data, specs
from relaxloss.data import npz
from relaxloss.data.dataset import Column, Dataset, Encoder, Source, sources
from relaxloss.data.published import archives
from relaxloss.data.published.archives import Upstream
from relaxloss.errors import UserError


@pytest.mark.parametrize("name", WRITERS)
def test_a_source_reads_its_upstream_file_and_prepares_it(name, tmp_path, monkeypatch):
    x, y = WRITERS[name](tmp_path, name)
    shrink(monkeypatch, name, len(x))
    first = data.load(name, folder=tmp_path)
    np.testing.assert_array_equal(first.x, x)
    np.testing.assert_array_equal(first.y, y)
    assert first.num_classes == y.max() + 1
    assert "not pinned" in first.provenance
    for file in tmp_path.iterdir():  # from now on the prepared file is enough
        assert file.name == f"{name}.npz" or file.unlink() is None
    if name == "ch_mnist":
        return  # eight tiles are fewer than the ten rows that a prepared file must have
    again = data.load(name, folder=tmp_path)
    assert (again.fingerprint, again.provenance) == (first.fingerprint, first.provenance)
    assert [file.name for file in tmp_path.iterdir()] == [f"{name}.npz"]


def test_every_source_says_what_it_is():
    names = set(sources.names())
    assert names >= {*WRITERS, "digits"}
    for cls in sources:
        assert cls.about
        if issubclass(cls, Upstream):
            assert all(url.startswith("https://") for url in cls.urls)


def test_tiles_keep_their_content_when_resized(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    big = rng.integers(0, 256, (150, 150, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(big).save(content, "TIFF")
    path = tmp_path / "tiles.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("K/03_COMPLEX/a.tif", content.getvalue())
    x, y = sources["ch_mnist"]().read(path)
    wanted = torch.nn.functional.interpolate(  # another implementation of the antialiased bilinear filter
        torch.from_numpy(big).permute(2, 0, 1)[None].float(), (64, 64), mode="bilinear", antialias=True
    )
    assert np.abs(x[0].astype(float) - wanted[0].numpy()).max() <= 1.5
    assert y.tolist() == [2]


def bad_size(path):
    content = io.BytesIO()
    Image.new("RGB", (10, 10)).save(content, "TIFF")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("01_TUMOR/a.tif", content.getvalue())


def no_tiff(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("01_TUMOR/a.tif", b"text")


def no_tiles(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", b"text")


BIT_ROW = b"1" + b",0" * 446 + b"\n"
BROKEN_UPSTREAM = {
    "truncated tar": (
        "location30",
        lambda path: path.write_bytes(tar(path, bangkok=BIT_ROW * 99).read_bytes()[:60]),
        "read",
    ),
    "no tar": ("location30", lambda path: path.write_bytes(b"<html>404</html>"), "cannot be read"),
    "another file": ("location30", lambda path: tar(path, paris=BIT_ROW), "holds no file bangkok"),
    "a link": ("location30", lambda path: link(path), "holds no file bangkok"),
    "too few rows": ("location30", lambda path: tar(path, bangkok=BIT_ROW * 9), r"expected \(5010, 446\) with 30"),
    "a short row": (
        "location30",
        lambda path: tar(path, bangkok=BIT_ROW + b"1,0,1\n"),
        "after row 0.*number of columns changed",
    ),
    "no bits": (
        "location30",
        lambda path: tar(path, bangkok=BIT_ROW.replace(b",0", b",x", 1)),
        "after row 0: could not convert string 'x'",
    ),
    "empty": ("location30", lambda path: tar(path, bangkok=b""), r"holds \(0, 446\)"),
    "cut record": ("cifar10", lambda path: tar(path, **{"data_batch_1.bin": b"0" * 4000}), "records of 3073"),
    "texas labels": (
        "texas100",
        lambda path: tar(path, texas__100__labels=b"1\nx\n"),
        "cannot be read .invalid literal for int",
    ),
    "texas rows": (
        "texas100",
        lambda path: tar(path, texas__100__labels=b"1\n2\n", texas__100__feats=b"0" + b",0" * 6168 + b"\n"),
        "1 rows of features and 2 labels",
    ),
    "tile size": ("ch_mnist", bad_size, "expected 150 by 150"),
    "no tile": ("ch_mnist", no_tiff, "no TIFF"),
    "no tiles": ("ch_mnist", no_tiles, "eight class folders"),
    "no zip": ("ch_mnist", lambda path: path.write_bytes(b"PK"), "cannot be read"),
}


def link(path):
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo("bangkok")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(entry)


@pytest.mark.parametrize("case", BROKEN_UPSTREAM)
def test_a_broken_upstream_file_is_a_clear_error(case, tmp_path, monkeypatch):
    name, write, said = BROKEN_UPSTREAM[case]
    monkeypatch.setattr(sources[name], "sha256", None)
    write(tmp_path / sources[name].urls[0].rsplit("/", 1)[-1])
    with pytest.raises(UserError, match=said):
        data.load(name, folder=tmp_path)
    assert not (tmp_path / f"{name}.npz").exists()


def test_bits_that_are_no_bits_are_refused(tmp_path, monkeypatch):
    _, y = write_bits(tmp_path, "location30")
    shrink(monkeypatch, "location30", len(y))
    text = "".join(f"{label + 1}" + ",2" * 446 + "\n" for label in y)
    tar(tmp_path / "dataset_location.tgz", bangkok=text.encode())
    with pytest.raises(UserError, match="447 values a row; expected label and 446 bits"):
        data.load("location30", folder=tmp_path)


@pytest.mark.parametrize("block", [1, 3000, 1 << 24])
def test_bits_are_the_same_however_they_are_written(block, monkeypatch):
    monkeypatch.setattr(archives, "BLOCK", block)
    x, y = bits(50, 30), np.arange(50) % 7 - 1
    plain = [",".join(map(str, [label, *row])) for row, label in zip(x.tolist(), y, strict=True)]
    quoted = [",".join(f'"{value}"' for value in [label, *row]) for row, label in zip(x.tolist(), y, strict=True)]
    floats = [",".join(f"{value:.18e}" for value in [label, *row]) for row, label in zip(x.tolist(), y, strict=True)]
    mixed = plain[:20] + quoted[20:40] + floats[40:]
    for lines in (plain, quoted, floats, mixed):
        for end in ("\n", "\r\n"):
            text = end.join(lines).encode()  # the last row without a line's end
            got = archives.read_bits(io.BytesIO(text), 30, labelled=True)
            np.testing.assert_array_equal(got[0], x)
            np.testing.assert_array_equal(got[1], y)
    bare = "\n".join(",".join(map(str, row)) for row in x.tolist()).encode()
    np.testing.assert_array_equal(archives.read_bits(io.BytesIO(bare), 30, labelled=False)[0], x)
    for columns, labelled in ((29, False), (31, False), (30, True), (28, True)):
        with pytest.raises(ValueError, match="30 values a row"):
            archives.read_bits(io.BytesIO(bare), columns, labelled=labelled)


# downloads


@pytest.fixture
def web(tmp_path, monkeypatch):
    """A folder that is served on this machine: ``(folder, address)``."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    served = tmp_path / "served"
    served.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(served))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield served, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


NOWHERE = "http://127.0.0.1:9/bits.tgz"


def test_download_takes_the_next_address_and_then_no_address(web, tmp_path):
    served, address = web
    (served / "bits.tgz").write_bytes(b"content")
    home = tmp_path / "home"
    path = archives.download((NOWHERE, f"{address}/bits.tgz"), home, None, "bits")
    assert path == home / "bits.tgz"
    assert path.read_bytes() == b"content"
    assert archives.download((NOWHERE,), home, None, "bits") == path


def test_without_a_network_the_error_says_what_to_do_by_hand(web, tmp_path):
    _, address = web
    with pytest.raises(UserError) as error:
        archives.download((NOWHERE, f"{address}/absent/bits.tgz"), tmp_path, None, "bits")
    for part in (NOWHERE, f"{address}/absent/bits.tgz", "404", f"put it at {tmp_path / 'bits.tgz'}", "bits.npz"):
        assert part in str(error.value)
    assert not (tmp_path / "bits.tgz").exists()


def test_a_wrong_digest_is_never_read(web, tmp_path):
    served, address = web
    (served / "bits.tgz").write_bytes(b"tampered")
    good = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"  # of b"content"
    with pytest.raises(UserError, match="hash"):
        archives.download((f"{address}/bits.tgz",), tmp_path, good, "bits")
    assert not (tmp_path / "bits.tgz").exists()
    (tmp_path / "bits.tgz").write_bytes(b"put there by hand")
    with pytest.raises(UserError, match=r"has SHA-256 .* delete it and try again"):
        archives.download((f"{address}/bits.tgz",), tmp_path, good, "bits")
    (tmp_path / "bits.tgz").write_bytes(b"content")
    assert archives.download((NOWHERE,), tmp_path, good, "bits").read_bytes() == b"content"


# by name


def test_digits_need_no_file_and_no_room(tmp_path):
    digits = data.load("digits", folder=tmp_path / "absent")
    x, y = load_digits(return_X_y=True)
    np.testing.assert_array_equal(digits.x, x)
    np.testing.assert_array_equal(digits.y, y)
    assert (digits.kind, digits.shape, digits.x.dtype) == ("table", (64,), np.float32)
    assert not (tmp_path / "absent").exists()


def test_any_npz_in_the_data_directory_is_a_data_set(tmp_path, monkeypatch):
    x, y = bits(30, 21), np.arange(30) % 3
    np.savez(tmp_path / "shop.npz", x_packed=np.packbits(x, axis=1), x_columns=21, y=y, provenance="our own shop")
    monkeypatch.setenv("RELAXLOSS_DATA", str(tmp_path))
    shop = data.load("shop")
    np.testing.assert_array_equal(shop.x, x)
    assert (shop.name, shop.kind, shop.num_classes, shop.provenance) == ("shop", "bits", 3, "our own shop")


def test_a_prepared_file_comes_before_the_source_and_keeps_its_labels(tmp_path):
    y = np.array([3, 9] * 6)
    np.savez(tmp_path / "location30.npz", x=bits(12, 446), y=y)
    part = data.load("location30", folder=tmp_path)
    np.testing.assert_array_equal(part.y, y)
    assert part.num_classes == 30
    assert "446 places" in part.provenance


def test_an_unknown_name_lists_the_near_and_the_known(tmp_path):
    np.savez(tmp_path / "clinic.npz", x=bits(12, 4), y=np.arange(12) % 2)
    with pytest.raises(UserError, match=r"did you mean 'location30'.*clinic.*digits"):
        data.load("locaton30", folder=tmp_path)
    with pytest.raises(UserError, match="did you mean 'clinic'"):
        data.load("clinics", folder=tmp_path)
    with pytest.raises(UserError, match="for CSV and Parquet"):
        data.load("clinic", folder=tmp_path, label="y")


def test_a_third_partys_source_with_columns_survives_the_prepared_form(tmp_path, monkeypatch):
    columns = (Column("age"), Column("ward", ("a", "b")))
    x = np.array([[30, 0], [np.nan, 1]] * 6, np.float32)

    @dataclass(frozen=True)
    class Clinic(Source):
        about = "a clinic"

        def fetch(self, folder):
            return Dataset("clinic", x, np.array([0, 2] * 6), 4, "one clinic", columns)

    monkeypatch.setitem(sources._classes, "clinic", Clinic)
    first = data.load("clinic", folder=tmp_path)
    monkeypatch.setattr(Clinic, "fetch", None)
    again = data.load("clinic", folder=tmp_path)
    assert again.fingerprint == first.fingerprint
    assert (again.columns, again.num_classes, again.provenance) == (columns, 4, "one clinic")
    np.testing.assert_array_equal(again.y, first.y)


def test_what_changed_code_prepared_is_prepared_again_and_a_users_own_file_is_not(tmp_path, monkeypatch):
    @dataclass(frozen=True)
    class Clinic(Source):
        def fetch(self, folder):
            return Dataset("clinic", np.full((12, 2), self.version, np.float32), np.arange(12) % 2, 2, "one clinic")

    monkeypatch.setitem(sources._classes, "clinic", Clinic)
    assert data.load("clinic", folder=tmp_path).x.max() == 1
    monkeypatch.setattr(Clinic, "version", 2)
    assert data.load("clinic", folder=tmp_path).x.max() == 1
    monkeypatch.setitem(specs.DIGESTS, Clinic, "edited")
    assert data.load("clinic", folder=tmp_path).x.max() == 2
    monkeypatch.setitem(specs.DIGESTS, Clinic, "edited again")
    np.savez(tmp_path / "clinic.npz", x=bits(12, 3), y=np.arange(12) % 2)
    assert data.load("clinic", folder=tmp_path).x.shape == (12, 3)


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    digits = data.load("digits", folder=tmp_path)
    monkeypatch.setattr(np, "savez", lambda file, **arrays: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(UserError, match=r"no space left.*RELAXLOSS_DATA"):
        npz.write(digits, tmp_path / "digits.npz")
    assert list(tmp_path.iterdir()) == []


# the data set and its encoder

GOOD = {"x": np.zeros((4, 2), np.float32), "y": np.array([0, 1, 0, 1]), "num_classes": 2}
BAD_DATASETS = {
    "dtype": ({"x": np.zeros((4, 2))}, "dtype float64"),
    "dimensions": ({"x": np.zeros((4, 2, 2), np.uint8)}, "expected .M, D"),
    "no features": ({"x": np.zeros((4, 0), np.uint8)}, "expected .M, D"),
    "float images": ({"x": np.zeros((4, 1, 2, 2), np.float32)}, "expected uint8, 0 to 255"),
    "labels' shape": ({"y": np.array([[0, 1, 0, 1]])}, "one label per row"),
    "labels' type": ({"y": np.array([0, 1, 0, 1], np.int32)}, "expected int64"),
    "empty": ({"x": np.zeros((0, 2), np.float32), "y": np.zeros(0, np.int64)}, "empty"),
    "a label too high": ({"num_classes": 1}, "labels run from 0 to 1"),
    "a label too low": ({"y": np.array([0, -1, 0, 1])}, "labels run from -1"),
    "no bits": ({"x": np.full((4, 2), 2, np.uint8)}, "expected bits"),
    "infinite": ({"x": np.full((4, 2), -np.inf, np.float32)}, "infinite"),
    "columns": ({"columns": (Column("a"),)}, "got 1 columns"),
    "classes": ({"classes": ("a", "b", "c", "d", "e", "f", "g")}, "got names of 7 classes"),
    "columns of bits": ({"x": np.zeros((4, 2), np.uint8), "columns": (Column("a"), Column("b"))}, "float32 table"),
    "codes": ({"x": np.full((4, 2), 1, np.float32), "columns": (Column("a"), Column("b", ("u",)))}, "outside its"),
    "half codes": ({"x": np.full((4, 2), 0.5, np.float32), "columns": (Column("a", ("u",)), Column("b"))}, "'a' holds"),
}


@pytest.mark.parametrize("case", BAD_DATASETS)
def test_a_wrong_data_set_is_refused(case):
    change, said = BAD_DATASETS[case]
    with pytest.raises(UserError, match=said):
        Dataset(**{"name": "d", "provenance": "", **GOOD, **change})


def table(seed: int = 0, rows: int = 200) -> Dataset:
    """Two numeric columns with missing values, and two categorical ones between and after them."""
    rng = np.random.default_rng(seed)
    x = np.column_stack(
        [rng.normal(1000, 3, rows), rng.integers(0, 4, rows), rng.exponential(0.01, rows), rng.integers(0, 3, rows)]
    ).astype(np.float32)
    x[rng.random((rows, 4)) < 0.1] = np.nan
    columns = (Column("a"), Column("b", ("p", "q", "r", "s")), Column("c"), Column("d", ("u", "v", "w")))
    return Dataset("t", x, rng.integers(0, 2, rows), 2, "", columns)


def test_the_encoder_agrees_with_scikit_learn():
    dataset, members = table(), np.arange(0, 200, 2)
    got = dataset.encoder(members)(torch.from_numpy(dataset.x)).numpy()
    assert got.shape == (200, *dataset.shape)
    numeric = dataset.x[:, [0, 2]].astype(np.float64)
    scaler = StandardScaler().fit(numeric[members])  # scikit-learn leaves missing values out of mean and deviation
    np.testing.assert_allclose(got[:, [0, 5]], np.nan_to_num(scaler.transform(numeric)), rtol=1e-4, atol=1e-4)
    for column, hot in ((1, slice(1, 5)), (3, slice(6, 9))):
        codes = pd.Series(dataset.x[:, column]).fillna(-1).to_numpy()[:, None]
        known = [range(hot.stop - hot.start)]
        oracle = OneHotEncoder(categories=known, handle_unknown="ignore", sparse_output=False).fit(np.zeros((1, 1)))
        np.testing.assert_array_equal(got[:, hot], oracle.transform(codes))


def test_the_encoder_sees_the_members_only():
    dataset, members = table(), np.arange(100)
    other = dataset.x.copy()
    other[100:] = np.nan_to_num(other[100:] * 7 + 5) // 1 % 3
    moved = Dataset("t", other, dataset.y, 2, "", dataset.columns)
    first, second = dataset.encoder(members).state_dict(), moved.encoder(members).state_dict()
    assert first.keys() == {"offset", "scale", "seen"}
    for name, value in first.items():
        assert torch.equal(value, second[name])
    everyone = moved.encoder(np.arange(200)).state_dict()
    assert not torch.equal(first["offset"], everyone["offset"])  # the rows that were changed would have mattered


def test_a_category_of_fewer_than_five_members_is_all_zeros_and_missing_is_the_mean():
    x = np.array([[0, 1.0], [1, 3.0], [0, np.nan], [2, np.nan], [np.nan, 5.0]], np.float32)
    x = np.concatenate([np.repeat(x[:3], (3, 5, 2), 0), x[3:], np.float32([[2, 2]] * 4), np.float32([[3, 2]] * 4)])
    columns = (Column("k", ("a", "b", "c", "d")), Column("v"))
    dataset = Dataset("t", x, np.arange(len(x)) % 2, 2, "", columns)
    members = np.r_[0:10, 16:20]  # 5 of a, 5 of b, none of c, 4 of d
    got = dataset.encoder(members)(torch.from_numpy(x))
    spread = np.nanstd(x[members, 1])
    mean = np.nanmean(x[members, 1])
    first = torch.tensor([[1, 0], [0, 1], [1, 0], [0, 0], [0, 0], [0, 0], [0, 0]], dtype=torch.float32)
    torch.testing.assert_close(got[[0, 3, 8, 10, 11, 12, 16], :2], first)
    assert not got[:, 2:4].any()  # of c and d nothing is told, to members or to others
    torch.testing.assert_close(got[:, 4], torch.from_numpy(np.nan_to_num((x[:, 1] - mean) / spread)))


def test_the_fingerprint_of_a_table_with_categories_names_the_rule_for_rare_ones(monkeypatch):
    before = {
        kind: made.fingerprint for kind, made in (("table", table()), ("bits", Dataset("b", provenance="", **GOOD)))
    }
    monkeypatch.setattr("relaxloss.data.dataset.FEWEST_MEMBERS", 6)
    assert table().fingerprint != before["table"]
    assert Dataset("b", provenance="", **GOOD).fingerprint == before["bits"]


@pytest.mark.parametrize("value", [0.1, 1e9, 0.0, 1e-20])
def test_a_column_that_is_constant_among_the_members_stays_finite(value):
    x = np.full((50, 2), value, np.float32)
    x[40:, 0] = value + 1000
    dataset = Dataset("t", x, np.arange(50) % 2, 2, "")
    got = dataset.encoder(np.arange(40))(torch.from_numpy(x)).numpy()
    assert np.abs(got[:40]).max() < 1e-6
    assert (got == 0).all(), "no weight of it was trained, so that nothing else may come of it later"


def test_images_and_bits_need_no_fitting():
    pixels = np.array([0, 255, 51, 204], np.uint8).reshape(1, 1, 2, 2)
    images = Dataset("i", np.repeat(pixels, 2, 0), np.array([0, 1]), 2, "")
    got = images.encoder(np.array([0]))(torch.from_numpy(images.x))
    torch.testing.assert_close(got[0].flatten(), torch.tensor([-2.0, 2.0, -1.2, 1.2]))
    rows = Dataset("b", bits(9, 5), np.arange(9) % 2, 2, "")
    torch.testing.assert_close(rows.encoder(np.array([1]))(torch.from_numpy(rows.x)), torch.from_numpy(rows.x).float())


def test_a_saved_encoder_is_loaded_into_a_blank_one():
    dataset = table()
    fitted, blank = dataset.encoder(np.arange(150)), Encoder.blank(dataset)
    blank.load_state_dict(fitted.state_dict())
    x = torch.from_numpy(dataset.x)
    assert torch.equal(fitted(x), blank(x))


def test_the_fingerprint_covers_all_that_training_sees():
    dataset = table()
    x, y = dataset.x.copy(), dataset.y.copy()
    x[7, 0] += 1
    y[7] = 1 - y[7]
    renamed = (*dataset.columns[:3], Column("d", ("u", "v", "x")))
    others = [
        Dataset("t", x, dataset.y, 2, "", dataset.columns),
        Dataset("t", dataset.x, y, 2, "", dataset.columns),
        Dataset("t", dataset.x, dataset.y, 3, "", dataset.columns),
        Dataset("t", dataset.x, dataset.y, 2, "", renamed),
    ]
    assert len({dataset.fingerprint, *(other.fingerprint for other in others)}) == 5
    assert Dataset("u", dataset.x, dataset.y, 2, "p", dataset.columns).fingerprint == dataset.fingerprint


# real files

REAL = {
    "location30": ((5010, 446), np.uint8, 30, 97, 308),
    "tafeng100": ((24_700, 600), np.uint8, 100, 42, 1019),
    "diab100": ((62_011, 1125), np.uint8, 100, 98, 5805),
    "crc5": ((5000, 3, 32, 32), np.uint8, 5, 1000, 1000),
    "ch_mnist_texture": ((5000, 82), np.float32, 8, 625, 625),
    "pneumonia_mnist": ((5856, 1, 28, 28), np.uint8, 2, None, None),
    "cifar10": ((60_000, 3, 32, 32), np.uint8, 10, 6000, 6000),
}


@pytest.mark.parametrize("name", REAL)
def test_real_data(name):
    if not os.environ.get("RELAXLOSS_DATA") or not (data.directory() / f"{name}.npz").is_file():
        pytest.skip(f"RELAXLOSS_DATA has no {name}.npz")
    shape, dtype, classes, smallest, largest = REAL[name]
    real = data.load(name)
    assert (real.x.shape, real.x.dtype, real.num_classes) == (shape, dtype, classes)
    counts = np.bincount(real.y)
    if smallest:
        assert (counts.min(), counts.max()) == (smallest, largest)
    if name == "location30":  # packed in the right order: a model reads nothing from shuffled bits
        half = np.arange(len(real)) % 2 == 0
        means = np.stack([real.x[half & (real.y == c)].mean(0) for c in range(30)])
        distance = ((real.x[~half, None] - means) ** 2).sum(2)
        assert (distance.argmin(1) == real.y[~half]).mean() > 0.5
