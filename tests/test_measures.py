"""The rows of a result: which attack is called the strongest, and where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics

from relaxloss import measures

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


def test_committed_results_name_the_largest_value_at_each_rate() -> None:
    found = sorted((ROOT / "results").rglob("results.csv"))
    assert found
    who = ["defense", "settings", "adaptive", "seed", "measure"]
    for path in found:
        frame = pd.read_csv(path, low_memory=False).fillna({"settings": "", "attack": "", "note": ""})
        frame = frame[frame["measure"].isin(["auc", *measures.TPRS])]
        single = frame[~frame["attack"].isin(["", "max", "selected"])]
        most = single.groupby(who, dropna=False)["value"].max()
        said = frame[frame["attack"] == "max"].set_index(who)["value"]
        assert said.to_dict() == pytest.approx(most.to_dict(), abs=0, nan_ok=True), path
