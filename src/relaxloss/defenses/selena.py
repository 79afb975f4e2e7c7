"""SELENA (Tang et al., USENIX Security 2022): distil sub-models, each asked only about members that it never saw.

K sub-models are trained, each without a part of the members, so that every member (or person with several rows) is left
out of L of them. The teacher's answer for a member is the mean of those L models' probabilities (Split-AI); the
released student learns it on the members (self-distillation).

Threat model: black-box and white-box attackers of the student; the sub-models are thrown away. An attacker who knows
of the method trains shadows with it. No reference data. The student still sees every member as an input, and a member
like no other gets an answer as wrong as its left-out models': that is what protects it.

Cost: K trainings on (K - L)/K of the members (25 × 0.6 = 15 plain trainings at the paper's setting) and the student's.

Useful range: `l` from 1 to k - 1: with a larger l more models answer, but each has seen fewer rows. The paper
uses K = 25, L = 10. The sweep has that, a milder point (each model sees 80 % of the members, at half the cost) and a
stronger one (20 %): 31 plain trainings in all.

NB(paper): the sub-models left out are drawn anew for each member. The student's loss has the teacher's answers only,
no labels, as in the paper's experiments. The scaling of a table's numeric columns is that of all members for every
sub-model: mean and deviation of a column are all that a sub-model has of the rows it is not trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch.nn import functional as F

from relaxloss import seeds
from relaxloss.defenses.base import NONE, Defense, defenses
from relaxloss.defenses.distillation import Student
from relaxloss.errors import UserError
from relaxloss.training import Fit, Session, Task, predict


def left_out(persons: int, k: int, l: int, chance: torch.Generator) -> torch.Tensor:  # noqa: E741
    """Which of `k` models do not see whom, bool ``(persons, k)``: `l` random models for each."""
    order = torch.rand(persons, k, generator=chance, dtype=torch.float64).argsort(1)
    return torch.zeros(persons, k, dtype=torch.bool).scatter(1, order[:, :l], True)


def soft_cross_entropy(logits: torch.Tensor, answers: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """``-mean_i Σ_c q_ic log p_ic`` with the teacher's probabilities q ``(B, C)``; the labels take no part."""
    return F.cross_entropy(logits, answers)


@defenses.register("selena")
@dataclass(frozen=True)
class Selena(Defense):
    """Distil K sub-models into one student; for each member only the L that never saw it answer.

    Attributes:
        k: how many sub-models.
        l: how many of them are trained without a given member.
    """

    about: ClassVar[str] = "distil sub-models that never saw the sample (USENIX Security 2022)"
    active: ClassVar[Mapping[str, Any]] = {"k": 3, "l": 1}
    sweep: ClassVar[tuple[Mapping[str, Any], ...]] = ({"k": 10, "l": 2}, {"k": 25, "l": 10}, {"k": 25, "l": 20})
    k: Annotated[int, Field(ge=2)] = 25
    l: Annotated[int, Field(ge=1)] = 10  # noqa: E741

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.l >= self.k:
            raise UserError(f"{self}: got l={self.l} of k={self.k}; expected l < k: some model must see each row")

    @property
    def effort(self) -> float:
        """Each of the k sub-models sees ``1 - l/k`` of the members; then the student sees all."""
        return 1.0 + self.k - self.l

    def fit(self, task: Task, session: Session) -> Fit:
        """Train the sub-models one by one, keeping only their answers; then the student on the task's own seeds."""
        person = task.members.persons
        chance = seeds.generator(task.seed, self.name, "split")
        out = left_out(int(person.max()) + 1, self.k, self.l, chance)[person]
        answers = torch.zeros(len(out), task.num_classes, dtype=torch.float64)
        for i in range(self.k):
            seen, unseen = (~out[:, i]).nonzero()[:, 0], out[:, i].nonzero()[:, 0]
            if len(seen) < 2:
                raise UserError(f"{self}: got {len(out)} members, {len(seen)} for sub-model {i}; expected at least 2")
            part = replace(task, members=task.members.take(seen), seed=seeds.seed(task.seed, self.name, i))
            network = NONE.fit(part, replace(session.child(f"teacher-{i}"), monitor=None)).network
            answers[unseen] += predict(network, task.members.x[unseen]).double().softmax(1)
        return Student((answers / self.l).float(), soft_cross_entropy).fit(task, session)
