"""plan.proxy: the learning rate of a smaller or shorter run, carried over to this one (planning/transfer.py), for a plan of a decoder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from danlu.base.errors import UserError
from danlu.base.runfolder import RunFolder, read_json
from danlu.models.decoder_settings import DecoderShape
from danlu.planning.choices import Choices
from danlu.planning.ledger import Decision, read_decisions
from danlu.planning.prediction import Z80
from danlu.planning.transfer import Known, Run, carried
from danlu.recipe import Recipe

GIVEN_SD = math.log(1.5)
"""Of the log of a rate that the earlier recipe gave: its writer is taken to know it so well."""


def with_proxy(recipe: Recipe, law: Decision, shape: DecoderShape, choices: Choices) -> Decision:
    """optimizer.lr by the law and by the run that plan.proxy names, weighed; the law's where none is named."""
    where = recipe.plan.proxy
    if where == "none":
        return law
    path = Path(where).expanduser()
    if not path.is_dir():
        raise UserError("plan.proxy", "must be the folder of an earlier run", got=where, fix="name a run folder")
    proxy = RunFolder.open(path)
    theirs: Any = Recipe.load(proxy.recipe)
    for part, own, other in (
        ("model.kind", kind_of(recipe.model), kind_of(theirs.model)),
        ("optimizer.kind", kind_of(recipe.optimizer), kind_of(theirs.optimizer)),
        ("model.parametrization", getattr(recipe.model, "parametrization", ""), getattr(theirs.model, "parametrization", "")),
    ):  # fmt: skip
        if own != other:
            raise UserError(
                "plan.proxy", f"must be a run with this {part}, {own}", got=str(other), fix="name another run"
            )
    parametrization = recipe.model.parametrization  # type: ignore[attr-defined]
    ran = Choices.read(proxy)
    small = theirs.model.model_copy(update=ran.model).shape(read_json(proxy.data / "card.json")["vocab_size"])
    return carried(
        law, known(proxy), run_of(small, ran), run_of(shape, choices), kind_of(recipe.optimizer), parametrization, where
    )


def kind_of(section: Any) -> str:
    """A section's kind."""
    return str(getattr(section, "kind", ""))


def run_of(shape: DecoderShape, choices: Choices) -> Run:
    """What a decoder's best rate hangs on."""
    return Run(
        shape.width, shape.n_layers, choices.batch * shape.context, choices.n_steps, shape.n_hidden_parameters
    )  # fmt: skip


def known(proxy: RunFolder) -> Known:
    """The rate that the run was planned with, as sure as its plan was; as its recipe gave it, GIVEN_SD."""
    rate = float(Choices.read(proxy).optimizer["lr"])
    found = next((d for d in read_decisions(proxy) if d.name == "optimizer.lr"), None)
    if found is None or not found.low or not found.high:
        return Known(rate, GIVEN_SD)
    return Known(rate, math.log(found.high / found.low) / (2 * Z80))
