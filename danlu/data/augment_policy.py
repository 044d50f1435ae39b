"""RandAugment (Cubuk et al. 2020, 1909.13719) and colours, on whole batches: each image gets changes of its own, drawn from
its own seed. x (B, C, H, W) float32 in 0 ... 1; strengths (B,) in -1 ... 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from danlu.data.order import GOLDEN, mixed

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.data.augment import Draws

GREY = (0.299, 0.587, 0.114)
Op = Callable[[Any, Any], Any]


def grey_of(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, 1, H, W) luma of colours; a grey image as it is."""
    if x.shape[1] != 3:
        return x[:, :1]
    return (x * x.new_tensor(GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)


def blended(x: Tensor, other: Tensor, strength: Tensor) -> Tensor:
    """Away from (above 0) or towards (below) `other`, by up to 0.9 of the way."""
    return (other + (x - other) * (1 + 0.9 * strength.view(-1, 1, 1, 1))).clamp(0, 1)


def resampled(x: Tensor, rows: Tensor) -> Tensor:
    """By affine maps (B, 2, 3); the border pixels go on outside."""
    import torch.nn.functional as F

    grid = F.affine_grid(rows, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def affine(kind: str) -> Op:
    """Slant by up to 0.3, shift by up to 0.45 of the side, turn by up to 30 degrees."""

    def change(x: Tensor, strength: Tensor) -> Tensor:
        rows = x.new_zeros(len(x), 2, 3)
        rows[:, 0, 0] = rows[:, 1, 1] = 1
        if kind == "rotate":
            angle = strength * math.radians(30)
            rows[:, 0, 0] = rows[:, 1, 1] = angle.cos()
            rows[:, 0, 1], rows[:, 1, 0] = -angle.sin(), angle.sin()
        elif kind.startswith("shear"):
            rows[:, *((0, 1) if kind == "shear x" else (1, 0))] = 0.3 * strength
        else:
            rows[:, 0 if kind == "move x" else 1, 2] = 0.9 * strength
        return resampled(x, rows)

    return change


def sharpness(x: Tensor, strength: Tensor) -> Tensor:
    """Away from or towards a blur of 3 x 3 pixels; the border stays."""
    import torch.nn.functional as F

    kernel = x.new_tensor([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]]).div(13).expand(x.shape[1], 1, 3, 3)
    blur = x.clone()
    if min(x.shape[2:]) > 2:
        blur[..., 1:-1, 1:-1] = F.conv2d(x, kernel, groups=x.shape[1])
    return blended(x, blur, strength)


def posterize(x: Tensor, strength: Tensor) -> Tensor:
    """8 bits a pixel down to 4."""
    step = 2.0 ** (4 * strength.abs()).round().view(-1, 1, 1, 1)
    return ((x * 255) / step).floor() * step / 255


def solarize(x: Tensor, strength: Tensor) -> Tensor:
    """Pixels above 1 - |strength| are turned over."""
    import torch

    return torch.where(x >= 1 - strength.abs().view(-1, 1, 1, 1), 1 - x, x)


def stretched(x: Tensor, strength: Tensor) -> Tensor:
    """Each channel from its darkest to its lightest, to 0 ... 1 (autocontrast)."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return ((x - low) / (high - low).clamp_min(1 / 255)).where(high > low, x)


def equalized(x: Tensor, strength: Tensor) -> Tensor:
    """Each channel so that every brightness is as frequent."""
    import torch

    B, C, H, W = x.shape
    level = (x * 255).round().long().clamp(0, 255).view(B * C, H * W)
    count = torch.zeros(B * C, 256).scatter_add_(1, level, torch.ones(level.shape))
    share = count.cumsum(1) - count  # pixels below
    most = (H * W - count.gather(1, level.amax(1, keepdim=True))).clamp_min(1)
    return (share / most).gather(1, level).clamp(0, 1).view(B, C, H, W).to(x.dtype)


OPS: dict[str, Op] = {
    "none": lambda x, strength: x,
    "shear x": affine("shear x"),
    "shear y": affine("shear y"),
    "move x": affine("move x"),
    "move y": affine("move y"),
    "rotate": affine("rotate"),
    "brightness": lambda x, strength: blended(x, x * 0, strength),
    "colour": lambda x, strength: blended(x, grey_of(x), strength),
    "contrast": lambda x, strength: blended(x, grey_of(x).mean((1, 2, 3), keepdim=True), strength),
    "sharpness": sharpness,
    "posterize": posterize,
    "solarize": solarize,
    "stretch": stretched,
    "equalize": equalized,
}
"""The fourteen changes of the paper."""


def policy(x: Tensor, draws: Draws, n_changes: int, most: float) -> Tensor:
    """`n_changes` of OPS for each image, one after another, of strength `most` either way."""
    import torch

    listed = list(OPS.values())
    for _ in range(n_changes):
        which = (draws.uniform() * len(listed)).astype(int)
        strength = torch.from_numpy(np.where(draws.uniform() < 0.5, -most, most).astype(np.float32))
        changed = x.clone()
        for number in np.unique(which):
            rows = torch.from_numpy(np.flatnonzero(which == number))
            changed[rows] = listed[number](x[rows], strength[rows])
        x = changed
    return x


def coloured(x: Tensor, draws: Draws, saturation: float, hue: float) -> Tensor:
    """Colours (B, 3, H, W) made stronger or weaker by up to `saturation` and turned by up to `hue` of the colour circle, in
    YIQ."""
    import torch

    grey = grey_of(x)
    rest = (x - grey) * (1 + torch.from_numpy(draws.signed(saturation))).view(-1, 1, 1, 1)
    if hue:
        angle = torch.from_numpy(draws.signed(2 * math.pi * hue))
        to_yiq = torch.tensor([GREY, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])
        turn = torch.zeros(len(x), 3, 3)
        turn[:, 0, 0] = 1
        turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
        turn[:, 1, 2], turn[:, 2, 1] = -angle.sin(), angle.sin()
        rest = torch.einsum("bij,bjhw->bihw", torch.linalg.inv(to_yiq) @ turn @ to_yiq, rest)
    return (grey + rest).clamp(0, 1)


def apart(seeds: Any) -> Any:
    """Other seeds, as good: what is drawn here leaves the draws of the other changes as they are."""
    return mixed(seeds ^ GOLDEN)
