"""Forks of a run: its rate is taken down to 0 over a few steps, the validation split is looked at, and all is put back.

Where the run would end if it ended now is thus measured on the run itself. Weights, optimizer state and their average
are afterwards bit for bit what they were; order and dropout are functions of the step, so nothing else has changed.
Kept in train/forks.json: [{"step", "n_cool", "loss", "sd", "seconds"}].
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import torch

from danlu.base.contracts import NOT_STEP, Batch, DataCard
from danlu.base.runfolder import MetricsLog, RunFolder, read_json, write_json
from danlu.build import is_samples
from danlu.planning import history
from danlu.planning.choices import Choices
from danlu.planning.hardware import Machine
from danlu.planning.length import forecast
from danlu.planning.seen import ForkSeen, Seen
from danlu.recipe import Recipe
from danlu.training.earlier import earlier_runs, setting_of
from danlu.training.guards import Verdict
from danlu.training.state import Average, kept
from danlu.training.update import Clock, Parts
from danlu.training.validation import Look, looked_at, open_validation

TrainStep = Callable[
    [Parts, Sequence[Batch], float, Callable[[float, float], Verdict], Clock], tuple[float, dict[str, float], int]
]
"""One update: stages/train.train_step."""
MOST_OFTEN = 4
"""The whole validation split is looked at once, after the last fork, when it is at most so many times what looks see."""


@dataclass
class Forked:
    """What a fork works on: the run's own parts, its batches by step, and its look at the validation split."""

    parts: Parts
    average: Average | None
    batches: Callable[[int], Sequence[Batch]]
    look: Look
    train_step: TrainStep
    stopped: Callable[[], bool] = lambda: False
    """Whether a signal came: the fork is dropped then, and made again by the next process."""

    def cooled(self, step: int, rates: Sequence[float], whole: Look | None = None) -> ForkSeen | None:
        """The loss before and after one update at each of the rates from `step` on (None where one was not finite), and on
        the whole split where it is given."""
        began = time.perf_counter()
        failed = False

        def judge(loss: float, grad_norm: float) -> Verdict:
            nonlocal failed
            failed = not (math.isfinite(loss) and math.isfinite(grad_norm))
            return "skip" if failed else "update"

        before = looked(self.look, self.parts, self.average)[0]
        with put_back(self.parts, self.average):
            for at, rate in enumerate(rates, step):
                if self.stopped():
                    return None
                self.train_step(self.parts, self.batches(at), rate, judge, Clock())
                if failed:
                    return ForkSeen(step, len(rates), None, 0.0, time.perf_counter() - began, before)
                if self.average is not None:
                    self.average.update(at + 1)
            loss, sd = looked(self.look, self.parts, self.average)
            on_all = looked(whole, self.parts, self.average)[0] if whole is not None else None
        return ForkSeen(step, len(rates), loss, sd, time.perf_counter() - began, before, on_all)


def looked(look: Look, parts: Parts, average: Average | None) -> tuple[float, float]:
    """(loss on what the run's own looks see, its standard error over the split's pieces), with the average where there
    is one."""
    if average is not None:
        average.swap()
    blocks = look.blocks(parts.model)
    if average is not None:
        average.swap()
    n_targets = sum(n for _, n in blocks)
    loss = sum(total for total, _ in blocks) / max(1, n_targets)
    spread = sum((total - loss * n) ** 2 for total, n in blocks)
    return loss, math.sqrt(spread * len(blocks) / max(1, len(blocks) - 1)) / max(1, n_targets)


@contextmanager
def put_back(parts: Parts, average: Average | None) -> Iterator[None]:
    """What training changes inside is undone at the end, bit for bit. The copies lie in host memory."""
    model = {name: t.to("cpu", copy=True) for name, t in kept(parts.model).items()}
    optimizer = {name: t.detach().to("cpu", copy=True) for name, t in parts.optimizer.tensors().items()}
    averages = [t.to("cpu", copy=True) for t in average.values] if average is not None else []
    try:
        yield
    finally:
        with torch.no_grad():
            for name, tensor in kept(parts.model).items():
                tensor.copy_(model[name])
            parts.optimizer.load(optimizer)
            for value, old in zip(average.values if average is not None else [], averages, strict=True):
                value.copy_(old)
        parts.optimizer.zero_grad()


