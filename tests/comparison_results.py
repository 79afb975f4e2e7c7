"""Results of comparisons with given numbers, as a run would have measured them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from relaxloss.experiments.result import COLUMNS, Result

RELAX = ("relaxloss", "alpha=1.0,flatten=all,upper=1.0")
NONE = ("none", "")
TOO_FEW = "not measured: 1000 non-members give 1.0 false positives, fewer than 10"
ATTACKS = ("modified_entropy", "neural")
OTHERS = (
    *("memguard", "advreg", "early_stopping", "dropout", "label_smoothing", "confidence_penalty", "distillation"),
    *("dpsgd", "hamp", "selena", "ccl", "crl", "my_plugin"),
)


def rows_of(
    who: tuple[str, str],
    *,
    top1: float,
    adaptive: float | None = None,
    nonadaptive: float | None = None,
    seed: int = 0,
    top5: float = 0.8,
    half: float = 0.02,
    by: str = "modified_entropy",
    tpr: float = 0.125,
) -> list[dict[str, Any]]:
    """The rows of one defense and one seed: what `experiment` would have measured, with given numbers."""
    head = {"dataset": "location30", "model": "mlp", "defense": who[0], "settings": who[1], "game": "five_folds"}
    head |= {"adaptive": None, "seed": seed, "attack": "", "note": "", "n": 1000}
    nothing = {"low": math.nan, "high": math.nan}

    def around(value: float) -> dict[str, float]:
        return {"value": value, "low": value - half, "high": value + half}

    rows = [head | {"measure": name} | around(value) for name, value in (("top1", top1), ("top5", top5))]
    plain = {"train_top1": 0.99, "member_loss": 1e-5, "member_loss_variance": 0.25, "test_loss": 2.0, "loss_gap": 2.0}
    plain |= {"test_loss_variance": 1.5, "accuracy_gap": 0.3, "calibration_error": 0.1}
    rows += [head | {"measure": name, "value": value} | nothing for name, value in plain.items()]
    for mode, auc in ((True, adaptive), (False, nonadaptive)):
        if auc is None:
            continue
        for attack in (*ATTACKS, "max", "selected"):
            note = f"by {by}" if attack in ("max", "selected") else ""
            value = auc - 0.01 if attack in ("selected", "neural") else auc
            line = head | {"adaptive": mode, "attack": attack, "note": note, "n": 2000}
            rows.append(line | {"measure": "auc"} | around(value))
            rows.append(line | {"measure": "tpr_at_0.01_fpr"} | around(tpr))
            rows.append(line | {"measure": "tpr_at_0.001_fpr", "value": math.nan, "note": TOO_FEW} | nothing)
    return rows


def result_of(rows: Iterable[dict[str, Any]], **more: Any) -> Result:
    facts = {
        "experiment": {"dataset": "location30", "level": 0.95, "label": None, "seeds": [0], "recipe": {"lr": 0.1}},
        "provenance": "5,010 people's check-ins", "samples": 5010, "num_classes": 30, "members": 1002,
        "relaxloss": "0.1.0", "torch": "2.13", "python": "3.13", "date": "2025-01-31", "seconds": 75.25,
    }  # fmt: skip
    empty = pd.DataFrame()
    table = pd.DataFrame(list(rows))[list(COLUMNS)]
    return replace(Result(table, empty, empty, empty, facts), **more)


def with_curves(result: Result) -> Result:
    """The result with made-up histograms, ROC curves and histories of all its defenses and seeds."""
    rng = np.random.default_rng(0)
    histograms, roc, history = [], [], []
    for who, adaptive in result.rows.groupby(["defense", "settings", "seed"], sort=False)["adaptive"]:
        head = dict(zip(("defense", "settings", "seed"), who, strict=True))
        for membership in ("member", "test"):
            shares = rng.dirichlet(np.ones(12))
            histograms += [
                head | {"membership": membership, "left": k * 0.5, "right": k * 0.5 + 0.5, "share": shares[k]}
                for k in range(12)
            ]
        for mode in sorted(set(adaptive.dropna())):
            fpr = np.geomspace(1e-3, 1, 30)
            roc += [
                head | {"adaptive": bool(mode), "attack": "loss", "fpr": f, "tpr": f ** rng.uniform(0.3, 1)}
                for f in fpr
            ]
        for epoch in range(1, 9):
            line = head | {"epoch": epoch, "lr": 0.1, "train_loss": 2 / epoch, "train_loss_variance": 0.1 * epoch}
            history.append(line | ({"test_loss": 2.5, "test_loss_variance": 1.0} if epoch % 4 == 0 else {}))
    return replace(
        result, histograms=pd.DataFrame(histograms), roc=pd.DataFrame(roc), history=pd.DataFrame(history)
    )  # fmt: skip
