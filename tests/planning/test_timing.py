"""A time budget's batch: the law's, or twice it where its steps are so much cheaper a sample."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from danlu.planning import timing
from danlu.planning.draft import Draft
from danlu.recipe import Recipe
from danlu.stages import plan_samples

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


def test_a_larger_batch_is_taken_where_its_samples_are_cheap() -> None:
    base, decision = planned(lambda b: 1e-3 * b)
    assert base.batch == decision.value
    assert "would not end lower" in decision.why
    choices, decision = planned(lambda b: 0.05 + 1e-4 * b)
    assert choices.batch == decision.value >= 64  # a sample of a hundred costs a tenth of one of eight
    assert decision.origin == "measured"
    assert decision.high >= choices.batch
    assert "the same time ends lower" in decision.why


@pytest.mark.parametrize("fixed", [1e-4, 2e-3, 2e-2])
def test_the_best_batch_of_a_known_surface_is_found_within_a_doubling(fixed: float) -> None:
    """Log loss falls with the samples and rises with the batch, as DEARER says; the seconds of a step are a start and a speed."""

    def needed(b: int) -> float:  # samples for the same loss over those that the time allows
        dearer, n = 0.0, b
        while n > 1:
            dearer += math.log1p(timing.DEARER * (timing.AT_UPDATES * (fixed + 1e-4 * n) / 30) ** timing.POWER)
            n //= 2
        return dearer + math.log((fixed + 1e-4 * b) / b)

    choices, decision = planned(lambda b: fixed + 1e-4 * b)
    candidates = [2**k for k in range(13)]
    best = min(candidates, key=needed)
    assert choices.batch == decision.value
    assert choices.batch / best <= 2 or "would not" in decision.why  # the law's own batch is not made smaller
    assert choices.batch / best >= 0.5


def test_what_does_not_fit_is_not_taken_and_a_length_in_samples_asks_for_nothing() -> None:
    larger = planned(lambda b: 0.05 + 1e-4 * b)[1].value
    _, decision = planned(lambda b: 0.05 + 1e-4 * b if b != larger else math.inf)
    assert decision.value < larger
    assert "does not fit the memory" in decision.why
    asked: list[int] = []
    planned(lambda b: asked.append(b) or 0.005, "5000 samples")
    assert len(set(asked)) == 1


def test_samples_get_a_smaller_batch_where_the_time_allows_few_updates() -> None:
    recipe = Recipe.model_validate(
        {"name": "x", "model": {"kind": "mlp"}, "data": {"kind": "table", "path": "x", "target": "y"},
         "task": {"kind": "classify"}, "train": {"length": "10 s", "threads": 1, "precision": "fp32"}}
    )  # fmt: skip
    card: Any = SimpleNamespace(splits={"train": SimpleNamespace(n_samples=20_000)})
    machine: Any = SimpleNamespace(device="cpu", threads=1, n_cores=2, has_bf16=False, available_bytes=10**10)
    for step_s, low, high in (
        (lambda b: 1e-5 * b, 256, 256),
        (lambda b: 1e-3 * b, 16, 16),
        (lambda b: 0.05 + 1e-5 * b, 64, 4096),
    ):
        draft = plan_samples.SampleDraft(recipe, card, machine)
        choices = plan_samples.first_choices(draft)
        choices, _ = plan_samples.time_choices(draft, choices, lambda c, n, _s, f=step_s: [f(c.batch)] * n)
        (decision,) = [d for d in draft.decisions if d.name == "train.batch"]
        assert low <= choices.batch == decision.value <= high
