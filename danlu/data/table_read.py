"""Table files to columns of text: every row accounted for, none ever shifted. CSV, TSV, JSONL, Parquet, Arrow."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from danlu.base.errors import UserError, one_line

ENDINGS = (".csv", ".tsv", ".data", ".jsonl", ".parquet", ".arrow", ".feather", ".csv.gz")
DELIMITERS = ",\t;|"
MAX_FIELD = 1 << 22
N_SNIFFED = 200
"""Lines that the delimiter is found from."""


@dataclass
class Intake:
    """What came in, what was left out and why, what should be known."""

    n_in: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    rejected: list[dict[str, str]] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)

    def reject(self, row: str, reason: str, text: str) -> None:
        """Leave a row out."""
        self.reasons[reason] += 1
        self.rejected.append({"row": row, "reason": reason, "text": text[:200]})


@dataclass
class Rows:
    """Rows of text fields: `values[i][j]` is column `names[j]` of the row `places[i]`; None is missing."""

    names: list[str]
    values: list[list[str | None]] = field(default_factory=list)
    places: list[str] = field(default_factory=list)


def read(paths: Sequence[Path], names: Sequence[str], skip_lines: int, intake: Intake, most: int | None = None) -> Rows:
    """All files as one table; files must agree on their columns."""
    found: Rows | None = None
    for path in paths:
        part = read_file(path, names, skip_lines, intake, most)
        if found is None:
            found = part
        elif found.names == part.names:
            found.values += part.values
            found.places += part.places
        else:
            odd = sorted(set(found.names) ^ set(part.names))[:3]
            raise UserError(
                str(path),
                f"must have the columns of {paths[0].name}",
                got=f"other columns: {', '.join(odd) or 'another order'}",
            )
    return found or Rows(list(names))


def read_file(path: Path, names: Sequence[str], skip_lines: int, intake: Intake, most: int | None) -> Rows:
    """One file by its ending."""
    if path.suffix in (".parquet", ".arrow", ".feather"):
        return columnar(path, intake, most)
    text = decoded(path, intake)
    if path.suffix == ".jsonl":
        return objects(path, text, intake, most)
    return delimited(path, text, list(names), skip_lines, intake, most)


def decoded(path: Path, intake: Intake) -> str:
    """A file as text."""
    return as_text(path, path.read_bytes(), intake)


def as_text(path: Path, data: bytes, intake: Intake) -> str:
    """A file's bytes as text: UTF-8 (with or without a mark), UTF-16 by its mark, else cp1252, which is noted."""
    if path.suffix == ".gz":
        import gzip
        import zlib

        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(str(path), f"is not a whole gzip file ({error})") from None
    if not data.strip():
        raise UserError(str(path), "must hold a table", got="an empty file")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    if b"\0" in data[:65536]:
        raise UserError(str(path), "must be text", got="a binary file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        intake.notes[f"{path.name} is not UTF-8 and was read as cp1252"] += 1
        return data.decode("cp1252", "replace")


def sniffed(text: str) -> str:
    """The delimiter that cuts the first lines into the same number of fields, most of them; a comma when in doubt."""
    lines = [line for line in text[: 1 << 18].splitlines()[:N_SNIFFED] if line.strip()]
    best, delimiter = (0, 0.0), ","
    for candidate in DELIMITERS:
        try:
            counts = Counter(len(row) for row in csv.reader(lines, delimiter=candidate))
        except csv.Error:
            continue
        n_fields, n_lines = counts.most_common(1)[0]
        score = (int(n_fields > 1), n_lines / max(1, len(lines)) * min(n_fields, 3))
        if score > best:
            best, delimiter = score, candidate
    return delimiter


def delimited(path: Path, text: str, names: list[str], skip_lines: int, intake: Intake, most: int | None) -> Rows:
    """CSV or TSV. A row with more or fewer fields than the header is left out by its line number."""
    csv.field_size_limit(MAX_FIELD)
    if "\n" not in text:
        text = text.replace("\r", "\n")
    lines = text.split("\n")[skip_lines:]
    delimiter = sniffed("\n".join(lines))
    if not names:
        first = next(numbered(lines, delimiter, None, path, skip_lines, intake), None)
        if first is None:
            raise UserError(str(path), "must have a header line", got="nothing")
        names, n_head = [name.strip() for name in first[1]], first[2]
    else:
        n_head = 0
    found = Rows(checked(names, path))
    for place, values, _ in numbered(lines[n_head:], delimiter, len(names), path, skip_lines + n_head, intake):
        intake.n_in += 1
        if len(values) != len(names):
            intake.reject(place, f"{'too many' if len(values) > len(names) else 'too few'} fields", str(values))
            continue
        found.values.append([value.strip() for value in values])
        found.places.append(place)
        if most and len(found.values) >= most:
            break
    return found


def numbered(
    lines: list[str], delimiter: str, n_fields: int | None, path: Path, before: int, intake: Intake
) -> Iterator[tuple[str, list[str], int]]:
    """(file:line, fields, lines read so far) of every row; blank lines are none. Where a quote that is never closed would
    swallow the lines after it, its line alone is left out and reading goes on behind it."""
    at = 0
    how: dict[str, Any] = {"delimiter": delimiter, "skipinitialspace": True}
    while at < len(lines):
        reader = csv.reader((line + "\n" for line in lines[at:]), strict=True, **how)
        first, n_read = at, 0
        while True:
            place, why = f"{path.name}:{before + first + n_read + 1}", "fields over several lines that do not fit"
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                why = f"not CSV ({error})"
                values = next(csv.reader([lines[first + n_read]], **how))  # one line alone, read forgivingly
            else:
                if reader.line_num == n_read + 1 or n_fields in (None, len(values)):
                    n_read = reader.line_num
                    if values and values != [""]:
                        yield place, values, first + n_read
                    continue
            at = first + n_read + 1
            if n_fields in (None, len(values)) and lines[at - 1].count('"') % 2 == 0:
                intake.notes[f"{path.name}: lines with stray quote marks, read as they stand"] += 1
                yield place, values, at
            else:
                intake.n_in += 1
                open_quote = lines[at - 1].count('"') % 2 == 1
                intake.reject(place, "a quote that is not closed" if open_quote else why, lines[at - 1])
            break


def checked(names: list[str], path: Path) -> list[str]:
    """Column names, each once and none empty (an empty first one is a row number, as pandas writes it)."""
    if names and not names[0]:
        names = ["row", *names[1:]]
    twice = [name for name, n in Counter(names).items() if n > 1]
    if twice:
        raise UserError(
            str(path), "must name each column once", got=f"{twice[0]!r} twice", fix="rename one, or give data.names"
        )
    if "" in names:
        raise UserError(
            str(path), "must name every column", got=f"no name for column {names.index('') + 1}", fix="give data.names"
        )
    return names


def objects(path: Path, text: str, intake: Intake, most: int | None) -> Rows:
    """JSONL: one object a line; a key that a row lacks is missing there."""
    kept: list[tuple[str, dict[str, Any]]] = []
    names: dict[str, None] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        intake.n_in += 1
        place = f"{path.name}:{number}"
        try:
            value = json.loads(line)
        except ValueError:
            intake.reject(place, "not JSON", line)
            continue
        if not isinstance(value, dict):
            intake.reject(place, "not an object", line)
        elif nested := [key for key, v in value.items() if isinstance(v, dict | list)]:
            intake.reject(place, f"{nested[0]} is not one value", line)
        else:
            names |= dict.fromkeys(value)
            kept.append((place, value))
        if most and len(kept) >= most:
            break
    found = Rows(checked(list(names), path)) if names else Rows([])
    for place, value in kept:
        found.values.append([worded(value.get(name)) for name in found.names])
        found.places.append(place)
    return found


def columnar(path: Path, intake: Intake, most: int | None) -> Rows:
    """Parquet or Arrow, by polars."""
    import polars as pl

    try:
        frame = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_ipc(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(
            str(path), f"is not a {path.suffix[1:]} file that can be read ({one_line(str(error))[:80]})"
        ) from None
    frame = frame.head(most) if most else frame
    odd = [name for name, kind in frame.schema.items() if kind.is_nested()]
    if odd:
        raise UserError(
            str(path),
            "must have one value in each column",
            got=f"{odd[0]}, which is nested",
            fix="leave it out of the file",
        )
    intake.n_in += frame.height
    columns = [[worded(value) for value in frame[name].to_list()] for name in frame.columns]
    values = [list(row) for row in zip(*columns, strict=True)]
    return Rows(checked(list(frame.columns), path), values, [f"{path.name}:{i + 1}" for i in range(frame.height)])


def worded(value: Any) -> str | None:
    """A value as a CSV would have it."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value).strip()
