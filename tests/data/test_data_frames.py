"""Tables in memory: as a data set, and as rows for a saved model, read by its own columns, and refused if of others."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from relaxloss import data
from relaxloss.data.tabular import frames
from relaxloss.errors import UserError

KNOWN = (data.Column("ward", ("a", "b", None)), data.Column("sex", ("f", "m")), data.Column("note", (None,)))


def encoded(**columns: Any) -> np.ndarray:
    plain = {"ward": ["a", "b"] * 10, "sex": ["f", "m"] * 10, "note": ["fall", None] * 10}
    return frames.encode(pd.DataFrame(plain | columns), KNOWN)


def test_unknown_values_are_warned_of_where_they_are_many() -> None:
    with pytest.warns(UserWarning, match=r"did not learn: ward \(20 of 20\), sex \(1 of 1\); they count as missing"):
        x = encoded(ward=["A", "B"] * 10, sex=["x", *[None] * 19])
    np.testing.assert_array_equal(x, np.full((20, 3), np.nan))
    with pytest.warns(UserWarning, match=r"ward \(1 of 1\)"):
        frames.encode(pd.DataFrame({"ward": ["A"], "sex": ["f"], "note": ["x"]}), KNOWN)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = encoded(ward=["rare", "b"] + ["a", "b"] * 9)  # of a category that too few members had, as two in 20 may be
    np.testing.assert_array_equal(x[:, 0], [np.nan, 1] + [0, 1] * 9)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"sex": [0, 1] * 10}, r"'sex' holds int64 \(0, ...\); the model learned 'f', 'm' there"),
        ({"sex": pd.to_datetime(["2020-01-01"] * 20)}, "'sex' holds dates"),
        ({"sex": [True] * 20}, r"holds bool \(True"),
        ({"sex": [["f"]] * 20}, "holds list"),
        ({"sex": ["m", 1] * 10}, r"'sex' holds what no column of a table can \(int, str\)"),
        ({"sex": [1j] * 20}, "'sex' holds"),
        ({"Sex ": ["m"] * 20, "sex": None}, None),
    ],
)
def test_a_column_of_another_kind_is_refused(columns: dict[str, Any], said: str | None) -> None:
    if said is None:
        assert np.isnan(encoded(**columns)[:, 1]).all()
        return
    with pytest.raises(UserError, match=said):
        encoded(**columns)


def test_values_that_were_rare_in_training_are_missing_and_not_refused() -> None:
    rare = (data.Column("pregnant", ("false", None)),)
    with pytest.warns(UserWarning, match=r"did not learn: pregnant \(1 of 1\)"):
        assert np.isnan(frames.encode(pd.DataFrame({"pregnant": [True]}), rare)).all()
    with pytest.raises(UserError, match="holds what no column"):
        frames.encode(pd.DataFrame({"pregnant": pd.cut(pd.Series([1.0, 2.0]), 2)}), rare)


def test_numbers_and_dates_are_not_taken_for_each_other() -> None:
    columns = (data.Column("age"), data.Column("born", dates=True))
    good = pd.DataFrame({"age": [63.0], "born": pd.to_datetime(["1970-01-03"])})
    np.testing.assert_array_equal(frames.encode(good, columns), [[63, 2]])
    for wrong, said in (
        ({"age": good.born}, r"'age' holds dates .*; the model was trained on numbers there"),
        ({"born": good.born.astype("int64")}, r"'born' holds int64 .*; the model was trained on dates there"),
        ({"age": [np.inf]}, "infinite values .* in 1 of 1 rows"),
        ({"age": [2**70]}, "'age' holds what no column of a table can|infinite"),
        ({"age": ["63 y"]}, r"holds text \('63 y', ...\)"),
    ):
        with pytest.raises(UserError, match=said):
            frames.encode(good.assign(**wrong), columns)
    with pytest.raises(UserError, match=r"the table has no column 'age' \(is 'Age' it\?\); .* it has Age, born"):
        frames.encode(good.rename(columns={"age": "Age"}), columns)
    with pytest.raises(UserError, match="the table has 2 columns 'age'"):
        frames.encode(pd.concat([good, good[["age"]]], axis=1), columns)
    assert frames.encode(good.head(0), columns).shape == (0, 2)


def test_whole_numbers_that_are_categories_are_found_beside_missing_ones() -> None:
    stage = (data.Column("stage", ("1", "2")),)
    np.testing.assert_array_equal(frames.encode(pd.DataFrame({"stage": [2.0, None, 1]}), stage), [[1], [np.nan], [0]])
    smoker = (data.Column("smoker", ("false", "true")),)
    np.testing.assert_array_equal(frames.encode(pd.DataFrame({"smoker": [True, None]}), smoker), [[1], [np.nan]])
    text = pd.DataFrame({"stage": pd.array(["2", None], dtype="string")})
    np.testing.assert_array_equal(frames.encode(text, stage), [[1], [np.nan]])


def test_a_column_of_numbers_is_read_by_its_values_whatever_pandas_keeps_it_as() -> None:
    column = (data.Column("stage"),)
    for values in (pd.Categorical([4, 2, None, 4]), pd.Series([4, 2, None, 4], dtype="Int8")):
        np.testing.assert_array_equal(frames.encode(pd.DataFrame({"stage": values}), column), [[4], [2], [np.nan], [4]])
    np.testing.assert_array_equal(frames.encode(pd.DataFrame({"stage": [True, True]}), column), [[1], [1]])
    with pytest.raises(UserError, match="holds text"):
        frames.encode(pd.DataFrame({"stage": pd.Categorical(["IV", "II"])}), column)


def patients(n: int = 60) -> pd.DataFrame:
    chance = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": chance.integers(18, 90, n),
            "bmi": chance.normal(25, 4, n),
            "ward": chance.choice(["a", "b", "c"], n),
            "smoker": chance.random(n) < 0.3,
            "since": pd.Timestamp("2024-01-01") + pd.to_timedelta(chance.integers(0, 300, n), "D"),
            "who": np.arange(n) // 2,
            "outcome": chance.choice(["alive", "dead"], n),
        },
        index=pd.Index(np.arange(n) % 5, name="day"),  # it is no column, and tells no row
    )
    frame.iloc[3, 1] = np.nan
    return frame


def same(found: data.Dataset, expected: data.Dataset) -> None:
    assert found.fingerprint == expected.fingerprint
    assert (found.columns, found.classes) == (expected.columns, expected.classes)
    np.testing.assert_array_equal(found.persons, expected.persons)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_frame_is_the_data_set_of_the_file_that_holds_it(suffix: str, tmp_path: Path) -> None:
    frame, path = patients(), tmp_path / f"patients.{suffix}"
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_parquet(path, index=False)
    about: dict[str, Any] = {"label": "outcome", "drop": "bmi", "columns": {"age": (0, 110)}, "group": "who"}
    expected = data.load(path, **about)
    found = data.from_frame(frame, name="patients", **about)
    same(found, expected)
    assert found.name == expected.name
    assert found.provenance == expected.provenance.replace(f"file patients.{suffix}", "a table in memory")
    same(data.from_frame(frame.assign(ward=frame["ward"].astype("category")), **about), expected)


def test_whatever_arrow_takes_for_a_table_is_one() -> None:
    frame = patients()
    expected = data.from_frame(frame, label="outcome")
    same(data.from_frame(pa.Table.from_pandas(frame, preserve_index=False), label="outcome"), expected)
    numbered = frame.set_axis(range(7), axis=1)
    same(data.from_frame(numbered, label=6, drop=[0], group=5),  # type: ignore[arg-type,list-item]
         data.from_frame(numbered, label="6", drop="0", group="5"))  # fmt: skip
    dense = frame.assign(age=frame["age"].astype(float))
    same(data.from_frame(dense.astype({"age": pd.SparseDtype(float, 0)}), label="outcome"),
         data.from_frame(dense, label="outcome"))  # fmt: skip
    same(data.from_frame(frame.rename(columns={"age": 7}), label="outcome", drop="7"),
         data.from_frame(frame, label="outcome", drop="age"))  # fmt: skip


@pytest.mark.parametrize(
    ("frame", "about", "said"),
    [
        ([1, 2], {}, r"got list as a table .*; expected a pandas DataFrame"),
        (pd.concat([patients(), patients()[["age"]]], axis=1), {}, "the table: has several columns named age"),
        (patients().rename(columns={"age": ""}), {}, "the table: column 1 has no name"),
        (pa.table([[1], [2]], names=["a", "a"]), {}, "the table: has several columns named a"),
        (patients(), {"label": "outcom"}, "unknown label column of the table 'outcom': did you mean 'outcome'"),
        (patients(), {"drop": ["agee"]}, "unknown column to drop from the table 'agee'"),
        (patients(4), {}, "the table: has 4 rows"),
        (patients().assign(age=[["x"]] * 60), {}, "'age' has the type list"),
        (patients().assign(age=[1, "x"] * 30), {}, r"'age' holds what no column of a table can \(int, str\)"),
        (
            patients().assign(age=pd.cut(patients()["bmi"], 3)),
            {},
            "'age' holds what no column of a table can .Interval",
        ),
        (patients().assign(age=[1, np.inf] * 30), {}, "'age' holds infinite values"),
        (patients().assign(outcome=np.linspace(0, 1, 60)), {}, "'outcome' holds fractions"),
    ],
    ids=[
        "list",
        "twice",
        "nameless",
        "twice, arrow",
        "label",
        "drop",
        "few",
        "lists",
        "mixed",
        "ranges",
        "infinite",
        "regression",
    ],
)
def test_a_frame_that_is_no_data_set_says_why(frame: Any, about: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        data.from_frame(frame, **{"label": "outcome"} | about)
