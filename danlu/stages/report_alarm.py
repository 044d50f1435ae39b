"""The alarm's findings, as the log tells them: what seems wrong with the run, on what evidence, and what to try."""

from __future__ import annotations

import re

from danlu.stages.report_evidence import Evidence
from danlu.stages.report_html import Html, join, tag

SENTENCE = re.compile(
    r"alarm, (?P<name>[^:]+?) at step (?P<step>\d+): (?P<says>.*)\. Suspects: (?P<suspects>.*)\. Fix: (?P<fix>.*)\.$"
)
"""A finding's sentence (danlu/trust/findings.py)."""


def alarm(evidence: Evidence) -> Html | None:
    """A table of findings; nothing where there are none."""
    if evidence.training is None:
        return None
    found = [match for _, _, text in evidence.training.events if (match := SENTENCE.match(text))]
    if not found:
        return None
    rows = [
        tag(
            "tr",
            tag("th", m["name"], tag("small", f" step {int(m['step']):,}"), scope="row"),
            tag("td", m["says"]),
            tag("td", m["suspects"]),
            tag("td", m["fix"]),
        )
        for m in found
    ]
    head = tag("tr", *(tag("th", h, scope="col") for h in ("finding", "what was seen", "suspects", "what to try")))
    note = tag("p", "Signs of a broken run, judged while it trained; each is told once.", class_="note")
    return join(note, tag("table", tag("thead", head), tag("tbody", *rows)))
