"""Short texts, each with a class or without: reviews, messages, questions. One row a text; words or pieces learned on train.

features: vocab_size, context, pad_id, mask_id, n_special (ids below it are no words), classes, class_counts, grams,
          texts_with (C, V): training texts of each class that hold each word; where data.count_words asks for it
tensors:  tokens (B, T) int64 padded to the batch's longest, lengths (B,), targets (B,) int64,
          grams (B, T, P) int64: 1 + bucket of each word's character n-grams, 0 for none; where data.grams asks for them
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from danlu.base.contracts import DataCard, Progress, SplitCard, StationCard
from danlu.base.durable import fingerprint, write_json
from danlu.base.errors import UserError
from danlu.data.arrays import read_arrays, write_arrays
from danlu.data.leaks import leaks
from danlu.data.sample_splits import NAMES, TRAIN, VALIDATION, GivenFiles, RandomSplit, SampleSplitSetting, assign
from danlu.data.samples import SampleSource, source_files, write_rejected
from danlu.data.sentence_split import SentenceSplit
from danlu.data.sentence_words import (
    MASK,
    PAD,
    SPECIALS,
    START,
    UNKNOWN,
    Gapped,
    Reader,
    Words,
    gram_table,
    learned_pieces,
    learned_words,
    read_words,
    words_of_run,
)  # fmt: skip
from danlu.data.table_read import Intake, decoded, objects

ENDINGS = (".tsv", ".jsonl", ".txt")
Row = tuple[str, str, str]
"""(place, text, label)"""


class Sentences(SampleSource):
    """Short texts, with a class each or without: TSV, JSONL, or a text a line."""

    kind: Literal["sentences"] = "sentences"
    """Short texts."""
    path: str
    """A file, a folder or a glob of .tsv, .txt (text, tab, label) or .jsonl."""
    labelled: bool = True
    """Whether texts have a class. Without, a line of .tsv or .txt is a text, whole."""
    text: str = "text"
    """In JSONL: the key of the text."""
    label: str = "label"
    """In JSONL: the key of the label."""
    label_first: bool = False
    """In TSV: the label stands before the text."""
    classes: tuple[str, ...] = ()
    """Names of the classes; a row of another is left out. Empty: those of the training split."""
    lowercase: bool = True
    """Whether case is dropped."""
    least_count: Annotated[int, Field(ge=1)] = 2
    """A word that occurs less often in training is unknown."""
    max_words: Annotated[int, Field(ge=5, le=10_000_000)] = 50_000
    """Most words in the vocabulary."""
    pieces: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    """Byte-pair pieces to learn instead of whole words, at least 257. 0: words."""
    vocabulary: str = "own"
    """"own": learned on the training split. Or the folder of an earlier run of sentences, whose words (or pieces) are
    taken over: for train.start_from, when that run read other texts."""
    grams: Annotated[int, Field(ge=0, le=16_777_216)] = 0
    """Buckets that each word's character n-grams are hashed into, so that unknown words are known by their parts
    (Bojanowski et al. 2017). 0: none."""
    gram_lengths: tuple[Annotated[int, Field(ge=1, le=10)], Annotated[int, Field(ge=1, le=10)]] = (3, 5)
    """Shortest and longest n-gram, in characters; < and > mark where a word begins and ends."""
    count_words: bool = False
    """Count in how many training texts of each class each word stands, for a model that starts from these counts
    (model.bag = "naive Bayes")."""
    start: bool = False
    """Put a start token before each text, as BERT does; it counts as one word of the context."""
    context: Annotated[int, Field(ge=2, le=65_536)] = 128
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
            listed = self.keyed(file, text, intake) if file.suffix == ".jsonl" else self.lines(file, text, intake)
            for place, sentence, label in listed:
                sentence, label = sentence.strip(), label.strip()
                if not sentence or (self.labelled and not label):
                    intake.reject(place, "no label" if sentence else "no text", sentence + label)
                elif self.labelled and self.classes and label not in self.classes:
                    intake.reject(place, "its label is not in data.classes", f"{label}: {sentence}")
                else:
                    found.append((place, sentence, label))
        return found

    def keyed(self, file: Path, text: str, intake: Intake) -> list[Row]:
        """Objects of a JSONL file."""
        table = objects(file, text, intake, None)
        at = []
        for name, setting in ((self.text, "text"), (self.label, "label")):
            if name not in table.names:
                if setting == "text" or self.labelled:
                    raise UserError(f"data.{setting}", f"must be a key of {file.name}", got=name)
                continue
            at.append(table.names.index(name))
        if not self.labelled:
            return [(p, v[at[0]] or "", "") for p, v in zip(table.places, table.values, strict=True)]
        return [(p, v[at[0]] or "", v[at[1]] or "") for p, v in zip(table.places, table.values, strict=True)]

    def lines(self, file: Path, text: str, intake: Intake) -> list[Row]:
        """Lines of text and label with a tab between, or of text alone."""
        listed: list[Row] = []
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip():
                continue
            intake.n_in += 1
            place, line = f"{file.name}:{number}", line.rstrip("\r")
            if not self.labelled:
                listed.append((place, line, ""))
                continue
            parts = line.split("\t")
            if len(parts) != 2:
                intake.reject(place, f"{len(parts)} fields instead of text and label", line)
                continue
            sentence, label = parts[::-1] if self.label_first else parts
            listed.append((place, sentence, label))
        return listed

    def expected(self) -> dict[str, Any]:
        """From all rows, which are few; from the recipe alone when it gives pieces and classes."""
        self.check()
        if self.pieces and self.vocabulary == "own" and (self.classes or not self.labelled):
            return self.features([], len(SPECIALS) + self.pieces)
        rows = self.rows(self.path, Intake())
        words = self.learned(rows)
        return self.features(rows, words.vocab_size) | self.counted(rows, words)

    def check(self) -> None:
        """Refuse settings that do not fit one another."""
        if self.pieces and self.pieces < 257:
            raise UserError("data.pieces", "must be 0, or at least 257: every byte is a piece", got=self.pieces)
        if self.pieces and self.grams:
            where, fix = "are of whole words, and data.pieces cuts words", "set one of them to 0"
            raise UserError("data.grams", where, got=self.grams, fix=fix)
        if self.gram_lengths[0] > self.gram_lengths[1]:
            got = str(list(self.gram_lengths))
            raise UserError("data.gram_lengths", "must be the shortest and the longest", got=got)

    def learned(self, rows: Sequence[Row]) -> Reader:
        """The words or pieces of the training rows, or of another run."""
        if self.vocabulary != "own":
            return words_of_run(self.vocabulary, self.lowercase, bool(self.pieces))
        texts = [text for _, text, _ in rows]
        if self.pieces:
            return learned_pieces(texts, self.lowercase, self.pieces)
        return learned_words(texts, self.lowercase, self.least_count, self.max_words)

    def features(self, rows: Sequence[Row], vocab_size: int) -> dict[str, Any]:
        """What models and tasks must know, from the training rows."""
        found: dict[str, Any] = {
            "vocab_size": vocab_size, "context": self.context, "pad_id": PAD, "mask_id": MASK, "n_special": len(SPECIALS),
        }  # fmt: skip
        if self.grams:
            found["grams"] = self.grams
        if self.labelled:
            counts = Counter(label for _, _, label in rows)
            classes = list(self.classes) or sorted(counts)
            found |= {"classes": classes, "class_counts": [counts[c] for c in classes]}
        return found

    def counted(self, rows: Sequence[Row], words: Reader) -> dict[str, Any]:
        """{"texts_with": C lists of V counts}, of training rows."""
        if not (self.count_words and self.labelled):
            return {}
        classes = list(self.classes) or sorted({label for _, _, label in rows})
        found = np.zeros((len(classes), words.vocab_size), np.int64)
        for _, text, label in rows:
            found[classes.index(label), np.unique(words.encode(text))] += 1
        return {"texts_with": found.tolist()}

    def divided(self, intake: Intake, seed: int) -> tuple[list[Row], NDArray[np.int8]]:
        """All rows, and which split each is of."""
        rows = self.rows(self.path, intake)
        given = np.zeros(len(rows), np.int8)
        if isinstance(self.split, GivenFiles):
            for number, path in ((VALIDATION, self.split.validation), (2, self.split.test)):
                more = self.rows(path, intake) if path else []
                rows, given = rows + more, np.concatenate([given, np.full(len(more), number, np.int8)])
        if len(rows) < 3:
            wanted = "must give at least three labelled texts" if self.labelled else "must give at least three texts"
            raise UserError("data.path", wanted, got=len(rows))
        own = np.flatnonzero(given == TRAIN)
        by_class = np.array([rows[i][2] for i in own]) if self.labelled else None
        given[own] = assign(self.split, len(own), seed, None, by_class)
        return rows, given

    def prepare(self, folder: Path, seed: int, progress: Progress) -> DataCard:
        """Read, split, learn the words of train, encode."""
        self.check()
        intake = Intake()
        rows, given = self.divided(intake, seed)
        train = [rows[i] for i in np.flatnonzero(given == TRAIN)]
        words = self.learned(train)
        features = self.features(train, words.vocab_size) | self.counted(train, words)
        words.save(folder)
        keys = (" ".join(Words((), self.lowercase).spelling(text)) for _, text, _ in rows)
        leakage, leaked = leaks(keys, given, [place for place, _, _ in rows], "texts")
        cards, hashes, n_cut = {}, [], 0
        for number, side in enumerate(NAMES):
            chosen = [rows[i] for i in np.flatnonzero(given == number)]
            if not chosen:
                continue
            arrays, cut = self.encoded(chosen, words, features.get("classes", []))
            n_cut += cut
            arrays["names"] = np.frombuffer("\n".join(place for place, _, _ in chosen).encode(), np.uint8)
            hashes.append(write_arrays(folder, side, arrays))
            n_targets = int((arrays["targets"] >= 0).sum()) if self.labelled else 0
            cards[side] = SplitCard(n_samples=len(chosen), n_targets=n_targets)
        write_rejected(folder, intake.rejected)
        warnings = (f"{n_cut:,} texts are longer than data.context and are cut.",) if n_cut else ()
        station = StationCard(
            name="read", n_in=intake.n_in, n_dropped=dict(intake.reasons), examples=tuple(intake.rejected[:5])
        )
        card = DataCard(
            kind=self.kind, source=self.path, rows_in=intake.n_in, rows_used=len(rows), rows_rejected=dict(intake.reasons),
            stations=(station,), splits=cards, features=features, vocab_size=words.vocab_size,
            leakage=leakage, warnings=(*leaked, *warnings, *intake.notes),
            fingerprint=fingerprint([hashes, self.model_dump(mode="json")]),
        )  # fmt: skip
        write_json(folder / "card.json", card.model_dump(mode="json"))
        return card

    def encoded(
        self, rows: Sequence[Row], words: Reader, classes: Sequence[str]
    ) -> tuple[dict[str, NDArray[Any]], int]:
        """(flat tokens with offsets, targets, and how words are spelled; how many texts were cut)."""
        of_class = {c: i for i, c in enumerate(classes)}
        room = self.context - self.start
        lists = [words.encode(text) or [UNKNOWN] for _, text, _ in rows]
        n_cut = sum(len(tokens) > room for tokens in lists)
        first = [START] if self.start else []
        lists = [[*first, *tokens[:room]] for tokens in lists]
        arrays: dict[str, NDArray[Any]] = {
            "tokens": np.array([t for tokens in lists for t in tokens], np.int32),
            "offsets": np.cumsum([0, *map(len, lists)]),
            "targets": np.array([of_class.get(label, -1) for _, _, label in rows], np.int64),
        }
        if self.grams:
            blank = [""] if self.start else []
            spelt = [[*blank, *(words.spelling(text) or [""])[:room]] for _, text, _ in rows]
            arrays |= gram_table(spelt, *self.gram_lengths, self.grams)
        return arrays, n_cut

    def open(self, folder: Path, card: DataCard, split: str) -> SentenceSplit:
        """A prepared split."""
        found = {name: np.asarray(array) for name, array in read_arrays(folder, split).items()}
        return SentenceSplit(found, found["names"].tobytes().decode().split("\n"), read_words(folder))

    def read(self, folder: Path, card: DataCard, inputs: Sequence[Any]) -> SentenceSplit:
        """Texts, as they are; [MASK] in one is a word to be filled in."""
        words = read_words(folder)
        rows = [(str(text)[:60], str(text), "") for text in inputs]
        arrays, _ = self.encoded(rows, Gapped(words), card.features.get("classes", []))
        return SentenceSplit(arrays, [place for place, _, _ in rows], words)
