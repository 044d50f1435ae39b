"""Which files a path means, and reading them in pieces of bounded size, plain or compressed."""

from __future__ import annotations

import codecs
import gzip
import io
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

from danlu.base.errors import MissingExtra, UserError, nearest

FORMATS = {".txt": "text", ".md": "text", ".py": "text", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
"""What an ending says of a file."""
Format = Literal["auto", "text", "jsonl", "parquet"]
COMPRESSED = (".gz", ".zst")
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class TextFile:
    """One file to read."""

    path: Path
    name: str
    """As row names show it: relative to the folder that was given."""
    format: str
    """text, jsonl or parquet."""

    @property
    def is_python(self) -> bool:
        """A Python source file (which may name its own encoding)."""
        return inner_suffix(self.path) == ".py"


class BrokenFileError(ValueError):
    """A compressed file that ends early or is damaged. `detail` is a clause."""


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
        names = walk(root, notes)
        if pattern:
            kept = [name for name in names if Path(name).match(pattern)]
            notes["files left out: not of data.pattern"] += len(names) - len(kept)
            names = kept
        found = [TextFile(root / name, name, kind) for name in names if (kind := format_of(Path(name), wanted, notes))]
        if not found:
            raise UserError(where, f"has no files to read{of_pattern(pattern)}", got=given, fix=no_files_fix(notes))
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
    return [TextFile(root, root.name, kind)]


def matching(root: Path, given: str, wanted: Format, notes: Counter[str], where: str) -> list[TextFile]:
    """The files that a glob with *, ?, [..] or ** matches."""
    fixed = 0
    while fixed < len(root.parts) and not has_wildcard(root.parts[fixed]):
        fixed += 1
    top = Path(*root.parts[:fixed])
    paths = sorted((p for p in top.glob(str(Path(*root.parts[fixed:]))) if p.is_file()), key=lambda p: p.as_posix())
    found = [TextFile(p, p.relative_to(top).as_posix(), kind) for p in paths if (kind := format_of(p, wanted, notes))]
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


def of_pattern(pattern: str) -> str:
    """A clause naming the pattern, if there is one."""
    return f' that match the pattern "{pattern}"' if pattern else ""


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


def open_bytes(path: Path) -> IO[bytes]:
    """A file opened for reading, decompressed on the way; UserError when it cannot be opened."""
    try:
        if path.suffix.lower() == ".gz":
            return cast(IO[bytes], gzip.open(path, "rb"))
        file = path.open("rb")
    except OSError as error:
        raise UserError(
            str(path), f"cannot be read ({error.strerror})", fix="see its permissions, or leave it out"
        ) from None
    if path.suffix.lower() == ".zst":
        return io.BufferedReader(ZstdReader(file), BLOCK_BYTES)
    return file


class ZstdReader(io.RawIOBase):
    """Decompresses Zstandard frames; unlike zstandard's own reader it tells a file cut short from a whole one."""

    def __init__(self, file: IO[bytes]) -> None:
        try:
            import zstandard
        except ImportError:
            raise MissingExtra("reading .zst files", "zstandard", "data") from None
        self._file, self._library = file, zstandard
        self._frame: Any = None
        self._packed, self._ready, self._at = b"", b"", 0
        self.n_packed = self.n_unpacked = 0
        """Bytes read from the file so far, and what they came to."""

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with what is decompressed so far, decompressing a little more if there is none."""
        while self._at >= len(self._ready):
            packed = self._packed or self._file.read(8192)  # small: 8 KiB of zeros' code may unpack to very much
            self.n_packed += 0 if self._packed else len(packed)
            if not packed:
                if self._frame is not None:
                    raise EOFError("the compressed data ends early")
                return 0
            if self._frame is None:
                self._frame = self._library.ZstdDecompressor().decompressobj()
            try:
                self._ready, self._at = self._frame.decompress(packed), 0
            except self._library.ZstdError as error:
                raise BrokenFileError(str(error)) from None
            self.n_unpacked += len(self._ready)
            self._packed = self._frame.unused_data if self._frame.eof else b""
            self._frame = None if self._frame.eof else self._frame
        n = min(len(buffer), len(self._ready) - self._at)
        buffer[:n] = self._ready[self._at : self._at + n]
        self._at += n
        return n

    def close(self) -> None:
        """Close the file below too."""
        self._file.close()
        super().close()


def read_some(file: IO[bytes], n: int) -> bytes:
    """Up to n bytes (fewer only at the end); BrokenFileError when the compression is damaged or cut short."""
    try:
        return file.read(n)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BrokenFileError(str(error)) from None
    except OSError as error:
        raise UserError(str(getattr(file, "name", "the file")), f"cannot be read ({error.strerror or error})") from None


class AsUtf8:
    """A file in another encoding, read as UTF-8 bytes; UnicodeDecodeError where it is not in that encoding."""

    def __init__(self, file: IO[bytes], codec: str, head: bytes) -> None:
        self._file, self._head, self._ready = file, head, b""
        self._decoder = codecs.getincrementaldecoder(codec)("strict")
        self._failed: UnicodeDecodeError | None = None

    def read(self, n: int) -> bytes:
        """Up to n bytes (fewer only at the end); a fault is raised once all before it is handed out."""
        parts, n_ready, is_last = [self._ready], len(self._ready), self._failed is not None
        while n_ready < n and not is_last:
            raw, self._head = self._head or read_some(self._file, BLOCK_BYTES), b""
            is_last = not raw
            try:
                parts.append(self._decoder.decode(raw, final=is_last).encode("utf-8"))
            except UnicodeDecodeError as error:
                self._failed, is_last = error, True
                parts.append(b"")
            n_ready += len(parts[-1])
        ready = b"".join(parts)
        self._ready = ready[n:]
        if self._failed and not ready:
            raise self._failed
        return ready[:n]


def cut(data: bytes, limit: int, start: int = 0) -> int:
    """Where UTF-8 text over `limit` bytes is cut: after the last line end, else before the character that crosses."""
    end = start + limit
    at = data.rfind(b"\n", start, end) + 1
    if at:
        return at
    at = end
    while at > end - 4 and data[at] & 0xC0 == 0x80:
        at -= 1
    return at - 1 if data[at - 1] == 0x0D else at


def pieces(data: bytes, limit: int) -> Iterator[bytes]:
    """UTF-8 bytes cut into pieces of at most `limit` bytes, at line ends where there are any."""
    start = 0
    while len(data) - start > limit:
        end = cut(data, limit, start)
        yield data[start:end]
        start = end
    if start < len(data):
        yield data[start:]


def blocks_of_lines(file: IO[bytes] | AsUtf8, head: bytes, limit: int) -> Iterator[list[bytes | None]]:
    """The lines of `head` and the rest of a file, many at a time, without their ends; None for a line over `limit`.

    `limit` is at least BLOCK_BYTES, so that whether a line is too long does not hang on where blocks begin.
    """
    rest: list[bytes] = []
    n_rest, skipping, limit = 0, False, max(limit, BLOCK_BYTES)
    while block := head or (file.read(BLOCK_BYTES) if isinstance(file, AsUtf8) else read_some(file, BLOCK_BYTES)):
        head = b""
        body, newline, tail = block.rpartition(b"\n")
        if not newline:
            n_rest += len(block)
            skipping = skipping or n_rest > limit
            rest = [] if skipping else [*rest, block]
            continue
        lines: list[bytes | None] = [*body.split(b"\n")]
        first = lines[0] or b""
        lines[0] = None if skipping or n_rest + len(first) > limit else b"".join([*rest, first])
        rest, n_rest, skipping = [tail], len(tail), False
        yield lines
    if n_rest:
        yield [None if skipping else b"".join(rest)]
