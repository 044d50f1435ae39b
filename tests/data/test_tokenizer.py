import json
import random

import numpy as np
import pytest

from danlu.base.errors import UserError
from danlu.data import encoders
from danlu.data.tokenizer import TOKENIZERS, Bpe, Bytes, Characters, Loaded, Unigram, alphabet, fit, load

PROSE = (
    "The quick brown fox doesn't jump; it's 12,345 km away!\n\n    def f(x):\n\treturn  x\n"
    "Über naïve Füchse — 漢字かな交じり文。 emoji 👩‍👩‍👧 \u200b end.   \n"
)
SETTINGS = {
    "bytes": Bytes(),
    "characters": Characters(),
    "bpe": Bpe(vocab_size=400),
    "unigram": Unigram(vocab_size=400),
}


def hostile_texts(n=150):
    """Texts of everything that moves the cuts: white space of all kinds, contractions, other alphabets, controls."""
    rng = random.Random(0)
    parts = [" ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u2003", "\x0b", "\x1c", "\x85", "\u180e", "\u200b", "'s", "'LL",
             "don't", "word", "Wort", "слово", "漢字", "ह्", "123", "٣", "½", "!?",
             "<|document_end|>", "\x00", "😀", "e\u0301", "_", "'"]  # fmt: skip
    return ["".join(rng.choice(parts) for _ in range(rng.randrange(40))) for _ in range(n)]


@pytest.fixture(params=SETTINGS)
def made(request, tmp_path):
    texts = [PROSE * 40, "".join(hostile_texts()) * 2]
    description = fit(SETTINGS[request.param], iter(texts), True, tmp_path)
    return load(description, tmp_path), description, tmp_path


def test_every_kind_is_tested():
    assert {*SETTINGS, "loaded"} == set(TOKENIZERS)


def test_round_trip_and_exact_bytes(made):
    tokenizer, _, _ = made
    texts = [PROSE, "", "<|document_end|>", *hostile_texts()]
    ids, counts = tokenizer.encode_many([text.encode() for text in texts])
    assert counts.sum() == len(ids)
    start = 0
    for text, count in zip(texts, counts, strict=True):
        mine = ids[start : start + count]
        start += count
        assert tokenizer.decode(mine.tolist()) == text
        assert tokenizer.token_bytes[mine].sum() == len(text.encode())
        assert tokenizer.encode(text) == mine.tolist()


def test_ids_lie_inside_the_vocabulary_and_the_end_is_apart(made):
    tokenizer, _, _ = made
    ids, _ = tokenizer.encode_many([PROSE.encode() + b"<|document_end|>"])
    assert ids.min() >= 0
    assert ids.max() < tokenizer.vocab_size == len(tokenizer.token_bytes)
    assert tokenizer.document_end is not None
    assert tokenizer.document_end not in ids
    assert tokenizer.token_bytes[tokenizer.document_end] == 0
    assert tokenizer.decode([*ids[:3].tolist(), tokenizer.document_end]) == tokenizer.decode(ids[:3].tolist())


def test_fitting_again_gives_the_same_file(made, tmp_path_factory):
    _, description, folder = made
    if description["kind"] == "unigram":
        pytest.skip("the library's unigram trainer is not deterministic; prepare says so in the card")
    other = tmp_path_factory.mktemp("again")
    fit(SETTINGS[description["kind"]], iter([PROSE * 40, "".join(hostile_texts()) * 2]), True, other)
    assert (other / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_memo_equals_the_library(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(encoders, "MEMO_CHUNKS", 300)  # forgets often
    monkeypatch.setattr(encoders, "WINDOW_CHARACTERS", 64)  # cuts often
    texts = [PROSE, *hostile_texts(400), " ".join(hostile_texts(50)), "a" * 300, " " * 300, "\n \n " * 90]
    tokenizer = load(fit(SETTINGS[kind], iter([PROSE * 40]), False, tmp_path), tmp_path)
    assert tokenizer.has_memo
    for _ in range(2):
        ids, counts = tokenizer.encode_many([text.encode() for text in texts])
        wanted = [tokenizer.encode(text) for text in texts]
        assert counts.tolist() == [len(w) for w in wanted]
        assert ids.tolist() == [i for w in wanted for i in w]


def test_characters_are_the_sorted_set(tmp_path):
    assert alphabet(["hello", "world\n😀"]) == "\ndehlorw😀"
    tokenizer = load(fit(Characters(), iter(["hello"]), False, tmp_path), tmp_path)
    assert tokenizer.vocab_size == 4
    assert tokenizer.encode("hell") == [1, 0, 2, 2]


def test_unseen_characters_are_refused_or_replaced(tmp_path):
    tokenizer = load(fit(Characters(), iter(["abc"]), False, tmp_path), tmp_path)
    with pytest.raises(UserError, match=r"3 of 2 kinds.*'x' x2.*Fix: set data.tokenizer.unseen"):
        tokenizer.encode_many([b"axxb", "漢".encode()])
    tokenizer = load(fit(Characters(unseen="replace"), iter(["abc"]), True, tmp_path), tmp_path)
    assert tokenizer.encode("a漢b") == [0, 3, 1]
    assert tokenizer.decode([0, 3, 1, 4]) == "a�b"
    assert (tokenizer.vocab_size, tokenizer.document_end) == (5, 4)


def test_loaded_equals_the_one_it_was_loaded_from(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = load(fit(Bpe(vocab_size=400), iter([PROSE * 40]), True, tmp_path / "a"), tmp_path / "a")
    path = str(tmp_path / "a" / "tokenizer.json")
    second = load(fit(Loaded(path=path), iter(()), True, tmp_path / "b"), tmp_path / "b")
    assert second.encode(PROSE) == first.encode(PROSE)
    assert (second.vocab_size, second.document_end) == (first.vocab_size, first.document_end)
    assert (second.token_bytes == first.token_bytes).all()


def test_loaded_with_pieces_of_another_kind_counts_bytes(tmp_path):
    """A SentencePiece-like tokenizer: ▁ for a space, <0xNN> for bytes it has no piece for."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    vocab = [("<unk>", 0.0), *((f"<0x{i:02X}>", -9.0) for i in range(256)), ("▁the", -2.0), ("▁", -3.0), ("cat", -3.0)]
    made = Tokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    path = tmp_path / "given.json"
    made.save(str(path))
    (tmp_path / "out").mkdir()
    tokenizer = load(fit(Loaded(path=str(path)), iter(()), False, tmp_path / "out"), tmp_path / "out")
    assert not tokenizer.has_memo
    ids, _ = tokenizer.encode_many([" the cat é".encode()])
    assert tokenizer.token_bytes[ids].sum() == len(" the cat é".encode())
    assert tokenizer.decode(ids.tolist()) == " the cat é"


@pytest.mark.parametrize("content", [None, "", "{}", json.dumps({"model": 3}), "[1, 2"])
def test_a_broken_tokenizer_file_is_refused_in_one_sentence(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=r"tokenizer\.json") as error:
        fit(Loaded(path=str(path)), iter(()), False, tmp_path)
    assert "\n" not in str(error.value)


def test_vocabulary_is_never_larger_than_asked(tmp_path):
    for settings in (Bpe(vocab_size=300), Unigram(vocab_size=300)):
        tokenizer = load(fit(settings, iter([PROSE * 200]), True, tmp_path), tmp_path)
        assert 257 <= tokenizer.vocab_size <= 300
        assert np.count_nonzero(tokenizer.token_bytes == 0) == 1
