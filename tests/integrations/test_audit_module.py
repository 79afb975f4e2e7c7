"""Modules of a user's own loop: audited with their gradients, and with shadows of that loop."""

from __future__ import annotations

import copy
import random
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import make_classification
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import relaxloss as rl
from relaxloss import seeds
from relaxloss.compute.engine import Engine
from relaxloss.errors import UserError
from relaxloss.integrations.torch import audit_module
from relaxloss.signals import VIEWS, shifted

HERE = Engine("inprocess")
ROWS, LABELS = make_classification(
    240, 6, n_informative=4, n_classes=3, n_clusters_per_class=1, flip_y=0.3, random_state=0
)
X, Y = torch.from_numpy(ROWS).float(), torch.from_numpy(LABELS)
IN = torch.from_numpy(np.random.default_rng(0).random(len(Y)) < 0.5)
MEMBERS, OTHERS = (X[IN], Y[IN]), (X[~IN], Y[~IN])
POOL = torch.cat([X[IN], X[~IN]]), torch.cat([Y[IN], Y[~IN]])


def rows_of(audit: Any) -> pd.DataFrame:
    return audit.rows.drop(columns=["dataset"])


def aucs(audit: Any) -> dict[str, float]:
    return audit.rows.query("measure == 'auc'").set_index("attack")["value"].to_dict()


def net(width: int = 6, out: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 32), nn.Tanh(), nn.Dropout(0.1), nn.Linear(32, out))


def fit(dataset: Any, seed: int = 0) -> nn.Module:
    """All of it in one batch, so that of the order only rounding is left."""
    model = net()
    x, y = next(iter(DataLoader(dataset, len(dataset))))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimiser.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimiser.step()
    return model


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return fit(TensorDataset(*MEMBERS))


