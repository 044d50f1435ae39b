"""A size that is left open, cut to what the memory holds."""

import pytest

from danlu.base.units import parse_count, short_count
from danlu.models.decoder_settings import Decoder
from danlu.planning.ledger import Decision
from danlu.planning.memory import training_memory
from danlu.planning.sizing import least_memory, sized, that_fits
from danlu.recipe import Recipe

OPEN = Decoder(size="auto", context=128)
LAW = Decision("model.size", "100M", "prior: chinchilla_size", "the law.", "a paper", "", True)


def test_a_size_is_cut_to_what_the_memory_holds():
    recipe = Recipe(data={"path": "x.txt"})
    held = lambda shape: least_memory(recipe, shape)  # noqa: E731
    whole = held(OPEN.model_copy(update={"size": 100_000_000}).shape(1000))
    for limit in (1.01 * whole, whole / 3):
        settings, decision = that_fits(OPEN, 1000, LAW, limit, held)
        taken = held(settings.shape(1000))
        assert taken <= limit
        assert taken > 0.7 * limit
        assert (decision == LAW) == (limit > whole)
    assert decision.value == short_count(settings.size)
    assert f"That many do not fit: {decision.value} take" in decision.why
    assert parse_count(decision.value) == pytest.approx(settings.size, rel=0.01)


def test_the_least_memory_is_that_of_one_sample_with_the_recipes_optimizer():
    shape = OPEN.model_copy(update={"size": 1_000_000}).shape(500)
    for kind, n_slots in (("adamw", 2), ("muon", 1)):
        recipe = Recipe(data={"path": "x.txt"}, optimizer={"kind": kind}, train={"ema": 0.99, "precision": "fp32"})
        found = training_memory(shape, 1, kind, "fp32", "blocks", True)
        assert least_memory(recipe, shape) == found.total
        assert found.optimizer == 4 * shape.n_parameters * (n_slots + 1)


def test_the_law_is_left_alone_where_there_is_room():
    settings, law = sized(OPEN, 1000, 10**9, 1e15)
    assert that_fits(settings, 1000, law, 1e15, lambda shape: 1.0)[1] is law
