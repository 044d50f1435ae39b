"""Transcripts held against what was said: edits of words and of characters, counted once for each sound."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from danlu.base.errors import MissingExtra

EDITS = ("substitute", "delete", "insert")
Counts = NDArray[np.int64]


def jiwer() -> Any:
    """The library that aligns words."""
    try:
        import jiwer as library
    except ImportError:
        raise MissingExtra("task.kind transcribe", "jiwer", "audio") from None
    return library


def alignments(said: Sequence[str], heard: Sequence[str]) -> list[list[Any]]:
    """Of each sound: jiwer's chunks (type, ref_start_idx, ref_end_idx, hyp_start_idx, hyp_end_idx) over words."""
    return list(jiwer().process_words(list(said), list(heard)).alignments) if said else []


def edits(said: Sequence[str], heard: Sequence[str], characters: bool = False) -> Counts:
    """(N, 4): words substituted, left out, put in, and words said; or the same of characters."""
    library = jiwer()
    found = np.zeros((len(said), 4), np.int64)
    known = [i for i, text in enumerate(said) if text]
    for i in set(range(len(said))) - set(known):  # nothing was said: all that is heard was put in
        found[i, 2] = len(heard[i]) if characters else len(heard[i].split())
    if not known:
        return found
    process = library.process_characters if characters else library.process_words
    aligned = process([said[i] for i in known], [heard[i] for i in known]).alignments
    for i, chunks in zip(known, aligned, strict=True):
        found[i, 3] = len(said[i]) if characters else len(said[i].split())
        for chunk in chunks:
            if chunk.type in EDITS:
                n = max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
                found[i, EDITS.index(chunk.type)] += n
    return found


class TranscriptScorer:
    """Error shares over any sounds: all edits over all that was said."""

    def __init__(self, heard: Sequence[str], said: Sequence[str]) -> None:
        self.words, self.characters = edits(said, heard), edits(said, heard, characters=True)
        self.right = self.words[:, :3].sum(1) == 0

    @property
    def n_units(self) -> int:
        """Sounds."""
        return len(self.right)

    def values(self, rows: NDArray[np.int64] | None = None) -> dict[str, float]:
        """word_error, character_error, right (share of sounds without a wrong word), and what the word errors are."""
        rows = np.arange(self.n_units) if rows is None else rows
        words, characters = self.words[rows].sum(0), self.characters[rows].sum(0)
        n = max(1, int(words[3]))
        return {
            "word_error": float(words[:3].sum() / n),
            "character_error": float(characters[:3].sum() / max(1, int(characters[3]))),
            "right": float(self.right[rows].mean()) if len(rows) else 0.0,
            "words_changed": float(words[0] / n), "words_left_out": float(words[1] / n), "words_put_in": float(words[2] / n),
        }  # fmt: skip
