"""Short trainings in memory, by the same update as a whole run: what measurements before and during a run are made with.

Nothing is written. A Session can be saved, put back and cooled down to see where it would end; afterwards its weights,
its optimizer and its order are bit for bit what they were.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from danlu.base.contracts import Batch, DataCard
from danlu.base.runfolder import RunFolder, read_json
from danlu.base.settings import Settings
from danlu.build import set_machine
from danlu.planning.choices import Choices
from danlu.planning.trials import Look, Outcome, Trial
from danlu.recipe import Recipe
from danlu.training.fork import TrainStep, put_back
from danlu.training.guards import Verdict
from danlu.training.loop import make_parts, open_loader, seed_generators
from danlu.training.start import start_from
from danlu.training.state import Average, kept
from danlu.training.update import Clock
from danlu.training.validation import open_validation


@dataclass(frozen=True)
class Saved:
    """A session's state at a step, copied."""

    step: int
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    average: tuple[Tensor, ...]


class Session:
    """A training in memory."""

    def __init__(self, recipe: Recipe, folder: RunFolder, trial: Trial, train_step: TrainStep) -> None:
        self.began = time.perf_counter()
        self.recipe = varied(recipe, trial.settings).model_copy(update={"seed": trial.seed})
        self.choices, self.train_step = resolved(self.recipe, trial), train_step
        self.device = set_machine(self.choices, recipe.train.deterministic)
        self.card = DataCard(**read_json(folder.data / "card.json"))
        self.parts = make_parts(self.recipe, self.card, self.choices)
        start_from(self.parts.model, self.recipe.train.start_from, folder.data)
        self.average = Average(self.parts.model, self.choices.ema) if self.choices.ema else None
        self.loader = open_loader(self.recipe, folder, self.card, self.choices)
        self.validation = open_validation(self.recipe, folder, self.card, self.choices)
        self.step = 0
        self.losses: list[float] = []
        self.grad_norms: list[float] = []
        self.step_seconds: list[float] = []
        self.diverged = ""

    def lr_at(self, step: int) -> float:
        """The schedule's rate of update `step` (0-based)."""
        schedule: Any = self.recipe.schedule
        return float(schedule.lr_at(step, self.choices.n_steps, self.choices.optimizer["lr"]))

    def batches(self, step: int) -> list[Batch]:
        """The micro-batches of an update; seeds dropout from (seed, step) as a whole run does."""
        seed_generators((self.recipe.seed * 1_000_003 + step) % 2**63, self.device)
        return [batch.to(self.device) for batch in self.loader.micro_batches(step, self.choices.micro_batch)]

    def update(self, lr: float) -> tuple[float, float]:
        """One update at a rate: (loss, gradient norm). The step counts on."""
        clock = Clock()
        loss, norms, _ = self.train_step(self.parts, self.batches(self.step), lr, self.judge, clock)
        self.step += 1
        if self.average is not None and not self.diverged:
            self.average.update(self.step)
        self.step_seconds.append(time.perf_counter() - clock.last + sum(clock.spent.values()))
        return loss, math.hypot(*norms.values())

    def judge(self, loss: float, grad_norm: float) -> Verdict:
        """A loss that is no number ends the session."""
        if math.isfinite(loss) and math.isfinite(grad_norm):
            return "update"
        self.diverged = f"loss {loss:g}, gradient norm {grad_norm:g} at step {self.step + 1}"
        return "skip"

    def advance(self, until: int) -> None:
        """Train by the schedule until so many steps are done, or it diverges."""
        while self.step < until and not self.diverged:
            loss, norm = self.update(self.lr_at(self.step))
            self.losses.append(loss)
            self.grad_norms.append(norm)

    def look(self, metrics: bool = False) -> Look:
        """The validation split, with the weights' average where there is one."""
        if self.average is not None:
            self.average.swap()
        blocks = self.validation.blocks(self.parts.model)
        scores = self.validation.scores(self.parts.model) if metrics else {}
        if self.average is not None:
            self.average.swap()
        loss = sum(b[0] for b in blocks) / max(1, sum(b[1] for b in blocks)) if blocks else math.nan
        return Look(self.step, loss, tuple(blocks), scores)

    def save(self) -> Saved:
        """Copies of all that training changes."""
        model = {name: t.detach().clone() for name, t in kept(self.parts.model).items()}
        optimizer = {name: t.detach().clone() for name, t in self.parts.optimizer.tensors().items()}
        average = tuple(t.clone() for t in self.average.values) if self.average is not None else ()
        return Saved(self.step, model, optimizer, average)

    @torch.no_grad()
    def load(self, saved: Saved) -> None:
        """Put a state back, bit for bit."""
        for name, tensor in kept(self.parts.model).items():
            tensor.copy_(saved.model[name])
        self.parts.optimizer.load(saved.optimizer)
        if self.average is not None:
            for value, old in zip(self.average.values, saved.average, strict=True):
                value.copy_(old)
        del self.losses[saved.step :], self.grad_norms[saved.step :]
        self.step, self.diverged = saved.step, ""

    def cooled(self, n_steps: int) -> Look:
        """Where it would end: the rate goes down to 0 in a straight line over the next n_steps, then one look; then all
        is put back. Infinite when that diverges."""
        start, lr = self.step, self.lr_at(self.step)
        with put_back(self.parts, self.average):
            for done in range(n_steps):
                if not self.diverged:
                    self.update(lr * (1 - done / n_steps))
            found = self.look() if not self.diverged else Look(self.step, math.inf)
        self.step, self.diverged = start, ""
        return found

    def close(self) -> None:
        """Let the loader's workers go."""
        self.loader.close()


