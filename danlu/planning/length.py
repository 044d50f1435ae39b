"""Where a run's loss will end, said while it is young, and which lengths are worth it. Torch-free.

    forecast(seen) -> Forecast                   at plan.forecast of the run, from its curve and its cooled copies
    forecast_at_plan(proxies, n_steps) -> ...    before it, from short runs that were trained to their end
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from danlu.planning import curves
from danlu.planning.curves import Law, Prior, Values
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


def forecast(seen: Seen) -> Forecast:
    """From the run's own past."""
    step = len(seen.losses)
    return Forecast(step, [unknown(VALIDATION_LOSS, "per target", "in work")], "forecast: in work")
