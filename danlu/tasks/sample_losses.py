"""Losses of tasks on samples by number. Each is a sum over targets in float32: the caller divides once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def class_loss(scores: Tensor, targets: Tensor, weights: Tensor | None, smoothing: float, gamma: float) -> Tensor:
    """Softmax cross-entropy in nats, summed. scores (N, C), targets (N,) classes (-1: unscored), weights (C,).

    `smoothing` spreads that share of each target over all classes (Szegedy 2015, 1512.00567); `gamma` above 0 is the
    focal loss (1 - p)^gamma * -log p (Lin 2017, 1708.02002).
    """
    scores = scores.float()
    if gamma == 0:
        return F.cross_entropy(
            scores, targets, weight=weights, ignore_index=-1, reduction="sum", label_smoothing=smoothing
        )
    known = targets >= 0
    return soft_loss(scores[known], one_hot(targets[known], scores.size(-1)), weights, smoothing, gamma)


def soft_loss(scores: Tensor, soft: Tensor, weights: Tensor | None, smoothing: float, gamma: float) -> Tensor:
    """The same for targets that are shares of classes: scores and soft (N, C), each row of soft sums to 1 (or to 0:
    unscored)."""
    scores = scores.float()
    mass = soft.sum(-1, keepdim=True)
    soft = soft.float() * (1 - smoothing) + smoothing * mass / scores.size(-1)
    logs = F.log_softmax(scores, -1)
    nats = -soft * logs
    if gamma:
        nats = nats * (1 - logs.exp()).clamp_min(0) ** gamma
    return (nats if weights is None else nats * weights).sum()


def one_hot(targets: Tensor, n_classes: int) -> Tensor:
    """(N,) classes -> (N, C) float; -1 gives zeros."""
    shares = torch.zeros(*targets.shape, n_classes, device=targets.device)
    return shares.scatter_(-1, targets.clamp_min(0).unsqueeze(-1), (targets >= 0).float().unsqueeze(-1))


def binary_loss(scores: Tensor, targets: Tensor, weights: Tensor | None, smoothing: float, gamma: float) -> Tensor:
    """Sigmoid cross-entropy in nats, summed: one score a yes-or-no question. scores and targets (N, L): 1 yes, 0 no,
    shares between, below 0 unscored; weights (L, 2) of no and yes."""
    scores, known = scores.float(), (targets >= 0).float()
    wanted = targets.float().clamp(0, 1) * (1 - smoothing) + smoothing / 2
    nats = F.binary_cross_entropy_with_logits(scores, wanted, reduction="none")
    if gamma:
        p = torch.sigmoid(scores)
        nats = nats * (1 - (wanted * p + (1 - wanted) * (1 - p))).clamp_min(0) ** gamma
    if weights is not None:
        nats = nats * (wanted * weights[:, 1] + (1 - wanted) * weights[:, 0])
    return (nats * known).sum()


def number_loss(scores: Tensor, targets: Tensor, kind: str, delta: float = 1.0) -> Tensor:
    """Sum over all elements of equally shaped scores and targets: mse, mae, or huber (Huber 1964), which is quadratic
    within `delta` of the target and linear beyond."""
    error = scores.float() - targets.float()
    if kind == "mse":
        return error.square().sum()
    if kind == "mae":
        return error.abs().sum()
    size = error.abs()
    return torch.where(size <= delta, 0.5 * error.square(), delta * (size - 0.5 * delta)).sum()


def pinball_loss(scores: Tensor, targets: Tensor, levels: tuple[float, ...]) -> Tensor:
    """Quantile loss, summed over targets and averaged over levels (Koenker and Bassett 1978). scores (B, K * Q) with
    the levels of a target side by side, targets (B, K)."""
    level = torch.tensor(levels, device=scores.device)
    error = targets.float().unsqueeze(-1) - scores.float().view(*targets.shape, len(levels))
    return torch.maximum(level * error, (level - 1) * error).mean(-1).sum()
