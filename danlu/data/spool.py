"""Cleaned rows on disk between two passes, so that what needs the whole corpus first costs no memory."""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

_HEAD = struct.Struct("<BIQQ")


class SpooledRow(NamedTuple):
    """One row as it lies on disk."""

    number: int
    """Place in the spool, from 0."""
    split: int
    """Number of the split it was read for, when those are given."""
    name: str
    """Row name."""
    n_characters: int
    """Length of the text in code points."""
    text: bytes
    """UTF-8."""


class Spool:
    """Rows written once, read in order any number of times. Memory: 24 bytes per row (offset, content hash, size)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("w+b", buffering=1 << 20)
        self._offsets = array("Q")
        self._hashes = array("Q")
        self._sizes = array("Q")
        self._end = 0

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def hashes(self) -> np.ndarray:
        """(n_rows,) uint64: XXH3 of each text."""
        return np.array(self._hashes, dtype=np.uint64)

    @property
    def sizes(self) -> np.ndarray:
        """(n_rows,) uint64: UTF-8 bytes of each text."""
        return np.array(self._sizes, dtype=np.uint64)

    def add(self, name: str, text: bytes, n_characters: int, split: int = 0) -> None:
        """Append a row."""
        from xxhash import xxh3_64_intdigest

        label = name.encode("utf-8", "surrogateescape")
        self._file.write(_HEAD.pack(split, len(label), n_characters, len(text)))
        self._file.write(label)
        self._file.write(text)
        self._offsets.append(self._end)
        self._hashes.append(xxh3_64_intdigest(text))
        self._sizes.append(len(text))
        self._end += _HEAD.size + len(label) + len(text)

    def rows(self, keep: np.ndarray | None = None) -> Iterator[SpooledRow]:
        """Rows in order; `keep` (n_rows,) bool picks some."""
        self._file.flush()
        with self.path.open("rb", buffering=1 << 20) as file:
            for number in range(len(self)):
                split, n_label, n_characters, n_text = _HEAD.unpack(file.read(_HEAD.size))
                if keep is not None and not keep[number]:
                    file.seek(n_label + n_text, 1)
                    continue
                label = file.read(n_label).decode("utf-8", "surrogateescape")
                yield SpooledRow(number, split, label, n_characters, file.read(n_text))

    def name_of(self, number: int) -> str:
        """Name of one row."""
        self._file.flush()
        head = os.pread(self._file.fileno(), _HEAD.size, self._offsets[number])
        _, n_label, _, _ = _HEAD.unpack(head)
        label = os.pread(self._file.fileno(), n_label, self._offsets[number] + _HEAD.size)
        return label.decode("utf-8", "surrogateescape")

    def close(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)  # first: on a full disk, closing fails
        self._file.close()
