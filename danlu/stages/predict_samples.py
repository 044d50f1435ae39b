"""Predict for samples by number: new inputs under the fitted preprocessing, one row each, or files in their own form."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from danlu.base.durable import write_text
from danlu.base.errors import UserError
from danlu.base.runfolder import RunFolder
from danlu.data.samples import fixed_seeds, in_pieces
from danlu.recipe import Recipe
from danlu.trained import load_model

SAMPLES_AT_ONCE = 256


@torch.no_grad()
def predict_samples(
    recipe: Recipe, run: RunFolder, inputs: Sequence[Any], out: Path | None = None
) -> Iterator[dict[str, Any]]:
    """One row an input; with `out`, a folder, the rows also go there as JSONL and CSV, with what the task writes in its own
    form (WAV, PDB, pictures)."""
    trained = load_model(run, recipe)
    data: Any = recipe.data
    task: Any = recipe.task
    split = data.read(run.data, trained.card, list(inputs))
    if len(split) == 0:
        raise UserError(
            "predict", "needs at least one input that can be read", got="none", fix="see danlu predict --help"
        )
    said: dict[int, Any] = {}
    for rows in chain.from_iterable(in_pieces(split, SAMPLES_AT_ONCE)):
        moved = task.change(split.batch(rows), fixed_seeds(rows)).to(trained.device)
        said |= dict(zip(rows.tolist(), task.predict(trained.model, moved, trained.card), strict=True))
    predictions = [said[row] for row in range(len(split))]
    found = task.rows(predictions, split, trained.card)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        task.write(predictions, split, trained.card, out)
        write_rows(found, out)
    yield from found


def write_rows(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """predictions.jsonl as they are, predictions.csv with a column for each number or word inside."""
    write_text(out / "predictions.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    flat = [flattened(row) for row in rows]
    names = dict.fromkeys(name for row in flat for name in row)
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, list(names))
    writer.writeheader()
    writer.writerows(flat)
    write_text(out / "predictions.csv", buffer.getvalue())


def flattened(row: Mapping[str, Any]) -> dict[str, Any]:
    """{"shares": {"yes": 0.3}} -> {"shares.yes": 0.3}; lists as JSON."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{inner}": v for inner, v in flattened(value).items()}
        else:
            found[name] = json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
    return found
