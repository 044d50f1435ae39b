"""Samples as few levels, spaced like hearing: mu-law companding (ITU-T G.711; van den Oord et al. 2016, section 2.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def encoded(samples: Floats, levels: int) -> NDArray[np.int64]:
    """Samples, full scale at 1, as level numbers 0 .. levels - 1. Silence is level `levels // 2`."""
    mu = levels - 1
    clipped = np.clip(np.asarray(samples, np.float64), -1.0, 1.0)
    companded = np.sign(clipped) * np.log1p(mu * np.abs(clipped)) / np.log1p(mu)
    return np.asarray(np.floor((companded + 1) / 2 * mu + 0.5), np.int64)


def expanded(places: Floats | NDArray[np.int64], levels: int) -> NDArray[np.float64]:
    """The sample that stands at a level; halves are the borders between levels."""
    mu = levels - 1
    companded = 2 * np.asarray(places, np.float64) / mu - 1
    return np.asarray(np.sign(companded) * np.expm1(np.abs(companded) * np.log1p(mu)) / mu)


def values(levels: int) -> NDArray[np.float64]:
    """(levels,) the sample of each level."""
    return expanded(np.arange(levels), levels)


def borders(levels: int) -> NDArray[np.float64]:
    """(levels - 1,) the samples at which one level becomes the next."""
    return expanded(np.arange(levels - 1) + 0.5, levels)
