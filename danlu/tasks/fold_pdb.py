"""A predicted chain as a PDB file (format 3.3)."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from danlu.tasks.fold_scores import Folded

NAMES = {
    "A": "ALA", "R": "ARG", "N": "ASN", "D": "ASP", "C": "CYS", "Q": "GLN", "E": "GLU", "G": "GLY", "H": "HIS", "I": "ILE",
    "L": "LEU", "K": "LYS", "M": "MET", "F": "PHE", "P": "PRO", "S": "SER", "T": "THR", "W": "TRP", "Y": "TYR", "V": "VAL",
}  # fmt: skip
CARBONYL, ANGLE = 1.231, np.deg2rad(120.5)
"""Angstrom from C to O, and the angle CA, C, O (Engh and Huber 1991)."""


def oxygens(backbone: NDArray[np.float32]) -> NDArray[np.float64]:
    """(L, 3): O in the plane of CA, C and the next N, away from that N; at the end in the plane of the residue's own N."""
    n, ca, c = (backbone[:, i].astype(float) for i in range(3))
    after = np.concatenate([n[1:], 2 * c[-1:] - n[-1:]])
    along = unit(c - ca)
    side = unit((c - after) - along * ((c - after) * along).sum(-1, keepdims=True))
    return np.asarray(c + CARBONYL * (-np.cos(ANGLE) * along + np.sin(ANGLE) * side))


def unit(v: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vectors of length 1."""
    return np.asarray(v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-6))


def pdb_text(folded: Folded, letters: list[str], index: list[int]) -> str:
    """N, CA, C, O of every residue; B-factors are 100 times the predicted lDDT."""
    if folded.backbone is None:
        raise ValueError("a baseline has no backbone")
    atoms = np.concatenate([folded.backbone, oxygens(folded.backbone)[:, None]], 1)
    atoms = atoms - atoms[:, 1].mean(0)
    sure = np.zeros(len(atoms)) if folded.lddt is None else 100 * folded.lddt
    lines = ["REMARK   1 PREDICTED BY DANLU. B-FACTOR: PREDICTED LDDT, 0 TO 100"]
    serial = 0
    for row, (letter, number) in enumerate(zip(letters, index, strict=True)):
        name = NAMES.get(letter, "UNK")
        for atom, place in zip(("N", "CA", "C", "O"), atoms[row], strict=True):
            serial += 1
            x, y, z = place
            lines.append(
                f"ATOM  {serial % 100_000:5}  {atom:<3} {name} A{number % 10_000:4}    {x:8.3f}{y:8.3f}{z:8.3f}"
                f"{1:6.2f}{sure[row]:6.2f}          {atom[0]:>2}"
            )
    last = NAMES.get(letters[-1], "UNK")
    return "\n".join([*lines, f"TER   {(serial + 1) % 100_000:5}      {last} A{index[-1] % 10_000:4}", "END", ""])


def file_name(name: str, taken: set[str]) -> str:
    """A file name of its own for a chain."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "chain"
    found, k = stem, 1
    while found in taken:
        k += 1
        found = f"{stem}-{k}"
    taken.add(found)
    return f"{found}.pdb"
