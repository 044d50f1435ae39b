"""Batch: how large may an update be? Branches at growing batches from one point of a short run in memory, over the same samples.

    danlu batch recipe.toml --at 10% --length 2%

planning/critical_batch.py decides what larger updates cost; the gradient noise scale is measured at the same point. batch/result.json
has what was found; the recipe and the run are left as they are.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from danlu.base.contracts import DataCard, Progress
from danlu.base.errors import GateError, UserError
from danlu.base.runfolder import RunFolder, read_json, write_json
from danlu.build import is_samples
from danlu.planning.batch_size import SHARE, StepTime, decide_batch, is_usable
from danlu.planning.choices import Choices
from danlu.planning.critical_batch import EPS, Branch, CriticalBatch, critical_batch, decide_critical
from danlu.planning.evidence import finite
from danlu.planning.ledger import Decision, read_decisions
from danlu.planning.noise_scale import NoiseScale
from danlu.planning.trials import Trial
from danlu.recipe import Recipe
from danlu.training.branches import N_PIECES, Trunk, rate_factor

SMALLER, LARGEST, LEAST = 4, 16, 4
"""The smallest branch has the planned batch over SMALLER; the widest LARGEST times the smallest, or at least LEAST times where the
branches are short."""
PIECE_STEPS = 4
"""Updates of the widest branch in each of its N_PIECES pieces."""
GIVEN = 16
"""How far a batch that the recipe gives may be from the best one, as a factor: it says little of it."""
WORTH = 0.05
"""A batch that is faster by less is not worth a change."""
NOISE_STEPS, NOISE_BATCH = 24, 8
"""Updates that the noise scale is measured on, and the fewest samples of each: it is cut in pieces."""

Grow = Callable[[Trial, int, int], Trunk]
"""(trial, start, largest factor) -> its trunk: stages/train.grow with a recipe and a run folder."""


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line; both are shares of the run's samples."""

    at: str = "10%"
    """Where the branches grow."""
    length: str = "2%"
    """Of each branch."""

    def __post_init__(self) -> None:
        """Refuse what is no share, or passes the run's end, before anything is prepared for it."""
        if share_of("--at", self.at) + share_of("--length", self.length) > 1 + 1e-9:
            wanted = "must together be at most 100%, where the run ends"
            raise UserError("--at and --length", wanted, got=f"{self.at} and {self.length}", fix="lower one of them")


