"""Pictures with boxes on them, for detection: Pascal VOC and COCO (layouts: boxes_files.py).

    <split>.images.npy   (N, H, W, 3) uint8, fitted into one size      <split>.frames.npy   (N, 6) the way back
    <split>.boxes.npy    (K, 4) x1 y1 x2 y2 in prepared pixels         <split>.labels.npy   (K,) class, or -2 - class
    <split>.offsets.npy  (N + 1,) where each picture's boxes begin     preprocessing.json   features, names

Coordinates are taken as they stand in the files, as edges in pixels. `features`: classes, channels, height, width,
mean, std (colour from 0 to 1, of the training pictures).
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from danlu.base.contracts import DataCard, Progress
from danlu.base.durable import read_json, write_json
from danlu.base.errors import UserError
from danlu.data.arrays import read_arrays
from danlu.data.boxes_account import Account, Made, Part
from danlu.data.boxes_files import PICTURES, Found, Left, Listed, look, voc_annotation
from danlu.data.boxes_pixels import decoded, pillow
from danlu.data.boxes_split import Augment, BoxSplit
from danlu.data.catalog_sets import located
from danlu.data.sample_splits import NAMES, TEST, TRAIN, VALIDATION, GivenFiles, RandomSplit, SampleSplitSetting, assign
from danlu.data.samples import SampleSource, write_rejected

Side = Annotated[int, Field(ge=32, le=4096)]
LOOKED_AT = 500
"""Annotations that `danlu check` reads for the classes."""
AT_ONCE = 64
"""Pictures decoded between two reports of progress."""
FEW = 2000
"""Of more pictures, their folders are looked at for changes."""


class Boxes(SampleSource):
    """Pictures with boxes: a Pascal VOC folder, a COCO file or tree, or a folder of train, valid and test."""

    kind: Literal["boxes"] = "boxes"
    """Pictures with boxes."""
    pictures: str = ""
    """Folder of the pictures, where they do not lie beside their annotations."""
    split: SampleSplitSetting = RandomSplit()
    """How pictures become train, validation and test. What the data say (ImageSets, train/ and valid/ folders) is kept,
    and only what is missing is taken from train; "given" names other COCO files or folders."""
    size: tuple[Side, Side] = (256, 256)
    """Height and width that pictures are fitted into, such as [240, 320]; both multiples of 8."""
    fit: Literal["letterbox", "stretch"] = "letterbox"
    """letterbox keeps the shape and fills the border; stretch fills the size."""
    classes: tuple[str, ...] = ()
    """Class names to learn; empty: all in the training split. Boxes of others are left out, and counted."""
    max_pixels: Annotated[int, Field(ge=1024)] = 50_000_000
    """A picture of more pixels is left out before it is decoded."""
    augment: Augment = Augment()
    """Random changes of training pictures, a pure function of (seed, epoch, picture)."""

    extra: ClassVar[str] = "images"

    @field_validator("size")
    @classmethod
    def _multiples(cls, value: tuple[int, int]) -> tuple[int, int]:
        if value[0] % 8 or value[1] % 8:
            raise ValueError("must be two multiples of 8: height and width")
        return value

    def found(self) -> Found:
        """All pictures that the path means, and those of other files for validation and test."""
        found = look(Path(located(self.path)), located(self.pictures))
        if isinstance(self.split, GivenFiles):
            found.listed = [moved_to("train", row) for row in found.listed]
            for name, path in (("validation", self.split.validation), ("test", self.split.test)):
                more = look(Path(located(path)), located(self.pictures)) if path else Found()
                found.listed += [moved_to(name, row) for row in more.listed]
                found.sources += more.sources
                found.dropped += more.dropped
        return found

    def sides(self, listed: Sequence[Listed], seed: int) -> list[Listed]:
        """Every picture in a split: its own, or one that the data lack, taken from train."""
        own = np.array([NAMES.index(row.split) if row.split else TRAIN for row in listed], np.int8)
        rest = np.flatnonzero(own == TRAIN)
        split: Any = self.split
        if isinstance(split, RandomSplit):
            there = {"validation": VALIDATION in own, "test": TEST in own}
            split = split.model_copy(update={name: 0.0 for name, is_there in there.items() if is_there})
        own[rest] = assign(split, len(rest), seed)
        return [row if row.split == NAMES[k] else moved_to(NAMES[k], row) for row, k in zip(listed, own, strict=True)]

    def files(self) -> list[Path]:
        """Lists, annotations and pictures; of many, their folders stand for them."""
        found = self.found()
        listed = dict.fromkeys(p for row in found.listed for p in (row.annotation, row.picture) if p is not None)
        there = [p for p in listed if os.path.exists(p)]
        return [*found.sources, *(there if len(there) < FEW else dict.fromkeys(p.parent for p in there))]

    def expected(self) -> dict[str, Any]:
        """Sizes from the settings, classes from the first annotations."""
        classes = set(self.classes)
        if not classes:
            for row in [row for row in self.found().listed if row.split in ("train", "")][:LOOKED_AT]:
                try:
                    classes |= {
                        box.name for box in (voc_annotation(row.annotation)[1] if row.annotation else row.boxes)
                    }
                except Left:
                    continue
        return {"classes": sorted(classes), "channels": 3, "height": self.size[0], "width": self.size[1]}

    def prepare(self, folder: Path, seed: int, progress: Progress) -> DataCard:
        """Decode, fit, count; classes and colours from the training split."""
        pillow()
        folder.mkdir(parents=True, exist_ok=True)
        found = self.found()
        account = Account(found.dropped)
        with ExitStack() as stack:
            parts = {name: stack.enter_context(Part(folder, name, self.size)) for name in NAMES}
            for row, made in self.rows(self.sides(found.listed, seed), progress):
                if isinstance(made, Left):
                    account.rejected.append({"row": row.name, "reason": made.reason, "text": str(made)[:200]})
                else:
                    parts[row.split].add(row.name, made)
            if not parts["train"].names:
                first = (
                    account.rejected[0] if account.rejected else {"row": "none", "text": "no picture is for training"}
                )
                raise UserError("data", "must leave pictures to train on", got=f"{first['row']}: {first['text']}")
            features = self.features(parts["train"])
            used = {name: part for name, part in parts.items() if part.names}
            hashes = {name: part.finish(features["classes"], self.classes, account) for name, part in used.items()}
        write_json(
            folder / "preprocessing.json",
            {"features": features, "names": {name: part.names for name, part in used.items()}},
        )
        write_rejected(folder, account.rejected)
        card = account.card(self.kind, self.path, len(found.listed), used, features, hashes)
        write_json(folder / "card.json", card.model_dump(mode="json"))
        return card

    def rows(self, listed: Sequence[Listed], progress: Progress) -> Iterator[tuple[Listed, Made | Left]]:
        """Every picture decoded, in order, by several threads."""
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # large pictures are left out or accepted by max_pixels alone
            for first in range(0, len(listed), AT_ONCE):
                progress("pictures", first, len(listed))
                rows = listed[first : first + AT_ONCE]
                yield from zip(rows, pool.map(self.made, rows), strict=True)

    def made(self, row: Listed) -> Made | Left:
        """One picture with its boxes, or why it is left out."""
        try:
            if row.fault:
                return Left("broken_annotation", row.fault)
            size, boxes = row.size, list(row.boxes)
            if row.annotation is not None:
                size, boxes = voc_annotation(row.annotation)
            if row.picture is None:
                return Left("missing_picture", "there is no picture of this name")
            data = row.picture.read_bytes()
            pixels, frame = decoded(data, self.size, self.fit, self.max_pixels, size)
        except OSError as error:
            return Left("unreadable_picture", f"cannot be read ({error.strerror})")
        except Left as left:
            return left
        return Made(pixels, frame, boxes, hashlib.sha256(data).hexdigest())

    def features(self, train: Part) -> dict[str, Any]:
        """What models and tasks must know, fitted on the training pictures."""
        names = sorted(self.classes or train.classes())
        if not names:
            raise UserError("data", "must have boxes in the training split", got="none", fix="look at the annotations")
        mean, std = train.colours()
        return {
            "classes": names, "channels": 3, "height": self.size[0], "width": self.size[1], "mean": mean, "std": std,
        }  # fmt: skip

    def open(self, folder: Path, card: DataCard, split: str) -> BoxSplit:
        """A prepared split."""
        names = read_json(folder / "preprocessing.json")["names"][split]
        return BoxSplit(read_arrays(folder, split), names, card.features, self.augment)

    def read(self, folder: Path, card: DataCard, inputs: Sequence[Any]) -> BoxSplit:
        """Pictures to look for boxes in: files, folders of pictures, or arrays (H, W, 3) or (H, W) uint8."""
        pillow()
        size = card.features["height"], card.features["width"]
        images, frames, names = [], [], []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, data in (found for k, given in enumerate(inputs) for found in files_of(k, given)):
                try:
                    pixels, frame = decoded(data, size, self.fit, self.max_pixels, None)
                except Left as left:
                    raise UserError(name, "must be a picture that can be decoded", got=str(left)) from None
                images.append(pixels)
                frames.append(frame)
                names.append(name)
        arrays: dict[str, Any] = {
            "images": np.stack(images) if images else np.zeros((0, *size, 3), np.uint8),
            "frames": np.stack(frames) if frames else np.zeros((0, 6), np.float32),
            "boxes": np.zeros((0, 4), np.float32), "labels": np.zeros(0, np.int64),
            "offsets": np.zeros(len(images) + 1, np.int64),
        }  # fmt: skip
        return BoxSplit(arrays, names, card.features, self.augment)


def moved_to(split: str, row: Listed) -> Listed:
    """The same picture in another split."""
    return Listed(row.name, split, row.picture, row.annotation, row.boxes, row.size, row.fault)


def files_of(number: int, given: Any) -> Iterator[tuple[str, bytes]]:
    """(name, bytes of the file) of an input to predict; an array becomes one of raw pixels."""
    if isinstance(given, np.ndarray):
        yield f"input {number}", as_file(given, number)
        return
    path = Path(str(given))
    if os.path.isdir(path):
        paths = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES)
    elif os.path.isfile(path):
        paths = [path]
    else:
        raise UserError("predict", "needs pictures that are there", got=str(path)[:200], fix="name a file or a folder")
    for file in paths:
        try:
            data = file.read_bytes()
        except OSError as error:
            raise UserError(str(file), f"cannot be read ({error.strerror})") from None
        yield str(file), data


def as_file(given: NDArray[Any], number: int) -> bytes:
    """An array as a file of plain pixels (PPM, PGM), so that it goes the way of all pictures."""
    if (
        given.dtype != np.uint8
        or given.ndim not in (2, 3)
        or (given.ndim == 3 and given.shape[2] != 3)
        or not given.size
    ):
        raise UserError(
            f"input {number}", "must be an array (H, W, 3) or (H, W) of uint8", got=f"{given.shape} {given.dtype}"
        )
    kind = "P6" if given.ndim == 3 else "P5"
    return f"{kind} {given.shape[1]} {given.shape[0]} 255\n".encode() + np.ascontiguousarray(given).tobytes()
