"""From the residues of a file to chains of fixed shape: one place a residue, one letter, one place in the sequence.

L residues; four atoms each: N, CA, C, CB (glycine's CB is where alanine's would be).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from danlu.data.structure_read import BACKBONE, Entry, Site

LETTERS = "ARNDCQEGHILKMFPSTWYVX"
"""Residue types in the order of AlphaFold's tables (Jumper et al. 2021); X is any other."""
NAMES = (
    "ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL".split()  # noqa: SIM905
)
ONE = dict(zip(NAMES, LETTERS, strict=False))
PARENTS = {
    "MSE": "MET", "FME": "MET", "MHO": "MET", "SEC": "CYS", "CSO": "CYS", "CSD": "CYS", "CME": "CYS", "OCS": "CYS",
    "CSX": "CYS", "CAS": "CYS", "CSS": "CYS", "PYL": "LYS", "M3L": "LYS", "MLY": "LYS", "MLZ": "LYS", "KCX": "LYS",
    "ALY": "LYS", "LLP": "LYS", "PCA": "GLU", "CGU": "GLU", "SEP": "SER", "TPO": "THR", "PTR": "TYR", "TYS": "TYR",
    "HYP": "PRO", "HIC": "HIS", "AIB": "ALA", "DAL": "ALA", "SAR": "GLY", "NLE": "LEU", "ASX": "ASP", "GLX": "GLU",
    "HID": "HIS", "HIE": "HIS", "HIP": "HIS", "CYX": "CYS", "AGM": "ARG", "TRQ": "TRP",
}  # fmt: skip
"""Modified residues -> the standard one they were made from, where the file does not say."""
NUCLEIC = {"A", "C", "G", "U", "I", "N", "DA", "DC", "DG", "DT", "DU", "DI"}
BOND = 2.5
"""Angstrom between C and the next N below which two residues are neighbours (a bond is 1.33)."""
BOND_CA = 4.5
"""The same between two CA (3.8), where C or N is missing."""


@dataclass(frozen=True)
class Chain:
    """One protein chain."""

    name: str
    sequence: str
    index: NDArray[np.int64]
    """(L,) place in the molecule's sequence: missing residues leave a gap, inserted ones have numbers of their own."""
    atoms: NDArray[np.float32]
    """(L, 4, 3) Angstrom, 0 where unknown; the middle of the known CA is the origin."""
    known: NDArray[np.bool_]
    """(L, 4)."""
    n_modified: int = 0

    @property
    def n_framed(self) -> int:
        """Residues with N, CA and C."""
        return int(self.known[:, :3].all(1).sum())


@dataclass
class Found:
    """The chains of a file: proteins, and what else there was."""

    proteins: list[Chain] = field(default_factory=list)
    nucleic: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    n_models_left: int = 0


@dataclass
class Residue:
    """One residue with one place for each atom."""

    name: str
    number: int
    places: dict[str, tuple[float, float, float]]


def chosen(site: Site) -> Residue:
    """The alternate of the highest occupancy, ties by letter; atoms it lacks come from the next best."""
    letters = sorted({a.alternate for a in site.atoms if a.alternate})
    mean = {x: float(np.mean([a.occupancy for a in site.atoms if a.alternate == x])) for x in letters}
    best = min(letters, key=lambda x: (-mean[x], x)) if letters else ""
    ranked = sorted(site.atoms, key=lambda a: (a.alternate not in ("", best), -a.occupancy, a.alternate))
    name = next((a.residue for a in ranked if a.alternate == best), ranked[0].residue)
    places = {a.name: a.place for a in reversed(ranked) if a.name in BACKBONE and a.residue == name}
    return Residue(name, site.number, places)


def chains_of(entry: Entry, file: str, models: str) -> Found:
    """All chains of a file; of several models the first, or all."""
    found = Found()
    names = list(dict.fromkeys(model for model, _ in entry.chains))
    taken = names if models == "all" else names[:1]
    found.n_models_left = len(names) - len(taken)
    for (model, chain), raw in entry.chains.items():
        if model not in taken:
            continue
        shown = [r.shown for (m, _), r in entry.chains.items() if m == model]
        label = raw.shown if shown.count(raw.shown) == 1 else chain
        name = f"{file}:{label}" + (f":{model}" if len(taken) > 1 else "")
        residues = [(site, chosen(site)) for site in raw.sites.values()]
        whole = entry.sequences.get(raw.entity if raw.entity else chain, [])
        if any(r.name in NUCLEIC for _, r in residues) and not any("CA" in r.places for _, r in residues):
            found.nucleic.append(name)
            continue
        kept = []
        for site, residue in residues:
            is_part = not site.is_hetero or residue.name in whole or parent(residue.name, entry.parents) in ONE
            if is_part and "CA" in residue.places:
                kept.append(residue)
            elif site.is_hetero:
                entry.leave_out(model, chain, site.number, site.insertion, residue.name)
        if kept:
            found.proteins.append(chain_of(name, kept, whole, entry, found.notes))
    return found