def measure_batch(recipe: Recipe, run: RunFolder, request: Request, grow: Grow, progress: Progress) -> dict[str, Any]:
    """Train the trunk and its branches, write batch/result.json, and give its content."""
    began, choices = time.perf_counter(), Choices.read(run)
    card = DataCard(**read_json(run.data / "card.json"))
    at, length = share_of("--at", request.at), share_of("--length", request.length)
    n_samples, smallest = choices.n_steps * choices.batch, max(1, choices.batch // SMALLER)
    largest = largest_factor(length * n_samples / smallest, n_unique(recipe, card) / smallest)
    trial = Trial(smaller(recipe, choices, smallest), recipe.seed, is_scored=False)
    factors = [2**i for i in range(largest.bit_length())]
    progress("trunk", 0, len(factors) + 2)
    trunk = grow(trial, max(1, round(at * n_samples / smallest)), largest)
    if trunk.diverged:
        raise GateError(f"The run before the branches diverged: {trunk.diverged}. Give a smaller optimizer.lr.")
    if trunk.lr <= 0:
        fix = "give a smaller --at or a longer train.length"
        raise UserError("--at", "must lie before the rate has gone to 0", got=request.at, fix=fix)
    progress("noise scale", 1, len(factors) + 2)
    wide = next(k for k in factors if k * smallest >= min(NOISE_BATCH, largest * smallest))
    scale = trunk.noise(wide, NOISE_STEPS)
    branches, n_steps = [], math.ceil(length * n_samples / smallest)
    for i, k in enumerate(factors):
        progress(f"branch of {k * smallest}", 2 + i, len(factors) + 2)
        branches.append(trunk.branch(k, n_steps))
    found = told(run, choices, trunk, branches, scale, trunk.whole(n_steps) * smallest)
    found["cost"] = {"seconds": round(time.perf_counter() - began, 1)}
    (run.path / "batch").mkdir(exist_ok=True)
    write_json(run.path / "batch" / "result.json", found)
    progress("written", len(factors) + 2, len(factors) + 2)
    return found


def share_of(name: str, text: str) -> float:
    """ "10%" -> 0.1."""
    try:
        found = float(text.strip().removesuffix("%")) / 100
    except ValueError:
        found = math.nan
    if not (text.strip().endswith("%") and 0 < found <= 1):
        raise UserError(name, 'must be a share of the run such as "10%"', got=text, fix="write a number and %")
    return found


def n_unique(recipe: Recipe, card: DataCard) -> float:
    """Samples of the training split."""
    split = card.splits["train"]
    return split.n_samples if is_samples(recipe) else split.n_tokens / recipe.model.context  # type: ignore[attr-defined]


def largest_factor(n_steps: float, most: float) -> int:
    """The widest branch of n_steps of the smallest batch: each piece holds PIECE_STEPS of its updates, none more samples than
    there are."""
    found = LARGEST
    while found > LEAST and (found * N_PIECES * PIECE_STEPS > n_steps or found > most):
        found //= 2
    if found > most:
        raise UserError(
            "data",
            f"must give at least {LEAST} updates of the smallest batch",
            got=f"{most:.2g}",
            fix="give more data or a smaller train.batch",
        )
    return found


def smaller(recipe: Recipe, choices: Choices, batch: int) -> Choices:
    """The planned run in updates of `batch`, at the rate that belongs to them."""
    k = batch / choices.batch
    rate = choices.optimizer["lr"] * rate_factor(k, getattr(recipe.optimizer, "kind", ""))
    return choices.model_copy(update={
        "batch": batch, "n_steps": max(1, round(choices.n_steps / k)),
        "optimizer": {**choices.optimizer, "lr": rate}, "ema": None,
    })  # fmt: skip


def told(
    run: RunFolder, choices: Choices, trunk: Trunk, branches: list[Branch], scale: NoiseScale, n_samples: int
) -> dict[str, Any]:
    """The content of result.json, but for what it cost; `n_samples` of each branch."""
    critical, smallest, best = critical_batch(branches), branches[0].batch, lowest(run, choices, branches, scale)
    rows = [
        {"batch": b.batch, "rate": trunk.lr * rate_factor(b.batch / smallest, trunk.optimizer), "above": finite(cost),
         "error": finite(error), "step_s": b.step_s, "per_s": b.batch / b.step_s}
        for b, (_, cost, error) in zip(branches, critical.costs, strict=True)
    ]  # fmt: skip
    return {
        "planned": choices.batch, "n_samples": n_samples, "after": trunk.start * smallest, "rows": rows,
        "critical": {"value": critical.value, "low": critical.low, "high": finite(critical.high)},
        "noise": {k: finite(v) if isinstance(v, float) else v for k, v in asdict(scale).items()},
        "decisions": [decide_critical(critical, trunk.start, n_samples).to_json(), best.to_json()],
        "verdict": verdict(choices, rows, critical),
        "notes": [*short(n_samples, branches[-1].batch), of_noise(scale), *of_best(choices, best)],
    }  # fmt: skip


def lowest(run: RunFolder, choices: Choices, branches: list[Branch], scale: NoiseScale) -> Decision:
    """The batch of the lowest loss, at the run's samples or in its time: from the plan's batch, the noise scale and step times."""
    plain = [d for d in read_decisions(run) if d.name == "train.batch"]
    b = choices.batch
    given = Decision(
        "train.batch", b, "given", f"The recipe gives {b}.", "", "", in_range=True, low=b / GIVEN, high=b * GIVEN
    )
    times = StepTime({b.batch: b.step_s for b in branches})
    return decide_batch((plain or [given])[0], scale, choices.n_steps * choices.batch, times, choices.time_limit_s)


def verdict(choices: Choices, rows: Sequence[Mapping[str, Any]], critical: CriticalBatch) -> str:
    """How far the batch may grow, and what that buys."""
    doubt = f"surely {critical.low}" + (f", surely not {critical.high:g}" if math.isfinite(critical.high) else "")
    said = (
        f"Up to {critical.value} samples an update cost less than {EPS:.0%} of the loss at the same samples ({doubt})."
    )
    fastest = max((row for row in rows if row["batch"] <= critical.value), key=lambda row: row["per_s"])
    planned = next((row for row in rows if row["batch"] == choices.batch), None)
    if planned is None or fastest["batch"] == choices.batch:
        return f"{said} The most samples a second of those: {fastest['batch']}."
    gain = fastest["per_s"] / planned["per_s"]
    if gain < 1 + WORTH:
        return f"{said} None of those is faster than the planned {choices.batch} by more than {WORTH:.0%}."
    rate = choices.optimizer["lr"] * fastest["rate"] / planned["rate"]
    return (
        f"{said} {fastest['batch']} makes {gain:.2g} times the planned {choices.batch}'s samples a second: "
        f"write train.batch = {fastest['batch']} and optimizer.lr = {rate:.3g}."
    )


def short(n_samples: int, widest: int) -> list[str]:
    """A warning where the widest branch has so few updates that its loss says little."""
    n = n_samples // widest
    few = f"The widest branch has {n} updates, which say little: a longer --length is surer."
    return [few] if n < PIECE_STEPS * N_PIECES else []


def of_noise(scale: NoiseScale) -> str:
    """The noise scale in a sentence."""
    if scale.n_steps < 2:
        return "No gradient noise scale was measured: an update of one sample cannot be cut."
    if not is_usable(scale):
        return f"The gradient noise scale was not found in {scale.n_steps} updates: the gradient is lost in its noise."
    return (
        f"The gradient noise scale is {scale.value:.3g} samples ({scale.low:.3g} to {scale.high:.3g}, 95%): an update of so many "
        f"needs twice the samples of a small one; {SHARE:g} of it was best at equal samples on most of twelve tasks."
    )


def of_best(choices: Choices, best: Decision) -> list[str]:
    """The batch of the lowest loss in a sentence, where anything was found of it."""
    if best.origin == "given" or best.origin.startswith("prior"):
        return []
    limit = choices.time_limit_s
    within = f"within {limit:g} s" if limit is not None else "at the same samples"
    doubt = f" ({best.low:.3g} to {best.high:.3g}, 80%)" if best.low and best.high else ""
    return [f"For the lowest loss {within}: train.batch = {best.value}{doubt}. {best.why}"]
