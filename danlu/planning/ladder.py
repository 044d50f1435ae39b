"""model.size of auto, measured: a ladder of short, decayed runs of smaller models, where plan.budget allows one.

The rungs have a fifth to a twentieth of the size that the law gives, and see a twentieth to a fortieth of the tokens that such
a model would see in the run, each at the laws' rate and batch for its own size and length. planning/size.py fits
L(N, D) to them; seconds a token are fitted to the rungs' own times as a + b FLOPs. All of it costs 3 to 5% of the run.
Where that leaves too few updates, or the best size lies beyond what the ladder can tell, the law's answer stands and
says why. Torch-free.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np

from danlu.base.units import parse_count, short_count
from danlu.models.decoder_settings import DecoderShape
from danlu.planning import evidence, priors, size
from danlu.planning.choices import Choices
from danlu.planning.draft import Draft
from danlu.planning.learning_rate import unmeasured
from danlu.planning.ledger import Decision
from danlu.planning.size import Budget, Rung, affordable
from danlu.planning.sizing import MEMORY_SHARE, least_memory
from danlu.planning.trials import RunTrial, Trial

RUNGS = ((1 / 20, 1 / 40), (1 / 10, 1 / 40), (1 / 20, 1 / 20), (1 / 5, 1 / 40), (1 / 10, 1 / 20), (1 / 5, 1 / 20))
"""(size over the law's, tokens over the run's), in the order in which they are run: the first also tells how fast small models
are, the last is left out where it costs too much."""
LEAST_UPDATES = 60
"""Fewer say nothing of a size."""
LADDER_SHARE = 0.7
"""Of plan.budget, what may have been spent at the end of the ladder."""
SLOWER = 1.5
"""A small model's seconds a FLOP over a large one's, until they are timed."""
TAIL = 0.1
"""Of a rung's steps, those whose mean training loss is its loss: on tokens that it has not seen before."""
SIZES = 2.0 ** np.arange(-4, 4.01, 0.5)
"""Sizes that are weighed, over the law's."""
REACH = 80.0
"""Sizes and tokens so many times beyond the ladder are still weighed: the losses there are uncertain, but the lowest is in a
flat valley (twice or half the best size costs 1% at most)."""

ShapeOf = Callable[[float], DecoderShape | None]
"""Parameters -> the decoder of about so many, None where none comes near."""


@dataclass
class Ladder:
    """The runs of a ladder, made one after another."""

    draft: Draft
    choices: Choices
    """The layout of the law's size, for the rungs too."""
    run_trial: RunTrial
    run_s: float
    """Seconds of the whole run."""
    times: list[tuple[float, float]]
    """(FLOPs, seconds) of a token: of the law's size, then of the rungs."""
    rungs: list[Rung] = dataclasses.field(default_factory=list)

    def climb(self, wanted: Sequence[tuple[DecoderShape, float]]) -> str:
        """Runs (shape, tokens) one after another; why it stopped before LEAST_RUNS, or nothing."""
        for i, (shape, n_tokens) in enumerate(wanted):
            coming = wanted[i : max(i + 1, size.LEAST_RUNS)]
            left_s, needed_s = self.draft.left_s(self.run_s, LADDER_SHARE), self.expected_s(coming)
            if needed_s > left_s and i >= size.LEAST_RUNS:
                break
            if needed_s > left_s:
                return f"a ladder would take {needed_s:.2g} s more, and {max(0.0, left_s):.2g} s of plan.budget are left for it"
            trial = self.trial(shape, n_tokens)
            if trial is None:
                return f"the runs of a ladder would have fewer than {LEAST_UPDATES} updates"
            outcome, n = self.run_trial(trial), trial.choices.batch * self.draft.context
            if not outcome.diverged:
                self.times.append((shape.flops_per_token(), outcome.step_s / n))
                loss, seen = mean(outcome.tail(TAIL)), n * trial.choices.n_steps
                self.rungs.append(Rung(shape.n_hidden_parameters, seen, loss, self.draft.n_unique, outcome.seconds))
        missing = size.LEAST_RUNS - len(self.rungs)
        return f"{missing} of the {size.LEAST_RUNS} runs of a ladder diverged" if missing > 0 else ""

    def expected_s(self, wanted: Sequence[tuple[DecoderShape, float]]) -> float:
        """Seconds of rungs to come; before a small model was timed, they are taken to be SLOWER than their FLOPs say."""
        each, factor = seconds_by(self.times), 1.0 if len(self.times) > 1 else SLOWER
        return factor * sum(n_tokens * each(shape.flops_per_token()) for shape, n_tokens in wanted)

    def trial(self, shape: DecoderShape, n_tokens: float) -> Trial | None:
        """A rung at the laws' batch, rate and decay for its size and length; None with too few updates."""
        given, settings = self.draft.recipe.train.batch, self.draft.recipe.optimizer
        facts = self.draft.facts(shape, n_tokens)
        batch = given if given != "auto" else priors.batch(facts).value
        n_steps = round(n_tokens / (batch * self.draft.context))
        if n_steps < LEAST_UPDATES:
            return None
        facts = dataclasses.replace(facts, batch=batch)
        lr = priors.learning_rate(facts).value if settings.lr == "auto" else settings.lr  # type: ignore[attr-defined]
        decay = getattr(settings, "weight_decay", None)
        decay = priors.weight_decay(dataclasses.replace(facts, lr=lr)).value if decay == "auto" else decay
        optimizer = self.draft.placeholders | {"lr": lr} | ({} if decay is None else {"weight_decay": decay})
        model = {name: getattr(shape, name) for name in ("n_layers", "width", "n_heads", "n_kv_heads")}
        how = {"batch": batch, "micro_batch": min(batch, self.choices.micro_batch), "n_steps": n_steps, "ema": None,
               "model": model, "optimizer": optimizer}  # fmt: skip
        return Trial(self.choices.model_copy(update=how), self.draft.seed, is_scored=False)


