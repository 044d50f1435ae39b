"""What a fold must beat: shapes that know nothing of the sequence, and the likest training chain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from danlu.base.contracts import Split
from danlu.tasks.fold_scores import Floats, Folded

Ids = NDArray[np.int64]
RISE, TURN, RADIUS = 1.5, np.deg2rad(100.0), 2.3
"""Of CA atoms in an alpha helix: Angstrom and angle a residue, Angstrom from the axis (Pauling et al. 1951)."""
STEP, PLEAT, BOND = 3.4, 0.9, 3.8
"""Of CA atoms in a strand: Angstrom a residue, and to each side of the axis. Their distance along the chain."""


def helix(index: Ids) -> Floats:
    """(L, 3) a right-handed alpha helix."""
    i = (index - index[0]).astype(float)
    return np.stack([RADIUS * np.cos(TURN * i), RADIUS * np.sin(TURN * i), RISE * i], -1)


def extended(index: Ids) -> Floats:
    """(L, 3) a chain drawn out straight."""
    i = (index - index[0]).astype(float)
    return np.stack([STEP * i, PLEAT * (1.0 - 2.0 * (np.abs(index - index[0]) % 2)), np.zeros(len(i))], -1)


def best_offset(own: Ids, other: Ids) -> tuple[int, int]:
    """(equal residues, shift of `other` along `own`) of the best alignment without gaps, overlapping by half of the
    shorter at least."""
    i, j = np.nonzero(own[:, None] == other[None])
    shift = i - j + len(other)
    counts = np.bincount(shift, minlength=len(own) + len(other) + 1)
    at = np.arange(len(counts)) - len(other)
    overlap = np.minimum(len(own), at + len(other)) - np.maximum(0, at)
    counts[2 * overlap < min(len(own), len(other))] = -1
    best = int(counts.argmax())
    return int(counts[best]), best - len(other)


def laid_over(n: int, places: Floats, known: NDArray[np.bool_], shift: int) -> Floats:
    """(n, 3): the places of another chain, moved by `shift` along the sequence; gaps are bridged by straight lines and
    ends go on outwards."""
    at = np.flatnonzero(known) + shift
    rows = (at >= 0) & (at < n)
    at, found = at[rows], places[known][rows]
    if len(at) < 2:
        return extended(np.arange(n))
    made = np.stack([np.interp(np.arange(n), at, found[:, axis]) for axis in range(3)], -1)
    middle = found.mean(0)
    for end, outside in ((0, np.arange(at[0])), (-1, np.arange(at[-1] + 1, n))):
        away = found[end] - middle
        away = away / max(float(np.linalg.norm(away)), 1e-6)
        made[outside] = found[end] + BOND * np.abs(outside - at[end])[:, None] * away
    return made


def rivals(train: Split, split: Split) -> dict[str, list[Folded]]:
    """Helix, extended chain, and the training chain with the likest sequence, never the chain itself."""
    made: dict[str, list[Folded]] = {"helix": [], "extended chain": [], "nearest training chain": []}
    known = [chain_at(train, row) for row in range(len(train))]
    names = [train.name(row) for row in range(len(train))]
    for row in range(len(split)):
        types, index, _, _ = chain_at(split, row)
        made["helix"].append(Folded(helix(index)))
        made["extended chain"].append(Folded(extended(index)))
        found = [(*best_offset(types, c[0]), k) for k, c in enumerate(known) if names[k] != split.name(row)]
        if not found:
            made["nearest training chain"].append(Folded(extended(index)))
            continue
        _, shift, nearest = max(found, key=lambda f: (f[0], -f[2]))
        made["nearest training chain"].append(Folded(laid_over(len(types), *known[nearest][2:], shift)))
    return made


def chain_at(split: Split, row: int) -> tuple[Ids, Ids, Floats, NDArray[np.bool_]]:
    """(types, index, CA places, where they are known) of one chain."""
    tensors = split.batch(np.array([row])).tensors
    types, index = (tensors[name][0].numpy() for name in ("residues", "residue_index"))
    return types, index, tensors["atoms"][0, :, 1].numpy().astype(float), tensors["known"][0, :, 1].numpy()
