"""What a decision of the plan rests on (planning/evidence.py), drawn as SVG: points with their fit, lines, bars. Nothing
here needs a script. Whatever a plan holds is shown: a form that is not known here becomes a list of its numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from danlu.stages.report_html import Html, join, number, tag

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460.0, 264.0, 54.0, 14.0, 32.0, 40.0
N_SHOWN = 40
"""Numbers of an unknown form that are listed."""
Rows = list[list[float]]


class Axis:
    """Data to drawing along one direction."""

    def __init__(self, values: Sequence[float], is_log: bool, start: float, end: float) -> None:
        found = [v for v in values if math.isfinite(v) and (v > 0 or not is_log)]
        self.is_log, self.start, self.end = is_log, start, end
        low, high = (min(found), max(found)) if found else (1.0, 2.0)
        low, high = self.scale(low), self.scale(high)
        room = 0.06 * (high - low) or 0.1 * abs(low) or 0.5
        self.low, self.high = low - room, high + room

    def scale(self, value: float) -> float:
        """Logarithm on a logarithmic axis."""
        return math.log10(value) if self.is_log else value

    def holds(self, value: float) -> bool:
        """Whether the value can be drawn."""
        return math.isfinite(value) and (value > 0 or not self.is_log)

    def at(self, value: float) -> float:
        """Its place, to a tenth of a unit."""
        share = (self.scale(value) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        """About five round values: 1, 2 or 5 times a power of ten, on both kinds of axis."""
        if self.is_log:
            decades = range(math.floor(self.low), math.ceil(self.high) + 1)
            for digits in ((1,), (1, 3), (1, 2, 5)):
                found = [d * 10.0**e for e in decades for d in digits if self.low <= math.log10(d) + e <= self.high]
                if len(found) >= 3:
                    return found[:: math.ceil(len(found) / 6)]
        raw = (10**self.high - 10**self.low if self.is_log else self.high - self.low) / 6
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
        first, last = (10**self.low, 10**self.high) if self.is_log else (self.low, self.high)
        return [i * step for i in range(math.ceil(first / step), math.floor(last / step) + 1)]


def drawing(evidence: Mapping[str, Any]) -> Html | None:
    """All drawings of one decision; None where there is nothing to draw."""
    parts = evidence.get("parts")
    if isinstance(parts, list):
        rest = {key: value for key, value in evidence.items() if key != "parts"}
        drawn = [drawing(part) for part in (*parts, rest) if isinstance(part, Mapping)]
        return join(*drawn) if any(d is not None for d in drawn) else None
    forms = {"points": points, "lines": lines, "bars": bars}
    draw = forms.get(str(evidence.get("plot")), listing)
    inside = draw(evidence)
    if inside is None:
        return None
    note = tag("figcaption", str(evidence["note"]), class_="note") if evidence.get("note") else None
    return tag("figure", inside, note, class_="evidence")


def rows_of(found: Any, n_least: int = 2) -> Rows:
    """Rows of numbers, null and what is no number as NaN; anything else is left out."""
    rows = [row for row in found if isinstance(row, list) and len(row) >= n_least] if isinstance(found, list) else []
    return [[number_of(value) for value in row] for row in rows]


def number_of(value: Any) -> float:
    """A JSON number, else NaN."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def points(given: Mapping[str, Any]) -> Html | None:
    """Measured points with their errors, the fit with its band, the chosen value; crosses at the top diverged."""
    measured, curve, chosen = rows_of(given.get("points")), rows_of(given.get("curve")), number_of(given.get("chosen"))
    if not measured and not curve:
        return None
    x, y = axes_of(given, [*measured, *curve], chosen)
    shapes = [band(curve, x, y), polyline(curve, x, y, "fit")]
    for row in measured:
        if not x.holds(row[0]):
            continue
        at = x.at(row[0])
        if not y.holds(row[1]):
            shapes.append(f'<path d="M{at - 4} {TOP}l8 8m0 -8l-8 8" class="cross"><title>diverged</title></path>')
            continue
        if len(row) > 2 and y.holds(row[1] - row[2]) and y.holds(row[1] + row[2]):
            shapes.append(line(at, at, y.at(row[1] - row[2]), y.at(row[1] + row[2]), "whisker"))
        shapes.append(f'<circle cx="{at}" cy="{y.at(row[1])}" r="3.4" class="point"/>')
    return frame(str(given.get("x", "")), str(given.get("y", "")), (x, y), "".join(shapes), chosen)


def lines(given: Mapping[str, Any]) -> Html | None:
    """Lines by name with a legend."""
    found = given.get("lines")
    every = [line for line in found if isinstance(line, dict)] if isinstance(found, list) else []
    series = [(str(line.get("name", "")), rows_of(line.get("points"))) for line in every]
    if not any(rows for _, rows in series):
        return None
    chosen = number_of(given.get("chosen"))
    x, y = axes_of(given, [row for _, rows in series for row in rows], chosen)
    inside, legend = drawn_lines(series, x, y)
    return join(frame(str(given.get("x", "")), str(given.get("y", "")), (x, y), inside, chosen), legend)


def bars(given: Mapping[str, Any]) -> Html | None:
    """One bar a candidate, the chosen one marked; what has no value failed."""
    found = given.get("bars")
    kept = [row for row in found if isinstance(row, list) and len(row) > 1] if isinstance(found, list) else []
    values = [number_of(row[1]) for row in kept]
    most = max((v for v in values if math.isfinite(v)), default=0.0)
    if not kept:
        return None
    items = []
    for row, value in zip(kept, values, strict=True):
        width = 100 * max(0.0, value) / most if most > 0 and math.isfinite(value) else 0.0
        error = f" ± {number(number_of(row[2]), 2)}" if len(row) > 2 else ""
        said = f"{number(value, 3)}{error}" if math.isfinite(value) else "failed"
        fill = tag("span", tag("span", style=f"width:{width:.1f}%", class_="fill"), class_="track")
        items.append(
            tag("li", tag("span", str(row[0]), class_="name"), fill, tag("span", said, class_="value"),
                class_="ours" if str(row[0]) == given.get("chosen") else None)
        )  # fmt: skip
    unit = tag("p", str(given.get("unit", "")), class_="note") if given.get("unit") else None
    return join(unit, tag("ol", *items, class_="scores"))


