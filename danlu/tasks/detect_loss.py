"""What a detector is taught: a bump at every centre, and four distances around it.

Places are the cells of a map, `stride` pixels apart, in rows; a place's middle is ((x + 0.5) stride, (y + 0.5) stride).
Classes: focal loss on bumps (Law and Deng 2018, 1808.01244, eq. 1), each as long and wide as its box asks (Liu et al.
2020, 1909.00700). Boxes: 1 - GIoU (Rezatofighi et al. 2019, 1902.09630) at places near a centre (Tian et al. 2019).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SPREAD = 0.54 / 6
"""Standard deviation of a bump over the side of its box (Liu et al. 2020)."""
RADIUS = 1.5
"""Strides around a centre from which a box is learned (Tian et al. 2019)."""
MAX_LOG = 7.0


def grid_of(height: int, width: int, n_places: int) -> tuple[int, int, int]:
    """(rows, columns, stride) of the map over a picture."""
    stride = round(math.sqrt(height * width / n_places))
    return height // stride, width // stride, stride


def middles(rows: int, columns: int, stride: int, device: torch.device) -> Tensor:
    """(places, 2) x and y of every place's middle."""
    x = (torch.arange(columns, device=device) + 0.5) * stride
    y = (torch.arange(rows, device=device) + 0.5) * stride
    return torch.stack([x.repeat(rows), y.repeat_interleave(columns)], 1)


def decoded(distances: Tensor, points: Tensor, stride: int) -> Tensor:
    """Log distances (.., P, 4) around points (P, 2) -> boxes (.., P, 4) x1 y1 x2 y2."""
    far = distances.clamp(-MAX_LOG, MAX_LOG).exp() * stride
    return torch.cat([points - far[..., :2], points + far[..., 2:]], -1)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """(N,) generalised IoU of boxes (N, 4): IoU - (hull - union) / hull."""
    low, top = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    shared = (top - low).clamp(min=0).prod(1)
    both = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - shared
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(1)
    return shared / both.clamp(min=1e-7) - (hull - both) / hull.clamp(min=1e-7)


def bumps(boxes: Tensor, labels: Tensor, n_classes: int, grid: tuple[int, int, int]) -> Tensor:
    """(classes, rows, columns) in [0, 1]: for each class the highest bump; exactly 1 at the place of each centre."""
    rows, columns, stride = grid
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 / stride
    x = centre[:, 0].long().clamp(0, columns - 1)
    y = centre[:, 1].long().clamp(0, rows - 1)
    sigma = ((boxes[:, 2:] - boxes[:, :2]) / stride * SPREAD).clamp(min=0.4)
    dx = (torch.arange(columns, device=boxes.device) - x[:, None]) / sigma[:, :1]
    dy = (torch.arange(rows, device=boxes.device) - y[:, None]) / sigma[:, 1:]
    each = torch.exp(-0.5 * dy**2)[:, :, None] * torch.exp(-0.5 * dx**2)[:, None, :]
    made = boxes.new_zeros(n_classes, rows, columns)
    for label in sorted(set(labels.tolist())):
        made[label] = each[labels == label].amax(0)
    return made


def owners(boxes: Tensor, points: Tensor, stride: int) -> Tensor:
    """(P,) which box a place learns, the smallest of those whose centre is near; -1: none."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    near = ((points[:, None] - centre).abs() < RADIUS * stride).all(-1)
    inside = ((points[:, None] > boxes[:, :2]) & (points[:, None] < boxes[:, 2:])).all(-1)
    own = ((points[:, None] - centre).abs() <= stride / 2).all(-1)  # of the smallest boxes, the centre's own place
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    cost = torch.where((near & inside) | own, area, torch.inf)
    least, which = cost.min(1)
    return torch.where(torch.isfinite(least), which, -1)


def focal_sum(logits: Tensor, wanted: Tensor, counted: Tensor) -> Tensor:
    """Penalty-reduced focal loss with alpha 2 and beta 4, summed where `counted`; all (C, P)."""
    log_p, log_q = F.logsigmoid(logits), F.logsigmoid(-logits)
    p = log_p.exp()
    hit = -((1 - p) ** 2) * log_p
    miss = -((1 - wanted) ** 4) * p**2 * log_q
    return (torch.where(wanted >= 1, hit, miss) * counted).sum()


def picture_loss(scores: Tensor, boxes: Tensor, labels: Tensor, size: tuple[int, int], box_weight: float) -> Tensor:
    """Loss of one picture, summed over its boxes. scores (P, C + 4) float32, boxes (M, 4), labels (M,)."""
    n_classes = scores.shape[1] - 4
    grid = grid_of(*size, scores.shape[0])
    rows, columns, stride = grid
    points = middles(rows, columns, stride, scores.device)
    true, kept = boxes[labels >= 0], labels[labels >= 0]
    counted = torch.ones(n_classes, len(points), device=scores.device)
    for box, label in zip(boxes[labels < -1], -2 - labels[labels < -1], strict=True):
        counted[label, ((points > box[:2]) & (points < box[2:])).all(1)] = 0
    wanted = bumps(true, kept, n_classes, grid).flatten(1)
    counted = torch.where(wanted >= 1, 1.0, counted)
    total = focal_sum(scores[:, :n_classes].T, wanted, counted)
    if len(true):
        owner = owners(true, points, stride)
        mine = owner >= 0
        which = owner[mine]
        shares = 1 / torch.bincount(which, minlength=len(true)).clamp(min=1).to(scores.dtype)
        made = decoded(scores[mine, n_classes:], points[mine], stride)
        total = total + box_weight * ((1 - giou(made, true[which])) * shares[which]).sum()
    return total


def suppressed(boxes: Tensor, scores: Tensor, classes: Tensor, limit: float) -> Tensor:
    """(B, K) which of the boxes (B, K, 4), sorted by falling score, greedy suppression within a class keeps.

    A box goes when one that stays stands before it and overlaps by more than `limit`. Decided for all at once: each
    pass settles at least one more box of every chain, and the passes stop when nothing changes.
    """
    area = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)
    low = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    top = torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    shared = (top - low).clamp(min=0).prod(-1)
    iou = shared / (area[:, :, None] + area[:, None] - shared).clamp(min=1e-7)
    before = torch.ones(boxes.shape[1], boxes.shape[1], dtype=torch.bool, device=boxes.device).triu(1)
    kills = (iou > limit) & (classes[:, :, None] == classes[:, None]) & before & (scores > 0)[:, :, None]
    kept = scores > 0
    for _ in range(boxes.shape[1]):
        left = (scores > 0) & ~(kills & kept[:, :, None]).any(1)
        if torch.equal(left, kept):
            break
        kept = left
    return kept
