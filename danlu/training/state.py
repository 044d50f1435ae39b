"""What a checkpoint holds, and putting it back: after `restore`, the next update is the one that would have come.

There is no generator state to save: dropout of step s is drawn from (seed, s), order from (seed, s), weights from seed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from danlu.base.contracts import Optimizer
from danlu.base.errors import UserError
from danlu.parallel.checkpoint import Snapshot
from danlu.training.guards import Guard, Stopper
from danlu.trust.diagnose import Diagnosis


@dataclass
class Position:
    """Where a run is."""

    step: int = 0
    """Completed steps."""
    elapsed_s: float = 0.0
    """Training seconds over all processes of this run."""
    batch_offset: int = 0
    """Batches passed over by roll-backs: step s trains on batch s + batch_offset."""
    finished: str = ""
    """Why the run ended, or ""."""
    startup_s: float = 0.0
    """Seconds from opening to the first step, over all processes of this run."""
    n_steps: int = 0
    """Where the run ends, once a time budget has decided it (training/pace.py); 0 before."""
    cools_from: int = 0
    """The step at which it was decided."""
    peak_bytes: int = 0
    """Most memory in use, over all processes of this run; 0 where it cannot be told."""


@dataclass
class State:
    """All that changes in a run beside weights and optimizer state."""

    guard: Guard
    stopper: Stopper
    position: Position = field(default_factory=Position)
    alarm: Diagnosis = field(default_factory=Diagnosis)

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        return {part.name: dataclasses.asdict(getattr(self, part.name)) for part in dataclasses.fields(self)}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Take over what changes; settings (patience, policies) stay the recipe's."""
        keep = {
            "guard": ("on_nonfinite", "on_spike"),
            "stopper": ("patience", "target", "plateau"),
            "position": (),
            "alarm": (),
        }
        for part, fixed in keep.items():
            values = {k: v for k, v in saved.get(part, {}).items() if k not in fixed}
            if part == "stopper" and values.get("best") is None:
                values["best"] = float("inf")
            for name, value in values.items():
                setattr(getattr(self, part), name, value)


class Average:
    """Exponential moving average of the weights (Polyak & Juditsky 1992); the first steps average over all so far."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.names = [n for n, p in model.named_parameters() if p.requires_grad]
        self.values = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After update number `step` (1-based): decay min(decay, step / (step + 9))."""
        share = 1 - min(self.decay, step / (step + 9))
        torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], share)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange average and weights (call twice around an evaluation)."""
        for p, value in zip(self.parameters, self.values, strict=True):
            held = p.detach().clone()
            p.copy_(value)
            value.copy_(held)


def kept(model: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint keeps of a model: parameters (tied ones once) and persistent buffers (batch norm's averages)."""
    found = {name: p.detach() for name, p in model.named_parameters()}
    for prefix, module in model.named_modules():
        hidden = module._non_persistent_buffers_set
        own = {name: b for name, b in module.named_buffers(recurse=False) if name not in hidden}
        found |= {f"{prefix}.{name}" if prefix else name: b for name, b in own.items()}
    return found


def snapshot(
    model: nn.Module, optimizer: Optimizer, average: Average | None, state: State, fingerprints: Mapping[str, str]
) -> Snapshot:
    """Everything a resume needs."""
    tensors: dict[str, Mapping[str, Tensor]] = {
        "model": kept(model),
        "optimizer": optimizer.tensors(),
    }
    if average is not None:
        tensors["ema"] = dict(zip(average.names, average.values, strict=True))
    saved = state.to_json() | {"fingerprints": dict(fingerprints)}
    if saved["stopper"]["best"] == float("inf"):
        saved["stopper"]["best"] = None
    return Snapshot(state.position.step, tensors, saved)


@torch.no_grad()
def restore(
    saved: Snapshot,
    model: nn.Module,
    optimizer: Optimizer,
    average: Average | None,
    state: State,
    fingerprints: Mapping[str, str],
) -> None:
    """Put a snapshot back, bit for bit; refuse one of another recipe, data or plan."""
    for what, wanted in fingerprints.items():
        found = saved.state["fingerprints"].get(what)
        if found != wanted:
            raise UserError(
                f"checkpoint of step {saved.step}",
                f"was written with another {what}",
                got=found,
                fix="start a new run (--out), or put the old one back",
            )
    own = kept(model)
    if own.keys() != saved.tensors["model"].keys():
        raise UserError(
            f"checkpoint of step {saved.step}", "holds the weights of another model", fix="start a new run (--out)"
        )
    for name, p in own.items():
        p.copy_(saved.tensors["model"][name])
    optimizer.load(saved.tensors["optimizer"])
    if average is not None:
        for name, value in zip(average.names, average.values, strict=True):
            value.copy_(saved.tensors["ema"][name])
    state.load(saved.state)
