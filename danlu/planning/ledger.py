"""The ledger: every decision with its reason, evidence and range of validity, and what the run is expected to come to,
kept as plan.json before training starts and hashed into the run's manifest then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from danlu.base.durable import read_json, write_json
from danlu.base.errors import UserError
from danlu.base.runfolder import RunFolder
from danlu.planning import history
from danlu.planning.hardware import Machine
from danlu.planning.prediction import TRAIN_S, Prediction

UNTESTED = "nowhere tested"
"""Where a house rule was tested."""


@dataclass(frozen=True)
class Decision:
    """One setting that was "auto", and how it was answered; or one that was given, where there is something to say of it."""

    name: str
    """The setting, as in a recipe: optimizer.lr."""
    value: Any
    """What it came to, written as in a recipe."""
    origin: str
    """"prior: <law>", "measured", "transferred", "given" or "derived"."""
    why: str
    """One sentence with the formula and the numbers put into it."""
    source: str
    """Paper and place, or what the law was measured on."""
    valid: str
    """Where the law was tested."""
    in_range: bool
    """Whether this run lies there."""
    low: float | None = None
    """The value is thought to lie between low ..."""
    high: float | None = None
    """... and high, or None where nothing is known."""
    if_wrong: str = ""
    """What it costs to be wrong, where that is known: "twice or half of it costs about 0.4% of the loss"."""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """What was measured, for the report to draw: see planning/evidence.py."""
    alternatives: tuple[Mapping[str, Any], ...] = ()
    """What was not taken: {"value": .., "why": one clause}."""

    def to_json(self) -> dict[str, Any]:
        """As one entry of plan.json; what is not known is left out."""
        empty: dict[str, Any] = {"low": None, "high": None, "if_wrong": "", "evidence": {}, "alternatives": ()}
        return {k: v for k, v in asdict(self).items() if k not in empty or v != empty[k]}


@dataclass
class Plan:
    """All of plan.json."""

    decisions: Sequence[Decision]
    """In the order they were made."""
    predictions: Sequence[Prediction]
    """What the run will be held against."""
    choices: Mapping[str, Any]
    """The resolved run, the only part that training reads."""
    machine: Machine
    """Where it was planned."""
    timings: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """{"attention": [{"name": "fused", "seconds": 0.1}, ..]}: what candidates took."""
    facts: Mapping[str, float] = field(default_factory=dict)
    """Counts that are certain: parameters, operations a token, tokens of the run."""
    planning_s: float = 0.0
    """Seconds that planning took."""
    fingerprint: str = ""
    """Of the choices."""

    def to_json(self) -> dict[str, Any]:
        """As plan.json holds it."""
        return {
            "decisions": [decision.to_json() for decision in self.decisions],
            "predictions": [prediction.to_json() for prediction in self.predictions],
            "choices": dict(self.choices),
            "machine": self.machine.to_json(),
            "timings": dict(self.timings),
            "facts": dict(self.facts),
            "cost": cost(self.planning_s, self.predictions),
            "fingerprint": self.fingerprint,
        }

    def recalibrated(self) -> Plan:
        """With intervals as past scorecards on this machine ask for."""
        past = history.read(history.machine_key(self.machine))
        changed = [history.recalibrated(prediction, past) for prediction in self.predictions]
        return Plan(**vars(self) | {"predictions": changed})


def cost(planning_s: float, predictions: Sequence[Prediction]) -> dict[str, float]:
    """{"planning_s": .., "share": of the predicted training time, left out where that is not known}."""
    train_s = next((p.value for p in predictions if p.name == TRAIN_S), None)
    return {"planning_s": round(planning_s, 3)} | ({"share": round(planning_s / train_s, 4)} if train_s else {})


def write_plan(run: RunFolder, plan: Plan) -> Plan:
    """Write plan.json, durably and in one piece; the plan as it was written, its intervals recalibrated."""
    written = plan.recalibrated()
    write_json(run.plan, written.to_json())
    return written


def read_decisions(run: RunFolder) -> list[Decision]:
    """The decisions of a run's plan.json; UserError when it is broken."""
    try:
        return [decision_of(entry) for entry in read_json(run.plan)["decisions"]]
    except (KeyError, TypeError) as error:
        raise UserError(str(run.plan), "is not a plan", fix=f"danlu plan {run.path}") from error


def decision_of(entry: Mapping[str, Any]) -> Decision:
    """Back from plan.json; TypeError for what is not a decision."""
    found = Decision(**entry)
    return replace(found, alternatives=tuple(found.alternatives))


def read_predictions(found: Mapping[str, Any]) -> list[Prediction]:
    """The predictions in a plan.json or a forecast.json; none in a plan of an older version, which had no intervals.
    TypeError for what is not a prediction."""
    entries = found.get("predictions")
    return [Prediction.from_json(entry) for entry in entries] if isinstance(entries, list) else []
