"""The vision transformer on tiny pictures; several numbers at once from a table, near copies and odd rows in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.contracts.sample_cases import pictures, table_classes

Sections = dict[str, Any]

SMALL = {"kind": "vit", "patch": 4, "n_layers": 1, "width": 32, "n_heads": 2}


def random_lines(folder: Path) -> Sections:
    """A linear model with three answers, on a table made on the spot."""
    return {
        "data": {"kind": "table", "path": "random-lines", "target": ["y0", "y1", "y2"]},
        "model": {"kind": "mlp", "layers": []},
        "task": {"kind": "regress"},
        "train": {"batch": 12},
    }


def table_odd_rows(folder: Path) -> Sections:
    """Gaps filled from like rows, odd rows flagged."""
    sections = table_classes(folder)
    rows = {"missing": "neighbours", "outliers": "isolation_forest", "outlier_action": "flag", "duplicates": "near"}
    return sections | {"data": sections["data"] | rows}


CASES: dict[str, Callable[[Path], Sections]] = {
    "vit mean": pictures(SMALL),
    "vit token": pictures(SMALL | {"pool": "token"}),
    "table lines": random_lines,
    "table odd rows": table_odd_rows,
}
