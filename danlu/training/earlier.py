"""Finished runs beside this one, of the same model on the same data: where they ended says most of where this one will."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from danlu.base.contracts import DataCard
from danlu.base.errors import DanluError
from danlu.base.runfolder import MetricsLog, RunFolder, read_json
from danlu.planning.choices import Choices
from danlu.planning.length import expected_at_plan
from danlu.planning.prediction import Prediction
from danlu.planning.seen import Earlier, Setting
from danlu.recipe import Recipe

MOST = 50
"""Folders that are looked into."""
AS_LONG = 1.3
"""An earlier run counts when it was at most so many times as long, or as short, in samples."""

KNOWN_SHARE = 0.5
"""Share of its length at which every run has looked."""


def earlier_runs(recipe: Recipe, run: RunFolder, choices: Choices, card: DataCard, share: float) -> Iterator[Earlier]:
    """Those in the same folder whose loss at this share of their length is known. One that cannot be read is passed over:
    it is not this run's business."""
    path = run.path.resolve()
    for folder in sorted(path.parent.iterdir())[: MOST + 1]:
        if folder == path or not (folder / "train" / "metrics.jsonl").is_file():
            continue
        try:
            found = finished_like(recipe, RunFolder(folder), choices, card, share)
        except (DanluError, OSError, ValueError, KeyError, TypeError):
            continue
        if found is not None:
            yield found


def expected_loss(recipe: Recipe, run: RunFolder, choices: Choices, card: DataCard) -> list[Prediction]:
    """What they say before this run begins; nothing without any."""
    earlier = list(earlier_runs(recipe, run, choices, card, KNOWN_SHARE))
    return expected_at_plan(setting_of(recipe, choices), earlier)


def setting_of(recipe: Recipe, choices: Choices) -> Setting:
    """What tells a run from others of its model and data."""
    optimizer: Any = recipe.optimizer
    return Setting(optimizer.kind, choices.optimizer["lr"], choices.batch)


def finished_like(recipe: Recipe, other: RunFolder, choices: Choices, card: DataCard, share: float) -> Earlier | None:
    """What another run tells, if it is of the same data, model, task and length, and was trained to its end."""
    if read_json(other.data / "card.json")["fingerprint"] != card.fingerprint:
        return None
    theirs, theirs_choices = Recipe.load(other.recipe), Choices.read(other)
    same = all(getattr(theirs, part) == getattr(recipe, part) for part in ("model", "task"))
    looks_alike = 0.5 <= theirs_choices.look_share / choices.look_share <= 2 and all(
        getattr(theirs.evaluate, part) == getattr(recipe.evaluate, part) for part in ("during_tokens", "during_samples")
    )
    n_steps = steps_made(other, theirs_choices)
    ratio = n_steps * theirs_choices.batch / (choices.n_steps * choices.batch)
    if not (same and looks_alike and theirs_choices.model == choices.model and 1 / AS_LONG <= ratio <= AS_LONG):
        return None
    looks = [
        (row["step"], row["validation"]["loss"])
        for row in MetricsLog(other.train / "metrics.jsonl")
        if row.get("validation")
    ]
    if not looks or looks[-1][0] < n_steps:
        return None
    forks = read_json(other.train / "forks.json") if (other.train / "forks.json").is_file() else []
    before = [(fork["step"], fork["before"]) for fork in forks if fork["before"] is not None]
    setting = setting_of(theirs, theirs_choices)
    return Earlier.of(other.path.name, setting, sorted({*before, *looks}), n_steps, share)


def steps_made(run: RunFolder, choices: Choices) -> int:
    """Steps of a whole run: as planned, or as a time budget decided (training/pace.py)."""
    used = read_json(run.train / "usage.json") if choices.time_limit_s is not None else {}
    return int(used.get("n_steps") or choices.n_steps)
