"""Protein structures: one sample a chain, from PDB and mmCIF files. Sequences alone (text, FASTA) can be predicted for.

features: residue_types (a letter each), max_length
tensors:  residues (B, L) int64 types, residue_index (B, L) int64 places in the molecule's sequence, inside (B, L) bool,
          atoms (B, L, 4, 3) float32 Angstrom (N, CA, C, CB), known (B, L, 4) bool, lengths (B,); padded to the longest
n_targets: residues with N, CA and C
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from danlu.base.contracts import Batch, DataCard, Progress, SplitCard, StationCard
from danlu.base.durable import fingerprint, write_json
from danlu.base.errors import UserError
from danlu.base.settings import Chosen, Settings
from danlu.data.arrays import read_arrays, write_arrays
from danlu.data.sample_splits import NAMES, SAMPLE_SPLITS, TEST, TRAIN, VALIDATION, GivenFiles, RandomSplit, assign
from danlu.data.samples import SampleSource, source_files, write_rejected
from danlu.data.structure_chains import LETTERS, Chain, bare, chains_of, fasta, letters_to_types
from danlu.data.structure_read import ENDINGS, Broken, lines_of, read_entry
from danlu.data.table_read import Intake

SEQUENCES = (".fasta", ".fa", ".faa")
PAIRS_AT_ONCE = 400_000
"""Pairs of residues that may go through a model together when it is scored."""
LEFT_OUT = -1


class ListSplit(Settings):
    """Chains by name: "1UBQ" (all chains of a file), "1UBQ:A"."""

    kind: Literal["lists"] = "lists"
    """By lists of names."""
    train: tuple[str, ...] = ()
    """Names for training."""
    validation: tuple[str, ...] = ()
    """Names for validation."""
    test: tuple[str, ...] = ()
    """Names for test."""
    rest: Literal["train", "validation", "test", "leave out"] = "leave out"
    """What is named nowhere."""


STRUCTURE_SPLITS: dict[str, type[Settings]] = SAMPLE_SPLITS | {"lists": ListSplit}
"""The ways to split chains that a recipe can name."""


class Structure(SampleSource):
    """Protein chains with the places of their backbone atoms."""

    kind: Literal["structure"] = "structure"
    """Protein structures."""
    path: str
    """A file, a folder or a glob of .pdb, .ent, .cif or .mmcif files, each also as .gz."""
    models: Literal["first", "all"] = "first"
    """Of a file with several models (NMR): the first, or each as a sample."""
    chains: tuple[str, ...] = ()
    """Only chains of these names, such as ["A"]; empty: every protein chain."""
    min_length: Annotated[int, Field(ge=1)] = 20
    """Chains with fewer residues of known backbone are left out."""
    max_length: Annotated[int, Field(ge=1, le=65_536)] = 256
    """Most residues of a sample."""
    longer: Literal["reject", "crop"] = "reject"
    """A longer chain is left out, or cut: training sees max_length neighbouring residues from a place drawn anew each
    epoch (a pure function of seed, epoch and chain), scoring the first max_length."""
    missing: Literal["mask", "drop"] = "mask"
    """Residues of the molecule that were not seen in the experiment: in the sequence without places, or left out (their
    numbers still leave a gap)."""
    keep_together: bool = True
    """Whether a random split keeps chains of the same sequence on one side."""
    split: Annotated[Settings, Chosen(STRUCTURE_SPLITS, default="random")] = RandomSplit()
    """How chains become train, validation and test."""

    def files(self) -> list[Path]:
        """The source files."""
        held = [p for p in (self.split.validation, self.split.test) if p] if isinstance(self.split, GivenFiles) else []
        return [file for path in (self.path, *held) for file in source_files(path, ENDINGS)]

    def expected(self) -> dict[str, Any]:
        """All of it, without reading."""
        source_files(self.path, ENDINGS)
        return {"residue_types": LETTERS, "max_length": self.max_length}

    def read_chains(self, path: str, intake: Intake, left_out: Counter[str], progress: Progress) -> Iterator[Chain]:
        """Every chain of a path that is fit to be used. A row of the data is a chain, or a file that cannot be read."""
        files = source_files(path, ENDINGS)
        for n, file in enumerate(files):
            progress("read", n, len(files))
            try:
                entry = read_entry(file)
            except Broken as error:
                intake.n_in += 1
                intake.reject(file.name, error.reason, error.where)
                continue
            found = chains_of(entry, file.name, self.models)
            left_out.update(entry.left_out)
            for note in found.notes:
                intake.notes[note] += 1
            if found.n_models_left:
                intake.notes[f"{file.name}: {found.n_models_left} further models are left out (data.models)"] += 1
            for name in found.nucleic:
                intake.n_in += 1
                intake.reject(name, "nucleic acid", "")
            if not found.proteins and not found.nucleic:
                intake.n_in += 1
                intake.reject(file.name, "no protein chain", "")
            for chain in found.proteins:
                intake.n_in += 1
                reason = self.unfit(chain)
                if reason:
                    intake.reject(chain.name, reason, chain.sequence)
                else:
                    yield trimmed(chain) if self.missing == "drop" else chain

    def unfit(self, chain: Chain) -> str:
        """Why a chain is not used, or nothing."""
        n = int(chain.known[:, 1].sum()) if self.missing == "drop" else len(chain.sequence)
        if self.chains and chain.name.split(":")[1] not in self.chains:
            return "not in data.chains"
        if chain.n_framed < self.min_length:
            return "shorter than data.min_length"
        if n > self.max_length and self.longer == "reject":
            return "longer than data.max_length"
        return ""

    def prepare(self, folder: Path, seed: int, progress: Progress) -> DataCard:
        """Read, split, write arrays."""
        intake, left_out = Intake(), Counter[str]()
        chains = list(self.read_chains(self.path, intake, left_out, progress))
        given = np.zeros(len(chains), np.int8)
        if isinstance(self.split, GivenFiles):
            for number, path in ((VALIDATION, self.split.validation), (TEST, self.split.test)):
                more = list(self.read_chains(path, intake, left_out, progress)) if path else []
                chains, given = chains + more, np.concatenate([given, np.full(len(more), number, np.int8)])
        if not chains:
            got = ", ".join(f"{n} {why}" for why, n in intake.reasons.most_common(4)) or "none"
            raise UserError("data.path", "must give at least one protein chain that can be used", got=got)
        labels = self.sides(chains, given, seed)
        for i in np.flatnonzero(labels == LEFT_OUT):
            intake.reject(chains[i].name, "not in the lists of data.split", chains[i].sequence)
        if not (labels == TRAIN).any():
            raise UserError("data.split", "must leave at least one chain for training", got=f"{len(chains)} chains")
        write_json(folder / "preprocessing.json", {"residue_types": LETTERS})
        cards, hashes = {}, []
        for number, side in enumerate(NAMES):
            part = [chains[i] for i in np.flatnonzero(labels == number)]
            if part:
                hashes.append(write_arrays(folder, side, arrays_of(part)))
                cards[side] = SplitCard(n_samples=len(part), n_targets=sum(c.n_framed for c in part))
        write_rejected(folder, intake.rejected)
        copies, warnings = shared_sequences(chains, labels)
        read = StationCard(
            name="read", n_in=intake.n_in, n_dropped=dict(intake.reasons), examples=tuple(intake.rejected[:5])
        )
        n_residues = sum(len(c.sequence) for c in chains)
        residues = StationCard(
            name="residues", n_in=n_residues + left_out.total(), n_changed=sum(c.n_modified for c in chains),
            n_dropped=dict(left_out),
        )  # fmt: skip
        card = DataCard(
            kind=self.kind, source=self.path, rows_in=intake.n_in, rows_used=int((labels != LEFT_OUT).sum()),
            rows_rejected=dict(intake.reasons), stations=(read, residues), splits=cards, features=self.expected(),
            leakage=copies, warnings=(*warnings, *intake.notes),
            fingerprint=fingerprint([hashes, self.model_dump(mode="json")]),
        )  # fmt: skip
        write_json(folder / "card.json", card.model_dump(mode="json"))
        return card

    def sides(self, chains: Sequence[Chain], given: NDArray[np.int8], seed: int) -> NDArray[np.int8]:
        """Where each chain goes, LEFT_OUT for nowhere."""
        if isinstance(self.split, ListSplit):
            return listed(self.split, [c.name for c in chains])
        labels = given.copy()
        own = np.flatnonzero(given == TRAIN).tolist()
        sequences = np.array([chains[i].sequence if self.keep_together else chains[i].name for i in own])
        _, first, group = np.unique(sequences, return_index=True, return_inverse=True)
        turn = np.argsort(np.argsort(first))  # groups in the order of the files, so that names decide nothing
        labels[own] = assign(self.split, len(first), seed)[turn[group]]
        return labels

    def open(self, folder: Path, card: DataCard, split: str) -> StructureSplit:
        """A prepared split."""
        arrays = {name: np.asarray(array) for name, array in read_arrays(folder, split).items()}
        return StructureSplit(arrays, self.max_length)

    def read(self, folder: Path, card: DataCard, inputs: Sequence[Any]) -> StructureSplit:
        """Structure files, FASTA files, or sequences as text: their places are then what is predicted."""
        chains: list[Chain] = []
        for given in inputs:
            text = str(given).strip()
            if re.fullmatch(r"[A-Za-z\s]+", text) and not os.path.exists(text):
                chains.append(bare(f"sequence {len(chains) + 1}", "".join(text.upper().split())))
            elif text.lower().endswith(SEQUENCES):
                chains += [c for file in source_files(text, SEQUENCES) for c in fasta(lines_of(file), file.name)]
            else:
                intake = Intake()
                chains += self.read_chains(text, intake, Counter(), lambda what, done, total: None)
                if intake.rejected:
                    bad = intake.rejected[0]
                    raise UserError(bad["row"], f"cannot be predicted for ({bad['reason']})", got=bad["text"] or None)
        for chain in chains:
            if len(chain.sequence) > self.max_length and self.longer == "reject":
                raise UserError(
                    chain.name, f"must have at most data.max_length = {self.max_length} residues",
                    got=len(chain.sequence), fix="cut it into domains",
                )  # fmt: skip
        return StructureSplit(arrays_of(chains), self.max_length)


def trimmed(chain: Chain) -> Chain:
    """Without the residues that were not seen."""
    seen = chain.known[:, 1]
    letters = "".join(x for x, s in zip(chain.sequence, seen, strict=True) if s)
    return Chain(chain.name, letters, chain.index[seen], chain.atoms[seen], chain.known[seen], chain.n_modified)


def listed(split: ListSplit, names: Sequence[str]) -> NDArray[np.int8]:
    """Where the lists put each chain. A name that fits no chain, or a chain named twice, is refused."""
    rest = LEFT_OUT if split.rest == "leave out" else NAMES.index(split.rest)
    labels = np.full(len(names), rest, np.int8)
    sides: dict[int, str] = {}
    for side in NAMES:
        for name in getattr(split, side):
            rows = [i for i, own in enumerate(names) if is_named(own, name)]
            if not rows:
                raise UserError(f"data.split.{side}", "must name chains of the data, such as 1UBQ:A", got=name)
            for i in rows:
                if sides.setdefault(i, side) != side:
                    raise UserError(f"data.split.{side}", f"must not name a chain that is in {sides[i]}", got=names[i])
                labels[i] = NAMES.index(side)
    return labels


def is_named(own: str, name: str) -> bool:
    """Whether "1UBQ.pdb:A" is meant by "1ubq", "1UBQ:A", "1UBQ.pdb" or "1UBQ.pdb:A". Case counts in the chain alone."""
    file, _, chain = own.partition(":")
    wanted, _, letter = name.partition(":")
    stem = file.partition(".")[0]
    return wanted.lower() in (file.lower(), stem.lower()) and letter in ("", chain, chain.partition(":")[0])


def shared_sequences(chains: Sequence[Chain], labels: NDArray[np.int8]) -> tuple[dict[str, Any], list[str]]:
    """(counts, sentences) of held-out chains whose sequence is also a training chain's."""
    train = {chains[i].sequence: chains[i].name for i in np.flatnonzero(labels == TRAIN).tolist()}
    held = np.flatnonzero(labels > TRAIN).tolist()
    copies = [(chains[i].name, train[chains[i].sequence]) for i in held if chains[i].sequence in train]
    counts = {"n_held_out_chains": len(held), "n_held_out_copies_of_training_chains": len(copies)}
    if not copies:
        return counts, []
    one, other = copies[0]
    said = f"{len(copies)} of {len(held)} held-out chains have the sequence of a training chain, such as {one} and {other}."
    return counts, [said]


