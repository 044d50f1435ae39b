"""Transformer parts that encoder, translator and vision models share (Vaswani et al. 2017, 1706.03762).

The decoder of language models has its own file, tuned for long causal text; here attention also looks both ways, across
to another sequence, and past padding.

B samples, T queries, S keys, N heads, H head width, D = N * H width, F hidden width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FUSED_FROM = 512
"""Keys from which torch's fused attention is faster on a CPU than two matrix products (measured with its backward)."""


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Each element is 0 with chance p, else divided by 1 - p (Srivastava et al. 2014); p is taken to the nearest 1/256.

    One random byte an element: 2.5 times as fast on a CPU as F.dropout, which draws a number for each.
    """
    n_dropped = round(256 * p)
    if not training or n_dropped == 0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, p, True)
    n = x.numel()
    words = torch.empty((n + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
    kept = words.view(torch.uint8)[:n].view(x.shape) >= n_dropped
    return x * kept.to(x.dtype).mul_(256 / (256 - n_dropped))


class Dropout(nn.Module):
    """`dropout` as a layer."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return dropout(x, self.p, self.training)


def drop_path(x: Tensor, p: float, training: bool) -> Tensor:
    """A branch (B, ...) left out for whole samples with chance p (stochastic depth: Huang et al. 2016)."""
    if not training or p == 0:
        return x
    keep = torch.rand(len(x), *(1,) * (x.dim() - 1), device=x.device) >= p
    return x * (keep / (1 - p)).to(x.dtype)


def padding(lengths: Tensor, n: int) -> Tensor:
    """(B,) lengths -> (B, 1, 1, n) bool, true at keys that must not be seen."""
    return (torch.arange(n, device=lengths.device) >= lengths[:, None])[:, None, None]


def sinusoids(n: int, width: int) -> Tensor:
    """(n, width) fixed positions: sines and cosines of wavelengths from 2 pi to 10,000 * 2 pi (section 3.5)."""
    at = torch.arange(n)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    return torch.stack([at.sin(), at.cos()], -1).flatten(1)[:, :width]


