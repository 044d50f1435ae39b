"""From scores of frames to units: the best path, or a search over prefixes. T frames, K = units + 1, and 0 is blank."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Logs = NDArray[np.float64]
BLANK = 0
LEAST = -12.0
"""Units less likely than e^this at a frame are not tried there; the likeliest always is."""


def greedy(logs: Logs) -> list[int]:
    """(T, K) log shares -> units (0-based): the likeliest of each frame, repeats made one, blanks left out."""
    best = logs.argmax(1)
    fresh = np.append(True, best[1:] != best[:-1]) if len(best) else np.zeros(0, bool)
    return [int(code) - 1 for code in best[fresh & (best != BLANK)]]


def prefix_search(logs: Logs, width: int, least: float = LEAST) -> tuple[list[int], float]:
    """(units, log share): the likeliest units over all ways to align them, among `width` prefixes kept at each frame
    (Graves et al. 2006; Hannun et al. 2014, 1408.2873, without a language model)."""
    kept: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, -math.inf)}  # ends in blank, ends in its last unit
    for frame in logs:
        tried = np.flatnonzero(frame > least)
        tried = tried if len(tried) else np.array([frame.argmax()])
        shares = [(int(code), float(frame[code])) for code in tried]
        grown: dict[tuple[int, ...], tuple[float, float]] = {}
        for prefix, (blank, unit) in kept.items():
            total = plus(blank, unit)
            for code, share in shares:
                if code == BLANK:
                    put(grown, prefix, total + share, -math.inf)
                elif prefix and prefix[-1] == code - 1:
                    put(grown, prefix, -math.inf, unit + share)
                    put(grown, (*prefix, code - 1), -math.inf, blank + share)
                else:
                    put(grown, (*prefix, code - 1), -math.inf, total + share)
        ordered = sorted(grown.items(), key=lambda item: (-plus(*item[1]), item[0]))
        kept = dict(ordered[:width])
    best, ends = max(kept.items(), key=lambda item: plus(*item[1]))
    return list(best), plus(*ends)


def put(grown: dict[tuple[int, ...], tuple[float, float]], prefix: tuple[int, ...], blank: float, unit: float) -> None:
    """Add log shares to a prefix."""
    a, b = grown.get(prefix, (-math.inf, -math.inf))
    grown[prefix] = plus(a, blank), plus(b, unit)


def plus(a: float, b: float) -> float:
    """log(e^a + e^b)."""
    high, low = (a, b) if a > b else (b, a)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))
