"""Token files: one flat little-endian file of ids per split and one of document offsets, mapped when read.

data/train.bin        ids, uint8 | uint16 | uint32 (the smallest that holds the vocabulary)
data/train.docs.bin   uint64, n_documents + 1 offsets in tokens: document i is [offsets[i], offsets[i + 1])
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from danlu.base.contracts import DataCard
from danlu.base.durable import fsync_folder, read_json
from danlu.base.errors import UserError


@dataclass(frozen=True)
class TokenShard:
    """One split, mapped: nothing is read before it is looked at."""

    tokens: np.ndarray
    """(n_tokens,) of the card's dtype."""
    docs: np.ndarray
    """(n_documents + 1,) uint64 offsets into tokens."""

    @property
    def n_tokens(self) -> int:
        """Tokens in the split."""
        return len(self.tokens)

    @property
    def n_documents(self) -> int:
        """Documents in the split."""
        return len(self.docs) - 1


def dtype_for(vocab_size: int) -> str:
    """The smallest type that holds ids 0 .. vocab_size - 1."""
    return "uint8" if vocab_size <= 1 << 8 else "uint16" if vocab_size <= 1 << 16 else "uint32"


def shard_files(folder: Path, split: str) -> tuple[Path, Path]:
    """(tokens, document offsets) of a split."""
    return folder / f"{split}.bin", folder / f"{split}.docs.bin"


class ShardWriter:
    """Appends to temporary files; only `finish` gives them their names, once all their bytes are on the disk."""

    def __init__(self, folder: Path, split: str, dtype: str, document_end: int | None) -> None:
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._end = document_end
        self._paths = shard_files(folder, split)
        self._temporary = [path.with_name(f".{path.name}.tmp") for path in self._paths]
        self._files: list[BinaryIO] = [path.open("wb") for path in self._temporary]
        self._files[1].write(bytes(8))
        self._hash = hashlib.sha256()
        self.n_tokens = self.n_documents = 0

    def append(self, ids: np.ndarray, counts: np.ndarray) -> None:
        """Add documents: their ids laid end to end, and how many ids each has. The document end is put in here."""
        ends = np.cumsum(counts)
        if self._end is not None:
            ids = np.insert(ids, ends, self._end)
            ends = ends + np.arange(1, len(ends) + 1)
        data = ids.astype(self._dtype).tobytes()
        self._hash.update(data)
        self._files[0].write(data)
        self._files[1].write((ends + self.n_tokens).astype("<u8").tobytes())
        self.n_tokens += len(ids)
        self.n_documents += len(counts)

    def finish(self) -> str:
        """Make the files durable and give them their names; returns the SHA-256 of the tokens."""
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
            file.close()
        for temporary, path in zip(self._temporary, self._paths, strict=True):
            temporary.replace(path)
        fsync_folder(self._paths[0].parent)
        return self._hash.hexdigest()

    def abort(self) -> None:
        """Remove what is not finished."""
        for path in self._temporary:
            path.unlink(missing_ok=True)  # first: on a full disk, closing fails
        for file in self._files:
            file.close()


def read_card(folder: Path) -> DataCard:
    """The card of a prepared data folder."""
    return DataCard.model_validate(read_json(folder / "card.json"))


def open_split(folder: Path, split: str) -> TokenShard:
    """A split of a prepared data folder; UserError when a file is missing or not as long as its card says."""
    card = read_card(folder)
    if split not in card.splits:
        raise UserError(
            str(folder), f"has no split {split}", got=", ".join(card.splits), fix="change data.split and prepare again"
        )
    counts = card.splits[split]
    tokens = _mapped(shard_files(folder, split)[0], card.dtype, counts.n_tokens)
    docs = _mapped(shard_files(folder, split)[1], "uint64", counts.n_documents + 1)
    return TokenShard(tokens, docs)


def _mapped(path: Path, dtype: str, length: int) -> np.ndarray:
    kind = np.dtype(dtype).newbyteorder("<")
    size = path.stat().st_size if path.is_file() else -1
    if size != length * kind.itemsize:
        got = "no file" if size < 0 else f"{size} bytes"
        wanted = f"must hold {length} numbers of type {dtype} ({length * kind.itemsize} bytes)"
        raise UserError(str(path), wanted, got=got, fix="prepare the data again")
    if length == 0:
        return np.empty(0, dtype=kind)
    return np.memmap(path, dtype=kind, mode="r")
