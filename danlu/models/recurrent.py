"""Recurrent networks. B samples, T steps, D width, V variables, H horizon, K targets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu.base.contracts import Batch, Output
from danlu.models.recurrent_settings import Recurrent

CELLS: dict[str, Any] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class RecurrentModel(nn.Module):
    """tokens (B, T) or history (B, L, V) -> one answer a sample, or the next H values of each target."""

    def __init__(self, settings: Recurrent, features: Mapping[str, Any], n_outputs: int, seed: int) -> None:
        super().__init__()
        self.settings, self.n_outputs = settings, n_outputs
        self.horizon = int(features.get("horizon", 0))
        self.columns = list(features.get("target_columns_in_history", ()))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            d_in = settings.embedding
            if self.horizon:
                self.table, d_in = None, int(features["n_variables"])
            else:
                self.table = nn.Embedding(int(features["vocab_size"]), d_in)
            between = settings.dropout if settings.n_layers > 1 else 0.0
            both = settings.directions == "both"
            self.cells = CELLS[settings.cell](
                d_in, settings.width, settings.n_layers, batch_first=True, dropout=between, bidirectional=both
            )
            self.head = nn.Linear(settings.width * (1 + both), max(1, self.horizon) * n_outputs)
            if self.horizon:
                nn.init.zeros_(self.head.weight)  # a forecast starts as "like the last value"
                nn.init.zeros_(self.head.bias)

    def dropped(self, x: Tensor) -> Tensor:
        """Dropout."""
        return F.dropout(x, self.settings.dropout, self.training) if self.settings.dropout else x

    def forward(self, batch: Batch) -> Output:
        """scores (B, n_outputs), or (B, H, K): what is added to the last known value of each target."""
        if self.table is None:
            history = batch.tensors["history"]
            states, _ = self.cells(history)
            change = self.head(self.dropped(states[:, -1])).view(-1, self.horizon, self.n_outputs)
            return Output(scores=history[:, -1:, self.columns] + change)
        tokens, lengths = batch.tensors["tokens"], batch.tensors["lengths"]
        inside = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        x = self.dropped(self.table(tokens))
        if self.settings.directions == "both":  # the way back must not start in the padding
            packed = nn.utils.rnn.pack_padded_sequence(
                x, lengths.cpu().clamp_min(1), batch_first=True, enforce_sorted=False
            )
            states, _ = nn.utils.rnn.pad_packed_sequence(
                self.cells(packed)[0], batch_first=True, total_length=tokens.shape[1]
            )
        else:
            states, _ = self.cells(x)
        return Output(scores=self.head(self.dropped(self.pooled(states, inside, lengths))))

    def pooled(self, states: Tensor, inside: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, D) -> (B, D), padding left out."""
        if self.settings.pool == "mean":
            return (states * inside[..., None]).sum(1) / lengths.clamp_min(1)[:, None]
        if self.settings.pool == "max":
            return states.masked_fill(~inside[..., None], float("-inf")).amax(1)
        half = self.settings.width
        last = states.gather(1, (lengths - 1).clamp_min(0)[:, None, None].expand(-1, 1, states.shape[2]))[:, 0]
        return torch.cat([last[:, :half], states[:, 0, half:]], 1)
