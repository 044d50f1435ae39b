"""Protein files: FASTA and tables, plain, gzipped or inside a zip. Every record is used or left out by name and reason.

A path may go on inside a zip: "splits.zip/splits/sequences.fasta".
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from danlu.base.errors import UserError
from danlu.data.samples import source_files
from danlu.data.table_read import Intake, as_text, delimited

FASTA = (".fasta", ".fa", ".faa", ".fas")
TABLES = (".csv", ".tsv")
ENDINGS = tuple(e + z for e in (*FASTA, *TABLES) for z in ("", ".gz"))
INSIDE = re.compile(r"(.+?\.zip)/(.+)", re.I)
MAX_MEMBER = 4 << 30
"""Bytes of a file inside a zip, unpacked."""
RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
OTHERS = "XBZJUO"
"""Unknown, two ambiguous pairs, I or L, selenocysteine, pyrrolysine: all read as unknown."""
GAPS, STOP = "-.", "*"
LETTERS = frozenset(RESIDUES + OTHERS)
TAG = re.compile(r"(\w+)=(\S*)")


@dataclass
class Record:
    """One entry: a name, its text, and what its header or its other columns say."""

    place: str
    name: str
    text: str
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """A file, or one inside a zip."""

    file: Path
    member: str = ""

    @property
    def name(self) -> Path:
        """Its own name, as a path, for its ending."""
        return Path(self.member) if self.member else self.file


def places_of(path: str, beside: str = "") -> list[Place]:
    """The files that a path means. A bare name is looked for beside the path `beside` first."""
    if beside and "/" not in path and "\\" not in path and not Path(path).exists():
        path = beside.rpartition("/")[0] + "/" + path if "/" in beside else path
    if found := INSIDE.fullmatch(path):
        (file,) = source_files(found[1])[:1]
        return [Place(file, found[2])]
    places = []
    for file in source_files(path, (*ENDINGS, ".zip")):
        places += zipped(file) if file.suffix.lower() == ".zip" else [Place(file)]
    return places


def zipped(file: Path) -> list[Place]:
    """The one readable file inside a zip; of several, one must be named."""
    with opened(file) as archive:
        names = [n for n in archive.namelist() if n.lower().endswith(ENDINGS) and not n.startswith("__MACOSX/")]
    if len(names) != 1:
        listed = ", ".join(sorted(names)[:8]) or "none"
        fix = f"write {file.name}/{sorted(names)[0]}" if names else "check the file"
        raise UserError(str(file), "holds several files, of which the path must name one", got=listed, fix=fix)
    return [Place(file, names[0])]


def opened(file: Path) -> zipfile.ZipFile:
    """A zip that can be read."""
    try:
        return zipfile.ZipFile(file)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(str(file), f"is not a zip that can be read ({error})") from None


def text_of(place: Place, intake: Intake) -> str:
    """The text of a file."""
    if not place.member:
        return as_text(place.file, place.file.read_bytes(), intake)
    with opened(place.file) as archive:
        try:
            info = archive.getinfo(place.member)
            if info.file_size > MAX_MEMBER:
                raise UserError(f"{place.file}/{place.member}", "is too large", got=f"{info.file_size:,} bytes")
            data = archive.read(info)
        except KeyError:
            known = ", ".join(n for n in archive.namelist() if n.lower().endswith(ENDINGS))
            raise UserError(str(place.file), f"must hold {place.member}", got=known or "nothing readable") from None
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError) as error:
            raise UserError(f"{place.file}/{place.member}", f"cannot be unpacked ({error})") from None
    return as_text(place.name, data, intake)


def records(places: list[Place], column: str, intake: Intake, most: int | None = None) -> Iterator[Record]:
    """All records of FASTA files and tables, in which `column` holds the sequence."""
    n = 0
    for place in places:
        name = place.name.name.lower().removesuffix(".gz")
        if name.endswith(TABLES):
            found = tabled(place, column, intake, most)
        else:
            found = fasta(text_of(place, intake), place.name.name, intake)
        for record in found:
            n += 1
            yield record
            if most and n >= most:
                return


def fasta(text: str, file: str, intake: Intake) -> Iterator[Record]:
    """>name words KEY=value, then lines of letters. Lines before the first header are left out; `;` lines are notes."""
    record: Record | None = None
    lines: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith(";"):
            continue
        if not line.startswith(">"):
            if record is None:
                intake.n_in += 1
                intake.reject(f"{file}:{number}", "before the first header", line)
            else:
                lines.append(line)
            continue
        if record is not None:
            record.text = "".join(lines)
            yield record
        intake.n_in += 1
        words = line[1:].split(None, 1)
        tags = {key.lower(): value for key, value in TAG.findall(words[1])} if len(words) > 1 else {}
        record, lines = Record(f"{file}:{number}", words[0] if words else f"line {number}", "", tags), []
    if record is not None:
        record.text = "".join(lines)
        yield record


def tabled(place: Place, column: str, intake: Intake, most: int | None) -> Iterator[Record]:
    """Rows of a CSV or TSV; names of columns are compared without case."""
    rows = delimited(place.name, text_of(place, intake), [], 0, intake, most)
    names = [name.lower() for name in rows.names]
    if column.lower() not in names:
        raise UserError("data.sequence", f"must be a column of {place.name.name}", got=column,
                        fix=f"use one of {', '.join(rows.names[:20])}")  # fmt: skip
    named = next((names.index(n) for n in ("name", "id", "accession") if n in names), None)
    for where, values in zip(rows.places, rows.values, strict=True):
        tags = {name: value or "" for name, value in zip(names, values, strict=True)}
        name = where if named is None else (values[named] or where)
        yield Record(where, name, tags.pop(column.lower()), tags)


def cleaned(text: str) -> tuple[str, str]:
    """(sequence, "") in capitals without gaps, white space and a closing stop mark; ("", why) where it is none."""
    found = "".join(text.split()).upper().rstrip(STOP)
    for gap in GAPS:
        found = found.replace(gap, "")
    if not found:
        return "", "no residues"
    if odd := set(found) - LETTERS:
        letter = min(odd)
        return "", "a stop inside" if letter == STOP else "letters that are no residue"
    return found, ""


def by_name(places: list[Place], what: str, intake: Intake) -> Mapping[str, Record]:
    """Records of a FASTA of labels or of a mask by their names; a name that says two things is refused."""
    found: dict[str, Record] = {}
    own = Intake()
    for record in records(places, "sequence", own):
        if found.setdefault(record.name, record).text != record.text:
            raise UserError(record.place, f"must give each protein's {what} once", got=f"{record.name} twice")
    intake.notes.update(own.notes)
    return found
