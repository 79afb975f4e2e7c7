"""The rows of a result: which attack is called the strongest, and where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics

from relaxloss import measures, report

ROOT = Path(__file__).parent.parent


def test_the_strongest_attack_is_another_at_a_low_false_positive_rate() -> None:
    """One attack ranks everybody a little better; the other is sure of one member in five, and blind to the rest."""
    rng, n = np.random.default_rng(0), 60_000
    member = np.arange(n) < n // 2
    table = {
        "average": rng.normal(size=n) + 1.2 * member,
        "sure": rng.normal(size=n) + 9.0 * (member & (rng.random(n) < 0.2)),
    }
    made = [row for name, scores in table.items() for row in measures.attack(name, scores, member)]
    rows = {(row["attack"], row["measure"]): row for row in measures.worst(table, member, made, seed=0)}
    assert rows["max", "auc"]["note"] == rows["selected", "auc"]["note"] == "by average"
    assert rows["max", "auc"]["value"] == pytest.approx(sklearn.metrics.roc_auc_score(member, table["average"]))
    for fpr, measure in zip(measures.FPRS, measures.TPRS, strict=True):
        threshold = np.sort(table["sure"][~member])[-int(fpr * n / 2) - 1]
        assert rows["max", measure]["note"] == "by sure"
        assert rows["max", measure]["value"] == pytest.approx((table["sure"][member] > threshold).mean())
        assert rows["selected", measure]["value"] < rows["max", measure]["value"], "one attack, chosen by its AUC"


def test_what_no_attack_could_measure_says_why() -> None:
    member = np.arange(60) < 30
    table = {"loss": np.random.default_rng(0).normal(size=60) + member}
    rows = measures.worst(table, member, measures.attack("loss", table["loss"], member), seed=0)
    low = next(row for row in rows if row["attack"] == "max" and row["measure"] == "tpr_at_0.01_fpr")
    assert np.isnan(low["value"])
    assert low["note"].startswith("not measured: 30 non-members")


def test_a_report_takes_the_largest_of_all_attacks_at_each_rate() -> None:
    """Of results too whose ``max`` is another there: it was the attack with the largest AUC once."""
    result = report.load(ROOT / "results" / "location30_mislabelled")
    rows = result.rows[(result.rows["measure"] == "tpr_at_0.001_fpr") & (result.rows["adaptive"] == True)]  # noqa: E712
    table = report.summary(result).set_index("defense")
    for defense, group in rows.groupby("defense"):
        of_attacks = group[~group["attack"].isin(["max", "selected"])].sort_values("value")
        said = table.loc[defense]
        assert said["tpr_at_0.001_fpr_adaptive"] == of_attacks["value"].iloc[-1]
        assert said["tpr_at_0.001_fpr_adaptive_low"] == of_attacks["low"].iloc[-1]
    assert table.loc["dpsgd", "tpr_at_0.001_fpr_adaptive"] > group_of(rows, "dpsgd", "max"), "RMIA, and not LiRA"


def group_of(rows: pd.DataFrame, defense: str, attack: str) -> float:
    return float(rows[(rows["defense"] == defense) & (rows["attack"] == attack)]["value"].iloc[0])
