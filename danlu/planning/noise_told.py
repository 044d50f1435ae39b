"""What short runs that differ in their seed only say of the noise of a loss; planning/noise.py has the formulas. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from danlu.base.errors import UserError
from danlu.base.runfolder import RunFolder, fingerprint, read_json
from danlu.planning.evidence import finite
from danlu.planning.noise import Spread, evaluation_noise, paired_noise, resolves, seed_noise
from danlu.planning.trials import Outcome
from danlu.recipe import Recipe

Found = dict[str, Any]
"""The content of noise/result.json."""
RUNS = (2, 3, 5, 10)
"""Runs an arm whose power is told."""
BEYOND = 1.959964 * math.sqrt(2)
"""Two values of one normal differ by more than so many of its sd once in twenty times."""
FEW = 5
"""Fewer runs say little of their sd."""
LONGER = (
    "Over seeds longer runs vary as much or less: the sd fell as length^-0.07 to length^-0.58 on three small tasks "
    "(benchmarks/seed_noise.md); what another split changes may grow, as it did on one of them."
)


def told(seeds: Sequence[int], outcomes: Sequence[Outcome]) -> Found:
    """Losses, noises, what they let a reader tell apart, and the verdict."""
    losses = [outcome.loss for outcome in outcomes]
    looks = [outcome.looks[-1] for outcome in outcomes if math.isfinite(outcome.loss)]
    spread = spread_of(losses)
    evaluation = mean([evaluation_noise(look) for look in looks])
    paired = mean([paired_noise(a, b) for a, b in pairwise(looks)])
    return {
        "losses": [{"seed": seed, "loss": finite(loss), "diverged": outcome.diverged}
                   for seed, loss, outcome in zip(seeds, losses, outcomes, strict=True)],
        "n_targets": sum(n for _, n in looks[0].blocks) if looks else 0,
        "seed": {"sd": finite(spread.sd), "low": finite(spread.low), "high": finite(spread.high)},
        "evaluation": finite(evaluation), "paired": finite(paired),
        "by_chance": by_chance(spread, evaluation), "resolves": resolved(spread.sd, paired),
        "verdict": verdict(seeds, losses, spread, evaluation),
        "cost": {"runs": len(outcomes), "seconds": round(sum(outcome.seconds for outcome in outcomes), 1)},
    }  # fmt: skip


def spread_of(losses: Sequence[float]) -> Spread:
    """The noise of a seed; without a number where the losses have no mean to hold it against."""
    return seed_noise(losses) if sum(losses) else Spread(math.nan, 0.0, math.inf, len(losses))


def mean(values: Sequence[float]) -> float:
    """Of those that are known; NaN without any."""
    known = [v for v in values if math.isfinite(v)]
    return fmean(known) if known else math.nan


def by_chance(spread: Spread, evaluation: float) -> dict[str, float | None]:
    """What two single runs of one recipe differ by in 19 of 20 pairs: scored on this split, with the ends of the interval; each
    scored on a split of its own."""
    found = {"same": spread.sd, "low": spread.low, "high": spread.high, "other": math.hypot(spread.sd, evaluation)}
    return {name: finite(BEYOND * sd) for name, sd in found.items()}


def resolved(sd: float, paired: float) -> list[dict[str, float | None]]:
    """The smallest difference that n unpaired runs an arm tell from none (80% power, 5% level): on this split, and where it is to
    hold on others too. The split's part of a difference is taken to be that of two seeds; more runs do not make it smaller."""
    return [
        {
            "n": n, "same": finite(resolves(sd, n, is_paired=False)) if math.isfinite(sd) else None,
            "other": finite(resolves(sd, n, is_paired=False, evaluation=paired)) if math.isfinite(sd + paired) else None,
        }
        for n in RUNS
    ]  # fmt: skip


