"""A user's own CSV, Parquet and NPZ files: what comes out, and what every bad input says."""

import gzip
import io
import os
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaxloss import data
from relaxloss.data.tabular import files
from relaxloss.errors import UserError


def frame(rows: int = 20) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": rng.integers(20, 90, rows),
            "ward": rng.choice(["surgery", "children", "eye"], rows),
            "dose": rng.normal(size=rows),
            "smoker": rng.random(rows) < 0.5,
            "outcome": np.array(["well", "ill"] * (rows // 2)),
        }
    )


def save(table: pd.DataFrame, folder, kind: str):
    path = folder / f"patients.{kind}"
    table.to_parquet(path, index=False) if kind == "parquet" else table.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet"])
def test_a_table_becomes_numbers_and_codes(kind, tmp_path):
    table = frame()
    table.loc[3, "dose"] = None
    table.loc[[4, 5], "ward"] = None
    got = data.load(save(table, tmp_path, kind), label="outcome")
    assert (got.name, got.num_classes, got.kind) == ("patients", 2, "table")
    np.testing.assert_array_equal(got.y, (table["outcome"] == "well").astype(int))  # ill = 0, well = 1: sorted
    assert [column.name for column in got.columns] == ["age", "ward", "dose", "smoker"]
    categories = [column.categories for column in got.columns]
    assert categories == [None, ("children", "eye", "surgery"), None, ("false", "true")]
    np.testing.assert_array_equal(got.x[:, 0], table["age"])
    np.testing.assert_array_equal(got.x[:, 2], table["dose"].astype(np.float32))
    codes = table["ward"].map({"children": 0.0, "eye": 1.0, "surgery": 2.0})
    np.testing.assert_array_equal(got.x[:, 1], codes)
    np.testing.assert_array_equal(got.x[:, 3], table["smoker"].astype(float))
    assert got.shape == (1 + 3 + 1 + 2,)
    for said in (
        "20 rows, 2 numeric and 2 categorical columns",
        "ill = 0, well = 1",
        "missing values: ward (2), dose (1)",
    ):
        assert said in got.provenance
    assert str(tmp_path) not in got.provenance


def test_csv_and_parquet_give_the_same_data_set(tmp_path):
    prints = {data.load(save(frame(), tmp_path, kind), label="outcome").fingerprint for kind in ("csv", "parquet")}
    assert len(prints) == 1


def test_codes_do_not_depend_on_the_order_of_the_rows(tmp_path):
    table = frame()
    first = data.load(save(table, tmp_path, "csv"), label="outcome")
    order = np.random.default_rng(1).permutation(len(table))
    second = data.load(save(table.iloc[order], tmp_path, "csv"), label="outcome")
    assert first.columns == second.columns
    np.testing.assert_array_equal(first.x[order], second.x)
    np.testing.assert_array_equal(first.y[order], second.y)


def test_dropping_columns(tmp_path):
    path = save(frame(), tmp_path, "csv")
    got = data.load(path, label="outcome", drop=["ward", "smoker"])
    assert [column.name for column in got.columns] == ["age", "dose"]
    assert "dropped on request: smoker, ward" in got.provenance
    one = data.load(path, label="outcome", drop="dose")
    assert [column.name for column in one.columns] == ["age", "ward", "smoker"]


def test_identifiers_and_constants_are_named_and_kept(tmp_path):
    table = frame().assign(number=range(1000, 1020), key=[f"k{i}" for i in range(20)], site="here", version=3)
    got = data.load(save(table, tmp_path, "csv"), label="outcome")
    assert len(got.columns) == 8
    assert "different in every row (identifiers? consider --drop): number, key" in got.provenance
    assert "constant: site, version" in got.provenance


