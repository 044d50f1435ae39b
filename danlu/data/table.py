"""Tables: rows with named columns, some of them targets. Read, cleaned, split; fitted on train; the rest follows.

features: n_numbers, categories (sizes; 0 is missing or unknown), names; classes | targets with target_transform
tensors:  numbers (B, F) float32, categories (B, C) int64, targets (B,) int64 classes or (B, K) float32
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from danlu.base.contracts import DataCard, Progress, SplitCard, StationCard
from danlu.base.durable import fingerprint, read_json, write_json
from danlu.base.errors import UserError, near_names
from danlu.data import table_fit as fitting
from danlu.data.arrays import read_arrays, write_arrays
from danlu.data.random_rows import is_random, random_rows
from danlu.data.sample_splits import (
    NAMES,
    TEST,
    TRAIN,
    VALIDATION,
    FoldSplit,
    GivenFiles,
    RandomSplit,
    SampleSplitSetting,
    TimeSplit,
    assign,
)
from danlu.data.samples import SampleSource, source_files, write_rejected
from danlu.data.table_clean import kept_rows, without_outliers
from danlu.data.table_encode import Column, TableSplit, encode, features_of, numbers_of, whole_numbers
from danlu.data.table_forest import fit_forest
from danlu.data.table_leaks import leaks
from danlu.data.table_neighbours import fit_neighbours
from danlu.data.table_read import ENDINGS, Intake, Rows, read

MISSING = ("", "?", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")
N_LOOKED = 5000


class Table(SampleSource):
    """Rows with named columns, from CSV, TSV, JSONL, Parquet or Arrow; one column or more is what to predict."""

    kind: Literal["table"] = "table"
    """A table."""
    path: str
    """A file, a folder or a glob; or random-classes, random-numbers, random-lines: small tables made on this machine."""
    target: str | tuple[str, ...]
    """The column to predict, or several of numbers."""
    target_kind: Literal["auto", "number", "category"] = "auto"
    """auto: a number when it has more than 20 different numbers."""
    target_transform: Literal["standard", "log1p", "none"] = "standard"
    """Of number targets, undone in every score: to mean 0 and deviation 1, after log(1 + y), or not at all."""
    names: tuple[str, ...] = ()
    """Column names, for files without a header line."""
    skip_lines: Annotated[int, Field(ge=0)] = 0
    """Lines before the header, or before the first row."""
    drop: tuple[str, ...] = ()
    """Columns to leave out."""
    types: dict[str, Literal["number", "category", "text", "date", "id"]] = Field(default_factory=dict)
    """Types that are not to be inferred; text and id columns are left out of the model."""
    missing_markers: tuple[str, ...] = MISSING
    """Fields that mean "missing"."""
    missing: Literal["median", "mean", "mode", "constant", "neighbours", "drop"] = "median"
    """A missing number: what stands for it (of the training rows), or drop the row. neighbours: the mean over the training
    rows whose other numbers are nearest. Missing categories are one more category."""
    neighbours: Annotated[int, Field(ge=1, le=1000)] = 5
    """For missing = "neighbours": over how many."""
    constant: float = 0.0
    """For missing = "constant"."""
    flag_missing: bool = True
    """One more number beside each that is missing in training: 1 where it was."""
    duplicates: Literal["keep", "drop", "near"] = "keep"
    """Rows equal in every column; near: in near_columns, but for case, spaces, punctuation and digits past the third."""
    near_columns: tuple[str, ...] = ()
    """For duplicates = "near": the columns that tell; empty: all."""
    outliers: Literal["none", "iqr", "z_score", "isolation_forest"] = "none"
    """Numbers far outside: beyond the quartiles by outlier_limit times their distance, or off the mean by that many
    deviations; or whole rows that random cuts soon set apart (Liu et al. 2008). All from the training rows."""
    outlier_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    """For isolation_forest: the share of the training rows that is odd."""
    outlier_limit: Annotated[float, Field(gt=0)] = 3.0
    """How far is far."""
    outlier_action: Literal["clip", "flag", "drop"] = "clip"
    """Cut to the limit (not for isolation_forest), flag by one more number, or drop the training row."""
    normalize: Literal["standard", "minmax", "robust", "quantile", "none"] = "standard"
    """Scale of the numbers, fitted on the training rows."""
    least_category: Annotated[int, Field(ge=1)] = 2
    """A category that occurs less often in training counts as unknown."""
    strip_target: str = ""
    """Characters taken off the end of target values, such as "." for files that end labels with a full stop."""
    split: SampleSplitSetting = RandomSplit()
    """How rows become train, validation and test."""

    @model_validator(mode="after")
    def check_fit(self) -> Self:
        """Settings that only go together."""
        if self.outliers == "isolation_forest" and self.outlier_action == "clip":
            raise ValueError('must have outlier_action "flag" or "drop" with isolation_forest, which judges whole rows')
        if self.near_columns and self.duplicates != "near":
            raise ValueError('must have duplicates = "near" where near_columns are given')
        return self

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns to predict."""
        return (self.target,) if isinstance(self.target, str) else self.target

    def files(self) -> list[Path]:
        """The source files, those of given splits too."""
        held = [p for p in (self.split.validation, self.split.test) if p] if isinstance(self.split, GivenFiles) else []
        return [file for path in (self.path, *held) if not is_random(path) for file in source_files(path, ENDINGS)]

    def rows_of(self, path: str, intake: Intake, most: int | None = None) -> Rows:
        """The rows of a path."""
        if is_random(path):
            return random_rows(path, intake, most)
        return read(source_files(path, ENDINGS), self.names, self.skip_lines, intake, most)

    def columns_of(self, rows: Rows) -> dict[str, Column]:
        """Columns by name; markers become None."""
        markers = set(self.missing_markers)
        found: dict[str, Column] = {
            name: [None if (v := row[j]) is None or v in markers else v for row in rows.values]
            for j, name in enumerate(rows.names)
        }
        for name in self.targets:
            if self.strip_target and name in found:
                found[name] = [None if v is None else v.rstrip(self.strip_target) for v in found[name]]
        return found

    def check_names(self, names: Sequence[str]) -> None:
        """Every column that the recipe names is there."""
        asked = {"target": self.targets, "drop": self.drop, "types": self.types, "near_columns": self.near_columns}
        for setting, wanted in asked.items():
            for name in wanted:
                if name not in names:
                    near = near_names(name, list(names))
                    fix = f"write {near[0]}" if near else f"use one of {', '.join(names[:30])}"
                    raise UserError(f"data.{setting}", "must name columns of the data", got=name, fix=fix)

    def expected(self) -> dict[str, Any]:
        """Features from the first rows."""
        rows = self.rows_of(self.path, Intake(), N_LOOKED)
        self.check_names(rows.names)
        columns = self.columns_of(rows)
        fitted, _ = self.fit(columns, np.arange(len(rows.values)))
        return features_of(fitted)

    def fit(self, columns: Mapping[str, Column], train: NDArray[np.int64]) -> tuple[dict[str, Any], list[str]]:
        """(preprocessing, warnings) from the training rows."""
        inputs: list[dict[str, Any]] = []
        warnings = []
        for name in columns:
            if name in self.targets or name in self.drop:
                continue
            values = [columns[name][i] for i in train]
            kind = self.types.get(name) or fitting.type_of(name, values)
            if kind in ("text", "id"):
                if name not in self.types:
                    looks = "text" if kind == "text" else "an id"
                    warnings.append(f"Column {name} looks like {looks} and is left out; data.types can say otherwise.")
                continue
            if kind == "category":
                inputs.append(fitting.fit_category(name, values, self.least_category))
            elif kind == "number":
                inputs.append(fitting.fit_number(name, np.array([fitting.number(v) for v in values]), self))
            else:
                parts = [fitting.fit_number(part, x, self) for part, x in fitting.dated(values).items()]
                inputs.append({"name": name, "kind": "date", "parts": parts})
        targets = [
            fitting.fit_target(name, [columns[name][i] for i in train], self.target_kind, self.target_transform)
            for name in self.targets
        ]
        if len(targets) > 1 and any(t["kind"] == "category" for t in targets):
            raise UserError("data.target", "can be several columns of numbers only", got=", ".join(self.targets))
        if targets[0]["kind"] == "category":
            counts = Counter(columns[self.targets[0]][i] for i in train)
            targets[0]["counts"] = [counts[v] for v in targets[0]["values"]]
        fitted = {"inputs": inputs, "targets": targets, "outlier_action": self.outlier_action}
        return fitted | self.fit_rows(fitted, columns, train), warnings

    def fit_rows(
        self, fitted: Mapping[str, Any], columns: Mapping[str, Column], train: NDArray[np.int64]
    ) -> dict[str, Any]:
        """What looks at several numbers of a row at once: nearest neighbours, isolation forest."""
        found: dict[str, Any] = {}
        if not any(c["kind"] == "number" for c in fitted["inputs"]):
            return found
        x = numbers_of(fitted, columns, len(columns[self.targets[0]]))[train]
        if self.missing == "neighbours":
            found["neighbours"] = fit_neighbours(x, self.neighbours)
        if self.outliers == "isolation_forest":
            found["forest"] = fit_forest(whole_numbers({**fitted, **found}, x), self.outlier_share)
        return found

    def prepare(self, folder: Path, seed: int, progress: Progress) -> DataCard:
        """Read all, clean, split, fit on train, encode, look for leaks."""
        intake = Intake()
        rows = self.rows_of(self.path, intake)
        given = np.zeros(len(rows.values), np.int8)
        if isinstance(self.split, GivenFiles):
            for number, path in ((VALIDATION, self.split.validation), (TEST, self.split.test)):
                more = self.rows_of(path, intake) if path else Rows(rows.names)
                if more.names != rows.names:
                    raise UserError(path, "must have the columns of data.path", got=", ".join(more.names[:8]))
                rows.values, rows.places = rows.values + more.values, rows.places + more.places
                given = np.concatenate([given, np.full(len(more.values), number, np.int8)])
        self.check_names(rows.names)
        progress("clean", 0, len(rows.values))
        keep = kept_rows(self, rows, self.columns_of(rows), intake)
        rows.values, rows.places, given = [rows.values[i] for i in keep], [rows.places[i] for i in keep], given[keep]
        if len(rows.values) < 3:
            got = ", ".join(f"{n} {why}" for why, n in intake.reasons.most_common(4)) or "none"
            raise UserError("data.path", "must give at least three rows that can be used", got=got)
        columns = self.columns_of(rows)
        labels = self.labels(columns, given, seed)
        fitted, warnings = self.fit(columns, np.flatnonzero(labels == TRAIN))
        labels = without_outliers(self, fitted, columns, labels, rows, intake)
        arrays = encode(fitted, columns, len(rows.values))
        write_json(folder / "preprocessing.json", fitted)
        found, more_warnings = leaks(columns, labels, self.targets, self.drop, grouped_by(self.split))
        return self.finish(
            folder, rows, labels, arrays, fitted, intake, {"leakage": found, "warnings": (*warnings, *more_warnings)}
        )

    def labels(self, columns: Mapping[str, Column], given: NDArray[np.int8], seed: int) -> NDArray[np.int8]:
        """Where each row goes."""
        n = len(given)
        whole = {name: np.array([v or "" for v in values]) for name, values in columns.items()}
        if isinstance(self.split, TimeSplit) and self.split.column in columns:
            whole[self.split.column] = ordered(columns[self.split.column])
        target = whole[self.targets[0]].astype(str)
        classes = (
            target if len(set(target.tolist())) <= fitting.MAX_CATEGORIES and self.target_kind != "number" else None
        )
        if classes is not None and min(Counter(classes.tolist()).values()) < 2 and self.target_kind == "auto":
            classes = None
        if isinstance(self.split, GivenFiles):
            first = np.flatnonzero(given == TRAIN)
            labels = given.copy()
            labels[first] = assign(self.split, len(first), seed, whole, None if classes is None else classes[first])
            return labels
        return assign(self.split, n, seed, whole, classes)

    def finish(
        self, folder: Path, rows: Rows, labels: NDArray[np.int8], arrays: Mapping[str, NDArray[Any]],
        fitted: Mapping[str, Any], intake: Intake, said: Mapping[str, Any],
    ) -> DataCard:  # fmt: skip
        """Arrays, rejected rows, the card."""
        cards, hashes = {}, []
        for number, side in enumerate(NAMES):
            chosen = np.flatnonzero(labels == number)
            if not len(chosen):
                continue
            names = np.frombuffer("\n".join(rows.places[i] for i in chosen).encode(), np.uint8)
            hashes.append(write_arrays(folder, side, {**{k: v[chosen] for k, v in arrays.items()}, "names": names}))
            cards[side] = SplitCard(n_samples=len(chosen), n_targets=len(chosen) * len(self.targets))
        if "train" not in cards:
            raise UserError("data.split", "must leave rows to train on", got="none")
        write_rejected(folder, intake.rejected)
        station = StationCard(
            name="read", n_in=intake.n_in, n_dropped=dict(intake.reasons), examples=tuple(intake.rejected[:5])
        )
        card = DataCard(
            kind=self.kind, source=self.path, rows_in=intake.n_in, rows_used=sum(c.n_samples for c in cards.values()),
            rows_rejected=dict(intake.reasons), stations=(station,), splits=cards, features=features_of(fitted),
            leakage=said["leakage"], warnings=(*said["warnings"], *intake.notes),
            fingerprint=fingerprint([hashes, self.model_dump(mode="json")]),
        )  # fmt: skip
        write_json(folder / "card.json", card.model_dump(mode="json"))
        return card

    def open(self, folder: Path, card: DataCard, split: str) -> TableSplit:
        """A prepared split."""
        found = {name: np.asarray(array) for name, array in read_arrays(folder, split).items()}
        names = found.pop("names").tobytes().decode().split("\n")
        return TableSplit(found, names)

    def read(self, folder: Path, card: DataCard, inputs: Sequence[Any]) -> TableSplit:
        """Paths of table files, JSON objects as text, or dicts; unknown columns are passed over, missing ones missing."""
        fitted = read_json(folder / "preprocessing.json")
        rows: list[dict[str, str | None]] = []
        places: list[str] = []
        for number, given in enumerate(inputs):
            if isinstance(given, Mapping) or (isinstance(given, str) and given.lstrip().startswith("{")):
                value = json.loads(given) if isinstance(given, str) else given
                rows.append({k: None if v is None else str(v) for k, v in value.items()})
                places.append(f"input {number}")
                continue
            intake = Intake()
            found = self.rows_of(str(given), intake)
            if intake.rejected:
                raise UserError(
                    intake.rejected[0]["row"], f"cannot be read: {intake.rejected[0]['reason']}", fix="mend the row"
                )
            rows += [dict(zip(found.names, values, strict=True)) for values in found.values]
            places += found.places
        wanted = [c["name"] for c in (*fitted["inputs"], *fitted["targets"])]
        missing = [c["name"] for c in fitted["inputs"] if rows and not any(c["name"] in row for row in rows)]
        if missing:
            raise UserError(
                "predict", f"needs the column {missing[0]}", got=", ".join(list(rows[0])[:12]), fix="add it"
            )
        markers = set(self.missing_markers)
        columns = {n: [None if (v := row.get(n)) is None or v in markers else v for row in rows] for n in wanted}
        return TableSplit(encode(fitted, columns, len(rows)), places)


def ordered(values: Column) -> NDArray[Any]:
    """A column in the order of time: dates as seconds, numbers as they are, else as text."""
    moments = [fitting.date(v) for v in values]
    if all(m is not None for m in moments):
        return np.array([m.timestamp() for m in moments if m is not None])
    numbers = np.array([fitting.number(v) for v in values])
    return numbers if not np.isnan(numbers).any() else np.array([v or "" for v in values])


def grouped_by(split: Any) -> str:
    """The column that a split keeps together, if any."""
    return str(getattr(split, "column", "")) if not isinstance(split, TimeSplit | FoldSplit) else ""