def run(recipe: Recipe, folder: RunFolder, train_step: TrainStep, trial: Trial) -> Outcome:
    """A trial from its start to its end."""
    session = Session(recipe, folder, trial, train_step)
    end = trial.choices.n_steps if trial.until is None else min(trial.until, trial.choices.n_steps)
    looks = []
    for step in sorted({*(s for s in trial.looks if s < end), end}):
        session.advance(step)
        if session.diverged:
            break
        if trial.is_scored:
            looks.append(session.look(metrics=step == end))
    session.close()
    seconds = time.perf_counter() - session.began
    step_s = median(session.step_seconds) if session.step_seconds else math.nan
    return Outcome(
        tuple(session.losses), tuple(session.grad_norms), tuple(looks), seconds, step_s, session.diverged
    )  # fmt: skip


def resolved(recipe: Recipe, trial: Trial) -> Choices:
    """The trial's choices with what its own settings say of model and optimizer put in their place."""
    found: dict[str, Any] = {}
    for section in ("model", "optimizer"):
        known = type(getattr(recipe, section)).model_fields
        own = {k.partition(".")[2]: v for k, v in trial.settings.items() if k.startswith(f"{section}.")}
        values: Mapping[str, Any] = {**getattr(trial.choices, section), **own}
        found[section] = {k: v for k, v in values.items() if k in known and k != "kind"}
    return trial.choices.model_copy(update=found)


def varied(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """The recipe with other settings, by dotted name, checked as a whole. A section whose kind changes keeps those of its
    given settings that the new kind has too."""
    if not settings:
        return recipe
    raw = recipe.model_dump(mode="json", exclude_unset=True)
    for name in ("data", "model", "task", "optimizer", "schedule"):
        raw.setdefault(name, {})["kind"] = settings.get(f"{name}.kind", getattr(recipe, name).kind)
    for dotted, value in settings.items():
        section, _, rest = dotted.partition(".")
        put(raw[section] if rest else raw, rest or section, value)
    for name in {dotted.partition(".")[0] for dotted in settings if dotted.endswith(".kind")}:
        known: type[Settings] = type(Recipe.model_validate({**raw, name: {"kind": raw[name]["kind"]}}).__getattribute__(name))  # fmt: skip
        raw[name] = {key: value for key, value in raw[name].items() if key in known.model_fields}
    return Recipe.model_validate(raw)


def put(raw: dict[str, Any], dotted: str, value: Any) -> None:
    """Set a nested key."""
    key, _, rest = dotted.partition(".")
    if rest:
        put(raw.setdefault(key, {}), rest, value)
    else:
        raw[key] = value
