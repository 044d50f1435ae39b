"""A model size for a budget of compute and the data there are, where the recipe leaves it open."""

from __future__ import annotations

from typing import Any

from danlu.base.units import Length, parse_count
from danlu.planning import priors
from danlu.planning.ledger import Decision

SMALLEST = {"n_layers": 2, "width": 64}
"""No model below this is worth training."""


def is_open(model: Any) -> bool:
    """Whether the recipe leaves the size to danlu."""
    return model.size == "auto" and "auto" in (model.width, model.n_layers)


def compute_of(length: Any, n_unique: int, gflops: float) -> float:
    """FLOPs that a time allows at `gflops` (1e9 FLOPs a second), or that the tokens of a length deserve (20 a parameter);
    4 epochs of the data where it is auto or counts updates."""
    if isinstance(length, Length) and length.unit == "seconds":
        return length.amount * gflops * 1e9
    n_tokens = float(priors.MAX_EPOCHS * n_unique)
    if isinstance(length, Length) and length.unit in ("tokens", "epochs"):
        n_tokens = length.amount * (n_unique if length.unit == "epochs" else 1)
    return 6.0 * n_tokens * n_tokens / 20


def sized(model: Any, vocab_size: int, n_unique: int, flops: float) -> tuple[Any, Decision]:
    """(the settings with a size, the decision)."""
    decision = priors.model_size(flops, n_unique)
    least = model.model_copy(update=SMALLEST).shape(vocab_size).n_parameters
    if parse_count(decision.value) < least:
        why = f"{decision.value} by the law ({decision.origin}), but no model below {SMALLEST} is worth training."
        decision = Decision("model.size", least, "derived", why, source="", valid="", in_range=True)
    return model.model_copy(update={"size": parse_count(decision.value)}), decision
