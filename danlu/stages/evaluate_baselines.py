"""The baselines of one split: fitted on the training split, coded over the very bytes that the model is scored on."""

# N tokens in the split, D documents, V vocabulary

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from danlu.base.contracts import Metric
from danlu.tasks import baselines
from danlu.tasks.intervals import Units, ratio_interval
from danlu.tasks.language_scores import Sums, TokenText, Windows, byte_lengths, windows_of

NGRAM_BYTES = 32 << 20
"""Most training bytes that the n-gram counts: about 30 bytes of memory for each."""
PIECE = 1 << 22
"""Tokens counted at a time."""
XZ_BYTES = 4 << 20
"""Most training bytes put before the validation bytes for xz, about 1 s for each MB."""
BITS_PER_BYTE = "bits/byte"
Floats = NDArray[np.float64]
Decode = Callable[[list[int]], str]


@dataclass(frozen=True)
class Resampling:
    """How intervals are made: the same units and draws for the model and for every baseline."""

    units: Units
    n_resamples: int
    seed: int

    def bits_per_byte(self, sums: Sums) -> Metric:
        """Bits per byte with its interval."""
        return self._metric(sums.bits_per_byte, sums.nats / math.log(2), sums.n_bytes, sums, BITS_PER_BYTE)

    def loss(self, sums: Sums) -> Metric:
        """Nats per target with its interval."""
        return self._metric(sums.loss, sums.nats, sums.n_targets, sums, "nats/token")

    def behind(self, sums: Sums, model: Sums) -> Metric:
        """How far a baseline is behind the model on the same text, in bits per byte: the interval is of the difference."""
        value = sums.bits_per_byte - model.bits_per_byte
        return self._metric(value, (sums.nats - model.nats) / math.log(2), model.n_bytes, model, BITS_PER_BYTE)

    def _metric(self, value: float, top: NDArray[Any], bottom: NDArray[Any], sums: Sums, unit: str) -> Metric:
        if len(self.units.starts) < 2:
            return Metric(value, value, value, unit)
        top, bottom = (np.add.reduceat(x, self.units.starts) for x in (top, bottom))
        return Metric(value, *ratio_interval(top, bottom, self.n_resamples, self.seed), unit)


@dataclass(frozen=True)
class Scored:
    """Which tokens of a split are scored, and how sums over them are made."""

    text: TokenText
    windows: Windows
    by: str
    """documents or windows: the units that sums are made for."""

    @classmethod
    def of(cls, text: TokenText, by: str) -> Scored:
        """All windows of a split."""
        return cls(text, windows_of(text), by)

    def sums(self, nats_of_token: Floats) -> Sums:
        """Sums over the scored tokens of each unit. (N,)."""
        n_tokens, lengths = len(self.text.tokens), byte_lengths(self.text, self.text.tokens.astype(np.int64))
        edges = np.zeros(n_tokens + 1, np.int64)
        edges[self.windows.first] += 1
        edges[self.windows.first + self.windows.length] -= 1
        scored = np.cumsum(edges)[:-1]
        if self.by == "documents":
            starts, ends = self.text.documents[:-1].astype(np.int64), self.text.documents[1:].astype(np.int64)
        else:
            starts, ends = self.windows.first, self.windows.first + self.windows.length
        parts = [between(x * scored, starts, ends) for x in (nats_of_token, np.ones(n_tokens, np.int64), lengths)]
        return Sums(parts[0], parts[1], parts[2])


