"""Start from what another run has learned: its best weights, where names and shapes agree."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from danlu.base.errors import UserError
from danlu.base.runfolder import RunFolder, read_json
from danlu.parallel.checkpoint import load_best
from danlu.training.state import kept


@torch.no_grad()
def start_from(model: nn.Module, where: str, data: Path) -> list[str]:
    """Copy the weights (their moving average where there is one); a sentence on what was taken and what was not. `data` is
    the own run's: where both runs learned a vocabulary, a word must mean the same in both."""
    if where == "none":
        return []
    path = Path(where).expanduser()
    if not path.is_dir():
        raise UserError("train.start_from", "must be the folder of an earlier run", got=where, fix="name a run folder")
    theirs_run = RunFolder.open(path)
    same_words(data, theirs_run.data, where)
    saved, said = load_best(theirs_run.checkpoints)
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


def same_words(ours: Path, theirs: Path, where: str) -> None:
    """Refuse a run whose token ids stand for other words: its vectors would be those of other words here."""
    if (ours / "preprocessing.json").is_file() and (theirs / "preprocessing.json").is_file():
        words = [read_json(folder / "preprocessing.json").get("vocabulary") for folder in (ours, theirs)]
        if all(isinstance(w, list) for w in words) and words[0] != words[1]:
            sizes = " and ".join(f"{len(w):,}" for w in words)
            raise UserError(
                "train.start_from", "must be a run whose vocabulary is the same", got=f"{sizes} words, which differ",
                fix=f'set data.vocabulary = "{where}"',
            )  # fmt: skip
