"""From a text to token ids: whole words, each also by the character n-grams it is spelled with, or byte-pair pieces.

Ids 0 to 3 are the same everywhere: padding, unknown, masked, start. What is learned on train lies in preprocessing.json
(and tokenizer.json), from which a later run can take it over.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from danlu.base.durable import read_json, write_bytes, write_json
from danlu.base.errors import UserError

WORD = re.compile(r"\w+(?:['’]\w+)?|[^\w\s]")
SPECIALS = ("<pad>", "<unknown>", "<mask>", "<start>")
PAD, UNKNOWN, MASK, START = range(4)
GAP = "[MASK]"
"""How a text to be filled in says what is missing."""
MAX_GRAMS = 48
"""Most n-grams of a word that are kept, evenly spaced: words of 18 letters have as many from 3 to 5."""
Ids = NDArray[np.int32]


class Reader(Protocol):
    """A text's tokens, and back."""

    vocab_size: int

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""

    def spelling(self, text: str) -> list[str]:
        """What each id of `encode(text)` stood for in the text."""

    def shown(self, token: int) -> str:
        """A token as a person reads it."""

    def save(self, folder: Path) -> None:
        """Write preprocessing.json and what else `read_words` needs."""


class Words:
    """Whole words and marks; one that is not in the vocabulary is unknown."""

    def __init__(self, vocabulary: Sequence[str], lowercase: bool) -> None:
        self.vocabulary, self.lowercase = list(vocabulary), lowercase
        self.codes = {word: i for i, word in enumerate(self.vocabulary)}
        self.vocab_size = len(self.vocabulary)

    def spelling(self, text: str) -> list[str]:
        """Words and marks."""
        return WORD.findall(text.lower() if self.lowercase else text)

    def encode(self, text: str) -> list[int]:
        """Look up each."""
        return [self.codes.get(word, UNKNOWN) for word in self.spelling(text)]

    def shown(self, token: int) -> str:
        """The word."""
        return self.vocabulary[token]

    def save(self, folder: Path) -> None:
        """The words are all there is."""
        write_json(folder / "preprocessing.json", {"vocabulary": self.vocabulary, "lowercase": self.lowercase})


class Pieces:
    """Byte-pair pieces (Sennrich et al. 2016): nothing is unknown. Their ids stand behind the four special ones."""

    def __init__(self, model: str, lowercase: bool) -> None:
        import tokenizers

        self.model, self.lowercase = model, lowercase
        self.inner = tokenizers.Tokenizer.from_str(model)
        self.vocab_size = len(SPECIALS) + self.inner.get_vocab_size()

    def spelling(self, text: str) -> list[str]:
        """The part of the text that each piece covers."""
        return [self.shown(token) for token in self.encode(text)]

    def encode(self, text: str) -> list[int]:
        """A text begins as every word does: with a space."""
        text = " ".join(text.lower().split() if self.lowercase else text.split())
        return [i + len(SPECIALS) for i in self.inner.encode(f" {text}" if text else "", add_special_tokens=False).ids]

    def shown(self, token: int) -> str:
        """Its text, without the space before a word; a special token's name."""
        if token < len(SPECIALS):
            return SPECIALS[token]
        return str(self.inner.decode([token - len(SPECIALS)])).strip()

    def save(self, folder: Path) -> None:
        """tokenizer.json beside a preprocessing.json that says so."""
        write_bytes(folder / "tokenizer.json", self.model.encode())
        write_json(
            folder / "preprocessing.json",
            {
                "vocabulary": [self.shown(i) for i in range(self.vocab_size)],
                "lowercase": self.lowercase,
                "pieces": True,
            },
        )


def learned_words(texts: Sequence[str], lowercase: bool, least_count: int, most: int) -> Words:
    """Words by how often they occur."""
    counts = Counter(word for text in texts for word in Words((), lowercase).spelling(text))
    kept = [w for w, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if n >= least_count]
    return Words([*SPECIALS, *kept[: most - len(SPECIALS)]], lowercase)


