"""A look at data without reading it: how much text there is, its first documents, and a recipe section that fits."""

from __future__ import annotations

import itertools
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from danlu.base.errors import UserError
from danlu.data.catalog import CATALOG
from danlu.data.clean import Row, Station
from danlu.data.files import COMPRESSED, TextFile
from danlu.data.rows import READERS, Intake, stream_codec
from danlu.data.streams import BrokenFileError, ZstdReader, open_bytes, read_some
from danlu.data.text import Text, find, told

N_FILES = 16
"""Files looked into, spread evenly over all."""
N_ROWS = 50
"""Rows looked at in each."""
LOOK_BYTES = 262144
"""Most bytes of a plain file looked at."""
FEW_BYTES = 5_000_000
"""Below this much text a vocabulary of 8,192 tokens has too little to learn from."""
COLUMN_NAMES = ("text", "content", "body", "document", "story", "article")
"""Usual names of a text column, likeliest first."""


@dataclass(frozen=True)
class Estimate:
    """What `danlu check` says of data it has not read."""

    n_files: int
    n_bytes: int
    """On disk."""
    n_text_bytes: int
    """Guess of the UTF-8 bytes of all documents, from the files looked into; 0 for hub data, which is not looked at."""
    sample: tuple[Row, ...]
    """First documents of some files, a large one as its first piece."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Proposal:
    """A [data] section for a starter recipe."""

    settings: dict[str, Any]
    """Only what differs from the defaults, with kind and path."""
    reasons: dict[str, str]
    """Setting -> one sentence why."""
    estimate: Estimate = field(default_factory=lambda: Estimate(0, 0, 0, ()))


def estimate(settings: Text) -> Estimate:
    """Look into at most N_FILES files; takes a fraction of a second whatever the size. Downloads nothing but a
    catalog set that is not there yet."""
    notes: Counter[str] = Counter()
    found = find(settings, notes)
    files = [item for item in found if isinstance(item, TextFile)]
    sizes = [file.path.stat().st_size for file in files]
    chosen = sorted({round(i * (len(files) - 1) / max(1, N_FILES - 1)) for i in range(N_FILES)}) if files else []
    sample: list[Row] = []
    n_disk = n_text = 0.0
    for i in chosen:
        rows, text_per_byte = look_into(files[i], settings)
        sample += rows
        if sizes[i]:
            n_disk += sizes[i]
            n_text += text_per_byte * sizes[i]
    n_text_bytes = round(sum(sizes) * n_text / n_disk) if n_disk else 0
    return Estimate(len(files), sum(sizes), n_text_bytes, tuple(sample), told(notes))


def look_into(file: TextFile, settings: Text) -> tuple[list[Row], float]:
    """(first documents, bytes of text per byte on disk) of one file."""
    limit = min(settings.max_document_bytes, LOOK_BYTES)
    intake = Intake(settings.model_copy(update={"max_document_bytes": limit}), Station("look"), Counter())
    n_rows = 1 if file.format == "text" else N_ROWS
    rows = list(itertools.islice(READERS[file.format](file, intake), n_rows))
    n_text = sum(len(text.encode("utf-8", "surrogatepass")) for _, text in rows)
    if file.format == "json":  # parsed whole, so counted whole
        rest = sum(len(text.encode("utf-8", "surrogatepass")) for _, text in READERS["json"](file, intake))
        return rows, rest / max(1, file.path.stat().st_size)
    if file.format == "parquet":
        import polars as pl

        size = file.path.stat().st_size
        total = pl.scan_parquet(file.path).select(pl.len()).collect().item() if rows and size else 0
        return rows, n_text / len(rows) * total / size if rows else 0.0
    unpacked, packing = unpacking(file.path)
    if file.format == "jsonl":
        lines = unpacked.split(b"\n")[: max(1, intake.station.n_in)]
        n_seen = sum(len(line) + 1 for line in lines)
        return rows, packing * n_text / max(1, n_seen)
    if not rows or not unpacked:
        return rows, 0.0
    codec, _ = stream_codec(unpacked, settings.encoding)
    n_seen = min(len(unpacked), limit) if codec in ("", "bytewise") else len(rows[0][1].encode(codec))
    return rows, packing * n_text / n_seen


def unpacking(path: Path) -> tuple[bytes, float]:
    """(first unpacked bytes of a file, unpacked bytes per byte on disk as far as was looked)."""
    with open_bytes(path) as stream:
        try:
            head = read_some(stream, LOOK_BYTES)
        except BrokenFileError:
            return b"", 1.0
        raw: Any = getattr(stream, "raw", None)
    ending, n_disk = path.suffix.lower(), path.stat().st_size
    if ending not in COMPRESSED or not head:
        return head, 1.0
    if len(head) < LOOK_BYTES:
        return head, len(head) / n_disk
    if isinstance(raw, ZstdReader):
        return head, raw.n_unpacked / raw.n_packed
    with path.open("rb") as file:  # gzip reads ahead: unpack once more to see how much the head took
        packed = file.read(LOOK_BYTES)
    unpacker = zlib.decompressobj(wbits=31)
    n_unpacked = len(unpacker.decompress(packed, LOOK_BYTES))
    return head, n_unpacked / (len(packed) - len(unpacker.unconsumed_tail) - len(unpacker.unused_data))


def look_at(path: str) -> Proposal:
    """A starter [data] section for a path, a glob, a catalog or hub name, with one sentence of reason per setting."""
    chosen: dict[str, Any] = {"kind": "text", "path": path}
    reasons = {"kind": "danlu learns from text so far", "path": "as given"}
    if path in CATALOG:
        reasons["path"] = CATALOG[path].about
    if path.startswith("hub:"):
        return Proposal(chosen, reasons | {"path": "streamed from the hub; data.column is text unless you say so"})
    files = [item for item in find(Text(path=path), Counter()) if isinstance(item, TextFile)]
    tables = [file for file in files if file.format != "text"]
    if tables:
        column, reason = text_column(tables[0])
        if column != "text":
            chosen["column"], reasons["column"] = column, reason
    if len(tables) not in (0, len(files)):
        kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(file.format for file in files).most_common())
        reasons["path"] = f"files of several formats, all read: {kinds}"
    guess = estimate(Text(**chosen))
    if 0 < guess.n_text_bytes < FEW_BYTES:
        chosen["tokenizer"] = {"kind": "bpe", "vocab_size": 1024}
        reasons["tokenizer"] = f"{guess.n_text_bytes / 1e6:.2g} MB of text are too few to learn 8,192 tokens from"
    return Proposal(chosen, reasons, guess)


def text_column(file: TextFile) -> tuple[str, str]:
    """(the column that holds the text, one sentence why): a usual name, else the column with the longest texts."""
    rows = first_objects(file)
    lengths: Counter[str] = Counter()
    for row in rows:
        lengths.update({name: len(value) for name, value in row.items() if isinstance(value, str)})
    if not lengths:
        fix = "name a file whose rows have a column of text"
        raise UserError(str(file.path), "has no column of text in its first rows", fix=fix)
    for name in COLUMN_NAMES:
        if name in lengths:
            return name, f"{file.name} has a column of this name that holds text"
    name, n_characters = lengths.most_common(1)[0]
    others = "its only column of text" if len(lengths) == 1 else f"the longest of its {len(lengths)} columns of text"
    return name, f"{others}, {n_characters / len(rows):,.0f} characters a row"


def first_objects(file: TextFile) -> list[dict[str, Any]]:
    """The first rows of a JSONL or Parquet file with all their columns; broken lines are passed over."""
    if file.format == "parquet":
        import polars as pl

        try:
            return pl.scan_parquet(file.path).head(N_ROWS).collect().to_dicts()
        except (pl.exceptions.PolarsError, OSError) as error:
            why = str(error).splitlines()[0]
            raise UserError(str(file.path), f"is not a Parquet file that can be read ({why})") from None
    rows = []
    for line in unpacking(file.path)[0].removeprefix(b"\xef\xbb\xbf").split(b"\n")[:N_ROWS]:
        try:
            value = from_json(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            rows.append(value)
    return rows
