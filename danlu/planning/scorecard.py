"""The scorecard: each prediction against what the run came to, in evaluate/scorecard.json.

Predictions of the plan were hashed into the manifest before the first step; those of train/forecast.json, made during the
run, when they were made. What was changed afterwards is told, and teaches the next plan nothing.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from danlu.base.durable import read_json, write_json
from danlu.base.errors import UserError
from danlu.base.runfolder import MetricsLog, RunFolder
from danlu.planning import history
from danlu.planning.hardware import Machine
from danlu.planning.ledger import read_predictions
from danlu.planning.prediction import N_STEPS, PEAK_BYTES, STEP_S, TRAIN_S, VALIDATION_LOSS, Prediction

ASIDE = ("evaluate", "checkpoint", "fork")
"""Parts of a step's time that belong to the run, not to the step."""


@dataclass(frozen=True)
class Score:
    """A prediction and its outcome."""

    prediction: Prediction
    made: str
    """When: "before training" or "at step 120"."""
    outcome: float | None
    """What the run came to; None where that was not measured, or not yet."""

    def to_json(self) -> dict[str, Any]:
        """The prediction's own fields with made, and where there is an outcome: outcome, error, inside80, inside95. The error
        is (outcome - predicted) / predicted where both are positive, else the difference."""
        entry = self.prediction.to_json() | {"made": self.made}
        if self.outcome is None:
            return entry
        entry["outcome"] = self.outcome
        value = self.prediction.value
        if value is None:
            return entry
        relative = self.prediction.is_logarithmic and self.outcome > 0
        entry |= {"error": self.outcome / value - 1 if relative else self.outcome - value, "is_relative": relative}
        return entry | {f"inside{level}": self.prediction.holds(self.outcome, level) for level in (80, 95)}


@dataclass
class Scorecard:
    """All of evaluate/scorecard.json."""

    scores: list[Score] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Sentences on what a reader must know: a plan that was changed, a run that is not finished."""
    finished: str = ""
    """Why the run ended, or nothing."""

    def to_json(self) -> dict[str, Any]:
        """As it is written."""
        return {
            "finished": self.finished,
            "scores": [score.to_json() for score in self.scores],
            "notes": self.notes,
        }


def write_scorecard(run: RunFolder, metrics: Mapping[str, float]) -> Scorecard:
    """Score the run, write evaluate/scorecard.json, and add it to the history of this machine. `metrics` are the final
    scores by name: a prediction of that name is held against them."""
    measured, finished = outcomes(run)
    found, card, trusted = {**metrics, **measured}, Scorecard(finished=finished), list[Score]()
    if not finished:
        card.notes.append("The run is not finished: only its step and its memory are scored.")
    for path in sources(run):
        scores = scored(path, found)
        doubt = why_not_trusted(run, path) if scores else ""
        card.scores += scores
        card.notes += [doubt] if doubt else []
        trusted += scores if not doubt else []
    if finished:
        card.notes += remember(run, trusted)
    run.evaluate.mkdir(parents=True, exist_ok=True)
    write_json(run.evaluate / "scorecard.json", card.to_json())
    return card


def sources(run: RunFolder) -> list[Path]:
    """Where the run's predictions are."""
    return [path for path in (run.plan, run.train / "forecast.json") if path.is_file()]


def is_predicted(run: RunFolder, name: str) -> bool:
    """Whether a number was foretold, so that its outcome is worth measuring."""
    return any(s.prediction.name == name and s.prediction.is_known for path in sources(run) for s in scored(path, {}))


def scored(path: Path, found: Mapping[str, float]) -> list[Score]:
    """The predictions of plan.json or train/forecast.json beside their outcomes; UserError when they cannot be read."""
    content = read_json(path)
    try:
        made = f"at step {content['step']:,}" if "step" in content else "before training"
        return [Score(p, made, found.get(p.name)) for p in read_predictions(content)]
    except (TypeError, ValueError) as error:
        fix = "put the file back as it was, or start a new run"
        raise UserError(str(path), f"holds predictions that cannot be read ({error})", fix=fix) from error


def why_not_trusted(run: RunFolder, path: Path) -> str:
    """A sentence where a file may have been written with the outcome in sight, else nothing."""
    name, known = path.relative_to(run.path).as_posix(), run.committed(path)
    if known is None:
        return f"{name} was not hashed when it was made: its predictions prove nothing."
    if not run.is_as_committed(path):
        return f"{name} was changed after it was hashed: its predictions prove nothing."
    if path == run.plan and known["step"]:
        return f"{name} was hashed only at step {known['step']:,}: its predictions prove little."
    return ""


def outcomes(run: RunFolder) -> tuple[dict[str, float], str]:
    """({name: what it came to}, why the run ended or nothing). An unfinished run has only a step's time and memory."""
    path = run.train / "usage.json"
    used: dict[str, Any] = read_json(path) if path.is_file() else {}
    seconds, loss, n_steps = array("d"), math.nan, 0
    for row in MetricsLog(run.train / "metrics.jsonl"):
        if "step" not in row or "times" not in row:
            continue
        n_steps = row["step"]
        seconds.append(sum(s for part, s in row["times"].items() if part not in ASIDE))
        look = row.get("validation") or {}
        loss = float(look["loss"]) if look.get("loss") is not None else loss
    found = {STEP_S: median(seconds)} if seconds else {}
    if used.get("peak_bytes"):
        found[PEAK_BYTES] = float(used["peak_bytes"])
    finished = str(used.get("finished", ""))
    if finished:
        found |= {TRAIN_S: float(used["train_s"]), N_STEPS: float(n_steps)}
        found |= {VALIDATION_LOSS: loss} if math.isfinite(loss) else {}
    return found, finished


def remember(run: RunFolder, scores: list[Score]) -> list[str]:
    """Add the cases to the history; a sentence where that was not possible."""
    plan, committed = read_json(run.plan), run.committed(run.plan)
    pairs = [(s.prediction, s.outcome) for s in scores if s.prediction.is_known and s.outcome is not None]
    cases = [case for p, outcome in pairs if (case := history.case_of(p, outcome or 0.0)) is not None]
    if not cases or committed is None:
        return []
    try:
        history.append(committed["sha256"][:16], history.machine_key(Machine(**plan["machine"])), cases)
    except OSError as error:
        return [f"{history.place()} cannot be written ({error.strerror}): the next plans do not learn from this run."]
    return []
