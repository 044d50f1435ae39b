"""A fitted table as arrays: what models read, and what a split of them gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from danlu.base.contracts import Batch
from danlu.data import table_fit as fitting
from danlu.data.table_forest import is_odd
from danlu.data.table_neighbours import fill_neighbours

Column = list[str | None]


def features_of(fitted: Mapping[str, Any]) -> dict[str, Any]:
    """What models and tasks must know."""
    numbers, categories, names = [], [], []
    for column in fitted["inputs"]:
        if column["kind"] == "category":
            categories.append(len(column["values"]) + 1)
            names.append(column["name"])
            continue
        for part in column.get("parts", [column]):
            label = part["name"] if part is column else f"{column['name']} {part['name']}"
            numbers += [label, *([f"{label} missing"] if part["flag"] else [])]
            numbers += [f"{label} outlier"] if "limits" in part and fitted["outlier_action"] == "flag" else []
    numbers += ["odd row"] if "forest" in fitted and fitted["outlier_action"] == "flag" else []
    found: dict[str, Any] = {"n_numbers": len(numbers), "categories": categories, "names": [*numbers, *names]}
    targets = fitted["targets"]
    if targets[0]["kind"] == "category":
        return found | {
            "classes": targets[0]["values"],
            "class_counts": targets[0]["counts"],
            "target": targets[0]["name"],
        }
    transform = {
        "kind": targets[0]["transform"],
        "mean": [t["mean"] for t in targets],
        "std": [t["std"] for t in targets],
    }
    return found | {"targets": [t["name"] for t in targets], "target_transform": transform}


def numbers_of(fitted: Mapping[str, Any], columns: Mapping[str, Column], n: int) -> NDArray[np.float64]:
    """(n, F) the number columns as they are, NaN where missing."""
    names = [c["name"] for c in fitted["inputs"] if c["kind"] == "number"]
    found = [np.array([fitting.number(v) for v in columns[name]]) for name in names]
    return np.stack(found, 1) if found else np.zeros((n, 0))


def whole_numbers(fitted: Mapping[str, Any], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, F) with what stands for the missing ones: of the nearest rows, else the column's own."""
    if "neighbours" in fitted:
        x = fill_neighbours(fitted["neighbours"], x)
    fills = np.array([c["fill"] for c in fitted["inputs"] if c["kind"] == "number"])
    return np.where(np.isnan(x), fills, x)


def encode(fitted: Mapping[str, Any], columns: Mapping[str, Column], n: int) -> dict[str, NDArray[Any]]:
    """Arrays numbers (n, F) float32, categories (n, C), targets; a target that is missing is -1 or NaN."""
    numbers: list[NDArray[np.float64]] = []
    categories = []
    raw = numbers_of(fitted, columns, n)
    whole, j = whole_numbers(fitted, raw), 0
    for column in fitted["inputs"]:
        values = columns[column["name"]]
        if column["kind"] == "category":
            categories.append(fitting.apply_category(column, values))
        elif column["kind"] == "number":
            numbers += fitting.apply_number(column, raw[:, j], fitted["outlier_action"], whole[:, j])
            j += 1
        else:
            parts = fitting.dated(values)
            for part in column["parts"]:
                x = parts.get(part["name"], np.zeros(n))
                x_whole = np.where(np.isnan(x), part["fill"], x)
                numbers += fitting.apply_number(part, x, fitted["outlier_action"], x_whole)
    if "forest" in fitted and fitted["outlier_action"] == "flag":
        numbers.append(is_odd(fitted["forest"], whole).astype(float))
    found: dict[str, NDArray[Any]] = {
        "numbers": np.stack(numbers, 1).astype(np.float32) if numbers else np.zeros((n, 0), np.float32),
        "categories": np.stack(categories, 1) if categories else np.zeros((n, 0), np.int64),
    }
    targets = fitted["targets"]
    if targets[0]["kind"] == "category":
        codes = {value: i for i, value in enumerate(targets[0]["values"])}
        return found | {"targets": np.array([codes.get(v or "", -1) for v in columns[targets[0]["name"]]], np.int64)}
    made = []
    for t in targets:
        y = np.array([fitting.number(v) for v in columns[t["name"]]])
        made.append(((np.log1p(y) if t["transform"] == "log1p" else y) - t["mean"]) / t["std"])
    return found | {"targets": np.stack(made, 1).astype(np.float32)}


class TableSplit:
    """Arrays of one split, and where each row came from."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]], names: list[str]) -> None:
        self.arrays, self.names = arrays, names

    def __len__(self) -> int:
        return len(self.names)

    def batch(self, rows: NDArray[np.int64], seeds: Any = None) -> Batch:
        """{"numbers", "categories", "targets"}."""
        import torch

        tensors = {name: torch.from_numpy(array[rows]) for name, array in self.arrays.items()}
        targets = tensors["targets"]
        if targets.dim() == 1:
            return Batch(tensors, int((targets >= 0).sum()))
        return Batch(tensors, targets.numel(), row_targets=np.full(len(rows), targets.shape[1]))

    def name(self, row: int) -> str:
        """adult.data:17."""
        return self.names[row]
