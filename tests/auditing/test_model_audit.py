"""The audit of a model that is there: asked as an attacker asks, beside shadows that were trained as it was."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import relaxloss as rl
from relaxloss import cli, defenses, seeds, trained
from relaxloss.attacks import Evidence, functional
from relaxloss.auditing import audit as auditing
from relaxloss.auditing import trained_model
from relaxloss.auditing.predictions import Predictions
from relaxloss.auditing.trained_model import audit_model
from relaxloss.compute.engine import Engine
from relaxloss.data import Dataset
from relaxloss.errors import UserError
from relaxloss.experiments import jobs
from relaxloss.games import Redrawn
from relaxloss.report.audit import page
from relaxloss.trained import Trained
from relaxloss.training import Session, predict
from relaxloss.training.task import Recipe, Samples, Task

OVERFIT = Recipe(model="mlp:hidden=64", epochs=60, milestones=(50,), batch_size=32)
HERE = Engine("inprocess")


@pytest.fixture(scope="module")
def blobs(blobs: Dataset) -> Dataset:
    """A third with labels by chance, which a model can only learn by heart."""
    rng = np.random.default_rng(1)
    chance = rng.random(300) < 1 / 3
    return dataclasses.replace(blobs, y=np.where(chance, rng.integers(0, 4, 300), blobs.y))


@pytest.fixture(scope="module")
def model(blobs: Dataset) -> Trained:
    return trained.train(blobs, "none", recipe=OVERFIT, test=0.4)


def numbers(audit: auditing.Audit, measure: str = "auc") -> dict[str, float]:
    rows = audit.rows[audit.rows["measure"] == measure]
    return dict(zip(rows["attack"], rows["value"], strict=True))


def caught(monkeypatch: pytest.MonkeyPatch, *arguments: Any, **options: Any) -> tuple[Predictions, Evidence]:
    """What `audit_model` hands to the audit, while the shadows' signals are still there."""
    found: dict[str, Any] = {}

    def run(predictions: Predictions, *, evidence: Evidence, **_: Any) -> None:
        shadows = tuple(dataclasses.replace(each, answers=each.logits) for each in evidence.shadows)
        found.update(predictions=predictions, evidence=dataclasses.replace(evidence, shadows=shadows))

    monkeypatch.setattr(auditing, "run", run)
    audit_model(*arguments, engine=HERE, **options)
    return found["predictions"], found["evidence"]


def test_without_shadows_it_is_the_audit_of_the_models_predictions_and_gradients(
    model: Trained, blobs: Dataset
) -> None:
    found = numbers(audit_model(model, blobs))
    sides = [model.split[name] for name in ("members", "test")]
    by_hand = rl.audit(
        member_logits=model.predict_log_proba(blobs.x[sides[0]]), member_labels=blobs.y[sides[0]],
        nonmember_logits=model.predict_log_proba(blobs.x[sides[1]]), nonmember_labels=blobs.y[sides[1]],
    )  # fmt: skip
    for attack in ("correctness", "confidence", "loss", "entropy", "modified_entropy"):
        assert found[attack] == pytest.approx(numbers(by_hand)[attack], abs=1e-9), attack
    rows = np.concatenate(sides)
    x, y = torch.from_numpy(blobs.x[rows]), torch.from_numpy(blobs.y[rows])
    with torch.no_grad():
        encoded = model.network.encoder(x)
    norms = rl.gradients.norms(model.network.net, encoded, y)
    member = np.arange(len(rows)) < len(sides[0])
    for place, attack in enumerate(("grad_x_l1", "grad_x_l2", "grad_w_l1", "grad_w_l2")):
        assert found[attack] == pytest.approx(rl.metrics.auc(-norms[:, place], member), abs=1e-9), attack
    assert found["loss"] > 0.6
    assert np.isnan([found[attack] for attack in ("lira", "rmia", "neural", "quantile")]).all()


