"""train/metrics.jsonl -> a few hundred points per curve, whatever the number of steps.

Every bucket keeps its mean, lowest and highest value, so a spike of one step stays visible in a million. Bucket
edges are spaced evenly and also geometrically, so both the linear and the logarithmic view are sharp.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PARTS = ("data", "forward", "backward", "optimizer", "checkpoint", "evaluate", "other")
"""Where a step's seconds go, in the order they are drawn."""
SCALARS = ("step", "loss", "lr", "grad_norm", "n_targets", "elapsed_s", "per_s")
SIGNALS = ("grad_norm", "update_ratio", "dead_frac")
"""Per-layer signals, each drawn as one heat map."""
N_EVEN, N_GEOMETRIC, N_COLUMNS, N_VALIDATIONS, N_EVENTS = 700, 250, 160, 600, 200
"""Most buckets by each spacing, heat-map columns, validation points and events that the page shows."""
TROUBLE = (
    "alarm",
    "spike",
    "skip",
    "not finite",
    "vanish",
    "explod",
    "dead",
    "full",
    "fail",
    "roll",
    "aside",
    "cannot",
    "passed",
)
"""Words of sentences that tell of something gone wrong."""

Floats = NDArray[np.float64]


@dataclass
class Thinned:
    """Keeps at most 2 * `limit` items of a stream, evenly spread: at the brim, every other one is dropped."""

    limit: int
    items: list[tuple[int, float, Any]] = field(default_factory=list)
    stride: int = 1
    n_seen: int = 0

    def add(self, step: int, elapsed_s: float, value: Any) -> None:
        """Offer one item of the stream."""
        if self.n_seen % self.stride == 0:
            self.items.append((step, elapsed_s, value))
            if len(self.items) >= 2 * self.limit:
                self.items, self.stride = self.items[::2], self.stride * 2
        self.n_seen += 1

    def cut(self, step: int) -> None:
        """Forget items at `step` or later (a resume wrote those steps again)."""
        while self.items and self.items[-1][0] >= step:
            self.items.pop()


@dataclass
class Training:
    """All that metrics.jsonl says, as columns (one entry a step) and short lists."""

    columns: dict[str, array[float]] = field(default_factory=lambda: {name: array("d") for name in SCALARS})
    times: dict[str, array[float]] = field(default_factory=lambda: {name: array("d") for name in PARTS})
    validations: Thinned = field(default_factory=lambda: Thinned(N_VALIDATIONS))
    layers: Thinned = field(default_factory=lambda: Thinned(N_COLUMNS))
    noises: Thinned = field(default_factory=lambda: Thinned(N_COLUMNS))
    """What measured updates say of their gradient noise."""
    events: list[tuple[int, float, str]] = field(default_factory=list)
    best: tuple[int, float] | None = None
    """(step, validation loss) of the lowest validation."""
    last: tuple[int, float] | None = None
    """(step, validation loss) of the latest validation."""
    n_broken: int = 0
    """Lines that are not JSON objects (a run killed while writing leaves at most one)."""

    @property
    def n_steps(self) -> int:
        """Completed updates."""
        steps = self.columns["step"]
        return int(steps[-1]) if steps else 0

    def column(self, name: str) -> Floats:
        """One scalar over all rows, float64; NaN where a row lacks it or it is not finite."""
        values = np.asarray(self.columns[name], dtype=np.float64)
        return np.where(np.isfinite(values), values, np.nan)

    def seconds_by_part(self) -> dict[str, float]:
        """Total seconds of each part, largest first, parts that took nothing left out."""
        totals = {name: float(np.nansum(np.asarray(values))) for name, values in self.times.items()}
        return dict(sorted(((n, t) for n, t in totals.items() if t > 0), key=lambda pair: -pair[1]))

    def add(self, row: Mapping[str, Any]) -> None:
        """Take one row; a step seen before replaces what followed it, a row with no step adds to the one before."""
        steps = self.columns["step"]
        step = row.get("step", self.n_steps)
        if "step" not in row:
            self.note(step, row)
            return
        if steps and step <= steps[-1]:
            self.cut(step)
        for name, values in self.columns.items():
            values.append(number_or_nan(row.get(name)))
        times = row.get("times") or {}
        for name, values in self.times.items():
            values.append(number_or_nan(times.get(name, 0.0)))
        elapsed = self.columns["elapsed_s"][-1]
        if validation := row.get("validation"):
            self.validations.add(step, elapsed, validation)
            loss = number_or_nan(validation.get("loss"))
            self.last = (step, loss)
            if self.best is None or loss < self.best[1]:
                self.best = (step, loss)
        if layers := row.get("layers"):
            self.layers.add(step, elapsed, layers)
        if noise := row.get("gradient_noise"):
            self.noises.add(step, elapsed, noise)
        self.note(step, row)

    def note(self, step: int, row: Mapping[str, Any]) -> None:
        """Keep the row's sentences."""
        elapsed = self.columns["elapsed_s"][-1] if self.columns["step"] else 0.0
        self.events.extend((step, elapsed, str(event)) for event in row.get("events") or ())

    def cut(self, step: int) -> None:
        """Drop `step` and all after it, except events: that the run went back is part of its story."""
        while self.columns["step"] and self.columns["step"][-1] >= step:
            for values in (*self.columns.values(), *self.times.values()):
                values.pop()
        self.validations.cut(step)
        self.layers.cut(step)
        self.noises.cut(step)


