"""danlu tune, whole: arms of a recipe on a small table, refused, resumed, written."""

import json
import math
import random
from pathlib import Path

import pytest

import danlu
from danlu import cli
from danlu.base.errors import UserError
from danlu.base.runfolder import read_json
from danlu.console import show_tune
from danlu.recipe import Recipe
from danlu.stages import train
from danlu.stages.report_arms import TuneRecord, which_of_these
from danlu.stages.tune import parse_budget, parse_try


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("table") / "t.csv"
    rng = random.Random(1)
    rows = []
    for _ in range(1200):
        a, b = rng.gauss(0, 1), rng.gauss(0, 1)
        rows.append(f"{a:.4f},{b:.4f},{'yes' if math.sin(3 * a) + 0.3 * b > 0 else 'no'}")
    path.write_text("a,b,y\n" + "\n".join(rows) + "\n")
    return path


def recipe(table, **changes) -> Recipe:
    sections = {
        "data": {"kind": "table", "path": str(table), "target": "y", "split": {"kind": "random", "validation": 0.5}},
        "model": {"kind": "mlp", "layers": [16, 16], "activation": "gelu"}, "task": {"kind": "classify"},
        "optimizer": {"kind": "adamw"}, "train": {"length": "200 steps", "batch": 32, "threads": 1},
        "plan": {"budget": "1 s"},
    }  # fmt: skip
    return Recipe(name="arms", **{k: {**sections.get(k, {}), **changes.get(k, {})} for k in {**sections, **changes}})


def test_a_crippled_arm_loses_and_everything_is_written(table, tmp_path):
    found = danlu.tune(
        recipe(table), ["model.activation=gelu,identity"], tmp_path / "run", budget="70 runs", length="60 steps",
        write=tmp_path / "won.toml",
    )  # fmt: skip
    assert found["winner"] == "activation gelu"
    assert found["comparisons"][0]["found"] == "worse"
    assert found["verdict"] == "activation gelu wins: it is the default, and every other arm is measurably worse."
    written = read_json(tmp_path / "run" / "tune" / "result.json")
    assert {k: v for k, v in found.items() if k != "folder"} == written
    lines = [json.loads(line) for line in (tmp_path / "run" / "tune" / "trials.jsonl").read_text().splitlines()]
    assert len(lines) == found["cost"]["runs"]
    assert {line["n_steps"] for line in lines} == {60}
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Which of these?" in page
    assert page.count('class="point"') == len(found["comparisons"][0]["differences"])
    assert Recipe.load(tmp_path / "won.toml").model_dump() == recipe(table).model_dump()
    with pytest.raises(UserError, match="is there already, and is not overwritten"):
        danlu.tune(recipe(table), [], write=tmp_path / "won.toml")


def test_a_killed_tune_goes_on_where_it_was(table, tmp_path, monkeypatch):
    real, asked = train.run_trial, []

    def counted(recipe, run, trial):
        asked.append((dict(trial.settings), trial.seed))
        if len(asked) == stop:
            raise KeyboardInterrupt
        return real(recipe, run, trial)

    monkeypatch.setattr(train, "run_trial", counted)
    given = (recipe(table), ["model.activation=gelu,tanh"], tmp_path / "run")
    stop = 9
    with pytest.raises(KeyboardInterrupt):
        danlu.tune(*given, budget="16 runs", length="10 steps")
    log = tmp_path / "run" / "tune" / "trials.jsonl"
    log.write_bytes(log.read_bytes() + b'{"key": "torn')
    stop = 0
    found = danlu.tune(*given, budget="16 runs", length="10 steps")
    assert len(asked) == found["cost"]["runs"] + 1
    again = danlu.tune(*given, budget="16 runs", length="10 steps")
    assert len(asked) == found["cost"]["runs"] + 1
    assert again == found


def test_losses_are_compared_by_a_metric_that_both_report(table, tmp_path):
    given = (recipe(table), ["task.loss=cross_entropy,focal"], tmp_path / "run")
    with pytest.raises(
        UserError, match=r"--metric must name a metric when arms differ in task.loss.*--metric accuracy"
    ):
        danlu.tune(*given)
    found = danlu.tune(*given, metric="log_loss", budget="14 runs", length="20 steps")
    assert not found["higher_is_better"]
    assert found["arms"][0]["name"] == "loss cross_entropy"
    assert any("validation split" in note for note in found["notes"])
    with pytest.raises(UserError, match=r"--metric must be one that short runs report \(.*accuracy.*\)"):
        danlu.tune(*given, metric="bleu", budget="14 runs", length="20 steps")


