"""start_from: pre-trained weights are taken, and only by a run whose words are the same."""

import pytest
import torch
from safetensors.torch import load_file

import danlu
from danlu.base.errors import UserError
from danlu.build import build_model
from danlu.planning.choices import Choices
from danlu.planning.trials import Trial
from danlu.recipe import Recipe
from danlu.stages.train import train_step
from danlu.training.start import start_from
from danlu.training.trial import Session
from tests.contracts.case_sentences import SMALL, reviews


def recipe(path, task, **data):
    return Recipe(
        data={"kind": "sentences", "path": str(path), "context": 24, "least_count": 1} | data, model=SMALL, task={"kind": task},
        optimizer={"kind": "adamw", "lr": 1e-3}, train={"length": "3 steps", "batch": 8, "threads": 1, "precision": "fp32"},
        plan={"budget": "1 s"}, evaluate={"bootstrap": 100},
    )  # fmt: skip


def test_a_classifier_starts_from_masked_words(tmp_path):
    path = reviews(tmp_path)
    first = danlu.run(recipe(path, "masked"), tmp_path / "masked")
    second = recipe(path, "classify")
    run = danlu.plan(second, tmp_path / "classes")
    model = build_model(second, run.card, Choices.read(run.folder))
    said = start_from(model, str(first.path), run.folder.data)
    theirs = load_file(first.path / "package/weights.safetensors")
    own = dict(model.state_dict())
    assert all(torch.equal(own[name], theirs[name]) for name in own if not name.startswith("head."))
    assert said[-1].endswith("fresh: head.bias, head.weight")
    begun = second.model_copy(update={"train": second.train.model_copy(update={"start_from": str(first.path)})})
    session = Session(
        begun, run.folder, Trial(Choices.read(run.folder)), train_step
    )  # a plan's or tune's short run starts there too
    short = dict(session.parts.model.state_dict())
    assert all(torch.equal(short[name], theirs[name]) for name in short if not name.startswith("head."))
    filled = first.predict(["the film was [MASK] , number [MASK]"])
    assert len(filled[0]["fillings"]) == 2
    assert "[MASK]" not in filled[0]["prediction"]
    with pytest.raises(UserError, match=r"needs a text with \[MASK\]"):
        list(first.predict(["nothing is missing here"]))


def test_a_run_over_other_words_is_refused_unless_they_are_taken_over(tmp_path):
    first = danlu.run(recipe(reviews(tmp_path / "a"), "masked"), tmp_path / "masked")
    (tmp_path / "other.tsv").write_text("\n".join(f"some other words of number {i}\t{i % 2}" for i in range(30)))
    for n, data in enumerate(({}, {"vocabulary": str(first.path)})):
        second = recipe(tmp_path / "other.tsv", "classify", **data)
        run = danlu.plan(second, tmp_path / f"run{n}")
        model = build_model(second, run.card, Choices.read(run.folder))
        if data:
            assert "tensors taken" in start_from(model, str(first.path), run.folder.data)[-1]
        else:
            with pytest.raises(UserError, match="whose vocabulary is the same"):
                start_from(model, str(first.path), run.folder.data)
