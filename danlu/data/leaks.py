"""Held-out samples that are also training samples: what makes a score flatter than it should be. Every kind asks here."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from danlu.data.sample_splits import TRAIN

WARN_FROM = 0.01
"""Share of held-out samples that may be copies, as they are by chance, before it is said aloud."""


def copies(keys: Sequence[Hashable], labels: NDArray[np.int8]) -> list[int]:
    """Numbers of the held-out samples whose key is also a training sample's."""
    train = {keys[i] for i in np.flatnonzero(labels == TRAIN).tolist()}
    return [i for i in np.flatnonzero(labels > TRAIN).tolist() if keys[i] in train]


def report(
    found: Sequence[int], labels: NDArray[np.int8], names: Sequence[str], what: str
) -> tuple[dict[str, Any], list[str]]:
    """(counts for the card, sentences): `what` are they, as in "images"."""
    n_held = int((labels > TRAIN).sum())
    counts = {"n_held_out": n_held, "n_held_out_copies_of_training_samples": len(found)}
    if len(found) <= WARN_FROM * n_held:
        return counts, []
    shown = ", ".join(names[i] for i in found[:3])
    return counts, [f"{len(found)} of {n_held} validation and test {what} are also training {what}, such as {shown}."]


def leaks(
    keys: Iterable[Hashable], labels: NDArray[np.int8], names: Sequence[str], what: str
) -> tuple[dict[str, Any], list[str]]:
    """Both at once. Samples labelled -1 are in no split; keys may come one at a time, bytes of any size are hashed."""
    listed = [hashlib.blake2b(k, digest_size=16).digest() if isinstance(k, bytes) else k for k in keys]
    return report(copies(listed, labels), labels, names, what)
