"""Beam search over a batch of sources, with keys and values kept. Sutskever et al. 2014; length penalty: Wu et al. 2016.

B samples that are not done, K beams each, V tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


class Reading(Protocol):
    """A model's memory of the sources and of what was written."""

    def beams(self, rows: Tensor) -> None:
        """Beams `rows` go on, of B * K."""

    def samples(self, rows: Tensor) -> None:
        """Samples `rows` go on, of B."""


class Writes(Protocol):
    """A model that writes one token at a time."""

    def start(self, source: Tensor, lengths: Tensor) -> Any:
        """A Reading of the sources (B, S)."""

    def step(self, tokens: Tensor, reading: Any) -> Tensor:
        """The last token of each beam (B * K,) -> scores (B * K, V)."""


@dataclass(frozen=True)
class Search:
    """How the best translation is looked for."""

    n_beams: int
    alpha: float
    """A translation's score is its log-probability over ((5 + length) / 6)^alpha."""
    begin: int
    end: int
    barred: Sequence[int]
    """Tokens that are never written."""

    def penalty(self, length: Tensor | int) -> Any:
        """((5 + length) / 6)^alpha."""
        return ((5 + length) / 6) ** self.alpha


@torch.no_grad()
def searched(model: Writes, source: Tensor, lengths: Tensor, limits: Tensor, how: Search) -> list[list[int]]:
    """The best tokens of each source, without the end; at most `limits` (B,) of them with it.

    A sample is done when K of its translations have ended, or when no beam can still beat the best of them.
    """
    K, device = how.n_beams, source.device
    reading = model.start(source, lengths)
    found: list[list[int]] = [[] for _ in range(len(source))]
    alive = torch.arange(len(source), device=device)
    tokens = torch.full((len(source) * K,), how.begin, device=device)
    scores = torch.full((len(source), K), float("-inf"), device=device)
    scores[:, 0] = 0.0  # all beams begin alike, so one stands for all
    written = torch.empty(len(source), K, 0, dtype=torch.long, device=device)
    best = torch.full((len(source),), float("-inf"), device=device)
    n_ended = torch.zeros(len(source), dtype=torch.long, device=device)
    n = 0
    while len(alive):
        n += 1
        totals, beam, token = candidates(model.step(tokens, reading), scores, n >= limits, how)
        ends = token == how.end
        ended = ends[:, :K] & totals[:, :K].isfinite()
        value, place = torch.where(ended, totals[:, :K] / how.penalty(n), float("-inf")).max(1)
        for i in torch.nonzero(value > best)[:, 0].tolist():
            found[int(alive[i])] = written[i, beam[i, place[i]]].tolist()
        best, n_ended = torch.maximum(best, value), n_ended + ended.sum(1)
        goes_on = ends.to(torch.uint8).argsort(dim=1, stable=True)[:, :K]  # 2 K candidates hold K that do not end
        scores, beam, token = (part.gather(1, goes_on) for part in (totals, beam, token))
        bound = scores[:, 0] / how.penalty(limits)
        kept = torch.nonzero((n_ended < K) & (best < bound) & (n < limits))[:, 0]
        rows = (kept[:, None] * K + beam[kept]).flatten()
        reading.beams(rows)
        if len(kept) < len(alive):
            reading.samples(kept)
        written = torch.cat([written.flatten(0, 1)[rows].view(len(kept), K, n - 1), token[kept][..., None]], 2)
        tokens = token[kept].flatten()
        alive, scores, best, n_ended, limits = (part[kept] for part in (alive, scores, best, n_ended, limits))
    return found


def candidates(logits: Tensor, scores: Tensor, must_end: Tensor, how: Search) -> tuple[Tensor, Tensor, Tensor]:
    """The 2 K best ways to go on of each sample, best first: (log-probability, beam, token), each (B, 2 K)."""
    B, K = scores.shape
    logits = logits.float()
    logits[:, list(how.barred)] = float("-inf")
    logs = logits - logits.logsumexp(1, keepdim=True)
    if must_end.any():
        rows = must_end.repeat_interleave(K)
        ended = logs[rows, how.end]
        logs[rows] = float("-inf")
        logs[rows, how.end] = ended
    n = min(2 * K, logs.shape[1])
    within, token = logs.topk(n, 1)  # of each beam first: far fewer to sort than K * V
    totals, place = (scores[..., None] + within.view(B, K, n)).flatten(1).topk(2 * K, 1)
    return totals, place // n, token.view(B, K * n).gather(1, place)
