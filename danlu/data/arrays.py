"""Prepared samples on disk: one .npy file an array, `<split>.<name>.npy`, written durably and read as memory maps."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from danlu.base.durable import fsync_folder, write_bytes

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


class ArrayWriter:
    """`<split>.<name>.npy` written a row at a time: for what does not fit into memory. It appears when it is finished.

    numpy leaves room in the header for a longer first axis, so the number of rows may come last.
    """

    def __init__(self, folder: Path, split: str, name: str, shape: tuple[int, ...], dtype: str) -> None:
        self.path = folder / f"{split}.{name}.npy"
        self.temporary = folder / f".{split}.{name}.npy.tmp-{os.getpid()}"
        self.shape, self.dtype, self.n_rows = shape, np.dtype(dtype), 0
        self.digest = hashlib.sha256()
        self.file = self.temporary.open("wb")
        self.file.write(self.header())

    def header(self) -> bytes:
        """What a .npy file begins with."""
        buffer = io.BytesIO()
        told = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.n_rows, *self.shape)}
        np.lib.format.write_array_header_1_0(buffer, told)
        return buffer.getvalue()

    def append(self, row: Array) -> None:
        """One more row."""
        data = np.ascontiguousarray(row, self.dtype).reshape(self.shape).tobytes()
        self.digest.update(data)
        self.file.write(data)
        self.n_rows += 1

    def finish(self) -> str:
        """Make it durable under its name; the hash of its rows."""
        self.file.seek(0)
        self.file.write(self.header())
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        os.replace(self.temporary, self.path)
        fsync_folder(self.path.parent)
        return self.digest.hexdigest()

    def drop(self) -> None:
        """Leave nothing behind; what is finished stays."""
        self.file.close()
        self.temporary.unlink(missing_ok=True)


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
