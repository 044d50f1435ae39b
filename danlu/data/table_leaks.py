"""What makes scores on a table flatter than they should be: copies across splits, the target in disguise, shared groups."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from danlu.data.sample_splits import TRAIN
from danlu.data.table_fit import date, number, type_of

COPIES_WARN, TARGET_WARN = 0.01, 0.999
MANY_MOMENTS, OVERLAP = 0.8, 0.05
"""Dates are moments when so many differ, and a split mixes them when so many training rows come after held-out ones."""
GROUP = re.compile(
    r"(patient|user|customer|subject|session|device|group|household|person|client|account|speaker|store)([_ ]?id)?",
    re.I,
)
Column = Sequence[str | None]


def leaks(
    columns: Mapping[str, Column], labels: NDArray[np.int8], targets: Sequence[str], dropped: Sequence[str], kept_together: str
) -> tuple[dict[str, Any], list[str]]:  # fmt: skip
    """(counts for the card, sentences)."""
    inputs = {name: values for name, values in columns.items() if name not in targets and name not in dropped}
    train, held = np.flatnonzero(labels == TRAIN), np.flatnonzero(labels > TRAIN)
    whole = {name: v for name, v in columns.items() if name not in targets and type_of(name, v) != "id"}
    n_copies = copies(whole, train, held)
    found: dict[str, Any] = {"n_held_out_rows": len(held), "n_held_out_copies_of_training_rows": n_copies}
    warnings = []
    if held.size and n_copies > COPIES_WARN * len(held):
        warnings.append(
            f"{n_copies} of {len(held)} validation and test rows are copies of training rows in every column but ids."
        )
    told = [name for name, values in inputs.items() for t in targets if tells(values, columns[t])]
    if told:
        found["columns_that_tell_the_target"] = ", ".join(told)
        warnings += [f"Column {name} tells the target almost alone: is it known before the target is?" for name in told]
    warnings += in_time(inputs, labels)
    for name, values in inputs.items():
        if name == kept_together or not GROUP.fullmatch(name):
            continue
        shared = shared_values(values, train, held)
        if shared:
            found[f"groups_of_{name}_in_two_splits"] = shared
            warnings.append(
                f'{shared} values of {name} are in train and in validation or test; data.split.kind = "group" keeps them apart.'
            )
    return found, warnings


def in_time(inputs: Mapping[str, Column], labels: NDArray[np.int8]) -> list[str]:
    """Columns of moments by which the model would learn from what comes after that on which it is scored."""
    warnings = []
    train, held = np.flatnonzero(labels == TRAIN), np.flatnonzero(labels > TRAIN)
    if not len(held) or not len(train):
        return []
    for name, values in inputs.items():
        if not moments_likely(values):
            continue
        moments = [date(v) for v in values]
        if any(m is None for m in moments) or len(set(moments)) < MANY_MOMENTS * len(moments):
            continue
        at = np.array([m.timestamp() for m in moments if m is not None])
        n_early = int((at[train] >= at[held].min()).sum())
        in_order, apart = bool((np.diff(at) >= 0).all()), np.median(at[held]) > np.quantile(at[train], 0.99)
        if in_order and n_early > OVERLAP * len(train):
            warnings.append(
                f"Rows follow one another in time ({name}), and training rows lie after held-out ones: "
                'data.split.kind = "time" keeps the future out.'
            )
        elif apart and n_early:
            warnings.append(f"{n_early} training rows are not before the earliest held-out row ({name}).")
    return warnings


def moments_likely(values: Column) -> bool:
    """Whether the first values of a column are dates: a quick look."""
    known = [v for v in values[:50] if v is not None]
    return bool(known) and all(date(v) is not None for v in known)


def copies(columns: Mapping[str, Column], train: NDArray[np.int64], held: NDArray[np.int64]) -> int:
    """Held-out rows that are equal to a training row in all these columns, those left out of the model too."""
    listed = list(columns.values())
    if len(listed) < 3:
        return 0  # few columns are equal by chance
    seen = {tuple(values[i] for values in listed) for i in train}
    return sum(tuple(values[i] for values in listed) in seen for i in held)


def tells(values: Column, target: Column) -> bool:
    """Whether the target follows from a column alone: equal, one-to-one, or a straight line."""
    pairs = [(v, t) for v, t in zip(values, target, strict=True) if v is not None and t is not None]
    n_different, n_targets = len({v for v, _ in pairs}), len({t for _, t in pairs})
    if len(pairs) < 20 or n_targets < 2:
        return False
    if n_different <= max(50, 2 * n_targets) and n_different * 5 <= len(pairs) and n_different >= n_targets:
        counted: dict[str, dict[str, int]] = {}
        for v, t in pairs:
            counted.setdefault(v, {}).setdefault(t, 0)
            counted[v][t] += 1
        right = sum(max(of.values()) for of in counted.values())
        return right >= TARGET_WARN * len(pairs)
    x, y = (np.array([number(p[i]) for p in pairs]) for i in (0, 1))
    if np.isnan(x).any() or np.isnan(y).any() or not x.std() or not y.std() or n_targets < 20:
        return n_targets >= 20 and [v for v, _ in pairs] == [t for _, t in pairs]
    return abs(float(np.corrcoef(x, y)[0, 1])) > TARGET_WARN


def shared_values(values: Column, train: NDArray[np.int64], held: NDArray[np.int64]) -> int:
    """Values on both sides, of a column that names things rather than kinds (many different values)."""
    inside = {values[i] for i in train if values[i] is not None}
    outside = {values[i] for i in held if values[i] is not None}
    return len(inside & outside) if len(inside | outside) >= 20 else 0
