"""Memory of a training, from measured peaks: what a run will hold at most, also with micro-batches that were not tried.

A rehearsal (training/measure.py) gives the peak of a real beginning of the run. Between layouts that differ only in
their micro-batch m the peak of the steps is a line

    own bytes = fixed + slope * m          fixed: weights, gradients, optimizer state, averages; slope: activations

(Korthikanti et al. 2022, 2205.05198, section 4: activations are proportional to the micro-batch), so that two cheap
points say which larger ones fit. Looks at validation and checkpoint buffers do not depend on m and are a floor and an
addition to it. Under-prediction is the costly side: a layout is used only when its upper bound fits. Torch-free.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median, stdev
from typing import Any

OUT_OF_MEMORY = "out of memory"
"""The trouble of a rehearsal that hit its memory ceiling."""
SLACK, SLACK_BYTES = 1.15, 32 * 2**20
"""Upper bound of a run's own peak, from a rehearsal's: the heap goes to pieces in another way each time
(docs/LOG.md, memory of small runs)."""
FAR_SLACK = 1.25
"""The same where the line is followed beyond twice its largest measured micro-batch."""
PAGES_BYTES = 64 * 1024
"""What the kernel maps around one touched page of a file (fault_around_bytes)."""


@dataclass(frozen=True)
class Rehearsal:
    """What the first steps of a run took. Without `trouble` all numbers are there; looks and saves of a whole one only."""

    trouble: str = ""
    """Why it failed: OUT_OF_MEMORY or another reason; empty when it did not."""
    steps: tuple[float, ...] = ()
    """Seconds of each step after the first."""
    startup_s: float = 0.0
    """Opening the run: building the model, opening the data."""
    first_s: float = 0.0
    """The first step, with whatever warms up or compiles in it."""
    watch_s: float = 0.0
    """What measuring each layer's signals adds to a step."""
    look_s: float = 0.0
    """One look at the validation split."""
    stall_s: float = 0.0
    """What handing over a checkpoint holds training up."""
    closing_s: float = 0.0
    """The last checkpoint, on the disk, and closing."""
    steps_bytes: int = 0
    """Peak of the process while stepping."""
    peak_bytes: int = 0
    """Peak of all: with a look and a checkpoint's buffers."""
    file_bytes: int = 0
    """Of it, pages of files at the end: libraries, mapped data."""
    new_file_bytes: int = 0
    """Of those, pages that the process that will train does not hold yet; prepared data are not among them."""
    base_own_bytes: int = 0
    """What the process held of its own before."""
    base_file_bytes: int = 0
    """What it held of files before."""
    parent_own_bytes: int = 0
    """What the process that will train holds of its own."""
    parent_file_bytes: int = 0
    """What it holds of files."""
    state_bytes: int = 0
    """Weights, optimizer state and average: what a fork of the run copies."""
    mapped_bytes: int = 0
    """Prepared data that are mapped and not copied: they count as far as they are touched."""
    busy: float = 0.0
    """Share of the machine's processors that others used meanwhile."""
    seconds: float = 0.0
    """All of the rehearsal."""

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Rehearsal:
        """From JSON."""
        return cls(**dict(found) | {"steps": tuple(found.get("steps", ()))})

    @property
    def is_out_of_memory(self) -> bool:
        """Whether it hit the ceiling."""
        return self.trouble == OUT_OF_MEMORY

    @property
    def step_s(self) -> float:
        """Median step; infinite when it failed."""
        return median(self.steps) if self.steps else math.inf

    @property
    def steps_own_bytes(self) -> int:
        """Peak of its own memory while stepping, beyond what was there."""
        return max(0, self.steps_bytes - self.file_bytes - self.base_own_bytes)

    @property
    def own_bytes(self) -> int:
        """The same with looks and checkpoints."""
        return max(0, self.peak_bytes - self.file_bytes - self.base_own_bytes)

    def process_bytes(self, own_bytes: float, n_samples: float) -> float:
        """Peak of the training process whose own memory grows by so much over n_samples: with what it holds already, its
        libraries, and the pages of data that it touches."""
        files = self.parent_file_bytes + self.new_file_bytes + touched_bytes(self.mapped_bytes, n_samples)
        return self.parent_own_bytes + own_bytes + files


@dataclass(frozen=True)
class Line:
    """Own bytes of a layout by micro-batch: max(floor, fixed + slope m) + added."""

    fixed: float
    slope: float
    floor: float
    """What looks need at least, whatever the micro-batch."""
    added: float
    """Checkpoint buffers, beside the steps."""
    largest: int
    """Largest measured micro-batch."""

    def at(self, micro_batch: int) -> float:
        """Expected own bytes."""
        return max(self.floor, self.fixed + self.slope * micro_batch + self.added)

    def upper(self, micro_batch: int) -> float:
        """Its upper bound."""
        return upper(self.at(micro_batch), FAR_SLACK if micro_batch > 2 * self.largest else SLACK)


def upper(own_bytes: float, slack: float = SLACK) -> float:
    """Upper bound of a peak."""
    return slack * own_bytes + SLACK_BYTES


def fit(points: Sequence[tuple[int, Rehearsal]]) -> Line:
    """Least squares through (micro-batch, rehearsal); from one point alone all of its memory is taken for activations
    beyond it, which bounds larger micro-batches from above, and for fixed below it, which bounds smaller ones."""
    good = [(m, r) for m, r in points if not r.trouble]
    if not good:
        raise ValueError("no rehearsal succeeded")
    whole = [r for _, r in good if r.own_bytes > r.steps_own_bytes]
    floor = min((r.own_bytes for r in whole), default=0)
    added = min((r.own_bytes - r.steps_own_bytes for r in whole), default=0)
    sizes = sorted({m for m, _ in good})
    if len(sizes) == 1:
        return Line(0.0, max(r.steps_own_bytes for _, r in good) / sizes[0], floor, added, sizes[0])
    at, own = [float(m) for m, _ in good], [float(r.steps_own_bytes) for _, r in good]
    middle, level = mean(at), mean(own)
    slope = sum((x - middle) * (y - level) for x, y in zip(at, own, strict=True)) / sum((x - middle) ** 2 for x in at)
    slope = max(0.0, slope)
    return Line(max(0.0, level - slope * middle), slope, floor, added, sizes[-1])


def touched_bytes(mapped_bytes: int, n_samples: float) -> float:
    """Pages of mapped data that a run holds in the end: n random touches of PAGES_BYTES each leave exp(-n pages / all)
    untouched."""
    return mapped_bytes * -math.expm1(-n_samples * PAGES_BYTES / mapped_bytes) if mapped_bytes else 0.0


def spread(seconds: Sequence[float]) -> float:
    """Relative standard error of the mean of step times; 0.1 from fewer than three."""
    if len(seconds) < 3:
        return 0.1
    return stdev(seconds) / mean(seconds) / math.sqrt(len(seconds))
