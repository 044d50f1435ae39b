"""The parts of a transformer step that are not matrix products, in two interchangeable sets of operations.

`Plain` is the reference: a few lines of PyTorch each, any device. `Native` is the same mathematics in one pass
over memory each (base/kernels.c), for CPUs; tests hold every one of its values and gradients to Plain's.

Shapes: B batch, T tokens, D width, N query heads, K key heads, H head width, F hidden width, R = B*T rows.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from danlu.base import native

ACTIVATIONS = ("relu2", "gelu", "relu", "silu")
EPS = 1e-6


class Operations(Protocol):
    """What a model computes between its matrix products."""

    name: str

    def rms_norm(self, x: Tensor, gain: Tensor | None) -> Tensor:
        """(.., D) -> (.., D)."""

    def add_rms_norm(self, x: Tensor, delta: Tensor, gain: Tensor | None) -> tuple[Tensor, Tensor]:
        """(x + delta, rms_norm(x + delta))."""

    def heads(
        self, qkv: Tensor, n_heads: int, n_kv_heads: int, rotary: Tensor, norm: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(B, T, (N+2K)H), rotary (2, T, H/2) float32 -> q (B, N, T, H), k, v (B, K, T, H)."""

    def causal_attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q, k, v (B, N, T, H) -> (B, T, N*H); a query sees itself and what came before."""

    def activation(self, x: Tensor, kind: str) -> Tensor:
        """Element by element: relu2, gelu, relu or silu."""

    def swiglu(self, x: Tensor) -> Tensor:
        """(.., 2F) -> (.., F): silu(first half) * second half."""

    def linear(self, x: Tensor, weight: Tensor) -> Tensor:
        """x (.., D_in) with float32 master weight (D_out, D_in) -> (.., D_out), in x's precision."""