def verdict(seeds: Sequence[int], losses: Sequence[float], spread: Spread, evaluation: float) -> str:
    """Which differences between two runs are nothing, in a sentence."""
    lost = [seed for seed, loss in zip(seeds, losses, strict=True) if not math.isfinite(loss)]
    if lost:
        named = ", ".join(map(str, lost[:5])) + (", ..." if len(lost) > 5 else "")
        return (
            f"{len(lost)} of {len(losses)} runs diverged (seed {named}): such noise has no bound, and no difference between two "
            "runs can be told from it. Give a smaller optimizer.lr."
        )
    if not math.isfinite(spread.sd):
        return "The mean loss is 0: there is nothing to hold a difference against."
    one = by_chance(spread, evaluation)
    beyond = (
        f"scored on a validation split of its own, by less than {percent(one['other'])}"
        if math.isfinite(evaluation)
        else ""
    )
    if not spread.sd:
        said = f"All {len(losses)} runs ended at the same loss: a seed changes nothing here."
        return f"{said} Two runs, each {beyond}, may differ by chance alone." if beyond else said
    doubt = f"{percent(one['low'])} to {percent(one['high'])} as {len(losses)} runs tell it"
    return (
        f"Two single runs scored on this validation split that differ by less than {percent(one['same'])} of the loss ({doubt}) may "
        f"differ by chance alone{beyond and '; each '}{beyond}."
    )


def percent(share: float | None) -> str:
    """0.0312 -> "3.1%", None -> "unknown"."""
    if share is None:
        return "unknown"
    return f"{100 * share:#.2g}".rstrip(".") + "%" if 0 < share < 0.995 else f"{100 * share:,.0f}%"


def notes(found: Found, n_steps: int, planned: int) -> list[str]:
    """What a reader should know of how it was measured."""
    n_runs, sd = found["cost"]["runs"], found["seed"]["sd"]
    if n_steps < planned:
        length = f"Measured on runs of {n_steps:,} steps, {percent(n_steps / planned)} of the planned {planned:,}."
    else:
        length = f"Measured on runs of {n_steps:,} steps; {planned:,} are planned."
    if sd is None:
        return [length]
    few = (
        [f"{n_runs} runs say little of their sd, as its interval shows: more --seeds are surer."]
        if n_runs < FEW
        else []
    )
    arms = (
        "What n runs an arm tell apart is for runs that share no seed (80% power, 5% level): whether two settings share a seed's luck is "
        "not measured here. danlu tune pairs its runs by seed, and may need fewer."
    )
    split = f"The validation split's part is of {found['n_targets']:,} targets, as a look at it while training takes."
    if found["evaluation"] is None:
        split = "The validation split is one piece: what another one would change is not known."
    return [f"{length} {LONGER}" if n_steps < planned else length, *few, arms, split]


def about(recipe: Recipe, run: RunFolder) -> str:
    """What the noise is of: all of a recipe but how it is scored, and its data."""
    return fingerprint(
        [recipe.model_dump(mode="json", exclude={"evaluate"}), read_json(run.data / "card.json")["fingerprint"]]
    )


def result_path(run: RunFolder) -> Path:
    """noise/result.json."""
    return run.path / "noise" / "result.json"


def seed_note(recipe: Recipe, run: RunFolder) -> list[str]:
    """What another seed would change, for the notes of a score; nothing where danlu noise has not measured this recipe here."""
    if not result_path(run).is_file():
        return []
    try:
        found: Mapping[str, Any] = read_json(result_path(run))
    except UserError as error:
        return [str(error)]
    if found.get("about") != about(recipe, run):
        return []
    runs = f"{found['cost']['runs']} runs of {found['n_steps']:,} steps, danlu noise"
    if found["seed"]["sd"] is not None:
        longer = "; longer runs vary as much or less" if found["n_steps"] < found["planned_steps"] else ""
        return [f"Another seed would change the loss by about {percent(found['seed']['sd'])} (sd over {runs}{longer})."]
    n_lost = sum(row["loss"] is None for row in found["losses"])
    return [f"With other seeds {n_lost} of {runs}, diverged."] if n_lost else []
