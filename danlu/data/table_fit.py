"""What is learned from the training rows of a table, and applied to all others: types, fills, scales, categories, targets.

Everything fitted is plain JSON (preprocessing.json), so predict and serving need no training data.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from danlu.base.errors import UserError

Values = Sequence[str | None]
Floats = NDArray[np.float64]
Type = Literal["number", "category", "text", "date", "id"]
MAX_CATEGORIES, FEW_NUMBERS = 1000, 2
DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}([T ]\d{1,2}:\d{2}(:\d{2})?)?.*|\d{1,2}[/.]\d{1,2}[/.]\d{4}.*")
FORMATS = ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y")
CYCLES = {"month": 12.0, "weekday": 7.0, "hour": 24.0}
N_KNOTS = 256
"""Knots of the quantile scale."""


def number(value: str | None) -> float:
    """A field as a number; NaN where it is none."""
    if value is None:
        return math.nan
    try:
        found = float(value.replace(",", "") if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d*)?", value) else value)
    except ValueError:
        return math.nan
    return found if math.isfinite(found) else math.nan


def date(value: str | None) -> datetime | None:
    """A field as a moment, or None."""
    if value is None or not DATE.fullmatch(value):
        return None
    try:
        return datetime.fromisoformat(value).replace(tzinfo=None)
    except ValueError:
        pass
    for form in FORMATS:
        try:
            return datetime.strptime(value, form)
        except ValueError:
            continue
    return None


def type_of(name: str, values: Values) -> Type:
    """The type of a column from its training values: nearly all numbers, nearly all dates, few different words, ..."""
    known = [v for v in values if v is not None]
    if not known:
        return "category"
    sample = known[:: max(1, len(known) // 5000)]
    n_different = len(set(known))
    n_numbers = sum(not math.isnan(number(v)) for v in sample)
    if n_numbers >= 0.95 * len(sample):
        whole = all(float(number(v)).is_integer() for v in sample if not math.isnan(number(v)))
        in_order = whole and n_different == len(known) and n_different > 20 and is_running(known)
        is_named = re.fullmatch(r"(.*[_ ])?(id|index|row|instant|uuid|key)|.*Id", name) is not None
        return (
            "id" if in_order and (is_named or len(known) > 50) and n_different == len(known) and is_named else "number"
        )
    if sum(date(v) is not None for v in sample) >= 0.95 * len(sample):
        return "date"
    if n_different > max(MAX_CATEGORIES, 0.5 * len(known)) or (n_different > 20 and n_different > 0.5 * len(known)):
        longest = np.mean([len(v) for v in sample])
        return "text" if longest > 12 or " " in "".join(sample[:50]) else "id"
    return "category"


def is_running(known: Sequence[str]) -> bool:
    """Whether whole numbers lie as close together as row numbers."""
    found = [number(v) for v in known]
    return max(found) - min(found) < 2 * len(found)


class Scale:
    """A number's scale: y = (x - shift) / factor, or its quantile."""

    @staticmethod
    def fit(kind: str, x: Floats) -> dict[str, Any]:
        """From known training values (n,)."""
        if not len(x) or kind == "none":
            return {"kind": "none"}
        if kind == "quantile":
            return {"kind": kind, "knots": np.unique(np.quantile(x, np.linspace(0, 1, N_KNOTS))).tolist()}
        low, q1, middle, q3, high = np.quantile(x, [0, 0.25, 0.5, 0.75, 1])
        shift, factor = {"standard": (x.mean(), x.std()), "minmax": (low, high - low), "robust": (middle, q3 - q1)}[
            kind
        ]
        return {"kind": kind, "shift": float(shift), "factor": float(factor) or 1.0}

    @staticmethod
    def apply(scale: Mapping[str, Any], x: Floats) -> Floats:
        """(n,) -> (n,); quantiles come out as standard normal values."""
        if scale["kind"] == "none":
            return x
        if scale["kind"] == "quantile":
            from statistics import NormalDist

            knots = np.array(scale["knots"])
            share = np.interp(x, knots, np.linspace(0, 1, len(knots))) if len(knots) > 1 else np.full(len(x), 0.5)
            normal = NormalDist()
            table = np.array([normal.inv_cdf(p) for p in np.linspace(1e-3, 1 - 1e-3, 1001)])
            return np.asarray(np.interp(share, np.linspace(0, 1, 1001), table))
        return np.asarray((x - scale["shift"]) / scale["factor"])


