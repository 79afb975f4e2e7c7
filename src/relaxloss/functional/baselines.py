"""The losses of the other defenses: the paper's baselines, and those that came after."""

from __future__ import annotations

import functools
import math
from typing import Literal, get_args

import torch
from torch import distributed as dist
from torch.nn import functional as F

from relaxloss.errors import UserError
from relaxloss.functional.base import SKIP_NONE, above_zero, checked, cross_entropy, one_of, within
from relaxloss.functional.relax import relax_loss

Form = Literal["exp", "quadratic"]  # of the concave part of `ccl`


def label_smoothing(logits: torch.Tensor, targets: torch.Tensor, *, smoothing: float) -> torch.Tensor:
    """Cross-entropy with soft labels ``(1 - ε) onehot + ε / C``; ε = `smoothing` in [0, 1], 0 is neutral.

    Source: Szegedy et al., CVPR 2016, section 7.
    """
    within("smoothing", smoothing, 0, 1)
    return F.cross_entropy(checked(logits, targets), targets, ignore_index=SKIP_NONE, label_smoothing=smoothing)


def confidence_penalty(logits: torch.Tensor, targets: torch.Tensor, *, beta: float) -> torch.Tensor:
    """``L - β H(p)`` with H the mean entropy of the predictions; β = `beta` >= 0, 0 is neutral.

    Source: Pereyra et al., 2017, section 3.
    """
    if within("beta", beta, 0) == 0:
        return cross_entropy(logits, targets)
    log_p = torch.log_softmax(checked(logits, targets), 1)
    return F.nll_loss(log_p, targets, ignore_index=SKIP_NONE) - beta * _entropy(log_p).mean()


def _entropy(log_p: torch.Tensor) -> torch.Tensor:
    """Entropy ``-Σ_c p_c log p_c`` of each row; a class of probability 0, even at -inf, adds 0 with gradient 0."""
    return -(log_p.exp() * log_p.clamp(min=torch.finfo(log_p.dtype).min)).sum(1)


def flooding(logits: torch.Tensor, targets: torch.Tensor, *, level: float, per_sample: bool = False) -> torch.Tensor:
    """``|L - b| + b``, b = `level` >= 0 in nats: RelaxLoss that ascends in every epoch; 0 is neutral.

    With `per_sample` the mean of ``|ℓ_i - b| + b`` over the samples' own losses. At ℓ = b the gradient is descent's.

    Source: Ishida et al., ICML 2020; per sample: Xie et al., iFlood, ICLR 2022.
    """
    within("level", level, 0)
    if not per_sample:
        return relax_loss(logits, targets, alpha=level, ascent=True)
    if level == 0:  # the mean of the losses and torch's mean loss differ in the last bit
        return cross_entropy(logits, targets)
    losses = F.cross_entropy(checked(logits, targets), targets, ignore_index=SKIP_NONE, reduction="none")
    return torch.where(losses < level, 2 * level - losses, losses).mean()


def ccl(
    logits: torch.Tensor,
    targets: torch.Tensor,
    *,
    a: float = 0.5,
    beta: float = 0.05,
    form: Form = "exp",
) -> torch.Tensor:
    """Convex-concave loss ``β [a L - (1 - a) mean_i g(p_i[y_i])]``: a in [0, 1], β >= 0; neutral at a = 1, β = 1.

    ``exp``: ``g(p) = exp(p)``; ``quadratic``: ``g(p) = p + p²/2``, its Taylor series up to the constant.

    Source: Liu et al., ICML 2024.
    """
    within("a", a, 0, 1)
    within("beta", beta, 0)
    one_of("form", form, get_args(Form))
    log_p = torch.log_softmax(checked(logits, targets), 1)
    p = log_p.gather(1, targets[:, None]).exp()
    concave = p.exp() if form == "exp" else p + p.square() / 2
    return beta * (a * F.nll_loss(log_p, targets, ignore_index=SKIP_NONE) - (1 - a) * concave.mean())


@functools.lru_cache(maxsize=256)
def hamp_target(classes: int, gamma: float) -> float:
    """The probability p >= 1/C whose soft label (p on one class, ``(1-p)/(C-1)`` elsewhere) has entropy ``γ log C``.

    γ = `gamma` in [0, 1]: 0 gives 1 (a hard label), 1 gives 1/C (a uniform one). By bisection to the last bit.

    Source: Chen & Pattabiraman, HAMP, NDSS 2024.
    """
    if classes < 2:
        raise UserError(f"got {classes} classes; expected at least 2")
    within("gamma", gamma, 0, 1)
    if gamma in (0, 1):
        return 1.0 if gamma == 0 else 1 / classes
    low, high = 0.0, 1 - 1 / classes  # of q = 1 - p, in which the entropy grows; q resolves what 1 - p rounds away
    while low < (middle := (low + high) / 2) < high:
        entropy = middle * math.log((classes - 1) / middle) - (1 - middle) * math.log1p(-middle)
        low, high = (middle, high) if entropy < gamma * math.log(classes) else (low, middle)
    return 1 - low


