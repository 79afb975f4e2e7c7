"""Models: the shapes and sizes of their papers, and a user's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from relaxloss import models, seeds
from relaxloss.data import Dataset
from relaxloss.defenses import NONE
from relaxloss.errors import UserError
from relaxloss.models.resnet import Block
from relaxloss.training.task import Recipe, Task, make_network


def build(spec: str, shape: tuple[int, ...], classes: int, seed: int = 0) -> torch.nn.Module:
    with seeds.isolated(seed, "init"):
        return models.parse(spec).build(shape, classes)


@pytest.mark.parametrize(
    ("spec", "shape", "classes", "weights"),
    [
        # MLP: Σ (in + 1)·out by hand; ResNet20: 0.27 M (He et al., table 6); VGG11-BN: 9.2 M + batch norm
        ("mlp", (600,), 100, 601 * 1024 + 1025 * 512 + 513 * 256 + 257 * 128 + 129 * 100),
        ("mlp:hidden=7,activation=relu", (4,), 3, 5 * 7 + 8 * 3),
        ("resnet20", (3, 32, 32), 10, 269_722),
        ("vgg11_bn", (3, 32, 32), 10, 9_231_114),
    ],
)
def test_sizes_are_the_published_ones(spec: str, shape: tuple[int, ...], classes: int, weights: int) -> None:
    network = build(spec, shape, classes)
    assert sum(parameter.numel() for parameter in network.parameters()) == weights
    assert network(torch.randn(3, *shape)).shape == (3, classes)


def test_the_paper_nets_have_the_paper_depth() -> None:
    kinds = [type(layer).__name__ for layer in build("resnet20", (3, 32, 32), 10).modules()]
    assert kinds.count("Conv2d") + kinds.count("Linear") == 20
    kinds = [type(layer).__name__ for layer in build("vgg11_bn", (3, 32, 32), 10).modules()]
    assert (kinds.count("Conv2d"), kinds.count("MaxPool2d"), kinds.count("Linear")) == (8, 5, 1)
    kinds = [type(layer).__name__ for layer in build("mlp", (446,), 30).modules()]
    assert (kinds.count("Linear"), kinds.count("Tanh")) == (5, 4)


def test_a_residual_block_is_the_papers() -> None:
    """Option A: every second pixel, and zeros for the new channels, half of them on each side."""
    block, x = Block(4, 8, 2).eval(), torch.randn(3, 4, 8, 8)
    for norm in (block.norm1, block.norm2):
        norm.running_mean.normal_()
        norm.weight.data.uniform_(0.5, 2.0)

    def normed(norm: torch.nn.BatchNorm2d, z: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(z, norm.running_mean, norm.running_var, norm.weight, norm.bias)

    inner = normed(block.norm1, F.conv2d(x, block.conv1.weight, stride=2, padding=1)).relu()
    outer = normed(block.norm2, F.conv2d(inner, block.conv2.weight, padding=1))
    short = torch.cat([torch.zeros(3, 2, 4, 4), x[:, :, ::2, ::2], torch.zeros(3, 2, 4, 4)], 1)
    torch.testing.assert_close(block(x), (outer + short).relu())


def test_the_stages_halve_the_image_and_weights_begin_as_he_says() -> None:
    network = build("resnet20", (3, 32, 32), 10)
    sizes: list[tuple[int, ...]] = []
    for layer in network.modules():
        if isinstance(layer, Block):
            layer.register_forward_hook(lambda _layer, _x, out: sizes.append(tuple(out.shape[1:])))
    network(torch.randn(2, 3, 32, 32))
    assert sizes == [(16, 32, 32)] * 3 + [(32, 16, 16)] * 3 + [(64, 8, 8)] * 3
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            n = layer.weight.numel()
            assert layer.weight.std().item() == pytest.approx((2 / (9 * layer.out_channels)) ** 0.5, rel=4 / n**0.5)


def test_vgg_is_a_relu_after_each_normalised_convolution() -> None:
    network, x = build("vgg11_bn", (3, 32, 32), 10).eval(), torch.randn(2, 3, 32, 32)
    convs = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
    norms = [layer for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    (head,) = (layer for layer in network.modules() if isinstance(layer, torch.nn.Linear))
    z = x
    for place, (conv, norm) in enumerate(zip(convs, norms, strict=True)):
        norm.running_mean.normal_()
        z = F.conv2d(z, conv.weight, conv.bias, padding=1)
        z = F.batch_norm(z, norm.running_mean, norm.running_var, norm.weight, norm.bias).relu()
        z = F.max_pool2d(z, 2) if place in (0, 1, 3, 5, 7) else z
    assert z.shape == (2, 512, 1, 1)
    torch.testing.assert_close(network(x), z.flatten(1) @ head.weight.T + head.bias)


def test_initial_weights_come_from_the_seed_alone() -> None:
    one, same, other = (build("resnet20", (3, 32, 32), 10, seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_users_own_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mynets.py").write_text(
        "from torch import nn\n"
        "def good(shape, num_classes):\n    return nn.Linear(shape[0], num_classes)\n"
        "def bad(shape, num_classes):\n    return 3\n"
        "class pkg: pass\n"
        "three = 3\n"
        "def one(shape): return nn.Linear(shape[0], 2)\n"
        "def frozen(shape, c): return nn.Linear(shape[0], c).requires_grad_(False)\n"
        "def bare(shape, c): return nn.Flatten()\n"
        "class Odd(nn.Linear):\n"
        "    def forward(self, x): return x.nowhere\n"
        "def odd(shape, c): return Odd(shape[0], c)\n"
    )
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "nets.py").write_text((tmp_path / "mynets.py").read_text())
    monkeypatch.syspath_prepend(tmp_path)
    assert build("my_package.nets:good", (5,), 2)(torch.zeros(1, 5)).shape == (1, 2)
    assert str(models.parse("my_package.nets:good")) == "my_package.nets:good"
    for spec, said in (
        ("my_package.nets:bad", "returned int"),
        ("my_package.nets:none", "no attribute 'none'"),
        ("my_package.nets:three", "is int and no function"),
        ("my_package.nets:one", r"failed when it was called with the shape \(5,\) and 2 classes: TypeError: one\(\)"),
        ("my_package.no:good", "No module named"),
    ):
        with pytest.raises(UserError, match=said):
            build(spec, (5,), 2)
    dataset = Dataset("d", np.zeros((20, 2), np.float32), np.arange(20) % 2, 2, "")
    for name, said in (
        ("frozen", "has no weights to train"),
        ("bare", "has no weights to train"),
        ("odd", r"does not run on inputs \(2, 2\): AttributeError: 'Tensor' object has no attribute 'nowhere'"),
    ):
        task = Task.of(dataset, np.arange(10), recipe=Recipe(model=f"my_package.nets:{name}"))
        with pytest.raises(UserError, match=said):
            make_network(NONE, task.encoder, task.shape, 2, task.recipe, 0)
    with pytest.raises(UserError, match=r"package.module:function"):
        models.parse("my_package.nets")
    with pytest.raises(UserError, match="takes images"):
        build("vgg11_bn", (5,), 2)
