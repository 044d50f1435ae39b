"""Boxes drawn on pictures, and the panels of a detection report."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from danlu.base.contracts import DataCard, Split
from danlu.base.errors import MissingExtra
from danlu.tasks import panels
from danlu.tasks.detect_scores import BoxScorer, overlaps
from danlu.tasks.samples import Panel, Predictions

if TYPE_CHECKING:
    from danlu.tasks.detect import Detect

Array = NDArray[Any]
COLOURS = ("#e6194b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#800000", "#808000", "#000075", "#f032e6")
TRUE = "#20b020"
SHORT_SIDE = 360
"""Of a report's pictures at least, so that labels find room."""
N_PICTURES, N_CURVES = 6, 10


def own_picture(path: str) -> Any:
    """PIL picture of a file, turned as its EXIF says, as it was looked at."""
    from PIL import Image, ImageOps

    with Image.open(path) as opened:
        return ImageOps.exif_transpose(opened).convert("RGB")


def prepared_picture(tensors: Mapping[str, Any], card: DataCard) -> Any:
    """PIL picture of a prepared sample, without its border."""
    from PIL import Image

    scale_x, scale_y, left, top, wide, high = (float(v) for v in tensors["frame"][0])
    x = tensors["image"][0].permute(1, 2, 0).numpy() * np.array(card.features["std"]) + np.array(card.features["mean"])
    inner = (round(left), round(top), round(left + wide * scale_x), round(top + high * scale_y))
    return Image.fromarray((x * 255).round().clip(0, 255).astype(np.uint8)).crop(inner)


def drawn(split: Split, row: int, found: Array, true: Array | None, card: DataCard, whole: bool = False) -> bytes:
    """Found boxes in the colour of their class, true ones in thin green: a JPEG of what was prepared, or, for predict, a
    PNG of the `whole` picture, from its file where it came from one."""
    try:
        from PIL import ImageDraw, ImageFont
    except ImportError:
        raise MissingExtra("task.kind = detect", "pillow", "images") from None
    tensors = split.batch(np.array([row])).tensors
    wide, high = (round(float(v)) for v in tensors["frame"][0, 4:])
    if whole and Path(split.name(row)).is_file():
        image = own_picture(split.name(row))
    else:
        image = prepared_picture(tensors, card)
        larger = max(1, -(-SHORT_SIDE // min(image.size)))
        image = image.resize((wide, high) if whole else (image.width * larger, image.height * larger))
    factor = np.tile(np.array(image.size) / (wide, high), 2)
    pen, line = ImageDraw.Draw(image), max(1, round(min(image.size) / 200))
    font = ImageFont.load_default(max(10, min(image.size) / 32))
    for box in [] if true is None else true:
        pen.rectangle([float(v) for v in box[:4] * factor], outline=TRUE, width=1)
    for box in found[::-1]:
        colour = COLOURS[int(box[5]) % len(COLOURS)]
        x1, y1, x2, y2 = (float(v) for v in box[:4] * factor)
        pen.rectangle([x1, y1, max(x1, x2), max(y1, y2)], outline=colour, width=line)
        text = f"{card.features['classes'][int(box[5])]} {box[4]:.2f}"
        pen.rectangle(pen.textbbox((x1 + line, y1 + line), text, font=font), fill=colour)
        pen.text((x1 + line, y1 + line), text, fill="white", font=font)
    buffer = io.BytesIO()
    image.save(buffer, "PNG" if whole else "JPEG", **({} if whole else {"quality": 85}))
    return buffer.getvalue()


def faults(found: Array, true: Array) -> int:
    """Shown boxes without a true one of their class (IoU 0.5), and true boxes without a shown one."""
    real = true[true[:, 4] >= 0]
    if not len(found) or not len(real):
        return len(found) + len(real)
    same = (overlaps(found, real)[0] >= 0.5) & (found[:, 5:6] == real[None, :, 4])
    return int((~same.any(1)).sum() + (~same.any(0)).sum())


def result_panels(
    task: Detect, predictions: Predictions, truths: Predictions, split: Split, card: DataCard
) -> list[Panel]:
    """AP by class, precision over recall, the worst pictures, and some from all over the split."""
    names = card.features["classes"]
    most_common = np.argsort([-sum((t[:, 4] == c).sum() for t in truths) for c in range(len(names))])[:N_CURVES]
    scorer = BoxScorer(predictions, truths, names, task.shown)
    listed, curves = [], {}
    for c, (name, hits) in enumerate(zip(names, scorer.hits, strict=True)):
        ap = hits.average_precision(None)
        cells = ["none"] * 3 if np.isnan(ap[0]) else [f"{ap[0]:.3f}", f"{ap[5]:.3f}", f"{ap.mean():.3f}"]
        shown = hits.scores >= task.shown
        listed.append([name, int(hits.true_counts.sum()), int(shown.sum()), *cells])
        right, wrong = np.cumsum(hits.right[0]), np.cumsum(hits.wrong[0])
        thin: Any = np.unique(np.linspace(0, len(right) - 1, min(len(right), 200)).astype(int)) if len(right) else []
        if c in most_common and len(thin) and hits.true_counts.sum():
            recall, precision = right / hits.true_counts.sum(), right / np.maximum(right + wrong, 1)
            curves[name] = (recall[thin].tolist(), precision[thin].tolist())
    shown_boxes = [p[p[:, 4] >= task.shown] for p in predictions]
    wrong_counts = np.array([faults(p, t) for p, t in zip(shown_boxes, truths, strict=True)])
    worst = [int(i) for i in np.argsort(-wrong_counts, kind="stable")[:N_PICTURES] if wrong_counts[i]]
    spread = sorted({int(i) for i in np.linspace(0, len(predictions) - 1, N_PICTURES)}) if len(predictions) else []

    def picture(i: int) -> tuple[bytes, str]:
        n = int((truths[i][:, 4] >= 0).sum())
        caption = f"{split.name(i)}: {len(shown_boxes[i])} found, {n} true, {wrong_counts[i]} faults"
        return drawn(split, i, shown_boxes[i], truths[i], card), caption

    how = f"Found boxes (score from {task.shown}) in the colour of their class, true boxes in thin green."
    columns = ["class", "true boxes", "shown boxes", "AP at IoU 0.5", "AP at 0.75", "AP 0.5 to 0.95"]
    made: list[Panel] = [
        panels.listing("Average precision by class", columns, listed, "Area under precision over recall, all points.")
    ]
    if curves:
        made.append(
            panels.lines("Precision over recall", curves, "recall", "precision", "At IoU 0.5, one line a class.")
        )
    made.append(panels.images("Pictures from all over the split", [picture(i) for i in spread], how))
    if worst:
        made.append(panels.images("The worst pictures", [picture(i) for i in worst], f"Most faults first. {how}"))
    return made
