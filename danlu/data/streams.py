"""Reading a file in pieces of bounded size, plain or compressed, in any encoding."""

from __future__ import annotations

import codecs
import gzip
import io
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from danlu.base.errors import MissingExtra, UserError

BLOCK_BYTES = 1 << 20


class BrokenFileError(ValueError):
    """A compressed file that ends early or is damaged. `detail` is a clause."""


def open_bytes(path: Path) -> IO[bytes]:
    """A file opened for reading, decompressed on the way; UserError when it cannot be opened."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe or a device may never end
            raise UserError(str(path), "is not a regular file", fix="leave it out")
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
