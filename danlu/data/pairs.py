"""Parallel text: sentences and their translations. Pieces are learned on train; what is scored is never cleaned.

features: source_vocab_size, target_vocab_size, joint, context, pad_id, begin_id, end_id, unknown_id, source_pieces (none
          when joint), target_pieces
tensors:  source (B, S) int64 with its end, padded; lengths (B,) of it; inputs (B, T) what the decoder reads, targets
          (B, T) what it should say, -1 where padded. When scored also reference (B, L) uint8: the translation in UTF-8.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from danlu.base.contracts import Batch, DataCard, Progress, SplitCard, StationCard
from danlu.base.durable import fingerprint, read_json, write_json
from danlu.base.errors import UserError
from danlu.data.arrays import read_arrays, write_arrays
from danlu.data.leaks import leaks
from danlu.data.pairs_pieces import BEGIN, END, PAD, UNKNOWN, Pieces, learned
from danlu.data.pairs_read import Columns, Pair, cleaned, lines_of, pair_files, read_pairs, tidied
from danlu.data.sample_splits import (
    NAMES,
    TEST,
    TRAIN,
    VALIDATION,
    GivenFiles,
    RandomSplit,
    SampleSplitSetting,
    assign,
)
from danlu.data.samples import SampleSource, write_rejected
from danlu.data.table_read import Intake

Column = Annotated[int, Field(ge=1, le=1000)]
Labels = NDArray[np.int8]


class Pairs(SampleSource):
    """Sentences and their translations: two line-aligned files, TSV, JSONL or Parquet."""

    kind: Literal["pairs"] = "pairs"
    """Parallel text."""
    path: str
    """Two line-aligned files as "train.{en,de}" (source first), or a .tsv, .jsonl or .parquet file, folder or glob. May be
    gzipped."""
    source: str = "source"
    """In JSONL and Parquet: the name of the source; translation.en goes into an object."""
    target: str = "target"
    """In JSONL and Parquet: the name of the translation."""
    columns: tuple[Column, Column] = (1, 2)
    """In TSV: which fields hold source and translation, from 1."""
    lowercase: bool = False
    """Whether case is dropped, on both sides."""
    max_ratio: Annotated[float, Field(ge=1)] = 6.0
    """Training pairs with one side more than this many times as long as the other, in characters, are rejected."""
    leaks: Literal["report", "drop"] = "report"
    """Training pairs that are in validation or test too: say how many, or reject them."""
    pieces: Literal["bpe", "words", "characters"] = "bpe"
    """Tokens: byte-pair encoding over bytes (Sennrich et al. 2016), words and marks, or characters."""
    vocab_size: Annotated[int, Field(ge=8, le=10_000_000)] = 8192
    """Most tokens of a vocabulary, its four marks included."""
    joint: bool = True
    """One vocabulary for both sides, so that a model can share its tables; else one each."""
    least_count: Annotated[int, Field(ge=1)] = 2
    """A word that occurs less often in training is unknown."""
    context: Annotated[int, Field(ge=2, le=65_536)] = 128
    """Most tokens of a side, with its end: longer training pairs are rejected, other sources are cut, and counted."""
    split: SampleSplitSetting = RandomSplit()
    """How pairs become train, validation and test; the given files may be named with braces like path."""

    def files(self) -> list[Path]:
        """The source files."""
        held = [p for p in (self.split.validation, self.split.test) if p] if isinstance(self.split, GivenFiles) else []
        return [file for path in (self.path, *held) for files in pair_files(path) for file in files]

    def rows(self, path: str, intake: Intake) -> list[Pair]:
        """All pairs of a path."""
        return read_pairs(path, Columns(self.columns, (self.source, self.target)), self.lowercase, intake)

    def expected(self) -> dict[str, Any]:
        """The vocabulary's size as asked for; what a training text of words or characters gives."""
        if self.pieces == "bpe":
            sizes = [self.vocab_size] * 2
        else:
            sizes = [len(side) for side in self.vocabularies(self.rows(self.path, Intake()))]
        return self.features(*sizes)

    def features(self, n_source: int, n_target: int) -> dict[str, Any]:
        """What models must know."""
        return {
            "source_vocab_size": n_source, "target_vocab_size": n_target, "joint": self.joint, "context": self.context,
            "pad_id": PAD, "begin_id": BEGIN, "end_id": END, "unknown_id": UNKNOWN,
        }  # fmt: skip

    def vocabularies(self, train: Sequence[Pair]) -> tuple[Pieces, Pieces]:
        """Of source and target; the same one twice when joint."""
        sides = [[p.source for p in train], [p.target for p in train]]
        if self.joint:
            both = learned(self.pieces, sides[0] + sides[1], self.vocab_size, self.least_count)
            return both, both
        source, target = (learned(self.pieces, side, self.vocab_size, self.least_count) for side in sides)
        return source, target

    def prepare(self, folder: Path, seed: int, progress: Progress) -> DataCard:
        """Read, clean, split, learn the pieces of train, encode."""
        intake = Intake()
        progress("reading", 0, 3)
        pairs, labels = self.assigned(cleaned(self.rows(self.path, intake), self.max_ratio, intake), seed, intake)
        keep = np.ones(len(pairs), bool) if self.leaks == "report" else without_leaks(pairs, labels, intake)
        kept = np.where(keep, labels, -1)
        leaked, warnings = leaks([pair[1:] for pair in pairs], kept, [pair.place for pair in pairs], "pairs")
        progress("learning the vocabulary", 1, 3)
        source, target = self.vocabularies([pairs[i] for i in np.flatnonzero(keep & (labels == TRAIN))])
        texts = [pair.source for pair in pairs], [pair.target for pair in pairs]
        ids = [side.encode(of) for side, of in zip((source, target), texts, strict=True)]
        too_long = np.array([max(len(s), len(t)) >= self.context for s, t in zip(*ids, strict=True)])
        for i in np.flatnonzero(keep & too_long & (labels == TRAIN)):
            intake.reject(pairs[i].place, "too long", pairs[i].source)
        keep &= ~(too_long & (labels == TRAIN))
        if n_cut := int((keep & too_long).sum()):
            warnings.append(f"{n_cut:,} held-out pairs are longer than data.context: they are cut.")
        if not (keep & (labels == TRAIN)).any():
            raise UserError("data", "must leave at least one training pair", got=0, fix="raise data.context")
        progress("encoding", 2, 3)
        own = {"source": source.described} if self.joint else {"source": source.described, "target": target.described}
        write_json(folder / "preprocessing.json", own)
        cards, hashes = {}, []
        for number, side in enumerate(NAMES):
            rows = np.flatnonzero(keep & (labels == number))
            if not len(rows):
                continue
            given, made = ([part[i] for i in rows] for part in ids)
            arrays = arrays_of([pairs[i] for i in rows], given, made, self.context)
            hashes.append(write_arrays(folder, side, arrays))
            cards[side] = SplitCard(n_samples=len(rows), n_targets=len(arrays["target_tokens"]))
        write_rejected(folder, intake.rejected)
        pieces = {"source_pieces": [] if self.joint else source.pieces, "target_pieces": target.pieces}
        station = StationCard(
            name="read", n_in=intake.n_in, n_dropped=dict(intake.reasons), examples=tuple(intake.rejected[:5])
        )
        card = DataCard(
            kind=self.kind, source=self.path, rows_in=intake.n_in, rows_used=int(keep.sum()),
            rows_rejected=dict(intake.reasons), stations=(station,), splits=cards,
            features=self.features(len(source), len(target)) | pieces, vocab_size=len(target), leakage=leaked,
            warnings=(*warnings, *intake.notes), fingerprint=fingerprint([hashes, self.model_dump(mode="json")]),
        )  # fmt: skip
        write_json(folder / "card.json", card.model_dump(mode="json"))
        return card

    def assigned(self, pairs: list[Pair], seed: int, intake: Intake) -> tuple[list[Pair], Labels]:
        """All pairs, those of given files too, and the split of each."""
        given = np.zeros(len(pairs), np.int8)
        if isinstance(self.split, GivenFiles):
            for number, path in ((VALIDATION, self.split.validation), (TEST, self.split.test)):
                more = self.rows(path, intake) if path else []
                pairs, given = pairs + more, np.concatenate([given, np.full(len(more), number, np.int8)])
        if len(pairs) < 3:
            raise UserError("data.path", "must give at least three pairs with text on both sides", got=len(pairs))
        own = np.flatnonzero(given == TRAIN)
        given[own] = assign(self.split, len(own), seed)
        return pairs, given

    def open(self, folder: Path, card: DataCard, split: str) -> PairSplit:
        """A prepared split."""
        return PairSplit({name: np.asarray(array) for name, array in read_arrays(folder, split).items()})

    def read(self, folder: Path, card: DataCard, inputs: Sequence[Any]) -> PairSplit:
        """Sentences to translate: texts, or files of one a line. What is longer than the context is cut."""
        pieces = Pieces(read_json(folder / "preprocessing.json")["source"])
        pairs = [Pair(place, tidied(text, self.lowercase), "") for given in inputs for place, text in sentences(given)]
        ids = pieces.encode([pair.source for pair in pairs])
        return PairSplit(arrays_of(pairs, ids, None, int(card.features["context"])))


