"""Detection: where things are, and what. A prediction is (n, 6) float64: x1, y1, x2, y2 in the picture's own pixels,
score, class; a truth is (m, 5): the box and its class, or -2 - class for a box that is not scored.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from danlu.base.contracts import Batch, DataCard, Output, Split
from danlu.base.durable import write_bytes, write_json
from danlu.base.errors import UserError
from danlu.tasks.detect_scores import BoxScorer
from danlu.tasks.samples import Panel, Predictions, SampleTask

if TYPE_CHECKING:
    from torch import Tensor, nn

Array = NDArray[Any]


class Detect(SampleTask):
    """Find boxes: a class map by focal loss, four distances by GIoU loss; scored by mean average precision."""

    kind: Literal["detect"] = "detect"
    """Find boxes."""
    box_weight: Annotated[float, Field(gt=0)] = 2.0
    """Weight of the loss of boxes beside that of classes."""
    overlap: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Of two found boxes of a class that overlap by more (IoU), the one with the lower score goes."""
    max_boxes: Annotated[int, Field(ge=1, le=1000)] = 100
    """Most boxes found in a picture."""
    min_score: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Boxes below this score are not counted at all."""
    shown: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Boxes from this score on are drawn and listed; precision and recall are theirs."""

    headline: ClassVar[str] = "map_50"
    higher_is_better: ClassVar[bool] = True

    def check(self, card: DataCard) -> None:
        """Data must be pictures with boxes."""
        if card.kind != "boxes" or not card.features.get("classes"):
            raise UserError(
                "task.kind", "needs pictures with boxes", got=f"data of kind {card.kind}", fix='set data.kind = "boxes"'
            )

    def n_outputs(self, card: DataCard) -> int:
        """Each place: a score for every class and four distances."""
        return len(card.features["classes"]) + 4

    def loss_sum(self, output: Output, batch: Batch) -> Tensor:
        """Summed over boxes; a picture without any counts as one target."""
        from danlu.tasks.detect_loss import detection_loss

        high, wide = batch.tensors["image"].shape[2:]
        boxes, labels = batch.tensors["boxes"], batch.tensors["labels"]
        return detection_loss(given_scores(output).float(), boxes, labels, (high, wide), self.box_weight)

    def predict(self, model: nn.Module, batch: Batch, card: DataCard) -> Predictions:
        """Found boxes of every picture, best first: peaks of the class maps, thinned out, in own pixels."""
        import torch

        from danlu.tasks.detect_loss import found_boxes

        scores, (high, wide) = given_scores(model(batch)).float(), batch.tensors["image"].shape[2:]
        boxes, best, classes = found_boxes(scores, (high, wide), self.min_score, self.overlap, self.max_boxes)
        made = torch.cat([boxes, best[..., None], classes[..., None].to(best.dtype)], 2).double().cpu().numpy()
        frames = batch.tensors["frame"].double().cpu().numpy()
        return [
            own_pixels(m[m[:, 4] > 0][: self.max_boxes], frame, cut=True) for m, frame in zip(made, frames, strict=True)
        ]

    def truths(self, batch: Batch, card: DataCard) -> Predictions:
        """True boxes in own pixels."""
        boxes, labels = (batch.tensors[name].cpu().numpy() for name in ("boxes", "labels"))
        frames = batch.tensors["frame"].double().cpu().numpy()
        made = [
            np.concatenate([b, v[:, None]], 1)[v != -1].astype(np.float64) for b, v in zip(boxes, labels, strict=True)
        ]
        return [own_pixels(m, frame) for m, frame in zip(made, frames, strict=True)]

    def scorer(self, predictions: Predictions, truths: Predictions, card: DataCard) -> BoxScorer:
        """Compare once."""
        return BoxScorer(predictions, truths, card.features["classes"], self.shown)

    def baselines(self, train: Split, split: Split, card: DataCard) -> dict[str, Predictions]:
        """The boxes that training pictures have most: on a grid, and where they stand most often."""
        from danlu.tasks.detect_rivals import usual_boxes

        return dict(usual_boxes(train, split, len(card.features["classes"]), self.max_boxes))

    def panels(self, predictions: Predictions, truths: Predictions, split: Split, card: DataCard) -> list[Panel]:
        """AP by class, and pictures with found and true boxes: the worst, and some from all over the split."""
        from danlu.tasks.detect_drawing import result_panels

        return result_panels(self, predictions, truths, split, card)

    def rows(self, predictions: Predictions, split: Split, card: DataCard) -> list[dict[str, Any]]:
        """The boxes of each picture from `shown` on."""
        return [
            {"name": split.name(i), "prediction": boxes_as_rows(p[p[:, 4] >= self.shown], card)}
            for i, p in enumerate(predictions)
        ]

    def write(self, predictions: Predictions, split: Split, card: DataCard, out: Any) -> bool:
        """<name>.png with the boxes drawn on, and boxes.json."""
        from danlu.tasks.detect_drawing import drawn

        rows = self.rows(predictions, split, card)
        for i, (row, found) in enumerate(zip(rows, predictions, strict=True)):
            row["picture"] = f"{i:05d}-{Path(row['name']).stem}.png"
            data = drawn(split, i, found[found[:, 4] >= self.shown], None, card, whole=True)
            write_bytes(Path(out) / row["picture"], data)
        write_json(Path(out) / "boxes.json", rows)
        return True


def given_scores(output: Output) -> Tensor:
    """The scores of a model that gives them."""
    if output.scores is None or output.scores.ndim != 3:
        raise UserError("model.kind", "must give scores for places of a picture", fix='set model.kind = "detector"')
    return output.scores


def own_pixels(boxes: Array, frame: Array, cut: bool = False) -> Array:
    """Boxes (n, 4 or more) of the prepared picture in its own pixels."""
    made = boxes.copy()
    made[:, :4] = (made[:, :4] - np.tile(frame[2:4], 2)) / np.tile(frame[:2], 2)
    if cut:
        made[:, :4] = made[:, :4].clip(0, np.tile(frame[4:6], 2))
    return made


def boxes_as_rows(found: Array, card: DataCard) -> list[dict[str, Any]]:
    """Boxes as JSON."""
    names = card.features["classes"]
    return [
        {"class": names[int(b[5])], "score": round(float(b[4]), 4), "box": [round(float(v), 1) for v in b[:4]]}
        for b in found
    ]
