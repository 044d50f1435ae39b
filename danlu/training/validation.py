"""A quick look at the validation split while training: always the same evenly spaced windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from danlu.base.contracts import DataCard
from danlu.base.runfolder import RunFolder
from danlu.build import open_text
from danlu.planning.choices import Choices
from danlu.recipe import Recipe
from danlu.tasks.language_scores import TokenText, validation_sums

TOKENS_PER_BATCH = 16_384
"""Tokens that go through the model together while scoring."""


@dataclass(frozen=True)
class Validation:
    """The windows, and how they are scored."""

    task: Any
    text: TokenText | None
    batch: int
    device: torch.device
    n_targets: int

    @classmethod
    def open(cls, recipe: Recipe, run: RunFolder, card: DataCard, choices: Choices) -> Validation:
        """For a run's validation split; without one there is nothing to look at."""
        has_split = "validation" in card.splits and card.splits["validation"].n_tokens > 1
        text = open_text(recipe, run, card, "validation") if has_split else None
        context: int = recipe.model.context  # type: ignore[attr-defined]
        batch = max(1, TOKENS_PER_BATCH // context)
        return cls(recipe.task, text, batch, torch.device(choices.device), recipe.evaluate.during_tokens)

    def scores(self, model: nn.Module) -> dict[str, float]:
        """{"loss": nats per target, "bits_per_byte": ...}."""
        if self.text is None:
            return {}
        sums, _ = validation_sums(model, self.task, self.text, self.batch, self.device, self.n_targets)
        return {"loss": sums.loss, "bits_per_byte": sums.bits_per_byte}
