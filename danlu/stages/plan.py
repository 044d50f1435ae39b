"""Plan: answer every "auto" before training, by a named law or by a timing at the shape in hand, and write it down.

plan.json holds the decisions with their reasons, the timings they rest on, and `choices`: the run with nothing left
open. Training and every resume read only that, so neither the curve nor the schedule hangs on the clock.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from statistics import median
from typing import Any

from danlu.base.contracts import DataCard, Progress
from danlu.base.errors import UserError
from danlu.base.runfolder import RunFolder, read_json
from danlu.base.units import Length, parse_count
from danlu.build import is_samples
from danlu.models.decoder_settings import DecoderShape
from danlu.planning import hardware, ladder, learning_rate, priors
from danlu.planning.choices import Choices
from danlu.planning.draft import LOOKS_SHARE, Draft
from danlu.planning.forks import with_forks
from danlu.planning.journal import Journal
from danlu.planning.layouts import Bench
from danlu.planning.ledger import Decision, write_plan
from danlu.planning.prediction import PEAK_BYTES, predict
from danlu.planning.sizing import MEMORY_SHARE, compute_of, is_open, least_memory, sized, that_fits
from danlu.planning.timing import first_choices, fitted, memory_of, time_choices
from danlu.planning.trials import Lab
from danlu.recipe import Recipe
from danlu.stages.plan_proxy import proxy_of, with_proxy
from danlu.stages.plan_samples import plan_samples
from danlu.training.earlier import expected_loss

USABLE = 0.92
"""Share of a time budget that is planned for; the rest is for checkpoints and a machine that slows down."""
SAVE_EVERY_S = 120.0
N_LOOKS = 20
"""Looks at the validation split during a run, at most LOOKS_SHARE of its time."""
FORWARD_SHARE = 1 / 3
"""A forward pass of a whole step: 2 of 6 FLOPs a parameter."""
N_SIGNALS, SIGNALS_MIN = 50, 10
MEMORY_FACTOR = 1.5
"""One standard deviation of counted memory, a guess that scorecards correct: the count leaves out the program itself."""


def plan(recipe: Recipe, run: RunFolder, progress: Progress, lab: Lab) -> Choices:
    """Resolve, time, write plan.json. `lab` is handed in by the pipeline: stages do not call one another."""
    progress("laws", 0, 4)
    card = DataCard(**read_json(run.data / "card.json"))
    recipe.check_scored(card.splits)
    if is_samples(recipe):
        return plan_samples(recipe, run, card, progress, lab)
    proxy_of(recipe)
    machine = hardware.look(recipe.train.device, recipe.train.threads)
    draft = Draft(recipe, card, machine, journal=lab.journal or Journal())
    check_data(card, draft.context)
    shape = resolve_shape(draft, lab)
    choices = first_choices(draft, shape)
    progress("timing", 1, 4)
    choices = fitted(draft, choices, lab.bench)
    choices, step_s = time_choices(draft, shape, choices, lab.time_steps)
    progress("length and rates", 3, 4)
    choices = settle_length(draft, choices, step_s)
    choices = settle_rates(draft, shape, choices, step_s, lab)
    expect(draft, shape, choices, step_s, lab.bench)
    draft.expect_loss(expected_loss(recipe, run, choices, card))
    write_plan(run, draft.plan(choices, facts(draft, shape, choices, step_s)))
    progress("written", 4, 4)
    return choices


def check_data(card: DataCard, context: int) -> None:
    """Refuse a training split that cannot fill one sample."""
    n_tokens = card.splits["train"].n_tokens if "train" in card.splits else 0
    if n_tokens < context + 1:
        raise UserError(
            "data", f"must give at least {context + 1} training tokens for model.context = {context}", got=n_tokens,
            fix="give more text, fewer cleaning steps, or a shorter model.context",
        )  # fmt: skip


def resolve_shape(draft: Draft, lab: Lab) -> DecoderShape:
    """The model's numbers; a size of auto comes from the budget and the data."""
    settings: Any = draft.recipe.model
    if is_open(settings):
        flops = compute_of(draft.recipe.train.length, draft.n_unique, draft.expected_gflops)
        by_law, law = sized(settings, draft.card.vocab_size, draft.n_unique, flops)
        limit = MEMORY_SHARE * draft.machine.available_bytes
        by_law, law = that_fits(by_law, draft.card.vocab_size, law, limit, partial(least_memory, draft.recipe))
        value = draft.decide(measured_size(draft, by_law, law, lab))
        settings = settings.model_copy(update={"size": parse_count(value)})
    shape: DecoderShape = settings.shape(draft.card.vocab_size)
    why = f"{shape.n_layers} layers of width {shape.width} have {shape.n_parameters:,} parameters"
    for name in ("n_layers", "width", "n_heads", "n_kv_heads"):
        if getattr(settings, name) == "auto":
            draft.derive(f"model.{name}", getattr(shape, name), why)
    return shape


