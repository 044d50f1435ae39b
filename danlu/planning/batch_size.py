"""The batch of an update, from a law, a measured noise scale and measured time a step. Not the micro-batch: that is the
machine's affair (planning/timing.py), and gradients of any cut add up to the same update.

What is known of the batch B at its best rate, with B_noise the noise scale of planning/noise_scale.py:
- samples to reach a loss: E(B) = E_min (1 + B / B_noise); updates: S(B) = S_min (1 + B_noise / B) (McCandlish 2018,
  1812.06162, equation 2.11). So a large batch saves updates and costs samples.
- for a fixed number of samples the best batch lies well below B_noise (Bergsma 2025, 2505.13738: B_opt = .0306 D^.383 and
  B_crit = .0471 D^.462 sequences, a sixth of it at 1e7 tokens), and small ones are as good a sample (Marek 2025,
  2507.07101; here too). Hence the rule B_opt = SHARE * B_noise, shrunk to the law's batch by inverse variance of the logarithms.
- for a fixed time: the batch that makes the most progress a second, B / t(B) samples at the efficiency E(B_opt) / E(B);
  batches below B_opt are taken to be as good a sample as B_opt.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from danlu.planning.evidence import points
from danlu.planning.ledger import Decision
from danlu.planning.noise_scale import NoiseScale
from danlu.planning.priors import MIN_UPDATES

SHARE, SHARE_SD = 0.1, 1.1
"""Best batch over noise scale, and how far that varies from task to task, as sd of its logarithm: measured in the second half
of a tenth of a run, where it is smaller than at the end (benchmarks/noise_scale.md, chosen with each task left out)."""
Z80, Z95 = 1.2816, 1.96
"""Half-widths, in sd, of 80% and 95% intervals. A law's low and high are read as an 80% interval."""
TIE = 0.02
"""Batches whose progress a second is within this of the best are as good: the one nearest B_opt is taken."""


@dataclass(frozen=True)
class Optimum:
    """What is thought of the best batch for a fixed number of samples, as a normal of its logarithm."""

    log_mean: float
    log_sd: float
    critical: float
    """Where a large batch has cost twice the samples: the noise scale, or what the law implies of it."""
    is_measured: bool

    @property
    def batch(self) -> float:
        """Its median, in samples."""
        return math.exp(self.log_mean)

    @property
    def interval(self) -> tuple[float, float]:
        """80%, in samples."""
        reach = Z80 * self.log_sd
        return math.exp(self.log_mean - reach), math.exp(self.log_mean + reach)


@dataclass(frozen=True)
class StepTime:
    """Seconds of an update by batch, as measured."""

    seconds: Mapping[int, float] = field(default_factory=dict)

    def at(self, batch: float) -> float:
        """Between measured batches in straight lines of logarithms; below them what the smallest took, above them as many
        times longer as the batch is larger."""
        known = sorted(self.seconds)
        if batch <= known[0]:
            return self.seconds[known[0]]
        if batch >= known[-1]:
            return self.seconds[known[-1]] * batch / known[-1]
        right = next(b for b in known if b >= batch)
        left = max(b for b in known if b < right)
        share = math.log(batch / left) / math.log(right / left)
        return float(self.seconds[left] ** (1 - share) * self.seconds[right] ** share)


def optimum(prior: Decision, scale: NoiseScale | None) -> Optimum:
    """The law's batch and SHARE * B_noise, weighed by the inverse variance of their logarithms."""
    low, high = prior.low or prior.value / 4, prior.high or prior.value * 4
    mean, sd = math.log(prior.value), math.log(high / low) / (2 * Z80)
    if scale is None or not is_usable(scale):
        return Optimum(mean, sd, math.exp(mean) / SHARE, is_measured=False)
    found = math.log(SHARE * scale.value)
    found_sd = math.hypot(SHARE_SD, math.log(scale.high / scale.low) / (2 * Z95))
    weight = sd**2 / (sd**2 + found_sd**2)
    both = math.sqrt(sd**2 * found_sd**2 / (sd**2 + found_sd**2))
    return Optimum(mean + weight * (found - mean), both, scale.value, is_measured=True)


def is_usable(scale: NoiseScale) -> bool:
    """Whether a noise scale was found at all: both ends of its interval are known and above 0."""
    return 0 < scale.low <= scale.value <= scale.high < math.inf


def samples_factor(batch: float, critical: float) -> float:
    """E(B) / E_min = 1 + B / B_noise."""
    return 1 + batch / critical


