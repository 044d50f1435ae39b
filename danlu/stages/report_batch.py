"""How large may the batch be? in the report: what danlu batch found, and the gradient noise scale that training measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from danlu.planning.evidence import points
from danlu.planning.noise_scale import NoiseScale, by_length, noise_scale, read
from danlu.stages.report_drawings import drawing
from danlu.stages.report_html import Html, duration, join, number, tag

GROUPS = 8
"""Of the steps whose gradient noise was measured: one point each in the drawing."""


class Reading(BaseModel):
    """A part of batch/result.json: what is not known here is left alone."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class BranchRow(Reading):
    """One batch."""

    batch: int
    rate: float | None = None
    above: float | None = None
    error: float | None = None
    step_s: float | None = None
    per_s: float | None = None


class BatchCost(Reading):
    """What it took."""

    seconds: float = 0.0


class BatchRecord(Reading):
    """batch/result.json, as far as the report shows it."""

    verdict: str
    notes: tuple[str, ...] = ()
    planned: int = 0
    after: int = 0
    n_samples: int = 0
    rows: tuple[BranchRow, ...] = ()
    decisions: tuple[dict[str, Any], ...] = ()
    cost: BatchCost = BatchCost()


def how_large(found: BatchRecord) -> Html:
    """What the branches came to."""
    grown = f"After {found.after:,} samples, {found.n_samples:,} more in each batch, the same ones; {duration(found.cost.seconds)} in all."
    head = tag(
        "tr",
        *(
            tag("th", words)
            for words in ("batch", "learning rate", "loss above the smallest's", "an update", "samples/s")
        ),
    )
    rows = [
        tag("tr", tag("th", f"{row.batch} (planned)" if row.batch == found.planned else str(row.batch)), *(tag("td", cell) for cell in (
            "" if row.rate is None else number(row.rate, 3), above(row), "" if row.step_s is None else duration(row.step_s),
            "" if row.per_s is None else number(row.per_s, 3),
        )))
        for row in found.rows
    ]  # fmt: skip
    table = tag("div", tag("table", tag("thead", head), tag("tbody", *rows), class_="parts splits"), class_="scroll")
    drawn = [drawing(decision.get("evidence", {})) for decision in found.decisions[:1]]
    notes = [tag("p", note) for note in found.notes]
    return join(tag("p", tag("b", found.verdict)), *notes, tag("p", grown, class_="note"), table, *drawn)


def above(row: BranchRow) -> str:
    """Loss more than the smallest batch's, with its standard error."""
    if row.above is None:
        return "diverged"
    return f"{row.above:+.2%}" + (f" ± {row.error:.2%}" if row.error else "")


def noise(rows: Sequence[tuple[int, Any]]) -> Html | None:
    """The noise scale over a run, from (step, what the log says of the gradient noise); None without two updates that say it."""
    known = [(step, entry) for step, entry in rows if is_whole(entry)]
    if len(known) < 2:
        return None
    size = max(2, -(-len(known) // GROUPS))
    found = [(group[-1][0], scale_of(group)) for i in range(0, len(known), size) if (group := known[i : i + size])]
    shown = [(step, scale.value) for step, scale in found if math.isfinite(scale.value) and scale.value > 0]
    last = scale_of(known[len(known) // 2 :])
    if not math.isfinite(last.value):
        said = f"In the second half of training the gradient is lost in its noise ({last.n_steps} updates): no noise scale was found."
        return tag("p", said) if shown else None
    ends = f"{number(last.low, 3)} to {number(last.high, 3) if math.isfinite(last.high) else 'no upper end'}"
    said = (
        f"Gradient noise scale in the second half of training: {number(last.value, 3)} samples (95%: {ends}; {last.n_steps} updates, "
        f"{last.metric} length). An update of so many samples needs twice the samples of a small one for the same loss."
    )
    return join(tag("p", said), drawing(points("step", "gradient noise scale, samples", shown, log="y")))


def is_whole(entry: Any) -> bool:
    """Whether a row of the log says noise and signal of each length."""
    parts = list(entry.values()) if isinstance(entry, dict) else []
    return bool(parts) and all(isinstance(p, dict) and {"noise", "signal"} == set(p) for p in parts)


def scale_of(rows: Sequence[tuple[int, Any]]) -> NoiseScale:
    """Of some updates."""
    metric, samples = by_length(read([{"gradient_noise": entry} for _, entry in rows]))
    return noise_scale(samples, metric=metric)


def batch(record: BatchRecord | None, rows: Sequence[tuple[int, Any]]) -> Html | None:
    """The section."""
    parts = (how_large(record) if record else None, noise(rows))
    return join(*parts) if any(part is not None for part in parts) else None
