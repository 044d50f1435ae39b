"""Time series: what came before is read, what comes next is asked. Windows over rows in order of time.

features: n_variables, history, horizon, targets, target_columns_in_history, target_transform
tensors:  history (B, L, V) float32, targets (B, H, K) float32, both in units of the training rows' deviation
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from danlu.base.contracts import Batch, DataCard, Progress, SplitCard, StationCard
from danlu.base.durable import fingerprint, read_json, write_json
from danlu.base.errors import UserError
from danlu.data.arrays import read_arrays, write_arrays
from danlu.data.sample_splits import NAMES
from danlu.data.samples import SampleSource, source_files, write_rejected
from danlu.data.table_fit import date, number
from danlu.data.table_read import ENDINGS, Intake, Rows, read

Floats = NDArray[np.float64]
MISSING = {"", "?", "NA", "N/A", "NaN", "nan", "null", "None"}
Count = Annotated[int, Field(ge=1, le=1_000_000)]
MAX_WORDS = 50


class Series(SampleSource):
    """A time series with any number of variables: the last `history` rows are read, the next `horizon` are predicted."""

    kind: Literal["series"] = "series"
    """A time series."""
    path: str
    """A CSV, TSV, JSONL, Parquet or Arrow file, one row a moment."""
    time: tuple[str, ...] = ()
    """The column of the time, or several that make it up from the largest unit down (year, month, day, hour). Empty: rows
    are in order."""
    targets: tuple[str, ...] = ()
    """Columns to predict; empty: all numbers."""
    drop: tuple[str, ...] = ()
    """Columns to leave out."""
    history: Count = 96
    """Rows that are read."""
    horizon: Count = 24
    """Rows that are predicted."""
    missing: Literal["forward", "linear", "drop"] = "linear"
    """A missing number: the last known one, a line between its neighbours, or no window over it. A target that was filled
    is never scored or learned from."""
    calendar: bool = False
    """Also the hour, weekday and month as sines and cosines (needs time)."""
    validation: Annotated[float, Field(ge=0)] = 0.1
    """Share of the rows for validation, after the training rows; or their number when above 1."""
    test: Annotated[float, Field(ge=0)] = 0.2
    """The same for the test rows, the last."""
    rows: Annotated[int, Field(ge=0)] = 0
    """Only the first rows, as some published splits have it; 0: all."""

    def files(self) -> list[Path]:
        """The source files."""
        return source_files(self.path, ENDINGS)

    def table(self, intake: Intake, most: int | None = None) -> tuple[list[str], Floats, list[str]]:
        """(variable names, (N, V) numbers with NaN, row names) in order of time."""
        rows = read(self.files(), (), 0, intake, most)
        for setting in ("time", "targets", "drop"):
            for name in getattr(self, setting):
                if name not in rows.names:
                    raise UserError(
                        f"data.{setting}", f"must name columns of the data ({', '.join(rows.names[:20])})", got=name
                    )
        order = in_time(rows, self.time, intake)
        columns = {
            n: [rows.values[i][rows.names.index(n)] for i in order]
            for n in rows.names
            if n not in (*self.time, *self.drop)
        }
        names: list[str] = []
        numbers: list[Floats] = []
        for name, values in columns.items():
            found = np.array([number(None if v is None or v in MISSING else v) for v in values])
            words = sorted({v for v in values if v is not None and v not in MISSING and math.isnan(number(v))})
            if not words:
                names.append(name)
                numbers.append(found)
            elif len(words) <= MAX_WORDS and name not in self.targets:
                for word in words:
                    names.append(f"{name}={word}")
                    numbers.append(np.array([float(v == word) for v in values]))
            else:
                raise UserError(
                    f"data: column {name}",
                    "must hold numbers, or few different words",
                    got=words[0],
                    fix="name it in data.drop",
                )
        if self.calendar:
            parts = calendar(rows, self.time, order)
            names += parts
            numbers += parts.values()
        places = [rows.places[i] for i in order]
        return names, np.stack(numbers, 1), places

    def expected(self) -> dict[str, Any]:
        """From the first rows."""
        names, _, _ = self.table(Intake(), 5000)
        return self.features(names, np.zeros(len(names)), np.ones(len(names)))

    def features(self, names: list[str], mean: Floats, std: Floats) -> dict[str, Any]:
        """What models and tasks must know."""
        targets = list(self.targets) or [n for n in names if "=" not in n and " sin" not in n and " cos" not in n]
        at = [names.index(n) for n in targets]
        transform = {"kind": "standard", "mean": mean[at].tolist(), "std": std[at].tolist()}
        return {
            "n_variables": len(names), "names": names, "history": self.history, "horizon": self.horizon, "targets": targets,
            "target_columns_in_history": at, "target_transform": transform,
        }  # fmt: skip

    def prepare(self, folder: Path, seed: int, progress: Progress) -> DataCard:
        """Read, order, fill, scale by the training rows, cut into splits; validation and test look back into the past."""
        intake = Intake()
        names, values, places = self.table(intake)
        if self.rows:
            intake.notes[f"only the first {self.rows:,} rows are used, as data.rows says"] += 1
            values, places = values[: self.rows], places[: self.rows]
        n = len(values)
        n_test, n_validation = (round(s * n) if s <= 1 else round(s) for s in (self.test, self.validation))
        ends = [n - n_test - n_validation, n - n_test, n]
        if ends[0] < self.history + self.horizon:
            fix = "give more rows, a shorter history, or smaller splits"
            raise UserError("data", f"must leave {self.history + self.horizon} training rows", got=ends[0], fix=fix)
        known = ~np.isnan(values)
        filled = fill(values, self.missing)
        mean, std = np.nanmean(filled[: ends[0]], 0), np.nanstd(filled[: ends[0]], 0)
        std = np.where(std > 0, std, 1.0)
        scaled = ((filled - mean) / std).astype(np.float32)
        features = self.features(names, mean, std)
        cards, hashes, start = {}, [], 0
        for side, end in zip(NAMES, ends, strict=True):
            first = start if side == "train" else max(0, start - self.history)
            starts = windows(known[first:end], scaled[first:end], features, self.missing)
            if end > start and len(starts):
                named = np.frombuffer("\n".join(places[first:end]).encode(), np.uint8)
                arrays = {"values": scaled[first:end], "known": known[first:end], "starts": starts, "names": named}
                hashes.append(write_arrays(folder, side, arrays))
                cards[side] = SplitCard(
                    n_samples=len(starts), n_targets=len(starts) * self.horizon * len(features["targets"])
                )
            start = end
        used = n
        if len(places) < intake.n_in - sum(intake.reasons.values()):
            intake.reasons["after data.rows"] += intake.n_in - sum(intake.reasons.values()) - n
        write_json(folder / "preprocessing.json", {"names": names, "mean": mean.tolist(), "std": std.tolist()})
        write_rejected(folder, intake.rejected)
        n_filled = int((~known).sum())
        warnings = (f"{n_filled:,} of {known.size:,} numbers were missing ({self.missing}).",) if n_filled else ()
        card = DataCard(
            kind=self.kind, source=self.path, rows_in=intake.n_in, rows_used=used, rows_rejected=dict(intake.reasons), splits=cards,
            stations=(StationCard(name="read", n_in=intake.n_in, n_dropped=dict(intake.reasons), examples=tuple(intake.rejected[:5])),),
            features=features, warnings=(*warnings, *intake.notes), fingerprint=fingerprint([hashes, self.model_dump(mode="json")]),
        )  # fmt: skip
        write_json(folder / "card.json", card.model_dump(mode="json"))
        return card

    def open(self, folder: Path, card: DataCard, split: str) -> SeriesSplit:
        """A prepared split."""
        found = {name: np.asarray(array) for name, array in read_arrays(folder, split).items()}
        return SeriesSplit(found, card.features, found["names"].tobytes().decode().split("\n"))

    def read(self, folder: Path, card: DataCard, inputs: Sequence[Any]) -> SeriesSplit:
        """Paths of files in the training file's form: what follows each one's last rows is predicted."""
        fitted, features = read_json(folder / "preprocessing.json"), card.features
        blocks, places = [], []
        for given in inputs:
            source = self.model_copy(update={"path": str(given)})
            names, values, _ = source.table(Intake())
            missing = sorted(set(fitted["names"]) - set(names))
            if missing and not all("=" in name for name in missing):
                raise UserError(str(given), f"needs the column {missing[0]}", got=", ".join(names[:12]))
            if len(values) < self.history:
                raise UserError(str(given), f"must hold at least {self.history} rows", got=len(values))
            whole = np.stack(
                [values[:, names.index(n)] if n in names else np.zeros(len(values)) for n in fitted["names"]], 1
            )
            scaled = (fill(whole, "linear")[-self.history :] - np.array(fitted["mean"])) / np.array(fitted["std"])
            blocks.append(np.concatenate([scaled, np.zeros((self.horizon, scaled.shape[1]))]))
            places += [f"{Path(given).name}, last rows"] + [""] * (len(blocks[-1]) - 1)
        values = (
            np.concatenate(blocks).astype(np.float32) if blocks else np.zeros((0, len(fitted["names"])), np.float32)
        )
        known = np.zeros(values.shape, bool)
        starts = np.arange(len(blocks)) * (self.history + self.horizon)
        return SeriesSplit({"values": values, "known": known, "starts": starts}, features, places)


class SeriesSplit:
    """Rows (N, V) and where each window starts."""

    def __init__(self, arrays: dict[str, NDArray[Any]], features: dict[str, Any], places: list[str]) -> None:
        self.values, self.known, self.starts = arrays["values"], arrays["known"], arrays["starts"]
        self.history, self.horizon, self.places = features["history"], features["horizon"], places
        self.columns = np.array(features["target_columns_in_history"])
        self.before, self.after = np.arange(self.history), self.history + np.arange(self.horizon)

    def __len__(self) -> int:
        return len(self.starts)

    def batch(self, rows: NDArray[np.int64], seeds: Any = None) -> Batch:
        """{"history" (B, L, V), "targets" (B, H, K), "known" (B, H, K): which targets were there}."""
        import torch

        starts = self.starts[rows][:, None]
        ahead = starts + self.after
        targets = self.values[ahead][..., self.columns]
        known = self.known[ahead][..., self.columns]
        tensors = {
            "history": torch.from_numpy(self.values[starts + self.before]),
            "targets": torch.from_numpy(targets),
            "known": torch.from_numpy(known),
        }
        counts = known.sum((1, 2))
        return Batch(tensors, int(counts.sum()), row_targets=counts)

    def name(self, row: int) -> str:
        """The place of the first row that is predicted."""
        at = int(self.starts[row]) + self.history
        return self.places[at] if at < len(self.places) and self.places[at] else self.places[int(self.starts[row])]


def in_time(rows: Rows, time: Sequence[str], intake: Intake) -> list[int]:
    """Rows in ascending order; rows without a time and repeated moments are left out, by name."""
    if not time:
        return list(range(len(rows.values)))
    at = [rows.names.index(name) for name in time]
    keys: list[tuple[tuple[float, ...], int]] = []
    for i, row in enumerate(rows.values):
        key = moment([row[j] for j in at])
        if any(math.isnan(k) for k in key):
            intake.reject(rows.places[i], "no time", str(row))
        else:
            keys.append((key, i))
    keys.sort()
    kept: list[int] = []
    last: tuple[float, ...] | None = None
    for key, i in keys:
        if key == last:
            intake.reject(rows.places[i], "a moment that was there already", str(rows.values[i]))
        else:
            kept.append(i)
        last = key
    return kept


def moment(fields: Sequence[str | None]) -> tuple[float, ...]:
    """What rows are ordered by."""
    if len(fields) == 1 and (found := date(fields[0])) is not None:
        return (found.timestamp(),)
    return tuple(number(field) for field in fields)


def calendar(rows: Rows, time: Sequence[str], order: Sequence[int]) -> dict[str, Floats]:
    """Sines and cosines of hour, weekday and month."""
    from datetime import datetime

    if not time:
        raise UserError("data.calendar", "needs data.time", fix="name the column of the time")
    at = [rows.names.index(name) for name in time]
    stamps = []
    for i in order:
        fields = [rows.values[i][j] for j in at]
        found = date(fields[0]) if len(fields) == 1 else None
        stamps.append(found or datetime(*(int(number(f)) for f in fields[:5])))  # type: ignore[arg-type]
    parts = {
        "hour": ([s.hour for s in stamps], 24),
        "weekday": ([s.weekday() for s in stamps], 7),
        "month": ([s.month - 1 for s in stamps], 12),
    }
    angles = {name: 2 * np.pi * np.array(values) / cycle for name, (values, cycle) in parts.items()}
    return {f"{n} {w}": f(a) for n, a in angles.items() for w, f in (("sin", np.sin), ("cos", np.cos))}


def fill(values: Floats, how: str) -> Floats:
    """(N, V) without NaN: each column from its own past (forward) or from both sides (linear); leading gaps from the
    first known value."""
    filled = values.copy()
    for column in filled.T:
        known = np.flatnonzero(~np.isnan(column))
        if not len(known):
            column[:] = 0.0
        elif how == "forward":
            last = known[np.maximum(np.searchsorted(known, np.arange(len(column)), side="right") - 1, 0)]
            column[:] = column[last]
        else:
            column[:] = np.interp(np.arange(len(column)), known, column[known])
    return filled


def windows(
    known: NDArray[np.bool_], values: NDArray[Any], features: dict[str, Any], missing: str
) -> NDArray[np.int64]:
    """(W,) starts of the windows: with a known target, and without any gap where missing = "drop"."""
    length = features["history"] + features["horizon"]
    n = len(values) - length + 1
    if n < 1:
        return np.zeros(0, np.int64)
    targets = known[:, features["target_columns_in_history"]].any(1)
    ahead = np.concatenate([[0], np.cumsum(targets)])
    starts = np.arange(n)
    keep = ahead[starts + length] > ahead[starts + features["history"]]
    if missing == "drop":
        whole = np.concatenate([[0], np.cumsum(known.all(1))])
        keep &= whole[starts + length] - whole[starts] == length
    return np.asarray(starts[keep])
