"""The convolutional tagger: against a plain loop, its padding, its reach."""

import pytest
import torch

from danlu.base.contracts import Batch
from danlu.base.errors import UserError
from danlu.models.convtagger import Block, ConvTagger
from danlu.models.convtagger_settings import Convtagger

FEATURES = {"vocab_size": 9, "per_position": True}


def batch_of(tokens: torch.Tensor, lengths: list[int]) -> Batch:
    return Batch({"tokens": tokens, "lengths": torch.tensor(lengths)}, 1)


def woken(model: torch.nn.Module) -> torch.nn.Module:
    """Blocks start as nothing: give them something to say."""
    torch.manual_seed(1)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model.eval()


@pytest.mark.parametrize("unit", ["plain", "gated"])
def test_a_block_is_what_a_loop_over_positions_says(unit: str) -> None:
    block = woken(Block(Convtagger(width=6, kernel=3, unit=unit, dropout=0.0), dilation=2))
    x = torch.randn(2, 7, 6)
    inside = (torch.arange(7) < torch.tensor([7, 4])[:, None])[..., None].float()
    h = block.norm(x) * inside
    w, b = block.conv.weight[:, :, 0], block.conv.bias
    expected = torch.empty_like(x)
    for t in range(7):
        y = b.expand(2, -1)
        for k in range(3):
            at = t + (k - 1) * 2
            if 0 <= at < 7:
                y = y + h[:, at] @ w[:, :, k].T
        y = y[:, :6] * torch.sigmoid(y[:, 6:]) if unit == "gated" else torch.nn.functional.gelu(y)
        expected[:, t] = x[:, t] + block.mix(y)
    assert torch.allclose(block(x, inside), expected, atol=1e-5)


@pytest.mark.parametrize("features", [FEATURES, {"vocab_size": 9}], ids=["positions", "whole"])
@pytest.mark.parametrize("pool", ["mean", "max", "attention"])
def test_padding_changes_nothing(features: dict[str, object], pool: str) -> None:
    model = woken(ConvTagger(Convtagger(width=8, n_layers=3, pool=pool, dropout=0.0), features, 3, 0))
    tokens = torch.randint(1, 9, (1, 5))
    alone = model(batch_of(tokens, [5])).scores
    both = torch.zeros(2, 11, dtype=torch.int64)
    both[0, :5], both[1] = tokens, torch.randint(1, 9, (11,))
    together = model(batch_of(both, [5, 11])).scores[:1]
    together = together[:, :5] if "per_position" in features else together
    assert torch.allclose(alone, together, atol=1e-5)


def test_a_score_depends_on_as_far_as_the_settings_say() -> None:
    settings = Convtagger(width=8, n_layers=3, kernel=3, dilations=(1, 2), dropout=0.0)
    assert settings.reach == 4
    model = woken(ConvTagger(settings, FEATURES, 3, 0))
    tokens = torch.randint(1, 8, (1, 21))
    changed = tokens.clone()
    changed[0, 10] = 8
    same = torch.isclose(*(model(batch_of(t, [21])).scores for t in (tokens, changed)), atol=1e-6).all(-1)[0]
    assert same.nonzero().flatten().tolist() == [t for t in range(21) if abs(t - 10) > 4]


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(UserError, match="must be odd"):
        Convtagger(kernel=4)