def test_shadows_are_trained_as_the_model_was_on_samples_drawn_anew(
    model: Trained, blobs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictions, evidence = caught(monkeypatch, model, blobs, shadows=3)
    assert evidence.shadow_member.shape == (3, 300)
    assert np.array_equal(predictions.member, np.isin(evidence.asked, model.split["members"]))
    seed = seeds.seed(0, "model", 1)
    members = np.flatnonzero(evidence.shadow_member[1])
    fit = defenses.parse("none").fit(Task.of(blobs, members, recipe=OVERFIT, seed=seed), Session())
    by_hand = predict(fit.network, torch.from_numpy(blobs.x)).numpy()
    assert np.array_equal(evidence.shadows[1].plain, by_hand)
    statistics = [functional.logit_margin(each.plain, each.labels) for each in (evidence.target, *evidence.shadows)]
    shadows = np.stack(statistics[1:])[:, evidence.asked]
    lira = functional.lira(statistics[0], shadows, evidence.shadow_member[:, evidence.asked])
    monkeypatch.undo()
    found = numbers(audit_model(model, blobs, shadows=3, attacks="lira", engine=HERE))
    assert found["lira"] == pytest.approx(rl.metrics.auc(lira, predictions.member), abs=1e-12)


def test_a_shadow_has_each_person_by_a_coin_of_its_own_and_never_the_reference(blobs: Dataset) -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 90, 300)
    data = dataclasses.replace(blobs, groups=groups)
    pool, reference = (data.samples_of(np.arange(low, high)) for low, high in ((0, 70), (70, 90)))
    game = Redrawn(400, tuple(pool.tolist()), tuple(reference.tolist()), 0.7)
    design = game.draw_from(data, 3)
    assert not design.targets
    assert not design.member[:, reference].any()
    persons = data.persons[pool]
    inside = np.stack([design.member[:, pool[persons == each][0]] for each in np.unique(persons)], axis=1)
    for place, each in enumerate(np.unique(persons)):
        assert (design.member[:, pool[persons == each]] == inside[:, [place]]).all(), "all rows of a person together"
    shares = inside.mean(axis=0)
    assert np.abs(shares - 0.7).max() < 5 * np.sqrt(0.7 * 0.3 / 400)
    sizes = inside.sum(axis=1)
    assert sizes.var() == pytest.approx(inside.shape[1] * 0.7 * 0.3, rel=0.35), "coins, not a fixed number"
    assert not np.array_equal(game.draw_from(data, 4).member, design.member)


def test_shadows_find_more_and_can_be_gone_on_with(
    blobs: Dataset, model: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"attacks": "loss,rmia,lira", "store": tmp_path, "engine": HERE}
    first = audit_model(model, blobs, shadows=12, **options)
    found = numbers(first)
    assert max(found["rmia"], found["lira"]) > found["loss"] + 0.02
    assert {flag.name for flag in first.flags} >= {"few_shadows"}
    assert not {flag.name for flag in first.flags} & {"shadow_design", "non_adaptive_only", "reference_overlap"}

    def untouched(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(jobs, "fit_files", untouched)
    again = audit_model(model, blobs, shadows=12, **options)
    pd.testing.assert_frame_equal(first.rows, again.rows)
    damaged = next(tmp_path.glob("signals/*/*.npy"))
    damaged.write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="will be made again"):
        again = audit_model(model, blobs, shadows=12, **options)
    pd.testing.assert_frame_equal(first.rows, again.rows)
    monkeypatch.undo()
    kept = {path.name for path in (tmp_path / "train").iterdir()}
    audit_model(model, blobs, shadows=13, **options)
    assert len({path.name for path in (tmp_path / "train").iterdir()} - kept) == 1, "more shadows are further shadows"


