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
        for t in range(len(x)):
            torch.bmm(h[t], state, out=own[t])
            torch.add(x[t, ..., : 2 * width], own[t, ..., : 2 * width], out=gates[t, ..., : 2 * width]).sigmoid_()
            new = gates[t, ..., 2 * width :]
            torch.addcmul(x[t, ..., 2 * width :], gates[t, ..., :width], own[t, ..., 2 * width :], out=new).tanh_()
            torch.lerp(new, h[t], gates[t, ..., width : 2 * width], out=h[t + 1])
            if held is not None:
                h[t + 1].mul_(held[t])
        ctx.save_for_backward(state, held, own[..., 2 * width :].clone(), gates, h)
        return h[1:]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, None]:
        """Through time; what does not depend on later steps is computed for all of them at once."""
        state, held, own, gates, h = ctx.saved_tensors
        width = state.shape[1]
        reset, update, new = gates.split(width, -1)
        to_new = (1 - update) * (1 - new * new)
        to_update = (h[:-1] - new) * update * (1 - update)
        to_reset = own * reset * (1 - reset)
        given, turned = grads[0], state.transpose(1, 2).contiguous()
        d_x, d_own = torch.empty_like(gates), torch.empty_like(gates)
        d_h = torch.zeros_like(h[0])
        for t in range(len(gates) - 1, -1, -1):
            d_h += given[t]
            if held is not None:
                d_h *= held[t]
            d_new = torch.mul(d_h, to_new[t], out=d_x[t, ..., 2 * width :])
            torch.mul(d_new, to_reset[t], out=d_own[t, ..., :width])
            torch.mul(d_h, to_update[t], out=d_own[t, ..., width : 2 * width])
            torch.mul(d_new, reset[t], out=d_own[t, ..., 2 * width :])
            d_h.mul_(update[t]).baddbmm_(d_own[t], turned)
        d_x[..., : 2 * width] = d_own[..., : 2 * width]
        before, after = (y.transpose(0, 1).flatten(1, 2) for y in (h[:-1], d_own))
        d_state = torch.bmm(before.transpose(1, 2), after)
        return d_x, d_state, None
