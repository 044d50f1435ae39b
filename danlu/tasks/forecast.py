"""What comes next in a series: the next H values of K variables. Errors are in units of the training rows' deviation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from danlu.base.contracts import Batch, DataCard, Output, Split
from danlu.base.errors import UserError
from danlu.tasks.classify import scores_of
from danlu.tasks.panels import lines, listing
from danlu.tasks.regress import undone
from danlu.tasks.samples import Panel, Predictions, SampleTask

if TYPE_CHECKING:
    from torch import Tensor, nn

Floats = NDArray[np.float64]
PIECE = 512
MAX_LINEAR = 4000
"""Numbers of a history that a linear rival still looks at, and windows it is fitted on, by tens."""


class Forecast(SampleTask):
    """The next values of a series."""

    kind: Literal["forecast"] = "forecast"
    """Forecasting."""
    loss: Literal["mse", "mae", "huber"] = "mse"
    """Squared error, absolute error, or Huber's between the two."""
    delta: float = Field(default=1.0, gt=0)
    """Where Huber's loss turns, in deviations."""
    period: int = Field(default=0, ge=0)
    """Rows of a season (24 for a day of hours): the seasonal baseline repeats the last one. 0: no such baseline."""

    headline: ClassVar[str] = "mse"
    higher_is_better: ClassVar[bool] = False
    units: ClassVar[Mapping[str, str]] = {"mse": "squared deviations", "mae": "deviations"}

    def check(self, card: DataCard) -> None:
        """Needs a series."""
        if "horizon" not in card.features:
            raise UserError(
                "task.kind", "forecast needs a series", got=f"{card.kind} data", fix='set data.kind = "series"'
            )

    def n_outputs(self, card: DataCard) -> int:
        """K targets; the model gives them for each of the horizon's steps."""
        return len(card.features["targets"])

    def loss_sum(self, output: Output, batch: Batch) -> Tensor:
        """Sum over known targets."""
        from danlu.tasks.sample_losses import number_loss

        scores, targets, known = scores_of(output).float(), batch.tensors["targets"], batch.tensors["known"]
        return number_loss(scores * known, targets * known, self.loss, self.delta)

    def predict(self, model: nn.Module, batch: Batch, card: DataCard) -> Predictions:
        """(H, K) in deviations."""
        return list(scores_of(model(batch)).float().cpu().numpy())

    def truths(self, batch: Batch, card: DataCard) -> Predictions:
        """(H, K) in deviations, NaN where unknown."""
        known = batch.tensors["known"].cpu().numpy()
        return list(np.where(known, batch.tensors["targets"].cpu().numpy(), np.nan))

    def scorer(self, predictions: Predictions, truths: Predictions, card: DataCard) -> ForecastScorer:
        """Sums by window."""
        return ForecastScorer(predictions, truths, card.features["target_transform"]["std"], card.features["targets"])

    def baselines(self, train: Split, split: Split, card: DataCard) -> dict[str, Predictions]:
        """The last value, the last season, and a linear map from each target's own history."""
        at, horizon, history = (card.features[n] for n in ("target_columns_in_history", "horizon", "history"))
        weights = linear(train, at)
        found: dict[str, Predictions] = {"repeat last": [], "linear": []}
        if self.period and self.period <= history:
            found["repeat season"] = []
        for past, _ in pieces(split, at):
            found["repeat last"] += list(np.repeat(past[:, -1:], horizon, 1))  # type: ignore[operator]
            anchored = past - past[:, -1:]
            found["linear"] += list(np.einsum("blk,lh->bhk", anchored, weights) + past[:, -1:])  # type: ignore[operator]
            if "repeat season" in found:
                season = past[:, -self.period :]
                found["repeat season"] += list(season[:, np.arange(horizon) % self.period])  # type: ignore[operator]
        return found

    def panels(self, predictions: Predictions, truths: Predictions, split: Split, card: DataCard) -> list[Panel]:
        """Forecasts over their history; error by how far ahead."""
        at, names = card.features["target_columns_in_history"], card.features["targets"]
        history, horizon = card.features["history"], card.features["horizon"]
        transform = card.features["target_transform"]
        found: list[Panel] = []
        ahead = np.arange(1, horizon + 1)
        for row in np.linspace(0, len(split) - 1, 3).astype(int):
            past = split.batch(np.array([row])).tensors["history"].numpy()[0][:, at]
            shown = [
                undone(np.asarray(v, float)[None], whole(transform))[0][:, 0]
                for v in (past, truths[row], predictions[row])
            ]
            drawn: dict[str, Any] = {
                "history": (range(1 - history, 1), shown[0]),
                "truth": (ahead, shown[1]),
                "forecast": (ahead, shown[2]),
            }
            found.append(lines(f"{names[0]} from {split.name(int(row))}", drawn, "rows from now", names[0]))
        squares = np.nanmean((np.array(predictions) - np.array(truths)) ** 2, axis=(0, 2))
        found.append(
            lines(
                "Error by how far ahead",
                {"squared error": (ahead.tolist(), squares.tolist())},
                "rows ahead",
                "squared deviations",
            )
        )
        each = np.nanmean((np.array(predictions) - np.array(truths)) ** 2, axis=(0, 1))
        found.append(
            listing(
                "By variable",
                ["variable", "squared error"],
                [[n, f"{e:.4f}"] for n, e in zip(names, each, strict=True)],
            )
        )
        return found

    def rows(self, predictions: Predictions, split: Split, card: DataCard) -> list[dict[str, Any]]:
        """{"name", "prediction": {variable: [next values in its own units]}}."""
        names, transform = card.features["targets"], whole(card.features["target_transform"])
        made = [undone(np.asarray(p, float)[None], transform)[0] for p in predictions]
        return [
            {"name": split.name(i), "prediction": {n: p[:, k].tolist() for k, n in enumerate(names)}}
            for i, p in enumerate(made)
        ]


