"""A first guess at a table that nobody has described, for danlu init."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from danlu.data import table_fit as fitting
from danlu.data.table import N_LOOKED, Table
from danlu.data.table_read import Intake, read

TARGET_NAMES = ("target", "label", "class", "y", "outcome", "price")


def propose(path: Path) -> tuple[dict[str, Any], dict[str, str], str]:
    """(settings, reasons, task) for a table that nobody has described: the target is a column of a usual name, else the
    last one."""
    rows = read([path], (), 0, Intake(), N_LOOKED)
    named = next((n for usual in TARGET_NAMES for n in rows.names if n.lower() == usual), None)
    target = named or rows.names[-1]
    why = (
        "a column of this name is usually what is asked for"
        if named
        else "the last column; change it if another is asked for"
    )
    source = Table(path=str(path), target=target)
    fitted = fitting.fit_target(target, source.columns_of(rows)[target], "auto", "standard")
    task = "classify" if fitted["kind"] == "category" else "regress"
    what = f"{len(fitted['values'])} classes" if task == "classify" else "numbers"
    return {"kind": "table", "path": str(path), "target": target}, {"target": f"{why}: {what}"}, task
