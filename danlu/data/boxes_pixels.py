"""Pictures for detection: decoded once, fitted into one size, with the way back to their own pixels.

A frame (6,) float32 is that way: (scale x, scale y, offset x, offset y, width, height); prepared = own * scale + offset.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from danlu.base.errors import MissingExtra
from danlu.data.boxes_files import Box, Left

Pixels = NDArray[np.uint8]
Frame = NDArray[np.float32]
Size = tuple[int, int]
Fate = tuple[tuple[float, ...] | None, str]
"""(corners in own pixels, "kept" or "clipped"), or (None, the reason why a box is left out)."""
GREY = 128
"""What the border of a letterbox is filled with."""


def pillow() -> Any:
    """PIL.Image."""
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtra("data.kind = boxes", "pillow", "images") from None
    return Image


def frame_of(own: Size, size: Size, fit: str) -> Frame:
    """(6,) from (width, height) into (height, width)."""
    (w, h), (high, wide) = own, size
    if fit == "stretch":
        return np.array([wide / w, high / h, 0, 0, w, h], np.float32)
    scale = min(wide / w, high / h)
    inner = max(1, round(w * scale)), max(1, round(h * scale))
    left, top = (wide - inner[0]) // 2, (high - inner[1]) // 2
    return np.array([inner[0] / w, inner[1] / h, left, top, w, h], np.float32)


def decoded(data: bytes, size: Size, fit: str, max_pixels: int, declared: Size | None) -> tuple[Pixels, Frame]:
    """((H, W, 3) uint8, frame (6,)) of a picture file's bytes; `Left` where it cannot be used.

    It is turned as its EXIF says, unless the annotation declares the size that it has unturned.
    """
    Image = pillow()
    from PIL import ImageOps

    try:
        with Image.open(io.BytesIO(data)) as opened:
            if opened.width * opened.height > max_pixels:
                told = f"has {opened.width} x {opened.height} pixels, more than data.max_pixels = {max_pixels}"
                raise Left("too_many_pixels", told)
            image = opened if declared == opened.size else ImageOps.exif_transpose(opened)
            w, h = image.size
            if declared not in (None, (w, h)):
                raise Left("other_size", f"is {w} x {h}, and its annotation says {declared[0]} x {declared[1]}")
            frame = frame_of((w, h), size, fit)
            inner = round(w * float(frame[0])), round(h * float(frame[1]))
            pixels = np.asarray(eight_bits(image).resize(inner, Image.Resampling.BILINEAR, reducing_gap=3.0))
    except Image.DecompressionBombError as error:
        raise Left("too_many_pixels", str(error)) from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise Left("unreadable_picture", f"cannot be decoded ({error})") from None
    canvas = np.full((*size, 3), GREY, np.uint8)
    left, top = int(frame[2]), int(frame[3])
    canvas[top : top + inner[1], left : left + inner[0]] = pixels
    return canvas, frame


def eight_bits(image: Any) -> Any:
    """As RGB of 8 bits; 16 bits of grey keep their upper 8."""
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64).clip(0, 65535) >> 8
        return pillow().fromarray(grey.astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def fates_of(boxes: Iterable[Box], frame: Frame) -> list[Fate]:
    """What becomes of every box: cut at the picture's border, or left out."""
    w, h = float(frame[4]), float(frame[5])
    made: list[Fate] = []
    for box in boxes:
        x1, y1, x2, y2 = box.corners
        if not np.isfinite(box.corners).all():
            made.append((None, "not_a_number"))
        elif x2 <= x1 or y2 <= y1:
            made.append((None, "zero_area"))
        elif x1 >= w or y1 >= h or x2 <= 0 or y2 <= 0:
            made.append((None, "outside_picture"))
        else:
            cut = (max(0.0, x1), max(0.0, y1), min(w, x2), min(h, y2))
            made.append((cut, "kept" if cut == box.corners else "clipped"))
    return made
