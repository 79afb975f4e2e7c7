"""One trained model: what it says, and that it is the same after saving, loading and resuming."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from relaxloss import data, trained
from relaxloss.data import Dataset
from relaxloss.errors import UserError
from relaxloss.trained import Trained
from relaxloss.training.task import Recipe

TINY = Recipe(model="mlp:hidden=16", epochs=4, milestones=(3,), batch_size=32)


@pytest.mark.parametrize("defense", ["none", "relaxloss:alpha=0.6"])
def test_saved_and_loaded_it_answers_the_same(table: Dataset, tmp_path: Path, defense: str) -> None:
    made = trained.train(table, defense, recipe=TINY, seed=2)
    made.save(tmp_path)
    back = Trained.load(tmp_path)
    assert np.array_equal(made.predict_log_proba(table.x), back.predict_log_proba(table.x))
    assert np.allclose(np.exp(back.predict_log_proba(table.x)).sum(1), 1)
    assert back.facts == made.facts
    assert back.card == made.card
    assert all(np.array_equal(made.split[name], back.split[name]) for name in made.split)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == ["", ".csv", ".json", ".safetensors"]
    assert [path.name for path in (tmp_path / "private").iterdir()] == ["split.npz"], "apart from what is shipped"


def test_a_table_is_read_by_the_models_own_columns(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"ward": rng.choice(["icu", "neuro", "zoo"], 120), "age": rng.normal(50, 9, 120)})
    frame["since"] = pd.to_datetime("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, 120), unit="D")
    frame["outcome"] = np.where(frame.ward == "icu", "ill", "well")
    frame.to_csv(tmp_path / "patients.csv", index=False)
    made = trained.train(data.load(tmp_path / "patients.csv", label="outcome"), recipe=TINY)
    raw = data.load(tmp_path / "patients.csv", label="outcome").x
    shuffled = pd.read_csv(tmp_path / "patients.csv", parse_dates=["since"])[["age", "outcome", "since", "ward"]]
    assert np.array_equal(made.predict_log_proba(shuffled), made.predict_log_proba(raw))
    few = shuffled[shuffled.ward != "icu"]  # its codes would be others, had the file been coded by itself
    assert np.array_equal(made.predict_log_proba(few), made.predict_log_proba(raw[shuffled.ward != "icu"]))
    with pytest.warns(UserWarning, match="did not learn: ward"):
        unknown = made.predict_log_proba(few.assign(ward="elsewhere"))
    missing = made.predict_log_proba(few.assign(ward=None))
    assert np.array_equal(unknown, missing)
    with pytest.raises(UserError, match="'ward'"):
        made.predict_log_proba(few.drop(columns="ward"))
    with pytest.raises(UserError, match="holds text"):
        made.predict_log_proba(few.assign(age="old"))


def test_a_saved_model_names_no_category_of_fewer_than_five_members(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"job": ["nurse"] * 70 + ["astronaut"] * 4 + ["cook"] * 46, "age": rng.normal(50, 9, 120)})
    frame["outcome"] = np.where(frame.job == "nurse", "ill", "well")
    frame.to_csv(tmp_path / "rows.csv", index=False)
    made = trained.train(data.load(tmp_path / "rows.csv", label="outcome"), recipe=TINY)
    made.save(tmp_path / "model")
    assert "cook" in (tmp_path / "model" / "model.json").read_text()
    assert not any(b"astronaut" in path.read_bytes() for path in (tmp_path / "model").rglob("*") if path.is_file())
    back = Trained.load(tmp_path / "model")
    assert np.array_equal(
        back.predict_log_proba(frame), made.predict_log_proba(data.load(tmp_path / "rows.csv", label="outcome").x)
    )
    rare = frame[frame.job == "astronaut"]
    with pytest.warns(UserWarning, match=r"job \(4 of 4\).*fewer than 5"):
        of_rare = back.predict_log_proba(rare)
    assert np.array_equal(of_rare, back.predict_log_proba(rare.assign(job=None)))


def test_a_defense_that_never_acted_is_warned_of(blobs: Dataset, recwarn: pytest.WarningsRecorder) -> None:
    trained.train(blobs, "relaxloss:alpha=0.9", recipe=TINY)
    assert not [warning for warning in recwarn if "never came to act" in str(warning.message)]
    with pytest.warns(
        UserWarning, match=r"relaxloss:alpha=0.01 never came to act.*plainly trained.*never to alpha=0.01"
    ):
        trained.train(blobs, "relaxloss:alpha=0.01", recipe=TINY)


def test_classes_are_called_by_their_names(blobs: Dataset, tmp_path: Path) -> None:
    named = dataclasses.replace(blobs, classes=("north", "east", "south", "west"))
    made = trained.train(named, recipe=TINY)
    made.save(tmp_path)
    back = Trained.load(tmp_path)
    assert back.classes == ("north", "east", "south", "west")
    codes = back.predict_log_proba(blobs.x).argmax(1)
    assert len(set(codes)) == 4
    assert back.predict(blobs.x).tolist() == [back.classes[code] for code in codes]
    assert np.array_equal(trained.train(blobs, recipe=TINY).predict(blobs.x), codes)  # without names, the numbers


def test_a_class_of_few_members_is_warned_of(blobs: Dataset) -> None:
    y = np.where(np.arange(300) == 7, 3, blobs.y % 3)
    rare = dataclasses.replace(blobs, y=y, classes=("a", "b", "c", "ebola"))
    with pytest.warns(UserWarning, match=r"fewer than 5 members have the class ebola \(\d\): the model names it"):
        trained.train(rare, recipe=TINY)


def test_an_identifier_is_not_trained_on_and_members_are_not_printed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"patient": [f"P{i:04}" for i in range(120)], "age": rng.normal(50, 9, 120)})
    frame.assign(outcome=rng.integers(0, 2, 120)).to_csv(tmp_path / "rows.csv", index=False)
    recipe = Recipe(model="mlp:hidden=8", epochs=1, milestones=())
    with pytest.raises(UserError, match=r"patient has 120 different texts in 120 rows.*--drop patient"):
        trained.train(data.load(str(tmp_path / "rows.csv"), label="outcome"), recipe=recipe)
    model = trained.train(data.load(str(tmp_path / "rows.csv"), label="outcome", drop=("patient",)), recipe=recipe)
    assert "members" not in repr(model)
    model.save(tmp_path / "model")
    assert "P00" not in (tmp_path / "model" / "model.json").read_text()
    for wrong, said in (({"age": [1.0]}, "got dict"), (frame.to_numpy(), "got an array of object")):
        with pytest.raises(UserError, match=f"{said} to predict; expected a pandas DataFrame with the columns"):
            model.predict_log_proba(wrong)  # type: ignore[arg-type]


def test_shares_are_disjoint_and_the_accuracy_is_of_the_test_share(blobs: Dataset) -> None:
    made = trained.train(blobs, recipe=TINY, test=0.3, reference=0.1)
    parts = [made.split[name] for name in ("members", "test", "reference")]
    assert [len(part) for part in parts] == [180, 90, 30]
    assert len(np.unique(np.concatenate(parts))) == 300
    predicted = made.predict_log_proba(blobs.x[made.split["test"]]).argmax(1)
    assert made.facts["test_accuracy"] == (predicted == blobs.y[made.split["test"]]).mean()


def test_checkpoints_resume_and_change_nothing(blobs: Dataset, tmp_path: Path) -> None:
    one = trained.train(blobs, recipe=TINY)
    epochs: list[int] = []
    for _ in range(2):
        two = trained.train(
            blobs, recipe=TINY, checkpoints=tmp_path, tell=lambda progress: epochs.append(progress.epoch)
        )
    assert epochs == [1, 2, 3, 4], "the second training found the first one's last checkpoint"
    assert all(torch.equal(a, b) for a, b in zip(one.network.parameters(), two.network.parameters(), strict=True))


def test_bad_models_and_shares_are_explained(blobs: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.json is missing"):
        Trained.load(tmp_path)
    made = trained.train(blobs, recipe=TINY)
    made.save(tmp_path)
    whole = (tmp_path / "network.safetensors").read_bytes()
    other = trained.train(blobs, recipe=TINY, seed=1)
    other.save(tmp_path / "other")
    (tmp_path / "network.safetensors").write_bytes((tmp_path / "other" / "network.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"network.safetensors is not as it was saved with model.json"):
        Trained.load(tmp_path)
    (tmp_path / "network.safetensors").write_bytes(whole)
    assert "sha256" not in Trained.load(tmp_path).card
    card = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({key: value for key, value in card.items() if key != "defense"}))
    with pytest.raises(UserError, match=r"damaged.*defense"):
        Trained.load(tmp_path)
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        Trained.load(tmp_path)
    with pytest.raises(UserError, match=r"test=0.9 and reference=0.2"):
        trained.train(blobs, recipe=TINY, test=0.9, reference=0.2)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, blobs: Dataset) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    trained.train(dataclasses.replace(blobs, classes=("a", "b", "c", "d")), recipe=TINY).save(folder)
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    shutil.copytree(saved, tmp_path / "m")
    return tmp_path / "m"


def test_a_model_is_used_without_what_must_not_be_shipped(saved: Path, copy: Path, blobs: Dataset) -> None:
    shutil.rmtree(copy / "private")
    (copy / "history.csv").unlink()
    bare = Trained.load(copy)
    assert np.array_equal(bare.predict_log_proba(blobs.x), Trained.load(saved).predict_log_proba(blobs.x))
    assert (bare.split, len(bare.history)) == ({}, 0)
    bare.save(copy / "again")
    assert Trained.load(copy / "again").split == {}


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (np.zeros((3, 1)), r"shape \(3, 1\) to predict; expected a NumPy array of numbers \(n, 12\)"),
        (np.zeros(12), r"shape \(12,\)"),
        (np.zeros((1, 3, 12)), r"shape \(1, 3, 12\)"),
        (np.zeros(()), r"shape \(\)"),
        (np.full((2, 12), np.inf), "infinite values .* in 2 of 2 rows"),
        (np.full((2, 12), "1"), "an array of <U1 to predict"),
        ([[0.0] * 12], "got list to predict; expected a NumPy array"),
        (torch.zeros(1, 12), "got Tensor to predict"),
        (pd.DataFrame(np.zeros((1, 12))), "expected an array, no table"),
    ],
)
def test_what_is_not_raw_rows_is_refused(saved: Path, x: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Trained.load(saved).predict_log_proba(x)


def test_rows_are_read_whatever_numpy_keeps_them_as(saved: Path, blobs: Dataset) -> None:
    model = Trained.load(saved)
    expected = model.predict_log_proba(blobs.x)
    for x in (blobs.x.astype(">f8"), blobs.x.astype(np.float64), np.asfortranarray(blobs.x)):
        assert np.array_equal(model.predict_log_proba(x), expected)
    assert np.array_equal(model.predict_log_proba(blobs.x[::-1]), expected[::-1])
    assert model.predict_log_proba(blobs.x[:0]).shape == (0, 4)
    assert model.predict(blobs.x[:0]).shape == (0,)


def test_images_are_whole_numbers_to_255(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8)).astype(np.uint8)
    images = Dataset("images", x, np.arange(40) % 2, 2, "noise")
    model = trained.train(images, recipe=Recipe(epochs=1, milestones=(), model="mlp:hidden=8"))
    expected = model.predict_log_proba(x)
    assert np.array_equal(model.predict_log_proba(x.astype(np.int64)), expected)
    assert np.array_equal(model.predict_log_proba(x.astype(np.float32)), expected)
    for wrong in (x / 255, x.astype(int) - 1, (x > 127).astype(float)):
        with pytest.raises(UserError, match="expected whole numbers from 0 to 255"):
            model.predict_log_proba(wrong)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("private/split.npz", lambda content: content[:-30], "damaged"),
        ("private/split.npz", lambda content: b"", "damaged"),
        ("model.json", lambda content: b"[]", "damaged"),
        ("model.json", lambda content: b"null", "damaged"),
        ("model.json", lambda content: content.replace(b'"format": 2', b'"format": 3'), "format 3, by relaxloss"),
        ("model.json", lambda content: content.replace(b'"num_classes": 4', b'"num_classes": 5'), "4 classes of 5"),
        ("model.json", lambda content: content.replace(b'"columns": []', b'"columns": "x"'), "odd columns"),
        ("model.json", lambda content: content.replace(b'"name": "mlp"', b'"name": "mpl"'), "did you mean 'mlp'"),
        (
            "model.json",
            lambda content: content.replace(b'"defense": "none"', b'"defense": "louder"'),
            "your own, install",
        ),
        ("model.json", lambda content: content.replace(b'"classes": [', b'"klasses": ['), "KeyError: 'classes'"),
        ("model.json", lambda content: re.sub(rb'"shape": \[\s*12', b'"shape": [13', content), "do not fit model.json"),
    ],
)
def test_a_damaged_model_is_no_traceback(copy: Path, name: str, change: Callable[[bytes], bytes], said: str) -> None:
    path = copy / name
    before = path.read_bytes()
    path.write_bytes(change(before))
    assert path.read_bytes() != before
    with pytest.raises(UserError, match=said):
        Trained.load(copy)


def test_a_file_is_no_saved_model(saved: Path) -> None:
    with pytest.raises(UserError, match="is a file; expected the directory"):
        Trained.load(saved / "model.json")


def test_weights_of_changed_code_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    text = "from torch import nn\ndef net(shape, c): return nn.Sequential(nn.Linear(shape[0], c), nn.ReLU())\n"
    (tmp_path / "changing.py").write_text(text)
    recipe = Recipe(model="changing:net", epochs=1, milestones=())
    trained.train(data.load("digits"), recipe=recipe).save(tmp_path / "model")
    Trained.load(tmp_path / "model", trust_code=True)
    (tmp_path / "changing.py").write_text(text.replace("ReLU", "Sigmoid"))
    importlib.reload(sys.modules["changing"])
    with pytest.raises(UserError, match="the code of changing:net has changed"):
        Trained.load(tmp_path / "model", trust_code=True)


def test_a_directory_runs_no_code_unless_its_maker_is_trusted(table: Dataset, tmp_path: Path) -> None:
    """Nothing is imported, and nothing called, even with arguments that would do something."""
    trained.train(table, recipe=TINY).save(tmp_path)
    card = json.loads((tmp_path / "model.json").read_text())
    own = {"name": "custom", "function": f"{__name__}:{called.__name__}", "source": ""}
    (tmp_path / "model.json").write_text(json.dumps(card | {"recipe": card["recipe"] | {"model": own}}))
    with pytest.raises(UserError, match=rf"the code {__name__}:called, which loading would run.*--trust-code"):
        Trained.load(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps(card | {"shape": ["sh", "-c", "true"]}))
    with pytest.raises(UserError, match="expected ints"):
        Trained.load(tmp_path, trust_code=True)


def called(*given: object) -> None:
    raise AssertionError(given)


def test_what_is_shipped_does_not_tell_the_seed(table: Dataset, tmp_path: Path) -> None:
    """It tells the split; and who trains without one gets another each time, but for a training that is resumed."""
    made = trained.train(table, "memguard", recipe=TINY, seed=8713)
    made.save(tmp_path)
    assert not any(b"8713" in path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert Trained.load(tmp_path).seed == 8713
    again = trained.train(table, "memguard", recipe=TINY, seed=8713)
    assert np.array_equal(again.split["members"], made.split["members"])
    drawn = [trained.train(table, recipe=TINY, seed=None, checkpoints=tmp_path / part) for part in ("a", "a", "b")]
    assert drawn[0].seed == drawn[1].seed != drawn[2].seed
    assert np.array_equal(drawn[0].predict_log_proba(table.x), drawn[1].predict_log_proba(table.x))
    assert not np.array_equal(drawn[0].split["members"], drawn[2].split["members"])
    assert trained.train(table, recipe=TINY, seed=None).seed not in {each.seed for each in drawn}


def test_a_name_and_a_table_of_fields_will_do() -> None:
    made = trained.train("digits", recipe={"model": "mlp:hidden=8", "epochs": 1, "milestones": ()}, seed=1)
    same = trained.train(data.load("digits"), recipe=Recipe(model="mlp:hidden=8", epochs=1, milestones=()), seed=1)
    assert made.facts == same.facts


def test_a_model_that_was_moved_is_asked_where_it_is(table: Dataset) -> None:
    """Device "meta" has no numbers, but refuses tensors of another device as a GPU does: only `.cpu()` fails."""
    made = trained.train(table, recipe=TINY)
    made.release.to("meta")
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        made.predict_log_proba(table.x)
