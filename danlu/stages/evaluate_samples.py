"""Evaluate a task on samples by number: the best checkpoint and its baselines on the same split, resampled together."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch

from danlu.base.contracts import Metric, Progress, Scores, Split
from danlu.base.runfolder import RunFolder, write_json
from danlu.data.samples import fixed_seeds, in_pieces
from danlu.package import write_package
from danlu.planning.noise_told import seed_note
from danlu.recipe import Recipe
from danlu.stages.report_evidence import lower_is_better
from danlu.trained import Trained, load_model

SAMPLES_AT_ONCE = 256
"""Samples that go through the model together."""
BOOTSTRAP_S, MIN_RESAMPLES = 20.0, 100
"""Seconds that the resamples of one scorer may take, and the fewest there are then."""


def evaluate_samples(recipe: Recipe, run: RunFolder, progress: Progress) -> Scores:
    """Score, compare, write scores.json and the package."""
    trained = load_model(run, recipe)
    task: Any = recipe.task
    data: Any = recipe.data
    on = recipe.evaluate.on
    recipe.check_scored(trained.card.splits)
    split, train = (data.open(run.data, trained.card, name) for name in (on, "train"))
    predictions, truths = predicted(trained, task, split, progress)
    ours = task.scorer(predictions, truths, trained.card)
    progress("baselines", 0, 1)
    rivals = {
        name: task.scorer(made, truths, trained.card)
        for name, made in task.baselines(train, split, trained.card).items()
    }
    progress("intervals", 0, 1)
    resampled = Resampled.of([ours, *rivals.values()], recipe.evaluate.bootstrap, recipe.seed)
    head, is_higher = headline_of(task, resampled.values[0])
    metrics, baselines = tables(task, resampled, list(rivals), head, 1.0 if is_higher else -1.0)
    beaten, verdict = compared(head, metrics, baselines)
    unseen = held_out(trained, recipe, run, progress, head) if on == "train" else {}
    scores = Scores(
        split=on,
        metrics=metrics | unseen,
        baselines=baselines,
        beats_baselines=beaten,
        n_targets=trained.card.splits[on].n_targets or len(split),
        panels=(
            *task.panels(predictions, truths, split, trained.card),
            *task.panels_made(trained.model, split, trained.card),
        ),
        notes=(
            verdict,
            *undefined(task, head, resampled.values[0], on),
            *trained.notes,
            resampled.method,
            *seed_note(recipe, run),
        ),
        headline=head,
        higher_is_better=is_higher,
    )
    run.evaluate.mkdir(parents=True, exist_ok=True)
    write_json(run.evaluate / "scores.json", dataclasses.asdict(scores))
    write_package(run, trained, scores)
    return scores


def headline_of(task: Any, values: dict[str, float]) -> tuple[str, bool]:
    """(the metric that counts, whether higher is better): the task's own, or the first other one where it has no value."""
    others = (name for name, value in values.items() if math.isfinite(value))
    if math.isfinite(values[task.headline]) or not (found := next(others, "")):
        return task.headline, task.higher_is_better
    return found, not lower_is_better(found)


def undefined(task: Any, head: str, values: dict[str, float], split: str) -> list[str]:
    """A note on the metrics that have no value on a split, such as r2 where all targets are alike."""
    names = [name.replace("_", " ") for name, value in values.items() if not math.isfinite(value)]
    instead = "" if head == task.headline else f"; {head.replace('_', ' ')} is the headline instead"
    return [f"Not defined on the {split} split, and left out: {', '.join(names)}{instead}."] if names else []


def held_out(trained: Trained, recipe: Recipe, run: RunFolder, progress: Progress, head: str) -> dict[str, Metric]:
    """Beside scores on the training split: the headline on a split that was not trained on, where there is one."""
    data: Any = recipe.data
    task: Any = recipe.task
    for name in ("test", "validation"):
        if name in trained.card.splits:
            split = data.open(run.data, trained.card, name)
            scorer = task.scorer(*predicted(trained, task, split, progress), trained.card)
            found = Resampled.of([scorer], recipe.evaluate.bootstrap, recipe.seed)
            unit = f"on the {name} split, not trained on"
            metric = found.metric(lambda v: v[0][head], unit)
            return {f"{head}_on_{name}": metric} if math.isfinite(metric.value) else {}
    return {}


