"""The coordinate check: does a parametrization move every part of a network equally far at every width, and at every depth?

    check(lambda width: Decoder(..., width=width, parametrization="mup").build(256, 0), (64, 128, 256, 512), batch, AdamW(lr=0.01))

A few updates on one batch; of each watched module, the RMS of the change of its output since the start. Under a right
parametrization it does not depend on width, so its slope in log width is about 0; under the standard one the changes of
hidden layers grow with width, and a rate that suits a narrow model is too high for a wide one (Yang & Hu 2021, 2203.03466,
appendix D; the check is the one that its authors ask for before any transfer). The same goes for depth: the change of the
residual stream at its end grows with the number of layers, and does not under CompleteP (Dey 2025, 2505.01618, figure 7);
what a given early layer sees changes less and less there, because each layer has a smaller share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from danlu.base.contracts import Batch
from danlu.optim.groups import OptimizerSettings

N_STEPS = 4
"""Updates before the outputs are compared: past the first, where zero-initialised parts do not move yet."""

STREAM = "residual stream"
"""Name of the residual stream's end among the watched modules."""


@dataclass(frozen=True)
class Moved:
    """How far one module's output moved."""

    module: str
    sizes: tuple[int, ...]
    """Widths or depths."""
    change: tuple[float, ...]
    """RMS of the change, by size."""

    @property
    def slope(self) -> float:
        """d log RMS / d log size, by least squares."""
        return float(np.polyfit(np.log(self.sizes), np.log(np.maximum(self.change, 1e-30)), 1)[0])


def check(
    build: Callable[[int], nn.Module],
    sizes: Sequence[int],
    batch: Batch,
    task: Any,
    optimizer: OptimizerSettings,
    n_steps: int = N_STEPS,
) -> list[Moved]:
    """One entry a linear layer that is there at every size, and one for the end of the residual stream."""
    changes = [changed(build(size), batch, task, optimizer, n_steps) for size in sizes]
    names = [name for name in changes[0] if all(name in other for other in changes)]
    return [Moved(name, tuple(sizes), tuple(found[name] for found in changes)) for name in names]


def changed(model: nn.Module, batch: Batch, task: Any, settings: OptimizerSettings, n_steps: int) -> dict[str, float]:
    """RMS of each watched output's change over n_steps updates on one batch, at the settings' rate throughout."""
    rate = settings.lr
    if rate == "auto":
        raise ValueError("the coordinate check needs a rate")
    optimizer = settings.build(model)
    before = outputs(model, batch)
    for _ in range(n_steps):
        (task.loss_sum(model(batch), batch) / batch.n_targets).backward()
        optimizer.step(rate)
        optimizer.zero_grad()
    after = outputs(model, batch)
    return {name: float((after[name] - old).square().mean().sqrt()) for name, old in before.items()}


@torch.no_grad()
def outputs(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Outputs of the linear layers (torch's or our own) by name; what goes into the last norm as STREAM."""
    found: dict[str, Tensor] = {}
    handles = []
    for name, module in model.named_modules():
        kind = type(module).__name__
        if kind == "Linear" or (kind == "Norm" and name == "norm"):
            handles.append(module.register_forward_hook(keep(found, name if kind == "Linear" else STREAM)))
    try:
        model(batch)
    finally:
        for handle in handles:
            handle.remove()
    return found


def keep(found: dict[str, Tensor], name: str) -> Callable[..., None]:
    """A hook that keeps a module's output (of a norm joined with the residual sum: the sum) under a name."""

    def hook(_: nn.Module, __: object, out: Tensor | tuple[Tensor, Tensor]) -> None:
        found[name] = (out[0] if isinstance(out, tuple) else out).float().clone()

    return hook
