"""Four laws of where a run's loss ends, fitted on what it has shown, each bounded, none trusted alone. Torch-free.

    annealing   L = L0 + A S1^-alpha - C S2                        the schedule's own areas (Tissue 2024, 2408.11029)
    noise       L = (E + B n^-b at the full rate) x what cooling takes away, as a cooled copy measured it (Qiu 2025: the
                gain of a cool-down is the noise of the rate)
    family      L = E + B n^-b over cooled runs of several lengths (Hoffmann 2022, 2203.15556)
    bent        log L = c - s bent(log n, b)                        a log-log slope that flattens

Lengths are counted in steps of fresh data: a repeated one is worth less (Muennighoff 2023, 2305.16264).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from danlu.planning import curves
from danlu.planning.curves import Prior, Values
from danlu.planning.forks import HOT

LAW_SD = 0.01
"""Of the log of any loss: what no law explains, however exactly it was measured."""
N_STRETCHES, FIRST = 8, 0.25
"""Pieces of the training curve, equally wide in the log of the step, from this share of what was seen."""
REPEATS_WORTH = 15.4
"""R* of Muennighoff 2023: passes after which a further one is worth 1/e of the first."""
EXPONENTS = tuple(np.linspace(0.1, 1.0, 19))
"""Of power laws in the length."""
BENDS = tuple(np.linspace(0.0, 2.0, 21))
BEND, BEND_SD = 0.5, 0.4
"""What is thought of the bend: 0.36 is Chinchilla's exponent when nothing of the loss is irreducible."""
FADES = (0.99, 0.997, 0.999)
"""Of the annealing law's drops: memories of 100 to 1,000 steps."""
USUAL_GAIN = 0.04
"""Share of the loss that a whole cool-down takes away (2 to 7% in the logged language runs)."""


@dataclass(frozen=True)
class Points:
    """What a run has shown, in one unit: losses of the validation split against steps."""

    ends: Values
    """(F,) steps at the end of each cooled copy."""
    cooled: Values
    """(F,) its loss."""
    steps: Values
    """(H,) middles of stretches of the training curve at the full rate."""
    hot: Values
    """(H,) their mean training loss."""
    hot_sd: Values
    """(H,) standard deviation of its log."""
    gain: float
    """log of what cooling the last copy took away, at least 0."""
    height: float
    """log of validation over training loss at the full rate, where the last copy was made."""
    n_unique: float
    """Steps of one pass over the data."""

    def fresh(self, steps: Values | Sequence[float] | float) -> Values:
        """D' in steps: passes after the first count for less, U + U R* (1 - exp(-(passes - 1) / R*)) (Muennighoff 2023,
        equation 5)."""
        n = np.atleast_1d(np.asarray(steps, float))
        passes = np.maximum(n / self.n_unique - 1, 0.0)
        return np.where(n <= self.n_unique, n, self.n_unique * (1 + REPEATS_WORTH * -np.expm1(-passes / REPEATS_WORTH)))

    def relative(self, steps: Values | Sequence[float] | float) -> Values:
        """Lengths as multiples of the last copy's."""
        return np.asarray(self.fresh(steps) / self.fresh(float(self.ends[-1])))


def stretches(losses: Values, rates: Values) -> tuple[Values, Values, Values]:
    """(middle step, mean, standard deviation of its log) of pieces of a training curve at its full rate."""
    hot = rates[: len(losses)] > HOT
    edges = np.unique(np.geomspace(max(2, FIRST * len(losses)), len(losses), N_STRETCHES + 1).astype(int))
    rows = []
    for a, b in pairwise(edges):
        piece = losses[a:b][hot[a:b]]
        if len(piece) >= 2 and piece.mean() > 0:
            scatter = piece.std(ddof=1) / piece.mean() / math.sqrt(len(piece))
            rows.append((math.sqrt(a * b), float(piece.mean()), math.hypot(LAW_SD, scatter)))
    found = np.array(rows).reshape(-1, 3)
    return found[:, 0], found[:, 1], found[:, 2]


