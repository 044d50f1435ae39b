"""Where a run will end, from where earlier ones of the same model on the same data ended. Torch-free.

A Gaussian process over the settings that such runs differ in, the log of the rate and of the batch, with a constant mean of
which nothing is thought (Rasmussen & Williams 2006, section 2.7, equations 2.42 and 2.45):

    log end(x) ~ mean + N(0, K),    K(x, x') = s^2 exp(-|x - x'|^2 / 2) + w^2 lead lead' + sd^2 [x = x']

x = (log rate, log batch) / WIDE; rates of different update rules say nothing of each other, so between those the first term
is 0. The lead is what a run shows at a share of its length, where that is known. s and sd are averaged over a grid, each
weighted by how well it explains the ends (section 5.2): many runs show how far chance alone takes their ends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np

from danlu.planning.curves import Values
from danlu.planning.seen import Earlier, Setting

WIDE = 1.5
"""Natural log of a factor in rate or batch, over which ends are alike."""
SCALES, NOISES = tuple(np.geomspace(0.02, 1.0, 8)), tuple(np.geomspace(0.002, 0.3, 10))
"""s, how far settings move the log of the end; sd, how far chance does."""
SCALE, NOISE, SPREAD = 0.1, 0.008, 1.0
"""What is thought of them before any run: log-normal around these, with this standard deviation of the log."""
LEAD = 0.35
"""w: what is thought of the share of a lead at a tenth of the run that is left at its end, one standard deviation around 0."""
HOPELESS = 1.0
"""An end higher than those of the better runs (their quarter's) by more than this, in logs, says nothing of runs that learn."""


def expected(at: Setting, earlier: Sequence[Earlier], now: float | None = None) -> tuple[float, float]:
    """(log of the loss at the end of a run with these settings, its standard deviation); `now`: log of its loss at the share
    of its length at which the earlier ones' is known. At least one earlier run."""
    good = float(np.quantile([run.end for run in earlier], 0.25))
    near = [run for run in earlier if run.end <= good + HOPELESS]
    ends = np.array([run.end for run in near])
    settings = [*(run.setting for run in near), at]
    leads = np.array([*(run.now for run in near), 0.0 if now is None else now])
    leads = leads - leads[:-1].mean() if now is not None else np.zeros_like(leads)
    likeness = np.array([[alike(one, other) for other in settings] for one in settings])
    fits = np.array([fitted(ends, likeness, LEAD * leads, s, sd) for s, sd in product(SCALES, NOISES)])
    weights = np.exp(fits[:, 0] - fits[:, 0].max())
    weights /= weights.sum()
    mean = float(weights @ fits[:, 1])
    return mean, math.sqrt(float(weights @ (fits[:, 2] + (fits[:, 1] - mean) ** 2)))


def alike(one: Setting, other: Setting) -> float:
    """exp(-|x - x'|^2 / 2) of two settings."""
    if one.rule != other.rule:
        return 0.0
    far = math.log(one.lr / other.lr) ** 2 + math.log(one.batch / other.batch) ** 2
    return math.exp(-far / (2 * WIDE**2))


def fitted(ends: Values, likeness: Values, leads: Values, s: float, sd: float) -> tuple[float, float, float]:
    """(log of the weight, mean, variance) for the last setting, given the ends of all others, by one s and sd."""
    whole = s**2 * likeness + np.outer(leads, leads)
    inverse = np.linalg.inv(whole[:-1, :-1] + sd**2 * np.eye(len(ends)))
    across, ones = whole[-1, :-1], np.ones(len(ends))
    known = float(ones @ inverse @ ones)
    center = float(ones @ inverse @ ends) / known
    rest = ends - center
    explained = float(np.linalg.slogdet(inverse)[1]) - math.log(known) - float(rest @ inverse @ rest)
    thought = (math.log(s / SCALE) ** 2 + math.log(sd / NOISE) ** 2) / SPREAD**2
    mean = center + float(across @ inverse @ rest)
    left = float(whole[-1, -1] - across @ inverse @ across) + (1 - float(ones @ inverse @ across)) ** 2 / known
    return (explained - thought) / 2, mean, max(0.0, left) + sd**2
