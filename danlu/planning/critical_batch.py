"""The critical batch by branches: from one checkpoint, k times the batch at sqrt(k) times the rate over the same samples.

Merrill 2025, 2505.23971: the largest k whose smoothed loss stays within a tolerance of the branch that changed nothing. It
asks what a user who pays for speed wants to know, and needs none of the assumptions behind a noise scale. Here the loss is
smoothed over the last share of the branch, in pieces of the same samples for all branches, so differences are paired.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from danlu.planning.distributions import t_quantile
from danlu.planning.evidence import points
from danlu.planning.ledger import Decision

EPS = 0.01
"""Relative loss that a larger batch may cost at the end of its branch (Merrill 2025 allow 0.01 nats at losses near 3)."""
LAST = 0.5
"""Share of a branch, at its end, that its loss is smoothed over: before it, larger steps show as a jump."""


@dataclass(frozen=True)
class Branch:
    """One continuation."""

    batch: int
    """Samples an update."""
    losses: tuple[float, ...]
    """Mean training loss of each of some equal pieces of the branch's samples: the same samples in all branches."""
    step_s: float = math.nan
    """Median seconds of an update."""

    @property
    def tail(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The pieces that count."""
        return np.array(self.losses[-max(1, round(LAST * len(self.losses))) :])


@dataclass(frozen=True)
class CriticalBatch:
    """The largest batch that loses nothing a sample."""

    value: int
    """The largest within the tolerance, with all smaller ones."""
    low: int
    """The largest that is within it beyond doubt, as far as 95% go."""
    high: float
    """The smallest that is beyond it without doubt; infinite where none was."""
    costs: tuple[tuple[int, float, float], ...]
    """(batch, relative loss more than the first branch, its standard error)."""


def critical_batch(branches: Sequence[Branch], eps: float = EPS, level: float = 0.95) -> CriticalBatch:
    """By the paired differences of each branch to the first, which has the smallest batch."""
    base, *others = sorted(branches, key=lambda b: b.batch)
    costs, value, low, high = [(base.batch, 0.0, 0.0)], base.batch, base.batch, math.inf
    is_within, is_certain = True, True
    for branch in others:
        gaps = (branch.tail - base.tail) / base.tail.mean()
        n = len(gaps)
        cost = float(gaps.mean()) if np.isfinite(gaps).all() else math.inf
        error = float(gaps.std(ddof=1) / math.sqrt(n)) if n > 1 and math.isfinite(cost) else math.inf
        reach = t_quantile((1 + level) / 2, n - 1) * error if n > 1 else math.inf
        costs.append((branch.batch, cost, error))
        is_within, is_certain = is_within and cost <= eps, is_certain and cost + reach <= eps
        value, low = branch.batch if is_within else value, branch.batch if is_certain else low
        if high == math.inf and (cost == math.inf or cost - reach > eps):
            high = branch.batch
    return CriticalBatch(value, low, high, tuple(costs))


def decide_critical(found: CriticalBatch, step: int, n_samples: int, eps: float = EPS) -> Decision:
    """train.batch where a user pays for speed."""
    said = ", ".join(f"{batch}: {cost:+.2%}" for batch, cost, _ in found.costs[1:])
    why = (
        f"From step {step}, {n_samples:,} samples in each batch, at the rate that belongs to it, end at a loss of {said} against "
        f"{found.costs[0][0]} samples an update; {found.value} is the largest within {eps:.0%}."
    )
    return Decision(
        "train.batch", found.value, "measured", why, source="Merrill 2025, 2505.23971", valid="this data and model",
        in_range=True, low=found.low, high=found.high if math.isfinite(found.high) else None,
        evidence=points(
            "samples an update", "loss above the smallest batch's, as a share of it", found.costs, chosen=found.value, log="x"
        ),
    )  # fmt: skip
