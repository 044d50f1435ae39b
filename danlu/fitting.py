"""Train a module of your own on arrays of your own, by the same loop, checkpoints, scores and report.

run = danlu.fit(net, {"train": (x, y), "test": (x2, y2)}, task="classify", train={"length": "10 epochs"})
run.scores.metrics["accuracy"]      run.model      run.predict(list(x2))
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu.base.contracts import Progress
from danlu.base.errors import UserError
from danlu.data.given import Arrays
from danlu.pipeline import Run, quiet, run
from danlu.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn


def fit(
    model: nn.Module,
    data: Mapping[str, tuple[Any, Any]],
    task: str | Mapping[str, Any],
    out: Path | str | None = None,
    progress: Progress = quiet,
    **sections: Any,
) -> Run:
    """Train `model` (input (B, ...) -> scores) on arrays. `sections` are those of a recipe: optimizer, schedule, train,
    evaluate, name, seed. The module given is not changed; the trained one is run.model.
    """
    from danlu.models.module import last_activation, settings_of

    asked = {"kind": task} if isinstance(task, str) else dict(task)
    if asked.get("kind") == "classify" and (name := last_activation(model)):
        raise UserError(
            "fit: model", "must answer with scores, which the loss takes to shares by itself", got=f"a last {name}",
            fix=f"leave the {name} out",
        )  # fmt: skip
    evaluated = {"on": "test" if "test" in data else "validation" if "validation" in data else "train"}
    sections["evaluate"] = evaluated | dict(sections.get("evaluate", {}))
    sections.setdefault("name", type(model).__name__)
    recipe = Recipe(data=Arrays.of(data), model=settings_of(model), task=asked, **sections)
    return run(recipe, out, progress=progress)