def sentences(given: Any) -> list[tuple[str, str]]:
    """(place, text) of one input."""
    text = os.fspath(given) if isinstance(given, os.PathLike) else str(given)
    if 0 < len(text) < 1024 and "\n" not in text and "\0" not in text and Path(text).is_file():
        return [(f"{Path(text).name}:{i}", line) for i, line in enumerate(lines_of(Path(text), Intake()), start=1)]
    return [(text[:60], text)]


def without_leaks(pairs: Sequence[Pair], labels: Labels, intake: Intake) -> NDArray[np.bool_]:
    """(N,) false at training pairs that are in validation or test, which are rejected."""
    held = {pair[1:] for pair, label in zip(pairs, labels, strict=True) if label > TRAIN}
    keep = np.array([label > TRAIN or pair[1:] not in held for pair, label in zip(pairs, labels, strict=True)])
    for i in np.flatnonzero(~keep).tolist():
        intake.reject(pairs[i].place, "in validation or test", pairs[i].source)
    return keep


def arrays_of(
    pairs: Sequence[Pair], source: Sequence[list[int]], target: Sequence[list[int]] | None, context: int
) -> dict[str, NDArray[Any]]:
    """Tokens end to end, each sentence with its end, and where each starts; the texts."""
    found: dict[str, NDArray[Any]] = {}
    for name, lists in (("source", source), ("target", target)):
        ended = [[*ids[: context - 1], END] for ids in lists] if lists is not None else [[] for _ in pairs]
        found[f"{name}_tokens"] = np.array([i for ids in ended for i in ids], np.int32)
        found[f"{name}_offsets"] = np.cumsum([0, *map(len, ended)])
    for name, texts in (("places", 0), ("sources", 1), ("references", 2)):
        found[name] = np.frombuffer("\n".join(pair[texts] for pair in pairs).encode(), np.uint8)
    return found


