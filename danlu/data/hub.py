"""Rows of a Hugging Face data set, streamed: "hub:owner/name", "hub:owner/name:config:split", with @revision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from danlu.base.errors import MissingExtra, UserError, nearest, one_line

WANTED = 'must look like "hub:owner/name", "hub:owner/name:config" or "hub:owner/name:config:split"'


@dataclass(frozen=True)
class HubName:
    """A hub name taken apart; an empty config is the data set's default."""

    path: str
    config: str
    split: str
    revision: str

    @classmethod
    def parse(cls, given: str) -> HubName:
        """Read "hub:owner/name[@revision][:config[:split]]"; the split is train if none is named."""
        name, *rest = given.removeprefix("hub:").split(":")
        path, _, revision = name.partition("@")
        if not path or len(rest) > 2 or any(character.isspace() for character in given):
            raise UserError("data.path", WANTED, got=given, fix='write it like "hub:roneneldan/TinyStories"')
        config, split = (*rest, "", "")[:2]
        return cls(path, config, split or "train", revision)


def hub_rows(given: str, column: str) -> Iterator[tuple[str, Any]]:
    """(row name, value of the text column) of every row, in the data set's order. Needs the extra hf."""
    name = HubName.parse(given)
    try:
        import datasets
    except ImportError:
        raise MissingExtra(f"data.path {given}", "datasets", "hf") from None
    label = f"hub:{name.path}:{name.split}"
    n = 0
    try:
        rows = datasets.load_dataset(
            name.path, name.config or None, split=name.split, revision=name.revision or None, streaming=True
        )
        for row in rows:
            n += 1
            if n == 1 and column not in row:
                break
            yield f"{label}:{n}", row.get(column)
        else:
            return
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, UserError):
            raise
        place = f"after {n:,} rows" if n else "at all"
        why = one_line(str(error).splitlines()[0] if str(error) else type(error).__name__)
        fix = f"check the name, its config and split, and the network ({why[:200]})"
        raise UserError("data.path", f"names a hub data set that cannot be read {place}", got=given, fix=fix) from None
    close = nearest(column, row)
    fix = f'set data.column = "{close}"' if close else f"set data.column to one of {', '.join(row)}"
    raise UserError("data.column", f"names a column that {label} does not have", got=column, fix=fix)
