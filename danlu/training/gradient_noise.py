"""Measures an update's gradient noise on its own micro-batches: what planning/noise_scale.py makes a noise scale of.

Gradients add up from micro-batch to micro-batch, so the difference after and before a backward pass is a micro-batch's own.
That works for every model and task, needs no pass of its own, and leaves the update as it is, bit for bit: it only reads.
Cost: a copy of the gradients, and a few passes over them a micro-batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from danlu.base.contracts import Batch
from danlu.planning.noise_scale import (
    ADAPTIVE,
    PLAIN,
    GradientSample,
    from_micro_batches,
)
from danlu.training.update import Parts

if TYPE_CHECKING:
    from danlu.training.trial import Session

EPS = 1e-8
"""Where a rule has none of its own."""


class NoiseMeter:
    """Around one update: `see` after each micro-batch's backward pass, `samples` after the last."""

    def __init__(self, parts: Parts, n_unique: int) -> None:
        """`n_unique`: samples of the training split."""
        self.n_unique = n_unique
        self.parameters = [p for p in parts.model.parameters() if p.requires_grad]
        self.scales = preconditioner(parts.optimizer)
        self.before: list[Tensor | None] = [None] * len(self.parameters)
        self.squares: list[Tensor] = []
        self.sizes: list[int] = []
        self.n_targets: list[int] = []

    @torch.no_grad()
    def see(self, batch: Batch) -> None:
        """One more micro-batch has been added to the gradients."""
        found = torch.zeros(2, dtype=torch.float64)
        for i, p in enumerate(self.parameters):
            if p.grad is None:
                continue
            old = self.before[i]
            found += self.lengths(p, p.grad if old is None else p.grad - old)
            self.before[i] = p.grad.clone() if old is None else old.copy_(p.grad)
        self.squares.append(found)
        self.sizes.append(next(iter(batch.tensors.values())).shape[0])
        self.n_targets.append(batch.n_targets)

    def lengths(self, parameter: Tensor, gradient: Tensor) -> Tensor:
        """(2,) squared length of one parameter's gradient: plain, adaptive."""
        square = gradient.square()
        scale = self.scales.get(id(parameter))
        own = (square * scale).sum(dtype=torch.float64) if scale is not None else torch.zeros((), dtype=torch.float64)
        return torch.stack([square.sum(dtype=torch.float64), own]).cpu()

    @torch.no_grad()
    def samples(self) -> dict[str, GradientSample]:
        """What the update said, by length: {} with fewer than two micro-batches that had targets.

        The gradients are of sums divided by all targets, so a micro-batch's mean gradient is its difference times
        (all targets / its own). The adaptive length is left out where some parameter has no second moment: under muon,
        lion and sgd, and before the first update.
        """
        total, live = sum(self.n_targets), [i for i, n in enumerate(self.n_targets) if n > 0]
        if len(live) < 2:
            return {}
        whole = torch.zeros(2, dtype=torch.float64)
        for p, gradient in zip(self.parameters, self.before, strict=True):
            if gradient is not None:
                whole += self.lengths(p, gradient)
        sizes = [self.sizes[i] for i in live]
        means = [self.squares[i] * (total / self.n_targets[i]) ** 2 for i in live]
        names = [PLAIN] + [ADAPTIVE] * all(id(p) in self.scales for p in self.parameters)
        return {
            name: from_micro_batches([float(m[j]) for m in means], float(whole[j]), sizes, self.n_unique)
            for j, name in enumerate(names)
        }


def preconditioner(optimizer: Any) -> dict[int, Tensor]:
    """id(parameter) -> rate scale / (sqrt(v) + eps), of the parameters whose rule keeps a second moment v; {} before its first update.

    v is that of the updates so far, so the gradient to be measured is not in it, and the estimates stay unbiased. Its
    start-up factor 1 - beta2^t is left out: a constant drops out of the noise scale. Entries that never had a gradient
    (v = 0: a word not seen yet) count for nothing, instead of 1 / eps.
    """
    scales: dict[int, Tensor] = {}
    for part in getattr(optimizer, "parts", ()):
        eps = getattr(part.rule, "eps", EPS) * part.group.eps_scale
        for parameter, slots in zip(part.parameters, part.slots, strict=True):
            if "square" in slots:
                root = slots["square"].sqrt()
                scales[id(parameter)] = torch.where(root > 0, part.group.lr_scale / (root + eps), 0.0)
    return scales if any(bool(scale.any()) for scale in scales.values()) else {}


def measure(
    session: Session, n_steps: int, n_micro: int = 8, lr: float | None = None
) -> list[dict[str, GradientSample]]:
    """Train a session on by n_steps updates, its batch cut into about n_micro pieces, measuring each; at a
    rate, or by its schedule. The cut changes rounding alone; a batch of 1 cannot be cut and gives nothing."""
    whole, found = session.choices, []
    micro = min(whole.micro_batch, max(1, whole.batch // n_micro))
    session.choices = whole.model_copy(update={"micro_batch": micro})
    try:
        for _ in range(n_steps):
            if session.diverged:
                break
            meter = NoiseMeter(session.parts, len(session.loader))
            session.parts.after_backward = meter.see
            if lr is None:
                session.advance(session.step + 1)
            else:
                session.update(lr)
            found.append(meter.samples())
    finally:
        session.choices, session.parts.after_backward = whole, None
    return [samples for samples in found if samples]


def logged(found: Mapping[str, GradientSample]) -> dict[str, dict[str, float]]:
    """As a step's row of metrics.jsonl: finite numbers only."""
    rows = {name: {"noise": s.noise, "signal": s.signal} for name, s in found.items()}
    return {name: row for name, row in rows.items() if math.isfinite(row["noise"]) and math.isfinite(row["signal"])}
