"""Comparisons of arms in a made-up world whose truth is known: rates, pairs, verdicts, budgets."""

import math

import numpy as np
import pytest

from danlu.base.errors import UserError
from danlu.planning import paired
from danlu.planning.arms import Arm, Budget, Contest, Yardstick
from danlu.planning.arms_told import concluded, edges
from danlu.planning.choices import Choices
from danlu.planning.trials import Look, Outcome

CHOICES = Choices(
    device="cpu", threads=1, precision="fp32", operations="plain", attention="fused", compile=False, batch=8,
    micro_batch=8, n_steps=50, model={}, optimizer={"lr": 0.01}, evaluate_every=None, signals_every=None,
    save_every_steps=None, save_every_s=None,
)  # fmt: skip


def arm(name, effect=0.0, **settings):
    return Arm(name, {"effect": effect, **settings}, CHOICES)


class World:
    """loss = 2 + noise shared by a pair + own noise - effect + curvature (log2 rate / best)^2; 32 equal blocks."""

    def __init__(self, shared=0.3, own=0.01, curvature=0.05, block=0.0, scale=1):
        self.shared, self.own, self.curvature, self.block, self.scale = shared, own, curvature, block, scale
        self.asked = []

    def __call__(self, arm, trial):
        s, lr = trial.settings, trial.choices.optimizer["lr"]
        self.asked.append((arm.name, trial.seed, lr))
        if lr > s.get("limit", math.inf) or trial.seed in s.get("breaks", ()):
            return Outcome((), (), (), 1.0, 0.1, "loss nan")
        noise = np.random.default_rng([self.scale, trial.seed]).normal(0, self.shared)
        noise += np.random.default_rng([self.scale, trial.seed, len(arm.name), ord(arm.name[-1])]).normal(0, self.own)
        loss = 2 + noise - s["effect"] + self.curvature * math.log2(lr / s.get("best", 0.01)) ** 2
        tilt = np.random.default_rng([9, ord(arm.name[-1])]).normal(0, self.block, 32)
        blocks = tuple((float((loss + b) * 10), 10) for b in tilt)
        loss = sum(b for b, _ in blocks) / 320
        return Outcome((), (), (Look(50, loss, blocks, {"loss": loss, "accuracy": 1 - loss / 4}),), 1.0, 0.1)


def settled(arms, world=None, budget=None, yardstick=None):
    world = world or World()
    contest = Contest(arms, yardstick or Yardstick(), budget or Budget(60, "runs"), world, lambda *_: None)
    contest.settle()
    return concluded(contest), world


def test_a_real_effect_wins_with_an_interval_that_holds_it():
    found, world = settled([arm("a"), arm("b", 0.06)])
    row = found["comparisons"][0]
    assert (found["winner"], row["found"], found["is_measurable"]) == ("b", "better", True)
    assert row["low"] < 0.06 < row["high"]
    assert row["low"] > 0
    assert "wins" in found["verdict"]
    assert found["cost"]["runs"] == len(world.asked)


def test_a_worse_arm_loses_to_the_default():
    found, _ = settled([arm("a"), arm("b", -0.06)])
    assert (found["winner"], found["comparisons"][0]["found"]) == ("a", "worse")
    assert "measurably worse" in found["verdict"]


def test_equal_arms_keep_the_default_and_say_what_could_have_been_found():
    found, _ = settled([arm("a"), arm("b")])
    row = found["comparisons"][0]
    assert (found["winner"], found["is_measurable"]) == ("a", False)
    assert row["found"] in ("futile", "budget spent")
    assert row["low"] < 0 < row["high"]
    assert row["smallest"] == pytest.approx(row["sd"] * paired.smallest_effect(row["n"]))
    assert found["verdict"] == "No measurable difference: keep a (the default)."


def test_pairs_share_seeds_that_no_rate_was_chosen_on():
    _, world = settled([arm("a"), arm("b"), arm("c")])
    seeds = {name: [seed for n, seed, _ in world.asked if n == name] for name in "abc"}
    for of_arm in seeds.values():
        assert of_arm[:3] == [0, 0, 0]
        assert of_arm[3:] == list(range(1, len(of_arm) - 2))


def test_each_arm_finds_its_own_rate():
    found, _ = settled([arm("a", best=0.013), arm("b", best=0.06), arm("c", best=0.0012)], World(own=0, shared=0))
    assert [a["lr"] for a in found["arms"]] == pytest.approx([0.013, 0.06, 0.0012], rel=1e-6)
    assert [len(a["bracket"]) for a in found["arms"]] == [3, 6, 6]
    contest = Contest([arm("a", best=100.0)], Yardstick(), Budget(60, "runs"), World(own=0, shared=0), lambda *_: None)
    contest.settle()
    assert len(contest.default.rates) == 8
    assert "at an end of those tried (0.005 to 0.64)" in edges(contest)[0]


def test_a_rate_that_diverges_is_left_and_one_that_is_given_is_kept():
    given = Arm("c", {"effect": 0.0}, CHOICES, rate_is_given=True)
    found, world = settled([arm("a"), arm("b", limit=0.006, best=0.02), given])
    assert found["arms"][1]["lr"] <= 0.006
    assert found["arms"][1]["bracket"][-1][1] is None
    assert {lr for name, _, lr in world.asked if name == "c"} == {0.01}


