"""MemGuard on Location30 in its authors' setting, beside their numbers. Writes results/memguard_location30.json.

Run: ``RELAXLOSS_DATA=folder python benchmarks/memguard_location30.py [--seeds 5]``, with location30.npz in the folder;
about a minute a seed.

The setting (Jia et al., CCS 2019, section 5.1, and their published configuration): 1,000 members; a ReLU network
1024-512-256-128 with Glorot weights; SGD 0.01 without momentum, batch 64, 200 epochs, a tenth after 150. The surrogate
is fitted on the members and 1,000 other rows. The attacker trains a shadow of the same kind on 500 rows, and on its
answers for those and 500 others a network 512-256-128 on sorted probabilities (SGD 0.01, batch 64, 400 epochs, a tenth
after 300). It is asked about the 1,000 members and 1,000 rows that nobody has used. Accuracy is the expectation over
the release's draw, as the authors count it; ``drawn`` is what the released answers themselves give.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import itertools
import json
import statistics
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from relaxloss import data, seeds
from relaxloss.defenses import NONE
from relaxloss.defenses.memguard import Guard, MemGuard, phase_one, phase_two
from relaxloss.models import Model
from relaxloss.provenance import __version__
from relaxloss.training import Recipe, Session, Task, predict

PUBLISHED = {1.0: 0.50, 0.7: 0.52, 0.5: 0.55, 0.3: 0.62, 0.1: 0.69, 0.0: 0.73}
TOLERANCE = 0.04
OUT = Path(__file__).parents[1] / "results" / "memguard_location30.json"


def glorot(*widths: int) -> nn.Sequential:
    """Linear layers with ReLU between them, Glorot-uniform weights and zero biases."""
    layers: list[nn.Module] = []
    for wide, narrow in itertools.pairwise(widths):
        layer = nn.Linear(wide, narrow)
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@dataclasses.dataclass(frozen=True)
class Theirs(Model):
    """The authors' target network."""

    name: ClassVar[str] = "memguard_target"

    def build(self, shape: tuple[int, ...], num_classes: int) -> nn.Module:
        return glorot(shape[0], 1024, 512, 256, 128, num_classes)


RECIPE = Recipe(model=Theirs(), epochs=200, batch_size=64, lr=0.01, momentum=0, weight_decay=0, milestones=(150,))


def attack_network(p: torch.Tensor, member: torch.Tensor, seed: int) -> nn.Module:
    """The attacker's own network, on ascending probabilities."""
    with seeds.isolated(seed, "attack", "init"):
        net = glorot(p.shape[1], 512, 256, 128, 1)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.01, fused=True)
    order = seeds.generator(seed, "attack", "order")
    for epoch in range(400):
        optimiser.param_groups[0]["lr"] = 0.01 if epoch < 300 else 0.001
        for index in torch.randperm(len(p), generator=order).split(64):
            loss = F.binary_cross_entropy_with_logits(net(p[index])[:, 0], member[index])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
    return net


@torch.no_grad()
def hits(net: nn.Module, p: torch.Tensor, member: torch.Tensor) -> torch.Tensor:
    """Whether the attack network is right about each row, float64 ``(N,)``."""
    return ((net(p.sort(1).values.float())[:, 0] > 0) == member).double()


def run(seed: int) -> dict[str, Any]:
    """One whole repetition: another split, other networks."""
    location = data.load("location30")
    order = seeds.rng(seed, "memguard_location30").permutation(len(location))
    target = Task.of(location, order[:1000], reference=order[1000:2000], recipe=RECIPE, seed=seeds.seed(seed, "target"))
    shadow = Task.of(location, order[3000:3500], recipe=RECIPE, seed=seeds.seed(seed, "shadow"))
    network, other = NONE.fit(target, Session()).network, NONE.fit(shadow, Session()).network

    rows = torch.from_numpy(location.x[np.r_[order[3000:3500], order[4000:4500]]])
    known = predict(other, rows).softmax(1).sort(1).values
    attack = attack_network(known, (torch.arange(1000) < 500).float(), seed)

    x = torch.from_numpy(location.x[np.r_[order[:1000], order[2000:3000]]])
    y = torch.from_numpy(location.y[np.r_[order[:1000], order[2000:3000]]])
    member = torch.arange(2000) < 1000
    logits = predict(network, x)
    z = logits.double().sort(1).values
    guard = MemGuard(budget=1.0).release(network, target).eval()
    assert isinstance(guard, Guard)
    start = time.process_time()
    noised = phase_one(z, guard.attacker).softmax(1)
    seconds = time.process_time() - start
    clean = z.softmax(1)
    distance = (noised - clean).abs().sum(1)
    right, fooled = hits(attack, clean, member), hits(attack, noised, member)
    surrogate = ((guard.attacker(clean) > 0) == member).double().mean().item()
    accuracy, drawn, spent = {}, {}, {}
    for budget in PUBLISHED:
        chance = phase_two(clean, noised, guard.attacker, budget)
        accuracy[budget] = ((1 - chance) * right + chance * fooled).mean().item()
        spent[budget] = (chance * distance).mean().item()
        guard.budget = budget
        released = predict(guard, x)
        assert torch.equal(released.argmax(1), logits.argmax(1))
        drawn[budget] = hits(attack, released.double().exp(), member).mean().item()
    right_label = (logits.argmax(1) == y).double()
    return {
        "seed": seed,
        "train_accuracy": right_label[:1000].mean().item(),
        "test_accuracy": right_label[1000:].mean().item(),
        "surrogate_accuracy": surrogate,
        "noised_share": (distance > 0).double().mean().item(),
        "mean_distance_of_noise": distance.mean().item(),
        "phase_one_cpu_seconds": seconds,
        "accuracy": accuracy,
        "drawn": drawn,
        "expected_distance": spent,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    torch.set_num_threads(1)
    runs = []
    for seed in range(parser.parse_args().seeds):
        runs.append(run(seed))
        print(json.dumps(runs[-1]), flush=True)
        write(runs)  # after each seed, so that a run cut short leaves what it has


def write(runs: list[dict[str, Any]]) -> None:
    """The table of all runs so far, into the result file and on the screen."""
    rows = []
    for budget, published in PUBLISHED.items():
        values = [result["accuracy"][budget] for result in runs]
        mean = statistics.mean(values)
        deviation = statistics.stdev(values) if len(values) > 1 else None
        within = abs(mean - published) <= TOLERANCE
        rows.append({"budget": budget, "published": published, "ours": mean, "deviation": deviation, "within": within})
        print(f"budget {budget}: published {published:.2f}, ours {mean:.3f}" + ("" if within else "  (outside ±0.04)"))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "command": "python benchmarks/memguard_location30.py",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "relaxloss": __version__,
        "torch": torch.__version__,
        "rows": rows,
        "runs": runs,
    }
    OUT.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
