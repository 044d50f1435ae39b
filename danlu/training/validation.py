"""A quick look at the validation split while training: always the same evenly spaced windows or samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from danlu.base.contracts import DataCard
from danlu.base.runfolder import RunFolder
from danlu.build import is_samples, open_text
from danlu.data.samples import fixed_seeds, in_batches
from danlu.planning.choices import Choices
from danlu.recipe import Recipe
from danlu.tasks.language_scores import validation_sums

TOKENS_PER_BATCH = 16_384
"""Tokens that go through the model together while scoring."""
SAMPLES_PER_BATCH = 256
"""The same for samples by number."""
Look = Callable[[nn.Module], dict[str, float]]
"""A model's scores: {"loss": units per target, and the task's own}."""


def open_validation(recipe: Recipe, run: RunFolder, card: DataCard, choices: Choices) -> Look:
    """For a run's validation split; without one there is nothing to look at."""
    if "validation" not in card.splits:
        return lambda model: {}
    if is_samples(recipe):
        return SampleLook(recipe, run, card, choices)
    return text_look(recipe, run, card, choices) if card.splits["validation"].n_tokens > 1 else lambda model: {}


def text_look(recipe: Recipe, run: RunFolder, card: DataCard, choices: Choices) -> Look:
    """{"loss": nats per target, "bits_per_byte": ...}."""
    text, device = open_text(recipe, run, card, "validation"), torch.device(choices.device)
    batch = max(1, TOKENS_PER_BATCH // recipe.model.context)  # type: ignore[attr-defined]
    n_targets, task = recipe.evaluate.during_tokens, recipe.task

    def look(model: nn.Module) -> dict[str, float]:
        sums, _ = validation_sums(model, task, text, batch, device, n_targets)
        return {"loss": sums.loss, "bits_per_byte": sums.bits_per_byte}

    return look


class SampleLook:
    """The loss and, where predictions cost no more than that, the task's headline on evenly spaced samples."""

    def __init__(self, recipe: Recipe, run: RunFolder, card: DataCard, choices: Choices) -> None:
        data: Any = recipe.data
        self.task: Any = recipe.task
        self.split, self.card = data.open(run.data, card, "validation"), card
        n, most = len(self.split), recipe.evaluate.during_samples
        self.rows = np.arange(n) if n <= most else np.arange(most) * n // most
        self.device = torch.device(choices.device)

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> dict[str, float]:
        """{"loss": units per target, "<headline>": ...}."""
        total, n_targets = 0.0, 0
        predictions: list[Any] = []
        truths: list[Any] = []
        was_training = model.training
        model.eval()
        try:
            for rows, batch in in_batches(self.split, SAMPLES_PER_BATCH, self.rows):
                moved = self.task.change(batch, fixed_seeds(np.asarray(rows))).to(self.device)
                total += float(self.task.loss_sum(model(moved), moved))
                n_targets += moved.n_targets
                if self.task.predicts_fast:
                    predictions += list(self.task.predict(model, moved, self.card))
                    truths += list(self.task.truths(moved, self.card))
        finally:
            model.train(was_training)
        found = {"loss": total / max(1, n_targets)}
        if predictions:
            found[self.task.headline] = self.task.scorer(predictions, truths, self.card).values()[self.task.headline]
        return found
