"""Samples cut into batches for scoring."""

from __future__ import annotations

from typing import Any

import numpy as np

from danlu.data.samples import in_pieces, whole_lengths


class Split:
    """Sequences of these lengths, of which training crops `crop`."""

    def __init__(self, lengths: list[int], crop: int) -> None:
        self.offsets = np.cumsum([0, *lengths])
        self.lengths = np.minimum(lengths, crop)

    def __len__(self) -> int:
        return len(self.lengths)


class Alike:
    """Samples of one length."""

    at_once = 3

    def __len__(self) -> int:
        return 8


def test_every_place_once_and_pieces_in_order() -> None:
    lengths = np.random.default_rng(0).integers(1, 900, 103).tolist()
    split: Any = Split(lengths, 128)
    rows = np.arange(3, 100)
    pieces = in_pieces(split, 20, rows)
    for i, piece in enumerate(pieces):
        assert sorted(np.concatenate(piece)) == list(range(20 * i, min(20 * i + 20, len(rows))))


def test_batches_hold_like_lengths_and_no_more_than_training_does() -> None:
    lengths = [1000, 10, 10, 500, 10, 20, 400, 390, 10, 10]
    split: Any = Split(lengths, 100)
    assert whole_lengths(split).tolist() == lengths  # type: ignore[union-attr]
    (piece,) = in_pieces(split, 10)
    most = 10 * np.mean(np.minimum(lengths, 100))
    sizes = [[lengths[i] for i in batch] for batch in piece]
    assert sizes == [[1000], [500], [400], [390], [20, 10, 10, 10, 10, 10]]
    assert all(len(s) == 1 or len(s) * s[0] <= most for s in sizes)


def test_samples_of_one_length_are_cut_in_order() -> None:
    split: Any = Alike()
    assert [[b.tolist() for b in p] for p in in_pieces(split, 5)] == [[[0, 1, 2]], [[3, 4, 5]], [[6, 7]]]
