"""An opened split of sentences: tokens end to end, cut into padded batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from danlu.base.contracts import Batch
from danlu.data.sentence_words import PAD, Reader


class SentenceSplit:
    """Texts end to end, with where each starts."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]], names: Sequence[str], words: Reader) -> None:
        self.tokens, self.offsets, self.targets = arrays["tokens"], arrays["offsets"], arrays["targets"]
        self.spellings, self.spelled_as = arrays.get("spellings"), arrays.get("spelled_as")
        self.names, self.words = names, words
        self.lengths: NDArray[np.int64] = np.diff(self.offsets).astype(np.int64)

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, rows: NDArray[np.int64], seeds: Any = None) -> Batch:
        """Padded to the longest text of the batch, n-grams to the longest word's."""
        import torch

        lengths, starts = self.lengths[rows], self.offsets[rows]
        at = np.arange(int(lengths.max()))
        inside = at < lengths[:, None]
        flat = np.minimum(starts[:, None] + at, len(self.tokens) - 1)
        tensors = {
            "tokens": np.where(inside, self.tokens[flat], PAD).astype(np.int64),
            "lengths": lengths,
            "targets": self.targets[rows],
        }
        if self.spellings is not None and self.spelled_as is not None:
            grams = self.spellings[np.where(inside, self.spelled_as[flat], 0)]
            n_most = max(1, int((grams > 0).sum(2).max()))
            tensors["grams"] = grams[:, :, :n_most].astype(np.int64)
        n_targets = int((tensors["targets"] >= 0).sum())
        return Batch({name: torch.from_numpy(array) for name, array in tensors.items()}, n_targets)

    def name(self, row: int) -> str:
        """train.tsv:12."""
        return self.names[row]

    def shown(self, tokens: Sequence[int]) -> list[str]:
        """Each token as a person reads it."""
        return [self.words.shown(int(token)) for token in tokens]

    def row_tokens(self, row: int) -> NDArray[Any]:
        """(T,) the tokens of a text."""
        return self.tokens[self.offsets[row] : self.offsets[row + 1]]
