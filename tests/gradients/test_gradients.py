"""Per-sample gradient norms against autograd, one sample at a time, in float64."""

from __future__ import annotations

import copy
import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from relaxloss import gradients
from relaxloss.errors import UserError
from relaxloss.gradients import layers
from relaxloss.models import MLP, VGG11BN, ResNet20


def oracle(model: nn.Module, x: Tensor, y: Tensor) -> np.ndarray:
    """Plain autograd of the cross-entropy in float64, a fresh copy of the model, numpy's norms."""
    model, rows = copy.deepcopy(model).double().eval(), []
    weights = [p for p in model.parameters() if p.requires_grad]
    for one, label in zip(x.double(), y, strict=True):
        one = one[None].clone().requires_grad_()
        loss = F.cross_entropy(model(one), label[None])
        at_x, *at_w = torch.autograd.grad(loss, [one, *weights], allow_unused=True, materialize_grads=True)
        flat = np.concatenate([g.numpy().ravel() for g in at_w])
        rows.append(
            [np.abs(at_x.numpy()).sum(), np.linalg.norm(at_x.numpy()), np.abs(flat).sum(), np.linalg.norm(flat)]
        )
    return np.array(rows)


class Tokens(nn.Module):
    """Linear and LayerNorm over positions (N, L, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm, self.out = nn.Linear(6, 7), nn.LayerNorm((5, 7)), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.gelu(self.norm(self.inner(x)))).mean(1)


class Odd(nn.Module):
    """A layer used twice, a parameter shared by two layers, a parameter used by a function only, an unknown module."""

    def __init__(self, *parts: str) -> None:
        super().__init__()
        self.parts = parts
        self.first, self.second, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        if "shared" in parts:
            self.second.weight = self.first.weight
        if "parameter" in parts:
            self.scale = nn.Parameter(torch.rand(6))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.second(torch.tanh(self.first(x))))
        if "twice" in self.parts:
            h = torch.tanh(self.first(h))
        if "functional" in self.parts:
            h = h + F.linear(h, self.second.weight)
        if "functional only" in self.parts:
            h = h + F.linear(x, self.first.weight, self.first.bias)
            return F.linear(h, self.head.weight, self.head.bias)
        if "parameter" in self.parts:
            h = h * self.scale
        if "mixes" in self.parts:
            h = h - h.mean(0)
        if "folded" in self.parts:
            return self.head(h.view(-1, 2, 6).flatten(0, 1)).view(len(x), -1)
        if "item" in self.parts:
            h = h * (2.0 if h.sum().item() > 0 else 0.5)
        return self.head(h)


class Checkered(nn.Module):
    """In-place operations on a layer's output, and on its input after use."""

    def __init__(self, late: bool) -> None:
        super().__init__()
        self.late, self.a, self.b = late, nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = x * 2
        out = F.relu_(self.a(h))
        if self.late:
            with torch.no_grad():
                h.zero_()
        return self.b(out)


def small_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.GroupNorm(2, 8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 12, (3, 1), padding=(2, 0), dilation=(2, 1), groups=4),
        nn.BatchNorm2d(12),
        nn.Conv2d(12, 40, 1, stride=2),
        nn.ReLU(),
        nn.Conv2d(40, 40, (1, 3), stride=(2, 1), padding=(0, 1), dilation=(1, 2), groups=2, bias=False),
        nn.BatchNorm2d(40, affine=False),
        nn.Flatten(),
        nn.BatchNorm1d(40 * 2 * 2),
        nn.Linear(40 * 2 * 2, 5),
    )


