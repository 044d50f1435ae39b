"""A time budget's batch: the law's, or twice it where its steps are so much cheaper a sample."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from danlu.planning import timing
from danlu.planning.draft import Draft
from danlu.recipe import Recipe

VOCAB, CONTEXT = 64, 32


def planned(step_s: Any, length: str = "30 s") -> tuple[Any, Any]:
    """(choices, decision on the batch) where a step of B samples takes step_s(B) seconds."""
    recipe = Recipe.model_validate(
        {"name": "x", "model": {"kind": "decoder", "n_layers": 2, "width": 64, "n_heads": 2, "context": CONTEXT},
         "data": {"path": "x"}, "train": {"length": length, "threads": 1, "precision": "fp32", "compile": False}}
    )  # fmt: skip
    card = SimpleNamespace(vocab_size=VOCAB, splits={"train": SimpleNamespace(n_tokens=10**8)})
    machine = SimpleNamespace(device="cpu", threads=1, n_cores=2, has_bf16=False, available_bytes=10**10)
    draft: Any = Draft(recipe, card, machine)  # type: ignore[arg-type]
    shape = recipe.model.shape(VOCAB)  # type: ignore[attr-defined]
    choices = timing.first_choices(draft, shape)
    choices, _ = timing.time_choices(draft, shape, choices, lambda c, n, _s: [step_s(c.batch)] * n)
    (decision,) = [d for d in draft.decisions if d.name == "train.batch"]
    return choices, decision


def test_twice_the_batch_is_taken_where_its_samples_are_cheap() -> None:
    base, decision = planned(lambda b: 1e-3 * b)
    assert base.batch == decision.value
    assert "not below 87%" in decision.why
    choices, decision = planned(lambda b: 0.05 + 1e-4 * b)
    assert choices.batch == decision.value
    assert decision.origin == "measured"
    assert decision.high >= choices.batch
    assert "in the same time end lower" in decision.why


@pytest.mark.parametrize("slope", [0.9, 0.8])
def test_the_share_of_the_seconds_decides(slope: float) -> None:
    exponent = 1 + math.log2(slope)  # a step of twice the samples takes 2 x slope
    choices, decision = planned(lambda b: 1e-3 * b**exponent)
    assert (decision.origin == "measured") == (slope < timing.DOUBLING)
    assert f"take {slope:.0%} of the seconds" in decision.why
    assert choices.batch == decision.value


def test_what_does_not_fit_is_not_taken_and_a_length_in_samples_asks_for_nothing() -> None:
    doubled = planned(lambda b: 0.005 + 1e-5 * b)[1].value
    _, decision = planned(lambda b: 0.005 + 1e-5 * b if b != doubled else math.inf)
    assert decision.value == doubled // 2
    assert "do not fit the memory" in decision.why
    asked: list[int] = []
    planned(lambda b: asked.append(b) or 0.005, "5000 samples")
    assert len(set(asked)) == 1
