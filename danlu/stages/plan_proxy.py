"""plan.proxy: the learning rate of a smaller or shorter run, carried over to this one (planning/transfer.py), for a plan of a decoder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

from danlu.base.errors import UserError
from danlu.base.runfolder import RunFolder, read_json
from danlu.models.decoder_settings import DecoderShape
from danlu.planning.choices import Choices
from danlu.planning.ledger import Decision, read_decisions
from danlu.planning.prediction import Z80
from danlu.planning.transfer import Known, Run, carried, transfer
from danlu.recipe import Recipe

GIVEN_SD = math.log(1.5)
"""Of the log of a rate that the earlier recipe gave: its writer is taken to know it so well."""


def proxy_of(recipe: Recipe) -> RunFolder | None:
    """The folder that plan.proxy names, checked as far as it can be before anything is timed; None where none is named."""
    where, settings = recipe.plan.proxy, cast(Any, recipe.optimizer)
    if where == "none":
        return None
    if settings.lr != "auto":
        got = f"optimizer.lr = {settings.lr:g}"
        raise UserError("plan.proxy", 'needs optimizer.lr = "auto"', got=got, fix="leave one of them out")
    try:
        path = Path(where).expanduser()
    except RuntimeError:
        path = Path(where)
    if not path.is_dir():
        raise UserError("plan.proxy", "must be the folder of an earlier run", got=where, fix="name a run folder")
    proxy = RunFolder.open(path)
    theirs = Recipe.load(proxy.recipe)
    for part, own, other in (
        ("model.kind", kind_of(recipe.model), kind_of(theirs.model)),
        ("optimizer.kind", kind_of(recipe.optimizer), kind_of(theirs.optimizer)),
        ("model.parametrization", getattr(recipe.model, "parametrization", ""), getattr(theirs.model, "parametrization", "")),
    ):  # fmt: skip
        if own != other:
            fix = "name another run"
            raise UserError("plan.proxy", f"must be a run with this {part}, {own}", got=str(other), fix=fix)
    if (found := rate_decision(proxy)) is not None and not found.origin.startswith("measured"):
        fix = "give it a rate, or plan it with plan.budget large enough to measure one"
        raise UserError("plan.proxy", "must be a run whose rate was measured or given", got=found.origin, fix=fix)
    return proxy


def with_proxy(recipe: Recipe, law: Decision, shape: DecoderShape, choices: Choices) -> Decision:
    """optimizer.lr by the law and by the run that plan.proxy names; the law's where none is named."""
    proxy = proxy_of(recipe)
    if proxy is None:
        return law
    theirs: Any = Recipe.load(proxy.recipe).model
    own: Any = recipe.model
    ran = Choices.read(proxy)
    small = theirs.model_copy(update=ran.model).shape(read_json(proxy.data / "card.json")["vocab_size"])
    best, kind = known(proxy, ran), kind_of(recipe.optimizer)
    found = transfer(best, run_of(small, ran), run_of(shape, choices), kind, own.parametrization)
    return carried(law, recipe.plan.proxy, best, found, holds_law=rate_decision(proxy) is not None)


def kind_of(section: Any) -> str:
    """A section's kind."""
    return str(getattr(section, "kind", ""))


def run_of(shape: DecoderShape, choices: Choices) -> Run:
    """What a decoder's best rate hangs on."""
    return Run(
        shape.width, shape.n_layers, choices.batch * shape.context, choices.n_steps, shape.n_hidden_parameters
    )  # fmt: skip


def rate_decision(proxy: RunFolder) -> Decision | None:
    """How the run's plan found its rate; None where its recipe gave it."""
    return next((d for d in read_decisions(proxy) if d.name == "optimizer.lr"), None)


def known(proxy: RunFolder, ran: Choices) -> Known:
    """The rate that the run was planned with, as sure as its plan was; as its recipe gave it, GIVEN_SD."""
    found = rate_decision(proxy)
    sd = math.log(found.high / found.low) / (2 * Z80) if found is not None and found.low and found.high else GIVEN_SD
    return Known(float(ran.optimizer["lr"]), sd)
