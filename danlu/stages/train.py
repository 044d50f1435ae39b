"""Train: the loop. `for report in train_steps(recipe, run): ...` is all there is; the caller's code is the hook.

First read? `train_step` is one update; `train_steps` is the run around it; the rest is what makes it resumable.
Everything a resume must not choose again (steps, micro-batch, precision, ...) comes from the run's plan.json.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from danlu.base.contracts import Batch, DataCard, Progress, StepReport
from danlu.base.errors import GateError, Interrupted, UserError
from danlu.base.runfolder import MetricsLog, RunFolder, SampleLog, fingerprint, read_json
from danlu.build import build_model, build_optimizer, set_machine
from danlu.data.loader import Loader
from danlu.data.shards import open_split
from danlu.parallel.checkpoint import CheckpointWriter, load_newest
from danlu.parallel.mesh import Alone
from danlu.planning.choices import Choices
from danlu.recipe import Recipe
from danlu.training.guards import Guard, Stopper, Verdict
from danlu.training.interrupt import Signals
from danlu.training.signals import Watch, trouble
from danlu.training.state import Average, State, restore, snapshot
from danlu.training.update import Clock, Parts, add_penalty, clip, clip_values, gradient_norms
from danlu.training.validation import Validation

Judge = Callable[[float, float], Verdict]


def train(recipe: Recipe, run: RunFolder, progress: Progress) -> StepReport | None:
    """Train to the end of the plan, or on from the newest good checkpoint; the last report (None: was finished)."""
    last = None
    n_steps = Choices.read(run).n_steps
    for last in train_steps(recipe, run):
        progress(described(last), last.step, n_steps)
    return last


def described(report: StepReport) -> str:
    """One step as one line."""
    per_s = report.n_targets / max(sum(report.times.values()), 1e-9)
    line = f"step {report.step}  loss {report.loss:.4f}  {per_s:,.0f} tokens/s"
    if report.validation:
        line += f"  validation {report.validation['loss']:.4f}"
    return "\n".join([line, *report.events])


def train_steps(recipe: Recipe, run: RunFolder) -> Iterator[StepReport]:
    """Yield a report after every update. Leave the loop whenever you like: what was saved can be resumed."""
    with Signals() as signals, Loop(recipe, run) as loop:
        while not loop.state.position.finished:
            clock = Clock()
            batches = loop.batches()
            clock.mark("data")
            watch = loop.watch()
            loss, norms, n_targets = train_step(loop.parts, batches, loop.lr(), loop.judge, clock)
            yield loop.after(loss, norms, n_targets, clock, watch, signals.received)
            if signals.received is not None:
                raise Interrupted(
                    f"Stopped at step {loop.state.position.step}, checkpoint saved. Go on with: danlu resume {run.path}",
                    signals.received,
                )


def train_step(
    parts: Parts, batches: Sequence[Batch], lr: float, judge: Judge, clock: Clock
) -> tuple[float, dict[str, float], int]:
    """One update over the micro-batches of one batch: (loss, gradient norm by parameter, n_targets).

    The loss is a sum divided once by all targets, so any cut into micro-batches gives the same update.
    """
    n_targets = parts.mesh.sum(sum(batch.n_targets for batch in batches))
    loss = torch.zeros((), dtype=torch.float32)
    for batch in batches:
        share = parts.task.loss_sum(parts.model(batch), batch) / n_targets
        clock.mark("forward")
        share.backward()  # type: ignore[no-untyped-call]
        loss = loss + share.detach().cpu()
        clock.mark("backward")
    total = float(parts.mesh.sum(loss))
    if parts.l2:
        total += add_penalty(parts.model, parts.l2)
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


class Loop:
    """A run opened for training: built, brought back to its newest good checkpoint, and kept safe."""

    def __init__(self, recipe: Recipe, run: RunFolder) -> None:
        self.recipe, self.run = recipe, run
        self.choices, self.card = Choices.read(run), DataCard(**read_json(run.data / "card.json"))
        self.fingerprints = {"data": self.card.fingerprint, "plan": fingerprint(self.choices.model_dump(mode="json"))}
        self.device = set_machine(self.choices, recipe.train.deterministic)
        self.parts = make_parts(recipe, self.card, self.choices)
        self.average = Average(self.parts.model, self.choices.ema) if self.choices.ema else None
        self.state = State(Guard(recipe.train.on_nonfinite, recipe.train.on_spike), Stopper.of(recipe.train))
        self.loader = open_loader(recipe, run, self.choices)
        self.validation = Validation.open(recipe, run, self.card, self.choices)
        self.metrics = MetricsLog(run.train / "metrics.jsonl")
        self.samples = SampleLog(run.train / "sample_ids.bin", self.choices.batch)
        keep = recipe.checkpoint
        self.writer = CheckpointWriter(run.checkpoints, keep.keep, keep.asynchronous, self.sync_logs)
        self.events: list[str] = []
        self.verdict: Verdict = "update"
        self.ids: Sequence[int] = ()
        self.resume()
        self.started = self.saved_at = time.perf_counter()
        self.elapsed_before = self.state.position.elapsed_s

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, *reason: object) -> None:
        self.loader.close()
        self.writer.close()
        self.metrics.close()
        self.samples.close()

    def resume(self) -> None:
        """Go to the newest good checkpoint, if there is one; what the logs know beyond it is cut off."""
        saved, said = load_newest(self.run.checkpoints)
        if saved is not None:
            restore(saved, self.parts.model, self.parts.optimizer, self.average, self.state, self.fingerprints)
            said.append(f"resumed at step {saved.step}")
        self.events += said
        self.metrics.truncate_after(self.state.position.step)
        self.samples.truncate_after(self.state.position.step)

    def sync_logs(self) -> None:
        """A checkpoint never knows more than the logs beside it."""
        self.metrics.sync()
        self.samples.sync()

    def batches(self) -> list[Batch]:
        """The micro-batches of the coming step; also seeds dropout from (seed, step)."""
        step = self.state.position.step + self.state.position.batch_offset
        torch.manual_seed((self.recipe.seed * 1_000_003 + step) % 2**63)
        self.ids = self.loader.ids_at(step)
        return [batch.to(self.device) for batch in self.loader.micro_batches(step, self.choices.micro_batch)]

    def lr(self) -> float:
        """The learning rate of the coming step."""
        schedule: Any = self.recipe.schedule
        return float(schedule.lr_at(self.state.position.step, self.choices.n_steps, self.choices.optimizer["lr"]))

    def watch(self) -> Watch | None:
        """The watch over the coming step, when it is its turn."""
        every = self.choices.signals_every
        if every is None or (self.state.position.step and (self.state.position.step + 1) % every):
            return None
        watch = Watch(self.parts.model)
        watch.before()
        return watch

    def judge(self, loss: float, grad_norm: float) -> Verdict:
        """Whether the update may be made; its sentence joins the step's events."""
        step = self.state.position.step + 1
        self.verdict, said = self.state.guard.judge(step, loss, grad_norm, [int(i) for i in self.ids])
        self.events += [said] if said else []
        return self.verdict

    def after(
        self,
        loss: float,
        norms: dict[str, float],
        n_targets: int,
        clock: Clock,
        watch: Watch | None,
        stop_now: int | None,
    ) -> StepReport:
        """Everything after an update: count, measure, evaluate, log, save, decide whether to go on."""
        if self.verdict in ("stop", "roll back"):
            return self.turn_back(loss, norms, n_targets, clock)
        position, lr = self.state.position, self.lr()
        position.step += 1
        layers = watch.after(norms) if watch else None
        self.events += trouble(layers, position.step) if layers else []
        if self.average is not None and self.verdict == "update":
            self.average.update(position.step)
        clock.mark("other")
        validation, is_best = self.evaluate_now(clock)
        position.elapsed_s = self.elapsed_before + time.perf_counter() - self.started
        position.finished = position.finished or self.why_finish(clock)
        report = StepReport(
            step=position.step, loss=loss, lr=lr, grad_norm=math.hypot(*norms.values()), n_targets=n_targets,
            elapsed_s=position.elapsed_s, times=clock.spent, validation=validation, layers=layers,
            events=(*self.events, *self.writer.events()),
        )  # fmt: skip
        self.events = []
        self.log(report)
        self.save_when_due(is_best, stop_now is not None)
        return report

    def log(self, report: StepReport) -> None:
        """One row a step in metrics.jsonl and sample_ids.bin. A full disk is said once and does not stop training."""
        row: dict[str, Any] = {
            "step": report.step, "loss": report.loss, "lr": report.lr, "grad_norm": report.grad_norm,
            "n_targets": report.n_targets, "elapsed_s": round(report.elapsed_s, 4),
            "per_s": round(report.n_targets / max(sum(report.times.values()), 1e-9), 1),
            "times": {part: round(seconds, 6) for part, seconds in report.times.items()},
        }  # fmt: skip
        row |= {k: v for k in ("validation", "layers", "events") if (v := getattr(report, k))}
        said = [self.metrics.append(row), self.samples.append(report.step, self.ids)]
        self.events += [s for s in said if s]

    def evaluate_now(self, clock: Clock) -> tuple[dict[str, float] | None, bool]:
        """A look at the validation split when it is due: (scores, whether they are the best so far)."""
        step, every = self.state.position.step, self.choices.evaluate_every
        if every is None or (step % every and step != self.choices.n_steps):
            return None, False
        if self.average is not None:
            self.average.swap()
        scores = self.validation.scores(self.parts.model)
        if self.average is not None:
            self.average.swap()
        is_best, stop = self.state.stopper.see(step, scores["loss"])
        self.state.position.finished = stop
        clock.mark("evaluate")
        return scores, is_best

    def why_finish(self, clock: Clock) -> str:
        """The reason to end here, or ""."""
        position, limit = self.state.position, self.choices.time_limit_s
        if position.step >= self.choices.n_steps:
            return f"all {self.choices.n_steps} steps are done"
        reserve = 2.0 * sum(clock.spent.values()) + self.writer_reserve_s()
        if limit is not None and position.elapsed_s + reserve > limit:
            return f"the time budget of {limit:g} s is used up at step {position.step} of {self.choices.n_steps}"
        return ""

    def writer_reserve_s(self) -> float:
        """Seconds to keep for the last checkpoint: its bytes at 100 MB/s."""
        return sum(p.numel() for p in self.parts.model.parameters()) * 12 / 1e8

    def save_when_due(self, is_best: bool, stop_now: bool) -> None:
        """Write a checkpoint when steps, time, a new best, a signal or the end ask for one."""
        position, started = self.state.position, time.perf_counter()
        by_step, by_time = self.choices.save_every_steps, self.choices.save_every_s
        due = by_step is not None and position.step % by_step == 0
        due = due or (by_time is not None and started - self.saved_at > by_time)
        never = by_step is None and by_time is None
        if due or (is_best and not never) or stop_now or position.finished:
            taken = snapshot(self.parts.model, self.parts.optimizer, self.average, self.state, self.fingerprints)
            self.writer.save(taken, is_best)
            self.saved_at = time.perf_counter()
            if stop_now or position.finished:
                self.writer.wait()
                self.events += self.writer.events()

    def turn_back(self, loss: float, norms: dict[str, float], n_targets: int, clock: Clock) -> StepReport:
        """The update was refused: stop with the last good state saved, or go back and pass over the batches since."""
        said, failed_at = self.events, self.state.position.step + self.state.position.batch_offset
        report = StepReport(self.state.position.step, loss, self.lr(), math.hypot(*norms.values()), n_targets,
                            self.state.position.elapsed_s, clock.spent, events=tuple(said))  # fmt: skip
        self.metrics.append({"step": report.step, "event": said[-1]})
        self.writer.wait()
        n_roll_backs = self.state.guard.n_roll_backs + 1
        if self.verdict == "stop":
            raise GateError(
                f"Training stopped before the update: {said[-1]}. The last good checkpoint is kept in {self.run.checkpoints}."
            )
        self.events = []
        self.resume()
        if self.state.position.step == 0 and not any(self.run.checkpoints.iterdir()):
            raise GateError(f"Training stopped: {said[-1]}, and there is no checkpoint yet to roll back to.")
        self.state.guard.n_roll_backs = n_roll_backs
        self.state.position.batch_offset = failed_at + 1 - self.state.position.step
        self.events += [
            f"rolled back to step {self.state.position.step}: {said[-1]}; the batches since are passed over"
        ]
        return report