def test_dates_are_days_and_said(tmp_path):
    days = pd.date_range("2020-02-28 12:00", periods=20, freq="D")
    table = frame().assign(seen=days, born=days.date)
    for kind in ("csv", "parquet"):
        got = data.load(save(table, tmp_path, kind), label="outcome", drop=["age", "ward", "dose", "smoker"])
        epoch = 18_320  # 2020-02-28
        np.testing.assert_allclose(got.x[:, 0], epoch + 0.5 + np.arange(20))
        np.testing.assert_allclose(got.x[:, 1], epoch + np.arange(20))
        assert "dates as days since 1970-01-01: seen, born" in got.provenance


def test_the_type_of_a_column_is_taken_from_all_its_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BLOCK", 1000)  # the last rows are many blocks away from the first
    text = "a,b,y\n" + "".join(f"{i},{i % 3},{i % 2}\n" for i in range(1000)) + "0.5,1,1\n1,word,0\n"
    (tmp_path / "long.csv").write_text(text)
    got = data.load(tmp_path / "long.csv", label="y")
    assert [column.categories for column in got.columns] == [None, ("0", "1", "2", "word")]
    np.testing.assert_array_equal(got.x[:, 0], [*range(1000), 0.5, 1])
    np.testing.assert_array_equal(got.x[:, 1], [*(i % 3 for i in range(1000)), 1, 3])


