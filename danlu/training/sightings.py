"""What a run's batches show before the model sees them, as the numbers that danlu/trust/batches.py makes of them.

Every batch is hashed and summed up (about 0.1 ms); the first POOL samples are kept until there are enough to ask whether
labels belong to their samples. What is remembered can be made again from the loader alone, so nothing of it is saved.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from danlu.base.contracts import Batch, DataCard
from danlu.base.runfolder import RunFolder
from danlu.build import is_samples, open_text
from danlu.data.samples import fixed_seeds
from danlu.recipe import Recipe
from danlu.trust import batches as look

REPEAT_WINDOW = 8
"""Batches back that a repeated sample is looked for."""
POOL, POOL_STEPS, N_LEAST = 1024, 40, 256
"""Samples gathered at a run's start for what needs many, or as many as so many steps have; the fewest that tell."""
POOL_BYTES = 8 * 2**20
"""Most that they may take."""
HELD, HELD_TOKENS = 1024, 65_536
"""Validation samples (tokens of a text) whose copies are looked for among the training samples."""
TARGETS = ("targets", "soft_targets")
MOST_LABELS = 64
"""Targets of a sample up to which its labels are a label, not a sequence."""
Arrays = dict[str, NDArray[Any]]


class Sightings:
    """The eyes on the data."""

    def __init__(self, recipe: Recipe, run: RunFolder, card: DataCard, loader: Any) -> None:
        self.recipe, self.card, self.loader = recipe, card, loader
        self.task: Any = recipe.task
        self.is_text = not is_samples(recipe)
        self.recent: deque[frozenset[int]] = deque(maxlen=REPEAT_WINDOW)
        self.pool: list[Arrays] | None = []
        self.pooled: dict[str, Any] = {}
        self.strides: dict[str, int] = {}
        self.held, self.facts = self.held_out(run)

    def held_out(self, run: RunFolder) -> tuple[NDArray[np.uint64], dict[str, Any]]:
        """Hashes of validation samples (of every stretch of a text), and what is true of them: the share that are copies
        of one another, the variance of their labels."""
        source = getattr(self.loader, "split", None)
        facts: dict[str, Any] = {"held_twins": 0.0, "bucketed": getattr(source, "lengths", None) is not None}
        split = self.card.splits.get("validation")
        if split is None or max(split.n_tokens - look.GRAM, split.n_samples) <= 0:
            return np.empty(0, np.uint64), facts
        if self.is_text:
            text = open_text(self.recipe, run, self.card, "validation")
            tokens = np.asarray(text.tokens[:HELD_TOKENS]).astype(np.int64)
            hashes = look.grams(tokens[None], 1)
        else:
            hashes, labels = self.held_samples(run)
            if labels is not None and len(labels) > 1:
                facts["held_var"] = rounded(labels.var(0, ddof=1))
        held, counts = np.unique(hashes, return_counts=True)
        return held, facts | {"held_twins": round(float((counts - 1).sum() / len(hashes)), 4)}

    def held_samples(self, run: RunFolder) -> tuple[NDArray[np.uint64], NDArray[np.float64] | None]:
        """Hashes and labels of HELD evenly spaced validation samples."""
        data: Any = self.recipe.data
        split = data.open(run.data, self.card, "validation")
        n, size = min(HELD, len(split)), min(256, getattr(split, "at_once", 256))
        rows = np.arange(n) * len(split) // n
        hashes, labels = [], []
        for i in range(0, n, size):
            arrays = arrays_of(self.task.change(split.batch(rows[i : i + size]), fixed_seeds(rows[i : i + size])))
            hashes.append(look.fingerprints(inputs_of(arrays)))
            if "targets" in arrays:
                labels.append(look.label_numbers(arrays["targets"]))
        return np.concatenate(hashes), np.concatenate(labels) if labels else None

    def see(self, batches: Sequence[Batch]) -> dict[str, Any]:
        """What the coming update's batch shows; the pool's answers too when it has just become full."""
        arrays = joined([arrays_of(b) for b in batches])
        inputs, targets = inputs_of(arrays), arrays.get("targets")
        hashes = look.fingerprints(inputs)
        words = hashes.tolist()
        own, seen = len(words) - len(set(words)), sum(map(set().union(*self.recent).__contains__, words))
        self.recent.append(frozenset(words))
        found: dict[str, Any] = {"n": len(words), "repeat": round(max(own, seen) / len(words), 4)}
        if len(self.held):
            mine = look.grams(inputs["tokens"], look.GRAM) if self.is_text else hashes
            found |= {"held": look.n_among(mine, self.held), "n_held": len(mine)}
        if targets is not None:
            labels = look.label_numbers(targets)
            spread = labels.var(0, ddof=1) if len(labels) > 1 else np.zeros(labels.shape[1])
            found |= {"mean": rounded(labels.mean(0)), "var": rounded(spread)}
            if self.is_text:
                found["follows"] = round(look.follows(inputs["tokens"], targets), 4)
            if self.pool is not None:
                self.fill(arrays)
        return found

    def fill(self, arrays: Arrays) -> None:
        """Gather samples; once there are enough, say what they tell."""
        assert self.pool is not None  # noqa: S101
        self.pool.append(self.thinned(arrays))
        n = sum(len(next(iter(a.values()))) for a in self.pool)
        n_bytes = sum(array.nbytes for a in self.pool for array in a.values())
        if n < POOL and len(self.pool) < POOL_STEPS and n_bytes < POOL_BYTES:
            return
        pool, self.pool = joined(self.pool), None
        inputs, targets = inputs_of(pool), pool["targets"]
        found: dict[str, Any] = {"n": n, "constant": all(is_constant(a) for a in inputs.values())}
        if self.task.kind == "language":
            found["offsets"] = numbered(look.agreement(inputs["tokens"], targets))
        elif self.task.kind == "tag" and "tokens" in inputs and inputs["tokens"].shape == targets.shape:
            found["moved"] = numbered(look.moved_labels(inputs["tokens"], targets))
        elif n >= N_LEAST and targets.reshape(n, -1).shape[1] < MOST_LABELS:
            features, labels = look.columns(inputs), look.label_numbers(targets)
            share, name = look.deciding(features, labels)
            found |= {"deciding": round(share, 4), "feature": self.named(name)}
            found["shifts"] = numbered(look.explained_at(look.reduced(features), labels))
        self.pooled = found

    def thinned(self, arrays: Arrays) -> Arrays:
        """Copies of what the pool's questions need: tokens and their labels whole, of other samples and labels as many
        numbers as are looked at. (A kept batch itself would hold on to all of its memory.)"""
        if self.task.kind in ("language", "tag"):
            return {name: array.copy() for name, array in arrays.items()}
        found = {}
        for name, array in arrays.items():
            rows = array.reshape(len(array), -1)
            most = MOST_LABELS if name in TARGETS else look.MOST_COLUMNS
            stride = self.strides.setdefault(name, max(1, rows.shape[1] // most))
            found[name] = rows[:, ::stride][:, : 2 * most].copy()
        return found

    def named(self, column: str) -> str:
        """numbers[3] -> the table's own name of it, where the data card has one."""
        kind, _, place = column.rstrip("]").partition("[")
        names = self.card.features.get({"numbers": "number_names", "categories": "category_names"}.get(kind, ""), [])
        return str(names[int(place)]) if place and int(place) < len(names) else column

    def catch_up(self, position: int) -> None:
        """After a resume: see again the batches that what is remembered was made of."""
        first = 0 if position < POOL_STEPS else max(0, position - REPEAT_WINDOW)
        self.pool = [] if first == 0 else None
        for step in range(first, position):
            self.see(self.loader.micro_batches(step, 2**31))
        self.pooled = {}


def arrays_of(batch: Batch) -> Arrays:
    """A batch as arrays."""
    return {name: tensor.numpy() for name, tensor in batch.tensors.items()}


def inputs_of(arrays: Arrays) -> Arrays:
    """What is not a target."""
    return {name: array for name, array in arrays.items() if name not in TARGETS}


def joined(parts: Sequence[Arrays]) -> Arrays:
    """Batches one after another; sequences of unlike length are filled with 0, their targets with -1."""
    if len(parts) == 1:
        return parts[0]
    out: Arrays = {}
    for name, first in parts[0].items():
        shape = tuple(max(p[name].shape[d] for p in parts) for d in range(1, first.ndim))
        fill = -1 if name == "targets" and first.dtype.kind == "i" else 0
        rows = np.full((sum(len(p[name]) for p in parts), *shape), fill, first.dtype)
        at = 0
        for p in parts:
            place = (slice(at, at + len(p[name])), *(slice(0, n) for n in p[name].shape[1:]))
            rows[place] = p[name]
            at += len(p[name])
        out[name] = rows
    return out


def is_constant(array: NDArray[Any]) -> bool:
    """Whether all samples are the same."""
    return bool((array == array[:1]).all())


def rounded(values: NDArray[np.float64]) -> list[float]:
    """Five digits, for the log."""
    return [float(f"{v:.5g}") for v in values]


def numbered(values: Mapping[int, float]) -> dict[str, float]:
    """JSON's keys are words."""
    return {str(k): round(v, 4) for k, v in values.items()}
