"""Translations to look at: the worst, the middle, the best; where a word was looked for; scores by length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from danlu.tasks.panels import Panel, lines, listing, matrix
from danlu.tasks.translate_scores import TextScorer, Translation

N_EACH, N_GROUPS = 4, 5


def panels_of(
    predictions: Sequence[Translation],
    truths: Sequence[str],
    sources: Sequence[str],
    scorer: TextScorer,
) -> list[Panel]:
    """Examples, and BLEU by length."""
    scores = scorer.by_sentence()
    order = np.argsort(scores, kind="stable")
    middle = max(0, len(order) // 2 - N_EACH // 2)
    groups = {"worst": order[:N_EACH], "middle": order[middle : middle + N_EACH], "best": order[::-1][:N_EACH]}
    rows = [
        [name, f"{scores[i]:.0f}", sources[i], predictions[i].text, truths[i]]
        for name, chosen in groups.items()
        for i in chosen
    ]
    columns = ["", "chrF", "source", "translation", "reference"]
    found = [listing("Translations", columns, rows, "The worst, the middle and the best by chrF.")]
    by_length = scores_by_length(sources, scorer)
    if by_length is not None:
        found.append(by_length)
    return found


def scores_by_length(sources: Sequence[str], scorer: TextScorer) -> Panel | None:
    """BLEU of sentences of like length."""
    sizes = np.array([len(source.split()) for source in sources])
    if len(sizes) < 10 * N_GROUPS:
        return None
    parts = np.array_split(np.argsort(sizes, kind="stable"), N_GROUPS)
    x = [float(sizes[part].mean()) for part in parts]
    y = [scorer.values(part)["bleu"] for part in parts]
    return lines("BLEU by length", {"BLEU": (x, y)}, "words of the source", "BLEU", "Five groups of equal size.")


def looked_at(attention: Any, source: Sequence[int], written: Sequence[int], features: Mapping[str, Any]) -> Panel:
    """The attention (T, S) of one translation: T tokens with their end, S of the source."""
    rows, columns = named(written, features, "target"), named(source, features, "source")
    note = "Rows: what was written; columns: the source. Mean of the heads of the last block."
    return matrix("Where each word was looked for", attention, rows, columns, note)


def named(ids: Sequence[int], features: Mapping[str, Any], side: str) -> list[str]:
    """Pieces as one can read them."""
    pieces = features[f"{side}_pieces"] or features["target_pieces"]
    return [shown(pieces[i]) for i in ids]


def shown(piece: str) -> str:
    """A piece's own text; a space is written _."""
    return piece.encode("latin-1", "replace").decode("utf-8", "replace").replace(" ", "_")
