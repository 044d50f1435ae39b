"""How much: one number or several for each sample, or quantiles of them. Scores are in the targets' own units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from danlu.base.contracts import Batch, DataCard, Output, Split
from danlu.base.errors import UserError
from danlu.tasks.classify import scores_of
from danlu.tasks.panels import listing, points
from danlu.tasks.regress_sequences import Ranked, design, spearman
from danlu.tasks.samples import Panel, Predictions, SampleTask

if TYPE_CHECKING:
    from torch import Tensor, nn

Floats = NDArray[np.float64]
N_POINTS, N_WORST = 2000, 20
SHAPES = "A shape here is something the model has missed."


class Regress(SampleTask):
    """How much: numbers for each sample."""

    kind: Literal["regress"] = "regress"
    """Regression."""
    loss: Literal["mse", "mae", "huber", "quantile"] = "mse"
    """Squared error, absolute error, Huber's (1964) between the two, or the quantiles' (Koenker and Bassett 1978)."""
    delta: Annotated[float, Field(gt=0)] = 1.0
    """Where Huber's loss turns from squares to magnitudes, in units of the transformed target."""
    quantiles: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.1, 0.5, 0.9)
    """For loss = "quantile"; the middle one is the answer."""
    strong_baseline: bool = True
    """Also fit gradient boosting (scikit-learn's, at its defaults) on tables, where scikit-learn is installed."""

    headline: ClassVar[str] = "r2"

    def check(self, card: DataCard) -> None:
        """Needs number targets."""
        if "targets" not in card.features:
            raise UserError(
                "task.kind",
                "regress needs number targets",
                got=f"{card.kind} data without them",
                fix='set data.target_kind = "number"',
            )
        if list(self.quantiles) != sorted(set(self.quantiles)) or not self.quantiles:
            raise UserError("task.quantiles", "must ascend", got=str(list(self.quantiles)))

    @property
    def levels(self) -> tuple[float, ...]:
        """Quantiles asked for; none for the other losses."""
        return self.quantiles if self.loss == "quantile" else ()

    def n_outputs(self, card: DataCard) -> int:
        """A score for each target, or for each of its quantiles."""
        return len(card.features["targets"]) * max(1, len(self.levels))

    def loss_sum(self, output: Output, batch: Batch) -> Tensor:
        """Sum over samples and targets."""
        from danlu.tasks.sample_losses import number_loss, pinball_loss

        scores, targets = scores_of(output).float(), batch.tensors["targets"]
        if self.loss == "quantile":
            return pinball_loss(scores, targets, self.levels)
        return number_loss(scores, targets, self.loss, self.delta)

    def predict(self, model: nn.Module, batch: Batch, card: DataCard) -> Predictions:
        """(K,) or (K, Q) numbers in the targets' units."""
        scores = scores_of(model(batch)).double().cpu().numpy()
        if self.levels:
            scores = np.sort(scores.reshape(len(scores), -1, len(self.levels)), -1)
        return list(undone(scores, card.features["target_transform"]))

    def truths(self, batch: Batch, card: DataCard) -> Predictions:
        """(K,) in the targets' units."""
        return list(undone(batch.tensors["targets"].double().cpu().numpy(), card.features["target_transform"]))

    def scorer(self, predictions: Predictions, truths: Predictions, card: DataCard) -> NumberScorer:
        """On the answers; quantiles also by how often the truth lies between the outermost."""
        found = np.array(predictions)
        return NumberScorer(found if found.ndim == 3 else found[..., None], np.array(truths))

    def baselines(self, train: Split, split: Split, card: DataCard) -> dict[str, Predictions]:
        """The training mean; on tables and sequences a linear model; on tables gradient boosting, if it is to be had."""
        from danlu.tasks.class_rivals import columns_of, parts

        transform = card.features["target_transform"]
        ours, asked = list(parts(train)), list(parts(split))
        y = np.concatenate([p["targets"] for p in ours]).astype(float)
        n = sum(len(p["targets"]) for p in asked)
        found: dict[str, Predictions] = {"mean": list(np.tile(undone(y, transform).mean(0), (n, 1)))}
        if "vocab_size" in card.features and ours and {"tokens", "lengths"} <= ours[0].keys():
            columns_made = design(ours, asked, int(card.features["vocab_size"]))
            if columns_made is not None:
                found["linear"] = list(undone(ridge(columns_made[0], y, columns_made[1]), transform))
        if "n_numbers" not in card.features:
            return found
        columns = columns_of(card.features)
        x, x_asked = (np.concatenate([columns(p) for p in some]) for some in (ours, asked))
        found["linear"] = list(undone(ridge(x, y, x_asked), transform))
        if self.strong_baseline:
            raw, raw_asked = (
                np.concatenate([np.hstack([p["numbers"], p["categories"]]) for p in some]) for some in (ours, asked)
            )
            found |= boosted(raw, undone(y, transform), raw_asked)
        return found

    def panels(self, predictions: Predictions, truths: Predictions, split: Split, card: DataCard) -> list[Panel]:
        """Answer over truth, residuals, worst errors, of the first target."""
        scorer = self.scorer(predictions, truths, card)
        answer, truth = scorer.answers[:, 0], scorer.truths[:, 0]
        name = str(card.features["targets"][0])
        some = np.linspace(0, len(truth) - 1, min(len(truth), N_POINTS)).astype(int)
        worst = np.argsort(-np.abs(answer - truth))[:N_WORST]
        rows = [
            [split.name(int(i)), f"{truth[i]:.5g}", f"{answer[i]:.5g}", f"{answer[i] - truth[i]:+.4g}"] for i in worst
        ]
        return [
            points(f"{name}: answer over truth", truth[some].tolist(), answer[some].tolist(), "truth", "answer"),
            points("Residuals", answer[some].tolist(), (answer - truth)[some].tolist(), "answer", "answer - truth", SHAPES),
            listing("Worst errors", ["sample", "truth", "answer", "off by"], rows),
        ]  # fmt: skip

    def rows(self, predictions: Predictions, split: Split, card: DataCard) -> list[dict[str, Any]]:
        """{"name", "prediction": number or {target: number}, "quantiles": ...}."""
        names, rows = [str(n) for n in card.features["targets"]], []
        for i, found in enumerate(np.array(predictions)):
            answers = found[:, len(self.levels) // 2] if self.levels else found
            told: Any = float(answers[0]) if len(names) == 1 else dict(zip(names, map(float, answers), strict=True))
            row: dict[str, Any] = {"name": split.name(i), "prediction": told}
            if self.levels:
                row["quantiles"] = {
                    n: dict(zip(map(str, self.levels), map(float, q), strict=True))
                    for n, q in zip(names, found, strict=True)
                }
            rows.append(row)
        return rows


def undone(values: Floats, transform: Mapping[str, Any]) -> Floats:
    """Transformed targets (N, K) or (N, K, Q) back in their own units: y * std + mean, then e^y - 1 after log1p."""
    mean, std = (np.array(transform[name], float) for name in ("mean", "std"))
    if values.ndim == 3:
        mean, std = mean[:, None], std[:, None]
    found = values * std + mean
    return np.asarray(np.expm1(np.minimum(found, 700.0)) if transform["kind"] == "log1p" else found)


def ridge(x: Floats, y: Floats, asked: Floats, penalty: float = 1.0) -> Floats:
    """Linear least squares with an intercept and a small penalty: (n, F), (n, K), (m, F) -> (m, K)."""
    centre, middle = x.mean(0), y.mean(0)
    x = x - centre
    weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ (y - middle))
    return np.asarray((asked - centre) @ weights + middle)


