"""The detector: residual stages, a top-down neck, one map of classes and distances.

picture (B, 3, H, W) -> stem /4 -> stages /4, /8, /16, ... -> neck: each level + twice the coarser -> map at /stride
map -> class logits (C) and log distances (4): left, top, right, bottom from a place's middle, in strides
scores (B, H' W', C + 4), places row by row; everything runs channels_last, which is fastest on a CPU
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu.base.contracts import Batch, Output
from danlu.models.detector_settings import Detector

PRIOR = 0.01
"""Score of every place at the start: rare things drown in background otherwise (Lin et al. 2017, 1708.02002)."""
START_DISTANCE = 6.0
"""Distance, in strides, that boxes start with."""


class Normed(nn.Module):
    """Convolution without bias, then batch normalisation (Ioffe and Szegedy 2015)."""

    def __init__(self, c_in: int, c_out: int, size: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, size, stride, size // 2, bias=False)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H / stride, W / stride)."""
        out: Tensor = self.norm(self.conv(x))
        return out


class Block(nn.Module):
    """Residual block of two convolutions (He et al. 2016)."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = Normed(c_in, c_out, 3, stride), Normed(c_out, c_out)
        self.skip = Normed(c_in, c_out, 1, stride) if stride > 1 or c_in != c_out else nn.Identity()
        nn.init.zeros_(self.second.norm.weight)  # each block starts as its skip (Goyal et al. 2017)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H / stride, W / stride)."""
        return F.relu(self.skip(x) + self.second(F.relu(self.first(x))))


class DetectorModel(nn.Module):
    """See the module."""

    def __init__(self, settings: Detector, channels: int, n_outputs: int, seed: int) -> None:
        super().__init__()
        s = settings
        widths = [min(s.width * 2**i, s.max_width) for i in range(s.n_stages)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            half = max(8, s.width // 2)
            self.stem = nn.Sequential(
                Normed(channels, half, 3, 2), nn.ReLU(), Normed(half, s.width, 3, 2), nn.ReLU()
            )  # fmt: skip
            self.stages = nn.ModuleList(
                nn.Sequential(*(Block(widths[max(0, i - (j == 0))], w, 2 if i and not j else 1) for j in range(s.n_layers)))
                for i, w in enumerate(widths)
            )  # fmt: skip
            self.first_level = 0 if s.stride == 4 else 1
            self.lateral = nn.ModuleList(Normed(w, s.neck_width, 1) for w in widths[self.first_level :])
            self.smooth = Normed(s.neck_width, s.neck_width)
            self.class_tower, self.box_tower = (Normed(s.neck_width, s.neck_width) for _ in range(2))
            self.classes = nn.Conv2d(s.neck_width, n_outputs - 4, 1)
            self.distances = nn.Conv2d(s.neck_width, 4, 1)
            for conv in (self.classes, self.distances):
                nn.init.normal_(conv.weight, std=0.01)
            nn.init.constant_(self.classes.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]
            nn.init.constant_(self.distances.bias, math.log(START_DISTANCE))  # type: ignore[arg-type]
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, batch: Batch) -> Output:
        """image (B, 3, H, W) -> scores (B, H' W', C + 4)."""
        x = self.stem(batch.tensors["image"].contiguous(memory_format=torch.channels_last))
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        y: Tensor | None = None
        for lateral, level in zip(reversed(self.lateral), reversed(levels[self.first_level :]), strict=True):
            own = lateral(level)
            y = own if y is None else own + F.interpolate(y, size=own.shape[-2:], mode="nearest")
        y = F.relu(self.smooth(y))
        classes, distances = F.relu(self.class_tower(y)), F.relu(self.box_tower(y))
        with torch.autocast(y.device.type, enabled=False):  # a distance in bf16 would be off by a percent
            found = self.classes(classes.float()), self.distances(distances.float())
        return Output(scores=torch.cat(found, 1).permute(0, 2, 3, 1).flatten(1, 2))

    def parameter_groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Heads apart from the convolutions, and both from what has one axis."""
        groups: dict[str, list[tuple[str, nn.Parameter]]] = {"head": [], "hidden": [], "vector": []}
        for name, p in self.named_parameters():
            is_head = name.startswith(("classes.", "distances."))
            groups["vector" if p.ndim < 2 else "head" if is_head else "hidden"].append((name, p))
        return groups
