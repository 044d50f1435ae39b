"""Faults planted into a training from outside: around its loader, its parts and its optimizer. Used by diagnosis.py."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from danlu.base.contracts import Batch

Change = Callable[[int, Batch], Batch]


class Around:
    """A loader whose batches are changed on their way."""

    def __init__(self, loader: Any, change: Change, at: Callable[[int], int] = lambda step: step) -> None:
        self.loader, self.change, self.at = loader, change, at

    def __len__(self) -> int:
        """Samples."""
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        """All else is the loader's."""
        return getattr(self.loader, name)

    def micro_batches(self, step: int, micro: int) -> list[Batch]:
        """Changed batches."""
        return [self.change(step, b) for b in self.loader.micro_batches(self.at(step), micro)]


class AroundOptimizer:
    """An optimizer that is used wrongly."""

    def __init__(self, optimizer: Any, factor: Callable[[int], float], kept: list[nn.Parameter]) -> None:
        self.optimizer, self.factor, self.kept, self.n = optimizer, factor, kept, 0

    def __getattr__(self, name: str) -> Any:
        """All else is the optimizer's."""
        return getattr(self.optimizer, name)

    def step(self, lr: float) -> None:
        """At another rate, and some parameters stay as they are."""
        held = [p.detach().clone() for p in self.kept]
        self.optimizer.step(lr * self.factor(self.n))
        self.n += 1
        with torch.no_grad():
            for p, old in zip(self.kept, held, strict=True):
                p.copy_(old)


def put(batch: Batch, **tensors: Any) -> Batch:
    """A batch with other tensors."""
    return dataclasses.replace(batch, tensors={**batch.tensors, **tensors})


def is_sequence(batch: Batch) -> bool:
    """Whether each position has a label of its own."""
    return "tokens" in batch.tensors and batch.tensors["targets"].dim() == 2


