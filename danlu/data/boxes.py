"""Pictures with boxes on them, for detection: Pascal VOC and COCO.

    <split>.images.npy   (N, H, W, 3) uint8, fitted into one size      <split>.frames.npy   (N, 6) the way back
    <split>.boxes.npy    (K, 4) x1 y1 x2 y2 in prepared pixels         <split>.labels.npy   (K,) class, or -2 - class
    <split>.offsets.npy  (N + 1,) where each picture's boxes begin     preprocessing.json   names, classes, mean, std

Coordinates are taken as they stand in the files, as edges in pixels. `features`: classes, channels, height, width,
mean, std, colour (0 to 1, of the training pictures).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from danlu.base.contracts import DataCard, Progress, SplitCard, StationCard
from danlu.base.durable import fingerprint, read_json, write_json, write_text
from danlu.base.errors import UserError
from danlu.base.settings import Settings
from danlu.data.arrays import read_arrays, write_arrays
from danlu.data.boxes_files import PICTURES, Box, Broken, Found, Listed, look, voc_annotation
from danlu.data.boxes_pixels import Left, corners_of, decoded, pillow
from danlu.data.boxes_split import Augment, BoxSplit
from danlu.data.samples import SampleSource

Side = Annotated[int, Field(ge=32, le=4096)]
Fraction = Annotated[float, Field(ge=0, lt=0.9)]
LOOKED_AT = 500
"""Annotations that `danlu check` reads for the classes."""
AT_ONCE = 64
"""Pictures decoded between two reports of progress."""


class BoxShares(Settings):
    """Shares for data that come without splits, cut by a hash of the image's name."""

    validation: Fraction = 0.15
    """Share that validates."""
    test: Fraction = 0.15
    """Share kept for the last score."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Another number gives another split."""

    def split_of(self, name: str) -> str:
        """train, validation or test."""
        word = hashlib.sha256(f"{self.seed}:{name}".encode()).digest()
        lot = int.from_bytes(word[:8], "big") / 2**64
        return "validation" if lot < self.validation else "test" if lot < self.validation + self.test else "train"


@dataclass
class Part:
    """What one split is made of."""

    images: list[NDArray[np.uint8]] = field(default_factory=list)
    frames: list[NDArray[np.float32]] = field(default_factory=list)
    boxes: list[list[tuple[Any, str, bool]]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)


@dataclass
class Account:
    """Rows left out, and what became of the boxes."""

    rejected: list[dict[str, str]] = field(default_factory=list)
    fates: Counter[str] = field(default_factory=Counter)
    examples: list[dict[str, str]] = field(default_factory=list)

    def box(self, row: str, fate: str, box: Any) -> None:
        """Count one box."""
        self.fates[fate] += 1
        if fate != "kept" and len(self.examples) < 20:
            self.examples.append({"row": row, "reason": fate, "text": f"{box.name} {box.corners}"})


