"""danlu tune: compares settings by paired short runs in the run folder of a recipe. The pipeline's hand for it.

    found = danlu.tune("recipe.toml", ["model.activation=gelu,silu"], budget="5 min")
    found["verdict"]

Each arm has a folder tune/arms/<hash> with its plan by the laws alone, and with data of its own where it changes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from danlu.base.contracts import Progress
from danlu.base.errors import UserError
from danlu.base.runfolder import RunFolder, fingerprint, read_json, write_text
from danlu.pipeline import Run, entered, quiet, run_stage
from danlu.planning.choices import Choices
from danlu.planning.prediction import STEP_S
from danlu.planning.trials import Lab
from danlu.recipe import Recipe
from danlu.sections import Plan


def tune(
    recipe: Recipe | Path | str,
    tries: Sequence[str],
    out: Path | str | None = None,
    *,
    sets: Sequence[str] = (),
    allow_code: Iterable[str] = (),
    progress: Progress = quiet,
    write: Path | None = None,
    **asked: str,
) -> dict[str, Any]:
    """Which of these? `tries` are KEY=VALUE,VALUE; `asked`: length, metric, budget (stages/tune.Request). The content of
    tune/result.json; with `write`, the recipe with the winner goes there."""
    if write is not None and write.exists():
        raise UserError(str(write), "is there already, and is not overwritten", fix="choose another name for --write")
    from danlu.stages import train
    from danlu.stages import tune as stage_tune
    from danlu.training.trial import varied

    request = stage_tune.Request(tuple(tries), **asked)
    with entered(recipe, out, sets, allow_code) as made:
        stage_tune.arms_of(made.recipe, None, request.parsed)
        for stage in ("prepare", "plan"):
            run_stage(stage, made, progress)

        def tell(what: str, done: float, total: float) -> None:
            progress(f"tune: {what}", done, total)

        run_in = partial(train.run_trial, made.recipe)
        result = stage_tune.tune(made.recipe, made.folder, request, partial(ready, made, progress), run_in, tell)
        run_stage("report", made, progress)
        result["folder"] = str(made.path)
        if write is not None:
            winner = next(arm for arm in result["arms"] if arm["name"] == result["winner"])
            write_text(write, varied(made.recipe, winner["settings"]).sparse_toml())
    return result


def ready(made: Run, progress: Progress, settings: Mapping[str, Any]) -> tuple[RunFolder, Choices]:
    """An arm's folder and its choices: what the laws say of its recipe, with the times of the plan in hand."""
    from danlu.stages import plan, train
    from danlu.training.trial import varied

    recipe = varied(made.recipe, settings)
    base = read_json(made.folder.plan)
    key = fingerprint([recipe.model_dump(mode="json"), made.card.fingerprint, base["fingerprint"]])
    folder = RunFolder(made.path / "tune" / "arms" / key)
    folder.path.mkdir(parents=True, exist_ok=True)
    if recipe.data == made.recipe.data:
        if not folder.data.exists():
            folder.data.symlink_to(Path("..", "..", "..", "data"), target_is_directory=True)
    else:
        prepared(made, Run(folder, recipe), progress)
    if not folder.plan.exists():
        step_s: float = next(p["value"] for p in base["predictions"] if p["name"] == STEP_S)

        def timed(choices: Choices, n_steps: int, at_least_s: float = 0.0) -> list[float]:
            return [step_s] * max(1, n_steps)

        by_laws = recipe.model_copy(update={"plan": Plan(**recipe.plan.model_dump(mode="json") | {"budget": "prior"})})
        plan.plan(by_laws, folder, quiet, Lab(timed, partial(train.run_trial, recipe, folder)))
    return folder, Choices.read(folder)


def prepared(made: Run, arm: Run, progress: Progress) -> None:
    """The arm's own data, judged on the validation split of the recipe's."""
    with arm.folder.lock():
        run_stage("prepare", arm, progress)
