"""Adam: steps of about the rate in every coordinate, whatever the gradient's scale. Kingma & Ba 2014, 1412.6980."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from danlu.base.settings import Auto
from danlu.optim.groups import DecaySettings, Factor, Group, Rate, Share

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.optim.driver import Rule, State


class Adam(DecaySettings):
    """Adam with coupled (L2) decay: the decay joins the gradient and is normalised with it.

    g <- g + weight_decay * p
    m <- beta1 m + (1 - beta1) g;  v <- beta2 v + (1 - beta2) g^2
    p <- p - lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
    """

    kind: Literal["adam"] = "adam"
    """Adam (Kingma & Ba 2014)."""
    beta1: Share = 0.9
    """Share of the gradient's running mean kept at each update."""
    beta2: Share = 0.999
    """Share of the squared gradient's running mean kept at each update (0.999: Kingma & Ba)."""
    eps: Rate = 1e-8
    """Added to the root of the squared mean, in gradient units."""
    weight_decay: Factor | Auto = 0.0
    """L2 penalty: weight_decay * p is added to the gradient. For decay that Adam does not normalise, use adamw."""

    def rule(self) -> Rule:
        """Adam with its decay in the gradient."""
        return AdamRule("adam", self.beta1, self.beta2, self.eps, is_decoupled=False)


@dataclass(frozen=True)
class AdamRule:
    """Adam or AdamW in one pass over memory (torch's fused kernel, called without torch.optim's bookkeeping)."""

    name: str
    beta1: float
    beta2: float
    eps: float
    is_decoupled: bool
    is_blockwise = False

    def state(self, parameter: Tensor) -> dict[str, Tensor]:
        """Two running means and the count of updates."""
        import torch

        step = torch.zeros((), dtype=torch.float32, device=parameter.device)
        return {"mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter), "step": step}

    def update(self, parameters: list[Tensor], gradients: list[Tensor], state: State, lr: float, group: Group) -> None:
        """One update in place."""
        import torch

        fused = torch._fused_adamw_ if self.is_decoupled else torch._fused_adam_
        torch._foreach_add_(state["step"], 1.0)
        fused(
            parameters,
            gradients,
            state["mean"],
            state["square"],
            [],
            state["step"],
            lr=lr,
            beta1=self.beta1,
            beta2=self.beta2,
            weight_decay=group.weight_decay,
            eps=self.eps * group.eps_scale,
            amsgrad=False,
            maximize=False,
        )