class ForkLog:
    """train/forks.json: which forks are planned, which are done; beside it the forecast made of all of them."""

    def __init__(self, run: RunFolder, choices: Choices) -> None:
        self.path, self.forecast, self.planned = (
            run.train / "forks.json",
            run.train / "forecast.json",
            dict(choices.forks),
        )
        self.done = [ForkSeen(**entry) for entry in read_json(self.path)] if self.path.is_file() else []
        self.told = self.forecast.is_file()

    def due(self, step: int) -> int:
        """Steps that the fork at this step cools over; 0 where none is planned or it is done."""
        return 0 if any(fork.step == step for fork in self.done) else self.planned.get(step, 0)

    def add(self, fork: ForkSeen) -> None:
        """Keep one, durably."""
        self.done.append(fork)
        write_json(self.path, [asdict(fork) for fork in self.done])

    def is_last(self, step: int) -> bool:
        """Whether no fork is planned after this step."""
        return step >= max(self.planned, default=0)

    @property
    def lacks_forecast(self) -> bool:
        """Whether every planned fork is done and nothing was made of them yet."""
        return bool(self.planned) and not self.told and {fork.step for fork in self.done} >= set(self.planned)

    def truncate_after(self, step: int) -> None:
        """A run that goes on from a step knows nothing of what came later."""
        kept = [fork for fork in self.done if fork.step <= step]
        if len(kept) < len(self.done):
            self.done, self.told = kept, False
            self.forecast.unlink(missing_ok=True)
            write_json(self.path, [asdict(fork) for fork in kept])


def whole_look(recipe: Recipe, run: RunFolder, card: DataCard, choices: Choices) -> Look | None:
    """A look at the whole validation split; None where the run's looks see all of it, or it is more than MOST_OFTEN times
    what they see."""
    split, limits = card.splits["validation"], recipe.evaluate
    size, part = (
        (split.n_samples, limits.during_samples) if is_samples(recipe) else (split.n_tokens, limits.during_tokens)
    )
    part = looked_at(choices, part, size)
    if not part < size <= MOST_OFTEN * part:
        return None
    all_of_it = limits.model_copy(update={"during_tokens": size, "during_samples": size})
    whole = choices.model_copy(update={"look_share": 1.0})
    return open_validation(recipe.model_copy(update={"evaluate": all_of_it}), run, card, whole)


def predict(recipe: Recipe, run: RunFolder, choices: Choices, card: DataCard) -> list[str]:
    """The forecast from what this run has shown and from earlier ones (planning/length.py), with intervals as past
    scorecards on this machine ask for, written to train/forecast.json; its sentence."""
    last = max(step for step, _ in choices.forks)
    log = MetricsLog(run.train / "metrics.jsonl")
    rows = [row for row in log if row["step"] <= last and row.get("loss") is not None and "times" in row]
    schedule: Any = recipe.schedule
    model: Any = recipe.model
    train = card.splits["train"]
    seen = Seen(
        setting=setting_of(recipe, choices),
        rates=tuple(schedule.lr_at(step, choices.n_steps, 1.0) for step in range(choices.n_steps)),
        losses=tuple(row["loss"] for row in rows),
        forks=tuple(ForkSeen(**entry) for entry in read_json(run.train / "forks.json")),
        units_per_step=choices.batch * (1 if is_samples(recipe) else model.context),
        n_unique=train.n_samples if is_samples(recipe) else train.n_tokens,
        step_s=median(sum(s for part, s in row["times"].items() if part not in NOT_STEP) for row in rows),
        earlier=tuple(earlier_runs(recipe, run, choices, card, last / choices.n_steps)),
    )
    found = forecast(seen)
    machine = read_json(run.plan).get("machine")
    if machine:
        past = history.read(history.machine_key(Machine(**machine)))
        found = replace(found, predictions=[history.recalibrated(p, past) for p in found.predictions])
    write_json(run.train / "forecast.json", found.to_json())
    run.commit(run.train / "forecast.json", found.step)
    return [found.sentence]
