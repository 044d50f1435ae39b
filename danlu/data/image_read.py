"""One image file to bytes: looked at before it is decoded, rejected by name where it cannot be."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from danlu.base.errors import UserError
from danlu.data.table_read import Intake

ENDINGS = (
    ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".csv", ".tsv", ".jsonl", ".parquet", "ubyte",
    "ubyte.gz",
)  # fmt: skip
Pixels = NDArray[np.uint8]


class Shape(NamedTuple):
    """What every image comes to."""

    channels: int
    height: int
    width: int


def pillow() -> Any:
    """The library that reads images."""
    try:
        import PIL.Image
    except ImportError:
        raise UserError(
            "data.kind", "image needs the Pillow library, which is not installed", fix="pip install 'danlu[images]'"
        ) from None
    return PIL.Image


def decoded(source: Path | bytes, max_pixels: int, intake: Intake, name: str = "") -> Pixels | None:
    """(H, W, 1 or 3) bytes of a file or of its bytes, turned as its EXIF says; None and a reason where it is no image that
    can be used."""
    library = pillow()
    name = name or (source.name if isinstance(source, Path) else "bytes")
    from PIL import ImageOps

    library.MAX_IMAGE_PIXELS = None  # the limit here is max_pixels, held before anything is decoded
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with library.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
                if opened.width * opened.height > max_pixels:
                    intake.reject(name, "more pixels than data.max_pixels", f"{opened.width} x {opened.height}")
                    return None
                image = ImageOps.exif_transpose(opened)
                if image.mode in ("I;16", "I;16B", "I", "F"):
                    deep = np.asarray(image, np.float64)
                    scale = 255 / (65535.0 if deep.max() > 255 else 255.0)
                    return (deep * scale).clip(0, 255).astype(np.uint8)[..., None]
                if (image.mode in ("RGBA", "LA", "P", "PA") and "transparency" in image.info) or image.mode in (
                    "RGBA",
                    "LA",
                    "PA",
                ):
                    image = library.alpha_composite(library.new("RGBA", image.size, "white"), image.convert("RGBA"))
                image = image.convert("L" if image.mode in ("1", "L") else "RGB")
                array = np.asarray(image, np.uint8)
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        intake.reject(name, "not an image that can be read", str(error))
        return None
    return array[..., None] if array.ndim == 2 else array


def sized(pixels: Pixels, shape: Shape) -> Pixels:
    """(H, W, c) -> (C, height, width): channels made equal, the shorter side resized, the middle cut out."""
    if pixels.shape[2] != shape.channels:
        weights = np.array([0.299, 0.587, 0.114])
        grey = (
            (pixels[..., :3] @ weights).round().astype(np.uint8)[..., None] if pixels.shape[2] >= 3 else pixels[..., :1]
        )
        pixels = grey if shape.channels == 1 else np.repeat(grey, 3, 2)
    height, width = pixels.shape[:2]
    if (height, width) != (shape.height, shape.width):
        library = pillow()
        scale = max(shape.height / height, shape.width / width)
        size = max(shape.width, round(width * scale)), max(shape.height, round(height * scale))
        image = library.fromarray(pixels[..., 0] if shape.channels == 1 else pixels).resize(
            size, library.Resampling.BILINEAR, reducing_gap=2.0
        )
        array = np.asarray(image, np.uint8)
        array = array[..., None] if array.ndim == 2 else array
        top, left = (array.shape[0] - shape.height) // 2, (array.shape[1] - shape.width) // 2
        pixels = array[top : top + shape.height, left : left + shape.width]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