def boosted(x: Floats, y: Floats, asked: Floats) -> dict[str, Predictions]:
    """scikit-learn's histogram gradient boosting at its defaults, one model a target; nothing without the library."""
    try:
        from sklearn.ensemble import HistGradientBoostingRegressor
    except ImportError:
        return {}
    found = [HistGradientBoostingRegressor(random_state=0).fit(x, y[:, k]).predict(asked) for k in range(y.shape[1])]
    return {"gradient boosting": list(np.stack(found, 1))}


class NumberScorer:
    """predictions (U, K, Q), truths (U, K); the answer is the middle of the Q."""

    def __init__(self, predictions: Floats, truths: Floats) -> None:
        self.answers, self.truths = predictions[..., predictions.shape[-1] // 2], truths
        self.n_units = len(truths)
        self.inside = None
        if predictions.shape[-1] > 1:
            self.inside = ((truths >= predictions[..., 0]) & (truths <= predictions[..., -1])).mean(1)
        self.squares, self.sizes = (self.answers - truths) ** 2, np.abs(self.answers - truths)
        self.ranked = [(Ranked.of(self.answers[:, k]), Ranked.of(truths[:, k])) for k in range(truths.shape[1])]

    def values(self, rows: NDArray[np.int64] | None = None) -> dict[str, float]:
        """r2 (NaN where no target varies), rmse, mae, spearman: means over targets; the share of truths inside the outermost
        quantiles."""
        w = np.ones(self.n_units) if rows is None else np.bincount(rows, minlength=self.n_units).astype(float)
        total = w.sum()
        mean = w @ self.truths / total
        spread = w @ (self.truths - mean) ** 2
        off = w @ self.squares
        some = self.truths[w > 0]
        varied = (some.max(0) > some.min(0)) & (spread > 0)  # of equal numbers, rounding leaves a spread above 0
        found = {
            "r2": float((1 - off[varied] / spread[varied]).mean()) if varied.any() else float("nan"),
            "rmse": float(np.sqrt(off / total).mean()),
            "mae": float((w @ self.sizes / total).mean()),
            "spearman": float(np.mean([spearman(x, y, w) for x, y in self.ranked])),
        }
        return found if self.inside is None else found | {"inside": float(w @ self.inside / total)}
