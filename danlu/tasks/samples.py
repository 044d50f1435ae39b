"""What every task on samples by number has: a loss, predictions, scores, and the baselines it must beat.

Scoring is two steps, so that intervals cost little: `Scorer(...)` compares predictions with truths once, a unit (a
sample) at a time; `Scorer.values(rows)` sums up any resample of the units. Baselines are predictions too, scored the
same way on the same units, so the difference to them has a paired interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from danlu.base.contracts import Batch, DataCard, Output, Split
from danlu.base.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor, nn

Rows = NDArray[np.int64]
Words = NDArray[np.uint64]
Predictions = Sequence[Any]
"""One a sample; what it is, is the task's affair (an array of class shares, a text, boxes)."""
Panel = Mapping[str, Any]
"""Something for the report to draw; see tasks/panels.py."""


class Scorer(Protocol):
    """Predictions held against truths."""

    @property
    def n_units(self) -> int:
        """Samples that can be resampled."""

    def values(self, rows: Rows | None = None) -> dict[str, float]:
        """Every metric over the units `rows` (with repeats), or over all."""


class SampleTask(Settings):
    """Base of the tasks on samples by number."""

    kind: str
    """Task."""

    headline: ClassVar[str] = ""
    """The metric that counts: what the verdict and the baselines are about."""
    higher_is_better: ClassVar[bool] = True
    """Of the headline."""
    predicts_fast: ClassVar[bool] = True
    """Whether predictions cost no more than a pass through the model, so that training may look at them."""
    units: ClassVar[Mapping[str, str]] = {}
    """Metric -> how its unit is said."""

    def check(self, card: DataCard) -> None:
        """Refuse data that this task cannot be asked of (UserError). Called whenever a network is built, so a task may
        keep here what its loss must know of the data (class weights)."""

    def n_outputs(self, card: DataCard) -> int:
        """Scores that the model must give: for each sample, or for each position of it."""
        raise NotImplementedError

    def asks(self, card: DataCard) -> dict[str, Any]:
        """What the model must know of the task beside that number; it reads it among the data's features.
        {"per_position": True}: an answer at each position of a sample, not one for the whole."""
        return {}

    def change(self, batch: Batch, seeds: Words) -> Batch:
        """What is done to a batch before the model sees it, in training and in scoring; (B,) one seed a sample."""
        return batch

    def loss_sum(self, output: Output, batch: Batch) -> Tensor:
        """Sum over targets (float32 scalar), not a mean: the caller divides once by n_targets."""
        raise NotImplementedError

    def predict(self, model: nn.Module, batch: Batch, card: DataCard) -> Predictions:
        """Predictions of a batch, by a model in eval mode, without gradient; target transforms undone."""
        raise NotImplementedError

    def truths(self, batch: Batch, card: DataCard) -> Predictions:
        """What the predictions are held against, in the same units."""
        raise NotImplementedError

    def scorer(self, predictions: Predictions, truths: Predictions, card: DataCard) -> Scorer:
        """Compare once."""
        raise NotImplementedError

    def baselines(self, train: Split, split: Split, card: DataCard) -> dict[str, Predictions]:
        """Predictions of the trivial rivals on `split`, fitted on `train` alone; at least one."""
        raise NotImplementedError

    def panels(self, predictions: Predictions, truths: Predictions, split: Split, card: DataCard) -> list[Panel]:
        """What one would rather look at than read."""
        return []

    def panels_made(self, model: nn.Module, split: Split, card: DataCard) -> list[Panel]:
        """What the model makes of itself, for tasks that make something: new sounds, sentences, pictures."""
        return []

    def rows(self, predictions: Predictions, split: Split, card: DataCard) -> list[dict[str, Any]]:
        """One JSON-able row a sample, for predict: {"name": where from, "prediction": ..., ...}."""
        raise NotImplementedError

    def write(self, predictions: Predictions, split: Split, card: DataCard, out: Any) -> bool:
        """Write predictions into the folder `out` (a Path) in the kind's natural format (WAV, PDB, boxes drawn on the
        image); False where rows (CSV, JSONL) are that."""
        return False
