"""Which sounds there are, and what is said of each: class folders, names with a pattern, or a table of paths."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from danlu.base.errors import UserError
from danlu.data.audio_read import ENDINGS
from danlu.data.sample_splits import SPLIT_FOLDERS
from danlu.data.samples import source_files
from danlu.data.table_read import Intake, Rows, read

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
SPLIT = "split"
"""A column or a group of the pattern that says train, validation or test."""


class Clip(NamedTuple):
    """One sound and what is said of it."""

    place: str
    """digits/7_theo_3.wav, or clips.tsv:12."""
    path: Path
    label: str
    text: str
    side: str
    """train, validation, test, or empty."""
    groups: dict[str, str]
    """Everything else that is known: columns to split by."""


class Naming(NamedTuple):
    """How a listing is to be read: the recipe's words for it."""

    pattern: str
    file: str
    label: str
    text: str
    columns: tuple[str, ...]


def clips_at(path: str, naming: Naming, intake: Intake) -> list[Clip]:
    """Every sound that a path names. A table is read as such; elsewhere every file counts."""
    found = source_files(path, (*ENDINGS, *TABLES))
    tables = [file for file in found if file.name.lower().endswith(TABLES)]
    if tables and len(tables) == len(found):
        return [clip for file in tables for clip in from_table(file, naming, intake)]
    files = [file for file in found if file.name.lower().endswith(ENDINGS)]
    if not files:
        raise UserError("data.path", f"must name sounds ({', '.join(ENDINGS)}) or a table of them", got=path)
    root = next((p for p in (Path(path), *files[0].parents) if p.is_dir()), files[0].parent)
    if naming.pattern:
        return from_names(files, naming, intake)
    return from_folders(files, root, intake)


def from_folders(files: Sequence[Path], root: Path, intake: Intake) -> list[Clip]:
    """The label is the sound's folder; a folder above it may say train or test."""
    clips = []
    for path in files:
        intake.n_in += 1
        parts = path.relative_to(root).parts if path.is_relative_to(root) else path.parts[-2:]
        side = next((p.lower() for p in parts[:-2] if p.lower() in SPLIT_FOLDERS), "")
        clips.append(Clip("/".join(parts[-2:]), path, path.parent.name, "", side, {}))
    return clips


def from_names(files: Sequence[Path], naming: Naming, intake: Intake) -> list[Clip]:
    """What is said of a sound is in its name, by the groups of a regular expression."""
    try:
        pattern = re.compile(naming.pattern)
    except re.error as error:
        raise UserError("data.names", f"is no regular expression ({error})", got=naming.pattern) from None
    if not {naming.label, naming.text} & set(pattern.groupindex):
        wanted = f"must have a group (?P<{naming.label}>...) or (?P<{naming.text}>...)"
        raise UserError("data.names", wanted, got=naming.pattern)
    clips = []
    for path in files:
        intake.n_in += 1
        match = pattern.fullmatch(path.stem)
        if match is None:
            intake.reject(path.name, "name does not match data.names", naming.pattern)
            continue
        clips.append(clip_of(path.name, path, match.groupdict(""), naming))
    return clips


def clip_of(place: str, path: Path, said: dict[str, str], naming: Naming) -> Clip:
    """A sound from named values."""
    rest = {k: v for k, v in said.items() if k not in (naming.label, naming.text, naming.file)}
    side = rest.get(SPLIT, "").lower()
    return Clip(
        place, path, said.get(naming.label, "").strip(), said.get(naming.text, "").strip(),
        side if side in SPLIT_FOLDERS else "", rest,
    )  # fmt: skip


def from_table(table: Path, naming: Naming, intake: Intake) -> list[Clip]:
    """A row a sound: the column of paths, of labels or transcripts, and any others to split by."""
    rows = read([table], naming.columns, 0, intake)
    if naming.file not in rows.names:
        fix = "set data.file, or data.columns where the table has no header"
        raise UserError("data.file", f"must be a column of {table.name}", got=naming.file, fix=fix)
    if not {naming.label, naming.text} & set(rows.names):
        got = ", ".join(rows.names[:10])
        raise UserError("data.label", f"or data.text must be a column of {table.name}", got=got)
    clips = []
    for place, said in said_by(rows):
        path = located(table.parent, said[naming.file])
        if path is None:
            intake.reject(place, "no such file", said[naming.file])
        else:
            clips.append(clip_of(place, path, said, naming))
    return clips


def said_by(rows: Rows) -> Any:
    """(place, {column: value}) of every row; a missing value is empty."""
    for place, values in zip(rows.places, rows.values, strict=True):
        yield place, {name: value or "" for name, value in zip(rows.names, values, strict=True)}


def located(folder: Path, name: str) -> Path | None:
    """A table's path: from the table's folder, or from a folder beside it; an ending may be left out."""
    if not name or "\0" in name:
        return None
    for place in (folder / name, folder / "wavs" / name, folder / "clips" / name):
        for path in (place, *(place.with_name(place.name + ending) for ending in ENDINGS[:4])):
            if path.is_file():
                return path
    return None
