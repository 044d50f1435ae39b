"""Losses as sums over targets, in float32, each beside the paper that names it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from danlu.base import native

CHUNK_BYTES = 64 * 2**20
"""Most memory that one piece of the scores may take."""
EXACT_VOCABULARY = 1024
"""Up to this vocabulary the scores are computed in float32 at no cost worth naming; above it in the features' precision."""


def chunked_cross_entropy(
    features: Tensor, weight: Tensor, targets: Tensor, factor: float = 1.0, smoothing: float = 0.0, z_loss: float = 0.0
) -> Tensor:
    """Sum over targets of -log softmax(factor * features weight')[target], never holding all scores at once.

    features (.., D), weight (V, D) float32, targets (..) int64 with -1 = not supervised. Label smoothing:
    Szegedy et al. 2016, section 7; z-loss: Chowdhery et al. 2022, section 5. Returns a float32 scalar.
    The gradient is computed in the same pass over the scores, so they are made once.
    """
    rows, flat = features.reshape(-1, features.shape[-1]), targets.reshape(-1)
    return ChunkedCrossEntropy.apply(rows, weight, flat, factor, smoothing, z_loss)  # type: ignore[no-any-return, no-untyped-call]


@torch.no_grad()
def cross_entropy_per_target(features: Tensor, weight: Tensor, targets: Tensor, factor: float = 1.0) -> Tensor:
    """Nats of each target, in the shape of `targets`, 0 where it is -1."""
    rows, flat = features.reshape(-1, features.shape[-1]), targets.reshape(-1)
    losses = torch.empty(len(flat), dtype=torch.float32, device=rows.device)
    rows, low = in_scoring_precision(rows, weight)
    for start, end in chunks(rows, low):
        scores = rows[start:end] @ low.t()
        losses[start:end] = score_rows(scores, flat[start:end], factor, 0.0, 0.0, False)
    return losses.view_as(targets)


def in_scoring_precision(rows: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Features and head in the precision the scores are computed in."""
    if weight.shape[0] <= EXACT_VOCABULARY:
        return rows.float(), weight.float()
    return rows, weight.to(rows.dtype)


def chunks(rows: Tensor, weight: Tensor) -> list[tuple[int, int]]:
    """Row ranges whose scores fit in CHUNK_BYTES."""
    size = max(1, CHUNK_BYTES // (weight.shape[0] * rows.element_size()))
    return [(start, min(start + size, len(rows))) for start in range(0, len(rows), size)]


def score_rows(
    scores: Tensor, targets: Tensor, factor: float, smoothing: float, z_loss: float, want_gradient: bool
) -> Tensor:
    """Loss of each row (float32); with want_gradient the scores are overwritten by the gradient of the summed loss."""
    if scores.device.type == "cpu" and scores.is_contiguous() and (library := native.load()) is not None:
        losses, log_z = torch.empty(len(scores)), torch.empty(len(scores))
        run = library.cross_entropy_f32 if scores.dtype == torch.float32 else library.cross_entropy_bf16
        pointers = [t.data_ptr() for t in (scores, targets.contiguous(), losses, log_z)]
        run(*pointers, *scores.shape, factor, smoothing, z_loss, int(want_gradient))
        return losses
    return plain_score_rows(scores, targets, factor, smoothing, z_loss, want_gradient)


def plain_score_rows(
    scores: Tensor, targets: Tensor, factor: float, smoothing: float, z_loss: float, want_gradient: bool
) -> Tensor:
    """The reference of score_rows, in PyTorch."""
    s, supervised, V = scores.float() * factor, targets >= 0, scores.shape[1]
    target = targets.clamp(min=0)[:, None]
    log_z = s.logsumexp(1)
    losses = log_z - (1 - smoothing) * s.gather(1, target)[:, 0] - smoothing * s.mean(1) + z_loss * log_z.square()
    if want_gradient:
        grad = (s - log_z[:, None]).exp() * (1 + 2 * z_loss * log_z)[:, None] - smoothing / V
        grad.scatter_add_(1, target, torch.full_like(grad[:, :1], smoothing - 1))
        scores.copy_(grad * factor * supervised[:, None])
    return losses * supervised


class ChunkedCrossEntropy(Function):
    """Loss and gradients of features and weight in one pass over pieces of the scores."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, targets: Tensor, factor: float, smoothing: float, z_loss: float
    ) -> Tensor:
        exact, low = in_scoring_precision(rows, weight)
        wants = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        drows = torch.empty_like(exact) if wants else None
        dweight = torch.zeros_like(weight, dtype=torch.float32) if wants else None
        total = torch.zeros((), dtype=torch.float32, device=rows.device)
        for start, end in chunks(exact, low):
            scores = exact[start:end] @ low.t()
            total += score_rows(scores, targets[start:end], factor, smoothing, z_loss, wants).sum()
            if drows is not None and dweight is not None:
                torch.mm(scores, low, out=drows[start:end])
                dweight += scores.t() @ exact[start:end]
        if drows is not None:
            ctx.save_for_backward(drows.to(rows.dtype), dweight)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss: Tensor) -> Any:
        drows, dweight = ctx.saved_tensors
        return drows * dloss, dweight * dloss, None, None, None, None


def plain_cross_entropy(rows: Tensor, weight: Tensor, targets: Tensor, factor: float = 1.0) -> Tensor:
    """The ten-line version that the tests hold chunked_cross_entropy to (no smoothing, no z-loss)."""
    return F.cross_entropy(factor * rows.float() @ weight.float().t(), targets, ignore_index=-1, reduction="sum")
