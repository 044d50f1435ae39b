"""What a detector is taught: a bump at every centre, and four distances around it.

Places are the cells of a map, `stride` pixels apart, in rows; a place's middle is ((x + 0.5) stride, (y + 0.5) stride).
Classes: focal loss on bumps (Law and Deng 2018, 1808.01244, eq. 1), each as long and wide as its box asks (Liu et al.
2020, 1909.00700). Boxes: 1 - GIoU (Rezatofighi et al. 2019, 1902.09630) at places near a centre (Tian et al. 2019).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SPREAD = 0.54 / 6
"""Standard deviation of a bump over the side of its box (Liu et al. 2020)."""
MIN_SIGMA = 0.4
"""Of a bump, in places."""
CENTRE = 4
"""The middle one of 3 x 3 places."""
MAX_LOG = 7.0


class Grid(NamedTuple):
    """The map over a picture."""

    rows: int
    columns: int
    stride: int


def grid_of(height: int, width: int, n_places: int) -> Grid:
    """The map of so many places."""
    stride = round(math.sqrt(height * width / n_places))
    return Grid(height // stride, width // stride, stride)


def axes(grid: Grid, device: torch.device) -> tuple[Tensor, Tensor]:
    """x (columns,) and y (rows,) of the places' middles."""
    x, y = (torch.arange(n, device=device) * grid.stride + grid.stride / 2 for n in (grid.columns, grid.rows))
    return x, y


def middles(grid: Grid, device: torch.device) -> Tensor:
    """(P, 2) x and y of every place's middle."""
    x, y = axes(grid, device)
    return torch.stack([x.repeat(grid.rows), y.repeat_interleave(grid.columns)], 1)


def decoded(distances: Tensor, points: Tensor, stride: int) -> Tensor:
    """Log distances (.., P, 4) in strides, around points (P, 2) -> boxes (.., P, 4) x1 y1 x2 y2."""
    far = distances.clamp(-MAX_LOG, MAX_LOG).exp() * stride
    return torch.cat([points - far[..., :2], points + far[..., 2:]], -1)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """(N,) generalised IoU of boxes (N, 4): IoU - (hull - union) / hull."""
    low, top = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    shared = (top - low).clamp(min=0).prod(1)
    both = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - shared
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(1)
    return shared / both.clamp(min=1e-7) - (hull - both) / hull.clamp(min=1e-7)


class Taught(NamedTuple):
    """What a batch of P places a picture is taught; K scored boxes in all."""

    heat: Tensor
    """(B, C, P) in [0, 1], exactly 1 at the place of each centre."""
    counted: Tensor | None
    """(B, C, P) 0 where a box that is not scored lies; None: everything counts."""
    place: Tensor
    """(N,) places, of all pictures in a row, that learn a box."""
    owner: Tensor
    """(N,) which of the boxes it is."""
    boxes: Tensor
    """(K, 4)."""


def taught(boxes: Tensor, labels: Tensor, n_classes: int, grid: Grid) -> Taught:
    """From boxes (B, M, 4) and labels (B, M): a class, -1 for padding, -2 - class for what is not scored."""
    picture, slot = (labels >= 0).nonzero(as_tuple=True)
    true, label = boxes[picture, slot], labels[picture, slot]
    heat = boxes.new_zeros(len(boxes) * n_classes, grid.rows * grid.columns)
    raise_rows(heat, picture * n_classes + label, bumps(true, grid))
    counted = None
    if bool((labels < -1).any()):
        where, slot = (labels < -1).nonzero(as_tuple=True)
        rest, x, y = boxes[where, slot], *axes(grid, boxes.device)
        wide, high = ((v > rest[:, k, None]) & (v < rest[:, k + 2, None]) for k, v in enumerate((x, y)))
        covered = torch.zeros_like(heat)
        inside = (high[:, :, None] & wide[:, None]).flatten(1).to(heat.dtype)
        raise_rows(covered, where * n_classes - 2 - labels[where, slot], inside)
        counted = ((covered == 0) | (heat == 1)).to(heat.dtype).view(len(boxes), n_classes, -1)
    return Taught(heat.view(len(boxes), n_classes, -1), counted, *owners(true, picture, len(boxes), grid), true)


def raise_rows(into: Tensor, rows: Tensor, values: Tensor) -> None:
    """into[rows[k]] becomes at least values[k]; (R, P), (K,), (K, P)."""
    into.scatter_reduce_(0, rows[:, None].expand_as(values), values, "amax")


