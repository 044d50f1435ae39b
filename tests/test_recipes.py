"""Every shipped recipe loads; where the data sets are at hand, it also runs from its files to its report, in few steps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import danlu
from danlu.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1] / "recipes"
SHIPPED = sorted(p.relative_to(ROOT).with_suffix("").as_posix() for p in ROOT.rglob("*.toml"))
RUN = [name for name in SHIPPED if not name.startswith("full-size/") and name not in ("demo", "your-text")]
SHORT = (
    'train.length="3 steps"',
    "evaluate.bootstrap=100",
    'evaluate.every="never"',
    "train.threads=1",
    'plan.budget="1 s"',
)
FIRST = {"sst2-bert": "sst2-masked"}
"""Recipes that go on from another's weights."""
MORE = {"shakespeare": ('train.length="24 steps"',)}
"""What a recipe needs beyond: warm-up must fit into the run."""


@pytest.mark.parametrize("name", SHIPPED)
def test_it_loads_and_says_what_it_is(name: str) -> None:
    path = ROOT / f"{name}.toml"
    assert path.read_text(encoding="utf-8").startswith("# "), "a recipe begins by saying what it is"
    Recipe.load(path)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif("DANLU_DATA" not in os.environ, reason="needs DANLU_DATA")
@pytest.mark.parametrize("name", RUN)
def test_it_runs_on_its_data(name: str, tmp_path: Path) -> None:
    sets = [*SHORT, *MORE.get(name, ())]
    if name in FIRST:
        danlu.run(Recipe.load(ROOT / f"{FIRST[name]}.toml", SHORT), tmp_path / "first")
        sets.append(f'train.start_from="{tmp_path}/first"')
    recipe = Recipe.load(ROOT / f"{name}.toml", sets)
    run = danlu.run(recipe, tmp_path / "run")
    card = run.card
    assert card.rows_in == card.rows_used + sum(card.rows_rejected.values())
    assert run.scores.baselines
    assert "cannot draw" not in run.report.read_text(encoding="utf-8")
