"""The settings: the paper's numbers, loaded from small files in the upstream formats, and run from end to end."""

from __future__ import annotations

import dataclasses
import functools
import json
import tomllib
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from command_line import call
from published_files import WRITERS, bits, shrink, write_tiles
from relaxloss import data, defenses, settings
from relaxloss.data.dataset import sources
from relaxloss.errors import UserError

# What the paper and its released code say: data set, model, alpha, flatten, upper, epochs and milestones, and how many
# classes. A star: not theirs but ours.
IMAGES, TABLES = (300, (150, 225)), (120, (50, 100))
PAPER: dict[str, tuple[str, str, float, str, float, Any, int]] = {
    "cifar10-resnet20": ("cifar10", "resnet20", 1.0, "misclassified", 1.0, IMAGES, 10),
    "cifar10-vgg11_bn": ("cifar10", "vgg11_bn", 0.4, "misclassified", 1.0, IMAGES, 10),
    "cifar100-resnet20": ("cifar100", "resnet20", 3.0, "misclassified", 1.0, IMAGES, 100),
    "cifar100-vgg11_bn": ("cifar100", "vgg11_bn", 0.5, "misclassified", 1.0, IMAGES, 100),
    "ch_mnist-resnet20": ("ch_mnist", "resnet20", 0.82, "misclassified", 1.0, IMAGES, 8),  # alpha*
    "texas100-mlp": ("texas100", "mlp", 2.5, "all", 0.1, TABLES, 100),
    "purchase100-mlp": ("purchase100", "mlp", 0.8, "all", 0.3, TABLES, 100),
    # stand-ins, and data that the poster does not have
    "crc5-resnet20": ("crc5", "resnet20", 0.64, "misclassified", 1.0, IMAGES, 5),  # alpha*
    "diab100-mlp": ("diab100", "mlp", 2.5, "all", 0.1, TABLES, 100),
    "tafeng100-mlp": ("tafeng100", "mlp", 0.8, "all", 0.3, TABLES, 100),
    "location30-mlp": ("location30", "mlp", 1.0, "all", 1.0, TABLES, 30),  # alpha*, upper*
    "credit-mlp": ("credit_default.csv.gz", "mlp", 0.42, "all", 1.0, TABLES, 2),  # alpha*, upper*
}
BASELINES = {
    "memguard": {},
    "advreg": {"weight": 1.0, "attacker_lr": 1e-3},
    "early_stopping": {},
    "dropout": {"rate": 0.5},
    "label_smoothing": {"smoothing": 0.1},
    "confidence_penalty": {"beta": 0.1},
    "distillation": {"temperature": 10.0, "weight": 0.5, "on": "members"},
    "dpsgd": {"noise": 0.01, "preset": None},
}
each = pytest.mark.parametrize("name", PAPER)


def test_every_setting_is_there_and_each_is_in_the_table() -> None:
    assert settings.names() == sorted(PAPER)
    assert dict(settings.listing()).keys() == PAPER.keys()


@each
def test_the_numbers_are_the_papers(name: str) -> None:
    dataset, model, alpha, flatten, upper, (epochs, milestones), _ = PAPER[name]
    experiment = settings.load(name)
    recipe = experiment.recipe
    assert recipe is not None
    assert (experiment.dataset, recipe.model.name, experiment.setting) == (dataset, model, name)
    assert (recipe.epochs, recipe.milestones, recipe.schedule, recipe.decay) == (epochs, milestones, "milestones", 0.1)
    assert (recipe.optimiser, recipe.lr, recipe.momentum, recipe.weight_decay) == ("sgd", 0.1, 0.9, 1e-4)
    assert (recipe.batch_size, recipe.augment, recipe.precision) == (128, "none", "float32")
    none, relaxed, *others = experiment.defenses
    assert (none, relaxed) == (defenses.NONE, defenses.RelaxLoss(alpha=alpha, flatten=flatten, upper=upper))
    for (cls, wanted), defense in zip(BASELINES.items(), others, strict=True):
        assert defense.name == cls
        assert {field: getattr(defense, field) for field in wanted} == wanted
    assert others[-1].clip == (1.2 if epochs == 300 else 1.0)
    assert [attack.name for attack in experiment.attacks] == [
        *("correctness", "confidence", "loss", "entropy", "modified_entropy", "neural"),
        *("grad_x_l1", "grad_x_l2", "grad_w_l1", "grad_w_l2"),
    ]
    assert (experiment.shadows, str(experiment.game)) == ("both", "five_folds")
    assert bool(experiment.label) == (name == "credit-mlp")


def test_alphas_that_were_not_released_come_from_the_line_that_their_files_name() -> None:
    """alpha / log C against no defense's test error (the poster's), through the two released ResNet20 settings."""
    errors, shares = [29.5, 66.8], [1.0 / np.log(10), 3.0 / np.log(100)]
    share = np.polyval(np.polyfit(errors, shares, 1), 22.9)
    assert share * np.log(8) == pytest.approx(PAPER["ch_mnist-resnet20"][2], abs=0.01)
    assert share * np.log(5) == pytest.approx(PAPER["crc5-resnet20"][2], abs=0.01)


