"""Files of protein structures, line by line: the PDB format (version 3.3) and mmCIF. Each gives an `Entry`: backbone
atoms by chain and residue. A line that is broken, or a file that ends too early, raises `Broken` for the whole file.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

ENDINGS = (".pdb", ".ent", ".cif", ".mmcif", ".pdb.gz", ".ent.gz", ".cif.gz", ".mmcif.gz")
BACKBONE = ("N", "CA", "C", "CB")
WATER = {"HOH", "WAT", "DOD", "H2O"}
MAX_LINE = 1 << 20
CUT_SHORT = "truncated"
TOKEN = re.compile(r"'(?:[^']|'(?=\S))*'(?=\s|$)|\"(?:[^\"]|\"(?=\S))*\"(?=\s|$)|\S+")
WANTED = {"_atom_site", "_entity_poly_seq", "_pdbx_struct_mod_residue"}


class Broken(Exception):  # noqa: N818 - reads as what it says
    """A file that cannot be trusted: a short reason to count, and where."""

    def __init__(self, reason: str, where: str) -> None:
        super().__init__(f"{reason}: {where}")
        self.reason, self.where = reason, where


class Atom(NamedTuple):
    """One atom of one residue, in one of its alternate places."""

    name: str
    alternate: str
    occupancy: float
    residue: str
    """Residue name: alternates may differ in it."""
    place: tuple[float, float, float]
    """Angstrom."""


@dataclass
class Site:
    """One residue of a chain as the file gives it."""

    number: int
    insertion: str
    is_hetero: bool
    atoms: list[Atom] = field(default_factory=list)


@dataclass
class RawChain:
    """Residues of one chain of one model, in the order of the file."""

    shown: str
    """The name that people use."""
    entity: str = ""
    sites: dict[tuple[int, str], Site] = field(default_factory=dict)


@dataclass
class Entry:
    """What a file holds."""

    chains: dict[tuple[str, str], RawChain] = field(default_factory=dict)
    """By (model, chain)."""
    sequences: dict[str, list[str]] = field(default_factory=dict)
    """Residue names of the whole molecule, also of residues that were not seen: by chain (PDB) or entity (mmCIF)."""
    parents: dict[str, str] = field(default_factory=dict)
    """Modified residue -> the standard one, as the file says."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Residues that are no part of a protein chain: water, ligand."""
    numbered: bool = False
    """Whether a site's number is its place in the sequence (mmCIF)."""
    seen: set[tuple[str, str, int, str, str]] = field(default_factory=set)

    def leave_out(self, model: str, chain: str, number: int, insertion: str, residue: str) -> None:
        """Count a residue once."""
        key = (model, chain, number, insertion, residue)
        if key not in self.seen:
            self.seen.add(key)
            self.left_out["water" if residue in WATER else "ligand"] += 1


def read_entry(path: Path) -> Entry:
    """One file by its ending."""
    name = path.name.lower().removesuffix(".gz")
    try:
        return read_cif(lines_of(path)) if name.endswith(("cif", "mmcif")) else read_pdb(lines_of(path))
    except UnicodeDecodeError:
        raise Broken("not text", path.name) from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise Broken(CUT_SHORT, "not a whole gzip file") from None


def lines_of(path: Path) -> Iterator[str]:
    """Lines, one at a time; one that never ends is no line of these formats."""
    is_packed = path.suffix == ".gz"
    with gzip.open(path, "rt", encoding="utf-8") if is_packed else path.open(encoding="utf-8") as file:
        while line := file.readline(MAX_LINE):
            if len(line) >= MAX_LINE or "\0" in line:
                raise Broken("not text", "a line without end or with zero bytes")
            yield line.rstrip("\r\n")


def number(text: str, what: str, line: int) -> float:
    """A finite number, or Broken."""
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise Broken("broken line", f"line {line}: {what} is {text.strip() or 'empty'!r}")
    return value


