"""Plan for samples by number (tables, images, audio, ...): the same page of decisions as for text, by simpler laws.

There are no published scaling laws for most of these models, so every "auto" is answered by a house rule that says
so, or by a timing of real steps. A measurement takes the rules' place where plan.budget allows one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import Any

from danlu.base.contracts import DataCard, Progress
from danlu.base.errors import UserError
from danlu.base.runfolder import RunFolder
from danlu.base.units import Length
from danlu.build import network, on_meta
from danlu.planning import hardware, learning_rate, sample_laws
from danlu.planning.choices import Choices
from danlu.planning.draft import LOOKS_SHARE, Draft
from danlu.planning.forks import with_forks
from danlu.planning.journal import Journal
from danlu.planning.ledger import write_plan
from danlu.planning.memory import SLOTS
from danlu.planning.prediction import PEAK_BYTES, unknown
from danlu.planning.timing import (
    AT_LEAST_S,
    N_TIMED,
    THREADS_SHARE,
    TIMING_SHARE,
    deadline_of,
    fitted,
    in_time,
    smaller,
    time_dial,
)
from danlu.planning.trials import Lab, TimeSteps
from danlu.recipe import Recipe
from danlu.training.earlier import expected_loss

USABLE = 0.95
"""Share of a time budget that is planned for; the rest is for checkpoints and a machine that slows down."""
SAVE_EVERY_S = 120.0
N_LOOKS = 20
"""Looks at the validation split during a run, at most LOOKS_SHARE of its time."""
FORWARD_SHARE = 1 / 3
N_SIGNALS, SIGNALS_MIN = 50, 10


@dataclass
class SampleDraft(Draft):
    """A plan over samples: one sample is one unit, so a context is 1."""

    n_parameters: int = 0
    """Of the model."""

    @property
    def context(self) -> int:
        """One."""
        return 1

    @property
    def n_unique(self) -> int:
        """Samples of the training split."""
        return self.card.splits["train"].n_samples

    @property
    def n_validation(self) -> int:
        """Samples of the validation split, 0 without one."""
        return self.card.splits["validation"].n_samples if "validation" in self.card.splits else 0

    @property
    def n_seen(self) -> float:
        """Samples that the run sees, repeats counted; infinite where the length is a time or counts updates."""
        length = self.length
        each = {"samples": 1.0, "epochs": float(self.n_unique)}
        return length.amount * each.get(length.unit, math.inf)

    @property
    def length(self) -> Length:
        """train.length, or the house rule's number of epochs."""
        given = self.recipe.train.length
        if not isinstance(given, Length):
            return Length(float(sample_laws.epochs(self.n_unique).value.split()[0]), "epochs")
        if given.unit == "tokens":
            fix = 'write epochs, steps, samples or a time, such as "20 epochs"'
            raise UserError("train.length", f"cannot count tokens of {self.card.kind} data", got=str(given), fix=fix)
        return given


def plan_samples(recipe: Recipe, run: RunFolder, card: DataCard, progress: Progress, lab: Lab) -> Choices:
    """Resolve, time, write plan.json."""
    machine = hardware.look(recipe.train.device, recipe.train.threads)
    draft = SampleDraft(recipe, card, machine, journal=lab.journal or Journal())
    if recipe.plan.proxy != "none":
        raise UserError(
            "plan.proxy", "carries rates over between decoders only", got=recipe.plan.proxy, fix='write "none"'
        )
    if draft.n_unique < 1:
        raise UserError("data", "must give at least one training sample", got=0, fix="see data.split")
    draft.n_parameters = n_parameters = sum(p.numel() for p in meta_network(recipe, card).parameters())
    choices = first_choices(draft)
    progress("timing", 1, 4)
    choices = fitted(draft, choices, lab.bench)
    choices, step_s = time_choices(draft, choices, lab.time_steps)
    progress("length and rates", 3, 4)
    choices = settle_rates(draft, settle_length(draft, choices, step_s), step_s, lab)
    slots = SLOTS.get(getattr(recipe.optimizer, "kind", ""), 2) + (choices.ema is not None)
    if lab.bench is not None:
        draft.expect_rehearsed(choices, lab.bench)
    else:
        draft.expect_time(choices, step_s)
        draft.predictions.append(unknown(PEAK_BYTES, "bytes", "memory of activations was not measured"))
    draft.expect_loss(expected_loss(recipe, run, choices, card))
    facts = {
        "n_parameters": n_parameters,
        "n_samples": choices.n_steps * choices.batch,
        "samples_per_s": round(choices.batch / step_s, 1),
        "weights_bytes": 4 * n_parameters * (2 + slots),
    }
    write_plan(run, draft.plan(choices, facts))
    progress("written", 4, 4)
    return choices


