"""What a young run has shown: its curve, its cooled copies, the runs before it. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from danlu.planning import ensemble
from danlu.planning.ensemble import Points

MANY_PASSES = 4
"""Over the data; beyond, over-fitting may end the fall (Muennighoff 2023: up to 4 passes are as good as new)."""


@dataclass(frozen=True)
class ForkSeen:
    """A copy of the run that was cooled down and looked at."""

    step: int
    """Completed updates of the run itself."""
    n_cool: int
    """Updates of the cool-down."""
    loss: float | None
    """On what the run's looks see of the validation split; None where a loss was not finite."""
    sd: float
    """Its standard error over the split's pieces."""
    seconds: float
    """What it took."""
    before: float | None = None
    """The same look before the cool-down, where there was one."""
    whole: float | None = None
    """The loss on the whole split, where the run's looks see a part of it."""

    @property
    def end(self) -> int:
        """Updates of a run that ends so."""
        return self.step + self.n_cool


@dataclass(frozen=True)
class Setting:
    """What runs of one model on one data set differ in."""

    rule: str
    """Update rule: rates of different ones are no numbers of one kind."""
    lr: float
    """Peak rate."""
    batch: int


@dataclass(frozen=True)
class Earlier:
    """A finished run of the same model on the same data."""

    name: str
    setting: Setting
    now: float
    """Log of its loss at the share of its length at which the forecast is made."""
    end: float
    """Log of its best loss."""

    @classmethod
    def of(
        cls, name: str, setting: Setting, looks: Sequence[tuple[int, float]], n_steps: int, share: float
    ) -> Earlier | None:
        """From a finished run's looks (step, loss); its loss at a share of its length is interpolated in log-log. None
        where it did not look early enough, or a loss is not positive."""
        good = [(step / n_steps, math.log(loss)) for step, loss in looks if loss > 0]
        if len(good) < len(looks) or not good or not good[0][0] <= share < good[-1][0]:
            return None
        at, logs = (np.array(part) for part in zip(*good, strict=True))
        return cls(name, setting, float(np.interp(math.log(share), np.log(at), logs)), float(logs.min()))


@dataclass(frozen=True)
class Seen:
    """What a run has shown so far."""

    setting: Setting
    rates: Sequence[float]
    """Of every update of the whole run, as a share of the peak."""
    losses: Sequence[float]
    """Training loss of each update so far."""
    forks: Sequence[ForkSeen]
    units_per_step: int
    """Tokens or samples of an update."""
    n_unique: int
    """Tokens or samples of the training split."""
    step_s: float = 0.0
    """Seconds of an update."""
    earlier: Sequence[Earlier] = ()

    @property
    def n_steps(self) -> int:
        """Of the whole run."""
        return len(self.rates)

    @property
    def passes(self) -> float:
        """Over the data, by the end."""
        return self.n_steps * self.units_per_step / self.n_unique

    @property
    def repeats_much(self) -> bool:
        """Whether over-fitting may end the fall."""
        return round(self.passes) > MANY_PASSES

    def points(self) -> Points:
        """As the laws take them."""
        losses, rates = np.asarray(self.losses, float), np.asarray(self.rates, float)
        steps, hot, hot_sd = ensemble.stretches(losses, rates)
        last = self.forks[-1]
        gain = math.log(last.before / last.loss) if last.before and last.loss else 0.0
        height = math.log(last.before) - ensemble.read_off(steps, hot, last.step) if last.before and len(hot) else gain
        ends = np.array([float(fork.end) for fork in self.forks])
        cooled = np.array([fork.loss for fork in self.forks], float)
        return Points(ends, cooled, steps, hot, hot_sd, max(0.0, gain), height, self.n_unique / self.units_per_step)

    def slopes(self) -> tuple[float, float]:
        """Fall of the log training loss per log step, in the first and the second half of its stretches."""
        steps, hot, _ = ensemble.stretches(np.asarray(self.losses, float), np.asarray(self.rates, float))
        middle = len(steps) // 2
        if middle < 2:
            return 0.0, 0.0
        x, y = np.log(steps), np.log(hot)
        first, second = (
            -float(np.polyfit(x[part], y[part], 1)[0]) for part in (slice(0, middle + 1), slice(middle, None))
        )
        return first, second