def learned_pieces(texts: Sequence[str], lowercase: bool, n_pieces: int) -> Pieces:
    """Byte-pair pieces of the texts."""
    from danlu.data.encoders import trained_pieces

    plain = (" ".join(text.lower().split() if lowercase else text.split()) for text in texts)
    return Pieces(trained_pieces("bpe", n_pieces, (f" {text}" for text in plain)).to_str(), lowercase)


def read_words(folder: Path) -> Reader:
    """What `save` wrote into a data folder."""
    found = read_json(folder / "preprocessing.json")
    if found.get("pieces"):
        return Pieces((folder / "tokenizer.json").read_text(encoding="utf-8"), found["lowercase"])
    return Words(found["vocabulary"], found["lowercase"])


def words_of_run(run: str, lowercase: bool, pieces: bool) -> Reader:
    """The words that another run of sentences learned."""
    folder = Path(run).expanduser() / "data"
    if not (folder / "preprocessing.json").is_file():
        raise UserError(
            "data.vocabulary", 'must be "own" or the folder of a prepared run', got=run, fix=f"danlu run {run} first"
        )
    found = read_json(folder / "preprocessing.json")
    if "vocabulary" not in found:
        raise UserError("data.vocabulary", "must be the folder of a run over sentences", got=run)
    for name, ours in (("lowercase", lowercase), ("pieces", pieces)):
        if bool(found.get(name)) != ours:
            got, fix = ("on", "off") if ours else ("off", "on")
            raise UserError(f"data.{name}", f"must be as in the run {run}", got=got, fix=f"turn it {fix}")
    return read_words(folder)


class Gapped:
    """A reader of texts in which [MASK] stands for one token to be filled in."""

    def __init__(self, inner: Reader) -> None:
        self.inner, self.vocab_size = inner, inner.vocab_size

    def encode(self, text: str) -> list[int]:
        """Ids, MASK at the gaps."""
        parts = [self.inner.encode(part) for part in text.split(GAP)]
        return parts[0] + [i for part in parts[1:] for i in (MASK, *part)]

    def spelling(self, text: str) -> list[str]:
        """What stands at each id, nothing at a gap."""
        parts = [self.inner.spelling(part) for part in text.split(GAP)]
        return parts[0] + [word for part in parts[1:] for word in ("", *part)]

    def shown(self, token: int) -> str:
        """As the inner one."""
        return self.inner.shown(token)

    def save(self, folder: Path) -> None:
        """As the inner one."""
        self.inner.save(folder)


def grams_of(word: str, shortest: int, longest: int, buckets: int) -> list[int]:
    """1 + bucket of each character n-gram of <word> (Bojanowski et al. 2017, section 3.2)."""
    framed = f"<{word}>"
    found = [
        zlib.crc32(framed[i : i + n].encode()) % buckets + 1
        for n in range(shortest, longest + 1)
        for i in range(len(framed) - n + 1)
    ] or [zlib.crc32(framed.encode()) % buckets + 1]
    if len(found) > MAX_GRAMS:
        found = [found[i * len(found) // MAX_GRAMS] for i in range(MAX_GRAMS)]
    return found


def gram_table(texts: Sequence[list[str]], shortest: int, longest: int, buckets: int) -> dict[str, NDArray[Any]]:
    """{"spellings": (N, P) the n-grams of each different word, 0 behind the last; "spelled_as": (tokens,) which}.

    Row 0 is for tokens that are not spelled: gaps and the start.
    """
    rows: dict[str, int] = {"": 0}
    at = np.array([rows.setdefault(word, len(rows)) for text in texts for word in text], np.int32)
    lists = [[], *(grams_of(word, shortest, longest, buckets) for word in list(rows)[1:])]
    table = np.zeros((len(rows), max(map(len, lists), default=1) or 1), np.int32)
    for row, found in zip(table, lists, strict=True):
        row[: len(found)] = found
    return {"spellings": table, "spelled_as": at}
