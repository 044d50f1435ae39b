"""Predict the next token. The loss is in nats per target; bits per byte compare across tokenizers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from danlu.base.contracts import Batch, Output
from danlu.base.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor


class Language(Settings):
    """Next-token prediction (causal language modelling)."""

    kind: Literal["language"] = "language"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target spread evenly over the vocabulary (Szegedy et al. 2016). In the training loss only."""
    z_loss: float = Field(default=0.0, ge=0, le=1)
    """Weight of log^2 Z, which keeps scores from drifting (Chowdhery et al. 2022, PaLM). In the training loss only."""

    def loss_sum(self, output: Output, batch: Batch) -> Tensor:
        """Sum of nats over supervised targets, a float32 scalar to divide by n_targets once."""
        from danlu.tasks.losses import chunked_cross_entropy

        features, weight = language_output(output)
        return chunked_cross_entropy(
            features, weight, batch.tensors["targets"], output.head_scale, self.label_smoothing, self.z_loss
        )

    def loss_per_target(self, output: Output, batch: Batch) -> Tensor:
        """(B, T) float32 nats, without smoothing or z-loss, 0 where nothing is supervised. No gradient."""
        from danlu.tasks.losses import cross_entropy_per_target

        features, weight = language_output(output)
        return cross_entropy_per_target(features, weight, batch.tensors["targets"], output.head_scale)


def language_output(output: Output) -> tuple[Tensor, Tensor]:
    """The two tensors a language task reads; an assertion of ours, not of the user's."""
    if output.features is None or output.head_weight is None:
        raise TypeError("a language task needs a model whose output has features and head_weight")
    return output.features, output.head_weight


def bits_per_byte(loss_sum_nats: float, n_bytes: float) -> float:
    """Nats over all targets and the bytes they stand for -> bits per byte."""
    return loss_sum_nats / math.log(2) / n_bytes
