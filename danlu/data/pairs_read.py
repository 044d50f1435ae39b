"""Parallel text from files: two line-aligned files, TSV, JSONL or Parquet. Every row is used or rejected by its place."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from danlu.base.errors import UserError, nearest, one_line
from danlu.data.samples import source_files
from danlu.data.table_read import Intake, decoded

ENDINGS = (".tsv", ".txt", ".jsonl", ".parquet", ".tsv.gz", ".txt.gz", ".jsonl.gz")
BRACES = re.compile(r"\{([^{},]*),([^{},]*)\}")
SHORT = 20
"""Characters up to which the lengths of two sides are not compared."""


class Pair(NamedTuple):
    """A sentence and its translation, and where they stand."""

    place: str
    source: str
    target: str


class Columns(NamedTuple):
    """Where the sides stand: fields of a TSV by number, values of JSONL and Parquet by name."""

    numbers: tuple[int, int]
    names: tuple[str, str]


def pair_files(path: str) -> list[tuple[Path, ...]]:
    """The files of a path; with braces, such as train.{en,de}, files two by two."""
    found = BRACES.search(path)
    if not found:
        return [(file,) for file in source_files(path, ENDINGS)]
    sides = [source_files(path[: found.start()] + side + path[found.end() :]) for side in found.groups()]
    if len(sides[0]) != len(sides[1]):
        got = f"{len(sides[0])} and {len(sides[1])}"
        raise UserError("data.path", f"must name as many {found[1]} files as {found[2]} files", got=got)
    return list(zip(*sides, strict=True))


def read_pairs(path: str, columns: Columns, lowercase: bool, intake: Intake) -> list[Pair]:
    """All pairs of a path with text on both sides."""
    pairs: list[Pair] = []
    for files in pair_files(path):
        for place, source, target in rows_of(files, columns, intake):
            intake.n_in += 1
            sides = [tidied(side, lowercase) for side in (source, target)]
            if not all(sides):
                empty = "no source" if not sides[0] else "no target"
                intake.reject(place, "both sides empty" if not any(sides) else empty, source + target)
            else:
                pairs.append(Pair(place, *sides))
    return pairs


def tidied(text: str, lowercase: bool = False) -> str:
    """Composed characters (NFC), one space between words."""
    text = " ".join(unicodedata.normalize("NFC", text).split())
    return text.lower() if lowercase else text


def rows_of(files: tuple[Path, ...], columns: Columns, intake: Intake) -> Iterator[Pair]:
    """The rows of one file, or of two side by side; what cannot be read is rejected here."""
    if len(files) == 2:
        source, target = (lines_of(file, intake) for file in files)
        if len(source) != len(target):
            where = f"{files[1].name}"
            wanted = f"must have as many lines as {files[0].name}, which has {len(source):,}"
            raise UserError(where, wanted, got=f"{len(target):,}", fix="align the files line by line")
        places = (f"{files[0].name}:{i}" for i in range(1, len(source) + 1))
        yield from map(Pair, places, source, target)
    elif files[0].suffix == ".parquet":
        yield from parquet_rows(files[0], columns.names)
    elif ".jsonl" in files[0].suffixes:
        yield from object_rows(files[0], columns.names, intake)
    else:
        yield from tabbed_rows(files[0], columns.numbers, intake)


def lines_of(file: Path, intake: Intake) -> list[str]:
    """Lines, cut at newlines alone: other marks that Python takes for line ends are text."""
    text = decoded(file, intake)
    return text.removesuffix("\n").split("\n")


def tabbed_rows(file: Path, numbers: tuple[int, int], intake: Intake) -> Iterator[Pair]:
    """Fields with tabs between; quote marks are text like any other."""
    for number, line in enumerate(lines_of(file, intake), start=1):
        if not line.strip():
            continue
        fields, place = line.rstrip("\r").split("\t"), f"{file.name}:{number}"
        if len(fields) < max(numbers):
            intake.n_in += 1
            intake.reject(place, "too few fields", line)
            continue
        yield Pair(place, *(fields[i - 1] for i in numbers))


def object_rows(file: Path, names: tuple[str, str], intake: Intake) -> Iterator[Pair]:
    """JSONL; a name with a dot goes into an object: translation.en."""
    for number, line in enumerate(lines_of(file, intake), start=1):
        if not line.strip():
            continue
        place, sides = f"{file.name}:{number}", None
        try:
            row = json.loads(line)
        except ValueError:
            reason = "not JSON"
        else:
            sides = [inside(row, name) for name in names]
            missing = [name for name, side in zip(names, sides, strict=True) if not isinstance(side, str)]
            reason = f"no text under {missing[0]}" if missing else ""
        if reason or sides is None:
            intake.n_in += 1
            intake.reject(place, reason, line)
            continue
        yield Pair(place, *sides)


def inside(row: Any, name: str) -> Any:
    """row["translation"]["en"] of translation.en, or None."""
    for key in name.split("."):
        row = row.get(key) if isinstance(row, dict) else None
    return row


def parquet_rows(file: Path, names: tuple[str, str]) -> Iterator[Pair]:
    """Parquet, by polars; a name with a dot goes into a struct."""
    import polars as pl

    try:
        frame = pl.read_parquet(file)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(str(file), f"is not a Parquet file that can be read ({one_line(str(error))[:80]})") from None
    sides: list[Sequence[Any]] = []
    for side, name in zip(("source", "target"), names, strict=True):
        first, *rest = name.split(".")
        if first not in frame.columns:
            near = nearest(first, frame.columns)
            fix = f"write {near}" if near else f"name one of {', '.join(frame.columns[:10])}"
            raise UserError(f"data.{side}", f"must be a column of {file.name}", got=name, fix=fix)
        sides.append([inside({"x": value}, ".".join(["x", *rest])) for value in frame[first].to_list()])
    for number, (source, target) in enumerate(zip(*sides, strict=True), start=1):
        yield Pair(f"{file.name}:{number}", *(side if isinstance(side, str) else "" for side in (source, target)))


def cleaned(pairs: Sequence[Pair], max_ratio: float, intake: Intake) -> list[Pair]:
    """Pairs to train on: those whose sides differ too much in length, and exact duplicates, are rejected."""
    kept, seen = [], set()
    for pair in pairs:
        sizes = sorted((len(pair.source), len(pair.target)))
        if sizes[1] > SHORT and sizes[1] > max_ratio * sizes[0]:
            intake.reject(pair.place, f"one side over {max_ratio:g} times as long", f"{pair.source} | {pair.target}")
        elif (sides := (pair.source, pair.target)) in seen:
            intake.reject(pair.place, "duplicate", f"{pair.source} | {pair.target}")
        else:
            seen.add(sides)
            kept.append(pair)
    return kept
