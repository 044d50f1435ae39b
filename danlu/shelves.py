"""What a recipe can name: every kind on every shelf, and every setting of a kind with its meaning. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from danlu.base.errors import UserError, near_names
from danlu.base.refusal import parts_of, phrase
from danlu.base.settings import Chosen, Settings
from danlu.base.toml import toml_value
from danlu.recipe import SHELVES, Recipe

Rows = list[tuple[str, ...]]


def kinds_of() -> tuple[str, tuple[str, ...], Rows]:
    """Title, columns and rows of the table of all kinds."""
    rows: Rows = []
    for section, table in tables().items():
        rows += [(section, kind, first_line(cls)) for kind, cls in table.items()]
    for name, cls in plain_sections().items():
        rows.append((name, "", first_line(cls)))
    return "What a recipe can name (danlu list KIND shows its settings)", ("section", "kind", "what it is"), rows


def settings_of(name: str) -> tuple[str, tuple[str, ...], Rows]:
    """The same for one shelf, or for the settings of one kind or section."""
    shelves = tables()
    if name in shelves:
        rows: Rows = [(kind, first_line(cls)) for kind, cls in shelves[name].items()]
        return f"[{name}] kind = ...", ("kind", "what it is"), rows
    classes = {kind: cls for table in shelves.values() for kind, cls in table.items()} | plain_sections()
    if name not in classes:
        known = [*shelves, *classes]
        near = near_names(name, known)
        fix = f"write {' or '.join(near)}" if near else f"use one of {', '.join(known)}"
        raise UserError(f"danlu list {name[:40]}", "names no shelf, kind or section", fix=fix)
    cls = classes[name]
    schema: Mapping[str, Any] = cls.model_json_schema()["properties"]
    rows = [(key, default_of(schema[key]), phrase(schema[key]), meaning(schema[key])) for key in cls.model_fields]
    return f"{name}: {first_line(cls)}", ("setting", "default", "takes", "meaning"), rows


def tables() -> dict[str, Mapping[str, type[Settings]]]:
    """The shelves, and the choices inside their members: data.tokenizer, data.split, ..."""
    found = dict(SHELVES)
    for section, shelf in SHELVES.items():
        for cls in shelf.values():
            for name, field in cls.model_fields.items():
                chosen = [part for part in (*field.metadata, *parts_of(field.annotation)) if isinstance(part, Chosen)]
                found |= {f"{section}.{name}": part.table for part in chosen}
    return found


def plain_sections() -> dict[str, type[Settings]]:
    """Sections without a kind."""
    found = {name: field.annotation for name, field in Recipe.model_fields.items()}
    return {n: a for n, a in found.items() if isinstance(a, type) and issubclass(a, Settings) and n not in SHELVES}


def first_line(cls: type[Settings]) -> str:
    """The first line of a docstring."""
    return (cls.__doc__ or "").strip().split("\n")[0]


def default_of(schema: Mapping[str, Any]) -> str:
    """The default as TOML, or that it must be given."""
    default = schema.get("default", ...)
    if default is ...:
        return "must be given"
    return "not set" if default is None else toml_value(default)


def meaning(schema: Mapping[str, Any]) -> str:
    """The docstring under a field, on one line."""
    return " ".join(str(schema.get("description", "")).split())
