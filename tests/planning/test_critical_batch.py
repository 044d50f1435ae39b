"""The critical batch by branches: from made-up losses, and on a real session."""

import math

import numpy as np
import pytest

import danlu
from danlu.data.order import Bucketed, Joined, Order
from danlu.planning.choices import Choices
from danlu.planning.critical_batch import Branch, critical_batch, decide_critical
from danlu.planning.trials import Trial
from danlu.recipe import Recipe
from danlu.stages.train import train_step
from danlu.training.branches import Trunk
from danlu.training.trial import Session


@pytest.fixture
def table_run(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b,y\n" + "".join(f"{i % 7},{i % 5},{'yes' if i % 7 > 3 else 'no'}\n" for i in range(400)))
    recipe = Recipe(
        name="t", data={"kind": "table", "path": str(path), "target": "y"}, model={"kind": "mlp", "layers": [8]},
        task={"kind": "classify"}, train={"length": "20 epochs", "batch": 8, "threads": 1}, plan={"budget": "prior"},
    )  # fmt: skip
    made = danlu.plan(recipe, tmp_path / "run")
    return made.recipe, made.folder


HARD = np.array([9, 9, 9, 9, 2.0, 2.2, 1.9, 2.1])  # the first half is left out


def made_up(costs, jitter=0.0):
    rng = np.random.default_rng(0)
    return [Branch(8 * 2**i, tuple(HARD * (1 + c) + jitter * rng.standard_normal(8))) for i, c in enumerate(costs)]


def test_the_largest_within_the_tolerance():
    found = critical_batch(made_up([0, 0.002, 0.006, 0.05, 0.2]))
    assert (found.value, found.low, found.high) == (32, 32, 64)
    assert [round(c, 3) for _, c, _ in found.costs] == [0, 0.002, 0.006, 0.05, 0.2]


def test_one_that_comes_back_by_chance_does_not_count():
    assert critical_batch(made_up([0, 0.05, 0.002])).value == 8


def test_doubt_widens_the_interval():
    found = critical_batch(made_up([0, 0.0, 0.008, 0.012, 0.3], jitter=0.02))
    assert found.low < 32 < found.high
    assert critical_batch(made_up([0, 0.0, 0.0])).high == math.inf


def test_a_branch_that_diverged_is_beyond_doubt():
    branches = [*made_up([0, 0.001]), Branch(32, (2.0,) * 5 + (math.inf,) * 3)]
    found = critical_batch(branches)
    assert (found.value, found.high) == (16, 32)
    decision = decide_critical(found, 10, 1000)
    assert decision.value == 16
    assert decision.evidence["points"][-1][:2] == [32, None]


def test_branches_see_the_same_samples_from_the_same_weights(tiny_run):
    recipe, run = tiny_run(choices={"n_steps": 100, "batch": 4, "micro_batch": 4})
    trial = Trial(Choices.read(run))
    trunk = Trunk(recipe, run, trial, train_step, 15, 4)
    found = [trunk.branch(k, 30) for k in (1, 2, 4)]
    assert [b.batch for b in found] == [4, 8, 16]
    plain = Session(recipe, run, trial, train_step)  # the first branch is the run itself at a constant rate
    plain.advance(16)
    lr = plain.lr_at(16)
    losses = [plain.update(lr)[0] for _ in range(32)]
    assert found[0].losses == pytest.approx(np.array(losses).reshape(8, 4).mean(1))
    first = [b.losses[0] for b in found]
    assert max(first) - min(first) < 0.3 * first[0]  # the first updates hardly differ: same weights, same samples
    by_hand = Session(recipe, run, Trial(trial.choices.model_copy(update={"batch": 8})), train_step)
    ids = [list(plain.loader.ids_at(s)) for s in (16, 17)]
    assert list(by_hand.loader.ids_at(8)) == ids[0] + ids[1]


def test_branches_see_the_same_samples_where_lengths_differ(tmp_path):
    """Batches are sorted by length in pools that hang on the batch: a wider branch must not sort anew."""
    lengths = np.random.default_rng(0).integers(5, 500, 4000)
    trunk = Bucketed(Order(4000, 8, 3), lengths)
    for k in (2, 4, 8):
        wide = Joined(trunk, k)
        assert wide.batch == 8 * k
        for step in (12, 13, 40):
            ids, epochs = wide.at(step)
            parts = [trunk.at(step * k + i) for i in range(k)]
            assert ids.tolist() == [i for part, _ in parts for i in part]
            assert epochs.tolist() == [e for _, part in parts for e in part]
        assert sorted(Bucketed(Order(4000, 8 * k, 3), lengths).at(12)[0]) != sorted(wide.at(12)[0])


def test_a_trunk_hands_its_order_to_its_branches(table_run):
    recipe, run = table_run
    trunk = Trunk(recipe, run, Trial(Choices.read(run)), train_step, 8, 4)
    session = trunk.session(4)
    assert session.loader.order == Joined(trunk.loader.order, 4)
    assert sum(len(b.ids) for b in session.batches(session.step)) == 4 * trunk.loader.order.batch