def test_what_is_released_is_what_is_asked(blobs: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """HAMP answers with other confidences than its network has, and so do its shadows."""
    model = trained.train(blobs, "hamp", recipe=OVERFIT, test=0.4)
    _, evidence = caught(monkeypatch, model, blobs, shadows=1)
    released = predict(model.release, torch.from_numpy(blobs.x)).numpy()
    assert np.array_equal(evidence.target.plain, released[evidence.asked])
    assert not np.allclose(released, predict(model.network, torch.from_numpy(blobs.x)).numpy())
    monkeypatch.undo()
    audit = audit_model(model, blobs)
    assert {"randomised_release", "release_changes_labels", "copies", "epsilon_meaningless"} <= set(audit.passed)


def test_a_defenses_reference_is_not_asked_about_and_is_known_to_be_outside(
    blobs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained.train(blobs, "advreg", recipe=dataclasses.replace(OVERFIT, epochs=5, milestones=()), test=0.2)
    assert len(model.split["reference"]) == 60
    audit = audit_model(model, blobs, attacks="quantile,loss")
    assert audit.facts["samples"] == 240
    assert not np.isnan(numbers(audit)["quantile"]), "its answers on known non-members are evidence"
    _, evidence = caught(monkeypatch, model, blobs, shadows=1, attacks="loss")
    assert np.array_equal(evidence.population, np.sort(model.split["reference"]))
    assert not np.intersect1d(evidence.asked, evidence.population).size
    assert not evidence.shadow_member[:, evidence.population].any()


class Restless(torch.nn.Module):
    """A network that never says the same twice."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.net = torch.nn.Linear(inputs, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net(x)
        return logits + 0.1 * torch.randn_like(logits)


def restless(shape: tuple[int, ...], num_classes: int) -> torch.nn.Module:
    return Restless(shape[0], num_classes)


def test_a_network_that_answers_at_random_is_noticed(blobs: Dataset) -> None:
    recipe = Recipe(model=f"{__name__}:restless", epochs=1, milestones=(), batch_size=32)
    audit = audit_model(trained.train(blobs, "none", recipe=recipe), blobs, attacks="loss")
    assert "randomised_release" in {flag.name for flag in audit.flags}


def test_shadows_that_hardly_ever_lack_a_sample_are_too_few(blobs: Dataset) -> None:
    """Where the model has 9 of 10 samples, each lacks a sample in 1.6 of them."""
    recipe = dataclasses.replace(OVERFIT, epochs=1, milestones=())
    model = trained.train(blobs, "none", recipe=recipe, test=0.1)
    audit = audit_model(model, blobs, shadows=16, attacks="loss", engine=HERE)
    (flag,) = (flag for flag in audit.flags if flag.name == "few_shadows")
    assert 1 < float(re.findall(r"only ([\d.]+) on", flag.detail)[0]) < 2.2


def test_persons_are_asked_about_as_wholes(blobs: Dataset) -> None:
    data = dataclasses.replace(blobs, groups=np.arange(300) // 3)
    model = trained.train(data, "none", recipe=OVERFIT, test=0.4)
    audit = audit_model(model, data, shadows=2, attacks="loss,lira_offline", engine=HERE)
    assert audit.facts["persons"] == {"members": 60, "nonmembers": 40}
    assert "loss:rows=max" in numbers(audit)


def test_differential_privacy_is_looked_at(table: Dataset) -> None:
    pytest.importorskip("opacus")
    recipe = Recipe(model="mlp:hidden=8", epochs=2, milestones=(1,), batch_size=32)
    model = trained.train(table, "dpsgd:noise=1.0,target_epsilon=none,preset=none", recipe=recipe, test=0.4)
    audit = audit_model(model, table, attacks="loss")
    flag = next(flag for flag in audit.flags if flag.name == "epsilon_meaningless")
    assert "age" in flag.detail or "column" in flag.detail, "the encoder's statistics carry no noise"


def test_a_saved_model_knows_its_data_again_and_tells_nobody(blobs: Dataset, model: Trained, tmp_path: Path) -> None:
    model.save(tmp_path)
    back = Trained.load(tmp_path)
    assert back.fingerprint == blobs.fingerprint
    assert set(back.split) == {"members", "test", "reference"}
    shipped = [path.read_bytes() for path in tmp_path.iterdir() if path.is_file()]
    assert not any(blobs.fingerprint.encode() in content for content in shipped)
    pd.testing.assert_frame_equal(
        audit_model(back, blobs, attacks="blackbox").rows, audit_model(model, blobs, attacks="blackbox").rows
    )


def test_what_cannot_be_audited_is_explained(blobs: Dataset, model: Trained, tmp_path: Path) -> None:
    other = dataclasses.replace(blobs, x=blobs.x + 1)
    with pytest.raises(UserError, match=r"not the very data that the model was trained on \(blobs, got blobs"):
        audit_model(model, other)
    with pytest.raises(UserError, match="does not say who was in it"):
        audit_model(dataclasses.replace(model, split={}, fingerprint=""), blobs)
    with pytest.raises(UserError, match="held no samples out"):
        audit_model(
            trained.train(blobs, "none", recipe=dataclasses.replace(OVERFIT, epochs=1, milestones=()), test=0), blobs
        )
    with pytest.raises(UserError, match="none of the attacks can be made"):
        audit_model(model, blobs, attacks="lira")
    with pytest.raises(UserError, match="none of the attacks can be made: lira: not measured"):
        audit_model(model, blobs, attacks="lira", shadows=1, engine=HERE)
    with pytest.raises(UserError, match="attacks is empty"):
        audit_model(model, blobs, attacks=())


def test_a_shadow_that_cannot_be_trained_ends_the_audit(
    blobs: Dataset, model: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise UserError("no room")

    monkeypatch.setattr(Samples, "take", broken)
    with pytest.raises(UserError, match="model 0: no room"):
        audit_model(model, blobs, shadows=2, engine=HERE)


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["relaxloss", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


@pytest.fixture
def patients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trained model of a table beside its data, in the working directory."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"age": rng.integers(20, 90, 120), "ward": rng.choice(list("AB"), 120), "id": range(120)})
    frame["outcome"] = np.where(frame["age"] + rng.normal(0, 20, 120) > 55, "dead", "alive")
    frame.to_csv(tmp_path / "patients.csv", index=False)
    monkeypatch.chdir(tmp_path)
    assert not command(
        monkeypatch, "train", "--data", "patients.csv", "--label", "outcome", "--drop", "id", "--model",
        "mlp:hidden=8", "--epochs", "3", "--test", "0.4", "--out", "model", "-q",
    )  # fmt: skip
    return tmp_path


def test_the_command_audits_a_model(
    patients: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    about = ("--data", "patients.csv", "--label", "outcome", "--drop", "id")
    assert not command(monkeypatch, "audit", "model", *about, "--shadows", "2", "--engine", "inprocess")
    assert sorted(path.name for path in (patients / "audit").iterdir()) == [
        "audit.json", "log.txt", "records.csv", "report.html", "results.csv", "store",
    ]  # fmt: skip
    said = " ".join(capsys.readouterr().out.split())
    assert "The model was trained with the defense none on 72 of the 120 samples of patients." in said
    assert "The 2 shadow models were trained with the same defense and recipe" in said
    content = json.loads((patients / "audit" / "audit.json").read_text())
    assert content["facts"]["name"] == "model"
    assert (
        content["facts"]["source"]["sha256"]
        == json.loads((patients / "model" / "model.json").read_text())["sha256"]["network.safetensors"]
    )
    assert re.fullmatch(r"row \d+", pd.read_csv(patients / "audit" / "records.csv")["id"][0])
    assert "2 classes · answers · 2 shadow models" in (patients / "audit" / "report.html").read_text()
    assert command(monkeypatch, "audit", "model", *about) == 2
    assert "the audit with 2 shadow models" in capsys.readouterr().err
    assert not command(monkeypatch, "audit", "model", *about, "--shadows", "3", "--engine", "inprocess", "-q")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("audit", "model"), "which data was model trained on? Give --data (it was called patients)"),
        (("audit", "model", "--kind", "probs"), "--kind is for the audit of the predictions of another model"),
        (("audit", "model", "--coin-flips"), "--coin-flips is for the audit of the predictions"),
        (("audit", "patients.csv", "--shadows", "4"), "--shadows is for the audit of a model, a directory"),
        (
            ("audit", "model", "--data", "patients.csv", "--label", "outcome"),
            "not the very data that the model was trained on",
        ),
        (("audit", "modle"), "modle: there is no such file or directory"),
        (
            ("audit", "model", "--data", "patients.csv", "--label", "outcome", "--drop", "id", "--out", "model"),
            "--out model is in the model's directory, which is to be shipped",
        ),
        (("audit", "."), ". is a directory without a saved model (model.json)"),
    ],
)
def test_what_the_command_cannot_do_is_explained(
    patients: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: Any, said: str
) -> None:
    assert command(monkeypatch, *arguments, *(() if "--out" in arguments else ("--out", "audit"))) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (patients / "audit" / "report.html").exists()


def test_another_release_of_the_same_network_is_another_model(blobs: Dataset, tmp_path: Path) -> None:
    recipe = dataclasses.replace(OVERFIT, epochs=1, milestones=())
    models = [trained.train(blobs, defense, recipe=recipe, test=0.2) for defense in ("none", "hamp:train=false")]
    sources = [trained_model.source(each, 0) for each in models]
    assert sources[0]["sha256"] == sources[1]["sha256"]
    page.save(audit_model(models[0], blobs, attacks="loss"), tmp_path)
    page.keep(tmp_path, sources[0], overwrite=False)
    with pytest.raises(UserError, match="with another defense and release"):
        page.keep(tmp_path, sources[1], overwrite=False)
    with pytest.raises(UserError, match="the audit at seed 0"):
        page.keep(tmp_path, sources[0], overwrite=False, seed=1)


def test_a_data_set_by_its_name_need_not_be_named_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert not command(
        monkeypatch, "train", "--data", "digits", "--model", "mlp:hidden=8", "--epochs", "1", "--out", "model"
    )
    said = capsys.readouterr().err
    assert said.endswith("before it is shipped: relaxloss audit model --data digits --shadows 32\n")
    assert not command(monkeypatch, "audit", "model", "--attacks", "loss,grad_w_l2", "-q")
    rows = pd.read_csv(tmp_path / "audit" / "results.csv")
    assert set(rows["attack"].dropna()) == {"loss", "grad_w_l2", "max", "selected"}


def test_the_source_names_the_weights_file(model: Trained, tmp_path: Path) -> None:
    model.save(tmp_path)
    digest = json.loads((tmp_path / "model.json").read_text())["sha256"]["network.safetensors"]
    assert trained_model.source(model, 5)["sha256"] == digest
