"""How the next token is picked from a model's scores: greedy, temperature, top-k, top-p, min-p.

Applied in this order, each to what the one before it left: temperature, top-k (Fan et al. 2018), top-p
(Holtzman et al. 2020, the nucleus), min-p (Nguyen et al. 2024).
"""

# B rows (one prompt each), V tokens

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from danlu.base.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor


class Sampling(Settings):
    """How to continue a prompt."""

    max_new_tokens: Annotated[int, Field(ge=1)] = 200
    """Most tokens to add to a prompt."""
    temperature: Annotated[float, Field(ge=0, le=100)] = 0.8
    """Scores are divided by it; 0 takes the best token always (greedy), 1 is the model's own distribution."""
    top_k: Annotated[int, Field(ge=1)] | None = None
    """Keep the k best tokens."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Keep the smallest set of best tokens whose probability reaches p."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Keep tokens at least this fraction as probable as the best one."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Texts that end a continuation; they are left out of it."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Prompt i draws from a stream of its own, made from (seed, i): never from the rest of the batch."""

    def __str__(self) -> str:
        """The settings as a reader wants them: "temperature 0.8, top-k 50, seed 0"."""
        if self.temperature == 0:
            return "greedy"
        cuts = {"top-k": self.top_k, "top-p": self.top_p, "min-p": self.min_p}
        shown = [f"{name} {value:g}" for name, value in cuts.items() if value is not None]
        return ", ".join([f"temperature {self.temperature:g}", *shown, f"seed {self.seed}"])


def kept(scores_BV: Tensor, sampling: Sampling) -> Tensor:
    """Scores after temperature, with the tokens that the cuts drop at -inf. The best token always stays."""
    scores_BV = (scores_BV.float() - scores_BV.float().amax(-1, keepdim=True)) / sampling.temperature
    if sampling.top_k is not None:
        scores_BV = top_k(scores_BV, sampling.top_k)
    if sampling.top_p is not None:
        scores_BV = top_p(scores_BV, sampling.top_p)
    if sampling.min_p is not None:
        scores_BV = min_p(scores_BV, sampling.min_p)
    return scores_BV


def top_k(scores_BV: Tensor, k: int) -> Tensor:
    """Exactly the k best tokens of each row stay; among equals, those with the lower ids."""
    order_BV = scores_BV.argsort(dim=-1, descending=True, stable=True)
    return scores_BV.scatter(-1, order_BV[:, k:], float("-inf"))


def top_p(scores_BV: Tensor, p: float) -> Tensor:
    """The smallest set of best tokens whose probabilities sum to at least p stays."""
    ordered_BV, order_BV = scores_BV.sort(dim=-1, descending=True, stable=True)
    mass_BV = ordered_BV.double().softmax(-1)
    reached_BV = mass_BV.cumsum(-1) - mass_BV >= p
    reached_BV[:, 0] = False
    return scores_BV.masked_fill(reached_BV.scatter(-1, order_BV, reached_BV), float("-inf"))


def min_p(scores_BV: Tensor, p: float) -> Tensor:
    """Tokens whose probability is at least p times that of the best token stay."""
    mass_BV = scores_BV.double().softmax(-1)
    return scores_BV.masked_fill(mass_BV < p * mass_BV.amax(-1, keepdim=True), float("-inf"))


class Draws:
    """One stream of uniform numbers per prompt (Philox keyed by seed and prompt number)."""

    def __init__(self, seed: int, n_rows: int) -> None:
        self._streams = [np.random.Generator(np.random.Philox(key=[seed, row])) for row in range(n_rows)]

    def next(self, rows: Sequence[int]) -> np.ndarray:
        """The next number of each of these rows. float64 in [0, 1)."""
        return np.array([self._streams[row].random() for row in rows])


def picked(scores_BV: Tensor, sampling: Sampling, u_B: np.ndarray) -> Tensor:
    """One token per row: the first at which the cumulative probability passes u. (B, V), (B,) -> (B,) int64."""
    import torch

    if sampling.temperature == 0:
        return scores_BV.argmax(-1)
    mass_BV = kept(scores_BV, sampling).double().softmax(-1)
    cumulative_BV = mass_BV.cumsum(-1)
    u_B1 = torch.from_numpy(u_B).to(mass_BV.device)[:, None] * cumulative_BV[:, -1:]
    tokens_B = torch.searchsorted(cumulative_BV, u_B1, right=True)[:, 0]
    last_B = mass_BV.shape[-1] - 1 - mass_BV.flip(-1).gt(0).int().argmax(-1)
    return tokens_B.minimum(last_B)
