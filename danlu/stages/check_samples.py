"""Check a recipe over samples by number: the model on the meta device, from what a bounded look at the data tells."""

from __future__ import annotations

from typing import Any

from danlu.base.contracts import DataCard
from danlu.base.units import short_count
from danlu.build import network, on_meta
from danlu.planning import sample_laws
from danlu.planning.memory import SLOTS
from danlu.recipe import Recipe

USUAL_BATCH = 64
"""Of the rate that is told before the batch is known."""


def sample_rows(recipe: Recipe) -> tuple[int, int, list[tuple[str, str, str]]]:
    """(parameters, bytes of weights, gradients and optimizer state, rows of the table)."""
    data: Any = recipe.data
    task: Any = recipe.task
    features = data.expected()
    card = DataCard(
        kind=data.kind, source=data.path, rows_in=0, rows_used=0, rows_rejected={}, features=features,
        vocab_size=int(features.get("vocab_size", 0)),
    )  # fmt: skip
    task.check(card)
    with on_meta():
        model = network(recipe.model, task, card, recipe.seed)
    n_parameters = sum(p.numel() for p in model.parameters())
    optimizer: Any = recipe.optimizer
    n_bytes = 4 * n_parameters * (2 + SLOTS.get(optimizer.kind, 2))
    rows = [("data", str(data.path), "looked into, not read")]
    rows += [(f"data: {name}", shown(value), "of the samples") for name, value in features.items() if shown(value)]
    rows += [
        ("outputs", f"{task.n_outputs(card):,}", f"what task {task.kind} asks for"),
        ("parameters", f"{n_parameters:,}", f"{short_count(n_parameters)}, counted on the model itself"),
    ]
    if optimizer.lr == "auto":
        batch = USUAL_BATCH if recipe.train.batch == "auto" else recipe.train.batch
        decision = sample_laws.learning_rate(optimizer.kind, optimizer, batch, n_parameters)
        rows.append(("optimizer.lr", f"about {decision.value}", f"{decision.origin}; {decision.source}"))
    for name in ("length", "batch"):
        given = getattr(recipe.train, name)
        rows.append((f"train.{name}", str(given), "plan answers it" if given == "auto" else "given"))
    return n_parameters, n_bytes, rows


def shown(value: Any) -> str:
    """Numbers and words as they are, lists by their length and first members, the rest not at all."""
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, list | tuple) and value and all(isinstance(v, str | int | float) for v in value):
        first = ", ".join(str(v) for v in value[:6])
        return f"{len(value)}: {first}{', ...' if len(value) > 6 else ''}"
    return ""
