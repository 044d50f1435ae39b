"""What runs that differ in their seed say: every number against a plain one, the sentences for what has no number."""

from __future__ import annotations

import math
from statistics import NormalDist, fmean, stdev

import numpy as np
import pytest

from danlu.planning import noise_told
from danlu.planning.noise import evaluation_noise, paired_noise, resolves
from danlu.planning.noise_told import notes, percent, told
from danlu.planning.trials import Look, Outcome

LOSSES = [2.0, 2.02, 1.97, 2.03, 2.01]


def ended(loss: float, seed: int = 0, n_blocks: int = 32, seconds: float = 1.5) -> Outcome:
    """A run at a loss: hard and easy blocks that all runs share, and a little of its own."""
    counts = np.full(n_blocks, 50)
    hard = (
        np.random.default_rng(9).standard_normal(n_blocks) * 0.3
        + np.random.default_rng(seed).standard_normal(n_blocks) * 0.02
    )
    sums = (hard - hard.mean() + loss) * counts
    look = Look(20, loss, tuple(zip(sums.tolist(), counts.tolist(), strict=True)))
    return Outcome((), (), (look,), seconds, 0.01)


def lost() -> Outcome:
    """A run that diverged."""
    return Outcome((), (), (), 0.5, 0.01, "loss nan at step 3")


@pytest.fixture
def runs() -> list[Outcome]:
    return [ended(loss, seed) for seed, loss in enumerate(LOSSES)]


def test_each_number_is_the_plain_one(runs: list[Outcome]) -> None:
    found = told(range(3, 8), runs)
    looks = [run.looks[-1] for run in runs]
    assert [(row["seed"], row["loss"]) for row in found["losses"]] == list(zip(range(3, 8), LOSSES, strict=True))
    sd = stdev(LOSSES) / fmean(LOSSES)
    assert found["seed"]["sd"] == pytest.approx(sd)
    assert found["seed"]["low"] == pytest.approx(sd * math.sqrt(4 / 11.14329), rel=1e-5)  # chi-square tables, 4 degrees
    assert found["seed"]["high"] == pytest.approx(sd * math.sqrt(4 / 0.4844186), rel=1e-5)
    assert found["evaluation"] == pytest.approx(fmean(map(evaluation_noise, looks)))
    assert found["paired"] == pytest.approx(fmean(paired_noise(looks[i], looks[i + 1]) for i in range(4)))
    assert found["paired"] < found["evaluation"] / 3
    z = NormalDist().inv_cdf(0.975) * math.sqrt(2)
    assert found["by_chance"]["same"] == pytest.approx(z * sd, rel=1e-6)
    assert found["by_chance"]["high"] == pytest.approx(z * found["seed"]["high"], rel=1e-6)
    assert found["by_chance"]["other"] == pytest.approx(z * math.sqrt(sd**2 + found["evaluation"] ** 2), rel=1e-6)
    assert [row["n"] for row in found["resolves"]] == [2, 3, 5, 10]
    for row in found["resolves"]:
        assert row["same"] == pytest.approx(resolves(sd, row["n"], is_paired=False))
        assert row["other"] == pytest.approx(resolves(sd, row["n"], is_paired=False, evaluation=found["paired"]))
    assert found["n_targets"] == 32 * 50
    assert found["cost"] == {"runs": 5, "seconds": 7.5}


def test_two_runs_of_one_recipe_differ_by_less_in_nineteen_of_twenty_pairs() -> None:
    rng, sd, other = np.random.default_rng(1), 0.01, 0.02
    spread = noise_told.Spread(sd, sd, sd, 99)
    within = noise_told.by_chance(spread, other)
    first, second = 3 * (1 + sd * rng.standard_normal((2, 40_000)))
    assert float(np.mean(abs(first - second) / 3 < within["same"])) == pytest.approx(0.95, abs=0.005)
    first, second = (loss * (1 + other * rng.standard_normal(40_000)) for loss in (first, second))
    assert float(np.mean(abs(first - second) / 3 < within["other"])) == pytest.approx(0.95, abs=0.005)


def test_the_verdict_and_the_notes_say_it_plainly(runs: list[Outcome]) -> None:
    found = told(range(5), runs)
    one = found["by_chance"]
    assert found["verdict"] == (
        f"Two single runs scored on this validation split that differ by less than {percent(one['same'])} of the loss "
        f"({percent(one['low'])} to {percent(one['high'])} as 5 runs tell it) may differ by chance alone; each scored on a validation "
        f"split of its own, by less than {percent(one['other'])}."
    )
    said = notes(found, 100, 1000)
    assert said[0].startswith(
        "Measured on runs of 100 steps, 10% of the planned 1,000. Over seeds longer runs vary as much or less"
    )
    assert "share no seed" in said[1]
    assert "1,600 targets" in said[2]
    assert notes(found, 1000, 1000)[0] == "Measured on runs of 1,000 steps; 1,000 are planned."
    assert "more --seeds are surer" in notes(told(range(2), runs[:2]), 100, 1000)[1]


def test_a_run_that_diverged_leaves_no_bound(runs: list[Outcome]) -> None:
    found = told(range(6), [*runs, lost()])
    assert found["verdict"].startswith("1 of 6 runs diverged (seed 5): such noise has no bound")
    assert found["losses"][5] == {"seed": 5, "loss": None, "diverged": "loss nan at step 3"}
    assert found["seed"] == {"sd": None, "low": 0.0, "high": None}
    assert found["by_chance"]["same"] is None
    assert found["evaluation"] is not None
    assert [row["same"] for row in found["resolves"]] == [None] * 4
    assert notes(found, 100, 1000) == ["Measured on runs of 100 steps, 10% of the planned 1,000."]
    all_lost = told(range(7), [lost()] * 7)
    assert "7 of 7 runs diverged (seed 0, 1, 2, 3, 4, ...)" in all_lost["verdict"]
    assert (all_lost["evaluation"], all_lost["n_targets"]) == (None, 0)


def test_one_block_says_nothing_of_other_splits() -> None:
    found = told(range(2), [ended(2.0, n_blocks=1), ended(2.1, n_blocks=1)])
    assert (found["evaluation"], found["paired"], found["by_chance"]["other"]) == (None, None, None)
    assert found["verdict"].endswith("may differ by chance alone.")
    assert all(row["same"] is not None and row["other"] is None for row in found["resolves"])
    assert any("one piece" in note for note in notes(found, 20, 20))


@pytest.mark.filterwarnings("error")
def test_equal_losses_and_losses_of_0() -> None:
    found = told(range(3), [ended(2.0)] * 3)
    assert found["verdict"].startswith(
        "All 3 runs ended at the same loss: a seed changes nothing here. Two runs, each scored on a"
    )
    alone = told(range(3), [ended(2.0, n_blocks=1)] * 3)
    assert alone["verdict"] == "All 3 runs ended at the same loss: a seed changes nothing here."
    nothing = Outcome((), (), (Look(9, 0.0, ((0.0, 5), (0.0, 5))),), 1.0, 0.1)
    assert "The mean loss is 0" in told(range(2), [nothing, nothing])["verdict"]
    assert "The mean loss is 0" in told(range(2), [ended(1.0), ended(-1.0)])["verdict"]


def test_shares_in_words() -> None:
    given = (0.0312, 0.01, 0.00096, 0.1, 0.0, 12.5, None)
    assert [percent(x) for x in given] == ["3.1%", "1.0%", "0.096%", "10%", "0%", "1,250%", "unknown"]
