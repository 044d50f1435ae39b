"""WaveNet. B clips, T samples, V levels, R residual width, G gates, L layers, S skip width.

Inside, rows are time-major (T, B): a look back by d samples is then a slice. Before a clip there is silence in the
input and zero in every layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu.base.contracts import Batch, Output
from danlu.models.wavenet_settings import Wavenet
from danlu.models.wavenet_stack import Layer, stacked

N_WAVES = 8
"""Smooth functions of the level that its first vectors are made of."""


class Block(nn.Module):
    """Weights of one layer."""

    def __init__(self, width: int, gates: int, is_last: bool) -> None:
        super().__init__()
        self.past = nn.Linear(width, 2 * gates, bias=False)
        self.now = nn.Linear(width, 2 * gates)
        for matrix in (self.past, self.now):  # two halves of one convolution: fan-in 2R
            nn.init.uniform_(matrix.weight, -((2 * width) ** -0.5), (2 * width) ** -0.5)
        nn.init.zeros_(self.now.bias)
        self.out = None if is_last else nn.Linear(gates, width)

    @property
    def layer(self) -> Layer:
        """What the stack needs; the bias of `now` goes with what the sample is of."""
        out, bias = (None, None) if self.out is None else (self.out.weight, self.out.bias)
        return Layer(self.past.weight, self.now.weight, out, bias)


class WavenetModel(nn.Module):
    """levels (B, T), conditions (B, C), span (B, 2) -> features (B, T, S + 1) and head (V, S + 1) of every next level."""

    def __init__(self, settings: Wavenet, features: Mapping[str, Any], n_outputs: int, seed: int) -> None:
        super().__init__()
        self.settings, self.n_levels = settings, n_outputs
        R, S, L = settings.width, settings.skip, len(settings.steps)
        G = R if settings.gates == "width" else settings.gates
        self.sizes = [len(values) for values in features["values"]]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.start_now, self.start_past = smooth_table(n_outputs, R), smooth_table(n_outputs, R)
            self.blocks = nn.ModuleList(Block(R, G, i + 1 == L) for i in range(L))
            self.about = nn.Embedding(sum(self.sizes), 2 * G * L) if self.sizes else None
            if self.about is not None:
                nn.init.normal_(self.about.weight, std=0.05)
            n_courses = self.sizes[0] if self.sizes else 1
            self.course = nn.Embedding(n_courses * settings.knots, R) if settings.knots else None
            if self.course is not None:
                nn.init.normal_(self.course.weight, std=0.1)
            self.skip = nn.Linear(L * G, S)
            self.hidden = nn.Linear(S, S)
            self.head = nn.Linear(S, n_outputs)
            nn.init.zeros_(self.head.weight)
            counts = torch.tensor(features["level_counts"], dtype=torch.float32, device="cpu")
            self.head.bias.data.copy_(
                torch.log((counts + 1) / (counts + 1).sum())
            )  # before it learns: how often a level is

    def layers(self) -> list[Block]:
        """The blocks in order."""
        return [block for block in self.blocks if isinstance(block, Block)]

    def conditioned(self, conditions: Tensor) -> Tensor:
        """(B, C), -1 where unknown -> (L, B, 2G): the bias of each layer's gates."""
        bias = torch.stack([block.now.bias for block in self.layers()])[:, None]
        if self.about is None:
            return bias.expand(-1, len(conditions), -1).float()
        first = torch.tensor([0, *np.cumsum(self.sizes)[:-1].tolist()], device=conditions.device)
        vectors = self.about(conditions.clamp_min(0) + first) * (conditions >= 0)[..., None]
        about: Tensor = vectors.sum(1)
        return bias + about.view(len(conditions), len(self.blocks), -1).transpose(0, 1)

    def told(self, conditions: Tensor, at: Tensor, n: Tensor) -> Tensor:
        """Where samples `at` (B, T) of clips of `n` (B,) samples lie, as vectors (T, B, R)."""
        knots = self.settings.knots
        place = (at / n[:, None].clamp_min(1)).clamp(0, 1) * (knots - 1)
        near = (1 - (place[..., None] - torch.arange(knots, device=at.device)).abs()).clamp_min(0)
        first = conditions[:, 0].clamp_min(0) if conditions.shape[1] else torch.zeros_like(n)
        courses = self.course.weight.view(-1, knots, self.settings.width)[first]  # type: ignore[union-attr]
        return torch.bmm(near, courses.float()).transpose(0, 1)

    def entered(self, levels: Tensor) -> Tensor:
        """levels (T, B) -> (T, B, R), from the level just before each and the one before that."""
        silence = torch.full_like(levels[:1], self.n_levels // 2)
        before = torch.cat([silence, levels[:-1]])
        past = F.pad(self.start_past(before[:-1]), (0, 0, 0, 0, 1, 0))
        now: Tensor = self.start_now(before)
        return now + past

    def read(self, gates: Tensor) -> Tensor:
        """Gates (.., L G) -> what the head reads (.., S + 1), a 1 at the end for its bias."""
        x = F.relu(self.hidden(F.relu(self.skip(gates)))).float()
        if self.settings.dropout:
            x = F.dropout(x, self.settings.dropout, self.training)
        return F.pad(x, (0, 1), value=1.0)

    @property
    def head_weight(self) -> Tensor:
        """(V, S + 1)."""
        return torch.cat([self.head.weight, self.head.bias[:, None]], 1)

    def forward(self, batch: Batch) -> Output:
        """See the class."""
        levels, conditions, span = (batch.tensors[name] for name in ("levels", "conditions", "span"))
        B, T = levels.shape
        x = self.entered(levels.t())
        if self.course is not None:
            at = span[:, :1] + torch.arange(T, device=levels.device)
            x = x + self.told(conditions, at, span[:, 1])
        layers = [block.layer for block in self.layers()]
        gates = stacked(x.reshape(T * B, -1), self.conditioned(conditions), layers, self.settings.steps)
        features = self.read(gates).view(T, B, -1).transpose(0, 1)
        return Output(features=features, head_weight=self.head_weight)

    def generate(
        self, conditions: Tensor, n_samples: Tensor, seeds: np.ndarray, temperature: float = 1.0
    ) -> list[np.ndarray]:
        """New clips, one sample after another: levels (n_samples[b],) of each. See models/wavenet_generate.py."""
        from danlu.models.wavenet_generate import generated

        return generated(self, conditions, n_samples, seeds, temperature)


def smooth_table(n_levels: int, width: int) -> nn.Embedding:
    """Vectors of levels that start out alike where levels are: sums of a few cosines of the level."""
    table = nn.Embedding(n_levels, width)
    k = torch.arange(1, N_WAVES + 1, dtype=torch.float32)
    waves = torch.cos(math.pi * k * ((torch.arange(n_levels) + 0.5) / n_levels)[:, None]) / k
    table.weight.data.copy_(waves @ torch.randn(N_WAVES, width) + 0.02 * torch.randn(n_levels, width))
    return table
