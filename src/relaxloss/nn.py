"""Drop-in criteria for anybody's training loop: `relaxloss.functional` as `torch.nn.Module`.

In training mode a criterion is its defense's loss; ``criterion.eval()`` makes it the plain cross-entropy, which is what
a validation loss should be. Criteria have no weights and add nothing to a state dict, so a model that holds one saves
and loads like a model that does not.

Labels are class indices from 0 to C - 1, and every one counts: there is no ``ignore_index``, for a loss that is held at
a level must know what it is a mean of.
"""

from __future__ import annotations

import operator
from typing import get_args

import torch
from torch import distributed as dist
from torch import nn

from relaxloss import functional
from relaxloss.errors import UserError
from relaxloss.functional import Flatten
from relaxloss.functional.base import above_zero, below_guess, one_of, within
from relaxloss.functional.baselines import Form
from relaxloss.functional.relax import check_settings


class _Settings(nn.Module):
    """A module that is known by its settings."""

    def extra_repr(self) -> str:
        """The settings."""
        settings = {name: value for name, value in vars(self).items() if name[0] != "_" and name != "training"}
        return ", ".join(f"{name}={value!r}" for name, value in settings.items())


class Criterion(_Settings):
    """Base of the criteria: ``(B, C)`` logits and ``(B,)`` int64 labels → scalar. A subclass gives the `loss`."""

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The loss in training mode."""
        raise NotImplementedError

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The `loss` in training mode, the plain cross-entropy in evaluation mode."""
        return self.loss(logits, targets) if self.training else functional.cross_entropy(logits, targets)


def _below_guess(name: str, value: float, logits: torch.Tensor) -> None:
    """`below_guess` of the logits' classes; what is no logits, or of another shape, is the function's to refuse."""
    if isinstance(logits, torch.Tensor) and logits.ndim == 2 and logits.shape[1] > 1:
        below_guess(name, value, logits.shape[1])


class Alternating(Criterion):
    """Base of the criteria that the epoch's parity drives."""

    def __init__(self, process_group: dist.ProcessGroup | None) -> None:
        super().__init__()
        self._process_group = process_group
        self._ascent: bool | None = (
            None  # of the epoch only its parity: torch.compile makes two graphs, not one an epoch
        )

    def set_epoch(self, epoch: int) -> None:
        """Tell the 0-based epoch before it begins. NB(paper): it counts from 1, its even epochs are our 1, 3, 5, ..."""
        if operator.index(epoch) < 0:
            raise UserError(f"got epoch {epoch}; expected 0 for the first epoch, then 1, 2, ...")
        self._ascent = epoch % 2 == 1

    def _this_epoch(self) -> bool:
        """Whether it ascends."""
        if self._ascent is None:
            name = type(self).__name__
            raise UserError(f"{name} alternates by epoch: call criterion.set_epoch(epoch) before each one, from 0")
        return self._ascent

    def _ranks(self) -> dist.ProcessGroup | None:
        """Who trains the model together; None: this process alone."""
        group = self._process_group
        if group is None and dist.is_available() and dist.is_initialized():
            group = dist.group.WORLD
        return None if group is None or group.size() == 1 else group


class RelaxLoss(Alternating):
    """RelaxLoss (Chen, Yu, Fritz, ICLR 2022): see `relaxloss.functional.relax_loss`.

    >>> criterion = RelaxLoss(alpha=1.0)
    >>> for epoch in range(3):
    ...     criterion.set_epoch(epoch)  # before every epoch, as for DistributedSampler; a resumed run too
    ...     loss = criterion(torch.zeros(4, 10), torch.zeros(4, dtype=torch.int64))

    The epoch is the loop's to keep: it is in no state dict, and a criterion that was never told one refuses to train.
    Under an initialised `torch.distributed` the mean loss that chooses the branch is averaged over all ranks (one
    all-reduce of two numbers a step, in training mode only), so that the method means the same on 1 and on 8 devices.

    Args:
        alpha: the target of the mean loss, in nats, from 0 (the plain cross-entropy bit for bit) to log C, a guess's.
        flatten: ``all`` (the paper, tabular data), ``misclassified`` (the paper, images), ``official`` (released code).
        upper: the bound on the true class's probability in the soft labels, in (0, 1].
        stop_gradient: whether the soft labels are constants, as in the paper; False is the ablation.
        process_group: the ranks that train one model together; by default all, as in `torch.nn.SyncBatchNorm`.

    Raises:
        UserError: on wrong settings, and in training mode before the first `set_epoch`, or if alpha is above log C.
    """

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        flatten: Flatten = "all",
        upper: float = 1.0,
        stop_gradient: bool = True,
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        super().__init__(process_group)
        check_settings(alpha, flatten, upper)
        self.alpha, self.flatten, self.upper, self.stop_gradient = alpha, flatten, upper, stop_gradient

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """`relaxloss.functional.relax_loss` at the epoch that was set."""
        _below_guess("alpha", self.alpha, logits)
        return functional.relax_loss(
            logits,
            targets,
            alpha=self.alpha,
            ascent=self._this_epoch(),
            flatten=self.flatten,
            upper=self.upper,
            stop_gradient=self.stop_gradient,
            process_group=self._ranks(),
        )


