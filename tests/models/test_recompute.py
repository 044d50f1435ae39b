"""Recomputed blocks: the same gradients bit for bit, with dropout, autocast and inputs that need none."""

import pytest
import torch
from torch import nn

from danlu.base.errors import UserError
from danlu.models.recompute import can_recompute, recompute_blocks
from danlu.models.transformer import Block, Shape


class Stack(nn.Module):
    """Blocks on inputs without gradients."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        shape = Shape(16, 2, 32, dropout=0.3, attention_dropout=0.2, drop_path=0.2)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(3))

    def forward(self, x):
        """(B, T, D) -> (B, T, D)."""
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.parametrize("is_half", [False, True])
def test_gradients_are_the_same_bit_for_bit(is_half):
    found = []
    for recompute in (False, True):
        model = Stack().train()
        if recompute:
            recompute_blocks(model)
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            y = model(torch.randn(4, 5, 16))
        y.float().square().sum().backward()
        found.append([y.detach(), *(p.grad for p in model.parameters()), torch.rand(1)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_blocks_with_running_averages_are_refused():
    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([nn.BatchNorm1d(3)])

    assert not can_recompute(Counted())
    with pytest.raises(UserError, match=r"train\.recompute"):
        recompute_blocks(Counted())
