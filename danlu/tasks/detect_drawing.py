"""Boxes drawn on pictures, and the panels of a detection report."""

from __future__ import annotations

import io
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
N_PICTURES = 6


def picture_of(split: Split, row: int, card: DataCard, whole: bool) -> Any:
    """PIL picture of a sample in its own pixels: the file itself where the name is a path, else what was prepared."""
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtra("task.kind = detect", "pillow", "images") from None
    tensors = split.batch(np.array([row])).tensors
    scale_x, scale_y, left, top, wide, high = (float(v) for v in tensors["frame"][0])
    if whole and Path(split.name(row)).is_file():
        with Image.open(split.name(row)) as opened:
            return opened.convert("RGB")
    x = tensors["image"][0].permute(1, 2, 0).numpy() * np.array(card.features["std"]) + np.array(card.features["mean"])
    inner = (round(left), round(top), round(left + wide * scale_x), round(top + high * scale_y))
    made = Image.fromarray((x * 255).round().clip(0, 255).astype(np.uint8)).crop(inner)
    return made.resize((round(wide), round(high))) if whole else made


def drawn(split: Split, row: int, found: Array, true: Array | None, card: DataCard, whole: bool = False) -> bytes:
    """PNG (a whole picture) or JPEG (a report's) with found boxes by class colour and true ones in thin green."""
    from PIL import ImageDraw

    image = picture_of(split, row, card, whole)
    frame = split.batch(np.array([row])).tensors["frame"][0].numpy()
    factor = np.tile(np.array(image.size) / frame[4:6], 2)
    pen = ImageDraw.Draw(image)
    for box in [] if true is None else true:
        pen.rectangle([float(v) for v in box[:4] * factor], outline=TRUE, width=1)
    for box in found[::-1]:
        colour = COLOURS[int(box[5]) % len(COLOURS)]
        x1, y1, x2, y2 = (float(v) for v in box[:4] * factor)
        pen.rectangle([x1, y1, max(x1, x2), max(y1, y2)], outline=colour, width=2)
        text = f"{card.features['classes'][int(box[5])]} {box[4]:.2f}"
        pen.text((x1 + 3, y1 + 1), text, fill=colour)
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
    scorer = BoxScorer(predictions, truths, names, task.shown)
    listed, curves = [], {}
    for name, hits in zip(names, scorer.hits, strict=True):
        ap = hits.average_precision(None)
        cells = ["none"] * 3 if np.isnan(ap[0]) else [f"{ap[0]:.3f}", f"{ap[5]:.3f}", f"{ap.mean():.3f}"]
        shown = hits.scores >= task.shown
        listed.append([name, int(hits.true_counts.sum()), int(shown.sum()), *cells])
        right, wrong = np.cumsum(hits.right[0]), np.cumsum(hits.wrong[0])
        thin: Any = np.unique(np.linspace(0, len(right) - 1, min(len(right), 200)).astype(int)) if len(right) else []
        if len(thin) and hits.true_counts.sum():
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
