"""What filled gaps look like: in the report, and as the answer of predict."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from danlu.base.contracts import Split
from danlu.base.errors import UserError
from danlu.tasks import panels
from danlu.tasks.panels import Panel
from danlu.tasks.samples import Predictions

N_SHOWN, AROUND = 12, 8
"""Gaps shown, and words shown on either side of one."""
N_BINS = 10


def fill_panels(predictions: Predictions, truths: Predictions, split: Split) -> list[Panel]:
    """Examples, and sureness against rightness."""
    told = [i for i, truth in enumerate(truths) if truth.shape[1]]
    if not told:
        return []
    examples = [example(predictions[i], truths[i], i, split) for i in told[:: max(1, len(told) // N_SHOWN)][:N_SHOWN]]
    found = np.concatenate([predictions[i] for i in told])
    right = found[:, 1] == np.concatenate([truths[i][0] for i in told])
    n_best = (found.shape[1] - 1) // 2
    sure = found[:, 1 + n_best]
    bins = np.minimum((sure * N_BINS).astype(int), N_BINS - 1)
    seen = [b for b in range(N_BINS) if (bins == b).any()]
    curve = ([float(sure[bins == b].mean()) for b in seen], [float(right[bins == b].mean()) for b in seen])
    columns, note = ["text", "hidden", "the model's words"], "One hidden word a text, chosen evenly over the split."
    return [
        panels.listing("Fillings", columns, examples, note),
        panels.lines(
            "Sureness and rightness",
            {"model": curve, "ideal": ([0.0, 1.0], [0.0, 1.0])},
            "share given to the likeliest word",
            "share of these that are right",
            "On the ideal line, what is given a share of 0.7 is right 7 times in 10.",
        ),
    ]


def example(found: NDArray[Any], truth: NDArray[Any], row: int, split: Any) -> list[str]:
    """[the text around the first gap, the hidden word, the model's words with their shares]."""
    tokens = list(split.row_tokens(row))
    at = int(truth[1][0])
    words = split.shown(tokens)
    words[at] = "____"
    around = words[max(0, at - AROUND) : at + AROUND + 1]
    best = ", ".join(f"{word} {share:.0%}" for word, share in fillings(found[0], split).items())
    return [" ".join(around), split.shown([int(truth[0][0])])[0], best]


def fillings(found: NDArray[Any], split: Any) -> dict[str, float]:
    """{word: share} of one gap, likeliest first."""
    n_best = (len(found) - 1) // 2
    words = split.shown([int(i) for i in found[1 : 1 + n_best]])
    return {word: round(float(share), 4) for word, share in zip(words, found[1 + n_best :], strict=True)}


def filled(found: NDArray[Any], row: int, split: Any, mask: int) -> dict[str, Any]:
    """The answer for one text that came with gaps."""
    tokens = np.array(split.row_tokens(row))
    gaps = np.flatnonzero(tokens == mask)
    if not len(gaps):
        raise UserError("predict", "needs a text with [MASK] where a word is missing", got=split.name(row))
    best = [fillings(gap, split) for gap in found]
    words = split.shown(list(tokens))
    for at, words_of_gap in zip(gaps, best, strict=True):
        words[at] = next(iter(words_of_gap))
    return {"name": split.name(row), "prediction": " ".join(words), "fillings": best}