def between(values: NDArray[Any], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[Any]:
    """Sum of values[start:end] for each pair."""
    total = np.concatenate(([0], np.cumsum(values)))
    return total[ends] - total[starts]


def baseline_metrics(
    train: TokenText, text: TokenText, decode: Decode, resampling: Resampling, model: Sums
) -> tuple[dict[str, dict[str, Metric]], list[str]]:
    """{"unigram": {"bits_per_byte": Metric, "behind": Metric}, "ngram": .., "xz": .., "xz_with_train": ..} and how.

    `behind` is what a baseline needs more than the model whose sums are given, on the same text.
    """
    scored = Scored.of(text, resampling.units.by)
    counts = token_counts(train)
    unigram = scored.sums(baselines.unigram_bits(counts, text.tokens) * math.log(2))
    found = {"unigram": {"bits_per_byte": resampling.bits_per_byte(unigram), "loss": resampling.loss(unigram)}}
    found["unigram"]["behind"] = resampling.behind(unigram, model)
    whole = np.frombuffer(b"".join(documents_of(text, decode)), np.uint8)
    learned = np.frombuffer(b"".join(documents_of(train, decode, NGRAM_BYTES))[:NGRAM_BYTES], np.uint8)
    if not len(whole) or not len(learned):
        return found, ["There is no text to fit or score a byte baseline on."]
    context = learned[-XZ_BYTES:].tobytes()
    jobs = [context + whole.tobytes(), context, whole.tobytes()]
    with ThreadPoolExecutor(min(len(jobs), os.cpu_count() or 1)) as pool:  # xz lets go of the interpreter
        sizes = pool.map(baselines.xz_bits, jobs)
        counted = baselines.fitted_ngram(learned)
        found["ngram"], notes = ngram_metrics(scored, counted.bits(whole), resampling, model)
        joined, alone, xz = sizes
    for name, bits in (("xz", xz), ("xz_with_train", joined - alone)):
        value = bits / len(whole)
        found[name] = without_interval(value, model)
    return found, [
        f"ngram: interpolated modified Kneser-Ney of order {len(counted.levels)} over bytes, counted on "
        f"{len(learned):,} training bytes.",
        *notes,
        f"xz: LZMA2 at preset 9e on all {len(whole):,} bytes of the split; xz_with_train: what they add after "
        f"{len(context):,} training bytes. A size has no interval.",
    ]


def without_interval(value: float, model: Sums) -> dict[str, Metric]:
    """A size in bits per byte, and how far it is behind the model on this very text."""
    behind = value - model.bits_per_byte
    return {
        "bits_per_byte": Metric(value, value, value, BITS_PER_BYTE),
        "behind": Metric(behind, behind, behind, BITS_PER_BYTE),
    }


def ngram_metrics(
    scored: Scored, bits: Floats, resampling: Resampling, model: Sums
) -> tuple[dict[str, Metric], list[str]]:
    """The n-gram on the bytes of the scored tokens alone."""
    lengths = byte_lengths(scored.text, scored.text.tokens.astype(np.int64))
    if lengths.sum() != len(bits):
        value = float(bits.mean())
        said = (
            f"The tokens stand for {int(lengths.sum()):,} bytes and decode to {len(bits):,} (the tokenizer does not "
            "know every character), so the n-gram is scored on all decoded bytes, without an interval."
        )
        return without_interval(value, model), [said]
    ends = np.cumsum(lengths)
    sums = scored.sums(between(bits, ends - lengths, ends) * math.log(2))
    return {"bits_per_byte": resampling.bits_per_byte(sums), "behind": resampling.behind(sums, model)}, []


def token_counts(text: TokenText) -> NDArray[np.int64]:
    """How often each token occurs, a piece at a time. (V,)."""
    counts = np.zeros(len(text.token_bytes), np.int64)
    for start in range(0, len(text.tokens), PIECE):
        counts += np.bincount(text.tokens[start : start + PIECE], minlength=len(counts))
    return counts


def documents_of(text: TokenText, decode: Decode, max_bytes: int | None = None) -> Iterator[bytes]:
    """UTF-8 of each document, without its end token; with max_bytes, of evenly spaced documents that hold about that
    much."""
    n_documents = n_kept = len(text.documents) - 1
    if max_bytes is not None:
        n_bytes = int(token_counts(text) @ text.token_bytes.astype(np.int64))
        n_kept = min(n_documents, math.ceil(n_documents * max_bytes / max(1, n_bytes)))
    for number in np.arange(n_kept) * n_documents // max(1, n_kept):
        start, end = int(text.documents[number]), int(text.documents[number + 1])
        if max_bytes is not None:
            end = min(end, start + max_bytes)
        if end > start and text.tokens[end - 1] == text.document_end:
            end -= 1
        yield decode(text.tokens[start:end].tolist()).encode("utf-8", "surrogatepass")