def make_parts(recipe: Recipe, card: DataCard, choices: Choices) -> Parts:
    """Model, task, optimizer and clipping of a run."""
    model = build_model(recipe, card, choices)
    train = recipe.train
    limits = [None if x == "none" else float(x) for x in (train.max_norm, train.clip_value)]
    task: Any = recipe.task
    return Parts(model.train(), task, build_optimizer(recipe, model, choices), Alone(), *limits, train.l2)


def open_loader(recipe: Recipe, run: RunFolder, choices: Choices) -> Loader:
    """Batches of the training split, in the order that (seed, step) gives."""
    data: Any = recipe.data
    model: Any = recipe.model
    shard = open_split(run.data, "train")
    return Loader(shard, model.context, choices.batch, recipe.seed, n_workers=recipe.train.workers, pack=data.pack)


def time_steps(recipe: Recipe, run: RunFolder, choices: Choices, n_steps: int, at_least_s: float = 0.0) -> list[float]:
    """Seconds of each of `n_steps` updates (or more, until at_least_s) after one to warm up, on real batches.

    Plan's measuring stick: the same train_step on a fresh model; nothing is kept.
    """
    device = set_machine(choices, recipe.train.deterministic)
    card = DataCard(**read_json(run.data / "card.json"))
    parts, loader, seconds = make_parts(recipe, card, choices), open_loader(recipe, run, choices), []
    if not len(loader):
        raise UserError(
            "data",
            f"must fill at least one sample of {recipe.model.context} tokens",
            fix="give more data or a shorter model.context",
        )  # type: ignore[attr-defined]
    step = 0
    while step <= n_steps or sum(seconds[1:]) < at_least_s:
        clock = Clock()
        batches = [batch.to(device) for batch in loader.micro_batches(step, choices.micro_batch)]
        train_step(parts, batches, 1e-4, lambda loss, norm: "update", clock)
        seconds.append(time.perf_counter() - clock.last + sum(clock.spent.values()))
        step += 1
    loader.close()
    return seconds[1:]