def test_stand_ins_say_for_what() -> None:
    said = dict(settings.listing())
    for name, original in (
        ("crc5-resnet20", "CH-MNIST"),
        ("diab100-mlp", "Texas100"),
        ("tafeng100-mlp", "Purchase100"),
    ):
        assert f"stands in for {original}" in said[name]
    assert not any("stands in" in said[name] for name in list(PAPER)[:7])


def test_unknown_names_have_near_matches() -> None:
    with pytest.raises(UserError, match=r"unknown setting 'cifar10-resnet'.*did you mean 'cifar10-resnet20'"):
        settings.load("cifar10-resnet")


# --- from end to end, on small files in the formats of the real ones --------------------------------------------------


def write_prepared(folder: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    if name == "crc5":
        np.savez(folder / "crc5.npz", x=rng.integers(0, 256, (60, 3, 32, 32), np.uint8), y=np.arange(60) % 5)
    else:
        width = {"tafeng100": 600, "diab100": 1125}[name]
        x = np.packbits(bits(300, width), axis=1)
        np.savez(folder / f"{name}.npz", x_packed=x, x_columns=width, y=np.arange(300) % 100)


def write_credit(folder: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"limit": rng.integers(1, 50, 100) * 10_000, "sex": rng.choice(["female", "male"], 100)})
    frame["default"] = np.where(np.arange(100) % 4 == 0, "yes", "no")
    frame.to_csv(folder / name, index=False)


