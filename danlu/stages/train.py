"""Train: the loop. `for report in train_steps(recipe, run): ...` is all there is; the caller's code is the hook.

First read? `train_step` is one update; `train_steps` is the run around it; the rest is what makes it resumable.
Everything a resume must not choose again (steps, micro-batch, precision, ...) comes from the run's plan.json.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch

from danlu.base.contracts import Batch, DataCard, Progress, StepReport
from danlu.base.errors import Interrupted
from danlu.base.runfolder import RunFolder, read_json
from danlu.build import set_machine
from danlu.planning.choices import Choices
from danlu.planning.footprint import Rehearsal
from danlu.planning.trials import Outcome, Trial
from danlu.recipe import Recipe
from danlu.training import measure
from danlu.training import trial as trials
from danlu.training.branches import Trunk
from danlu.training.guards import Verdict
from danlu.training.interrupt import Signals
from danlu.training.loop import Loop, make_parts, open_loader
from danlu.training.update import Clock, Parts, add_penalty, clip, clip_values, gradient_norms

Judge = Callable[[float, float], Verdict]


def train(recipe: Recipe, run: RunFolder, progress: Progress) -> StepReport | None:
    """Train to the end of the plan, or on from the newest good checkpoint; the last report (None: was finished)."""
    last = None
    for last in train_steps(recipe, run):
        progress(described(last), last.step, last.n_steps)
    return last


def described(report: StepReport) -> str:
    """One step as one line."""
    line = f"step {report.step}  loss {report.loss:.4f}  {report.per_s:,.0f} targets/s"
    if report.validation:
        line += f"  validation {report.validation['loss']:.4f}"
    return "\n".join([line, *report.events])


def train_steps(recipe: Recipe, run: RunFolder) -> Iterator[StepReport]:
    """Yield a report after every update. Leaving the loop early saves, so that the run can go on later."""
    with Signals() as signals, Loop(recipe, run) as loop:

        def stopped() -> bool:
            return signals.received is not None

        while not loop.state.position.finished and not stopped():
            loop.fork(train_step, stopped)
            if stopped():
                break
            clock = Clock()
            batches = loop.batches()
            clock.mark("data")
            watch = loop.watch()
            loss, norms, n_targets = train_step(loop.parts, batches, loop.lr(), loop.judge, clock)
            try:
                yield loop.after(loss, norms, n_targets, clock, watch)
            except GeneratorExit:
                loop.save_now()
                raise
        if signals.received is not None:
            loop.save_now()
            where = f"Stopped at step {loop.state.position.step}, checkpoint saved."
            raise Interrupted(f"{where} Go on with: danlu resume {run.path}", signals.received)


def train_step(
    parts: Parts, batches: Sequence[Batch], lr: float, judge: Judge, clock: Clock
) -> tuple[float, dict[str, float], int]:
    """One update over the micro-batches of one batch: (loss, gradient norm by parameter, n_targets).

    The loss is a sum divided once by all targets, so any cut into micro-batches gives the same update.
    """
    n_targets = max(1, parts.mesh.sum(sum(batch.n_targets for batch in batches)))
    loss = torch.zeros((), device=next(parts.model.parameters()).device)
    for batch in batches:
        share = parts.task.loss_sum(parts.model(batch), batch) / n_targets
        clock.mark("forward")
        share.backward()  # type: ignore[no-untyped-call]
        loss += share.detach()
        clock.mark("backward")
        if parts.after_backward is not None:
            parts.after_backward(batch)
    total = float(parts.mesh.sum(loss))
    if parts.l2 or parts.l1:
        total += add_penalty(parts.model, parts.l2, parts.l1)
    if parts.clip_value is not None:
        clip_values(parts.model, parts.clip_value)
    norms = gradient_norms(parts.model)
    grad_norm = math.hypot(*norms.values())
    if judge(total, grad_norm) == "update":
        clip(parts.model, grad_norm, parts.max_norm)
        parts.optimizer.step(lr)
    parts.optimizer.zero_grad()
    clock.mark("optimizer")
    return total, norms, n_targets


def run_trial(recipe: Recipe, run: RunFolder, trial: Trial) -> Outcome:
    """A short run in memory for a measurement: the same train_step, nothing written."""
    return trials.run(recipe, run, train_step, trial)


def grow(recipe: Recipe, run: RunFolder, trial: Trial, start: int, largest: int) -> Trunk:
    """A short run in memory from which branches at up to `largest` times its batch grow."""
    return Trunk(recipe, run, trial, train_step, start, largest)


def rehearse(
    recipe: Recipe,
    run: RunFolder,
    choices: Choices,
    n_steps: int,
    at_least_s: float,
    is_whole: bool,
    ceiling: int | None,
) -> Rehearsal:
    """The first steps of a run in a child process, for a plan: the same train_step, nothing kept."""
    return measure.rehearse(recipe, run, train_step, choices, n_steps, at_least_s, is_whole, ceiling)


def time_steps(recipe: Recipe, run: RunFolder, choices: Choices, n_steps: int, at_least_s: float = 0.0) -> list[float]:
    """Seconds of each of `n_steps` updates (or more, until at_least_s) after one to warm up, on real batches.

    Plan's measuring stick: the same train_step on a fresh model; nothing is kept.
    """
    device = set_machine(choices, recipe.train.deterministic)
    card = DataCard(**read_json(run.data / "card.json"))
    parts, loader = make_parts(recipe, card, choices), open_loader(recipe, run, card, choices)
    seconds: list[float] = []
    step = 0
    while step <= n_steps or sum(seconds[1:]) < at_least_s:
        clock = Clock()
        batches = [batch.to(device) for batch in loader.micro_batches(step, choices.micro_batch)]
        clock.mark("data")
        train_step(parts, batches, 1e-4, lambda loss, norm: "update", clock)
        seconds.append(sum(clock.spent.values()))
        step += 1
    loader.close()
    return seconds[1:]
