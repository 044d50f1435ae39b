"""What is asked of proteins: a class a residue, a class or a number a protein, or nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from danlu.base.errors import UserError
from danlu.data.protein_read import OTHERS, RESIDUES, Record
from danlu.data.table_fit import fit_target, number
from danlu.data.table_read import Intake

PAD, UNKNOWN, MASK, FIRST = 0, 1, 2, 3
"""Padding, an unknown residue, a hidden one (for tasks that ask for it), the first of the 20."""
VOCAB_SIZE = FIRST + len(RESIDUES)
CODES = np.full(256, UNKNOWN, np.uint8)
CODES[[ord(c) for c in RESIDUES]] = FIRST + np.arange(len(RESIDUES))
DECODED = "-X?" + RESIDUES
MAX_CLASSES = 100


@dataclass
class Protein:
    """A protein that can be used."""

    record: Record
    sequence: str
    labels: str = ""
    """A letter a residue, or the value of the whole protein."""
    mask: str = ""
    """0 at residues that are not scored; empty: all are."""


def encoded(sequence: str) -> NDArray[np.uint8]:
    """(T,) token of each residue; what is none of the 20 is unknown."""
    return CODES[np.frombuffer(sequence.encode("ascii"), np.uint8)]


def n_unknown(sequences: Sequence[str]) -> int:
    """Residues read as unknown."""
    return sum(sequence.count(letter) for sequence in sequences for letter in OTHERS)


def labelled(
    found: Sequence[Protein], labels: Mapping[str, Record] | None, masks: Mapping[str, Record] | None, target: str,
    each: bool, intake: Intake,
) -> list[Protein]:  # fmt: skip
    """Those whose labels (one `each` residue?) and mask are there and fit; the others are left out."""
    kept = []
    for protein in found:
        record, n = protein.record, len(protein.sequence)
        if labels is None:
            protein.labels = record.tags.get(target.lower(), "")
        elif record.name in labels:
            protein.labels = labels[record.name].text
            record.tags = labels[record.name].tags | record.tags
        protein.mask = "1" * n if masks is None else masks[record.name].text if record.name in masks else ""
        reason = ""
        if not protein.labels:
            reason = "no label"
        elif each and len(protein.labels) != n:
            reason = "labels of another length"
        elif len(protein.mask) != n:
            reason = "a mask of another length" if protein.mask else "no mask"
        elif set(protein.mask) - {"0", "1"}:
            reason = "a mask that is not of 0 and 1"
        if reason:
            intake.reject(f"{record.place} {record.name}", reason, protein.sequence)
        else:
            kept.append(protein)
    return kept


def kind_of(given: str, found: Sequence[Protein], from_file: bool, target: str) -> str:
    """What the labels are: residue, number, class, auto (number or class, to be seen on train), or none."""
    if given != "auto" or from_file:
        if from_file and given not in ("auto", "residue"):
            raise UserError("data.target_kind", "must be residue where data.labels is given", got=given)
        return "residue" if from_file else given
    values = [(p, p.record.tags.get(target.lower(), "")) for p in found]
    some = [(p, v) for p, v in values if v]
    if not some:
        return "none"
    return "residue" if all(len(v) == len(p.sequence) > 1 for p, v in some) else "auto"


def fit(kind: str, train: Sequence[Protein], target: str, transform: str, unscored: str) -> dict[str, Any]:
    """What must be known of the labels, from the training proteins."""
    if kind == "none":
        return {"kind": "none"}
    if kind == "residue":
        counts: Counter[str] = Counter()
        for protein in train:
            counts.update(scored(protein, unscored))
        if len(counts) > MAX_CLASSES:
            raise UserError("data.labels", f"must have at most {MAX_CLASSES} different letters", got=len(counts))
        return {"kind": "residue", "values": sorted(counts), "counts": [counts[c] for c in sorted(counts)]}
    values = [protein.labels for protein in train]
    fitted = fit_target(target, values, {"class": "category"}.get(kind, kind), transform)
    if fitted["kind"] == "category":
        of = Counter(values)
        fitted["counts"] = [of[v] for v in fitted["values"]]
    return fitted


def scored(protein: Protein, unscored: str) -> str:
    """The labels of the residues that are scored."""
    if "0" not in protein.mask and not any(c in protein.labels for c in unscored):
        return protein.labels
    return "".join(c for c, m in zip(protein.labels, protein.mask, strict=True) if m == "1" and c not in unscored)


def features_of(fitted: Mapping[str, Any], context: int) -> dict[str, Any]:
    """What models and tasks must know."""
    found: dict[str, Any] = {
        "vocab_size": VOCAB_SIZE, "context": context, "pad_id": PAD, "unknown_id": UNKNOWN, "mask_id": MASK,
        "n_special": FIRST, "letters": DECODED,
    }  # fmt: skip
    if fitted["kind"] == "number":
        transform = {"kind": fitted["transform"], "mean": [fitted["mean"]], "std": [fitted["std"]]}
        return found | {"targets": [fitted["name"]], "target_transform": transform}
    if fitted["kind"] != "none":
        found |= {"classes": fitted["values"], "class_counts": fitted["counts"]}
    return found | {"per_position": True} if fitted["kind"] == "residue" else found


def targets_of(fitted: Mapping[str, Any], proteins: Sequence[Protein], unscored: str, context: int) -> NDArray[Any]:
    """Flat int8 a residue, (N,) int64 classes, or (N, 1) float32. What is not known is -1 or NaN."""
    if fitted["kind"] == "number":
        y = np.array([number(p.labels or None) for p in proteins])
        y = np.log1p(y) if fitted["transform"] == "log1p" else y
        return np.asarray((y - fitted["mean"]) / fitted["std"], np.float32)[:, None]
    if fitted["kind"] == "none":
        return np.full(len(proteins), -1, np.int64)
    if fitted["kind"] == "category":
        place = {value: i for i, value in enumerate(fitted["values"])}
        return np.array([place.get(p.labels, -1) for p in proteins], np.int64)
    table = np.full(256, -1, np.int8)
    for i, letter in enumerate(fitted["values"]):
        table[ord(letter)] = i
    parts = []
    for protein in proteins:
        n = min(len(protein.sequence), context)
        if not protein.labels:
            parts.append(np.full(n, -1, np.int8))
            continue
        codes = table[np.frombuffer(protein.labels[:n].encode("latin-1", "replace"), np.uint8)]
        hidden = np.frombuffer(protein.mask[:n].encode(), np.uint8) == ord("0")
        parts.append(np.where(hidden, np.int8(-1), codes))
    return np.concatenate([*parts, np.empty(0, np.int8)])
