"""Texts with a tag for every word: names, parts of speech, chunks. CoNLL columns, or JSONL with two lists.

features: vocab_size, context, pad_id, n_special, classes, class_counts, per_position
tensors:  tokens (B, T), lengths (B,), targets (B, T): see data/sequences.py
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from danlu.base.contracts import DataCard, Progress, SplitCard, StationCard
from danlu.base.durable import fingerprint, read_json, write_json
from danlu.base.errors import UserError
from danlu.data.arrays import read_arrays, write_arrays
from danlu.data.sample_splits import NAMES, TEST, TRAIN, VALIDATION, GivenFiles, RandomSplit, SampleSplitSetting, assign
from danlu.data.samples import SampleSource, source_files, write_rejected
from danlu.data.sequences import PAD, SequenceSplit
from danlu.data.table_read import Intake, decoded

ENDINGS = (".conll", ".bio", ".iob", ".iob2", ".txt", ".tsv", ".jsonl")
UNKNOWN, N_SPECIAL = 1, 2
DOCUMENT = "-DOCSTART-"


@dataclass(frozen=True)
class Sentence:
    """Words, and a tag for each."""

    place: str
    words: tuple[str, ...]
    tags: tuple[str, ...]


class Tagged(SampleSource):
    """Words with tags: CoNLL columns with a blank line between sentences, or JSONL with a list of each."""

    kind: Literal["tagged"] = "tagged"
    """Tagged texts."""
    path: str
    """A file, a folder or a glob of .conll, .bio, .iob, .txt, .tsv (a word and its tags a line) or .jsonl."""
    word_column: Annotated[int, Field(ge=0)] = 0
    """In columns: which holds the word, from 0."""
    tag_column: int = -1
    """In columns: which holds the tag, from 0, or from the end: -1 is the last."""
    words: str = "tokens"
    """In JSONL: the key of the list of words."""
    tags: str = "tags"
    """In JSONL: the key of the list of tags."""
    lowercase: bool = True
    """Whether case is dropped."""
    least_count: Annotated[int, Field(ge=1)] = 2
    """A word that occurs less often in training is unknown."""
    max_words: Annotated[int, Field(ge=3, le=10_000_000)] = 50_000
    """Most words in the vocabulary."""
    context: Annotated[int, Field(ge=1, le=65_536)] = 256
    """Most words of a sentence; what is longer is cut, and counted."""
    split: SampleSplitSetting = RandomSplit()
    """How sentences become train, validation and test."""

    def files(self) -> list[Path]:
        """The source files."""
        held = [p for p in (self.split.validation, self.split.test) if p] if isinstance(self.split, GivenFiles) else []
        return [file for path in (self.path, *held) for file in source_files(path, ENDINGS)]

    def sentences(self, path: str, intake: Intake) -> list[Sentence]:
        """All sentences of a path."""
        found: list[Sentence] = []
        for file in source_files(path, ENDINGS):
            text = decoded(file, intake)
            found += self.objects(file, text, intake) if file.suffix == ".jsonl" else self.columns(file, text, intake)
        return found

    def objects(self, file: Path, text: str, intake: Intake) -> Iterator[Sentence]:
        """JSONL: {"tokens": [...], "tags": [...]} a line."""
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip():
                continue
            intake.n_in += 1
            place = f"{file.name}:{number}"
            try:
                row = json.loads(line)
            except ValueError:
                intake.reject(place, "not JSON", line)
                continue
            lists = [row.get(key) if isinstance(row, dict) else None for key in (self.words, self.tags)]
            if not all(isinstance(value, list) and value for value in lists):
                intake.reject(place, f"no lists {self.words} and {self.tags}", line)
            elif len(lists[0]) != len(lists[1]):  # type: ignore[arg-type]
                intake.reject(place, "as many tags as words are wanted", line)
            else:
                words, tags = (tuple(map(str, value)) for value in lists)  # type: ignore[arg-type]
                yield Sentence(place, words, tags)

    def columns(self, file: Path, text: str, intake: Intake) -> Iterator[Sentence]:
        """A word and its tags a line, parted by tabs or spaces; a blank line ends a sentence; `# ` lines are notes."""
        rows: list[list[str]] = []
        first = 1
        for number, line in enumerate([*text.split("\n"), ""], start=1):
            line = line.strip()
            if line.startswith("# ") and not rows:
                continue
            if line and not line.startswith(DOCUMENT):
                first = first if rows else number
                rows.append(line.split("\t") if "\t" in line else line.split())
            elif rows:
                intake.n_in += 1
                place, wanted = f"{file.name}:{first}", max(self.word_column + 1, self.least_columns)
                short = next((row for row in rows if len(row) < wanted), None)
                if short is not None:
                    intake.reject(place, "a line without a tag", " ".join(short))
                else:
                    yield Sentence(
                        place, tuple(r[self.word_column] for r in rows), tuple(r[self.tag_column] for r in rows)
                    )
                rows = []

    @property
    def least_columns(self) -> int:
        """Columns that a line must have: the tag is not the word."""
        return max(2, self.tag_column + 1 if self.tag_column >= 0 else -self.tag_column)

    def written(self, word: str) -> str:
        """A word as the vocabulary has it."""
        return word.lower() if self.lowercase else word

    def vocabulary(self, found: Sequence[Sentence]) -> list[str]:
        """Words by how often they occur, after padding and unknown."""
        counts = Counter(self.written(word) for sentence in found for word in sentence.words)
        kept = [w for w, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if n >= self.least_count]
        return ["<pad>", "<unknown>", *kept[: self.max_words - N_SPECIAL]]

    def features(self, found: Sequence[Sentence], vocabulary: list[str]) -> dict[str, Any]:
        """What models and tasks must know, from the training sentences."""
        counts = Counter(tag for sentence in found for tag in sentence.tags[: self.context])
        classes = sorted(counts)
        return {
            "vocab_size": len(vocabulary), "context": self.context, "pad_id": PAD, "n_special": N_SPECIAL,
            "classes": classes, "class_counts": [counts[c] for c in classes], "per_position": True,
        }  # fmt: skip

    def expected(self) -> dict[str, Any]:
        """From all sentences, which are few."""
        found = self.sentences(self.path, Intake())
        return self.features(found, self.vocabulary(found))

    def prepare(self, folder: Path, seed: int, progress: Progress) -> DataCard:
        """Read, split, learn the words of train, encode."""
        intake = Intake()
        found = self.sentences(self.path, intake)
        given = [TRAIN] * len(found)
        if isinstance(self.split, GivenFiles):
            for number, path in ((VALIDATION, self.split.validation), (TEST, self.split.test)):
                more = self.sentences(path, intake) if path else []
                found, given = found + more, given + [number] * len(more)
        if len(found) < 3:
            got = ", ".join(f"{n} {why}" for why, n in intake.reasons.most_common(4)) or "none"
            raise UserError("data.path", "must give at least three tagged sentences", got=got)
        sides = np.array(given, np.int8)
        own = np.flatnonzero(sides == TRAIN)
        sides[own] = assign(self.split, len(own), seed)
        train = [found[i] for i in np.flatnonzero(sides == TRAIN)]
        if not train:
            raise UserError("data.split", "must leave sentences to train on", got="none")
        vocabulary = self.vocabulary(train)
        features = self.features(train, vocabulary)
        write_json(folder / "preprocessing.json", {"vocabulary": vocabulary})
        order = np.argsort([len(s.words) for s in found], kind="stable")  # the shortest first
        cards, hashes = {}, []
        for number, side in enumerate(NAMES):
            chosen = [found[i] for i in order if sides[i] == number]
            if chosen:
                arrays = self.encoded(chosen, vocabulary, features["classes"])
                names = np.frombuffer("\n".join(s.place for s in chosen).encode(), np.uint8)
                hashes.append(write_arrays(folder, side, {**arrays, "names": names}))
                cards[side] = SplitCard(n_samples=len(chosen), n_targets=int((arrays["targets"] >= 0).sum()))
        write_rejected(folder, intake.rejected)
        n_cut = sum(len(s.words) > self.context for s in found)
        warnings = (f"{n_cut:,} sentences are longer than data.context and are cut.",) if n_cut else ()
        station = StationCard(
            name="read", n_in=intake.n_in, n_dropped=dict(intake.reasons), examples=tuple(intake.rejected[:5])
        )
        card = DataCard(
            kind=self.kind, source=self.path, rows_in=intake.n_in, rows_used=len(found),
            rows_rejected=dict(intake.reasons), stations=(station,), splits=cards, features=features,
            vocab_size=len(vocabulary), warnings=(*warnings, *intake.notes),
            fingerprint=fingerprint([hashes, self.model_dump(mode="json")]),
        )  # fmt: skip
        write_json(folder / "card.json", card.model_dump(mode="json"))
        return card

    def encoded(self, found: Sequence[Sentence], vocabulary: list[str], classes: list[str]) -> dict[str, NDArray[Any]]:
        """Flat tokens with offsets, and targets; a tag that training has not is not scored."""
        codes, of_class = {word: i for i, word in enumerate(vocabulary)}, {c: i for i, c in enumerate(classes)}
        words = [sentence.words[: self.context] for sentence in found]
        tags = [sentence.tags[: self.context] for sentence in found]
        return {
            "tokens": np.array([codes.get(self.written(w), UNKNOWN) for row in words for w in row], np.int32),
            "offsets": np.cumsum([0, *map(len, words)]),
            "targets": np.array([of_class.get(tag, -1) for row in tags for tag in row], np.int64),
        }

    def open(self, folder: Path, card: DataCard, split: str) -> SequenceSplit:
        """A prepared split."""
        found = {name: np.asarray(array) for name, array in read_arrays(folder, split).items()}
        names = found.pop("names").tobytes().decode().split("\n")
        return SequenceSplit(found, names, card.features, read_json(folder / "preprocessing.json")["vocabulary"])

    def read(self, folder: Path, card: DataCard, inputs: Sequence[Any]) -> SequenceSplit:
        """Texts with words parted by spaces, lists of words, or paths of tagged files."""
        vocabulary = read_json(folder / "preprocessing.json")["vocabulary"]
        found: list[Sentence] = []
        for number, value in enumerate(inputs, start=1):
            if isinstance(value, str | Path) and str(value).endswith(ENDINGS) and Path(value).exists():
                intake = Intake()
                found += self.sentences(str(value), intake)
                if intake.rejected:
                    odd = intake.rejected[0]
                    raise UserError(odd["row"], f"cannot be read: {odd['reason']}", fix="mend the row")
                continue
            words = tuple(str(value).split()) if isinstance(value, str | Path) else tuple(map(str, value))
            if not words:
                raise UserError(f"input {number}", "must have words", got=str(value))
            found.append(Sentence(f"input {number}", words, ("",) * len(words)))
        arrays = self.encoded(found, vocabulary, card.features["classes"])
        return SequenceSplit(arrays, [s.place for s in found], card.features, vocabulary)
