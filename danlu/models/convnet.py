"""LeNet, VGG and ResNet. B images, C channels, H x W pixels. Convolutions run in channels-last memory, which is faster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danlu.base.contracts import Batch, Output
from danlu.models.convnet_settings import Lenet, Resnet, Vgg

Shape = tuple[int, int, int]
VGG_STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions of each stage (table 1 of the paper), of 64, 128, 256, 512 and 512 channels."""
RESNET_STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Blocks of each stage (table 1 of the paper)."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Initial weights from the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


class Plain(nn.Module):
    """Layers one after another on images."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, batch: Batch) -> Output:
        """image (B, C, H, W) -> scores (B, n_outputs)."""
        return Output(scores=self.layers(batch.tensors["image"].contiguous(memory_format=torch.channels_last)))


def lenet(settings: Lenet, shape: Shape, n_outputs: int, seed: int) -> nn.Module:
    """Two convolutions of 5 x 5 with pooling, three layers; sides of at least 12."""
    channels, height, width = shape
    classic = settings.style == "classic"
    first, second, third, fourth = (6, 16, 120, 84) if classic else (32, 64, 256, 128)
    pad = 2 if min(height, width) < 32 else 0
    side = [((n + 2 * pad - 4) // 2 - 4) // 2 for n in (height, width)]
    with seeded(seed):
        parts: list[nn.Module] = []
        for d_in, d_out, padding in ((channels, first, pad), (first, second, 0)):
            parts.append(nn.Conv2d(d_in, d_out, 5, padding=padding, bias=classic))
            parts += [nn.Tanh(), nn.AvgPool2d(2)] if classic else [nn.BatchNorm2d(d_out), nn.ReLU(), nn.MaxPool2d(2)]
        parts.append(nn.Flatten())
        for d_in, d_out in ((second * side[0] * side[1], third), (third, fourth)):
            parts.append(nn.Linear(d_in, d_out, bias=classic))
            parts += [nn.Tanh()] if classic else [nn.BatchNorm1d(d_out), nn.ReLU(), nn.Dropout(settings.dropout)]
        return Plain(nn.Sequential(*parts, nn.Linear(fourth, n_outputs)))


def vgg(settings: Vgg, shape: Shape, n_outputs: int, seed: int) -> nn.Module:
    """Stages of convolutions, each halved by max pooling, then the classifier."""
    small = settings.depth == "small"
    counts = (2, 2, 2) if settings.depth == "small" else VGG_STAGES[settings.depth]
    widths = (32, 64, 128) if small else (64, 128, 256, 512, 512)
    with seeded(seed):
        parts: list[nn.Module] = []
        d_in = shape[0]
        for n, d_out in zip(counts, widths, strict=True):
            for _ in range(n):
                parts.append(nn.Conv2d(d_in, d_out, 3, padding=1))
                parts += [nn.BatchNorm2d(d_out)] if settings.batch_norm else []
                parts.append(nn.ReLU())
                d_in = d_out
            parts.append(nn.MaxPool2d(2))
        if small:
            parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(settings.dropout), nn.Linear(d_in, n_outputs)]
        else:
            parts += [nn.AdaptiveAvgPool2d(7), nn.Flatten()]
            for d, out in ((d_in * 49, 4096), (4096, 4096)):
                parts += [nn.Linear(d, out), nn.ReLU(), nn.Dropout(settings.dropout)]
            parts.append(nn.Linear(4096, n_outputs))
        return he_normal(Plain(nn.Sequential(*parts)))


def he_normal(model: nn.Module) -> nn.Module:
    """Convolutions from N(0, 2 / fan out) (He et al. 2015)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


class Block(nn.Module):
    """x + branch(x): two convolutions, or three around a bottleneck of a quarter of the width."""

    def __init__(self, d_in: int, d_out: int, stride: int, bottleneck: bool, drop: float) -> None:
        super().__init__()
        self.drop = drop
        inner = d_out // 4 if bottleneck else d_out
        shapes = [(d_in, inner, 3, stride), (inner, d_out, 3, 1)]
        if bottleneck:
            shapes = [(d_in, inner, 1, 1), (inner, inner, 3, stride), (inner, d_out, 1, 1)]
        parts: list[nn.Module] = []
        for a, b, size, step in shapes:
            parts += [nn.Conv2d(a, b, size, step, size // 2, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
        self.branch = nn.Sequential(*parts[:-1])
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or d_in != d_out:
            self.shortcut = nn.Sequential(nn.Conv2d(d_in, d_out, 1, stride, bias=False), nn.BatchNorm2d(d_out))
        last: Any = parts[-2]
        nn.init.zeros_(last.weight)  # every branch starts at nothing (Goyal et al. 2017, section 5.1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H / stride, W / stride)."""
        y = self.branch(x)
        if self.drop and self.training:
            keep = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.drop
            y = y * keep / (1 - self.drop)
        return F.relu(self.shortcut(x) + y)


class ResnetModel(nn.Module):
    """Stem, stages of blocks, mean over pixels, one layer."""

    def __init__(self, settings: Resnet, shape: Shape, n_outputs: int, seed: int) -> None:
        super().__init__()
        depth = settings.depth
        deep = depth != "small" and depth >= 50
        counts = (settings.blocks,) * 3 if depth == "small" else RESNET_STAGES[depth]
        width = settings.width if depth == "small" else 64
        with seeded(seed):
            if depth == "small":
                stem: list[nn.Module] = [
                    nn.Conv2d(shape[0], width, 3, settings.stem_stride, 1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                ]
            else:
                stem = [
                    nn.Conv2d(shape[0], 64, 7, 2, 3, bias=False),
                    nn.BatchNorm2d(64),
                    nn.ReLU(),
                    nn.MaxPool2d(3, 2, 1),
                ]
            self.stem = nn.Sequential(*stem)
            blocks: list[Block] = []
            d_in, total = width, sum(counts)
            for stage, n in enumerate(counts):
                d_out = width * 2**stage * (4 if deep else 1)
                for i in range(n):
                    stride = 2 if stage and i == 0 else 1
                    blocks.append(Block(d_in, d_out, stride, deep, settings.drop_path * (len(blocks) + 1) / total))
                    d_in = d_out
            self.blocks = nn.Sequential(*blocks)
            self.dropout = nn.Dropout(settings.dropout)
            self.head = nn.Linear(d_in, n_outputs)
            he_normal(self)

    def forward(self, batch: Batch) -> Output:
        """image (B, C, H, W) -> scores (B, n_outputs)."""
        x = batch.tensors["image"].contiguous(memory_format=torch.channels_last)
        return Output(scores=self.head(self.dropout(self.blocks(self.stem(x)).mean((2, 3)))))
