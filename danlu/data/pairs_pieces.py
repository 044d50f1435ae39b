"""Sentences to token ids and back: byte-pair pieces, words or characters, learned from training text alone.

Ids 0 to 3 are padding, begin, end and unknown. Every other id adds a fixed piece of bytes to a text, so that a task turns
ids into a text by putting pieces side by side. A piece is written as one character (U+0000 to U+00FF) a byte.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from danlu.base.errors import UserError

PAD, BEGIN, END, UNKNOWN = range(4)
SPECIALS = ("<pad>", "<begin>", "<end>", "<unknown>")
WORD = re.compile(r" ?\w+(?:['’]\w+)*| ?[^\w\s]")
"""A word or a mark, with the space before it: where there is a space can then be told from the tokens."""
Ids = NDArray[np.int32]


class Pieces:
    """A vocabulary: `described` is all it takes to have it again (JSON)."""

    def __init__(self, described: dict[str, Any]) -> None:
        self.described, self.kind = described, described["kind"]
        if self.kind == "bpe":
            from tokenizers import Tokenizer

            self.inner = Tokenizer.from_str(described["tokenizer"])
            listed = [token for token, _ in sorted(self.inner.get_vocab().items(), key=lambda item: item[1])]
            byte_of = byte_alphabet()
            pieces = ["".join(chr(byte_of[c]) for c in token) for token in listed]
        else:
            self.number = {piece: i for i, piece in enumerate(described["pieces"], start=len(SPECIALS))}
            pieces = [piece.encode().decode("latin-1") for piece in described["pieces"]]
        self.pieces: list[str] = [*SPECIALS, *pieces]

    def __len__(self) -> int:
        return len(self.pieces)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without begin and end."""
        if self.kind == "bpe":
            encoded = self.inner.encode_batch_fast([f" {text}" if text else "" for text in texts])
            return [[i + len(SPECIALS) for i in found.ids] for found in encoded]
        return [[self.number.get(piece, UNKNOWN) for piece in cut(text, self.kind)] for text in texts]


def cut(text: str, kind: str) -> list[str]:
    """Words with the space before them, or characters."""
    return list(text) if kind == "characters" else WORD.findall(f" {text}")


def learned(kind: str, texts: Sequence[str], size: int, least_count: int) -> Pieces:
    """At most `size` ids, specials included, from training text."""
    if kind == "bpe":
        from danlu.data.encoders import trained_pieces

        if size < 260:
            raise UserError(
                "data.vocab_size", "must be at least 260 for bpe: 256 bytes and 4 marks", got=size, fix="write 260"
            )
        tokenizer = trained_pieces("bpe", size - len(SPECIALS), (f" {text}" for text in texts))
        return Pieces({"kind": kind, "tokenizer": tokenizer.to_str()})
    counts = Counter(chain.from_iterable(cut(text, kind) for text in texts))
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    least = least_count if kind == "words" else 1
    return Pieces({"kind": kind, "pieces": [p for p, n in order if n >= least][: size - len(SPECIALS)]})


def byte_alphabet() -> dict[str, int]:
    """Character -> byte, as byte-level tokenizers write bytes (Radford et al. 2019): printable ones as themselves."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [b for b in range(256) if b not in set(plain)]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}