def meta_network(recipe: Recipe, card: DataCard) -> Any:
    """The network without memory, for its counts."""
    with on_meta():
        return network(recipe.model, recipe.task, card, recipe.seed)


def first_choices(draft: SampleDraft) -> Choices:
    """Where the timing starts."""
    recipe, machine = draft.recipe, draft.machine
    train = recipe.train
    batch = train.batch if train.batch != "auto" else draft.decide(sample_laws.batch(draft.n_unique, draft.n_seen))
    if train.length == "auto":
        draft.decide(sample_laws.epochs(draft.n_unique))
    micro_batch = batch if train.micro_batch == "auto" else min(train.micro_batch, batch)
    return Choices(
        device=machine.device, threads=machine.threads, attention="fused", operations="plain",
        precision="fp32" if train.precision == "auto" else train.precision, compile=train.compile is True,
        recompute=train.recompute is True,
        batch=batch, micro_batch=micro_batch, n_steps=1, model={}, optimizer=draft.placeholders,
        evaluate_every=None, signals_every=None, save_every_steps=None, save_every_s=None,
        ema=None if train.ema == "none" else train.ema,
    )  # fmt: skip


def time_choices(draft: SampleDraft, choices: Choices, time_steps: TimeSteps) -> tuple[Choices, float]:
    """Threads and precision by timing, where they are open: (the fastest, its median seconds a step). Small models are
    often faster on one thread than on all, and on a busy machine most are."""
    train, best = draft.recipe.train, time_steps(choices, N_TIMED, AT_LEAST_S)
    if train.batch == "auto" and draft.length.unit == "seconds":
        choices, best = batch_in_time(draft, choices, best, time_steps)
    deadline, last = (deadline_of(draft, choices.batch, median(best), share) for share in (TIMING_SHARE, THREADS_SHARE))
    if train.threads == "auto" and choices.device == "cpu" and choices.threads > 1:
        fewer = sorted({choices.threads // 2, 1}, reverse=True)
        choices, best = time_dial(draft, choices, best, "threads", fewer, time_steps, last)
    if train.precision == "auto" and draft.machine.has_bf16:
        choices, best = time_dial(draft, choices, best, "precision", ["bf16"], time_steps, deadline)
    if train.micro_batch == "auto":
        choices, best = time_dial(draft, choices, best, "micro_batch", smaller(choices), time_steps, deadline)
    return choices, median(best)


def batch_in_time(
    draft: SampleDraft, choices: Choices, best: list[float], time_steps: TimeSteps
) -> tuple[Choices, list[float]]:
    """The batch, now that it is known how many samples the time allows: smaller where they would make too few updates."""
    law = sample_laws.batch(draft.n_unique, draft.length.amount * choices.batch / median(best))
    if law.value >= choices.batch:
        return choices, best
    known = {choices.batch: min(best)}
    draft.revise(law)
    update = {"batch": law.value, "micro_batch": min(choices.micro_batch, law.value)}
    choices = choices.model_copy(update=update)
    best = time_steps(choices, N_TIMED, AT_LEAST_S)
    known[choices.batch] = min(best)
    return in_time(draft, choices, best, time_steps, known, lambda layout: layout)


def settle_length(draft: SampleDraft, choices: Choices, step_s: float) -> Choices:
    """Steps of the run, and how often it looks, measures and saves."""
    recipe, every = draft.recipe, draft.recipe.evaluate.every
    n_looked = min(recipe.evaluate.during_samples, draft.n_validation)
    look_s = draft.look_s or FORWARD_SHARE * step_s * n_looked / choices.batch
    share = draft.look_share(look_s, draft.run_s(choices.batch, step_s))
    look_s *= share
    length, limit_s = draft.length, None
    if length.unit == "seconds":
        limit_s = length.amount
        n_looks = 0.0 if every == "never" else min(N_LOOKS, LOOKS_SHARE * limit_s / max(look_s, 1e-9))
        n_steps = max(1, int((USABLE * limit_s - n_looks * look_s) / step_s))
        why = f"{USABLE:.0%} of {limit_s:g} s, less {n_looks:.0f} looks of {look_s:.2g} s, at {step_s:.3g} s a step"
    else:
        n_steps = draft.steps_of(length, choices.batch)
        why = f"{length} of {draft.n_unique:,} samples at {choices.batch} a step"
    draft.derive("train.n_steps", n_steps, why)
    n_looks = min(N_LOOKS, max(1.0, LOOKS_SHARE * n_steps * step_s / max(look_s, 1e-9)))
    saves = recipe.checkpoint.save_every
    timed = isinstance(saves, Length) and saves.unit == "seconds"
    by_time = SAVE_EVERY_S if saves == "auto" else saves.amount if timed else None  # type: ignore[union-attr]
    signals = max(SIGNALS_MIN, n_steps // N_SIGNALS)
    update: dict[str, Any] = {
        "n_steps": n_steps,
        "time_limit_s": limit_s,
        "look_share": share,
        "evaluate_every": draft.interval(every, choices.batch, step_s, max(1, round(n_steps / n_looks))),
        "signals_every": draft.interval(recipe.train.signals, choices.batch, step_s, signals),
        "save_every_s": by_time,
        "save_every_steps": None if by_time or saves == "never" else draft.interval(saves, choices.batch, step_s, 1),
    }
    if not draft.n_validation:
        update["evaluate_every"] = None
    if every == "auto":
        n, looks = update["evaluate_every"], f"about {n_looks:.0f} looks, at most {LOOKS_SHARE:.0%} of the time"
        why = looks if n else "there is no validation split to look at"
        draft.derive("evaluate.every", f"{n} steps" if n else "never", why)
    return with_forks(draft, choices.model_copy(update=update), step_s, look_s)


def settle_rates(draft: SampleDraft, choices: Choices, step_s: float, lab: Lab) -> Choices:
    """Learning rate and weight decay."""
    settings: Any = draft.recipe.optimizer
    kind = settings.kind
    resolved: dict[str, Any] = {}
    if hasattr(settings, "weight_decay"):
        decay = settings.weight_decay
        resolved["weight_decay"] = decay if decay != "auto" else draft.decide(sample_laws.weight_decay(kind))
    resolved |= draft.beta2(choices)
    if getattr(settings, "ns_precision", None) == "auto":
        resolved["ns_precision"] = "bf16" if draft.machine.has_bf16 else "fp32"
    law = sample_laws.learning_rate(kind, settings, choices.batch, draft.n_parameters)
    if settings.lr == "auto":
        short = choices.model_copy(update={"optimizer": resolved})
        resolved["lr"] = draft.decide(learning_rate.settle(law, draft, short, step_s, lab.run_trial))
    else:
        resolved["lr"] = draft.given(learning_rate.dear(settings.lr, law), settings.lr)
    draft.recipe.schedule.lr_at(choices.n_steps - 1, choices.n_steps, resolved["lr"])  # type: ignore[attr-defined]  # refuses what does not fit
    return choices.model_copy(update={"optimizer": resolved})
