"""What RelaxLoss costs beside the cross-entropy: the loss alone, and whole training steps. Run: python <this file>.

Every round times all variants once, in rotating order, on the same tensors, network and optimiser; a ratio is the
median over rounds of variant / cross-entropy within the round, with a 95 % interval of that median (order statistics).
Time is the process's CPU time on one thread, which other processes disturb less than the clock on the wall.
Order statistics need no idle machine, but a busy one makes every operator dearer: its caches are colder.
The learning rate is 0, so all rounds do the same work; the branch is fixed by alpha (0: descent, 1e9: the others).
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import paired
import torch
from torch.nn import functional as F

from relaxloss.functional import relax_loss
from relaxloss.models import MLP, ResNet20

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
BATCH, CLASSES = 128, 100
LIMITS = {
    "mlp": 1.03,
    "resnet20": 1.01,
}  # ratios that a whole step must keep, with the paper's flattening for such data
IMAGE_ONLY = ("flattening, misclassified", "flattening, official")
LOSSES: dict[str, Loss] = {
    "cross_entropy": F.cross_entropy,
    "descent": partial(relax_loss, alpha=0.0, ascent=True),
    "descent (flattening epoch)": partial(relax_loss, alpha=0.0, ascent=False),
    "ascent": partial(relax_loss, alpha=1e9, ascent=True),
    "flattening": partial(relax_loss, alpha=1e9, ascent=False, upper=0.3),
    "flattening, misclassified": partial(relax_loss, alpha=1e9, ascent=False, flatten="misclassified"),
    "flattening, official": partial(relax_loss, alpha=1e9, ascent=False, flatten="official"),
}


def head(targets: torch.Tensor, generator: torch.Generator) -> dict[str, Callable[[], None]]:
    """Forward and backward of the loss alone."""
    logits = torch.randn(BATCH, CLASSES, generator=generator)

    def run(loss: Loss) -> None:
        leaf = logits.detach().requires_grad_()
        loss(leaf, targets).backward()

    return {name: partial(run, loss) for name, loss in LOSSES.items()}


def step(name: str, targets: torch.Tensor, generator: torch.Generator) -> dict[str, Callable[[], None]]:
    """Forward, backward and optimiser of a whole network."""
    if name == "mlp":
        x = torch.randint(2, (BATCH, 600), generator=generator).float()
        network = MLP().build((600,), CLASSES)
    else:
        x = torch.randn(BATCH, 3, 32, 32, generator=generator).contiguous(memory_format=torch.channels_last)
        network = ResNet20().build((3, 32, 32), CLASSES).to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.0, momentum=0.9, weight_decay=1e-4, fused=True)

    def run(loss: Loss) -> None:
        value = loss(network(x), targets)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        optimiser.step()

    return {variant: partial(run, loss) for variant, loss in LOSSES.items()}


def summary(seconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median microseconds, median ratio to the cross-entropy, and the interval of that median."""
    rows = {}
    for name, times in seconds.items():
        ratios = sorted(a / b for a, b in zip(times, seconds["cross_entropy"], strict=True))
        margin = math.ceil(0.98 * math.sqrt(len(ratios)))  # 1.96 √n / 2 ranks from the middle
        middle = len(ratios) // 2
        rows[name] = {
            "microseconds": statistics.median(times) * 1e6,
            "ratio": statistics.median(ratios),
            "low": ratios[max(0, middle - margin)],
            "high": ratios[min(len(ratios) - 1, middle + margin)],
        }
    return rows


def verdict(row: dict[str, float], limit: float) -> str:
    """Whether the limit is kept, as far as this run can tell."""
    if row["ratio"] <= limit:
        return "kept"
    return (
        "MISSED" if row["low"] > limit else "not decided, the interval holds the limit; more rounds, or an idle machine"
    )


def main() -> None:
    """Measure, print the table, write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--head-rounds", type=int, default=3000)
    parser.add_argument("--mlp-rounds", type=int, default=300)
    parser.add_argument("--resnet-rounds", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/relaxloss_step.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(CLASSES, (BATCH,), generator=generator)
    rounds = {"head": given.head_rounds, "mlp": given.mlp_rounds, "resnet20": given.resnet_rounds}
    results = {}
    print(f"{'what':<10}{'loss':<28}{'us':>12}{'ratio':>8}   95 % interval, n")
    for what, count in rounds.items():
        variants = head(targets, generator) if what == "head" else step(what, targets, generator)
        results[what] = summary(paired.rounds_of(variants, count, warm=3))
        for name, row in results[what].items():
            interval = f"[{row['low']:.3f}, {row['high']:.3f}]  n={count}"
            print(f"{what:<10}{name:<28}{row['microseconds']:>12.1f}{row['ratio']:>8.3f}   {interval}")
        if what in LIMITS:
            rows = results[what]
            worst = max(
                (name for name in rows if what == "resnet20" or name not in IMAGE_ONLY), key=lambda n: rows[n]["ratio"]
            )
            print(f"{what:<10}worst: {worst}; limit {LIMITS[what]}: {verdict(rows[worst], LIMITS[what])}")
            mean = (rows["ascent"]["ratio"] + rows["flattening"]["ratio"]) / 2
            print(f"{what:<10}a training whose every step is below alpha, half ascent and half flattening: {mean:.3f}")
    clock = "CPU time of the process"
    sizes = {"batch": BATCH, "classes": CLASSES, "rounds": rounds}
    paired.write(given.out, clock=clock, **sizes, limits=LIMITS, results=results)


if __name__ == "__main__":
    main()
