"""Blocks whose insides are computed again in backward instead of kept (Chen et al. 2016, 1604.06174).

The same operations on the same numbers, the same dropout and autocast, so the same gradients bit for bit. Our own, because
torch.utils.checkpoint imports torch.compile's machinery on its first call: over a second and 60 MB.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from danlu.base.errors import UserError


def can_recompute(model: nn.Module) -> bool:
    """Whether a model has a list of blocks that may be computed twice: none counts what it has seen (batch norm)."""
    blocks = getattr(model, "blocks", None)
    return isinstance(blocks, nn.ModuleList) and not any(True for _ in blocks.buffers())


def recompute_blocks(model: nn.Module) -> None:
    """Let each block of a model keep its inputs only."""
    if not can_recompute(model):
        raise UserError(
            "train.recompute", "needs a model made of blocks without running averages", got=type(model).__name__,
            fix="set it to false",
        )  # fmt: skip
    blocks: Any = model.blocks
    for block in blocks:
        block.forward = partial(recomputed, block.forward)


def recomputed(forward: Callable[..., Any], *inputs: Any) -> Any:
    """A block's forward, its insides forgotten until backward."""
    if not torch.is_grad_enabled():
        return forward(*inputs)
    return Recomputed.apply(forward, torch.empty(0, requires_grad=True), *inputs)  # type: ignore[no-untyped-call]


class Recomputed(torch.autograd.Function):
    """forward(*inputs), remembered by its inputs, generators and autocast. The second argument has a gradient always, so
    that the block's parameters get theirs also where no input has one."""

    @staticmethod
    def forward(ctx: Any, forward: Callable[..., Any], anchor: Tensor, *inputs: Any) -> Any:
        """Without a graph."""
        tensors = [x for x in inputs if isinstance(x, Tensor)]
        device = tensors[0].device.type
        ctx.forward, ctx.device = forward, device
        ctx.autocast = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        ctx.generators = torch.get_rng_state(), torch.cuda.get_rng_state() if device == "cuda" else None
        ctx.others = [None if isinstance(x, Tensor) else x for x in inputs]
        ctx.is_tensor = [isinstance(x, Tensor) for x in inputs]
        ctx.save_for_backward(*tensors)
        with torch.no_grad():
            return forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """The graph again, and backward through it; parameters get their gradients there."""
        saved = iter(ctx.saved_tensors)
        inputs = [next(saved) if is_tensor else x for x, is_tensor in zip(ctx.others, ctx.is_tensor, strict=True)]
        inputs = [x.detach().requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x for x in inputs]
        enabled, dtype = ctx.autocast
        with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if ctx.device == "cuda" else []):
            torch.set_rng_state(ctx.generators[0])
            if ctx.generators[1] is not None:
                torch.cuda.set_rng_state(ctx.generators[1])
            with torch.enable_grad(), torch.autocast(ctx.device, dtype, enabled):
                found = ctx.forward(*inputs)
        outputs = found if isinstance(found, tuple) else (found,)
        pairs = [(y, g) for y, g in zip(outputs, grads, strict=True) if g is not None and y.requires_grad]
        torch.autograd.backward([y for y, _ in pairs], [g for _, g in pairs])
        return (None, None, *(x.grad if isinstance(x, Tensor) else None for x in inputs))
