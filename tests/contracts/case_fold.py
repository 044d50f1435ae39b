"""Small helices and strands as PDB files, a truncated one among them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Sections = dict[str, Any]
EXACT = {"structure"}
NAMES = ("ALA", "GLY", "LEU", "SER", "VAL", "THR", "LYS", "GLU")


def atom(serial: int, name: str, residue: str, number: int, place: np.ndarray) -> str:
    """One ATOM line."""
    x, y, z = place
    return (
        f"ATOM  {serial:5}  {name:<3} {residue} A{number:4}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00 10.00           {name[0]}"
    )


def chain(seed: int, n: int) -> str:
    """A PDB file of a chain whose turn and rise follow from its residues."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, len(NAMES), n)
    i = np.arange(n)
    turn, radius, rise = (1.745, 2.3, 1.5) if kinds[0] % 2 else (3.1, 0.9, 3.4)
    ca = np.stack([radius * np.cos(turn * i), radius * np.sin(turn * i), rise * i], -1)
    ahead = np.diff(ca, axis=0, append=2 * ca[-1:] - ca[-2:-1])
    lines = []
    for k in range(n):
        place = {"N": ca[k] - 0.38 * ahead[max(0, k - 1)] + [0.1, 0.2, 0.5], "CA": ca[k], "C": ca[k] + 0.4 * ahead[k]}
        for name, found in place.items():
            lines.append(atom(len(lines) + 1, name, NAMES[kinds[k]], k + 1, found))
    return "\n".join([*lines, "TER", "END", ""])


def folds(model: Sections) -> Callable[[Path], Sections]:
    """The case under one model."""

    def made(folder: Path) -> Sections:
        folder = folder / "pdb"
        folder.mkdir(parents=True, exist_ok=True)
        for k in range(14):
            (folder / f"c{k}.pdb").write_text(chain(k, 8 + k % 5), encoding="ascii")
        (folder / "short.pdb").write_text(chain(99, 8)[:300], encoding="ascii")
        small = {"width": 16, "pair_width": 8, "n_heads": 2, "outer_width": 4, "triangle_width": 8, "n_blocks": 1}
        return {
            "data": {
                "kind": "structure",
                "path": str(folder),
                "min_length": 5,
                "split": {"validation": 0.2, "test": 0.2},
            },
            "model": {"kind": "fold", "n_layers": 2, "structure_heads": 2, "triangle_heads": 2, **small, **model},
            "task": {"kind": "fold", "distogram_bins": 16},
            "train": {"batch": 4},
        }

    return made


CASES: dict[str, Callable[[Path], Sections]] = {
    "fold": folds({}),
    "fold, once": folds({"recycles": 0, "triangle_attention": False}),
}