def whole(text: str, what: str, line: int) -> int:
    """A whole number, or Broken."""
    try:
        return int(text)
    except ValueError:
        raise Broken("broken line", f"line {line}: {what} is {text.strip() or 'empty'!r}") from None


def read_pdb(lines: Iterator[str]) -> Entry:
    """Fixed columns: https://www.wwpdb.org/documentation/file-format-content/format33/v3.3.html."""
    entry, model, ended = Entry(), "1", set()
    is_formal = is_whole = False
    for at, line in enumerate(lines, start=1):
        record = line[:6].rstrip()
        if record in ("ATOM", "HETATM"):
            is_whole = False
            chain = line[21:22].strip() or "_"
            pdb_atom(entry, line, at, model, chain, (model, chain) in ended)
        elif record == "SEQRES":
            is_formal = True
            entry.sequences.setdefault(line[11:12].strip() or "_", []).extend(line[19:70].split())
        elif record == "MODRES":
            entry.parents[line[12:15].strip()] = line[24:27].strip()
        elif record == "MODEL":
            model = line[6:].strip() or model
        elif record == "TER":
            ended.add((model, line[21:22].strip() or "_" if len(line) > 21 else last_chain(entry)))
        is_whole |= record in ("TER", "ENDMDL", "END")
    if is_formal and not is_whole:
        raise Broken(CUT_SHORT, "the last chain has no TER and the file no END")
    return entry


def last_chain(entry: Entry) -> str:
    """The chain that was read last, for a TER that names none."""
    return next(reversed(entry.chains), ("", ""))[1]


def pdb_atom(entry: Entry, line: str, at: int, model: str, chain: str, is_ended: bool) -> None:
    """One ATOM or HETATM line."""
    if len(line) < 54:
        raise Broken("broken line", f"line {at}: an atom without all three coordinates")
    residue, name, insertion = line[17:20].strip(), line[12:16].strip(), line[26:27].strip()
    label = whole(line[22:26], "the residue number", at)
    place = tuple(number(line[i : i + 8], "a coordinate", at) for i in (30, 38, 46))
    if is_ended or residue in WATER:
        entry.leave_out(model, chain, label, insertion, residue)
        return
    occupancy = number(line[54:60], "the occupancy", at) if line[54:60].strip() else 1.0
    raw = entry.chains.setdefault((model, chain), RawChain(chain))
    site = raw.sites.setdefault((label, insertion), Site(label, insertion, line.startswith("HETATM")))
    if name in BACKBONE or not site.atoms:
        site.atoms.append(Atom(name, line[16:17].strip(), occupancy, residue, place))  # type: ignore[arg-type]


def cif_tokens(lines: Iterator[str]) -> Iterator[tuple[int, str, bool]]:
    """(line number, token, whether it was quoted) of a CIF file (Hall, Allen and Brown 1991)."""
    n_marks, last = 0, ""
    text: list[str] | None = None
    at = 0
    for at, line in enumerate(lines, start=1):
        if text is not None:
            if line.startswith(";"):
                yield at, "\n".join(text), True
                text, line = None, line[1:]
            else:
                text.append(line)
                continue
        elif line.startswith(";"):
            text = [line[1:]]
            continue
        last = line.strip() or last
        n_marks += line.strip() == "#"
        for token in TOKEN.findall(line):
            if token[0] == "#":
                break
            is_quoted = token[0] in "'\"" and len(token) > 1 and token[-1] == token[0]
            if token[0] in "'\"" and not is_quoted:
                raise Broken("broken line", f"line {at}: a quote that is not closed")
            yield at, token[1:-1] if is_quoted else token, is_quoted
    if text is not None:
        raise Broken(CUT_SHORT, f"a text block without end, at line {at}")
    if n_marks > 2 and last != "#":
        raise Broken(CUT_SHORT, f"the last part does not end with #, at line {at}")


