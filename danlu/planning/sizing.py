"""A model size for a budget of compute and the data there are, where the recipe leaves it open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from danlu.base.units import Length, parse_count, short_count
from danlu.models.decoder_settings import DecoderShape
from danlu.planning import priors
from danlu.planning.ledger import Decision
from danlu.planning.memory import training_memory

SMALLEST = {"n_layers": 2, "width": 64}
"""No model below this is worth training."""
MEMORY_SHARE = 0.7
"""Of the free memory, what the least layout of an open size may take by formula; micro-batches need room too."""
MOST_CUT = 1e4
"""Times that a size is cut at most: beyond, the rehearsal says that nothing fits."""


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


def least_memory(recipe: Any, shape: DecoderShape) -> float:
    """Bytes of training with a micro-batch of one sample."""
    precision = "fp32" if recipe.train.precision == "fp32" else "bf16"
    has_ema = recipe.train.ema != "none"
    return training_memory(shape, 1, recipe.optimizer.kind, precision, "blocks", has_ema).total


def that_fits(
    model: Any, vocab_size: int, decision: Decision, limit: float, held: Callable[[DecoderShape], float]
) -> Any:
    """(the settings, the decision) with the size cut to what `limit` bytes hold; as they are where that is enough."""
    n = given = parse_count(decision.value)
    while (taken := held(model.model_copy(update={"size": n}).shape(vocab_size))) > limit and n > given / MOST_CUT:
        n = int(0.9 * n)
    if n == given:
        return model.model_copy(update={"size": n}), decision
    why = f"{decision.why} That many do not fit: {short_count(n)} take {taken / 1e9:.3g} GB of the {limit / 1e9:.3g} GB to plan with."
    return model.model_copy(update={"size": n}), replace(
        decision, value=short_count(n), why=why, low=min(decision.low or n, n), high=float(n)
    )


def sized(model: Any, vocab_size: int, n_unique: int, flops: float) -> tuple[Any, Decision]:
    """(the settings with a size, the decision)."""
    decision = priors.model_size(flops, n_unique)
    least = model.model_copy(update=SMALLEST).shape(vocab_size).n_parameters
    if parse_count(decision.value) < least:
        why = f"{decision.value} by the law ({decision.origin}), but no model below {SMALLEST} is worth training."
        decision = Decision("model.size", least, "derived", why, source="", valid="", in_range=True)
    return model.model_copy(update={"size": parse_count(decision.value)}), decision
