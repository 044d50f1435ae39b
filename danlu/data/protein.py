"""Proteins: sequences of residues, with a class a residue, a class or a number a protein, or no label.

features: vocab_size, context, pad_id, unknown_id, mask_id, n_special, letters; then classes and class_counts (with per_position
          where they are of residues), or targets and target_transform
tensors:  tokens (B, T), lengths (B,), targets: see data/sequences.py
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from danlu.base.contracts import DataCard, Progress, SplitCard, StationCard
from danlu.base.durable import fingerprint, read_json, write_json
from danlu.base.errors import UserError
from danlu.data import protein_targets as asked
from danlu.data.arrays import read_arrays, write_arrays
from danlu.data.protein_change import ProteinAugment, changed
from danlu.data.protein_copies import near_copies
from danlu.data.protein_read import ENDINGS, RESIDUES, Place, Record, by_name, cleaned, places_of, records
from danlu.data.protein_targets import Protein
from danlu.data.sample_splits import NAMES, TEST, TRAIN, VALIDATION, GivenFiles, RandomSplit, SampleSplitSetting, assign
from danlu.data.samples import SampleSource, write_rejected
from danlu.data.sequences import SequenceSplit
from danlu.data.table_read import Intake

N_LOOKED = 5000
COPIES_WARN, UNKNOWN_WARN = 0.01, 0.01


class Proteins(SampleSource):
    """Protein sequences from FASTA or CSV, plain, gzipped or inside a zip."""

    kind: Literal["protein"] = "protein"
    """Proteins."""
    path: str
    """A file, a folder or a glob of .fasta, .fa, .faa, .fas, .csv or .tsv, also .gz. A path may go on inside a zip:
    "splits.zip/splits/sequences.fasta"."""
    sequence: str = "sequence"
    """In a CSV: the column of the sequence."""
    labels: str = ""
    """A FASTA (or several) of a letter a residue, by the names of the proteins; a bare file name lies beside `path`.
    Empty: the labels stand in `target`."""
    mask: str = ""
    """A FASTA of 1 and 0 a residue; residues with 0 (not resolved in the experiment) are shown but not scored. Empty:
    all are scored."""
    target: str = "target"
    """The column of a CSV, or the key in a FASTA header (TARGET=1.5), that holds the label."""
    target_kind: Literal["auto", "residue", "class", "number", "none"] = "auto"
    """A letter a residue, a class or a number a protein, or no label. auto: by the look of the labels."""
    target_transform: Literal["standard", "log1p", "none"] = "standard"
    """Of numbers, undone in every score: to mean 0 and deviation 1, after log(1 + y), or not at all."""
    unscored: str = "?"
    """Letters of `labels` that mean "not known"."""
    context: Annotated[int, Field(ge=1, le=1_000_000)] = 4096
    """Most residues of a protein; what is longer is cut, and counted."""
    augment: ProteinAugment = ProteinAugment()
    """Random changes of training proteins."""
    split: SampleSplitSetting = RandomSplit()
    """How proteins become train, validation and test."""

    def files(self) -> list[Path]:
        """The source files; a zip for those inside it."""
        held = [p for p in (self.split.validation, self.split.test) if p] if isinstance(self.split, GivenFiles) else []
        paths = [self.path, *held, *(p for p in (self.labels, self.mask) if p)]
        return list(dict.fromkeys(place.file for path in paths for place in self.places(path)))

    def places(self, path: str) -> list[Place]:
        """The files that a path of this recipe means."""
        return places_of(path, self.path)

    def usable(self, path: str, intake: Intake, seen: set[str], most: int | None = None) -> list[Protein]:
        """Proteins with a sequence that can be read, each name once."""
        found = []
        for record in records(self.places(path), self.sequence, intake, most):
            sequence, reason = cleaned(record.text)
            if not reason and record.name in seen:
                reason = "a name that was there before"
            if reason:
                intake.reject(f"{record.place} {record.name}", reason, record.text)
                continue
            seen.add(record.name)
            found.append(Protein(record, sequence))
        return found

    def judged(self, found: list[Protein], intake: Intake) -> tuple[str, list[Protein]]:
        """(kind of the labels, proteins that have them)."""
        kind = asked.kind_of(self.target_kind, found, bool(self.labels), self.target)
        if kind == "none":
            return kind, found
        labels = by_name(self.places(self.labels), "labels", intake) if self.labels else None
        masks = by_name(self.places(self.mask), "mask", intake) if self.mask else None
        if labels is None and found and not any(self.target.lower() in p.record.tags for p in found):
            known = ", ".join(sorted(found[0].record.tags)[:20]) or "none"
            raise UserError("data.target", f"must be a column or a header key (there are: {known})", got=self.target)
        return kind, asked.labelled(found, labels, masks, self.target, kind == "residue", intake)

    def expected(self) -> dict[str, Any]:
        """From the first proteins."""
        kind, found = self.judged(self.usable(self.path, Intake(), set(), N_LOOKED), Intake())
        return asked.features_of(self.fit(kind, found), self.context)

    def fit(self, kind: str, train: Sequence[Protein]) -> dict[str, Any]:
        """What must be known of the labels."""
        return asked.fit(kind, train, self.target, self.target_transform, self.unscored)

    def sides(self, found: list[Protein], given: NDArray[np.int8], kind: str, seed: int) -> NDArray[np.int8]:
        """Where each protein goes."""
        keys = {key for protein in found for key in protein.record.tags}
        columns = {key: np.array([p.record.tags.get(key, "") for p in found]) for key in keys}
        classes = np.array([p.labels for p in found]) if kind == "class" else None
        if not isinstance(self.split, GivenFiles):
            return assign(self.split, len(found), seed, columns, classes)
        own = np.flatnonzero(given == TRAIN)
        sides = given.copy()
        sides[own] = assign(self.split, len(own), seed, None, None if classes is None else classes[own])
        return sides

    def gathered(self, seed: int, intake: Intake) -> tuple[str, list[Protein], NDArray[np.int8]]:
        """(kind of the labels, all proteins that can be used, where each goes), the shortest first."""
        seen: set[str] = set()
        found = self.usable(self.path, intake, seen)
        given = {p.record.name: TRAIN for p in found}
        if isinstance(self.split, GivenFiles):
            for number, path in ((VALIDATION, self.split.validation), (TEST, self.split.test)):
                more = self.usable(path, intake, seen) if path else []
                found, given = found + more, given | {p.record.name: number for p in more}
        kind, found = self.judged(found, intake)
        if len(found) < 3:
            got = ", ".join(f"{n} {why}" for why, n in intake.reasons.most_common(4)) or "none"
            raise UserError("data.path", "must give at least three proteins that can be used", got=got)
        sides = self.sides(found, np.array([given[p.record.name] for p in found], np.int8), kind, seed)
        order = np.argsort([len(p.sequence) for p in found], kind="stable")
        return kind, [found[i] for i in order], sides[order]

    def prepare(self, folder: Path, seed: int, progress: Progress) -> DataCard:
        """Read, split, fit on train, encode, look for near copies."""
        intake = Intake()
        kind, found, sides = self.gathered(seed, intake)
        if not (sides == TRAIN).any():
            raise UserError("data.split", "must leave proteins to train on", got="none")
        fitted = self.fit(kind, [found[i] for i in np.flatnonzero(sides == TRAIN)])
        write_json(folder / "preprocessing.json", fitted)
        progress("encode", 0, len(found))
        cards, hashes = {}, []
        for number, side in enumerate(NAMES):
            chosen = [found[i] for i in np.flatnonzero(sides == number)]
            if not chosen:
                continue
            arrays = self.encoded(chosen, fitted)
            names = np.frombuffer("\n".join(p.record.name for p in chosen).encode(), np.uint8)
            hashes.append(write_arrays(folder, side, {**arrays, "names": names}))
            n_targets = len(chosen) if fitted["kind"] == "number" else int((arrays["targets"] >= 0).sum())
            cards[side] = SplitCard(n_samples=len(chosen), n_targets=n_targets)
        progress("near copies", 0, 1)
        leakage, warnings = copies(found, sides)
        said = (*warnings, *self.warnings([p.sequence for p in found]), *intake.notes)
        write_rejected(folder, intake.rejected)
        station = StationCard(
            name="read", n_in=intake.n_in, n_dropped=dict(intake.reasons), examples=tuple(intake.rejected[:5])
        )
        card = DataCard(
            kind=self.kind, source=self.path, rows_in=intake.n_in, rows_used=len(found),
            rows_rejected=dict(intake.reasons), stations=(station,), splits=cards,
            features=asked.features_of(fitted, self.context), vocab_size=asked.VOCAB_SIZE, leakage=leakage,
            warnings=said, fingerprint=fingerprint([hashes, self.model_dump(mode="json")]),
        )  # fmt: skip
        write_json(folder / "card.json", card.model_dump(mode="json"))
        return card

    def warnings(self, sequences: Sequence[str]) -> list[str]:
        """What a user should know of the sequences."""
        n_cut = sum(len(s) > self.context for s in sequences)
        found = [f"{n_cut:,} proteins are longer than data.context and are cut."] if n_cut else []
        n, odd = sum(map(len, sequences)), asked.n_unknown(sequences)
        if odd:
            found.append(f"{odd:,} of {n:,} residues are none of the 20 and are read as unknown.")
        if n and sum(s.count(c) for s in sequences for c in "ACGTN") > 0.95 * n:
            found.append("The sequences look like DNA, and are read as proteins.")
        return found

    def encoded(self, proteins: Sequence[Protein], fitted: dict[str, Any]) -> dict[str, NDArray[Any]]:
        """Flat tokens with offsets, and targets."""
        lists = [asked.encoded(p.sequence[: self.context]) for p in proteins]
        return {
            "tokens": np.concatenate([*lists, np.empty(0, np.uint8)]),
            "offsets": np.cumsum([0, *map(len, lists)]),
            "targets": asked.targets_of(fitted, proteins, self.unscored, self.context),
        }

    def open(self, folder: Path, card: DataCard, split: str) -> SequenceSplit:
        """A prepared split."""
        found = {name: np.asarray(array) for name, array in read_arrays(folder, split).items()}
        names = found.pop("names").tobytes().decode().split("\n")
        change = partial(changed, how=self.augment, letters=RESIDUES, first=asked.FIRST, unknown=asked.UNKNOWN)
        is_on = bool(self.augment.hide or self.augment.exchange)
        crop = self.augment.crop
        return SequenceSplit(found, names, card.features, asked.DECODED, crop, change if is_on else None)

    def read(self, folder: Path, card: DataCard, inputs: Sequence[Any]) -> SequenceSplit:
        """Paths of FASTA or CSV files, sequences as text, or {"sequence": ..., "name": ...}."""
        fitted = read_json(folder / "preprocessing.json")
        found: list[Protein] = []
        for number, value in enumerate(inputs, start=1):
            intake = Intake()
            if isinstance(value, dict):
                listed = [
                    Record(f"input {number}", str(value.get("name", f"input {number}")), str(value.get("sequence", "")))
                ]
            elif Path(str(value)).exists() or str(value).lower().endswith(ENDINGS) or ".zip/" in str(value):
                listed = list(records(self.places(str(value)), self.sequence, intake))
            else:
                listed = [Record(f"input {number}", f"input {number}", str(value))]
            for record in listed:
                sequence, reason = cleaned(record.text)
                if reason:
                    raise UserError(f"{record.place} {record.name}", f"cannot be read: {reason}", got=record.text[:40])
                found.append(Protein(record, sequence))
        names = [p.record.name for p in found]
        return SequenceSplit(self.encoded(found, fitted), names, card.features, asked.DECODED)


def copies(found: Sequence[Protein], sides: NDArray[np.int8]) -> tuple[dict[str, Any], list[str]]:
    """(counts for the card, sentences) on held-out proteins that are near copies of training proteins."""
    train = np.flatnonzero(sides == TRAIN)
    tokens = [asked.encoded(protein.sequence) for protein in found]
    leakage: dict[str, Any] = {}
    warnings = []
    for number in (VALIDATION, TEST):
        held = np.flatnonzero(sides == number)
        if not len(held):
            continue
        pairs = near_copies([tokens[i] for i in train], [tokens[i] for i in held])
        leakage[f"n_{NAMES[number]}_near_copies_of_training_proteins"] = len(pairs)
        if len(pairs) > COPIES_WARN * len(held):
            one, other, share = pairs[0]
            warnings.append(
                f"{len(pairs):,} of {len(held):,} {NAMES[number]} proteins are near copies of training proteins (such as "
                f"{found[held[one]].record.name} of {found[train[other]].record.name}: {share:.0%} of its pieces): "
                "scores say how variants of known proteins are told, not new ones."
            )
    return leakage, warnings
