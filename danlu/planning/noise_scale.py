"""The gradient noise scale: the batch at which a gradient's noise is as large as the gradient. McCandlish 2018, 1812.06162.

For one sample's gradient of mean G and covariance Sigma: B_simple = tr(Sigma) / |G|^2 samples (their equation 2.9). From an
update over k micro-batches, both are estimated without bias (appendix A.1); over many updates the estimates are averaged
first and divided then: the mean of the ratios is far off, because |G|^2 comes out near 0 now and then.

Two lengths are used. "plain": |g|^2 is the sum of g^2, right for SGD. "adaptive": the sum of g^2 / (sqrt(v) + eps) with the
optimizer's own second moment v. An Adam step is a plain step in the coordinates x * (sqrt(v) + eps)^(1/2), whose gradient
has exactly that length, so this is the scale that Adam, AdamW and RMSprop see (McCandlish 2018, appendix C on how the
preconditioner enters; Zhang 2019, 1907.04164: preconditioning raises the critical batch).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from danlu.planning.distributions import t_quantile

Values = NDArray[np.float64]
PLAIN, ADAPTIVE = "plain", "adaptive"
"""The two lengths."""


@dataclass(frozen=True)
class GradientSample:
    """What one update says."""

    noise: float
    """Unbiased estimate of tr(Sigma) of one sample's gradient; may come out below 0."""
    signal: float
    """Unbiased estimate of |G|^2; may come out below 0."""


@dataclass(frozen=True)
class NoiseScale:
    """B_simple, in samples."""

    value: float
    """Ratio of the averages; infinite where no gradient was found in the noise."""
    low: float
    """End of the interval."""
    high: float
    """The other end; infinite where the gradient may be nothing but noise."""
    n_steps: int
    """Updates it was measured on."""
    metric: str = "plain"
    """Which length was used: plain or adaptive."""


def from_micro_batches(
    squares: Sequence[float], whole: float, sizes: Sequence[int], n_unique: float = math.inf
) -> GradientSample:
    """The estimates of one update. `squares`: |g_i|^2 of each micro-batch's mean gradient, `whole`: |g|^2 of the batch's,
    `sizes`: samples of each, at least two of them, `n_unique`: samples that there are.

    E|g_i|^2 = |G|^2 + S / b_i and E|g|^2 = |G|^2 + S / B (S = tr Sigma), so S = B / (k - 1) (sum (b_i / B) |g_i|^2 - |g|^2).
    With equal sizes these are McCandlish's S = (|G_b|^2 - |G_B|^2) / (1/b - 1/B) and |G|^2 = (B |G_B|^2 - b |G_b|^2) / (B - b).
    An epoch draws without replacement, which makes the batch's own variance S (1 / B - 1 / n_unique) and leaves the
    expected S as it is (Cochran 1977, theorem 2.2): it tells where the data are few.
    """
    batch = sum(sizes)
    mean = sum(size / batch * square for size, square in zip(sizes, squares, strict=True))
    noise = batch / (len(sizes) - 1) * (mean - whole)
    return GradientSample(noise, whole - noise * (1 / batch - 1 / n_unique))


def noise_scale(samples: Sequence[GradientSample], level: float = 0.95, metric: str = "plain") -> NoiseScale:
    """B_simple of several updates near one another, with Fieller's interval (1954) for a ratio of means.

    The interval is the set of ratios r for which mean(noise - r signal) is within t standard errors of 0. It is not
    symmetric and has no upper end where the signal's own mean is within t of 0, which an interval value +- t * jackknife
    error hides: see benchmarks/noise_scale.md for both coverages. The value has the jackknife's correction for its bias.
    """
    found = np.array([(s.noise, s.signal) for s in samples if math.isfinite(s.noise) and math.isfinite(s.signal)])
    n = len(found)
    if n < 2:
        return NoiseScale(ratio(found) if n else math.nan, 0.0, math.inf, n, metric)
    low, high = fieller(found, t_quantile((1 + level) / 2, n - 1))
    value, _ = jackknife(found)
    if not (low <= value <= high):
        value = ratio(found)
    return NoiseScale(value, low, high, n, metric)


def ratio(found: Values) -> float:
    """Mean noise over mean signal; infinite without a signal."""
    noise, signal = found.mean(0)
    return float(max(0.0, noise) / signal) if signal > 0 else math.inf


def jackknife(found: Values) -> tuple[float, float]:
    """(ratio of means less its bias, its standard error), from leaving out one row at a time (Quenouille 1956)."""
    n, total = len(found), found.sum(0)
    left = total - found
    if total[1] <= 0 or (left[:, 1] <= 0).any():
        return math.inf, math.inf
    others = left[:, 0] / left[:, 1]
    value = n * total[0] / total[1] - (n - 1) * others.mean()
    return float(max(0.0, value)), float(math.sqrt((n - 1) * others.var()))


def fieller(found: Values, t: float) -> tuple[float, float]:
    """The ratios r >= 0 with mean(noise - r signal)^2 <= t^2 var(noise - r signal) / n."""
    noise, signal = found.mean(0)
    (vnn, vns), (_, vss) = np.cov(found.T) / len(found)
    a, b, c = signal**2 - t**2 * vss, noise * signal - t**2 * vns, noise**2 - t**2 * vnn
    inside = b * b - a * c
    if inside < 0 or signal <= 0:  # nothing can be ruled out
        return 0.0, math.inf
    if a <= 0:
        root = (b - math.sqrt(inside)) / a if a else c / (2 * b)
        return max(0.0, float(root)), math.inf
    return max(0.0, float((b - math.sqrt(inside)) / a)), max(0.0, float((b + math.sqrt(inside)) / a))


def read(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, GradientSample]]:
    """What a run's log (metrics.jsonl) says of its gradient noise, step by step."""
    found = [row["gradient_noise"] for row in rows if row.get("gradient_noise")]
    return [{name: GradientSample(**values) for name, values in entry.items()} for entry in found]


def by_length(found: Sequence[dict[str, GradientSample]]) -> tuple[str, list[GradientSample]]:
    """(which length, its samples): the optimizer's own where most updates have it, else the plain one."""
    adaptive = [samples[ADAPTIVE] for samples in found if ADAPTIVE in samples]
    if 2 * len(adaptive) > len(found):
        return ADAPTIVE, adaptive
    return PLAIN, [samples[PLAIN] for samples in found if PLAIN in samples]
