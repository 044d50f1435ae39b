"""Which lengths are worth it: the loss of cooled runs of other lengths than the one that was planned. Torch-free."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from danlu.planning import ensemble
from danlu.planning.curves import Values
from danlu.planning.ensemble import Points
from danlu.planning.seen import Seen

ONE_PERCENT, SMALL_GAIN = 0.01, 0.0025
"""Drops of the log loss by a doubling of the length, below which it is no longer recommended, and no longer of use."""
LONGEST = 4.0
"""Lengths are looked at up to so many times the run's."""


@dataclass(frozen=True)
class Lengths:
    """The loss of cooled runs of other lengths: the shape of the family and the bent law, through the forecast."""

    seen: Seen
    observed: Points
    end: float
    """Log of the final loss that was predicted."""

    def logs(self, steps: Values) -> Values:
        """Log loss of cooled runs of so many steps, from the last copy on."""
        x = self.observed.relative(np.append(steps, self.seen.n_steps))
        now = math.log(self.observed.cooled[-1])
        drops = now - (ensemble.family(self.observed, x) + ensemble.bent(self.observed, x)) / 2
        return np.asarray(
            now - drops[:-1] * (now - self.end) / drops[-1] if drops[-1] > 1e-9 else np.full(len(steps), now)
        )

    def curve(self) -> list[tuple[int, float]]:
        """(step, loss) of 40 looks to come: what a cooled run would have there, higher by what the rate of that step
        costs (the gain of the last copy, in proportion to the rate: Qiu 2025)."""
        n_steps, last = self.seen.n_steps, self.seen.forks[-1].end
        steps = np.unique(np.linspace(last, n_steps, 41).astype(int)[1:])
        hot = np.array([self.seen.rates[s - 1] for s in steps])
        logs = self.logs(steps.astype(float)) + max(self.observed.gain, ensemble.USUAL_GAIN) * hot
        return [(int(s), round(math.exp(y), 6)) for s, y in zip(steps, logs, strict=True)]

    def points(self) -> dict[str, Any]:
        """Cheapest within 1% of the run's end; recommended, beyond which a doubling gains less than 1%; diminishing
        returns, beyond which it gains less than a quarter of that. Those beyond LONGEST times the run are left out."""
        n_steps, first = self.seen.n_steps, self.seen.forks[-1].end
        steps = np.unique(np.geomspace(first, LONGEST * n_steps, 200).astype(int)).astype(float)
        logs, doubled = self.logs(steps), self.logs(2 * steps)
        wanted = {
            "cheapest within 1%": logs <= self.end + ONE_PERCENT,
            "recommended": logs - doubled < ONE_PERCENT,
            "diminishing returns": logs - doubled < SMALL_GAIN,
        }
        return {
            name: self.point(name, steps[at], logs[at])
            for name, there in wanted.items()
            if (at := first_true(there)) >= 0
        }

    def point(self, name: str, steps: float, log: float) -> dict[str, Any]:
        """One length, in every unit."""
        n = int(steps)
        share = n / self.seen.n_steps
        said = f"{name}: {n:,} steps, {share:.2g} times this run" if not 0.95 < share < 1.05 else f"{name}: this length"
        return {
            "steps": n, "units": n * self.seen.units_per_step, "seconds": round(n * self.seen.step_s, 1),
            "loss": round(math.exp(log), 6), "said": said,
        }  # fmt: skip


def first_true(there: NDArray[np.bool_]) -> int:
    """Index of the first one that is true and stays so; -1 without any."""
    wrong = np.flatnonzero(~there)
    start = int(wrong[-1]) + 1 if len(wrong) else 0
    return start if start < len(there) else -1
