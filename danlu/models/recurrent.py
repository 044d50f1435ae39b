"""Recurrent networks. B samples, T steps, D width, V variables, H horizon, K targets, C outputs."""

from __future__ import annotations

from collections.abc import Mapping
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
        self.layers = nn.ModuleList(
            nn.ModuleList(cell(width, settings.width, batch_first=True) for _ in range(n_ways)) for width in widths
        )

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """States of the last layer."""
        at = torch.arange(x.shape[1], device=x.device)
        turned = (lengths[:, None] - 1 - at).clamp_min(0)[..., None]
        for number, ways in enumerate(self.layers):
            if number and self.drop:
                x = F.dropout(x, self.drop, self.training)
            cells = list(ways)  # type: ignore[arg-type]
            states = [cells[0](x)[0]]
            if len(cells) == 2:
                back = cells[1](x.gather(1, turned.expand_as(x)))[0]
                states.append(back.gather(1, turned.expand_as(back)))
            x = torch.cat(states, -1) if len(states) == 2 else states[0]
        return x


class Bag(nn.Module):
    """A linear score of every token, and of its n-grams where words are spelled, summed over a text: (B, C)."""

    def __init__(self, features: Mapping[str, Any], n_outputs: int, drop: float) -> None:
        super().__init__()
        self.table, self.drop = TokenTable(features, n_outputs, 0.0, 0.0), drop

    def forward(self, tensors: Mapping[str, Tensor], inside: Tensor) -> Tensor:
        """In training tokens are left out with chance `drop`."""
        scores = F.dropout(self.table(tensors), self.drop, self.training)
        return (scores * inside[..., None]).sum(1)


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
            wide = settings.bag and not self.horizon and not self.per_position
            self.bag = Bag(features, n_outputs, settings.bag_dropout) if wide else None
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
        return Output(scores=scores if self.bag is None else scores + self.bag(batch.tensors, inside))

    def pooled(self, states: Tensor, inside: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, D) -> (B, D), padding left out."""
        if self.settings.pool == "mean":
            return (states * inside[..., None]).sum(1) / lengths.clamp_min(1)[:, None]
        if self.settings.pool == "max":
            return states.masked_fill(~inside[..., None], float("-inf")).amax(1)
        half = self.settings.width
        last = states.gather(1, (lengths - 1).clamp_min(0)[:, None, None].expand(-1, 1, states.shape[2]))[:, 0]
        return torch.cat([last[:, :half], states[:, 0, half:]], 1)
