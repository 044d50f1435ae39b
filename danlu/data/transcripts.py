"""Transcripts as they are scored, and in units."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Literal

NOT_SAID = re.compile(r"[^\w'’ ]|_")
Unit = Literal["characters", "words"]


def plain(text: str, lower: bool) -> str:
    """One line with single spaces; with `lower` in lower case, of letters, digits and apostrophes alone."""
    if lower:
        text = NOT_SAID.sub(" ", text.lower()).replace("’", "'")
    return " ".join(text.split())


def spelt(text: str, unit: Unit) -> list[str]:
    """A transcript in characters (spaces too) or words."""
    return text.split() if unit == "words" else list(text)


def n_needed(units: list[str]) -> int:
    """The fewest frames that can say them: like units beside one another need a blank between (Graves et al. 2006)."""
    return len(units) + sum(a == b for a, b in pairwise(units))
