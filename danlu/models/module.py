"""Trains a module that knows nothing of batches: what it is called with, and what becomes of its answer."""

from __future__ import annotations

import copy
import hashlib
from typing import Any

import torch
from torch import nn

from danlu.base.contracts import Batch, Output
from danlu.base.errors import UserError
from danlu.models.module_settings import Module

INPUTS = ("inputs", "image", "history", "frames", "tokens", "numbers")
"""Tensors of a batch that a module may be called with, the first that is there."""


class Given(nn.Module):
    """Calls the module with the batch's input; its answer (B, ...) is the scores."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(module)

    def forward(self, batch: Batch) -> Output:
        """Scores as the module gives them."""
        name = next(name for name in INPUTS if name in batch.tensors)
        answer: Any = self.module(batch.tensors[name])
        if not isinstance(answer, torch.Tensor):
            got = type(answer).__name__
            raise UserError("model", "must answer with one tensor", got=got, fix="wrap it in a module that does")
        return Output(scores=answer)


def settings_of(module: nn.Module) -> Module:
    """Settings for a module, which is kept as it is now."""
    digest = hashlib.sha256(repr(module).encode())
    for name, tensor in module.state_dict().items():
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(
            tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        )
    made = Module(name=type(module).__name__, digest=digest.hexdigest()[:32])
    Module.given.setdefault(made.digest, copy.deepcopy(module))
    return made
