"""Choose by timing: precision, operations, attention, micro-batch, compilation, at the shape in hand, on real batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

from danlu.base import native
from danlu.models.decoder_settings import DecoderShape
from danlu.planning import priors
from danlu.planning.choices import Choices
from danlu.planning.draft import Draft
from danlu.planning.layouts import Bench
from danlu.planning.memory import training_memory
from danlu.planning.trials import TimeSteps

PROVISIONAL_BATCH = 16
"""Samples of a step that is timed before the batch is known."""
N_TIMED, AT_LEAST_S = 3, 0.15
BETTER = 0.97
"""A rival must take at most this share of the time to replace what there is: below that it is noise."""
MEMORY_SHARE = 0.7
"""Of the free memory, what a step may be expected to take (Fujii 2024: below 80% of the estimate nothing ran out)."""
TIMING_SHARE, THREADS_SHARE = 0.25, 0.5
"""Of plan.budget, what has been spent when no other layout is timed any more; threads, which matter most, are timed longer."""
DEARER, AT_UPDATES, POWER, MOST_BATCH = 0.055, 800.0, 0.75, 4096
"""Twice the batch needs DEARER more samples for the same loss where AT_UPDATES updates are left, more by this power where fewer
are: 5.5% and 9% at 800 and 400 updates (medians over five language models, each batch at its best rate: benchmarks/optimizers.md).
Samples that a batch is doubled to at most."""
COMPILE_S, COMPILE_SHARE = 60.0, 0.5
"""What torch.compile is taken to cost before it was tried (3 to 100 s were seen); share of plan.budget that must hold it, so that the
rate can still be measured."""


def first_choices(draft: Draft, shape: DecoderShape) -> Choices:
    """Where the timing starts: given settings, laws for the rest, the usual winner for what will be timed."""
    recipe, machine, model = draft.recipe, draft.machine, draft.recipe.model
    draft.note_length(shape)
    batch = recipe.train.batch if recipe.train.batch != "auto" else PROVISIONAL_BATCH
    precision = recipe.train.precision
    if precision == "auto":
        precision = "bf16" if machine.has_bf16 else "fp32"
    attention = getattr(model, "attention", "auto")
    if attention == "auto":
        attention = "blocks" if machine.device == "cpu" else "fused"
    has_native = machine.device == "cpu" and native.load() is not None and recipe.train.compile is not True
    chosen = {name: getattr(shape, name) for name in ("n_layers", "width", "n_heads", "n_kv_heads")}
    micro_batch = recipe.train.micro_batch
    choices = Choices(
        device=machine.device, threads=machine.threads, precision=precision, attention=attention,
        operations="native" if has_native else "plain", compile=recipe.train.compile is True, batch=batch,
        recompute=recipe.train.recompute is True,
        micro_batch=batch if micro_batch == "auto" else min(micro_batch, batch), n_steps=1, model=chosen,
        optimizer=draft.placeholders, evaluate_every=None, signals_every=None, save_every_steps=None,
        save_every_s=None, ema=None if recipe.train.ema == "none" else recipe.train.ema,
    )  # fmt: skip
    if recipe.train.batch == "auto" and draft.length.unit != "seconds":
        choices = with_batch(draft, shape, choices, draft.length_tokens(PROVISIONAL_BATCH))
    return choices if micro_batch != "auto" else that_fits(draft, shape, choices)


def with_batch(draft: Draft, shape: DecoderShape, choices: Choices, n_tokens: float) -> Choices:
    """The batch that the law gives for a run of so many tokens."""
    batch = draft.decide(priors.batch(draft.facts(shape, n_tokens)))
    given = draft.recipe.train.micro_batch
    return choices.model_copy(update={"batch": batch, "micro_batch": batch if given == "auto" else min(given, batch)})


def that_fits(draft: Draft, shape: DecoderShape, choices: Choices) -> Choices:
    """Halve the micro-batch until the estimate is well inside the free memory."""
    limit = MEMORY_SHARE * draft.machine.available_bytes
    while choices.micro_batch > 1 and memory_of(draft, shape, choices) > limit:
        choices = choices.model_copy(update={"micro_batch": (choices.micro_batch + 1) // 2})
    return choices


def memory_of(draft: Draft, shape: DecoderShape, choices: Choices) -> int:
    """Expected peak bytes of a step."""
    settings: Any = draft.recipe.optimizer
    how = (settings.kind, choices.precision, choices.attention, choices.ema is not None)
    return training_memory(shape, choices.micro_batch, *how).total


SETTINGS = {
    "threads": "train.threads",
    "precision": "train.precision",
    "attention": "model.attention",
    "micro_batch": "train.micro_batch",
}
"""What the dials are called in a recipe; operations are the machine's affair."""


