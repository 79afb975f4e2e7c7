"""RelaxLoss (Chen, Yu, Fritz, ICLR 2022, Algorithm 1): one step's loss, and the soft labels of posterior flattening.

Every branch is a weighted sum of log-probabilities with weights that carry no gradient, so the gradient at the logits
is closed-form without a backward of our own: log-softmax's turns weights ``w`` into ``(p Σ_c w_c - w) / B``.
"""

from __future__ import annotations

from math import inf, log
from typing import Literal, get_args

import torch
from torch import distributed as dist
from torch.nn import functional as F

from relaxloss.errors import UserError, unknown
from relaxloss.functional.base import NO_NUMBERS, SKIP_NONE, checked

Flatten = Literal["all", "misclassified", "official"]
FLATTENS: tuple[Flatten, ...] = get_args(Flatten)
TINY = 1e-20
RIGHT = 1e-12  # the weight of samples that are answered right, in float32: RIGHT * TINY is no 0, and not denormal


def check_settings(alpha: float, flatten: str, upper: float) -> None:
    """Raise `UserError` unless alpha >= 0, 0 < upper <= 1 and `flatten` is known."""
    if isinstance(alpha, NO_NUMBERS) or not alpha >= 0 or alpha == inf:
        raise UserError(f"got alpha={alpha!r}; expected a mean loss in nats, at least 0 (0: plain training)")
    if isinstance(upper, NO_NUMBERS) or not 0 < upper <= 1:
        raise UserError(f"got upper={upper!r}; expected a probability above 0 and at most 1 (1: no bound)")
    if flatten not in FLATTENS:
        raise unknown("flatten", flatten, FLATTENS)


def flattened_targets(logits: torch.Tensor, targets: torch.Tensor, *, upper: float = 1.0) -> torch.Tensor:
    """The soft labels of posterior flattening, ``(B, C)``, detached; each row sums to 1.

    ``t[y] = min(p[y], upper)`` on the true class y and ``t[c] = (1 - t[y]) / (C - 1)`` on every other.

    NB(paper): the poster prints ``(1 - p[c]) / (C - 1)``, which does not sum to 1; the paper has the true class there.

    Args:
        logits: ``(B, C)``.
        targets: ``(B,)`` int64.
        upper: the bound on the true class's probability, in (0, 1] (0.1 to 0.3 for the paper's tabular data).
    """
    check_settings(0.0, "all", upper)
    log_p = torch.log_softmax(checked(logits, targets).detach(), 1)
    label = targets.unsqueeze(1)
    true = log_p.gather(1, label).exp().clamp(max=upper)
    return ((1 - true) / (log_p.shape[1] - 1)).expand_as(log_p).scatter(1, label, true)


def relax_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    *,
    alpha: float,
    ascent: bool | torch.Tensor,
    flatten: Flatten = "all",
    upper: float = 1.0,
    stop_gradient: bool = True,
    confidence: torch.Tensor | None = None,
    process_group: dist.ProcessGroup | None = None,
) -> torch.Tensor:
    """One step's loss, a scalar to descend on. With L the batch's mean cross-entropy:

    ===================  =============================  ==================================================
    branch               gradient at the logits         value
    ===================  =============================  ==================================================
    L >= alpha           ``(p - onehot) / B``           ``L``
    L < alpha, ascent    ``-(p - onehot) / B``          ``2 alpha - L``: L mirrored at alpha, as in flooding
    L < alpha, else      by `flatten`, see below        soft cross-entropy ``-1/B Σ_i Σ_c w_ic log p_ic``
    ===================  =============================  ==================================================

    Posterior flattening, with t the `flattened_targets` (stop-gradient) and wrong_i whether sample i is misclassified
    (a tie for the largest logit counts as correct):

    * ``all`` (the paper for tabular data): ``w = t``, gradient ``(p - t) / B``, which is 0 on the true class when
      `upper` is 1;
    * ``misclassified`` (the paper for images): ``w = wrong t``, gradient ``wrong (p - t) / B``;
    * ``official`` (NB(code): the released image code, here with the stop-gradient): ``w = wrong t - onehot``, gradient
      ``(wrong (p - t) - (p - onehot)) / B``: ascent on every sample on top.

    Without the stop-gradient (NB(code): the released code has none) t moves with the logits, and each ``p - t`` becomes
    ``p - t + κ (p - onehot)`` with ``κ = p[y] (log p[y] - mean_{c≠y} log p[c])`` where ``p[y] < upper``, else 0: some
    of the cross-entropy's own gradient, by which a sample above chance is learned further, not held. Values are the
    same.

    ``alpha=0`` is `cross_entropy` bit for bit, since L is never below 0; so is every step with L >= alpha. If L is NaN
    or infinite, L is returned. A logit of -inf (a masked class) makes the flattening's value +inf; its gradient stays
    finite (κ's mean leaves the class out). Use a large negative number to keep the value finite too.

    The branch is chosen on the device, without a wait; on the CPU the host chooses and computes no other branch.

    Args:
        logits: ``(B, C)``.
        targets: ``(B,)`` int64.
        alpha: the target of the mean loss, in nats, >= 0; from 0 (plain training) to log C (a guess).
        ascent: True in the paper's even epochs, which are 1, 3, 5, ... counted from 0. A 0-dim bool tensor keeps the
            choice on the device, at the cost of computing both branches.
        flatten: what posterior flattening does, see above.
        upper: the bound on the true class's probability in t, in (0, 1].
        stop_gradient: whether t is a constant, as in the paper; False is the ablation.
        confidence: ``(B,)`` true-class probabilities from which t is built; by default those of `logits`.
        process_group: decide by the mean over all of the group's batches, weighted by their sizes, so that all ranks
            take the same branch and it is the one a single device would take; None: this process's batch alone.

    Raises:
        UserError: on wrong shapes, types or settings.

    Source: RelaxLoss, Algorithm 1; the practical variants in its appendix.
    """
    check_settings(alpha, flatten, upper)
    log_p = torch.log_softmax(checked(logits, targets), 1)
    mean = F.nll_loss(log_p, targets, ignore_index=SKIP_NONE)
    decides = mean if process_group is None else _over_all(mean.detach(), len(targets), process_group)
    below = decides < alpha  # False for NaN
    known = _on_host(below)
    if known is False:
        return mean
    if isinstance(ascent, torch.Tensor) or not ascent:
        relaxed = _flattened(log_p, targets, flatten, upper, confidence)
        if not stop_gradient:
            relaxed = relaxed + _through_labels(log_p, targets, flatten, upper, confidence)
        if isinstance(ascent, torch.Tensor):
            relaxed = torch.where(ascent, 2 * alpha - mean, relaxed)
    else:
        relaxed = 2 * alpha - mean
    return relaxed if known else torch.where(below, relaxed, mean)