def test_an_optimizer_arm_has_its_own_laws_and_a_given_rate_is_kept(table, tmp_path):
    found = danlu.tune(recipe(table), ["optimizer.kind=adamw,sgd"], tmp_path / "a", budget="13 runs", length="10 steps")
    first = [arm["bracket"][1][0] for arm in found["arms"]]
    assert first[1] > 5 * first[0]
    given = recipe(table, optimizer={"lr": 0.003})
    found = danlu.tune(given, ["model.dropout=0,0.5"], tmp_path / "b", budget="6 runs", length="10 steps")
    assert [arm["bracket"] for arm in found["arms"]] == [[], []]
    assert "is given, so all arms train at it" in found["notes"][0]


@pytest.mark.parametrize("key", ["model.activation=tanh", 'optimizer={kind="sgd"}', "optimizer.lr=0.02"])
def test_a_single_value_is_held_against_the_recipes_own(table, tmp_path, key):
    found = danlu.tune(recipe(table), [key], tmp_path / "run", budget="12 runs", length="4 steps")
    assert len(found["arms"]) == 2
    assert len(found["comparisons"]) == 1
    assert found["default"] == found["arms"][0]["name"] != found["comparisons"][0]["arm"]
    said = f"{key.partition('=')[0]} was given one value, held against the recipe's own: {found['default']}."
    assert found["notes"][0] == said


def test_what_cannot_be_compared_is_refused_before_anything_is_prepared(table, tmp_path):
    for tries, asked in ((["model.activation=gelu"], {}), ([], {}), (["model.dropout=0,0.1"], {"length": "0%"})):
        with pytest.raises(UserError):
            danlu.tune(recipe(table), tries, tmp_path / "run", **asked)
    assert not (tmp_path / "run" / "data").exists()


@pytest.mark.parametrize(
    ("tries", "asked", "sentence"),
    [
        ([], {}, "danlu tune needs what to compare"),
        (["model.activation"], {}, "--try must be section.key=value,value"),
        (["model.activation=gelu"], {}, "must list at least two different values"),
        (["model.activation=gelu,gelu"], {}, "must list at least two different values"),
        (["model.activatoin=gelu,silu"], {}, "--try: model.activatoin is not a setting of mlp.*Fix: rename it to activation"),
        (["model.activation=gelu,sliu"], {}, "--try: model.activation must be"),
        (["train.batch=8,16"], {}, "train.batch is not a setting that arms are compared in.*danlu plan answers it"),
        (["task.kind=classify,regress"], {}, "must be asked the same question"),
        (["model.dropout=0,0.1"], {"budget": "lots"}, "--budget must be a time or a number of runs"),
        (["model.dropout=0,0.1"], {"budget": "11 runs"}, "--budget must pay for 3 pairs and 3 learning rates of each arm: 12 runs"),
        (["model.dropout=0,0.1"], {"length": "3 epochs"}, "--length must be a share"),
        (["model.dropout=0,0.1"], {"length": "0%"}, r'--length must be a share above 0 .*Got "0%"'),
        (["model.dropout=0,0.1"], {"length": "1.2.3%"}, "--length must be a share"),
        (["model.dropout=0,0.1", "model.dropout=0.2,0.3"], {}, "--try model.dropout must be given once.*with commas"),
    ],
)  # fmt: skip
def test_refusals_are_one_sentence(table, tmp_path_factory, tries, asked, sentence):
    folder = tmp_path_factory.getbasetemp() / "refused"
    with pytest.raises(UserError, match=sentence) as refused:
        danlu.tune(recipe(table), tries, folder, **asked)
    assert "\n" not in str(refused.value)


def test_data_arms_are_judged_on_the_same_rows(table, tmp_path):
    """What drops training rows only is compared on a folder of its own; what moves the split is refused."""
    found = danlu.tune(
        recipe(table), ["data.outliers=none,iqr"], tmp_path / "a", budget="30 runs", length="10 steps"
    )  # fmt: skip
    folders = sorted((tmp_path / "a" / "tune" / "arms").iterdir())
    assert sorted((f / "data").is_symlink() for f in folders) == [False, True]
    assert len(found["comparisons"][0]["differences"]) >= 3
    rows = table.read_text().splitlines()
    (tmp_path / "twice.csv").write_text("\n".join([*rows, *rows[1:40]]) + "\n")
    with pytest.raises(
        UserError, match=r"arm duplicates drop must leave the same validation samples.*Fix: set data.split"
    ):
        danlu.tune(recipe(tmp_path / "twice.csv"), ["data.duplicates=keep,drop"], tmp_path / "b")