def whole(transform: Mapping[str, Any]) -> dict[str, Any]:
    """The same transform for arrays (1, rows, K): undone takes (N, K, Q), so K is moved to the last axis by shape."""
    return {"kind": transform["kind"], "mean": [transform["mean"]], "std": [transform["std"]]}


def pieces(split: Split, at: list[int]) -> Any:
    """((b, L, K) histories of the targets, batch) of a whole split."""
    for first in range(0, len(split), PIECE):
        batch = split.batch(np.arange(first, min(len(split), first + PIECE)))
        yield batch.tensors["history"].numpy()[..., at].astype(float), batch


def linear(train: Split, at: list[int], penalty: float = 1.0) -> Floats:
    """(L, H) least squares from a target's history to its future, both less its last value; shared by all targets."""
    xx: Any = 0.0
    xy: Any = 0.0
    for past, batch in pieces(train, at):
        x = (past - past[:, -1:]).transpose(0, 2, 1).reshape(-1, past.shape[1])
        future = batch.tensors["targets"].numpy() - past[:, -1:]
        y = np.where(batch.tensors["known"].numpy(), future, 0.0).transpose(0, 2, 1).reshape(len(x), -1)
        xx, xy = xx + x.T @ x, xy + x.T @ y
    return np.asarray(np.linalg.solve(xx + penalty * np.eye(len(xx)), xy))


class ForecastScorer:
    """Sums of errors of each window."""

    def __init__(self, predictions: Predictions, truths: Predictions, std: list[float], names: list[str]) -> None:
        off = np.array(predictions, float) - np.array(truths, float)
        self.n_units, self.std, self.names = len(off), np.array(std), names
        self.counts = (~np.isnan(off)).sum(1)
        self.squares, self.sizes = np.nansum(off**2, 1), np.nansum(np.abs(off), 1)

    def values(self, rows: NDArray[np.int64] | None = None) -> dict[str, float]:
        """mse and mae in deviations over all targets; mae of each target in its own units where there are few."""
        w = np.ones(self.n_units) if rows is None else np.bincount(rows, minlength=self.n_units).astype(float)
        n, squares, sizes = (w @ x for x in (self.counts, self.squares, self.sizes))
        found = {"mse": float(squares.sum() / n.sum()), "mae": float(sizes.sum() / n.sum())}
        if len(self.names) <= 3:
            found |= {f"mae_{name}": float(sizes[k] / n[k] * self.std[k]) for k, name in enumerate(self.names)}
        return found
