"""What a diagnosis remembers of a run, and what it says. Plain numbers and words: both go through JSON unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Record = Mapping[str, Any]
"""What was seen at one step: training/alarm.py makes it."""
WINDOW = 32
"""Batches whose labels are compared."""


@dataclass(frozen=True)
class Finding:
    """One thing that seems wrong."""

    name: str
    """A key of CAUSES."""
    step: int
    says: str
    """The numbers it rests on."""
    severity: str = "stop"
    """"stop": the run is not worth going on with; "warn": worth a look."""
    more: tuple[str, ...] = ()
    """Suspects beyond the usual ones."""

    @property
    def sentence(self) -> str:
        """For the log, the terminal and the report."""
        suspects, fix = CAUSES[self.name]
        named = ", ".join((*self.more, *suspects))
        return f"alarm, {self.name} at step {self.step}: {self.says}. Suspects: {named}. Fix: {fix}."


CAUSES: dict[str, tuple[tuple[str, ...], str]] = {
    "initial loss": (("initial weights or output scale", "a loss divided by the wrong count"),
                     "compare one batch's loss with that of all-zero scores"),
    "cannot learn one batch": (("inputs that carry nothing", "a cut in the graph", "noise in the forward pass"),
                               "look at one batch as the model gets it"),
    "missing gradient": (("a detached or unused part", "units that are all dead"),
                         "follow the loss back to the named weights"),
    "frozen weights": (("parameters the optimizer was not given", "a rate of 0 for their group"),
                       "compare the optimizer's groups with the model's parameters"),
    "duplicated batches": (("a loader that repeats itself", "copies in the data"), "look at the sample ids of the steps named"),
    "unshuffled data": (("shuffling that is off", "data sorted by label or source"), "shuffle before batching"),
    "shifted labels": (("targets that are off by one place", "a join on the row number after rows were dropped"),
                       "print a few samples with their targets"),
    "dead units": (("a rate that was too high once", "a large negative bias", "unscaled inputs"),
                   "lower the rate, or use gelu or leaky"),
    "exploding gradient": (("initial weights too large", "a layer without norm or residual path"), "scale the initial weights, add norms"),
    "vanishing gradient": (("saturated activations", "initial weights too small", "depth without residual paths"),
                           "scale the initial weights, add norms or residual paths"),
    "rate too high": (("optimizer.lr", "a schedule without warm-up"), "divide optimizer.lr by 3 to 10"),
    "rate too low": (("optimizer.lr", "weights frozen in effect"), "multiply optimizer.lr by 3 to 10"),
    "label noise": (("wrong labels in the training split", "a validation split unlike it"),
                    "look at the training samples with the largest loss"),
    "leakage": (("a feature made from the target", "validation samples among the training samples"),
                "drop the feature, or split again by content"),
    "off the curve": (("a change in the data's order or content", "lost optimizer state", "a numerical fault"),
                      "look at what changed at that step; resume from the checkpoint before it"),
}  # fmt: skip
"""Name -> (usual suspects, what to do)."""


@dataclass
class Memory:
    """What the judgement of a step needs of those before. It is part of every checkpoint."""

    facts: dict[str, Any] = field(default_factory=dict)
    """Said at step 0: n_steps, peak_lr, task, epoch (batches), batch, first, blank, held_twins, held_var, bucketed."""
    may_not_learn: bool = False
    """The loss was still that of a constant answer, and still fell, when it was last asked."""
    losses: list[float] = field(default_factory=list)
    """The last 64."""
    norms: list[float] = field(default_factory=list)
    """Gradient norms, the last 64."""
    first_norm: float = 0.0
    """Median of the first ten."""
    means: list[list[float]] = field(default_factory=list)
    """Label means of the last WINDOW batches, their variances and sizes."""
    variances: list[list[float]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    repeats: list[float] = field(default_factory=list)
    """Share of repeated samples in the last 16 batches."""
    follows: list[float] = field(default_factory=list)
    """Share of windows that go on where the one before ended."""
    held: list[int] = field(default_factory=lambda: [0, 0])
    """Training samples found among the validation samples, of how many."""
    zero: dict[str, int] = field(default_factory=dict)
    """Steps in a row that a parameter had no gradient."""
    still: dict[str, int] = field(default_factory=dict)
    """Watched steps in a row that a parameter did not move in spite of a gradient."""
    dead: dict[str, int] = field(default_factory=dict)
    """Watched steps in a row that most units of a layer were dead."""
    depth: list[list[float]] = field(default_factory=list)
    """At the last watched steps: (largest rise, largest fall) of the layers' log10 sensitivities through the depth."""
    updates: list[float] = field(default_factory=list)
    """Median update over weight of the last watched steps."""
    gains: list[list[float]] = field(default_factory=list)
    """[predicted, actual] change of the batch's loss by its own update."""
    probes: list[list[float]] = field(default_factory=list)
    """[training, validation] loss of the same weights, both in evaluation mode."""
    constant: float | None = None
    """Loss of the best constant answer."""
    blocks: list[float] = field(default_factory=list)
    """Mean loss of each block of steps so far."""
    block: list[float] = field(default_factory=list)
    """Losses of the block that is not full."""
    excesses: list[float] = field(default_factory=list)
    """How far earlier blocks lay above their forecast."""
    told: list[str] = field(default_factory=list)
    """Findings so far: each is told once."""

    fresh_validation: float | None = None
    """A validation loss that the next training batch is to be held against."""
    n_watched: int = 0
    """Watched steps so far."""

    @property
    def n_probes(self) -> int:
        """Comparisons so far."""
        return len(self.probes)
