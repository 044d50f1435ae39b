"""Files that are either the old one or the new one, whole, whatever happens in between.

Write to a temporary file in the same folder, fsync it, rename it over the name, fsync the folder: the recipe of
"All File Systems Are Not Created Equal" (Pillai et al., OSDI 2014). A reader never sees half a file.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

from danlu.base.errors import UserError

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""What a run, a stage or a file of ours may be called: no path separators, no surprises in a shell."""
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_serial = itertools.count()


def checked_name(where: str, name: str) -> str:
    """The name itself, if it is one that can safely be part of a path."""
    if not isinstance(name, str) or not NAME.fullmatch(name) or name in {".", ".."}:
        raise UserError(
            where,
            "must be 1 to 64 letters, digits, dots, underscores or dashes",
            got=name,
            fix="choose a name such as code-lm",
        )
    return name


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write every byte; the kernel may take fewer than it was given."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder (new, renamed, removed) survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def create_file(path: Path) -> int:
    """A descriptor of a new file; one that is already there, or a link planted there, is an error."""
    return os.open(path, _CREATE, 0o666)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` by `data`: durable and atomic. Raises OSError and leaves the old file if it cannot."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}-{next(_serial)}")
    temporary.unlink(missing_ok=True)  # left by a dead process that had our number
    try:
        fd = create_file(temporary)
        try:
            write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in UTF-8: durable and atomic."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, obj: Any) -> None:
    """Replace `path` by `obj` as JSON: durable and atomic. NaN and infinity are refused (they are not JSON)."""
    try:
        text = json.dumps(obj, ensure_ascii=False, allow_nan=False, indent=1)
    except ValueError as error:
        raise ValueError(f"{Path(path).name}: {error}") from error
    write_text(path, text + "\n")


def read_json(path: Path) -> Any:
    """The object in a JSON file; UserError when it is missing, broken, or names a key twice."""
    path = Path(path)
    try:
        return json.loads(path.read_bytes(), object_pairs_hook=_once, parse_constant=_refuse)
    except FileNotFoundError as error:
        raise UserError(str(path), "is missing", fix="run the stage that writes it again") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            str(path), f"cannot be read as JSON ({error})", fix="run the stage that writes it again"
        ) from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def fingerprint(obj: Any) -> str:
    """First 16 hex digits of the SHA-256 of `obj` as canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(obj, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def _plain(obj: Any) -> Any:
    if isinstance(obj, Path):
        return str(obj)
    if isinstance(obj, frozenset | set):
        return sorted(obj)
    if hasattr(obj, "model_dump"):
        return obj.model_dump(mode="json")
    raise TypeError(f"cannot fingerprint a {type(obj).__name__}")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
