"""A quick look at the validation split while training: always the same evenly spaced windows or samples."""

from __future__ import annotations

from math import ceil, isfinite
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from danlu.base.contracts import Batch, DataCard
from danlu.base.runfolder import RunFolder
from danlu.build import is_samples, open_text
from danlu.data.order import Ids
from danlu.data.samples import fixed_seeds, in_pieces, whole_lengths
from danlu.planning.choices import Choices
from danlu.planning.trials import N_BLOCKS
from danlu.recipe import Recipe
from danlu.tasks.language_scores import Sums, validation_sums
from danlu.training.process import trim_heap

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


def looked_at(choices: Choices, most: int, n: int) -> int:
    """How many of n tokens or samples a look takes."""
    return ceil(choices.look_share * min(most, n)) if choices.look_share < 1 else most


class TextLook:
    """Evenly spaced windows: {"loss": nats per target, "bits_per_byte": ...}."""

    def __init__(self, recipe: Recipe, run: RunFolder, card: DataCard, choices: Choices) -> None:
        self.text, self.device = open_text(recipe, run, card, "validation"), torch.device(choices.device)
        self.batch = max(1, TOKENS_PER_BATCH // recipe.model.context)  # type: ignore[attr-defined]
        self.n_targets = looked_at(choices, recipe.evaluate.during_tokens, len(self.text.tokens))
        self.task = recipe.task
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


class Seen:
    """A model whose output for one batch is known: asked for it again, it does not compute it again."""

    def __init__(self, model: nn.Module, batch: Batch, output: Any) -> None:
        self.model, self.batch, self.output = model, batch, output

    def __call__(self, batch: Batch) -> Any:
        """As the model."""
        return self.output if batch is self.batch else self.model(batch)

    def __getattr__(self, name: str) -> Any:
        """All else is the model's."""
        return getattr(self.model, name)


class SampleLook:
    """The loss and, where predictions cost no more than that, the task's headline on evenly spaced samples."""

    def __init__(self, recipe: Recipe, run: RunFolder, card: DataCard, choices: Choices) -> None:
        data: Any = recipe.data
        self.task: Any = recipe.task
        self.split, self.card = data.open(run.data, card, "validation"), card
        self.size = min(SAMPLES_PER_BATCH, max(32, MORE_THAN_TRAINING * choices.batch))
        n = len(self.split)
        most = looked_at(choices, recipe.evaluate.during_samples, n)
        self.rows = np.arange(n) if n <= most else np.arange(most) * n // most
        self.device = torch.device(choices.device)
        self.pieces: list[tuple[float, int]] = []
        if recipe.train.patience == "auto":  # whose judgement needs pieces
            self.size = min(self.size, max(1, -(-len(self.rows) // N_BLOCKS)))
        self.cut = in_pieces(self.split, self.size, self.rows)
        """Batches of places in `rows`, by piece."""
        self.is_unlike = whole_lengths(self.split) is not None
        """Whether batches have shapes of their own, each of which would leave the heap in other pieces."""

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """{"loss": units per target, "<headline>": ...}."""
        return {name: value for name, value in self.scores(model).items() if name in ("loss", self.task.headline)}

    def scores(self, model: nn.Module) -> dict[str, float]:
        """The loss and every metric that has a value on these samples."""
        said: dict[int, tuple[Any, Any]] = {}
        self.pieces = self.scored(model, self.cut, said)
        found = {"loss": sum(b[0] for b in self.pieces) / max(1, sum(b[1] for b in self.pieces))}
        if said:
            predictions, truths = zip(*(said[place] for place in sorted(said)), strict=True)
            told = self.task.scorer(list(predictions), list(truths), self.card).values()
            found = {name: value for name, value in told.items() if isfinite(value)} | found
        return found

    def blocks(self, model: nn.Module) -> list[tuple[float, int]]:
        """Samples in about N_BLOCKS pieces."""
        size = min(self.size, -(-len(self.rows) // N_BLOCKS))
        return self.scored(model, in_pieces(self.split, size, self.rows))

    @torch.no_grad()
    def scored(
        self, model: nn.Module, cut: list[list[Ids]], said: dict[int, tuple[Any, Any]] | None = None
    ) -> list[tuple[float, int]]:
        """(loss sum, targets) of each piece; `said` takes (prediction, truth) by place where predicting is cheap."""
        was_training = model.training
        model.eval()
        try:
            return [self.piece(model, batches, said if self.task.predicts_fast else None) for batches in cut]
        finally:
            model.train(was_training)

    def piece(self, model: nn.Module, batches: list[Ids], said: dict[int, tuple[Any, Any]] | None) -> tuple[float, int]:
        """(loss sum, targets) of its batches together."""
        sums = []
        for places in batches:
            sums.append(self.batch(model, places, said))
            if self.is_unlike:
                trim_heap()
        return sum(loss for loss, _ in sums), sum(n for _, n in sums)

    def batch(self, model: nn.Module, places: Ids, said: dict[int, tuple[Any, Any]] | None) -> tuple[float, int]:
        """(loss sum, targets) of one batch."""
        rows = self.rows[places]
        moved = self.task.change(self.split.batch(rows), fixed_seeds(rows)).to(self.device)
        output = model(moved)
        loss = float(self.task.loss_sum(output, moved))
        if said is not None:  # of the same pass: a second one would double a look's time
            told = self.task.predict(Seen(model, moved, output), moved, self.card)
            both = zip(told, self.task.truths(moved, self.card), strict=True)
            said |= dict(zip(places.tolist(), both, strict=True))
        return loss, moved.n_targets
