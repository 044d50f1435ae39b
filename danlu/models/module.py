"""Trains a module that knows nothing of batches: what it is called with, and what becomes of its answer."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from typing import Any, cast

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
        self.module = copied(module)
        self.is_keras = is_keras(module)
        made: Any = self.module
        listed = enumerate(made.variables if self.is_keras else ())
        self.own_names = {id(v.value): f"module.{i}.{v.name}" for i, v in listed}

    def named_parameters(self, *args: Any, **named: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """As always; those of a Keras model by their number, because Keras counts names up with every copy it makes."""
        return ((self.own_names.get(id(p), name), p) for name, p in super().named_parameters(*args, **named))

    def forward(self, batch: Batch) -> Output:
        """Scores as the module gives them. A Keras model is told whether it is trained: it does not look at `training`."""
        name = next(name for name in INPUTS if name in batch.tensors)
        told = {"training": self.training} if self.is_keras else {}
        answer: Any = self.module(batch.tensors[name], **told)
        if not isinstance(answer, torch.Tensor):
            got = type(answer).__name__
            raise UserError("model", "must answer with one tensor", got=got, fix="wrap it in a module that does")
        return Output(scores=answer)


def settings_of(module: nn.Module) -> Module:
    """Settings for a module, which is kept as it is now."""
    check_given(module)
    shape: Any = module
    digest = hashlib.sha256((shape.to_json() if is_keras(module) else repr(module)).encode())
    for name, tensor in module.state_dict().items():
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(
            tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        )
    made = Module(name=type(module).__name__, digest=digest.hexdigest()[:32])
    Module.given[made.digest] = copied(module)
    return made


def is_keras(module: nn.Module) -> bool:
    """Whether it is a Keras model on its torch backend. Keras is not imported for the answer."""
    return any(base.__module__.startswith("keras.") for base in type(module).__mro__)


@torch.no_grad()
def copied(module: nn.Module) -> nn.Module:
    """A copy with the very same state (Keras draws new seeds for the dropout of a copy)."""
    found = copy.deepcopy(module)
    if is_keras(module):
        own, given = cast(Any, found), cast(Any, module)
        for variable, value in zip(own.variables, given.variables, strict=True):
            variable.value.copy_(value.value)
    return found


def check_given(module: nn.Module) -> None:
    """Refuse what has no weights yet."""
    given: Any = module
    lazy = any(isinstance(p, nn.parameter.UninitializedParameter) for p in module.parameters())
    if lazy or (is_keras(module) and not given.built):
        raise UserError(
            "fit: model", "must have its weights", got=f"{type(module).__name__}, which is not built yet",
            fix="call it once on an input, or give a Keras model a keras.Input",
        )  # fmt: skip


def last_activation(module: nn.Module) -> str:
    """softmax or sigmoid where a module ends with one, else ""."""
    last: Any = module
    while isinstance(last, nn.Sequential) and len(last):
        last = last[-1]
    if is_keras(module):
        last = last.layers[-1] if getattr(last, "layers", None) else last
        name = getattr(getattr(last, "activation", None), "__name__", "")
    else:
        name = type(last).__name__.lower()
    return name if name in ("softmax", "sigmoid") else ""
