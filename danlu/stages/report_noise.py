"""How much is chance? in the report: what danlu noise found, with the loss of every seed drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from danlu.planning.evidence import points
from danlu.planning.noise_told import percent
from danlu.stages.report_drawings import drawing
from danlu.stages.report_html import Html, duration, join, tag

STRIP_NOTE = "A point a run, in the order of their seeds; the line is the mean, the band one sd to each side. A cross at the top diverged."


class Reading(BaseModel):
    """A part of noise/result.json: what is not known here is left alone."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class SeedRow(Reading):
    """One run."""

    seed: int
    loss: float | None = None


class SeedSpread(Reading):
    """Relative sd over seeds, and its interval."""

    sd: float | None = None
    low: float | None = None
    high: float | None = None


class ResolvedRow(Reading):
    """What n runs an arm tell apart."""

    n: int
    same: float | None = None
    other: float | None = None


class NoiseCost(Reading):
    """What it took."""

    runs: int = 0
    seconds: float = 0.0


class NoiseRecord(Reading):
    """noise/result.json, as far as the report shows it."""

    verdict: str
    notes: tuple[str, ...] = ()
    n_steps: int = 0
    losses: tuple[SeedRow, ...] = ()
    seed: SeedSpread = SeedSpread()
    evaluation: float | None = None
    paired: float | None = None
    resolves: tuple[ResolvedRow, ...] = ()
    cost: NoiseCost = NoiseCost()


def how_much_is_chance(found: NoiseRecord) -> Html:
    """The section."""
    cost = f"{found.cost.runs:,} runs of {found.n_steps:,} steps in {duration(found.cost.seconds)}"
    noises = rows(("noise of", "relative sd", "95%"), sources(found))
    told = [(str(row.n), percent(row.same), percent(row.other)) for row in found.resolves]
    apart = rows(("runs an arm", "tell apart, on this split", "on others too"), told)
    notes = [tag("p", note, class_="note") for note in found.notes]
    return join(tag("p", tag("b", found.verdict)), tag("p", cost, class_="note"), noises, strip(found), apart, *notes)


def sources(found: NoiseRecord) -> list[tuple[str, str, str]]:
    """(what, relative sd, interval) of each noise."""
    seed = found.seed
    interval = "" if seed.sd is None else f"{percent(seed.low)} to {percent(seed.high)}"
    return [
        ("another seed", percent(seed.sd), interval),
        ("another validation split", percent(found.evaluation), ""),
        ("another split, in the difference of two runs", percent(found.paired), ""),
    ]


def rows(heads: Sequence[str], body: Sequence[Sequence[str]]) -> Html:
    """A table whose rows are named by their first cell."""
    head = tag("tr", *(tag("th", words) for words in heads))
    filled = [tag("tr", tag("th", row[0]), *(tag("td", cell) for cell in row[1:])) for row in body]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *filled), class_="parts splits"), class_="scroll")


def strip(found: NoiseRecord) -> Html | None:
    """The loss of every seed, with their mean and sd."""
    known = [row.loss for row in found.losses if row.loss is not None]
    measured = [(i, math.nan if row.loss is None else row.loss) for i, row in enumerate(found.losses, 1)]
    curve = []
    if found.seed.sd is not None and known:
        mean = sum(known) / len(known)
        sd = found.seed.sd * abs(mean)
        curve = [(x, mean, mean - sd, mean + sd) for x in (0.5, len(measured) + 0.5)]
    return drawing(points("run", "validation loss", measured, curve=curve, note=STRIP_NOTE))
