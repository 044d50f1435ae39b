"""Reading files row by row: each row is handed on, or counted as rejected with its reason."""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any

from pydantic_core import from_json

from danlu.base.errors import UserError, nearest, one_line
from danlu.data.clean import Row, Station
from danlu.data.encoding import UndecodableError, decode, decode_bytewise, marked, utf16_order
from danlu.data.files import TextFile
from danlu.data.streams import AsUtf8, BrokenFileError, blocks_of_lines, cut, open_bytes, pieces, read_some

if TYPE_CHECKING:
    from danlu.data.text import Text

SLICE_BYTES = 32_000_000
"""Text of a Parquet file held at a time."""
LINE_FACTOR = 8
"""A line of JSONL may be this many times data.max_document_bytes long: escapes and other columns take room."""
MAX_JSON_BYTES = 256_000_000
"""JSON files are parsed whole; a larger one is left out."""
CUT_NOTE = "documents cut into pieces: larger than data.max_document_bytes"


class Intake:
    """Where the readers put what they meet: counts each row once."""

    def __init__(self, settings: Text, station: Station, notes: Counter[str]) -> None:
        self.settings, self.station, self.notes = settings, station, notes

    def take(self, row: str, text: str, changes: tuple[str, ...] = ()) -> Iterator[Row]:
        """Hand a text on, in pieces if it is too large; an empty one is rejected."""
        if not text:
            return self.drop(row, "empty", "")
        limit = self.settings.max_document_bytes
        if len(text) * 4 > limit and len(data := text.encode("utf-8")) > limit:
            self.notes[CUT_NOTE] += 1
            for n, piece in enumerate(pieces(data, limit), 1):
                yield from self.take(f"{row}#{n}", piece.decode("utf-8"), changes)
            return None
        self.station.n_in += 1
        if changes:
            self.station.change(row, ", ".join(changes), text)
            for change in changes:
                self.notes[f"rows changed in reading: {change}"] += 1
        yield row, text

    def drop(self, row: str, reason: str, text: str, detail: str = "") -> None:
        """Count a row that cannot be used."""
        self.station.n_in += 1
        self.station.drop(row, reason, text, detail)

    def take_bytes(self, row: str, data: bytes, codec: str = "", is_python: bool = False) -> Iterator[Row]:
        """Decode and hand on; what cannot be decoded is rejected. `codec` "bytewise": a piece inside a text."""
        try:
            if codec == "bytewise":
                text, used = decode_bytewise(data)
            else:
                text, used = decode(data, codec or self.settings.encoding, is_python=is_python)
        except UndecodableError as error:
            self.drop(row, error.reason, data[:200].decode("utf-8", "backslashreplace"), error.detail)
            return
        changes: tuple[str, ...] = () if used in ("utf-8", self.settings.encoding) else (f"decoded as {used}",)
        if "\r\n" in text:
            text, changes = text.replace("\r\n", "\n"), (*changes, "CRLF to LF")
        yield from self.take(row, text, changes)


def text_rows(file: TextFile, intake: Intake) -> Iterator[Row]:
    """One document per file, or pieces of a large one."""
    limit = intake.settings.max_document_bytes
    with open_bytes(file.path) as stream:
        try:
            head = read_some(stream, limit + 1)
        except BrokenFileError as error:
            return intake.drop(file.name, "broken_compression", "", str(error))
        if not head:
            return intake.drop(file.name, "empty", "")
        if len(head) <= limit:
            yield from intake.take_bytes(file.name, head, is_python=file.is_python)
            return None
        codec, n_mark = stream_codec(head, intake.settings.encoding)
        if not codec:
            where = f"a NUL byte at byte {head.index(0):,}"
            return intake.drop(file.name, "binary", head[:200].decode("utf-8", "backslashreplace"), where)
        intake.notes[CUT_NOTE] += 1
        source = stream if codec == "bytewise" else AsUtf8(stream, codec, head[n_mark:])
        yield from _piece_rows(file.name, source, head[n_mark:] if codec == "bytewise" else b"", codec, intake)
    return None


def stream_codec(head: bytes, encoding: str) -> tuple[str, int]:
    """(codec of a large text, length of its byte order mark). "bytewise": each piece is decoded alone, as UTF-8 or
    Windows-1252; "": binary."""
    codec, n_mark = marked(head)
    if encoding != "auto":
        given = codecs.lookup(encoding).name
        n_mark = n_mark if codec == given else 0
        return encoding, n_mark
    if codec == "utf-8":
        return "bytewise", n_mark
    if not codec and b"\0" in head:
        return utf16_order(head), 0
    return codec or "bytewise", n_mark


