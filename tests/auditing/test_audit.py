"""Audits: numbers against scikit-learn and closed forms, the same whatever the form of the input, nothing hidden."""

from __future__ import annotations

import json
import math
import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats
from sklearn.metrics import roc_auc_score

import relaxloss as rl
from relaxloss import cli, metrics, validation
from relaxloss.attacks import functional
from relaxloss.auditing import audit as auditing
from relaxloss.auditing import readers, summary
from relaxloss.auditing.predictions import of_arrays
from relaxloss.errors import UserError
from relaxloss.evaluation import one_run_audit
from relaxloss.experiments.result import COLUMNS
from relaxloss.report.audit import page as audit_page
from relaxloss.report.audit import sentences

EXAMPLES = Path(__file__).parents[2] / "examples"
QUICK = "correctness,loss,lira,lira_offline,rmia,calibration"


def outputs(rng: np.random.Generator, labels: np.ndarray, member: np.ndarray, classes: int, leak: float) -> np.ndarray:
    """Logits of a model whose true-class logit is higher on members by `leak`."""
    logits = rng.normal(size=(len(labels), classes))
    logits[np.arange(len(labels)), labels] += 1 + leak * member
    return logits


def planted(seed: int = 0, n: int = 600, classes: int = 5, leak: float = 1.0) -> dict[str, Any]:
    """The arguments of `rl.audit` for a leaking model."""
    rng = np.random.default_rng(seed)
    member = np.arange(n) < n // 2
    labels = rng.integers(0, classes, n)
    logits = outputs(rng, labels, member, classes, leak)
    return {
        "member_logits": logits[member], "member_labels": labels[member],
        "nonmember_logits": logits[~member], "nonmember_labels": labels[~member],
    }  # fmt: skip


def as_probs(arguments: dict[str, Any]) -> dict[str, Any]:
    """The same model's probabilities."""
    found = {key: value for key, value in arguments.items() if "logits" not in key}
    return found | {f"{g}_probs": special.softmax(arguments[f"{g}_logits"], axis=1) for g in ("member", "nonmember")}