class Boxes(SampleSource):
    """Pictures with boxes: a Pascal VOC folder, a COCO file, or a folder of train, valid and test."""

    kind: Literal["boxes"] = "boxes"
    """Pictures with boxes."""
    images: str = ""
    """Folder of the pictures, where they do not lie beside their annotations."""
    validation: str = ""
    """COCO file of the validation split, where path names the training file."""
    test: str = ""
    """COCO file of the test split, where path names the training file."""
    split: BoxShares = BoxShares()
    """How to cut data that bring no splits; data that do (ImageSets, train/valid/test folders) keep theirs."""
    size: tuple[Side, Side] = (256, 256)
    """Height and width that pictures are fitted into, such as [240, 320]; both multiples of 8."""
    fit: Literal["letterbox", "stretch"] = "letterbox"
    """letterbox keeps the shape and fills the border; stretch fills the size."""
    classes: tuple[str, ...] = ()
    """Class names to learn; empty: all in the training split. Boxes of others are left out, and counted."""
    max_pixels: Annotated[int, Field(ge=1024)] = 50_000_000
    """Larger pictures are rejected before they are decoded."""
    augment: Augment = Augment()
    """Random changes of training pictures."""

    extra: ClassVar[str] = "images"

    @field_validator("size")
    @classmethod
    def _multiples(cls, value: tuple[int, int]) -> tuple[int, int]:
        if value[0] % 8 or value[1] % 8:
            raise ValueError("must be two multiples of 8: height and width")
        return value

    def found(self) -> Found:
        """All images that the path means, split by split."""
        path, images, validation, test = (located(p) for p in (self.path, self.images, self.validation, self.test))
        found = look(Path(path), images, validation, test)
        if not any(row.split for row in found.listed):
            found.listed = [
                Listed(r.name, self.split.split_of(r.name), r.image, r.annotation, r.boxes, r.size)
                for r in found.listed
            ]
        return found

    def files(self) -> list[Path]:
        """Lists, annotations and pictures."""
        found = self.found()
        listed = [p for row in found.listed for p in (row.annotation, row.image) if p is not None and p.exists()]
        return [*found.sources, *dict.fromkeys(listed)]

    def expected(self) -> dict[str, Any]:
        """Sizes from the settings, classes from the first annotations."""
        classes = set(self.classes)
        if not classes:
            for row in [r for r in self.found().listed if r.split == "train"][:LOOKED_AT]:
                try:
                    boxes = voc_annotation(row.annotation)[1] if row.annotation else row.boxes
                except Broken:
                    continue
                classes |= {box.name for box in boxes}
        return {"classes": sorted(classes), "channels": 3, "height": self.size[0], "width": self.size[1]}

    def prepare(self, folder: Path, seed: int, progress: Progress) -> DataCard:
        """Decode, fit, count; classes and colours from the training split."""
        pillow()
        found = self.found()
        account, parts = Account(), {name: Part() for name in ("train", "validation", "test")}
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for first in range(0, len(found.listed), AT_ONCE):
                progress("pictures", first, len(found.listed))
                rows = found.listed[first : first + AT_ONCE]
                for row, made in zip(rows, pool.map(self.row, rows), strict=True):
                    self.take(row, made, parts, account)
        if not parts["train"].names:
            first_reason = account.rejected[0] if account.rejected else {"row": "nothing", "text": "no row"}
            raise UserError(
                "data", "must leave pictures to train on", got=f"{first_reason['row']}: {first_reason['text']}"
            )
        features, names = self.features(parts["train"])
        splits, hashes = {}, {}
        for split, part in parts.items():
            if part.names:
                hashes[split], splits[split] = self.written(folder, split, part, features, account)
        write_json(
            folder / "preprocessing.json",
            {"features": features, "names": {s: p.names for s, p in parts.items() if p.names}},
        )
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in account.rejected]
        write_text(folder / "rejected.jsonl", "".join(lines))
        card = self.card(found, account, parts, splits, features, [hashes, names])
        write_json(folder / "card.json", card.model_dump(mode="json"))
        return card

    def row(self, listed: Listed) -> Any:
        """(pixels, frame, [(corners, fate, box)], hash) of one image, or Left."""
        try:
            size, boxes = (listed.size, list(listed.boxes))
            if listed.annotation is not None:
                size, boxes = voc_annotation(listed.annotation)
            if listed.image is None:
                raise Left("missing_image", "there is no picture of this name")
            pixels, frame = decoded(listed.image, self.size, self.fit, self.max_pixels, size)
        except Broken as error:
            return Left("broken_annotation", str(error))
        except Left as left:
            return left
        return pixels, frame, boxes, hashlib.sha256(listed.image.read_bytes()).hexdigest()

    def take(self, row: Listed, made: Any, parts: dict[str, Part], account: Account) -> None:
        """Put one image where it belongs."""
        if isinstance(made, Left):
            account.rejected.append({"row": row.name, "reason": made.reason, "text": str(made)})
            return
        pixels, frame, boxes, digest = made
        part = parts[row.split]
        kept: list[tuple[Any, str, bool]] = []
        for box, (corners, fate) in zip(boxes, corners_of(boxes, frame), strict=True):
            if self.classes and box.name not in self.classes:
                fate, corners = "other_class", None
            account.box(row.name, fate, box)
            if corners is not None:
                kept.append((corners, box.name, box.ignored))
        part.images.append(pixels)
        part.frames.append(frame)
        part.boxes.append(kept)
        part.names.append(row.name)
        part.hashes.append(digest)

    def features(self, train: Part) -> tuple[dict[str, Any], list[str]]:
        """What models and tasks must know, fitted on the training pictures."""
        names = sorted(self.classes or {name for boxes in train.boxes for _, name, _ in boxes})
        if not names:
            raise UserError("data", "must have boxes in the training split", got="none", fix="look at the annotations")
        sums = np.zeros((2, 3))
        for image in train.images:
            x = image.reshape(-1, 3).astype(np.float32) / 255
            sums += np.stack([x.mean(0), (x * x).mean(0)])
        mean, square = sums / len(train.images)
        std = np.sqrt(np.maximum(square - mean**2, 1e-4))
        features = {
            "classes": names, "channels": 3, "height": self.size[0], "width": self.size[1],
            "mean": [round(float(v), 6) for v in mean], "std": [round(float(v), 6) for v in std],
        }  # fmt: skip
        return features, names

    def written(
        self, folder: Path, split: str, part: Part, features: dict[str, Any], account: Account
    ) -> tuple[str, SplitCard]:
        """Write a split's arrays. Boxes of classes that no training picture has are left out, and counted."""
        index = {name: i for i, name in enumerate(features["classes"])}
        corners, labels, offsets = [], [], [0]
        for row, boxes in enumerate(part.boxes):
            frame = part.frames[row]
            for own, name, ignored in boxes:
                if name not in index:
                    account.box(part.names[row], "class_not_in_train", Box(own, name))
                    account.fates["kept"] -= 1
                    continue
                corners.append(np.array(own, np.float32) * np.tile(frame[:2], 2) + np.tile(frame[2:4], 2))
                labels.append(-2 - index[name] if ignored else index[name])
            offsets.append(len(labels))
        arrays: dict[str, Any] = {
            "images": np.stack(part.images), "frames": np.stack(part.frames).astype(np.float32),
            "boxes": np.array(corners, np.float32).reshape(-1, 4), "labels": np.array(labels, np.int64),
            "offsets": np.array(offsets, np.int64),
        }  # fmt: skip
        digest = write_arrays(folder, split, arrays)
        part.images.clear()
        return digest, SplitCard(n_samples=len(part.names), n_targets=sum(label >= 0 for label in labels))

    def card(
        self, found: Found, account: Account, parts: dict[str, Part], splits: dict[str, SplitCard],
        features: dict[str, Any], hashed: Any,
    ) -> DataCard:  # fmt: skip
        """The card: rows are pictures, boxes have a station of their own."""
        fates = account.fates + Counter(found.dropped)
        dropped = {fate: n for fate, n in fates.items() if fate not in ("kept", "clipped") and n}
        reasons = Counter(row["reason"] for row in account.rejected)
        n = len(found.listed)
        used = n - len(account.rejected)
        train = set(parts["train"].hashes)
        twins = sum(h in train for s in ("validation", "test") for h in parts[s].hashes)
        held = sum(len(parts[s].hashes) for s in ("validation", "test"))
        warnings = [f"{twins} held-out pictures are also training pictures, byte for byte."] if twins else []
        if dropped:
            said = ", ".join(f"{count} {fate.replace('_', ' ')}" for fate, count in sorted(dropped.items()))
            warnings.append(f"Boxes left out: {said}.")
        stations = (
            StationCard(name="read", n_in=n, n_dropped=dict(reasons), examples=tuple(account.rejected[:20])),
            StationCard(
                name="boxes", n_in=sum(fates.values()), n_changed=fates["clipped"], n_dropped=dropped,
                examples=tuple(account.examples),
            ),
        )  # fmt: skip
        return DataCard(
            kind=self.kind, source=self.path, rows_in=n, rows_used=used, rows_rejected=dict(reasons),
            stations=stations, splits=splits, features=features, warnings=tuple(warnings),
            leakage={"held_out_rows": held, "identical_in_train": twins},
            fingerprint=fingerprint([hashed, features]),
        )  # fmt: skip

    def open(self, folder: Path, card: DataCard, split: str) -> BoxSplit:
        """A prepared split."""
        names = read_json(folder / "preprocessing.json")["names"][split]
        return BoxSplit(read_arrays(folder, split), names, card.features, self.augment)

    def read(self, folder: Path, card: DataCard, inputs: Sequence[Any]) -> BoxSplit:
        """Pictures to look for boxes in: files, folders of pictures, or arrays (H, W, 3) uint8."""
        Image = pillow()
        images, frames, names = [], [], []
        for number, given in enumerate(inputs):
            if isinstance(given, np.ndarray):
                raise_unless_picture(given, number)
                import io

                buffer = io.BytesIO()
                Image.fromarray(given).save(buffer, "PNG")
                found: list[tuple[Any, str]] = [(buffer, f"input {number}")]
            else:
                found = [(path, str(path)) for path in pictures_in(Path(str(given)))]
            for source, name in found:
                try:
                    pixels, frame = decoded(source, self.size, self.fit, self.max_pixels, None)
                except Left as left:
                    raise UserError(name, "must be a picture that can be decoded", got=str(left)) from None
                images.append(pixels)
                frames.append(frame)
                names.append(name)
        arrays: dict[str, Any] = {
            "images": np.stack(images) if images else np.zeros((0, *self.size, 3), np.uint8),
            "frames": np.stack(frames) if frames else np.zeros((0, 6), np.float32),
            "boxes": np.zeros((0, 4), np.float32), "labels": np.zeros(0, np.int64),
            "offsets": np.zeros(len(images) + 1, np.int64),
        }  # fmt: skip
        return BoxSplit(arrays, names, card.features, self.augment)


def located(path: str) -> str:
    """A path with its variables and ~ filled in; an unset variable is refused."""
    full = os.path.expanduser(os.path.expandvars(path))
    if "$" in full:
        raise UserError("data.path", "names a variable that is not set", got=path, fix="set it, or write the path out")
    return full


def raise_unless_picture(given: NDArray[Any], number: int) -> None:
    """Arrays must be (H, W, 3) or (H, W) uint8."""
    if given.dtype != np.uint8 or given.ndim not in (2, 3) or (given.ndim == 3 and given.shape[2] != 3):
        raise UserError(f"input {number}", "must be an array (H, W, 3) of uint8", got=f"{given.shape} {given.dtype}")


def pictures_in(path: Path) -> list[Path]:
    """A picture itself, or all in a folder, by name."""
    if path.is_dir():
        return sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES)
    if not path.is_file():
        raise UserError("predict", "needs pictures that are there", got=str(path), fix="name a file or a folder")
    return [path]
