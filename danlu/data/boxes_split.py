"""Batches of pictures with boxes, and how they are augmented: each sample by its own seed alone, boxes with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from danlu.base.contracts import Batch
from danlu.base.settings import Settings
from danlu.data.augment import Draws

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[Any]
Share = Annotated[float, Field(ge=0, le=1)]
Strength = Annotated[float, Field(ge=0, lt=1)]
MIN_LEFT = 0.3
"""Of a box's area must stay inside the picture, or the box goes."""
PADDING = -1
PIXELS_AT_ONCE = 2**22
"""That are scored together."""


class Augment(Settings):
    """Random changes of training pictures; boxes follow."""

    flip_horizontal: Share = 0.5
    """Share of pictures mirrored left to right."""
    flip_vertical: Share = 0.0
    """Share of pictures turned upside down: right for cells and aerial pictures, wrong for streets."""
    scale: Strength = 0.2
    """Pictures are zoomed by a factor from 1 - scale to 1 / (1 - scale)."""
    translate: Strength = 0.1
    """Pictures are moved by at most this share of their sides."""
    brightness: Strength = 0.2
    """Light is changed by at most this share of the full range."""
    contrast: Strength = 0.2
    """Contrast is changed by at most this share."""
    saturation: Strength = 0.2
    """Saturation is changed by at most this share."""

    @property
    def moves(self) -> bool:
        """Whether pixels and boxes change their places."""
        return any((self.flip_horizontal, self.flip_vertical, self.scale, self.translate))


def geometry(draws: Draws, settings: Augment, size: tuple[int, int]) -> tuple[Array, Array]:
    """(factor, shift), each (B, 2) for x and y: a point p of a picture goes to p * factor + shift."""
    whole = np.array([size[1], size[0]], np.float32)
    mirrored = [draws.uniform() < share for share in (settings.flip_horizontal, settings.flip_vertical)]
    zoom = (1 - settings.scale) ** draws.signed(1)
    factor = np.stack([np.where(m, -zoom, zoom) for m in mirrored], 1).astype(np.float32)
    moved = np.stack([draws.signed(settings.translate) for _ in "xy"], 1) * whole
    return factor, (whole / 2 * (1 - factor) + moved).astype(np.float32)


def moved_boxes(boxes: Array, labels: Array, factor: Array, shift: Array, size: tuple[int, int]) -> tuple[Array, Array]:
    """Boxes (B, M, 4) and labels (B, M) after the move, cut at the border; what is mostly outside becomes padding."""
    corners = boxes.reshape(*boxes.shape[:2], 2, 2) * factor[:, None, None] + shift[:, None, None]
    low, top = corners.min(2), corners.max(2)
    whole = np.array([size[1], size[0]], np.float32)
    cut_low, cut_top = low.clip(0, whole), top.clip(0, whole)
    area, left = (top - low).prod(-1), (cut_top - cut_low).prod(-1)
    stays = (labels != PADDING) & (left >= MIN_LEFT * area) & ((cut_top - cut_low).min(-1, initial=np.inf) >= 1)
    made = np.concatenate([cut_low, cut_top], -1) * stays[..., None]
    return made.astype(np.float32), np.where(stays, labels, PADDING)


def moved_pictures(image: Tensor, factor: Array, shift: Array) -> Tensor:
    """Pictures (B, 3, H, W) after the move, bilinear; what comes into sight is 0, the mean picture."""
    import torch
    import torch.nn.functional as F

    high, wide = image.shape[-2:]
    f, s = torch.from_numpy(factor), torch.from_numpy(shift)
    # In the coordinates of grid_sample, -1 and 1 at the outer edges: own = (out - s) / f, an axis at a time.
    x, y = (
        (torch.arange(n) + 0.5 - s[:, k : k + 1]) / f[:, k : k + 1] * (2 / n) - 1 for k, n in enumerate((wide, high))
    )
    grid = torch.empty(len(image), high, wide, 2)
    grid[..., 0], grid[..., 1] = x[:, None], y[:, :, None]
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def colour_change(draws: Draws, settings: Augment, mean: Array) -> tuple[Array, Array]:
    """(matrix (B, 3, 3), shift (B, 3, 1)) that colours x (3, pixels) in 0 to 1 go through, matrix @ x + shift: other
    saturation (towards or away from the pixel's grey), contrast (around the mean grey) and light."""
    light, contrast, saturation = (
        draws.signed(most)[:, None, None] for most in (settings.brightness, settings.contrast, settings.saturation)
    )
    grey = np.full((3, 3), 1 / 3, np.float32)
    matrix = (1 + contrast) * ((1 + saturation) * np.eye(3, dtype=np.float32) - saturation * grey)
    return matrix, np.repeat(light - contrast * mean.mean(), 3, 1)


