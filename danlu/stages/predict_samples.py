"""Predict for samples by number: new inputs under the fitted preprocessing, one row each, or files in their own form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from danlu.base.errors import UserError
from danlu.base.runfolder import RunFolder
from danlu.data.samples import fixed_seeds, in_batches
from danlu.recipe import Recipe
from danlu.trained import load_model

SAMPLES_AT_ONCE = 256


@torch.no_grad()
def predict_samples(
    recipe: Recipe, run: RunFolder, inputs: Sequence[Any], out: Path | None = None
) -> Iterator[dict[str, Any]]:
    """One row an input; with `out`, a folder, also what the task writes there (WAV, PDB, pictures)."""
    trained = load_model(run, recipe)
    data: Any = recipe.data
    task: Any = recipe.task
    split = data.read(run.data, trained.card, list(inputs))
    if len(split) == 0:
        raise UserError(
            "predict", "needs at least one input that can be read", got="none", fix="see danlu predict --help"
        )
    predictions: list[Any] = []
    for rows, batch in in_batches(split, SAMPLES_AT_ONCE):
        moved = task.change(batch, fixed_seeds(np.asarray(rows))).to(trained.device)
        predictions += list(task.predict(trained.model, moved, trained.card))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        task.write(predictions, split, trained.card, out)
    yield from task.rows(predictions, split, trained.card)
