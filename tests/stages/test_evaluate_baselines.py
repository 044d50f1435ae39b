"""The baselines as evaluate reports them: right bytes, right denominators, the model's own units."""

from __future__ import annotations

import numpy as np
import pytest

from danlu.stages.evaluate_baselines import Resampling, Scored, baseline_metrics, documents_of
from danlu.tasks import baselines
from danlu.tasks.intervals import Units, units
from danlu.tasks.language_scores import Sums, TokenText, windows_of

END = 256
WORDS = ["walk", "tree", "node", "yield", "return", "for", "in", "def", "\n", "丹炉"]


def split(n_documents: int, seed: int, end: int | None = END, pack: str = "stream", context: int = 16) -> TokenText:
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, 30)).encode() for _ in range(n_documents)]
    pieces = [[*text, end] if end is not None else list(text) for text in texts]
    documents = np.cumsum([0, *map(len, pieces)]).astype(np.uint64)
    token_bytes = np.array([1] * 256 + [0], np.uint16)
    return TokenText(np.concatenate(pieces).astype(np.uint16), documents, token_bytes, context, end, pack)  # type: ignore[arg-type]


def model_sums(text: TokenText, by: str, nats: float = 0.5) -> Sums:
    """A model that pays the same for every token."""
    return Scored.of(text, by).sums(np.full(len(text.tokens), nats))


def decode(tokens: list[int]) -> str:
    return bytes(tokens).decode()


@pytest.mark.parametrize("end", [END, None])
@pytest.mark.parametrize("pack", ["stream", "separate"])
@pytest.mark.parametrize("n_documents", [40, 5])
def test_baselines_are_scored_on_the_scored_bytes_alone(end: int | None, pack: str, n_documents: int) -> None:
    train, text = split(100, 0, end, pack), split(n_documents, 1, end, pack)
    windows = windows_of(text)
    chosen = units(n_documents, len(windows.first))
    model = model_sums(text, chosen.by)
    found, notes = baseline_metrics(train, text, decode, Resampling(chosen, 200, 0), model)
    tokens = text.tokens.astype(int)
    scored = np.zeros(len(tokens), bool)
    for first, n in zip(windows.first, windows.length, strict=True):
        scored[first : first + n] = True
    is_text = tokens != END
    n_bytes = (scored & is_text).sum()
    counts = np.bincount(train.tokens, minlength=257)
    want = baselines.unigram_bits(counts, tokens)[scored].sum() / n_bytes
    assert found["unigram"]["bits_per_byte"].value == pytest.approx(want)
    learned = np.frombuffer(b"".join(documents_of(train, decode)), np.uint8)
    whole = np.frombuffer(b"".join(documents_of(text, decode)), np.uint8)
    assert len(whole) == is_text.sum()
    bits = baselines.fitted_ngram(learned).bits(whole)
    ngram = found["ngram"]["bits_per_byte"]
    assert ngram.value == pytest.approx(bits[scored[is_text]].sum() / n_bytes)
    assert ngram.low < ngram.value < ngram.high
    behind = found["ngram"]["behind"]
    assert behind.value == pytest.approx(ngram.value - model.bits_per_byte)
    assert behind.low < behind.value < behind.high
    assert behind.high - behind.low < 2 * (ngram.high - ngram.low)
    assert found["xz"]["bits_per_byte"].value == baselines.xz_bits(whole.tobytes()) / len(whole)
    assert found["xz_with_train"]["bits_per_byte"].value < found["xz"]["bits_per_byte"].value
    assert any(f"{len(learned):,} training bytes" in note for note in notes)


def test_sums_by_window_and_by_document_agree() -> None:
    text = split(7, 3)
    nats = np.random.default_rng(0).random(len(text.tokens))
    by_window, by_document = (Scored.of(text, by).sums(nats) for by in ("windows", "documents"))
    assert by_window.loss == pytest.approx(by_document.loss)
    assert by_window.bits_per_byte == pytest.approx(by_document.bits_per_byte)
    assert by_document.n_targets.tolist() == np.diff(text.documents).tolist()


def test_a_tokenizer_that_loses_characters_is_told() -> None:
    text = split(40, 1)
    found, notes = baseline_metrics(
        split(50, 0),
        text,
        lambda tokens: decode(tokens).replace("丹", "�!"),
        Resampling(units(40, 99), 100, 0),
        model_sums(text, "documents"),
    )
    assert any("does not know every character" in note for note in notes)
    assert found["ngram"]["bits_per_byte"].low == found["ngram"]["bits_per_byte"].high


def test_a_part_of_a_large_training_split_is_spread_evenly() -> None:
    text = split(100, 0)
    sizes = np.diff(text.documents).astype(int) - 1
    some = list(documents_of(text, decode, max_bytes=int(sizes.sum()) // 4))
    assert len(some) == pytest.approx(25, abs=1)
    every = list(documents_of(text, decode))
    numbers = [every.index(document) for document in some]
    assert set(np.diff(numbers)) <= {3, 4, 5}
    assert len(b"".join(documents_of(split(1, 0), decode, max_bytes=10))) <= 10


def test_one_unit_has_no_interval() -> None:
    text = split(1, 0, context=10_000)
    one = Resampling(Units("windows", np.array([0]), ""), 100, 0)
    found, _ = baseline_metrics(split(9, 1), text, decode, one, model_sums(text, "windows"))
    metric = found["ngram"]["bits_per_byte"]
    assert metric.low == metric.value == metric.high