@dataclass
class Cache:
    """Keys and values (B, N, S, H) of what was read so far, for decoding one token at a time."""

    keys: Tensor | None = None
    values: Tensor | None = None

    def extended(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values, the new ones last."""
        if self.keys is not None and self.values is not None:
            keys, values = torch.cat([self.keys, keys], 2), torch.cat([self.values, values], 2)
        self.keys, self.values = keys, values
        return keys, values

    def reorder(self, rows: Tensor) -> None:
        """Samples `rows` (B',) go on: for beams."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys[rows], self.values[rows]


@dataclass(frozen=True)
class Shape:
    """What a block is made of."""

    width: int
    n_heads: int
    hidden: int
    """Width inside the feed-forward part."""
    dropout: float = 0.0
    """Of both branches' results."""
    attention_dropout: float = 0.0
    """Of the attention weights."""
    activation: str = "gelu"
    """gelu, relu or silu."""
    norm: str = "pre"
    """pre: before each branch (Xiong et al. 2020). post: after each sum, as published."""
    eps: float = 1e-5
    drop_path: float = 0.0
    crosses: bool = False
    """Whether there is a branch that looks at another sequence."""


class Attention(nn.Module):
    """softmax(q k' / sqrt(H)) v over the keys that are not hidden, in heads."""

    def __init__(self, shape: Shape, crosses: bool = False) -> None:
        super().__init__()
        self.n_heads, self.p, self.crosses = shape.n_heads, shape.attention_dropout, crosses
        width = shape.width
        if crosses:
            self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        else:
            self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.watched = False
        """Whether the weights of the last pass are kept in `seen` (B, N, T, S), for a picture."""
        self.seen: Tensor | None = None

    def heads(self, x: Tensor, n: int) -> tuple[Tensor, ...]:
        """(B, T, n D) -> n times (B, N, T, H)."""
        B, T, _ = x.shape
        return x.view(B, T, n, self.n_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)

    def forward(
        self, x: Tensor, hidden: Tensor | None = None, memory: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """x (B, T, D), hidden (broadcasts to B, N, T, S) bool: keys that are not seen -> (B, T, D).

        Crossing: keys come from `memory` (B, S, D), or from the cache once they are in it.
        """
        if self.crosses:
            (q,) = self.heads(self.query(x), 1)
            if cache is not None and cache.keys is not None and cache.values is not None:
                k, v = cache.keys, cache.values
            elif memory is not None:
                k, v = self.heads(self.key_value(memory), 2)
                if cache is not None:
                    cache.keys, cache.values = k, v
            else:
                raise ValueError("attention across needs a memory")
        else:
            q, k, v = self.heads(self.qkv(x), 3)
            if cache is not None:
                k, v = cache.extended(k, v)
        return self.out(self.mixed(q, k, v, hidden))  # type: ignore[no-any-return]

    def mixed(self, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None) -> Tensor:
        """(B, N, T, H), (B, N, S, H) twice -> (B, T, D)."""
        B, N, T, H = q.shape
        if k.shape[2] >= FUSED_FROM and not self.watched:
            seen = None if hidden is None else ~hidden
            mixed = F.scaled_dot_product_attention(q, k, v, seen, self.p if self.training else 0.0)
            return mixed.transpose(1, 2).reshape(B, T, N * H)
        scores = (q * H**-0.5) @ k.transpose(-1, -2)
        if hidden is not None:
            scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
        weights = scores.softmax(-1).to(v.dtype)
        if self.watched:
            self.seen = weights.detach()
        return (dropout(weights, self.p, self.training) @ v).transpose(1, 2).reshape(B, T, N * H)


class Block(nn.Module):
    """x + attention(x) [+ across(x)] + feed-forward(x), each branch normalised before or after."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.attention_norm = nn.LayerNorm(shape.width, shape.eps)
        self.attention = Attention(shape)
        self.across = Attention(shape, crosses=True) if shape.crosses else None
        self.across_norm = nn.LayerNorm(shape.width, shape.eps) if shape.crosses else None
        self.hidden_norm = nn.LayerNorm(shape.width, shape.eps)
        self.up, self.down = nn.Linear(shape.width, shape.hidden), nn.Linear(shape.hidden, shape.width)

    def forward(
        self,
        x: Tensor,
        hidden: Tensor | None = None,
        memory: Tensor | None = None,
        memory_hidden: Tensor | None = None,
        caches: tuple[Cache, Cache] | None = None,
    ) -> Tensor:
        """x (B, T, D) -> (B, T, D); `caches`: of the own sequence and of the memory."""
        own, other = caches or (None, None)
        pre = self.shape.norm == "pre"
        y = self.attention(self.attention_norm(x) if pre else x, hidden, cache=own)
        x = self.joined(x, y, self.attention_norm)
        if self.across is not None and self.across_norm is not None:
            y = self.across(self.across_norm(x) if pre else x, memory_hidden, memory, other)
            x = self.joined(x, y, self.across_norm)
        y = self.down(self.activated(self.up(self.hidden_norm(x) if pre else x)))
        return self.joined(x, y, self.hidden_norm)

    def joined(self, x: Tensor, y: Tensor, norm: nn.Module) -> Tensor:
        """The sum, normalised after it where the block is so."""
        y = dropout(y, self.shape.dropout, self.training)
        x = x + drop_path(y, self.shape.drop_path, self.training)
        return x if self.shape.norm == "pre" else norm(x)

    def activated(self, x: Tensor) -> Tensor:
        """gelu is the exact one (Hendrycks and Gimpel 2016)."""
        kind = self.shape.activation
        return F.gelu(x) if kind == "gelu" else F.relu(x) if kind == "relu" else F.silu(x)


def causal(n: int, device: torch.device | None = None) -> Tensor:
    """(1, 1, n, n) bool, true where a query must not see a key: what comes after it."""
    return torch.ones(n, n, dtype=torch.bool, device=device).triu(1)[None, None]


def start_weights(model: nn.Module, n_branches: int) -> None:
    """Matrices from N(0, 1 / inputs), those that end a branch smaller by sqrt(n_branches) (Radford et al. 2019, 2.3);
    biases 0; tables from N(0, 0.02^2)."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            ends = name.endswith((".out", ".down"))
            std = (module.in_features * (n_branches if ends else 1)) ** -0.5
            nn.init.normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)


def stacked_rows(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """A model's `row_parts()`: query, key and value lie in one matrix, and Muon turns each apart."""
    parts: dict[str, tuple[int, ...]] = {}
    for name, module in model.named_modules():
        if isinstance(module, Attention):
            width = module.out.in_features
            stacked = "key_value" if module.crosses else "qkv"
            parts[f"{name}.{stacked}.weight"] = (width,) * (2 if module.crosses else 3)
    return parts
