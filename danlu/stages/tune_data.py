"""Arms that prepare their own data (cleaning, augmentation, mixture) are judged on one validation split: the recipe's."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np

from danlu.base.contracts import DataCard
from danlu.base.errors import UserError
from danlu.base.runfolder import RunFolder, read_json, write_json
from danlu.build import is_samples
from danlu.data.shards import shard_files
from danlu.data.split import GivenSplit
from danlu.recipe import Recipe

N_LOOKED = 2048
"""Validation samples whose targets are compared; their names all are."""


def judge_alike(recipe: Recipe, run: RunFolder, own: Recipe, arm: RunFolder, name: str, metric: str) -> None:
    """See that an arm is judged on the recipe's validation split, or refuse it."""
    if arm.data.resolve() == run.data.resolve():
        return
    if is_samples(recipe):
        samples_alike(recipe, run, own, arm, name, metric)
    else:
        text_alike(recipe, run, arm, name)


def samples_alike(recipe: Recipe, run: RunFolder, own: Recipe, arm: RunFolder, name: str, metric: str) -> None:
    """The same samples by name; for the loss, the same targets too (a scale fitted on other rows changes its units)."""
    both: list[Any] = []
    for settings, folder in ((recipe, run), (own, arm)):
        data: Any = settings.data
        both.append(data.open(folder.data, DataCard(**read_json(folder.data / "card.json")), "validation"))
    names = [[split.name(row) for row in range(len(split))] for split in both]
    if names[0] != names[1]:
        raise UserError(
            f"arm {name}", "must leave the same validation samples as the recipe to be compared with it",
            got=f"{len(names[1])} samples, {len(set(names[0]) & set(names[1]))} of them the recipe's {len(names[0])}",
            fix='set data.split.kind = "given" or "named", so that what is dropped in training moves no sample',
        )  # fmt: skip
    rows = np.arange(min(N_LOOKED, len(names[0])))
    targets = [np.asarray(split.batch(rows).tensors.get("targets", rows)) for split in both]
    if metric == "loss" and not np.array_equal(targets[0], targets[1], equal_nan=targets[0].dtype.kind == "f"):
        wanted = (
            f"must name a metric in the data's own units, because arm {name} scales the targets of the loss otherwise"
        )
        raise UserError("--metric", wanted, got="loss", fix=f"write --metric {recipe.task.headline}")  # type: ignore[attr-defined]


def text_alike(recipe: Recipe, run: RunFolder, arm: RunFolder, name: str) -> None:
    """The same tokens; with files of its own for validation, the recipe's tokens take the place of the arm's, whose steps
    may have changed them."""
    files = [*shard_files(run.data, "validation"), run.data / "token_bytes.bin"]
    changed = [f for f in files if f.read_bytes() != (arm.data / f.name).read_bytes()]
    if not changed:
        return
    if files[-1] in changed:
        fix = 'set data.tokenizer.kind = "bytes", or "loaded" for one that is there'
        raise UserError(
            f"arm {name}", "must have the recipe's tokens to be compared with it", got="other ones", fix=fix
        )
    if not isinstance(recipe.data.split, GivenSplit):  # type: ignore[attr-defined]
        raise UserError(
            f"arm {name}", "must leave the recipe's validation text, or some of it could move to training",
            got="another one", fix='set data.split.kind = "given", with files of their own for validation',
        )  # fmt: skip
    for file in changed:
        shutil.copyfile(file, arm.data / file.name)
    card = read_json(arm.data / "card.json")
    card["splits"]["validation"] = read_json(run.data / "card.json")["splits"]["validation"]
    write_json(arm.data / "card.json", card)
