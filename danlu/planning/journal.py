"""What a plan has measured so far, so that a killed plan goes on where it was. Torch-free.

Everything a plan does is a function of its measurements in their order. Each is written down under all that it depends on; a plan
that starts again finds them, takes the same way, and measures only what is missing. Its clock counts what they took, so that
plan.budget is spent once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from danlu.base.durable import fingerprint
from danlu.base.runfolder import MetricsLog
from danlu.planning.choices import Choices
from danlu.planning.footprint import Rehearsal
from danlu.planning.hardware import Rate
from danlu.planning.layouts import Rehearse
from danlu.planning.trials import Outcome, RunTrial, Trial, outcome_of

FORMAT = 1
Found = TypeVar("Found")
Tell = Callable[[str, float, float], None]
"""(what, done, of): a progress."""
REHEARSED, TRIED, STEPS = 1.0, 2.5, 4.0
"""Where rehearsals and short runs are on the way of a plan."""


def mute(what: str, done: float, total: float) -> None:
    """No progress."""


class Journal:
    """Measurements of one plan: kept in a file, or for as long as the process lives."""

    def __init__(self, path: Path | None = None, about: Any = None, tell: Tell = mute) -> None:
        self.path, self.about, self.tell = path, [FORMAT, about], tell
        self.log = MetricsLog(path) if path is not None else None
        self.known = {str(row.get("key")): row for row in self.log} if self.log is not None else {}
        self.found_s, self.n, self.n_left = 0.0, 0, 0

    def clock(self) -> float:
        """Seconds on a clock that has gone on for as long as the measurements found took when they were made."""
        return time.perf_counter() + self.found_s

    def measured(
        self, asked: Any, fresh: Callable[[], Found], to_row: Callable[[Found], Any], of: Callable[[Any], Found]
    ) -> Found:
        """From the file, or made now and written there; what `to_row` makes None of is not kept."""
        key = fingerprint([*self.about, asked])
        if key in self.known:
            self.found_s += self.known[key]["seconds"]
            return of(self.known[key]["found"])
        began = time.perf_counter()
        found = fresh()
        row = to_row(found)
        if self.log is not None and row is not None:
            self.log.append({"key": key, "seconds": time.perf_counter() - began, "found": row})
            self.log.sync()
        return found

    def left_s(self, seconds: float) -> float:
        """What was left of the budget when this was asked, the n-th time in a plan; `seconds` where nothing is known."""
        self.n_left += 1
        return self.measured(["left", self.n_left], lambda: seconds, float, float)

    def matmul_rate(self, fresh: Callable[[], Rate]) -> Rate:
        """The machine's limit, remembered."""
        return self.measured(["matmul"], fresh, asdict, lambda row: Rate(**row))

    def rehearse(self, fresh: Rehearse) -> Rehearse:
        """The same, remembered. One that failed is not kept: the memory may be there next time."""

        def rehearsed(
            choices: Choices, n_steps: int, at_least_s: float, is_whole: bool, ceiling: int | None
        ) -> Rehearsal:
            self.n += 1
            self.tell(f"rehearsal {self.n}: {choices.precision}, micro-batch {choices.micro_batch}", REHEARSED, STEPS)
            asked = ["rehearse", choices.model_dump(mode="json"), n_steps, at_least_s, is_whole]
            return self.measured(
                asked, lambda: fresh(choices, n_steps, at_least_s, is_whole, ceiling),
                lambda found: None if found.trouble else asdict(found), Rehearsal.of,
            )  # fmt: skip

        return rehearsed

    def run_trial(self, fresh: RunTrial) -> RunTrial:
        """The same, remembered."""

        def tried(trial: Trial) -> Outcome:
            self.n += 1
            lr, n_steps = trial.choices.optimizer.get("lr"), trial.choices.n_steps
            self.tell(f"short run of {n_steps:,} steps at the rate {lr:.3g}" if lr else "short run", TRIED, STEPS)
            asked = ["trial", asdict(trial) | {"choices": trial.choices.model_dump(mode="json")}]
            return self.measured(asked, lambda: fresh(trial), asdict, outcome_of)

        return tried

    def close(self) -> None:
        """The plan is written: nothing of it is asked again."""
        if self.log is not None and self.path is not None:
            self.log.close()
            self.path.unlink(missing_ok=True)