def listing(given: Mapping[str, Any]) -> Html | None:
    """Any other evidence: its numbers and words by their names."""
    rows = flat("", given)
    shown = [tag("div", tag("dt", name), tag("dd", value)) for name, value in rows[:N_SHOWN]]
    more = tag("p", f"And {len(rows) - N_SHOWN:,} more in plan.json.", class_="note") if len(rows) > N_SHOWN else None
    return join(tag("dl", *shown, class_="pairs"), more) if shown else None


def flat(name: str, value: Any) -> list[tuple[str, str]]:
    """{"a": {"b": [1, 2]}} -> [("a b", "[1, 2]")]."""
    if isinstance(value, Mapping):
        return [pair for key, inside in value.items() for pair in flat(f"{name} {key}".strip(), inside)]
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        return [pair for i, item in enumerate(value, 1) for pair in flat(f"{name} {i}".strip(), item)]
    return [] if value is None or value == [] else [(name.replace("_", " "), number(value))]


def axes_of(given: Mapping[str, Any], rows: Rows, chosen: float) -> tuple[Axis, Axis]:
    """Both axes around all that is drawn, the ends of errors and bands too."""
    heights = [row[1] for row in rows]
    heights += [row[1] + side * row[2] for row in rows if len(row) == 3 for side in (-1, 1)]
    heights += [end for row in rows if len(row) > 3 for end in row[2:4]]
    return axes([*(row[0] for row in rows), chosen], heights, bool(given.get("log_x")), bool(given.get("log_y")))


def axes(
    across: Sequence[float], up: Sequence[float], is_log_x: bool = False, is_log_y: bool = False
) -> tuple[Axis, Axis]:
    """Both axes around the values."""
    return Axis(across, is_log_x, LEFT, WIDTH - RIGHT), Axis(up, is_log_y, HEIGHT - BOTTOM, TOP)


def frame(x_label: str, y_label: str, both: tuple[Axis, Axis], inside: str, chosen: float = math.nan) -> Html:
    """Grid, ticks and names around a drawing, and a broken line at the chosen value."""
    x, y = both
    parts = [line(x.at(v), x.at(v), TOP, HEIGHT - BOTTOM, "grid") for v in x.ticks()]
    parts += [line(LEFT, WIDTH - RIGHT, y.at(v), y.at(v), "grid") for v in y.ticks()]
    parts += [text(x.at(v), HEIGHT - BOTTOM + 15, number(float(f"{v:.6g}"), 3), "middle") for v in x.ticks()]
    parts += [text(LEFT - 6, y.at(v) + 3.5, number(float(f"{v:.6g}"), 4), "end") for v in y.ticks()]
    parts.append(inside)
    if x.holds(chosen):
        parts.append(line(x.at(chosen), x.at(chosen), TOP, HEIGHT - BOTTOM, "picked"))
        end = "end" if x.at(chosen) > WIDTH / 2 else "start"
        parts.append(text(x.at(chosen) + (-4 if end == "end" else 4), TOP - 4, "chosen", end))
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_label, "middle"))
    parts.append(text(4, 11, y_label, "start"))
    box = f"0 0 {WIDTH:.0f} {HEIGHT:.0f}"
    return tag(
        "svg",
        *(Html(part) for part in parts),
        viewBox=box,
        class_="drawn",
        role="img",
        aria_label=f"{y_label} over {x_label}",
    )


def text(x: float, y: float, words: str, anchor: str) -> Html:
    """Words at a place."""
    return tag("text", words, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)


def line(x1: float, x2: float, y1: float, y2: float, class_: str) -> str:
    """A straight line."""
    return f'<line x1="{x1}" x2="{x2}" y1="{y1}" y2="{y2}" class="{class_}"/>'


def drawn_lines(series: Sequence[tuple[str, Sequence[Sequence[float]]]], x: Axis, y: Axis) -> tuple[str, Html]:
    """Lines by name, and their legend."""
    shapes = "".join(polyline(rows, x, y, f"series series-{i % 6}") for i, (_, rows) in enumerate(series))
    keys = [tag("li", tag("i", class_=f"key series-{i % 6}"), name) for i, (name, _) in enumerate(series)]
    return shapes, tag("ul", *keys, class_="legend")


def polyline(rows: Sequence[Sequence[float]], x: Axis, y: Axis, class_: str) -> str:
    """A line through rows, in their order."""
    found = [f"{x.at(row[0])},{y.at(row[1])}" for row in rows if x.holds(row[0]) and y.holds(row[1])]
    return f'<polyline points="{" ".join(found)}" class="{class_}"/>' if len(found) > 1 else ""


def band(rows: Rows, x: Axis, y: Axis) -> str:
    """The area between the bounds of a fit."""
    kept = [row for row in rows if len(row) > 3 and x.holds(row[0]) and y.holds(row[2]) and y.holds(row[3])]
    ends = [(row[0], row[2]) for row in kept] + [(row[0], row[3]) for row in reversed(kept)]
    found = " ".join(f"{x.at(a)},{y.at(b)}" for a, b in ends)
    return f'<polygon points="{found}" class="fit-band"/>' if kept else ""
