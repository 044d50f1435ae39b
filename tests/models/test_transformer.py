"""Shared transformer parts against plain formulas."""

import math

import pytest
import torch

from danlu.models import transformer as parts

SHAPE = parts.Shape(width=24, n_heads=3, hidden=48)


def plain_attention(module, x, memory, hidden):
    """Section 3.2 of the paper, head by head."""
    width, n = x.shape[-1], module.n_heads
    if module.crosses:
        q, (k, v) = module.query(x), module.key_value(memory).split(width, -1)
    else:
        q, k, v = module.qkv(x).split(width, -1)
    found = []
    for head in range(n):
        part = slice(head * width // n, (head + 1) * width // n)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(width // n)
        scores = scores.masked_fill(hidden, -math.inf)
        found.append(scores.softmax(-1) @ v[..., part])
    return module.out(torch.cat(found, -1))


@pytest.mark.parametrize("crosses", [False, True])
@pytest.mark.parametrize("n_keys", [7, parts.FUSED_FROM])
def test_attention_is_the_formula(crosses, n_keys):
    torch.manual_seed(0)
    module = parts.Attention(SHAPE, crosses)
    memory = torch.randn(2, n_keys, 24)
    x = torch.randn(2, 5, 24) if crosses else memory
    hidden = parts.padding(torch.tensor([n_keys - 3, n_keys]), n_keys)
    found = module(x, hidden, memory if crosses else None)
    assert torch.allclose(found, plain_attention(module, x, memory, hidden[:, 0]), atol=1e-5)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_one_token_at_a_time_is_the_whole_at_once(norm):
    torch.manual_seed(0)
    shape = parts.Shape(width=24, n_heads=3, hidden=48, norm=norm, crosses=True)
    block = parts.Block(shape).eval()
    x, memory = torch.randn(2, 6, 24), torch.randn(2, 4, 24)
    hidden = parts.padding(torch.tensor([4, 2]), 4)
    whole = block(x, parts.causal(6), memory, hidden)
    caches = (parts.Cache(), parts.Cache())
    steps = [block(x[:, t : t + 1], None, memory, hidden, caches) for t in range(6)]
    assert torch.allclose(torch.cat(steps, 1), whole, atol=1e-5)


def test_what_is_padded_changes_nothing():
    torch.manual_seed(0)
    block, x = parts.Block(SHAPE).eval(), torch.randn(1, 6, 24)
    alone = block(x[:, :4])
    padded = block(x, parts.padding(torch.tensor([4]), 6))[:, :4]
    assert torch.allclose(alone, padded, atol=1e-5)


def test_dropout_keeps_mean_share_and_seed():
    torch.manual_seed(1)
    x = torch.ones(1000, 333)
    y = parts.dropout(x, 0.3, True)
    share = float((y == 0).float().mean())
    assert share == pytest.approx(round(0.3 * 256) / 256, abs=4 * math.sqrt(0.21 / x.numel()))
    assert float(y.mean()) == pytest.approx(1, abs=0.01)
    torch.manual_seed(1)
    assert torch.equal(parts.dropout(x, 0.3, True), y)
    assert parts.dropout(x, 0.3, False) is x
    flat = (y.flatten()[: 8 * 41_000] == 0).view(-1, 8).float()
    assert flat.mean(0).sub(share).abs().max() < 0.01, "every byte of a word must be as random as the others"


def test_drop_path_drops_whole_samples():
    torch.manual_seed(0)
    y = parts.drop_path(torch.ones(4000, 3), 0.25, True)
    assert y.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (y.amax(1) == y.amin(1)).all()
    assert float(y.mean()) == pytest.approx(1, abs=0.05)


def test_sinusoids_are_the_paper():
    found = parts.sinusoids(50, 16)
    for at, i in ((0, 0), (7, 3), (49, 7)):
        angle = at / 10_000 ** (2 * i / 16)
        assert found[at, 2 * i] == pytest.approx(math.sin(angle), abs=1e-5)
        assert found[at, 2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-5)
