"""A plan being made: what is known, what was decided, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from danlu.base.contracts import DataCard
from danlu.base.durable import fingerprint
from danlu.base.units import Length
from danlu.models.decoder_settings import DecoderShape
from danlu.planning import hardware, layouts, priors
from danlu.planning.choices import Choices
from danlu.planning.duration import in_time
from danlu.planning.hardware import Machine, Precision, Rate
from danlu.planning.journal import Journal
from danlu.planning.layouts import Bench
from danlu.planning.ledger import Decision, Plan
from danlu.planning.prediction import N_STEPS, STEP_S, TRAIN_S, VALIDATION_LOSS, Prediction, predict, unknown
from danlu.planning.priors import Facts
from danlu.recipe import Recipe

TIME_FACTOR = 1.15
"""One standard deviation of a step time from a few timed steps, a guess that scorecards correct."""
LIMIT_S = 0.1
"""Seconds of matrix products that the machine's limit is taken from."""
LOOKS_SHARE, LEAST_LOOKED = 0.1, 64
"""Of a run's time, what its looks at the validation split may take; samples that each sees at least."""
EXPECTED_SHARE = 0.5
"""Share of the matmul limit that an untimed step is taken to reach."""


@dataclass
class Draft:
    """Recipe, data and machine on the one hand; decisions and timings so far on the other."""

    recipe: Recipe
    card: DataCard
    machine: Machine
    decisions: list[Decision] = field(default_factory=list)
    timings: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    predictions: list[Prediction] = field(default_factory=list)
    look_s: float | None = None
    """Seconds of a look at the validation split, where one was rehearsed."""
    fit: str = ""
    """What memory asked of the micro-batch, if anything."""
    journal: Journal = field(default_factory=Journal)
    """What was measured before, and the clock."""
    began: float = field(init=False)
    """When planning began, on the journal's clock."""

    def __post_init__(self) -> None:
        self.began = self.journal.clock()

    @cached_property
    def limit(self) -> Rate:
        """Rate of matrix products, measured when first asked for."""
        precision: Precision = "bf16" if self.machine.has_bf16 else "fp32"
        return self.journal.matmul_rate(lambda: hardware.matmul_rate(self.machine, precision, LIMIT_S))

    @property
    def spent_s(self) -> float:
        """Seconds of planning so far, over all its processes."""
        return self.journal.clock() - self.began

    @property
    def seed(self) -> int:
        """Of the recipe."""
        return self.recipe.seed

    def run_s(self, batch: int, step_s: float) -> float:
        """Seconds that the run is to take, as far as is known."""
        length = self.length
        return length.amount if length.unit == "seconds" else self.steps_of(length, batch) * step_s

    def left_s(self, run_s: float, share: float = 1.0) -> float:
        """Seconds left of a share of plan.budget."""
        return self.journal.left_s(share * self.recipe.plan.budget.seconds(run_s) - self.spent_s)

    def look_share(self, look_s: float, run_s: float) -> float:
        """Share of a look's samples or tokens, so that one look takes LOOKS_SHARE of the run at most; 1 where the recipe says how
        many it wants, and never fewer than LEAST_LOOKED."""
        unit, least = ("samples", LEAST_LOOKED) if self.context == 1 else ("tokens", LEAST_LOOKED * self.context)
        name = f"during_{unit}"
        n: int = min(getattr(self.recipe.evaluate, name), self.n_validation)
        is_open = self.recipe.evaluate.every != "never" and name not in self.recipe.evaluate.model_fields_set
        if not is_open or n <= least or look_s <= LOOKS_SHARE * run_s:
            return 1.0
        share: float = max(least / n, LOOKS_SHARE * run_s / look_s)
        why = f"a look at all {n:,} would take {look_s:.2g} s, more than {LOOKS_SHARE:.0%} of the run"
        self.derive(f"evaluate.{name}", math.ceil(share * n), why)
        return share

    def decide(self, decision: Decision) -> Any:
        """Note a decision; its value."""
        self.decisions.append(decision)
        return decision.value

    def given(self, remark: Decision | None, value: Any) -> Any:
        """A value of the recipe's, with what there is to say of it."""
        return value if remark is None else self.decide(remark)

    def revise(self, decision: Decision) -> None:
        """Put a decision in the place of an earlier one on the same setting."""
        i = next(i for i, d in enumerate(self.decisions) if d.name == decision.name)
        self.decisions[i] = decision

    def derive(self, name: str, value: Any, why: str, origin: str = "derived") -> Any:
        """Note a value that follows from others by arithmetic, from a timing, or from what the machine is."""
        return self.decide(Decision(name, value, origin, f"{why}.", source="", valid="", in_range=True))

    def expect_time(self, choices: Choices, step_s: float) -> None:
        """What follows from a few timed steps, and what does not."""
        told = f"{choices.n_steps} steps of {1e3 * step_s:.3g} ms each, as timed; looks and checkpoints are not counted"
        whole = predict(TRAIN_S, choices.n_steps * step_s, "s", told, "timing", factor=TIME_FACTOR)
        limit_s = choices.time_limit_s
        self.predictions += [
            predict(STEP_S, step_s, "s", "median of a few timed steps", "timing", factor=TIME_FACTOR),
            whole if limit_s is None else in_time(whole, limit_s, 0.0, self.is_paced(choices)),
            self.expected_steps(choices),
            unknown(VALIDATION_LOSS, "per target", "nothing was trained that says where the loss will end"),
        ]

    def expect_rehearsed(self, choices: Choices, bench: Bench) -> None:
        """What follows from rehearsals of the chosen layout, and what does not."""
        self.predictions += [
            *layouts.expected(choices, bench, self.machine.n_cores, self.is_paced(choices)),
            self.expected_steps(choices),
            unknown(VALIDATION_LOSS, "per target", "nothing was trained that says where the loss will end"),
        ]

    def expect_loss(self, found: Sequence[Prediction]) -> None:
        """What earlier runs say of the end, in the place of "don't know"."""
        names = {prediction.name for prediction in found}
        self.predictions = [p for p in self.predictions if p.name not in names] + list(found)

    def expected_steps(self, choices: Choices) -> Prediction:
        """Updates: certain, or as many as the time allows, and never more than planned where the schedule fixes them."""
        train, n = self.recipe.train, choices.n_steps
        if any(word != "none" for word in (train.patience, train.target, train.plateau)):
            return unknown(N_STEPS, "steps", f"it may stop before step {n:,} by train.patience, target or plateau")
        if choices.time_limit_s is None:
            return predict(N_STEPS, n, "steps", "train.length in steps", "counted", sd=0.0)
        told = predict(N_STEPS, n, "steps", "what fits the time at the pace measured", "timing", factor=TIME_FACTOR)
        return told if self.is_paced(choices) else replace(told, high80=float(n), high95=float(n))

    def is_paced(self, choices: Choices) -> bool:
        """Whether the time decides when the cool-down begins (training/pace.py)."""
        schedule: Any = self.recipe.schedule
        return choices.time_limit_s is not None and schedule.stable_until(choices.n_steps) is not None

    def plan(self, choices: Choices, facts: Mapping[str, float]) -> Plan:
        """What plan.json is to hold."""
        body = choices.model_dump(mode="json")
        return Plan(
            self.decisions, self.predictions, body, self.machine, self.timings, facts,
            planning_s=self.spent_s, fingerprint=fingerprint(body),
        )  # fmt: skip

    @property
    def context(self) -> int:
        """Tokens of a sample."""
        model: Any = self.recipe.model
        return int(model.context)

    @property
    def n_unique(self) -> int:
        """Tokens of the training split."""
        return self.card.splits["train"].n_tokens

    @property
    def n_validation(self) -> int:
        """Tokens of the validation split, 0 without one."""
        return self.card.splits["validation"].n_tokens if "validation" in self.card.splits else 0

    @property
    def expected_gflops(self) -> float:
        """What a step is taken to reach before it was timed."""
        return EXPECTED_SHARE * self.limit.gflops

    @property
    def length(self) -> Length:
        """train.length, answered if it was auto (see note_length)."""
        given = self.recipe.train.length
        if isinstance(given, Length):
            return given
        decided = next(d.value for d in self.decisions if d.name == "train.length")
        return Length(float(decided.split()[0]), "tokens")

    def steps_of(self, length: Length, batch: int) -> int:
        """Updates that a length of steps, samples, tokens or epochs comes to, rounded up."""
        samples = {
            "steps": length.amount * batch,
            "samples": length.amount,
            "tokens": length.amount / self.context,
            "epochs": length.amount * self.n_unique / self.context,
        }[length.unit]
        return max(1, math.ceil(samples / batch - 1e-9))

    def interval(self, every: Any, batch: int, step_s: float, auto: int) -> int | None:
        """Steps between two events, from "auto", "never", a number of steps, or a length."""
        if every == "never":
            return None
        if every == "auto":
            return auto
        if isinstance(every, int):
            return every
        return max(1, round(every.amount / step_s)) if every.unit == "seconds" else self.steps_of(every, batch)

    def facts(self, shape: DecoderShape, n_tokens: float, batch: int = 0, lr: float = 0.0) -> Facts:
        """What the laws look at."""
        settings: Any = self.recipe.optimizer
        return Facts(
            n_hidden=shape.n_hidden_parameters, context=self.context, n_unique=self.n_unique, n_tokens=n_tokens,
            batch=batch, optimizer=settings.kind, settings=settings, lr=lr,
        )  # fmt: skip

    @property
    def placeholders(self) -> dict[str, float]:
        """Numbers for what is open in the optimizer, while steps are only timed."""
        is_open = getattr(self.recipe.optimizer, "beta2", None) == "auto"
        return {"lr": 1e-4, "weight_decay": 0.0} | ({"beta2": 0.95} if is_open else {})

    def beta2(self, choices: Choices, n_hidden: int = 0) -> dict[str, float]:
        """{"beta2": ..} where the recipe leaves it to the plan; a sample by number counts as one token."""
        if getattr(self.recipe.optimizer, "beta2", None) != "auto":
            return {}
        n_tokens = float(choices.n_steps * choices.batch * self.context)
        kind = getattr(self.recipe.optimizer, "kind", "")
        facts = Facts(n_hidden, self.context, self.n_unique, n_tokens, choices.batch, kind)
        return {"beta2": self.decide(priors.beta2(facts))}

    def note_length(self, shape: DecoderShape) -> None:
        """Answer a length of auto, before anything asks for it."""
        if self.recipe.train.length == "auto":
            self.decide(priors.length(self.facts(shape, 0)))

    def length_tokens(self, batch: int) -> float:
        """D of a length that is no time."""
        return float(self.steps_of(self.length, batch) * batch * self.context)
