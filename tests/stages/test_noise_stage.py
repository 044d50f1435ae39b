"""danlu noise, whole: short runs that differ in their seed, kept, shown, noted with the scores; what is refused."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import danlu
from danlu import cli
from danlu.base.errors import UserError
from danlu.base.runfolder import read_json, write_json
from danlu.planning.choices import Choices
from danlu.planning.noise_told import seed_note
from danlu.planning.trials import Trial
from danlu.recipe import Recipe
from danlu.stages import train
from danlu.stages.noise import Request, measure_noise
from danlu.stages.report_noise import NoiseRecord, how_much_is_chance, strip


def measured(recipe: Any, run: Any, **asked: Any) -> dict[str, Any]:
    """As the pipeline does."""
    return measure_noise(recipe, run, Request(**asked), partial(train.run_trial, recipe, run), lambda *_: None)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds that were trained; a negative one in front stops the run after so many."""
    real, asked = train.run_trial, []

    def run_trial(recipe: Any, run: Any, trial: Any) -> Any:
        asked.append(trial.seed)
        if asked[0] < 0 and len(asked) > 1 - asked[0]:
            raise KeyboardInterrupt
        return real(recipe, run, trial)

    monkeypatch.setattr(train, "run_trial", run_trial)
    return asked


def test_runs_differ_in_their_seed_only_and_cool_down(tiny_run: Any) -> None:
    recipe, run = tiny_run(choices={"n_steps": 300}, train={"length": "300 steps"})
    recipe = recipe.model_copy(update={"seed": 7})
    plan = run.plan.read_text()
    found = measured(recipe, run, seeds=3)
    assert json.loads(json.dumps(found)) == read_json(run.path / "noise" / "result.json")
    assert run.plan.read_text() == plan
    assert (found["n_steps"], found["planned_steps"]) == (30, 300)
    assert [row["seed"] for row in found["losses"]] == [7, 8, 9]
    assert len({row["loss"] for row in found["losses"]}) == 3
    by_hand = train.run_trial(recipe, run, Trial(Choices.read(run).model_copy(update={"n_steps": 30}), seed=8))
    assert found["losses"][1]["loss"] == by_hand.loss
    assert 0 < found["seed"]["low"] < found["seed"]["sd"] < found["seed"]["high"]
    assert 0 < found["paired"] < found["evaluation"]
    assert found["request"] == {"seeds": 3, "length": "10%"}


def test_finished_runs_are_not_trained_again(tiny_run: Any, counted: list[int]) -> None:
    recipe, run = tiny_run()
    counted.append(-2)
    with pytest.raises(KeyboardInterrupt):
        measured(recipe, run, seeds=4, length="5 steps")
    assert counted == [-2, 0, 1, 2]
    assert not (run.path / "noise" / "result.json").exists()
    log = run.path / "noise" / "trials.jsonl"
    log.write_bytes(log.read_bytes() + b'{"key": "torn')
    counted.clear()
    found = measured(recipe, run, seeds=4, length="5 steps")
    assert counted == [2, 3]
    assert measured(recipe, run, seeds=4, length="5 steps") == found
    assert counted == [2, 3]
    more = measured(recipe, run, seeds=5, length="5 steps")
    assert counted == [2, 3, 4]
    assert more["losses"][:4] == found["losses"]
    measured(recipe, run, seeds=2, length="6 steps")  # another question
    assert counted == [2, 3, 4, 0, 1]


def test_runs_that_diverge_are_told_and_drawn(tiny_run: Any) -> None:
    recipe, run = tiny_run(choices={"optimizer": {"lr": 1e30, "weight_decay": 0.0}})
    found = measured(recipe, run, seeds=2, length="8 steps")
    assert "2 of 2 runs diverged (seed 0, 1)" in found["verdict"]
    assert found["losses"][0]["diverged"]
    shown = str(how_much_is_chance(NoiseRecord(**found)))
    assert shown.count('class="cross"') == 2
    assert "unknown" in shown
    assert seed_note(recipe, run) == ["With other seeds 2 of 2 runs of 8 steps, danlu noise, diverged."]


def test_the_page_has_the_numbers_and_a_point_a_seed() -> None:
    losses = [{"seed": 4 + i, "loss": loss} for i, loss in enumerate((1.0, 1.2, 1.1))]
    found = NoiseRecord(
        verdict="<said>", notes=("noted",), n_steps=50, losses=losses, seed={"sd": 0.0909, "low": 0.047, "high": 0.57},
        evaluation=0.02, resolves=[{"n": 2, "same": 0.25, "other": None}], cost={"runs": 3, "seconds": 2.0},
    )  # fmt: skip
    shown = str(how_much_is_chance(found))
    for words in (
        "&lt;said&gt;",
        "noted",
        "3 runs of 50 steps in 2 s",
        "9.1%",
        "4.7% to 57%",
        "2.0%",
        "25%",
        "unknown",
    ):
        assert words in shown
    assert shown.count('class="point"') == 3
    assert shown.count('class="fit-band"') == 1
    assert strip(NoiseRecord(verdict="none")) is None


