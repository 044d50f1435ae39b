"""Building HTML that cannot be broken by what it shows: every string is escaped unless it is already `Html`."""

from __future__ import annotations

import html
import json
import math
from typing import Any

VOID = frozenset({"br", "hr", "img", "input", "meta"})


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


Child = str | Html | int | None


def tag(name: str, *children: Child, **attributes: str | int | bool | None) -> Html:
    """tag("p", "a < b", class_="note") -> <p class="note">a &lt; b</p>. None, False and "" leave an attribute out."""
    parts = [name]
    for key, value in attributes.items():
        if value is None or value is False or value == "":
            continue
        key = key.rstrip("_").replace("_", "-")
        parts.append(key if value is True else f'{key}="{html.escape(visible(str(value)))}"')
    if name in VOID:
        return Html(f"<{' '.join(parts)}>")
    return Html(f"<{' '.join(parts)}>{join(*children)}</{name}>")


def join(*children: Child) -> Html:
    """Children one after another: markup as it is, everything else escaped."""
    shown = (c if isinstance(c, Html) else html.escape(visible(str(c))) for c in children if c is not None)
    return Html("".join(shown))


def visible(text: str) -> str:
    """Control, direction-changing and lone surrogate characters written out (\\x00), so that nothing hides."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t " else c.encode("unicode_escape").decode("ascii") for c in text)


def data_block(name: str, value: Any) -> Html:
    """JSON for the page's own script. "<", ">" and "&" are written as escapes, so no text can close the block."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Html(f'<script type="application/json" id="{name}">{text}</script>')


def number(value: Any, digits: int = 4) -> str:
    """A value for a person: 0.0042, 2,381, 1.047e+06 as 1,047,000, text as it is."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        if value == round(value) and abs(value) < 1e15:
            return number(round(value))
        return f"{value:.{digits}g}" if abs(value) < 10_000 else f"{value:,.0f}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(number(v) for v in value) + "]"
    return str(value)


def fixed(value: float, like: float) -> str:
    """`value` with as many decimals as four significant digits of `like` need, so that columns of numbers line up."""
    if not (math.isfinite(value) and math.isfinite(like)):
        return str(value)
    decimals = 3 - math.floor(math.log10(abs(like))) if like else 3
    return f"{value:,.{max(decimals, 0)}f}" if decimals <= 6 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """0.0061 -> "6.1 ms"; 181.4 -> "3 min 1 s"; 90061 -> "25 h 1 min"."""
    if not math.isfinite(seconds):
        return "unknown"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def size(n_bytes: float) -> str:
    """25431822 -> "25.4 MB"."""
    for scale, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if n_bytes >= scale:
            return f"{n_bytes / scale:.3g} {unit}"
    return f"{n_bytes:.0f} bytes"


def percent(share: float) -> str:
    """0.0123 -> "1.2%"; small but not zero -> "<0.1%"."""
    return "<0.1%" if 0 < share < 0.0005 else f"{share:.1%}" if share < 0.9995 else "100%"