def cif_rows(lines: Iterator[str]) -> Iterator[tuple[int, str, dict[str, str]]]:
    """(line number, category, row) of the categories that are wanted, from loops and from single pairs; of the first
    data block."""
    names: list[str] = []
    row: list[str] = []
    pairs: dict[str, str] = {}
    state, category, n_blocks, at = "out", "", 0, 0
    for at, token, quoted in cif_tokens(lines):
        is_name = not quoted and token[0] == "_"
        is_word = not quoted and (token == "loop_" or token.startswith(("data_", "save_")))
        if is_name or is_word:
            if row:
                raise Broken(CUT_SHORT, f"line {at}: a row of {category} has {len(row)} of {len(names)} values")
            if pairs and (is_word or token.partition(".")[0] != category):
                yield at, category, pairs
                pairs = {}
        if is_word:
            n_blocks += token.startswith("data_")
            if n_blocks > 1:
                return
            state, names = "names" if token == "loop_" else "out", []
        elif is_name:
            category, _, name = token.partition(".")
            if state == "names":
                names.append(name)
            else:
                state, names = "value", [name]
        elif state == "value":
            if category in WANTED:
                pairs[names[0]] = token
            state = "out"
        elif state in ("names", "rows"):
            state = "rows"
            row.append(token)
            if len(row) == len(names):
                if category in WANTED:
                    yield at, category, dict(zip(names, row, strict=True))
                row = []
        else:
            raise Broken("broken line", f"line {at}: a value without a name")
    if row or state in ("names", "value"):
        raise Broken(CUT_SHORT, f"line {at}: {category} is not complete")
    if pairs:
        yield at, category, pairs


def read_cif(lines: Iterator[str]) -> Entry:
    """mmCIF (https://mmcif.wwpdb.org): atoms, the sequence of each entity, modified residues."""
    entry = Entry(numbered=True)
    places: dict[str, set[int]] = {}
    for at, category, row in cif_rows(lines):
        if category == "_atom_site":
            cif_atom(entry, at, row)
        elif category == "_entity_poly_seq":
            entity, place = row.get("entity_id", "1"), whole(row.get("num", ""), "a sequence number", at)
            if place not in places.setdefault(entity, set()):  # of several residues at one place, the first
                places[entity].add(place)
                entry.sequences.setdefault(entity, []).append(row.get("mon_id", "UNK"))
        else:
            entry.parents[row.get("label_comp_id", "")] = row.get("parent_comp_id", "")
    return entry


def cif_atom(entry: Entry, at: int, row: dict[str, str]) -> None:
    """One row of _atom_site."""

    def given(*names: str) -> str:
        return next((row[n] for n in names if row.get(n, "?") not in ("?", ".")), "")

    model, chain = given("pdbx_PDB_model_num") or "1", given("label_asym_id", "auth_asym_id") or "_"
    residue, label = given("label_comp_id", "auth_comp_id"), given("label_seq_id")
    shown, insertion = given("auth_asym_id") or chain, given("pdbx_PDB_ins_code")
    place = tuple(number(row.get(f"Cartn_{axis}", ""), "a coordinate", at) for axis in "xyz")
    if "label_seq_id" not in row:  # files of other programs
        label, entry.numbered = given("auth_seq_id"), False
    else:
        insertion = "" if label else insertion
    if not label or residue in WATER:
        own = given("auth_seq_id")
        entry.leave_out(model, chain, int(own) if own.lstrip("-").isdigit() else at, insertion, residue)
        return
    seq = whole(label, "the residue number", at)
    raw = entry.chains.setdefault((model, chain), RawChain(shown, given("label_entity_id")))
    site = raw.sites.setdefault((seq, insertion), Site(seq, insertion, row.get("group_PDB") == "HETATM"))
    name = given("label_atom_id", "auth_atom_id")
    if name in BACKBONE or not site.atoms:
        occupancy = number(given("occupancy") or "1", "the occupancy", at)
        site.atoms.append(Atom(name, given("label_alt_id"), occupancy, residue, place))  # type: ignore[arg-type]
