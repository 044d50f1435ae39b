"""The recipe: what it takes, what it refuses and how it says so, and where each value came from."""

import sys
from pathlib import Path
from typing import Any

import pytest

import danlu
from danlu.base.errors import UserError
from danlu.optim import SCHEDULES
from danlu.recipe import Recipe
from danlu.training.trial import varied

DATA = '[data]\npath = "python-stdlib"\n'


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def from_text(text: str, *sets: str, allow: tuple[str, ...] = ()) -> Recipe:
        path = tmp_path / "recipe.toml"
        path.write_text(text, encoding="utf-8")
        return Recipe.load(path, sets, allow)

    return from_text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[optimizer]\nweigth_decay = 0.1", "optimizer.weigth_decay is not a setting of muon. Got 0.1. Fix: rename it to weight_decay."),
        ("[optimizer]\nkind = 'cosine'", "optimizer.kind must be one of adamw,"),
        ("[train]\nlr = 0.1", "Fix: move it to [optimizer]"),
        ("[train]\nlearning_rate = 1", "train.learning_rate is not a setting of [train]. Got 1. Fix: write optimizer.lr."),
        ("[trian]\nbatch = 1", "trian is not a setting of a recipe. Got { batch = 1 }. Fix: rename it to train."),
        ("[train]\nbatch = 0", 'train.batch must be a whole number of at least 1 or "auto". Got 0.'),
        ("[train]\nbatch = true", "Got true."),
        ("[train]\nlength = '3 parsecs'", 'train.length must be an amount with a unit, such as "500 steps"'),
        ("[train]\nprecision = 'bf61'", 'Got "bf61". Fix: write "bf16".'),
        ("[train]\nbatch = 4\nmicro_batch = 8", "train.micro_batch must be at most train.batch, which is 4. Got 8."),
        ("[train]\npatience = 3\n[evaluate]\nevery = 'never'", 'train.patience needs evaluations, and evaluate.every is "never".'),
        ("[parallel]\nprocs = 2", "parallel.procs must be 1"),
        ("[plan]\nbudget = '3 steps'", 'plan.budget must be a share of the run such as "8%", a time such as "20 s", or "prior"'),
        ("[evaluate]\nprompts = ['a', 3]", "evaluate.prompts[1] must be a text. Got 3."),
        ("[train", ", at its end, is not valid TOML"),
        ("[optimizer]\nkind = 'my_lab.optim:Tiger'", "Fix: add --allow-code my_lab if you trust it."),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(load: Any, tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        load(DATA + text)
    assert str(error.value).startswith(str(tmp_path / "recipe.toml"))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_sections_before_values() -> None:
    """The most telling mistake is named: a misspelt name, not the setting that it left missing."""
    with pytest.raises(UserError, match=r"data.pth is not a setting of text.*rename it to path"):
        Recipe(data={"pth": "x"})
    with pytest.raises(UserError, match=r"data is a section that every recipe needs. Fix: add .data. with path"):
        Recipe()


def test_set_lies_over_the_file(load: Any) -> None:
    recipe = load(DATA, "train.length=200 steps", "optimizer.kind=adamw", "optimizer.lr=1e-2", "evaluate.prompts=['a']")
    assert str(recipe.train.length) == "200 steps"
    assert (recipe.optimizer.kind, recipe.optimizer.lr) == ("adamw", 0.01)
    assert recipe.evaluate.prompts == ("a",)
    with pytest.raises(UserError, match=r"--set: train.lenth is not a setting of \[train\]"):
        load(DATA, "train.lenth=3 s")


def test_every_value_is_written_with_its_origin(load: Any) -> None:
    recipe = load(DATA + "[train]\nbatch = 8\nema = 0.99", "seed=3")
    decisions = [
        {"name": "optimizer.lr", "value": 0.003, "origin": "prior: step_law"},
        {"name": "train.length", "value": 77, "origin": "derived: 20 tokens a parameter"},
    ]
    lines = recipe.full_toml(decisions).splitlines()
    for line in (
        'path = "python-stdlib"  # given',
        "seed = 3  # given by --set",
        "batch = 8  # given",
        'precision = "auto"  # default',
        "lr = 0.003  # prior: plan.json#optimizer.lr (step_law)",
        'length = "auto"  # derived: plan.json#train.length (20 tokens a parameter) = "77"',
    ):
        assert line in lines, line


def test_what_is_written_loads_again(load: Any) -> None:
    recipe = load(
        DATA + '[evaluate]\nprompts = ["a\\"b", "\\u001b[31m\\n", "é\\u007f"]\n[optimizer]\nkind = "sgd"', "seed=5"
    )
    for text in (recipe.full_toml(), recipe.sparse_toml()):
        again = load(text)
        assert again.model_dump() == recipe.model_dump()
        assert again.digest() == recipe.digest()
    assert recipe.digest() != load(DATA).digest()


def test_the_given_text_is_kept(load: Any) -> None:
    text = "# mine\n" + DATA
    assert load(text).sparse_toml() == text


def test_a_recipe_is_frozen(load: Any) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(DATA).train.batch = 3


def test_code_loads_only_when_allowed(load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_lab.py").write_text(
        "from danlu.optim import OPTIMIZERS\n"
        "class Tiger(OPTIMIZERS['sgd']):\n    kind: str = 'my_lab:Tiger'\n    stripes: int = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    text = DATA + "[optimizer]\nkind = 'my_lab:Tiger'\nstripes = 9"
    with pytest.raises(UserError, match="--allow-code my_lab"):
        load(text)
    assert "my_lab" not in sys.modules
    recipe = load(text, allow=("my_lab",))
    assert recipe.model_dump()["optimizer"]["stripes"] == 9
    with pytest.raises(UserError, match=r"my_lab is not a setting|stripe is not a setting of my_lab:Tiger"):
        load(text.replace("stripes", "stripe"), allow=("my_lab",))
    with pytest.raises(UserError, match="cannot be loaded"):
        load(text.replace(":Tiger", ":Lion"), allow=("my_lab",))


def test_python_gets_the_same_sentence() -> None:
    from danlu.sections import Train

    with pytest.raises(UserError, match=r"Train\(\): max_norm must be a number above 0 or \"none\". Got -1"):
        Train(max_norm=-1)
    with pytest.raises(AttributeError, match="it has"):
        danlu.nothing  # noqa: B018


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b'# ok\nname = "caf\xe9"')
    (tmp_path / "large.toml").write_bytes(b"#" * 1_000_001)
    for name, said in (
        ("latin.toml", "line 2 is not UTF-8"),
        ("large.toml", "too large"),
        ("none.toml", "is not a file"),
        ("", "is a folder"),
    ):
        with pytest.raises(UserError, match=said):
            Recipe.load(tmp_path / name)


@pytest.mark.parametrize(
    ("model", "given", "kind"),
    [
        ("mlp", None, "adamw"), ("mlp", {"lr": 0.01}, "adamw"), ("mlp", {"kind": "muon"}, "muon"), ("mlp", {"momentum": 0.9}, "muon"),
        ("vit", None, "muon"), ("recurrent", {"weight_decay": 0.1}, "adamw"),
    ],
)  # fmt: skip
def test_a_model_has_a_usual_optimizer_and_a_named_one_stands(model, given, kind):
    raw = {
        "data": {"kind": "table", "path": "x.csv", "target": "y"},
        "model": {"kind": model},
        "task": {"kind": "classify"},
    }
    recipe = Recipe.model_validate(raw | ({} if given is None else {"optimizer": given}))
    assert recipe.optimizer.kind == kind
    for name, value in (given or {}).items():
        assert getattr(recipe.optimizer, name) == value


def test_a_misspelt_setting_is_told_of_the_models_usual_optimizer(tmp_path):
    path = tmp_path / "r.toml"
    head = '[data]\nkind = "table"\npath = "x.csv"\ntarget = "y"\n[model]\nkind = "mlp"\n[task]\nkind = "classify"\n'
    path.write_text(head + "[optimizer]\nlrr = 0.1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"optimizer\.lrr is not a setting of adamw\. .*rename it to lr"):
        Recipe.load(path)


@pytest.mark.parametrize(
    ("model", "given", "decay"),
    [
        ("lenet", None, "50%"), ("resnet", {"warmup": "5 steps"}, "50%"), ("vgg", {"kind": "wsd"}, "50%"),
        ("vgg", {"kind": "wsd", "decay": "30%"}, "30%"), ("lenet", {"kind": "cosine"}, None), ("vit", None, "20%"),
    ],
)  # fmt: skip
def test_a_model_has_a_usual_cool_down_and_a_named_one_stands(model, given, decay):
    raw = {"data": {"kind": "image", "path": "x"}, "model": {"kind": model}, "task": {"kind": "classify"}}
    schedule = Recipe.model_validate(raw | ({} if given is None else {"schedule": given})).schedule
    assert (str(schedule.decay) if hasattr(schedule, "decay") else None) == decay
    assert schedule.kind == (given or {}).get("kind", "wsd")


def test_the_usual_cool_down_is_nobodys_setting():
    """It is a default of the model's: not among what was given, not taken along to another model, and an object has it too."""
    raw = {"data": {"kind": "image", "path": "x"}, "model": {"kind": "lenet"}, "task": {"kind": "classify"}}
    recipe = Recipe.model_validate(raw | {"schedule": {"warmup": "5 steps"}})
    assert "decay" not in recipe.sparse_toml()
    assert 'decay = "50%"  # default' in recipe.full_toml({})
    assert str(varied(recipe, {"model.kind": "vit"}).schedule.decay) == "20%"
    assert str(Recipe.model_validate(raw | {"schedule": SCHEDULES["wsd"](warmup="5 steps")}).schedule.decay) == "50%"
