"""Laws of learning curves, fitted with bounded priors and averaged over what fits. Torch-free, numpy only.

Each law is linear in its coefficients once its shape (an exponent, ...) is given: variable projection (Golub & Pereyra
1973). Every shape of a bounded grid is kept, weighted by how well it explains the points (Bayesian linear regression
inside: Bishop 2006, 3.3-3.5; a normal prior on the coefficients, known noise), so a prediction's spread holds both the
noise and the doubt about the shape. Exponents swing while predictions agree: only predictions are reported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Node:
    """One shape and the normal posterior of its coefficients."""

    shape: Any
    weight: float
    mean: Values
    covariance: Values


@dataclass(frozen=True)
class Law:
    """A fitted law: nodes, and what their coefficients stand before."""

    nodes: tuple[Node, ...]
    design: Callable[[Values, Any], Values]
    """(inputs (N, D), shape) -> (N, K): the prediction is design @ coefficients."""

    def at(self, inputs: Values) -> tuple[Values, Values]:
        """(mean, standard deviation) of the prediction at each input."""
        weights = np.array([node.weight for node in self.nodes])
        means, variances = [], []
        for node in self.nodes:
            rows = self.design(inputs, node.shape)
            means.append(rows @ node.mean)
            variances.append(np.einsum("nk,kl,nl->n", rows, node.covariance, rows))
        mean = weights @ np.array(means)
        spread = weights @ (np.array(variances) + (np.array(means) - mean) ** 2)
        return mean, np.sqrt(spread)


@dataclass(frozen=True)
class Prior:
    """What is thought of a law before its points are seen."""

    shapes: Sequence[Any]
    """The grid."""
    weights: Sequence[float]
    """Of each shape."""
    mean: Values
    """(K,) of the coefficients."""
    sd: Values
    """(K,) of the coefficients; large where nothing is known."""
    positive: tuple[bool, ...]
    """(K,) coefficients that may not be negative."""


def fitted(design: Callable[[Values, Any], Values], inputs: Values, y: Values, sd: Values, prior: Prior) -> Law:
    """The law over the whole grid. `inputs` (N, D), `y` (N,) with standard deviation `sd` (N,)."""
    nodes, logs = [], []
    for shape, weight in zip(prior.shapes, prior.weights, strict=True):
        mean, covariance, log_evidence = solved(design(inputs, shape), y, sd, prior)
        nodes.append(Node(shape, 0.0, mean, covariance))
        logs.append(log_evidence + math.log(max(weight, 1e-300)))
    scaled = np.exp(np.array(logs) - max(logs))
    scaled /= scaled.sum()
    return Law(tuple(Node(n.shape, float(w), n.mean, n.covariance) for n, w in zip(nodes, scaled, strict=True)), design)


def solved(rows: Values, y: Values, sd: Values, prior: Prior) -> tuple[Values, Values, float]:
    """(mean, covariance, log evidence) of the coefficients of rows @ c = y: the posterior of Bishop 2006, (3.50) and
    (3.51), and the normal density of y under the prior. A coefficient that would be negative and may not be is 0, and
    the rest is solved again (the active set of Lawson & Hanson 1974, in one pass for each)."""
    active = np.ones(rows.shape[1], bool)
    while True:
        used = rows[:, active] / sd[:, None]
        precision = used.T @ used + np.diag(1 / prior.sd[active] ** 2)
        covariance = np.linalg.inv(precision)
        found = covariance @ (used.T @ (y / sd) + prior.mean[active] / prior.sd[active] ** 2)
        wrong = [i for i, k in enumerate(np.flatnonzero(active)) if prior.positive[k] and found[i] < 0]
        if not wrong:
            break
        active[np.flatnonzero(active)[wrong[int(np.argmin(found[wrong]))]]] = False
    mean, whole = np.zeros(rows.shape[1]), np.zeros((rows.shape[1], rows.shape[1]))
    mean[active] = found
    whole[np.ix_(active, active)] = covariance
    spread = np.diag(sd**2) + (rows * prior.sd**2) @ rows.T
    gap = y - rows @ prior.mean
    _, log_det = np.linalg.slogdet(spread)
    log_evidence = -0.5 * float(gap @ np.linalg.solve(spread, gap) + log_det + len(y) * math.log(2 * math.pi))
    return mean, whole, log_evidence


def power_design(n: Values, b: float) -> Values:
    """L = E + B n^-b, as [1, n^-b]: the family of decayed runs (Hoffmann 2022, 2203.15556; Kaplan 2020, 2001.08361)."""
    return np.stack([np.ones(len(n)), n[:, 0] ** -b], axis=1)


def hot_power_design(x: Values, b: float) -> Values:
    """The same with a second input that says which points are of the training curve, higher by a constant: [1, hot, n^-b]."""
    return np.stack([np.ones(len(x)), x[:, 1], x[:, 0] ** -b], axis=1)


def bent(x: Values, b: float) -> Values:
    """(1 - exp(-b x)) / b, which is x at b = 0: a slope that shrinks by exp(-b) with each factor e."""
    return x if abs(b) < 1e-9 else -np.expm1(-b * x) / b


def bent_design(x: Values, b: float) -> Values:
    """log L = c + g hot - s bent(x, b), x the log of the length: the log-log curve with a slope that flattens, as that of
    any L = E + B n^-a does. Points of the training curve (hot = 1) lie higher by g, which is the noise of a rate that was
    not cooled and whatever else tells training from validation loss."""
    return np.stack([np.ones(len(x)), x[:, 1], -bent(x[:, 0], b)], axis=1)


def areas(rates: Values, fade: float) -> tuple[Values, Values]:
    """(S1, S2) after each update, rates relative to their peak: S1 = sum of rates, S2 = sum over i of the drops before
    it, each faded: sum_{k<=i} (rate_{k-1} - rate_k) fade^(i-k) (Tissue 2024, 2408.11029). A warm-up's rises are left out:
    they are no drops below zero, and counting them shifts the floor by C times the peak."""
    drops = np.maximum(0.0, -np.diff(rates, prepend=rates[:1]))
    momentum = np.zeros(len(rates))
    held = 0.0
    for i, drop in enumerate(drops):
        held = fade * held + drop
        momentum[i] = held
    return np.cumsum(rates), np.cumsum(momentum)


def annealing_design(areas_by_shape: dict[Any, tuple[Values, Values]]) -> Callable[[Values, Any], Values]:
    """L = E + A S1^-alpha - C S2, as [1, S1^-alpha, -S2], for shapes (alpha, fade); inputs are indices into the areas."""

    def design(index: Values, shape: tuple[float, float]) -> Values:
        s1, s2 = areas_by_shape[shape[1]]
        at = index[:, 0].astype(int)
        return np.stack([np.ones(len(at)), s1[at] ** -shape[0], -s2[at]], axis=1)

    return design
