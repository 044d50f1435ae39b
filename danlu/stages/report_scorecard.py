"""The section that holds each prediction against what came: intervals drawn, misses told."""

from __future__ import annotations

import math
from collections.abc import Iterator

from danlu.stages.report_evidence import Evidence, ScoredRow
from danlu.stages.report_html import Html, duration, fixed, join, size, tag

WORDS = {
    "final_loss": "loss of the final model",
    "validation_loss": "validation loss at the end",
    "train_s": "training time",
    "step_s": "time of a step",
    "peak_bytes": "memory at its peak",
    "n_steps": "updates",
}
"""What the usual predictions are called."""
HEADS = ("predicted", "80% interval", "and 95%", "came to", "error", "in 80%", "in 95%")
"""Columns after the name; the third is drawn, with the outcome; the last four once there is one."""
STRIP = 150.0
"""Width of the drawing of an interval."""


def scorecard(evidence: Evidence) -> Html | None:
    """The table; before the run is scored, what is predicted."""
    rows = evidence.predicted
    if not rows:
        return None
    heads = HEADS if evidence.scorecard else HEADS[:3]
    head = tag("tr", *(tag("th", words, scope="col") for words in ("what", *heads)))
    body = [line(row, heads, several=len({r.made for r in rows}) > 1) for row in rows]
    table = tag("table", tag("thead", head), tag("tbody", *body), class_="scorecard")
    notes = [tag("li", note) for note in (evidence.scorecard.notes if evidence.scorecard else ())]
    lead = tag("p", told(evidence), class_="note")
    warned = tag("ul", *notes, class_="warned") if notes else None
    return join(lead, warned, table)


def told(evidence: Evidence) -> str:
    """One sentence before the table."""
    card = evidence.scorecard
    if card is None:
        return "Written down before training; the outcome is held against it when the run is scored."
    judged = [row for row in card.scores if row.inside80 is not None]
    if not judged:
        return "Nothing was predicted that this run can be held against."
    inside = sum(bool(row.inside80) for row in judged)
    return (
        f"{inside} of {len(judged)} predictions came inside their 80% interval (four of five should in the long run). "
        "They were hashed when they were made; past runs on this machine widen or narrow the next ones' intervals."
    )


def line(row: ScoredRow, heads: tuple[str, ...], several: bool) -> Html:
    """One prediction; on a narrow screen each cell carries its column's name."""
    when = f"{row.made}: " if several else ""
    name = tag("th", named(row.name), tag("small", f"{when}{row.why}"), scope="row")
    like = row.value if row.value is not None else row.outcome
    cells = [
        tag("b", shown(row.value, row.unit, row.value)) if row.value is not None else tag("em", "don't know"),
        interval(row),
        strip(row),
        shown(row.outcome, row.unit, like or 0.0) if row.outcome is not None else "not measured",
        error(row),
        verdict(row.inside80),
        verdict(row.inside95),
    ]
    return tag("tr", name, *(tag("td", cell, data_head=of) for of, cell in zip(heads, cells, strict=False)))


def named(name: str) -> str:
    """What a prediction is called on the page."""
    return WORDS.get(name, name.replace("_", " "))


def interval(row: ScoredRow) -> str:
    """The 80% interval."""
    if row.low80 is None or row.high80 is None or row.value is None:
        return ""
    if row.low80 == row.high80:
        return "exact"
    return " to ".join(shown(end, row.unit, row.value) for end in (row.low80, row.high80))


def shown(value: float, unit: str, like: float) -> str:
    """A value with its unit, as many digits as `like` asks for."""
    if unit == "s":
        return duration(value)
    if unit == "bytes":
        return size(value)
    return f"{round(value):,}" if unit == "steps" else fixed(value, like)


def error(row: ScoredRow) -> str:
    """+3.2% of the predicted value, "107 times", or a difference where there is no share."""
    if row.error is None:
        return ""
    if row.is_relative and row.error > 1:
        return f"{1 + row.error:.3g} times"
    return f"{row.error:+.1%}" if row.is_relative else f"{row.error:+.3g}"


def verdict(inside: bool | None) -> Html | None:
    """Yes or no, by a word as well as by colour."""
    return None if inside is None else Html("yes") if inside else tag("strong", "no")


def strip(row: ScoredRow) -> Html | None:
    """The 95% interval as a thin line, the 80% interval as a thick one, the predicted value and the outcome on it."""
    bounds = [row.low95, row.low80, row.value, row.high80, row.high95]
    known = [b for b in bounds if b is not None]
    if len(known) < len(bounds) or known[0] == known[-1]:
        return None
    outcome = row.outcome if row.outcome is not None and math.isfinite(row.outcome) else None
    every = [*known, *([outcome] if outcome is not None else [])]
    is_log = min(every) > 0
    places = [math.log(v) if is_log else v for v in every]
    low, high = min(places), max(places)
    at = [round(6 + (p - low) / (high - low) * (STRIP - 12), 1) for p in places]
    shapes = [
        f'<line x1="{at[0]}" x2="{at[4]}" y1="9" y2="9" class="outer"/>',
        f'<line x1="{at[1]}" x2="{at[3]}" y1="9" y2="9" class="inner"/>',
        f'<line x1="{at[2]}" x2="{at[2]}" y1="4" y2="14" class="middle"/>',
    ]
    if outcome is not None:
        class_ = "came" if row.inside80 else "came out"
        shapes.append(f'<circle cx="{at[5]}" cy="9" r="4.5" class="{class_}"/>')
    label = (
        "The outcome lies " + ("in" if row.inside80 else "outside") + " the 80% interval" if outcome is not None else ""
    )
    return tag(
        "svg", Html("".join(shapes)), viewBox=f"0 0 {STRIP:.0f} 18", class_="strip", role="img", aria_label=label
    )


def misses(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """(tone, sentence) for what stands out: outcomes beyond their 95% interval, a plan that proves nothing."""
    card = evidence.scorecard
    if card is None:
        return
    for row in card.scores:
        if row.inside95 is False and row.value is not None and row.outcome is not None:
            name = named(row.name)
            came, said = (shown(v, row.unit, row.value) for v in (row.outcome, row.value))
            yield "warn", f"{name[0].upper()}{name[1:]} came to {came}, beyond the 95% interval around {said}."
    for note in card.notes:
        yield "warn" if "prove" in note else "plain", note
