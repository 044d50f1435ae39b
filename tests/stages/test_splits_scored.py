"""What cannot be scored is refused before it is trained; what has no value on the scored split is left out."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import danlu
from danlu import cli
from danlu.base.errors import UserError
from danlu.recipe import Recipe
from danlu.tasks.regress import NumberScorer


def numbers(path: Path, n: int, target: float | str | None = None) -> str:
    rng = random.Random(n)
    rows = [
        (a, b, a + 2 * b if target is None else target) for a, b in ((rng.random(), rng.random()) for _ in range(n))
    ]
    path.write_text("a,b,y\n" + "".join(f"{a:.4f},{b:.4f},{y}\n" for a, b, y in rows))
    return str(path)


def table(path: str, task: str = "regress", **sections: Any) -> Recipe:
    data = {"kind": "table", "path": path, "target": "y", **sections.pop("data", {})}
    if task == "regress":
        data["target_kind"] = "number"
    given = {"model": {"kind": "mlp", "layers": [4]}, "train": {"length": "5 steps", "batch": 4, "threads": 1}}
    return Recipe(name="t", data=data, task={"kind": task}, plan={"budget": "prior"}, **given, **sections)


def text(folder: Path, **sections: Any) -> Recipe:
    (folder / "t.txt").write_text("some text to learn from, and to be scored on\n" * 40)
    split = {"kind": "order", **sections.pop("split", {})}
    data = {"path": str(folder / "t.txt"), "tokenizer": {"kind": "bytes"}, "split": split}
    return Recipe(name="t", data=data, model={"n_layers": 1, "width": 16, "n_heads": 2, "context": 8}, **sections)


def refused(recipe: Recipe, out: Path, wanted: str) -> None:
    with pytest.raises(UserError, match=wanted) as said:
        danlu.run(recipe, out)
    assert "\n" not in str(said.value)
    assert not (out / "train").exists()
    assert not (out / "plan.json").exists()


def test_a_table_without_the_split_to_score_is_refused_before_training(tmp_path: Path) -> None:
    path = numbers(tmp_path / "t.csv", 40)
    three = table(numbers(tmp_path / "three.csv", 3))
    refused(
        three, tmp_path / "a", r'data\.split\.validation must leave a validation split.* Got 0\.1\. Fix: .*on = "train"'
    )
    none = table(path, data={"split": {"kind": "random", "validation": 0.0}})
    refused(none, tmp_path / "b", r'data\.split\.validation .*Got 0\.0\. Fix: .*evaluate\.on = "train" or "test"')
    asked = table(path, data={"split": {"kind": "random", "test": 0.0}}, evaluate={"on": "test"})
    refused(
        asked,
        tmp_path / "c",
        r'evaluate\.on must be a split of the data \(train, validation\)\. Got "test".*data\.split\.test',
    )
    given = {"kind": "given", "validation_share": 0.0}
    refused(table(path, data={"split": given}), tmp_path / "d", r"data\.split\.validation must leave")
    on_train = table(path, data={"split": none.data.split.model_dump()}, evaluate={"on": "train", "bootstrap": 100})  # type: ignore[attr-defined]
    assert danlu.run(on_train, tmp_path / "e").scores.split == "train"


def test_text_without_the_split_to_score_is_refused_before_it_is_read(tmp_path: Path) -> None:
    refused(
        text(tmp_path, split={"validation": 0.0}),
        tmp_path / "a",
        r"data\.split\.validation must leave a validation split",
    )
    refused(text(tmp_path, evaluate={"on": "test"}), tmp_path / "b", r"evaluate\.on must be .*\(train, validation\)")
    assert not (tmp_path / "a" / "data").exists()
    with pytest.raises(UserError, match=r"data\.split\.validation must leave"):
        danlu.check(text(tmp_path, split={"validation": 0.0}))
    assert danlu.prepare(text(tmp_path, split={"validation": 0.0}), tmp_path / "c").card.splits.keys() == {"train"}


def test_a_plan_is_made_again_where_another_split_is_to_be_scored(tmp_path: Path) -> None:
    path = numbers(tmp_path / "t.csv", 40)
    split = {"split": {"kind": "random", "validation": 0.0}}
    danlu.plan(table(path, data=split, evaluate={"on": "train"}), tmp_path / "run")
    with pytest.raises(UserError, match="must leave a validation split"):
        danlu.run(table(path, data=split), tmp_path / "run")
    assert not (tmp_path / "run" / "train").exists()


def test_a_constant_target_is_refused_when_it_is_prepared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "r.toml"
    file.write_text(table(numbers(tmp_path / "t.csv", 60, 5.0)).sparse_toml())
    with pytest.raises(SystemExit) as stopped:
        cli.main(["prepare", str(file), "--out", str(tmp_path / "run")])
    assert stopped.value.code == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "data.target must hold different numbers, or there is nothing to learn: all 48 training samples" in said
    assert 'Got "y = 5".' in said
    with pytest.raises(UserError, match="classify needs at least two classes"):
        danlu.prepare(table(numbers(tmp_path / "c.csv", 60, "yes"), "classify"), tmp_path / "classes")


def test_one_constant_target_among_others_is_not_refused(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("a,y,z\n" + "".join(f"{i % 7},5,{i % 7 + i % 3}\n" for i in range(60)))
    assert (
        danlu.prepare(table(str(file), data={"target": ("y", "z")}), tmp_path / "run").card.splits["train"].n_samples
        == 48
    )


def test_r2_has_no_value_where_the_truth_is_constant() -> None:
    truths = np.full((29, 1), 5.000000123)
    found = NumberScorer(truths[..., None] + 0.1, truths).values()
    assert np.isnan(found["r2"])
    assert found["rmse"] == pytest.approx(0.1)
    both = np.hstack([truths, np.arange(29.0)[:, None]])
    assert NumberScorer(both[..., None] + [[0.1], [0.0]], both).values()["r2"] == 1.0


@pytest.mark.parametrize("on", ["validation", "train"])
def test_a_score_without_a_value_is_left_out_and_said(tmp_path: Path, on: str) -> None:
    split = {"kind": "given", "validation": numbers(tmp_path / "v.csv", 29, 5.0)}
    recipe = table(numbers(tmp_path / "t.csv", 60), data={"split": split}, evaluate={"on": on, "bootstrap": 100})
    made = danlu.run(recipe, tmp_path / "run")
    scores = json.loads((tmp_path / "run" / "evaluate" / "scores.json").read_text())
    assert ("r2" in scores["metrics"]) == (on == "train")
    assert "r2_on_validation" not in scores["metrics"]
    assert (scores["headline"], scores["higher_is_better"]) == (("r2", True) if on == "train" else ("rmse", False))
    said = "Not defined on the validation split, and left out: r2; rmse is the headline instead."
    assert (said in made.scores.notes) == (on == "validation")
    looks = [
        json.loads(line).get("validation") for line in (tmp_path / "run/train/metrics.jsonl").read_text().splitlines()
    ]
    assert all("r2" not in look for look in looks if look)
    assert "rmse" in (tmp_path / "run" / "report.html").read_text()


def test_an_area_that_one_class_alone_does_not_have_is_left_out(tmp_path: Path) -> None:
    rows = "".join(f"{i % 9},{'yes' if i % 9 > 4 else 'no'}\n" for i in range(90))
    (tmp_path / "t.csv").write_text("a,y\n" + rows)
    (tmp_path / "v.csv").write_text("a,y\n" + "7,yes\n" * 20)
    split = {"kind": "given", "validation": str(tmp_path / "v.csv")}
    made = danlu.run(
        table(str(tmp_path / "t.csv"), "classify", data={"split": split}, evaluate={"bootstrap": 100}), tmp_path / "run"
    )
    assert made.scores.headline == "accuracy"
    assert "auc" not in made.scores.metrics
    assert "Not defined on the validation split, and left out: auc." in made.scores.notes
