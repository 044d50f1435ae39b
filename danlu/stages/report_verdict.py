"""What the evidence says, in sentences: the verdict at the top of the page, and what a person should look at."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from danlu.base.contracts import Metric
from danlu.base.units import short_count
from danlu.stages.report_curves import event_kind
from danlu.stages.report_evidence import Evidence
from danlu.stages.report_html import Html, duration, fixed, join, number, percent, tag
from danlu.stages.report_scorecard import misses

UNITS = {"bits_per_byte": "bits per byte", "loss": "nats per token", "perplexity": "perplexity"}
STILL_FALLING, ROSE, WAITED, BUSY, MISSED = 0.01, 0.01, 0.1, 0.85, 0.25
"""Shares that make a finding: validation fell in the last fifth, rose after its best, waiting for data, computing,
prediction missed."""


class Finding(NamedTuple):
    """One sentence about the run: good, a warning, or plain."""

    tone: str
    text: str


def unit_of(metric: str, score: Metric) -> str:
    """How a metric's unit is said in a sentence."""
    return UNITS.get(metric) or score.unit or metric.replace("_", " ")


def spread(score: Metric) -> str:
    """[1.90, 1.94], or nothing where the score has no interval."""
    return f" [{fixed(score.low, score.value)}, {fixed(score.high, score.value)}]" if score.high > score.low else ""


def trained(evidence: Evidence) -> Html:
    """What was trained, on what, for how long."""
    model = str(evidence.setting("model.kind") or "model")
    size = f"{short_count(evidence.n_parameters)}-parameter " if evidence.n_parameters else ""
    source = evidence.card.source if evidence.card else evidence.setting("data.path")
    on = join(" on ", tag("bdi", str(source))) if source else Html("")
    training = evidence.training
    if training is None:
        return join(f"A {size}{model}", on, ", not trained yet.")
    took = training.columns["elapsed_s"][-1]
    return join(f"A {size}{model} trained", on, f" for {training.n_steps:,} steps in {duration(took)}.")


def verdict(evidence: Evidence) -> Html:
    """One paragraph: the score with its interval against the best baseline, and what was trained."""
    if evidence.headline is None or evidence.scores is None:
        training = evidence.training
        if training and training.last:
            said = f"Not scored yet. Validation loss {number(training.last[1])} at step {training.last[0]:,}. "
        else:
            said = "Not scored yet. "
        return tag("p", tag("strong", said), trained(evidence), class_="verdict")
    metric, score = evidence.headline
    first = f"{evidence.scores.split.capitalize()} {fixed(score.value, score.value)} {unit_of(metric, score)}"
    return tag("p", tag("strong", first), spread(score), compared(evidence), " ", trained(evidence), class_="verdict")


def compared(evidence: Evidence) -> Html:
    """How far the score lies from the best baseline, and whether the intervals leave room for doubt."""
    if not evidence.rivals or evidence.headline is None:
        return join(". There is no baseline to compare with.")
    metric, score = evidence.headline
    rival, best = next(iter(evidence.rivals.items()))
    lower = evidence.lower_is_better(metric)
    gap = best.value - score.value if lower else score.value - best.value
    side = ("below" if lower else "above") if gap > 0 else ("above" if lower else "below")
    behind = evidence.scores.baselines.get(rival, {}).get("behind") if evidence.scores else None
    apart = behind.low > 0 if behind else score.high < best.low if lower else score.low > best.high
    name = f" the best baseline ({rival}, {fixed(best.value, score.value)})"
    far = fixed(abs(gap), score.value)
    if gap > 0 and apart:
        return join(f", {far} {side}{name}.")
    if gap > 0:
        doubt = "the interval of the difference holds 0" if behind else "the intervals overlap"
        return join(f", {far} {side}{name}, but {doubt}: better is not shown.")
    return join(", ", tag("em", f"{far} {side}{name}"), ": it has not beaten it.")


