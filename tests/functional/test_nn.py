"""The drop-in criteria: in loops of one's own, compiled, under autocast, on several ranks."""

from __future__ import annotations

import copy
import os
import pickle
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from relaxloss import functional as R
from relaxloss.errors import UserError
from relaxloss.nn import (
    CCL,
    CRL,
    HAMP,
    Alternating,
    ConfidencePenalty,
    Criterion,
    Distillation,
    Flooding,
    LabelSmoothing,
    RelaxLoss,
)

OTHERS: dict[Criterion, Any] = {
    LabelSmoothing(smoothing=0.2): partial(R.label_smoothing, smoothing=0.2),
    ConfidencePenalty(beta=0.3): partial(R.confidence_penalty, beta=0.3),
    Flooding(level=1.0, per_sample=True): partial(R.flooding, level=1.0, per_sample=True),
    CCL(form="quadratic"): partial(R.ccl, form="quadratic"),
    HAMP(gamma=0.5, alpha=0.01): partial(R.hamp_loss, gamma=0.5, alpha=0.01),
}


def batch(seed: int = 0, b: int = 16, c: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z, y = torch.randn(b, c, generator=generator), torch.randint(c, (b,), generator=generator)
    return z + 2 * F.one_hot(y, c), y  # mostly learnt: the mean loss is below log C


def test_the_epochs_parity_drives_the_branch() -> None:
    z, y = batch()
    criterion = RelaxLoss(alpha=1.6, upper=0.3)
    up = R.relax_loss(z, y, alpha=1.6, ascent=True)
    flat = R.relax_loss(z, y, alpha=1.6, ascent=False, upper=0.3)
    assert up != flat
    for epoch in range(5):
        criterion.set_epoch(epoch)
        assert criterion(z, y) == (up if epoch + 1 in (2, 4) else flat)  # the paper's even epochs, counted from 1


def gradient(loss: Any, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    leaf = z.clone().requires_grad_()
    return torch.autograd.grad(loss(leaf, y), leaf)[0]


def test_the_stop_gradient_can_be_taken_out() -> None:
    z, y = batch()
    criterion = RelaxLoss(alpha=1.6, stop_gradient=False)
    criterion.set_epoch(0)
    want = gradient(partial(R.relax_loss, alpha=1.6, ascent=False, stop_gradient=False), z, y)
    assert torch.equal(gradient(criterion, z, y), want)
    assert not torch.equal(want, gradient(partial(R.relax_loss, alpha=1.6, ascent=False), z, y))


@pytest.mark.parametrize("flatten", ["all", "misclassified", "official"])
def test_every_setting_reaches_the_function(flatten: Any) -> None:
    z, y = batch()
    y[::2] = z.argmax(1)[::2]
    criterion = RelaxLoss(alpha=1.5, flatten=flatten, upper=0.1)
    criterion.set_epoch(0)
    want = R.relax_loss(z, y, alpha=1.5, ascent=False, flatten=flatten, upper=0.1)
    assert criterion(z, y) == want
    assert want != R.relax_loss(z, y, alpha=1.5, ascent=False, flatten=flatten)


def test_crl_is_its_function_at_every_epoch() -> None:
    z, y = batch()
    criterion = CRL(alpha=1.6, t=0.3, upper=0.2)
    for epoch in range(3):
        criterion.set_epoch(epoch)
        assert criterion(z, y) == R.crl_loss(z, y, alpha=1.6, t=0.3, ascent=epoch == 1, upper=0.2)
    assert repr(criterion) == "CRL(alpha=1.6, t=0.3, upper=0.2)"


def test_distillation_takes_the_teachers_logits() -> None:
    z, y = batch()
    teacher, _ = batch(1)
    criterion = Distillation(temperature=4.0, weight=0.7)
    assert criterion(z, teacher, y) == R.distillation(z, teacher, y, temperature=4.0, weight=0.7)
    assert criterion(z, teacher, y) != F.cross_entropy(z, y)
    assert criterion.eval()(z, teacher, y) == F.cross_entropy(z, y)
    assert criterion.state_dict() == {}
    assert repr(criterion) == "Distillation(temperature=4.0, weight=0.7)"


@pytest.mark.parametrize("criterion", [RelaxLoss(alpha=1.6), CRL(alpha=1.6)], ids=repr)
def test_a_forgotten_epoch_is_an_error_in_training_only(criterion: Alternating) -> None:
    z, y = batch()
    criterion = copy.deepcopy(criterion)
    with pytest.raises(UserError, match="set_epoch"):
        criterion(z, y)
    assert criterion.eval()(z, y) == F.cross_entropy(z, y)


@pytest.mark.parametrize("criterion", [RelaxLoss(alpha=1.6), CRL(alpha=1.6), *OTHERS], ids=repr)
def test_evaluation_is_the_cross_entropy(criterion: Criterion) -> None:
    z, y = batch()
    criterion = copy.deepcopy(criterion)
    if isinstance(criterion, Alternating):
        criterion.set_epoch(1)
    assert criterion(z, y) != F.cross_entropy(z, y)
    assert criterion.eval()(z, y) == F.cross_entropy(z, y)


@pytest.mark.parametrize("criterion", OTHERS, ids=repr)
def test_the_other_criteria_are_their_functions(criterion: Criterion) -> None:
    z, y = batch()
    assert criterion(z, y) == OTHERS[criterion](z, y)


def test_criteria_keep_nothing_in_a_state_dict_and_can_be_copied() -> None:
    z, y = batch()
    criterion = RelaxLoss(alpha=1.5)
    criterion.set_epoch(1)
    assert criterion.state_dict() == {}
    assert repr(criterion) == "RelaxLoss(alpha=1.5, flatten='all', upper=1.0, stop_gradient=True)"
    for copied in (copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion))):  # noqa: S301
        assert copied(z, y) == criterion(z, y)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RelaxLoss(alpha=-1.0),
        lambda: RelaxLoss(upper=0.0),
        lambda: RelaxLoss(flatten="some"),  # type: ignore[arg-type]
        lambda: RelaxLoss().set_epoch(-1),
        lambda: CRL(t=-1.0),
        lambda: CRL(alpha=-1.0),
        lambda: Distillation(weight=2.0),
        lambda: Distillation(temperature=0.0),
        lambda: Distillation(temperature="4"),  # type: ignore[arg-type]
        lambda: LabelSmoothing(smoothing=2.0),
        lambda: ConfidencePenalty(beta=-1.0),
        lambda: Flooding(level=-1.0),
        lambda: CCL(a=2.0),
        lambda: CCL(form="cubic"),  # type: ignore[arg-type]
        lambda: HAMP(gamma=2.0, alpha=0.0),
        lambda: RelaxLoss(alpha="0.5"),  # type: ignore[arg-type]
        lambda: RelaxLoss(upper=None),  # type: ignore[arg-type]
        lambda: ConfidencePenalty(beta=float("inf")),
        lambda: CRL(t=float("inf")),
        lambda: LabelSmoothing(smoothing="a bit"),  # type: ignore[arg-type]
    ],
)
def test_wrong_settings_are_refused_at_once(make: Any) -> None:
    with pytest.raises(UserError, match=r"expected|known: "):
        make()


