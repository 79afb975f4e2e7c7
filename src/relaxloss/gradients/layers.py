"""Closed forms: the L1 and L2 norms of one layer's per-sample parameter gradients, from its input and output gradient.

Each rule takes the layer, its input ``a (N, ...)`` and the gradient ``d (N, ...)`` at its output, and yields for each
trainable parameter a pair ``(l1, l2)`` of shape ``(N,)`` in float64. Layers are in eval mode: samples do not mix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

Norms = tuple[Tensor, Tensor]
BLOCK = 2**20  # elements of a scratch tensor: small enough for the cache, and for malloc to reuse instead of mapping


def norms(gradient: Tensor) -> Norms:
    """L1 and L2 norm of each row of ``gradient (N, ...)``, in float64, without a float64 copy of it.

    NB: torch's float32 ``vector_norm`` over 6 million numbers is wrong by 6e-3 (L1) and 6e-4 (L2), because it adds them
    one by one; ``sum`` adds in pairs (1e-7), and so does the L2 norm of the norms of short blocks.
    """
    flat = gradient.detach().reshape(len(gradient), -1)
    rows = max(1, BLOCK // max(1, flat.shape[1]))
    return _cat([(some.abs().sum(1).double(), _l2(some)) for some in _single(flat).split(rows)])


def _single(flat: Tensor) -> Tensor:
    return flat.float() if flat.element_size() < 4 else flat  # half precision cannot hold sums


def _l2(flat: Tensor) -> Tensor:
    tail = flat.shape[1] % 256
    blocks, rest = flat.split([flat.shape[1] - tail, tail], dim=1)
    last = torch.linalg.vector_norm(rest, dim=1, keepdim=True).double()
    parts = torch.linalg.vector_norm(blocks.unflatten(1, (-1, 256)), dim=2).double()
    norm: Tensor = torch.linalg.vector_norm(torch.cat([parts, last], dim=1), dim=1)
    return norm


def refusal(module: nn.Module) -> str | None:
    """Why a layer with trainable parameters has no closed form, or None if it has one."""
    kind = type(module)  # a subclass, or a parametrised layer, may compute anything
    if kind not in RULES or not set(module._parameters) <= {"weight", "bias"}:
        return f"{kind.__name__} has no closed form"
    if module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks:
        return f"{kind.__name__} has hooks of its own"
    if isinstance(module, nn.Conv2d) and (module.padding_mode != "zeros" or isinstance(module.padding, str)):
        return f"Conv2d with padding {module.padding!r} in mode {module.padding_mode!r} has no closed form"
    if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.running_mean is None:
        return f"{kind.__name__} without running statistics mixes the samples of a batch"
    return None


def _trains(parameter: Tensor | None) -> bool:
    return parameter is not None and parameter.requires_grad


def _outer(a: Tensor, d: Tensor) -> Norms:
    """Norms of the products ``d a``, ``d (N, O, L)`` and ``a (N, L, I)``, built a block of samples at a time."""
    rows = max(1, BLOCK // (d.shape[1] * a.shape[2]))
    scratch = a.new_empty(min(rows, len(a)), d.shape[1], a.shape[2])
    pairs = []
    for start in range(0, len(a), rows):
        block = scratch[: len(a[start : start + rows])]
        torch.bmm(d[start : start + rows], a[start : start + rows], out=block)
        flat = _single(block.flatten(1))
        l2 = _l2(flat)  # before the next line overwrites it: no second scratch
        pairs.append((flat.abs_().sum(1).double(), l2))
    return _cat(pairs)


def _cat(pairs: list[Norms]) -> Norms:
    return torch.cat([l1 for l1, _ in pairs]), torch.cat([l2 for _, l2 in pairs])


def linear(layer: nn.Linear, a: Tensor, d: Tensor) -> Iterator[Norms]:
    """``dW = d a^T``: an outer product, whose norms are products; with positions (N, L, D) a sum of them."""
    if a.dim() == 2:
        (a1, a2), (d1, d2) = norms(a), norms(d)
        if layer.weight.requires_grad:
            yield a1 * d1, a2 * d2
        if _trains(layer.bias):
            yield d1, d2
        return
    a, d = a.flatten(1, -2), d.flatten(1, -2)
    if layer.weight.requires_grad:
        yield _outer(a, d.transpose(1, 2))
    if _trains(layer.bias):
        yield norms(d.sum(1))


def conv2d(layer: nn.Conv2d, a: Tensor, d: Tensor) -> Iterator[Norms]:
    """``dW = d patches(a)``, a block of samples at a time, by whichever measured faster for the number of channels.

    Few channels: the weight gradient of one convolution with a group per sample. More: patches copied in channels-last
    order and one matrix product per sample. ``F.unfold`` and a product per kernel offset were slower in every shape.
    """
    if layer.weight.requires_grad:
        way = _grouped if max(layer.in_channels, layer.out_channels) <= 32 else _patches
        size = d[0, 0].numel() * layer.weight[0].numel() * layer.groups
        rows = max(1, 2 * BLOCK // size)
        yield _cat([way(layer, a[i : i + rows], d[i : i + rows]) for i in range(0, len(a), rows)])
    if _trains(layer.bias):
        yield norms(d.sum((2, 3)))


def _grouped(layer: nn.Conv2d, a: Tensor, d: Tensor) -> Norms:
    n, (o, *size) = len(a), layer.weight.shape
    a, d = a.reshape(1, -1, *a.shape[2:]), d.reshape(1, -1, *d.shape[2:])
    shape, groups = (n * o, *size), n * layer.groups
    return norms(conv2d_weight(a, shape, d, layer.stride, layer.padding, layer.dilation, groups).reshape(n, -1))


def _patches(layer: nn.Conv2d, a: Tensor, d: Tensor) -> Norms:
    (kh, kw), (sh, sw), (eh, ew) = layer.kernel_size, layer.stride, layer.dilation
    ph, pw = int(layer.padding[0]), int(layer.padding[1])  # never a string here: see refusal
    padded = F.pad(a, (pw, pw, ph, ph)).permute(0, 2, 3, 1).contiguous()
    (n, _, _, c), (h, w), groups = padded.shape, d.shape[2:], layer.groups
    s = padded.stride()
    patches = padded.as_strided((n, h, w, kh, kw, c), (s[0], s[1] * sh, s[2] * sw, s[1] * eh, s[2] * ew, 1))
    patches = patches.reshape(n, h * w, kh * kw, groups, c // groups).permute(0, 3, 1, 2, 4)
    l1, l2 = _outer(patches.reshape(n * groups, h * w, -1), d.reshape(n * groups, -1, h * w))
    return l1.view(n, groups).sum(1), torch.linalg.vector_norm(l2.view(n, groups), dim=1)


def _affine(layer: Any, normalised: Tensor, d: Tensor, dims: tuple[int, ...]) -> Iterator[Norms]:
    """``y = weight * normalised + bias``, summed over the positions ``dims`` that share a weight."""
    if _trains(layer.weight):
        product = d * normalised
        yield norms(product.sum(dims) if dims else product)
    if _trains(layer.bias):
        yield norms(d.sum(dims) if dims else d)


def batch_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d, a: Tensor, d: Tensor) -> Iterator[Norms]:
    """With running statistics: an affine map of each channel."""
    normalised = F.batch_norm(a, layer.running_mean, layer.running_var, eps=layer.eps)
    return _affine(layer, normalised, d, tuple(range(2, d.dim())))


def group_norm(layer: nn.GroupNorm, a: Tensor, d: Tensor) -> Iterator[Norms]:
    """Normalises within a sample."""
    return _affine(layer, F.group_norm(a, layer.num_groups, eps=layer.eps), d, tuple(range(2, d.dim())))


def layer_norm(layer: nn.LayerNorm, a: Tensor, d: Tensor) -> Iterator[Norms]:
    """Normalises within a sample and a position."""
    normalised = F.layer_norm(a, layer.normalized_shape, eps=layer.eps)
    return _affine(layer, normalised, d, tuple(range(1, d.dim() - len(layer.normalized_shape))))


RULES: dict[type[nn.Module], Callable[[Any, Tensor, Tensor], Iterator[Norms]]] = {
    nn.Linear: linear,
    nn.Conv2d: conv2d,
    nn.BatchNorm1d: batch_norm,
    nn.BatchNorm2d: batch_norm,
    nn.GroupNorm: group_norm,
    nn.LayerNorm: layer_norm,
}