def test_a_loss_in_other_units_is_refused(table, tmp_path):
    rows = [f"{a},{a * a % 7 + a / 3}" for a in range(200)]
    (tmp_path / "n.csv").write_text("a,y\n" + "\n".join(rows) + "\n")
    numbers = recipe(tmp_path / "n.csv", task={"kind": "regress"}, data={"target_kind": "number"})
    given = (numbers, ["data.target_transform=standard,none"], tmp_path / "run")
    with pytest.raises(UserError, match=r"--metric must name a metric in the data's own units"):
        danlu.tune(*given)
    assert danlu.tune(*given, metric="mae", budget="12 runs", length="10 steps")["metric"] == "mae"


def test_text_arms_are_judged_on_the_recipes_validation_text(tmp_path):
    words = [
        "the",
        "furnace",
        "is",
        "lit",
        "and",
        "the",
        "elixir",
        "is",
        "refined",
        "again",
        "by",
        "a",
        "patient",
        "hand",
    ]
    for folder, n in (("train", 30), ("held", 6)):
        (tmp_path / folder).mkdir()
        for i in range(n):
            lines = [" ".join(random.Random(f"{folder} {i} {j}").choices(words, k=12)) for j in range(12)]
            (tmp_path / folder / f"{i}.txt").write_text(f"mail me at a{i}@b.org\n" + "\n".join(lines))
    text = {
        "data": {"path": str(tmp_path / "train"), "tokenizer": {"kind": "bytes"},
                 "split": {"kind": "given", "validation": str(tmp_path / "held")}},
        "model": {"n_layers": 1, "width": 16, "n_heads": 2, "context": 16}, "optimizer": {"kind": "adamw"},
        "train": {"length": "100 steps", "batch": 4, "threads": 1, "compile": False}, "plan": {"budget": "1 s"},
    }  # fmt: skip
    tries = ['data.clean=[],[{kind="pii"}]']
    found = danlu.tune(Recipe(name="t", **text), tries, tmp_path / "run", budget="60 runs", length="4 steps")
    assert len(found["comparisons"][0]["differences"]) >= 3
    arms = list((tmp_path / "run" / "tune" / "arms").iterdir())
    base = (tmp_path / "run" / "data" / "validation.bin").read_bytes()
    assert {(arm / "data" / "validation.bin").read_bytes() for arm in arms} == {base}
    assert len({(arm / "data" / "train.bin").read_bytes() for arm in arms}) == 2
    text["data"]["split"] = {"kind": "order", "validation": 0.2}
    with pytest.raises(UserError, match="must leave the recipe's validation text"):
        danlu.tune(Recipe(name="t", **text), tries, tmp_path / "other")


def test_values_are_read_as_in_a_recipe():
    assert parse_try("model.layers=[8, 8],[16]") == ("model.layers", [[8, 8], [16]])
    assert parse_try("train.l2=0,1e-3") == ("train.l2", [0, 1e-3])
    assert parse_budget("2 min").amount == 120


def test_an_arm_without_a_pair_has_not_diverged(capsys):
    """Where every other arm diverges while its rate is sought, the default is left without pairs."""
    arm = {"mean": None, "values": [], "step_s": None, "lr": 0.01}
    found = {
        "metric": "loss", "default": "a", "n_steps": 20, "cost": {"runs": 6, "seconds": 1.0}, "notes": [], "verdict": "a wins.",
        "arms": [arm | {"name": "a"}, arm | {"name": "b"}], "folder": "run",
        "comparisons": [{"arm": "b", "found": "diverged", "mean": None, "differences": [], "sentence": "b: diverged."}],
    }  # fmt: skip
    show_tune(found)
    first, second = [line for line in capsys.readouterr().out.splitlines() if "0.01" in line]
    assert "not run" in first
    assert "diverged" not in first
    assert second.count("diverged") == 2
    page = str(which_of_these(TuneRecord(**found)))
    assert page.count("<td>not run</td>") == page.count("<td>diverged</td>") == 1


def test_the_screen(table, tmp_path, capsys):
    file = tmp_path / "r.toml"
    file.write_text(recipe(table).sparse_toml())
    words = [
        "tune",
        str(file),
        "--try",
        "model.activation=gelu,identity",
        "--budget",
        "70 runs",
        "--length",
        "60 steps",
    ]
    with pytest.raises(SystemExit) as stopped:
        cli.main([*words, "--out", str(tmp_path / "run")])
    out = capsys.readouterr().out
    assert stopped.value.code == 0
    assert "better by" in out
    assert "activation identity: its loss is" in out
    assert "activation gelu wins" in out