def test_a_strength_may_change_under_compile_without_a_break() -> None:
    torch.manual_seed(0)
    z, y = torch.randn(6, 4), torch.randint(4, (6,))
    losses = (R.flooding, R.label_smoothing, R.confidence_penalty)
    for loss, name in zip(losses, ("level", "smoothing", "beta"), strict=True):
        torch.compiler.reset()
        compiled = torch.compile(partial(_with, loss, name), backend="eager", fullgraph=True)
        for value in (0.1, 0.2, 0.3):
            assert torch.equal(compiled(z, y, value), loss(z, y, **{name: value}))


def _with(loss: Any, name: str, z: torch.Tensor, y: torch.Tensor, value: float) -> torch.Tensor:
    found: torch.Tensor = loss(z, y, **{name: value})
    return found


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (torch.zeros(3, dtype=torch.int32), r"int32; expected class indices \(3,\) int64: targets.long\(\)"),
        (torch.zeros(3), r"float32; expected class indices \(3,\) int64$"),
        (np.zeros(3, np.int64), "got Tensor as logits and ndarray as targets; expected tensors: torch.as_tensor"),
        ([0, 1, 0], "list as targets"),
    ],
)
def test_labels_of_another_kind_are_refused(targets: Any, said: str) -> None:
    for criterion in OTHERS:
        with pytest.raises(UserError, match=said):
            criterion.train()(torch.zeros(3, 4), targets)


