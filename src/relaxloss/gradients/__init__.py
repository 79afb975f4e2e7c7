"""Exact per-sample gradient norms of the cross-entropy: the four signals of the white-box attacks.

Source: RelaxLoss (ICLR 2022), appendix on attacks, after Nasr et al. (S&P 2019) and Rezaei & Liu (CVPR 2021).

The gradient at the logits is ``softmax(z) - onehot(y) = (1 - p_y) r``, ``r = softmax over the others - onehot(y)``.
Backward is linear, so ``r`` is sent back in the model's precision and the norms are multiplied by ``1 - p_y`` in
float64: a confident sample keeps its digits where ``p_y - 1`` in float32 would round to 0 and tie with its like.

Three ways, all exact; `plan` chooses and says why:

* ``closed``: one batched backward; each layer's input and output gradient give its norms (`layers`). For Linear
  ``||d a^T||_p = ||d||_p ||a||_p``, so no per-sample gradient is ever built.
* ``vmap``: per-sample gradients by ``torch.func``, for any module that vmap accepts.
* ``loop``: one sample at a time, for all others.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from relaxloss.errors import UserError
from relaxloss.gradients import layers

Method = Literal["closed", "vmap", "loop"]
log = logging.getLogger(__name__)
MEMORY = 2**28  # bytes that a chunk's activations or per-sample gradients may take


class Plan(NamedTuple):
    """How the norms of a model are computed, why not in a faster way, and how many samples at a time."""

    method: Method
    reason: str
    chunk: int


class _Refused(Exception):
    """The closed forms do not cover this model; the message says why."""


def norms(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    method: Literal["auto", "closed", "vmap", "loop"] = "auto",
    chunk: int | None = None,
) -> NDArray[np.float64]:
    """Per-sample norms of the gradient of ``CE(model(x), y)``: columns x-L1, x-L2, w-L1, w-L2.

    ``x (N, ...)`` floating point, ``y (N,)`` integer labels -> ``(N, 4)`` float64. ``model(x)`` gives logits
    ``(N, C)``; it runs in eval mode, each sample on its own. "w" are all parameters with ``requires_grad``. The model's
    parameters, gradients, buffers and modes and torch's global generator are left as they were.

    ``method="auto"`` takes the fastest way that is exact for this model, see `plan`, and logs it at level INFO.
    ``chunk`` samples are held at a time; by default what fits 256 MB. Images in channels_last stay so: a little faster.
    Raises UserError for inputs of the wrong type or shape, a model without trainable parameters, non-finite logits, or
    ``method="closed"`` where it does not apply.
    """
    x, y = _checked(model, x, y)
    if chunk is not None and chunk < 1:
        raise UserError(f"got chunk={chunk}: expected at least 1, or None to let memory decide")
    if method not in ("auto", "closed", "vmap", "loop"):
        raise UserError(f"got method={method!r}: expected 'auto', 'closed', 'vmap' or 'loop'")
    if len(x) == 0:
        return np.zeros((0, 4))
    with _untouched(model):
        chosen = _plan(model, x, y) if method == "auto" else Plan(method, "asked for", _chunk(model, x, method))
        log.info("gradient norms by %s (%s)", chosen.method, chosen.reason)
        compute, size = WAYS[chosen.method], chunk or chosen.chunk
        try:
            rows = [compute(model, x[i : i + size], y[i : i + size]).cpu() for i in range(0, len(x), size)]
        except _Refused as why:
            raise UserError(f"no closed form for this model: {why}; use method='auto' or 'vmap'") from None
    return torch.cat(rows).numpy()


def plan(model: nn.Module, x: Tensor, y: Tensor | None = None) -> Plan:
    """The way that `norms` takes for this model: the first of closed, vmap and loop that agrees with autograd.

    It is tried on the first two samples of ``x`` and compared with the loop on the first: a layer that mixes samples,
    or an unseen use of a parameter, shows as a difference.
    """
    x, y = _checked(model, x, torch.zeros(len(x), dtype=torch.int64) if y is None else y)
    if len(x) == 0:
        raise UserError("got no samples: expected one or more rows in x to try the model on")
    with _untouched(model):
        return _plan(model, x, y)


def _plan(model: nn.Module, x: Tensor, y: Tensor) -> Plan:
    expected = _loop(model, x[:1], y[:1])
    tolerance = min(10 * torch.finfo(x.dtype).eps ** 0.5, 0.1)
    reasons: list[str] = []
    methods: tuple[Method, ...] = ("closed", "vmap")
    for method in methods:
        try:
            got = WAYS[method](model, x[:2], y[:2])
        except Exception as error:
            reasons.append(f"no {method}: {error}".splitlines()[0])
            continue
        if torch.allclose(got[:1], expected, rtol=tolerance, atol=0):
            return Plan(method, "; ".join(reasons) or "every layer has a closed form", _chunk(model, x, method))
        reasons.append(f"no {method}: it differs from autograd on the first sample")
    return Plan("loop", "; ".join(reasons), 64)


def _chunk(model: nn.Module, x: Tensor, method: str) -> int:
    """Samples at a time: what `MEMORY` holds of activations (closed) or of per-sample gradients (vmap)."""
    if method == "closed":
        sizes = [x[:1].nbytes]
        with ExitStack() as hooks:
            for module in model.modules():
                if module._parameters:
                    hook = module.register_forward_hook(lambda _m, _a, out: sizes.append(getattr(out, "nbytes", 0)))
                    hooks.callback(hook.remove)
            with torch.no_grad():
                model(x[:1])
        return int(np.clip(MEMORY // (4 * sum(sizes)), 1, 512))
    size = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return int(np.clip(MEMORY // (2 * size), 1, 32)) if method == "vmap" else 64


def _checked(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    if not x.is_floating_point() or x.dim() < 2:
        raise UserError(
            f"got x of {x.dtype} and shape {tuple(x.shape)}: expected floating point (N, ...), because the gradient is "
            "taken with respect to it; encode it first, e.g. norms(network.net, network.encoder(x), y)"
        )
    if y.shape != x.shape[:1] or y.is_floating_point() or y.dtype == torch.bool:
        raise UserError(f"got y of {y.dtype} and shape {tuple(y.shape)}: expected integer labels of shape ({len(x)},)")
    if not any(p.requires_grad for p in model.parameters()):
        raise UserError("no parameter of the model requires a gradient: call model.requires_grad_() first")
    return x.detach(), y.to(x.device, torch.int64)


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Eval mode and gradients on inside; modes and generators as before outside."""
    devices = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices), torch.inference_mode(False), torch.enable_grad(), evaluating(model):
        yield


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; each part's mode as before outside."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _logits(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    logits = model(x)
    _check(logits, x, y)
    if not logits.requires_grad:
        raise UserError("the model's output has no gradient: its forward detaches it or runs under no_grad")
    return cast(Tensor, logits)


