"""Recipe sections that belong to no shelf: [train] [checkpoint] [evaluate] [plan] [parallel]. No torch at import.

Every field here is read by a stage; a test refuses one that nobody reads.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from danlu.base.settings import Auto, Settings
from danlu.base.units import Budget, BudgetSetting, LengthSetting
from danlu.optim.schedules import SpanSetting

NoneWord = Literal["none"]
Never = Literal["never"]


def parse_on_nonfinite(value: Any) -> str:
    """ "stop", "roll back" or "skip N"; ValueError says what is wanted."""
    if isinstance(value, str) and re.fullmatch(r"stop|roll back|skip [1-9][0-9]{0,5}", value):
        return value
    raise ValueError('must be "stop", "roll back" or "skip N" with N at least 1, such as "skip 3"')


def one_process(procs: int) -> int:
    """Refuse what this version cannot do."""
    if procs != 1:
        raise ValueError("must be 1, because this version trains in one process")
    return procs


OnNonfinite = Annotated[
    str,
    BeforeValidator(parse_on_nonfinite),
    WithJsonSchema(
        {"type": "string", "pattern": "^(stop|roll back|skip [1-9][0-9]*)$", "examples": ["stop", "skip 3"]}
    ),
]
PositiveInt = Annotated[int, Field(ge=1, le=2**40)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class Train(Settings):
    """How long, in what pieces, under which guards the model is trained."""

    length: LengthSetting | Auto = "auto"
    """How long to train: "500 steps", "3 epochs", "2B tokens", "10k samples" or "30 min" (a hard budget: training
    saves and stops inside it). auto: a prior law over parameters and tokens."""
    batch: PositiveInt | Auto = "auto"
    """Samples per update, over all ranks and micro-batches. auto: a prior law."""
    micro_batch: PositiveInt | Auto = "auto"
    """Samples that go through the model together; gradients add up to one batch. It changes memory and speed, never
    the curve. auto: the fastest that fits."""
    max_norm: Annotated[float, Field(gt=0)] | NoneWord = 1.0
    """Gradients are scaled down so that their global norm is at most this (under muP: at the model's base width)."""
    clip_value: Annotated[float, Field(gt=0)] | NoneWord = "none"
    """Each gradient element is cut to plus or minus this, before the norm is taken."""
    ema: Fraction | NoneWord = "none"
    """Decay of an exponential moving average of the weights, such as 0.999; evaluation then uses the average."""
    l2: Annotated[float, Field(ge=0)] = 0.0
    """L2 penalty in the loss: adds l2/2 times the squared norm of the decayed weights. Under adaptive optimizers
    this is not weight decay (Loshchilov and Hutter 2019)."""
    l1: Annotated[float, Field(ge=0)] = 0.0
    """L1 penalty in the loss: adds l1 times the sum of the magnitudes of the same weights (Tibshirani 1996)."""
    start_from: str = "none"
    """A run folder whose best weights this run starts from: those of the same name and shape are taken, the others
    are said. "none": from fresh weights."""
    patience: PositiveInt | NoneWord | Auto = "none"
    """Stop after this many evaluations in a row without a new best validation loss. auto: once three in a row are worse than
    the best by more than chance (three standard errors of their difference on the same pieces of the split)."""
    target: float | NoneWord = "none"
    """Stop once the validation loss is at or below this (nats per target)."""
    plateau: Fraction | NoneWord = "none"
    """Stop when an evaluation lowers the best validation loss by less than this fraction of it."""
    on_nonfinite: OnNonfinite = "stop"
    """A NaN or infinite loss or gradient, found before the update: "stop", "skip N" (drop the update; stop after N in
    a row), or "roll back" (to the last good checkpoint, past the batch)."""
    on_spike: Literal["warn", "skip", "roll back", "none"] = "warn"
    """A loss far above its recent range: "warn", "skip" the update, "roll back", or "none" (do not look)."""
    on_alarm: Literal["warn", "stop", "none"] = "warn"
    """What the signs of a broken run do (loss off its curve, repeated batches, missing gradients, labels shifted by one,
    ...): "warn" says them, "stop" also ends training where the run is not worth going on with, "none" does not look."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of the matrix products; weights and updates stay fp32. auto: bf16 where it measures faster."""
    compile: bool | Auto = "auto"
    """torch.compile. auto: only where a timing says that it pays within this run."""
    recompute: bool | Auto = "auto"
    """Keep only what goes into each block of a deep model and compute the block again in backward (Chen et al. 2016,
    1604.06174): less memory, about a third more time, the same curve. auto: only where it would not fit otherwise."""
    workers: Annotated[int, Field(ge=0, le=256)] = 0
    """Processes that read batches ahead. The order of samples does not depend on it."""
    signals: PositiveInt | Never | Auto = "auto"
    """Every how many steps each layer's gradient norm, update/weight ratio and dead units are measured."""
    deterministic: bool = True
    """The same recipe on the same machine gives the same weights, bit for bit."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train. auto: the GPU when there is one."""
    threads: PositiveInt | Auto = "auto"
    """CPU threads for one process. auto: the physical cores this process may use; on samples by number, fewer where a step
    is faster so."""


class Checkpoint(Settings):
    """When and how training saves itself."""

    save_every: LengthSetting | Never | Auto = "auto"
    """How often to save: "200 steps", "5 min". auto: as often as costs little. A checkpoint is always written at the
    end and on SIGINT or SIGTERM."""
    keep: PositiveInt = 2
    """Newest checkpoints to keep; the best one is kept beside them."""
    asynchronous: bool = True
    """Write in the background while training goes on."""


class Evaluate(Settings):
    """What is scored, on which split, and what is sampled."""

    every: LengthSetting | Never | Auto = "auto"
    """How often training looks at the validation split: "100 steps", "1 min". auto: about twenty times a run."""
    on: Literal["validation", "test", "train"] = "validation"
    """The split that the final scores are computed on; "train" says how well the training data were learned."""
    during_tokens: PositiveInt = 65_536
    """At most this many validation tokens are used by each look during training; the final scores use all."""
    during_samples: PositiveInt = 4096
    """The same for data that are samples by number: rows, images, sentences."""
    samples: Annotated[int, Field(ge=0, le=100)] = 3
    """Texts to generate for the report when no prompts are given."""
    prompts: tuple[str, ...] = ()
    """Beginnings to continue, one sample each; empty: beginnings of validation documents."""
    max_new_tokens: PositiveInt = 200
    """Tokens in each sample."""
    temperature: Annotated[float, Field(ge=0, le=10)] = 0.8
    """Sampling temperature; 0 takes the likeliest token."""
    top_k: Annotated[int, Field(ge=0)] = 50
    """Sample from the likeliest top_k tokens; 0: from all."""
    bootstrap: Annotated[int, Field(ge=100, le=100_000)] = 1000
    """Resamples behind each 95% interval."""


class Plan(Settings):
    """What planning may spend."""

    budget: BudgetSetting = Budget(8.0, "%")
    """The most that measurements before training may take: a share of the run such as "8%", a time such as "20 s", or
    "prior" to answer by laws alone; the run's first steps are rehearsed once even then, or its time and memory could not be
    told. What a measurement cannot repay is not measured."""
    proxy: str = "none"
    """Folder of an earlier, smaller or shorter run with a good learning rate, which is carried over to this decoder's width,
    depth, batch and length, and weighed against the law; "none": there is none."""
    forecast: SpanSetting | Never | Auto = "auto"
    """When training says where its loss will end: after "10%" of the run, or so many steps. Shortly before, copies of the
    run are cooled down and looked at. auto: 10%, where that costs at most 3% of the run."""


class Parallel(Settings):
    """How many processes train together."""

    procs: Annotated[int, AfterValidator(one_process)] = 1
    """Training processes: 1 in this version."""