@pytest.mark.parametrize("criterion", [RelaxLoss(), CRL(), *OTHERS], ids=repr)
def test_outputs_that_are_no_logits_are_refused_in_words(criterion: Criterion) -> None:
    criterion = copy.deepcopy(criterion)
    if isinstance(criterion, Alternating):
        criterion.set_epoch(0)
    z, y = batch()
    with pytest.raises(UserError, match=r"got tuple as logits.*expected tensors"):
        criterion((z,), y)  # type: ignore[arg-type]


@pytest.mark.parametrize("setting", [{"alpha": [1]}, {"upper": (1,)}], ids=repr)
def test_settings_that_are_no_numbers_are_refused_in_words(setting: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(setting))):
        RelaxLoss(**setting)


def test_settings_are_keyword_only_and_epochs_whole() -> None:
    with pytest.raises(TypeError):
        RelaxLoss(1.0)  # type: ignore[misc]
    with pytest.raises(TypeError):
        RelaxLoss().set_epoch(1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("criterion", [RelaxLoss(), CRL(), Flooding(level=1.0)], ids=repr)
def test_a_level_above_a_guess_is_refused_in_training(criterion: Criterion) -> None:
    criterion = copy.deepcopy(criterion)
    if isinstance(criterion, Alternating):
        criterion.set_epoch(0)
    z, y = batch(c=2)
    with pytest.raises(
        UserError, match=r"=1 nats; with 2 classes a guess has a loss of log 2 = 0.693.*such as \w+=0.35"
    ):
        criterion(z, y)
    assert criterion.eval()(z, y) == F.cross_entropy(z, y)
    z, y = batch(c=3)
    assert criterion.train()(z, y).isfinite()


def test_compiles_once_per_parity() -> None:
    criterion = RelaxLoss(alpha=1.6)
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(criterion, fullgraph=True, backend=backend)
    z, y = batch()
    for epoch in range(12):
        criterion.set_epoch(epoch)
        assert compiled(z, y) == criterion(z, y)
    assert len(graphs) == 2
    torch._dynamo.reset()


def test_autocast() -> None:
    x, y = batch(b=64, c=8)
    layer = nn.Linear(8, 8)
    nn.init.eye_(layer.weight)
    for epoch in (0, 1):
        criterion = RelaxLoss(alpha=1.6)
        criterion.set_epoch(epoch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = layer(x)
            loss = criterion(logits, y)
        assert logits.dtype == torch.bfloat16
        assert loss.dtype == torch.float32
        loss.backward()
        want = torch.autograd.grad(criterion(layer(x), y), layer.weight)[0]
        torch.testing.assert_close(layer.weight.grad, want, rtol=0.05, atol=0.002)
        layer.weight.grad = None


def test_at_an_active_alpha_the_mean_loss_ends_near_alpha_and_spreads() -> None:
    from sklearn.datasets import load_digits  # here, so that the ranks below start without it

    data = load_digits()
    x, y = torch.tensor(data.data[:800] / 16, dtype=torch.float32), torch.tensor(data.target[:800], dtype=torch.int64)

    def train(alpha: float) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        network = nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 10))
        for weight in network.parameters():
            nn.init.normal_(weight, std=0.1, generator=generator)
        optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
        criterion = RelaxLoss(alpha=alpha)
        for epoch in range(40):
            criterion.set_epoch(epoch)
            for index in torch.randperm(len(x), generator=generator).split(64):
                loss = criterion(network(x[index]), y[index])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        with torch.no_grad():
            return F.cross_entropy(network(x), y, reduction="none")

    plain, relaxed = train(0.0), train(0.5)
    assert plain.mean() < 0.02
    assert abs(relaxed.mean() - 0.5) < 0.1
    assert relaxed.var() > 100 * plain.var()


# --- several ranks ----------------------------------------------------------------------------------------------------

SIZES = (12, 4)  # the ranks' batches
ALPHA = 0.5


