"""danlu batch: how large may an update be? Measured in the run folder of a recipe. The pipeline's hand for it.

found = danlu.batch("recipe.toml", at="10%", length="2%")
found["verdict"]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from danlu.base.contracts import Progress
from danlu.pipeline import entered, quiet, run_stage
from danlu.recipe import Recipe


def batch(
    recipe: Recipe | Path | str,
    out: Path | str | None = None,
    *,
    sets: Sequence[str] = (),
    allow_code: Iterable[str] = (),
    progress: Progress = quiet,
    **asked: str,
) -> dict[str, Any]:
    """`asked`: at and length (stages/batch.Request). The content of batch/result.json; recipe and run stay as they are."""
    from danlu.stages import batch as stage_batch
    from danlu.stages import train

    request = stage_batch.Request(**asked)
    with entered(recipe, out, sets, allow_code) as made:
        for stage in ("prepare", "plan"):
            run_stage(stage, made, progress)

        def tell(what: str, done: float, total: float) -> None:
            progress(f"batch: {what}", done, total)

        found = stage_batch.measure_batch(
            made.recipe, made.folder, request, partial(train.grow, made.recipe, made.folder), tell
        )
        run_stage("report", made, progress)
        return found | {"folder": str(made.path)}
