"""Bad input to an audit: one paragraph each with what was got, what was expected and what to do, and exit code 2."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import relaxloss as rl
from relaxloss import cli
from relaxloss.auditing import readers
from relaxloss.auditing.predictions import of_arrays
from relaxloss.errors import UserError

N = 40
Arrays = dict[str, Any]
LABELS = np.arange(N) % 3
MEMBER = np.arange(N) < N // 2


def probabilities() -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.ones(3), N)


def frame() -> pd.DataFrame:
    table = pd.DataFrame(probabilities(), columns=["prob_0", "prob_1", "prob_2"])
    table.insert(0, "label", LABELS)
    table.insert(1, "member", MEMBER.astype(int))
    table.insert(2, "id", [f"r{i}" for i in range(N)])
    return table


def arrays() -> Arrays:
    return {"probs": probabilities(), "labels": LABELS, "member": MEMBER}


# Tables: what is done to a good one, with which options, and what the message must say

Change = Callable[[pd.DataFrame], Any]


def put(column: str, value: Any, row: int = 3) -> Change:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table[column] = table[column].astype(object)
        table.loc[row, column] = value
        return table

    return change


def logits(table: pd.DataFrame) -> pd.DataFrame:
    table[["prob_0", "prob_1", "prob_2"]] = np.log(probabilities())
    return table


TABLES: dict[str, tuple[Change, list[str], tuple[str, ...]]] = {
    "no label column, a near one": (
        lambda t: t.rename(columns={"label": "labell"}), [], ("did you mean 'labell'", "--label")),
    "no member column": (lambda t: t.drop(columns="member"), [], ("unknown column 'member'", "--member")),
    "no such --label": (lambda t: t, ["--label", "truth"], ("'truth'", "known:")),
    "label and member the same": (lambda t: t, ["--label", "member"], ("as label and as member",)),
    "label out of range": (put("label", 7), [], ("'7'", "no column")),
    "negative label": (put("label", -1), [], ("'-1'", "no column")),
    "missing label": (put("label", None), [], ("missing in 1 of 40", "row 4")),
    "labels with fractions": (lambda t: t.assign(label=t["label"] + 0.5), [], ("fractions", "regression")),
    "labels as dates": (lambda t: t.assign(label="2020-01-01"), [], ("type date", "convert")),
    "one label only": (lambda t: t.assign(label=1), [], ("all 40 labels are '1'", "two classes")),
    "text labels without columns": (
        lambda t: t.assign(label=[f"c{y}" for y in LABELS]), [], ("'c0'", "no column", "name the columns")),
    "member in unknown words": (
        lambda t: t.assign(member=np.where(MEMBER, "ja", "nein")), [], ("'ja', 'nein'", "yes/no")),
    "member with a third value": (put("member", 2), [], ("member holds 2", "expected 1")),
    "member mixed of words and numbers": (put("member", "perhaps"), [], ("'perhaps'", "rename")),
    "missing member": (put("member", None), [], ("missing in 1 of 40",)),
    "no members": (lambda t: t.assign(member=0), [], ("marks 0 of 40 samples as members",)),
    "no non-members": (lambda t: t.assign(member="yes"), [], ("marks 0 of 40 samples as non-members",)),
    "few non-members": (lambda t: t.assign(member=(np.arange(N) < 37).astype(int)), [], ("marks 3 of 40",)),
    "3 rows": (lambda t: t.head(3), [], ("got 3 samples", "at least 10 rows")),
    "header only": (lambda t: t.head(0), [], ("no rows",)),
    "missing probability": (put("prob_1", None), [], ("'prob_1' is missing in 1 of 40", "row 4")),
    "infinite probability": (put("prob_1", np.inf), [], ("infinite", "row 4")),
    "negative probability": (put("prob_1", -0.2), [], ("got -0.2 in row 4", "--kind logits")),
    "rows that do not sum to 1": (lambda t: t.assign(prob_1=t["prob_1"] / 2), [], ("do not sum to 1", "row 1")),
    "one row that does not sum to 1": (put("prob_1", 0.999), [], ("1 of 40 rows do not sum to 1",)),
    "logits said to be probabilities": (logits, ["--kind", "probs"], ("numbers outside 0..1 in 40 of 40",)),
    "unknown kind": (lambda t: t, ["--kind", "prob"], ("did you mean 'probs'",)),
    "both kinds": (lambda t: t.assign(logit_0=1.0, logit_1=2.0, logit_2=3.0), [], ("both prob_... and logit_",)),
    "strings among numbers": (put("prob_2", "high"), [], ("'prob_2' holds 'high'", "prob_<class>")),
    "a column that is no class": (
        lambda t: t.rename(columns=lambda c: c.removeprefix("prob_")).assign(ward="north"), [],
        ("'ward' holds 'north'", "remove the column")),
    "an identifier among the logits": (
        lambda t: logits(t.drop(columns="id")).assign(patient=range(N)).rename(columns=lambda c: c.split("_")[-1]),
        [], ("no label belongs to 'patient'", "logit_<class>")),
    "an identifier among logits without names": (
        lambda t: logits(t.drop(columns="id")).assign(patient=range(N)).rename(columns=lambda c: c.replace("b_", "")),
        [], ("has 4 columns of numbers", "no label belongs to one of them")),
    "numbers in decimal commas": (lambda t: t.assign(prob_0=t["prob_0"].map(lambda p: f"{p:.3f}".replace(".", ","))),
        [], ("'prob_0' holds '0,", "mend the values")),
    "true and false for numbers": (lambda t: t.assign(prob_0=True), [], ("'prob_0' holds True",)),
    "duplicate ids": (put("id", "r5"), [], ("1 ids stand for several samples: r5", "one row per id")),
    "missing id": (put("id", None), [], ("'id' is missing",)),
    "duplicate columns": (lambda t: pd.concat([t, t["label"]], axis=1), [], ("several columns named label",)),
    "a row number without a name": (lambda t: t.reset_index().rename(columns={"index": ""}), [], ("has no name",)),
    "no column of a class": (lambda t: t[["label", "member", "id"]], [], ("no column beside",)),
    "one column, three labels": (
        lambda t: t[["label", "member", "prob_1"]], [], ("3 different labels", "one column per class")),
    "too many classes": (
        lambda t: pd.concat([t, pd.DataFrame(0.0, index=t.index, columns=[f"prob_x{i}" for i in range(1000)])], axis=1),
        [], ("1,003 columns of classes", "at most 1,000")),
    "hard answers of several labels": (
        lambda t: t.assign(**{f"prob_{i}": 1.0 * (t.index % 7 <= i) for i in range(3)}), ["--kind", "probs"],
        ("do not sum to 1", "normalise the rows")),
    "samples in columns": (
        lambda t: pd.DataFrame(np.zeros((2, 5000)), columns=[f"s{i}" for i in range(5000)]), [],
        ("5,000 columns", "Transpose")),
}  # fmt: skip


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The message of a command that must fail by the user's fault."""
    monkeypatch.setattr("sys.argv", ["relaxloss", "audit", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capsys.readouterr()
    assert end.value.code == 2, said.err
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1  # one paragraph
    assert len(said.err) < 1200
    return said.err


@pytest.mark.parametrize("case", TABLES)
def test_bad_tables(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    change, options, expected = TABLES[case]
    path, out = tmp_path / "p.csv", tmp_path / "audit"
    change(frame()).to_csv(path, index=False)
    said = run(monkeypatch, capsys, str(path), "--out", str(out), *options)
    assert "p.csv" in said or case == "unknown kind"
    for text in expected:
        assert text in said
    assert not out.exists()


def test_the_good_table_is_good(tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "p.csv", index=False)
    frame().astype({"member": bool}).to_parquet(tmp_path / "p.parquet")
    np.savez(tmp_path / "p.npz", **arrays())
    for name in ("p.csv", "p.parquet", "p.npz"):
        found = readers.read(tmp_path / name)
        assert (found.labels == LABELS).all()
        assert (found.member == MEMBER).all()
        np.testing.assert_allclose(np.exp(found.logits), probabilities(), rtol=1e-12)


# Files that are no tables


def npz(**changed: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{key: value for key, value in (arrays() | changed).items() if value is not None})
    return buffer.getvalue()


def header(shape: tuple[int, ...], kind: int = zipfile.ZIP_STORED) -> bytes:
    """An npz whose array says that it has `shape`, and has almost nothing."""
    member, buffer = io.BytesIO(), io.BytesIO()
    about = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(member, about)
    with zipfile.ZipFile(buffer, "w", kind) as archive:
        archive.writestr("probs.npy", member.getvalue() + bytes(800))
    return buffer.getvalue()


def forged() -> bytes:
    """The same with a directory that says so too: 4 GB in a few hundred bytes."""
    content = bytearray(header((500_000_000,), zipfile.ZIP_DEFLATED))
    place = content.index(b"PK\x01\x02") + 24
    content[place : place + 4] = struct.pack("<I", 4_000_000_128)
    return bytes(content)


def parquet() -> bytes:
    return bytes(frame().to_parquet())


FILES: dict[str, tuple[str, bytes, tuple[str, ...]]] = {
    "empty csv": ("p.csv", b"", ("the file is empty", "expected the columns label, member")),
    "empty npz": ("p.npz", b"", ("the file is empty", "expected the arrays")),
    "blank csv": ("p.csv", b"\n \n", ("empty",)),
    "ragged csv": ("p.csv", b"label,member,a,b\n0,1,.5,.5\n1,0,.5\n", ("as many values in each row",)),
    "semicolons": ("p.csv", b"label;member;a;b\n0;1;.5;.5\n", ("semicolons", "save it with them")),
    "latin-1 csv": ("p.csv", "label,member,é,b\n0,1,.5,.5\n".encode("latin-1"), ("UTF-8", "line 1")),
    "bytes for csv": ("p.csv", bytes(range(256)), ("UTF-8",)),
    "truncated parquet": ("p.parquet", parquet()[:-200], ("truncated or no Parquet", "save it again")),
    "text for parquet": ("p.parquet", b"label,member\n", ("no Parquet file",)),
    "truncated npz": ("p.npz", npz()[:-300], ("truncated, damaged or no npz", "numpy.savez")),
    "text for npz": ("p.npz", b"label,member\n", ("no npz file",)),
    "damaged npz": ("p.npz", npz().replace(b"NUMPY", b"MUMPY"), ("damaged or no npz",)),
    "10 GB in a header": ("p.npz", header((1_250_000_000,)), ("claims the shape (1250000000,), 10 GB", "forged")),
    "4 GB in two headers": ("p.npz", forged(), ("claims the shape (500000000,), 4 GB",)),
    "object arrays": ("p.npz", npz(labels=np.array(["a", 1] * 20, object)), ("Python objects", "never unpickled")),
    "records in npz": ("p.npz", npz(labels=np.zeros(N, [("a", int)])), ("records", "never unpickled")),
    "no predictions": ("p.npz", npz(probs=None), ("neither probs nor logits",)),
    "labels misnamed": ("p.npz", npz(labels=None, label=LABELS), ("did you mean 'label'", "--label")),
    "both probs and logits": ("p.npz", npz(logits=probabilities()), ("both probs and logits", "--kind")),
    "3-D probabilities": ("p.npz", npz(probs=np.ones((N, 2, 2)) / 2), ("3 dimensions", "(N, C)")),
    "complex": ("p.npz", npz(probs=probabilities() + 0j), ("complex numbers",)),
    "text probabilities": ("p.npz", npz(probs=probabilities().astype(str)), ("hold text", "convert")),
    "transposed": ("p.npz", npz(probs=probabilities().T), ("(3, 40) for 40 samples", "transposed")),
    "labels too short": ("p.npz", npz(labels=LABELS[:-1]), ("shape (39,)", "(40,)")),
    "NaN labels": ("p.npz", npz(labels=np.where(LABELS, LABELS, np.nan)), ("labels is missing in 14 of 40",)),
    "one-hot labels": ("p.npz", npz(labels=np.eye(3)[LABELS]), ("shape (40, 3)",)),
    "names for fewer classes": ("p.npz", npz(classes=np.array(["a", "b"])), ("2 names of classes for 3",)),
    "a number for names": ("p.npz", npz(classes=np.array(3)), ("classes is int64 ()",)),
    "shadows without membership": ("p.npz", npz(shadow_probs=probabilities()[None]), ("without their membership",)),
    "shadows of the other kind": ("p.npz", npz(shadow_logits=probabilities()[None]), ("same kind, shadow_probs",)),
    "no row finite": ("p.npz", npz(probs=None, logits=np.full((N, 3), -np.inf)), ("-inf in every class",)),
    "unknown extension": ("p.xlsx", b"x", ("unknown kind of file", ".csv, .parquet, .npz")),
    "pickle": ("p.pkl", b"x", ("unknown kind of file",)),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_bad_files(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, content, expected = FILES[case]
    (tmp_path / name).write_bytes(content)
    tracemalloc.start()
    said = run(monkeypatch, capsys, str(tmp_path / name), "--out", str(tmp_path / "audit"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert name in said
    for text in expected:
        assert text in said
    assert peak < 200e6
    assert not (tmp_path / "audit").exists()


def test_bad_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    good = tmp_path / "p.csv"
    frame().to_csv(good, index=False)
    assert "is a directory" in run(monkeypatch, capsys, str(tmp_path))
    assert "no such file; beside it: p.csv" in run(monkeypatch, capsys, str(tmp_path / "q.csv"))
    assert "is a file; expected a directory" in run(monkeypatch, capsys, str(good), "--out", str(good))
    inside = str(good / "audit")
    assert "cannot write into" in run(monkeypatch, capsys, str(good), "--out", inside)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.csv"
    frame().to_csv(path, index=False)
    path.chmod(0)
    if os.access(path, os.R_OK):  # root reads everything

        def refuse(*_: Any, **__: Any) -> Any:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=r"Permission denied.*expected a file that you may read"):
        readers.read(path)


@pytest.mark.parametrize("name", ["p.csv", "p.parquet", "p.npz"])
def test_files_beyond_the_limit(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / name
    table = pd.DataFrame({"label": 0, "member": 1, "a": 0.0}, index=range(20_000))
    limit = 10_000
    if name == "p.csv":
        table.to_csv(path)
    elif name == "p.parquet":
        table.to_parquet(path)  # constant columns: 480 kB of numbers in a few kB
        limit = 20_000
        assert path.stat().st_size < limit
    else:
        np.savez_compressed(path, probs=np.zeros(20_000))
    monkeypatch.setattr(readers, "LIMIT", limit)
    with pytest.raises(UserError, match="expected at most"):
        readers.read(path)


# Arrays


def good() -> Arrays:
    p = probabilities()
    return {
        "member_probs": p[MEMBER], "member_labels": LABELS[MEMBER],
        "nonmember_probs": p[~MEMBER], "nonmember_labels": LABELS[~MEMBER],
    }  # fmt: skip


def shadows(k: int = 2, n: int = N, c: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.dirichlet(np.ones(c), (k, n)), rng.random((k, n)) < 0.5


ARRAYS: dict[str, tuple[Arrays, str]] = {
    "neither kind": ({"member_probs": None, "nonmember_probs": None}, "neither logits nor probabilities"),
    "both kinds": ({"member_logits": np.zeros((20, 3))}, "both logits and probabilities"),
    "one group only": ({"nonmember_probs": None}, "got no nonmember_probs"),
    "other classes": ({"nonmember_probs": np.ones((20, 2)) / 2}, "3 classes and nonmember_probs 2"),
    "labels of other length": ({"member_labels": LABELS[:7]}, r"member_labels has shape \(7,\)"),
    "no members": ({"member_probs": np.zeros((0, 3)), "member_labels": []}, "marks 0 of 20 samples as members"),
    "ragged lists": ({"member_probs": [[0.5, 0.5], [1.0]]}, "no array"),
    "text labels without names": ({"member_labels": ["a"] * 20, "nonmember_labels": ["b"] * 20}, "'a', 'b'"),
    "labels of mixed types": (
        {"member_labels": np.array(["a", 1] * 10, object), "nonmember_labels": np.array(["a", 1] * 10, object)},
        "mixes or holds int, str"),
    "a scalar": ({"member_probs": 0.5}, "0 dimensions"),
    "per cent": (
        {"member_probs": 100 * probabilities()[MEMBER], "nonmember_probs": 100 * probabilities()[~MEMBER]},
        "divide them by 100",
    ),
    "logits as probabilities": ({"member_probs": np.log(probabilities()[MEMBER])}, "these look like logits"),
    "NaN": ({"member_probs": np.full((20, 3), np.nan)}, "NaN, missing or infinite values in 20 rows"),
    "booleans": ({"member_probs": np.ones((20, 3), bool)}, "true and false"),
    "ids of other length": ({"ids": [1, 2]}, r"ids has shape \(2,\)"),
    "ids twice": ({"ids": [1] * N}, "stand for several samples: 1"),
    "0 shadows": ({"shadows": []}, "0 shadow models"),
    "0 shadows in an array": ({"shadows": shadows(0)}, "0 shadow models"),
    "shadows on other samples": ({"shadows": shadows(n=39)}, r"expected \(K, 40, 3\)"),
    "shadows with other classes": ({"shadows": shadows(c=4)}, r"expected \(K, 40, 3\)"),
    "membership of other shape": ({"shadows": (shadows()[0], shadows(3)[1])}, r"shape \(3, 40\); expected \(2, 40\)"),
    "membership in shares": ({"shadows": (shadows()[0], np.full((2, N), 0.5))}, "membership is float64"),
    "shadows' probabilities are logits": ({"shadows": (np.log(shadows()[0]), shadows()[1])}, "shadow 1: .*look like"),
    "no triples": ({"shadows": [shadows()[0][0]]}, "expected a list of triples"),
    "triples in another order": (
        {"shadows": [(shadows()[0][0], LABELS[::-1], shadows()[1][0])]}, "other labels than the target"),
    "triples of different classes": (
        {"shadows": [(shadows(c=c)[0][0], LABELS, shadows()[1][0]) for c in (3, 4)]}, "expected equal shapes"),
    "memberships of different lengths": (
        {"shadows": [(shadows()[0][0], LABELS, shadows()[1][0][:n]) for n in (40, 39)]}, "different lengths"),
    "an unknown attack": ({"attacks": "los"}, "did you mean 'loss'"),
    "a level of 95": ({"level": 95}, "expected a confidence level between 0 and 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", ARRAYS)
def test_bad_arrays(case: str) -> None:
    changed, message = ARRAYS[case]
    with pytest.raises(UserError, match=message) as error:
        rl.audit(**(good() | changed))
    assert "\n" not in str(error.value)


def test_there_are_more_than_forty_kinds() -> None:
    assert len(TABLES) + len(FILES) >= 40
    assert len(ARRAYS) >= 25


def test_labels_are_the_columns_names_without_what_stands_before_them() -> None:
    logits, labels = np.random.default_rng(0).normal(size=(30, 3)), np.arange(30) % 3
    member = np.arange(30) < 15
    from_one = of_arrays(logits, labels + 1, member, kind="logits", classes=["p1", "p2", "p3"])
    assert from_one.labels.tolist() == labels.tolist()
    assert "Labels were taken as names of columns: '1' is 'p1'." in from_one.notes
    from_zero = of_arrays(logits, labels, member, kind="logits", classes=["p1", "p2", "p3"])
    assert from_zero.labels.tolist() == labels.tolist(), "0 is no name, so that these are places"
    two = of_arrays(logits, labels % 2 + 1, member, kind="logits", classes=["class_1", "class_2", "class_3"])
    assert two.labels.tolist() == (labels % 2).tolist()


def test_what_is_no_attack_is_told() -> None:
    probs = probabilities()
    given = {"member_probs": probs[MEMBER], "member_labels": LABELS[MEMBER]}
    given |= {"nonmember_probs": probs[~MEMBER], "nonmember_labels": LABELS[~MEMBER]}
    with pytest.raises(UserError, match=r"attacks holds 3; expected names of attacks"):
        rl.audit(**given, attacks=[3])  # type: ignore[list-item]
