"""Rivals of a classifier that cost seconds: the commonest class, naive Bayes, logistic regression, the nearest mean.

All are fitted on at most MAX_TRAIN evenly spaced training samples, and predict shares of classes.
"""

# N samples, C classes, F numbers, V tokens

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from danlu.base.contracts import Split

Floats = NDArray[np.float64]
Tensors = Mapping[str, NDArray[Any]]
PART = 512
"""Samples read at once."""
MAX_TRAIN = 50_000
DENSE = ("image", "inputs", "frames", "history")
"""Tensors that the nearest mean is taken over, the first that is there."""


def parts(split: Split, most: int | None = None) -> Iterator[dict[str, NDArray[Any]]]:
    """A split's tensors in pieces, as arrays; `most` evenly spaced samples of it."""
    n = len(split)
    rows = np.arange(n) if most is None or n <= most else np.arange(most) * n // most
    for first in range(0, len(rows), PART):
        batch = split.batch(rows[first : first + PART])
        yield {name: tensor.numpy() for name, tensor in batch.tensors.items()}


def class_rivals(train: Split, split: Split, features: Mapping[str, Any], n_classes: int) -> dict[str, list[Floats]]:
    """Shares of classes of each sample of `split`, by rival."""
    first = next(parts(train, 1), {})
    rivals: dict[str, Any] = {"majority class": Majority}
    if "tokens" in first:
        rivals["naive Bayes"] = TokenBayes
    elif "numbers" in first or "categories" in first:
        rivals["naive Bayes"] = TableBayes
        if importlib.util.find_spec("sklearn") is not None:
            rivals["logistic regression"] = Logistic
    elif any(name in first for name in DENSE):
        rivals["nearest mean"] = NearestMean
    fitted = {name: cls(features, n_classes) for name, cls in rivals.items()}
    for part in parts(train, MAX_TRAIN):
        known = np.flatnonzero(part["targets"] >= 0)
        seen = {name: array[known] for name, array in part.items()}
        for rival in fitted.values():
            rival.see(seen)
    answers: dict[str, list[Floats]] = {name: [] for name in fitted}
    for part in parts(split):
        for name, rival in fitted.items():
            answers[name] += list(rival.shares(part))
    return answers


def label_rivals(train: Split, split: Split, features: Mapping[str, Any], n_labels: int) -> dict[str, list[Floats]]:
    """The share of yes of each label in training, for every sample."""
    yes, n = np.zeros(n_labels), np.zeros(n_labels)
    for part in parts(train, MAX_TRAIN):
        yes += (part["targets"] > 0.5).sum(0)
        n += (part["targets"] >= 0).sum(0)
    return {"majority class": [yes / np.maximum(n, 1)] * len(split)}


def softmax(logs: Floats) -> Floats:
    """Rows of log shares up to a constant -> shares."""
    shares = np.exp(logs - logs.max(1, keepdims=True))
    return np.asarray(shares / shares.sum(1, keepdims=True), float)


class Majority:
    """Every class with its share in training."""

    def __init__(self, features: Mapping[str, Any], n_classes: int) -> None:
        self.counts = np.zeros(n_classes)

    def see(self, part: Tensors) -> None:
        """Count."""
        self.counts += np.bincount(part["targets"], minlength=len(self.counts))

    @property
    def log_prior(self) -> Floats:
        """(C,) smoothed log shares."""
        return np.asarray(np.log((self.counts + 1e-3) / (self.counts + 1e-3).sum()), float)

    def shares(self, part: Tensors) -> Floats:
        """(N, C), all rows alike."""
        return np.repeat(np.exp(self.log_prior)[None], len(part["targets"]), 0)


class TokenBayes(Majority):
    """Multinomial naive Bayes over the tokens of a sample, each with one added count (McCallum and Nigam 1998)."""

    def __init__(self, features: Mapping[str, Any], n_classes: int) -> None:
        super().__init__(features, n_classes)
        self.n_tokens = np.zeros((n_classes, int(features["vocab_size"])))

    def see(self, part: Tensors) -> None:
        """Count tokens by class."""
        super().see(part)
        sample, token = inside(part)
        np.add.at(self.n_tokens, (part["targets"][sample], token), 1.0)

    def shares(self, part: Tensors) -> Floats:
        """(N, C)."""
        logs = np.log(self.n_tokens + 1.0)
        logs -= np.log((self.n_tokens + 1.0).sum(1, keepdims=True))
        sample, token = inside(part)
        n = len(part["tokens"])
        found = np.stack([np.bincount(sample, row[token], n) for row in logs], 1)
        return softmax(found + self.log_prior)