def measured_size(draft: Draft, by_law: Any, law: Decision, lab: Lab) -> Decision:
    """model.size by a ladder of short runs, where plan.budget allows one and the length does not hang on the size."""
    if draft.recipe.plan.budget.unit == "prior" or draft.recipe.train.length == "auto":
        given = "train.length is auto" if draft.recipe.train.length == "auto" else 'plan.budget is "prior"'
        return learning_rate.unmeasured(law, given)

    def shape_of(n_parameters: float) -> DecoderShape | None:
        try:
            shape: DecoderShape = by_law.model_copy(update={"size": round(n_parameters)}).shape(draft.card.vocab_size)
        except UserError:
            return None
        return shape

    aside = Draft(
        draft.recipe, draft.card, draft.machine, journal=draft.journal
    )  # what it notes of the law's size is not the plan's
    choices = first_choices(aside, by_law.shape(draft.card.vocab_size))
    step_s = median(lab.time_steps(choices, 2, 0.0))
    return ladder.measured(law, shape_of, draft, choices, step_s, lab.run_trial)


def settle_length(draft: Draft, choices: Choices, step_s: float) -> Choices:
    """Steps of the run, and how often it looks, measures and saves."""
    recipe, every = draft.recipe, draft.recipe.evaluate.every
    n_looked = min(recipe.evaluate.during_tokens, draft.n_validation)
    look_s = draft.look_s or FORWARD_SHARE * step_s * n_looked / (choices.batch * draft.context)
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
        why = f"{length} at {choices.batch} samples of {draft.context} tokens a step"
    draft.derive("train.n_steps", n_steps, why)
    n_looks = min(N_LOOKS, max(1.0, LOOKS_SHARE * n_steps * step_s / max(look_s, 1e-9)))
    saves = recipe.checkpoint.save_every
    by_time = (
        SAVE_EVERY_S
        if saves == "auto"
        else saves.amount
        if isinstance(saves, Length) and saves.unit == "seconds"
        else None
    )
    update = {
        "n_steps": n_steps,
        "time_limit_s": limit_s,
        "look_share": share,
        "evaluate_every": draft.interval(every, choices.batch, step_s, max(1, round(n_steps / n_looks))),
        "signals_every": draft.interval(recipe.train.signals, choices.batch, step_s, max(SIGNALS_MIN, n_steps // N_SIGNALS)),
        "save_every_s": by_time,
        "save_every_steps": None if by_time or saves == "never" else draft.interval(saves, choices.batch, step_s, 1),
    }  # fmt: skip
    if not draft.n_validation:
        update["evaluate_every"] = None
    if every == "auto":
        n, looks = update["evaluate_every"], f"about {n_looks:.0f} looks, at most {LOOKS_SHARE:.0%} of the time"
        why = looks if n else "there is no validation split to look at"
        draft.derive("evaluate.every", f"{n} steps" if n else "never", why)
    return with_forks(draft, choices.model_copy(update=update), step_s, look_s)


def settle_rates(draft: Draft, shape: DecoderShape, choices: Choices, step_s: float, lab: Lab) -> Choices:
    """Learning rate and weight decay, now that length and batch are known."""
    settings: Any = draft.recipe.optimizer
    facts = draft.facts(shape, choices.n_steps * choices.batch * draft.context, choices.batch)
    resolved: dict[str, Any] = draft.beta2(choices, shape.n_hidden_parameters)
    if getattr(settings, "ns_precision", None) == "auto":
        resolved["ns_precision"] = "bf16" if draft.machine.has_bf16 else "fp32"
    decay = getattr(settings, "weight_decay", None)
    law = priors.learning_rate(facts)
    if settings.lr == "auto":
        law = with_proxy(draft.recipe, law, shape, choices)
        by_law = priors.weight_decay(dataclasses.replace(facts, lr=law.value)).value if decay == "auto" else decay
        short = choices.model_copy(update={"optimizer": resolved | ({} if decay is None else {"weight_decay": by_law})})
        resolved["lr"] = draft.decide(learning_rate.settle(law, draft, short, step_s, lab.run_trial))
    else:
        resolved["lr"] = draft.given(learning_rate.dear(settings.lr, law), settings.lr)
    if decay is not None:
        facts = dataclasses.replace(facts, lr=resolved["lr"])
        resolved["weight_decay"] = decay if decay != "auto" else draft.decide(priors.weight_decay(facts))
    draft.recipe.schedule.lr_at(choices.n_steps - 1, choices.n_steps, resolved["lr"])  # type: ignore[attr-defined]  # refuses what does not fit
    return choices.model_copy(update={"optimizer": resolved})


def expect(draft: Draft, shape: DecoderShape, choices: Choices, step_s: float, bench: Bench | None) -> None:
    """What the run is expected to take and to reach; it is held against that afterwards."""
    if bench is not None:
        return draft.expect_rehearsed(choices, bench)
    draft.expect_time(choices, step_s)
    why = "weights, gradients, optimizer state and activations of one micro-batch, counted"
    peak = memory_of(draft, shape, choices)
    draft.predictions.append(predict(PEAK_BYTES, peak, "bytes", why, "counted", factor=MEMORY_FACTOR))


def facts(draft: Draft, shape: DecoderShape, choices: Choices, step_s: float) -> dict[str, float]:
    """Counts of the run, and how near its speed comes to the machine's limit."""
    flops = shape.flops_per_token() * choices.batch * draft.context
    return {
        "n_parameters": shape.n_parameters,
        "n_hidden_parameters": shape.n_hidden_parameters,
        "n_tokens": choices.n_steps * choices.batch * draft.context,
        "flops_per_token": shape.flops_per_token(),
        "tokens_per_s": round(choices.batch * draft.context / step_s, 1),
        "matmul_gflops": round(draft.limit.gflops, 1),
        "matmul_share": round(flops / step_s / 1e9 / draft.limit.gflops, 4),
    }
