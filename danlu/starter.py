"""danlu init: a starter recipe, made by looking at the data. Every line says why it is there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from danlu.base.durable import write_text
from danlu.base.errors import UserError
from danlu.base.toml import toml_value
from danlu.base.units import short_count
from danlu.data.survey import Proposal, look_at

BYTES_PER_TOKEN = 3.5
"""Of English and code under a vocabulary of some thousands of tokens; used for a first guess only."""
TOKENS_PER_PARAMETER = 20
"""Hoffmann et al. 2022 (2203.15556)."""
SIZES = (300_000, 1_000_000, 3_000_000, 10_000_000)
"""Models that a laptop trains in minutes."""


def write_starter(data: str, out: Path) -> Path:
    """Look at the data and write a recipe for it; an existing file is never overwritten."""
    if out.exists():
        raise UserError(str(out), "exists already", fix="choose another --out")
    if not out.parent.is_dir():
        raise UserError(str(out.parent), "is not a folder", fix="make it, or choose another --out")
    text = starter(data, look_at(data))
    write_text(out, text)
    return out


def starter(data: str, proposal: Proposal) -> str:
    """The recipe as TOML."""
    found = proposal.estimate
    seen = (
        f"{found.n_files:,} file(s), about {short_count(found.n_text_bytes)} bytes of text" if found.n_files else data
    )
    size, why = size_for(found.n_text_bytes)
    lines = [
        f"# A starter recipe for {seen}.",
        "# Every setting that is not here has its default: danlu list text, danlu list decoder, danlu list train.",
        f"name = {toml_value(name_for(data))}",
        "",
        *section("data", proposal.settings, proposal.reasons),
        "",
        *section("model", {"size": size}, {"size": why}),
        "",
        *section("train", {"length": "10 min"}, {"length": 'a hard budget; or "3 epochs", "5000 steps", "20M tokens"'}),
    ]
    return "\n".join(lines) + "\n"


def section(name: str, settings: Mapping[str, Any], reasons: Mapping[str, str]) -> list[str]:
    """The lines of one section, its sections after its values."""
    lines, inner = [f"[{name}]"], []
    for key, value in settings.items():
        reason = f"# {reasons[key]}" if reasons.get(key) else ""
        if isinstance(value, Mapping):
            inner += ["", *([reason] if reason else []), *section(f"{name}.{key}", value, {})]
        else:
            lines.append(f"{key} = {toml_value(value)}  {reason}".rstrip())
    return lines + inner


def size_for(n_text_bytes: int) -> tuple[str, str]:
    """A model size for an amount of text, and why."""
    if not n_text_bytes:
        return "1M", "a first try; the data were not looked at"
    wanted = n_text_bytes / BYTES_PER_TOKEN / TOKENS_PER_PARAMETER
    size = max((s for s in SIZES if s <= wanted), default=SIZES[0])
    n_tokens = short_count(n_text_bytes / BYTES_PER_TOKEN)
    return short_count(
        size
    ), f"about {n_tokens} tokens; {TOKENS_PER_PARAMETER} a parameter (Hoffmann et al. 2022), laptop-sized"


def name_for(data: str) -> str:
    """A run name from a path: letters, digits and dashes."""
    words = re.findall(r"[A-Za-z0-9]+", Path(data.removeprefix("hub:")).stem)
    return "-".join(words).lower()[:40] or "my-run"
