"""The rows of a result: which attack is called the strongest, and where."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics

from relaxloss import report
from relaxloss.evaluation import rows as measures

ROOT = Path(__file__).parents[2]


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


def test_thresholds_are_the_shadows_and_never_the_targets() -> None:
    """The shadow's scores lie higher, so that its best threshold is another than the target's."""
    rng, n, classes = np.random.default_rng(3), 4000, 3
    member, labels = rng.random(n) < 0.5, rng.integers(0, classes, n)
    scores = rng.normal(size=n) + member + 0.5 * labels
    theirs, their_labels = rng.random(n) < 0.5, rng.integers(0, classes, n)
    shadow = rng.normal(size=n) + theirs + 0.5 * their_labels + 1.0
    found = measures.decision("a", scores, member, (shadow, theirs), (labels, their_labels), classes)
    rows = {row["measure"]: row["value"] for row in found}

    def best(values: np.ndarray, truth: np.ndarray) -> float:
        tried = np.sort(values)
        return float(tried[np.argmax([balanced(truth, values >= cut) for cut in tried])])

    def balanced(truth: np.ndarray, said: np.ndarray) -> float:
        return float((said[truth].mean() + (~said[~truth]).mean()) / 2)

    cut = best(shadow, theirs)
    want = sklearn.metrics.balanced_accuracy_score(member, scores >= cut)
    assert rows["balanced_accuracy"] == pytest.approx(want)
    assert best(scores, member) < cut - 0.3
    cuts = np.array([best(shadow[their_labels == k], theirs[their_labels == k]) for k in range(classes)])
    want = sklearn.metrics.balanced_accuracy_score(member, scores >= cuts[labels])
    assert rows["balanced_accuracy_per_class"] == pytest.approx(want)


def test_the_selected_attack_is_measured_where_it_was_not_selected() -> None:
    rng, n = np.random.default_rng(4), 600
    member = np.arange(n) < n // 2
    most, picked = [], []
    for seed in range(40):
        table = {str(name): rng.normal(size=n) for name in range(30)}
        made = [row for name, scores in table.items() for row in measures.attack(name, scores, member)]
        rows = {(row["attack"], row["measure"]): row for row in measures.worst(table, member, made, seed=seed)}
        first = measures.half(n, None, seed=seed, stream="selection")
        areas = {name: sklearn.metrics.roc_auc_score(member[first], each[first]) for name, each in table.items()}
        chosen = max(areas, key=lambda name: areas[name])
        row = rows["selected", "auc"]
        assert (row["note"], row["n"]) == (f"by {chosen}", (~first).sum())
        assert row["value"] == pytest.approx(sklearn.metrics.roc_auc_score(member[~first], table[chosen][~first]))
        most.append(rows["max", "auc"]["value"])
        picked.append(row["value"])
    assert np.mean(most) > 0.53, "the best of thirty that know nothing"
    assert abs(np.mean(picked) - 0.5) < 3 * np.std(picked) / np.sqrt(len(picked))


def test_a_report_takes_the_largest_of_all_attacks_at_each_rate() -> None:
    """Of results too whose ``max`` is another there: it was the attack with the largest AUC once."""
    result = report.load(ROOT / "results" / "location30_mislabelled")
    low = (result.rows["measure"] == "tpr_at_0.001_fpr") & (result.rows["attack"] == "max")
    older = result.rows.assign(value=result.rows["value"].mask(low, 0.0), low=result.rows["low"].mask(low, 0.0))
    table = report.summary(replace(result, rows=older)).set_index("defense")
    rows = older[(older["measure"] == "tpr_at_0.001_fpr") & (older["adaptive"] == True)]  # noqa: E712
    for defense, group in rows.groupby("defense"):
        of_attacks = group[~group["attack"].isin(["max", "selected"])].sort_values("value")
        said = table.loc[defense]
        assert said["tpr_at_0.001_fpr_adaptive"] == of_attacks["value"].iloc[-1] > 0
        assert said["tpr_at_0.001_fpr_adaptive_low"] == of_attacks["low"].iloc[-1]