def arrays_of(chains: Sequence[Chain]) -> dict[str, NDArray[Any]]:
    """Chains end to end."""
    none = [bare("", "")]  # shapes for an empty list
    return {
        "residues": np.concatenate([letters_to_types(c.sequence) for c in chains or none]),
        "index": np.concatenate([c.index for c in chains or none]).astype(np.int32),
        "atoms": np.concatenate([c.atoms for c in chains or none]),
        "known": np.concatenate([c.known for c in chains or none]),
        "offsets": np.cumsum([0, *(len(c.sequence) for c in chains)]),
        "names": np.frombuffer("\n".join(c.name for c in chains).encode(), np.uint8),
    }


class StructureSplit:
    """Chains end to end, with where each starts."""

    def __init__(self, arrays: dict[str, NDArray[Any]], max_length: int) -> None:
        self.arrays, self.offsets = arrays, arrays["offsets"]
        self.names = arrays["names"].tobytes().decode().split("\n")
        self.max_length = max_length
        self.lengths = np.minimum(np.diff(self.offsets), max_length)
        longest = int(self.lengths.max()) if len(self.lengths) else 1
        self.at_once = max(1, PAIRS_AT_ONCE // longest**2)

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, rows: NDArray[np.int64], seeds: NDArray[np.uint64] | None = None) -> Batch:
        """Padded to the longest chain of the batch; longer ones cut to max_length, from a place that the seed gives."""
        import torch

        lengths = self.lengths[rows]
        starts = self.offsets[rows].copy()
        if seeds is not None:
            spare = self.offsets[rows + 1] - starts - lengths
            starts += (seeds % (spare + 1).astype(np.uint64)).astype(np.int64)
        at = np.arange(int(lengths.max()))
        inside = at < lengths[:, None]
        flat = np.minimum(starts[:, None] + at, len(self.arrays["residues"]) - 1)
        known = self.arrays["known"][flat] & inside[..., None]
        atoms = np.where(known[..., None], self.arrays["atoms"][flat], np.float32(0))
        tensors = {
            "residues": np.where(inside, self.arrays["residues"][flat], len(LETTERS) - 1).astype(np.int64),
            "residue_index": np.where(inside, self.arrays["index"][flat], 0).astype(np.int64),
            "inside": inside, "atoms": atoms, "known": known, "lengths": lengths.astype(np.int64),
        }  # fmt: skip
        n_framed = known[..., :3].all(-1).sum(1)
        made = {name: torch.from_numpy(array) for name, array in tensors.items()}
        return Batch(made, int(n_framed.sum()), row_targets=n_framed)

    def name(self, row: int) -> str:
        """1UBQ.pdb:A."""
        return self.names[row]