def progress(batch: float, best: Optimum, times: StepTime) -> float:
    """Effective samples a second: those of the batch, over how many more it needs than B_opt for the same loss."""
    excess = samples_factor(batch, best.critical) / samples_factor(best.batch, best.critical)
    return batch / times.at(batch) / max(1.0, excess)


def decide_batch(
    prior: Decision,
    scale: NoiseScale | None,
    n_samples: float,
    times: StepTime | None = None,
    seconds: float | None = None,
) -> Decision:
    """train.batch, a power of two of samples, in at least MIN_UPDATES updates.

    `n_samples`: what the run sees, for the lowest loss at that; or with `seconds` the run's time and `times`, the most
    progress in it. Without a usable noise scale and without a time this is the law's answer.
    """
    best = optimum(prior, scale)
    timed = seconds is not None and times is not None and bool(times.seconds)
    candidates = [2**i for i in range(18) if allowed(2**i, n_samples, times, seconds if timed else None)] or [
        prior.value if timed else 1
    ]
    if timed and times is not None:
        rates = {b: progress(b, best, times) for b in candidates}
        good = [b for b in candidates if rates[b] >= (1 - TIE) * max(rates.values())]
        value = nearest(best.batch, good)
        near = {b: f"{rates[b] / rates[value] - 1:+.0%} progress a second" for b in beside(value, candidates)}
    else:
        value = nearest(best.batch, candidates)
        near = {b: f"{math.log(b / best.batch) / best.log_sd:+.1f} sd from the best" for b in beside(value, candidates)}
    if value == prior.value and not best.is_measured and not timed:
        return prior
    low, high = best.interval
    return Decision(
        "train.batch", value, "measured" if best.is_measured or timed else prior.origin, why(prior, scale, best, value, timed),
        source="McCandlish 2018, 1812.06162; Bergsma 2025, 2505.13738; SHARE from benchmarks/noise_scale.md",
        valid="the twelve development tasks, 0.1 to 1M parameters", in_range=best.is_measured,
        low=min(low, value), high=max(high, value), if_wrong="twice or half of it costs about 0.5% of the loss",
        evidence=evidence(prior, scale, times),
        alternatives=tuple({"value": b, "why": clause} for b, clause in near.items()),
    )  # fmt: skip


def allowed(batch: int, n_samples: float, times: StepTime | None, seconds: float | None) -> bool:
    """Whether a run in this batch has MIN_UPDATES updates."""
    n_steps = n_samples / batch if seconds is None or times is None else seconds / times.at(batch)
    return n_steps >= MIN_UPDATES


def nearest(wanted: float, candidates: Sequence[int]) -> int:
    """The candidate at the smallest ratio to what is wanted."""
    return min(candidates, key=lambda b: abs(math.log(b / wanted)))


def beside(value: int, candidates: Sequence[int]) -> list[int]:
    """Half and twice of a batch, where they were candidates."""
    return [b for b in (value // 2, 2 * value) if b in candidates]


def why(prior: Decision, scale: NoiseScale | None, best: Optimum, value: int, is_timed: bool) -> str:
    """One sentence with the numbers put in."""
    said = f"{'the recipe' if prior.origin == 'given' else 'the law'} gives {prior.value}"
    if scale is not None and best.is_measured:
        said += (
            f", the {scale.metric} noise scale of {scale.value:.3g} samples ({scale.low:.3g} to {scale.high:.3g}, "
            f"{scale.n_steps} updates) {SHARE:g} times itself, together {best.batch:.3g}"
        )
    elif scale is not None:
        said += f"; no noise scale was found in {scale.n_steps} updates (the gradient is lost in it)"
    if is_timed:
        said += f"; {value} makes the most progress a second by the measured step times"
    return f"{said[0].upper()}{said[1:]}."


def evidence(prior: Decision, scale: NoiseScale | None, times: StepTime | None) -> dict[str, Any]:
    """What was measured."""
    found: dict[str, Any] = {"prior": {"value": prior.value, "low": prior.low, "high": prior.high, "why": prior.why}}
    if scale is not None:
        known = {k: v for k, v in vars(scale).items() if isinstance(v, str) or math.isfinite(v)}
        found["noise_scale"] = known
    if times is not None and times.seconds:
        found["parts"] = [points("samples an update", "s an update", sorted(times.seconds.items()), log="xy")]
    return found