def measured(
    law: Decision, shape_of: ShapeOf, draft: Draft, choices: Choices, step_s: float, run_trial: RunTrial
) -> Decision:
    """model.size: by a ladder, or the law's with the reason. `choices` is the layout of the law's size, `step_s` its
    update."""
    base, token_s, length = parse_count(law.value), step_s / (choices.batch * draft.context), draft.length
    limits = (
        {"seconds": length.amount} if length.unit == "seconds" else {"n_tokens": draft.length_tokens(choices.batch)}
    )
    budget = Budget(n_unique=draft.n_unique, bytes=MEMORY_SHARE * draft.machine.available_bytes, **limits)
    n_tokens = affordable(float(base), budget, lambda _: token_s)
    whole = shape_of(float(base))
    wanted = [(shape, d * n_tokens) for s, d in RUNGS if (shape := shape_of(s * base))]
    if whole is None or len(wanted) < size.LEAST_RUNS:
        return unmeasured(law, "there are no models small enough for a ladder")
    ladder = Ladder(draft, choices, run_trial, n_tokens * token_s, [(whole.flops_per_token(), token_s)])
    if reason := ladder.climb(wanted):
        return unmeasured(law, reason)
    shapes = [(s, shape) for x in SIZES if (shape := shape_of(s := float(x) * base))]
    known = sorted(
        (shape.n_hidden_parameters, shape.flops_per_token(), least_memory(draft.recipe, shape)) for _, shape in shapes
    )
    hidden, flops, held = (np.log([row[i] for row in known]) for i in (0, 1, 2))
    seconds = seconds_by(ladder.times)

    def token_s_of(n: float) -> float:
        return seconds(math.exp(np.interp(math.log(n), hidden, flops)))

    def bytes_of(n: float) -> float:
        return math.exp(np.interp(math.log(n), hidden, held))

    found, expected = size.size_of(ladder.rungs, budget, token_s_of, bytes_of, REACH)
    if found is None:
        return unmeasured(law, f"a ladder of {len(ladder.rungs)} runs cannot tell: {expected.why}")
    n = float(parse_count(found.value))
    best, shape = min(shapes, key=lambda row: abs(math.log(row[1].n_hidden_parameters / n)))
    return told(law, found, ladder, round(best), shape, affordable(n, budget, token_s_of))


def seconds_by(times: Sequence[tuple[float, float]]) -> Callable[[float], float]:
    """Seconds of a token by its FLOPs: a + b FLOPs through what was timed, neither below 0, by least relative squares;
    through one time in proportion."""
    flops, seconds = (np.array(column) for column in zip(*times, strict=True))
    if len(times) == 1:
        return lambda x: float(seconds[0] * x / flops[0])
    design = np.stack([np.ones_like(flops), flops], 1) / seconds[:, None]
    a, b = size.non_negative(design[None], np.ones((1, len(flops))))[0]
    return lambda x: float(a + b * x)


def told(law: Decision, found: Decision, ladder: Ladder, best: int, shape: DecoderShape, n_tokens: float) -> Decision:
    """model.size with what the ladder showed. What size.py says of N, without embeddings, holds for the whole in proportion."""
    spent, whole = sum(r.seconds for r in ladder.rungs), best / shape.n_hidden_parameters
    why = (
        f"The law gives {law.value}; a ladder of {len(ladder.rungs)} runs ({spent:.2g} s) puts the lowest loss at about "
        f"{short_count(best)} parameters, which see {short_count(round(n_tokens))} tokens in this run."
    )
    low, high = (whole * float(x) if x else None for x in (found.low, found.high))
    shown = [(r.n_parameters, r.loss) for r in ladder.rungs]
    return Decision(
        law.name, short_count(best), "measured: ladder", why, found.source, found.valid, found.in_range, low, high,
        evidence=evidence.points("parameters without embeddings", "training loss at the end of a rung", shown, log="x"),
        alternatives=({"value": law.value, "why": law.why},),
    )  # fmt: skip
