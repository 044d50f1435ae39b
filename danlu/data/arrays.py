"""Prepared samples on disk: one .npy file an array, `<split>.<name>.npy`, written durably and read as memory maps."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from danlu.base.durable import write_bytes

Array = NDArray[Any]


def write_arrays(folder: Path, split: str, arrays: Mapping[str, Array]) -> str:
    """Write the arrays of a split; a hash of all their bytes, for the card's fingerprint."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
        data = buffer.getvalue()
        digest.update(name.encode() + data)
        write_bytes(folder / f"{split}.{name}.npy", data)
    return digest.hexdigest()


def read_arrays(folder: Path, split: str) -> dict[str, Array]:
    """All arrays of a split by name, as read-only memory maps."""
    paths = sorted(folder.glob(f"{split}.*.npy"))
    return {path.name[len(split) + 1 : -4]: np.load(path, mmap_mode="r", allow_pickle=False) for path in paths}


def clear(folder: Path) -> None:
    """Take away what an earlier or a killed run left: the card first."""
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in ("card.json", "preprocessing.json", "rejected.jsonl", "*.npy", ".*.tmp*"):
        for path in folder.glob(pattern):
            path.unlink()
