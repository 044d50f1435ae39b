"""Gradient noise of an update's own micro-batches: what it measures, and that it changes nothing."""

import pytest
import torch

from danlu.planning.choices import Choices
from danlu.planning.noise_scale import by_length, from_micro_batches, noise_scale, read
from danlu.planning.trials import Trial
from danlu.stages.train import grow, train_step, train_steps
from danlu.training.gradient_noise import NoiseMeter, measure
from danlu.training.state import kept
from danlu.training.trial import Session
from danlu.training.update import Clock

CUT = {"micro_batch": 5}  # of 16: three of 5 and one of 1


@pytest.fixture
def session(tiny_run):
    recipe, run = tiny_run(choices={"n_steps": 30, **CUT})
    return Session(recipe, run, Trial(Choices.read(run)), train_step)


def mean_gradients(session, batches):
    """Each micro-batch's own mean gradient, by a backward pass of its own."""
    found = []
    for batch in batches:
        (session.parts.task.loss_sum(session.parts.model(batch), batch) / batch.n_targets).backward()
        found.append([p.grad.clone() for p in session.parts.model.parameters() if p.grad is not None])
        session.parts.optimizer.zero_grad()
    return found


def squared(gradients, scales=None):
    scales = scales or [1.0] * len(gradients)
    return sum(float((g.double().square() * s).sum()) for g, s in zip(gradients, scales, strict=True))


def test_it_finds_each_micro_batch_s_own_gradient(session):
    session.advance(5)
    batches = session.batches(session.step)
    own = mean_gradients(session, batches)
    sizes = [5, 5, 5, 1]
    whole = [sum(g[i] * n / 16 for g, n in zip(own, sizes, strict=True)) for i in range(len(own[0]))]
    tensors = session.parts.optimizer.tensors()
    roots = [tensors[f"{name}/square"].double().sqrt() for name, _ in session.parts.model.named_parameters()]
    scales = [torch.where(r > 0, 1 / (r + 1e-8), 0.0) for r in roots]
    meter = NoiseMeter(session.parts, 249)
    session.parts.after_backward = meter.see
    train_step(session.parts, batches, 1e-3, session.judge, Clock())
    found = meter.samples()
    for name, by in (("plain", None), ("adaptive", scales)):
        wanted = from_micro_batches([squared(g, by) for g in own], squared(whole, by), sizes, len(session.loader))
        assert found[name].noise == pytest.approx(wanted.noise, rel=1e-3)
        assert found[name].signal == pytest.approx(wanted.signal, rel=1e-3, abs=1e-5 * abs(wanted.noise))


def test_it_leaves_the_run_as_it_is_and_is_logged_on_the_signals_steps(tiny_run):
    weights = []
    for name, every in (("watched", 5), ("alone", None)):
        recipe, run = tiny_run(name, choices={"signals_every": every, **CUT})
        reports = list(train_steps(recipe, run))
        session = Session(recipe, run, Trial(Choices.read(run), seed=recipe.seed), train_step)
        session.advance(12)
        assert [r.loss for r in reports] == session.losses
        weights.append({n: t.clone() for n, t in kept(session.parts.model).items()})
        measured = [r.step for r in reports if r.gradient_noise]
        assert measured == ([1, 5, 10] if every else [])
        if every:
            import json

            rows = [json.loads(line) for line in (run.train / "metrics.jsonl").read_text().splitlines()]
            found = read(rows)
            assert [sorted(f) for f in found] == [["plain"], ["adaptive", "plain"], ["adaptive", "plain"]]
            assert by_length(found)[0] == "adaptive"
    assert all(torch.equal(weights[0][n], weights[1][n]) for n in weights[0])


def test_one_micro_batch_says_nothing(tiny_run):
    recipe, run = tiny_run()
    assert all(r.gradient_noise is None for r in train_steps(recipe, run))


def test_a_session_measures_by_cutting_its_batch(tiny_run):
    recipe, run = tiny_run(choices={"n_steps": 30})
    cut, whole = (Session(recipe, run, Trial(Choices.read(run)), train_step) for _ in range(2))
    found = measure(cut, 12)
    whole.advance(12)
    assert cut.losses == pytest.approx(whole.losses, rel=1e-4)
    assert (cut.choices.micro_batch, cut.parts.after_backward) == (16, None)
    length, samples = by_length(found)
    assert (length, len(samples)) == ("adaptive", 11)
    scale = noise_scale(samples, metric=length)
    assert 0 < scale.low < scale.value < 1000


@pytest.mark.parametrize(
    ("kind", "length"), [("muon", "plain"), ("sgd", "plain"), ("rmsprop", "adaptive"), ("adamh", "adaptive")]
)
def test_the_optimizer_says_which_length(tiny_run, kind, length):
    recipe, run = tiny_run(
        choices={"n_steps": 9, "optimizer": {"lr": 1e-3, "weight_decay": 0.0}}, optimizer={"kind": kind}
    )
    session = Session(recipe, run, Trial(Choices.read(run)), train_step)
    assert by_length(measure(session, 4))[0] == length


def test_a_trunk_measures_from_where_it_stands(tiny_run):
    recipe, run = tiny_run(choices={"n_steps": 40})
    trial = Trial(Choices.read(run))
    trunk = grow(recipe, run, trial, 10, 2)
    found = trunk.noise(1, 10)
    by_hand = Session(recipe, run, trial, train_step)
    by_hand.advance(10)
    metric, samples = by_length(measure(by_hand, 10))
    assert found == noise_scale(samples, metric=metric)
    assert (found.n_steps, found.metric) == (10, "adaptive")
    assert trunk.noise(2, 10).n_steps == 10
    alone = Trial(trial.choices.model_copy(update={"batch": 1, "micro_batch": 1}))
    assert grow(recipe, run, alone, 10, 2).noise(1, 10).n_steps == 0