def hamp_loss(logits: torch.Tensor, targets: torch.Tensor, *, gamma: float, alpha: float) -> torch.Tensor:
    """``mean_i KL(t_i ‖ p_i) - α H(p)``: t has `hamp_target`'s p on the true class; neutral at γ = 0, α = 0.

    NB(code): the authors' KL divides by B·C, ours by B; their α times C is ours.

    Source: Chen & Pattabiraman, HAMP, NDSS 2024.
    """
    within("alpha", alpha, 0)
    log_p = torch.log_softmax(checked(logits, targets), 1)
    classes = log_p.shape[1]
    true = hamp_target(classes, gamma)
    mean = F.nll_loss(log_p, targets, ignore_index=SKIP_NONE)
    loss = mean
    if true < 1:  # Σ_c t_c log p_c = (p - o) log p_y + o Σ_c log p_c, with o on the other classes
        other = (1 - true) / (classes - 1)
        loss = (true - other) * mean - other * log_p.sum() / len(targets) - gamma * math.log(classes)
    return loss - alpha * _entropy(log_p).mean() if alpha else loss


def distillation(
    logits: torch.Tensor, teacher_logits: torch.Tensor, targets: torch.Tensor, *, temperature: float, weight: float
) -> torch.Tensor:
    """``(1 - w) L + w T² mean_i KL(softmax(teacher/T) ‖ softmax(logits/T))``; w = `weight` in [0, 1], 0 is neutral.

    No gradient reaches the teacher.

    Source: Hinton, Vinyals, Dean, 2015, section 2.
    """
    above_zero("temperature", temperature)
    logits, teacher = checked(logits, targets), checked(teacher_logits, targets).detach()
    if teacher.shape != logits.shape:
        raise UserError(f"got teacher logits {tuple(teacher.shape)}; expected {tuple(logits.shape)}")
    if within("weight", weight, 0, 1) == 0:
        return cross_entropy(logits, targets)
    log_p, log_q = torch.log_softmax(logits / temperature, 1), torch.log_softmax(teacher / temperature, 1)
    soft = F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)
    return (1 - weight) * cross_entropy(logits, targets) + weight * temperature**2 * soft


def crl_logits(logits: torch.Tensor, t: float) -> torch.Tensor:
    """Logits with bounded norm, ``z / (1 + t ‖z‖₂)`` row by row; t >= 0, 0 is neutral.

    Source: Fang & Kim, CRL, UAI 2024.
    """
    if within("t", t, 0) == 0:
        return logits
    logits = logits if logits.dtype in (torch.float32, torch.float64) else logits.float()
    bounded: torch.Tensor = logits / (1 + t * torch.linalg.vector_norm(logits, dim=1, keepdim=True))
    return bounded


def crl_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    *,
    alpha: float,
    t: float,
    ascent: bool | torch.Tensor,
    upper: float = 1.0,
    process_group: dist.ProcessGroup | None = None,
) -> torch.Tensor:
    """`relax_loss` of the `crl_logits`, its soft labels from the raw logits' softmax; neutral at alpha = 0, t = 0.

    Source: Fang & Kim, CRL, UAI 2024, the first of its two losses; the second is `relaxed_center_loss`.
    """
    raw = checked(logits, targets).detach()
    confidence = raw.softmax(1).gather(1, targets[:, None])[:, 0]
    return relax_loss(
        crl_logits(logits, t),
        targets,
        alpha=alpha,
        ascent=ascent,
        upper=upper,
        confidence=confidence,
        process_group=process_group,
    )


def relaxed_center_loss(
    features: torch.Tensor,
    centers: torch.Tensor,
    confidence: torch.Tensor,
    *,
    alpha: float,
    ascent: bool,
    upper: float = 1.0,
) -> torch.Tensor:
    """The centre loss ``D = 1/2B Σ_i ‖f_i - c_i‖²`` held at `alpha` by the rule of RelaxLoss, a scalar to descend on.

    ``D`` where it is at least alpha; below it ``2 alpha - D`` in an ascent epoch, and else
    ``1/2B Σ_i [p_i ‖f_i - c_i‖² + (1 - p_i) ‖f_i‖²]``, which lets the features of doubtful samples go to the origin.

    Args:
        features: ``(B, F)``, bounded as by `crl_logits`.
        centers: ``(B, F)``, of each sample's class, bounded likewise.
        confidence: ``(B,)`` probability of the true class, clamped to `upper`; carries no gradient.
        alpha: the target of D, >= 0.
        ascent: as for `relax_loss`.
        upper: the bound on the confidence.

    Source: Fang & Kim, CRL, UAI 2024, relaxed centre loss.
    """
    within("alpha", alpha, 0)
    if features.ndim != 2 or centers.shape != features.shape or confidence.shape != features.shape[:1]:
        got = ", ".join(str(tuple(each.shape)) for each in (features, centers, confidence))
        raise UserError(f"got features, centers and confidence of shapes {got}; expected (B, F), (B, F) and (B,)")
    distance = (features - centers).square().sum(1)
    mean = distance.mean() / 2
    if ascent:
        relaxed = 2 * alpha - mean
    else:
        p = confidence.detach().clamp(max=upper)
        relaxed = (p * distance + (1 - p) * features.square().sum(1)).mean() / 2
    return torch.where(mean < alpha, relaxed, mean)
