"""Distillation (Hinton, Vinyals, Dean, 2015), as the RelaxLoss paper's baseline, and DMP on a reference set.

A teacher is trained plainly on the members; the released student learns from the labels and from the teacher's
softened answers. With ``on="members"`` both see the same members (RelaxLoss, appendix). With ``on="reference"`` the
student never sees a member, and knows of them through the teacher only: with ``weight=1`` that is DMP (Shejwalkar and
Houmansadr, AAAI 2021).

Threat model: black-box and white-box attackers of the student; the teacher is thrown away. Cost: two trainings, and
for DMP a reference set, as large as the members to keep the accuracy.

Useful range: `weight` 0 (plain training) to 1 (the teacher alone); `temperature` 1 to 20, higher is softer. The paper
uses 10 and 0.5; DMP about 4 and 1.

NB(paper): DMP keeps only reference rows on which the teacher's answer has low entropy, and has no labels for them;
here all rows are used, with their labels unless `weight` is 1. The teacher answers the rows as they are, not their
augmented copies. On tables the input's scaling is the members' in either case.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveFloat

from relaxloss import seeds, training
from relaxloss.defenses.base import NONE, Defense, defenses
from relaxloss.errors import UserError
from relaxloss.functional import distillation
from relaxloss.training import Batch, Fit, Session, State, Task

Criterion = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Student(Defense):
    """A training whose loss compares each row's logits with a teacher's answer for that row.

    Attributes:
        answers: ``(n, C)``, one for each of the task's members.
        criterion: logits, answers, labels → the scalar to descend on.
    """

    name: ClassVar[str] = "student"
    answers: torch.Tensor
    criterion: Criterion

    def step(self, state: State, batch: Batch) -> torch.Tensor:
        """Plain training's, with the criterion for the loss."""
        logits = state.forward(batch.x)
        state.descend(self.criterion(logits, self.answers[batch.index], batch.y))
        return logits.detach()


@defenses.register("distillation")
@dataclass(frozen=True)
class Distillation(Defense):
    """Train a student on ``(1 - w) CE + w T² KL(teacher ‖ student)`` at temperature T.

    Attributes:
        temperature: T, by which both networks' logits are divided in the second term.
        weight: w, the share of the teacher's answers in the loss.
        on: ``members`` (the paper's baseline) or ``reference`` (DMP): the rows that the student learns from.
    """

    about: ClassVar[str] = "a student learns from a plainly trained teacher; with on=reference, DMP"
    neutral: ClassVar[Mapping[str, Any] | None] = {"weight": 0.0}
    sweep: ClassVar[tuple[Mapping[str, Any], ...]] = (
        *({"weight": weight} for weight in (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)),
        {"weight": 1.0, "temperature": 4.0, "on": "reference"},
    )
    temperature: PositiveFloat = 10.0
    weight: Annotated[float, Field(ge=0, le=1)] = 0.5
    on: Literal["members", "reference"] = "members"

    @property
    def effort(self) -> float:
        """Teacher and student."""
        return 2.0

    def fit(self, task: Task, session: Session) -> Fit:
        """Train the teacher on other seeds, then the student on the task's own, so that weight 0 is plain training."""
        teacher_task = replace(task, seed=seeds.seed(task.seed, self.name, "teacher"))
        teacher = NONE.fit(teacher_task, replace(session.child("teacher"), monitor=None)).network
        if self.on == "reference":
            if len(task.reference) < 2:
                raise UserError(f"{self} needs a reference set; got {len(task.reference)} rows: set some aside")
            task = replace(task, members=task.reference)
        answers = training.predict(teacher, task.members.x)
        criterion = functools.partial(_loss, temperature=self.temperature, weight=self.weight)
        return Student(answers, criterion).fit(task, session)

    def needs_reference(self) -> bool:
        """If the student learns on it."""
        return self.on == "reference"


def _loss(
    logits: torch.Tensor, answers: torch.Tensor, targets: torch.Tensor, *, temperature: float, weight: float
) -> torch.Tensor:
    return distillation(logits, answers, targets, temperature=temperature, weight=weight)
