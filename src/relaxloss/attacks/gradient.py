"""White-box attacks: the norm of the loss's gradient (Nasr et al., S&P 2019; Rezaei & Liu, CVPR 2021; RelaxLoss, 5).

Threat model: the attacker holds the weights and the true label. It sees the network beneath the release, so that a
defense which only changes outputs does not touch these attacks. Training drives members' gradients towards zero: the
score is the negative norm. The norms are exact and per sample (`relaxloss.gradients`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from relaxloss.attacks.base import Attack, Evidence, Needs, Scores, attacks


@dataclass(frozen=True)
class GradientNorm(Attack):
    """Minus one of the four norms of ``Signals.gradient_norms``."""

    needs: ClassVar[Needs] = Needs(queries=("plain", "white_box"))
    column: ClassVar[int]

    def score(self, evidence: Evidence) -> Scores:
        """``-‖∇ loss‖`` of every asked sample ``(N,)``."""
        norms = evidence.target.gradient_norms
        assert norms is not None  # needs.queries
        return np.asarray(0.0 - norms[:, self.column].astype(np.float64))


@attacks.register("grad_x_l1")
@dataclass(frozen=True)
class InputL1(GradientNorm):
    """``-‖∇_x loss‖₁``, with respect to the network's input."""

    about = "minus the L1 norm of the loss's gradient at the input"
    column = 0


@attacks.register("grad_x_l2")
@dataclass(frozen=True)
class InputL2(GradientNorm):
    """``-‖∇_x loss‖₂``, with respect to the network's input."""

    about = "minus the L2 norm of the loss's gradient at the input"
    column = 1


@attacks.register("grad_w_l1")
@dataclass(frozen=True)
class WeightL1(GradientNorm):
    """``-‖∇_w loss‖₁``, with respect to all weights."""

    about = "minus the L1 norm of the loss's gradient at the weights"
    column = 2


@attacks.register("grad_w_l2")
@dataclass(frozen=True)
class WeightL2(GradientNorm):
    """``-‖∇_w loss‖₂``, with respect to all weights."""

    about = "minus the L2 norm of the loss's gradient at the weights"
    column = 3