def rivals(draft: Draft, choices: Choices) -> list[tuple[str, list[Any]]]:
    """Dials that are open, with the other positions to try, the likeliest gains first."""
    train, model = draft.recipe.train, draft.recipe.model
    dials: list[tuple[str, list[Any]]] = []
    if choices.device == "cpu" and choices.operations == "native":
        dials.append(("operations", ["plain"]))
    if train.precision == "auto" and draft.machine.has_bf16:
        dials.append(("precision", ["fp32"]))
    if getattr(model, "attention", "auto") == "auto":
        dials.append(("attention", ["fused" if choices.attention == "blocks" else "blocks"]))
    return dials


def time_choices(draft: Draft, shape: DecoderShape, choices: Choices, time_steps: TimeSteps) -> tuple[Choices, float]:
    """One dial at a time from the first choices, within plan.budget: (the fastest, its median seconds a step)."""
    best = time_steps(choices, N_TIMED, AT_LEAST_S)
    deadline = deadline_of(draft, choices.batch, median(best))
    for dial, options in rivals(draft, choices):
        choices, best = time_dial(draft, choices, best, dial, options, time_steps, deadline)
    train, length = draft.recipe.train, draft.length
    if train.batch == "auto" and length.unit == "seconds":
        known = {choices.batch: min(best)}
        n_tokens = length.amount * choices.batch * draft.context / median(best)
        choices = that_fits(draft, shape, with_batch(draft, shape, choices, n_tokens))
        best = time_steps(choices, N_TIMED, AT_LEAST_S)
        known[choices.batch] = min(best)
        choices, best = in_time(draft, choices, best, time_steps, known, partial(that_fits, draft, shape))
    if train.micro_batch == "auto":
        choices, best = time_dial(draft, choices, best, "micro_batch", smaller(choices), time_steps, deadline)
    return try_compile(draft, choices, median(best), time_steps)


def in_time(
    draft: Draft, choices: Choices, best: list[float], time_steps: TimeSteps, known: dict[int, float],
    fitted: Callable[[Choices], Choices],
) -> tuple[Choices, list[float]]:  # fmt: skip
    """The law's batch, or a larger one with which the same seconds end lower, its samples being so much cheaper. `known`: seconds
    of a step by batch; a step's seconds lie on a line. `fitted`: the layout within the memory."""
    seconds = draft.length.amount
    is_whole = (
        draft.recipe.train.micro_batch == "auto" and choices.micro_batch == choices.batch
    )  # memory did not cut it

    def layout(factor: int) -> Choices:
        micro_batch = choices.micro_batch * factor if is_whole else choices.micro_batch
        larger = choices.model_copy(update={"batch": choices.batch * factor, "micro_batch": micro_batch})
        return fitted(larger) if is_whole else larger

    law = next(d for d in draft.decisions if d.name == "train.batch")
    if draft.left_s(seconds) <= 0:
        draft.revise(replace(law, why=f"{law.why} No larger one was timed: nothing of plan.budget is left."))
        return choices, best
    if len(known) == 1:
        known[2 * choices.batch] = min(time_steps(layout(2), N_TIMED, AT_LEAST_S))
    factor = doublings(choices.batch, known, seconds)
    trial = layout(factor)
    times = time_steps(trial, N_TIMED, AT_LEAST_S) if factor > 1 else best
    share = min(times) / (factor * min(best))
    if factor == 1 or not ends_lower(share, factor, seconds / min(times)):
        told = "does not fit the memory" if share == float("inf") else "would not end lower in the same time"
        draft.revise(replace(law, why=f"{law.why} A larger one {told}."))
        return choices, best
    why = f"{law.why} In {factor} times as many a sample takes {share:.0%} of the seconds: the same time ends lower."
    draft.revise(replace(law, value=trial.batch, origin="measured", why=why, high=max(law.high or 0, 2 * trial.batch)))
    return trial, times


def doublings(batch: int, known: dict[int, float], run_s: float) -> int:
    """How many times the batch is worth trying, a power of two, by the line through the seconds of a step of two batches."""
    other, factor = next(b for b in known if b != batch), 1
    slope = (known[other] - known[batch]) / (other - batch)
    while factor * batch < MOST_BATCH:
        now, then = (known[batch] + slope * (n * factor - 1) * batch for n in (1, 2))
        if then <= now or not ends_lower(then / (2 * now), 2, run_s / then):
            break
        factor *= 2
    return factor


