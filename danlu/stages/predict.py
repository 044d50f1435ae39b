"""Predict: one row for each input. What a row says is the task's affair (a class, a number, a translation, ...).

For a language model it is how many bits the model needs for each text: low means expected, high surprising.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from danlu.base.errors import UserError
from danlu.base.runfolder import RunFolder
from danlu.build import is_samples
from danlu.recipe import Recipe
from danlu.stages.predict_samples import predict_samples
from danlu.tasks.language_scores import TokenText, validation_sums
from danlu.trained import load_model

TOKENS_AT_ONCE = 16_384
"""Tokens that go through the model together."""


def predict(recipe: Recipe, run: RunFolder, texts: Iterable[Any], out: Path | None = None) -> Iterator[dict[str, Any]]:
    """One row a text: {"bits_per_byte", "bits", "n_bytes", "n_tokens", "n_scored"}.

    A text is scored as a document of its own. Where the model has a document end, it stands before the text and every
    token is scored; elsewhere the first token is context only. A text with nothing to score has bits_per_byte None.
    """
    if is_samples(recipe):
        yield from predict_samples(recipe, run, list(texts), out)
        return
    if out is not None:
        raise UserError(
            "--out", "is for what is written as files, and bits per byte are rows", fix="redirect the output"
        )
    trained = load_model(run, recipe)
    limits = trained.limits
    batch = max(1, TOKENS_AT_ONCE // limits.context)
    for text in texts:
        tokens = np.array(trained.tokenizer.encode(text), np.int64)
        offsets = np.array([0, len(tokens)])
        split = TokenText(tokens, offsets, trained.tokenizer.token_bytes, limits.context, limits.document_end)
        sums, _ = validation_sums(trained.model, recipe.task, split, batch, trained.device)
        n_scored, n_bytes = int(sums.n_targets.sum()), int(sums.n_bytes.sum())
        yield {
            "bits_per_byte": sums.bits_per_byte if n_bytes else None,
            "bits": float(sums.nats.sum() / math.log(2)),
            "n_bytes": n_bytes,
            "n_tokens": len(tokens),
            "n_scored": n_scored,
        }
