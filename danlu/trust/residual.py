"""The residual against the curve that the run's own past predicts: a loss that leaves it upwards and stays there.

Losses are averaged in blocks of steps. From N_PAST blocks the next N_AHEAD are forecast by the median slope of all pairs
(Theil 1950; Sen 1968), never a rising one: a loss that rises is what is looked for. How far the N_AHEAD blocks lie above
their forecast on average is compared with how far they lay at earlier blocks of the same run (median and median absolute
deviation), so the scale knows the run's own noise, its hard batches and its bends. On 147 kept healthy runs of the
planning benchmark (rates up to twice the middle of the grid) SIGMAS = 8 is passed once.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from danlu.trust.findings import Finding, Memory, Record

N_BLOCKS, BLOCK_LEAST = 100, 4
"""Blocks of a run; the fewest steps of one."""
N_PAST, N_AHEAD, N_EXCESS, N_LEAST = 12, 4, 40, 8
"""Blocks a forecast is made from and for; earlier excesses that are looked back at, and the fewest that tell."""
SIGMAS, EACH, AT_LEAST = 8.0, 2.0, 0.01
"""Robust standard deviations that the mean excess must pass, and each block's and the rise over the last
blocks seen (a loss that only falls more slowly is no fault); their least, as a share of the loss."""


def forecast(past: Sequence[float], n_ahead: int) -> list[float]:
    """The next blocks."""
    n = len(past)
    slopes = [(past[j] - past[i]) / (j - i) for i in range(n) for j in range(i + 1, n)]
    slope = min(0.0, statistics.median(slopes))
    level = statistics.median(y - slope * i for i, y in enumerate(past))
    return [level + slope * (n + i) for i in range(n_ahead)]


def off_the_curve(memory: Memory, record: Record) -> Finding | None:
    """After each full block: do the last N_AHEAD lie above what those before them said, more than ever before?"""
    memory.block = [*memory.block, record["loss"]]
    if len(memory.block) < max(BLOCK_LEAST, memory.facts.get("n_steps", 0) // N_BLOCKS):
        return None
    memory.blocks = [*memory.blocks, statistics.fmean(memory.block)][-N_PAST - N_AHEAD :]
    memory.block = []
    if len(memory.blocks) < N_PAST + N_AHEAD:
        return None
    past, now = memory.blocks[:N_PAST], memory.blocks[N_PAST:]
    expected = forecast(past, N_AHEAD)
    above = [y - e for y, e in zip(now, expected, strict=True)]
    before, memory.excesses = memory.excesses, [*memory.excesses, statistics.fmean(above)][-N_EXCESS:]
    if len(before) < N_LEAST:
        return None
    middle = statistics.median(before)
    spread = 1.4826 * statistics.median(abs(x - middle) for x in before)
    scale = max(spread, AT_LEAST * abs(statistics.median(past)))
    rise = statistics.fmean(now) - statistics.median(past[-N_AHEAD:])
    if statistics.fmean(above) < SIGMAS * scale or min(*above, rise) < EACH * scale:
        return None
    says = (
        f"the loss was {statistics.fmean(now):.4g} over the last {N_AHEAD} blocks; its own past says "
        f"{statistics.fmean(expected):.4g} +- {scale:.2g} ({statistics.fmean(above) / scale:.0f} standard deviations)"
    )
    return Finding("off the curve", record["step"], says, more=changed(memory))


def changed(memory: Memory) -> tuple[str, ...]:
    """What else moved lately: suspects."""
    found = []
    if len(memory.norms) >= 48 and statistics.median(memory.norms[-12:]) > 3 * statistics.median(memory.norms[:-24]):
        found.append("gradients that grew")
    if len(memory.updates) >= 3 and memory.updates[-1] > 3 * statistics.median(memory.updates[:-1]) > 0:
        found.append("a rate that rose")
    if memory.repeats and statistics.fmean(memory.repeats[-8:]) > 0.3:
        found.append("repeated samples")
    if len(memory.variances) >= 24:
        early, late = (
            statistics.fmean(sum(v) for v in part) for part in (memory.variances[:-16], memory.variances[-8:])
        )
        if late < 0.5 * early:
            found.append("labels that vary less")
    return tuple(found)