def number_or_nan(value: Any) -> float:
    """A JSON number as float; anything else is NaN."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def read_training(path: Path) -> Training | None:
    """The whole of metrics.jsonl, streamed; None where there is no step yet."""
    if not path.is_file():
        return None
    training = Training()
    for row in rows(path):
        if row is None:
            training.n_broken += 1
        else:
            training.add(row)
    return training if training.n_steps else None


def rows(path: Path) -> Iterator[dict[str, Any] | None]:
    """Each line as an object; None for a line that is not one, or whose step is not a count."""
    with path.open("r", encoding="utf-8", errors="replace") as file:
        for line in file:
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            good = isinstance(row, dict) and isinstance(row.get("step", 1), int) and row.get("step", 1) > 0
            yield row if good else None


def bucket_starts(n: int) -> NDArray[np.int64]:
    """First row of each bucket: all rows when they are few, else evenly and geometrically spaced edges."""
    if n <= N_EVEN + N_GEOMETRIC:
        return np.arange(n)
    edges = np.concatenate([np.linspace(0, n, N_EVEN + 1)[:-1], np.geomspace(1, n, N_GEOMETRIC)[:-1]])
    return np.unique(edges.astype(np.int64))


def smoothed(values: Floats) -> Floats:
    """Centred moving mean over 1% of the run, but never wider than a tenth of the steps so far. NaN is skipped."""
    n = len(values)
    index = np.arange(n)
    half = np.ceil(np.minimum(0.01 * n, 0.1 * index)).astype(np.int64)
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, n)
    good = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(good, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(good)])
    n_good = counts[high] - counts[low]
    return np.where(n_good > 0, (sums[high] - sums[low]) / np.maximum(n_good, 1), np.nan)


def bucket_means(values: Floats, starts: NDArray[np.int64]) -> Floats:
    """Mean of each bucket's finite values; NaN where there are none."""
    good = np.isfinite(values)
    sums = np.add.reduceat(np.where(good, values, 0.0), starts)
    counts = np.add.reduceat(good.astype(np.int64), starts)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def event_kind(text: str) -> str:
    """What a sentence in the log is about: trouble, saved, resumed or note. Picks its mark on the curve."""
    lowered = text.lower()
    if any(w in lowered for w in TROUBLE):
        return "trouble"
    if "resum" in lowered:
        return "resumed"
    return "saved" if "checkpoint" in lowered or "saved" in lowered else "note"


def curves(training: Training) -> dict[str, Any]:
    """What report.js draws: {"x": {..}, "loss": [..], ...}; NaN is null, numbers have five digits."""
    starts = bucket_starts(len(training.columns["step"]))
    ends = np.append(starts[1:], len(training.columns["step"])) - 1
    loss, norm = training.column("loss"), training.column("grad_norm")
    out: dict[str, Any] = {
        "step": training.column("step")[ends].astype(int).tolist(),
        "elapsed": plain(training.column("elapsed_s")[ends]),
        "loss": plain(smoothed(loss)[ends]),
        "loss_low": plain(np.fmin.reduceat(loss, starts)),
        "loss_high": plain(np.fmax.reduceat(loss, starts)),
        "lr": plain(training.column("lr")[ends]),
        "norm": plain(smoothed(norm)[ends]),
        "norm_low": plain(np.fmin.reduceat(norm, starts)),
        "norm_high": plain(np.fmax.reduceat(norm, starts)),
        "per_s": plain(bucket_means(training.column("per_s"), starts)),
        "times": {n: plain(bucket_means(np.asarray(v), starts)) for n, v in training.times.items() if any(v)},
    }
    points = training.validations.items
    out["validation"] = {
        "step": [p[0] for p in points],
        "elapsed": plain([p[1] for p in points]),
        "loss": plain([number_or_nan(p[2].get("loss")) for p in points]),
    }
    out["events"] = [[step, plain([at])[0], event_kind(text)] for step, at, text in shown_events(training)]
    out["layers"] = layer_maps(training.layers.items)
    return out


def shown_events(training: Training) -> list[tuple[int, float, str]]:
    """At most N_EVENTS events: troubles and resumes before checkpoints, then in order of step."""
    rank = {"trouble": 0, "resumed": 1, "note": 2, "saved": 3}
    chosen = sorted(training.events, key=lambda event: rank[event_kind(event[2])])[:N_EVENTS]
    return sorted(chosen, key=lambda event: event[0])


def layer_maps(items: list[tuple[int, float, Any]]) -> dict[str, Any]:
    """{"step": [..], "elapsed": [..], "maps": {signal: {"rows": [name], "values": [[row over steps]]}}}."""
    items = items[:: math.ceil(len(items) / N_COLUMNS)] if items else items
    names = list(dict.fromkeys(name for _, _, layers in items for name in layers))
    maps = {}
    for signal in SIGNALS:
        table = {n: [number_or_nan((layers.get(n) or {}).get(signal)) for _, _, layers in items] for n in names}
        measured = {n: plain(values) for n, values in table.items() if any(math.isfinite(v) for v in values)}
        if measured:
            maps[signal] = {"rows": list(measured), "values": list(measured.values())}
    return {"step": [i[0] for i in items], "elapsed": plain([i[1] for i in items]), "maps": maps}


def plain(values: Floats | list[float]) -> list[float | None]:
    """Floats ready for JSON: five significant digits, null where not finite."""
    return [float(f"{v:.5g}") if math.isfinite(v) else None for v in map(float, values)]
