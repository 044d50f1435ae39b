"""What is known of a text's vocabulary and tokens before any tokenizer is trained. Torch-free."""

from __future__ import annotations

import json
from pathlib import Path

from danlu.base.errors import UserError
from danlu.base.settings import Settings
from danlu.data.survey import Estimate

BYTES_PER_TOKEN = 3.5
"""Of English and code under a trained vocabulary of some thousands of tokens; prepare counts the true number."""


def vocabulary(tokenizer: Settings, looked: Estimate) -> tuple[int, str]:
    """(tokens in the vocabulary, why), before any tokenizer is trained."""
    kind = getattr(tokenizer, "kind", "")
    if kind == "bytes":
        return 257, "256 bytes and a document end"
    if kind == "characters":
        seen = {character for _, text in looked.sample for character in text}
        return len(seen) + 2, "characters seen while looking; prepare counts them all"
    if kind == "loaded":
        path = Path(str(getattr(tokenizer, "path", ""))).expanduser()
        return loaded_size(path), f"from {path.name}"
    return int(getattr(tokenizer, "vocab_size", 0)), "data.tokenizer.vocab_size; a small text may give fewer"


def loaded_size(path: Path) -> int:
    """Tokens of a tokenizer.json."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        added = [token["id"] for token in found.get("added_tokens", ())]
        return max(len(found["model"]["vocab"]), max(added, default=0) + 1)
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = getattr(error, "strerror", None) or "it has no model.vocab"
        raise UserError("data.tokenizer.path", f"is not a tokenizer.json ({why})", got=str(path)) from error


def tokens_in(tokenizer: Settings, looked: Estimate) -> int:
    """A guess of the tokens of all text."""
    kind = getattr(tokenizer, "kind", "")
    if kind == "characters":
        n_characters = sum(len(text) for _, text in looked.sample)
        n_bytes = sum(len(text.encode("utf-8", "replace")) for _, text in looked.sample)
        return round(looked.n_text_bytes * n_characters / max(1, n_bytes))
    return round(looked.n_text_bytes / (1.0 if kind == "bytes" else BYTES_PER_TOKEN))