def test_parquets_other_types(tmp_path):
    table = pa.table(
        {
            "money": pa.array([Decimal("1.25"), None] * 6),
            "level": pa.array(["3", "1", "3", "2"] * 3).dictionary_encode(),
            "large": pa.array(["x", "y"] * 6, pa.large_string()),
            "kind": pa.array(["b", "a"] * 6).dictionary_encode(),
            "whole": pa.array([2**40, None] * 6),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    got = data.load(tmp_path / "t.parquet", label="kind")
    assert [column.categories for column in got.columns] == [None, ("1", "2", "3"), ("x", "y"), None]
    np.testing.assert_array_equal(
        got.x[:4], [[1.25, 2, 0, 2**40], [np.nan, 0, 1, np.nan], [1.25, 2, 0, 2**40], [np.nan, 1, 1, np.nan]]
    )
    np.testing.assert_array_equal(got.y, [1, 0] * 6)


LABELS = {
    "text": (["b", "a", "c"] * 4, [1, 0, 2] * 4),
    "numbers sort as numbers": ([10, 9, 100] * 4, [1, 0, 2] * 4),
    "negative": ([-1, 1, -1] * 4, [0, 1, 0] * 4),
    "whole floats": ([2.0, 1.0, 2.0] * 4, [1, 0, 1] * 4),
    "booleans": ([True, False, True] * 4, [1, 0, 1] * 4),
}


@pytest.mark.parametrize("kind", ["csv", "parquet", "npz"])
@pytest.mark.parametrize("case", LABELS)
def test_labels_of_any_type(case, kind, tmp_path):
    given_labels, codes = LABELS[case]
    if kind == "npz":
        np.savez(tmp_path / "patients.npz", x=np.zeros((12, 2)), y=np.array(given_labels))
        got = data.load(tmp_path / "patients.npz")
    else:
        table = pd.DataFrame({"a": np.arange(12) % 5, "y": given_labels})
        got = data.load(save(table, tmp_path, kind), label="y")
    np.testing.assert_array_equal(got.y, codes)
    assert got.num_classes == max(codes) + 1
    first = min(given_labels)
    assert f"{int(first) if isinstance(first, float) else first} = 0".lower() in got.provenance.lower()


@given(
    st.lists(st.lists(st.text('ab,"\n é;\t', min_size=1, max_size=4), min_size=2, max_size=2), min_size=12, max_size=30)
)
def test_any_text_comes_back(tmp_path_factory, rows):
    """Quotes, commas, line breaks and accents in the cells: the codes decode to what was written."""
    table = pd.DataFrame(rows, columns=["a", "b"]).assign(y=np.arange(len(rows)) % 2)
    path = save(table, tmp_path_factory.mktemp("text"), "csv")
    got = data.load(path, label="y")
    for index, column in enumerate(got.columns):
        assert column.categories is not None
        assert [column.categories[int(code)] for code in got.x[:, index]] == table[column.name].tolist()


# what bad input says


def csv(text: str):
    return raw("f.csv", text.encode())


def csv_of(**columns):
    return lambda folder: save(pd.DataFrame(columns), folder, "csv")


ROWS = 12
Y = np.arange(ROWS) % 2
WORDS = [f"word{i}" for i in range(1500)]


def raw(name: str, content: bytes):
    def write(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return write


def of_types(**columns):
    def write(folder):
        pyarrow.parquet.write_table(pa.table(columns), folder / "f.parquet")
        return folder / "f.parquet"

    return write


BAD_TABLES = {
    "missing file": (
        lambda folder: save(frame(), folder, "csv").with_name("patient.csv"),
        "y",
        "no such file; beside it: patients.csv",
    ),
    "a folder": (lambda folder: folder / "..", "y", "unknown kind of file"),
    "unknown kind": (raw("f.xlsx", b"PK"), "y", r"expected \.csv, \.csv\.gz"),
    "no label given": (csv_of(a=Y, y=Y), None, "Give --label .*one of a, y"),
    "unknown label": (csv_of(age=Y, outcome=Y), "outcom", "did you mean 'outcome'"),
    "empty file": (raw("f.csv", b""), "y", "the file is empty"),
    "blank file": (raw("f.csv", b"\n \n"), "y", "the file is empty"),
    "header only": (csv("a,y\n"), "y", "0 rows of data; expected at least 10"),
    "few rows": (csv_of(a=Y[:9], y=Y[:9]), "y", "9 rows of data"),
    "ragged": (csv("a,y\n1,0\n2,1,3\n"), "y", "Expected 2 columns, got 3"),
    "not text": (raw("f.csv", b"a,y\n\xff\xfe,1\n" * 12), "y", "line 2 holds bytes that are no UTF-8"),
    "semicolons": (csv("a;y\n" + "1;0\n" * 12), "y", "separated by semicolons"),
    "quoted semicolons": (csv('"a";"y"\n' + "1;0\n" * 12), "y", "separated by semicolons"),
    "tabs": (csv("a\ty\n" + "1\t0\n" * 12), "y", "separated by tabs"),
    "truncated gzip": (raw("f.csv.gz", gzip.compress(b"a,y\n1,0\n" * 99)[:-12]), "y", "check that it is whole"),
    "no gzip": (raw("f.csv.gz", b"a,y\n1,0\n"), "y", "check that it is whole"),
    "no parquet": (raw("f.parquet", b"PAR1 but not really"), "y", "truncated or no Parquet"),
    "doubled column": (csv("a,a,y\n" + "1,2,0\n" * 12), "y", "several columns named a"),
    "nameless column": (csv(",a,y\n" + "1,2,0\n" * 12), "y", "column 1 has no name"),
    "no features": (csv_of(y=Y), "y", "no column beside the label"),
    "missing labels": (
        csv("a,y\n" + "1,0\n1,1\n" * 6 + "1,\n1,\n"),
        "y",
        r"missing in 2 of 14 rows \(the first: row 13\)",
    ),
    "missing numbers": (of_types(a=Y, y=pa.array([0.0, 1.0, np.nan] * 4)), "y", "missing in 4 of 12 rows"),
    "one class": (csv_of(a=Y, y=["same"] * ROWS), "y", "has 1 class; expected at least 2"),
    "fractions": (csv_of(a=Y, y=Y + 0.5), "y", "regression target"),
    "infinite labels": (of_types(a=Y, y=np.where(Y == 1, np.inf, 0.0)), "y", "regression target"),
    "many labels": (csv_of(a=range(1500), y=WORDS), "y", "1,500 different values in 1,500 rows"),
    "dates as labels": (of_types(a=Y, y=pa.array(list(Y), pa.date32())), "y", "has the type date32"),
    "many categories": (csv_of(a=WORDS, y=np.arange(1500) % 2), "y", "'a' has 1,500 different values.*--drop a"),
    "infinite": (csv_of(a=[np.inf, 1] * 6, y=Y), "y", "'a' holds infinite values.*in 6 of 12"),
    "beyond float32": (csv_of(a=[1e300, 1] * 6, y=Y), "y", "beyond float32"),
    "no values": (csv("a,b,y\n" + "1,,0\n1,,1\n" * 6), "y", "'b' has no value in any row; drop it with --drop b"),
    "nested": (of_types(a=pa.array([[1], [2]] * 6), y=Y), "y", "'a' has the type list"),
    "times": (of_types(a=pa.array([1, 2] * 6, pa.time32("s")), y=Y), "y", "'a' has the type time32"),
}


def test_many_classes_with_rows_enough_are_classes(tmp_path):
    names = [f"k{i:04d}" for i in range(1200)] * 10
    got = data.load(csv_of(a=np.arange(12_000) % 5, y=names)(tmp_path), label="y")
    assert got.num_classes == 1200


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_bad_table_is_a_clear_error(case, tmp_path):
    write, label, said = BAD_TABLES[case]
    with pytest.raises(UserError, match=said):
        data.load(write(tmp_path), label=label)


def test_dropping_what_is_not_there_or_is_the_label(tmp_path):
    path = save(frame(), tmp_path, "csv")
    with pytest.raises(UserError, match="did you mean 'smoker'"):
        data.load(path, label="outcome", drop=["smokers"])
    with pytest.raises(UserError, match="choose one"):
        data.load(path, label="outcome", drop=["outcome"])


# npz


def test_npz_arrays_keep_their_meaning(tmp_path):
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(12, 3))
    wide[2, 1] = np.nan
    cases = {
        "images": (rng.integers(0, 256, (12, 3, 8, 8), np.uint8), "image", np.uint8),
        "flags": (rng.random((12, 5)) < 0.5, "bits", np.uint8),
        "wide": (wide, "table", np.float32),
        "whole": (rng.integers(-5, 5, (12, 3)), "table", np.float32),
    }
    for name, (x, kind, dtype) in cases.items():
        np.savez(tmp_path / f"{name}.npz", x=x, y=np.arange(12) % 3)
        got = data.load(tmp_path / f"{name}.npz")
        assert (got.kind, got.x.dtype, got.num_classes, got.name) == (kind, dtype, 3, name)
        np.testing.assert_array_equal(got.x, x.astype(dtype))
        np.testing.assert_array_equal(got.y, np.arange(12) % 3)
        assert got.provenance == f"file {name}.npz" + ("; 1 missing values" if name == "wide" else "")


def npz(**arrays):
    def write(path):
        np.savez(path, **{"x": np.zeros((ROWS, 2), np.float32), "y": Y, **arrays})

    return write


BAD_NPZ = {
    "empty": (lambda path: path.write_bytes(b""), "the file is empty"),
    "text": (lambda path: path.write_bytes(b"hello"), "no npz"),
    "truncated": (lambda path: (npz()(path), path.write_bytes(path.read_bytes()[:300])), "truncated or no npz"),
    "damaged": (lambda path: (npz()(path), damage(path)), "truncated or no npz"),
    "a single array": (lambda path: path.write_bytes(npy()), "holds a single array"),
    "without x": (lambda path: np.savez(path, features=np.zeros((ROWS, 2)), y=Y), "holds features, y; expected x"),
    "without y": (lambda path: np.savez(path, x=np.zeros((ROWS, 2))), "holds x; expected x"),
    "without columns": (lambda path: np.savez(path, x_packed=np.zeros((ROWS, 2), np.uint8), y=Y), "holds x_packed, y"),
    "objects": (npz(x=np.array([[{}]] * ROWS)), "never unpickled"),
    "text in x": (npz(x=np.array([["a"]] * ROWS)), "x has dtype <U1"),
    "complex x": (npz(x=np.zeros((ROWS, 2), complex)), "x has dtype complex"),
    "flat x": (npz(x=np.zeros(ROWS)), r"expected \(M, D\)"),
    "flat images": (npz(x=np.zeros((ROWS, 8, 8), np.uint8)), r"expected \(M, D\)"),
    "float images": (npz(x=np.zeros((ROWS, 1, 8, 8))), "uint8 .M, channels, height, width"),
    "channels last": (npz(x=np.zeros((ROWS, 8, 8, 3), np.uint8)), r"x\.transpose\(0, 3, 1, 2\)"),
    "no bits": (npz(x=np.full((ROWS, 2), 7, np.uint8)), "expected bits"),
    "no features": (npz(x=np.zeros((ROWS, 0))), "expected .M, D"),
    "infinite": (npz(x=np.full((ROWS, 2), np.inf)), "infinite values .* in 12 of 12 rows"),
    "beyond float32": (npz(x=np.full((ROWS, 2), 1e300)), "beyond float32"),
    "fewer labels": (npz(y=Y[:-1]), r"y has shape \(11,\); expected \(12,\)"),
    "one-hot labels": (npz(y=np.eye(2)[Y]), "one label per row"),
    "few rows": (npz(x=np.zeros((9, 2)), y=Y[:9]), "has 9 rows"),
    "missing labels": (npz(y=np.where(Y == 0, np.nan, 1.0)), "missing in 6 of 12 rows"),
    "fractions": (npz(y=Y + 0.5), "regression target"),
    "one class": (npz(y=np.zeros(ROWS, int)), "has 1 class"),
    "dates": (npz(y=Y.astype("datetime64[D]")), "y has dtype datetime64"),
    "packed shape": (
        lambda path: np.savez(path, x_packed=np.zeros((ROWS, 2), np.uint8), x_columns=17, y=Y),
        "17 bits need 3",
    ),
    "packed type": (lambda path: np.savez(path, x_packed=np.zeros((ROWS, 2)), x_columns=16, y=Y), "expected uint8"),
    "classes": (npz(num_classes=1), "labels run from 0 to 1"),
    "classes' shape": (npz(num_classes=np.array([1, 2])), "num_classes or columns cannot be read"),
    "columns": (npz(columns="[not json"), "num_classes or columns cannot be read"),
    "names of classes": (npz(classes=np.array(["a", "b", "c"])), "got names of 3 classes; expected 2"),
}


def npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


def damage(path):
    content = bytearray(path.read_bytes())
    content[200] ^= 255  # inside the first array: the checksum catches it
    path.write_bytes(content)


@pytest.mark.parametrize("case", BAD_NPZ)
def test_a_bad_npz_is_a_clear_error(case, tmp_path):
    write, said = BAD_NPZ[case]
    path = tmp_path / "f.npz"
    write(path)
    with pytest.raises(UserError, match=said):
        data.load(path)


def test_npz_takes_no_label_column(tmp_path):
    npz()(tmp_path / "f.npz")
    with pytest.raises(UserError, match="the labels of an npz file are its y"):
        data.load(tmp_path / "f.npz", label="y")


def test_real_credit_data():
    path = data.directory() / "credit_default.csv.gz"
    if not os.environ.get("RELAXLOSS_DATA") or not path.is_file():
        pytest.skip("RELAXLOSS_DATA has no credit_default.csv.gz")
    got = data.load(path, label="default")
    oracle = pd.read_csv(path)
    assert (got.x.shape, got.shape, got.num_classes) == ((30_000, 23), (21 + 7 + 4,), 2)
    np.testing.assert_array_equal(got.y, oracle["default"] == "yes")
    for index, column in enumerate(got.columns):
        values = oracle[column.name]
        wanted = values.map({c: i for i, c in enumerate(column.categories)}) if column.categories else values
        np.testing.assert_array_equal(got.x[:, index], wanted.astype(np.float32))


def test_pandas_unnamed_index_is_no_column(tmp_path):
    frame = pd.DataFrame({"age": range(40), "ill": [0, 1] * 20})
    frame[frame.age % 3 != 1].to_parquet(tmp_path / "p.parquet")
    assert "__index_level_0__" in pyarrow.parquet.read_table(tmp_path / "p.parquet").column_names
    for drop in ((), "__index_level_0__"):
        assert [each.name for each in data.load(tmp_path / "p.parquet", label="ill", drop=drop).columns] == ["age"]


def test_a_broken_row_is_told_by_its_number(tmp_path):
    (tmp_path / "p.csv").write_text("age,ill\n" + "1,0\n" * 11 + "3\n" + "4,1\n" * 3)
    with pytest.raises(UserError, match=r"Row #13: Expected 2 columns, got 1$"):
        data.load(tmp_path / "p.csv", label="ill")


def test_long_numbers_are_identifiers_to_the_last_digit(tmp_path):
    frame = pd.DataFrame({"case": [10**17 + n for n in range(20)], "age": range(20), "ill": [0, 1] * 10})
    frame.to_csv(tmp_path / "p.csv", index=False)
    assert "consider --drop): case, age" in data.load(tmp_path / "p.csv", label="ill").provenance


@pytest.mark.parametrize(
    ("names", "said"),
    [(("home", "HOME"), "'HOME' and 'home'"), (("ward", "ward "), "'ward' and 'ward '"), (("a", "A"), "")],
)
def test_classes_that_look_the_same_are_refused(tmp_path, names, said):
    pd.DataFrame({"age": range(20), "to": [*names, "icu", "icu"] * 5}).to_csv(tmp_path / "p.csv", index=False)
    if not said:
        assert data.load(tmp_path / "p.csv", label="to").num_classes == 3
        return
    with pytest.raises(UserError, match=rf"differ in case or in spaces only: {said}; expected one spelling"):
        data.load(tmp_path / "p.csv", label="to")


def test_a_large_file_with_line_breaks_in_cells_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BLOCK", 1000)
    path = tmp_path / "notes.csv"
    path.write_text("a,note,y\n" + "".join(f'{i},"first\nsecond {i % 4}",{i % 2}\n' for i in range(400)))
    got = data.load(path, label="y")
    assert len(got) == 400
    assert len(got.columns[1].categories) == 4


def test_labels_of_another_byte_order_are_labels(tmp_path):
    for kind in (">i4", ">f8", np.longdouble):
        np.savez(
            tmp_path / "x.npz", x=np.random.default_rng(0).normal(size=(40, 3)), y=(np.arange(40) % 3).astype(kind)
        )
        assert data.load(tmp_path / "x.npz").y.tolist() == [i % 3 for i in range(40)]


def test_text_of_arrows_newer_kind_is_text(tmp_path):
    table = pa.table({"ward": pa.array(["icu", "er"] * 20, pa.string_view()), "a": range(40), "y": [0, 1] * 20})
    got = data.from_frame(table, label="y")
    assert got.columns[0].categories == ("er", "icu")


@pytest.mark.parametrize("space", ["\u00a0", "\u202f", "\u2009", "’"])
def test_thousands_as_programs_write_them_are_told(space, tmp_path):
    text = [f"{i}{space}{100 + i}" for i in range(1, 41)]
    with pytest.raises(UserError, match="numbers written as"):
        data.load(csv_of(a=text, y=np.arange(40) % 2)(tmp_path), label="y")


def test_two_classes_of_one_name_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.eye(40), y=np.arange(40) % 2, classes=np.array(["a", "a"]))
    with pytest.raises(UserError, match="two classes are called 'a'"):
        data.load(tmp_path / "x.npz")


def test_what_is_kept_of_a_file_is_kept_as_it_is(tmp_path):
    (tmp_path / "t.csv").write_text("ward,a\nNA,1\nDE,2\nnull,3\n,4\n")
    kept = files.frames(tmp_path / "t.csv", (), keep=("ward",))[1]
    assert kept["ward"].tolist() == ["NA", "DE", "null", ""]
