"""The pipeline: stages in order, skipped when nothing changed, one owner, and what a trained folder refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from danlu import pipeline
from danlu.base.errors import GateError, UserError
from danlu.base.runfolder import RunFolder, write_json
from danlu.recipe import Recipe


class FakeStages:
    """Stages that write what the pipeline looks at, and remember being called."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.diverges = False

    def __call__(self, stage: str) -> Callable[..., None]:
        def verb(recipe: Recipe, run: RunFolder, progress: Any) -> None:
            self.calls.append(stage)
            progress("working", 1, 2)
            getattr(self, stage)(run)

        return verb

    def prepare(self, run: RunFolder) -> None:
        run.data.mkdir(exist_ok=True)
        write_json(run.data / "card.json", {"fingerprint": "f"})

    def plan(self, run: RunFolder) -> None:
        write_json(run.plan, {"decisions": [{"name": "train.batch", "value": 7, "origin": "prior: x"}]})

    def train(self, run: RunFolder) -> None:
        if self.diverges:
            raise GateError("diverged")
        (run.checkpoints / "step-00000002").mkdir(parents=True, exist_ok=True)

    def evaluate(self, run: RunFolder) -> None:
        run.evaluate.mkdir(exist_ok=True)
        write_json(run.evaluate / "scores.json", {})

    def report(self, run: RunFolder) -> None:
        run.report.write_text("page")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeStages:
    stages = FakeStages()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline, "stage_function", stages)
    Path("text.txt").write_text("some text " * 100)
    return stages


def recipe(**sections: Any) -> Recipe:
    return Recipe(name="t", data={"path": "text.txt"}, **sections)


def test_stages_run_in_order_and_once(fake: FakeStages) -> None:
    seen: list[str] = []
    made = pipeline.run(recipe(), progress=lambda what, done, total: seen.append(what))
    assert fake.calls == list(pipeline.STAGES)
    assert made.path == Path("runs") / f"t-{recipe().digest()[:8]}"
    assert "batch = 7  # prior: plan.json#train.batch (x)" in made.folder.full_recipe.read_text()
    assert "train: working" in seen
    fake.calls.clear()
    pipeline.run(made.path)
    assert fake.calls == ["report"]


def test_a_lost_output_is_made_again(fake: FakeStages) -> None:
    made = pipeline.run(recipe())
    fake.calls.clear()
    (made.folder.evaluate / "scores.json").unlink()
    pipeline.run(recipe())
    assert fake.calls == ["evaluate", "report"]


def test_lost_checkpoints_are_trained_again(fake: FakeStages) -> None:
    made = pipeline.run(recipe(), "out")
    (made.folder.checkpoints / "step-00000002").rmdir()
    fake.calls.clear()
    pipeline.run(recipe(), "out")
    assert "train" in fake.calls


def test_only_the_scoring_may_change_after_training(fake: FakeStages) -> None:
    pipeline.run(recipe(), "out")
    fake.calls.clear()
    pipeline.run(recipe(evaluate={"samples": 1}), "out")
    assert fake.calls == ["evaluate", "report"]
    with pytest.raises(UserError, match=r"out holds a training with another train\.batch"):
        pipeline.run(recipe(train={"batch": 3}), "out")


def test_before_training_everything_may_change(fake: FakeStages) -> None:
    pipeline.run(recipe(), "out", until="plan")
    pipeline.run(recipe(train={"batch": 3}), "out", until="plan")
    assert fake.calls == ["prepare", "plan", "plan"]
    assert "batch = 3" in Path("out/recipe.toml").read_text()


def test_changed_data_is_prepared_again_until_training_begins(fake: FakeStages) -> None:
    pipeline.run(recipe(), "out", until="plan")
    Path("text.txt").write_text("other text " * 200)
    pipeline.run(recipe(), "out")
    assert fake.calls == ["prepare", "plan", "prepare", "train", "evaluate", "report"]
    fake.calls.clear()
    Path("text.txt").write_text("again other " * 300)
    pipeline.run(recipe(), "out")
    assert fake.calls == ["report"]


def test_a_failed_gate_still_has_its_page(fake: FakeStages) -> None:
    fake.diverges = True
    with pytest.raises(GateError, match="diverged"):
        pipeline.run(recipe(), "out")
    assert fake.calls == ["prepare", "plan", "train", "report"]


def test_one_owner(fake: FakeStages) -> None:
    made = pipeline.run(recipe(), "out", until="prepare")
    with made.folder.lock(), pytest.raises(UserError, match="in use by"):
        pipeline.run(recipe(), "out")


def test_one_stage(fake: FakeStages) -> None:
    with pytest.raises(UserError, match=r"has no checkpoint to evaluate. Fix: run danlu train"):
        pipeline.run_one("evaluate", recipe(), "out")
    pipeline.run_one("train", recipe(), "out")
    assert fake.calls == ["prepare", "plan", "train"]
    with pytest.raises(UserError, match="a run's settings are fixed"):
        pipeline.run("out", sets=["seed=3"])
    with pytest.raises(UserError, match="leave it out"):
        pipeline.run("out", "elsewhere")
    (Path("mine")).mkdir()
    Path("mine/recipe.toml").write_text("x")
    with pytest.raises(UserError, match="other files in it"):
        pipeline.run(recipe(), "mine")
    with pytest.raises(UserError, match="not a run folder"):
        pipeline.run("mine")
