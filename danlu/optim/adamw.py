"""AdamW: Adam whose decay is kept out of the gradient. Loshchilov & Hutter 2017, 1711.05101."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from danlu.base.settings import Auto
from danlu.optim.adam import AdamRule
from danlu.optim.groups import DecaySettings, Factor, Rate, Share, planned

if TYPE_CHECKING:
    from danlu.optim.driver import Rule


class AdamW(DecaySettings):
    """Adam with decoupled decay: the standard for language models.

    p <- p - lr * weight_decay * p
    m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2
    p <- p - lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
    """

    kind: Literal["adamw"] = "adamw"
    """AdamW (Loshchilov & Hutter 2017)."""
    beta1: Share = 0.9
    """Share of the gradient's running mean kept at each update."""
    beta2: Share | Auto = 0.95
    """Share of the squared gradient's running mean kept at each update (0.95: GPT-3, Brown 2020). "auto": nearer to 1
    for small batches, so that its half-life in tokens stays the same (Marek 2025, 2507.07101)."""
    eps: Rate = 1e-8
    """Added to the root of the squared mean, in gradient units."""
    weight_decay: Factor | Auto = "auto"
    """Each update takes lr * weight_decay of every matrix away (PyTorch's convention). "auto": answered by the plan."""

    def rule(self) -> Rule:
        """Adam with its decay apart."""
        beta2 = planned(self.beta2, "optimizer.beta2", 0.95)
        return AdamRule("adamw", self.beta1, beta2, self.eps, is_decoupled=True)
