"""What a plan in the making knows: how much of the validation split a look takes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from danlu.planning.draft import LEAST_LOOKED, Draft
from danlu.recipe import Recipe
from danlu.stages.plan_samples import SampleDraft


def draft_of(**evaluate: Any) -> Any:
    """A draft with 1,000 validation samples."""
    recipe = Recipe.model_validate(
        {"name": "x", "model": {"kind": "mlp"}, "data": {"kind": "table", "path": "x", "target": "y"},
         "task": {"kind": "classify"}, "evaluate": evaluate}
    )  # fmt: skip
    splits = {"train": SimpleNamespace(n_samples=9000), "validation": SimpleNamespace(n_samples=1000)}
    return SampleDraft(recipe, SimpleNamespace(splits=splits), SimpleNamespace())  # type: ignore[arg-type]


def test_a_look_that_takes_a_tenth_of_the_run_is_whole_and_a_longer_one_is_cut() -> None:
    draft = draft_of()
    assert draft.look_share(1.0, 10.0) == 1.0
    assert not draft.decisions
    assert draft.look_share(4.0, 10.0) == 0.25
    (told,) = draft.decisions
    assert (told.name, told.value) == ("evaluate.during_samples", 250)
    assert "a look at all 1,000 would take 4 s" in told.why


def test_a_look_keeps_its_least_and_what_was_asked_for() -> None:
    assert draft_of().look_share(1000.0, 10.0) == LEAST_LOOKED / 1000
    for given in ({"during_samples": 900}, {"every": "never"}):
        draft = draft_of(**given)
        assert draft.look_share(1000.0, 10.0) == 1.0
        assert not draft.decisions


def test_text_counts_tokens() -> None:
    recipe = Recipe.model_validate(
        {"name": "x", "model": {"kind": "decoder", "n_layers": 2, "width": 64, "n_heads": 2, "context": 32},
         "data": {"path": "x"}}
    )  # fmt: skip
    card: Any = SimpleNamespace(splits={"validation": SimpleNamespace(n_tokens=10_000)})
    draft = Draft(recipe, card, SimpleNamespace())  # type: ignore[arg-type]
    assert draft.look_share(4.0, 10.0) == 0.25
    assert draft.decisions[0].name == "evaluate.during_tokens"
    assert draft.decisions[0].value == 2500