def matrices(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Weights in the model's order."""
    return [(n, p) for n, p in model.named_parameters() if p.dim() >= 2 and p.requires_grad]


def scaled(p: nn.Parameter, factor: Callable[[int], float]) -> None:
    """Its gradient arrives multiplied."""
    count = iter(range(10**9))
    p.register_hook(lambda g: g * factor(next(count)))


# --- data


def emptied(step: int, batch: Batch) -> Batch:
    """Inputs that carry nothing."""
    blank = {n: torch.zeros_like(t) for n, t in batch.tensors.items() if n not in ("targets", "lengths")}
    return put(batch, **blank)


def shifted(step: int, batch: Batch) -> Batch:
    """Targets one place on."""
    targets = batch.tensors["targets"]
    if is_sequence(batch):
        moved = torch.roll(targets, 1, 1)
        moved[:, 0] = -1
        moved[targets < 0] = -1
        return dataclasses.replace(put(batch, targets=moved), n_targets=max(1, int((moved >= 0).sum())))
    return put(batch, targets=torch.roll(targets, 1, 0))


def noisy(share: float) -> Change:
    """That share of the labels are those of other samples (positions)."""

    def change(step: int, batch: Batch) -> Batch:
        targets = batch.tensors["targets"]
        generator = torch.Generator().manual_seed(step)
        flat = targets.reshape(-1) if is_sequence(batch) else targets.reshape(len(targets), -1)
        known = torch.nonzero(flat >= 0).flatten() if is_sequence(batch) else torch.arange(len(flat))
        if not is_sequence(batch):
            wrong = known[torch.rand(len(known), generator=generator) < share]
            made = flat.clone()
            made[wrong] = flat[torch.randint(len(flat), (len(wrong),), generator=generator)]
            return put(batch, targets=made.reshape(targets.shape))
        wrong = known[torch.rand(len(known), generator=generator) < share]
        made = flat.clone()
        made[wrong] = flat[known[torch.randint(len(known), (len(wrong),), generator=generator)]]
        return put(batch, targets=made.reshape(targets.shape))

    return change


def halves(step: int, batch: Batch) -> Batch:
    """The first half of the batch twice."""
    n = len(batch.tensors["targets"])
    rows = torch.arange(n) % max(1, n // 2)
    tensors = {name: t[rows] for name, t in batch.tensors.items()}
    return dataclasses.replace(batch, tensors=tensors, n_targets=count(tensors["targets"], batch))


def count(targets: torch.Tensor, batch: Batch) -> int:
    """Targets of a changed batch."""
    return int((targets >= 0).sum()) if "tokens" in batch.tensors and targets.dim() == 2 else batch.n_targets


def given_away(step: int, batch: Batch) -> Batch:
    """One feature is the answer."""
    targets = batch.tensors["targets"].float().reshape(len(batch.tensors["targets"]), -1)[:, 0]
    numbers = batch.tensors["numbers"].clone()
    numbers[:, 0] = targets + 0.01 * torch.randn(len(targets), generator=torch.Generator().manual_seed(step))
    return put(batch, numbers=numbers)


class Mixed(Around):
    """Half of the samples are validation samples."""

    def __init__(self, loader: Any, split: Any) -> None:
        super().__init__(loader, self.mix)
        self.other = split

    def mix(self, step: int, batch: Batch) -> Batch:
        """Rows of the validation split in the first half."""
        n = len(batch.tensors["targets"]) // 2
        rows = np.random.default_rng(step).integers(0, len(self.other), n)
        held = self.other.batch(rows)
        return joined(held, batch.rows(slice(n, None)))


def joined(a: Batch, b: Batch) -> Batch:
    """Two batches in one, padded to the longer."""
    tensors = {}
    for name, x in a.tensors.items():
        y = b.tensors[name]
        if x.dim() > 1 and x.shape[1:] != y.shape[1:]:
            T, fill = max(x.shape[1], y.shape[1]), -1 if name == "targets" else 0
            x, y = (nn.functional.pad(t, (0, T - t.shape[1]), value=fill) for t in (x, y))
        tensors[name] = torch.cat([x, y])
    return Batch(tensors, a.n_targets + b.n_targets)


class HeldText:
    """Windows of a token file by number."""

    def __init__(self, tokens: Any, context: int) -> None:
        self.tokens, self.context = np.asarray(tokens), context

    def __len__(self) -> int:
        """Windows."""
        return (len(self.tokens) - 1) // self.context

    def batch(self, rows: Any) -> Batch:
        """(B, T) windows."""
        T = self.context
        table = np.stack([self.tokens[r * T : r * T + T + 1] for r in rows]).astype(np.int64)
        tokens, targets = (torch.from_numpy(part.copy()) for part in (table[:, :-1], table[:, 1:]))
        return Batch({"tokens": tokens, "targets": targets}, len(rows) * T)


class Ordered(Around):
    """Samples in the order of their labels (text: of the file)."""

    def __init__(self, loader: Any, split: Any, batch: int) -> None:
        super().__init__(loader, lambda step, b: b)
        self.other, self.size = split, batch
        self.rows = np.arange(len(split))
        if not isinstance(split, HeldText):
            keys = np.concatenate([self.key(split.batch(self.rows[i : i + 512])) for i in range(0, len(split), 512)])
            self.rows = np.argsort(keys, kind="stable")

    def key(self, batch: Batch) -> Any:
        """What it is sorted by."""
        targets = batch.tensors["targets"].numpy()
        if targets.ndim == 1:
            return targets
        known = targets >= 0 if targets.dtype.kind == "i" else np.ones_like(targets, bool)
        return (targets * known).sum(1) / known.sum(1).clip(1)

    def micro_batches(self, step: int, micro: int) -> list[Batch]:
        """The next rows."""
        at = np.arange(step * self.size, (step + 1) * self.size) % len(self.rows)
        return [self.other.batch(self.rows[at])]


# --- model


def blown_up(model: nn.Module) -> None:
    """Scores far too large at the start."""
    last = matrices(model)[-1][1]
    head = getattr(model, "head", None)
    weight = head.weight if isinstance(head, nn.Module) and hasattr(head, "weight") else last
    with torch.no_grad():
        weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) * 30 / weight.shape[1] ** 0.5)  # fmt: skip


def killed(model: nn.Module) -> None:
    """Four in five units of a layer give nothing."""
    ups = [m.up for m in model.modules() if hasattr(m, "up") and hasattr(m, "down")]
    with torch.no_grad():
        if ups:
            weight = ups[-1].weight
            weight[: int(0.8 * len(weight))] = 0
            return
    layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d))]

    def hook(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x = inputs[0]
        axis = x.dim() - 1 if isinstance(module, nn.Linear) else 1
        keep = (torch.arange(x.shape[axis]) % 5 == 0).to(x.dtype)
        return (x * (keep if axis == x.dim() - 1 else keep[:, None] if x.dim() == 3 else keep[:, None, None]),)

    layers[-1].register_forward_pre_hook(hook)


def gradients_by_depth(model: nn.Module, factor: Callable[[int], float]) -> None:
    """The gradients of the first half of the matrices come multiplied."""
    found = matrices(model)
    for _, p in found[: max(1, len(found) // 2)]:
        scaled(p, factor)
