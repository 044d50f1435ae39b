"""Rows of a table that do not stay: without a target, with a gap, seen before, too far out. Each is named with its reason."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from danlu.data import table_fit as fitting
from danlu.data.sample_splits import TRAIN
from danlu.data.table_encode import Column, numbers_of, whole_numbers
from danlu.data.table_forest import is_odd
from danlu.data.table_read import Intake, Rows

if TYPE_CHECKING:
    from danlu.data.table import Table


def kept_rows(table: Table, rows: Rows, columns: Mapping[str, Column], intake: Intake) -> list[int]:
    """Rows that stay: with a target, with all values where missing = "drop", and not seen before where duplicates go."""
    seen: set[tuple[str | None, ...]] = set()
    keep = []
    inputs = [name for name in columns if name not in table.targets and name not in table.drop]
    near = table.duplicates == "near"
    told_by = [columns[name] for name in (table.near_columns or columns)] if near else []
    for i, place in enumerate(rows.places):
        shown = ", ".join(str(v) for v in rows.values[i])
        if any(columns[name][i] is None for name in table.targets):
            intake.reject(place, "no target", shown)
            continue
        if table.missing == "drop" and any(columns[name][i] is None for name in inputs):
            intake.reject(place, "a missing value", shown)
            continue
        if table.duplicates != "keep":
            key = tuple(blurred(values[i]) for values in told_by) if near else tuple(rows.values[i])
            if key in seen:
                intake.reject(place, "nearly a duplicate" if near else "a duplicate", shown)
                continue
            seen.add(key)
        keep.append(i)
    return keep


def blurred(value: str | None) -> str | None:
    """A value without what people write differently: case, spaces, punctuation, digits of numbers past the third."""
    found = fitting.number(value)
    if found == found:
        return f"{found:.3g}"
    return None if value is None else re.sub(r"[\W_]+", " ", value).strip().casefold()


def without_outliers(
    table: Table, fitted: Mapping[str, Any], columns: Mapping[str, Column], labels: NDArray[np.int8], rows: Rows, intake: Intake
) -> NDArray[np.int8]:  # fmt: skip
    """Training rows that are far out marked -1, where outlier_action = "drop"."""
    if table.outliers == "none" or table.outlier_action != "drop":
        return labels
    labels = labels.copy()
    for column in fitted["inputs"]:
        if "limits" in column:
            low, high = column["limits"]
            x = np.array([fitting.number(v) for v in columns[column["name"]]])
            out = (x < low) | (x > high)
            leave_out(np.flatnonzero((labels == TRAIN) & out), f"an outlier in {column['name']}", labels, rows, intake)
    if "forest" in fitted:
        odd = is_odd(fitted["forest"], whole_numbers(fitted, numbers_of(fitted, columns, len(labels))))
        leave_out(np.flatnonzero((labels == TRAIN) & odd), "an odd row by the isolation forest", labels, rows, intake)
    return labels


def leave_out(
    chosen: Sequence[int] | NDArray[Any], why: str, labels: NDArray[np.int8], rows: Rows, intake: Intake
) -> None:
    """Mark rows as left out."""
    for i in chosen:
        intake.reject(rows.places[i], why, str(rows.values[i]))
        labels[i] = -1
