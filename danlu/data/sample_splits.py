"""Which sample goes where: train, validation, test. Every choice follows from the seed and the samples alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from danlu.base.errors import UserError
from danlu.base.settings import Chosen, Settings

Share = Annotated[float, Field(ge=0, lt=1)]
Labels = NDArray[np.int8]
TRAIN, VALIDATION, TEST = range(3)
NAMES = ("train", "validation", "test")
SIDES = (("train", "training"), ("validation", "valid", "val", "dev"), ("test", "testing"))
"""What columns, folders and lists may call them."""
SPLIT_FOLDERS = {name: number for number, names in enumerate(SIDES) for name in names}
Columns = Mapping[str, NDArray[Any]]


class RandomSplit(Settings):
    """At random; with `stratify`, the same shares of every class."""

    kind: Literal["random"] = "random"
    """At random."""
    validation: Share = 0.1
    """Share for validation."""
    test: Share = 0.1
    """Share for test."""
    stratify: bool = True
    """Keep the shares of the classes, where there are classes."""


class GroupSplit(Settings):
    """Samples with the same value of a column stay together."""

    kind: Literal["group"] = "group"
    """By group."""
    column: str
    """The column that names the group (patient, user, document)."""
    validation: Share = 0.1
    """Share of the groups for validation."""
    test: Share = 0.1
    """Share of the groups for test."""


class TimeSplit(Settings):
    """In order of time: the last part is for test, the part before it for validation."""

    kind: Literal["time"] = "time"
    """By time."""
    column: str = ""
    """The column that orders the samples; empty: the order of the file."""
    validation: Share = 0.1
    """Share for validation."""
    test: Share = 0.2
    """Share for test."""


class FoldSplit(Settings):
    """One of k folds is the test split, with the same shares of every class."""

    kind: Literal["folds"] = "folds"
    """k folds."""
    k: Annotated[int, Field(ge=2, le=100)] = 5
    """Folds."""
    fold: Annotated[int, Field(ge=0)] = 0
    """The fold that is tested, from 0."""
    validation: Share = 0.1
    """Share of the rest for validation."""


class GivenFiles(Settings):
    """Files of their own for validation and test; `data.path` is then for training."""

    kind: Literal["given"] = "given"
    """From separate files."""
    test: str = ""
    """Path of the test data; empty: none."""
    validation: str = ""
    """Path of the validation data; empty: `validation_share` of the training data."""
    validation_share: Share = 0.1
    """Share of the training data for validation where it has no file of its own."""


class NamedSplit(Settings):
    """The data say it themselves: a column (or a key in a FASTA header) holds train, validation or test."""

    kind: Literal["named"] = "named"
    """By name."""
    column: str = "set"
    """The column that holds "train", "validation" (or "valid", "val", "dev") or "test"."""
    validation_column: str = ""
    """A column that is true for the training samples that are meant for validation; empty: none."""
    validation_share: Share = 0.1
    """Share of the training samples for validation where none is named."""


SAMPLE_SPLITS: dict[str, type[Settings]] = {
    "random": RandomSplit, "group": GroupSplit, "time": TimeSplit, "folds": FoldSplit, "given": GivenFiles,
    "named": NamedSplit,
}  # fmt: skip
"""The ways to split samples that a recipe can name."""
SampleSplitSetting = Annotated[Settings, Chosen(SAMPLE_SPLITS, default="random")]


def assign(
    split: Settings, n_rows: int, seed: int, columns: Columns | None = None, classes: NDArray[Any] | None = None
) -> Labels:
    """(n_rows,) int8: 0 train, 1 validation, 2 test. `classes` are what a split is stratified by, or None.

    For a given split it says which training rows go to validation.
    """
    rng = np.random.default_rng([seed, 17])
    if isinstance(split, RandomSplit):
        return shares(n_rows, split.validation, split.test, rng, classes if split.stratify else None)
    if isinstance(split, GivenFiles):
        return shares(n_rows, 0.0 if split.validation else split.validation_share, 0.0, rng, classes)
    if isinstance(split, NamedSplit):
        return named(split, columns, rng, classes)
    if isinstance(split, GroupSplit):
        names, group = np.unique(column_of(split.column, columns).astype(str), return_inverse=True)
        if len(names) < 3:
            raise UserError(
                "data.split.column",
                "must name a column of at least three groups",
                got=f"{len(names)} in {split.column}",
            )
        return shares(len(names), split.validation, split.test, rng, None)[group]
    if isinstance(split, TimeSplit):
        order = np.arange(n_rows) if not split.column else np.argsort(column_of(split.column, columns), kind="stable")
        labels = np.zeros(n_rows, np.int8)
        n_test, n_validation = round(split.test * n_rows), round(split.validation * n_rows)
        labels[order[n_rows - n_test - n_validation : n_rows - n_test]] = VALIDATION
        labels[order[n_rows - n_test :]] = TEST
        return labels
    if isinstance(split, FoldSplit):
        if split.fold >= split.k:
            raise UserError("data.split.fold", f"must be below data.split.k, which is {split.k}", got=split.fold)
        place = spread(n_rows, rng, classes)
        labels = np.where(place * split.k // max(1, n_rows) == split.fold, TEST, TRAIN).astype(np.int8)
        rest = np.flatnonzero(labels == TRAIN)
        inner = shares(len(rest), split.validation, 0.0, rng, None if classes is None else classes[rest])
        labels[rest[inner == VALIDATION]] = VALIDATION
        return labels
    raise UserError("data.split.kind", "is not a way to split samples", got=type(split).__name__)


def column_of(name: str, columns: Columns | None) -> NDArray[Any]:
    """A column by name."""
    if columns is None or name not in columns:
        known = ", ".join(list(columns or ())[:20]) or "none"
        raise UserError("data.split.column", f"must name a column of the data ({known})", got=name)
    return columns[name]


def named(split: NamedSplit, columns: Columns | None, rng: np.random.Generator, classes: NDArray[Any] | None) -> Labels:
    """As the column says; a share of train for validation where it names none."""
    said = np.char.lower(np.char.strip(column_of(split.column, columns).astype(str)))
    labels = np.full(len(said), -1, np.int8)
    for number, words in enumerate(SIDES):
        labels[np.isin(said, words)] = number
    if (labels < 0).any():
        odd = said[labels < 0][0]
        raise UserError(f"data.split.column: {split.column}", "must hold train, validation or test", got=str(odd))
    if split.validation_column:
        meant = np.char.lower(np.char.strip(column_of(split.validation_column, columns).astype(str)))
        labels[(labels == TRAIN) & np.isin(meant, ("true", "yes", "1", "t", "y"))] = VALIDATION
    own = np.flatnonzero(labels == TRAIN)
    if not (labels == VALIDATION).any():
        inner = shares(len(own), split.validation_share, 0.0, rng, None if classes is None else classes[own])
        labels[own[inner == VALIDATION]] = VALIDATION
    return labels


def spread(n_rows: int, rng: np.random.Generator, classes: NDArray[Any] | None) -> NDArray[np.int64]:
    """(n_rows,) a random place 0 .. n_rows - 1 for each row, in which every class is spread evenly."""
    order = rng.permutation(n_rows)
    if classes is not None and n_rows:
        _, codes = np.unique(classes.astype(str), return_inverse=True)
        codes = codes[order]
        within = np.zeros(n_rows)
        for code in np.unique(codes):
            rows = np.flatnonzero(codes == code)
            within[rows] = (np.arange(len(rows)) + rng.random()) / len(rows)
        order = order[np.argsort(within, kind="stable")]
    place = np.empty(n_rows, np.int64)
    place[order] = np.arange(n_rows)
    return place


def shares(n: int, validation: float, test: float, rng: np.random.Generator, classes: NDArray[Any] | None) -> Labels:
    """Random shares, by class where there are classes."""
    place = spread(n, rng, classes)
    n_test, n_validation = round(test * n), round(validation * n)
    labels = np.zeros(n, np.int8)
    labels[place < n_test] = TEST
    labels[(place >= n_test) & (place < n_test + n_validation)] = VALIDATION
    return labels
