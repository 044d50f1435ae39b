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


class MissingExtra(UserError):
    """An optional library is needed: names the extra that installs it."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(
            what, f"needs the package {package}, which is not installed", fix=f'pip install "danlu[{extra}]"'
        )


class GateError(DanluError):
    """A measured gate failed: diverged, quality lost, hash mismatch (exit code 3)."""

    exit_code = GATE_FAILED


class Interrupted(DanluError):
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
    """The known name closest in spelling to `name` (Ratcliff-Obershelp, difflib), or None if none is close."""
    names = list(known)
    lowered = {n.lower(): n for n in reversed(names)}
    close = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.6)
    return lowered[close[0]] if close else None
