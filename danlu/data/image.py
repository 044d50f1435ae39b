"""Images with classes: MNIST's idx files, folders named by class, lists (CSV, Parquet). Decoded once, kept as bytes.

features: channels, height, width, classes, class_counts, mean, std (of the training pixels, by channel)
tensors:  image (B, C, H, W) float32, normalised; targets (B,) int64; soft_targets (B, classes) under mixup or cutmix
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from danlu.base.contracts import Batch, DataCard, Progress, SplitCard, StationCard
from danlu.base.durable import fingerprint, write_json
from danlu.base.errors import UserError
from danlu.data.arrays import read_arrays, write_arrays
from danlu.data.augment import Augment, augmented, recoloured
from danlu.data.image_list import Listed, from_folders, from_list, idx_items, lists_of
from danlu.data.image_read import ENDINGS, Shape, decoded, sized
from danlu.data.leaks import leaks
from danlu.data.sample_splits import (
    NAMES,
    SPLIT_FOLDERS,
    TEST,
    TRAIN,
    VALIDATION,
    RandomSplit,
    SampleSplitSetting,
    assign,
)  # fmt: skip
from danlu.data.samples import SampleSource, source_files, write_rejected
from danlu.data.table_read import Intake

Pixels = NDArray[np.uint8]
Side = Annotated[int, Field(ge=1, le=8192)]


class Image(SampleSource):
    """Images, each of one class: idx files, a folder for each class (under train/ and test/ or not), or a list."""

    kind: Literal["image"] = "image"
    """Images."""
    path: str
    """A folder, or a list of images with their labels: CSV, TSV, JSONL or Parquet (which may hold the images too)."""
    image_column: str = "auto"
    """Of a list: its column of paths, from its own folder on, or of images as bytes. auto: one named image, path, file or
    the like, else the first."""
    label_column: str = "auto"
    """Of a list: its column of classes. auto: one named label, class or the like, else the second. A column named split
    says train, validation or test."""
    size: Side | tuple[Side, Side] | Literal["auto"] = "auto"
    """Height and width that every image comes to (shorter side resized, middle cut out). auto: that of the files when
    all are alike and at most 64, else 64."""
    channels: Literal["auto", 1, 3] = "auto"
    """1 for grey, 3 for colour. auto: 3, unless the first images are all grey."""
    n_classes: Annotated[int, Field(ge=2)] | None = None
    """Classes, for danlu check when the data are not at hand."""
    normalize: Literal["standard", "unit"] = "standard"
    """standard: each channel to mean 0 and deviation 1 of the training pixels. unit: bytes to 0 ... 1."""
    max_pixels: Annotated[int, Field(ge=1)] = 50_000_000
    """A larger image is left out before it is decoded."""
    split: SampleSplitSetting = RandomSplit()
    """How images become train, validation and test; folders and files that say test (or validation) are kept so, and
    only what is missing is taken from train."""
    augment: Augment = Augment()
    """Changes of training images, a pure function of (seed, epoch, image)."""

    def files(self) -> list[Path]:
        """The source files; of a large folder its class folders stand for them."""
        found = source_files(self.path, ENDINGS)
        return found if len(found) < 2000 else sorted({p.parent for p in found})

    def expected(self) -> dict[str, Any]:
        """From the first images, or from the recipe when it gives size and n_classes."""
        if self.n_classes and self.size != "auto":
            height, width = (self.size, self.size) if isinstance(self.size, int) else self.size
            channels = 3 if self.channels == "auto" else self.channels
            names = [str(i) for i in range(self.n_classes)]
            return {"channels": channels, "height": height, "width": width, "classes": names}
        found = list(self.items(Intake(), 50))
        shape = self.shape_of(found)
        labels = {label for _, label, _ in found} if found and isinstance(found[0][2], tuple) else self.labels()
        return {"channels": shape.channels, "height": shape.height, "width": shape.width, "classes": sorted(labels)}

    def labels(self) -> set[str]:
        """Class names without decoding anything."""
        return {label for _, label, _ in self.items(Intake(), None, decode=False)}

    def items(self, intake: Intake, most: int | None = None, decode: bool = True) -> Iterator[tuple[str, str, Any]]:
        """(place "split|name", label, pixels (H, W, C) or None) of every image."""
        files = source_files(self.path, ENDINGS)
        if any("idx" in p.name and "ubyte" in p.name for p in files):
            yield from idx_items(files[0].parent, intake, most)
            return
        wanted = (self.image_column, self.label_column)
        listed: Iterator[Listed]
        if lists := lists_of(files):
            listed = (item for path in lists for item in from_list(path, wanted, intake, most))
        elif set(wanted) != {"auto"}:
            fix = "leave out image_column and label_column"
            raise UserError("data.path", "must be a list of images where columns are named", got=self.path, fix=fix)
        else:
            root = Path(self.path) if Path(self.path).is_dir() else files[0].parent
            listed = from_folders(files, root)
        for n, item in enumerate(listed):
            if most and n >= most:
                return
            intake.n_in += 1
            pixels = decoded(item.source, self.max_pixels, intake, item.name) if decode else None
            if pixels is not None or not decode:
                yield f"{item.side}|{item.name}", item.label, pixels

    def shape_of(self, found: Sequence[tuple[str, str, Any]]) -> Shape:
        """Channels, height and width that all images come to."""
        if not found:
            raise UserError("data.path", "must give at least one image that can be read", got="none")
        shapes = {pixels.shape for _, _, pixels in found}
        grey = all(p.shape[2] == 1 or (p[..., :1] == p).all() for _, _, p in found[:200])
        channels = (1 if grey else 3) if self.channels == "auto" else self.channels
        if self.size != "auto":
            height, width = (self.size, self.size) if isinstance(self.size, int) else self.size
        else:
            sides = {shape[:2] for shape in shapes}
            height, width = next(iter(sides)) if len(sides) == 1 and max(*next(iter(sides))) <= 64 else (64, 64)
        return Shape(channels, height, width)

    def prepare(self, folder: Path, seed: int, progress: Progress) -> DataCard:
        """Decode all, split, measure the training pixels, write bytes."""
        intake = Intake()
        items = []
        shape = self.shape_of(list(self.items(Intake(), 50)))
        if shape.channels == 1 and (self.augment.hue or self.augment.saturation):
            fix = "leave them out, or set data.channels = 3"
            raise UserError("data.augment", "hue and saturation are for colour images", got="grey ones", fix=fix)
        for place, label, pixels in self.items(intake):
            items.append((place, label, sized(pixels, shape)))
            if len(items) % 500 == 0:
                progress("decode", len(items), 0)
        if len(items) < 3:
            got = ", ".join(f"{n} {why}" for why, n in intake.reasons.most_common(4)) or "none"
            raise UserError("data.path", "must give at least three images that can be read", got=got)
        classes = sorted(
            {label for _, label, _ in items}, key=lambda v: (not v.isdigit(), int(v) if v.isdigit() else 0, v)
        )
        codes = {label: i for i, label in enumerate(classes)}
        targets = np.array([codes[label] for _, label, _ in items])
        labels = self.sides([SPLIT_FOLDERS.get(place.partition("|")[0], -1) for place, _, _ in items], targets, seed)
        pixels = np.stack([p for _, _, p in items])
        mean, std = self.scale(pixels[labels == TRAIN])
        cards, hashes = {}, []
        for number, side in enumerate(NAMES):
            rows = np.flatnonzero(labels == number)
            if len(rows):
                names = np.frombuffer("\n".join(items[i][0].partition("|")[2] for i in rows).encode(), np.uint8)
                hashes.append(
                    write_arrays(folder, side, {"pixels": pixels[rows], "targets": targets[rows], "names": names})
                )
                cards[side] = SplitCard(n_samples=len(rows), n_targets=len(rows))
        features = {
            "channels": shape.channels, "height": shape.height, "width": shape.width, "classes": classes,
            "class_counts": np.bincount(targets[labels == TRAIN], minlength=len(classes)).tolist(),
            "mean": mean.tolist(), "std": std.tolist(),
        }  # fmt: skip
        write_json(folder / "preprocessing.json", features)
        leakage, leaked = leaks(
            (p.tobytes() for p in pixels), labels, [place.partition("|")[2] for place, _, _ in items], "images"
        )
        write_rejected(folder, intake.rejected)
        station = StationCard(
            name="read", n_in=intake.n_in, n_dropped=dict(intake.reasons), examples=tuple(intake.rejected[:5])
        )
        card = DataCard(
            kind=self.kind, source=self.path, rows_in=intake.n_in, rows_used=len(items), rows_rejected=dict(intake.reasons),
            stations=(station,), splits=cards, features=features, leakage=leakage, warnings=(*leaked, *intake.notes),
            fingerprint=fingerprint([hashes, self.model_dump(mode="json")]),
        )  # fmt: skip
        write_json(folder / "card.json", card.model_dump(mode="json"))
        return card

    def scale(self, train: Pixels) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and deviation that each channel (C,) is brought to 0 and 1 from, where a byte is 0 ... 1."""
        if self.normalize == "unit":
            return np.zeros(train.shape[1]), np.ones(train.shape[1])
        std = train.std((0, 2, 3), dtype=np.float64) / 255
        return train.mean((0, 2, 3), dtype=np.float64) / 255, np.maximum(std, 1e-3)

    def sides(self, given: list[int], targets: NDArray[np.int64], seed: int) -> NDArray[np.int8]:
        """Where each image goes: as its folder says; what has no test or validation part gives a share of its own."""
        labels = np.array(given, np.int8)
        has_test, has_validation = TEST in given, VALIDATION in given
        rest = np.flatnonzero(labels <= TRAIN)
        split: Any = self.split
        if isinstance(split, RandomSplit):
            split = split.model_copy(
                update={
                    "test": 0.0 if has_test else split.test,
                    "validation": 0.0 if has_validation else split.validation,
                }
            )
        labels[rest] = assign(split, len(rest), seed, None, targets[rest].astype(str))
        return labels

    def open(self, folder: Path, card: DataCard, split: str) -> ImageSplit:
        """A prepared split."""
        found = read_arrays(folder, split)
        names = found["names"].tobytes().decode().split("\n")
        pixels = found["pixels"] if found["pixels"].nbytes > 4 << 30 else np.asarray(found["pixels"])
        return ImageSplit(pixels, np.asarray(found["targets"]), names, card, self.augment)

    def read(self, folder: Path, card: DataCard, inputs: Sequence[Any]) -> ImageSplit:
        """Paths of images or folders, or arrays (H, W) or (H, W, C) of bytes."""
        f = card.features
        shape = Shape(f["channels"], f["height"], f["width"])
        pixels, names, intake = [], [], Intake()
        for number, given in enumerate(inputs):
            if isinstance(given, np.ndarray):
                array = given[..., None] if given.ndim == 2 else given
                pixels.append(sized(array.astype(np.uint8), shape))
                names.append(f"input {number}")
                continue
            for path in source_files(str(given), ENDINGS):
                found = decoded(path, self.max_pixels, intake)
                if found is None:
                    raise UserError(str(path), f"is not an image that can be read ({intake.rejected[-1]['reason']})")
                pixels.append(sized(found, shape))
                names.append(path.name)
        targets = np.full(len(pixels), -1)
        return ImageSplit(
            np.stack(pixels) if pixels else np.zeros((0, *shape), np.uint8), targets, names, card, self.augment
        )


