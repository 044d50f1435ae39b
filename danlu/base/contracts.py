"""What the shelves agree on. A Source gives Batches, a Model maps a Batch to an Output, a Task scores it.

The loss is always a sum and a count, divided once, before backward: any cut into micro-batches and any
number of ranks then gives the same curve.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import Field

from danlu.base.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Tensors that go through the model together, and how many targets they hold (what the loss is divided by).

    Text: `tensors = {"tokens": (B, T) int64, "targets": (B, T) int64}`; a target of -1 is not supervised.
    With documents kept apart: also "documents": (B, T) int32, the document number at each position.
    """

    tensors: Mapping[str, Tensor]
    n_targets: int
    ids: np.ndarray | None = None
    """(B,) int64 sample ids, for the log that proves the order."""
    row_targets: np.ndarray | None = None
    """(B,) targets of each sample where they cannot be counted as tensors["targets"] >= 0."""

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        return dataclasses.replace(self, tensors={k: v.to(device, non_blocking=True) for k, v in self.tensors.items()})

    def rows(self, rows: slice) -> Batch:
        """Some samples of it, with their own count of targets: every tensor's first axis is the sample."""
        tensors = {name: tensor[rows] for name, tensor in self.tensors.items()}
        own = None if self.row_targets is None else self.row_targets[rows]
        n_targets = int((tensors["targets"] >= 0).sum()) if own is None else int(own.sum())
        return Batch(tensors, n_targets, None if self.ids is None else self.ids[rows], own)


@dataclass(frozen=True)
class Output:
    """What a model hands to a task: features, and the head that turns them into scores when asked.

    A language task never needs all scores at once, so it calls the head on pieces: `features` (B, T, D) and
    `head_weight` (V, D) go to a chunked cross-entropy; `scores` is None then.
    """

    features: Tensor | None = None
    head_weight: Tensor | None = None
    head_scale: float = 1.0
    """Multiplier on the scores (1/width ratio under muP)."""
    scores: Tensor | None = None
    lengths: Tensor | None = None
    """(B,) positions of each sample that `scores` (B, T, K) are for, where the model has made them fewer."""
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    """What else a model gives, by name: frames of a protein. The model's file says which."""


class SplitCard(Settings):
    """One split, counted."""

    n_documents: int = 0
    """Documents in the split, of text."""
    n_bytes: int = 0
    """UTF-8 bytes of its text: the denominator of bits per byte."""
    n_tokens: int = 0
    """Tokens in its shard file, of text."""
    n_samples: int = 0
    """Samples in the split, of all other kinds."""
    n_targets: int = 0
    """What they are scored on: rows of a table, tokens of a translation, residues of a protein."""


class StationCard(Settings):
    """One station of the data's path: what came in, what it dropped or changed, and examples to look at."""

    name: str
    """Station, as in the recipe: read, unicode, exact_duplicates, near_duplicates, length, repetition, pii, ..."""
    n_in: int
    """Rows (documents) that came in."""
    n_changed: int = 0
    """Rows passed on, changed."""
    n_dropped: dict[str, int] = Field(default_factory=dict)
    """Rows dropped, by reason."""
    examples: tuple[dict[str, str], ...] = ()
    """A few dropped or changed rows: {"row": "file.txt:12", "reason": "...", "text": "first 200 characters"}."""


class DataCard(Settings):
    """All that later stages know of the data: written once by prepare as data/card.json."""

    kind: str
    """Data kind: text, table, ..."""
    source: str
    """Path, glob, catalog or hub name, as given."""
    rows_in: int
    """Rows read (a row of text data is one document: a file, a line of JSONL, a Parquet row)."""
    rows_used: int
    """Rows that ended in a split. rows_in = rows_used + sum(rows_rejected)."""
    rows_rejected: dict[str, int]
    """Rows that did not, by reason."""
    stations: tuple[StationCard, ...] = ()
    """The stations in order."""
    splits: dict[str, SplitCard] = Field(default_factory=dict)
    """train, validation, test: counts."""
    features: dict[str, Any] = Field(default_factory=dict)
    """What models and tasks must know of the samples: sizes, names, classes (see the data kind's module)."""
    vocab_size: int = 0
    """Token ids are 0 .. vocab_size - 1."""
    dtype: str = "uint16"
    """Type of the token files, little-endian: uint8, uint16 or uint32."""
    document_end: int | None = None
    """Token id put after each document, or None."""
    tokenizer: dict[str, Any] = Field(default_factory=dict)
    """The tokenizer's settings with its files (relative to data/): enough to load it again."""
    leakage: dict[str, Any] = Field(default_factory=dict)
    """The check after the split: pairs looked at, near-duplicates across splits found, examples."""
    warnings: tuple[str, ...] = ()
    """What a user should know: sentences."""
    fingerprint: str = ""
    """Hash of the token files and of the settings that made them."""


