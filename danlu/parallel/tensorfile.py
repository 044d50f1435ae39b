"""Our own reader and writer of safetensors files: hashed while they are written, checked before they are believed.

Layout (github.com/huggingface/safetensors): u64 little-endian length of a JSON header, the header, the bytes of all
tensors without gaps. Files from here load in the safetensors library and the other way round.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from danlu.base.durable import create_file, write_all

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Names in the file, and torch's types."""
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_MAX_HEADER_BYTES = 100_000_000
_CHUNK_BYTES = 4 << 20


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies: bytes start..stop of the data that follows the header."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


def layout(tensors: Mapping[str, Tensor]) -> tuple[Entry, ...]:
    """Places for all tensors, widest types first so that every one is aligned, without gaps."""
    entries, start = [], 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])):
        if tensor.dtype not in _NAMES:
            raise TypeError(f"{name}: tensors of {tensor.dtype} cannot be saved")
        stop = start + tensor.numel() * tensor.element_size()
        entries.append(Entry(name, tensor.dtype, tuple(tensor.shape), start, stop))
        start = stop
    return tuple(entries)


def views(data: Tensor, entries: Iterable[Entry]) -> dict[str, Tensor]:
    """The tensors that lie in `data` ((n_bytes,) uint8), by name, sharing its memory."""
    return {e.name: data[e.start : e.stop].view(e.dtype).view(e.shape) for e in entries}


def header(entries: Iterable[Entry], metadata: Mapping[str, str]) -> bytes:
    """Length and JSON header, padded with spaces so that the data starts at a multiple of 64 bytes."""
    fields: dict[str, Any] = {"__metadata__": dict(metadata)}
    for e in entries:
        fields[e.name] = {"dtype": _NAMES[e.dtype], "shape": e.shape, "data_offsets": (e.start, e.stop)}
    text = json.dumps(fields, separators=(",", ":")).encode("utf-8")
    text += b" " * (-(8 + len(text)) % 64)
    return len(text).to_bytes(8, "little") + text


def parse(file: Tensor) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a whole file ((n_bytes,) uint8). ValueError for a header that does not fit its data."""
    n_bytes = file.numel()
    length = int.from_bytes(_bytes(file[:8]), "little") if n_bytes >= 8 else _MAX_HEADER_BYTES + 1
    if length > min(_MAX_HEADER_BYTES, n_bytes - 8):
        raise ValueError("the header is longer than the file")
    fields = json.loads(_bytes(file[8 : 8 + length]))
    if not isinstance(fields, dict):
        raise ValueError("the header is not an object")
    metadata = fields.pop("__metadata__", {})
    entries = sorted((_entry(name, field) for name, field in fields.items()), key=lambda e: (e.start, e.stop))
    end = 0
    for e in entries:
        if e.start != end:
            raise ValueError(f"{e.name} does not begin where the tensor before it ends")
        end = e.stop
    if 8 + length + end != n_bytes:
        raise ValueError("the tensors do not fill the file")
    data = file[8 + length :]
    if data.data_ptr() % 8:
        data = data.clone()
    return metadata, views(data, entries)


def _entry(name: str, field: Any) -> Entry:
    try:
        dtype, shape, (start, stop) = DTYPES[field["dtype"]], tuple(field["shape"]), field["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the entry of {name} is broken") from error
    whole = all(type(n) is int and n >= 0 for n in (*shape, start, stop))
    if not whole or stop - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"the size of {name} does not match its shape")
    return Entry(name, dtype, shape, start, stop)


def _bytes(data: Tensor) -> bytes:
    return data.numpy().tobytes()


def write_file(path: Path, parts: Iterable[bytes | memoryview]) -> dict[str, Any]:
    """Write a new file, durably, and return {"bytes", "sha256"} of it, hashed on the way (no second read).

    Writing and hashing both let other Python threads run.
    """
    digest, size = hashlib.sha256(), 0
    fd = create_file(path)
    try:
        for part in parts:
            whole = memoryview(part)
            for start in range(0, len(whole), _CHUNK_BYTES):
                chunk = whole[start : start + _CHUNK_BYTES]
                write_all(fd, chunk)
                digest.update(chunk)
            size += len(whole)
        os.fsync(fd)
    finally:
        os.close(fd)
    return {"bytes": size, "sha256": digest.hexdigest()}


def read_file(path: Path, size: int) -> tuple[Tensor, str]:
    """The bytes of a file of a known size as (size,) uint8, and their SHA-256. ValueError when it is shorter."""
    data = torch.empty(size, dtype=torch.uint8)
    view, digest, got = data.numpy().data, hashlib.sha256(), 0
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(fd, "rb", buffering=0) as file:
        while got < size:
            n = file.readinto(view[got : got + _CHUNK_BYTES])
            if not n:
                raise ValueError("is shorter than it was")
            digest.update(view[got : got + n])
            got += n
    return data, digest.hexdigest()