class CRL(Alternating):
    """CRL's first loss, `relaxloss.functional.crl_loss`: RelaxLoss on logits of bounded norm, driven like `RelaxLoss`.

    Its second, `relaxloss.functional.relaxed_center_loss`, needs the features, and centres of one's own.
    """

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        t: float = 0.1,
        upper: float = 1.0,
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        super().__init__(process_group)
        check_settings(alpha, "all", upper)
        self.alpha, self.t, self.upper = alpha, within("t", t, 0), upper

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """RelaxLoss of the bounded logits at the epoch that was set."""
        _below_guess("alpha", self.alpha, logits)
        return functional.crl_loss(
            logits,
            targets,
            alpha=self.alpha,
            t=self.t,
            ascent=self._this_epoch(),
            upper=self.upper,
            process_group=self._ranks(),
        )


class LabelSmoothing(Criterion):
    """`relaxloss.functional.label_smoothing`."""

    def __init__(self, *, smoothing: float = 0.1) -> None:
        super().__init__()
        self.smoothing = within("smoothing", smoothing, 0, 1)

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The cross-entropy with smoothed labels."""
        return functional.label_smoothing(logits, targets, smoothing=self.smoothing)


class ConfidencePenalty(Criterion):
    """`relaxloss.functional.confidence_penalty`."""

    def __init__(self, *, beta: float = 0.1) -> None:
        super().__init__()
        self.beta = within("beta", beta, 0)

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The cross-entropy minus β times the entropy."""
        return functional.confidence_penalty(logits, targets, beta=self.beta)


class Flooding(Criterion):
    """`relaxloss.functional.flooding`."""

    def __init__(self, *, level: float, per_sample: bool = False) -> None:
        super().__init__()
        self.level, self.per_sample = within("level", level, 0), per_sample

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The cross-entropy mirrored at the level."""
        _below_guess("level", self.level, logits)
        return functional.flooding(logits, targets, level=self.level, per_sample=self.per_sample)


class CCL(Criterion):
    """`relaxloss.functional.ccl`."""

    def __init__(self, *, a: float = 0.5, beta: float = 0.05, form: Form = "exp") -> None:
        super().__init__()
        self.a, self.beta = within("a", a, 0, 1), within("beta", beta, 0)
        self.form: Form = form
        one_of("form", form, get_args(Form))

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The convex-concave loss."""
        return functional.ccl(logits, targets, a=self.a, beta=self.beta, form=self.form)


class HAMP(Criterion):
    """`relaxloss.functional.hamp_loss`: HAMP's training part."""

    def __init__(self, *, gamma: float, alpha: float) -> None:
        super().__init__()
        self.gamma = within("gamma", gamma, 0, 1)
        self.alpha = within("alpha", alpha, 0)

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The divergence from labels of high entropy, minus α times the entropy."""
        return functional.hamp_loss(logits, targets, gamma=self.gamma, alpha=self.alpha)


class Distillation(_Settings):
    """`relaxloss.functional.distillation`: it takes the teacher's logits, too.

    >>> criterion = Distillation(temperature=4.0, weight=0.5)
    >>> logits, teacher_logits, targets = torch.zeros(4, 2), torch.eye(4, 2), torch.zeros(4, dtype=torch.int64)
    >>> loss = criterion(logits, teacher_logits, targets)
    """

    def __init__(self, *, temperature: float = 10.0, weight: float = 0.5) -> None:
        super().__init__()
        self.temperature, self.weight = above_zero("temperature", temperature), within("weight", weight, 0, 1)

    def forward(self, logits: torch.Tensor, teacher_logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """In training mode the share of the teacher and of the labels, in evaluation mode the plain cross-entropy."""
        if not self.training:
            return functional.cross_entropy(logits, targets)
        return functional.distillation(
            logits, teacher_logits, targets, temperature=self.temperature, weight=self.weight
        )
