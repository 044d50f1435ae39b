"""Every way danlu says no: one sentence (where, wanted, got, fix) and an exit code.

recipe.toml: optimizer.weigth_decay is not a setting of adamw. Got 0.1. Fix: rename it to weight_decay.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

DONE, WRONG_INPUT, GATE_FAILED, INTERRUPTED, TERMINATED = 0, 2, 3, 130, 143


class DanluError(Exception):
    """Base of all errors that are told to the user as one sentence, without a traceback."""

    exit_code = WRONG_INPUT


class UserError(DanluError, ValueError):
    """The recipe, the data or the command is wrong (exit code 2).

    `where` and `wanted` read as one clause: UserError("recipe.toml: train.batch", "must be at least 1",
    got=0, fix="set it to 1 or more").
    """

    def __init__(self, where: str, wanted: str, *, got: Any = None, fix: str = "") -> None:
        self.where, self.wanted, self.got, self.fix = where, wanted, got, fix
        super().__init__(sentence(where, wanted, got, fix))


class MissingExtra(UserError):  # noqa: N818 - reads as what it says
    """An optional library is needed: names the extra that installs it."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(
            what, f"needs the package {package}, which is not installed", fix=f'pip install "danlu[{extra}]"'
        )


class GateError(DanluError):
    """A measured gate failed: diverged, quality lost, hash mismatch (exit code 3)."""

    exit_code = GATE_FAILED


class Interrupted(DanluError):  # noqa: N818 - reads as what it says
    """Stopped by a signal after saving; the run can be resumed (exit code 130 or 143)."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def sentence(where: str, wanted: str, got: Any = None, fix: str = "") -> str:
    """Join the four parts into the one sentence; long or many-lined values are shortened to fit one line."""
    parts = [f"{where} {wanted}".strip().rstrip(".") + "."]
    if got is not None:
        parts.append(f"Got {shown(got)}.")
    if fix:
        parts.append(f"Fix: {fix.rstrip('.')}.")
    return one_line(" ".join(parts))


def shown(value: Any, limit: int = 80) -> str:
    """The value as the user would write it, on one line, at most `limit` characters."""
    text = one_line(value if isinstance(value, str) else repr(value))
    text = f'"{text}"' if isinstance(value, str) else text
    return text if len(text) <= limit else text[: limit - 3] + "..."


def one_line(text: str) -> str:
    """Control characters made visible, so that input can neither break a line nor colour a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest in spelling to `name`, or None if none is close."""
    return next(iter(near_names(name, known)), None)


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """The known names closest in spelling to `name`: all that tie on the number of typing slips, best likeness first.

    One slip is always forgiven, and one for every three letters (`wieght_dacay`); past that, likeness by difflib.
    """
    plain = fold(name)
    slips_to = {k: slips(plain, fold(k)) for k in known}
    least = min(slips_to.values(), default=0)
    if least <= max(1, len(plain) // 3):
        ties = [k for k, n in slips_to.items() if n == least]
        return sorted(ties, key=lambda k: -difflib.SequenceMatcher(None, plain, fold(k)).ratio())
    return difflib.get_close_matches(plain, slips_to, n=1, cutoff=0.6)


def fold(name: str) -> str:
    """How names are compared: lower case, one kind of dash, at most 60 characters."""
    return name[:60].lower().replace("-", "_").replace(" ", "_")


def slips(a: str, b: str) -> int:
    """Typing slips between two words: letters left out, added, changed or swapped with a neighbour (Damerau 1964)."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        older, before, row = before, row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y)))
            if i > 1 and j > 1 and x == b[j - 2] and y == a[i - 2]:
                row[j] = min(row[j], older[j - 2] + 1)
    return row[-1]
