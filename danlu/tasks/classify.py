"""Which class, or which labels: for tables, images, sentences, sounds. Shares come with the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, PrivateAttr

from danlu.base.contracts import Batch, DataCard, Output, Split
from danlu.base.errors import UserError
from danlu.tasks.samples import Panel, Predictions, SampleTask, Scorer

if TYPE_CHECKING:
    from torch import Tensor, nn


class Classify(SampleTask):
    """Which class a sample belongs to, or which labels hold."""

    kind: Literal["classify"] = "classify"
    """Classification."""
    loss: Literal["auto", "cross_entropy", "binary", "focal"] = "auto"
    """cross_entropy: softmax over classes. binary: one sigmoid for two classes, one a label for several labels. focal:
    either, with less weight on what is easy (Lin et al. 2017). auto: binary for two classes and for labels."""
    gamma: Annotated[float, Field(ge=0, le=10)] = 2.0
    """Exponent of the focal loss."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target spread evenly over the classes (Szegedy et al. 2016). In the training loss only."""
    class_weights: Literal["none", "balanced"] | dict[str, float] = "none"
    """Weight of each class in the loss. balanced: in inverse proportion to how often it occurs, 1 on average over the
    training samples. Or by class name; classes that are not named weigh 1."""

    _weights: tuple[float, ...] | None = PrivateAttr(default=None)
    headline: ClassVar[str] = "accuracy"
    units: ClassVar[Mapping[str, str]] = {"log_loss": "nats"}

    def check(self, card: DataCard) -> None:
        """Needs classes or labels, and weights that name them, which are kept for the loss."""
        names = names_of(card)
        if len(names) < 2 and "labels" not in card.features:
            got = ", ".join(names) or f"{card.kind} data without classes"
            raise UserError("task.kind", "classify needs at least two classes", got=got, fix="see data.target")
        if isinstance(self.class_weights, dict) and (unknown := set(self.class_weights) - set(names)):
            raise UserError(
                "task.class_weights", f"must name classes of the data ({', '.join(names[:10])})", got=sorted(unknown)[0]
            )
        if self.class_weights == "balanced" and "class_counts" not in card.features:
            raise UserError("task.class_weights", "balanced needs the data's counts of classes", got=card.kind)
        if self.class_weights != "none" and "labels" not in card.features:
            self._weights = self.weights_of(names, card.features.get("class_counts"))

    def weights_of(self, names: list[str], counts: Any) -> tuple[float, ...]:
        """The weight of each class."""
        if isinstance(self.class_weights, dict):
            return tuple(self.class_weights.get(name, 1.0) for name in names)
        listed = [
            float(counts[name]) if isinstance(counts, Mapping) else float(counts[i]) for i, name in enumerate(names)
        ]
        n_seen = sum(1 for count in listed if count)
        return tuple(sum(listed) / (n_seen * count) if count else 0.0 for count in listed)

    def is_sigmoid(self, card: DataCard) -> bool:
        """Whether scores go through a sigmoid each."""
        if "labels" in card.features:
            return True
        return len(names_of(card)) == 2 and self.loss in ("auto", "binary")

    def n_outputs(self, card: DataCard) -> int:
        """A score a class or label; one alone for two classes under a sigmoid."""
        names = names_of(card)
        return 1 if self.is_sigmoid(card) and "labels" not in card.features else len(names)

    def loss_sum(self, output: Output, batch: Batch) -> Tensor:
        """Sum of nats over samples (over labels, where there are several)."""
        import torch

        from danlu.tasks.sample_losses import binary_loss, class_loss, soft_loss

        scores, targets = scores_of(output), batch.tensors["targets"]
        gamma = self.gamma if self.loss == "focal" else 0.0
        weights = None if self._weights is None else torch.tensor(self._weights, device=scores.device)
        soft = batch.tensors.get("soft_targets")
        if targets.dim() == 1 and scores.shape[-1] > 1:
            if soft is not None:
                return soft_loss(scores, soft, weights, self.label_smoothing, gamma)
            return class_loss(scores, targets, weights, self.label_smoothing, gamma)
        if targets.dim() == 1:
            targets = (targets if soft is None else soft[:, 1])[:, None]
            weights = None if weights is None else weights[None]
        return binary_loss(scores, targets, weights, self.label_smoothing, gamma)

    def predict(self, model: nn.Module, batch: Batch, card: DataCard) -> Predictions:
        """(C,) shares of each sample."""
        import torch

        scores = scores_of(model(batch)).float()
        if not self.is_sigmoid(card):
            return list(torch.softmax(scores, -1).cpu().numpy())
        shares = torch.sigmoid(scores).cpu().numpy()
        return list(shares if "labels" in card.features else np.concatenate([1 - shares, shares], 1))

    def truths(self, batch: Batch, card: DataCard) -> Predictions:
        """The class number, or (L,) labels."""
        return list(batch.tensors["targets"].cpu().numpy())

    def scorer(self, predictions: Predictions, truths: Predictions, card: DataCard) -> Scorer:
        """See tasks/metrics_classes.py."""
        from danlu.tasks.metrics_classes import ClassScorer, LabelScorer

        shares, found = np.array(predictions, float), np.array(truths)
        return LabelScorer(shares, found) if "labels" in card.features else ClassScorer(shares, found)

    def baselines(self, train: Split, split: Split, card: DataCard) -> dict[str, Predictions]:
        """The most frequent class, and what counting or a linear model makes of features that allow it."""
        from danlu.tasks.class_rivals import class_rivals, label_rivals

        n = len(names_of(card))
        rivals = label_rivals if "labels" in card.features else class_rivals
        return dict(rivals(train, split, card.features, n))

    def panels(self, predictions: Predictions, truths: Predictions, split: Split, card: DataCard) -> list[Panel]:
        """Confusion matrix, classes, calibration, worst errors."""
        from danlu.tasks.class_panels import class_panels, label_panels

        shares, found = np.array(predictions, float), np.array(truths)
        if "labels" in card.features:
            return list(label_panels(shares, found, names_of(card)))
        return list(class_panels(shares, found, names_of(card), split))

    def rows(self, predictions: Predictions, split: Split, card: DataCard) -> list[dict[str, Any]]:
        """{"name", "prediction", "share", "shares": {class: share}}."""
        names = names_of(card)
        rows = []
        for i, shares in enumerate(predictions):
            row: dict[str, Any] = {"name": split.name(i)}
            if "labels" in card.features:
                row["prediction"] = [name for name, share in zip(names, shares, strict=True) if share > 0.5]
            else:
                best = int(np.argmax(shares))
                row |= {"prediction": names[best], "share": round(float(shares[best]), 6)}
            rows.append(row | {"shares": {n: round(float(s), 6) for n, s in zip(names, shares, strict=True)}})
        return rows


def names_of(card: DataCard) -> list[str]:
    """Classes or labels of the data."""
    return [str(name) for name in card.features.get("labels", card.features.get("classes", []))]


def scores_of(output: Output) -> Tensor:
    """The scores; a task on samples needs them whole."""
    if output.scores is None:
        raise UserError("model.kind", "must give scores for this task", fix="choose a model that suits the data")
    return output.scores
