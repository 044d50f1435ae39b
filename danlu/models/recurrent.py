"""Recurrent networks. B samples, T steps, D width, V variables, H horizon, K targets, C outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu.base.contracts import Batch, Output
from danlu.models.recurrent_settings import Recurrent
from danlu.models.token_table import TokenTable

CELLS: dict[str, Any] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
SPELLED_STD = 0.1
"""Of token vectors at the start where words are spelled: a word's is a sum of many."""
BAYES_SHARE = 0.5
"""Naive Bayes takes the words of a text to say independent things, and so counts them for too much."""


class Reader(nn.Module):
    """Layers of cells over (B, T, D) of known lengths, in one or both directions -> (B, T, width times directions).

    The way back reads each text reversed, from its own end: no packing, which on a CPU costs several times the cells.
    """

    def __init__(self, settings: Recurrent, d_in: int) -> None:
        super().__init__()
        self.drop = settings.dropout
        n_ways = 2 if settings.directions == "both" else 1
        widths = [d_in, *(settings.width * n_ways for _ in range(settings.n_layers - 1))]
        cell = CELLS[settings.cell]
        ways = [[cell(width, settings.width, batch_first=True) for _ in range(n_ways)] for width in widths]
        self.ahead = nn.ModuleList(cells[0] for cells in ways)
        self.back = nn.ModuleList(cells[-1] for cells in ways) if n_ways == 2 else None

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """States of the last layer."""
        at = torch.arange(x.shape[1], device=x.device)
        turned = (lengths[:, None] - 1 - at).clamp_min(0)[..., None]
        for number, cells in enumerate(self.ahead):
            if number and self.drop:
                x = F.dropout(x, self.drop, self.training)
            states = cells(x)[0]
            if self.back is not None:
                back = self.back[number](x.gather(1, turned.expand_as(x)))[0]
                states = torch.cat([states, back.gather(1, turned.expand_as(back))], -1)
            x = states
        return x


class Bag(nn.Module):
    """A linear score of every word, summed over a text: (B, C)."""

    def __init__(self, features: Mapping[str, Any], n_outputs: int, settings: Recurrent) -> None:
        super().__init__()
        self.table, self.drop = nn.Embedding(int(features["vocab_size"]), n_outputs), settings.bag_dropout
        start = naive_bayes(features["texts_with"]) if settings.bag == "naive Bayes" else torch.zeros(1, 1)
        if start.shape[1] == 2 and n_outputs == 1:  # one score says how much the second class is likelier
            start = start[:, 1:] - start[:, :1]
        with torch.no_grad():
            self.table.weight.copy_(BAYES_SHARE * start)

    def forward(self, tokens: Tensor, inside: Tensor) -> Tensor:
        """In training words are left out with chance `bag_dropout`."""
        scores = F.dropout(self.table(tokens), self.drop, self.training)
        return (scores * inside[..., None]).sum(1)


def naive_bayes(texts_with: Sequence[Sequence[int]]) -> Tensor:
    """(V, C) log of each word's share of its class's words, one added to every count, less its mean over classes."""
    counts = torch.tensor(texts_with, dtype=torch.float64).t() + 1
    logs = (counts / counts.sum(0)).log()
    return (logs - logs.mean(1, keepdim=True)).float()


class RecurrentModel(nn.Module):
    """tokens (B, T) or history (B, L, V) -> one answer a sample, one at each position where features say
    `per_position`, or the next H values of each target."""

    def __init__(self, settings: Recurrent, features: Mapping[str, Any], n_outputs: int, seed: int) -> None:
        super().__init__()
        self.settings, self.n_outputs = settings, n_outputs
        self.horizon, self.per_position = int(features.get("horizon", 0)), bool(features.get("per_position"))
        self.columns = list(features.get("target_columns_in_history", ()))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            d_in = int(features["n_variables"]) if self.horizon else settings.embedding
            std = SPELLED_STD if features.get("grams") else 1.0
            self.table = None if self.horizon else TokenTable(features, d_in, settings.token_dropout, std)
            wide = settings.bag != "none" and not self.horizon and not self.per_position
            self.bag = Bag(features, n_outputs, settings) if wide else None
            self.reader = Reader(settings, d_in)
            n_ways = 2 if settings.directions == "both" else 1
            self.head = nn.Linear(settings.width * n_ways, max(1, self.horizon) * n_outputs)
            if self.horizon:
                nn.init.zeros_(self.head.weight)  # a forecast starts as "like the last value"
                nn.init.zeros_(self.head.bias)

    def dropped(self, x: Tensor) -> Tensor:
        """Dropout."""
        return F.dropout(x, self.settings.dropout, self.training) if self.settings.dropout else x

    def forward(self, batch: Batch) -> Output:
        """scores (B, C), (B, T, C), or (B, H, K): what is added to the last known value of each target."""
        if self.table is None:
            history = batch.tensors["history"]
            every = torch.full((len(history),), history.shape[1], device=history.device)
            states = self.reader(history, every)
            change = self.head(self.dropped(states[:, -1])).view(-1, self.horizon, self.n_outputs)
            return Output(scores=history[:, -1:, self.columns] + change)
        tokens, lengths = batch.tensors["tokens"], batch.tensors["lengths"]
        inside = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        states = self.reader(self.dropped(self.table(batch.tensors)), lengths)
        if not self.per_position:
            states = self.pooled(states, inside, lengths)
        scores = self.head(self.dropped(states))
        return Output(scores=scores if self.bag is None else scores + self.bag(tokens, inside))

    def pooled(self, states: Tensor, inside: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, D) -> (B, D), padding left out."""
        if self.settings.pool == "mean":
            return (states * inside[..., None]).sum(1) / lengths.clamp_min(1)[:, None]
        if self.settings.pool == "max":
            return states.masked_fill(~inside[..., None], float("-inf")).amax(1)
        half = self.settings.width
        last = states.gather(1, (lengths - 1).clamp_min(0)[:, None, None].expand(-1, 1, states.shape[2]))[:, 0]
        return torch.cat([last[:, :half], states[:, 0, half:]], 1)
