"""Start from what another run has learned: its best weights, where names and shapes agree."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from danlu.base.errors import UserError
from danlu.base.runfolder import RunFolder
from danlu.parallel.checkpoint import load_best
from danlu.training.state import kept


@torch.no_grad()
def start_from(model: nn.Module, where: str) -> list[str]:
    """Copy the weights (their moving average where there is one); a sentence on what was taken and what was not."""
    if where == "none":
        return []
    path = Path(where).expanduser()
    if not path.is_dir():
        raise UserError("train.start_from", "must be the folder of an earlier run", got=where, fix="name a run folder")
    saved, said = load_best(RunFolder.open(path).checkpoints)
    if saved is None:
        raise UserError("train.start_from", "has no good checkpoint", got=where, fix=f"danlu train {where}")
    theirs = {**saved.tensors["model"], **saved.tensors.get("ema", {})}
    own = kept(model)
    taken = [name for name, tensor in own.items() if name in theirs and theirs[name].shape == tensor.shape]
    if not taken:
        raise UserError(
            "train.start_from", "shares no weight with this model", got=where, fix="use the same model.kind"
        )
    for name in taken:
        own[name].copy_(theirs[name])
    fresh = sorted(own.keys() - set(taken))
    rest = f"; fresh: {', '.join(fresh[:6])}{' ...' if len(fresh) > 6 else ''}" if fresh else ""
    return [*said, f"started from {where}, step {saved.step}: {len(taken)} of {len(own)} tensors taken{rest}"]
