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
from danlu.data.audio_propose import propose_listing, propose_sounds
from danlu.data.survey import Proposal, look_at
from danlu.data.tokenizer import Bpe

BYTES_PER_TOKEN = 3.5
"""Of English and code under a vocabulary of some thousands of tokens; used for a first guess only."""
TOKENS_PER_PARAMETER = 20
"""Hoffmann et al. 2022 (2203.15556)."""
SIZES = (300_000, 500_000, 1_000_000, 3_000_000, 10_000_000)
"""Models that a laptop trains in minutes."""


BOX_FILES = ("Annotations/*.xml", "annotations/instances_*.json", "train/*.xml", "train/*.coco.json")
"""What lies in a folder of pictures with boxes (data/boxes_files.py)."""
PATIENCE = "stops once three looks are worse than the best by more than chance"


def write_starter(data: str, out: Path) -> Path:
    """Look at the data and write a recipe for it; an existing file is never overwritten."""
    if out.exists():
        raise UserError(str(out), "exists already", fix="choose another --out")
    if not out.parent.is_dir():
        raise UserError(str(out.parent), "is not a folder", fix="make it, or choose another --out")
    text = sample_starter(data) or starter(data, look_at(data))
    write_text(out, text)
    return out


def starter(data: str, proposal: Proposal) -> str:
    """The recipe as TOML."""
    found = proposal.estimate
    seen = (
        f"{found.n_files:,} file(s), about {short_count(found.n_text_bytes)} bytes of text" if found.n_files else data
    )
    tokenizer = proposal.settings.get("tokenizer", {})
    size, why = size_for(found.n_text_bytes, tokenizer.get("vocab_size", Bpe().vocab_size))
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


def sample_starter(data: str) -> str | None:
    """The recipe for a table or a folder of images or sounds, or None: then it is text."""
    path = Path(data)
    why: dict[str, str] = {}
    tables = (".csv", ".tsv", ".parquet")
    if path.is_file() and path.suffix.lower() in tables and (listed := propose_listing(path)) is not None:
        settings, reasons, model, why, task = listed
        kind = {"kind": task}
    elif path.suffix.lower() in (".csv", ".tsv", ".parquet", ".arrow", ".feather"):
        from danlu.data.table_propose import propose

        settings, reasons, task = propose(path)
        model, kind = {"kind": "mlp", "layers": [256, 128], "dropout": 0.1}, {"kind": task}
    elif any(next(path.glob(form), None) for form in BOX_FILES):
        settings, kind, model = {"kind": "boxes", "path": data}, {"kind": "detect"}, {"kind": "detector"}
        reasons = {"path": "pictures with boxes on them"}
    elif path.is_dir() and (
        found := sorted(p for p in path.rglob("*") if p.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp"))
    ):
        settings, kind = {"kind": "image", "path": data}, {"kind": "classify"}
        reasons = {"path": f"{len(found):,} images; the folder an image lies in is its class"}
        model = {"kind": "resnet", "blocks": 1, "width": 32}
    elif path.is_dir() and (sounds := propose_sounds(path)) is not None:
        settings, reasons, model, why, task = sounds
        kind = {"kind": task}
    else:
        return None
    lines = [
        f"# A starter recipe for {data}.",
        "# Every setting that is not here has its default: "
        f"danlu list {settings['kind']}, danlu list {model['kind']}, danlu list train.",
        f"name = {toml_value(name_for(data))}",
        "",
        *section("data", settings, reasons),
        "",
        *section("model", model, why),
        "",
        *section("task", kind, {}),
        "",
        *section(
            "optimizer", {"kind": "adamw", "lr": "auto"}, {"lr": "by danlu plan: a law, or short runs where they pay"}
        ),
        "",
        *section("train", {"length": "30 epochs", "patience": "auto"}, {"patience": PATIENCE}),
        "",
        *section("evaluate", {"on": "test"}, {}),
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


def size_for(n_text_bytes: int, vocab_size: int) -> tuple[str, str]:
    """A model size for an amount of text, and why: no smaller than twice its tables of token vectors at width 64."""
    wanted = n_text_bytes / BYTES_PER_TOKEN / TOKENS_PER_PARAMETER
    least = 2 * 2 * 64 * vocab_size
    fitting = [size for size in SIZES if size >= least] or [SIZES[-1]]
    size = max((size for size in fitting if size <= wanted), default=fitting[0])
    if not n_text_bytes:
        return short_count(size), "a first try; the data were not looked at"
    return short_count(
        size
    ), f"for about {short_count(n_text_bytes / BYTES_PER_TOKEN)} tokens; danlu list decoder shows every dial"


def name_for(data: str) -> str:
    """A run name from a path: letters, digits and dashes."""
    path = Path(data.removeprefix("hub:"))
    plain = [part for part in path.parts if not re.search(r"[*?\[]", part)]
    words = re.findall(r"[A-Za-z0-9]+", Path(plain[-1]).stem if plain else "")
    return "-".join(words).lower()[:40] or "my-run"
