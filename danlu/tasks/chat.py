"""Learn what the assistant says in conversations (supervised fine-tuning): next-token loss on its tokens alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from danlu.base.contracts import Batch, DataCard, Output, Split
from danlu.base.errors import UserError
from danlu.tasks.language import language_output
from danlu.tasks.panels import listing
from danlu.tasks.samples import Panel, Predictions, Rows, SampleTask

if TYPE_CHECKING:
    from torch import Tensor, nn

PIECE = 64
"""Conversations read at a time for the baseline."""


class ChatTask(SampleTask):
    """Answer as the assistant does: next-token prediction on the assistant's tokens alone."""

    kind: Literal["chat"] = "chat"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target spread evenly over the vocabulary (Szegedy et al. 2016). In the training loss only."""

    headline: ClassVar[str] = "nats_per_token"
    higher_is_better: ClassVar[bool] = False
    units: ClassVar[dict[str, str]] = {"nats_per_token": "nats per assistant token"}

    def check(self, card: DataCard) -> None:
        """Needs conversations."""
        if card.kind != "chat":
            raise UserError("task.kind", "chat needs data of kind chat", got=card.kind, fix='set data.kind = "chat"')

    def n_outputs(self, card: DataCard) -> int:
        """The vocabulary."""
        return card.vocab_size

    def loss_sum(self, output: Output, batch: Batch) -> Tensor:
        """Sum of nats over the assistant's tokens."""
        from danlu.tasks.losses import chunked_cross_entropy

        features, weight = language_output(output)
        return chunked_cross_entropy(
            features, weight, batch.tensors["targets"], output.head_scale, self.label_smoothing
        )

    def predict(self, model: nn.Module, batch: Batch, card: DataCard) -> Predictions:
        """(nats, tokens) of each conversation."""
        from danlu.tasks.losses import cross_entropy_per_target

        output = model(batch)
        features, weight = language_output(output)
        targets = batch.tensors["targets"]
        nats = cross_entropy_per_target(features, weight, targets, output.head_scale).double().sum(1)
        return list(zip(nats.tolist(), (targets >= 0).sum(1).tolist(), strict=True))

    def truths(self, batch: Batch, card: DataCard) -> Predictions:
        """Nothing more: the nats were taken against the truth."""
        return [None] * len(batch.tensors["targets"])

    def scorer(self, predictions: Predictions, truths: Predictions, card: DataCard) -> NatsScorer:
        """Sums over conversations."""
        return NatsScorer(np.array(predictions, float).reshape(-1, 2))

    def baselines(self, train: Split, split: Split, card: DataCard) -> dict[str, Predictions]:
        """Each token by how often the assistant says it in training (half a count added to each)."""
        counts = np.full(card.vocab_size, 0.5)
        for targets in targets_of(train):
            counts += np.bincount(targets[targets >= 0], minlength=card.vocab_size)
        nats = -np.log(counts / counts.sum())
        found = [(float(nats[row[row >= 0]].sum()), int((row >= 0).sum())) for t in targets_of(split) for row in t]
        return {"unigram": found}

    def panels(self, predictions: Predictions, truths: Predictions, split: Split, card: DataCard) -> list[Panel]:
        """The audit: which text is supervised."""
        rows = [
            ["learned" if said else "only read", text]
            for piece in card.features.get("audit", [])
            for text, said in piece
        ]
        note = "Training conversations, turn by turn. ⏹ is the token that ends an answer."
        return [listing("What is supervised", ["", "text"], rows, note)]

    def rows(self, predictions: Predictions, split: Split, card: DataCard) -> list[dict[str, Any]]:
        """{"name", "nats_per_token", "n_tokens"}."""
        return [
            {"name": split.name(i), "nats_per_token": nats / n if n else None, "n_tokens": n}
            for i, (nats, n) in enumerate(predictions)
        ]


def targets_of(split: Split) -> Any:
    """Targets (b, T) of a whole split, some conversations at a time."""
    for first in range(0, len(split), PIECE):
        yield split.batch(np.arange(first, min(len(split), first + PIECE))).tensors["targets"].numpy()


class NatsScorer:
    """(U, 2): nats and tokens of each conversation."""

    def __init__(self, sums: np.ndarray) -> None:
        self.sums = sums
        self.n_units = len(sums)

    def values(self, rows: Rows | None = None) -> dict[str, float]:
        """nats_per_token and perplexity."""
        nats, n = (self.sums if rows is None else self.sums[rows]).sum(0)
        mean = nats / max(1.0, n)
        return {"nats_per_token": float(mean), "perplexity": math.exp(min(mean, 700.0))}