def test_the_note_is_of_this_recipe_alone(tiny_run: Any) -> None:
    recipe, run = tiny_run()
    assert seed_note(recipe, run) == []
    found = measured(recipe, run, seeds=2, length="8 steps")
    (said,) = seed_note(recipe, run)
    assert said.startswith("Another seed would change the loss by about 0.")
    assert said.endswith("% (sd over 2 runs of 8 steps, danlu noise; longer runs vary as much or less).")
    path = run.path / "noise" / "result.json"
    write_json(path, found | {"n_steps": 12})
    assert seed_note(recipe, run)[0].endswith("(sd over 2 runs of 12 steps, danlu noise).")
    scored = recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"bootstrap": 100})})
    assert seed_note(scored, run) != []
    assert seed_note(recipe.model_copy(update={"seed": 1}), run) == []
    path.write_text("{")
    assert "cannot be read as JSON" in seed_note(recipe, run)[0]


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"seeds": 1}, "--seeds must be at least 2"),
        ({"seeds": -4}, "--seeds must be at least 2"),
        ({"seeds": 2**63 + 1}, r"--seeds must end below 2\^63"),
        ({"length": "0%"}, "--length must be a share above 0"),
        ({"length": "3 epochs"}, "--length must be a share above 0"),
        ({"length": "9" * 400 + "%"}, "--length must be a share above 0"),
    ],
)
def test_refusals_come_before_any_cost(tmp_path: Path, asked: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as refused:
        danlu.noise(Recipe(name="n", data={"path": str(tmp_path / "none.txt")}), tmp_path / "run", **asked)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_time_needs_the_time_of_a_step(tiny_run: Any) -> None:
    recipe, run = tiny_run()
    with pytest.raises(UserError, match="--length cannot be a time where the plan has no time of a step"):
        measured(recipe, run, length="2 s")


def test_text_without_a_validation_split_is_refused_before_it_is_read(tmp_path: Path) -> None:
    text = {"path": str(tmp_path / "none.txt"), "split": {"kind": "order", "validation": 0.0, "test": 0.2}}
    with pytest.raises(UserError, match=r"data\.split must leave a validation split to measure a loss on"):
        danlu.noise(Recipe(name="n", data=text, evaluate={"on": "test"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], counted: list[int]) -> None:
    table = tmp_path / "t.csv"
    table.write_text("a,b,y\n" + "".join(f"{i % 7},{i % 5},{'yes' if i % 7 > 3 else 'no'}\n" for i in range(600)))
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        f'name = "t"\n[data]\nkind = "table"\npath = "{table}"\ntarget = "y"\n[model]\nkind = "mlp"\nlayers = [8]\n'
        '[task]\nkind = "classify"\n[train]\nlength = "8 epochs"\nbatch = 32\nthreads = 1\n[plan]\nbudget = "prior"\n'
        "[evaluate]\nbootstrap = 100\n"
    )
    out = ["--out", str(tmp_path / "run")]

    def command(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(list(words))
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    code, said, _ = command("run", str(recipe), *out)
    assert code == 0
    assert "Another seed" not in said
    code, said, progress = command("noise", str(recipe), *out, "--seeds", "3")
    assert code == 0
    assert counted[-3:] == [0, 1, 2]
    assert "noise: 3 runs of 20 steps, about " in progress
    for words in (
        "another seed",
        "another validation split",
        "(seed 2)",
        "runs an arm",
        "may differ by chance alone",
        "report.html",
    ):
        assert words in said
    page = (tmp_path / "run" / "report.html").read_text()
    assert "How much is chance?" in page
    assert "may differ by chance alone" in page
    code, said, _ = command("evaluate", str(tmp_path / "run"))  # the scores are made again: they have something to add
    assert code == 0
    assert "Note: Another seed would change the loss by about " in said
    code, _, progress = command("evaluate", str(tmp_path / "run"))
    assert "unchanged, kept as it is" in progress
    code, _, said = command("noise", str(recipe), "--seeds", "1")
    assert code == 2
    assert said.count("\n") == 1
    gone = ["--set", 'data.split={kind="random",validation=0.0,test=0.2}', "--set", 'evaluate.on="test"']
    n = len(counted)
    code, _, said = command("noise", str(recipe), "--out", str(tmp_path / "other"), *gone)
    assert code == 2
    assert said.splitlines()[-1] == (
        f"{recipe}: data.split must leave a validation split to measure a loss on. Fix: set data.split.validation."
    )
    assert not (tmp_path / "other" / "plan.json").exists()
    assert len(counted) == n
