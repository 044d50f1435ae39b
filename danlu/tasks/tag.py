"""One class a position: secondary structure of proteins, parts of speech, names in a text. B samples, T positions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, PrivateAttr

from danlu.base.contracts import Batch, DataCard, Output, Split
from danlu.base.durable import write_text
from danlu.base.errors import UserError
from danlu.tasks.classify import names_of, scores_of
from danlu.tasks.samples import Panel, Predictions, SampleTask, Scorer

if TYPE_CHECKING:
    from torch import Tensor, nn

LINE = 60
"""Letters a line of a written file."""


class Tag(SampleTask):
    """A class for every position of a sequence."""

    kind: Literal["tag"] = "tag"
    """Tagging."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target spread evenly over the classes (Szegedy et al. 2016). In the training loss only."""
    class_weights: Literal["none", "balanced"] | dict[str, float] = "none"
    """Weight of each class in the loss. balanced: in inverse proportion to how often it occurs in training. Or by class
    name; classes that are not named weigh 1."""
    window: Annotated[int, Field(ge=1, le=101)] = 17
    """Positions that the window baseline looks at."""

    _weights: tuple[float, ...] | None = PrivateAttr(default=None)
    headline: ClassVar[str] = "accuracy"
    units: ClassVar[Mapping[str, str]] = {"log_loss": "nats"}

    def check(self, card: DataCard) -> None:
        """Needs a class a position, and weights that name them, which are kept for the loss."""
        names = names_of(card)
        if not card.features.get("per_position") or len(names) < 2:
            raise UserError(
                "task.kind", "tag needs data with a class for every position, at least two different ones",
                got=f"{card.kind} data of {len(names)} classes", fix="use data of kind protein or tagged",
            )  # fmt: skip
        if isinstance(self.class_weights, dict) and (unknown := set(self.class_weights) - set(names)):
            known = ", ".join(names[:10])
            raise UserError("task.class_weights", f"must name classes of the data ({known})", got=sorted(unknown)[0])
        if isinstance(self.class_weights, dict):
            self._weights = tuple(self.class_weights.get(name, 1.0) for name in names)
        elif self.class_weights == "balanced":
            counts = [float(n) for n in card.features["class_counts"]]
            n_seen = sum(1 for n in counts if n)
            self._weights = tuple(sum(counts) / (n_seen * n) if n else 0.0 for n in counts)

    def n_outputs(self, card: DataCard) -> int:
        """A score a class."""
        return len(names_of(card))

    def loss_sum(self, output: Output, batch: Batch) -> Tensor:
        """Sum of nats over the positions that are scored."""
        import torch

        from danlu.tasks.sample_losses import class_loss

        scores, targets = scores_of(output), batch.tensors["targets"]
        if scores.shape[:2] != targets.shape:
            raise UserError(
                "model.kind", "must give scores for every position", got=f"scores {tuple(scores.shape)}",
                fix="use convtagger, recurrent or encoder",
            )  # fmt: skip
        weights = None if self._weights is None else torch.tensor(self._weights, device=scores.device)
        smoothing = self.label_smoothing if torch.is_grad_enabled() else 0.0
        return class_loss(scores.flatten(0, 1), targets.flatten(), weights, smoothing, 0.0)

    def predict(self, model: nn.Module, batch: Batch, card: DataCard) -> Predictions:
        """(T, C) shares of each sample, padding cut off."""
        import torch

        shares = torch.softmax(scores_of(model(batch)).float(), -1).cpu().numpy()
        return [row[:n] for row, n in zip(shares, lengths_of(batch), strict=True)]

    def truths(self, batch: Batch, card: DataCard) -> Predictions:
        """(T,) classes of each sample; -1 is not scored."""
        targets = batch.tensors["targets"].cpu().numpy()
        return [row[:n] for row, n in zip(targets, lengths_of(batch), strict=True)]

    def scorer(self, predictions: Predictions, truths: Predictions, card: DataCard) -> Scorer:
        """See tasks/tag_scores.py."""
        from danlu.tasks.tag_scores import TagScorer

        return TagScorer(predictions, truths, names_of(card))

    def baselines(self, train: Split, split: Split, card: DataCard) -> dict[str, Predictions]:
        """The most frequent class, the class by token, and by a window of tokens."""
        from danlu.tasks.tag_rivals import tag_rivals

        return dict(tag_rivals(train, split, int(card.features["vocab_size"]), len(names_of(card)), self.window))

    def panels(self, predictions: Predictions, truths: Predictions, split: Split, card: DataCard) -> list[Panel]:
        """Confusion, classes, worst sequences, accuracy by length and by place."""
        from danlu.tasks.tag_panels import tag_panels

        return list(tag_panels(predictions, truths, names_of(card), split))

    def rows(self, predictions: Predictions, split: Split, card: DataCard) -> list[dict[str, Any]]:
        """{"name", "prediction": a string of letters or a list of tags, "share": mean share of what is said}."""
        names = names_of(card)
        rows = []
        for i, shares in enumerate(predictions):
            said = [names[c] for c in shares.argmax(1)]
            told = "".join(said) if is_letters(names) else said
            sure = float(shares.max(1).mean()) if len(shares) else 0.0
            rows.append({"name": split.name(i), "prediction": told, "share": round(sure, 4)})
        return rows

    def write(self, predictions: Predictions, split: Split, card: DataCard, out: Any) -> bool:
        """predictions.fasta, a letter a residue, where the classes are letters."""
        names = names_of(card)
        if not is_letters(names):
            return False
        lines = []
        for i, shares in enumerate(predictions):
            text = "".join(names[c] for c in shares.argmax(1))
            lines += [f">{split.name(i)}", *(text[at : at + LINE] for at in range(0, len(text), LINE))]
        write_text(Path(out) / "predictions.fasta", "\n".join(lines) + "\n")
        return True


def is_letters(names: list[str]) -> bool:
    """Whether every class is one letter."""
    return all(len(name) == 1 for name in names)


def lengths_of(batch: Batch) -> Any:
    """(B,) positions of each sample; all there are where the data do not say."""
    lengths = batch.tensors.get("lengths")
    n_rows, n = batch.tensors["targets"].shape
    return np.full(n_rows, n) if lengths is None else lengths.cpu().numpy()