def prepared(model: nn.Module, shape: tuple[int, ...], n: int, classes: int) -> tuple[nn.Module, Tensor, Tensor]:
    """The model in float64 with running statistics and affine parameters away from 0 and 1."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.running_mean is not None:
            module.running_mean.uniform_(-0.2, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
        if "Norm" in type(module).__name__ and getattr(module, "weight", None) is not None:
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
    x = torch.randn(n, *shape, generator=generator, dtype=torch.float64)
    return model.double(), x, torch.randint(classes, (n,), generator=generator)


CLOSED = {
    "mlp": (lambda: MLP(hidden=(64, 32)).build((50,), 10), (50,), 10),
    "resnet20": (lambda: ResNet20().build((3, 32, 32), 10), (3, 32, 32), 10),
    "vgg11_bn": (lambda: VGG11BN().build((3, 32, 32), 10), (3, 32, 32), 10),
    "small cnn": (small_cnn, (3, 14, 14), 5),
    "tokens": (Tokens, (5, 6), 4),
    "in place": (lambda: Checkered(late=False), (6,), 3),
    "used once each": (Odd, (6,), 3),
}
FALLBACK = {
    "twice": "called 2 times",
    "shared": "shares a parameter",
    "functional": "its parameters 2",
    "functional only": "called 1 times, its parameters 2",
    "parameter": "Odd has no closed form",
    "mixes": "differs from autograd",
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms_are_exact(name: str) -> None:
    build, shape, classes = CLOSED[name]
    model, x, y = prepared(build(), shape, 3 if name == "vgg11_bn" else 5, classes)
    assert gradients.plan(model, x, y).method == "closed"
    want = oracle(model, x, y)
    assert (want > 0).all()
    np.testing.assert_allclose(gradients.norms(model, x, y), want, rtol=1e-9)
    np.testing.assert_allclose(gradients.norms(model, x, y, method="closed", chunk=2), want, rtol=1e-9)


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("method", ["vmap", "loop"])
def test_fallbacks_are_exact(name: str, method: str) -> None:
    build, shape, classes = CLOSED[name]
    model, x, y = prepared(build(), shape, 2, classes)
    np.testing.assert_allclose(gradients.norms(model, x, y, method=method), oracle(model, x, y), rtol=1e-9)


def test_convolutions_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, y = prepared(small_cnn(), (3, 14, 14), 5, 5)
    monkeypatch.setattr(layers, "BLOCK", 700)  # a few samples, or one, at a time
    np.testing.assert_allclose(gradients.norms(model, x, y, method="closed"), oracle(model, x, y), rtol=1e-9)


@pytest.mark.parametrize("part", FALLBACK)
def test_what_closed_forms_miss_goes_to_vmap(part: str) -> None:
    model, x, y = prepared(Odd(part), (6,), 7, 3)
    plan = gradients.plan(model, x, y)
    assert plan.method == "vmap"
    assert FALLBACK[part] in plan.reason
    np.testing.assert_allclose(gradients.norms(model, x, y), oracle(model, x, y), rtol=1e-9)
    if part != "mixes":
        with pytest.raises(UserError, match=FALLBACK[part]):
            gradients.norms(model, x, y, method="closed")


@pytest.mark.parametrize("parts", [("shared", "twice", "functional"), ("item",), ("item", "shared", "parameter")])
def test_several_at_once_and_data_dependent_flow(parts: tuple[str, ...]) -> None:
    model, x, y = prepared(Odd(*parts), (6,), 7, 3)
    assert gradients.plan(model, x, y).method == ("loop" if "item" in parts else "vmap")
    np.testing.assert_allclose(gradients.norms(model, x, y), oracle(model, x, y), rtol=1e-9)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (
            nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), nn.Flatten(), nn.Linear(64, 3)),
            "circular",
        ),
        (nn.Sequential(nn.Conv2d(3, 4, 3, padding="same"), nn.Flatten(), nn.Linear(64, 3)), "same"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.PReLU(), nn.Flatten(), nn.Linear(16, 3)), "PReLU"),
        (nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(48, 3))), "Parametrized"),
    ],
)
def test_unknown_layers_go_to_vmap(model: nn.Module, reason: str) -> None:
    model, x, y = prepared(model, (3, 4, 4), 3, 3)
    plan = gradients.plan(model, x, y)
    assert plan.method == "vmap"
    assert reason in plan.reason
    np.testing.assert_allclose(gradients.norms(model, x, y), oracle(model, x, y), rtol=1e-9)


def test_samples_that_fold_into_the_batch_and_overwritten_inputs() -> None:
    model, x, y = prepared(Odd("folded"), (2, 6), 4, 6)
    assert gradients.plan(model, x.view(4, 2, 6), y).method != "closed"
    np.testing.assert_allclose(gradients.norms(model, x, y), oracle(model, x, y), rtol=1e-9)
    late, x, y = prepared(Checkered(late=True), (6,), 4, 3)
    with pytest.raises((UserError, RuntimeError), match=r"in place|inplace"):
        gradients.norms(late, x, y, method="closed")


def test_batch_norm_without_running_statistics_sees_each_sample_alone() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten(), nn.Linear(144, 3)
    )
    model, x, y = prepared(model, (3, 8, 8), 4, 3)
    assert gradients.plan(model, x, y).method != "closed"
    np.testing.assert_allclose(gradients.norms(model, x, y), oracle(model, x, y), rtol=1e-9)


def test_frozen_parameters_are_left_out() -> None:
    model, x, y = prepared(small_cnn(), (3, 14, 14), 4, 5)
    for i, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(i % 3 > 0)
    for method in ("closed", "vmap", "loop"):
        np.testing.assert_allclose(gradients.norms(model, x, y, method=method), oracle(model, x, y), rtol=1e-9)
    model.requires_grad_(False)
    with pytest.raises(UserError, match="requires_grad_"):
        gradients.norms(model, x, y)


def test_single_precision_is_as_good_as_its_forward() -> None:
    """NB: torch's own float32 norm of a gradient this long is off by 1e-3 and more."""
    model = MLP().build((3000,), 100)
    x, y = torch.randn(6, 3000), torch.randint(100, (6,))
    np.testing.assert_allclose(gradients.norms(model, x, y), oracle(model, x, y), rtol=1e-5)
    network = ResNet20().build((3, 32, 32), 10)
    x, y = torch.randn(6, 3, 32, 32), torch.randint(10, (6,))
    np.testing.assert_allclose(gradients.norms(network, x, y), oracle(network, x, y), rtol=1e-3)  # ReLUs near 0 flip


