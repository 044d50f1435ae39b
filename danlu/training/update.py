"""What happens to gradients between backward and the optimizer: penalty, clipping, norms. All of it on lists of tensors."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from danlu.base.contracts import NOT_STEP, Batch, Optimizer, Task
from danlu.parallel.mesh import Mesh


@dataclass
class Parts:
    """What one update needs."""

    model: nn.Module
    task: Task
    optimizer: Optimizer
    mesh: Mesh
    max_norm: float | None = None
    clip_value: float | None = None
    l2: float = 0.0
    l1: float = 0.0
    after_backward: Callable[[Batch], None] | None = None
    """Called after each micro-batch's backward pass, to look at the gradients so far (NoiseMeter.see)."""


@dataclass
class Clock:
    """Seconds by part. On a GPU these are host times: work is charged to the part that waits for it."""

    spent: dict[str, float] = field(default_factory=dict)
    last: float = field(default_factory=time.perf_counter)

    def mark(self, part: str) -> None:
        """Charge the time since the last mark to a part."""
        now = time.perf_counter()
        self.spent[part] = self.spent.get(part, 0.0) + now - self.last
        self.last = now

    @property
    def work_s(self) -> float:
        """Seconds of the update alone: no look, no checkpoint."""
        return sum(s for part, s in self.spent.items() if part not in NOT_STEP)


@torch.no_grad()
def add_penalty(model: nn.Module, l2: float, l1: float = 0.0) -> float:
    """L2 and L1 in the loss: l2/2 * sum of squares + l1 * sum of magnitudes of all matrix entries.

    Adds its gradient (l1's is 0 where a weight is 0), returns its value.
    """
    matrices = [p for p in model.parameters() if p.requires_grad and p.dim() >= 2 and p.grad is not None]
    values, grads = [p.detach() for p in matrices], [p.grad for p in matrices if p.grad is not None]
    if not values:
        return 0.0
    total = 0.0
    if l2:
        torch._foreach_add_(grads, values, alpha=l2)
        total += 0.5 * l2 * float(torch.stack(torch._foreach_norm(values)).square().sum())
    if l1:
        torch._foreach_add_(grads, torch._foreach_sign(values), alpha=l1)
        total += l1 * float(torch.stack(torch._foreach_norm(values, 1)).sum())
    return total


@torch.no_grad()
def gradient_norms(model: nn.Module) -> dict[str, float]:
    """2-norm of each parameter's gradient, by name."""
    named = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    norms = torch.stack(torch._foreach_norm([g for _, g in named])).tolist()
    return dict(zip([name for name, _ in named], norms, strict=True))


@torch.no_grad()
def clip(model: nn.Module, grad_norm: float, max_norm: float | None) -> None:
    """Scale all gradients so that their global norm is at most max_norm (Pascanu et al. 2013)."""
    if max_norm is not None and grad_norm > max_norm:
        torch._foreach_mul_(gradients(model), max_norm / (grad_norm + 1e-6))


def norm_limit(model: nn.Module, max_norm: float | None) -> float | None:
    """max_norm at the model's width: times its `gradient_scale()`, where it has one, so that narrow and wide models of one
    parametrization are clipped alike."""
    scale: Callable[[], float] | None = getattr(model, "gradient_scale", None)
    return max_norm if max_norm is None or scale is None else max_norm * scale()


@torch.no_grad()
def clip_values(model: nn.Module, limit: float) -> None:
    """Cut each gradient entry to +- limit. A NaN stays a NaN."""
    found = gradients(model)
    torch._foreach_clamp_min_(found, -limit)
    torch._foreach_clamp_max_(found, limit)


def gradients(model: nn.Module) -> list[Tensor]:
    """All gradients there are."""
    return [p.grad for p in model.parameters() if p.grad is not None]