def joined(arguments: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, labels and membership of all samples, members first."""
    logits, labels = (
        np.concatenate([arguments[f"{g}_{what}"] for g in ("member", "nonmember")]) for what in ("logits", "labels")
    )
    return logits, labels, np.arange(len(labels)) < len(arguments["member_labels"])


def numbers(audit: auditing.Audit) -> pd.DataFrame:
    """What was measured, without what it was measured on."""
    return audit.rows[["measure", "attack", "value", "low", "high", "n"]]


def same(left: pd.DataFrame, right: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(left, right, check_exact=False, rtol=1e-9, atol=1e-12)


def value(audit: auditing.Audit, measure: str, attack: str = "") -> float:
    rows = audit.rows
    found = rows[(rows["measure"] == measure) & (rows["attack"] == attack)]["value"]
    assert len(found) == 1
    return float(found.iloc[0])


@pytest.fixture(scope="module")
def plain() -> auditing.Audit:
    return rl.audit(**planted())


def test_aucs_are_scikit_learns(plain: auditing.Audit) -> None:
    logits, labels, member = joined(planted())
    p = special.softmax(logits, axis=1)
    true = p[np.arange(len(p)), labels]
    scores = {
        "confidence": true,
        "loss": np.log(true),
        "entropy": (p * np.log(p)).sum(axis=1),
        "correctness": p.argmax(axis=1) == labels,
    }
    for attack, score in scores.items():
        assert value(plain, "auc", attack) == pytest.approx(roc_auc_score(member, score), abs=1e-12)
    assert plain.worst["auc"] > 0.65  # the leak is there to be found
    assert plain.worst["auc"] == value(plain, "auc", "max")


def test_the_planted_leak_has_its_size() -> None:
    """One logit of a binary model is N(±μ/2, 1): the margin of the label is N(μ·member, 1), and AUC is Φ(μ/√2)."""
    rng, n, mu = np.random.default_rng(3), 4000, 1.0
    labels, member = rng.integers(0, 2, n), np.arange(n) < n // 2
    margin = rng.normal(size=n) + mu * member
    audit = auditing.run(of_arrays(margin * (2 * labels - 1), labels, member, kind="logits"))
    assert audit.worst["attack"] in ("confidence", "loss", "modified_entropy")
    assert audit.worst["auc_low"] < stats.norm.cdf(mu / math.sqrt(2)) < audit.worst["auc_high"]
    assert audit.worst["tpr_at_0.01_fpr_low"] < stats.norm.sf(stats.norm.isf(0.01) - mu)
    assert audit.worst["tpr_at_0.01_fpr_high"] > stats.norm.sf(stats.norm.isf(0.01) - mu)
    assert audit.worst["tpr_at_0.001_fpr"] is None  # 2,000 non-members are 2 false positives


def test_columns_worst_and_records(plain: auditing.Audit) -> None:
    assert tuple(plain.rows.columns) == COLUMNS
    assert {"max", "selected"} <= set(plain.rows["attack"])
    records = plain.records
    assert sorted(records["index"]) == list(range(600))
    assert (records["rank"].diff().dropna() >= 0).all()
    others = records[~records["member"]]["score"].to_numpy()
    for _, record in records.iloc[::50].iterrows():
        assert record["fpr"] == (others >= record["score"]).mean()
        assert record["rank"] == 1 + (records["score"] > record["score"]).sum()
    assert metrics.auc(records["score"], records["member"]) == pytest.approx(plain.worst["auc"])
    assert rl.audit(**planted(), ids=[f"p{i}" for i in range(600)]).records["id"].iloc[0] == f"p{records['index'][0]}"


def test_probabilities_give_the_rows_of_logits(plain: auditing.Audit) -> None:
    same(numbers(plain), numbers(rl.audit(**as_probs(planted()))))


def test_tensors_of_torch_and_frames_of_pandas_are_arrays_too(plain: auditing.Audit) -> None:
    import torch

    given = planted()
    given["member_logits"] = torch.tensor(given["member_logits"], requires_grad=True)
    given["nonmember_logits"] = pd.DataFrame(given["nonmember_logits"])
    given["member_labels"] = given["member_labels"].astype(float)
    same(numbers(plain), numbers(rl.audit(**given)))


@pytest.mark.parametrize("kind", ["logits", "probs"])
def test_one_column_is_class_1_of_two(kind: str) -> None:
    given = planted(classes=2)
    logits, labels, member = joined(given)
    one = logits[:, 1] - logits[:, 0]
    column = one if kind == "logits" else special.expit(one)
    shuffled = np.random.default_rng(0).permutation(len(labels))  # order must not matter to what is not random
    audit = auditing.run(of_arrays(column, labels, member, kind="auto"))
    assert audit.facts["kind"] == kind
    same(numbers(rl.audit(**given)), numbers(audit))
    text = np.array(["no", "yes"])[labels]
    worded = auditing.run(of_arrays(column[shuffled], text[shuffled], member[shuffled]))
    assert worded.worst["auc"] == pytest.approx(audit.worst["auc"], abs=1e-12)
    assert "class 'yes' against 'no'" in " ".join(worded.facts["notes"])


@pytest.mark.parametrize("classes", [2, 3, 1000])
def test_two_to_a_thousand_classes(classes: int) -> None:
    audit = rl.audit(**planted(classes=classes, n=400), attacks="blackbox")
    assert audit.worst["auc_low"] > 0.5
    assert audit.facts["num_classes"] == classes


def table_of(given: dict[str, Any], names: list[str], prefix: str = "") -> pd.DataFrame:
    logits, labels, member = joined(given)
    table = pd.DataFrame(logits, columns=[f"{prefix}{name}" for name in names])
    table.insert(0, "label", np.array(names)[labels])
    table.insert(1, "member", member)
    return table


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz"])
def test_files_give_the_rows_of_arrays(plain: auditing.Audit, tmp_path: Path, suffix: str) -> None:
    names = ["ant", "bee", "cat", "dog", "eel"]
    path, table = tmp_path / f"p{suffix}", table_of(planted(), names, "logit_")
    table["weight"] = 1.5
    if suffix == ".csv":
        table.to_csv(path, index_label="id", float_format="%.17g")
    elif suffix == ".parquet":
        table["label"] = table["label"].astype("category")
        table.to_parquet(path)
    else:
        logits, labels, member = joined(planted())
        np.savez(path, logits=logits, labels=np.array(names)[labels], member=member, classes=names, weight=1.5)
    found = readers.read(path)
    assert found.classes == tuple(names)
    assert "weight" in " ".join(found.notes)
    assert len(found.source["sha256"]) == 64
    audit = auditing.run(found)
    same(numbers(plain), numbers(audit))


def test_classes_are_found_by_the_columns_names_in_any_order(plain: auditing.Audit, tmp_path: Path) -> None:
    table = table_of(planted(), ["0", "1", "2", "3", "4"])
    table = table[["4", "member", "2", "0", "label", "1", "3"]].sample(frac=1, random_state=0)
    table["member"] = table["member"].map({True: " Train", False: "OUT"})
    table.rename(columns={"label": "truth", "member": "seen"}).to_csv(tmp_path / "p.csv", index=False)
    audit = auditing.run(readers.read(tmp_path / "p.csv", label="truth", member="seen"))
    assert audit.worst["auc"] == pytest.approx(plain.worst["auc"], abs=1e-12)


def test_labels_are_places_where_no_name_matches(plain: auditing.Audit, tmp_path: Path) -> None:
    table = table_of(planted(), ["0", "1", "2", "3", "4"]).rename(columns={str(c): f"score{c}" for c in range(5)})
    table.to_csv(tmp_path / "p.csv", index=False)
    found = readers.read(tmp_path / "p.csv")
    assert "Labels were taken as places of columns: 0 is 'score0'." in found.notes
    assert auditing.run(found).worst["auc"] == pytest.approx(plain.worst["auc"], abs=1e-12)


# Shadows


def with_shadows(
    k: int, n: int = 600, leak: float = 1.0, seed: int = 1
) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    given = planted(seed, n, leak=leak)
    rng = np.random.default_rng(seed + 100)
    _, labels, _ = joined(given)
    member = rng.random((k, n)) < 0.5
    return given, np.stack([outputs(rng, labels, inside, 5, leak) for inside in member]), member


def test_shadows_make_the_strong_attacks_possible() -> None:
    given, logits, member = with_shadows(24)
    audit = rl.audit(**given, shadows=(logits, member), attacks=QUICK, adaptive=True)
    target, labels, inside = joined(given)
    of = functional.logit_margin
    oracle = functional.lira(of(target, labels), np.stack([of(each, labels) for each in logits]), member)
    assert value(audit, "auc", "lira") == pytest.approx(roc_auc_score(inside, oracle), abs=1e-12)
    ratio = functional.base(functional.loss(target, labels), functional.loss(logits, labels), member)
    assert value(audit, "auc", "rmia") == pytest.approx(roc_auc_score(inside, ratio), abs=1e-12)
    assert not audit.unmeasured
    names = {flag.name for flag in audit.flags}
    assert not names & {"few_shadows", "non_adaptive_only", "shadow_design"}
    assert set(audit.rows[audit.rows["attack"] != ""]["adaptive"]) == {True}
    triples = [(each, labels, row) for each, row in zip(logits, member, strict=True)]
    same(numbers(audit), numbers(rl.audit(**given, shadows=triples, attacks=QUICK)))


def test_models_that_lack_the_samples_tell_populations_apart() -> None:
    """Easier members, and shadows that start from the target's weights: both leak without anybody's membership."""

    def flagged(audit: auditing.Audit) -> list[str]:
        return [flag.detail for flag in audit.flags if flag.name == "different_populations"]

    given, logits, member = with_shadows(8)
    _, labels, inside = joined(given)
    true = (labels[:, None] == np.arange(5)) * np.where(inside, 0.5, 0)[:, None]
    details = flagged(rl.audit(**given, shadows=(logits + true, member), attacks="loss"))
    hinges = [functional.hinge(each, labels) for each in logits + true]
    lacked = [[own[i] for own, has in zip(hinges, member, strict=True) if not has[i]] for i in range(600)]
    known = np.array([len(each) > 0 for each in lacked])
    area = roc_auc_score(inside[known], [np.mean(each) for each in lacked if each])
    assert f"AUC of {area:.3f}" in details[0]
    assert "different_populations" in rl.audit(**given, attacks="loss").undecided
    null = [
        flagged(rl.audit(**own, shadows=tuple(rest), attacks="loss"))
        for own, *rest in (with_shadows(3, seed=seed) for seed in range(40))
    ]
    assert sum(map(bool, null)) <= 1, "at 99.9 %"


def test_shadows_in_an_npz(tmp_path: Path) -> None:
    given, logits, member = with_shadows(3)
    target, labels, inside = joined(given)
    arrays = {"labels": labels, "member": inside, "shadow_member": member}
    probs = {"probs": special.softmax(target, axis=-1), "shadow_probs": special.softmax(logits, axis=-1)}
    np.savez_compressed(tmp_path / "p.npz", **arrays, **probs)
    audit = auditing.run(readers.read(tmp_path / "p.npz"), attacks="lira,calibration,neural:epochs=2")
    direct = rl.audit(**given, shadows=(logits, member), attacks="lira,calibration,neural:epochs=2")
    assert audit.worst["auc"] == pytest.approx(direct.worst["auc"], abs=1e-9)
    assert "few_shadows" in {flag.name for flag in audit.flags}
    assert "neural:" in " ".join(audit.rows["attack"])


def test_an_exactly_balanced_design_is_flagged() -> None:
    given, logits, member = with_shadows(7, leak=0.0)
    _, _, inside = joined(given)
    rng = np.random.default_rng(5)
    for sample in range(len(inside)):  # 4 of all 8 models have it
        member[:, sample] = rng.permutation(7) < 4 - inside[sample]
    audit = rl.audit(**given, shadows=(logits, member), attacks="loss")
    assert "shadow_design" in {flag.name for flag in audit.flags}


def test_shadows_without_asked_samples_make_the_offline_attacks_only() -> None:
    given, logits, member = with_shadows(4)
    audit = rl.audit(**given, shadows=(logits, np.zeros_like(member)), attacks=f"{QUICK},neural")
    assert set(audit.unmeasured) == {"lira", "neural"}
    assert not math.isnan(value(audit, "auc", "lira_offline"))


def test_one_shadow_is_too_few_for_the_online_attack() -> None:
    """Each sample has an answer with it or one without it, never both: a score of nothing would look like no leak."""
    given, logits, member = with_shadows(1)
    audit = rl.audit(**given, shadows=(logits, member), attacks=QUICK)
    assert "2 or more: got 1" in audit.unmeasured["lira"]
    given, logits, member = with_shadows(2)
    member[1] = member[0]
    assert "both an IN and an OUT" in rl.audit(**given, shadows=(logits, member), attacks=QUICK).unmeasured["lira"]


def test_shadows_whose_rows_or_columns_are_in_another_order_are_flagged() -> None:
    given, logits, member = with_shadows(3)
    raised = {flag.name for flag in rl.audit(**given, shadows=(logits, member), attacks="loss").flags}
    assert "no_better_than_chance" not in raised
    order = np.random.default_rng(0).permutation(logits.shape[1])
    for mixed in (logits[:, order], np.stack([*logits[:2], logits[2][:, ::-1]])):
        audit = rl.audit(**given, shadows=(mixed, member), attacks="loss")
        (flag,) = (flag for flag in audit.flags if flag.name == "no_better_than_chance")
        assert "the labels of shadow" in flag.detail
        assert sentences.doubts(audit) == []  # what is measured without shadows stands


# Honesty


def test_what_was_not_measured_is_listed_with_its_reason(plain: auditing.Audit) -> None:
    assert plain.unmeasured["lira"] == "not measured: needs shadows"
    assert "gradients" in plain.unmeasured["grad_x_l2"]
    assert "perturbed" in plain.unmeasured["label_only"]
    rows = plain.rows[plain.rows["attack"].isin(plain.unmeasured)]
    assert rows["value"].isna().all()
    assert rows["note"].str.startswith("not measured").all()
    assert {"adaptive"} == set(plain.undecided["non_adaptive_only"])
    with pytest.raises(UserError, match="none of the attacks"):
        rl.audit(**planted(), attacks="lira")


def test_columns_in_another_order_come_before_every_number() -> None:
    given = planted()
    audit = rl.audit(**{key: value[:, ::-1] if "logits" in key else value for key, value in given.items()})
    assert "columns_exchanged" in {flag.name for flag in audit.flags} | {"no_better_than_chance"}
    audit = rl.audit(**{key: value[:, [0, 2, 1, 3, 4]] if "logits" in key else value for key, value in given.items()})
    assert "columns_exchanged" in {flag.name for flag in audit.flags}
    assert sentences.sentences(audit)[0].startswith("Classes seem to be exchanged: the labels get a probability of")
    assert "columns_exchanged" in rl.audit(**given).passed


def test_epsilon_needs_a_coin_for_each_sample() -> None:
    given = planted()
    few = {key: value[:20] if key.startswith("member") else value for key, value in given.items()}
    with pytest.raises(UserError, match="20 of 320 samples are members; a fair coin"):
        rl.audit(**few, coin_flips=True)
    again = {key: value[np.arange(300) // 5] for key, value in given.items()}  # five rows of each person
    audit = rl.audit(**again, coin_flips=True)
    assert "repeats" in {flag.name for flag in audit.flags}
    bound = audit.rows[audit.rows["measure"] == "epsilon_lower_bound"].iloc[0]
    assert math.isnan(bound["value"])
    assert bound["note"].startswith("not measured: 100.0% of the samples repeat another")
    assert not math.isnan(
        rl.audit(**given, coin_flips=True).rows.set_index("measure").loc["epsilon_lower_bound", "value"]
    )


def without_groups(given: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if key != "groups"}


def visits(seed: int, persons: int = 120, each: int = 10, leak: float = 0.0) -> dict[str, Any]:
    """As `planted`, of persons with several rows, which are alike; members by a coin per person."""
    rng = np.random.default_rng(seed)
    inside = np.sort(rng.random(persons) < 0.5)[::-1]
    own = rng.normal(size=(persons, 4)), rng.integers(0, 4, persons)
    own[0][np.arange(persons), own[1]] += 1 + leak * inside
    logits = own[0].repeat(each, axis=0) + 0.1 * rng.normal(size=(persons * each, 4))
    labels, member = own[1].repeat(each), inside.repeat(each)
    return {
        "member_logits": logits[member], "member_labels": labels[member],
        "nonmember_logits": logits[~member], "nonmember_labels": labels[~member],
        "groups": np.char.add("p", np.arange(persons).astype(str)).repeat(each),
    }  # fmt: skip


def test_persons_are_asked_about_with_all_their_rows() -> None:
    given = visits(3, leak=1.0)
    rows, persons = (rl.audit(**each, attacks="blackbox") for each in (without_groups(given), given))
    loss = rl.audit(**without_groups(given), attacks="loss").records
    of_each = (
        loss.assign(person=given["groups"][loss["index"]]).groupby("person").agg({"score": "mean", "member": "first"})
    )
    assert value(persons, "auc", "loss") == pytest.approx(roc_auc_score(of_each["member"], of_each["score"]), abs=1e-12)
    assert set(persons.records["id"]) == set(given["groups"])
    assert set(persons.records["samples"]) == {10}
    assert len(persons.records) == 120
    assert "samples" not in rows.records
    assert math.isnan(value(persons, "balanced_accuracy_per_class", "loss"))
    assert 'title="not measured: a person&#39;s samples may be of several classes"' in audit_page.html(persons)


def test_a_persons_rows_tell_more_together() -> None:
    rng = np.random.default_rng(0)
    given = {"member_labels": rng.integers(0, 4, 2000), "nonmember_labels": rng.integers(0, 4, 2000)}
    for side, leak in (("member", 0.4), ("nonmember", 0.0)):  # rows of a person that have nothing in common
        given[f"{side}_logits"] = outputs(rng, given[f"{side}_labels"], np.ones(2000, bool), 4, leak)
    row = rl.audit(**given, attacks="loss").worst["auc"]
    person = rl.audit(**given, attacks="loss", groups=np.arange(4000) // 20).worst["auc"]
    assert row < 0.6
    normal = stats.norm.cdf(np.sqrt(20) * stats.norm.ppf(row))  # the mean of 20 is as far apart, and √20 less wide
    assert person == pytest.approx(normal, abs=0.06)


def test_one_row_of_many_that_leaks_is_found() -> None:
    rng = np.random.default_rng(0)
    given: dict[str, Any] = {"member_labels": rng.integers(0, 4, 2000), "nonmember_labels": rng.integers(0, 4, 2000)}
    for side, leak in (("member", 6.0), ("nonmember", 0.0)):
        once = np.arange(2000) % 20 == 7
        given[f"{side}_logits"] = outputs(rng, given[f"{side}_labels"], once, 4, leak)
    audit = rl.audit(**given, attacks="loss", groups=np.arange(4000) // 20)
    assert value(audit, "auc", "loss") < 0.75, "the mean hardly shows it"
    assert audit.worst["attack"] == "loss:rows=max"
    assert audit.worst["auc"] > 0.95
    assert "with rows=max the largest" in " ".join(audit.facts["notes"])


def test_a_shadow_knows_all_of_a_person_or_nothing() -> None:
    given = visits(0)
    rng = np.random.default_rng(0)
    whose = np.unique(given["groups"], return_inverse=True)[1]
    by_person = (rng.random((4, 120)) < 0.5)[:, whose]
    answers = np.stack([np.concatenate([given["member_logits"], given["nonmember_logits"]])] * 4)
    rl.audit(**given, shadows=(answers, by_person), attacks="loss,lira")
    by_row = rng.random((4, 1200)) < 0.5
    with pytest.raises(UserError, match=r"shadow 1 was trained on some samples of 1[12][0-9] groups and not on others"):
        rl.audit(**given, shadows=(answers, by_row), attacks="loss,lira")


def test_alike_rows_of_a_person_are_no_evidence_of_exchanged_columns() -> None:
    raised = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        logits, labels = 2 * rng.normal(size=(60, 4)), rng.integers(0, 4, 60)  # unrelated, of 60 persons
        given = {"member_logits": logits[:30], "member_labels": labels[:30], "nonmember_logits": logits[30:],
                 "nonmember_labels": labels[30:]}  # fmt: skip
        given = {name: each.repeat(40, axis=0) for name, each in given.items()}
        flags = {flag.name for flag in rl.audit(**given, groups=np.arange(2400) // 40, attacks="loss").flags}
        raised += "columns_exchanged" in flags
    assert raised <= 2


@pytest.mark.parametrize("name", ["id", "ids"])
def test_persons_may_stand_in_the_column_of_names(tmp_path: Path, name: str) -> None:
    given = visits(2, leak=1.0)
    logits, labels, member = joined(given)
    if name == "ids":
        path = tmp_path / "predictions.npz"
        np.savez(path, logits=logits, labels=labels, member=member, ids=given["groups"].astype("S"))
    else:
        path = tmp_path / "predictions.csv"
        frame = pd.DataFrame(logits, columns=[f"logit_{c}" for c in range(4)])
        frame.assign(label=labels, member=member, id=given["groups"]).to_csv(path, index=False)
    audit = auditing.run(readers.read(path, group=name))
    same(numbers(audit), numbers(rl.audit(**given)))
    assert set(audit.records["id"]) == set(given["groups"])


def test_intervals_are_over_persons() -> None:
    """Where nothing leaks, an interval that counts rows misses one half far too often; over persons it does not."""
    missed = {"persons": 0, "rows": 0}
    for seed in range(60):
        given = visits(seed)
        for name, audit in {
            "persons": rl.audit(**given, attacks="loss"),
            "rows": rl.audit(**without_groups(given), attacks="loss"),
        }.items():
            missed[name] += not audit.worst["auc_low"] <= 0.5 <= audit.worst["auc_high"]
            assert audit.worst["auc"] == metrics.auc(audit.records["score"], audit.records["member"])
    assert missed["persons"] <= stats.binom.ppf(0.999, 60, 0.05)
    assert missed["rows"] > 25
    assert rl.audit(**visits(0, leak=2.0), attacks="blackbox").worst["shown"], "a leak is still shown"


def test_a_group_each_is_no_group() -> None:
    given = planted()
    plain, each = rl.audit(**given), rl.audit(**given, groups=np.arange(600))
    same(numbers(plain), numbers(each))


def test_persons_are_counted() -> None:
    given = visits(1, persons=400, each=60, leak=1.0)
    plain = rl.audit(**without_groups(given), attacks="loss")
    audit = rl.audit(**given, attacks="loss", coin_flips=True)
    assert plain.worst["tpr_at_0.001_fpr"] is not None, "12,000 rows"
    assert audit.worst["tpr_at_0.01_fpr"] is None, "and 200 persons"
    assert "few_nonmembers" in {flag.name for flag in audit.flags}
    rows = audit.rows.set_index("measure")
    inside = given["groups"][: len(given["member_labels"])]
    table = audit.records.sort_values("score")
    guesses = [*~table["member"][:20], *table["member"][-20:]]  # a tenth of 400; four numbers, mean and largest
    bound = metrics.one_run_epsilon(400, 40, sum(guesses), 0.0, 0.05 / 8)
    assert rows.loc["epsilon_lower_bound", "value"] >= bound > 0, "each person has a coin"
    null = [rl.audit(**visits(seed), attacks="loss", coin_flips=True) for seed in range(40)]
    false = sum(value(each, "epsilon_lower_bound", "loss") > 0 for each in null)
    assert false <= stats.binom.ppf(0.999, 40, 0.05)
    width = {
        name: row["high"] - row["low"]
        for name, row in (("p", rows.loc["top1"]), ("r", plain.rows.set_index("measure").loc["top1"]))
    }
    assert width["p"] > 5 * width["r"]
    assert "24,000 samples are of 400 persons" in " ".join(audit.facts["notes"])
    inside = len(set(inside.tolist()))
    assert f"non-members (samples of {inside} and {400 - inside} persons)" in audit_page.html(audit)
    both = given | {"groups": np.arange(len(given["groups"])) % 400}
    with pytest.raises(UserError, match="400 of 400 groups have samples among the members and among the non-members"):
        rl.audit(**both)


@pytest.mark.parametrize("suffix", [".csv", ".npz"])
def test_the_column_of_persons_is_named(tmp_path: Path, suffix: str) -> None:
    given, path = visits(2, leak=1.0), tmp_path / f"predictions{suffix}"
    logits, labels, member = joined(given)
    if suffix == ".csv":
        frame = pd.DataFrame(logits, columns=[f"logit_{c}" for c in range(4)])
        frame.assign(label=labels, member=member, patient=given["groups"]).to_csv(path, index=False)
    else:
        np.savez(path, logits=logits, labels=labels, member=member, patient=given["groups"])
    same(numbers(auditing.run(readers.read(path, group="patient"))), numbers(rl.audit(**given)))
    with pytest.raises(UserError, match="--group"):
        readers.read(path, group="pateint")


def test_a_model_that_says_nothing_has_no_attack() -> None:
    """Equal probabilities, whose sums could differ by rounding, with another mix of classes on each side."""
    for classes in (4, 5, 10):
        same = np.full((500, classes), 1 / classes)
        labels = np.arange(500) % 4, np.arange(500) % 3
        audit = rl.audit(member_probs=same, member_labels=labels[0], nonmember_probs=same, nonmember_labels=labels[1])
        assert audit.worst["auc"] == 0.5
        assert "was not shown to tell" in sentences.sentences(audit)[0]


@pytest.mark.parametrize("digits", [1, 2, 3, 4])
def test_rounded_probabilities_are_probabilities(digits: int) -> None:
    given = {key: value.round(digits) if "probs" in key else value for key, value in as_probs(planted()).items()}
    assert np.abs(given["member_probs"].sum(1) - 1).max() > (1e-3 if digits < 4 else 0)
    rl.audit(**given)
    given["member_probs"] = given["member_probs"][:, :4]
    given["nonmember_probs"] = given["nonmember_probs"][:, :4]
    with pytest.raises(UserError, match="do not sum to 1"):
        rl.audit(**{key: value % 4 if "labels" in key else value for key, value in given.items()})


def test_no_leak_is_called_none() -> None:
    audit = rl.audit(**planted(seed=8, leak=0.0), attacks="blackbox")
    assert audit.worst["auc_low"] < 0.5 < audit.worst["auc_high"]
    assert "was not shown to tell members" in sentences.sentences(audit)[0]


def test_the_strongest_of_many_attacks_must_be_above_half_by_more_than_one_would() -> None:
    """Of several attacks on a model that leaks nothing the best has an interval above one half too often."""
    said = []
    for seed in range(60):
        audit = rl.audit(**planted(seed=seed, leak=0.0), attacks="correctness,confidence,entropy,modified_entropy")
        said.append((audit.worst["auc_low"] > 0.5, audit.worst["shown"]))
        strongest = next(line for line in sentences.measured(audit) if line["attack"] == audit.worst["attack"])
        assert strongest["auc"] == audit.worst["auc"]
    alone, shown = np.sum(said, 0)
    assert shown < alone
    assert shown <= stats.binom.ppf(0.999, 60, 0.025)
    doubtful = next(seed for seed, (low, corrected) in enumerate(said) if low and not corrected)
    audit = rl.audit(**planted(seed=doubtful, leak=0.0), attacks="correctness,confidence,entropy,modified_entropy")
    assert "was not shown to tell members" in sentences.sentences(audit)[0]
    assert rl.audit(**planted(), attacks="blackbox").worst["shown"]


def test_an_inverted_flag_is_flagged() -> None:
    given = planted()
    swapped = {re.sub("^(non)?member", lambda m: "member" if m[1] else "nonmember", key): given[key] for key in given}
    audit = rl.audit(**swapped)
    assert "auc_below_half" in {flag.name for flag in audit.flags}
    first = sentences.sentences(audit)[0]
    lowest = min(line["auc"] for line in sentences.measured(audit))
    assert "swapped" in first
    assert f"{1 - lowest:.3f}" in first
    assert sentences.doubts(rl.audit(**given)) == []


def test_every_fact_that_an_audit_may_lack_has_words(plain: auditing.Audit) -> None:
    lacking = {fact for facts in plain.undecided.values() for fact in facts}
    assert {"idle", "dp", "adaptive"} <= lacking
    assert lacking <= sentences.FACTS.keys()


def test_labels_of_other_rows_are_flagged_first() -> None:
    given = planted()
    moved = given | {name: np.roll(given[name], 1) for name in ("member_labels", "nonmember_labels")}
    assert "other rows or other columns" in sentences.sentences(rl.audit(**moved))[0]
    one_side = rl.audit(**given | {"nonmember_labels": np.roll(given["nonmember_labels"], 1)})
    (flag,) = (each for each in one_side.flags if each.name == "no_better_than_chance")
    assert "the labels of the non-members get" in flag.detail
    assert sentences.doubts(one_side) == [], "a model that only knows its members looks the same"
    audit = rl.audit(**moved)
    assert "no_better_than_chance" in {flag.name for flag in audit.flags}
    assert "other rows or other columns" in sentences.sentences(audit)[0]


def test_copies_and_a_class_that_one_side_lacks_are_flagged() -> None:
    given = planted()
    copied = {name: values.copy() for name, values in given.items()}
    for name in ("logits", "labels"):
        copied[f"nonmember_{name}"][:30] = given[f"member_{name}"][:30]
    assert "copies" in {flag.name for flag in rl.audit(**copied).flags}
    kept = given["nonmember_labels"] != 0
    lacking = given | {name: given[name][kept] for name in ("nonmember_logits", "nonmember_labels")}
    (flag,) = (flag for flag in rl.audit(**lacking).flags if flag.name == "class_mix")
    assert "class 0" in flag.detail
    assert "0.0% of the non-members" in flag.detail
    assert not {"copies", "class_mix", "no_better_than_chance"} & {flag.name for flag in rl.audit(**given).flags}
    coarse = {name: np.round(values) if "logits" in name else values for name, values in given.items()}
    assert "copies" in rl.audit(**coarse).undecided


def test_rounded_probabilities_are_flagged(plain: auditing.Audit) -> None:
    given = as_probs(planted())
    hard = {key: np.eye(5)[each.argmax(1)] if "probs" in key else each for key, each in given.items()}
    audit = rl.audit(**hard)  # a probability of 0 for some true classes
    page = audit_page.html(audit)
    assert re.search(r"mean loss of members, nats</dt><dd>not measured: \w+", page)
    assert "quantised_scores" in {flag.name for flag in audit.flags}
    assert "quantised_scores" in plain.passed
    assert math.isnan(value(audit, "member_loss"))
    assert "probability of 0" in audit.rows[audit.rows["measure"] == "member_loss"]["note"].iloc[0]
    sentences.sentences(audit)


def test_seeds_decide_everything_random() -> None:
    first, again = (numbers(rl.audit(**planted(), seed=4)) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)


# The one-run bound


def test_the_bound_holds_without_a_leak_and_finds_one() -> None:
    rng, exceeded = np.random.default_rng(0), 0
    for _ in range(200):
        member = rng.random(200) < 0.5
        table = {"a": rng.normal(size=200), "b": np.round(rng.normal(size=200))}
        exceeded += one_run_audit.bound(table, member)["value"] > 0
    assert exceeded <= stats.binom.ppf(0.999, 200, 0.05)
    member = rng.random(2000) < 0.5
    response = {"randomised": np.where(rng.random(2000) < special.expit(2.0), member, ~member).astype(float)}
    row = one_run_audit.bound(response, member)  # 2-DP exactly
    assert 1.5 < row["value"] < 2.0
    assert one_run_audit.bound(response, member, guesses=2000)["value"] < 2.0


def test_ties_do_not_give_the_order_of_the_samples_away() -> None:
    member = np.arange(1000) < 500
    assert one_run_audit.bound({"constant": np.zeros(1000)}, member)["value"] == 0
    assert one_run_audit.bound({"constant": np.zeros(1000)}, ~member)["value"] == 0


def test_epsilon_is_bounded_only_if_the_coin_flips_are_vouched_for(plain: auditing.Audit) -> None:
    assert math.isnan(value(plain, one_run_audit.MEASURE))
    audit = rl.audit(**planted(n=2000, leak=3.0), coin_flips=True)
    row = audit.rows[audit.rows["measure"] == one_run_audit.MEASURE].iloc[0]
    assert row["value"] > 1
    assert f"ε below {row['value']:.2f}" in " ".join(sentences.sentences(audit))
    with pytest.raises(UserError, match="guesses=1;"):
        rl.audit(**planted(), coin_flips=True, guesses=1)


# What is written


def test_json_has_null_for_what_was_not_measured(plain: auditing.Audit, tmp_path: Path) -> None:
    def refuse(text: str) -> None:
        raise AssertionError(text)

    content = json.loads(plain.to_json(tmp_path / "a.json").read_text(), parse_constant=refuse)
    by = {(row["measure"], row["attack"]): row for row in content["rows"]}
    assert by["tpr_at_0.001_fpr", "loss"]["value"] is None
    assert by["auc", "loss"]["low"] == value_of(plain, "auc", "loss", "low")
    assert content["not_measured"].keys() == plain.unmeasured.keys()
    assert {flag["name"] for flag in content["flags"]} == {flag.name for flag in plain.flags}
    assert content["facts"]["samples"] == 600
    assert {"relaxloss", "numpy", "python", "date"} <= content["facts"].keys()


def value_of(audit: auditing.Audit, measure: str, attack: str, column: str) -> float:
    rows = audit.rows
    return float(rows[(rows["measure"] == measure) & (rows["attack"] == attack)][column].iloc[0])


def test_the_page_needs_nothing_and_says_everything(plain: auditing.Audit, tmp_path: Path) -> None:
    given = planted()
    audit = rl.audit(**given, name="<b>model & co</b>", classes=["<i>", "b", "c", "d", "e"])
    text = audit.to_html(tmp_path / "a.html").read_text()
    assert "<script" not in text
    assert not re.search(r'(?:src|href)="(?!#)', text)
    assert "&lt;b&gt;model &amp; co" in text
    assert "<b>model" not in text
    assert "&lt;i&gt;" in text
    for said in (
        f"{audit.worst['auc']:.3f}",
        "What was not measured",
        "needs shadows",
        audit.facts["source"]["sha256"],
    ):
        assert said in text
    for flag in audit.flags:
        assert flag.what_to_do in text
    assert text.count("<svg") == 2


def test_the_command_writes_all_and_ends_with_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table_of(planted(), ["a", "b", "c", "d", "e"]).to_csv(tmp_path / "p.csv", index=False)
    out = tmp_path / "audit"
    monkeypatch.setattr("sys.argv", ["relaxloss", "audit", str(tmp_path / "p.csv"), "--out", str(out)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    assert sorted(file.name for file in out.iterdir()) == ["audit.json", "records.csv", "report.html", "results.csv"]
    said = capsys.readouterr().out
    assert said.rstrip().endswith("report.html")
    assert "Not measured: " in said
    assert "The numbers were taken as logits" in said
    assert len(pd.read_csv(out / "records.csv")) == 600
    assert tuple(pd.read_csv(out / "results.csv").columns) == COLUMNS


@pytest.mark.parametrize("name", ["audit_sklearn.py", "audit_probability_table.py"])
def test_the_examples_run_and_find_the_leak(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    report = runpy.run_path(str(EXAMPLES / name))["report"]
    assert report.worst["auc_low"] > 0.5
    assert "Membership audit" in (tmp_path / "audit.html").read_text()


@pytest.mark.parametrize(
    ("column", "positive"),
    [
        ("dead", "dead"),
        ("p_dead", "dead"),
        ("Prob.Dead", "dead"),
        ("well", "well"),
        ("score", "well"),
        ("dead_or_well", "well"),
    ],
)
def test_one_column_is_of_the_class_it_is_named_after(column: str, positive: str) -> None:
    labels, p = np.array(["dead", "well"] * 20), np.linspace(0.1, 0.9, 40)
    audit = rl.audit(
        member_probs=p[:20], member_labels=labels[:20], nonmember_probs=p[20:], nonmember_labels=labels[20:],
        classes=[column], attacks="loss",
    )  # fmt: skip
    assert f"taken as that of class {positive!r}" in " ".join(audit.facts["notes"])


@pytest.mark.parametrize(
    ("column", "labels", "positive"),
    [
        ("p_non-event", ["event", "non-event"], "non-event"), ("p_event", ["event", "non-event"], "event"),
        ("p_non_smoker", ["non_smoker", "smoker"], "non_smoker"), ("model_0_score", ["0", "1"], "1"),
        ("fold_0", ["0", "1"], "1"), ("score_v0", ["0", "1"], "1"), ("p0", ["0", "1"], "0"),
        ("p_class0", ["class0", "class1"], "class0"), ("p_-1", ["-1", "1"], "-1"), ("class_0", ["0", "1"], "0"),
    ],
)  # fmt: skip
def test_a_columns_words_are_no_name(column: str, labels: list[str], positive: str) -> None:
    found, names, _ = validation.labels(np.array(labels * 5), 1, [column], "")
    assert names[1] == positive
    assert found.tolist() == [int(label == positive) for label in labels] * 5


def test_names_of_classes_are_names_and_different() -> None:
    given = planted(classes=3)
    for wrong, said in (
        (["a", "a", "b"], "1 names of classes stand for several columns: 'a'"),
        ("abc", "is text"),
    ):
        with pytest.raises(UserError, match=said):
            rl.audit(**given, classes=wrong)  # type: ignore[arg-type]
    named = rl.audit(**given, classes=np.array(["a", "b", "c"]), attacks="loss")  # type: ignore[arg-type]
    assert set(named.records["label"]) == {"a", "b", "c"}


def test_attacks_are_named_as_everywhere() -> None:
    given = planted()
    same(numbers(rl.audit(**given, attacks=["loss", "entropy"])), numbers(rl.audit(**given, attacks="loss,entropy")))
    with pytest.raises(UserError, match="attacks is empty"):
        rl.audit(**given, attacks=[])


@pytest.mark.parametrize("name", ["{}.0", "0{}", "{}"])
def test_classes_that_are_numbers_are_found_by_their_value(name: str, tmp_path: Path) -> None:
    """``1.0`` and ``01`` are the label 1: as a place, a class would be taken for its neighbour."""
    rng = np.random.default_rng(0)
    logits, labels, member = rng.normal(size=(60, 3)), 1 + np.arange(60) % 3, np.arange(60) % 2
    table = pd.DataFrame({"label": labels, "member": member})
    for place in (2, 0, 1):
        table[f"logit_{name.format(place + 1)}"] = logits[:, place]
    table.to_csv(tmp_path / "p.csv", index=False)
    found = readers.read(tmp_path / "p.csv")
    assert [found.classes[place] for place in found.labels] == [name.format(label) for label in labels]
    assert not any("places" in note for note in found.notes)
    lacks = labels < 3  # the last class does not occur: by place, all labels would be moved by one
    rows = [part[lacks & (member == inside)] for inside in (1, 0) for part in (logits, labels.astype(float))]
    audit = rl.audit(
        member_logits=rows[0], member_labels=rows[1], nonmember_logits=rows[2], nonmember_labels=rows[3],
        classes=[name.format(label) for label in (1, 2, 3)], attacks="loss",
    )  # fmt: skip
    assert set(audit.records["label"]) == {name.format(1), name.format(2)}


def test_a_heavy_tail_leaves_the_histogram_its_shape() -> None:
    chance = np.random.default_rng(0)
    member = np.repeat([True, False], 500)
    scores = chance.normal(member, 1.0)
    scores[chance.random(1000) < 0.05] *= -1e4  # a likelihood ratio's
    found = pd.DataFrame(summary.histogram(scores, member))
    assert found["left"].min() > -10
    assert found["share"].max() < 0.2
    assert found.groupby("membership")["share"].sum().to_list() == pytest.approx([1, 1])
    assert (found["share"] > 0).groupby(found["membership"]).sum().min() > 25
    plain = pd.DataFrame(summary.histogram(chance.normal(size=1000), member))
    assert 4 < plain["right"].max() - plain["left"].min() < 5.5, "no tail: from the 1 % to the 99 % quantile"


def margins(n: int, m: int, seed: int = 0) -> tuple[Any, Any]:
    """How sure two sides are of their labels that do not differ."""
    rng = np.random.default_rng(seed)
    return rng.normal(2, 1, n), rng.normal(2, 1, m)


def two_classes(members: Any, others: Any, rare: int | None = None) -> dict[str, Any]:
    """Logits of two classes with these margins; the second class is the first `rare` of each side, or every other."""
    given = {}
    for side, own in (("member", members), ("nonmember", others)):
        place = np.arange(len(own))
        labels = place % 2 if rare is None else (place < rare).astype(int)
        given[f"{side}_logits"] = np.column_stack([np.zeros(len(own)), own * np.where(labels == 1, 1, -1)])
        given[f"{side}_labels"] = labels
    return given


def test_a_few_that_leak_in_a_crowd_that_does_not_are_in_the_headline() -> None:
    members, others = margins(2000, 12_000)
    quiet = rl.audit(**two_classes(members, others))
    assert (quiet.worst["shown"], quiet.worst["shown_at"], quiet.worst["alone"]) == (False, [], None)
    assert "members are told" not in " ".join(sentences.sentences(quiet))
    members[:20] = 40
    loud = rl.audit(**two_classes(members, others))
    assert not loud.worst["shown"]
    assert "tpr_at_0.001_fpr" in loud.worst["shown_at"]
    alone = loud.worst["alone"]
    assert alone["members"] == 20
    ranks = np.arange(20)
    assert alone["p"] == pytest.approx(np.prod((2000 - ranks) / (14_000 - ranks)), rel=1e-9)
    said = " ".join(sentences.sentences(loud))
    assert "was not shown to tell members from non-members on average" in said
    assert "But some members are told. 20 members score above every non-member" in said
    assert "guessing finds 0.1 %" in said


def test_what_is_shown_is_rarely_shown_where_nothing_leaks() -> None:
    rng = np.random.default_rng(0)
    false = 0
    for _ in range(60):
        sides = margins(*rng.choice([40, 300, 1500], 2, replace=False), seed=int(rng.integers(1e9)))
        worst = rl.audit(**two_classes(*sides), attacks="blackbox").worst
        false += bool(worst["shown"] or worst["shown_at"] or worst["alone"])
    assert false <= 6, "at most one in forty is expected"


def test_a_small_class_that_leaks_is_named() -> None:
    members, others = margins(4000, 4000)
    assert not any(line["low"] > 0.5 for line in rl.audit(**two_classes(members, others, 100)).facts["by_class"])
    members[:100] += 6
    audit = rl.audit(**two_classes(members, others, 100), classes=["well", "ill"])
    first, second = audit.facts["by_class"]
    assert (first["class"], first["members"], first["nonmembers"]) == ("ill", 100, 100)
    assert first["auc"] == pytest.approx((members[:100, None] > others[:100]).mean(), abs=1e-9)
    assert first["low"] > 0.9
    assert second["class"] == "well"
    assert second["low"] < 0.5 < second["high"]
    assert "Of class ill (100 members, 100 non-members) members are told far better" in " ".join(
        sentences.sentences(audit)
    )
    assert "The most exposed classes" in audit_page.html(audit)


def test_a_leak_in_the_other_direction_heads_the_page() -> None:
    members, others = margins(1500, 1500)
    audit = rl.audit(**two_classes(np.maximum(members - 1.5, 0.01), others))  # less sure, and never wrong
    assert audit.worst["attack"] == "correctness"
    assert audit.worst["auc_low"] > 0.5
    first = sentences.sentences(audit)[0]
    assert first.startswith("The strongest attack is one turned around")
    assert audit.worst["graded"] != "correctness"
    assert audit.records["score"].nunique() > 100, "an order of records, not of right and wrong"


def test_rounded_scores_are_not_measured_where_no_threshold_comes_near() -> None:
    members, others = margins(3000, 3000)
    fine = rl.audit(**two_classes(members + 0.5, others), attacks="loss")
    assert fine.worst["tpr_at_0.01_fpr"] > 0.01
    sure = (np.minimum(side, 4.0) for side in (members + 0.5, others))  # sure answers are all alike
    coarse = rl.audit(**two_classes(*sure), attacks="loss")
    assert coarse.worst["tpr_at_0.01_fpr"] is None
    notes = coarse.rows[coarse.rows["measure"] == "tpr_at_0.01_fpr"]["note"]
    assert "non-members share a score, so that no threshold comes near" in notes.iloc[0]
    assert "quantised_scores" in {flag.name for flag in coarse.flags}


def test_labels_that_tell_nothing_mask_nothing() -> None:
    members, others = margins(800, 800)
    flagged = {flag.name for flag in rl.audit(**two_classes(members, others * 1.6)).flags}
    assert "auc_below_half" in flagged, "of the confidences, while the labels are at one half"
    assert "masking" not in flagged


def test_no_bound_of_epsilon_is_said_so() -> None:
    rng = np.random.default_rng(0)
    member = rng.random(400) < 0.5
    logits = rng.normal(size=(400, 3))
    labels = rng.integers(0, 3, 400)
    audit = rl.audit(
        member_logits=logits[member], member_labels=labels[member], nonmember_logits=logits[~member],
        nonmember_labels=labels[~member], coin_flips=True,
    )  # fmt: skip
    assert sentences.sentences(audit)[-1].startswith("No lower bound of ε above 0 was shown: ")
