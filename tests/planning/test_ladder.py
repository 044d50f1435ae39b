"""model.size by a ladder: the size that a known surface says is best, or the law's with the reason."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from danlu.base.units import parse_count
from danlu.models.decoder_settings import Decoder
from danlu.planning import ladder, priors
from danlu.planning.choices import Choices
from danlu.planning.draft import Draft
from danlu.planning.trials import Outcome
from danlu.recipe import Recipe

VOCAB, CONTEXT = 256, 64
CHOICES = Choices(
    device="cpu", threads=1, precision="fp32", operations="plain", attention="fused", compile=False, batch=16, micro_batch=16,
    n_steps=1, model={}, optimizer={"lr": 1e-3}, evaluate_every=None, signals_every=None, save_every_steps=None, save_every_s=None,
)  # fmt: skip


def truth(n, d):
    """Hoffmann's form."""
    return 1.0 + 25 * n**-0.35 + 60 * d**-0.37


def seconds_of(flops):
    """Of a token: a start and a speed."""
    return 1e-6 + flops / 50e9


def shape_of(n):
    return Decoder(size=max(1, round(n)), context=CONTEXT).shape(VOCAB) if n > 20_000 else None


def setting(length="2 h", budget="8%", memory=10**12, **train):
    """(draft, run_trial) of a machine and a task whose losses and times are known."""
    recipe = Recipe.model_validate(
        {"name": "x", "model": {"kind": "decoder", "context": CONTEXT}, "data": {"path": "x"}, "plan": {"budget": budget},
         "train": {"length": length, **train}}
    )  # fmt: skip
    card = SimpleNamespace(vocab_size=VOCAB, splits={"train": SimpleNamespace(n_tokens=10**9)})
    machine = SimpleNamespace(n_cores=2, has_bf16=False, available_bytes=memory)
    asked = []

    def run_trial(trial):
        asked.append(trial)
        shape = Decoder(context=CONTEXT, **trial.choices.model).shape(VOCAB)
        n = trial.choices.n_steps
        loss = truth(shape.n_hidden_parameters, n * trial.choices.batch * CONTEXT)
        step_s = seconds_of(shape.flops_per_token()) * trial.choices.batch * CONTEXT
        return Outcome((5.0,) * (n - n // 2) + (loss,) * (n // 2), (1.0,) * n, (), n * step_s, step_s)

    return Draft(recipe, card, machine), run_trial, asked


def best_size(seconds):
    """Parameters of the lowest loss, by trying all."""
    sizes = np.geomspace(1e5, 1e8, 61)
    shapes = [shape_of(s) for s in sizes]
    losses = [truth(s.n_hidden_parameters, seconds / seconds_of(s.flops_per_token())) for s in shapes]
    return shapes[int(np.argmin(losses))].n_parameters


@pytest.mark.parametrize("law", [2e6, 8e6])
def test_the_ladder_finds_the_size_of_a_known_surface(law):
    draft, run_trial, asked = setting()
    whole = shape_of(law)
    step_s = seconds_of(whole.flops_per_token()) * CHOICES.batch * CONTEXT
    prior = priors.SIZE.decide(str(round(law)), "made up", False)
    found = ladder.measured(prior, shape_of, draft, CHOICES, step_s, run_trial)
    assert found.origin == "measured: ladder"
    size, best = parse_count(found.value), best_size(7200)
    assert abs(math.log(size / best)) < math.log(1.9)
    reached = [
        truth(shape_of(s).n_hidden_parameters, 7200 / seconds_of(shape_of(s).flops_per_token())) for s in (size, best)
    ]
    assert reached[0] < 1.005 * reached[1]
    assert len(found.evidence["points"]) == len(asked) >= 5
    shapes = [Decoder(context=CONTEXT, **t.choices.model).shape(VOCAB) for t in asked]
    tokens = [t.choices.n_steps * t.choices.batch * CONTEXT for t in asked]
    spent = sum(n * seconds_of(s.flops_per_token()) for n, s in zip(tokens, shapes, strict=True))
    assert spent < 0.08 * 7200
    assert {t.choices.optimizer["lr"] for t in asked} != {1e-3}


def test_where_a_ladder_cannot_be_had_the_law_stands_with_the_reason():
    prior = priors.SIZE.decide("4000000", "made up", False)
    for length, said in (("4 s", "fewer than 60 updates"), ("2 h", "cannot tell")):
        draft, run_trial, _ = setting(length)
        flat = (lambda t: Outcome((5.0, 2.0, 2.0), (1.0,) * 3, (), 1.0, 1e-3)) if said == "cannot tell" else run_trial
        step_s = seconds_of(shape_of(4e6).flops_per_token()) * CHOICES.batch * CONTEXT
        found = ladder.measured(prior, shape_of, draft, CHOICES, step_s, flat)
        assert found.value == prior.value
        assert said in found.why


def test_seconds_a_token_are_a_start_and_a_speed():
    found = ladder.seconds_by([(f, seconds_of(f)) for f in (1e5, 1e6, 1e7)])
    assert found(5e6) == pytest.approx(seconds_of(5e6), rel=1e-6)
    assert ladder.seconds_by([(1e6, 2e-5)])(1e6) == pytest.approx(2e-5)
