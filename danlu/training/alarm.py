"""The alarm: looks at a run while it trains and hands what it saw to the diagnosis (danlu/trust), one record a step.

Nothing here changes the run: what is tried is tried on copies, buffers that a look would move are put back, and the
generators are seeded anew for each step anyway. Weights are bit for bit those of a run without the alarm (tested).

Cost: a hash and sums of each batch; after every GAIN_EVERY-th watched step one more forward pass; N_PROBES forward
passes in evaluation mode. Learning one batch by heart is tried only in a run that does not learn.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from danlu.base.contracts import Batch, DataCard, Output
from danlu.base.runfolder import RunFolder
from danlu.data.samples import SampleLoader, fixed_seeds
from danlu.planning.choices import Choices
from danlu.recipe import Recipe
from danlu.training.sightings import Sightings
from danlu.training.signals import Watch
from danlu.training.update import Parts
from danlu.trust.diagnose import Diagnosis
from danlu.trust.findings import Finding

GAIN_EVERY, N_PROBES = 3, 6
FIRST_LOOK, N_RECENT = 30, 15
"""Updates after which a run should have learned something; losses that say whether it has."""
ONE_BATCH, ONE_BATCH_STEPS, ONE_BATCH_LR = 16, 80, 3e-3
"""Samples, updates and rate of the attempt to learn one batch by heart."""
CONSTANT_STEPS, CONSTANT_LR = 120, 0.1
"""Updates and rate that find the best constant answer."""
NOT_LEARNED, STILL_FALLS = 0.95, 0.01
"""Of the best constant answer's loss: what a run that learns is below, and what it falls by in N_RECENT updates."""
COPY_BYTES, COPY_SHARE = 16, 0.1
"""Of a parameter in the copy that learns by heart (weight, gradient, Adam's two), and its most of the memory that is free."""


