"""Per-sample gradient norms against a loop with one backward per sample. Run: OMP_NUM_THREADS=1 python <this file>.

The loop is lean: one forward and one backward give the input's and all weights' gradients, and torch takes the four
norms. "one batched backward" is the floor for anything that differentiates by all weights: it gives their summed
gradient only. Times are per sample. Published settings: MALLOC_MMAP_MAX_=0 for all variants alike.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from paired import measure, show, verdict, write
from torch import Tensor, nn
from torch.nn import functional as F

from relaxloss import gradients
from relaxloss.models import MLP, VGG11BN, Model, ResNet20

IMAGE = (3, 32, 32)
CASES: dict[
    str, tuple[Model, tuple[int, ...], int, int, int]
] = {  # model, input, classes, samples, samples of the loop
    "mlp, location30": (MLP(), (446,), 30, 2048, 32),
    "mlp, purchase100": (MLP(), (600,), 100, 2048, 32),
    "mlp, texas100": (MLP(), (6169,), 100, 2048, 16),
    "resnet20": (ResNet20(), IMAGE, 10, 128, 16),
    "vgg11_bn": (VGG11BN(), IMAGE, 10, 32, 8),
}
LIMITS = {"mlp, purchase100": 150.0, "resnet20": 4.5}


def loop(model: nn.Module, x: Tensor, y: Tensor, sides: str = "xw") -> list[list[float]]:
    """One sample at a time."""
    rows = []
    for i in range(len(x)):
        one = x[i : i + 1].clone().requires_grad_("x" in sides)
        model.zero_grad()
        F.cross_entropy(model(one), y[i : i + 1]).backward()
        weights = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        parts = [weights] if one.grad is None else [one.grad, weights]
        rows.append([part.norm(p).item() for part in parts for p in (1, 2)])
    return rows


def batched(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """The floor."""
    x = x.clone().requires_grad_()
    torch.autograd.grad(F.cross_entropy(model(x), y, reduction="sum"), [x, *model.parameters()])


def variants(name: str) -> tuple[dict[str, Callable[[], object]], dict[str, int], str]:
    """What is timed for one case, the samples each takes, and the plan that `norms` makes."""
    spec, shape, classes, many, few = CASES[name]
    torch.manual_seed(0)
    model = spec.build(shape, classes).eval()
    x, y = torch.randn(many, *shape), torch.randint(classes, (many,))
    batches = list(zip(x.split(128), y.split(128), strict=True))
    table: dict[str, tuple[Callable[[], object], int]] = {
        "loop, weights and input": (partial(loop, model, x[:few], y[:few]), few),
        "loop, weights only": (partial(loop, model, x[:few], y[:few], "w"), few),
        "norms, method=vmap": (partial(gradients.norms, model, x[: 2 * few], y[: 2 * few], method="vmap"), 2 * few),
        "norms": (partial(gradients.norms, model, x, y), many),
        "one batched backward (floor)": (lambda: [batched(model, *batch) for batch in batches], many),
    }
    plan = gradients.plan(model, x, y)
    return {k: v[0] for k, v in table.items()}, {k: v[1] for k, v in table.items()}, f"{plan.method}: {plan.reason}"


def main() -> None:
    """Measure, print the tables, write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=list(CASES), nargs="*", default=list(CASES))
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/gradient_norms.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    results, limits, plans = {}, [], {}
    for name in given.only:
        timed, items, plans[name] = variants(name)
        results[name] = measure(timed, items, given.rounds)
        show(f"{name} ({plans[name]})", results[name])
        if name in LIMITS:
            limits.append(verdict(f"{name}, norms", results[name]["norms"]["times_faster"], LIMITS[name]))
    setting = {key: os.environ.get(key) for key in ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_")}
    write(given.out, rounds=given.rounds, environment=setting, plans=plans, limits=limits, results=results)


if __name__ == "__main__":
    main()
