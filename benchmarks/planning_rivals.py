"""Two optimizers without a rate to choose, for the planning benchmark only. Written from the papers.

Prodigy: Mishchenko & Defazio 2023, 2306.06101, algorithm 4 (with decoupled decay)
ScheduleFree: Defazio 2024, 2405.15682, algorithm 1
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from danlu.optim.driver import Driver
from danlu.optim.groups import DecaySettings, Group, group_parameters


@dataclass
class Distance:
    """What Prodigy knows of the way to the solution, over all parameters."""

    d: float = 1e-6
    d0: float = 1e-6
    r: float = 0.0
    s: float = 0.0
    """Sums of this step over the parts."""
    steps: int = 0


@dataclass
class ProdigyRule:
    """The update of one part; the estimate is taken once a step, before the first part."""

    shared: Distance
    first: list[bool] = field(default_factory=lambda: [True])
    name: str = "prodigy"
    is_blockwise: bool = False
    beta1: float = 0.9
    beta2: float = 0.999

    def state(self, parameter: Tensor) -> dict[str, Tensor]:
        """Start, gradient sum, means."""
        zeros = torch.zeros_like(parameter)
        return {
            "start": parameter.detach().clone(),
            "sum": zeros.clone(),
            "mean": zeros.clone(),
            "square": zeros.clone(),
        }

    def update(self, parameters: list[Tensor], gradients: list[Tensor], state: Any, lr: float, group: Group) -> None:
        """d from the sums of the step before, then Adam at d lr."""
        at, beta3 = self.shared, self.beta2**0.5
        step = lr / group.lr_scale
        for i, (p, g) in enumerate(zip(parameters, gradients, strict=True)):
            way = at.d / at.d0 * at.d * step
            at.r += way * float((g * (state["start"][i] - p)).sum())
            state["sum"][i].mul_(beta3).add_(g, alpha=way)
            at.s += float(state["sum"][i].abs().sum())
            state["mean"][i].mul_(self.beta1).add_(g, alpha=at.d * (1 - self.beta1))
            state["square"][i].mul_(self.beta2).addcmul_(g, g, value=at.d**2 * (1 - self.beta2))
            p.mul_(1 - step * group.weight_decay * at.d)
            p.addcdiv_(state["mean"][i], state["square"][i].sqrt().add_(at.d * 1e-8), value=-step * at.d)


class ProdigyDriver(Driver):
    """Takes the estimate after each step over all parts."""

    def step(self, lr: float) -> None:
        """One update of everything."""
        at = self.shared
        kept, at.s = at.r * 0.999**0.5, 0.0
        at.r = kept
        super().step(lr)
        if at.s > 0:
            at.d = max(at.d, at.r / at.s)

    shared: Distance


class Prodigy(DecaySettings):
    """lr is a multiple of what Prodigy finds; 1 is its authors' value."""

    kind: Literal["planning_rivals:Prodigy"] = "planning_rivals:Prodigy"
    """Prodigy."""

    def build(self, model: Any, groups: Any = None) -> Any:
        """All parts share one distance."""
        shared = Distance()
        driver = ProdigyDriver([(group, ProdigyRule(shared)) for group in group_parameters(model, self)])
        driver.shared = shared
        return driver


@dataclass
class ScheduleFreeRule:
    """Gradients at y, steps of z, the average x."""

    name: str = "schedule_free"
    is_blockwise: bool = False
    beta1: float = 0.9
    beta2: float = 0.999

    def state(self, parameter: Tensor) -> dict[str, Tensor]:
        """z, x, the squared mean, the count and the sum of weights."""
        start = parameter.detach()
        return {"z": start.clone(), "x": start.clone(), "square": torch.zeros_like(start),
                "t": torch.zeros(()), "weights": torch.zeros(())}  # fmt: skip

    def update(self, parameters: list[Tensor], gradients: list[Tensor], state: Any, lr: float, group: Group) -> None:
        """One update; the parameters hold y."""
        for i, (p, g) in enumerate(zip(parameters, gradients, strict=True)):
            z, x, v = state["z"][i], state["x"][i], state["square"][i]
            state["t"][i] += 1
            v.mul_(self.beta2).addcmul_(g, g, value=1 - self.beta2)
            root = (v / (1 - self.beta2 ** float(state["t"][i]))).sqrt_().add_(1e-8)
            z.sub_(lr * (g / root + group.weight_decay * p))
            state["weights"][i] += lr**2
            c = float(lr**2 / state["weights"][i])
            x.lerp_(z, c)
            p.copy_(x).lerp_(z, 1 - self.beta1)


class ScheduleFree(DecaySettings):
    """Schedule-free AdamW; wants a constant rate after the warm-up."""

    kind: Literal["planning_rivals:ScheduleFree"] = "planning_rivals:ScheduleFree"
    """Schedule-free AdamW."""

    def rule(self) -> Any:
        """Its update."""
        return ScheduleFreeRule()


def put_average(optimizer: Any) -> None:
    """The average x into the parameters, to be scored."""
    for part in optimizer.parts:
        if part.rule.name == "schedule_free":
            for p, slot in zip(part.parameters, part.slots, strict=True):
                p.detach().copy_(slot["x"])