SMALL: dict[str, Callable[..., Any]] = {
    **WRITERS,
    "ch_mnist": functools.partial(write_tiles, each=5),
    **dict.fromkeys(("crc5", "tafeng100", "diab100"), write_prepared),
    "credit_default.csv.gz": write_credit,
}


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Writes a data set's small file into a data directory of the test's own."""

    def write(dataset: str) -> Path:
        home = tmp_path / "data"
        home.mkdir()
        monkeypatch.setenv("RELAXLOSS_DATA", str(home))
        assert data.missing(dataset) is not None
        made = SMALL[dataset](home, dataset)
        if dataset in WRITERS:
            shrink(monkeypatch, dataset, len(made[0]))
        assert data.missing(dataset) is None
        return home

    return write


@each
def test_a_setting_runs_on_a_small_file_of_its_format(name: str, small: Any, tmp_path: Path) -> None:
    dataset, model, alpha, *_, (epochs, milestones), classes = PAPER[name]
    small(dataset)
    quick = ("--epochs", "2", "--defenses", "none,relaxloss", "--attacks", "loss", "--engine", "inprocess")
    done = call("compare", "--setting", name, *quick, "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / name
    written = tomllib.loads((run / "experiment.toml").read_text())
    assert (written["dataset"], written["recipe"]["model"]["name"], written["setting"]) == (dataset, model, name)
    assert written["defenses"][1]["alpha"] == alpha, "a bare name in --defenses is the setting's own"
    assert written["recipe"]["milestones"] == [round(2 * milestone / epochs) for milestone in milestones]
    facts = json.loads((run / "details" / "facts.json").read_text())["facts"]
    assert facts["num_classes"] == classes
    assert (facts["experiment"]["setting"], facts["experiment"]["note"]) == (name, dict(settings.listing())[name])
    rows = pd.read_csv(run / "results.csv")
    assert set(rows["defense"]) == {"none", "relaxloss"}
    assert set(rows["adaptive"].dropna().astype(str)) == {"True", "False"}
    values = rows.loc[rows["measure"].isin(["top1", "auc"]), "value"]
    assert len(values) >= 6
    assert values.between(0, 1).all()


def test_a_setting_acts_as_the_paper_says(small: Any, tmp_path: Path) -> None:
    """Long enough for the members to be learnt by heart: RelaxLoss holds their mean loss near its alpha."""
    small("location30")
    quick = ("--defenses", "none,relaxloss", "--attacks", "loss", "--engine", "inprocess")
    done = call("compare", "--setting", "location30-mlp", *quick, "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = pd.read_csv(tmp_path / "runs" / "location30-mlp" / "results.csv")
    loss = rows[rows["measure"] == "member_loss"].groupby("defense")["value"].mean()
    assert loss["none"] < 0.3
    assert loss["relaxloss"] == pytest.approx(1.0, abs=0.35)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["location30-mlp", "crc5-resnet20"])
def test_a_whole_setting_runs(name: str, small: Any, tmp_path: Path) -> None:
    """All ten defenses and all ten attacks."""
    small(PAPER[name][0])
    done = call("compare", "--setting", name, "--epochs", "2", "--engine", "inprocess", "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = pd.read_csv(tmp_path / "runs" / name / "results.csv")
    assert set(rows["defense"]) == {"none", "relaxloss", *BASELINES}
    assert len(set(rows.loc[rows["measure"] == "auc", "attack"]) - {"max", "selected"}) == 10


def test_options_override_a_setting_and_the_sweep_keeps_its_other_fields(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Any] = []

    def stop(experiment: Any, *_: Any, **__: Any) -> None:
        asked.append(experiment)
        raise UserError("far enough")

    monkeypatch.setattr("relaxloss.api.compare", stop)
    monkeypatch.setenv("RELAXLOSS_DATA", str(tmp_path))
    write_prepared(tmp_path, "crc5")
    base = ("compare", "--setting", "crc5-resnet20")
    for options in (
        ("--epochs", "100", "--seeds", "3,4", "--shadows", "same", "--recipe", "precision=bf16", "--attacks", "loss"),
        ("--sweep",),
        ("--defenses", "relaxloss,relaxloss:alpha=2,hamp,dpsgd"),
        ("--data", "digits", "--model", "mlp"),
        ("--model", "mlp"),
    ):
        assert call(*base, *options, "--out", str(tmp_path / "run")).returncode == 2
    changed, swept, chosen, elsewhere, otherwise = asked
    assert (changed.recipe.epochs, changed.recipe.milestones) == (100, (50, 75))
    assert (changed.seeds, changed.shadows, changed.recipe.precision) == ((3, 4), "same", "bf16")
    assert [attack.name for attack in changed.attacks] == ["loss"]
    alone = settings.load("crc5-resnet20")
    assert changed.defenses == alone.defenses
    for cls in {type(defense) for defense in alone.defenses}:
        curve = [defense for defense in swept.defenses if isinstance(defense, cls)]
        points = [point for point in cls.sweep if all(point.get(name, 0) < 1.609 for name in cls.in_nats)]
        assert len(curve) >= max(1, len(points)), "every curve is run, up to log 5, the loss of a guess"
    assert {d.flatten for d in swept.defenses if isinstance(d, defenses.RelaxLoss)} == {"misclassified"}
    assert {d.clip for d in swept.defenses if isinstance(d, defenses.DPSGD)} == {1.2}
    assert chosen.defenses == tuple(
        map(
            defenses.parse,
            ["relaxloss:alpha=0.64,flatten=misclassified", "relaxloss:alpha=2", "hamp", "dpsgd:clip=1.2"],
        )
    )
    assert (elsewhere.dataset, elsewhere.setting, elsewhere.note) == ("digits", "", ""), "its words hold no longer"
    assert (otherwise.dataset, otherwise.setting, otherwise.note) == ("crc5", "", "")


def test_a_settings_file_is_an_experiment_for_compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relaxloss.api.compare", lambda experiment, *_, **__: asked.append(experiment) or 1 / 0)
    monkeypatch.setenv("RELAXLOSS_DATA", str(tmp_path))
    asked: list[Any] = []
    write_credit(tmp_path, "credit_default.csv.gz")
    file = str(resources.files(settings).joinpath("credit-mlp.toml"))
    call("compare", file, "--out", str(tmp_path / "run"))
    assert asked == [settings.load("credit-mlp")]


def test_what_is_set_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('dataset = "digits"')
    done = call("compare", "own.toml", "--setting", "location30-mlp", cwd=tmp_path)
    assert done.returncode == 2
    assert "give one of the two" in " ".join(done.stderr.split())
    done = call("compare", "--setting", "locaton30-mlp", cwd=tmp_path)
    assert (done.returncode, "did you mean 'location30-mlp'" in " ".join(done.stderr.split())) == (2, True)


def test_defenses_that_are_not_installed_are_left_out_and_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(defenses.DPSGD, "requires", "no_such_module")
    monkeypatch.setenv("RELAXLOSS_DATA", str(tmp_path))
    write_prepared(tmp_path, "tafeng100")
    asked: list[Any] = []
    monkeypatch.setattr("relaxloss.api.compare", lambda experiment, *_, **__: asked.append(experiment) or 1 / 0)
    done = call("compare", "--setting", "tafeng100-mlp", "--out", str(tmp_path / "run"))
    assert "dpsgd is left out: no_such_module is not installed" in done.stderr
    assert asked[0].defenses == settings.load("tafeng100-mlp").defenses[:-1]


def test_neither_the_name_nor_the_note_is_in_a_key() -> None:
    """Stored results are found whatever an experiment is called."""
    from relaxloss.experiments.plan import Experiment, Plan

    digits = data.load("digits")
    plain = Experiment("digits", seeds=(0,))
    named = dataclasses.replace(plain, setting="s", note="n")
    keys = [
        [job.key for job in plan.train_jobs(_empty())[0]] for plan in (Plan(e, digits, digits) for e in (plain, named))
    ]
    assert keys[0] == keys[1] != []


def _empty() -> Any:
    class Store:
        root = Path()

        def has(self, *_: str) -> bool:
            return False

        def scratch(self, key: str) -> Path:
            return Path(key)

    return Store()


def test_missing_names_the_file(tmp_path: Path) -> None:
    assert data.missing("cifar10", folder=tmp_path) == tmp_path / "cifar10.npz"
    assert data.missing("digits", folder=tmp_path) is None
    assert data.missing("nowhere.csv", folder=tmp_path) == Path("nowhere.csv")
    assert data.missing("shop", folder=tmp_path) == tmp_path / "shop.npz"
    (tmp_path / sources["cifar10"]().file()).touch()
    assert data.missing("cifar10", folder=tmp_path) is None
