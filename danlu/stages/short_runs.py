"""Short runs as danlu tune and danlu noise ask for them: their length, and a file that holds what is finished."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from danlu.base.errors import UserError
from danlu.base.logs import MetricsLog
from danlu.base.runfolder import RunFolder, fingerprint, read_json
from danlu.base.units import Length, parse_length
from danlu.planning.choices import Choices
from danlu.planning.prediction import STEP_S
from danlu.planning.trials import Outcome, Trial, outcome_of
from danlu.recipe import Recipe

FORMAT = 2
"""Raised when a short run changes its meaning, so that older lines are not taken for it."""
LEAST_STEPS = 20
"""Of a short run whose length is a share."""


def parse_short(text: str) -> float | Length:
    """ "10%" -> 0.1; "200 steps" and "5 s" -> their Length."""
    if match := re.fullmatch(r"\s*([0-9]+\.?[0-9]*|\.[0-9]+)\s*%\s*", text):
        found: float | Length = float(match[1]) / 100
    else:
        try:
            found = parse_length(text)
        except ValueError:
            found = 0.0
    if not found or found == math.inf or (isinstance(found, Length) and found.unit not in ("steps", "seconds")):
        wanted = 'must be a share above 0 such as "10%", steps or a time, such as "200 steps" or "5 s"'
        raise UserError("--length", wanted, got=text)
    return found


def steps_of(length: str, base: Choices, run: RunFolder) -> int:
    """Steps of each short run."""
    found = parse_short(length)
    if isinstance(found, float):
        return max(LEAST_STEPS, round(base.n_steps * found))
    if found.unit == "steps":
        return max(1, round(found.amount))
    if (step_s := step_seconds(run)) is None:
        raise UserError(
            "--length", "cannot be a time where the plan has no time of a step", got=length, fix="write steps"
        )
    return max(1, round(found.amount / step_s))


def step_seconds(run: RunFolder) -> float | None:
    """Of one step, as planned; None where the plan has none."""
    predictions = read_json(run.plan).get("predictions", ())
    return next((p.get("value") for p in predictions if p["name"] == STEP_S), None)


class Record:
    """A trials.jsonl: every finished run, found again by all that it depends on."""

    def __init__(self, recipe: Recipe, run: RunFolder, path: Path) -> None:
        card = read_json(run.data / "card.json")["fingerprint"]
        self.about = [FORMAT, recipe.model_dump(mode="json"), card]
        self.log = MetricsLog(path)
        self.known = {str(row.get("key")): row for row in self.log}

    def outcome(self, trial: Trial, fresh: Callable[[], Outcome], **named: str) -> Outcome:
        """From the file, or run now and written there; `named` is for the reader of its line."""
        asked = [dict(trial.settings), trial.choices.model_dump(mode="json"), trial.seed]
        key = fingerprint([*self.about, *asked])
        if key not in self.known:
            self.known[key] = {"key": key, **named, **row_of(trial, fresh())}
            self.log.append(self.known[key])
            self.log.sync()
        return outcome_of(self.known[key])


def row_of(trial: Trial, outcome: Outcome) -> dict[str, Any]:
    """A line: what was asked and what came of it. The curve of the training is not kept."""
    return {
        "lr": trial.choices.optimizer.get("lr"), "seed": trial.seed,
        "n_steps": trial.choices.n_steps, "looks": [asdict(look) for look in outcome.looks], "seconds": outcome.seconds,
        "step_s": outcome.step_s, "diverged": outcome.diverged,
    }  # fmt: skip
