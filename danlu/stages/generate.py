"""Generate: continue a text with a trained model, piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from danlu.base.errors import UserError
from danlu.base.runfolder import RunFolder
from danlu.models.generate import stream
from danlu.models.sampling import Sampling
from danlu.recipe import Recipe
from danlu.trained import load_model


def generate(recipe: Recipe, run: RunFolder, prompt: str, **sampling: Any) -> Iterator[str]:
    """Pieces of the continuation of `prompt`, each whole characters; the prompt is not repeated.

    `sampling`: max_new_tokens, temperature, top_k, top_p, min_p, stop, seed (see models/sampling.py).
    """
    settings = checked(sampling)
    trained = load_model(run, recipe)
    return (piece.text for piece in stream(trained.model, trained.tokenizer, [prompt], settings, trained.limits))


def checked(sampling: dict[str, Any]) -> Sampling:
    """The settings, or one sentence on the first that is wrong. None means the default."""
    try:
        return Sampling.model_validate({name: value for name, value in sampling.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = ", ".join(Sampling.model_fields)
            raise UserError(name, "is not a setting of generate", fix=f"use one of {known}") from None
        said = first["msg"].removeprefix("Input ")
        raise UserError(f"generate: {name}", said, got=first["input"], fix="see danlu generate --help") from None
