"""Which files a path, a glob or a folder means, in a stable order; what is left out is counted."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from danlu.base.errors import UserError, nearest

FORMATS = {
    ".txt": "text", ".md": "text", ".py": "text", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json",
    ".parquet": "parquet",
}  # fmt: skip
"""What an ending says of a file."""
Format = Literal["auto", "text", "jsonl", "json", "parquet"]
COMPRESSED = (".gz", ".zst")


@dataclass(frozen=True)
class TextFile:
    """One file to read."""

    path: Path
    name: str
    """As row names show it: relative to the folder that was given."""
    format: str
    """text, jsonl, json or parquet."""

    @property
    def is_python(self) -> bool:
        """A Python source file (which may name its own encoding)."""
        return inner_suffix(self.path) == ".py"


def inner_suffix(path: Path) -> str:
    """The ending that tells the format: ".txt" of notes.txt.gz."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in COMPRESSED else suffix


def find_files(
    given: str, pattern: str, wanted: Format, notes: Counter[str], where: str = "data.path"
) -> list[TextFile]:
    """The files that one path, glob or folder means, in the order of their names; `notes` counts what is left out."""
    root = Path(given).expanduser()
    if root.is_dir():
        named = of_pattern([TextFile(root / name, written(name), "") for name in walk(root, notes)], pattern, notes)
        found = [replace(f, format=kind) for f in named if (kind := format_of(f.path, wanted, notes))]
        if not found:
            matched = f' that match the pattern "{pattern}"' if pattern else ""
            raise UserError(where, f"has no files to read{matched}", got=given, fix=no_files_fix(notes))
        return found
    if has_wildcard(given) and not root.exists():
        return matching(root, given, wanted, notes, where)
    if not root.exists():
        raise UserError(where, "names a file or folder that does not exist", got=given, fix=missing_fix(root))
    kind = format_of(root, wanted, Counter())
    if not kind:
        raise UserError(
            where, "is a file of an unknown type", got=given, fix=f'{known_types()}, or set format = "text"'
        )
    return [TextFile(root, written(root.name), kind)]


def matching(root: Path, given: str, wanted: Format, notes: Counter[str], where: str) -> list[TextFile]:
    """The files that a glob with *, ?, [..] or ** matches."""
    fixed = 0
    while fixed < len(root.parts) and not has_wildcard(root.parts[fixed]):
        fixed += 1
    top = Path(*root.parts[:fixed])
    paths = sorted((p for p in top.glob(str(Path(*root.parts[fixed:]))) if p.is_file()), key=lambda p: p.as_posix())
    found = [
        TextFile(p, written(p.relative_to(top).as_posix()), kind)
        for p in paths
        if (kind := format_of(p, wanted, notes))
    ]
    if not found:
        fix = no_files_fix(notes) if paths or top.is_dir() else f"the folder {top} does not exist"
        raise UserError(where, "matches no files to read", got=given, fix=fix)
    return found


def walk(root: Path, notes: Counter[str], skip: frozenset[str] = frozenset()) -> list[str]:
    """Names, relative to a folder, of all files below it, sorted; without those in folders named in `skip`.

    Hidden files, hidden folders and links to folders are left out and counted.
    """

    def refuse(error: OSError) -> None:
        raise UserError("data.path", f"holds a folder that cannot be read ({error.strerror})", got=error.filename)

    found = []
    for folder, names, files in os.walk(root, onerror=refuse):
        inside = os.path.relpath(folder, root)
        prefix = "" if inside == "." else inside + os.sep
        hidden = {n for n in names if n.startswith(".")}
        links = {n for n in names if n not in hidden and os.path.islink(os.path.join(folder, n))}
        notes["folders left out: hidden"] += len(hidden)
        notes["folders left out: links to folders"] += len(links)
        names[:] = [n for n in names if n not in hidden and n not in links and n not in skip and n != "__pycache__"]
        notes["files left out: hidden"] += sum(n.startswith(".") for n in files)
        found += [(prefix + n).replace(os.sep, "/") for n in files if not n.startswith(".")]
    return sorted(found)


def format_of(path: Path, wanted: Format, notes: Counter[str]) -> str:
    """The format to read a file in, or "" (counted) for a type that danlu does not read."""
    kind = FORMATS.get(inner_suffix(path), "") if wanted == "auto" else wanted
    if not kind:
        notes[f"files left out: type {inner_suffix(path) or 'without ending'}"] += 1
    if kind == "parquet" and path.suffix.lower() in COMPRESSED:
        raise UserError(str(path), "is a Parquet file compressed once more", fix="unpack it: Parquet compresses inside")
    return kind


def has_wildcard(text: str) -> bool:
    """Whether a path is a glob."""
    return re.search(r"[*?\[]", text) is not None


def known_types() -> str:
    """The endings, for an error's fix."""
    return f"name files of {' '.join(FORMATS)} (plain, .gz or .zst)"


def of_pattern(files: list[TextFile], pattern: str, notes: Counter[str]) -> list[TextFile]:
    """The files whose names match, the rest counted."""
    kept = [file for file in files if Path(file.name).match(pattern)] if pattern else files
    notes["files left out: not of data.pattern"] += len(files) - len(kept)
    return kept


def written(name: str) -> str:
    """A file name as UTF-8 can hold it: bytes that are no UTF-8 are shown as \\xNN."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def no_files_fix(notes: Counter[str]) -> str:
    """What to do when a folder has nothing to read, with what was seen there."""
    seen = [f"{n} {what.removeprefix('files left out: ')}" for what, n in notes.most_common(3) if n]
    return known_types() + (f'; seen but left out: {", ".join(seen)}; format = "text" reads any' if seen else "")


def missing_fix(path: Path) -> str:
    """The nearest name in the deepest folder that exists."""
    parent = path.parent
    while not parent.is_dir() and parent != parent.parent:
        path, parent = parent, parent.parent
    try:
        close = nearest(path.name, (p.name for p in parent.iterdir()))
    except OSError:
        close = None
    return f"did you mean {parent / close}" if close else f"{parent.absolute()} has no {path.name}"