def answers(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    mode = model.training
    with torch.no_grad():
        out = model.eval()(x)
    model.train(mode)
    return out


def test_without_shadows_it_is_the_audit_of_the_logits(trained: nn.Module) -> None:
    trained.train()
    trained[1].eval()  # type: ignore[index]  # a part that its owner froze
    state = torch.random.get_rng_state()
    mine = audit_module(trained, MEMBERS, TensorDataset(*OTHERS), attacks="blackbox", batch_size=50)
    assert [module.training for module in trained.modules()] == [True, True, False, True, True], "left as it was"
    assert torch.equal(state, torch.random.get_rng_state())
    theirs = rl.audit(
        member_logits=answers(trained, X[IN]), member_labels=Y[IN], nonmember_logits=answers(trained, X[~IN]),
        nonmember_labels=Y[~IN], attacks="blackbox",
    )  # fmt: skip
    pd.testing.assert_frame_equal(rows_of(mine), rows_of(theirs), atol=1e-6, rtol=1e-5)
    assert mine.rows["dataset"].unique() == ["Sequential"]
    assert {"copies", "randomised_release"} <= set(mine.passed)


def test_its_gradients_are_autograds(trained: nn.Module) -> None:
    expected = []
    for x, y in zip(*POOL, strict=True):
        leaf = x[None].clone().requires_grad_()
        F.cross_entropy(trained.eval()(leaf), y[None]).backward()
        weights = torch.cat([each.grad.flatten() for each in trained.parameters()])  # type: ignore[union-attr]
        expected.append([leaf.grad.abs().sum(), leaf.grad.norm(), weights.abs().sum(), weights.norm()])  # type: ignore[union-attr]
        trained.zero_grad()
    norms, member = -np.array(expected), np.arange(len(Y)) < int(IN.sum())
    found = aucs(audit_module(trained, MEMBERS, OTHERS, attacks="whitebox", batch_size=64))
    for column, name in enumerate(("grad_x_l1", "grad_x_l2", "grad_w_l1", "grad_w_l2")):
        assert found[name] == pytest.approx(rl.metrics.auc(norms[:, column], member), abs=2e-3)


def by_hand(shadows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A coin for each sample, an order for each shadow, and its own seed."""
    coins = seeds.rng(seed, "shadows").random((shadows, len(Y))) < IN.float().mean().item()
    found = []
    for place, own in enumerate(coins):
        chance = seeds.seed(seed, "shadow", place)
        order = torch.from_numpy(seeds.rng(chance, "order").permutation(np.flatnonzero(own)))
        with torch.random.fork_rng():
            torch.manual_seed(chance % 2**31)
            found.append(answers(fit(TensorDataset(POOL[0][order], POOL[1][order])), POOL[0]).numpy())
    return np.stack(found), coins


@pytest.mark.parametrize("engine", [HERE, Engine("processes", 2)], ids=["here", "processes"])
def test_the_shadows_answers_are_those_of_models_trained_by_hand(trained: nn.Module, engine: Engine) -> None:
    settings: dict[str, Any] = {"attacks": "lira,rmia,calibration", "seed": 3}
    expected = rl.audit(
        member_logits=answers(trained, X[IN]), member_labels=Y[IN], nonmember_logits=answers(trained, X[~IN]),
        nonmember_labels=Y[~IN], shadows=by_hand(4, 3), adaptive=True, **settings,
    )  # fmt: skip
    state = torch.random.get_rng_state()
    found = audit_module(trained, MEMBERS, OTHERS, fit=lambda *given: fit(*given), shadows=4, engine=engine, **settings)
    assert torch.equal(state, torch.random.get_rng_state())
    for attack, area in aucs(expected).items():
        assert aucs(found)[attack] == pytest.approx(area, abs=1e-3)


class Memory(nn.Module):
    """Is sure of the rows that it holds; of others it knows nothing."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("x", x)
        self.register_buffer("y", y)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        same = (x[:, None] == self.x).all(2).float()
        return 4 * same @ F.one_hot(self.y, 3).float()  # type: ignore[operator, arg-type]


SEEN: list[list[int]] = []


def remember(dataset: Any, seed: int) -> nn.Module:
    SEEN.append(dataset.indices)
    return Memory(*next(iter(DataLoader(dataset, len(dataset)))))


def test_shadows_are_on_coin_flips_and_find_what_was_planted() -> None:
    SEEN.clear()
    found = audit_module(
        Memory(*MEMBERS), MEMBERS, OTHERS, fit=remember, shadows=40, attacks="lira,rmia,loss", engine=HERE
    )
    assert found.worst["auc"] == 1
    assert len(SEEN) == 40
    assert all(rows != sorted(rows) for rows in SEEN)
    heads = np.array([np.isin(np.arange(len(Y)), rows) for rows in SEEN])
    share = IN.float().mean().item()
    assert abs(heads.mean() - share) < 5 * np.sqrt(share * (1 - share) / heads.size)
    assert abs(np.corrcoef(heads)[np.triu_indices(40, 1)].mean()) < 0.01
    assert not {"few_shadows", "shadow_design", "non_adaptive_only"} & {flag.name for flag in found.flags}


def test_persons_are_in_a_shadow_as_a_whole() -> None:
    groups = np.arange(len(Y)) // 3 + 1000 * (np.arange(len(Y)) >= int(IN.sum()))
    SEEN.clear()
    found = audit_module(
        Memory(*MEMBERS), MEMBERS, OTHERS, fit=remember, shadows=6, groups=groups, attacks="loss", engine=HERE
    )
    assert found.facts["persons"]["members"] == len(np.unique(groups[: int(IN.sum())]))
    for rows in SEEN:
        assert set(groups[rows]) & set(np.delete(groups, rows)) == set()


class Probabilities(nn.Module):
    def __init__(self, model: nn.Module, kind: str) -> None:
        super().__init__()
        self.model, self.kind = model, kind

    def forward(self, x: torch.Tensor) -> Any:
        logits = self.model(x)
        odds = logits[:, 1] - logits[:, 0]
        return {
            "softmax": logits.softmax(1),
            "odds": odds,
            "sigmoid": odds.sigmoid()[:, None],
            "object": SimpleNamespace(logits=logits),
        }[self.kind]


@pytest.mark.parametrize("kind", ["softmax", "odds", "sigmoid", "object"])
def test_probabilities_single_columns_and_outputs_with_logits_are_understood(kind: str) -> None:
    torch.manual_seed(0)
    model = net(out=2)
    y = (Y > 0).long()
    pairs = (X[IN], y[IN]), (X[~IN], y[~IN])
    expected = audit_module(model, *pairs, attacks="loss,label_only,whitebox")
    found = audit_module(Probabilities(model, kind), *pairs, attacks="loss,label_only,whitebox")
    assert aucs(found) == pytest.approx(aucs(expected), abs=1e-3)


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(30, 8, mode="sum")
        self.out = nn.Linear(8, 3)

    def forward(self, tokens: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return self.out(self.words(tokens, per_sample_weights=weights))


class Texts(Dataset[Any]):
    def __init__(self, places: torch.Tensor) -> None:
        chance = torch.Generator().manual_seed(0)
        self.tokens = torch.randint(30, (len(Y), 5), generator=chance)[places]
        self.labels = Y[places]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: int) -> Any:
        return {"tokens": self.tokens[place], "weights": torch.ones(5)}, int(self.labels[place])


def read(dataset: Any, seed: int) -> nn.Module:
    model = Words()
    x, y = next(iter(DataLoader(dataset, len(dataset))))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(60):
        optimiser.zero_grad()
        F.cross_entropy(model(**x), y).backward()
        optimiser.step()
    return model


def test_named_inputs_of_words_are_asked_and_not_perturbed() -> None:
    members, others = Texts(IN), Texts(~IN)
    torch.manual_seed(0)
    found = audit_module(read(members, 0), members, others, fit=read, shadows=8, engine=HERE)
    assert found.worst["auc"] > 0.8
    assert {"lira", "rmia"} <= aucs(found).keys()
    assert {"grad_x_l1", "label_only"} <= found.unmeasured.keys()
    assert "no array of numbers" in found.unmeasured["label_only"]
    assert "no gradients of it: its inputs" in found.unmeasured["grad_x_l1"]


class Views(Dataset[Any]):
    """Images of which a part is turned as chance has it."""

    def __init__(self, places: torch.Tensor, *, random: bool = False) -> None:
        self.x = torch.rand(len(Y), 1, 12, 12, generator=torch.Generator().manual_seed(0))[places]
        self.y, self.random = Y[places], random

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, place: int) -> Any:
        image = self.x[place]
        return (image.flip(2) if self.random and torch.rand(()) < 0.5 else image), self.y[place]


def test_images_are_asked_in_all_views() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 3))
    found = audit_module(model, Views(IN), Views(~IN), attacks="label_only:rule=count")
    x = torch.cat([Views(IN).x, Views(~IN).x])
    hits = [(answers(model, shifted(x, *view)).argmax(1) == POOL[1]).numpy() for view in VIEWS]
    member = np.arange(len(Y)) < int(IN.sum())
    assert aucs(found)["label_only:rule=count"] == rl.metrics.auc(np.mean(hits, axis=0), member)
    with pytest.raises(UserError, match="augments at random"):
        audit_module(model, Views(IN, random=True), Views(~IN), attacks="loss")


