"""Which of these? in the report: what danlu tune found, with the differences of the pairs and their interval drawn."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict

from danlu.stages.report_drawings import axes, band, frame, line
from danlu.stages.report_html import Html, duration, join, number, tag


class Reading(BaseModel):
    """A part of tune/result.json: what is not known here is left alone."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ArmRow(Reading):
    """One arm."""

    name: str
    lr: float | None = None
    mean: float | None = None
    values: tuple[float, ...] = ()
    step_s: float | None = None


class ComparisonRow(Reading):
    """One arm against the default; improvements in units of the metric."""

    arm: str
    found: str
    sentence: str
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    base: float = 1.0
    level: float = 0.05
    differences: tuple[float, ...] = ()


class TuneCost(Reading):
    """What it took."""

    runs: int = 0
    seconds: float = 0.0


class TuneRecord(Reading):
    """tune/result.json, as far as the report shows it."""

    metric: str
    default: str
    verdict: str
    n_steps: int = 0
    cost: TuneCost = TuneCost()
    arms: tuple[ArmRow, ...] = ()
    comparisons: tuple[ComparisonRow, ...] = ()
    notes: tuple[str, ...] = ()


def which_of_these(found: TuneRecord) -> Html:
    """The section."""
    cost = f"{found.cost.runs:,} runs of {found.n_steps:,} steps in {duration(found.cost.seconds)}"
    notes = [tag("p", note, class_="note") for note in found.notes]
    drawn = [tag("article", comparison(row, found), class_="wide") for row in found.comparisons]
    return join(tag("p", tag("b", found.verdict)), tag("p", cost, class_="note"), arms(found), *drawn, *notes)


def arms(found: TuneRecord) -> Html:
    """Every arm: its metric, seeds, rate and speed."""
    head = tag("tr", *(tag("th", words) for words in ("arm", found.metric, "seeds", "learning rate", "a step")))
    diverged = {row.arm for row in found.comparisons if row.found == "diverged"}
    rows = [
        tag("tr", tag("th", f"{arm.name} (default)" if arm.name == found.default else arm.name), *(tag("td", cell) for cell in (
            number(arm.mean) if arm.mean is not None else "diverged" if arm.name in diverged else "not run", str(len(arm.values)),
            "" if arm.lr is None else number(arm.lr, 3), "" if arm.step_s is None else duration(arm.step_s),
        )))
        for arm in found.arms
    ]  # fmt: skip
    return tag("div", tag("table", tag("thead", head), tag("tbody", *rows), class_="parts splits"), class_="scroll")


def comparison(row: ComparisonRow, found: TuneRecord) -> Html:
    """What was found of one arm, in words and drawn: a point a pair, the mean, the interval of the mean."""
    words = tag("div", tag("h3", f"{row.arm}: {row.found}"), tag("p", row.sentence))
    shares = [100 * d / row.base for d in row.differences if math.isfinite(d)] if row.base else []
    if row.mean is None or not shares:
        return words
    ends = [100 * end / row.base for end in (row.low, row.high) if end is not None]
    x, y = axes([0.5, len(shares) + 0.5], [*shares, *ends, 0.0])
    left, right, middle = x.at(0.5), x.at(len(shares) + 0.5), y.at(100 * row.mean / row.base)
    parts = [line(left, right, y.at(0.0), y.at(0.0), "picked"), line(left, right, middle, middle, "fit")]
    if len(ends) == 2:
        parts.append(band([[0.5, 0.0, *ends], [len(shares) + 0.5, 0.0, *ends]], x, y))
    parts += [f'<circle cx="{x.at(i)}" cy="{y.at(d)}" r="3.4" class="point"/>' for i, d in enumerate(shares, 1)]
    note = f"A point a pair of runs with the same seed; the band holds the mean at {100 - 100 * row.level:.3g}%."
    drawn = frame("pair", f"{found.metric}: % better than {found.default}", (x, y), "".join(parts))
    return join(words, tag("figure", drawn, tag("figcaption", note, class_="note"), class_="evidence"))
