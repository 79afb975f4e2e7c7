"""The attack network (Salem et al., ML-Leaks, NDSS 2019; RelaxLoss, appendix): a classifier on the sorted posterior.

Threat model: black-box with shadow models; fitted on the shadows' members and non-members, applied to the target.

NB(code): the released RelaxLoss code never trains this network's hidden layer; here all of it is trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import nn
from torch.nn import functional as F

from relaxloss import seeds
from relaxloss.attacks.base import Attack, Evidence, Needs, Scores, attacks
from relaxloss.signals.signals import Signals

FLOOR = -30.0  # log-probabilities below it say nothing more
LIMIT = 50_000  # rows to fit on; more shadows than that add little and cost time


@attacks.register("neural")
@dataclass(frozen=True)
class Neural(Attack):
    """One hidden layer on the descending log-probabilities, standardised on the shadows; the score is its logit.

    Attributes:
        features: ``sorted``, or ``sorted_label`` with the true class's log-probability as one more input.
        hidden: units of the hidden layer.
        epochs: passes over as many rows as one shadow has, drawn from the rows of all: more shadows bring variety, not
            more steps.
        batch_size: rows in a step.
        lr: of Adam.
    """

    about: ClassVar[str] = "a network on the sorted posterior, fitted on shadows"
    needs: ClassVar[Needs] = Needs(shadows=1, rehearsal=1)
    features: Literal["sorted", "sorted_label"] = "sorted"
    hidden: PositiveInt = 100
    epochs: PositiveInt = 200
    batch_size: PositiveInt = 256
    lr: PositiveFloat = 1e-3

    def score(self, evidence: Evidence) -> Scores:
        """The attack network's logit of membership for every asked sample ``(N,)``."""
        x = torch.cat([self.inputs(shadow.take(evidence.fit)) for shadow in evidence.shadows])
        member = torch.from_numpy(evidence.shadow_member[:, evidence.fit].reshape(-1)).float()
        if len(x) > LIMIT:
            rows = torch.randperm(len(x), generator=seeds.generator(evidence.seed, "neural", "rows"))[:LIMIT]
            x, member = x[rows], member[rows]
        mean, deviation = x.mean(0), x.std(0).clamp_min(1e-6)
        net = self.train((x - mean) / deviation, member, evidence.seed, len(evidence.fit))
        with torch.no_grad():
            logits: Scores = net((self.inputs(evidence.target) - mean) / deviation)[:, 0].double().numpy()
        return logits

    def inputs(self, signals: Signals) -> torch.Tensor:
        """The network's input ``(n, C)``, or ``(n, C + 1)`` with the label's column."""
        log_p = torch.tensor(signals.plain, dtype=torch.float64).log_softmax(1).clamp_min(FLOOR)
        columns = [log_p.sort(1, descending=True).values]
        if self.features == "sorted_label":
            columns.append(log_p.gather(1, torch.tensor(signals.labels)[:, None]))
        return torch.cat(columns, 1).float()

    def train(self, x: torch.Tensor, member: torch.Tensor, seed: int, rows: int) -> nn.Sequential:
        """Fit by Adam on the binary cross-entropy; members and non-members weigh the same in total."""
        with seeds.isolated(seed, "neural", "init"):
            net = nn.Sequential(nn.Linear(x.shape[1], self.hidden), nn.ReLU(), nn.Linear(self.hidden, 1))
        share = member.mean().clamp(1e-6, 1 - 1e-6)
        weight = torch.where(member > 0, 0.5 / share, 0.5 / (1 - share))
        optimiser = torch.optim.Adam(net.parameters(), lr=self.lr, fused=True)
        order = seeds.generator(seed, "neural", "order")
        for _ in range(self.epochs):
            for index in torch.randperm(len(x), generator=order)[:rows].split(self.batch_size):
                loss = F.binary_cross_entropy_with_logits(net(x[index])[:, 0], member[index], weight[index])
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
        return net