def findings(evidence: Evidence) -> list[Finding]:
    """What stands out, worst first."""
    every = [*of_files(evidence), *of_training(evidence), *of_time(evidence), *of_plan(evidence), *of_data(evidence)]
    every += [Finding(tone, text) for tone, text in misses(evidence)]
    order = {"warn": 0, "good": 1, "plain": 2}
    return sorted(every, key=lambda finding: order[finding.tone])


def of_files(evidence: Evidence) -> Iterator[Finding]:
    """Files that could not be read."""
    for fault in evidence.faults:
        yield Finding("warn", fault)
    if evidence.training and evidence.training.n_broken > 1:
        yield Finding("warn", f"{evidence.training.n_broken} lines of metrics.jsonl are broken and left out.")


def of_training(evidence: Evidence) -> Iterator[Finding]:
    """The shape of the validation curve, and trouble on the way."""
    training = evidence.training
    if training is None:
        return
    troubles = [text for _, _, text in training.events if event_kind(text) == "trouble"]
    if troubles:
        times = "once" if len(troubles) == 1 else f"{len(troubles)} times"
        yield Finding(
            "warn", f"Training ran into trouble {times} (marked on the curve), first: {troubles[0].rstrip('.')}."
        )
    points = [(step, row.get("loss")) for step, _, row in training.validations.items]
    if len(points) < 5 or training.best is None or training.last is None:
        return
    best_step, best = training.best
    final = training.last[1]
    before = next((v for s, v in points if s >= 0.8 * training.n_steps), None)
    if final > best * (1 + ROSE) and best_step <= 0.8 * training.n_steps:
        text = f"Validation was lowest at step {best_step:,} ({number(best)}) and rose to {number(final)}: overfitting."
        yield Finding("warn", text)
    elif before and before - final > STILL_FALLING * abs(before):
        fell = percent((before - final) / abs(before))
        yield Finding("plain", f"Validation fell by {fell} in the last fifth: longer training would probably help.")
    else:
        yield Finding("plain", "Validation was flat in the last fifth of training.")


def of_time(evidence: Evidence) -> Iterator[Finding]:
    """Waiting for data, and how far the plan's prediction was off."""
    if evidence.training is None:
        return
    parts = evidence.training.seconds_by_part()
    total = sum(parts.values())
    if total > 0:
        waited = parts.get("data", 0.0) / total
        busy = sum(parts.get(p, 0.0) for p in ("forward", "backward", "optimizer")) / total
        if waited > WAITED:
            yield Finding("warn", f"{percent(waited)} of the time was spent waiting for data: give it more workers.")
        else:
            text = f"{percent(busy)} of the time went into forward, backward and update; {percent(waited)} into data."
            yield Finding("good" if busy > BUSY else "plain", text)
    predicted = evidence.plan.number("train_s") if evidence.plan else None
    took = evidence.training.columns["elapsed_s"][-1]
    if predicted and math.isfinite(took) and took > 0 and evidence.scores and not evidence.scorecard:
        off = took / predicted - 1
        word = "more" if off > 0 else "less"
        text = f"Training took {duration(took)}: {percent(abs(off))} {word} than the plan's {duration(predicted)}."
        yield Finding("warn" if abs(off) > MISSED else "plain", text)


def of_plan(evidence: Evidence) -> Iterator[Finding]:
    """Decisions that rest on a law used outside its range."""
    outside = [d.name for d in evidence.plan.decisions if not d.in_range] if evidence.plan else []
    if outside:
        these = ", ".join(outside)
        yield Finding(
            "warn", f"{these}: chosen by a law outside the range it was fitted on, so worth a test of its own."
        )


def of_data(evidence: Evidence) -> Iterator[Finding]:
    """Every row accounted for, leakage, and what prepare warned of."""
    card = evidence.card
    if card is None:
        return
    rejected = sum(card.rows_rejected.values())
    if card.rows_in == card.rows_used + rejected:
        text = f"Every row is accounted for: {card.rows_in:,} read = {card.rows_used:,} used + {rejected:,} rejected."
        yield Finding("good", text)
    else:
        text = f"{card.rows_in:,} rows came in, but {card.rows_used:,} used + {rejected:,} rejected do not add up."
        yield Finding("warn", text)
    for warning in card.warnings:
        yield Finding("warn", warning)
