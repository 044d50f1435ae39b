"""What a run does, with nothing left open: written to plan.json before the first update, read by every resume.

Whatever a timing or a law chose stands here, so neither the curve nor the schedule ever hangs on the clock.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from danlu.base.durable import read_json
from danlu.base.errors import UserError
from danlu.base.runfolder import RunFolder
from danlu.base.settings import Settings


class Choices(Settings):
    """The resolved run."""

    device: Literal["cpu", "cuda"]
    """Where."""
    threads: int
    """CPU threads."""
    precision: Literal["fp32", "bf16"]
    """Number format of the matrix products."""
    operations: Literal["plain", "native"]
    """Which set of models/layers.py computes what lies between the matrix products."""
    attention: Literal["blocks", "fused"]
    """Attention implementation."""
    compile: bool
    """torch.compile, block by block."""
    recompute: bool = False
    """Whether backward computes each block again instead of keeping what is inside it."""
    batch: int
    """Samples per update."""
    micro_batch: int
    """Samples that go through the model together."""
    n_steps: int
    """Updates of the whole run; the schedule ends there."""
    time_limit_s: float | None = None
    """Hard budget of training time over all processes of this run, or None."""
    model: dict[str, Any]
    """Resolved model settings (width, depth, ...)."""
    optimizer: dict[str, Any]
    """Resolved optimizer settings (lr, weight_decay, ...)."""
    evaluate_every: int | None
    """Steps between looks at the validation split, or None."""
    look_share: float = 1.0
    """Share of what a look may take of the validation split, where a whole look would take too much of the run."""
    signals_every: int | None
    """Steps between per-layer measurements, or None."""
    save_every_steps: int | None
    """Steps between checkpoints, or None."""
    save_every_s: float | None
    """Seconds between checkpoints, or None."""
    ema: float | None = None
    """Decay of the weights' moving average, or None."""
    forks: tuple[tuple[int, int], ...] = ()
    """(step, steps it cools down over) of each fork that the forecast of the run's end is made of."""

    @model_serializer(mode="wrap")
    def dumped(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As JSON holds it: without what was added later and has its usual value, so that a run planned before keeps its fingerprint."""
        body: dict[str, Any] = dump(self)
        return {name: value for name, value in body.items() if name != "look_share" or value != 1.0}

    @classmethod
    def read(cls, run: RunFolder) -> Choices:
        """From the run's plan.json; UserError when there is none yet."""
        if not run.plan.exists():
            raise UserError(str(run.plan), "is missing: the run was not planned", fix=f"danlu plan {run.path}")
        return cls(**read_json(run.plan)["choices"])
