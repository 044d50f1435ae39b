"""What watches a run and decides: skip an update, roll back, stop. Pure functions of what they were shown.

Everything they remember is part of the checkpoint, so a resumed run decides as the undisturbed one.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from danlu.planning.noise import paired_noise
from danlu.planning.trials import Look
from danlu.sections import Train

Verdict = Literal["update", "skip", "roll back", "stop"]
SPIKE_WINDOW, SPIKE_MIN, SPIKE_SCORE = 100, 30, 8.0
"""Losses looked back at; losses needed to judge; robust standard deviations that make a spike."""
MAX_ROLL_BACKS = 3
WORSE, N_WORSE, LEAST_PIECES = 3.0, 3, 4
"""train.patience of auto: standard errors above the best look that chance does not explain (not 2: the best of many looks
owes a part of it to chance), such looks in a row that end a run, and the fewest pieces that tell a standard error."""


@dataclass
class Guard:
    """Judges each update before it is made. Non-finite numbers by `on_nonfinite`, spikes by `on_spike`."""

    on_nonfinite: str
    on_spike: str
    recent: list[float] = field(default_factory=list)
    n_skipped_in_a_row: int = 0
    n_roll_backs: int = 0

    def judge(self, step: int, loss: float, grad_norm: float, ids: Sequence[int]) -> tuple[Verdict, str]:
        """(what to do with this update, the sentence to log or "")."""
        batch = f"the batch of samples {', '.join(map(str, ids[:4]))}{', ...' if len(ids) > 4 else ''}"
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            what = f"step {step}: loss {loss:g}, gradient norm {grad_norm:g} on {batch}"
            return self._act(self.on_nonfinite, f"not finite at {what}")
        score = spike_score(loss, self.recent)
        if self.on_spike != "none" and score > SPIKE_SCORE:
            above = f"{score:.1f} robust deviations above the last {len(self.recent)} losses"
            what = f"loss spike at step {step}: {loss:.4g} is {above}, on {batch}"
            if self.on_spike != "warn":
                return self._act(self.on_spike, what)
            self._remember(loss)
            return "update", what
        self._remember(loss)
        self.n_skipped_in_a_row = 0
        return "update", ""

    def _remember(self, loss: float) -> None:
        self.recent = [*self.recent[-(SPIKE_WINDOW - 1) :], loss]

    def _act(self, policy: str, what: str) -> tuple[Verdict, str]:
        if policy.startswith("skip"):
            limit = int(policy.split()[1]) if " " in policy else SPIKE_WINDOW
            self.n_skipped_in_a_row += 1
            if self.n_skipped_in_a_row > limit:
                return "stop", f"{what}; {limit} updates in a row were skipped already"
            return "skip", f"{what}; the update was skipped"
        if policy == "roll back":
            if self.n_roll_backs >= MAX_ROLL_BACKS:
                return "stop", f"{what}; rolled back {MAX_ROLL_BACKS} times already"
            return "roll back", what
        return "stop", what


def spike_score(loss: float, recent: Sequence[float]) -> float:
    """Robust z of the loss: (loss - median) / (1.4826 MAD), 0 while there are too few to judge (Huber 1981, 5.1)."""
    if len(recent) < SPIKE_MIN:
        return 0.0
    middle = statistics.median(recent)
    spread = 1.4826 * statistics.median(abs(x - middle) for x in recent)
    return (loss - middle) / max(spread, 1e-3 * abs(middle), 1e-12)


def excess_score(best: Sequence[tuple[float, int]], now: Sequence[tuple[float, int]]) -> float:
    """How many standard errors the loss now lies above the best, by the same pieces of the split (planning/noise.py); 0 where
    there are fewer than LEAST_PIECES, or the difference is not finite."""
    if len(best) != len(now) or len(now) < LEAST_PIECES:
        return 0.0
    looks = [
        Look(0, sum(a for a, _ in p) / max(1, sum(n for _, n in p)), tuple((a, n) for a, n in p)) for p in (best, now)
    ]
    noise = paired_noise(*looks) * abs(looks[0].loss + looks[1].loss) / 2
    excess = looks[1].loss - looks[0].loss
    if math.isinf(excess) or math.isnan(excess):
        return math.inf if excess > 0 else 0.0
    return excess / noise if noise > 0 else 0.0


@dataclass
class Stopper:
    """Decides after each evaluation whether the run has got where it was going."""

    patience: int | Literal["auto"] | None
    target: float | None
    plateau: float | None
    best: float = math.inf
    best_step: int = 0
    n_stale: int = 0
    best_pieces: list[tuple[float, int]] = field(default_factory=list)
    """(loss sum, targets) of each piece of the split at the best look."""
    n_worse: int = 0
    """Looks in a row that were worse than the best by more than chance."""

    @classmethod
    def of(cls, train: Train) -> Stopper:
        """From the recipe's words."""
        patience, target, plateau = (None if x == "none" else x for x in (train.patience, train.target, train.plateau))
        return cls(patience, target, plateau)  # type: ignore[arg-type]

    def see(self, step: int, loss: float, pieces: Sequence[tuple[float, int]] = ()) -> tuple[bool, str]:
        """(is this the best so far, why to stop or ""). A loss that is not finite is never the best. `pieces`: (loss sum,
        targets) of fixed pieces of the split."""
        before, is_best = self.best, loss < self.best
        self.n_stale = 0 if is_best else self.n_stale + 1
        if is_best:
            self.best, self.best_step = loss, step
        if self.patience == "auto":
            if is_best:
                self.best_pieces = [(float(a), int(n)) for a, n in pieces]
            score = excess_score(self.best_pieces, pieces)
            self.n_worse = self.n_worse + 1 if score > WORSE else 0
            if self.n_worse >= N_WORSE:
                best = f"the best, {self.best:.4f} at step {self.best_step}"
                why = f"validation loss {loss:.4f} lies {score:.1f} standard errors above {best}"
                return is_best, f"{why}: the third look in a row that chance does not explain"
        if self.target is not None and loss <= self.target:
            return is_best, f"validation loss {loss:.4f} reached the target {self.target:g} at step {step}"
        if isinstance(self.patience, int) and self.n_stale >= self.patience:
            return (
                is_best,
                f"no better validation loss in {self.n_stale} evaluations; best {self.best:.4f} at step {self.best_step}",
            )
        if self.plateau is not None and math.isfinite(before) and before - loss < self.plateau * abs(before):
            return (
                is_best,
                f"validation loss {loss:.4f} at step {step} is less than {self.plateau:g} of it below the best before, {before:.4f}",
            )
        return is_best, ""