@torch.no_grad()
def predicted(trained: Trained, task: Any, split: Split, progress: Progress) -> tuple[list[Any], list[Any]]:
    """(predictions, truths), one a sample, in order."""
    said: dict[int, tuple[Any, Any]] = {}
    for rows in chain.from_iterable(in_pieces(split, SAMPLES_AT_ONCE)):
        moved = task.change(split.batch(rows), fixed_seeds(rows)).to(trained.device)
        both = zip(task.predict(trained.model, moved, trained.card), task.truths(moved, trained.card), strict=True)
        said |= dict(zip(rows.tolist(), both, strict=True))
        progress("evaluate", len(said), len(split))
    return [said[row][0] for row in range(len(split))], [said[row][1] for row in range(len(split))]


@dataclass(frozen=True)
class Resampled:
    """Every metric of several scorers, on all units and on the same resamples of them."""

    values: list[dict[str, float]]
    """By scorer, on all units."""
    draws: list[list[dict[str, float]]]
    """By resample, by scorer."""
    method: str

    @classmethod
    def of(cls, scorers: list[Any], n_resamples: int, seed: int) -> Resampled:
        """Percentile bootstrap over units (Efron and Tibshirani 1993, chapter 13), fewer when scoring is slow."""
        n_units = scorers[0].n_units
        rng = np.random.default_rng(seed)
        values = [scorer.values() for scorer in scorers]
        draws: list[list[dict[str, float]]] = []
        began = time.monotonic()
        while len(draws) < n_resamples and n_units > 1:
            slow = time.monotonic() - began > BOOTSTRAP_S * len(scorers)
            if slow and len(draws) >= MIN_RESAMPLES:
                break
            rows = rng.integers(0, n_units, n_units)
            draws.append([scorer.values(rows) for scorer in scorers])
        method = f"95% intervals: percentile bootstrap, {len(draws):,} resamples of {n_units:,} samples."
        return cls(values, draws, method if draws else "One sample is too few for an interval.")

    def metric(self, of: Callable[[list[dict[str, float]]], float], unit: str = "") -> Metric:
        """A number made of the scorers' values, with its interval."""
        value = of(self.values)
        found = np.array([of(draw) for draw in self.draws], float)
        found = found[np.isfinite(found)]
        low, high = np.quantile(found, [0.025, 0.975]) if len(found) else (value, value)
        return Metric(float(value), float(low), float(high), unit)


def tables(
    task: Any, resampled: Resampled, names: list[str], head: str, sign: float
) -> tuple[dict[str, Metric], dict[str, dict[str, Metric]]]:
    """(our metrics that have a value, headline first; those of each baseline, and how far it is behind on the headline)."""
    keys = [head, *(key for key, value in resampled.values[0].items() if key != head and math.isfinite(value))]
    metrics = {key: resampled.metric(lambda v, key=key: v[0][key], task.units.get(key, "")) for key in keys}  # type: ignore[misc]
    baselines = {}
    for number, name in enumerate(names, start=1):
        found = {
            key: resampled.metric(lambda v, key=key, i=number: v[i][key], task.units.get(key, ""))  # type: ignore[misc]
            for key in keys
            if math.isfinite(resampled.values[number].get(key, math.nan))
        }
        found["behind"] = resampled.metric(lambda v, i=number: sign * (v[0][head] - v[i][head]))  # type: ignore[misc]
        baselines[name] = found
    return metrics, baselines


def compared(head: str, metrics: dict[str, Metric], baselines: dict[str, dict[str, Metric]]) -> tuple[bool, str]:
    """Whether every baseline is behind beyond doubt, and the sentence that says so."""
    ours = metrics[head]
    score = f"{head.replace('_', ' ')} {ours.value:.4g} ({ours.low:.4g} to {ours.high:.4g})"
    if not baselines:
        return False, f"{score}; there is no baseline to compare with."
    not_behind = [rival for rival, found in baselines.items() if found["behind"].low <= 0]
    nearest = min(baselines, key=lambda rival: baselines[rival]["behind"].value)
    gap = baselines[nearest]["behind"]
    said = f"It does not clearly beat {', '.join(not_behind)}" if not_behind else "It beats every baseline"
    side = "ahead of" if gap.value >= 0 else "behind"
    ends = sorted((abs(gap.low), abs(gap.high))) if gap.low * gap.high > 0 else [gap.low, gap.high]
    interval = f" ({ends[0]:.3g} to {ends[1]:.3g})" if gap.high > gap.low else ""
    return not not_behind, (
        f"{said}: {score}, {abs(gap.value):.3g}{interval} {side} the nearest, {nearest} "
        f"({baselines[nearest][head].value:.4g})."
    )
