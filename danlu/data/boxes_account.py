"""The parts of a prepared data set of boxes, and the account of every picture and box."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from danlu.base.contracts import DataCard, SplitCard, StationCard
from danlu.base.durable import fingerprint
from danlu.data.arrays import ArrayWriter, write_arrays
from danlu.data.boxes_files import Box
from danlu.data.boxes_pixels import Fate, Frame, Pixels, fates_of

N_EXAMPLES = 20


@dataclass(frozen=True)
class Made:
    """A picture that can be used."""

    pixels: Pixels
    frame: Frame
    boxes: list[Box]
    digest: str
    """Hash of its file."""


class Part:
    """One split in the making: pictures go to disk at once, boxes wait until the classes are known."""

    def __init__(self, folder: Path, split: str, size: tuple[int, int]) -> None:
        self.folder, self.split = folder, split
        self.pictures = ArrayWriter(folder, split, "images", (*size, 3), "u1")
        self.frames: list[Frame] = []
        self.boxes: list[list[tuple[Box, Fate]]] = []
        self.names: list[str] = []
        self.digests: list[str] = []
        self.sums = np.zeros((2, 3))
        self.n_scored = 0

    def __enter__(self) -> Part:
        return self

    def __exit__(self, *reason: object) -> None:
        self.pictures.drop()

    def add(self, name: str, made: Made) -> None:
        """One more picture."""
        self.pictures.append(made.pixels)
        colour = made.pixels.reshape(-1, 3).astype(np.float32) / 255
        self.sums += np.stack([colour.mean(0), (colour * colour).mean(0)])
        self.frames.append(made.frame)
        self.boxes.append(list(zip(made.boxes, fates_of(made.boxes, made.frame), strict=True)))
        self.names.append(name)
        self.digests.append(made.digest)

    def classes(self) -> set[str]:
        """Names of the boxes that can be used."""
        return {box.name for boxes in self.boxes for box, (corners, _) in boxes if corners is not None}

    def colours(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each colour, from 0 to 1."""
        mean, square = self.sums / len(self.names)
        std = np.sqrt(np.maximum(square - mean**2, 1e-4))
        return [round(float(v), 6) for v in mean], [round(float(v), 6) for v in std]

    def finish(self, classes: Sequence[str], asked: Sequence[str], account: Account) -> list[str]:
        """Write the arrays, boxes of known classes only; hashes of what was written."""
        index = {name: i for i, name in enumerate(classes)}
        corners, labels, offsets = [], [], [0]
        for name, frame, boxes in zip(self.names, self.frames, self.boxes, strict=True):
            for box, (own, fate) in boxes:
                if own is not None and box.name not in index:
                    own, fate = None, "other_class" if asked else "class_not_in_train"
                account.count(name, box, fate)
                if own is not None:
                    corners.append(np.array(own) * np.tile(frame[:2], 2) + np.tile(frame[2:4], 2))
                    labels.append(-2 - index[box.name] if box.ignored else index[box.name])
            offsets.append(len(labels))
        self.n_scored = sum(label >= 0 for label in labels)
        arrays: dict[str, Any] = {
            "frames": np.stack(self.frames), "boxes": np.array(corners, np.float32).reshape(-1, 4),
            "labels": np.array(labels, np.int64), "offsets": np.array(offsets, np.int64),
        }  # fmt: skip
        return [self.pictures.finish(), write_arrays(self.folder, self.split, arrays)]


@dataclass
class Account:
    """Pictures left out, and what became of the boxes."""

    fates: Counter[str]
    """Boxes by fate; begins with those that belong to no picture."""
    rejected: list[dict[str, str]] = field(default_factory=list)
    examples: list[dict[str, str]] = field(default_factory=list)

    def count(self, row: str, box: Box, fate: str) -> None:
        """One box."""
        self.fates[fate] += 1
        if fate != "kept" and len(self.examples) < N_EXAMPLES:
            self.examples.append({"row": row, "reason": fate, "text": f"{box.name} {box.corners}"[:200]})

    def card(
        self, kind: str, source: str, n_in: int, parts: Mapping[str, Part], features: dict[str, Any], hashes: Any
    ) -> DataCard:
        """Rows are pictures; boxes have a station of their own."""
        reasons = dict(Counter(row["reason"] for row in self.rejected))
        dropped = {fate: n for fate, n in self.fates.items() if fate not in ("kept", "clipped")}
        train = set(parts["train"].digests)
        held = [digest for name, part in parts.items() if name != "train" for digest in part.digests]
        twins = sum(digest in train for digest in held)
        told = ", ".join(f"{n:,} {fate.replace('_', ' ')}" for fate, n in sorted(dropped.items()))
        warnings = [f"Boxes left out: {told}."] if dropped else []
        if twins:
            warnings.append(f"{twins:,} held-out pictures are also training pictures, byte for byte.")
        if absent := sorted(set(features["classes"]) - parts["train"].classes()):
            warnings.append(f"No training picture shows {', '.join(absent[:10])}.")
        stations = (
            StationCard(name="read", n_in=n_in, n_dropped=reasons, examples=tuple(self.rejected[:N_EXAMPLES])),
            StationCard(
                name="boxes", n_in=self.fates.total(), n_changed=self.fates["clipped"], n_dropped=dropped,
                examples=tuple(self.examples),
            ),
        )  # fmt: skip
        splits = {name: SplitCard(n_samples=len(p.names), n_targets=p.n_scored) for name, p in parts.items()}
        return DataCard(
            kind=kind, source=source, rows_in=n_in, rows_used=n_in - len(self.rejected), rows_rejected=reasons,
            stations=stations, splits=splits, features=features, warnings=tuple(warnings),
            leakage={"held_out_rows": len(held), "identical_in_train": twins},
            fingerprint=fingerprint([hashes, {name: p.names for name, p in parts.items()}, features]),
        )  # fmt: skip
