"""Stochastic gradient descent, with momentum. Robbins & Monro 1951; Polyak 1964; Nesterov 1983; Sutskever 2013."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator

from danlu.base.settings import Auto
from danlu.optim.groups import DecaySettings, Factor, Group, Role, Share

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.optim.driver import Rule, State


class SGD(DecaySettings):
    """Gradient descent on a batch; it is plain gradient descent when the batch is the whole data set.

    g <- g + weight_decay * p
    b <- momentum * b + (1 - dampening) g        (b starts at 0)
    p <- p - lr * b                              Nesterov: p <- p - lr * (g + momentum * b)
    """

    kind: Literal["sgd"] = "sgd"
    """Stochastic gradient descent (Robbins & Monro 1951)."""
    momentum: Share = 0.9
    """Share of the running sum of gradients kept at each update (Polyak 1964); 0 is plain gradient descent."""
    nesterov: bool = False
    """Look ahead along the momentum (Nesterov 1983, in the form of Sutskever 2013)."""
    dampening: Share = 0.0
    """Share of each new gradient left out of the running sum; equal to momentum, the sum becomes a mean."""
    weight_decay: Factor | Auto = 0.0
    """L2 penalty: weight_decay * p is added to the gradient (for sgd the same as decay by lr * weight_decay)."""

    @model_validator(mode="after")
    def check_nesterov(self) -> Self:
        """Nesterov's step is defined with momentum and without dampening."""
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ValueError("nesterov must go with a momentum above 0 and a dampening of 0")
        return self

    def lr_scale_of(self, role: Role, scales: Mapping[str, float]) -> float:
        """Gradients shrink with the width where Adam's steps do not: table 8 of Yang & Hu 2021, SGD's column."""
        return scales.get(role, 1.0) / scales.get("hidden", 1.0)

    def rule(self) -> Rule:
        """Gradient descent with this momentum."""
        return SGDRule(self.momentum, self.dampening, self.nesterov)


@dataclass(frozen=True)
class SGDRule:
    """Gradient descent in one pass over memory (torch's fused kernel)."""

    momentum: float
    dampening: float
    nesterov: bool
    name = "sgd"
    is_blockwise = False

    def state(self, parameter: Tensor) -> dict[str, Tensor]:
        """The running sum of gradients; nothing without momentum."""
        import torch

        return {"momentum": torch.zeros_like(parameter)} if self.momentum else {}

    def update(self, parameters: list[Tensor], gradients: list[Tensor], state: State, lr: float, group: Group) -> None:
        """One update in place."""
        import torch

        torch._fused_sgd_(
            parameters,
            gradients,
            state.get("momentum", []),
            weight_decay=group.weight_decay,
            momentum=self.momentum,
            lr=lr,
            dampening=self.dampening,
            nesterov=self.nesterov,
            maximize=False,
            is_first_step=False,
        )
