"""Noise: which differences between two runs are nothing? Short runs that differ in their seed only, each to the end of its schedule.

    danlu noise recipe.toml --seeds 5 --length 10%

planning/noise_told.py decides what they say. Every finished run is a line of noise/trials.jsonl, so a command that was killed, or
that comes back with more seeds, goes on where it was; noise/result.json has what was found.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from danlu.base.contracts import Progress
from danlu.base.errors import UserError
from danlu.base.runfolder import RunFolder, read_json, write_json
from danlu.build import is_samples
from danlu.planning import noise_told
from danlu.planning.choices import Choices
from danlu.planning.trials import RunTrial, Trial
from danlu.recipe import Recipe
from danlu.stages.report_html import duration
from danlu.stages.short_runs import Record, parse_short, step_seconds, steps_of

LEAST_SEEDS = 2
SEEDS_END = 2**63
"""Where the seeds that a recipe may have end."""


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    seeds: int = 5
    """Runs: the recipe's own seed and those after it."""
    length: str = "10%"
    """Of each: a share of the planned run, steps, or a time."""

    def __post_init__(self) -> None:
        """Refuse what cannot be run before anything is prepared for it."""
        if self.seeds < LEAST_SEEDS:
            wanted = f"must be at least {LEAST_SEEDS}: one run does not show its noise"
            raise UserError("--seeds", wanted, got=self.seeds, fix="leave it out for 5")
        parse_short(self.length)

    def of(self, recipe: Recipe) -> range:
        """The seeds."""
        if recipe.seed + self.seeds > SEEDS_END:
            raise UserError("--seeds", f"must end below 2^63, from the recipe's seed {recipe.seed} on", got=self.seeds)
        return range(recipe.seed, recipe.seed + self.seeds)


def measure_noise(
    recipe: Recipe, run: RunFolder, request: Request, run_trial: RunTrial, progress: Progress
) -> dict[str, Any]:
    """Train the runs that are not there yet, write noise/result.json, and give its content."""
    seeds, base = request.of(recipe), Choices.read(run)
    n_steps = steps_of(request.length, base, run)
    recipe.schedule.lr_at(0, n_steps, 1.0)  # type: ignore[attr-defined]  # refuses what does not fit
    choices = base.model_copy(update={"n_steps": n_steps})
    record = Record(recipe, run, run.path / "noise" / "trials.jsonl")
    outcomes = []
    progress(f"seed {seeds[0]}\n{cost(run, request.seeds, n_steps)}", 0, len(seeds))
    for i, seed in enumerate(seeds):
        trial = Trial(choices, seed=seed)
        outcomes.append(record.outcome(trial, partial(run_trial, trial)))
        progress(f"seed {seed}: loss {outcomes[-1].loss:.4f}", i + 1, len(seeds))
    record.log.close()
    found = noise_told.told(seeds, outcomes)
    found |= {
        "n_steps": n_steps, "planned_steps": base.n_steps, "notes": noise_told.notes(found, n_steps, base.n_steps),
        "about": noise_told.about(recipe, run), "request": asdict(request),
    }  # fmt: skip
    write_json(noise_told.result_path(run), found)
    return found


def cost(run: RunFolder, n_runs: int, n_steps: int) -> str:
    """What is about to be trained, and for how long by the planned time of a step."""
    seconds = step_seconds(run)
    about = f", about {duration(n_runs * n_steps * seconds)} in all" if seconds else ""
    return f"{n_runs:,} runs of {n_steps:,} steps{about}"


def check_validation(recipe: Recipe, run: RunFolder | None = None) -> None:
    """Refuse data without a validation split. Before there is a folder: by what the settings of running text tell."""
    split: Any = getattr(recipe.data, "split", None)
    has_split = split is None or is_samples(recipe) or bool(getattr(split, "validation", True))
    if run is not None:
        found = read_json(run.data / "card.json")["splits"].get("validation", {})
        has_split = (found.get("n_samples") or 0) > 0 or (found.get("n_tokens") or 0) > 1
    if not has_split:
        wanted = "must leave a validation split to measure a loss on"
        raise UserError("data.split", wanted, fix="set data.split.validation")