def fit_number(name: str, x: Floats, settings: Any) -> dict[str, Any]:
    """Fill, limits and scale of one number from its training values (NaN: missing)."""
    known = x[~np.isnan(x)]
    fill: dict[str, Any] = {"mean": known.mean, "median": lambda: np.median(known), "mode": lambda: most_common(known)}
    how = settings.missing if settings.missing in fill else "median"
    value = settings.constant if settings.missing == "constant" else float(fill[how]()) if len(known) else 0.0
    found: dict[str, Any] = {
        "name": name,
        "kind": "number",
        "fill": value,
        "flag": bool(settings.flag_missing and len(known) < len(x)),
    }
    if settings.outliers in ("iqr", "z_score") and len(known):
        q1, q3 = np.quantile(known, [0.25, 0.75])
        if settings.outliers == "iqr":
            ends = (q1 - settings.outlier_limit * (q3 - q1), q3 + settings.outlier_limit * (q3 - q1))
        else:
            ends = (
                known.mean() - settings.outlier_limit * known.std(),
                known.mean() + settings.outlier_limit * known.std(),
            )
        found["limits"] = [float(e) for e in ends]
        if settings.outlier_action == "clip":
            known = known.clip(*ends)
    return found | {"scale": Scale.fit(settings.normalize, known)}


def most_common(known: Floats) -> float:
    """The mode."""
    values, counts = np.unique(known, return_counts=True)
    return float(values[counts.argmax()])


def apply_number(fitted: Mapping[str, Any], x: Floats, action: str, filled: Floats) -> list[Floats]:
    """The number scaled, then its flags: missing, outlier. `filled` is x (n,) with what stands for its NaN."""
    flags = [np.isnan(x).astype(float)] if fitted["flag"] else []
    if "limits" in fitted:
        low, high = fitted["limits"]
        if action == "flag":
            flags.append(((filled < low) | (filled > high)).astype(float))
        elif action == "clip":
            filled = filled.clip(low, high)
    return [Scale.apply(fitted["scale"], filled), *flags]


def fit_category(name: str, values: Values, least: int) -> dict[str, Any]:
    """Categories by how often they occur; 0 stands for missing, unknown and rare ones."""
    counts = Counter(v for v in values if v is not None)
    kept = [v for v, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if n >= least][:MAX_CATEGORIES]
    return {"name": name, "kind": "category", "values": kept}


def apply_category(fitted: Mapping[str, Any], values: Values) -> NDArray[np.int64]:
    """(n,) category numbers."""
    codes = {value: i + 1 for i, value in enumerate(fitted["values"])}
    return np.array([codes.get(v, 0) if v is not None else 0 for v in values], np.int64)


def dated(values: Values) -> dict[str, Floats]:
    """Numbers that a date stands for: days since 2000, and the places in the year, week and day as sines and cosines."""
    moments = [date(v) for v in values]
    none = [math.nan] * 4
    parts = np.array(
        [
            [(m - datetime(2000, 1, 1)).total_seconds() / 86400, m.month - 1, m.weekday(), m.hour + m.minute / 60]
            if m
            else none
            for m in moments
        ]
    ).reshape(len(moments), 4)
    found = {"days": parts[:, 0]}
    for column, (name, cycle) in enumerate(CYCLES.items(), start=1):
        angle = 2 * math.pi * parts[:, column] / cycle
        if name == "hour" and not np.nansum(parts[:, column]):
            continue
        found |= {f"{name} sin": np.sin(angle), f"{name} cos": np.cos(angle)}
    return found


def fit_target(name: str, values: Values, kind: str, transform: str) -> dict[str, Any]:
    """A target as classes or as a number."""
    known = [v for v in values if v is not None]
    if kind == "auto":
        kind = "number" if type_of(name, known) == "number" and len(set(known)) > 20 else "category"
    if kind == "category":
        classes = sorted(
            set(known), key=lambda v: (math.isnan(number(v)), number(v) if not math.isnan(number(v)) else 0, v)
        )
        if len(classes) > MAX_CATEGORIES:
            raise UserError(
                "data.target", f"must have at most {MAX_CATEGORIES} classes", got=f"{len(classes)} in {name}"
            )
        return {"name": name, "kind": "category", "values": classes}
    x = np.array([number(v) for v in known])
    if np.isnan(x).any():
        odd = next(v for v in known if math.isnan(number(v)))
        raise UserError("data.target", f"{name} must hold numbers", got=odd, fix='set data.target_kind = "category"')
    x = np.log1p(x) if transform == "log1p" else x
    if transform == "log1p" and not np.isfinite(x).all():
        raise UserError(
            "data.target_transform", f"log1p needs values above -1 in {name}", got="lower ones", fix="use standard"
        )
    mean, std = (0.0, 1.0) if transform == "none" else (float(x.mean()), float(x.std()) or 1.0)
    return {"name": name, "kind": "number", "transform": transform, "mean": mean, "std": std}