class Alarm:
    """Around each update: `see` the batch, look `before` it, say what was found `after` it."""

    def __init__(
        self, recipe: Recipe, run: RunFolder, card: DataCard, choices: Choices, loader: Any, diagnosis: Diagnosis
    ) -> None:  # fmt: skip
        self.task: Any = recipe.task
        self.choices, self.loader, self.diagnosis = choices, loader, diagnosis
        self.sightings = Sightings(recipe, run, card, loader)
        self.batches: Sequence[Batch] = ()
        self.names: list[str] = []
        self.record: dict[str, Any] = {}

    def see(self, step: int, batches: Sequence[Batch]) -> None:
        """The micro-batches of update `step` (0-based), still on the CPU."""
        self.batches = batches
        self.record = {"step": step + 1, "batch": self.sightings.see(batches)}
        if self.sightings.pooled:
            self.record["pool"], self.sightings.pooled = self.sightings.pooled, {}

    def before(self, model: nn.Module, step: int) -> bool:
        """Looks at the model before update `step`: where it starts, whether it has learned, how it does on samples it has
        not seen. Whether it looked."""
        memory, looks = self.diagnosis, 0
        if step == 0:
            self.record["start"] = self.start(model) | self.sightings.facts
            looks += 1
        elif self.is_due(step):
            self.look_for_progress(model)
            looks += 1
        if memory.fresh_validation is not None:
            self.record["probe"] = [self.plain_loss(model), memory.fresh_validation]
            memory.fresh_validation = None
            looks += 1
        return looks > 0

    def after(
        self, parts: Parts, loss: float, lr: float, norms: Mapping[str, float], watch: Watch | None,
        reseed: Callable[[], None],
    ) -> list[Finding]:  # fmt: skip
        """Findings after the update. `reseed` sets the generators to where the step began."""
        record = self.record | {"loss": loss, "norm": math.hypot(*norms.values()), "lr": lr}
        self.names = self.names or [n for n, p in parts.model.named_parameters() if p.requires_grad]
        record["zero"] = [n for n in self.names if not norms.get(n, 0.0) > 0]
        if watch is not None and watch.seen:
            record["layers"] = watch.seen
            if watch.predicted is not None and not (parts.l2 or parts.l1):
                reseed()
                record["gain"] = [watch.predicted, self.training_loss(parts.model) - loss]
        return self.diagnosis.see(record)

    def wants_gain(self) -> bool:
        """Whether this watched step is one whose gain is measured."""
        self.diagnosis.n_watched += 1
        return self.diagnosis.n_watched % GAIN_EVERY == 1

    def validated(self, step: int, loss: float) -> None:
        """A validation loss of the weights as they are; a few of them are held against the next training batch."""
        if getattr(self.task, "label_smoothing", 0.0):
            return  # tasks leave it out of a validation loss
        n_due = N_PROBES * step // self.choices.n_steps
        if n_due > self.diagnosis.n_probes and math.isfinite(loss):
            self.diagnosis.fresh_validation = loss

    @torch.no_grad()
    def start(self, model: nn.Module) -> dict[str, Any]:
        """Loss of the fresh model, and of one whose scores are all 0: ln V of a softmax, the target's square of a
        regression. Also what the judgement must know of the run."""
        facts: dict[str, Any] = {
            "n_steps": self.choices.n_steps, "peak_lr": self.choices.optimizer["lr"], "task": self.task.kind,
            "epoch": len(self.loader) / self.choices.batch, "batch": self.choices.batch,
            "targets": max(1, sum(b.n_targets for b in self.batches)),
        }  # fmt: skip
        batch = self.batches[0].to(device_of(model))
        model.eval()
        output = model(batch)
        model.train()
        blank = blanked(output)
        if blank is None:
            return facts
        n = max(1, batch.n_targets)
        return facts | {
            "first": float(self.task.loss_sum(output, batch)) / n,
            "blank": float(self.task.loss_sum(blank, batch)) / n,
        }

    def is_due(self, step: int) -> bool:
        """Whether it is time to ask whether the run learns: at a tenth of it, and again until its half while it may."""
        first, n_steps = max(FIRST_LOOK, self.choices.n_steps // 10), self.choices.n_steps
        since = step - first
        return since == 0 or (
            since > 0 and since % FIRST_LOOK == 0 and step <= n_steps // 2 and self.diagnosis.may_not_learn
        )

    def look_for_progress(self, model: nn.Module) -> None:
        """Where the loss is still that of the best constant answer and no longer falls: can the model learn one batch by
        heart? While it falls it is asked again later; where the copy would be too much for the memory, never."""
        before, recent = self.diagnosis.losses[-2 * N_RECENT : -N_RECENT], self.diagnosis.losses[-N_RECENT:]
        constant, self.diagnosis.may_not_learn = self.constant_loss(model, self.batches[0]), False
        if constant is None or not before:
            return
        self.record.setdefault("constant", constant)
        now = statistics.median(recent)
        if now <= NOT_LEARNED * constant:
            return
        if statistics.median(before) - now > STILL_FALLS * abs(constant):
            self.diagnosis.may_not_learn = True
        elif has_room_for(model):
            self.record["one_batch"] = self.learn_one_batch(model)

    def constant_loss(self, model: nn.Module, batch: Batch) -> float | None:
        """Loss per target of the best answer that ignores the sample; None where outputs are not plain scores."""
        batch = batch.to(device_of(model))
        if self.task.kind in ("language", "chat", "masked"):
            targets = batch.tensors["targets"]
            shares = torch.bincount(targets[targets >= 0]).double() / max(1, batch.n_targets)
            return float(-(shares * shares.clamp_min(1e-12).log()).sum())
        model.eval()
        with torch.no_grad():
            output = model(batch)
        model.train()
        if output.scores is None or self.task.kind == "transcribe":
            return None
        answer = torch.zeros(output.scores.shape[-1], device=output.scores.device, requires_grad=True)

        def loss_of() -> Tensor:
            scores = answer.expand(output.scores.shape)
            loss: Tensor = self.task.loss_sum(dataclasses.replace(output, scores=scores), batch) / batch.n_targets
            return loss

        return min(descend([answer], loss_of, CONSTANT_STEPS, CONSTANT_LR))

    def learn_one_batch(self, model: nn.Module) -> dict[str, float]:
        """A copy of the model trained on a few samples again and again: its first and last loss, and the best constant
        answer's. A model and a batch that are whole go far below that (Karpathy 2019, "overfit one batch")."""
        batch = self.batches[0].rows(slice(0, ONE_BATCH)).to(device_of(model))
        floor = self.constant_loss(model, batch)
        trial = copy.deepcopy(model).eval()
        trained = [p for p in trial.parameters() if p.requires_grad]

        def loss_of() -> Tensor:
            loss: Tensor = self.task.loss_sum(trial(batch), batch) / max(1, batch.n_targets)
            return loss

        losses = descend(trained, loss_of, ONE_BATCH_STEPS, ONE_BATCH_LR, max_norm=1.0)
        return {"first": losses[0], "last": statistics.median(losses[-5:]), "constant": floor or 0.0}

    @torch.no_grad()
    def plain_loss(self, model: nn.Module) -> float:
        """Loss per target of the coming batch in evaluation mode, without augmentation."""
        batches: Sequence[Batch] = self.batches
        if isinstance(self.loader, SampleLoader) and self.loader.augment and batches[0].ids is not None:
            ids = np.concatenate([b.ids for b in batches if b.ids is not None])
            batches = [self.task.change(self.loader.split.batch(ids), fixed_seeds(ids))]
        model.eval()
        device = device_of(model)
        total = sum(float(self.task.loss_sum(model(b.to(device)), b.to(device))) for b in batches)
        model.train()
        return total / max(1, sum(b.n_targets for b in batches))

    def training_loss(self, model: nn.Module) -> float:
        """Loss per target of the batch just trained on, in training mode and with a graph, which tasks may ask for to tell
        training from scoring (label smoothing); running averages are put back."""
        kept = [(b, b.clone()) for b in model.buffers()]
        device = device_of(model)
        total = sum(float(self.task.loss_sum(model(b.to(device)), b.to(device)).detach()) for b in self.batches)
        with torch.no_grad():
            for buffer, old in kept:
                buffer.copy_(old)
        return total / max(1, sum(b.n_targets for b in self.batches))


def device_of(model: nn.Module) -> torch.device:
    """Where it is."""
    return next(model.parameters()).device


def blanked(output: Output) -> Output | None:
    """The same output with all scores 0; None where it has no plain scores."""
    if output.scores is not None:
        return dataclasses.replace(output, scores=torch.zeros_like(output.scores))
    if output.features is not None:
        return dataclasses.replace(output, features=torch.zeros_like(output.features))
    return None


def descend(
    parameters: Sequence[Tensor], loss_of: Callable[[], Tensor], n_steps: int, lr: float, max_norm: float = math.inf
) -> list[float]:
    """Loss before each of n_steps updates by Adam (Kingma & Ba 2015, algorithm 1). Written out because the first step of
    torch.optim loads torch's compiler: 1 to 3 s and 30 MB in the middle of a run."""
    means, squares, losses = [torch.zeros_like(p) for p in parameters], [torch.zeros_like(p) for p in parameters], []
    for step in range(1, n_steps + 1):
        loss = loss_of()
        losses.append(float(loss.detach()))
        found = torch.autograd.grad(loss, list(parameters), allow_unused=True)
        with torch.no_grad():
            norm = math.sqrt(sum(float(g.square().sum()) for g in found if g is not None))
            scale = min(1.0, max_norm / (norm + 1e-6))
            for p, g, mean, square in zip(parameters, found, means, squares, strict=True):
                if g is not None:
                    mean.lerp_(g * scale, 0.1)
                    square.lerp_((g * scale).square(), 0.001)
                    root = (square / (1 - 0.999**step)).sqrt_().add_(1e-8)
                    p.addcdiv_(mean / (1 - 0.9**step), root, value=-lr)
    return losses


def has_room_for(model: nn.Module) -> bool:
    """Whether a copy of the model can be trained beside it."""
    needed = COPY_BYTES * sum(p.numel() for p in model.parameters())
    if device_of(model).type == "cuda":
        free = torch.cuda.mem_get_info(device_of(model))[0]
    else:
        free = psutil.virtual_memory().available
    return bool(needed <= COPY_SHARE * free)
