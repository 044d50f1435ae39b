"""BLEU and chrF of texts, from counts made once a sentence, so that a resample is a sum. sacrebleu counts and scores.

BLEU: Papineni et al. 2002, as Post (2018) fixed it. chrF: Popovic 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from danlu.base.errors import MissingExtra

Rows = NDArray[np.int64]


class Translation(NamedTuple):
    """What a model makes of a sentence."""

    text: str
    nats: float = 0.0
    """Of the reference under the model; 0 where there is none."""
    n_targets: int = 0
    """Tokens of the reference."""


def metrics(tokenize: str, lowercase: bool) -> tuple[Any, Any]:
    """sacrebleu's BLEU and chrF."""
    try:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF
    except ImportError:
        raise MissingExtra("task translate", "sacrebleu", "translation") from None
    return BLEU(tokenize=tokenize, lowercase=lowercase), CHRF(lowercase=lowercase)


class TextScorer:
    """Predictions held against one reference each."""

    def __init__(
        self, predictions: Sequence[Translation], truths: Sequence[str], tokenize: str, lowercase: bool
    ) -> None:
        texts, references = [p.text for p in predictions], [list(truths)]
        self.metrics = dict(zip(("bleu", "chrf"), metrics(tokenize, lowercase), strict=True))
        self.counts = {
            name: np.array(metric._extract_corpus_statistics(texts, references), np.int64)
            for name, metric in self.metrics.items()
        }
        """(N, numbers): lengths and n-grams that match, by sentence."""
        self.nats = np.array([(p.nats, p.n_targets) for p in predictions])

    @property
    def n_units(self) -> int:
        """Sentences."""
        return len(self.nats)

    def values(self, rows: Rows | None = None) -> dict[str, float]:
        """Corpus scores of some sentences (with repeats), or of all."""
        rows = np.arange(self.n_units) if rows is None else rows
        found = {}
        for name, metric in self.metrics.items():
            found[name] = float(metric._compute_score_from_stats(self.counts[name][rows].sum(0).tolist()).score)
        written, wanted = self.counts["bleu"][rows, :2].sum(0)
        found["length_ratio"] = float(written / max(1, wanted))
        nats, n_targets = self.nats[rows].sum(0)
        if n_targets:
            found["nats_per_token"] = float(nats / n_targets)
        return found

    def by_sentence(self) -> NDArray[np.float64]:
        """(N,) chrF of each: for examples, where BLEU is mostly 0."""
        metric, counts = self.metrics["chrf"], self.counts["chrf"]
        return np.array([metric._compute_score_from_stats(row.tolist()).score for row in counts])
