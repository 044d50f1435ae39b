"""Which images there are, with which class and split: class folders, lists (CSV, TSV, JSONL, Parquet), MNIST's idx files."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from danlu.base.errors import UserError, near_names, one_line
from danlu.data.sample_splits import SPLIT_FOLDERS
from danlu.data.table_read import Intake, read_file

Pixels = NDArray[np.uint8]
IDX = {"train": ("train-images", "train-labels"), "test": ("t10k-images", "t10k-labels")}
LISTS = (".csv", ".tsv", ".jsonl", ".parquet")
IMAGE_NAMES = ("image", "path", "file", "filename", "file_name", "image_path", "filepath", "img", "img_path")
LABEL_NAMES = ("label", "class", "category", "target", "class_name")
SPLIT_NAMES = ("split", "set", "subset")
MAX_IDX_BYTES = 8 << 30
"""What an idx file may say it holds: MNIST is 47 MB, EMNIST 550 MB."""


class Listed(NamedTuple):
    """One image: which split it says it belongs to ("": none), its file or bytes, its name, its class."""

    side: str
    source: Path | bytes
    name: str
    label: str


def lists_of(files: Sequence[Path]) -> list[Path]:
    """The files that list images, where the folders of the images do not tell their classes."""
    lists = [p for p in files if p.suffix.lower() in LISTS]
    folders = {p.parent for p in files if p.suffix.lower() not in LISTS}
    return lists if lists and len(folders) < 2 else []


def from_folders(files: Sequence[Path], root: Path) -> Iterator[Listed]:
    """The label is the image's folder, the split a folder above it."""
    for path in files:
        if path.suffix.lower() in LISTS:
            continue
        above = [p.lower() for p in path.relative_to(root).parts[:-2]] if path.is_relative_to(root) else []
        side = next((p for p in above if p in SPLIT_FOLDERS), "")
        name = path.name if path.parent == root else f"{path.parent.name}/{path.name}"
        yield Listed(side, path, name, path.parent.name)


def from_list(path: Path, wanted: tuple[str, str], intake: Intake, most: int | None) -> Iterator[Listed]:
    """The rows of a list. `wanted`: its image and its label column, "auto" for those of a usual name, else the first and
    the second. An image is a path, from the list's folder on, or (in Parquet) the file's bytes."""
    if path.suffix.lower() == ".parquet":
        names, rows = packed(path, most)
    else:
        reading = Intake()
        read = read_file(path, (), 0, reading, most)
        for key, n in reading.reasons.items():
            intake.reasons[key] += n
        intake.rejected += reading.rejected
        intake.n_in += sum(reading.reasons.values())
        names, rows = read.names, ((place, values) for place, values in zip(read.places, read.values, strict=True))
    image, label, side = places_of(path, names, wanted)
    for place, values in rows:
        source, said = values[image], values[label]
        if not source or said in (None, ""):
            intake.n_in += 1
            intake.reject(place, "no image" if not source else "no label", "")
            continue
        split = str(values[side] or "").lower() if side is not None else ""
        if isinstance(source, bytes):
            yield Listed(split, source, place, str(said))
        else:
            yield Listed(split, path.parent / str(source), str(source), str(said))


def places_of(path: Path, names: Sequence[str], wanted: tuple[str, str]) -> tuple[int, int, int | None]:
    """Where the image, the label and the split (None: nowhere) stand among the columns."""
    if len(names) < 2:
        raise UserError(str(path), "must have a column of images and one of labels", got=", ".join(names))
    for setting, asked in zip(("image_column", "label_column"), wanted, strict=True):
        if asked != "auto" and asked not in names:
            near = near_names(asked, list(names))
            fix = f"write {near[0]}" if near else f"use one of {', '.join(names[:20])}"
            raise UserError(f"data.{setting}", f"must name a column of {path.name}", got=asked, fix=fix)
    low = [name.lower() for name in names]
    side = next((low.index(name) for name in SPLIT_NAMES if name in low), None)

    def found(asked: str, usual: Sequence[str], taken: set[int | None]) -> int:
        if asked != "auto":
            return names.index(asked)
        free = [i for i in range(len(low)) if i not in taken] or [0]
        return next((i for name in usual for i in free if low[i] == name), free[0])

    if wanted[1] != "auto" or any(name in low for name in LABEL_NAMES):
        label = found(wanted[1], LABEL_NAMES, {side})
        return found(wanted[0], IMAGE_NAMES, {side, label}), label, side
    image = found(wanted[0], IMAGE_NAMES, {side})
    return image, found("auto", LABEL_NAMES, {side, image}), side


def packed(path: Path, most: int | None) -> tuple[list[str], Iterator[tuple[str, list[Any]]]]:
    """(column names, rows) of a Parquet file; a struct with "bytes", as Hugging Face writes images, is its bytes."""
    import polars as pl

    try:
        lazy = pl.scan_parquet(path)
        frame = (lazy.head(most + 1) if most else lazy).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        why = one_line(str(error))[:80]
        raise UserError(str(path), f"is not a Parquet file that can be read ({why})") from None

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return value.get("bytes") or value.get("path")
        return value if value is None or isinstance(value, bytes) else str(value)

    rows = ((f"{path.name}:{i + 1}", [plain(v) for v in row]) for i, row in enumerate(frame.iter_rows()))
    return frame.columns, rows


def idx_items(folder: Path, intake: Intake, most: int | None) -> Iterator[tuple[str, str, Any]]:
    """MNIST's files: images and labels of train and test."""
    for side, (images, labels) in IDX.items():
        found = {name: sorted(folder.glob(f"{name}*ubyte*")) for name in (images, labels)}
        if not all(found.values()):
            if side == "train":
                raise UserError(
                    str(folder), f"must hold {images}-idx3-ubyte and {labels}-idx1-ubyte (.gz)", got="not both"
                )
            continue
        pixels, classes = idx(found[images][0]), idx(found[labels][0])
        if len(pixels) != len(classes):
            raise UserError(
                str(found[labels][0]), "must have a label for each image", got=f"{len(classes)} for {len(pixels)}"
            )
        for i in range(len(pixels) if most is None else min(most, len(pixels))):
            intake.n_in += 1
            yield f"{side}|{side}[{i}]", str(classes[i]), pixels[i][..., None]


def idx(path: Path) -> Pixels:
    """An idx file of bytes, as LeCun described it on his MNIST page: two zeros, type 8, dimensions, sizes, bytes. No more
    is unpacked than its sizes say."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if packed else path.open("rb") as stream:
            head = stream.read(4)
            n_dims = head[3] if len(head) == 4 else 0
            sizes = [int.from_bytes(stream.read(4), "big") for _ in range(n_dims)]
            n = math.prod(sizes)
            whole = head[:3] == b"\0\0\x08" and 1 <= n_dims <= 4 and n <= MAX_IDX_BYTES
            data = stream.read(n + 1) if whole else b""
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(str(path), f"is not a whole gzip file ({error})") from None
    if not whole or len(data) != n:
        got = f"{'at least ' if len(data) > n else ''}{len(data)} bytes, sizes {sizes}"
        raise UserError(str(path), "is not a whole idx file of bytes", got=got)
    return np.frombuffer(data, np.uint8).reshape(sizes)
