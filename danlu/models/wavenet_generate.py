"""New clips sample by sample, each layer keeping what it will need again (Le Paine et al. 2016, arXiv 1611.09482).

A step costs one column of the network, not its whole field of view. Clips are made side by side, the longest first, so
that those that have ended drop off the end of every tensor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from danlu.models.wavenet import WavenetModel

STEPS = 256
"""Samples whose place and chance are worked out together."""


@torch.no_grad()
def generated(
    model: WavenetModel, conditions: Tensor, n_samples: Tensor, seeds: np.ndarray, temperature: float
) -> list[np.ndarray]:
    """Levels (n_samples[b],) int64 of each clip. A clip depends on its own seed, not on its neighbours."""
    order = torch.argsort(n_samples, descending=True, stable=True)
    device, lengths = conditions.device, n_samples[order].cpu().numpy()
    with torch.autocast(device.type, enabled=False):
        maker = Maker(model, conditions[order], n_samples[order])
        chance = [np.random.default_rng(int(seeds[i])) for i in order.cpu().numpy()]
        made = np.zeros((int(lengths[0]) if len(lengths) else 0, len(lengths)), np.int64)
        for first in range(0, len(made), STEPS):
            active = int((lengths > first).sum())
            maker.keep(active)
            draws = torch.from_numpy(np.stack([rng.random(STEPS) for rng in chance[:active]], 1)).float().to(device)
            maker.place(first)
            for t in range(first, min(first + STEPS, len(made))):
                n = int((lengths > t).sum())
                made[t, :n] = maker.step(t, draws[t - first, :n], temperature).cpu().numpy()
    found: list[np.ndarray] = [np.empty(0, np.int64)] * len(lengths)
    for place, row in enumerate(order.cpu().numpy()):
        found[row] = made[: lengths[place], place].copy()
    return found


class Maker:
    """The network at one moment: queues of what lies `dilation` steps back in each layer, B clips wide."""

    def __init__(self, model: WavenetModel, conditions: Tensor, n_samples: Tensor) -> None:
        self.model, self.conditions, self.n_samples = model, conditions, n_samples
        self.steps = model.settings.steps
        B, R, device = len(conditions), model.settings.width, conditions.device
        self.bias = model.conditioned(conditions)
        self.queues = [torch.zeros(d, B, R, device=device) for d in self.steps]
        self.layers: list[tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None]] = []
        for block in model.layers():
            past, now, out, bias = block.layer
            way_on = None if out is None or bias is None else (out.t().contiguous(), bias)
            self.layers.append((past.t().contiguous(), now.t().contiguous(), way_on))
        self.before = torch.full((B,), model.n_levels // 2, device=device)
        self.past = torch.zeros(B, R, device=device)
        self.told: Tensor | None = None
        self.first = 0

    def keep(self, n: int) -> None:
        """Only the first n clips go on."""
        self.queues = [queue[:, :n].contiguous() for queue in self.queues]
        self.bias, self.past = self.bias[:, :n].contiguous(), self.past[:n]
        self.before, self.conditions, self.n_samples = self.before[:n], self.conditions[:n], self.n_samples[:n]

    def place(self, first: int) -> None:
        """Work out where in their clips the next STEPS samples lie."""
        self.first = first
        if self.model.course is not None:
            at = torch.arange(first, first + STEPS, device=self.before.device).expand(len(self.before), -1)
            self.told = self.model.told(self.conditions, at, self.n_samples)

    def scores(self, t: int, n: int) -> Tensor:
        """(n, V): of the level at step t, given all before it."""
        model = self.model
        x = model.start_now(self.before[:n]) + self.past[:n]
        if self.told is not None:
            x = x + self.told[t - self.first, :n]
        gates = []
        for (past, now, way_on), queue, about in zip(self.layers, self.queues, self.bias, strict=True):
            slot = queue[t % len(queue), :n]
            z = torch.addmm(about[:n], slot, past).addmm_(x, now)
            slot.copy_(x)
            f, s = z.chunk(2, 1)
            gates.append(torch.tanh(f).mul_(torch.sigmoid(s)))
            if way_on is not None:
                x = torch.addmm(x, gates[-1], way_on[0]).add_(way_on[1])
        return F.linear(model.read(torch.cat(gates, 1)), model.head_weight)

    def step(self, t: int, draws: Tensor, temperature: float) -> Tensor:
        """(n,) levels of step t, drawn by `draws` (n,) in [0, 1)."""
        n = len(draws)
        scores = self.scores(t, n)
        if temperature == 0:
            chosen = scores.argmax(1)
        else:
            heaped = torch.softmax(scores.double() / temperature, 1).cumsum(1)
            chosen = (heaped <= draws[:, None] * heaped[:, -1:]).sum(1).clamp_max(self.model.n_levels - 1)
        self.push(chosen)
        return chosen

    def push(self, levels: Tensor) -> None:
        """Take levels (n,) as what came last."""
        n = len(levels)
        self.past[:n] = self.model.start_past(self.before[:n])
        self.before[:n] = levels
