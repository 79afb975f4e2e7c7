"""Single records: their vulnerability against scipy and a plant, and what chance alone would show."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from relaxloss import metrics
from relaxloss.errors import UserError
from relaxloss.evaluation import records


def planted(seed: int, gaps: np.ndarray, models: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Margins with a difficulty of each record's own, and `gaps` for the models that have the record."""
    rng = np.random.default_rng(seed)
    member = rng.random((models, len(gaps))) < 0.5
    return 3 * rng.normal(size=len(gaps)) + rng.normal(size=member.shape) + gaps * member, member


def test_planted_gaps_are_found_in_their_size_and_order() -> None:
    gaps = np.repeat([0.0, 1.0, 3.0, 8.0], 100)
    margins, member = planted(0, gaps)
    table = records.vulnerability(margins, margins, member, 1000 + np.arange(400))
    by_gap = table.set_index("record").loc[1000 + np.arange(400)]
    for gap in np.unique(gaps):
        mine = by_gap["gap"][gaps == gap]
        assert abs(mine.mean() - gap) < 4 * np.sqrt(4 / 24 / 100) + 0.02 * gap
        expected = stats.norm.cdf(gap / np.sqrt(2))
        assert abs(by_gap["auc"][gaps == gap].mean() - expected) < 0.03
    assert set(table["record"][:100]) == set(1300 + np.arange(100))
    assert list(table["rank"]) == list(range(1, 401))
    assert (table["gap"].diff().dropna() <= 0).all()
    leaking = records.leaking(table)
    assert 200 <= leaking["value"] <= 320  # all of gap 3 and 8, some of 1, and 5 % by chance at most
    assert (by_gap["models_in"].to_numpy() == member.sum(0)).all()


def test_p_values_are_scipys_and_ties_are_on_the_safe_side() -> None:
    margins, member = planted(1, np.r_[np.zeros(20), np.full(20, 1.5)], models=15)
    table = records.vulnerability(margins, margins, member, np.arange(40)).set_index("record")
    for record in range(40):
        has = member[:, record]
        slow = stats.mannwhitneyu(margins[has, record], margins[~has, record], alternative="greater", method="exact")
        assert table["p_value"][record] == pytest.approx(slow.pvalue, rel=1e-9)
        assert table["auc"][record] == pytest.approx(slow.statistic / (has.sum() * (~has).sum()))
    tied = records.vulnerability(np.round(margins), margins, member, np.arange(40)).set_index("record")
    broken = records.vulnerability(np.round(margins) + 1e-9 * margins, margins, member, np.arange(40))
    assert (tied["p_value"] >= broken.set_index("record")["p_value"].loc[tied.index] - 1e-12).all()
    constant = records.vulnerability(np.zeros((15, 40)), margins, member, np.arange(40))
    assert (constant["p_value"] == 1).all()
    assert (constant["auc"] == 0.5).all()


def test_without_a_leak_chance_shows_what_the_table_says_it_would() -> None:
    """Over many games, as many records look so bad as `by_chance` announces, and hardly ever one is said to leak."""
    counts, announced, wrong = [], [], 0
    for seed in range(60):
        margins, member = planted(seed, np.zeros(200))
        table = records.vulnerability(margins, margins, member, np.arange(200))
        for chance in (1, 5, 20):
            counts.append((table["by_chance"] <= chance).sum())
            announced.append(chance)
        wrong += records.leaking(table)["value"] > 0
    counts, announced = np.array(counts), np.array(announced)
    for chance in (1, 5, 20):
        mean = counts[announced == chance].mean()
        assert mean < chance + 4 * np.sqrt(chance / 60)  # exact tests: at most
        assert mean > 0.6 * chance  # and not far below
    assert wrong <= stats.binom.ppf(0.999, 60, 0.05)


def test_accusations_are_those_of_the_pooled_threshold() -> None:
    margins, member = planted(2, np.full(500, 2.0), models=8)
    table = records.vulnerability(margins, margins, member, np.arange(500)).set_index("record").sort_index()
    others = np.sort(margins[~member])[::-1]
    above = margins > others[int(0.01 * len(others))]
    assert (table["found_at_0.01_fpr"] == (above & member).sum(0)).all()
    assert (table["accused_at_0.01_fpr"] == (above & ~member).sum(0)).all()
    pooled = table["found_at_0.01_fpr"].sum() / table["models_in"].sum()
    assert pooled == pytest.approx(metrics.tpr_at_fpr(margins.reshape(-1), member.reshape(-1), 0.01))
    assert table["found_at_0.001_fpr"].isna().all()  # 2,000 non-members: 2 false positives


def test_records_that_all_models_or_none_have_are_not_compared() -> None:
    margins, member = planted(3, np.zeros(10), models=4)
    member[:, 0], member[:, 1] = True, False
    table = records.vulnerability(margins, margins, member, np.arange(10)).set_index("record")
    assert table.loc[[0, 1], ["gap", "auc"]].isna().all(axis=None)
    assert (table.loc[[0, 1], "p_value"] == 1).all()
    unknown = table["gap"].isna()
    assert unknown[0]
    assert unknown[1]
    assert list(unknown) == sorted(unknown)  # at the end


def test_infinite_margins_are_the_largest() -> None:
    margins, member = planted(4, np.zeros(10), models=6)
    member[:, 0] = [True, True, False, False, False, True]
    margins[:, 0] = np.where(member[:, 0], np.inf, -np.inf)
    table = records.vulnerability(margins, margins, member, np.arange(10))
    assert table["record"][0] == 0
    assert np.isfinite(table["gap"].dropna()).all()
    assert table["auc"][0] == 1


def test_exposed_members_of_one_target() -> None:
    scores = np.array([5.0, 4.0, 3.0, 2.0, 1.0, 1.0])
    member = np.array([True, False, True, True, False, True])
    table = records.exposed(scores, member, 10 * np.arange(6))
    assert table.to_dict("list") == {
        "rank": [1, 3, 4, 5],
        "record": [0, 20, 30, 50],
        "score": [5.0, 3.0, 2.0, 1.0],
        "fpr": [0.0, 0.5, 0.5, 1.0],
    }


def test_the_most_vulnerable_are_those_without_defense_over_all_seeds() -> None:
    lines = [("none", 0, 5, 9.0), ("none", 0, 3, 1.0), ("none", 1, 5, 1.0), ("none", 1, 7, 6.0), ("other", 0, 3, 99.0)]
    table = pd.DataFrame(lines, columns=["defense", "seed", "record", "gap"]).assign(settings="")
    assert records.most_vulnerable(table, 2) == (5, 7)
    with pytest.raises(UserError, match="expected 1 to 3"):
        records.most_vulnerable(table, 4)
    with pytest.raises(UserError, match="finished run of the game random_halves"):
        records.most_vulnerable(pd.DataFrame(), 1)