def ends_lower(share: float, factor: int, n_updates: float) -> bool:
    """Whether `factor` times the batch ends lower in the same time: its samples take this share of the seconds, and so many
    updates are left."""
    samples = 1.0 if n_updates > 0 else float("inf")
    for k in range(factor.bit_length() - 1):
        samples *= 1 + DEARER * (AT_UPDATES / max(1e-9, n_updates * 2**k)) ** POWER
    return share * samples < BETTER


def smaller(choices: Choices) -> list[int]:
    """Micro-batches that may be faster than the one at hand: what is in flight then stays in the caches."""
    return [n for n in (choices.micro_batch // 2, choices.micro_batch // 4) if n >= 1]


def fitted(draft: Draft, choices: Choices, bench: Bench | None) -> Choices:
    """The first layout rehearsed, and cut into smaller micro-batches or recomputed where it would not fit."""
    if bench is None:
        return choices
    train, length = draft.recipe.train, draft.length
    ends = (
        {"time_limit_s": length.amount}
        if length.unit == "seconds"
        else {"n_steps": draft.steps_of(length, choices.batch)}
    )
    run = choices.model_copy(update=ends)  # so that a rehearsal knows what it may cost
    run, why = bench.fitted(run, train.micro_batch == "auto", train.recompute == "auto")
    choices = run.model_copy(update={"n_steps": choices.n_steps, "time_limit_s": None})
    draft.fit, draft.look_s = why, bench.of(choices, is_whole=True).look_s or None
    if choices.recompute and train.recompute == "auto":
        draft.derive("train.recompute", True, why, "measured")
    return choices


def deadline_of(draft: Draft, batch: int, step_s: float, share: float = TIMING_SHARE) -> float:
    """Seconds of planning after which timing must end: its share of plan.budget. A machine's dials are tried before anything else."""
    return draft.spent_s + draft.left_s(draft.run_s(batch, step_s), share)


def time_dial(
    draft: Draft,
    choices: Choices,
    best: list[float],
    dial: str,
    options: list[Any],
    time_steps: TimeSteps,
    deadline: float,
) -> tuple[Choices, list[float]]:
    """Try the other positions of one dial. Rivals are compared by their fastest step, which a busy machine disturbs
    least, but threads by their median: how a busy machine disturbs them is what is asked. A larger gain than BETTER is
    asked for, so that noise moves nothing."""
    typical = median if dial == "threads" else min
    rows: list[dict[str, Any]] = [{"name": str(getattr(choices, dial)), "seconds": typical(best)}]
    untimed = []
    for option in options:
        if draft.spent_s > deadline:
            untimed.append(str(option))
            continue
        trial = choices.model_copy(update={dial: option})
        seconds = time_steps(trial, N_TIMED, AT_LEAST_S)
        rows.append({"name": str(option), "seconds": typical(seconds)})
        if typical(seconds) < BETTER * typical(best):
            choices, best = trial, seconds
    draft.timings[dial] = rows
    said = ", ".join(f"{row['name']} {1e3 * row['seconds']:.3g} ms" for row in rows)
    left = f"; not timed for want of plan.budget: {', '.join(untimed)}" if untimed else ""
    fit = f"; {draft.fit}" if dial == "micro_batch" and draft.fit else ""
    origin = "measured" if len(rows) > 1 else "prior: not timed"
    draft.derive(SETTINGS.get(dial, dial), getattr(choices, dial), f"a step takes: {said}{left}{fit}", origin)
    return choices, best


def try_compile(draft: Draft, choices: Choices, best_s: float, time_steps: TimeSteps) -> tuple[Choices, float]:
    """torch.compile, where it was asked for or where it can pay within the run: tried, with its start counted."""
    asked = draft.recipe.train.compile
    if asked != "auto":
        return choices, best_s
    run_s = draft.run_s(choices.batch, best_s)
    if run_s < 5 * COMPILE_S or draft.left_s(run_s, COMPILE_SHARE) < COMPILE_S:
        why = f"it starts in about {COMPILE_S:.0f} s, too long for a run of {run_s:.0f} s and its plan.budget"
        draft.derive("train.compile", False, why)
        return choices, best_s
    trial = choices.model_copy(update={"compile": True, "operations": "plain"})
    began = draft.spent_s
    seconds = median(time_steps(trial, N_TIMED, AT_LEAST_S))
    start_s = draft.spent_s - began
    draft.timings["compile"] = [{"name": "False", "seconds": best_s}, {"name": "True", "seconds": seconds}]
    pays = seconds * run_s / best_s + start_s < BETTER * run_s
    why = f"a step takes {1e3 * seconds:.3g} ms with it, {1e3 * best_s:.3g} ms without"
    why += f"; it starts in {start_s:.0f} s, the run takes {run_s:.0f} s"
    draft.derive("train.compile", pays, why, "measured")
    return (trial, seconds) if pays else (choices, best_s)