def _data() -> tuple[torch.Tensor, torch.Tensor]:
    x, _ = batch(3, sum(SIZES), 5)
    x[: SIZES[0]] *= 4  # rank 0 has learnt its samples well
    x[SIZES[0] :] /= 3  # rank 1 has not
    return x, x.argmax(1)


def _rank(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    z, y = (part.split(SIZES)[rank] for part in _data())
    out: dict[str, torch.Tensor] = {}
    for epoch in (0, 1):
        for name, alpha in (("below", 1.6), ("above", 0.001), ("split", ALPHA)):
            leaf = z.clone().requires_grad_()
            criterion = RelaxLoss(alpha=alpha)
            criterion.set_epoch(epoch)
            loss = criterion(leaf, y)
            loss.backward()
            assert leaf.grad is not None
            out[f"{name} {epoch}"], out[f"{name} {epoch} gradient"] = loss.detach(), leaf.grad
    out["alone"] = RelaxLoss(alpha=1.0).eval()(z, y)  # no communication: ranks may evaluate by themselves

    network = DistributedDataParallel(_network())
    x, labels = (part.chunk(2)[rank] for part in _data())  # equal batches: DDP's mean of gradients is the gradient
    criterion = RelaxLoss(alpha=_ddp_alpha())
    criterion.set_epoch(1)
    criterion(network(x), labels).backward()
    out["ddp"] = network.module.weight.grad
    torch.save(out, folder / f"{rank}.pt")
    dist.destroy_process_group()
    os._exit(
        0
    )  # DDP keeps gloo's threads alive even now; one that asks for a lock of a Python that is ending aborts it


def _network() -> nn.Linear:
    network = nn.Linear(5, 5)
    nn.init.eye_(network.weight)
    nn.init.zeros_(network.bias)
    return network


def _ddp_alpha() -> float:
    """Between the global mean loss and the larger of the ranks' own."""
    network = _network()
    x, y = _data()
    losses = [F.cross_entropy(network(a), b).item() for a, b in zip(x.chunk(2), y.chunk(2), strict=True)]
    assert abs(losses[0] - losses[1]) > 0.1
    return 0.25 * min(losses) + 0.75 * max(losses)


def test_two_ranks_take_the_branch_of_one_device(tmp_path: Path) -> None:
    z, y = _data()
    own = [F.cross_entropy(a, b).item() for a, b in zip(z.split(SIZES), y.split(SIZES), strict=True)]
    assert own[0] < F.cross_entropy(z, y) < ALPHA < sum(own) / 2  # weighted by size below alpha, unweighted above

    multiprocessing.spawn(_rank, (tmp_path,), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for epoch in (0, 1):
        for name, alpha in (("below", 1.6), ("above", 0.001), ("split", ALPHA)):
            leaf = z.clone().requires_grad_()
            want = R.relax_loss(leaf, y, alpha=alpha, ascent=epoch == 1)
            want.backward()
            key = f"{name} {epoch}"
            value = sum(rank[key] * n for rank, n in zip(ranks, SIZES, strict=True)) / len(y)
            gradient = torch.cat([rank[f"{key} gradient"] * n for rank, n in zip(ranks, SIZES, strict=True)]) / len(y)
            torch.testing.assert_close(value, want.detach())
            torch.testing.assert_close(gradient, leaf.grad)
    for rank in range(2):
        assert ranks[rank]["alone"] == F.cross_entropy(*(part.split(SIZES)[rank] for part in (z, y)))

    network = _network()
    R.relax_loss(network(z), y, alpha=_ddp_alpha(), ascent=True).backward()
    for of_rank in ranks:
        torch.testing.assert_close(of_rank["ddp"], network.weight.grad)


def test_a_group_of_one_needs_nobody_elses_mean() -> None:
    """Neither an all-reduce in each step, nor what vmap cannot do."""
    alone = RelaxLoss(alpha=0.5, process_group=SimpleNamespace(size=lambda: 1))  # type: ignore[arg-type]
    alone.set_epoch(1)
    z, y = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 4
    want = R.relax_loss(z, y, alpha=0.5, ascent=True)
    assert torch.equal(alone(z, y), want)
    each = torch.func.vmap(lambda row, label: alone(row[None], label[None]))(z, y)
    assert each.shape == (6,)