def _piece_rows(name: str, source: Any, data: bytes, codec: str, intake: Intake) -> Iterator[Row]:
    """The pieces of a large text; `source` gives UTF-8 bytes unless the codec is "bytewise"."""
    limit = intake.settings.max_document_bytes
    n, is_last = 0, False
    while data or not is_last:
        n += 1
        row = f"{name}#{n}"
        try:
            while len(data) <= limit and not is_last:
                more = read_some(source, limit + 1 - len(data))
                is_last, data = not more, data + more
        except BrokenFileError as error:
            return intake.drop(row, "broken_compression", "", str(error))
        except UnicodeDecodeError as error:
            return intake.drop(row, f"not_{codec.replace('-', '_')}", "", f"{error.reason}; the rest is left out")
        at = cut(data, limit) if len(data) > limit else len(data)
        piece, data = data[:at], data[at:]
        if codec == "bytewise":
            yield from intake.take_bytes(row, piece, "bytewise")
        elif piece:
            text = piece.decode("utf-8")
            changes: tuple[str, ...] = () if codec == intake.settings.encoding else (f"decoded as {codec}",)
            if "\r\n" in text:
                text, changes = text.replace("\r\n", "\n"), (*changes, "CRLF to LF")
            yield from intake.take(row, text, changes)
    return None


def take_value(intake: Intake, row: str, value: Any) -> Iterator[Row]:
    """Hand on one cell of the text column; what is no text is rejected."""
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        value = "\n".join(value)
    if isinstance(value, str):
        yield from intake.take(row, value)
    elif value is None:
        intake.drop(row, "null", "", f"the column {intake.settings.column} is null")
    else:
        intake.drop(row, "not_text", str(value)[:200], f"the column holds a value of type {type(value).__name__}")


def jsonl_rows(file: TextFile, intake: Intake) -> Iterator[Row]:
    """One document per line; a broken line is rejected by its number, a column no row has is a UserError."""
    settings, column = intake.settings, intake.settings.column
    n, has_column = 0, False
    with open_bytes(file.path) as stream:
        try:
            for lines in _json_blocks(stream, settings.encoding, LINE_FACTOR * settings.max_document_bytes):
                for line in lines:
                    n += 1
                    row = f"{file.name}:{n}"
                    try:
                        value = from_json(line) if line else None
                    except ValueError as error:
                        value = _other_json(line or b"", error, row, intake)
                        if value is None:
                            continue
                    if isinstance(value, dict) and column in value:
                        has_column = True
                        yield from take_value(intake, row, value[column])
                    elif line is None:
                        intake.drop(row, "line_too_long", "", "longer than 8 times data.max_document_bytes")
                    elif not line:
                        intake.notes["blank lines in JSONL, passed over"] += 1
                    elif not isinstance(value, dict):
                        intake.drop(row, "not_an_object", _shown(line), "a line must be a JSON object")
                    elif not has_column:
                        raise wrong_column(row, column, value)
                    else:
                        intake.drop(row, "no_column", _shown(line), f"this row has no column {column}")
        except BrokenFileError as error:
            intake.drop(f"{file.name}:{n + 1}", "broken_compression", "", str(error))
        except UnicodeDecodeError as error:
            intake.drop(f"{file.name}:{n + 1}", "unknown_encoding", "", f"{error.reason}; the rest is left out")
    if not n:
        intake.drop(file.name, "empty", "")


def json_rows(file: TextFile, intake: Intake) -> Iterator[Row]:
    """One document for each object that has the column, wherever it lies in the file, named by its place."""
    limit, column = MAX_JSON_BYTES, intake.settings.column
    with open_bytes(file.path) as stream:
        try:
            data = read_some(stream, limit + 1)
        except BrokenFileError as error:
            return intake.drop(file.name, "broken_compression", "", str(error))
    if len(data) > limit:
        return intake.drop(file.name, "too_large", "", f"JSON is read whole, up to {limit:,} bytes; use JSONL for more")
    try:
        value = from_json(decode(data, intake.settings.encoding)[0]) if data.strip() else None
    except UndecodableError as error:
        return intake.drop(file.name, error.reason, _shown(data), error.detail)
    except ValueError as error:
        return intake.drop(file.name, "broken_json", _shown(data), one_line(str(error)))
    found = list(objects_with(column, value))
    if not found:
        return intake.drop(file.name, "no_column" if data.strip() else "empty", _shown(data), f"no object has {column}")
    for place, text in found:
        yield from take_value(intake, f"{file.name}:{place}", text)
    return None


