"""The machinery of DP-SGD, Opacus in the end: clipping and noise for one training, and the account of ε."""

from __future__ import annotations

import contextlib
import importlib
import math
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from relaxloss.errors import MissingExtra, UserError
from relaxloss.training import State
from relaxloss.training.task import OF_PERSON, predict

GRADIENTS = 2**26  # numbers in the stored gradients of one chunk of samples: 256 MB
ORDERS = (1.001, 1.01, 1.05, *(1 + k / 10 for k in range(1, 10)), *range(2, 64), 96, 128, 256, 512, 1024)  # of Rényi's
TIGHT = 30.0  # below this ε by Rényi accounting, numerical accounting (some 10 % tighter) is quick enough


def epsilon(noise: float, rate: float, steps: int, delta: float) -> float:
    """The ε that `steps` of the Gaussian mechanism spend at δ: noise σ per clip, each on a Poisson sample of `rate`.

    Rényi accounting (Mironov, 2017; orders down to 1.001, for the tiny noise of heuristic settings), and numerical
    accounting (PRV; Gopi et al., 2021) where that is quick and lower. Infinite without noise.
    """
    if steps == 0:
        return 0.0
    if noise == 0:
        return math.inf
    found = _renyi(noise, rate, steps, delta)
    if found <= TIGHT:
        account = _opacus("opacus.accountants").PRVAccountant()
        account.history = [(noise, rate, steps)]
        with _quiet(), np.errstate(all="ignore"):  # it takes log 0 at rate 1, and means -inf
            found = min(found, float(account.get_epsilon(delta)))
    return found


def _renyi(noise: float, rate: float, steps: int, delta: float) -> float:
    account = _opacus("opacus.accountants").RDPAccountant()
    account.history = [(noise, rate, steps)]
    with _quiet():
        return float(account.get_epsilon(delta, alphas=ORDERS))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The bound holds where the best order is the first or the last of the list, too."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Optimal order is the", category=UserWarning)
        yield


def noise_for(target: float, rate: float, steps: int, delta: float) -> float:
    """The least σ, to three digits, whose `epsilon` is at most `target`."""
    low, high = 0.0, 1.0
    while epsilon(high, rate, steps, delta) > target:
        low, high = high, 2 * high
        if high > 1e6:
            raise UserError(
                f"dpsgd cannot reach epsilon={target} at delta={delta:.3g}: ask for a larger epsilon or delta"
            )
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if epsilon(middle, rate, steps, delta) > target else (low, middle)
    return high