def _on_host(choice: torch.Tensor) -> bool | None:
    """The choice, where the host knows it and may act on it; None where it must stay in the tensor."""
    if (
        not choice.is_cpu or torch.compiler.is_compiling()
    ):  # the host would have to wait; or the graph would hold one branch
        return None
    try:
        return bool(choice)
    except RuntimeError:  # under torch.func.vmap, where every sample has a choice of its own
        return None


def _flattened(
    log_p: torch.Tensor, targets: torch.Tensor, flatten: Flatten, upper: float, confidence: torch.Tensor | None
) -> torch.Tensor:
    """The soft cross-entropy ``Σ_ic (-w_ic / B) log p_ic`` of posterior flattening.

    In few operators: in a training step, where caches are cold, one on ``(B, 1)`` costs as much as one on ``(B, C)``.
    """
    batch, classes = log_p.shape
    label, fixed = targets.unsqueeze(1), log_p.detach()
    own = fixed.gather(1, label)
    rest = _rest(own if confidence is None else confidence.detach().log().unsqueeze(1), upper)
    true, other = torch.rsub(rest, -1 / batch, alpha=1 / batch), rest * (1 / (batch * (classes - 1)))
    if flatten != "all":
        wrong = (fixed.amax(1, keepdim=True) > own) + (RIGHT if log_p.dtype is torch.float32 else TINY)
        true, other = true * wrong, other * wrong
    if flatten == "official":
        true = true + 1 / batch
    return (other.expand(batch, classes).scatter(1, label, true) * log_p).sum()


def _through_labels(
    log_p: torch.Tensor, targets: torch.Tensor, flatten: Flatten, upper: float, confidence: torch.Tensor | None
) -> torch.Tensor:
    """What `_flattened` lacks without the stop-gradient: a 0, whose derivatives are those that go through t.

    With ``m = mean_{c≠y} log p[c] - log p[y]`` it is ``1/B Σ_i (t_i[y] - sg(t_i[y])) m_i``, right at every order. A
    masked class's -inf is left out of m: on a device this branch is computed in descending steps too, and an infinite
    derivative that is not chosen would still be NaN.
    """
    label, fixed = targets.unsqueeze(1), log_p.detach()
    rest = _rest(log_p.gather(1, label) if confidence is None else confidence.log().unsqueeze(1), upper)
    known = log_p.masked_fill(fixed == -inf, 0)
    own = known.gather(1, label)
    apart = (known.sum(1, keepdim=True) - own) / (log_p.shape[1] - 1) - own
    if flatten != "all":
        apart = apart * (fixed.amax(1, keepdim=True) > fixed.gather(1, label))
    return ((rest - rest.detach()) * apart).mean()


def _rest(log_t: torch.Tensor, upper: float) -> torch.Tensor:
    """``t[y] - 1`` from the logarithm of the true class's probability ``(B, 1)``, bounded.

    Never 0, so that a masked class's -inf never meets a weight of exactly 0, which would make NaN; TINY changes no
    other digit, and its multiples are no slow denormal numbers.
    """
    return log_t.clamp(max=min(log(upper), -TINY)).expm1_()


def _over_all(mean: torch.Tensor, count: int, group: dist.ProcessGroup) -> torch.Tensor:
    """The mean over all of a process group's samples from each rank's mean and count; never waits for the device."""
    total = torch.stack([mean * count, torch.full_like(mean, count)])
    dist.all_reduce(total, group=group)
    return total[0] / total[1]
