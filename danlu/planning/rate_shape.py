"""Where the best rate of a short run lies, from a few short runs: also when all of them lie on one side of it.

How far the loss of a short run falls from its start has one shape in log rate for many models. With d = log(rate / best),

    fall(d) = S exp(-d^2 / (2 w^2)),    w = 2.1 below the best rate, 2.5 above it (Muon: 1.1 and 3.25)

so rates that are all too low, falling less the lower they are, tell by how much; a parabola through them tells nothing.
The shape: six rates by factors of 3 around the law's on each of five language models at 0.4 and 0.8% of their runs, two
seeds; Muon's, whose updates hardly grow with the gradient: eight to eleven rates on each, at 0.2% of their runs. The sd
between rates found by it and the whole run's best is learning_rate.PROXY_SD. Torch-free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

import numpy as np
from numpy.typing import NDArray

from danlu.planning.trials import Outcome

Widths = tuple[float, float]
"""w, in log rate: (below, above)."""
USUAL: Widths = (2.1, 2.5)
WIDTHS: dict[str, Widths] = {"muon": (1.1, 3.25)}
"""By optimizer, where it is not the usual one."""
MISFIT = 0.06
"""How far runs lie from the shape, as a share of the deepest fall."""
DEEPER_SD = 0.5
"""Log of the deepest fall there is over the deepest that was seen: it lies above, and hardly by more than this."""
CLIFF = 0.5
"""A rate that diverged lies above the best one by at least about so much in log rate, and by this give or take."""
GRID: NDArray[np.float64] = np.linspace(math.log(1e-7), math.log(1e2), 4145)
"""Log rates at which beliefs are held: steps of 0.005."""


@dataclass(frozen=True)
class Point:
    """One short run."""

    rate: float
    loss: float
    """Mean training loss of its tail; infinite when it diverged."""
    error: float
    """Standard error of that mean, pairing with the other rates left out."""
    start: float = math.nan
    """Loss of its first step."""


def point(rate: float, outcome: Outcome) -> Point:
    """The tail of a short run; infinite when it diverged or ended above where it began."""
    tail = outcome.tail()
    if outcome.diverged or mean(tail) > 1.5 * outcome.losses[0] + 1e-9:
        return Point(rate, math.inf, 0.0, outcome.losses[0])
    return Point(rate, mean(tail), stdev(tail) / math.sqrt(len(tail)), outcome.losses[0])


@dataclass(frozen=True)
class Located:
    """The best rate of a short run."""

    center: float
    """Log rate."""
    sd: float
    start: float
    """Loss at the start."""
    fall: float
    """S: how far the best rate's loss falls."""
    widths: Widths

    def loss(self, log_rate: float) -> float:
        """By the shape."""
        return self.start - self.fall * float(shape(np.array(log_rate - self.center), self.widths))


def shape(d: NDArray[np.float64], widths: Widths) -> NDArray[np.float64]:
    """fall(d) / S."""
    return np.asarray(np.exp(-(d**2) / (2 * np.where(d < 0, *widths) ** 2)))


def located(points: Sequence[Point], widths: Widths = USUAL) -> Located | None:
    """Mean and sd of the best log rate given the points, every log rate as likely before; None where no run's loss fell."""
    fell = [p for p in points if math.isfinite(p.loss)]
    start = mean(p.start for p in points)
    falls = np.array([max(0.0, start - p.loss) for p in fell])
    if not falls.any():
        return None
    deepest = float(falls.max())
    weights = 1 / ((MISFIT * deepest) ** 2 + np.array([p.error for p in fell]) ** 2)
    f = shape(np.log([p.rate for p in fell])[None, :] - GRID[:, None], widths)
    scales = np.maximum((f * falls * weights).sum(1) / np.maximum((f**2 * weights).sum(1), 1e-12), deepest)
    log_density = -0.5 * ((falls - scales[:, None] * f) ** 2 * weights).sum(1)
    log_density -= 0.5 * (np.log(scales / deepest) / DEEPER_SD) ** 2
    for p in points:
        if math.isinf(p.loss):
            log_density -= 0.5 * (np.maximum(0.0, GRID - math.log(p.rate) + CLIFF) / CLIFF) ** 2
    density = np.exp(log_density - log_density.max())
    density /= density.sum()
    center = float(GRID @ density)
    sd = math.sqrt(float((GRID - center) ** 2 @ density))
    return Located(center, sd, start, float(scales @ density), widths)
