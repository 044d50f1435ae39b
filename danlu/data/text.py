"""Text as data: its settings, and reading it one document at a time in memory that does not grow with the corpus.

Every row that is met (a file, a line of JSONL, a row of Parquet, a piece of a large one of these) is either handed
on or counted as rejected, with its reason; a station keeps the counts and `notes` what else a user should know.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from danlu.base.contracts import Documents
from danlu.base.errors import UserError, nearest
from danlu.base.settings import Settings
from danlu.base.units import BytesSetting
from danlu.data.catalog import CATALOG, catalog_files, in_data_folder
from danlu.data.catalog_sets import located
from danlu.data.clean import DEFAULT_CLEANING, CleaningStep, Station
from danlu.data.encoding import is_codec
from danlu.data.files import Format, TextFile, find_files, has_wildcard, of_pattern, written
from danlu.data.hub import HubName, hub_rows
from danlu.data.rows import READERS, Intake, take_value
from danlu.data.split import ContentSplit, GivenSplit, SplitSetting
from danlu.data.tokenizer import Bpe, TokenizerSetting


def codec_name(name: str) -> str:
    """A name Python decodes by, or auto."""
    if name != "auto" and not is_codec(name):
        from encodings.aliases import aliases

        close = nearest(name, {"auto", *aliases, *aliases.values()})
        raise ValueError(f"must be auto or a codec name such as utf-8, cp1252, gb18030 ({close or 'auto'} is near)")
    return name


class Text(Settings):
    """Text to learn from: files, a catalog name or a hub name; what cleans it, splits it, and turns it into tokens."""

    kind: Literal["text"] = "text"
    """Text."""
    path: Annotated[str, Field(min_length=1)] | Annotated[tuple[str, ...], Field(min_length=1)]
    """A file, a folder, a glob, a catalog name ("python-stdlib"), a hub name ("hub:owner/name"), or a list of these."""
    pattern: str = ""
    """Of a folder or catalog set, only the files whose names match, such as "*.py"; empty: every file of a known type."""
    format: Format = "auto"
    """How files are read: by their endings (auto), or all as text, jsonl, json or parquet."""
    column: Annotated[str, Field(min_length=1)] = "text"
    """The column that holds the text, in JSONL, JSON, Parquet and hub data; a list of strings becomes lines. A JSON file gives
    a document for each object that has it, however deep it lies."""
    encoding: Annotated[str, AfterValidator(codec_name)] = "auto"
    """How bytes become characters: auto detects it, a codec's name decides it; bytes that do not fit are refused."""
    max_document_bytes: Annotated[BytesSetting, Field(ge=1024, le=1 << 30)] = 4_000_000
    """Larger documents are cut into pieces of at most this many bytes, at line ends where there are any."""
    clean: tuple[CleaningStep, ...] = DEFAULT_CLEANING
    """Cleaning steps, in order; [] does nothing."""
    split: SplitSetting = ContentSplit()
    """Which rows train, validate and test."""
    tokenizer: TokenizerSetting = Bpe()
    """How text becomes token ids."""
    pack: Literal["stream", "separate"] = "stream"
    """Documents one after another as a stream, or kept apart so that attention does not cross their ends."""
    document_end: Literal["auto"] | bool = "auto"
    """A token after each document; auto: when there is more than one document."""

    @property
    def paths(self) -> tuple[str, ...]:
        """`path` as a tuple."""
        return (self.path,) if isinstance(self.path, str) else self.path


def read(settings: Text, station: Station, notes: Counter[str] | None = None) -> Documents:
    """The documents in a stable order, one at a time; every row is counted by `station`.

    Paths are looked up at once, so a wrong one is a UserError here; the rest happens while iterating. `notes`
    collects what else was met (`told` makes sentences of it).
    """
    notes = Counter() if notes is None else notes
    return _rows(find(settings, notes), Intake(settings, station, notes))


def find(settings: Text, notes: Counter[str]) -> list[TextFile | str]:
    """The files that `data.path` means, in order, a file once; a hub name stays a name."""
    if len(settings.paths) == 1:
        return find_one(settings, settings.paths[0], notes)
    found: dict[Any, TextFile | str] = {}
    for given in settings.paths:
        for item in find_one(settings, given, notes):
            if isinstance(item, TextFile):
                is_file = not has_wildcard(given) and Path(given).is_file()
                name = given if is_file else f"{given.rstrip('/')}/{item.name}"
                item = TextFile(item.path, written(name), item.format)
            key = item if isinstance(item, str) else item.path.resolve()
            notes["files named more than once, read once"] += key in found
            found.setdefault(key, item)
    return list(found.values())


def find_one(settings: Text, given: str, notes: Counter[str]) -> list[TextFile | str]:
    """The files that one path, glob, catalog or hub name means; a setting that would do nothing is refused."""
    given = located(given) if given.startswith("$") else given
    is_hub, is_set = given.startswith("hub:"), given in CATALOG
    place = given if is_hub or is_set else in_data_folder(given)
    is_one = is_hub or not (is_set or Path(place).is_dir())
    if settings.pattern and is_one and not isinstance(settings.split, GivenSplit):
        fix = "leave it out, or write a glob as data.path"
        raise UserError("data.pattern", "is for folders and catalog names", got=given, fix=fix)
    if settings.format != "auto" and (is_set or is_hub):
        raise UserError("data.format", "is for files and folders", got=given, fix="leave it out")
    if is_hub:
        HubName.parse(given)
        return [given]
    if not is_set:
        return [*find_files(place, settings.pattern, settings.format, notes)]
    files = of_pattern(catalog_files(given, notes), settings.pattern, notes)
    if not files:
        raise UserError("data.pattern", f"matches no file of {given}", got=settings.pattern, fix='try "*.py"')
    return [*files]


def told(notes: Counter[str]) -> tuple[str, ...]:
    """The notes as lines for the data card."""
    return tuple(f"{what}: {n:,}" for what, n in sorted(notes.items()) if n)


def _rows(found: list[TextFile | str], intake: Intake) -> Documents:
    for item in found:
        if isinstance(item, str):
            for name, value in hub_rows(item, intake.settings.column):
                yield from take_value(intake, name, value)
        else:
            yield from READERS[item.format](item, intake)
    station = intake.station
    if station.n_in and station.n_in == station.n_dropped.total():
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in station.n_dropped.most_common(4))
        what = "one row, and it was" if station.n_in == 1 else f"{station.n_in:,} rows, and all were"
        example = station.examples[0]
        raise UserError(
            "data.path", f"gave {what} rejected ({reasons})", got=", ".join(intake.settings.paths),
            fix=f"see {example['row']}: {example['reason']}",
        )  # fmt: skip
