"""Sampling against plain versions, and generation with a cache against generation without one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from danlu.base.contracts import Batch
from danlu.base.errors import GateError, UserError
from danlu.models import sampling as cuts
from danlu.models.decoder_settings import Decoder
from danlu.models.generate import Continuation, Limits, Piece, TextStream, generate, stream, window_start
from danlu.models.sampling import Draws, Sampling, picked

torch.set_num_threads(1)
V = 37


class Bytes:
    """Tokens are UTF-8 bytes."""

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, tokens: list[int]) -> str:
        return bytes(t for t in tokens if t < 256).decode(errors="replace")


class Mixer(nn.Module):
    """A stub whose scores hang on every token of the window and its position: a wrong cache shows at once."""

    def __init__(self, n_tokens: int = 256) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(n_tokens, 16)
        self.head = nn.Linear(16, n_tokens)
        self.rows_seen = 0

    def new_cache(self, batch_size: int) -> Tensor:
        return torch.zeros(batch_size, 0, dtype=torch.int64)

    def decode(self, tokens: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        cache = torch.cat([cache, tokens], 1)
        assert cache.shape[1] <= 64
        self.rows_seen += tokens.numel()
        weights = torch.cos(torch.arange(cache.shape[1]) * 1.7 + 1)
        return self.head((self.table(cache) * weights[:, None]).sum(1)) * 3, cache


def without_cache(model: nn.Module, prompt: str, n_new: int, context: int) -> list[int]:
    known = list(prompt.encode())
    for _ in range(n_new):
        window = torch.tensor([known[window_start(len(known), context) :]])
        known.append(int(model.decode(window, model.new_cache(1))[0].argmax()))
    return known


@pytest.mark.parametrize("n_new", [3, 40])
def test_greedy_with_a_cache_equals_greedy_without_one_past_the_context(n_new: int) -> None:
    model, codec, prompts = Mixer(), Bytes(), ["a", "walk(tree)", "def", "x" * 30]
    got = generate(model, codec, prompts, Sampling(temperature=0, max_new_tokens=n_new), Limits(context=16))
    for prompt, found in zip(prompts, got, strict=True):
        want = without_cache(model, prompt, n_new, 16)
        assert found == Continuation(prompt, codec.decode(want[len(prompt) :]), "length")


@pytest.mark.parametrize("style", ["modern", "gpt2"])
def test_the_decoder_with_its_cache_equals_its_forward_pass(style: str) -> None:
    settings = Decoder(style=style, n_layers=2, width=32, n_heads=4, n_kv_heads=2, context=16)
    model = settings.build(256, seed=1).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.3)
    prompts, n_new = ["a", "walk(tree)"], 30
    got = generate(model, Bytes(), prompts, Sampling(temperature=0, max_new_tokens=n_new), Limits(context=16))
    for prompt, found in zip(prompts, got, strict=True):
        known = list(prompt.encode())
        for _ in range(n_new):
            window = torch.tensor([known[window_start(len(known), 16) :]])
            output = model(Batch({"tokens": window}, 0))
            known.append(int((output.features[0, -1] @ output.head_weight.t() * output.head_scale).argmax()))
        assert found.text == Bytes().decode(known[len(prompt) :])


def test_the_cache_is_used() -> None:
    model = Mixer()
    generate(model, Bytes(), ["abcd"], Sampling(temperature=0, max_new_tokens=50), Limits(context=64))
    assert model.rows_seen == 4 + 49


@pytest.mark.parametrize("context", [2, 3, 16, 17])
def test_window_keeps_half_to_a_whole_context_and_moves_rarely(context: int) -> None:
    starts = [window_start(n, context) for n in range(1, 200)]
    shown = [n - start for n, start in enumerate(starts, start=1)]
    assert max(shown) <= context
    assert min(shown[context:]) >= context // 2
    assert len(set(starts)) <= 200 / (context // 2) + 1


def test_a_sample_does_not_depend_on_the_rest_of_the_batch() -> None:
    model, settings = Mixer(), Sampling(temperature=1.0, max_new_tokens=12, seed=5)
    prompts = ["walk", "t", "in"]
    together = generate(model, Bytes(), prompts, settings, Limits(context=64))
    assert together == generate(model, Bytes(), prompts, settings, Limits(context=64))
    alone = generate(model, Bytes(), prompts[:1], settings, Limits(context=64))
    assert alone == together[:1]
    other = generate(model, Bytes(), prompts, settings.model_copy(update={"seed": 6}), Limits(context=64))
    assert other != together


class Scripted(nn.Module):
    """Says the given bytes, whatever it is shown."""

    def __init__(self, *says: bytes) -> None:
        super().__init__()
        self.unused, self.says, self.at = nn.Parameter(torch.zeros(1)), says, -1

    def new_cache(self, batch_size: int) -> None:
        return None

    def decode(self, tokens: Tensor, cache: None) -> tuple[Tensor, None]:
        self.at += 1
        scores = torch.zeros(len(tokens), 257)
        for row, said in enumerate(self.says):
            scores[row, said[self.at] if self.at < len(said) else 256] = 1
        return scores, None


def said(text: bytes, **settings: object) -> list[Piece]:
    greedy = Sampling(temperature=0, **settings)
    return list(stream(Scripted(text), Bytes(), ["p"], greedy, Limits(context=999, document_end=256)))


def test_streaming_never_yields_half_a_character_and_loses_nothing() -> None:
    text = "丹炉 é 🜁 end"
    pieces = said(text.encode())
    assert "".join(p.text for p in pieces) == text
    assert [p.text for p in pieces][:3] == ["丹", "炉", " "]
    assert not any("�" in p.text for p in pieces)
    assert pieces[-1] == Piece(0, "", "document end")


@pytest.mark.parametrize(
    "broken", [b"a\x80\x80\x80b", b"\xe4\xb8", b"\x80\x80\xe4\xb8\xadx", b"\xff" * 9, b"\xf0\x9f\x9cz\xe4"]
)
def test_broken_bytes_stream_as_they_decode(broken: bytes) -> None:
    assert "".join(p.text for p in said(broken)) == broken.decode(errors="replace")


@pytest.mark.parametrize(
    ("text", "stop", "want"),
    [
        (b"one two END three", ("END",), "one two "),
        (b"one\n\ntwo", ("\n\n",), "one"),
        (b"aab aaab", ("aaab",), "aab "),
        (b"abcabd", ("abd", "zz"), "abc"),
        (b"xyzabc", ("abc", "za"), "xy"),
        (b"ends in EN", ("END",), "ends in EN"),
        ("好。好".encode(), ("。",), "好"),
    ],
)
def test_stop_strings_cut_exactly_and_are_never_shown(text: bytes, stop: tuple[str, ...], want: str) -> None:
    pieces = said(text, stop=stop)
    assert "".join(p.text for p in pieces) == want
    assert pieces[-1].ended == ("document end" if want == text.decode() else "stop")


def test_the_limit_flushes_what_was_held_back() -> None:
    pieces = said(b"abEN and more", stop=("END",), max_new_tokens=4)
    assert "".join(p.text for p in pieces) == "abEN"
    assert pieces[-1].ended == "length"


def test_rows_end_on_their_own() -> None:
    model = Scripted(b"ab", b"abcdef")
    got = generate(
        model, Bytes(), ["p", "q"], Sampling(temperature=0, max_new_tokens=4), Limits(context=99, document_end=256)
    )
    assert [(c.text, c.ended) for c in got] == [("ab", "document end"), ("abcd", "length")]


def test_empty_prompts() -> None:
    assert generate(Scripted(), Bytes(), [], Sampling(), Limits(context=9)) == []
    with pytest.raises(UserError, match="at least one character"):
        generate(Mixer(), Bytes(), [""], Sampling(), Limits(context=9))
    assert generate(Mixer(257), Bytes(), [""], Sampling(max_new_tokens=2), Limits(9, 256))[0].ended


def test_a_diverged_model_is_told() -> None:
    model = Mixer()
    nn.init.constant_(model.head.bias, math.nan)
    with pytest.raises(GateError, match="diverged"):
        generate(model, Bytes(), ["a"], Sampling(), Limits(context=9))


def test_prompt_tail_that_cuts_a_character_does_not_leak() -> None:
    text = TextStream(Bytes(), list("ab好好好".encode()), ())
    assert "".join(text.push(t) for t in "好!".encode()) + text.finish() == "好!"


# Sampling


def plain_top_p(probabilities: np.ndarray, p: float) -> set[int]:
    kept, total = set(), 0.0
    for token in sorted(range(len(probabilities)), key=lambda t: -probabilities[t]):
        kept.add(token)
        total += probabilities[token]
        if total >= p:
            break
    return kept


def scores_and_probabilities(seed: int) -> tuple[Tensor, np.ndarray]:
    scores = torch.randn(5, V, generator=torch.Generator().manual_seed(seed)) * 2
    return scores, scores.double().softmax(-1).numpy()


def finite(scores: Tensor) -> list[set[int]]:
    return [set(row.isfinite().nonzero()[:, 0].tolist()) for row in scores]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("p", [0.01, 0.3, 0.9, 0.999])
def test_top_p_keeps_the_smallest_set_that_reaches_p(seed: int, p: float) -> None:
    scores, probabilities = scores_and_probabilities(seed)
    assert finite(cuts.top_p(scores, p)) == [plain_top_p(row, p) for row in probabilities]


def test_top_p_at_an_exact_boundary_and_at_one() -> None:
    scores = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    assert finite(cuts.top_p(scores, 0.5)) == [{0}]
    assert finite(cuts.top_p(scores, 0.51)) == [{0, 1}]
    assert finite(cuts.top_p(scores, 1.0)) == [{0, 1, 2, 3}]


@pytest.mark.parametrize("k", [1, 3, V, V + 5])
def test_top_k_keeps_k(k: int) -> None:
    scores, probabilities = scores_and_probabilities(0)
    assert finite(cuts.top_k(scores, k)) == [set(np.argsort(-row)[:k].tolist()) for row in probabilities]
    assert finite(cuts.top_k(torch.zeros(1, V), k)) == [set(range(min(k, V)))]


@pytest.mark.parametrize("p", [0.0, 0.05, 0.5, 1.0])
def test_min_p_keeps_what_is_near_the_best(p: float) -> None:
    scores, probabilities = scores_and_probabilities(1)
    assert finite(cuts.min_p(scores, p)) == [
        set(np.flatnonzero(row >= p * row.max()).tolist()) for row in probabilities
    ]


def test_draws_follow_the_distribution() -> None:
    scores, _ = scores_and_probabilities(2)
    settings = Sampling(temperature=0.7, top_k=9)
    n = 20_000
    u = np.random.default_rng(0).random(n)
    found = np.bincount(picked(scores[:1].expand(n, -1), settings, u).numpy(), minlength=V) / n
    want = (
        (scores[0] / 0.7).double().masked_fill(scores[0] < scores[0].topk(9).values[-1], -math.inf).softmax(-1).numpy()
    )
    assert np.abs(found - want).max() < 0.015
    assert set(np.flatnonzero(found)) == set(np.flatnonzero(want))


@pytest.mark.parametrize("u", [0.0, 1 - 1e-16, 0.5])
def test_no_draw_picks_a_dropped_token(u: float) -> None:
    scores = torch.tensor([[-9.0, 5.0, 4.0, -9.0]])
    assert picked(scores, Sampling(temperature=1, top_k=2), np.array([u])).item() in {1, 2}


def test_tiny_and_zero_temperature_are_greedy() -> None:
    scores, _ = scores_and_probabilities(3)
    best = scores.argmax(-1)
    for temperature in (0.0, 1e-30):
        assert torch.equal(picked(scores, Sampling(temperature=temperature), np.full(5, 0.999)), best)


def test_draws_are_streams_of_their_own() -> None:
    one, two = Draws(3, 2), Draws(3, 1)
    assert one.next([0, 1])[0] == two.next([0])[0]
    one.next([1])
    assert one.next([0])[0] == two.next([0])[0]


def test_settings_read_as_a_reader_wants() -> None:
    assert str(Sampling(top_k=50, seed=1)) == "temperature 0.8, top-k 50, seed 1"
    assert str(Sampling(temperature=0)) == "greedy"
