"""danlu noise: which differences between two runs are nothing? Measured in the run folder of a recipe. The pipeline's hand for it.

found = danlu.noise("recipe.toml", seeds=5, length="10%")
found["verdict"]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from danlu.base.contracts import Progress
from danlu.pipeline import entered, loaded, quiet, run_stage
from danlu.recipe import Recipe


def noise(
    recipe: Recipe | Path | str,
    out: Path | str | None = None,
    *,
    sets: Sequence[str] = (),
    allow_code: Iterable[str] = (),
    progress: Progress = quiet,
    **asked: Any,
) -> dict[str, Any]:
    """`asked`: seeds and length (stages/noise.Request). The content of noise/result.json; recipe and run stay as they are."""
    from danlu.stages import noise as stage_noise
    from danlu.stages import train

    request = stage_noise.Request(**asked)
    asked_of, _ = loaded(recipe, sets, allow_code)
    request.of(asked_of)
    stage_noise.check_validation(asked_of)
    with entered(recipe, out, sets, allow_code) as made:
        run_stage("prepare", made, progress)
        stage_noise.check_validation(made.recipe, made.folder)
        run_stage("plan", made, progress)

        def tell(what: str, done: float, total: float) -> None:
            progress(f"noise: {what}", done, total)

        run_trial = partial(train.run_trial, made.recipe, made.folder)
        found = stage_noise.measure_noise(made.recipe, made.folder, request, run_trial, tell)
        run_stage("report", made, progress)
        return found | {"folder": str(made.path)}
