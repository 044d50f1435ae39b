"""RMSprop: the gradient over the root of its running mean square. Tieleman & Hinton 2012 (Coursera, lecture 6e)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from danlu.base.settings import Auto
from danlu.optim.groups import DecaySettings, Factor, Group, Rate, Share

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.optim.driver import Rule, State


class RMSprop(DecaySettings):
    """RMSprop, with momentum when asked for (Graves 2013, 1308.0850, without the centring).

    g <- g + weight_decay * p
    v <- alpha v + (1 - alpha) g^2
    b <- momentum * b + g / (sqrt(v) + eps)      (b starts at 0)
    p <- p - lr * b
    """

    kind: Literal["rmsprop"] = "rmsprop"
    """RMSprop (Tieleman & Hinton 2012)."""
    alpha: Share = 0.99
    """Share of the squared gradient's running mean kept at each update."""
    eps: Rate = 1e-8
    """Added to the root of the running mean, in gradient units."""
    momentum: Share = 0.0
    """Share of the running sum of steps kept at each update."""
    weight_decay: Factor | Auto = 0.0
    """L2 penalty: weight_decay * p is added to the gradient."""

    def rule(self) -> Rule:
        """RMSprop with these means."""
        return RMSpropRule(self.alpha, self.eps, self.momentum)


@dataclass(frozen=True)
class RMSpropRule:
    """RMSprop by blocks."""

    alpha: float
    eps: float
    momentum: float
    name = "rmsprop"
    is_blockwise = True

    def state(self, parameter: Tensor) -> dict[str, Tensor]:
        """The running mean square, and the running sum of steps with momentum."""
        import torch

        slots = {"square": torch.zeros_like(parameter)}
        return slots | ({"momentum": torch.zeros_like(parameter)} if self.momentum else {})

    def update(self, parameters: list[Tensor], gradients: list[Tensor], state: State, lr: float, group: Group) -> None:
        """One update in place."""
        import torch

        square = state["square"]
        if group.weight_decay:
            gradients = list(torch._foreach_add(gradients, parameters, alpha=group.weight_decay))
        torch._foreach_mul_(square, self.alpha)
        torch._foreach_addcmul_(square, gradients, gradients, 1 - self.alpha)
        root = torch._foreach_sqrt(square)
        torch._foreach_add_(root, self.eps * group.eps_scale)
        if self.momentum:
            torch._foreach_mul_(state["momentum"], self.momentum)
            torch._foreach_addcdiv_(state["momentum"], gradients, root, 1.0)
            torch._foreach_add_(parameters, state["momentum"], alpha=-lr)
        else:
            torch._foreach_addcdiv_(parameters, gradients, root, -lr)