def read_off(steps: Values, losses: Values, at: float) -> float:
    """log loss at a step: a straight line in log-log through the later half of the stretches."""
    late = slice(len(steps) // 2, None)
    if len(steps[late]) < 2:
        return math.log(float(losses[-1])) if len(losses) else math.nan
    slope, constant = np.polyfit(np.log(steps[late]), np.log(losses[late]), 1)
    return float(constant + slope * math.log(at))


def bent(points: Points, lengths: Values) -> Values:
    """log loss of cooled runs of these lengths (relative) by the bent law."""
    x, hot, y, sd = both(points)
    weights = [math.exp(-0.5 * ((b - BEND) / BEND_SD) ** 2) for b in BENDS]
    mean = np.array([math.log(points.cooled[-1]), 0.0, 0.2])
    prior = Prior(BENDS, weights, mean, np.array([1.0, 1.0, 0.5]), (False, False, True))
    law = curves.fitted(curves.bent_design, np.stack([np.log(x), hot], axis=1), np.log(y), sd, prior)
    return law.at(np.stack([np.log(lengths), np.zeros(len(lengths))], axis=1))[0]


def family(points: Points, lengths: Values) -> Values:
    """The same by E + B n^-b, with the training curve at its own height."""
    x, hot, y, sd = both(points)
    scale = float(points.cooled[-1])
    mean, spread = np.array([0.5, 0.0, 0.5]) * scale, np.array([1.0, 0.3, 1.0]) * scale
    prior = Prior(EXPONENTS, [1.0] * len(EXPONENTS), mean, spread, (True, False, True))
    law = curves.fitted(curves.hot_power_design, np.stack([x, hot], axis=1), y, sd * y, prior)
    return bounded(law.at(np.stack([lengths, np.zeros(len(lengths))], axis=1))[0], scale)


def noise(points: Points, lengths: Values) -> Values:
    """The full-rate curve by E + B n^-b, lower by what cooling took away of the last copy."""
    if len(points.steps) < 3:
        return family(points, lengths)
    scale = float(points.hot[-1])
    prior = Prior(
        EXPONENTS, [1.0] * len(EXPONENTS), np.array([0.5, 0.5]) * scale, np.array([1.0, 1.0]) * scale, (True, True)
    )
    x = points.relative(points.steps)[:, None]
    law = curves.fitted(curves.power_design, x, points.hot, points.hot_sd * points.hot, prior)
    curve = law.at(np.append(lengths, 1.0)[:, None])[0]
    ahead = np.log(np.maximum(curve[:-1], 0.01 * scale) / max(curve[-1], 0.01 * scale))
    return np.asarray(math.log(points.cooled[-1]) + ahead)


def annealing(points: Points, rates: Values, copies: Sequence[Values]) -> float:
    """log of the run's last loss by the annealing law. `rates` are its own, `copies` those of each cooled copy, all as
    shares of the peak. C is held near what makes the usual gain: a short cool-down alone would promise a long one too much."""
    scale = float(points.cooled[-1])
    index = np.minimum(points.steps.astype(int), len(rates) - 1)
    by_fade = {}
    for fade in FADES:
        whole, ends = curves.areas(rates, fade), [curves.areas(copy, fade) for copy in copies]
        s1 = np.concatenate([[s1[-1] for s1, _ in ends], whole[0][index], whole[0][-1:]])
        s2 = np.concatenate([[s2[-1] for _, s2 in ends], whole[1][index], whole[1][-1:]])
        by_fade[fade] = (points.relative(s1), s2)
    last_s2 = float(np.mean([s2[-1] for _, s2 in by_fade.values()]))
    y = np.concatenate([points.cooled, points.hot * math.exp(points.height)])
    sd = np.concatenate([np.full(len(points.cooled), LAW_SD), points.hot_sd]) * y
    c = USUAL_GAIN * scale / max(last_s2, 1e-9)
    shapes = [(alpha, fade) for alpha in EXPONENTS for fade in FADES]
    mean, spread = np.array([0.5 * scale, 0.5 * scale, c]), np.array([scale, scale, 0.25 * c])
    prior = Prior(shapes, [1.0] * len(shapes), mean, spread, (True, True, True))
    design = curves.annealing_design(by_fade)
    law = curves.fitted(design, np.arange(len(y), dtype=float)[:, None], y, sd, prior)
    return float(bounded(law.at(np.array([[float(len(y))]]))[0], scale)[0])


def bounded(losses: Values, scale: float) -> Values:
    """log losses, none below a hundredth of the last one seen."""
    return np.log(np.maximum(losses, 0.01 * scale))


def both(points: Points) -> tuple[Values, Values, Values, Values]:
    """(relative length, 1 for the training curve, loss, standard deviation of its log) of copies and curve together."""
    x = np.concatenate([points.relative(points.ends), points.relative(points.steps)])
    hot = np.concatenate([np.zeros(len(points.ends)), np.ones(len(points.steps))])
    sd = np.concatenate([np.full(len(points.ends), LAW_SD), points.hot_sd])
    return x, hot, np.concatenate([points.cooled, points.hot]), sd


def longer_cooling(points: Points) -> float:
    """What the run's own cool-down gains beyond the last copy's, which was shorter: what is missing of the usual gain."""
    return max(0.0, USUAL_GAIN - points.gain)


def all_laws(points: Points, rates: Values, copies: Sequence[Values]) -> Mapping[str, float]:
    """log of the run's last loss, cooled, by each law."""
    at, more = points.relative(float(len(rates))), longer_cooling(points)
    return {
        "annealing": annealing(points, rates, copies),
        "noise": float(noise(points, at)[0]) - more,
        "family": float(family(points, at)[0]) - more,
        "bent": float(bent(points, at)[0]) - more,
    }
