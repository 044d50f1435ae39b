"""Squares and bars on grey pictures, as Pascal VOC files: boxes, detector, detect."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SHAPES = {"square": ((14, 14), 230), "bar": ((20, 9), 20)}
HIGH, WIDE = 48, 64


def squares(folder: Path) -> dict[str, Any]:
    """24 pictures to learn from, 8 to validate and 8 to test, one of them torn."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / "voc" / name).mkdir(parents=True, exist_ok=True)
    for split, names in {"train": range(24), "val": range(24, 32), "test": range(32, 40)}.items():
        for i in names:
            pixels, objects = np.full((HIGH, WIDE, 3), 128, np.uint8), ""
            for (name, ((w, h), colour)), side in zip(SHAPES.items(), rng.permutation(2), strict=True):
                x, y = int(side * WIDE // 2 + rng.integers(0, WIDE // 2 - w)), int(rng.integers(0, HIGH - h))
                pixels[y : y + h, x : x + w] = colour
                box = f"<xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax>"
                objects += f"<object><name>{name}</name><bndbox>{box}</bndbox></object>"
            Image.fromarray(pixels).save(folder / f"voc/JPEGImages/{i}.png")
            (folder / f"voc/Annotations/{i}.xml").write_text(f"<annotation>{objects}</annotation>")
        (folder / f"voc/ImageSets/Main/{split}.txt").write_text("\n".join(map(str, names)))
    (folder / "voc/JPEGImages/3.png").write_bytes(b"torn")
    return {
        "data": {"kind": "boxes", "path": str(folder / "voc"), "size": [HIGH, WIDE]},
        "model": {"kind": "detector", "width": 8, "n_stages": 2, "n_layers": 1, "neck_width": 16},
        "task": {"kind": "detect"},
        "train": {"batch": 6},
    }


CASES: dict[str, Callable[[Path], dict[str, Any]]] = {"detector": squares}
EXACT = {"boxes"}