def inside(part: Tensors) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(sample, token) of every token that is no padding."""
    tokens = part["tokens"]
    lengths = part["lengths"] if "lengths" in part else np.full(len(tokens), tokens.shape[1])
    sample, at = np.nonzero(np.arange(tokens.shape[1]) < lengths[:, None])
    return sample, tokens[sample, at].astype(np.int64)


class TableBayes(Majority):
    """Naive Bayes over a table: a normal distribution for each number, smoothed counts for each category."""

    def __init__(self, features: Mapping[str, Any], n_classes: int) -> None:
        super().__init__(features, n_classes)
        self.cards = [int(k) for k in features.get("categories", ())]
        self.sums = np.zeros((3, n_classes, int(features.get("n_numbers", 0))))
        self.seen = [np.ones((n_classes, k)) for k in self.cards]

    def see(self, part: Tensors) -> None:
        """Moments by class, counts by class and category."""
        super().see(part)
        targets = part["targets"]
        if self.sums.shape[2]:
            x = part["numbers"].astype(float)
            for power in range(3):
                np.add.at(self.sums[power], targets, x**power)
        for column, table in enumerate(self.seen):
            np.add.at(table, (targets, part["categories"][:, column]), 1.0)

    def shares(self, part: Tensors) -> Floats:
        """(N, C)."""
        logs = np.repeat(self.log_prior[None], len(part["targets"]), 0)
        if self.sums.shape[2]:
            n, total, squares = self.sums
            mean = total / np.maximum(n, 1)
            variance = np.maximum(squares / np.maximum(n, 1) - mean**2, 0) + 1e-3
            x = part["numbers"].astype(float)
            for c in range(len(mean)):
                logs[:, c] -= 0.5 * ((x - mean[c]) ** 2 / variance[c] + np.log(variance[c])).sum(1)
        for column, table in enumerate(self.seen):
            logs += np.log(table / table.sum(1, keepdims=True))[:, part["categories"][:, column]].T
        return softmax(logs)


class NearestMean(Majority):
    """Shares by the squared distance to each class's mean, in units of the mean squared distance within a class."""

    def __init__(self, features: Mapping[str, Any], n_classes: int) -> None:
        super().__init__(features, n_classes)
        self.total: Any = 0.0
        self.square = 0.0

    def see(self, part: Tensors) -> None:
        """Sums by class."""
        super().see(part)
        x = dense(part)
        sums = np.zeros((len(self.counts), x.shape[1]))
        np.add.at(sums, part["targets"], x)
        self.total = self.total + sums
        self.square += float((x**2).sum())

    def shares(self, part: Tensors) -> Floats:
        """(N, C)."""
        x, n = dense(part), np.maximum(self.counts, 1)
        means = self.total / n[:, None]
        within = (self.square - float((self.total**2 / n[:, None]).sum())) / max(1.0, self.counts.sum())
        away = (x**2).sum(1, keepdims=True) - 2 * x @ means.T + (means**2).sum(1)
        scale = max(within, 1e-9) / np.sqrt(x.shape[1])
        return softmax(np.where(self.counts > 0, -0.5 * away / scale, -1e9))


def dense(part: Tensors) -> Floats:
    """(N, F): an image's pixels, a vector, or the mean frame of a sound."""
    name = next(name for name in DENSE if name in part)
    x = part[name].astype(float)
    if name == "frames":  # 0 after the end of each sound
        return np.asarray(x.sum(1) / np.maximum(1, part.get("lengths", np.full(len(x), x.shape[1])))[:, None], float)
    return x.reshape(len(x), -1)


class Logistic(Majority):
    """Logistic regression of scikit-learn on numbers and one-hot categories."""

    def __init__(self, features: Mapping[str, Any], n_classes: int) -> None:
        super().__init__(features, n_classes)
        self.columns = columns_of(features)
        self.x: list[Floats] = []
        self.y: list[NDArray[Any]] = []
        self.fitted: Any = None

    def see(self, part: Tensors) -> None:
        """Keep."""
        super().see(part)
        self.x.append(self.columns(part))
        self.y.append(part["targets"])

    def shares(self, part: Tensors) -> Floats:
        """(N, C); classes never seen get 0."""
        from sklearn.linear_model import LogisticRegression

        found = np.zeros((len(part["targets"]), len(self.counts)))
        if np.count_nonzero(self.counts) < 2:
            return super().shares(part)
        if self.fitted is None:
            self.fitted = LogisticRegression(max_iter=200).fit(np.concatenate(self.x), np.concatenate(self.y))
        found[:, self.fitted.classes_] = self.fitted.predict_proba(self.columns(part))
        return found


def columns_of(features: Mapping[str, Any]) -> Callable[[Tensors], Floats]:
    """A table's numbers beside its one-hot categories, as a function of a part."""
    cards = [int(k) for k in features.get("categories", ())]

    def columns(part: Tensors) -> Floats:
        hot = [np.eye(k)[part["categories"][:, i]] for i, k in enumerate(cards)]
        numbers = [part["numbers"].astype(float)] if "numbers" in part else []
        return np.concatenate([*numbers, *hot], 1)

    return columns
