"""MemGuard (Jia, Salem, Backes, Zhang, Gong, CCS 2019): noise on the released probabilities that fools an attacker.

Threat model: a black-box attacker with a membership classifier on the probabilities. Training is untouched and the
answered label never changes, so label-only attackers, and white-box ones who hold the network, see no defense; an
attacker who knows of the noise does better than the paper's.

Cost: nothing in training; the surrogate attacker's fit (seconds), and some hundred small forward and backward passes
of it per answer. Needs a reference set.

Useful range: `budget` is the bound on the expected L1 distance between released and true probabilities, from 0 (no
defense) to 2 (the largest distance there is); the paper shows 0 to 1.

NB(code): phase I gives the surrogate the noised probabilities in the order of the clean ones, unsorted; phase II, and
any attacker, sorts them again. The authors' loop makes 299 steps, ours `iterations`. They fit the surrogate on as many
reference rows as members; here each group weighs the same in total, however many there are.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import nn
from torch.nn import functional as F

from relaxloss import seeds
from relaxloss.data import Dataset
from relaxloss.defenses._queries import beneath, digests, keep_label, secret_key, uniforms
from relaxloss.defenses.base import NONE, Defense, defenses
from relaxloss.errors import UserError
from relaxloss.training import Task, predict

C1, C2, C3 = 1.0, 10.0, 0.1  # weights of fooling the attacker, of keeping the label, of staying close (the first)
LEVELS = 7  # of the third weight: 0.1, 1, ..., 1e5
STEP = 0.1
UNDECIDED = 1e-5  # closer to one half than this, the attacker is fooled as it is


class Attacker(nn.Module):
    """The defender's own attacker: sorted probabilities → 256 → 128 → 64 → the logit h of membership, g = σ(h)."""

    layers: list[nn.Linear]

    def __init__(self, num_classes: int, hidden: tuple[int, ...] = (256, 128, 64)) -> None:
        super().__init__()
        widths = [num_classes, *hidden, 1]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in itertools.pairwise(widths))  # type: ignore[assignment]
        for layer in self.layers:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, p: torch.Tensor) -> torch.Tensor:
        """``(B, C)`` → h ``(B,)``."""
        for layer in self.layers[:-1]:
            p = layer(p).relu()
        out: torch.Tensor = self.layers[-1](p)
        return out[:, 0]

    def slope(self, p: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """h ``(B,)`` and its gradient ∂h/∂p ``(B, C)``, without a graph: it must work in inference mode too."""
        outputs = []
        for layer in self.layers[:-1]:
            p = layer(p).relu_()
            outputs.append(p)
        gradient: torch.Tensor = self.layers[-1].weight
        for layer, output in zip(reversed(self.layers[:-1]), reversed(outputs), strict=True):
            gradient = torch.where(output > 0, gradient, 0.0) @ layer.weight
        return self.layers[-1](p)[:, 0], gradient

    def fit(self, p: torch.Tensor, member: torch.Tensor, chance: torch.Generator, guard: MemGuard) -> None:
        """Plain SGD on the binary cross-entropy, both groups with the same total weight."""
        share = member.mean()
        weight = torch.where(member > 0, 0.5 / share, 0.5 / (1 - share))
        optimiser = torch.optim.SGD(self.parameters(), lr=guard.lr, fused=True)
        for _ in range(guard.epochs):
            for index in torch.randperm(len(p), generator=chance).split(guard.batch_size):
                loss = F.binary_cross_entropy_with_logits(self(p[index]), member[index], weight[index])
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()


def downhill(
    x: torch.Tensor, p: torch.Tensor, s: torch.Tensor, h: torch.Tensor, slope: torch.Tensor, c3: torch.Tensor
) -> torch.Tensor:
    """The unit vector along the gradient of phase I's objective at the logits `x` ``(B, C)``, label in the last column.

    The objective is ``|h(p)| + 10 relu(max_{j≠l} x_j - x_l) + c3 ‖p - s‖₁`` with p = softmax(x).
    """
    v = C1 * h.sign()[:, None] * slope + c3[:, None] * (p - s).sign()
    gradient = p * (v - (p * v).sum(1, keepdim=True))
    rival, where = x[:, :-1].max(1)
    lost = C2 * (rival > x[:, -1]).to(x.dtype)[:, None]
    gradient = gradient.scatter_add(1, where[:, None], lost)
    gradient[:, -1:] -= lost
    unit: torch.Tensor = gradient / torch.linalg.vector_norm(gradient, dim=1, keepdim=True).clamp_min(
        torch.finfo(x.dtype).tiny
    )
    return unit


def phase_one(z: torch.Tensor, attacker: Attacker, *, iterations: int = 300) -> torch.Tensor:
    """The noised logits ``(N, C)`` for logits `z` ``(N, C)`` float64, whose rows ascend: the label is the last column.

    From x = z, steps of 0.1 along `downhill` until the label is the largest and h has changed sign. A success is kept,
    and tried again from z with c3 ten times as large, up to 1e5; the last success is the answer, z itself if none. All
    rows run at once, each with its own c3 and its own end.

    Source: section 4, phase I.
    """
    s = z.softmax(1)
    start, uphill = attacker.slope(s)
    best = z.clone()
    rows = ((start.sigmoid() - 0.5).abs() > UNDECIDED).nonzero()[:, 0]
    x, p, h, slope, clean = z[rows], s[rows], start[rows], uphill[rows], s[rows]
    level, count = torch.zeros_like(rows), torch.zeros_like(rows)
    while len(rows):
        x = x - STEP * downhill(x, p, clean, h, slope, C3 * 10.0**level)
        p = x.softmax(1)
        h, slope = attacker.slope(p)
        count += 1
        found = (x[:, :-1].amax(1) < x[:, -1]) & (h * start[rows] <= 0)
        if found.any():
            again = rows[found]
            best[again] = x[found]
            level[found] += 1
            count[found] = 0
            x[found], p[found], h[found], slope[found] = z[again], clean[found], start[again], uphill[again]
        left = (count < iterations) & (level < LEVELS)
        if not left.all():
            running = (rows, x, p, h, slope, clean, level, count)
            rows, x, p, h, slope, clean, level, count = (part[left] for part in running)
    return best


def phase_two(clean: torch.Tensor, noised: torch.Tensor, attacker: Attacker, budget: float) -> torch.Tensor:
    """The probability ``(N,)`` of releasing `noised` instead of `clean` (probabilities ``(N, C)``).

    ``min(budget / ‖noised - clean‖₁, 1)``, so that the expected distance is at most `budget`; 0 where the noise brings
    g no closer to one half.

    Source: section 4, phase II.
    """
    doubt, before = ((attacker(p.sort(1).values).sigmoid() - 0.5).abs() for p in (noised, clean))
    distance = (noised - clean).abs().sum(1)
    return torch.where(before <= doubt, 0.0, (budget / distance).clamp(max=1.0))


class Guard(nn.Module):
    """The release: log-probabilities, noised where the row's own draw says so."""

    key: torch.Tensor

    def __init__(self, network: nn.Module, guard: MemGuard, task: Task | None) -> None:
        super().__init__()
        self.network, self.budget, self.iterations = network, guard.budget, guard.iterations
        self.register_buffer("key", secret_key(task, guard.name))
        classes = task.num_classes if task else beneath(network).num_classes
        if classes is None:
            raise UserError("memguard: the network does not say how many classes it has; make it with make_network")
        with seeds.isolated(task.seed if task else 0, guard.name, "init"):
            self.attacker = Attacker(classes)
        if task is not None:
            p = predict(network, torch.cat([task.members.x, task.reference.x])).softmax(1).sort(1).values
            member = torch.arange(len(p)) < len(task.members)
            with torch.enable_grad():  # a caller may be in no_grad, as everybody is who only wants answers
                self.attacker.fit(p, member.float(), seeds.generator(task.seed, guard.name, "order"), guard)
        self.attacker.double().requires_grad_(False)  # phase I stops where h crosses 0: rounding must not move that

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, ...)`` raw → ``(B, C)`` float32 log-probabilities."""
        logits = self.network(x)
        label = logits.argmax(1)
        z = logits.double()
        order = z.scatter(1, label[:, None], torch.inf).argsort(1)
        z = z.gather(1, order)
        noised = phase_one(z, self.attacker, iterations=self.iterations)
        chance = phase_two(z.softmax(1), noised.softmax(1), self.attacker, self.budget)
        chosen = torch.from_numpy(uniforms(digests(x, self.key))).to(chance.device) < chance
        log_p = torch.where(chosen[:, None], noised, z).log_softmax(1).float()
        return keep_label(torch.empty_like(log_p).scatter_(1, order, log_p), label)


@defenses.register("memguard")
@dataclass(frozen=True)
class MemGuard(Defense):
    """Release noised probabilities with an expected L1 distance of at most `budget` from the true ones.

    Attributes:
        budget: ε, the bound on the expected distance; 0 releases the network as it is.
        iterations: the most steps of phase I for one weight of the distance.
        epochs: of the surrogate attacker's fit.
        batch_size: of it.
        lr: of its SGD.
    """

    about: ClassVar[str] = "noise on the released probabilities that fools an attacker (CCS 2019)"
    neutral: ClassVar[Mapping[str, Any] | None] = {"budget": 0.0}
    active: ClassVar[Mapping[str, Any]] = {"budget": 1.0, "epochs": 20}
    sweep: ClassVar[tuple[Mapping[str, Any], ...]] = tuple({"budget": budget} for budget in (0.1, 0.3, 0.5, 0.7, 1.0))
    budget: Annotated[float, Field(ge=0, le=2)] = 1.0
    iterations: PositiveInt = 300
    epochs: NonNegativeInt = 400
    batch_size: PositiveInt = 64
    lr: PositiveFloat = 1e-3

    @property
    def trainer(self) -> Defense:
        """Plain training: the defense acts on the release only."""
        return NONE

    def uncovered(self, data: Dataset) -> tuple[str, ...]:
        """The surrogate attacker, if there is one."""
        if not self.budget:
            return ()
        return ("an attacker that was fitted on the members' outputs, within the release",)

    def release(self, network: nn.Module, task: Task | None) -> nn.Module:
        """The network behind a `Guard` whose surrogate attacker is fitted on the task's members and reference rows."""
        if self.budget == 0:
            return network
        if task is not None and not len(task.reference):
            raise UserError(f"{self} needs a reference set; got none: set some rows aside that are in no model")
        return Guard(network, self, task)

    def needs_reference(self) -> bool:
        """Unless the budget is 0, the surrogate attacker learns non-members from the reference set."""
        return self.budget > 0
