"""What a task gave the report to draw (tasks/panels.py), as plain HTML and SVG: matrices, points, lines, tables,
pictures, sounds. Nothing here needs a script."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from danlu.stages.report_drawings import axes, drawn_lines, frame
from danlu.stages.report_evidence import Evidence
from danlu.stages.report_html import Html, join, number, tag

N_NAMED = 30
"""A matrix with more rows than this is drawn without names and numbers."""
SIGNATURES = {"/9j/": "image/jpeg", "iVBO": "image/png"}
"""First characters of pictures in base64."""


def panels(evidence: Evidence) -> Html | None:
    """Every panel of the scores, in order."""
    if not evidence.scores or not evidence.scores.panels:
        return None
    drawn = [panel(p) for p in evidence.scores.panels]
    return join(*(d for d in drawn if d is not None))


def panel(given: Mapping[str, Any]) -> Html | None:
    """One panel; a form that this version does not know is said."""
    forms: dict[str, Callable[[Mapping[str, Any]], Html]] = {
        "matrix": matrix, "points": points, "lines": lines, "listing": listing, "images": images, "clips": clips,
    }  # fmt: skip
    draw = forms.get(str(given.get("form")))
    inside = draw(given) if draw else tag("p", f"A panel of form {given.get('form')}, which this version cannot draw.")
    note = tag("span", str(given.get("note", ""))) if given.get("note") else None
    caption = tag("figcaption", tag("b", str(given.get("title", ""))), " ", note)
    return tag("figure", caption, inside, class_="panel")


def matrix(given: Mapping[str, Any]) -> Html:
    """A heat map; with numbers while they can be read."""
    values: Sequence[Sequence[float]] = given["values"]
    n_rows, n_columns = len(values), len(values[0]) if values else 0
    most = max((abs(v) for row in values for v in row if math.isfinite(v)), default=1.0) or 1.0
    names = bool(given.get("rows")) and max(n_rows, n_columns) <= N_NAMED
    if not names:
        return heat_map(values, n_rows, n_columns, most)
    head = tag("tr", tag("th", ""), *(tag("th", str(c), scope="col") for c in given["columns"]))
    body = [
        tag("tr", tag("th", str(name), scope="row"), *(cell(v, most) for v in row))
        for name, row in zip(given["rows"], values, strict=False)
    ]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body), class_="matrix"), class_="scroll")


def cell(value: float, most: float) -> Html:
    """One number on a shade of its size."""
    share = min(1.0, abs(value) / most) ** 0.5 if math.isfinite(value) else 0.0
    return tag("td", number(value, 3), style=f"background:rgb(200 80 30 / {share * 0.75:.3f})")


def heat_map(values: Sequence[Sequence[float]], n_rows: int, n_columns: int, most: float) -> Html:
    """Squares alone, at most about 160 a side."""
    step = max(1, math.ceil(max(n_rows, n_columns) / 160))
    shapes = []
    for i in range(0, n_rows, step):
        for j in range(0, n_columns, step):
            share = min(1.0, abs(values[i][j]) / most) if math.isfinite(values[i][j]) else 0.0
            if share > 0.02:
                shapes.append(f'<rect x="{j}" y="{i}" width="{step}" height="{step}" fill-opacity="{share:.2f}"/>')
    box = f"0 0 {max(1, n_columns)} {max(1, n_rows)}"
    return tag("svg", Html("".join(shapes)), viewBox=box, class_="heat", role="img", preserveAspectRatio="none")


def points(given: Mapping[str, Any]) -> Html:
    """A scatter plot."""
    x, y = axes(given["x"], given["y"])
    found = ((x.at(a), y.at(b)) for a, b in zip(given["x"], given["y"], strict=False) if math.isfinite(a + b))
    inside = "".join(f'<circle cx="{a}" cy="{b}" r="2" class="dot"/>' for a, b in found)
    return frame(str(given.get("x_label", "")), str(given.get("y_label", "")), (x, y), inside)


def lines(given: Mapping[str, Any]) -> Html:
    """Lines with a legend."""
    every = given["lines"]
    x, y = axes([v for line in every for v in line["x"]], [v for line in every for v in line["y"]])
    series = [(str(line["name"]), list(zip(line["x"], line["y"], strict=False))) for line in every]
    inside, legend = drawn_lines(series, x, y)
    return join(frame(str(given.get("x_label", "")), str(given.get("y_label", "")), (x, y), inside), legend)


def listing(given: Mapping[str, Any]) -> Html:
    """A table."""
    head = tag("tr", *(tag("th", str(c), scope="col") for c in given["columns"]))
    body = [tag("tr", *(tag("td", str(c)[:600], dir="auto") for c in row)) for row in given["rows"]]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body), class_="listing"), class_="scroll")


def picture(data: str, caption: str) -> Html | None:
    """An image from base64, JPEG or PNG by its first bytes."""
    kind = SIGNATURES.get(data[:4])
    return tag("img", src=f"data:{kind};base64,{data}", alt=caption) if kind else None


def images(given: Mapping[str, Any]) -> Html:
    """Pictures side by side."""
    items = [tag("figure", picture(i["data"], i["caption"]), tag("figcaption", i["caption"])) for i in given["items"]]
    return tag("div", *items, class_="pictures")


def clips(given: Mapping[str, Any]) -> Html:
    """Sounds with their spectrograms."""
    items = [
        tag(
            "figure",
            picture(i["picture"], i["caption"]) if i.get("picture") else None,
            tag("audio", controls=True, preload="none", src=f"data:audio/wav;base64,{i['data']}"),
            tag("figcaption", i["caption"]),
        )
        for i in given["items"]
    ]
    return tag("div", *items, class_="pictures")