def test_an_arm_that_diverges_is_out_and_a_default_that_does_is_refused():
    found, world = settled([arm("a"), arm("b", 0.2, breaks=(2,)), arm("c", limit=0)])
    assert [row["found"] for row in found["comparisons"]] == ["diverged", "diverged"]
    assert max(seed for name, seed, _ in world.asked if name == "b") == 2
    assert found["winner"] == "a"
    with pytest.raises(UserError, match="default arm a must train without diverging"):
        settled([arm("a", breaks=(1,)), arm("b")])
    with pytest.raises(UserError, match="default arm a must train"):
        settled([arm("a", limit=0), arm("b")])


def test_several_arms_the_best_of_the_measurably_better_wins():
    found, _ = settled([arm("a"), arm("b", 0.08), arm("c"), arm("d", 0.2)], budget=Budget(120, "runs"))
    kinds = {row["arm"]: row["found"] for row in found["comparisons"]}
    assert (kinds["b"], kinds["d"], found["winner"]) == ("better", "better", "d")
    assert kinds["c"] in ("futile", "budget spent")
    levels = sorted(row["level"] for row in found["comparisons"])
    assert levels[0] == pytest.approx(0.05 / 3)


class Misled(World):
    """Seed 0 makes arm b's bracket stop far below its best rate, at which the arms are equal."""

    def __call__(self, arm, trial):
        outcome = super().__call__(arm, trial)
        fooled = arm.name == "b" and trial.seed == 0 and trial.choices.optimizer["lr"] < 0.006
        if not fooled:
            return outcome
        return Outcome((), (), (Look(50, 1.0, (), {}),), 1.0, 0.1)


def test_the_loser_may_fit_its_rate_once_more():
    arms = [arm("a"), arm("b", best=0.02)]
    found, world = settled(arms, Misled(), Budget(90, "runs"))
    assert not found["is_measurable"]
    assert found["arms"][1]["lr"] == pytest.approx(0.02, rel=0.1)
    asked = [seed for name, seed, _ in world.asked if name == "b"]
    assert asked.count(1_000_001) >= 3
    assert asked.count(1) == 2
    found, _ = settled(arms, Misled(), Budget(17, "runs"))
    assert found["comparisons"][0]["found"] == "worse"  # and the result says that the rate was fitted on one seed only


def test_the_very_same_numbers_are_no_difference():
    found, world = settled([arm("a"), arm("b")], World(own=0))
    assert found["comparisons"][0]["found"] == "no difference"
    assert len(world.asked) == 2 * (3 + 3)


def test_a_metric_where_higher_is_better():
    found, _ = settled([arm("a"), arm("b", 0.06)], yardstick=Yardstick("accuracy", True))
    assert (found["winner"], found["comparisons"][0]["evaluation_se"]) == ("b", 0.0)
    assert "accuracy is" in found["verdict"]
    assert "higher" in found["verdict"]
    with pytest.raises(UserError, match=r"--metric must be one that short runs report \(accuracy, loss\)"):
        settled([arm("a"), arm("b")], yardstick=Yardstick("f1", True))


def test_a_validation_split_that_is_too_small_to_tell():
    """Every seed says the same, but only because a few blocks happen to suit one arm."""
    found, _ = settled([arm("a"), arm("b", 0.06)], World(own=0.001, block=0.6))
    row = found["comparisons"][0]
    assert row["found"] == "split too small"
    assert row["p"] < 0.05
    assert row["low"] < 0 < row["high"]
    assert "too small" in row["sentence"]
    assert not found["is_measurable"]


def test_budgets_are_kept():
    for budget, most in ((Budget(14, "runs"), 14), (Budget(20.5, "seconds"), 21)):
        found, world = settled([arm("a"), arm("b", 0.001)], budget=budget)
        assert 12 <= len(world.asked) <= most
        assert found["comparisons"][0]["found"] in ("budget spent", "futile")


def test_a_metric_in_steps_is_not_taken_for_certainty():
    """Three equal steps of a coarse score are chance, not evidence."""
    contest = Contest([arm("a"), arm("b")], Yardstick("accuracy", True), Budget(60, "runs"), None, lambda *_: None)
    for i in range(3):
        for standing, value in ((contest.default, 0.8 + 0.01 * i), (contest.others[0], 0.81 + 0.01 * i)):
            standing.outcomes.append(Outcome((), (), (Look(50, 1.0, (), {"accuracy": value}),), 1.0, 0.1))
    contest.judge()
    assert contest.others[0].found == ""


def test_false_winners_and_power_of_the_whole_rule():
    """Futility and the budget included."""
    few, found = Budget(6 + 20, "runs"), {0.0: 0, 0.03: 0}
    for effect in found:
        for i in range(80):
            result, _ = settled([arm("a"), arm("b", effect)], World(own=0.015 / math.sqrt(2), scale=100 + i), few)
            found[effect] += result["is_measurable"]
    assert found[0.0] <= 9  # 99% of binomial(80, 0.05)
    assert found[0.03] / 80 == pytest.approx(paired.chance(2.0, 10), abs=0.06)
