"""The decoder (GPT), on one page: Radford et al. 2019, with the modern parts that earned their place.

    embed -> [norm, attention, add, norm, feed-forward, add] x n_layers -> norm -> head

Notable: the residual sum and the norm after it are one operation; rotary positions (Su et al. 2021) and QK-norm
(Henry et al. 2020) are one operation with the split into heads; the head is applied by the task, in pieces.
The mathematics between the matrix products is in layers.py (`operations`), which never changes the result.

Shapes: B batch, T tokens, D width, N heads, K key heads, H head width, F hidden width, V vocabulary.

Initial weights (standard)          | under muP with m = width / base_width: learning rate, weight decay, Adam's epsilon times
embedding   N(0, 1)                 | 1     1    1/m
matrices    N(0, 1/fan_in)          | 1/m   m    1/m; 1/(m l) under completep, l = n_layers / base_layers
outputs     0 (out, down)           | 1/m   m    as matrices; what a branch adds x 1/l under completep
head        0; scores x 1/m         | 1     1    1/m
norms       1, biases 0             | 1     -    as matrices
gpt2 style  N(0, 0.02), outputs over sqrt(2 n_layers), as published; under muP matrices over sqrt(m)

Yang & Hu 2022 (2203.03466), table 8, and Dey 2025 (2505.01618), table 1 with alpha = 1. Heads keep their width and grow in
number, so scores stay q k / sqrt(H); a wider head would ask for 1 / H.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu.base.contracts import Batch, Output
from danlu.models.decoder_settings import Decoder, DecoderShape
from danlu.models.layers import Operations, Plain, rotary_table

Cache = list[tuple[Tensor, Tensor]]


class Linear(nn.Module):
    """A matrix (out, in) kept in float32, applied in the precision of its input."""

    def __init__(self, d_in: int, d_out: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(d_out, d_in))
        self.bias = nn.Parameter(torch.zeros(d_out)) if bias else None

    def forward(self, x: Tensor, operations: Operations) -> Tensor:
        """(.., in) -> (.., out)."""
        y: Tensor = operations.linear(x, self.weight)
        return y if self.bias is None else y + self.bias.to(y.dtype)


class Norm(nn.Module):
    """RMSNorm, or LayerNorm for the gpt2 style, joined with the residual sum before it."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape.width))
        self.bias = nn.Parameter(torch.zeros(shape.width)) if shape.layer_norm else None

    def forward(self, x: Tensor, delta: Tensor | None, operations: Operations) -> tuple[Tensor, Tensor]:
        """(x + delta, norm(x + delta))."""
        if self.bias is not None:
            total = x if delta is None else x + delta
            y = F.layer_norm(total.float(), self.weight.shape, self.weight, self.bias, 1e-5)
            return total, y.to(x.dtype)
        if delta is None:
            return x, operations.rms_norm(x, self.weight)
        return operations.add_rms_norm(x, delta, self.weight)


