"""WaveNet's residual stack, forward and backward in one function. N = T B rows in time-major order, R residual, G gates,
L layers: a shift by d steps is then a slice, and a dilated convolution two matrix products over slices.

`stacked` is the fast path, `plain_stacked` the ten lines that the tests hold it to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from danlu.base import native

TILE = 32
"""Columns that a bf16 product takes at once on processors with AMX. Of a slice whose columns are no multiple of it, oneDNN reads
on into what lies beside, times 0: NaN where that is not written yet."""


class Layer(NamedTuple):
    """Weights of one layer; the last has no way on."""

    past: Tensor
    """(2G, R) on what lies `dilation` steps back."""
    now: Tensor
    """(2G, R)."""
    out: Tensor | None
    """(R, G)."""
    bias: Tensor | None
    """(R,)."""


def stacked(x: Tensor, about: Tensor, layers: Sequence[Layer], dilations: Sequence[int]) -> Tensor:
    """x (N, R), about (L, B, 2G) float32: bias of each sample -> gates of all layers (N, L G)."""
    dtype = x.dtype
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
    weights = [w.to(dtype) for layer in layers for w in layer if w is not None]
    with torch.autocast(x.device.type, enabled=False):
        return Stack.apply(x.to(dtype), about.float(), tuple(dilations), torch.is_grad_enabled(), *weights)  # type: ignore[no-any-return, no-untyped-call]


def plain_stacked(x: Tensor, about: Tensor, layers: Sequence[Layer], dilations: Sequence[int]) -> Tensor:
    """The same, as van den Oord et al. (2016) write it in equation 2 and figure 4."""
    B, gates = about.shape[1], []
    for layer, a, d in zip(layers, about, dilations, strict=True):
        back = torch.cat([torch.zeros_like(x[: d * B]), x])[: len(x)]
        z = back @ layer.past.t() + x @ layer.now.t() + a.repeat(len(x) // B, 1)
        f, s = z.chunk(2, 1)
        gates.append(torch.tanh(f) * torch.sigmoid(s))
        if layer.out is not None and layer.bias is not None:
            x = x + gates[-1] @ layer.out.t() + layer.bias
    return torch.cat(gates, 1)


class Stack(Function):
    """All layers; where there will be a backward it keeps x (N, R), tanh and sigmoid (N, 2G) of each, and the gates."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, about: Tensor, dilations: tuple[int, ...], keeps: bool, *weights: Tensor
    ) -> Tensor:
        L, B, G = len(dilations), about.shape[1], about.shape[2] // 2
        gates = x.new_empty(len(x), L * G)
        inputs, activated = [], []
        for i, d in enumerate(dilations):
            past, now = weights[4 * i : 4 * i + 2]
            z = x @ now.t()
            if d * B < len(x):
                z[d * B :].addmm_(x[: -d * B], past.t())
            part = gates[:, i * G : (i + 1) * G]
            gate_(z, about[i], part)
            if keeps:
                inputs.append(x)
                activated.append(z)
            if i + 1 < L:
                out, bias = weights[4 * i + 2 : 4 * i + 4]
                own = part if G % TILE == 0 or x.dtype == torch.float32 else part.contiguous()
                x = torch.addmm(x, own, out.t()).add_(bias)
        ctx.save_for_backward(gates, *weights)
        ctx.kept, ctx.dilations, ctx.shape = (inputs, activated), dilations, (L, B, G)
        return gates

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dgates: Tensor) -> Any:
        gates, *weights = ctx.saved_tensors
        (inputs, activated), (L, B, G) = ctx.kept, ctx.shape
        dgates = dgates.clone(memory_format=torch.contiguous_format)
        dabout = torch.empty(L, B, 2 * G, dtype=torch.float32, device=gates.device)
        grads: list[Any] = [None] * len(weights)
        dx: Any = None
        for i in reversed(range(L)):
            part, x, z = dgates[:, i * G : (i + 1) * G], inputs.pop(), activated.pop()
            past, now = weights[4 * i : 4 * i + 2]
            if i + 1 < L:
                grads[4 * i + 2] = dx.t() @ gates[:, i * G : (i + 1) * G]
                grads[4 * i + 3] = dx.sum(0, dtype=torch.float32).to(dx.dtype)
                part.addmm_(dx, weights[4 * i + 2])
            gate_backward_(z, part, dabout[i])
            grads[4 * i + 1] = z.t() @ x
            dx = torch.addmm(dx, z, now) if dx is not None else z @ now
            if (shift := ctx.dilations[i] * B) < len(x):
                grads[4 * i] = z[shift:].t() @ x[:-shift]
                dx[:-shift].addmm_(z[shift:], past)
            else:
                grads[4 * i] = torch.zeros_like(past)
        return dx, dabout, None, None, *grads


def gate_(z: Tensor, about: Tensor, out: Tensor) -> None:
    """z (N, 2G) + about (B, 2G) -> tanh and sigmoid, in place; out (N, G), rows apart = their product."""
    B, G = len(about), out.shape[1]
    if z.device.type == "cpu" and (library := native.load()) is not None:
        run = library.gated_forward_f32 if z.dtype == torch.float32 else library.gated_forward_bf16
        about = about.contiguous()
        run(z.data_ptr(), about.data_ptr(), out.data_ptr(), len(z) // B, B, G, out.stride(0))
        return
    z.view(-1, B, 2 * G).add_(about)
    z[:, :G].tanh_()
    z[:, G:].sigmoid_()
    torch.mul(z[:, :G], z[:, G:], out=out)


def gate_backward_(z: Tensor, d: Tensor, dabout: Tensor) -> None:
    """z holds tanh and sigmoid; becomes d loss / d z, given d = d loss / d product. dabout (B, 2G): its sums over time."""
    B, G = len(dabout), d.shape[1]
    if z.device.type == "cpu" and (library := native.load()) is not None:
        run = library.gated_backward_f32 if z.dtype == torch.float32 else library.gated_backward_bf16
        run(z.data_ptr(), d.data_ptr(), dabout.data_ptr(), len(z) // B, B, G, d.stride(0))
        return
    f, s = z[:, :G], z[:, G:]
    df, ds = d * s * (1 - f * f), d * f * s * (1 - s)
    f.copy_(df)
    s.copy_(ds)
    dabout.copy_(z.view(-1, B, 2 * G).sum(0, dtype=torch.float32))