def objects_with(key: str, value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """(place such as "content[2].content[0]", value of the key) of every object that has it, outermost first."""
    if isinstance(value, dict):
        if key in value:
            yield place or ".", value[key]
        else:
            for name, inner in value.items():
                yield from objects_with(key, inner, f"{place}.{name}" if place else name)
    elif isinstance(value, list):
        for n, inner in enumerate(value):
            yield from objects_with(key, inner, f"{place}[{n}]")


def _json_blocks(stream: IO[bytes], encoding: str, limit: int) -> Iterator[list[bytes | None]]:
    """Lines as UTF-8 bytes, whatever the file's encoding."""
    head = read_some(stream, 65536)
    codec, n_mark = marked(head)
    if encoding != "auto":
        is_utf8 = codecs.lookup(encoding).name in ("utf-8", "utf-8-sig")
        codec, n_mark = ("utf-8", n_mark if codec == "utf-8" else 0) if is_utf8 else (encoding, 0)
    elif not codec and b"\0" in head:
        codec = utf16_order(head)
    if codec in ("", "utf-8"):
        yield from blocks_of_lines(stream, head[n_mark:], limit)
    else:
        yield from blocks_of_lines(AsUtf8(stream, codec, head[n_mark:]), b"", limit)


def _other_json(line: bytes, error: ValueError, row: str, intake: Intake) -> Any:
    """The value of a line that is no UTF-8 JSON: blank, or in another encoding, or else rejected (None)."""
    if not line.strip():
        intake.notes["blank lines in JSONL, passed over"] += 1
        return None
    if intake.settings.encoding == "auto":
        try:
            text, codec = decode_bytewise(line)
            if codec != "utf-8":
                value = from_json(text)
                intake.notes[f"rows changed in reading: decoded as {codec}"] += 1
                return value
        except (UndecodableError, ValueError):
            return intake.drop(row, "broken_json", _shown(line), one_line(str(error)))
    return intake.drop(row, "broken_json", _shown(line), one_line(str(error)))


def _shown(line: bytes) -> str:
    return line[:200].decode("utf-8", "backslashreplace")


def wrong_column(where: str, column: str, known: Any) -> UserError:
    """The sentence for a text column that is not there."""
    names = [str(name) for name in known]
    close = nearest(column, names)
    fix = f'set data.column = "{close}"' if close else f"set data.column to one of {', '.join(names[:12])}"
    return UserError("data.column", f"names a column that {where} does not have", got=column, fix=fix)


def parquet_rows(file: TextFile, intake: Intake) -> Iterator[Row]:
    """One document per row, read in slices of about SLICE_BYTES of text."""
    import polars as pl

    column, start, n_rows = intake.settings.column, 0, 1000
    try:
        schema = pl.read_parquet_schema(file.path)
    except (pl.exceptions.PolarsError, OSError) as error:
        open_bytes(file.path).close()
        why = one_line(str(error).splitlines()[0])
        return intake.drop(file.name, "broken_parquet" if file.path.stat().st_size else "empty", "", why)
    if column not in schema:
        raise wrong_column(file.name, column, schema)
    if schema[column] not in (pl.String, pl.Categorical, pl.Enum):
        texts = [name for name, kind in schema.items() if kind == pl.String]
        fix = f"set data.column to one of {', '.join(texts[:12])}" if texts else "choose data that holds text"
        raise UserError("data.column", f"names a column of {file.name} that holds no text", got=column, fix=fix)
    frame = pl.scan_parquet(file.path).select(pl.col(column).cast(pl.String))
    while True:
        try:
            values = frame.slice(start, n_rows).collect().to_series().to_list()
        except pl.exceptions.PolarsError as error:
            why = one_line(str(error).splitlines()[0])
            return intake.drop(f"{file.name}:{start + 1}", "broken_parquet", "", f"{why}; the rest is left out")
        for n, value in enumerate(values, start + 1):
            yield from take_value(intake, f"{file.name}:{n}", value)
        if len(values) < n_rows:
            break
        start += n_rows
        n_characters = sum(len(value) for value in values if value)
        n_rows = max(100, min(4 * n_rows, SLICE_BYTES * n_rows // max(1, n_characters)))
    if not start and not values:
        intake.drop(file.name, "empty", "")
    return None


READERS: dict[str, Callable[[TextFile, Intake], Iterator[Row]]] = {
    "text": text_rows,
    "jsonl": jsonl_rows,
    "json": json_rows,
    "parquet": parquet_rows,
}
"""Format -> reader of one file."""
