"""Where a run's loss will end, said while it is young, and which lengths are worth it. Torch-free.

forecast(seen) -> Forecast                   at plan.forecast of the run, from its curve and its cooled copies
forecast_at_plan(proxies, n_steps) -> ...    before it, from short runs that were trained to their end
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from danlu.planning import curves
from danlu.planning.curves import Law, Prior, Values
from danlu.planning.forks import HOT
from danlu.planning.prediction import VALIDATION_LOSS, Prediction, predict, unknown


@dataclass(frozen=True)
class ForkSeen:
    """A copy of the run that was cooled down and looked at."""

    step: int
    """Completed updates of the run itself."""
    n_cool: int
    """Updates of the cool-down."""
    loss: float | None
    """On the validation split afterwards; None where a loss was not finite."""
    sd: float
    """Its standard error over the split's pieces."""
    seconds: float
    """What it took."""
    before: float | None = None
    """The same look before the cool-down, where there was one."""

    @property
    def end(self) -> int:
        """Updates of a run that ends so."""
        return self.step + self.n_cool


@dataclass(frozen=True)
class Seen:
    """What a run has shown so far."""

    rates: Sequence[float]
    """Of every update of the whole run, as a share of the peak."""
    losses: Sequence[float]
    """Training loss of each update so far."""
    looks: Sequence[tuple[int, float]]
    """(step, validation loss) so far."""
    forks: Sequence[ForkSeen]
    units_per_step: int
    """Tokens or samples of an update."""
    n_unique: int
    """Tokens or samples of the training split."""
    step_s: float
    """Seconds of an update."""

    @property
    def n_steps(self) -> int:
        """Of the whole run."""
        return len(self.rates)


@dataclass(frozen=True)
class Forecast:
    """train/forecast.json."""

    step: int
    """Completed updates when it was made."""
    predictions: Sequence[Prediction]
    sentence: str
    """For the screen."""
    curve: Sequence[tuple[int, float]] = ()
    """(step, expected validation loss) of looks to come."""
    points: dict[str, Any] = field(default_factory=dict)
    """Lengths worth knowing: {"recommended": {"steps", "units", "seconds", "loss"}}."""
    evidence: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As the file holds it."""
        return {
            "step": self.step, "predictions": [p.to_json() for p in self.predictions], "sentence": self.sentence,
            "curve": [list(point) for point in self.curve], "points": self.points, "evidence": self.evidence,
        }  # fmt: skip


FORK_SD, BIN_SD = 0.01, 0.01
"""Of the log of a fork's loss and of a stretch of training losses: what a law cannot explain, whatever was measured."""
N_BINS = 8
"""Stretches of the training curve, equally wide in the log of the step."""
FIRST = 0.25
"""The curve is looked at from this share of what was seen on: what is earlier follows no law of the late part."""
BENDS = tuple(np.linspace(-0.2, 3.0, 33))
"""Grid of bends b: how fast the slope of log loss over log steps flattens."""
BEND_MEDIAN, BEND_SPREAD = 0.8, 0.8
Z80, Z95 = 1.2816, 1.9600


def forecast(seen: Seen) -> Forecast:
    """From the run's own past."""
    step = len(seen.losses)
    reason = why_unknown(seen)
    if reason:
        said = f"forecast: the final validation loss cannot be told: {reason}"
        return Forecast(step, [unknown(VALIDATION_LOSS, "per target", reason, "forecast")], said)
    law = run_law(seen)
    mean, sd = (float(v[0]) for v in law.at(at_length(seen, [seen.n_steps])))
    why = f"cooled copies of the run at steps {', '.join(str(f.end) for f in seen.forks)} and its training curve, carried on"
    found = predict(VALIDATION_LOSS, math.exp(mean), "per target", why, "forecast", factor=math.exp(sd))
    said = f"forecast: final validation loss {found.value:.4g} (80%: {found.low80:.4g} to {found.high80:.4g})"
    return Forecast(step, [found], said)


def why_unknown(seen: Seen) -> str:
    """Why nothing can be said, or nothing."""
    losses = [fork.loss for fork in seen.forks]
    if any(loss is None or loss <= 0 for loss in losses) or len(losses) < 2:
        return "a cooled copy diverged" if None in losses else "its losses are not positive"
    return ""


def run_law(seen: Seen) -> Law:
    """log loss of a run that is cooled down at its end, over the log of its length, from forks and training curve."""
    forks = [(fork.end, fork.loss or math.nan, 0.0, FORK_SD) for fork in seen.forks]
    rows = np.array([*forks, *stretches(seen)])
    last = max(fork.end for fork in seen.forks)
    inputs = np.stack([np.log(rows[:, 0] / last), rows[:, 2]], axis=1)
    logs = np.log(rows[:, 1])
    weights = [math.exp(-0.5 * ((b - BEND_MEDIAN) / BEND_SPREAD) ** 2) for b in BENDS]
    start = np.array([logs[len(forks) - 1], 0.0, 0.2])
    prior = Prior(BENDS, weights, start, np.array([1.0, 1.0, 0.5]), (False, False, True))
    return curves.fitted(curves.bent_design, inputs, logs, rows[:, 3], prior)


def at_length(seen: Seen, n_steps: Sequence[float]) -> Values:
    """Inputs of run_law for cooled runs of these lengths."""
    last = max(fork.end for fork in seen.forks)
    return np.stack([np.log(np.asarray(n_steps, float) / last), np.zeros(len(n_steps))], axis=1)


def stretches(seen: Seen) -> list[tuple[float, float, float, float]]:
    """(middle step, mean training loss, 1, standard deviation of its log) of stretches of the curve at its full rate."""
    losses, hot = np.asarray(seen.losses), np.asarray(seen.rates[: len(seen.losses)]) > HOT
    edges = np.unique(np.geomspace(max(2, FIRST * len(losses)), len(losses), N_BINS + 1).astype(int))
    found = []
    for a, b in pairwise(edges):
        piece = losses[a:b][hot[a:b]]
        if len(piece) >= 2 and piece.mean() > 0:
            scatter = piece.std(ddof=1) / piece.mean() / math.sqrt(len(piece))
            found.append((math.sqrt(a * b), float(piece.mean()), 1.0, math.hypot(BIN_SD, scatter)))
    return found