class BoxSplit:
    """images (N, H, W, 3) uint8, frames (N, 6), boxes (K, 4) in prepared pixels, labels (K,), offsets (N + 1,).

    A label below -1 is a box that is not scored: -2 - class (difficult in VOC, a crowd in COCO).
    """

    def __init__(self, arrays: Mapping[str, Array], names: Sequence[str], features: Any, augment: Augment) -> None:
        self.images, self.frames = arrays["images"], np.asarray(arrays["frames"])
        self.boxes, self.labels = np.asarray(arrays["boxes"]), np.asarray(arrays["labels"])
        self.offsets = np.asarray(arrays["offsets"])
        self.names, self.augment = names, augment
        self.at_once = max(1, PIXELS_AT_ONCE // max(1, self.images[:1].size // 3))
        self.mean = np.asarray(features["mean"], np.float32)
        self.std = np.asarray(features["std"], np.float32)

    def __len__(self) -> int:
        return len(self.frames)

    def name(self, row: int) -> str:
        """The image's name in its data set, or its path."""
        return self.names[row]

    def padded(self, rows: Array) -> tuple[Array, Array]:
        """Boxes (B, M, 4) float32 and labels (B, M) int64 of samples, M the most that one of them has (1 at least)."""
        starts, counts = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        places = np.arange(max(1, counts.max(initial=0)))
        inside = places < counts[:, None]
        at = np.where(inside, starts[:, None] + places, 0)
        if not len(self.labels):
            return np.zeros((*at.shape, 4), np.float32), np.full(at.shape, PADDING, np.int64)
        boxes = np.where(inside[..., None], self.boxes[at], 0).astype(np.float32)
        return boxes, np.where(inside, self.labels[at], PADDING).astype(np.int64)

    def batch(self, rows: Array, seeds: Array | None = None) -> Batch:
        """image (B, 3, H, W) float32 normalised, boxes (B, M, 4), labels and targets (B, M), frame (B, 6)."""
        import torch

        rows = np.asarray(rows, np.int64)
        boxes, labels = self.padded(rows)
        n, (high, wide) = len(rows), self.images.shape[1:3]
        draws = None if seeds is None else Draws(np.asarray(seeds))
        matrix, shift = np.eye(3, dtype=np.float32)[None], np.zeros((1, 3, 1), np.float32)
        if draws is not None:
            matrix, shift = colour_change(draws, self.augment, self.mean)
        mean, std = self.mean[:, None], self.std[:, None]
        factor = torch.from_numpy(matrix / (255 * std)).expand(n, -1, -1)
        pixels = torch.from_numpy(np.ascontiguousarray(self.images[rows])).permute(0, 3, 1, 2)
        pixels = pixels.to(torch.float32, memory_format=torch.contiguous_format).flatten(2)
        image = torch.bmm(factor, pixels).add_(torch.from_numpy((shift - mean) / std)).view(n, 3, high, wide)
        if draws is not None and self.augment.moves:
            zoom, moved = geometry(draws, self.augment, (high, wide))
            image = moved_pictures(image, zoom, moved)
            boxes, labels = moved_boxes(boxes, labels, zoom, moved, (high, wide))
        targets = torch.from_numpy(labels)
        # Kept as (B, H, W, 3) in memory, which torch's convolutions on a CPU are fastest with.
        tensors = {
            "image": image.contiguous(memory_format=torch.channels_last), "boxes": torch.from_numpy(boxes),
            "labels": targets, "targets": targets, "frame": torch.from_numpy(self.frames[rows]),
        }  # fmt: skip
        n_targets = np.maximum(1, (labels >= 0).sum(1))
        return Batch(tensors, int(n_targets.sum()), row_targets=n_targets)
