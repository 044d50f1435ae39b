"""What a decision rests on, as plain JSON for the report to draw: one function a form.

Decision(..., evidence=points("learning rate", "validation loss", measured, curve=fit, chosen=0.003, log_x=True))
Decision(..., evidence=together(bars("s a step", {"blocks": 0.9, "fused": 0.6}, chosen="fused"), points(...)))
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Evidence = dict[str, Any]
Row = Sequence[float]


def points(
    x: str,
    y: str,
    measured: Iterable[Row],
    *,
    curve: Iterable[Row] = (),
    chosen: float | None = None,
    log: str = "",
    note: str = "",
) -> Evidence:
    """Measured points, the fit through them and what was chosen. `x` and `y` name the axes with their units, `measured`
    has rows (x, y) or (x, y, standard error), `curve` rows (x, y) or (x, y, low, high); `log` is "x", "y" or "xy". A y that
    is not finite stands for a run that diverged."""
    return {
        "plot": "points", "x": x, "y": y, "log_x": "x" in log, "log_y": "y" in log, "points": plain(measured),
        "curve": plain(curve), "chosen": chosen, "note": note,
    }  # fmt: skip


def lines(
    x: str,
    y: str,
    series: Mapping[str, Iterable[Row]],
    *,
    chosen: float | None = None,
    log: str = "",
    note: str = "",
) -> Evidence:
    """Several lines by name, each of rows (x, y): loss curves of the arms, memory over the micro-batch."""
    return {
        "plot": "lines", "x": x, "y": y, "log_x": "x" in log, "log_y": "y" in log, "chosen": chosen, "note": note,
        "lines": [{"name": name, "points": plain(rows)} for name, rows in series.items()],
    }  # fmt: skip


def bars(unit: str, values: Mapping[str, float | Row], *, chosen: str = "", note: str = "") -> Evidence:
    """One bar a candidate, of a value or (value, standard error), in a unit."""
    rows = {name: value if isinstance(value, Sequence) else (value,) for name, value in values.items()}
    shown = [[name, *map(finite, numbers)] for name, numbers in rows.items()]
    return {"plot": "bars", "unit": unit, "bars": shown, "chosen": chosen, "note": note}


def together(*parts: Evidence) -> Evidence:
    """Several drawings of one decision, in order."""
    return {"parts": list(parts)}


def plain(rows: Iterable[Row]) -> list[list[float | None]]:
    """Rows as JSON numbers; what is not finite is null."""
    return [[finite(value) for value in row] for row in rows]


def finite(value: float) -> float | None:
    """A number of Python's own, or None."""
    return float(value) if math.isfinite(value) else None
