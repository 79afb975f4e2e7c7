"""Columns of numbers or dates that one odd cell turned into text: said, and real categories left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from relaxloss import data
from relaxloss.data.tabular import frames, suspicious_text
from relaxloss.errors import UserError

NUMBERS = [f"{value / 10:g}" for value in range(3, 60)]
COMMAS = [text.replace(".", ",") for text in NUMBERS]
DAYS = pd.date_range("2020-01-01", periods=60)
ICD9 = [str(code) for code in range(250, 295)] + ["V45", "V57", "E878", "V10", "E909"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([*NUMBERS, "<0.3"], "57 different numbers and also '<0.3'; expected numbers only"),
        ([*NUMBERS, "-"], "and also '-'"),
        ([*NUMBERS, *NUMBERS, "-", "?"], "and also '-', '?'"),
        ([*map(str, range(20, 50)), "<20", ">90", "unknown"], "30 different numbers and also '<20', '>90', 'unknown'"),
        (COMMAS, "numbers written as '0,3'; expected plain ones: a point before decimals"),
        ([*COMMAS, "unknown"], "numbers written as '0,3' and also 'unknown'"),
        ([f"{value:,}" for value in range(1234, 2_000_000, 54321)], "numbers written as '1,033,333'"),
        (
            [f"{value:,}".replace(",", ".") for value in range(10**6, 2 * 10**6, 54321)],
            "numbers written as '1.000.000'",
        ),
        ([f"{value}%" for value in range(20)], "no sign of per cent or money, - for minus; if they are"),
        ([f"${value:,}.50" for value in range(900, 1_000_000, 54321)], "numbers written as '$1"),
        ([f"{value},00 €" for value in range(20)], "numbers written as '0,00 €'"),
        ([f"{value}".replace("-", "−") for value in range(-9, 10)], "numbers written as '−1'"),
        ([f"{value},5e-3" for value in range(20)], "numbers written as '0,5e-3'"),
        ([f"{day:%d.%m.%Y}" for day in DAYS], "dates as text ('01.01.2020', ...); expected YYYY-MM-DD"),
        ([f"{day:%m/%d/%y}" for day in DAYS], "dates as text"),
        ([*[f"{day:%Y-%m-%d}" for day in DAYS], "soon"], "but for 'soon'"),
    ],
)
def test_what_was_meant_is_said(values: list[str], said: str) -> None:
    assert said in suspicious_text.mistaken(sorted(set(values)))


@pytest.mark.parametrize(
    "values",
    [
        ["surgery", "children", "eye"],
        ["0", "1", "2", "3 or more"],
        ICD9,
        NUMBERS,  # of a column that was saved as text
        ["1,2", "2,3"],  # ranges
        ["[0-10)", "[10-20)", "[20-30)"],
        ["12.03.2020"],
        [f"{a}-{b}-0{c}" for a in range(1, 4) for b in range(1, 4) for c in range(1, 4)],
        [""],
    ],
)
def test_categories_are_left_alone(values: list[str]) -> None:
    assert suspicious_text.mistaken(sorted(values)) == ""


def test_one_odd_cell_stops_the_loading(tmp_path: Path) -> None:
    table = pd.DataFrame({"crp": NUMBERS, "ill": np.arange(len(NUMBERS)) % 2})
    table.to_csv(tmp_path / "lab.csv", index=False)
    assert data.load(tmp_path / "lab.csv", label="ill").columns[0].categories is None
    table.loc[7, "crp"] = "<0.3"
    table.to_csv(tmp_path / "lab.csv", index=False)
    with pytest.raises(
        UserError, match=r"lab.csv: column 'crp' holds 56 different numbers and also '<0.3'.*--drop crp"
    ):
        data.load(tmp_path / "lab.csv", label="ill")


def test_the_provenance_names_the_categories(tmp_path: Path) -> None:
    table = pd.DataFrame({"ward": ["a", "b"] * 10, "zip": [f"{place % 3:05d}" for place in range(20)]})
    table.assign(ill=np.arange(20) % 2).to_parquet(tmp_path / "p.parquet")
    said = data.load(tmp_path / "p.parquet", label="ill").provenance
    assert "categories: ward (2), zip (3)" in said
    assert "text of numbers only, taken as categories: zip" in said


def test_dates_as_pandas_reads_them_are_those_of_the_file(tmp_path: Path) -> None:
    table = pd.DataFrame({"born": [f"{day:%Y-%m-%d}" for day in DAYS], "ill": np.arange(len(DAYS)) % 2})
    table.to_csv(tmp_path / "p.csv", index=False)
    found = data.load(tmp_path / "p.csv", label="ill")
    np.testing.assert_array_equal(frames.encode(pd.read_csv(tmp_path / "p.csv"), found.columns), found.x)
    with pytest.raises(UserError, match=r"'born' holds text \('1 May', ...\); the model was trained on dates there"):
        frames.encode(table.assign(born="1 May"), found.columns)
    gap = frames.encode(table.assign(born=["", *table["born"][1:]]), found.columns)
    np.testing.assert_array_equal(gap, [[np.nan], *found.x[1:]])
    with pytest.raises(UserError, match=r"'born' holds text \('20.*\); the model was trained on numbers"):
        frames.encode(table, (data.Column("born"),))
    table.to_parquet(tmp_path / "p.parquet")  # where they are text
    np.testing.assert_array_equal(data.load(tmp_path / "p.parquet", label="ill").x, found.x)


def test_declared_categories_are_what_they_are_declared_to_be(tmp_path: Path) -> None:
    codes = pd.Categorical([*map(str, range(20)), "other"])
    pd.DataFrame({"code": codes, "ill": np.arange(21) % 2}).to_parquet(tmp_path / "p.parquet")
    assert data.load(tmp_path / "p.parquet", label="ill").columns[0].categories is not None


def test_a_broken_row_is_not_printed(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("name,ill\n" + "ann,0\n" * 11 + "MISTER SECRET,1,2\n")
    with pytest.raises(UserError, match=r"Expected 2 columns, got 3$") as caught:
        data.load(tmp_path / "p.csv", label="ill")
    assert "SECRET" not in str(caught.value)
    (tmp_path / "p.csv").write_text("name;crp;ill\n" + "SECRET;61,9;0\n" * 12)
    with pytest.raises(UserError, match="separated by semicolons"):
        data.load(tmp_path / "p.csv", label="ill")
