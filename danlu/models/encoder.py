"""A bidirectional Transformer encoder (Devlin et al. 2019). B samples, T tokens, D width, V words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu.base.contracts import Batch, Output
from danlu.models.encoder_settings import Encoder
from danlu.models.token_table import TokenTable
from danlu.models.transformer import Block, Shape, dropout, padding, sinusoids, stacked_rows, start_weights

STD = 0.02
"""Of vectors at the start."""


class EncoderModel(nn.Module):
    """tokens (B, T), lengths (B,) -> scores (B, n_outputs), or (B, T, n_outputs) where features say `per_position`.

    Where features say `fills`, the answer at each position is a word of the vocabulary: features (B, T, D) and the table
    of words (V, D), which is tied, so that a task makes only the scores that it needs.
    """

    def __init__(self, settings: Encoder, features: Mapping[str, Any], n_outputs: int, seed: int) -> None:
        super().__init__()
        self.settings, s = settings, settings
        self.per_position, self.fills = bool(features.get("per_position")), bool(features.get("fills"))
        context = int(features["context"])
        shape = Shape(
            width=s.width, n_heads=s.n_heads, hidden=4 * s.width if s.hidden == "auto" else s.hidden, dropout=s.dropout,
            attention_dropout=s.attention_dropout, activation=s.activation, norm=s.norm, eps=s.eps,
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.table = TokenTable(features, s.width, s.token_dropout, STD)
            self.positions = nn.Embedding(context, s.width) if s.positions == "learned" else None
            self.segments = nn.Embedding(s.segments, s.width) if s.segments else None
            n = s.neighbours
            self.mix = nn.Conv1d(s.width, s.width, 2 * n + 1, padding=n) if n else None
            self.blocks = nn.ModuleList(Block(shape) for _ in range(s.n_layers))
            self.norm = nn.LayerNorm(s.width, s.eps)
            self.pooler = nn.Linear(s.width, s.width) if s.pooler and not self.per_position else None
            self.fill = nn.Linear(s.width, s.width) if self.fills else None
            self.fill_norm = nn.LayerNorm(s.width, s.eps) if self.fills else None
            self.head = None if self.fills else nn.Linear(s.width, n_outputs)
            start_weights(self, 2 * s.n_layers)
            if self.table.grams is not None:
                nn.init.normal_(self.table.grams.weight, std=STD)
        if s.positions == "sinusoids":
            self.register_buffer("sines", STD * sinusoids(context, s.width), persistent=False)

    def row_parts(self) -> dict[str, tuple[int, ...]]:
        """For Muon: query, key and value apart."""
        return stacked_rows(self)

    def read(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """(B, T, D): vectors of tokens, positions and segments."""
        x: Tensor = self.table(tensors)
        n = x.shape[1]
        if self.positions is not None:
            x = x + self.positions.weight[:n]
        elif self.settings.positions == "sinusoids":
            x = x + self.get_buffer("sines")[:n]
        if self.segments is not None:
            segments = tensors.get("segments")
            x = x + (self.segments.weight[0] if segments is None else self.segments(segments))
        if self.settings.norm == "post":
            x = self.norm(x)
        if self.mix is not None:
            inside = ~padding(tensors["lengths"], n)[:, 0, 0, :, None]
            x = x + F.gelu(self.mix((x * inside).mT).mT)
        return dropout(x, self.settings.dropout, self.training)

    def forward(self, batch: Batch) -> Output:
        """See the class."""
        tensors, p = batch.tensors, self.settings.dropout
        tokens = tensors["tokens"]
        lengths = tensors["lengths"]
        hidden = padding(lengths, tokens.shape[1])
        x = self.read(tensors)
        for block in self.blocks:
            x = block(x, hidden)
        if self.settings.norm == "pre":
            x = self.norm(x)
        if self.fill is not None and self.fill_norm is not None:
            return Output(features=self.fill_norm(F.gelu(self.fill(x))), head_weight=self.table.words.weight)
        if not self.per_position:
            x = self.pooled(x, hidden, lengths)
        head = self.head
        return Output(scores=None if head is None else head(dropout(x, p, self.training)))

    def pooled(self, x: Tensor, hidden: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, D) -> (B, D), padding left out."""
        out = hidden[:, 0, 0, :, None]
        if self.settings.pool == "first":
            x = x[:, 0]
        elif self.settings.pool == "mean":
            x = x.masked_fill(out, 0).sum(1) / lengths.clamp_min(1)[:, None]
        else:
            x = x.masked_fill(out, torch.finfo(x.dtype).min).amax(1)
        return x if self.pooler is None else self.pooler(x).tanh()
