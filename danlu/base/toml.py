"""TOML in and out: reading a recipe with one sentence for whatever is wrong with the file, and writing values."""

from __future__ import annotations

import datetime
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from danlu.base.errors import UserError

MAX_BYTES = 1_000_000
BARE = re.compile(r"[A-Za-z0-9_-]+")


def read_toml(path: Path) -> tuple[str, dict[str, Any]]:
    """A TOML file's text and its content."""
    try:
        if path.is_dir():
            raise UserError(str(path), "is a folder, and a recipe is a file", fix="name the .toml file")
        if not path.is_file():
            raise UserError(str(path), "is not a file", fix="check the name, or make one with danlu init DATA")
        if path.stat().st_size > MAX_BYTES:
            raise UserError(str(path), "is too large for a recipe (over 1 MB)", fix="name a recipe, not data")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(str(path), f"cannot be read ({error.strerror})", fix="check its permissions") from error
    except UserError:
        raise
    except ValueError as error:  # a NUL character in the name
        raise UserError(str(path), "is not a file name", fix="check the name") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}", "is not UTF-8 text", fix="save the file as UTF-8") from error
    return text, parse_toml(text, str(path))


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """TOML text -> nested dicts; `source` is named when the text is wrong."""
    try:
        return tomllib.loads(text.replace("\r\n", "\n"))
    except RecursionError as error:
        raise UserError(source, "is nested too deeply", fix="write it flat") from error
    except ValueError as error:
        found = re.search(r"\s*\(at line (\d+), column (\d+)\)|\s*\(at end of document\)", str(error))
        place = (f", line {found[1]}, column {found[2]}" if found[1] else ", at its end,") if found else ""
        why = str(error)[: found.start()] if found else str(error)
        hint = 'write text in quotes, key = "text"' if "value" in why.lower() else "correct the line"
        raise UserError(f"{source}{place}", f"is not valid TOML: {why}", fix=hint) from error


def parse_set(text: str) -> tuple[list[str], Any]:
    """`train.length=200 steps` -> (["train", "length"], "200 steps"). Values are TOML, or plain words."""
    key, equals, value = text.partition("=")
    path = [part.strip() for part in key.split(".")]
    if not equals or not all(path):
        raise UserError("--set", "must be section.key=value", got=text, fix='write --set train.length="200 steps"')
    return path, parse_word(value.strip())


def parse_word(text: str) -> Any:
    """A TOML value, or the text itself where it is none."""
    if not text or "\n" in text or "\r" in text:
        return text
    try:
        value = tomllib.loads(f"x = {text}")["x"]
    except (ValueError, RecursionError):
        return text
    return text if isinstance(value, datetime.date | datetime.time) else value


def put(raw: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set a value in nested dicts, making the tables on the way."""
    table = raw
    for i, part in enumerate(path[:-1]):
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            where = ".".join(path[: i + 1])
            raise UserError(
                "--set", f"cannot reach {'.'.join(path)}: {where} is a value, not a section", fix="shorten the key"
            )
    table[path[-1]] = value


def toml_key(name: str) -> str:
    """A key, quoted when it has to be."""
    return name if BARE.fullmatch(name) else toml_value(name)


def toml_value(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        inside = ", ".join(f"{toml_key(k)} = {toml_value(v)}" for k, v in value.items() if v is not None)
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(toml_value(v) for v in value) + "]"
    raise TypeError(f"TOML has no {type(value).__name__}")
