"""A quick look at the validation split while training: always the same evenly spaced windows or samples."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from danlu.base.contracts import DataCard
from danlu.base.runfolder import RunFolder
from danlu.build import is_samples, open_text
from danlu.data.samples import fixed_seeds, in_batches
from danlu.planning.choices import Choices
from danlu.planning.trials import N_BLOCKS
from danlu.recipe import Recipe
from danlu.tasks.language_scores import Sums, validation_sums

TOKENS_PER_BATCH = 16_384
"""Tokens that go through the model together while scoring."""
SAMPLES_PER_BATCH, MORE_THAN_TRAINING = 256, 4
"""The same for samples by number; not more than so many updates' batches, or 32."""


class Look(Protocol):
    """Scores a model on the validation split."""

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """{"loss": units per target, and the task's own}; {} when there is no split to look at."""

    def scores(self, model: nn.Module) -> dict[str, float]:
        """The same with every metric of the task."""

    pieces: list[tuple[float, int]]
    """(loss sum, targets) of the pieces of the last call."""

    def blocks(self, model: nn.Module) -> list[tuple[float, int]]:
        """(loss sum, targets) of each of about N_BLOCKS fixed pieces."""


class Blind:
    """No validation split."""

    pieces: list[tuple[float, int]] = []  # noqa: RUF012 - nothing is ever put into it

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Nothing."""
        return {}

    scores = __call__

    def blocks(self, model: nn.Module) -> list[tuple[float, int]]:
        """Nothing."""
        return []


def open_validation(recipe: Recipe, run: RunFolder, card: DataCard, choices: Choices) -> Look:
    """For a run's validation split; without one there is nothing to look at."""
    if "validation" not in card.splits:
        return Blind()
    if is_samples(recipe):
        return SampleLook(recipe, run, card, choices)
    return TextLook(recipe, run, card, choices) if card.splits["validation"].n_tokens > 1 else Blind()


class TextLook:
    """Evenly spaced windows: {"loss": nats per target, "bits_per_byte": ...}."""

    def __init__(self, recipe: Recipe, run: RunFolder, card: DataCard, choices: Choices) -> None:
        self.text, self.device = open_text(recipe, run, card, "validation"), torch.device(choices.device)
        self.batch = max(1, TOKENS_PER_BATCH // recipe.model.context)  # type: ignore[attr-defined]
        self.n_targets, self.task = recipe.evaluate.during_tokens, recipe.task
        self.pieces: list[tuple[float, int]] = []

    def sums(self, model: nn.Module) -> Sums:
        """By window."""
        return validation_sums(model, self.task, self.text, self.batch, self.device, self.n_targets)[0]

    def cut(self, sums: Sums) -> list[tuple[float, int]]:
        """Windows in N_BLOCKS pieces, neighbours together."""
        pieces = np.array_split(np.arange(len(sums.nats)), min(N_BLOCKS, len(sums.nats)))
        return [(float(sums.nats[p].sum()), int(sums.n_targets[p].sum())) for p in pieces]

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """All windows together."""
        sums = self.sums(model)
        self.pieces = self.cut(sums)
        return {"loss": sums.loss, "bits_per_byte": sums.bits_per_byte}

    scores = __call__

    def blocks(self, model: nn.Module) -> list[tuple[float, int]]:
        """The same pieces."""
        return self.cut(self.sums(model))


class SampleLook:
    """The loss and, where predictions cost no more than that, the task's headline on evenly spaced samples."""

    def __init__(self, recipe: Recipe, run: RunFolder, card: DataCard, choices: Choices) -> None:
        data: Any = recipe.data
        self.task: Any = recipe.task
        self.split, self.card = data.open(run.data, card, "validation"), card
        self.size = min(SAMPLES_PER_BATCH, max(32, MORE_THAN_TRAINING * choices.batch))
        n, most = len(self.split), recipe.evaluate.during_samples
        self.rows = np.arange(n) if n <= most else np.arange(most) * n // most
        self.device = torch.device(choices.device)
        self.pieces: list[tuple[float, int]] = []
        if recipe.train.patience == "auto":  # whose judgement needs pieces
            self.size = min(self.size, max(1, -(-len(self.rows) // N_BLOCKS)))

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """{"loss": units per target, "<headline>": ...}."""
        return {name: value for name, value in self.scores(model).items() if name in ("loss", self.task.headline)}

    def scores(self, model: nn.Module) -> dict[str, float]:
        """The loss and every metric."""
        predictions: list[Any] = []
        truths: list[Any] = []
        blocks = self.scored(model, self.size, predictions, truths)
        self.pieces = blocks
        found = {"loss": sum(b[0] for b in blocks) / max(1, sum(b[1] for b in blocks))}
        if predictions:
            found = self.task.scorer(predictions, truths, self.card).values() | found
        return found

    def blocks(self, model: nn.Module) -> list[tuple[float, int]]:
        """Samples in about N_BLOCKS pieces."""
        return self.scored(model, min(self.size, -(-len(self.rows) // N_BLOCKS)))

    @torch.no_grad()
    def scored(
        self, model: nn.Module, size: int, predictions: list[Any] | None = None, truths: list[Any] | None = None
    ) -> list[tuple[float, int]]:
        """(loss sum, targets) of each batch; predictions and truths are gathered where lists are given and predicting is
        cheap."""
        blocks, was_training = [], model.training
        model.eval()
        try:
            for rows, batch in in_batches(self.split, size, self.rows):
                moved = self.task.change(batch, fixed_seeds(np.asarray(rows))).to(self.device)
                blocks.append((float(self.task.loss_sum(model(moved), moved)), moved.n_targets))
                if predictions is not None and truths is not None and self.task.predicts_fast:
                    predictions += list(self.task.predict(model, moved, self.card))
                    truths += list(self.task.truths(moved, self.card))
        finally:
            model.train(was_training)
        return blocks