def _opacus(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise MissingExtra("dpsgd", "dpsgd") from None


def chunks(counts: torch.Tensor, most: int) -> Iterator[tuple[int, int, torch.Tensor]]:
    """Runs of persons with so many samples each, cut so that none has more than `most` samples but a person's own.

    Of each run, where its samples start and stop, and the counts.
    """
    ends = counts.cumsum(0)
    first = start = 0
    while first < len(counts):
        last = max(first + 1, int(torch.searchsorted(ends, start + most, right=True)))
        stop = int(ends[last - 1])
        yield start, stop, counts[first:last]
        first, start = last, stop


def means(rows: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """The means ``(P, ...)`` over runs of `counts` ``(P,)`` rows."""
    runs = torch.arange(len(counts)).repeat_interleave(counts)
    sums = rows.new_zeros(len(counts), *rows.shape[1:]).index_add_(0, runs, rows)
    return sums / counts[:, None]


@torch.no_grad()
def _each_once(state: State) -> bool:
    """Whether a forward pass uses each weight once: a second use would overwrite the first one's ghost norm."""
    net, uses = state.network.net, Counter[nn.Parameter]()

    def count(layer: nn.Module, *_: object) -> None:
        uses.update(layer.parameters(recurse=False))

    hooks = [layer.register_forward_hook(count) for layer in net.modules()]
    predict(state.network, state.task.members.x[:2])
    for hook in hooks:
        hook.remove()
    return max(uses.values(), default=0) == 1


class Privacy:
    """The hooks, the noisy optimiser and the account of one training. The account is its state.

    What is clipped is a person's gradient: the mean over all their samples, which are in a batch together. Where each
    sample is another person's, that is each sample's.
    """

    def __init__(self, state: State, noise: float, clip: float, rate: float, delta: float, *, ghost: bool) -> None:
        members = state.task.members
        self.persons = members.persons if members.whose is not None else None
        samples, optimizers = _opacus("opacus.grad_sample"), _opacus("opacus.optimizers")
        self.net = net = state.network.net
        trained = [type(m) for m in net.modules() if any(p.requires_grad for p in m.parameters(recurse=False))]
        known = samples.GradSampleModuleFastGradientClipping.NORM_SAMPLERS
        norms = known if self.persons is None else {nn.Linear: self._norms_of_linear}
        self.ghost = ghost and all(layer in norms for layer in trained) and _each_once(state)
        self.noise, self.clip, self.rate, self.delta = noise, clip, rate, delta
        try:
            self.hooks = (
                samples.GradSampleModuleFastGradientClipping(net, loss_reduction="sum", max_grad_norm=clip)
                if self.ghost
                else samples.GradSampleModule(net, loss_reduction="sum")
            )
        except NotImplementedError as error:
            raise UserError(f"dpsgd cannot train {type(net).__name__}: {error}; replace these layers") from None
        self.hooks.NORM_SAMPLERS = norms
        kind = optimizers.DPOptimizerFastGradientClipping if self.ghost else optimizers.DPOptimizer
        self.optimiser = kind(
            state.optimiser,
            noise_multiplier=noise,
            max_grad_norm=clip,
            expected_batch_size=rate * members.num_persons,
            generator=state.streams["chance"],
        )
        self.parameters = [p for p in net.parameters() if p.requires_grad]
        self.account = _opacus("opacus.accountants").RDPAccountant()
        self.optimiser.attach_step_hook(self.account.get_optimizer_hook_fn(rate))

    def step(self, state: State, x: torch.Tensor, y: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """One step on samples ``(B, copies, ...)``, labels ``(B,)``; returns the first copies' logits ``(B, C)``.

        `index` ``(B,)`` are their places among the members, a person's next to each other.
        """
        self.optimiser.zero_grad(set_to_none=True)
        if not len(y):  # noise alone
            for p in self.parameters:
                p.grad, p.grad_sample = torch.zeros_like(p), p.new_zeros(0, *p.shape)  # type: ignore[attr-defined]
            self.optimiser.step()
            return torch.zeros(0, state.task.num_classes)
        counts = torch.ones_like(index)
        if self.persons is not None:
            counts = self.persons[index].unique_consecutive(return_counts=True)[1]
        if self.ghost:
            return self._ghost_step(state, x[:, 0], y, counts)
        copies = x.shape[1]
        chunk = max(1, GRADIENTS // (copies * sum(p.numel() for p in self.parameters)))
        logits = []
        for start, stop, each in chunks(counts, chunk):
            self.optimiser.zero_grad(set_to_none=True)
            out = state.network(x[start:stop].flatten(0, 1))
            F.cross_entropy(out, y[start:stop].repeat_interleave(copies), reduction="sum").backward()
            for p in self.parameters:
                if copies > 1:
                    p.grad_sample = p.grad_sample.unflatten(0, (-1, copies)).mean(1)  # type: ignore[attr-defined]
                if self.persons is not None:
                    rows = p.grad_sample.reshape(stop - start, -1)  # type: ignore[attr-defined]
                    p.grad_sample = means(rows, each).reshape(-1, *p.shape)  # type: ignore[attr-defined]
            self.optimiser.signal_skip_step(stop < len(y))
            self.optimiser.step()
            logits.append(out.detach()[::copies])
        return torch.cat(logits)

    def _norms_of_linear(self, layer: nn.Linear, inputs: Any, errors: torch.Tensor) -> dict[torch.Tensor, torch.Tensor]:
        """The norms ``(P,)`` of a linear layer's mean gradients over each person's samples, in the order of the batch.

        The inner product of two samples' gradients is that of their inputs times that of their errors, so that no
        gradient is ever stored.
        """
        tokens = errors[0, ..., 0].numel()  # of a sample: a layer may be applied along a sequence
        a, d, counts = inputs[0].flatten(0, -2), errors.flatten(0, -2), self._counts * tokens
        found: dict[torch.Tensor, torch.Tensor] = {}
        if layer.weight.requires_grad:
            products = (a @ a.T) * (d @ d.T)
            squared = means(means(products, counts).T, counts).diagonal()
            found[layer.weight] = squared.clamp(min=0).sqrt() * tokens
        if layer.bias is not None and layer.bias.requires_grad:
            found[layer.bias] = means(d, counts).norm(dim=1) * tokens
        return found

    def _ghost_step(self, state: State, x: torch.Tensor, y: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """The first backward pass finds each person's gradient norm, the second the sum of the clipped gradients."""
        self._counts = counts
        logits: torch.Tensor = state.network(x)
        losses = F.cross_entropy(logits, y, reduction="none")
        losses.sum().backward(retain_graph=True)
        factors = self.hooks.get_clipping_coef()
        if self.persons is not None:
            factors = (factors / counts).repeat_interleave(counts)
        self.optimiser.zero_grad(set_to_none=True)
        self.hooks.disable_hooks()
        (factors * losses).sum().backward()
        self.hooks.enable_hooks()
        self.optimiser.step()
        return logits.detach()

    def unhook(self) -> None:
        """Leave the network as a plain one."""
        self.hooks.remove_hooks()
        on_parameters = ("grad_sample", "summed_grad", "_norm_sample", "_forward_counter", "_current_grad_sample")
        for things, names in ((self.parameters, on_parameters), (self.net.modules(), ("activations", "max_batch_len"))):
            for thing in things:
                for name in names:
                    vars(thing).pop(name, None)
        self.net.zero_grad(set_to_none=True)

    def facts(self) -> dict[str, float | str]:
        """What was spent so far, and how."""
        steps = sum(count for _, _, count in self.account.history)
        whose: dict[str, float | str] = {} if self.persons is None else {"epsilon_is_of": OF_PERSON}
        return whose | {
            "epsilon": epsilon(self.noise, self.rate, steps, self.delta),
            "delta": self.delta,
            "noise": self.noise,
            "clip": self.clip,
            "sampling_rate": self.rate,
            "steps": float(steps),
            "clipping": "ghost" if self.ghost else "per sample",
        }

    def state_dict(self) -> dict[str, Any]:
        """The account."""
        state: dict[str, Any] = self.account.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse."""
        self.account.load_state_dict(state)
