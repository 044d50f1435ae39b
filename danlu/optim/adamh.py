"""AdamH: AdamW on a sphere. Each hidden matrix keeps the Frobenius norm it started with, and each step turns it by a
set angle, so that no weight decay is left to choose and the rate is said to transfer across width and depth.
Hyperball, 2606.16899; used for Marin's Delphi forecast (openathena.ai/blog/delphi).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from danlu.optim.adam import AdamRule
from danlu.optim.groups import Group, OptimizerSettings, Rate, Role, Share

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.optim.driver import Rule, State

TINY = 1e-30
"""Least norm divided by."""


class AdamH(OptimizerSettings):
    """AdamH for the hidden matrices, plain Adam for embeddings, head and vectors; no weight decay anywhere.

        u = Adam's direction (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
        W <- W - lr * R * u / |u|;  W <- R * W / |W|          R = |W| at the start, Frobenius norms

    `lr` is the step's length over the matrix's norm; sqrt(lr * weight_decay) of a good AdamW is a fair guess (about
    0.02). A matrix that starts at zero has no norm to keep: plain Adam updates it, in a group of its own.
    """

    kind: Literal["adamh"] = "adamh"
    """AdamH (2606.16899)."""
    beta1: Share = 0.9
    """Share of the gradient's running mean kept at each update."""
    beta2: Share = 0.95
    """Share of the squared gradient's running mean kept at each update."""
    eps: Rate = 1e-8
    """Added to the root of the squared mean, in gradient units."""
    adam_lr_ratio: Rate = 0.1
    """Embeddings, head and vectors learn at this multiple of lr, by Adam (lr 0.02 gives 2e-3)."""

    def lr_scale_of(self, role: Role, scales: Mapping[str, float]) -> float:
        """A step in proportion to the matrix needs no factor for its width (2606.16899; coordinate check in
        docs/LOG.md: +0.07 with none, -0.31 with the root of Adam's factor)."""
        return 1.0 if role == "hidden" else scales.get(role, 1.0)

    def rule(self) -> Rule:
        """The rule for matrices."""
        return AdamHRule(self.adam("adam"))

    def adam(self, name: str) -> AdamRule:
        """Adam without decay."""
        return AdamRule(name, self.beta1, self.beta2, self.eps, is_decoupled=True)

    def place(self, group: Group) -> list[tuple[Group, Rule]]:
        """Hidden matrices with a norm by AdamH, the rest by Adam at its own rate."""
        free = dataclasses.replace(group, lr_scale=group.lr_scale * self.adam_lr_ratio)
        if group.role != "hidden":
            return [(free, self.adam("adam"))]
        held = [i for i, p in enumerate(group.parameters) if bool(p.detach().any())]
        zero = [i for i in range(len(group.parameters)) if i not in set(held)]
        free = dataclasses.replace(free, lr_scale=free.lr_scale * group.model_lr_scale)
        placed: list[tuple[Group, Rule]] = [(group.part(held), self.rule())] if held else []
        return [*placed, (free.part(zero), self.adam("adam, starts at zero"))] if zero else placed


@dataclass(frozen=True)
class AdamHRule:
    """Adam's direction, laid along a sphere."""

    adam: AdamRule
    name = "adamh"
    is_blockwise = False

    def state(self, parameter: Tensor) -> dict[str, Tensor]:
        """Adam's state and the norm to keep."""
        import torch

        return {**self.adam.state(parameter), "norm": torch.linalg.vector_norm(parameter)}

    def update(self, parameters: list[Tensor], gradients: list[Tensor], state: State, lr: float, group: Group) -> None:
        """One update in place, matrix by matrix so that a CPU keeps each in cache."""
        import torch

        free = dataclasses.replace(group, weight_decay=0.0)
        for i, (p, g) in enumerate(zip(parameters, gradients, strict=True)):
            norm = state["norm"][i]
            step = torch.zeros_like(p)
            # Adam's own step from zero at rate -1 is its direction.
            self.adam.update([step], [g], {slot: [state[slot][i]] for slot in ("mean", "square", "step")}, -1.0, free)
            p.addcmul_(step, norm / torch.linalg.vector_norm(step).clamp_min(TINY), value=-lr)
            p.mul_(norm / torch.linalg.vector_norm(p).clamp_min(TINY))