@pytest.mark.parametrize("method", ["closed", "vmap", "loop"])
def test_confident_samples_keep_their_digits(method: str) -> None:
    model = nn.Linear(4, 3)
    x, y = torch.eye(3, 4) * torch.tensor([[30.0], [60.0], [200.0]]), torch.tensor([0, 1, 2])
    model.weight.data = torch.eye(3, 4)
    model.bias.data.zero_()
    got = gradients.norms(model, x, y, method=method)
    rest = 2 * np.exp(-np.array([30.0, 60.0, 200.0]))  # 1 - p_y, to 1e-13
    np.testing.assert_allclose(got[:, 0], 2 * rest, rtol=1e-6)
    np.testing.assert_allclose(got[:, 2], 2 * rest * np.array([31.0, 61.0, 201.0]), rtol=1e-6)
    assert (oracle(model, x, y)[1:, 0] < 1.01 * rest[1:]).all()  # even in float64, p_y - 1 rounds to 0


def test_nothing_is_changed_and_the_choice_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    model, x, y = prepared(nn.Sequential(small_cnn(), nn.Dropout(0.5)), (3, 14, 14), 4, 5)
    model.train()
    model[0][4].eval()
    model[0][0].weight.grad = torch.ones_like(model[0][0].weight)
    before, modes = copy.deepcopy(model), [m.training for m in model.modules()]
    x_before, state = x.clone(), torch.get_rng_state()
    with caplog.at_level(logging.INFO, logger="relaxloss.gradients"), torch.no_grad():
        for method in ("auto", "vmap", "loop"):
            gradients.norms(model, x, y, method=method)
    with torch.inference_mode():
        gradients.norms(model, x, y)
    assert [m.training for m in model.modules()] == modes
    for now, then in zip(model.state_dict().values(), before.state_dict().values(), strict=True):
        assert torch.equal(now, then)
    assert [p.grad is None for p in model.parameters()] == [False] + [True] * (len(list(model.parameters())) - 1)
    assert (model[0][0].weight.grad == 1).all()
    assert torch.equal(x, x_before)
    assert not x.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    assert all(not m._forward_hooks for m in model.modules())
    assert "gradient norms by closed (every layer has a closed form)" in caplog.text


def test_no_samples_one_sample() -> None:
    model, x, y = prepared(nn.Linear(4, 3), (4,), 3, 3)
    assert gradients.norms(model, x[:0], y[:0]).shape == (0, 4)
    np.testing.assert_allclose(gradients.norms(model, x[:1], y[:1]), oracle(model, x[:1], y[:1]), rtol=1e-9)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": torch.zeros(3, 4, dtype=torch.uint8)}, "encode it first"),
        ({"x": torch.zeros(3)}, "expected floating point"),
        ({"y": torch.zeros(2, dtype=torch.int64)}, r"shape \(3,\)"),
        ({"y": torch.zeros(3)}, "integer labels"),
        ({"y": torch.tensor([0, 1, 3])}, "labels from 0 to 3"),
        ({"y": torch.tensor([0, 1, -1])}, "labels from -1"),
        ({"x": torch.full((3, 4), torch.nan)}, "not finite"),
        ({"model": nn.Linear(4, 1)}, "C >= 2"),
        ({"model": nn.Unflatten(1, (2, 2))}, "requires_grad_"),
        ({"chunk": 0}, "at least 1"),
        ({"method": "fast"}, "'auto'"),
    ],
)
def test_refuses(change: dict, words: str) -> None:
    good = {"model": nn.Linear(4, 3), "x": torch.randn(3, 4), "y": torch.tensor([0, 1, 2])}
    assert gradients.norms(**good).shape == (3, 4)
    with pytest.raises(UserError, match=words):
        gradients.norms(**(good | change))