def parent(name: str, said: Mapping[str, str]) -> str:
    """The standard residue that a residue is, or comes from; else itself."""
    return name if name in ONE else said.get(name) or PARENTS.get(name, name)


def chain_of(name: str, residues: list[Residue], whole: Sequence[str], entry: Entry, notes: list[str]) -> Chain:
    """Residues on their places of the whole sequence; without one, what was seen."""
    if entry.numbered:
        at = [r.number for r in residues]
        fits = bool(whole) and min(at) >= 1 and max(at) <= len(whole)
    else:
        found = placed(residues, whole) if whole else None
        fits, at = found is not None, numbered(residues) if found is None else [i + 1 for i in found]
    if whole and not fits:
        notes.append(f"{name}: the atoms do not fit the sequence given with them, which was set aside")
    names = list(whole) if fits else [r.name for r in residues]
    index = np.arange(1, len(names) + 1) if fits else np.array(at)
    rows = np.array(at) - 1 if fits else np.arange(len(residues))
    atoms, known = np.zeros((len(names), 4, 3)), np.zeros((len(names), 4), bool)
    for row, residue in zip(rows, residues, strict=True):
        names[row] = residue.name
        for i, atom in enumerate(BACKBONE):
            if atom in residue.places:
                atoms[row, i], known[row, i] = residue.places[atom], True
    letters = [ONE.get(parent(n, entry.parents), "X") for n in names]
    complete_cb(atoms, known)
    atoms = np.where(known[..., None], atoms - atoms[known[:, 1], 1].mean(0), 0.0)
    n_modified = sum(n not in ONE and x != "X" for n, x in zip(names, letters, strict=True))
    return Chain(name, "".join(letters), index.astype(np.int64), atoms.astype(np.float32), known, n_modified)


def complete_cb(atoms: NDArray[np.float64], known: NDArray[np.bool_]) -> None:
    """Put CB where it would be on ideal geometry, for glycine and where it is missing (as Wang et al. 2017 do)."""
    rows = known[:, :3].all(1) & ~known[:, 3]
    n, ca, c = atoms[rows, 0], atoms[rows, 1], atoms[rows, 2]
    b, a = ca - n, c - ca
    atoms[rows, 3] = -0.58273431 * np.cross(b, a) + 0.56802827 * b - 0.54067466 * a + ca
    known[rows, 3] = True


def are_neighbours(a: Residue, b: Residue) -> bool:
    """Whether there is room for nothing between two residues."""
    ends = ("C", "N") if "C" in a.places and "N" in b.places else ("CA", "CA")
    return float(np.linalg.norm(np.subtract(a.places[ends[0]], b.places[ends[1]]))) < (
        BOND if ends[0] == "C" else BOND_CA
    )


def numbered(residues: Sequence[Residue]) -> list[int]:
    """Places from the file's numbers: bonded neighbours differ by one whatever their numbers (insertion codes, numbers
    that skip), others by what the numbers say, at least one."""
    at = [residues[0].number]
    for a, b in pairwise(residues):
        at.append(at[-1] + (1 if are_neighbours(a, b) else max(1, b.number - a.number)))
    return at


def placed(residues: Sequence[Residue], whole: Sequence[str]) -> list[int] | None:
    """Where each residue stands in the whole sequence (0-based): unbroken stretches are found there one after the
    other, each where the gap is likest to what the numbers say. None when they do not fit."""
    pieces = [[residues[0]]]
    for a, b in pairwise(residues):
        if are_neighbours(a, b):
            pieces[-1].append(b)
        else:
            pieces.append([b])
    at: list[int] = []
    first = 0
    for k, piece in enumerate(pieces):
        names = [r.name for r in piece]
        last = len(whole) - sum(map(len, pieces[k:]))
        fits = [i for i in range(first, last + 1) if list(whole[i : i + len(names)]) == names]
        if not fits:
            return None
        gap = piece[0].number - pieces[k - 1][-1].number if k else 0
        wanted = at[-1] + gap if k else fits[0]
        start = min(fits, key=lambda i: abs(i - wanted))
        at += range(start, start + len(names))
        first = start + len(names)
    return at


def letters_to_types(sequence: str) -> NDArray[np.int8]:
    """(L,) place of each letter in LETTERS; any other letter is X."""
    return np.array([LETTERS.find(x) if x in LETTERS else len(LETTERS) - 1 for x in sequence], np.int8)


def bare(name: str, sequence: str) -> Chain:
    """A sequence without a structure."""
    n = len(sequence)
    return Chain(name, sequence, np.arange(1, n + 1), np.zeros((n, 4, 3), np.float32), np.zeros((n, 4), bool))


def fasta(lines: Iterator[str], file: str) -> Iterator[Chain]:
    """Sequences of a FASTA file."""
    name, letters = "", ""
    for line in [*lines, ">"]:
        if line.startswith(">"):
            if letters:
                yield bare(f"{file}:{name}" if name else file, letters.upper())
            name, letters = line[1:].split()[0] if line[1:].split() else "", ""
        else:
            letters += line.strip()
