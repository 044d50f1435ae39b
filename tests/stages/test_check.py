"""danlu check and danlu init: what a run would be, from a look alone."""

from pathlib import Path
from typing import Any

import pytest
import torch

import danlu
from danlu.base.errors import UserError
from danlu.models.decoder_settings import Decoder
from danlu.recipe import Recipe
from danlu.starter import name_for, write_starter

torch.set_num_threads(1)


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "text.txt"
    path.write_text("a line of text, and more of it\n" * 2000)
    return path


def recipe(text: Path, **sections: Any) -> Recipe:
    model = {"n_layers": 2, "width": 32, "context": 16} | sections.pop("model", {})
    return Recipe(data={"path": str(text), "tokenizer": {"kind": "bytes"}}, model=model, **sections)


def test_counts_and_sizes(text: Path) -> None:
    found = danlu.check(recipe(text, optimizer={"kind": "adamw"}, checkpoint={"keep": 3}))
    n_parameters = Decoder(n_layers=2, width=32, context=16).shape(257).n_parameters
    assert found.n_parameters == n_parameters
    rows = {name: (value, why) for name, value, why in found.rows}
    assert rows["model.n_layers"] == ("2", "given")
    assert rows["parameters"][0] == f"{n_parameters:,}"
    n_states = 8 * n_parameters
    assert found.disk_bytes == pytest.approx(2 * text.stat().st_size + 4 * (4 * n_parameters + n_states), rel=0.01)
    assert found.memory_bytes > 8 * n_parameters + n_states
    assert sorted(p.name for p in Path().iterdir()) == ["text.txt"]


def test_memory_grows_with_the_micro_batch_alone(text: Path) -> None:
    one, four, eight = (danlu.check(recipe(text, train={"batch": 8, "micro_batch": n})).memory_bytes for n in (1, 4, 8))
    assert eight - four == 4 * (four - one) / 3
    assert four > one


def test_kept_for_backward_is_what_autograd_keeps(text: Path) -> None:
    """The meta count against the tensors that a real pass keeps."""
    from danlu.stages.check import weigh

    made = recipe(text)
    kept: dict[int, int] = {}
    held = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        held.append(tensor)
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    from danlu.base.contracts import Batch

    model = made.model.build(257, 0)
    tokens = torch.zeros(1, 16, dtype=torch.int64)
    batch = Batch({"tokens": tokens, "targets": tokens}, 16)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = made.task.loss_sum(model(batch), batch)
    real = sum(kept.values()) - sum(kept.get(p.untyped_storage().data_ptr(), 0) for p in model.parameters())
    del loss
    assert weigh(made, 257).kept_per_sample == pytest.approx(real, rel=0.2)


def test_the_laws_answer_what_is_auto(text: Path) -> None:
    rows = {name: (value, why) for name, value, why in danlu.check(recipe(text, train={"length": "auto"})).rows}
    for name in ("train.length", "train.batch", "optimizer.lr", "optimizer.weight_decay"):
        assert rows[name][0].startswith("about ")
        assert rows[name][1].startswith("prior: ")
    timed = {name: value for name, value, _ in danlu.check(recipe(text, train={"length": "1 min"})).rows}
    assert timed["train.batch"] == "auto"


def test_what_does_not_fit_is_told(text: Path) -> None:
    with pytest.raises(UserError, match=r"model\.width must be a multiple of n_heads"):
        danlu.check(recipe(text, model={"n_heads": 5}))
    loaded = Recipe(data={"path": str(text), "tokenizer": {"kind": "loaded", "path": str(text)}}, model={"size": "1M"})
    with pytest.raises(UserError, match=r"data\.tokenizer\.path is not a tokenizer\.json"):
        danlu.check(loaded)


def test_a_starter_recipe_is_right(text: Path) -> None:
    out = write_starter("text.txt", Path("mine.toml"))
    made = Recipe.load(out)
    assert made.name == "text"
    assert danlu.check(made).n_parameters > 0
    with pytest.raises(UserError, match="exists already"):
        write_starter("text.txt", out)
    with pytest.raises(UserError, match="names no file or folder"):
        write_starter("nowhere.txt", Path("other.toml"))
    assert not Path("other.toml").exists()


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("python-stdlib", "python-stdlib"),
        ("hub:owner/A_set", "a-set"),
        ("/x/notes/*.md", "notes"),
        ("*", "my-run"),
        ("文.txt", "my-run"),
    ],
)
def test_names(data: str, name: str) -> None:
    assert name_for(data) == name
