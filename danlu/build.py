"""From recipe, data card and choices to the things that train: model, optimizer, batches. Stages and tools share it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from danlu.base import native
from danlu.base.contracts import DataCard, Optimizer
from danlu.base.errors import UserError
from danlu.base.runfolder import RunFolder
from danlu.data.samples import SampleSource
from danlu.data.shards import open_split
from danlu.models.decoder_settings import Decoder
from danlu.models.layers import Native, Plain
from danlu.models.recompute import recompute_blocks
from danlu.planning.choices import Choices
from danlu.recipe import Recipe
from danlu.tasks.language_scores import TokenText


def set_machine(choices: Choices, deterministic: bool) -> torch.device:
    """Threads and determinism of this process; the device."""
    torch.set_num_threads(choices.threads)
    if choices.device == "cpu":
        native.keep_freed_memory()
    if deterministic and choices.device == "cuda":  # what danlu calls on a CPU is deterministic as it is
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    if choices.device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "plan.json: device",
            "is cuda, and this machine has no CUDA device",
            fix="resume where it was planned, or start a new run",
        )
    return torch.device(choices.device)


def build_model(recipe: Recipe, card: DataCard, choices: Choices) -> nn.Module:
    """The network on its device, with the chosen way of computing; its initial weights depend on the seed alone."""
    settings: Any = recipe.model.model_copy(update=choices.model)
    return compute_as(network(settings, recipe.task, card, recipe.seed).to(choices.device), choices)


def network(settings: Any, task: Any, card: DataCard, seed: int) -> nn.Module:
    """The network of a recipe's model for the data and the task at hand."""
    if isinstance(settings, Decoder):
        return settings.build(card.vocab_size, seed)
    task.check(card)
    card = card.model_copy(update={"features": {**card.features, **task.asks(card)}})
    return settings.build(card, task.n_outputs(card), seed)  # type: ignore[no-any-return]


@contextmanager
def on_meta() -> Iterator[None]:
    """Build models without memory, for their counts: on torch's meta device, whose shape functions load the whole compiler
    (1 to 3 s), only to mark themselves as not for it. A stand-in takes the marks and is gone with them afterwards; where
    the compiler is loaded already, it stays.
    """
    name, marked = "torch._dynamo", []
    if name in sys.modules:
        with torch.device("meta"):
            yield
        return

    def disable(function: Any, *_: Any, **__: Any) -> Any:
        marked.append(function)
        return function

    stand_in = ModuleType(name)
    stand_in.disable = disable  # type: ignore[attr-defined]
    sys.modules[name] = torch._dynamo = stand_in
    try:
        with torch.device("meta"):
            yield
    finally:
        del sys.modules[name], torch._dynamo
        for function in marked:
            function.__dict__.pop("__dynamo_disable", None)


def is_samples(recipe: Recipe) -> bool:
    """Whether the data are samples by number; running text is cut into windows instead."""
    return isinstance(recipe.data, SampleSource)


def compute_as(model: Any, choices: Choices) -> nn.Module:
    """Set how a model computes: precision, operations, attention, compilation."""
    if choices.operations == "native" and native.load() is None:
        raise UserError(
            "plan.json: operations", f"is native, and the kernels are not to be had here: {native.reason()}",
            fix="install a C compiler, or start a new run",
        )  # fmt: skip
    if choices.recompute:
        recompute_blocks(model)
    if not hasattr(model, "operations"):
        return autocast(model, choices)
    model.dtype = torch.bfloat16 if choices.precision == "bf16" else torch.float32
    model.operations = Native() if choices.operations == "native" else Plain()
    model.attention = choices.attention
    if choices.compile:
        for block in model.blocks:
            block.compile()
    return model  # type: ignore[no-any-return]


def autocast(model: nn.Module, choices: Choices) -> nn.Module:
    """A model of torch's own layers: bf16 by torch.autocast (weights stay float32), compiled whole."""
    if choices.precision == "bf16":
        plain = model.forward

        def forward(*inputs: Any, **named: Any) -> Any:
            with torch.autocast(choices.device, torch.bfloat16):
                return plain(*inputs, **named)

        model.forward = forward
    if choices.compile:
        model.compile()
    return model


def build_optimizer(recipe: Recipe, model: nn.Module, choices: Choices) -> Optimizer:
    """The update rule with every setting resolved."""
    settings: Any = recipe.optimizer.model_copy(update=choices.optimizer)
    return settings.build(model)  # type: ignore[no-any-return]


def open_text(recipe: Recipe, run: RunFolder, card: DataCard, split: str) -> TokenText:
    """A split of a prepared text, as the model is trained to see it."""
    if split not in card.splits:
        known = ", ".join(card.splits)
        raise UserError("evaluate.on", f"must be a split of the data ({known})", got=split, fix="set data.split")
    shard, data, model = open_split(run.data, split), recipe.data, recipe.model
    return TokenText(
        tokens=shard.tokens,
        documents=shard.docs,
        token_bytes=np.fromfile(run.data / "token_bytes.bin", "<u2"),
        context=model.context,  # type: ignore[attr-defined]
        document_end=card.document_end,
        pack=data.pack,  # type: ignore[attr-defined]
    )
