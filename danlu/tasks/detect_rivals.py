"""What a detector must beat: boxes placed without looking at the picture, fitted on the training split alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from danlu.base.contracts import Split

Array = NDArray[Any]
AT_ONCE = 64
CELLS = 16


def all_boxes(split: Split) -> tuple[Array, Array, Array, tuple[int, int]]:
    """(boxes (K, 4), labels (K,), frames (N, 6), (height, width)) of a split, in prepared pixels."""
    boxes, labels, frames, size = [np.zeros((0, 4))], [np.zeros(0, np.int64)], [np.zeros((0, 6))], (1, 1)
    for first in range(0, len(split), AT_ONCE):
        t = split.batch(np.arange(first, min(len(split), first + AT_ONCE))).tensors
        own = t["labels"].numpy()
        boxes.append(t["boxes"].numpy()[own >= 0])
        labels.append(own[own >= 0])
        frames.append(t["frame"].double().numpy())
        size = (t["image"].shape[2], t["image"].shape[3])
    return np.concatenate(boxes), np.concatenate(labels), np.concatenate(frames), size


def usual_boxes(train: Split, split: Split, n_classes: int, most: int) -> dict[str, list[Array]]:
    """{"grid of usual boxes": as many boxes as a class has on average, of its mean size, evenly placed;
    "most common places": the same size at the places where the class stands most often}."""
    boxes, labels, seen, (high, wide) = all_boxes(train)
    frames = all_boxes(split)[2]
    grid, places = [], []
    for c in range(n_classes):
        own = boxes[labels == c]
        if not len(own):
            continue
        side = (own[:, 2:] - own[:, :2]).mean(0)
        n = int(np.clip(round(len(own) / max(1, len(seen))), 1, most))
        columns = max(1, round(np.sqrt(n * wide / high)))
        rows = -(-n // columns)
        x, y = (np.arange(columns) + 0.5) / columns * wide, (np.arange(rows) + 0.5) / rows * high
        even = np.stack([np.tile(x, rows), np.repeat(y, columns)], 1)[:n]
        grid.append(placed(even, side, np.full(n, 0.5), c))
        centre = (own[:, :2] + own[:, 2:]) / 2 / np.array([wide, high])
        counts, _, _ = np.histogram2d(centre[:, 0], centre[:, 1], bins=CELLS, range=[[0, 1], [0, 1]])
        best = np.argsort(-counts.ravel(), kind="stable")[: max(n, min(most // n_classes + 1, CELLS**2))]
        at = (np.stack(np.unravel_index(best, counts.shape), 1) + 0.5) / CELLS * np.array([wide, high])
        places.append(placed(at, side, counts.ravel()[best] / max(1, len(seen)), c))
    return {
        name: [unframed(made, frame) for frame in frames]
        for name, made in (("grid of usual boxes", grid), ("most common places", places))
    }


def placed(centre: Array, side: Array, scores: Array, c: int) -> Array:
    """(n, 6) boxes of one size and class."""
    return np.concatenate([centre - side / 2, centre + side / 2, scores[:, None], np.full((len(centre), 1), c)], 1)


def unframed(parts: list[Array], frame: Array) -> Array:
    """Boxes in a picture's own pixels."""
    made = np.concatenate([np.zeros((0, 6)), *parts])
    made[:, :4] = (made[:, :4] - np.tile(frame[2:4], 2)) / np.tile(frame[:2], 2)
    made[:, :4] = made[:, :4].clip(0, np.tile(frame[4:6], 2))
    return made
