"""The machinery of DP-SGD, Opacus in the end: clipping and noise for one training, and the account of ε."""

from __future__ import annotations

import contextlib
import importlib
import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from relaxloss.errors import MissingExtra, UserError
from relaxloss.training import State

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


class Privacy:
    """The hooks, the noisy optimiser and the account of one training. The account is its state."""

    def __init__(self, state: State, noise: float, clip: float, rate: float, delta: float, *, ghost: bool) -> None:
        samples, optimizers = _opacus("opacus.grad_sample"), _opacus("opacus.optimizers")
        self.net = net = state.network.net
        trained = [type(m) for m in net.modules() if any(p.requires_grad for p in m.parameters(recurse=False))]
        self.ghost = ghost and all(
            layer in samples.GradSampleModuleFastGradientClipping.NORM_SAMPLERS for layer in trained
        )
        self.noise, self.clip, self.rate, self.delta = noise, clip, rate, delta
        try:
            self.hooks = (
                samples.GradSampleModuleFastGradientClipping(net, loss_reduction="sum", max_grad_norm=clip)
                if self.ghost
                else samples.GradSampleModule(net, loss_reduction="sum")
            )
        except NotImplementedError as error:
            raise UserError(f"dpsgd cannot train {type(net).__name__}: {error}; replace these layers") from None
        kind = optimizers.DPOptimizerFastGradientClipping if self.ghost else optimizers.DPOptimizer
        self.optimiser = kind(
            state.optimiser,
            noise_multiplier=noise,
            max_grad_norm=clip,
            expected_batch_size=rate * len(state.task.members),
            generator=state.streams["chance"],
        )
        self.parameters = [p for p in net.parameters() if p.requires_grad]
        self.account = _opacus("opacus.accountants").RDPAccountant()
        self.optimiser.attach_step_hook(self.account.get_optimizer_hook_fn(rate))

    def step(self, state: State, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """One step on samples ``(B, copies, ...)``, labels ``(B,)``; returns the first copies' logits ``(B, C)``."""
        self.optimiser.zero_grad(set_to_none=True)
        if not len(y):  # noise alone
            for p in self.parameters:
                p.grad, p.grad_sample = torch.zeros_like(p), p.new_zeros(0, *p.shape)  # type: ignore[attr-defined]
            self.optimiser.step()
            return torch.zeros(0, state.task.num_classes)
        if self.ghost:
            return self._ghost_step(state, x[:, 0], y)
        copies = x.shape[1]
        chunk = max(1, GRADIENTS // (copies * sum(p.numel() for p in self.parameters)))
        logits = []
        for start in range(0, len(y), chunk):
            self.optimiser.zero_grad(set_to_none=True)
            labels = y[start : start + chunk]
            out = state.network(x[start : start + chunk].flatten(0, 1))
            F.cross_entropy(out, labels.repeat_interleave(copies), reduction="sum").backward()
            if copies > 1:
                for p in self.parameters:
                    p.grad_sample = p.grad_sample.unflatten(0, (-1, copies)).mean(1)  # type: ignore[attr-defined]
            self.optimiser.signal_skip_step(start + chunk < len(y))
            self.optimiser.step()
            logits.append(out.detach()[::copies])
        return torch.cat(logits)

    def _ghost_step(self, state: State, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The first backward pass finds each sample's gradient norm, the second the sum of the clipped gradients."""
        logits: torch.Tensor = state.network(x)
        losses = F.cross_entropy(logits, y, reduction="none")
        losses.sum().backward(retain_graph=True)
        factors = self.hooks.get_clipping_coef()
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
        return {
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
