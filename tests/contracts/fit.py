"""Prepare, build, train a little, score: a data kind, a model and a task together, without the stages around them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from danlu.data.samples import SampleLoader, fixed_seeds


def fit(
    source: Any, settings: Any, task: Any, folder: Path, steps: int, batch: int, lr: float = 1e-3
) -> tuple[Any, list[float], Any]:
    """(model, loss of each step, card)."""
    card = source.prepare(folder, 0, lambda what, done, total: None)
    task.check(card)
    torch.manual_seed(0)
    model = settings.build(card, task.n_outputs(card), 0).train()
    loader = SampleLoader(source.open(folder, card, "train"), batch, 0, change=task.change)
    optimizer = torch.optim.AdamW(model.parameters(), lr)
    losses = []
    for step in range(steps):
        made = loader.batch_at(step)
        loss = task.loss_sum(model(made), made) / max(1, made.n_targets)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss))
    return model, losses, card


def score(
    model: Any, source: Any, task: Any, folder: Path, card: Any, split: str = "test", size: int = 256
) -> dict[str, float]:
    """Every metric on a split."""
    opened, predictions, truths = source.open(folder, card, split), [], []
    model.eval()
    with torch.no_grad():
        for first in range(0, len(opened), size):
            rows = np.arange(first, min(first + size, len(opened)))
            made = task.change(opened.batch(rows), fixed_seeds(rows))
            predictions += list(task.predict(model, made, card))
            truths += list(task.truths(made, card))
    return task.scorer(predictions, truths, card).values()  # type: ignore[no-any-return]
