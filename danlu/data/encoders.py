"""Tokenizers at work: many texts to one array of ids, a few ids back to text. One class for each way to encode."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from danlu.base.errors import UserError

if TYPE_CHECKING:
    import tokenizers

MEMO_CHUNKS, MEMO_CHARACTERS = 1 << 18, 1 << 22
"""A memo larger than this is forgotten and starts again, which bounds its memory and changes no result."""
ENCODED_AT_ONCE = 1 << 12
UNKNOWN_SHOWN = 5


class Tokenizer(Protocol):
    """What later stages know of any tokenizer."""

    vocab_size: int
    """Ids are 0 .. vocab_size - 1, the document end included."""
    document_end: int | None
    """Id put after each document, never made by encode."""
    token_bytes: np.ndarray
    """(vocab_size,) uint16: UTF-8 bytes that each id stands for; 0 for the document end."""

    def encode(self, text: str) -> list[int]:
        """Ids of one text."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids; bytes that are not whole characters become U+FFFD, a document end nothing."""

    def encode_many(self, texts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of UTF-8 texts laid end to end (int32), and how many each text has (int64)."""


class ByteTokenizer:
    """Token id = byte."""

    def __init__(self, document_end: bool) -> None:
        self.vocab_size = 256 + document_end
        self.document_end = 256 if document_end else None
        self.token_bytes = np.array([1] * 256 + [0] * document_end, dtype=np.uint16)

    def encode(self, text: str) -> list[int]:
        """UTF-8 bytes."""
        return list(text.encode("utf-8"))

    def decode(self, ids: Sequence[int]) -> str:
        """Bytes back to text."""
        return bytes(i for i in ids if i < 256).decode("utf-8", "replace")

    def encode_many(self, texts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """The bytes themselves."""
        ids = np.frombuffer(b"".join(texts), dtype=np.uint8).astype(np.int32)
        return ids, np.array([len(text) for text in texts], dtype=np.int64)


class CharacterTokenizer:
    """Token id = place of the character among `symbols` (sorted); then the unknown token, if any, and the end."""

    def __init__(self, symbols: str, unknown: bool, document_end: bool) -> None:
        self.symbols = symbols
        self.unknown = len(symbols) if unknown else None
        self.document_end = len(symbols) + unknown if document_end else None
        self.vocab_size = len(symbols) + unknown + document_end
        sizes = [len(symbol.encode("utf-8")) for symbol in symbols]
        self.token_bytes = np.array(sizes + [0] * (unknown + document_end), dtype=np.uint16)
        codes = np.array([ord(symbol) for symbol in symbols], dtype=np.int64)
        self._ids = np.full(0x110000 if unknown else int(codes.max(initial=0)) + 2, -1, dtype=np.int32)
        if self.unknown is not None:
            self._ids[:] = self.unknown
        self._ids[codes] = np.arange(len(symbols))

    def encode(self, text: str) -> list[int]:
        """Look up each character."""
        ids: list[int] = self.encode_many([text.encode("utf-8")])[0].tolist()
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Symbols back to text; the unknown token becomes U+FFFD."""
        return "".join(self.symbols[i] if i < len(self.symbols) else "�" * (i == self.unknown) for i in ids)

    def encode_many(self, texts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Look up every code point at once; UserError names characters that have no id."""
        strings = [text.decode("utf-8") for text in texts]
        codes = np.frombuffer("".join(strings).encode("utf-32-le"), dtype="<u4")
        ids = self._ids[np.minimum(codes, len(self._ids) - 1)]
        if len(ids) and ids.min() < 0:
            unseen, counts = np.unique(codes[ids < 0], return_counts=True)
            shown = ", ".join(
                f"{chr(c)!r} x{n}" for c, n in list(zip(unseen.tolist(), counts, strict=True))[:UNKNOWN_SHOWN]
            )
            raise UserError(
                "data.tokenizer",
                "has no id for characters that the training text does not hold",
                got=f"{counts.sum()} of {len(unseen)} kinds, first {shown}",
                fix='set data.tokenizer.unseen = "replace", or data.tokenizer.kind = "bpe", which knows every text',
            )
        return ids, np.array([len(string) for string in strings], dtype=np.int64)


_WIDE = r"[^\x00-\x7f]"
_CHUNK = re.compile(
    rf" ?[A-Za-z]++(?!{_WIDE})|'(?:[sdmt]|ll|ve|re)| ?[^A-Za-z0-9 \t\n\r\x80-\U0010ffff]++(?!{_WIDE})| ?[0-9]++(?!{_WIDE})"
    r"|[ \t\n\r]+(?![^ \t\n\r])| ?[^ \t\n\r]+|[ \t\n\r]+"
)
"""GPT-2's cuts as far as ASCII alone decides them: a run that touches another alphabet goes on to the next space."""
_OTHER_SPACE = re.compile(r"[^\S \t\n\r]|\u180e")
_ASCII_SPACE = b"\x0b\x0c\x1c\x1d\x1e\x1f"


def _has_plain_space(text: bytes, string: str) -> bool:
    """True when the only white space is space, tab, newline and return, of which every regex engine thinks alike."""
    if string.isascii():
        return len(text.translate(None, _ASCII_SPACE)) == len(text)
    return _OTHER_SPACE.search(string) is None


_WINDOW_END = re.compile(r"(?<=[^ \t\n\r])(?= [^ \t\n\r])")
WINDOW_CHARACTERS = 1 << 19
"""Text looked up at once; longer texts are cut where chunks are cut."""


def _windows(string: str) -> Iterator[str]:
    start = 0
    while len(string) - start > 2 * WINDOW_CHARACTERS:
        end = _WINDOW_END.search(string, start + WINDOW_CHARACTERS)
        if end is None:
            break
        yield string[start : end.start()]
        start = end.start()
    yield string[start:] if start else string


class _Memo(dict[str, int]):
    """chunk -> number, numbering new ones and keeping them aside."""

    def __init__(self) -> None:
        self.fresh: list[str] = []

    def __missing__(self, chunk: str) -> int:
        number = self[chunk] = len(self)
        self.fresh.append(chunk)
        return number


class PieceTokenizer:
    """A tokenizer of the `tokenizers` library.

    Byte-level tokenizers that cut words as GPT-2 does are sped up by a memo: text is cut where GPT-2's pattern cuts
    anyway, each different chunk is encoded once, and the rest is array look-ups. The ids are the library's own.
    """

    def __init__(self, path: Path, document_end: int | None) -> None:
        import tokenizers

        try:
            self.inner = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise UserError(
                str(path), f"is not a tokenizer.json that can be read ({error})", fix="give another file"
            ) from error
        self.inner.no_padding()
        self.inner.no_truncation()
        self.inner.encode_special_tokens = True  # "<|document_end|>" inside a text is text
        self.document_end = document_end
        vocabulary = self.inner.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values()) + 1
        described = json.loads(self.inner.to_str())
        self.is_byte_level = _uses(described.get("decoder"), "ByteLevel")
        self.token_bytes = _token_bytes(vocabulary, described, self.is_byte_level, self.vocab_size)
        self.has_memo = _cuts_like_gpt2(described)
        self._forget()

    def encode(self, text: str) -> list[int]:
        """Ids of one text, by the library itself."""
        ids: list[int] = self.inner.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Ids back to text."""
        text: str = self.inner.decode([i for i in ids if i != self.document_end], skip_special_tokens=False)
        return text

    def encode_many(self, texts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of many texts: through the memo where every cut is certain, else through the library."""
        strings = [text.decode("utf-8") for text in texts]
        if self.has_memo and all(map(_has_plain_space, texts, strings)):
            return self._from_memo(strings)
        if self.has_memo and len(texts) > 1:
            parts = [self.encode_many([text]) for text in texts]
            return np.concatenate([ids for ids, _ in parts]), np.concatenate([counts for _, counts in parts])
        lists = list(self._ids_of(strings))
        counts = np.array([len(ids) for ids in lists], dtype=np.int64)
        return np.fromiter((i for ids in lists for i in ids), dtype=np.int32, count=int(counts.sum())), counts

    def _ids_of(self, strings: Sequence[str]) -> Iterable[list[int]]:
        start = 0
        while start < len(strings):
            end, size = start + 1, len(strings[start])
            while end < len(strings) and end - start < ENCODED_AT_ONCE and size + len(strings[end]) <= 1 << 20:
                size += len(strings[end])
                end += 1
            for encoding in self.inner.encode_batch_fast(list(strings[start:end]), add_special_tokens=False):
                yield encoding.ids
            start = end

    def _forget(self) -> None:
        self._memo = _Memo()
        self._memo_characters = 0
        self._pieces = np.empty(1 << 16, dtype=np.int32)
        self._starts = np.zeros(1 << 12, dtype=np.int64)
        self._n_known = 0

    def _from_memo(self, strings: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Through the memo, in groups of bounded size."""
        parts: list[np.ndarray] = []
        counts = np.zeros(len(strings), dtype=np.int64)
        group: list[tuple[int, str]] = []
        size = 0
        for owner, string in enumerate(strings):
            for window in _windows(string):
                group.append((owner, window))
                size += len(window)
                if size >= WINDOW_CHARACTERS:
                    parts.append(self._look_up(group, counts))
                    group, size = [], 0
        parts.append(self._look_up(group, counts))
        return np.concatenate(parts), counts

    def _look_up(self, group: list[tuple[int, str]], counts: np.ndarray) -> np.ndarray:
        """Ids of a group of (number of the text, piece of it); adds how many there are to that text's count."""
        if len(self._memo) > MEMO_CHUNKS or self._memo_characters > MEMO_CHARACTERS:
            self._forget()
        number_of = self._memo.__getitem__
        found = [_CHUNK.findall(string) for _, string in group]
        n_chunks = [len(chunks) for chunks in found]
        numbers = np.fromiter(map(number_of, chain.from_iterable(found)), dtype=np.int64, count=sum(n_chunks))
        self._learn()
        starts = self._starts[numbers]
        lengths = self._starts[numbers + 1] - starts
        ends = np.concatenate([[0], np.cumsum(lengths)])
        owners = np.array([owner for owner, _ in group], dtype=np.int64)
        np.add.at(counts, owners, np.diff(ends[np.concatenate([[0], np.cumsum(n_chunks, dtype=np.int64)])]))
        ids: np.ndarray = self._pieces[np.repeat(starts - ends[:-1], lengths) + np.arange(ends[-1])]
        return ids

    def _learn(self) -> None:
        """Encode the new chunks, as words of one text: one call for many."""
        fresh, self._memo.fresh = self._memo.fresh, []
        for start in range(0, len(fresh), ENCODED_AT_ONCE):
            words = fresh[start : start + ENCODED_AT_ONCE]
            encoding = self.inner.encode(words, is_pretokenized=True, add_special_tokens=False)
            ids = np.array(encoding.ids, dtype=np.int32)
            counts = np.bincount(np.array(encoding.word_ids, dtype=np.int64), minlength=len(words))
            used = int(self._starts[self._n_known])
            self._pieces = _grown(self._pieces, used + len(ids))
            self._pieces[used : used + len(ids)] = ids
            self._starts = _grown(self._starts, self._n_known + len(words) + 1)
            self._starts[self._n_known + 1 : self._n_known + len(words) + 1] = used + np.cumsum(counts)
            self._n_known += len(words)
        self._memo_characters += sum(map(len, fresh))


def _grown(numbers: np.ndarray, size: int) -> np.ndarray:
    """The array itself, or a copy with room for `size` numbers and as many again."""
    if size <= len(numbers):
        return numbers
    larger = np.zeros(2 * size, dtype=numbers.dtype)
    larger[: len(numbers)] = numbers
    return larger


def _uses(part: dict[str, Any] | None, kind: str) -> bool:
    return part is not None and (
        part.get("type") == kind or any(p.get("type") == kind for p in part.get("decoders", []))
    )


def _cuts_like_gpt2(described: dict[str, Any]) -> bool:
    cut = described.get("pre_tokenizer") or {}
    plain = cut.get("type") == "ByteLevel" and cut.get("use_regex", True) and not cut.get("add_prefix_space", True)
    added = any(not token.get("special") for token in described.get("added_tokens", []))
    dropout = described.get("model", {}).get("dropout")
    return plain and described.get("normalizer") is None and not added and not dropout


def _token_bytes(vocabulary: dict[str, int], described: dict[str, Any], is_byte_level: bool, size: int) -> np.ndarray:
    """UTF-8 bytes of each id. Byte-level: one per character of the token. Else: ▁ is a space, <0xNN> one byte."""
    special = {token["id"] for token in described.get("added_tokens", []) if token.get("special")}
    added = {token["id"] for token in described.get("added_tokens", [])}
    lengths = np.zeros(size, dtype=np.uint16)
    for token, i in vocabulary.items():
        if i in special:
            continue
        if is_byte_level and i not in added:
            lengths[i] = len(token)
        elif re.fullmatch(r"<0x[0-9A-F]{2}>", token):
            lengths[i] = 1
        else:
            lengths[i] = len(token.replace("▁", " ").encode("utf-8"))
    return lengths


def trained_pieces(kind: str, vocab_size: int, texts: Iterable[str]) -> tokenizers.Tokenizer:
    """A byte-level BPE or unigram tokenizer learned from `texts`: every byte is known, so nothing is ever unknown."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    common: dict[str, Any] = {"vocab_size": vocab_size, "initial_alphabet": alphabet, "show_progress": False}
    is_bpe = kind == "bpe"
    tokenizer = Tokenizer(models.BPE() if is_bpe else models.Unigram())
    trainer = trainers.BpeTrainer(min_frequency=2, **common) if is_bpe else trainers.UnigramTrainer(**common)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
