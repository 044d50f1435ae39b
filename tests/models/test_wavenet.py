"""WaveNet: the fast stack against the plain one, no look ahead, and generation against the full forward pass."""

import numpy as np
import pytest
import torch

from danlu.base import native
from danlu.base.contracts import Batch, DataCard
from danlu.base.errors import UserError
from danlu.data import mulaw
from danlu.models import wavenet_stack
from danlu.models.wavenet_generate import Maker
from danlu.models.wavenet_settings import Wavenet
from danlu.models.wavenet_stack import Layer, plain_stacked, stacked

V = 16
FEATURES = {
    "rate": 1000, "levels": V, "context": 64, "conditions": ["digit", "speaker"], "values": [["a", "b", "c"], ["x", "y"]],
    "level_counts": list(range(V)), "durations": [[40] * 21] * 3, "level_values": mulaw.values(V).tolist(),
    "level_borders": mulaw.borders(V).tolist(),
}  # fmt: skip
CARD = DataCard(kind="waveform", source="", rows_in=0, rows_used=0, rows_rejected={}, features=FEATURES)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def model_of(seed=0, **settings):
    model = Wavenet(**({"width": 6, "gates": 5, "skip": 7, "cycles": 2, "dilations": 4, "knots": 3} | settings)).build(
        CARD, V, seed
    )
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    return model.eval()


def batch_of(levels, conditions, n):
    span = torch.tensor([[0, k] for k in n])
    return Batch({"levels": levels, "targets": levels, "conditions": conditions, "span": span}, levels.numel())


def scores(model, batch):
    out = model(batch)
    return out.features @ out.head_weight.t()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("compiled", [True, False])
def test_the_fast_stack_is_the_plain_one(compiled, dtype, monkeypatch):
    if compiled and native.load() is None:
        pytest.skip(f"no native kernels here: {native.reason()}")
    if not compiled:
        monkeypatch.setattr(wavenet_stack.native, "load", lambda: None)
    torch.manual_seed(0)
    T, B, R, G, dilations = 9, 3, 5, 33, [1, 2, 4, 16, 1]
    last = len(dilations) - 1
    x, about = torch.randn(T * B, R), torch.randn(len(dilations), B, 2 * G)
    layers = [
        Layer(
            torch.randn(2 * G, R) / 3,
            torch.randn(2 * G, R) / 3,
            *((torch.randn(R, G) / 6, torch.randn(R)) if i < last else (None, None)),
        )
        for i in range(len(dilations))
    ]
    inputs = [x, about, *(w for layer in layers for w in layer if w is not None)]
    for tensor in inputs:
        tensor.requires_grad_()
    found = []
    for way in (stacked, plain_stacked):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16 and way is stacked):
            out = way(x, about, layers, dilations)
        weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
        grads = torch.autograd.grad((out.float() * weight).sum(), inputs, materialize_grads=True)
        found.append([out.float(), *grads])
    tolerance = 1e-5 if dtype == torch.float32 else 0.03
    for mine, plain in zip(*found, strict=True):
        assert float((mine - plain).detach().norm()) <= tolerance * float(plain.detach().norm()) + 1e-7


def test_a_nan_is_not_hidden():
    x, about = torch.full((4, 2), float("nan")), torch.zeros(1, 1, 66)
    out = stacked(x, about, [Layer(torch.ones(66, 2), torch.ones(66, 2), None, None)], [1])
    assert out.isnan().all()


def test_nothing_looks_ahead_or_further_back_than_said():
    model = model_of(knots=0)
    n = model.settings.looks_back
    assert n == 2 * 15 + 2
    levels = torch.randint(0, V, (1, 60))
    conditions = torch.tensor([[1, 0]])
    base = scores(model, batch_of(levels, conditions, [60]))
    changed = levels.clone()
    changed[0, 20] = (changed[0, 20] + 5) % V
    off = (scores(model, batch_of(changed, conditions, [60])) - base).abs().amax(2)[0]
    touched = torch.nonzero(off > 0)[:, 0]
    assert touched.min() == 21
    assert touched.max() == 20 + n


def test_a_piece_with_context_is_scored_like_the_whole_clip():
    model = model_of()
    levels, conditions = torch.randint(0, V, (1, 90)), torch.tensor([[2, 1]])
    whole = scores(model, batch_of(levels, conditions, [90]))[0, 50:]
    lead = model.settings.looks_back
    part = Batch(
        {"levels": levels[:, 50 - lead :], "conditions": conditions, "span": torch.tensor([[50 - lead, 90]])}, 0
    )
    assert torch.allclose(scores(model, part)[0, lead:], whole, atol=1e-5)


def test_queues_give_what_the_whole_pass_gives():
    model = model_of()
    conditions, lengths = torch.tensor([[0, 0], [2, 1], [1, -1]]), torch.tensor([70, 55, 40])
    levels = torch.randint(0, V, (3, 70))
    whole = scores(model, batch_of(levels, conditions, lengths.tolist()))
    maker = Maker(model, conditions, lengths)
    maker.place(0)
    with torch.no_grad():
        for t in range(70):
            n = int((lengths > t).sum())
            assert torch.allclose(maker.scores(t, n), whole[:n, t], atol=1e-4), t
            maker.push(levels[:n, t])


def test_a_clip_depends_on_its_seed_alone():
    model = model_of()
    conditions, lengths = torch.tensor([[0, 0], [2, 1], [1, 1]]), torch.tensor([30, 300, 64])
    seeds = np.array([5, 6, 7])
    together = model.generate(conditions, lengths, seeds)
    assert [len(c) for c in together] == [30, 300, 64]
    alone = model.generate(conditions[2:], lengths[2:], seeds[2:])
    assert (alone[0] == together[2]).all()
    assert (model.generate(conditions[2:], lengths[2:], seeds[:1])[0] != alone[0]).any()
    assert (
        model.generate(conditions, lengths, seeds, 0.0)[1] == model.generate(conditions, lengths, seeds + 1, 0.0)[1]
    ).all()


def test_draws_follow_the_scores():
    model = model_of(knots=0)
    n = 4000
    conditions = torch.tensor([[1, 1]]).expand(n, -1)
    drawn = np.array(model.generate(conditions, torch.ones(n, dtype=torch.int64), np.arange(n)))[:, 0]
    with torch.no_grad():
        expected = torch.softmax(
            scores(model, batch_of(torch.zeros(1, 1, dtype=torch.int64), conditions[:1], [1]))[0, 0], 0
        ).numpy()
    off = np.bincount(drawn, minlength=V) / n - expected
    assert np.abs(off).max() < 4 * np.sqrt(0.25 / n)


def test_weights_follow_from_the_seed_and_a_fresh_model_knows_the_counts():
    one, two = (Wavenet(width=8, skip=8, dilations=3).build(CARD, V, 3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    counts = torch.tensor(FEATURES["level_counts"], dtype=torch.float32) + 1
    out = torch.log_softmax(scores(one, batch_of(torch.zeros(1, 4, dtype=torch.int64), torch.tensor([[0, 0]]), [4])), 2)
    assert torch.allclose(out[0, 2], torch.log(counts / counts.sum()), atol=1e-5)


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="context"):
        Wavenet().build(CARD, V, 0)
    with pytest.raises(UserError, match="waveforms"):
        Wavenet().build(CARD.model_copy(update={"features": {}}), V, 0)
    with pytest.raises(UserError, match="knots"):
        Wavenet(dilations=2, knots=1).build(CARD, V, 0)
