"""A run opened for training: built, brought back to its newest good checkpoint, logged and kept safe.

The loop itself, and the update, are in stages/train.py.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import torch

from danlu.base.contracts import Batch, DataCard, StepReport
from danlu.base.errors import GateError
from danlu.base.runfolder import MetricsLog, RunFolder, SampleLog, fingerprint, read_json
from danlu.build import build_model, build_optimizer, set_machine
from danlu.data.loader import Loader
from danlu.data.samples import SampleLoader, SampleSource
from danlu.data.shards import open_split
from danlu.parallel.checkpoint import CheckpointWriter, load_newest
from danlu.parallel.mesh import Alone
from danlu.planning.choices import Choices
from danlu.recipe import Recipe
from danlu.training.alarm import Alarm
from danlu.training.fork import Forked, ForkLog, TrainStep, predict, whole_look
from danlu.training.gradient_noise import NoiseMeter, logged
from danlu.training.guards import Guard, Stopper, Verdict
from danlu.training.pace import Pace
from danlu.training.process import Heap
from danlu.training.signals import Watch
from danlu.training.start import start_from
from danlu.training.state import Average, State, restore, snapshot
from danlu.training.update import Clock, Parts, norm_limit
from danlu.training.usage import Usage
from danlu.training.validation import Blind, open_validation
from danlu.trust.findings import Finding


class Loop:
    """A run opened for training: built, brought back to its newest good checkpoint, and kept safe."""

    def __init__(self, recipe: Recipe, run: RunFolder) -> None:
        self.recipe, self.run = recipe, run
        self.choices, self.card = Choices.read(run), DataCard(**read_json(run.data / "card.json"))
        self.fingerprints = {"data": self.card.fingerprint, "plan": fingerprint(self.choices.model_dump(mode="json"))}
        self.device = set_machine(self.choices, recipe.train.deterministic)
        self.usage = Usage(run, self.device)
        self.parts = make_parts(recipe, self.card, self.choices)
        self.average = Average(self.parts.model, self.choices.ema) if self.choices.ema else None
        self.state = State(Guard(recipe.train.on_nonfinite, recipe.train.on_spike), Stopper.of(recipe.train))
        self.loader = open_loader(recipe, run, self.card, self.choices)
        self.validation = open_validation(recipe, run, self.card, self.choices)
        watching = recipe.train.on_alarm != "none"
        self.alarm = Alarm(recipe, run, self.card, self.choices, self.loader, self.state.alarm) if watching else None
        self.metrics = MetricsLog(run.train / "metrics.jsonl")
        self.samples = SampleLog(run.train / "sample_ids.bin", self.choices.batch)
        self.forks = ForkLog(run, self.choices)
        keep = recipe.checkpoint
        self.writer = CheckpointWriter(run.checkpoints, keep.keep, keep.asynchronous, self.sync_logs)
        self.look_s = 0.0
        self.events: list[str] = []
        self.saving_s = 0.0
        """Seconds that the last checkpoint held training up."""
        self.verdict: Verdict = "update"
        self.meter: NoiseMeter | None = None
        self.watching: Watch | None = None
        self.ids = np.empty(0, np.int64)
        is_unlike = (
            self.device.type == "cpu" and getattr(getattr(self.loader, "split", None), "lengths", None) is not None
        )
        self.heap = Heap() if is_unlike else None
        if not self.resume():
            self.events += start_from(self.parts.model, recipe.train.start_from, run.data)
            if self.choices.ema:
                self.average = Average(self.parts.model, self.choices.ema)
        if not self.state.position.step or run.committed(run.plan) is None:
            run.commit(run.plan, self.state.position.step)
        self.pace = Pace(recipe.schedule, self.choices, self.state, self.past_s())
        self.writer.pinned = self.pace.stable_end
        self.usage.start(self.state.position)
        self.started = self.saved_at = time.perf_counter()
        self.elapsed_before = self.state.position.elapsed_s

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, *reason: object) -> None:
        self.loader.close()
        self.writer.close()
        self.metrics.close()
        self.samples.close()
        self.usage.close(self.state.position, self.elapsed_s() - self.state.position.elapsed_s)

    def elapsed_s(self) -> float:
        """Training seconds until now, over all processes."""
        return self.elapsed_before + time.perf_counter() - self.started

    def past_s(self) -> Iterator[float]:
        """Seconds of the run after each step so far."""
        return (row["elapsed_s"] for row in self.metrics if "times" in row)

    def resume(self) -> bool:
        """Go to the newest good checkpoint; what the logs know beyond it is cut off. False where there is none."""
        saved, said = load_newest(self.run.checkpoints)
        if saved is not None:
            restore(saved, self.parts.model, self.parts.optimizer, self.average, self.state, self.fingerprints)
            said.append(f"resumed at step {saved.step}")
        self.events += said
        self.metrics.truncate_after(self.state.position.step)
        self.samples.truncate_after(self.state.position.step)
        if saved is not None and self.alarm is not None:
            self.alarm.sightings.catch_up(self.state.position.step)
        self.forks.truncate_after(self.state.position.step)
        return saved is not None

    def sync_logs(self) -> None:
        """A checkpoint never knows more than the logs beside it."""
        self.metrics.sync()
        self.samples.sync()

    def batches(self) -> list[Batch]:
        """The micro-batches of the coming step, which the alarm sees too."""
        batches = self.read(self.state.position.step)
        if self.alarm is not None:
            self.alarm.see(self.state.position.step, batches)
        if self.heap is not None:
            self.heap.before(max(next(iter(batch.tensors.values())).numel() for batch in batches))
        return [batch.to(self.device) for batch in batches]

    def batches_at(self, step: int) -> list[Batch]:
        """The micro-batches after `step` completed updates, on the device."""
        return [batch.to(self.device) for batch in self.read(step)]

    def read(self, step: int) -> list[Batch]:
        """The same before they go to the device; also seeds dropout."""
        self.reseed(step)
        step += self.state.position.batch_offset
        self.ids = self.loader.ids_at(step)
        return self.loader.micro_batches(step, self.choices.micro_batch)

    def reseed(self, step: int) -> None:
        """Dropout after `step` completed updates is drawn from (seed, step)."""
        step += self.state.position.batch_offset
        seed_generators((self.recipe.seed * 1_000_003 + step) % 2**63, self.device)

    def fork(self, train_step: TrainStep, stopped: Callable[[], bool]) -> None:
        """Cool a copy down where that is planned (training/fork.py); after the last one the run's end is predicted."""
        step = self.state.position.step
        if n_cool := self.forks.due(step):
            lr, forked = (
                self.lr(),
                Forked(self.parts, self.average, self.batches_at, self.validation, train_step, stopped),
            )
            rates = [lr * (1 - i / n_cool) for i in range(n_cool)]
            whole = whole_look(self.recipe, self.run, self.card, self.choices) if self.forks.is_last(step) else None
            done = forked.cooled(step, rates, whole)
            if done is not None:
                self.forks.add(done)
        if self.forks.lacks_forecast:
            expected = self.choices.model_copy(update={"n_steps": self.pace.expected})
            self.events += predict(self.recipe, self.run, expected, self.card)
            self.forks.told = True

    def lr(self) -> float:
        """The learning rate of the coming step."""
        return self.pace.lr()

    def watch(self) -> Watch | None:
        """The watch over the coming step, when it is its turn; with more than one micro-batch also of gradient noise."""
        if self.alarm is not None and self.alarm.before(self.parts.model, self.state.position.step):
            self.reseed(self.state.position.step)
        every = self.choices.signals_every
        if every is None or (self.state.position.step and (self.state.position.step + 1) % every):
            return None
        self.watching = watch = Watch(self.parts.model, with_inputs=not self.choices.compile)
        watch.before()
        if self.choices.micro_batch < self.choices.batch:
            self.meter = NoiseMeter(self.parts, len(self.loader))
            self.parts.after_backward = self.meter.see
        return watch

    def judge(self, loss: float, grad_norm: float) -> Verdict:
        """Whether the update may be made; its sentence joins the step's events."""
        step = self.state.position.step + 1
        self.verdict, said = self.state.guard.judge(step, loss, grad_norm, [int(i) for i in self.ids])
        self.events += [said] if said else []
        if self.watching is not None and self.alarm is not None and self.alarm.wants_gain():
            self.watching.keep_gradients()
        return self.verdict

    def after(
        self,
        loss: float,
        norms: dict[str, float],
        n_targets: int,
        clock: Clock,
        watch: Watch | None,
    ) -> StepReport:
        """Everything after an update: count, measure, evaluate, log, save, decide whether to go on."""
        meter, self.meter, self.parts.after_backward, self.watching = self.meter, None, None, None
        if self.verdict in ("stop", "roll back"):
            return self.turn_back(loss, norms, n_targets, clock)
        position, lr = self.state.position, self.lr()
        layers = watch.after(norms) if watch else None
        findings = self.sound_alarm(loss, norms, watch)
        position.step += 1
        if self.average is not None and self.verdict == "update":
            self.average.update(position.step)
        if self.heap is not None:
            self.heap.after()
        clock.mark("other")
        validation, is_best = self.evaluate_now(clock)
        clock.spent["checkpoint"], self.saving_s = self.saving_s, 0.0
        position.elapsed_s = self.elapsed_s()
        reserve_s = self.look_s + self.writer_reserve_s()
        self.events += [said] if (said := self.pace.see(reserve_s)) else []
        self.writer.pinned = self.pace.stable_end
        position.finished = position.finished or self.why_finish(reserve_s + 2 * clock.work_s)
        if position.finished and validation is None:  # the time has just decided that this step is the last
            finished = position.finished
            validation, is_best = self.evaluate_now(clock)
            position.finished = finished
        report = StepReport(
            step=position.step, loss=loss, lr=lr, grad_norm=math.hypot(*norms.values()), n_targets=n_targets,
            elapsed_s=position.elapsed_s, times=clock.spent, validation=validation, layers=layers,
            gradient_noise=logged(meter.samples()) if meter else None, n_steps=max(position.step, self.pace.n_steps),
            events=(*self.events, *self.writer.events()),
        )  # fmt: skip
        self.events = []
        self.log(report)
        self.save_when_due(is_best)
        if self.recipe.train.on_alarm == "stop" and (bad := [f for f in findings if f.severity == "stop"]):
            self.save_now()
            raise GateError(
                f"Training was stopped by an {bad[0].sentence} The state is saved in {self.run.checkpoints}."
            )
        return report

    def sound_alarm(self, loss: float, norms: dict[str, float], watch: Watch | None) -> list[Finding]:
        """What seems wrong after the update, told among the step's events."""
        if self.alarm is None or self.verdict != "update":
            return []
        findings = self.alarm.after(
            self.parts, loss, self.lr(), norms, watch, lambda: self.reseed(self.state.position.step)
        )
        self.events += [finding.sentence for finding in findings]
        return findings

    def log(self, report: StepReport) -> None:
        """One row a step in metrics.jsonl and sample_ids.bin. A full disk is said once and does not stop training."""
        row: dict[str, Any] = {
            "step": report.step, "loss": report.loss, "lr": report.lr, "grad_norm": report.grad_norm,
            "n_targets": report.n_targets, "elapsed_s": round(report.elapsed_s, 4),
            "per_s": round(report.per_s, 1),
            "times": {part: round(seconds, 6) for part, seconds in report.times.items()},
        }  # fmt: skip
        row |= {k: v for k in ("validation", "layers", "gradient_noise", "events") if (v := getattr(report, k))}
        said = [self.metrics.append(row), self.samples.append(report.step, self.ids)]
        self.events += [s for s in said if s]

    def evaluate_now(self, clock: Clock) -> tuple[dict[str, float] | None, bool]:
        """A look at the validation split when it is due: (scores, whether they are the best so far)."""
        step, every = self.state.position.step, self.choices.evaluate_every
        if every is None or isinstance(self.validation, Blind) or (step % every and step != self.pace.n_steps):
            return None, False
        if self.average is not None:
            self.average.swap()
        scores = self.validation(self.parts.model)
        if self.average is not None:
            self.average.swap()
        is_best, stop = self.state.stopper.see(step, scores["loss"], self.validation.pieces)
        self.state.position.finished = stop
        if self.alarm is not None and self.average is None:
            self.alarm.validated(step, scores["loss"])
        clock.mark("evaluate")
        self.look_s = clock.spent["evaluate"]
        return scores, is_best

    def why_finish(self, reserve_s: float) -> str:
        """The reason to end here, or ""; `reserve_s` is kept of a time budget."""
        position, limit = self.state.position, self.choices.time_limit_s
        if self.pace.is_over:
            within = f" that the time budget of {limit:g} s allowed" if position.n_steps else ""
            return f"all {position.step} steps{within} are done"
        if limit is not None and position.elapsed_s + reserve_s > limit:
            cut = f"the time budget of {limit:g} s is used up at step {position.step} of {self.pace.n_steps}"
            self.events.append(f"{cut}, at {self.lr() / self.choices.optimizer['lr']:.0%} of the peak rate")
            return cut
        return ""

    def writer_reserve_s(self) -> float:
        """Seconds to keep for the last checkpoint: its bytes at 100 MB/s."""
        return sum(p.numel() for p in self.parts.model.parameters()) * 12 / 1e8

    def save_when_due(self, is_best: bool) -> None:
        """Write a checkpoint when steps, time, a new best or the end ask for one."""
        step = self.state.position.step
        by_step, by_time = self.choices.save_every_steps, self.choices.save_every_s
        due = step == self.pace.stable_end or (by_step is not None and step % by_step == 0)
        due = due or (by_time is not None and time.perf_counter() - self.saved_at > by_time)
        never = by_step is None and by_time is None
        if self.state.position.finished:
            self.save_now(is_best)
        elif (due or is_best) and not never:
            self.save(is_best)

    def save(self, is_best: bool = False) -> None:
        """Hand the state over to the writer, which works beside training."""
        began = time.perf_counter()
        self.usage.note(self.state.position)
        taken = snapshot(self.parts.model, self.parts.optimizer, self.average, self.state, self.fingerprints)
        self.writer.save(taken, is_best)
        self.saved_at = time.perf_counter()
        self.saving_s += self.saved_at - began

    def save_now(self, is_best: bool = False) -> None:
        """Save, and wait until it is on the disk."""
        self.writer.wait()
        if self.writer.last_step != self.state.position.step or is_best:
            self.save(is_best)
            self.writer.wait()
        if self.writer.last_step != self.state.position.step:
            raise GateError(f"Step {self.state.position.step} could not be saved: {' '.join(self.writer.events())}")

    def turn_back(self, loss: float, norms: dict[str, float], n_targets: int, clock: Clock) -> StepReport:
        """The update was refused: stop with the last good state saved, or go back and pass over the batches since."""
        said, failed_at = self.events, self.state.position.step + self.state.position.batch_offset
        report = StepReport(self.state.position.step, loss, self.lr(), math.hypot(*norms.values()), n_targets,
                            self.state.position.elapsed_s, clock.spent, n_steps=self.pace.n_steps, events=tuple(said))  # fmt: skip
        self.metrics.append({"step": report.step, "event": said[-1]})
        self.writer.wait()
        n_roll_backs = self.state.guard.n_roll_backs + 1
        if self.verdict == "stop":
            raise GateError(
                f"Training stopped before the update: {said[-1]}. The last good checkpoint is kept in {self.run.checkpoints}."
            )
        self.events, model = [], cast(Any, self.parts.model)
        model.watched = False
        if not self.resume():
            raise GateError(f"Training stopped: {said[-1]}, and there is no checkpoint yet to roll back to.")
        self.state.guard.n_roll_backs = n_roll_backs
        self.state.position.batch_offset = failed_at + 1 - self.state.position.step
        self.events += [
            f"rolled back to step {self.state.position.step}: {said[-1]}; the batches since are passed over"
        ]
        return report


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed what dropout draws from. torch.manual_seed would do, but takes 0.6 ms: for every kind of accelerator that is
    not there it keeps the seed for later, with the call's whole stack, and never forgets one."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def make_parts(recipe: Recipe, card: DataCard, choices: Choices) -> Parts:
    """Model, task, optimizer and clipping of a run."""
    model = build_model(recipe, card, choices)
    train = recipe.train
    max_norm, clip_value = (None if x == "none" else float(x) for x in (train.max_norm, train.clip_value))
    task: Any = recipe.task
    return Parts(
        model.train(), task, build_optimizer(recipe, model, choices), Alone(), norm_limit(model, max_norm), clip_value,
        train.l2, train.l1,
    )  # fmt: skip


def open_loader(recipe: Recipe, run: RunFolder, card: DataCard, choices: Choices) -> Loader | SampleLoader:
    """Batches of the training split, in the order that (seed, step) gives."""
    data: Any = recipe.data
    model: Any = recipe.model
    if isinstance(data, SampleSource):
        task: Any = recipe.task
        split = data.open(run.data, card, "train")
        return SampleLoader(split, choices.batch, recipe.seed, recipe.train.workers, task.change)
    shard = open_split(run.data, "train")
    return Loader(shard, model.context, choices.batch, recipe.seed, n_workers=recipe.train.workers, pack=data.pack)
