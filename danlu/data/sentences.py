"""Short texts, each with a class: reviews, messages, questions. One row a text; words or pieces learned on train.

features: vocab_size, context, pad_id, classes, class_counts
tensors:  tokens (B, T) int64 padded to the batch's longest, lengths (B,), targets (B,) int64
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from danlu.base.contracts import Batch, DataCard, Progress, SplitCard, StationCard
from danlu.base.durable import fingerprint, read_json, write_json, write_text
from danlu.base.errors import UserError
from danlu.data.arrays import read_arrays, write_arrays
from danlu.data.leaks import leaks
from danlu.data.sample_splits import NAMES, TRAIN, VALIDATION, GivenFiles, RandomSplit, SampleSplitSetting, assign
from danlu.data.samples import SampleSource, source_files
from danlu.data.table_read import Intake, decoded, objects

ENDINGS = (".tsv", ".jsonl", ".txt")
WORD = re.compile(r"\w+(?:['’]\w+)?|[^\w\s]")
PAD, UNKNOWN = 0, 1
Row = tuple[str, str, str]
"""(place, text, label)"""


class Sentences(SampleSource):
    """Texts with a class: a TSV of text and label, or JSONL with both."""

    kind: Literal["sentences"] = "sentences"
    """Labelled texts."""
    path: str
    """A file, a folder or a glob of .tsv, .txt (text, tab, label) or .jsonl."""
    text: str = "text"
    """In JSONL: the key of the text."""
    label: str = "label"
    """In JSONL: the key of the label."""
    label_first: bool = False
    """In TSV: the label stands before the text."""
    lowercase: bool = True
    """Whether case is dropped."""
    least_count: Annotated[int, Field(ge=1)] = 2
    """A word that occurs less often in training is unknown."""
    max_words: Annotated[int, Field(ge=2, le=10_000_000)] = 50_000
    """Most words in the vocabulary."""
    context: Annotated[int, Field(ge=1, le=65_536)] = 128
    """Most words of a text; what is longer is cut, and counted."""
    split: SampleSplitSetting = RandomSplit()
    """How texts become train, validation and test."""

    def files(self) -> list[Path]:
        """The source files."""
        held = [p for p in (self.split.validation, self.split.test) if p] if isinstance(self.split, GivenFiles) else []
        return [file for path in (self.path, *held) for file in source_files(path, ENDINGS)]

    def rows(self, path: str, intake: Intake) -> list[Row]:
        """All texts of a path. Quote marks in a TSV are text like any other."""
        found: list[Row] = []
        for file in source_files(path, ENDINGS):
            text = decoded(file, intake)
            if file.suffix == ".jsonl":
                table = objects(file, text, intake, None)
                for name in (self.text, self.label):
                    if name not in table.names:
                        raise UserError(
                            "data.text" if name == self.text else "data.label",
                            f"must be a key of {file.name}",
                            got=name,
                        )
                at = table.names.index(self.text), table.names.index(self.label)
                listed = [(p, v[at[0]] or "", v[at[1]] or "") for p, v in zip(table.places, table.values, strict=True)]
            else:
                listed = self.tabbed(file, text, intake)
            for place, sentence, label in listed:
                if not sentence.strip() or not label.strip():
                    intake.reject(place, "no text" if not sentence.strip() else "no label", sentence + label)
                else:
                    found.append((place, sentence.strip(), label.strip()))
        return found

    def tabbed(self, file: Path, text: str, intake: Intake) -> list[Row]:
        """Lines of text and label with a tab between."""
        listed: list[Row] = []
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip():
                continue
            intake.n_in += 1
            parts = line.rstrip("\r").split("\t")
            if len(parts) != 2:
                intake.reject(f"{file.name}:{number}", f"{len(parts)} fields instead of text and label", line)
                continue
            sentence, label = parts[::-1] if self.label_first else parts
            listed.append((f"{file.name}:{number}", sentence, label))
        return listed

    def words(self, text: str) -> list[str]:
        """Words and marks."""
        return WORD.findall(text.lower() if self.lowercase else text)

    def expected(self) -> dict[str, Any]:
        """From all rows, which are few."""
        rows = self.rows(self.path, Intake())
        return self.features(rows, self.vocabulary(rows))

    def vocabulary(self, rows: Sequence[Row]) -> list[str]:
        """Words by how often they occur, after padding and unknown."""
        counts = Counter(word for _, text, _ in rows for word in self.words(text))
        kept = [w for w, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if n >= self.least_count]
        return ["<pad>", "<unknown>", *kept[: self.max_words - 2]]

    def features(self, rows: Sequence[Row], vocabulary: list[str]) -> dict[str, Any]:
        """What models and tasks must know, from the training rows."""
        counts = Counter(label for _, _, label in rows)
        classes = sorted(counts)
        return {
            "vocab_size": len(vocabulary), "context": self.context, "pad_id": PAD, "classes": classes,
            "class_counts": [counts[c] for c in classes],
        }  # fmt: skip

    def prepare(self, folder: Path, seed: int, progress: Progress) -> DataCard:
        """Read, split, learn the words of train, encode."""
        intake = Intake()
        rows = self.rows(self.path, intake)
        given = np.zeros(len(rows), np.int8)
        if isinstance(self.split, GivenFiles):
            for number, path in ((VALIDATION, self.split.validation), (2, self.split.test)):
                more = self.rows(path, intake) if path else []
                rows, given = rows + more, np.concatenate([given, np.full(len(more), number, np.int8)])
        if len(rows) < 3:
            raise UserError("data.path", "must give at least three labelled texts", got=len(rows))
        own = np.flatnonzero(given == TRAIN)
        labels = given.copy()
        labels[own] = assign(self.split, len(own), seed, None, np.array([rows[i][2] for i in own]))
        train = [rows[i] for i in np.flatnonzero(labels == TRAIN)]
        vocabulary = self.vocabulary(train)
        features = self.features(train, vocabulary)
        words = (" ".join(self.words(text)) for _, text, _ in rows)
        leakage, leaked = leaks(words, labels, [place for place, _, _ in rows], "texts")
        write_json(folder / "preprocessing.json", {"vocabulary": vocabulary})
        cards, hashes, n_cut = {}, [], 0
        for number, side in enumerate(NAMES):
            chosen = [rows[i] for i in np.flatnonzero(labels == number)]
            if not chosen:
                continue
            arrays, cut = self.encoded(chosen, vocabulary, features["classes"])
            n_cut += cut
            arrays["names"] = np.frombuffer("\n".join(place for place, _, _ in chosen).encode(), np.uint8)
            hashes.append(write_arrays(folder, side, arrays))
            cards[side] = SplitCard(n_samples=len(chosen), n_targets=int((arrays["targets"] >= 0).sum()))
        write_text(
            folder / "rejected.jsonl", "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in intake.rejected)
        )
        warnings = (f"{n_cut:,} texts are longer than data.context and are cut.",) if n_cut else ()
        station = StationCard(
            name="read", n_in=intake.n_in, n_dropped=dict(intake.reasons), examples=tuple(intake.rejected[:5])
        )
        card = DataCard(
            kind=self.kind, source=self.path, rows_in=intake.n_in, rows_used=len(rows), rows_rejected=dict(intake.reasons),
            stations=(station,), splits=cards, features=features, vocab_size=len(vocabulary),
            leakage=leakage, warnings=(*leaked, *warnings, *intake.notes), fingerprint=fingerprint([hashes, self.model_dump(mode="json")]),
        )  # fmt: skip
        write_json(folder / "card.json", card.model_dump(mode="json"))
        return card

    def encoded(
        self, rows: Sequence[Row], vocabulary: list[str], classes: list[str]
    ) -> tuple[dict[str, NDArray[Any]], int]:
        """(flat tokens with offsets, and targets; how many texts were cut)."""
        codes, of_class = {word: i for i, word in enumerate(vocabulary)}, {c: i for i, c in enumerate(classes)}
        lists = [[codes.get(w, UNKNOWN) for w in self.words(text)] or [UNKNOWN] for _, text, _ in rows]
        n_cut = sum(len(tokens) > self.context for tokens in lists)
        lists = [tokens[: self.context] for tokens in lists]
        return {
            "tokens": np.array([t for tokens in lists for t in tokens], np.int32),
            "offsets": np.cumsum([0, *map(len, lists)]),
            "targets": np.array([of_class.get(label, -1) for _, _, label in rows], np.int64),
        }, n_cut

    def open(self, folder: Path, card: DataCard, split: str) -> SentenceSplit:
        """A prepared split."""
        found = {name: np.asarray(array) for name, array in read_arrays(folder, split).items()}
        return SentenceSplit(found, found["names"].tobytes().decode().split("\n"))

    def read(self, folder: Path, card: DataCard, inputs: Sequence[Any]) -> SentenceSplit:
        """Texts, as they are."""
        vocabulary = read_json(folder / "preprocessing.json")["vocabulary"]
        rows = [(str(text)[:60], str(text), "") for text in inputs]
        return SentenceSplit(
            self.encoded(rows, vocabulary, card.features["classes"])[0], [place for place, _, _ in rows]
        )


class SentenceSplit:
    """Texts end to end, with where each starts."""

    def __init__(self, arrays: dict[str, NDArray[Any]], names: list[str]) -> None:
        self.tokens, self.offsets, self.targets, self.names = (
            arrays["tokens"],
            arrays["offsets"],
            arrays["targets"],
            names,
        )

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, rows: NDArray[np.int64], seeds: Any = None) -> Batch:
        """Padded to the longest text of the batch."""
        import torch

        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        at = np.arange(int(lengths.max()))
        inside = at < lengths[:, None]
        flat = np.minimum(starts[:, None] + at, len(self.tokens) - 1)
        tokens = np.where(inside, self.tokens[flat], PAD).astype(np.int64)
        targets = self.targets[rows]
        tensors = {"tokens": tokens, "lengths": lengths.astype(np.int64), "targets": targets}
        return Batch({name: torch.from_numpy(array) for name, array in tensors.items()}, int((targets >= 0).sum()))

    def name(self, row: int) -> str:
        """train.tsv:12."""
        return self.names[row]
