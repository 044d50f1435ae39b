"""The baselines against plain ten-line versions, and against what they must be on known text."""

from __future__ import annotations

import lzma
from collections import Counter, defaultdict

import numpy as np
import pytest

from danlu.tasks import baselines

TEXT = (
    (b"def walk(tree):\n    for node in tree:\n        yield node\n" * 3)
    + bytes(range(32, 120))
    + b"for tree in node: walk"
)


def as_bytes(text: bytes) -> baselines.Bytes:
    return np.frombuffer(text, dtype=np.uint8)


def plain_kneser_ney(train: bytes, order: int):
    """Interpolated modified Kneser-Ney by dictionaries (Chen and Goodman 1998, section 3): P(byte, context)."""
    padded = bytes(order - 1) + train
    grams = Counter(padded[i : i + order] for i in range(len(train)))
    tables = {order: grams}
    for n in range(order - 1, 0, -1):
        tables[n] = Counter(gram[1:] for gram in tables[n + 1])
    by_context = {n: defaultdict(dict) for n in tables}
    for n, table in tables.items():
        for gram, count in table.items():
            by_context[n][gram[:-1]][gram[-1]] = count
    cut = {n: baselines.discounts(np.array(list(table.values()))) for n, table in tables.items()}

    def p(byte: int, context: bytes, n: int = order) -> float:
        if n == 0:
            return 1 / 256
        seen = by_context[n].get(context[len(context) - (n - 1) :])
        if not seen:
            return p(byte, context, n - 1)
        backoff = sum(cut[n][min(c, 3)] for c in seen.values())
        kept = seen.get(byte, 0) - cut[n][min(seen.get(byte, 0), 3)]
        return (kept + backoff * p(byte, context, n - 1)) / sum(seen.values())

    return p


@pytest.mark.parametrize("order", [1, 2, 3, 5, 8])
def test_ngram_equals_the_plain_dictionary_version(order: int) -> None:
    heldout = b"yield the node in walk(tree)\n\xff\x00 for"
    plain = plain_kneser_ney(TEXT, order)
    padded = bytes(order - 1) + heldout
    want = [plain(heldout[i], padded[i : i + order - 1]) for i in range(len(heldout))]
    got = baselines.ByteNgram.fit(as_bytes(TEXT), order).probabilities(as_bytes(heldout))
    np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("context", [b"for no", b"\xff\xff\xff", b"", b"d"])
def test_ngram_probabilities_sum_to_one(context: bytes) -> None:
    model = baselines.ByteNgram.fit(as_bytes(TEXT), 4)
    total = sum(model.probabilities(as_bytes(context + bytes([byte])))[-1] for byte in range(256))
    assert total == pytest.approx(1, abs=1e-9)


def test_scoring_in_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = baselines.ByteNgram.fit(as_bytes(TEXT), 5)
    whole = model.probabilities(as_bytes(TEXT))
    monkeypatch.setattr(baselines, "CHUNK", 7)
    assert np.array_equal(model.probabilities(as_bytes(TEXT)), whole)


def test_discounts_follow_the_counts_of_counts() -> None:
    counts = np.repeat([1, 2, 3, 4, 9], [40, 15, 8, 5, 2])
    y = 40 / (40 + 2 * 15)
    np.testing.assert_allclose(
        baselines.discounts(counts), [0, 1 - 2 * y * 15 / 40, 2 - 3 * y * 8 / 15, 3 - 4 * y * 5 / 8]
    )


def test_best_order_is_the_best_of_the_separate_fits() -> None:
    rng = np.random.default_rng(0)
    words = [b"tree", b"node", b"walk", b"yield", b"return", b"=", b"(", b")", b"\n"]
    text = as_bytes(b" ".join(words[i] for i in rng.integers(0, len(words), 3000)))
    train, heldout = text[:10000], text[10000:]
    alone = [baselines.ByteNgram.fit(train, n).bits(heldout).sum() for n in range(1, 7)]
    assert baselines.best_order(train, heldout) == int(np.argmin(alone)) + 1


def test_ngram_learns_what_the_text_repeats() -> None:
    text = as_bytes(b"abcdefgh" * 500)
    assert baselines.fitted_ngram(text).bits(as_bytes(b"abcdefgh" * 20)).mean() < 0.2
    noise = np.random.default_rng(1).integers(0, 256, 50_000).astype(np.uint8)
    assert baselines.fitted_ngram(noise[:40_000]).bits(noise[40_000:]).mean() == pytest.approx(8, abs=0.05)


@pytest.mark.parametrize("size", [1, 2, 19, 20, 41])
def test_tiny_training_text(size: int) -> None:
    bits = baselines.fitted_ngram(as_bytes(TEXT[:size])).bits(as_bytes(TEXT))
    assert bits.shape == (len(TEXT),)
    assert np.isfinite(bits).all()


def test_unigram_is_a_distribution_and_matches_by_hand() -> None:
    counts = np.array([3, 0, 1])
    bits = baselines.unigram_bits(counts, np.arange(3))
    np.testing.assert_allclose(2.0**-bits, [3.5 / 5.5, 0.5 / 5.5, 1.5 / 5.5])


def test_xz_is_smaller_than_its_file() -> None:
    alone = baselines.xz_bits(TEXT)
    assert 0 < alone <= 8 * len(lzma.compress(TEXT, preset=9 | lzma.PRESET_EXTREME))