class ImageSplit:
    """Bytes (N, C, H, W) and classes (N,)."""

    def __init__(
        self, pixels: Pixels, targets: NDArray[np.int64], names: list[str], card: DataCard, augment: Augment
    ) -> None:
        self.pixels, self.targets, self.names, self.augment = pixels, targets, names, augment
        self.n_classes = len(card.features["classes"])
        mean, std = (np.array(card.features[k], np.float32).reshape(1, -1, 1, 1) for k in ("mean", "std"))
        self.factor, self.shift = 1 / (255 * std), mean / std

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, rows: NDArray[np.int64], seeds: NDArray[np.uint64] | None = None) -> Batch:
        """Normalised images; augmented when there are seeds and [data.augment] asks for it."""
        import torch

        pixels = torch.from_numpy(self.pixels[rows]).float()
        if seeds is not None and self.augment.is_on_bytes:
            pixels = recoloured(pixels.div_(255), seeds, self.augment).mul_(255)
        image = pixels.mul_(torch.from_numpy(self.factor)).sub_(torch.from_numpy(self.shift))
        tensors = {"image": image, "targets": torch.from_numpy(self.targets[rows])}
        if seeds is not None and self.augment.is_on:
            tensors = augmented(tensors, seeds, self.augment, self.n_classes)
        return Batch(tensors, int((tensors["targets"] >= 0).sum()))

    def name(self, row: int) -> str:
        """cat/12.png."""
        return self.names[row]
