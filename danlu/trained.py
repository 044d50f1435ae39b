"""A trained model, back from its run folder with all it needs: what evaluate, generate, predict and packages share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from danlu.base import native
from danlu.base.contracts import DataCard
from danlu.base.errors import UserError
from danlu.base.runfolder import RunFolder, read_json
from danlu.build import build_model
from danlu.data import tokenizer as tokenizers
from danlu.models.generate import Limits
from danlu.parallel.checkpoint import Snapshot, load_best
from danlu.planning.choices import Choices
from danlu.recipe import Recipe
from danlu.training.state import kept


@dataclass(frozen=True)
class Trained:
    """A model in eval mode on its device, and what belongs to it."""

    model: Any
    tokenizer: Any
    """Of running text; None elsewhere."""
    card: DataCard
    recipe: Recipe
    choices: Choices
    """How it computes here."""
    step: int
    """Completed updates of the checkpoint."""
    notes: tuple[str, ...]
    """What a reader should know about how it was loaded: sentences."""

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return torch.device(self.choices.device)

    @property
    def limits(self) -> Limits:
        """Its context and its document end."""
        return Limits(self.model.settings.context, self.card.document_end)


def load_model(run: RunFolder, recipe: Recipe | None = None) -> Trained:
    """The best checkpoint's weights (their moving average when it was trained with one), verified, ready to use."""
    recipe = recipe or Recipe.load(run.recipe)
    card = DataCard(**read_json(run.data / "card.json"))
    saved, events = load_best(run.checkpoints)
    if saved is None:
        raise UserError(str(run.path), "has no good checkpoint", fix=f"danlu train {run.path}")
    choices, moved = here(Choices.read(run))
    torch.set_num_threads(choices.threads)
    model = build_model(recipe, card, choices).eval()
    averaged = put(model, saved)
    what = "the moving average of the weights" if averaged else "the weights"
    notes = (*events, *moved, f"Scored with {what} of step {saved.step}, computing in {choices.precision}.")
    tokenizer = tokenizers.load(card, run.data) if card.tokenizer else None
    return Trained(model, tokenizer, card, recipe, choices, saved.step, notes)


def here(planned: Choices) -> tuple[Choices, tuple[str, ...]]:
    """How the model computes on this machine: as planned where it can, in plain fp32 on the CPU where it cannot."""
    notes = []
    changes: dict[str, Any] = {"compile": False}  # a compilation costs more than one pass over a split
    if planned.device == "cuda" and not torch.cuda.is_available():
        changes |= {"device": "cpu", "precision": "fp32", "operations": "plain"}
        notes.append("Trained on a GPU; this machine has none, so it computes on the CPU in fp32.")
    elif planned.operations == "native" and native.load() is None:
        changes |= {"precision": "fp32", "operations": "plain"}
        notes.append(f"The native kernels are not to be had here ({native.reason()}), so it computes in plain fp32.")
    return planned.model_copy(update=changes), tuple(notes)


@torch.no_grad()
def put(model: Any, saved: Snapshot) -> bool:
    """Copy a checkpoint's weights into the model; True when they are the moving average."""
    averages = saved.tensors.get("ema", {})
    own: Mapping[str, Tensor] = kept(model)
    if own.keys() != saved.tensors["model"].keys():
        raise UserError(f"checkpoint of step {saved.step}", "holds the weights of another model", fix="train it again")
    for name, parameter in own.items():
        parameter.copy_(averages.get(name, saved.tensors["model"][name]))
    return bool(averages)
