"""The ledger: every decision with its reason, source and range of validity, kept as plan.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from danlu.base.durable import read_json, write_json
from danlu.base.errors import UserError
from danlu.base.runfolder import RunFolder
from danlu.planning.hardware import Machine


@dataclass(frozen=True)
class Decision:
    """One setting that was "auto", and how it was answered."""

    name: str
    """The setting, as in a recipe: optimizer.lr."""
    value: Any
    """What it came to, written as in a recipe."""
    origin: str
    """"prior: <law>", "measured" or "derived"."""
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

    def to_json(self) -> dict[str, Any]:
        """As one entry of plan.json; what is not known is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def write_plan(
    run: RunFolder,
    decisions: Sequence[Decision],
    timings: Mapping[str, Sequence[Mapping[str, Any]]],
    predictions: Mapping[str, Any],
    choices: Mapping[str, Any],
    machine: Machine,
    fingerprint: str,
) -> None:
    """Write plan.json, durably and in one piece. `choices` is the resolved run that training reads."""
    plan = {
        "decisions": [decision.to_json() for decision in decisions],
        "timings": dict(timings),
        "predictions": dict(predictions),
        "choices": dict(choices),
        "machine": machine.to_json(),
        "fingerprint": fingerprint,
    }
    write_json(run.plan, plan)


def read_decisions(run: RunFolder) -> list[Decision]:
    """The decisions of a run's plan.json; UserError when it is broken."""
    try:
        return [Decision(**entry) for entry in read_json(run.plan)["decisions"]]
    except (KeyError, TypeError) as error:
        raise UserError(str(run.plan), "is not a plan", fix=f"danlu plan {run.path}") from error