def _check(logits: object, x: Tensor, y: Tensor) -> None:
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(x) or logits.shape[1] < 2:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UserError(f"the model gave {got}: expected logits of shape ({len(x)}, C) with C >= 2")
    if not bool(torch.isfinite(logits).all()):
        raise UserError("the model gave logits that are not finite: check its weights and the input's scale")
    if not bool(((y >= 0) & (y < logits.shape[1])).all()):
        low, high = int(y.min()), int(y.max())
        raise UserError(f"got labels from {low} to {high}: expected 0 to {logits.shape[1] - 1}, one per logit")


def residual(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """``softmax(z) - onehot(y) = scale * r``: ``r (..., C)`` in the logits' type, ``scale = 1 - p_y`` in float64."""
    z = logits.detach().double()
    true = torch.arange(z.shape[-1], device=z.device) == y.unsqueeze(-1)
    others = z.masked_fill(true, -torch.inf)
    scale = torch.sigmoid(others.logsumexp(-1) - (z * true).sum(-1))
    return (others.softmax(-1) - true.double()).to(logits.dtype), scale


def _rows(at_x: Tensor, at_w: list[layers.Norms], scale: Tensor) -> Tensor:
    """The four columns; the weights' gradient is all parameters' gradients in one vector."""
    l1, squares = torch.zeros_like(scale), torch.zeros_like(scale)
    for one, two in at_w:
        l1, squares = l1 + one, squares + two**2
    return torch.stack([*layers.norms(at_x), l1, squares.sqrt()], dim=1) * scale.unsqueeze(1)


def _closed(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    owners = _owners(model)
    calls: Counter[nn.Module] = Counter()
    pairs: list[layers.Norms] = []
    fired = 0

    def watch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        if not output.requires_grad:  # used under no_grad: no gradient, and the graph has no edge to it either
            return
        if kwargs or len(args) != 1 or len(args[0]) != len(x):
            raise _Refused(f"{type(module).__name__} is not called on one batch of {len(x)} samples")
        calls[module] += 1
        a, version = args[0].detach(), args[0]._version

        def add(d: Tensor) -> None:
            nonlocal fired
            if a._version != version:
                raise _Refused(f"the input of {type(module).__name__} is overwritten in place")
            fired += 1
            pairs.extend(layers.RULES[type(module)](module, a, d))

        output.register_hook(add)

    with ExitStack() as hooks:
        for module in set(owners.values()):
            hooks.callback(module.register_forward_hook(watch, prepend=True, with_kwargs=True).remove)
        x = x.clone().requires_grad_()
        logits = _logits(model, x, y)
    uses = _uses(logits)
    for parameter, module in owners.items():
        if uses[parameter] != calls[module] or calls[module] > 1:
            raise _Refused(f"{type(module).__name__} is called {calls[module]} times, its parameters {uses[parameter]}")
    r, scale = residual(logits, y)
    (at_x,) = torch.autograd.grad(logits, x, r)
    if fired != sum(calls.values()):
        raise _Refused("the gradient of some layer does not lie on a path from the input")
    return _rows(at_x, pairs, scale)


def _owners(model: nn.Module) -> dict[nn.Parameter, nn.Module]:
    """The one layer that owns each trainable parameter."""
    owners: dict[nn.Parameter, nn.Module] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is None or not parameter.requires_grad:
                continue
            if parameter in owners:
                raise _Refused(f"{type(module).__name__} shares a parameter with another layer")
            if why := layers.refusal(module):
                raise _Refused(why)
            owners[parameter] = module
    return owners


def _uses(logits: Tensor) -> Counter[Tensor]:
    """How often the graph beneath the logits uses each parameter, by a layer or by a function."""
    uses: Counter[Tensor] = Counter()
    seen, stack = set(), [logits.grad_fn]
    while stack:
        node = stack.pop()
        for parent, _ in node.next_functions if node is not None else ():
            if parent is None:
                continue
            if hasattr(parent, "variable"):
                uses[parent.variable] += 1
            elif parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return uses


def _vmap(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    weights = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}

    def surrogate(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        logits = torch.func.functional_call(model, weights, (x.unsqueeze(0),)).squeeze(0)
        r, scale = residual(logits, y)
        return (logits * r).sum(), (logits.detach(), scale)

    gradient = torch.func.grad(surrogate, argnums=(0, 1), has_aux=True)
    (at_w, at_x), (logits, scale) = torch.func.vmap(gradient, in_dims=(None, 0, 0))(weights, x.clone(), y)
    _check(logits, x, y)
    return _rows(at_x, [layers.norms(g) for g in at_w.values()], scale)


def _loop(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    weights = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for i in range(len(x)):
        one = x[i : i + 1].clone().requires_grad_()
        logits = _logits(model, one, y[i : i + 1])
        r, scale = residual(logits, y[i : i + 1])
        at_x, *at_w = torch.autograd.grad(logits, [one, *weights], r, allow_unused=True, materialize_grads=True)
        rows.append(_rows(at_x, [layers.norms(g.unsqueeze(0)) for g in at_w], scale))
    return torch.cat(rows)


WAYS = {"closed": _closed, "vmap": _vmap, "loop": _loop}