class Noisy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :3] + torch.rand(len(x), 3)


def test_a_model_that_answers_at_random_is_flagged() -> None:
    assert "randomised_release" in {flag.name for flag in audit_module(Noisy(), MEMBERS, OTHERS, attacks="loss").flags}


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(zip(X, Y, strict=True))


class Stubborn(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError("I want more")


class Wide(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros(1, 3)


LOCK = threading.Lock()


@pytest.mark.parametrize(
    ("members", "settings", "says"),
    [
        (DataLoader(TensorDataset(*MEMBERS)), {}, "loader.dataset"),
        (Stream(), {}, "IterableDataset"),
        (X, {}, "cannot be read as pairs"),
        ([{"input_ids": x, "labels": y} for x, y in zip(*MEMBERS, strict=True)], {}, "mappings with input_ids, labels"),
        (TensorDataset(X, X, Y), {}, "got a tuple of 3"),
        (({}, Y[IN]), {}, "no inputs"),
        ((X[IN], F.one_hot(Y[IN])), {}, r"y has shape \(\d+, 3\)"),
        (MEMBERS, {"model": nn.Sequential(net(), nn.Sigmoid())}, "as where each class has a sigmoid"),
        (MEMBERS, {"model": Stubborn()}, r"I want more \(test_audit_module.py"),
        (7, {}, "got a int as members"),
        ((X[IN], Y), {}, "one per label"),
        ((X[IN].double(), Y[IN]), {}, r"torch.float64 \(N, 6\).*torch.float32 \(N, 6\).*the same of a sample"),
        ((X[IN][:, :5], Y[IN]), {}, "the same of a sample"),
        ((X[IN] / 0, Y[IN]), {}, "NaN or infinite"),
        ((X[IN], Y[IN] + 1), {}, "labels hold '3'"),
        (MEMBERS, {"fit": fit}, "shadows=0 and a fit"),
        (MEMBERS, {"shadows": 2}, "shadows=2 and no fit"),
        (MEMBERS, {"shadows": -1, "fit": fit}, "shadows=-1"),
        (MEMBERS, {"outputs": "probs"}, "no probabilities"),
        (MEMBERS, {"outputs": "logit"}, "logits"),
        (MEMBERS, {"batch_size": 0}, "batch_size=0"),
        (MEMBERS, {"model": 3}, "torch.nn.Module"),
        (MEMBERS, {"model": net(5)}, "cannot be asked"),
        (MEMBERS, {"model": Wide()}, "one row of each"),
        (MEMBERS, {"model": nn.Unflatten(1, (2, 3))}, r"gave \(240, 2, 3\)"),
        (MEMBERS, {"fit": lambda dataset, seed: None, "shadows": 2}, "2 of 2 shadows .* fit gave a NoneType"),
        (MEMBERS, {"fit": lambda dataset, seed: net(out=4), "shadows": 2}, "4 classes"),
        (MEMBERS, {"fit": lambda dataset, seed: (LOCK, net())[1], "shadows": 2, "engine": Engine("processes", 2)},
         "cannot be sent to other processes"),
    ],
)  # fmt: skip
def test_what_cannot_be_audited_says_why(members: Any, settings: dict[str, Any], says: str) -> None:
    settings = {"model": net(), "attacks": "loss", "engine": HERE, **settings}
    with pytest.raises(UserError, match=says):
        audit_module(settings.pop("model"), members, OTHERS, **settings)


@pytest.mark.parametrize("engine", [HERE, Engine("processes", 2)], ids=["here", "processes"])
def test_a_fit_that_gives_the_audited_model_is_refused(engine: Engine) -> None:
    model = net()

    def train_on(dataset: Any, seed: int) -> nn.Module:
        return model

    with pytest.raises(UserError, match="that was there before"):
        audit_module(model, MEMBERS, OTHERS, fit=train_on, shadows=2, engine=engine, attacks="loss")


def test_a_model_that_was_there_before_is_no_shadow() -> None:
    """It may know what an earlier shadow was trained on."""
    shared = net()

    def further(dataset: Any, seed: int) -> nn.Module:
        return shared

    with pytest.raises(UserError, match="that was there before it was called"):
        audit_module(net(), MEMBERS, OTHERS, fit=further, shadows=2, engine=HERE, attacks="loss")


@pytest.mark.parametrize("engine", [HERE, Engine("processes", 2)], ids=["here", "processes"])
def test_a_fit_may_have_loaders_with_processes_and_any_generator(engine: Engine) -> None:
    def drawing(dataset: Any, seed: int) -> nn.Module:
        np.random.seed(seed)
        rows = [y for _, y in DataLoader(dataset, 60, num_workers=1)]
        model = net()
        with torch.no_grad():
            model[0].weight += random.random() + np.random.rand() + torch.cat(rows).float().mean()
        return model

    states = random.getstate(), np.random.get_state()[1].copy()  # type: ignore[index]
    one, other = (
        rows_of(audit_module(net_of(0), MEMBERS, OTHERS, fit=drawing, shadows=2, engine=engine, attacks="lira"))
        for _ in range(2)
    )
    pd.testing.assert_frame_equal(one, other)
    assert states[0] == random.getstate()
    np.testing.assert_array_equal(states[1], np.random.get_state()[1])  # type: ignore[arg-type]


def net_of(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return net()


def test_labels_come_to_the_fit_as_they_were_given() -> None:
    seen = []

    def watching(dataset: Any, seed: int) -> nn.Module:
        seen.append(next(iter(DataLoader(dataset, 7)))[1])
        return net(out=1)

    y = (Y > 0).float()[:, None]
    settings: dict[str, Any] = {"fit": watching, "shadows": 1, "engine": HERE, "attacks": "loss"}
    found = audit_module(net(out=1), (X[IN], y[IN]), (X[~IN], y[~IN]), **settings)
    assert (seen[0].dtype, seen[0].shape) == (torch.float32, (7, 1))
    assert found.facts["classes"] == ["0", "1"]


def test_shadows_that_fail_are_left_out_and_most_end_it(trained: nn.Module) -> None:
    calls = []

    def every(which: Any) -> Any:
        def moody(dataset: Any, seed: int) -> nn.Module:
            calls.append(seed)
            if which(len(calls)):
                raise RuntimeError("a last batch of one")
            return fit(dataset, seed)

        return moody

    settings: dict[str, Any] = {"shadows": 6, "engine": HERE, "attacks": "lira"}
    found = audit_module(trained, MEMBERS, OTHERS, fit=every(lambda n: n == 3), **settings)
    assert found.facts["shadows"] == 5
    assert any("1 of 6 shadows" in note and "a last batch of one" in note for note in found.facts["notes"])
    calls.clear()
    with pytest.raises(UserError, match=r"2 of 6 shadows .* a last batch of one \(test_audit_module.py"):
        audit_module(trained, MEMBERS, OTHERS, fit=every(lambda n: True), **settings)
    assert len(calls) == 2, "the others were not tried"


def test_other_rows_and_other_trainings_than_is_said_are_noticed() -> None:
    """Of models that learn by heart; a shadow that leaks as the target does raises nothing."""

    def wrong(dataset: Any, seed: int) -> nn.Module:
        return Memory(X[dataset.indices], Y[dataset.indices])  # in the user's own order

    def all_rows(dataset: Any, seed: int) -> nn.Module:
        return Memory(X, Y)

    def names(how: Any) -> set[str]:
        settings: dict[str, Any] = {"fit": how, "shadows": 6, "engine": HERE, "attacks": "loss"}
        return {flag.name for flag in audit_module(Memory(*MEMBERS), MEMBERS, OTHERS, **settings).flags}

    assert ["unlike_shadows" in names(how) for how in (wrong, all_rows, remember)] == [True, True, False]


def test_unequal_numbers_of_rows_are_noticed() -> None:
    """100 members have 5 rows each and 100 others one; the model knows nobody."""
    chance = torch.Generator().manual_seed(0)
    x, y = torch.randn(600, 6, generator=chance), torch.randint(3, (600,), generator=chance)
    groups = np.concatenate([np.repeat(np.arange(100), 5), 100 + np.arange(100)])
    found = audit_module(net(), (x[:500], y[:500]), (x[500:], y[500:]), groups=groups, attacks="loss")
    assert "rows_per_person" in {flag.name for flag in found.flags}
    assert found.worst["auc"] > 0.6, "and no leak"
    even = audit_module(net(), (x[:500], y[:500]), (x[500:], y[500:]), groups=np.arange(600) // 5, attacks="loss")
    assert "rows_per_person" in even.passed


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_are_asked_as_they_are(dtype: torch.dtype) -> None:
    model = nn.Sequential(net_of(0), nn.Softmax(1))
    expected = audit_module(model, MEMBERS, OTHERS, attacks="loss")
    found = audit_module(
        copy.deepcopy(model).to(dtype), (X[IN].to(dtype), Y[IN]), (X[~IN].to(dtype), Y[~IN]), attacks="loss"
    )
    assert aucs(found)["loss"] == pytest.approx(aucs(expected)["loss"], abs=0.02)
    assert any("taken as probabilities" in note for note in found.facts["notes"])


def test_odd_sizes_of_batches_change_nothing() -> None:
    model = nn.Sequential(net_of(0), Squeeze())
    y = (Y > 0).long()
    pairs = (X[IN], y[IN]), (X[~IN], y[~IN])
    whole, odd = (audit_module(model, *pairs, attacks="loss,whitebox", batch_size=size) for size in (1024, 239))
    assert aucs(odd) == pytest.approx(aucs(whole), abs=1e-3)
    for size in (85, 1):
        found = audit_module(model, *pairs, attacks="loss", batch_size=size)
        assert "randomised_release" in found.passed
        assert aucs(found)["loss"] == pytest.approx(aucs(whole)["loss"], abs=1e-3)


class Squeeze(nn.Module):
    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits[:, :1].squeeze()


def test_what_cannot_be_differentiated_or_moved_leaves_the_other_attacks() -> None:
    x = torch.rand(len(Y), 1, 3, 30, generator=torch.Generator().manual_seed(0))
    found = audit_module(Numpy(), (x[IN], Y[IN]), (x[~IN], Y[~IN]), attacks="loss,label_only,grad_x_l1")
    assert {"loss", "label_only"} <= aucs(found).keys()
    assert "no gradients of it" in found.unmeasured["grad_x_l1"]


class Numpy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(5 * x.flatten(1).numpy()[:, :3])


def test_shadows_that_start_from_what_the_audited_model_holds_are_flagged() -> None:
    target = Memory(*MEMBERS)

    def further(dataset: Any, seed: int) -> nn.Module:
        model = copy.deepcopy(target)
        x, y = next(iter(DataLoader(dataset, len(dataset))))
        model.x, model.y = torch.cat([model.x, x]), torch.cat([model.y, y])  # type: ignore[list-item]
        return model

    flagged = [
        {flag.name for flag in audit_module(target, MEMBERS, OTHERS, fit=how, shadows=4, engine=HERE).flags}
        & {"different_populations"}
        for how in (further, remember)
    ]
    assert flagged == [{"different_populations"}, set()]


def test_a_defended_loop_leaks_less_to_shadows_of_its_own_kind() -> None:
    """Digits, every fifth label wrong, 600 members."""
    data = rl.data.load("digits")
    x = torch.from_numpy(data.x[:1200]).float() / 16
    chance = np.random.default_rng(0)
    y = torch.from_numpy(np.where(chance.random(1200) < 0.2, chance.integers(0, 10, 1200), data.y[:1200]))

    def loop(alpha: float) -> Any:
        def train(dataset: Any, seed: int) -> nn.Module:
            model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
            optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
            criterion = rl.nn.RelaxLoss(alpha=alpha)
            inputs, labels = next(iter(DataLoader(dataset, len(dataset))))
            for epoch in range(60):
                criterion.set_epoch(epoch)
                for rows in torch.randperm(len(labels)).split(64):
                    optimiser.zero_grad()
                    criterion(model(inputs[rows]), labels[rows]).backward()
                    optimiser.step()
            return model

        return train

    worst = {}
    for alpha in (0.0, 1.0):
        torch.manual_seed(0)
        model = loop(alpha)(TensorDataset(x[:600], y[:600]), 0)
        pairs = (x[:600], y[:600]), (x[600:], y[600:])
        worst[alpha] = audit_module(model, *pairs, fit=loop(alpha), shadows=6, attacks="loss,rmia").worst["auc"]
    assert worst[0.0] - worst[1.0] > 0.05
