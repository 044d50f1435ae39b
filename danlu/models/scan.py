"""A gated recurrent layer's steps as one function with its gradient written out: the same numbers as step by step, with
fewer and larger operations. T steps, D directions, B samples, H width. Gates stand as reset, update, new.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class GruScan(torch.autograd.Function):
    """h[t] = new + update (h[t-1] - new), new = tanh(x + reset * (U h[t-1])) (Cho et al. 2014, as in cuDNN)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, state: Tensor, held: Tensor | None) -> Tensor:
        """x (T, D, B, 3H), state (D, H, 3H), held (T, D, B, 1) or None -> (T, D, B, H); what is not held is 0."""
        width = state.shape[1]
        own, gates = torch.empty_like(x), torch.empty_like(x)
        h = x.new_zeros(len(x) + 1, *x.shape[1:3], width)
        states, kept = h.unbind(0), [None] * len(x) if held is None else held.unbind(0)
        ours, at = own.unbind(0), x[..., : 2 * width].unbind(0)
        both = zip(own[..., : 2 * width].unbind(0), gates[..., : 2 * width].unbind(0), strict=True)
        last = zip(x[..., 2 * width :].unbind(0), own[..., 2 * width :].unbind(0), strict=True)
        parts = zip(*(gates[..., i * width : (i + 1) * width].unbind(0) for i in range(3)), strict=True)
        steps = zip(range(len(x)), both, last, parts, strict=True)
        for t, (own_two, two), (x_new, own_new), (reset, update, new) in steps:
            torch.bmm(states[t], state, out=ours[t])
            torch.add(at[t], own_two, out=two).sigmoid_()
            torch.addcmul(x_new, reset, own_new, out=new).tanh_()
            torch.lerp(new, states[t], update, out=states[t + 1])
            if (mask := kept[t]) is not None:
                states[t + 1].mul_(mask)
        ctx.save_for_backward(state, held, own[..., 2 * width :].clone(), gates, h)
        return h[1:]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, None]:
        """Through time; what does not depend on later steps is computed for all of them at once."""
        state, held, own, gates, h = ctx.saved_tensors
        width = state.shape[1]
        reset, update, new = gates.chunk(3, -1)
        to_new = (1 - update) * (1 - new * new)
        to_update = (h[:-1] - new) * update * (1 - update)
        to_reset = own * reset * (1 - reset)
        given, turned = grads[0].unbind(0), state.transpose(1, 2).contiguous()
        d_x, d_own = torch.empty_like(gates), torch.empty_like(gates)
        d_h, kept = torch.zeros_like(h[0]), [None] * len(given) if held is None else held.unbind(0)
        factors = list(zip(*(y.unbind(0) for y in (to_new, to_reset, to_update, reset, update)), strict=True))
        outs = [d_x[..., 2 * width :], *d_own.chunk(3, -1), d_own]
        places = list(zip(*(y.unbind(0) for y in outs), strict=True))
        for t in range(len(given) - 1, -1, -1):
            by_new, by_reset, by_update, own_reset, keep = factors[t]
            d_new, d_reset, d_update, d_own_new, d_all = places[t]
            d_h += given[t]
            if (mask := kept[t]) is not None:
                d_h *= mask
            torch.mul(d_h, by_new, out=d_new)
            torch.mul(d_new, by_reset, out=d_reset)
            torch.mul(d_h, by_update, out=d_update)
            torch.mul(d_new, own_reset, out=d_own_new)
            d_h.mul_(keep).baddbmm_(d_all, turned)
        d_x[..., : 2 * width] = d_own[..., : 2 * width]
        before, after = (y.transpose(0, 1).flatten(1, 2) for y in (h[:-1], d_own))
        d_state = torch.bmm(before.transpose(1, 2), after)
        return d_x, d_state, None
