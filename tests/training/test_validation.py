"""A look at samples: one pass through the network for the loss and the predictions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from danlu.base.contracts import Batch
from danlu.training.validation import Seen, looked_at


class Counted(nn.Linear):
    """Counts its passes."""

    passes = 0

    def forward(self, batch: Any) -> Any:
        """The columns turned."""
        self.passes += 1
        return super().forward(batch.tensors["x"])


def test_the_seen_batch_is_not_computed_again_and_all_else_is_the_models() -> None:
    model, (batch, other) = Counted(3, 2), (Batch({"x": torch.randn(4, 3)}, 4) for _ in range(2))
    output = model(batch)
    seen: Any = Seen(model, batch, output)
    assert seen(batch) is output
    assert model.passes == 1
    assert torch.equal(seen(other), model(other))
    assert seen.in_features == 3


def test_a_shortened_look_takes_its_share_of_what_it_would_take() -> None:
    def taken(share: float, most: int, n: int) -> int:
        choices: Any = SimpleNamespace(look_share=share)
        return looked_at(choices, most, n)

    assert taken(1.0, 4096, 1000) == 4096
    assert taken(0.25, 4096, 1000) == 250
    assert taken(0.25, 400, 1000) == 100
    assert taken(1e-9, 400, 1000) == 1
