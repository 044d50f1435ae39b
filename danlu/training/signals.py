"""Per-layer signals of a step, and the trouble they name. Measured every so many steps, at a stated cost.

update_ratio: RMS of a layer's change over RMS of its weights; about 1e-3 is usual (Karpathy 2022; Kosson 2024).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

LAYER_DEPTH = 3
"""Name parts that make a layer: blocks.0.attention.qkv.weight -> blocks.0.attention."""
VANISHING, EXPLODING_RATIO, DEAD = 1e-3, 0.3, 0.5


def layer_of(name: str) -> str:
    """The layer a parameter belongs to."""
    parts = name.split(".")
    return ".".join(parts[:LAYER_DEPTH] if parts[0] == "blocks" else parts[:1])


class Watch:
    """Around one update: `before` copies the weights, `after` gives the signals. Costs one copy of the weights."""

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = model
        self.saved: dict[str, Tensor] = {}

    def before(self) -> None:
        """Start watching: call before the forward pass."""
        self.model.watched = True
        self.saved = {name: p.detach().clone() for name, p in self.model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def after(self, grad_norms: Mapping[str, float]) -> dict[str, dict[str, float]]:
        """Signals by layer: grad_norm, update_ratio, and dead_frac where units can die."""
        sums: dict[str, list[float]] = {}
        for name, p in self.model.named_parameters():
            if name not in self.saved:
                continue  # not trained: frozen, or a count
            grad, change, weight = sums.setdefault(layer_of(name), [0.0, 0.0, 0.0])
            old = self.saved[name]
            sums[layer_of(name)] = [
                grad + grad_norms.get(name, 0.0) ** 2,
                change + float((p - old).square().sum()),
                weight + float(old.square().sum()),
            ]
        layers = {
            layer: {"grad_norm": g**0.5, "update_ratio": (c / w) ** 0.5 if w > 0 else 0.0}
            for layer, (g, c, w) in sums.items()
        }
        for name, module in self.model.named_modules():
            dead = getattr(module, "dead_frac", None)
            if dead is not None and layer_of(name) in layers:
                layers[layer_of(name)]["dead_frac"] = dead
        self.model.watched, self.saved = False, {}
        return layers


def trouble(layers: Mapping[str, Mapping[str, float]], step: int) -> list[str]:
    """Sentences that name vanishing or exploding gradients and dead units, with the numbers they rest on."""
    found = []
    for part in ("attention", "feed_forward"):
        norms = {
            name: s["grad_norm"] for name, s in layers.items() if name.startswith("blocks.") and name.endswith(part)
        }
        low, high = (f(norms, key=norms.__getitem__, default="") for f in (min, max))
        if low and norms[high] > 0 and norms[low] < VANISHING * norms[high]:
            found.append(
                f"vanishing gradient at step {step}: {low} gets {norms[low]:.2g}, {high} gets {norms[high]:.2g}"
            )
    for name, s in layers.items():
        if s["update_ratio"] > EXPLODING_RATIO and step > 20:
            found.append(
                f"exploding update at step {step}: {name} changed by {s['update_ratio']:.0%} of its size in one step"
            )
        if s.get("dead_frac", 0.0) > DEAD:
            found.append(f"dead units at step {step}: {s['dead_frac']:.0%} of {name} is 0 on the whole batch")
    return found