class Plain:
    """The reference operations, in plain PyTorch."""

    name = "plain"

    def rms_norm(self, x: Tensor, gain: Tensor | None) -> Tensor:
        """x / sqrt(mean(x^2)) * gain (Zhang & Sennrich 2019)."""
        y = x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + EPS)
        return (y if gain is None else y * gain).to(x.dtype)

    def add_rms_norm(self, x: Tensor, delta: Tensor, gain: Tensor | None) -> tuple[Tensor, Tensor]:
        """The residual sum and its norm."""
        total = x + delta
        return total, self.rms_norm(total, gain)

    def heads(
        self, qkv: Tensor, n_heads: int, n_kv_heads: int, rotary: Tensor, norm: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Split, normalise, rotate (RoPE in halves: Su et al. 2021; QK-norm: Henry et al. 2020)."""
        B, T, _ = qkv.shape
        apart = qkv.view(B, T, n_heads + 2 * n_kv_heads, -1).transpose(1, 2)
        q, k, v = torch.split(apart, [n_heads, n_kv_heads, n_kv_heads], 1)
        if norm:
            q, k = self.rms_norm(q, None), self.rms_norm(k, None)
        return rotate(q, rotary), rotate(k, rotary), v

    def causal_attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """softmax(q k' / sqrt(H)) v with a causal mask (Vaswani et al. 2017)."""
        B, N, T, H = q.shape
        scores = (q @ k.transpose(-1, -2)) / math.sqrt(H)
        future = torch.ones(T, k.shape[2], dtype=torch.bool, device=q.device).triu(1 + k.shape[2] - T)
        weights = scores.float().masked_fill(future, -math.inf).softmax(-1).to(v.dtype)
        return (weights @ v).transpose(1, 2).reshape(B, T, N * H)

    def activation(self, x: Tensor, kind: str) -> Tensor:
        """relu2: So et al. 2021 (Primer); gelu, tanh form: Hendrycks & Gimpel 2016."""
        if kind == "gelu":
            return F.gelu(x, approximate="tanh")
        return {"relu2": lambda: F.relu(x).square(), "relu": lambda: F.relu(x), "silu": lambda: F.silu(x)}[kind]()

    def swiglu(self, x: Tensor) -> Tensor:
        """Shazeer 2020 (GLU variants)."""
        gate, up = x.chunk(2, -1)
        return F.silu(gate) * up

    def linear(self, x: Tensor, weight: Tensor) -> Tensor:
        """x W' in x's precision; the gradient of W is float32."""
        return F.linear(x, weight.to(x.dtype))


def rotate(x: Tensor, rotary: Tensor) -> Tensor:
    """Rotate pairs (h, h + H/2) of x (.., T, H) by the angles whose cos and sin are rotary (2, T, H/2)."""
    left, right = x.float().chunk(2, -1)
    c, s = rotary[0], rotary[1]
    return torch.cat([left * c - right * s, left * s + right * c], -1).to(x.dtype)


def rotary_table(n_positions: int, head_width: int, base: float, device: torch.device | None = None) -> Tensor:
    """(2, T, H/2) float32: cos and sin of position * base^(-2i/H)."""
    frequencies = base ** (-torch.arange(0, head_width, 2, dtype=torch.float64, device=device) / head_width)
    angles = torch.arange(n_positions, dtype=torch.float64, device=device)[:, None] * frequencies
    return torch.stack([angles.cos(), angles.sin()]).float()


def call(name: str, like: Tensor, *arguments: Any) -> None:
    """Run kernel `name` in the precision of `like`; tensors go as pointers, None as null."""
    suffix = {torch.float32: "f32", torch.bfloat16: "bf16"}[like.dtype]
    library = native.load()
    assert library is not None, "Native is only built where the library loads"  # noqa: S101
    getattr(library, f"{name}_{suffix}")(*[a.data_ptr() if isinstance(a, Tensor) else a for a in arguments])


class RmsNorm(Function):
    """rms_norm, with the residual sum when delta is given."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, delta: Tensor | None, gain: Tensor | None) -> Any:
        x, D = x.contiguous(), x.shape[-1]
        R = x.numel() // D
        y, scale = torch.empty_like(x), torch.empty(R, dtype=torch.float32)
        total = x if delta is None else torch.empty_like(x)
        delta = None if delta is None else delta.contiguous()
        call("rms_forward", x, x, delta, gain, total, y, scale, R, D, EPS)
        ctx.save_for_backward(total, gain, scale)
        ctx.has_delta = delta is not None
        return (total, y) if ctx.has_delta else y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        total, gain, scale = ctx.saved_tensors
        D = total.shape[-1]
        dtotal, dy = grads if ctx.has_delta else (None, grads[0])
        dx, dy = torch.empty_like(total), dy.contiguous()
        dtotal = None if dtotal is None else dtotal.contiguous()
        parts = None if gain is None else torch.empty(native.N_PARTS, D)
        call("rms_backward", total, dy, total, gain, scale, dtotal, dx, parts, total.numel() // D, D)
        return dx, dx if ctx.has_delta else None, None if parts is None else parts.sum(0)


class Heads(Function):
    """Split, QK-norm and rotation in one pass."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, N: int, K: int, rotary: Tensor, norm: bool) -> tuple[Tensor, Tensor, Tensor]:
        qkv = qkv.contiguous()
        B, T, H = qkv.shape[0], qkv.shape[1], qkv.shape[2] // (N + 2 * K)
        q, k, v = qkv.new_empty(B, N, T, H), qkv.new_empty(B, K, T, H), qkv.new_empty(B, K, T, H)
        scale = torch.empty(B, T, N + K) if norm else None
        call("heads_forward", qkv, qkv, rotary[0], rotary[1], q, k, v, scale, B, T, N, K, H, int(norm), EPS)
        ctx.save_for_backward(qkv, rotary, scale)
        ctx.shape = (B, T, N, K, H, int(norm))
        return q, k, v

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dq: Tensor, dk: Tensor, dv: Tensor) -> Any:
        qkv, rotary, scale = ctx.saved_tensors
        dqkv = torch.empty_like(qkv)
        dq, dk, dv = dq.contiguous(), dk.contiguous(), dv.contiguous()
        call("heads_backward", qkv, dq, dk, dv, qkv, rotary[0], rotary[1], scale, dqkv, *ctx.shape)
        return dqkv, None, None, None, None


def query_blocks(T: int) -> list[tuple[int, int]]:
    """Blocks of queries; a block never multiplies with keys of its future: 5/8 of the products at 4 blocks."""
    n = 4 if T >= 256 else 2 if T >= 128 else 1
    edges = [T * i // n for i in range(n + 1)]
    return list(itertools.pairwise(edges))


class CausalAttention(Function):
    """Attention by matrix products over blocks of queries; the weights are kept for backward."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        B, N, T, H = q.shape
        q3, k3, v3 = (x.contiguous().view(B * N, T, H) for x in (q, k, v))
        out, kept = q.new_empty(B * N, T, H), []
        for start, end in query_blocks(T):
            weights = torch.bmm(q3[:, start:end], k3[:, :end].transpose(1, 2))
            call("causal_softmax_forward", q, weights, B * N, end - start, end, start, 1 / math.sqrt(H))
            out[:, start:end] = torch.bmm(weights, v3[:, :end])
            kept.append(weights)
        ctx.save_for_backward(q3, k3, v3, *kept)
        joined = q.new_empty(B, T, N * H)
        call("merge_heads", q, out, joined, B, N, T, H, 0)
        return joined

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> Any:
        q3, k3, v3, *kept = ctx.saved_tensors
        B, T = dout.shape[0], dout.shape[1]
        N, H = q3.shape[0] // B, q3.shape[2]
        d3, dout = torch.empty_like(q3), dout.contiguous()
        call("merge_heads", q3, dout, d3, B, N, T, H, 1)
        dq, dk, dv = torch.empty_like(q3), torch.zeros_like(k3), torch.zeros_like(v3)
        for (start, end), weights in zip(query_blocks(T), kept, strict=True):
            d = d3[:, start:end]
            dv[:, :end] += torch.bmm(weights.transpose(1, 2), d)
            dscores = torch.bmm(d, v3[:, :end].transpose(1, 2))
            call("causal_softmax_backward", q3, weights, dscores, B * N, end - start, end, start, 1 / math.sqrt(H))
            dq[:, start:end] = torch.bmm(dscores, k3[:, :end])
            dk[:, :end] += torch.bmm(dscores.transpose(1, 2), q3[:, start:end])
        return tuple(x.view(B, N, T, H) for x in (dq, dk, dv))


class FusedAttention(Function):
    """Attention of one head at a time within the core's cache (base/attention.c); bfloat16, H a multiple of 32."""

    @staticmethod
    def covers(q: Tensor) -> bool:
        """Whether this CPU and these numbers are what the kernel was written for."""
        return q.dtype == torch.bfloat16 and q.shape[-1] % 32 == 0 and native.has_fused_attention()

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        B, N, T, H = q.shape
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
        out, log_z = q.new_empty(B, T, N * H), torch.empty(B, N, T)
        run_fused("forward", q, k, v, out, log_z, shape=(B, N, T, H))
        ctx.save_for_backward(q, k, v, out, log_z)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> Any:
        q, k, v, out, log_z = ctx.saved_tensors
        dq, dk, dv = torch.empty_like(q), torch.empty_like(q), torch.empty_like(q)
        run_fused("backward", q, k, v, out, dout.contiguous(), log_z, dq, dk, dv, shape=tuple(q.shape))
        return dq, dk, dv


def run_fused(way: str, *tensors: Tensor, shape: tuple[int, ...]) -> None:
    """Call attention.c with scratch for every thread."""
    library, n_threads, (_, _, T, H) = native.load(), torch.get_num_threads(), shape
    assert library is not None, "covers() has seen the library"  # noqa: S101
    scratch = torch.empty(n_threads * library.fused_attention_scratch(T, H, int(way == "backward")), dtype=torch.uint8)
    pointers = (x.data_ptr() for x in tensors)
    getattr(library, f"fused_attention_{way}")(*pointers, *shape, 1 / math.sqrt(H), scratch.data_ptr(), n_threads)


class Activation(Function):
    """One pass forward, one back; only the input is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kind: int) -> Tensor:
        x = x.contiguous()
        y = torch.empty_like(x)
        call("activation_forward", x, x, y, x.numel(), kind)
        ctx.save_for_backward(x)
        ctx.kind = kind
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        dx, dy = torch.empty_like(x), dy.contiguous()
        call("activation_backward", x, x, dy, dx, x.numel(), ctx.kind)
        return dx, None


class SwiGlu(Function):
    """One pass forward, one back; only the input is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x, F2 = x.contiguous(), x.shape[-1]
        y = x.new_empty(*x.shape[:-1], F2 // 2)
        call("swiglu_forward", x, x, y, x.numel() // F2, F2 // 2)
        ctx.save_for_backward(x)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        dx, dy = torch.empty_like(x), dy.contiguous()
        call("swiglu_backward", x, x, dy, dx, x.numel() // x.shape[-1], x.shape[-1] // 2)
        return dx


class Linear(Function):
    """x W' with a float32 master weight: one cast each way, gradients of the products in x's precision."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        low = weight.to(x.dtype)
        ctx.save_for_backward(x, low)
        return F.linear(x, low)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, low = ctx.saved_tensors
        rows, drows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
        return (drows @ low).view_as(x), (drows.t() @ rows).float()


class Native(Plain):
    """The C kernels of this machine's CPU; anything they do not cover falls to Plain, by the same names."""

    name = "native"

    def rms_norm(self, x: Tensor, gain: Tensor | None) -> Tensor:
        return RmsNorm.apply(x, None, gain)  # type: ignore[no-any-return,no-untyped-call]

    def add_rms_norm(self, x: Tensor, delta: Tensor, gain: Tensor | None) -> tuple[Tensor, Tensor]:
        return RmsNorm.apply(x, delta, gain)  # type: ignore[no-any-return,no-untyped-call]

    def heads(
        self, qkv: Tensor, n_heads: int, n_kv_heads: int, rotary: Tensor, norm: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        return Heads.apply(qkv, n_heads, n_kv_heads, rotary, norm)  # type: ignore[no-any-return,no-untyped-call]

    def causal_attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        kernel = FusedAttention if FusedAttention.covers(q) else CausalAttention
        return kernel.apply(q, k, v)  # type: ignore[no-any-return,no-untyped-call]

    def activation(self, x: Tensor, kind: str) -> Tensor:
        return Activation.apply(x, ACTIVATIONS.index(kind))  # type: ignore[no-any-return,no-untyped-call]

    def swiglu(self, x: Tensor) -> Tensor:
        return SwiGlu.apply(x)  # type: ignore[no-any-return,no-untyped-call]

    def linear(self, x: Tensor, weight: Tensor) -> Tensor:
        return Linear.apply(x, weight)  # type: ignore[no-any-return,no-untyped-call]
