"""Per-layer signals of a step, measured every so many steps at a stated cost. danlu/trust judges them.

update_ratio: RMS of a layer's change over RMS of its weights; about 1e-3 is usual (Karpathy 2022; Kosson 2024).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

LAYER_DEPTH = 3
"""Name parts that make a layer: blocks.0.attention.qkv.weight -> blocks.0.attention."""
WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d)
"""Layers whose inputs are looked at for dead units; the first one sees the data and is left out."""


def layer_of(name: str) -> str:
    """The layer a parameter belongs to."""
    parts = name.split(".")
    return ".".join(parts[:LAYER_DEPTH] if parts[0] == "blocks" else parts[:1])


class Watch:
    """Around one update: `before` copies the weights, `after` gives the signals. Costs one copy of the weights."""

    def __init__(self, model: nn.Module, with_inputs: bool = True) -> None:
        self.model: Any = model
        self.saved: dict[str, Tensor] = {}
        self.gradients: dict[str, Tensor] = {}
        self.with_inputs = with_inputs
        """Whether units are looked at by hooks, which a compiled model would have to be compiled again for."""
        self.hooks: list[Any] = []
        self.constant: dict[str, float] = {}
        self.n_rows = 0
        self.seen: dict[str, Any] = {}
        """By matrix, in the order of the model: see `after`."""
        self.predicted: float | None = None
        """What the update should have added to the loss by the gradient: its inner product with the change."""

    def before(self) -> None:
        """Start watching: call before the forward pass."""
        self.model.watched = True
        self.saved = {name: p.detach().clone() for name, p in self.model.named_parameters() if p.requires_grad}
        if self.with_inputs:
            inner = [(n, m) for n, m in self.model.named_modules() if isinstance(m, WEIGHTED)]
            self.hooks = [m.register_forward_pre_hook(partial(self.see_input, n)) for n, m in inner[1:]]

    @torch.no_grad()
    def see_input(self, name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Share of the units that go into a layer and are the same number for the whole batch: dead."""
        x = inputs[0]
        if x.dim() < 2 or not x.is_floating_point():
            return
        units = x.flatten(0, -2) if isinstance(module, nn.Linear) else x.transpose(0, 1).flatten(1).t()
        same = units.amax(0) == units.amin(0)
        self.constant[name] = min(self.constant.get(name, 1.0), float(same.float().mean()))
        self.n_rows += len(x)

    def keep_gradients(self) -> None:
        """Copy the gradients as they are now: before clipping and the update."""
        self.gradients = {n: p.grad.clone() for n, p in self.model.named_parameters() if p.grad is not None}

    @torch.no_grad()
    def after(self, grad_norms: Mapping[str, float]) -> dict[str, dict[str, float]]:
        """Signals by layer: grad_norm, update_ratio, and dead_frac where units can die. In `seen`, by matrix: weight,
        gradient and change (2-norms), which of them did not move at all, and dead units."""
        sums: dict[str, list[float]] = {}
        seen: dict[str, list[float]] = {}
        still, predicted = [], 0.0
        for name, p in self.model.named_parameters():
            if name not in self.saved:
                continue  # not trained: frozen, or a count
            old, norm = self.saved[name], grad_norms.get(name, 0.0)
            change = p - old
            moved, size = float(change.square().sum()), float(old.square().sum())
            if name in self.gradients:
                predicted += float((self.gradients[name] * change).sum())
            still += [name] if moved == 0 else []
            if p.dim() >= 2:
                seen[name] = [round_to(v) for v in (size**0.5, norm, moved**0.5)]
            all_of = sums.setdefault(layer_of(name), [0.0, 0.0, 0.0])
            sums[layer_of(name)] = [a + b for a, b in zip(all_of, (norm**2, moved, size), strict=True)]
        layers = {
            layer: {"grad_norm": g**0.5, "update_ratio": (c / w) ** 0.5 if w > 0 else 0.0}
            for layer, (g, c, w) in sums.items()
        }
        for name, module in self.model.named_modules():
            dead = getattr(module, "dead_frac", None)
            if dead is not None and layer_of(name) in layers:
                layers[layer_of(name)]["dead_frac"] = self.constant[name] = dead
        self.predicted = predicted if self.gradients else None
        self.seen = {"matrices": seen, "still": still, "dead": dict(self.constant), "rows": self.n_rows}
        for hook in self.hooks:
            hook.remove()
        self.model.watched, self.saved, self.gradients, self.hooks = False, {}, {}, []
        return layers


def round_to(value: float) -> float:
    """Four digits, for the log."""
    return float(f"{value:.4g}")