class PairSplit:
    """Sentences of both sides, end to end."""

    def __init__(self, arrays: dict[str, NDArray[Any]]) -> None:
        self.arrays = arrays
        sizes = [np.diff(arrays[f"{side}_offsets"]) for side in ("source", "target")]
        self.n_source, self.n_target = sizes
        longer, shorter = np.maximum(*sizes), np.minimum(*sizes)
        self.lengths = longer * (int(shorter.max(initial=0)) + 1) + shorter
        """Sorts pairs by the longer side, then by the shorter: pads least of the keys tried (12% of all tokens)."""
        self.names, self.sources, self.references = (
            arrays[name].tobytes().decode().split("\n") for name in ("places", "sources", "references")
        )

    def __len__(self) -> int:
        return len(self.n_source)

    def side(self, name: str, rows: NDArray[np.int64], fill: int) -> NDArray[np.int64]:
        """(B, longest) tokens of one side."""
        tokens, offsets = self.arrays[f"{name}_tokens"], self.arrays[f"{name}_offsets"]
        starts = offsets[rows]
        sizes = offsets[rows + 1] - starts
        at = np.arange(max(1, int(sizes.max())))
        if not len(tokens):
            return np.full((len(rows), 1), fill, np.int64)
        flat = np.minimum(starts[:, None] + at, len(tokens) - 1)
        return np.where(at < sizes[:, None], tokens[flat], fill).astype(np.int64)

    def batch(self, rows: NDArray[np.int64], seeds: Any = None) -> Batch:
        """Padded to the longest of the batch; the reference only where it is scored."""
        import torch

        targets = self.side("target", rows, -1)
        inputs = np.full_like(targets, PAD)
        inputs[:, 0], inputs[:, 1:] = BEGIN, np.maximum(targets[:, :-1], PAD)
        tensors: dict[str, NDArray[Any]] = {
            "source": self.side("source", rows, PAD),
            "inputs": inputs,
            "targets": targets,
        }
        tensors["lengths"] = self.n_source[rows].astype(np.int64)
        if seeds is None:
            texts = [self.references[i].encode() for i in rows]
            longest = max(1, *map(len, texts))
            joined = b"".join(text.ljust(longest, b"\0") for text in texts)
            tensors["reference"] = np.frombuffer(bytearray(joined), np.uint8).reshape(len(rows), longest)
        return Batch({name: torch.from_numpy(array) for name, array in tensors.items()}, int((targets >= 0).sum()))

    def name(self, row: int) -> str:
        """train.en:12."""
        return self.names[row]