class Attention(nn.Module):
    """Causal self-attention with grouped key heads."""

    def __init__(self, settings: Decoder, shape: DecoderShape) -> None:
        super().__init__()
        self.settings, self.shape = settings, shape
        self.qkv = Linear(shape.width, (shape.n_heads + 2 * shape.n_kv_heads) * shape.head_width, shape.biased)
        self.out = Linear(shape.n_heads * shape.head_width, shape.width, shape.biased)

    def forward(self, x_BTD: Tensor, rotary: Tensor, mask: Tensor | None, run: DecoderModel) -> Tensor:
        """(B, T, D) -> (B, T, D). mask (B, 1, T, T) keeps documents apart; run is the model's way of computing."""
        s = self.shape
        qkv = self.qkv(x_BTD, run.operations)
        q, k, v = run.operations.heads(qkv, s.n_heads, s.n_kv_heads, rotary, self.settings.has_qk_norm)
        if run.attention == "blocks" and mask is None:
            k, v = (repeat_heads(z, s.n_heads // s.n_kv_heads) for z in (k, v))
            y = run.operations.causal_attention(q, k, v)
        else:
            grouped = s.n_heads != s.n_kv_heads
            y_BNTH = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, enable_gqa=grouped)
            y = y_BNTH.transpose(1, 2).flatten(2)
        out: Tensor = self.out(y, run.operations)
        return out

    def decode(
        self, x_BTD: Tensor, rotary: Tensor, past: tuple[Tensor, Tensor], run: DecoderModel
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """As forward for tokens that come after `past` (k, v each (B, K, S, H)); returns the longer past too."""
        s = self.shape
        qkv = self.qkv(x_BTD, run.operations)
        q, k, v = run.operations.heads(qkv, s.n_heads, s.n_kv_heads, rotary, self.settings.has_qk_norm)
        k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        repeated = (repeat_heads(z, s.n_heads // s.n_kv_heads) for z in (k, v))
        return self.out(Plain().causal_attention(q, *repeated), run.operations), (k, v)


class FeedForward(nn.Module):
    """Two matrices and an activation (three for swiglu)."""

    def __init__(self, settings: Decoder, shape: DecoderShape) -> None:
        super().__init__()
        self.activation = settings.activation_name
        self.up = Linear(shape.width, shape.hidden_width * (2 if shape.gated else 1), shape.biased)
        self.down = Linear(shape.hidden_width, shape.width, shape.biased)
        self.dead_frac: float | None = None

    def forward(self, x_BTD: Tensor, run: DecoderModel) -> Tensor:
        """(B, T, D) -> (B, T, D). While the model is watched, notes the fraction of units that are 0 on every token."""
        up = self.up(x_BTD, run.operations)
        y = run.operations.swiglu(up) if self.activation == "swiglu" else run.operations.activation(up, self.activation)
        if run.watched and self.activation in ("relu", "relu2"):
            self.dead_frac = float((y.detach().flatten(0, 1).amax(0) <= 0).float().mean())
        down: Tensor = self.down(y, run.operations)
        return down


class Block(nn.Module):
    """One layer of the residual stream. Takes and gives (stream, what is still to be added to it)."""

    def __init__(self, settings: Decoder, shape: DecoderShape) -> None:
        super().__init__()
        self.norm1, self.attention = Norm(shape), Attention(settings, shape)
        self.norm2, self.feed_forward = Norm(shape), FeedForward(settings, shape)

    def forward(
        self, x: Tensor, delta: Tensor | None, rotary: Tensor, mask: Tensor | None, run: DecoderModel
    ) -> tuple[Tensor, Tensor]:
        """(B, T, D) twice -> (B, T, D) twice."""
        x, h = self.norm1(x, delta, run.operations)
        delta = run.branch(self.attention(h, rotary, mask, run))
        x, h = self.norm2(x, delta, run.operations)
        return x, run.branch(self.feed_forward(h, run))

    def decode(
        self, x: Tensor, delta: Tensor | None, rotary: Tensor, past: Any, run: DecoderModel
    ) -> tuple[Tensor, Tensor, Any]:
        """As forward, with the keys and values of earlier tokens."""
        x, h = self.norm1(x, delta, run.operations)
        attended, past = self.attention.decode(h, rotary, past, run)
        x, h = self.norm2(x, run.branch(attended), run.operations)
        return x, run.branch(self.feed_forward(h, run)), past


class DecoderModel(nn.Module):
    """The network. `operations`, `attention` and `dtype` say how it computes, never what."""

    def __init__(self, settings: Decoder, vocab_size: int, seed: int) -> None:
        super().__init__()
        self.settings, self.shape = settings, settings.shape(vocab_size)
        self.operations: Operations = Plain()
        self.attention = "fused" if settings.attention == "auto" else settings.attention
        self.dtype, self.watched = torch.float32, False
        s = self.shape
        self.embedding = table(vocab_size, s.width)
        self.positions = table(s.context, s.width) if s.learned_positions else None
        self.blocks = nn.ModuleList(Block(settings, s) for _ in range(s.n_layers))
        self.norm = Norm(s)
        self.head = self.embedding if s.tied else Linear(s.width, vocab_size, False)
        self.rotary: Tensor
        self.register_buffer("rotary", self._rotary(s.context), persistent=False)
        if self.embedding.weight.device.type != "meta":
            self.initialise(seed)

    def _rotary(self, n_positions: int) -> Tensor:
        table = rotary_table(n_positions, self.shape.head_width, self.settings.rotary_base, torch.device("cpu"))
        if self.shape.learned_positions:  # no rotation
            table[0], table[1] = 1.0, 0.0
        return table

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """The table in this file's header, from a generator of our own: independent of what ran before."""
        generator = torch.Generator().manual_seed(seed)
        gpt2 = self.settings.is_gpt2
        for name, p in self.named_parameters():
            is_output = name.endswith(("attention.out.weight", "feed_forward.down.weight"))
            if p.dim() < 2:
                continue
            if gpt2:
                std = 0.02 / math.sqrt(2 * self.shape.n_layers) if is_output else 0.02
                std /= math.sqrt(self.settings.width_ratio) if role_of(name, p) == "hidden" else 1.0
            elif name.startswith("embedding"):
                std = 1.0
            else:
                std = 0.0 if is_output or name.startswith("head") else p.shape[1] ** -0.5
            p.copy_(torch.randn(p.shape, generator=generator) * std)

    def branch(self, y: Tensor) -> Tensor:
        """What a branch adds to the stream: dropped out, and scaled by depth under completep (Dey et al. 2025)."""
        y = F.dropout(y, self.settings.dropout, self.training) if self.settings.dropout else y
        ratio = self.settings.depth_ratio
        return y if ratio == 1.0 else y / ratio

    def embed(self, tokens_BT: Tensor, start: int = 0) -> Tensor:
        """(B, T) -> (B, T, D) in the model's precision."""
        x = self.embedding(tokens_BT)
        if self.positions is not None:
            x = x + self.positions.weight[start : start + tokens_BT.shape[1]]
        x = F.dropout(x, self.settings.dropout, self.training) if self.settings.dropout else x
        return x.to(self.dtype)

    def forward(self, batch: Batch) -> Output:
        """tokens (B, T) [documents (B, T)] -> features (B, T, D) and the head (V, D)."""
        tokens = batch.tensors["tokens"]
        x, delta = self.embed(tokens), None
        mask = document_mask(batch.tensors["documents"]) if "documents" in batch.tensors else None
        rotary = self.rotary[:, : tokens.shape[1]].contiguous()
        for block in self.blocks:
            x, delta = block(x, delta, rotary, mask, self)
        _, features = self.norm(x, delta, self.operations)
        return Output(features, self.head.weight, 1.0 / self.settings.width_ratio)

    def new_cache(self, batch_size: int) -> Cache:
        """Empty keys and values for `decode`."""
        s = self.shape
        empty = torch.empty(batch_size, s.n_kv_heads, 0, s.head_width, dtype=self.dtype, device=self.rotary.device)
        return [(empty, empty)] * s.n_layers

    @torch.no_grad()
    def decode(self, tokens_BT: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """Scores (B, V) float32 of what follows the last token, given the cache of those before; the new cache."""
        start, T = cache[0][0].shape[2], tokens_BT.shape[1]
        x, delta, longer = self.embed(tokens_BT, start), None, []
        rotary = self.rotary[:, start : start + T].contiguous()
        blocks: Any = self.blocks
        for block, past in zip(blocks, cache, strict=True):
            x, delta, kept = block.decode(x, delta, rotary, past, self)
            longer.append(kept)
        last = None if delta is None else delta[:, -1:]
        _, features = self.norm(x[:, -1:], last, self.operations)
        return features[:, -1].float() @ self.head.weight.float().t() / self.settings.width_ratio, longer

    def parameter_groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Role (embedding, head, hidden = matrices, vector = norms and biases) -> its parameters by name."""
        groups: dict[str, list[tuple[str, nn.Parameter]]] = {"embedding": [], "head": [], "hidden": [], "vector": []}
        for name, p in self.named_parameters():
            groups[role_of(name, p)].append((name, p))
        return groups

    def row_parts(self) -> dict[str, tuple[int, ...]]:
        """Matrices that stand for several, by their rows: queries, keys and values; gate and up. Muon turns each apart."""
        s = self.shape
        parts: dict[str, tuple[int, ...]] = {}
        for i in range(s.n_layers):
            q, kv = s.n_heads * s.head_width, s.n_kv_heads * s.head_width
            parts[f"blocks.{i}.attention.qkv.weight"] = (q, kv, kv)
            if s.gated:
                parts[f"blocks.{i}.feed_forward.up.weight"] = (s.hidden_width, s.hidden_width)
        return parts

    def lr_scales(self) -> dict[str, float]:
        """Learning-rate factor of each role under the parametrization, for Adam (this file's header)."""
        return {"embedding": 1.0, "head": 1.0, "hidden": 1.0 / self.settings.width_ratio, "vector": 1.0}

    def decay_scales(self) -> dict[str, float]:
        """Weight-decay factor of each role: what an update takes away of a matrix stays the same at every width."""
        return {"hidden": self.settings.width_ratio}

    def eps_scales(self) -> dict[str, float]:
        """Factor on Adam's epsilon: it shrinks as gradients do."""
        outer = 1.0 / self.settings.width_ratio
        inner = outer / self.settings.depth_ratio
        return {"embedding": outer, "head": outer, "hidden": inner, "vector": inner}

    def gradient_scale(self) -> float:
        """How the gradient's norm goes with width: embedding and head have most of it, and theirs falls as the root of m
        (Adam, widths 32 to 256, all through training: benchmarks/rate_transfer.md)."""
        return 1.0 / math.sqrt(self.settings.width_ratio)


def table(n_rows: int, width: int) -> nn.Embedding:
    """An embedding that `initialise` fills (torch's own first fill is slow to load on the meta device)."""
    made: nn.Embedding = nn.Embedding.from_pretrained(torch.empty(n_rows, width), freeze=False)  # type: ignore[no-untyped-call]
    return made


def role_of(name: str, p: Tensor) -> str:
    """What part a parameter plays."""
    if name.startswith(("embedding", "positions")):
        return "embedding"
    if name.startswith("head"):
        return "head"
    return "hidden" if p.dim() == 2 else "vector"


def repeat_heads(x: Tensor, times: int) -> Tensor:
    """(B, K, T, H) -> (B, K * times, T, H), each key head serving a group of query heads."""
    return x if times == 1 else x.repeat_interleave(times, 1)


def document_mask(documents_BT: Tensor) -> Tensor:
    """(B, T) document numbers -> (B, 1, T, T) bool: may look at earlier tokens of the same document only."""
    T = documents_BT.shape[1]
    same = documents_BT[:, :, None] == documents_BT[:, None, :]
    past = torch.ones(T, T, dtype=torch.bool, device=documents_BT.device).tril()
    return (same & past)[:, None]
