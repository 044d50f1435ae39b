"""Encoder and decoder, and the decoder one token at a time. Vaswani et al. 2017, 1706.03762, pre-norm.

B samples, S source tokens, T target tokens, D width, V target vocabulary, K beams of a sample.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu.base.contracts import Batch, Output
from danlu.models.seq2seq_settings import Seq2Seq
from danlu.models.transformer import (
    Block,
    Cache,
    Shape,
    causal,
    dropout,
    padding,
    sinusoids,
    stacked_rows,
    start_weights,
)


@dataclass
class Reading:
    """What decoding keeps: keys and values by block, of K beams of what was written, and of each source once."""

    own: list[Cache]
    """(B * K, N, written, H)"""
    across: list[Cache]
    """(B, N, S, H)"""
    hidden: Tensor
    """(B, 1, 1, S) padding of the sources."""
    n_written: int = 0

    def beams(self, rows: Tensor) -> None:
        """Beams `rows` (B * K,) go on."""
        for cache in self.own:
            cache.reorder(rows)

    def samples(self, rows: Tensor) -> None:
        """Sources `rows` (B',) go on; `beams` chooses their beams."""
        for cache in self.across:
            cache.reorder(rows)
        self.hidden = self.hidden[rows]


class Seq2SeqModel(nn.Module):
    """source (B, S), lengths (B,), inputs (B, T) -> features (B, T, D) and the output matrix (V, D)."""

    positions: Tensor

    def __init__(self, settings: Seq2Seq, features: Mapping[str, Any], n_outputs: int, seed: int) -> None:
        super().__init__()
        self.settings = settings
        width, n_source = settings.width, int(features["source_vocab_size"])
        hidden = 4 * width if settings.hidden == "auto" else settings.hidden
        self.tie = settings.tie if settings.tie != "auto" else "all" if features["joint"] else "output"
        shapes = [
            Shape(width, settings.n_heads, hidden, settings.dropout, settings.attention_dropout, settings.activation, crosses=crosses)
            for crosses in (False, True)
        ]  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.table = nn.Embedding(n_outputs, width)
            self.source_table = None if self.tie == "all" else nn.Embedding(n_source, width)
            self.head = nn.Linear(width, n_outputs, bias=False) if self.tie == "none" else None
            self.encoder = nn.ModuleList(Block(shapes[0]) for _ in range(settings.encoder_layers))
            self.decoder = nn.ModuleList(Block(shapes[1]) for _ in range(settings.decoder_layers))
            self.encoder_norm, self.decoder_norm = nn.LayerNorm(width), nn.LayerNorm(width)
            start_weights(self, 2 * settings.encoder_layers + 3 * settings.decoder_layers)
            for table in (self.table, self.source_table):  # scaled by sqrt(D) when read, as published (section 3.4)
                if table is not None:
                    nn.init.normal_(table.weight, std=width**-0.5)
        self.register_buffer("positions", sinusoids(int(features["context"]), width), persistent=False)

    def read(self, table: nn.Embedding, tokens: Tensor, first: int = 0) -> Tensor:
        """(B, T) -> (B, T, D): vectors and positions."""
        positions = self.positions[first : first + tokens.shape[1]]
        x = table(tokens) * math.sqrt(self.settings.width) + positions
        return dropout(x, self.settings.dropout, self.training)

    def encode(self, source: Tensor, hidden: Tensor) -> Tensor:
        """(B, S) -> (B, S, D)."""
        x = self.read(self.table if self.source_table is None else self.source_table, source)
        for block in self.encoder:
            x = block(x, hidden)
        return self.encoder_norm(x)  # type: ignore[no-any-return]

    def forward(self, batch: Batch) -> Output:
        """Features of every target position."""
        source, inputs = batch.tensors["source"], batch.tensors["inputs"]
        hidden = padding(batch.tensors["lengths"], source.shape[1])
        memory = self.encode(source, hidden)
        x, future = self.read(self.table, inputs), causal(inputs.shape[1], inputs.device)
        for block in self.decoder:
            x = block(x, future, memory, hidden)
        x = self.decoder_norm(x)
        device = x.device.type
        if torch.is_autocast_enabled(device):  # the norm gives float32; the scores are made in the matrices' precision
            x = x.to(torch.get_autocast_dtype(device))
        return Output(features=x, head_weight=self.output_matrix)

    @property
    def output_matrix(self) -> Tensor:
        """(V, D)."""
        return self.table.weight if self.head is None else self.head.weight

    def start(self, source: Tensor, lengths: Tensor) -> Reading:
        """Read the sources; nothing is written yet."""
        hidden = padding(lengths, source.shape[1])
        memory, across = self.encode(source, hidden), []
        blocks: list[Any] = list(self.decoder)
        for block in blocks:
            across.append(Cache(*block.across.heads(block.across.key_value(memory), 2)))
        return Reading([Cache() for _ in blocks], across, hidden)

    def step(self, tokens: Tensor, reading: Reading) -> Tensor:
        """The last token of each beam (B * K,) -> scores (B * K, V) of the next; beams of a sample share its source."""
        B, D = len(reading.hidden), self.settings.width
        blocks: list[Any] = list(self.decoder)
        x = self.read(self.table, tokens[:, None], reading.n_written)
        for block, own, across in zip(blocks, reading.own, reading.across, strict=True):
            x = x + block.attention(block.attention_norm(x), cache=own)
            beams = block.across_norm(x).view(B, -1, D)
            x = x + block.across(beams, reading.hidden, cache=across).view(-1, 1, D)
            x = x + block.down(block.activated(block.up(block.hidden_norm(x))))
        reading.n_written += 1
        return F.linear(self.decoder_norm(x)[:, 0], self.output_matrix)

    def attention(self, batch: Batch) -> Tensor:
        """(B, T, S): where each target position looks in the source, the mean of the heads of the last block."""
        last: Any = self.decoder[-1]
        across = last.across
        across.watched = True
        try:
            self(batch)
            return across.seen.float().mean(1)  # type: ignore[no-any-return]
        finally:
            across.watched, across.seen = False, None

    def parameter_groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Tables, output matrix, matrices of blocks, and the rest."""
        groups: dict[str, list[tuple[str, nn.Parameter]]] = {"embedding": [], "head": [], "hidden": [], "vector": []}
        for name, p in self.named_parameters():
            role = "vector" if p.dim() < 2 else "head" if name.startswith("head") else "hidden"
            groups["embedding" if "table" in name else role].append((name, p))
        return groups

    def row_parts(self) -> dict[str, tuple[int, ...]]:
        """Matrices stacked in one parameter."""
        return stacked_rows(self)