def cells_of(boxes: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """(K,) column and row of the place that each box's centre lies in."""
    centre = ((boxes[:, :2] + boxes[:, 2:]) / (2 * grid.stride)).long()
    return centre[:, 0].clamp(0, grid.columns - 1), centre[:, 1].clamp(0, grid.rows - 1)


def bumps(boxes: Tensor, grid: Grid) -> Tensor:
    """(K, P) a Gaussian around the place of each box's centre, as long and wide as the box asks."""
    x, y = cells_of(boxes, grid)
    sigma = ((boxes[:, 2:] - boxes[:, :2]) / grid.stride * SPREAD).clamp(min=MIN_SIGMA)
    dx = (torch.arange(grid.columns, device=boxes.device) - x[:, None]) / sigma[:, :1]
    dy = (torch.arange(grid.rows, device=boxes.device) - y[:, None]) / sigma[:, 1:]
    return (torch.exp(-0.5 * dy**2)[:, :, None] * torch.exp(-0.5 * dx**2)[:, None]).flatten(1)


def owners(boxes: Tensor, picture: Tensor, n_pictures: int, grid: Grid) -> tuple[Tensor, Tensor]:
    """(place, owner), (N,) each: the 3 x 3 places around a box's centre learn it where they lie inside it.

    Of several boxes a place learns the one whose centre it holds, then the smallest.
    """
    n, n_places, device = len(boxes), grid.rows * grid.columns, boxes.device
    x, y = cells_of(boxes, grid)
    step = torch.arange(-1, 2, device=device)
    columns, rows = x[:, None] + step.repeat(3), y[:, None] + step.repeat_interleave(3)
    middle = torch.stack([columns, rows], 2) * grid.stride + grid.stride / 2
    inside = ((middle > boxes[:, None, :2]) & (middle < boxes[:, None, 2:])).all(2)
    inside &= (columns >= 0) & (columns < grid.columns) & (rows >= 0) & (rows < grid.rows)
    inside[:, CENTRE] = True
    rank = (boxes[:, 2:] - boxes[:, :2]).prod(1).argsort(stable=True).argsort()[:, None].repeat(1, 9)
    rank[:, CENTRE] -= n
    place = (picture[:, None] * n_places + rows * grid.columns + columns)[inside]
    rank, owner = rank[inside], torch.arange(n, device=device)[:, None].expand(n, 9)[inside]
    best = torch.full((n_pictures * n_places,), n, device=device).scatter_reduce_(0, place, rank, "amin")
    first = best[place] == rank
    return place[first], owner[first]


def focal_sum(logits: Tensor, wanted: Tensor, counted: Tensor | None) -> Tensor:
    """Penalty-reduced focal loss with alpha 2 and beta 4, summed where it counts; all of one shape."""
    log_p, log_q = F.logsigmoid(logits), F.logsigmoid(-logits)
    hit = log_p * (1 - log_p.exp()) ** 2
    miss = log_q * (1 - log_q.exp()) ** 2 * (1 - wanted) ** 4
    each = torch.where(wanted == 1, hit, miss)
    return -(each if counted is None else each * counted).sum()


def detection_loss(scores: Tensor, boxes: Tensor, labels: Tensor, size: tuple[int, int], box_weight: float) -> Tensor:
    """Summed over all boxes of a batch. scores (B, P, C + 4) float32, boxes (B, M, 4), labels (B, M)."""
    n_classes, grid = scores.shape[2] - 4, grid_of(*size, scores.shape[1])
    with torch.no_grad():
        aim = taught(boxes, labels, n_classes, grid)
    total = focal_sum(scores[..., :n_classes].transpose(1, 2), aim.heat, aim.counted)
    distances = scores[..., n_classes:].flatten(0, 1)[aim.place]
    points = middles(grid, scores.device)[aim.place % scores.shape[1]]
    weight = 1 / torch.bincount(aim.owner, minlength=len(aim.boxes)).to(scores.dtype)  # each box counts once
    lost = 1 - giou(decoded(distances, points, grid.stride), aim.boxes[aim.owner])
    return total + box_weight * (lost * weight[aim.owner]).sum()


def found_boxes(
    scores: Tensor, size: tuple[int, int], min_score: float, overlap: float, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(boxes (B, K, 4), scores (B, K), classes (B, K)), best first; what is thinned out has score 0. K is 3 * most."""
    n_classes, grid = scores.shape[2] - 4, grid_of(*size, scores.shape[1])
    heat = scores[..., :n_classes].sigmoid().transpose(1, 2).reshape(len(scores), n_classes, grid.rows, grid.columns)
    peak = heat * (F.max_pool2d(heat, 3, 1, 1) == heat) * (heat >= min_score)
    best, at = peak.flatten(1).topk(min(3 * most, n_classes * scores.shape[1]))
    classes, place = at // scores.shape[1], at % scores.shape[1]
    every = decoded(scores[..., n_classes:], middles(grid, scores.device), grid.stride)
    boxes = every.gather(1, place[..., None].expand(-1, -1, 4))
    return boxes, best * suppressed(boxes, best, classes, overlap), classes


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