@dataclass(frozen=True)
class Metric:
    """One score with its bootstrap interval."""

    value: float
    low: float
    high: float
    unit: str = ""


@dataclass(frozen=True)
class Scores:
    """evaluate/scores.json: metrics of one split, and the trivial baselines to beat."""

    split: str
    metrics: Mapping[str, Metric]
    baselines: Mapping[str, Mapping[str, Metric]]
    """{"unigram": {"bits_per_byte": Metric, "behind": Metric}, ...}: behind = what it needs more than the model."""
    beats_baselines: bool
    n_targets: int
    samples: tuple[Mapping[str, str], ...] = ()
    """{"prompt": "...", "text": "...", "settings": "temperature 0.8, top-k 50"}"""
    panels: tuple[Mapping[str, Any], ...] = ()
    """What suits the task, for the report to draw: see tasks/panels.py."""
    notes: tuple[str, ...] = ()
    headline: str = "bits_per_byte"
    """The metric that counts."""
    higher_is_better: bool = False
    """Of the headline."""


NOT_STEP = ("evaluate", "checkpoint")
"""Parts of a step's time that other events take."""


@dataclass(frozen=True)
class StepReport:
    """What one update did. `step` counts completed updates: the first report says 1."""

    step: int
    loss: float
    """Mean nats per target (or task units) over the whole batch, before the update."""
    lr: float
    grad_norm: float
    """Global gradient norm before clipping."""
    n_targets: int
    elapsed_s: float
    """Training seconds of this run so far, over all its processes."""
    times: Mapping[str, float] = field(default_factory=dict)
    """Seconds of this step by part: data, forward, backward, optimizer, checkpoint, evaluate, other. A checkpoint is
    counted with the step after it."""
    validation: Mapping[str, float] | None = None
    """{"loss": nats per target, "bits_per_byte": ...} when this step was evaluated."""
    layers: Mapping[str, Mapping[str, float]] | None = None
    """{"blocks.0.attention": {"grad_norm": .., "update_ratio": .., "dead_frac": ..}} when it was measured."""
    gradient_noise: Mapping[str, Mapping[str, float]] | None = None
    """{"plain": {"noise": .., "signal": ..}, "adaptive": ..} when it was measured: planning/noise_scale.py."""
    n_steps: int = 0
    """Updates of the whole run, as far as that is known now."""
    events: tuple[str, ...] = ()
    """Sentences: a skipped update, a loss spike, a vanishing gradient, a new best, a checkpoint."""

    @property
    def per_s(self) -> float:
        """Targets per second of training: the time of evaluations and checkpoints is left out."""
        spent = sum(s for part, s in self.times.items() if part not in NOT_STEP)
        return self.n_targets / max(spent, 1e-9)


class Split(Protocol):
    """One prepared split: its samples by number.

    A split whose samples differ in length may have `lengths` (N,) int64: batches are then made of like ones. One whose
    samples are large may have `at_once`: the most that go through a model together when they are scored.
    """

    def __len__(self) -> int:
        """Samples."""

    def batch(self, rows: np.ndarray, seeds: np.ndarray | None = None) -> Batch:
        """Samples `rows` (B,) int64 as one batch. With `seeds` (B,) uint64 they are augmented, each sample by its own
        seed alone; without, never: what is scored is what there is."""

    def name(self, row: int) -> str:
        """Where a sample came from: "adult.data:17", "cat/12.png"."""


class Task(Protocol):
    """Turns a model's output into a loss, metrics and predictions, and names what it must beat."""

    def loss_sum(self, output: Output, batch: Batch) -> Tensor:
        """Sum over supervised targets (float32 scalar), not a mean: the caller divides once by n_targets."""


class Optimizer(Protocol):
    """One update rule over all parameter groups."""

    def step(self, lr: float) -> None:
        """Update every parameter; each group multiplies `lr` by its own factor."""

    def zero_grad(self) -> None:
        """Drop all gradients."""

    def tensors(self) -> dict[str, Tensor]:
        """State by name "<parameter>/<slot>", for checkpoints."""

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put saved state back, bit for bit."""


Progress = Callable[[str, float, float], None]
"""Called as progress(what, done, total) by long work."""
Documents = Iterator[tuple[str, str]]
"""(row name such as "notes.txt" or "posts.jsonl:12", text)."""
