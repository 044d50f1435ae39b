"""Lion: the sign of a mean of gradients, found by program search. Chen 2023, 2302.06675."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from danlu.base.settings import Auto
from danlu.optim.groups import DecaySettings, Factor, Group, Share

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.optim.driver import Rule, State


class Lion(DecaySettings):
    """Lion: half of Adam's state; wants a rate 3-10 times below AdamW's and a decay as much above (its section 5).

    p <- p - lr * weight_decay * p
    p <- p - lr * sign(beta1 m + (1 - beta1) g)
    m <- beta2 m + (1 - beta2) g
    """

    kind: Literal["lion"] = "lion"
    """Lion (Chen 2023)."""
    beta1: Share = 0.9
    """Share of the running mean in the direction of a step (0.95 for language models in the paper)."""
    beta2: Share = 0.99
    """Share of the running mean kept at each update (0.98 for language models in the paper)."""
    weight_decay: Factor | Auto = "auto"
    """Each update takes lr * weight_decay of every matrix away. "auto": answered by the plan."""

    def rule(self) -> Rule:
        """Lion with these means."""
        return LionRule(self.beta1, self.beta2)


@dataclass(frozen=True)
class LionRule:
    """Lion by blocks."""

    beta1: float
    beta2: float
    name = "lion"
    is_blockwise = True

    def state(self, parameter: Tensor) -> dict[str, Tensor]:
        """The running mean of gradients."""
        import torch

        return {"mean": torch.zeros_like(parameter)}

    def update(self, parameters: list[Tensor], gradients: list[Tensor], state: State, lr: float, group: Group) -> None:
        """One update in place."""
        import torch

        direction = torch._foreach_lerp(state["mean"], gradients, 1 - self.beta1)
        torch._foreach_sign_(direction)
        if group.weight_decay:
            torch._foreach_mul_(parameters, 1 - lr * group.weight_decay)
        torch._foreach_add_(parameters, direction, alpha=-lr)
        torch._foreach_lerp_(state["mean"], gradients, 1 - self.beta2)
