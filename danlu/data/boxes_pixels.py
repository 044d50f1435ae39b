"""Pictures for detection: decoded once, fitted into one size, with the way back to their own pixels.

A frame (6,) float32 is that way: (scale x, scale y, offset x, offset y, width, height); prepared = own * scale + offset.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from danlu.base.errors import MissingExtra

GREY = 128
"""What the border of a letterbox is filled with."""


class Left(Exception):  # noqa: N818 - reads as what it is
    """A row left out: reason (one word) and the sentence."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def pillow() -> Any:
    """PIL.Image."""
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtra("data.kind = boxes", "pillow", "images") from None
    return Image


def frame_of(own: tuple[int, int], size: tuple[int, int], fit: str) -> NDArray[np.float32]:
    """(6,) from (width, height) into (height, width)."""
    (w, h), (high, wide) = own, size
    if fit == "stretch":
        return np.array([wide / w, high / h, 0, 0, w, h], np.float32)
    scale = min(wide / w, high / h)
    inner = max(1, round(w * scale)), max(1, round(h * scale))
    left, top = (wide - inner[0]) // 2, (high - inner[1]) // 2
    return np.array([inner[0] / w, inner[1] / h, left, top, w, h], np.float32)


def decoded(
    path: Path, size: tuple[int, int], fit: str, max_pixels: int, declared: tuple[int, int] | None
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """((H, W, 3) uint8, frame (6,)). `Left`, with the reason, for a picture that cannot be used."""
    Image = pillow()
    try:
        with Image.open(path) as image:
            w, h = image.size
            if w * h > max_pixels:
                raise Left("too_large_image", f"has {w} x {h} pixels, more than data.max_pixels = {max_pixels}")
            if declared and declared != (w, h):
                told = f"is {w} x {h}, and its annotation says {declared[0]} x {declared[1]}"
                raise Left("other_size", told)
            frame = frame_of((w, h), size, fit)
            inner = (size[1], size[0]) if fit == "stretch" else (round(w * frame[0]), round(h * frame[1]))
            if image.mode.startswith("I"):  # 16 bits of grey
                grey = (np.asarray(image).astype(np.int64).clip(0, 65535) >> 8).astype(np.uint8)
                small = Image.fromarray(grey).convert("RGB").resize(inner, Image.Resampling.BILINEAR)
            else:
                image.draft("RGB", (inner[0] * 2, inner[1] * 2))
                small = image.convert("RGB").resize(inner, Image.Resampling.BILINEAR)
            pixels = np.asarray(small, np.uint8)
    except Left:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise Left("unreadable_image", f"{path.name} cannot be decoded ({error})") from None
    canvas = np.full((*size, 3), GREY, np.uint8)
    left, top = int(frame[2]), int(frame[3])
    canvas[top : top + inner[1], left : left + inner[0]] = pixels
    return canvas, frame


def corners_of(boxes: Sequence[Any], frame: NDArray[np.float32]) -> list[tuple[Any, str]]:
    """(corners in own pixels, what became of it) of every box: "kept", "clipped", or the reason it was dropped."""
    w, h = float(frame[4]), float(frame[5])
    made: list[tuple[Any, str]] = []
    for box in boxes:
        x1, y1, x2, y2 = box.corners
        if not np.isfinite(box.corners).all():
            made.append((None, "not_a_number"))
        elif x2 <= x1 or y2 <= y1:
            made.append((None, "zero_area"))
        elif x1 >= w or y1 >= h or x2 <= 0 or y2 <= 0:
            made.append((None, "outside_image"))
        else:
            cut = (max(0.0, x1), max(0.0, y1), min(w, x2), min(h, y2))
            made.append((cut, "kept" if cut == (x1, y1, x2, y2) else "clipped"))
    return made
