"""Trials: the same curve as a whole run; a fork leaves no trace."""

import math

import pytest
import torch

from danlu.planning.choices import Choices
from danlu.planning.trials import Trial
from danlu.stages.train import run_trial, train_step, train_steps
from danlu.training.state import kept
from danlu.training.trial import Session, varied


@pytest.fixture
def planned(tiny_run):
    recipe, run = tiny_run(choices={"n_steps": 30, "evaluate_every": 10})
    return recipe, run, Choices.read(run)


def test_a_trial_is_the_run_itself(planned):
    recipe, run, choices = planned
    outcome = run_trial(recipe, run, Trial(choices, seed=recipe.seed, looks=(10,)))
    reports = list(train_steps(recipe, run))
    assert list(outcome.losses) == [r.loss for r in reports]
    assert outcome.looks[0].loss == pytest.approx(reports[9].validation["loss"], rel=1e-6)
    assert outcome.loss == pytest.approx(reports[-1].validation["loss"], rel=1e-6)
    assert outcome.looks[-1].metrics["loss"] == reports[-1].validation["loss"]
    assert sum(n for _, n in outcome.looks[0].blocks) > 0


def test_a_fork_leaves_no_trace(planned):
    recipe, run, choices = planned
    straight, forked = (Session(recipe, run, Trial(choices), train_step) for _ in range(2))
    straight.advance(30)
    forked.advance(12)
    before = forked.look().loss
    cooled = forked.cooled(8)
    assert (cooled.step, forked.step) == (20, 12)
    assert forked.look().loss == before != cooled.loss
    forked.advance(30)
    assert forked.losses == straight.losses
    for name, tensor in kept(straight.parts.model).items():
        assert torch.equal(tensor, kept(forked.parts.model)[name]), name


def test_a_rate_that_blows_up_is_said_and_its_loss_is_infinite(planned):
    recipe, run, choices = planned
    wild = choices.model_copy(update={"optimizer": {**choices.optimizer, "lr": 1e30}})
    outcome = run_trial(recipe, run, Trial(wild))
    assert "at step" in outcome.diverged
    assert math.isinf(outcome.loss)
    assert len(outcome.losses) < 30


def test_an_arm_changes_what_it_names(planned):
    recipe, run, choices = planned
    other = varied(recipe, {"optimizer.kind": "sgd", "optimizer.momentum": 0.5, "model.activation": "silu"})
    assert (other.optimizer.kind, other.optimizer.momentum, other.model.activation) == ("sgd", 0.5, "silu")
    assert other.model.width == recipe.model.width
    arm = Session(recipe, run, Trial(choices, settings={"optimizer.kind": "sgd", "optimizer.lr": 0.25}), train_step)
    assert arm.lr_at(20) == 0.25
