"""Learning rate schedules: pure functions of the step. Each begins with a warm-up, then follows its own shape.

With w warm-up steps, n steps in all and 0-based step s:

    lr_at(s) = peak * (s + 1) / (w + 1)              s < w      linear warm-up (Goyal 2017, 1706.02677)
    lr_at(s) = peak * share(s - w)                   s >= w     the peak itself at s = w

x = (s - w) / (n - w) is the share of the way done. x stays below 1, so no update is spent at the floor's rate itself.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from danlu.base.errors import UserError
from danlu.base.settings import Auto, Settings

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class Span:
    """A part of the run: a number of steps, or a share of all steps."""

    amount: float
    unit: Literal["steps", "%"]

    def __str__(self) -> str:
        return f"{self.amount:g}%" if self.unit == "%" else f"{self.amount:g} steps"

    def n_steps(self, n_all: int) -> int:
        """Whole steps of a run of `n_all`."""
        return round(self.amount * n_all / 100) if self.unit == "%" else int(self.amount)


def parse_span(value: Any) -> Span | Any:
    """ "100 steps" or "2%" -> Span; ValueError says what is wanted."""
    if isinstance(value, Span):
        return value
    match = re.fullmatch(r"\s*([0-9][0-9_,]*(?:\.[0-9]+)?)\s*(steps?|%)\s*", value) if isinstance(value, str) else None
    if match:
        amount = float(match[1].replace(",", "").replace("_", ""))
        if match[2] == "%" and amount <= 100:
            return Span(amount, "%")
        if match[2] != "%" and amount == int(amount):
            return Span(amount, "steps")
    raise ValueError('must be a number of steps such as "100 steps", or a share of the run such as "2%"')


def parse_auto_span(value: Any) -> Span | Any:
    """The same, or "auto"."""
    return value if value == "auto" else parse_span(value)


SPAN_SCHEMA = WithJsonSchema({"type": "string", "examples": ["100 steps", "2%"]})
SpanSetting = Annotated[Span, BeforeValidator(parse_span), PlainSerializer(str), SPAN_SCHEMA]
AutoSpan = Annotated[Span | Auto, BeforeValidator(parse_auto_span), PlainSerializer(str), SPAN_SCHEMA]


class ScheduleSettings(Settings):
    """What every schedule has: a name and a warm-up."""

    kind: str
    """Shape of the learning rate over the run."""
    warmup: AutoSpan = "auto"
    """Linear rise to the peak: "100 steps", "2%" of the run, "0 steps" for none. "auto": 2% of the run, at least 10 and
    at most 2,000 steps, and never more than a tenth of the run (in the range of GPT-3 and of Ma & Yarats 2021's
    2 / (1 - beta2))."""

    def n_warmup(self, n_steps: int) -> int:
        """Warm-up steps of a run of `n_steps`."""
        if self.warmup == "auto":
            return min(max(round(0.02 * n_steps), 10), 2000, n_steps // 10)
        n_warmup = self.warmup.n_steps(n_steps)
        if n_warmup >= n_steps:
            raise UserError(
                "schedule.warmup",
                f"must be shorter than the run, which has {n_steps} steps",
                got=str(self.warmup),
                fix='give a share such as "2%", or a longer train.length',
            )
        return n_warmup

    def lr_at(self, step: int, n_steps: int, peak: float) -> float:
        """The rate of update `step` (0-based) of `n_steps`, when its highest is `peak`."""
        n_warmup = self.n_warmup(n_steps)
        if step < n_warmup:
            return peak * self.rise(step, n_warmup)
        return peak * self.share(min(step, n_steps) - n_warmup, n_steps)

    def stable_until(self, n_steps: int) -> int | None:
        """Completed steps up to which a longer run would have had the same rates; None when there are none."""
        return None

    def cooled(self, y: float) -> float:
        """Share of the peak when the share y of a cool-down after the stable steps is done; 1 where nothing cools down."""
        return 1.0

    def rise(self, step: int, n_warmup: int) -> float:
        """Share of the peak during the warm-up."""
        return (step + 1) / (n_warmup + 1)

    def share(self, done: int, n_steps: int) -> float:
        """Share of the peak after `done` steps past the warm-up."""
        raise NotImplementedError

    def way(self, done: int, n_steps: int) -> float:
        """x: the share of the way from the warm-up's end to the run's, 0 to 1."""
        return done / max(1, n_steps - self.n_warmup(n_steps))


class Constant(ScheduleSettings):
    """The peak throughout: share = 1."""

    kind: Literal["constant"] = "constant"
    """Constant."""

    def stable_until(self, n_steps: int) -> int | None:
        """All of them."""
        return n_steps

    def share(self, done: int, n_steps: int) -> float:
        """1."""
        return 1.0


class Exponential(ScheduleSettings):
    """share = factor^(done / every): the same loss in each stretch (Senior 2013; TensorFlow ExponentialDecay)."""

    kind: Literal["exponential"] = "exponential"
    """Exponential decay."""
    factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    """What is left of the rate after each stretch."""
    every: SpanSetting = Span(100, "%")
    """Length of a stretch; "1 steps" makes factor the loss a step."""

    def share(self, done: int, n_steps: int) -> float:
        """Falls by factor in each stretch, smoothly."""
        return float(self.factor ** (done / max(1, self.every.n_steps(n_steps))))


class Step(ScheduleSettings):
    """share = factor^k, k drops so far: the rate of AlexNet and ResNet (Krizhevsky 2012; He 2015, 1512.03385)."""

    kind: Literal["step"] = "step"
    """Drops at fixed steps."""
    factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    """What a drop leaves of the rate."""
    at: tuple[SpanSetting, ...] = (Span(50, "%"), Span(75, "%"))
    """Where the drops are, counted from the start of the run."""
    every: SpanSetting | None = None
    """Instead of `at`: a drop each time so much has passed since the warm-up."""

    @model_validator(mode="after")
    def check_one(self) -> Self:
        """Drops are given in one way."""
        if self.every is not None and "at" in self.model_fields_set:
            raise ValueError("must have either at or every")
        return self

    def share(self, done: int, n_steps: int) -> float:
        """Falls by factor at each drop."""
        if self.every is not None:
            return float(self.factor ** (done // max(1, self.every.n_steps(n_steps))))
        step = done + self.n_warmup(n_steps)
        return float(self.factor ** sum(step >= max(1, drop.n_steps(n_steps)) for drop in self.at))


class Linear(ScheduleSettings):
    """share = 1 - (1 - floor) x (Bergsma 2025, 2502.15938: linear to zero is best at a fixed length)."""

    kind: Literal["linear"] = "linear"
    """Straight down."""
    floor: Share = 0.0
    """Share of the peak at the end."""

    def share(self, done: int, n_steps: int) -> float:
        """A straight line from 1 to floor."""
        return 1 - (1 - self.floor) * self.way(done, n_steps)


class Polynomial(ScheduleSettings):
    """share = floor + (1 - floor) (1 - x)^power (Chen 2016, DeepLab, 1606.00915, power 0.9)."""

    kind: Literal["polynomial"] = "polynomial"
    """A power of the way left."""
    power: Positive = 2.0
    """1 is linear; above 1 falls early, below 1 late."""
    floor: Share = 0.0
    """Share of the peak at the end."""

    def share(self, done: int, n_steps: int) -> float:
        """A power from 1 to floor."""
        return float(self.floor + (1 - self.floor) * (1 - self.way(done, n_steps)) ** self.power)


class Cosine(ScheduleSettings):
    """share = floor + (1 - floor) (1 + cos(pi x)) / 2 (Loshchilov & Hutter 2016, SGDR, 1608.03983, one period)."""

    kind: Literal["cosine"] = "cosine"
    """Half a cosine."""
    floor: Share = 0.1
    """Share of the peak at the end (0.1: Hoffmann 2022, Chinchilla)."""

    def share(self, done: int, n_steps: int) -> float:
        """Half a cosine from 1 to floor."""
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * self.way(done, n_steps))) / 2


class InverseTime(ScheduleSettings):
    """share = 1 / (1 + rate * done / every): sums to infinity, its squares do not (Robbins & Monro 1951)."""

    kind: Literal["inverse_time"] = "inverse_time"
    """One over the time."""
    rate: Positive = 1.0
    """With 1, half the rate is left after one stretch, a third after two."""
    every: SpanSetting = Span(10, "%")
    """Length of a stretch."""

    def share(self, done: int, n_steps: int) -> float:
        """A hyperbola from 1."""
        return 1 / (1 + self.rate * done / max(1, self.every.n_steps(n_steps)))


class InverseSqrt(ScheduleSettings):
    """share = sqrt((w + 1) / (w + 1 + done)), w warm-up steps (Vaswani 2017, 1706.03762): no length needed."""

    kind: Literal["inverse_sqrt"] = "inverse_sqrt"
    """One over the root of the time."""

    def share(self, done: int, n_steps: int) -> float:
        """Falls with the root of the step."""
        start = self.n_warmup(n_steps) + 1
        return math.sqrt(start / (start + done))


class OneCycle(ScheduleSettings):
    """Up from `start` and down to `floor`, each by half a cosine (or straight): Smith & Topin 2017, 1708.07120.

    Momentum is not cycled.
    """

    kind: Literal["one_cycle"] = "one_cycle"
    """One rise, one fall."""
    warmup: AutoSpan = Span(30, "%")
    """The rise: "300 steps", or a share of the run (30%: fast.ai). "auto" as in the other schedules."""
    start: Share = 0.04
    """Share of the peak at step 0 (1/25: fast.ai)."""
    floor: Share = 4e-6
    """Share of the peak at the end."""
    shape: Literal["cosine", "linear"] = "cosine"
    """Shape of both ways."""

    def between(self, low: float, x: float) -> float:
        """From low at x = 0 to 1 at x = 1."""
        bent = (1 - math.cos(math.pi * x)) / 2 if self.shape == "cosine" else x
        return low + (1 - low) * bent

    def rise(self, step: int, n_warmup: int) -> float:
        """From start to 1."""
        return self.between(self.start, step / n_warmup)

    def share(self, done: int, n_steps: int) -> float:
        """From 1 to floor."""
        return self.between(self.floor, 1 - self.way(done, n_steps))


class WarmupStableDecay(ScheduleSettings):
    """The peak, then a cooldown at the end: linear 1 - y or 1 - sqrt(y), y the share of the cooldown done.

    Hu 2024 (MiniCPM), 2404.06395; shapes: Hagele 2024, 2405.18392. The stable part can be prolonged later.
    """

    kind: Literal["wsd"] = "wsd"
    """Warm-up, stable, decay."""
    decay: SpanSetting = Span(20, "%")
    """Length of the cooldown, at the end of the run; 20% loses nothing to a cosine on language models (Hagele 2024). LeNet, VGG
    and ResNet: 50% where none is given (benchmarks/cooldown.md)."""
    shape: Literal["linear", "sqrt"] = "linear"
    """Shape of the cooldown; sqrt is 1 - sqrt(y)."""
    floor: Share = 0.0
    """Share of the peak at the end."""

    def stable_until(self, n_steps: int) -> int | None:
        """Where the cooldown begins."""
        return n_steps - self.decay.n_steps(n_steps)

    def share(self, done: int, n_steps: int) -> float:
        """1, then down to floor."""
        n_decay, n_warmup = self.decay.n_steps(n_steps), self.n_warmup(n_steps)
        if n_decay + n_warmup > n_steps:
            raise UserError(
                "schedule.decay",
                f"and its warm-up of {n_warmup} steps must fit in the run, which has {n_steps} steps",
                got=str(self.decay),
                fix='give a share such as "20%", or a longer train.length',
            )
        into = done + n_warmup - (n_steps - n_decay)
        if into <= 0:
            return 1.0
        return self.cooled(into / n_decay)

    def cooled(self, y: float) -> float:
        """Share of the peak when the share y of the cooldown is done."""
        return self.floor + (1 - self.floor) * (1 - (math.sqrt(y) if self.shape == "sqrt" else y))
