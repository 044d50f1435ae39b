"""Evaluate, generate and predict on a small run: prepared text, a plan, a checkpoint; no training."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from danlu.base.contracts import DataCard, Metric
from danlu.base.errors import UserError
from danlu.base.runfolder import RunFolder, read_json, write_json, write_text
from danlu.build import build_model
from danlu.parallel.checkpoint import CheckpointWriter, Snapshot
from danlu.planning.choices import Choices
from danlu.planning.noise_told import about, result_path
from danlu.planning.prediction import predict as forecast
from danlu.recipe import Recipe
from danlu.stages.evaluate import compared, evaluate, first_words
from danlu.stages.generate import generate
from danlu.stages.predict import predict
from danlu.stages.prepare import prepare
from danlu.trained import load_model

torch.set_num_threads(1)
CONTEXT = 16
WORDS = ["walk", "tree", "node", "yield", "return", "for", "in", "def", "self", "丹炉"]


def quiet(what: str, done: float, total: float) -> None:
    pass


def save_weights(run: RunFolder, recipe: Recipe, step: int, best: bool, ema: bool = False) -> None:
    card, choices = DataCard(**read_json(run.data / "card.json")), Choices.read(run)
    model = build_model(recipe, card, choices.model_copy(update={"device": "cpu"}))
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        weights = {n: p + 0.05 * torch.randn(p.shape, generator=generator) for n, p in model.named_parameters()}
    tensors = {"model": weights} | ({"ema": {n: w * 0.5 for n, w in weights.items()}} if ema else {})
    writer = CheckpointWriter(run.checkpoints, keep=5, asynchronous=False)
    writer.save(Snapshot(step, tensors, {"fingerprints": {}}), best)
    writer.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, RunFolder]:
    folder = tmp_path_factory.mktemp("evaluate")
    rng = np.random.default_rng(0)
    (folder / "texts").mkdir()
    for number in range(80):
        lines = [" ".join(rng.choice(WORDS, 6)) for _ in range(12)]
        (folder / "texts" / f"{number:02}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    recipe = Recipe(
        name="small",
        data={"path": str(folder / "texts" / "*.txt"), "tokenizer": {"kind": "bytes"}},
        model={"n_layers": 1, "width": 32, "context": CONTEXT},
        evaluate={"samples": 2, "max_new_tokens": 10, "bootstrap": 100},
    )
    run = RunFolder.create(folder / "run", "small", recipe.digest())
    with run.lock():
        write_text(run.recipe, recipe.sparse_toml())
        write_text(run.full_recipe, recipe.full_toml())
        prepare(recipe, run, quiet)
    choices = Choices(
        device="cpu", threads=1, precision="fp32", operations="plain", attention="fused", compile=False, batch=4,
        micro_batch=4, n_steps=10, model={"n_layers": 1, "width": 32}, optimizer={}, evaluate_every=None,
        signals_every=None, save_every_steps=None, save_every_s=None,
    )  # fmt: skip
    write_json(run.plan, {"decisions": [], "choices": choices.model_dump(mode="json")})
    save_weights(run, recipe, 5, best=True)
    save_weights(run, recipe, 10, best=False)
    return recipe, run


@pytest.fixture(scope="module")
def scored(made: tuple[Recipe, RunFolder]) -> dict:
    evaluate(*made, quiet)
    return json.loads((made[1].evaluate / "scores.json").read_text(encoding="utf-8"))


def plain_loss(recipe: Recipe, run: RunFolder) -> tuple[float, int, int]:
    """One target at a time over the validation bytes: (nats, targets, bytes of text)."""
    trained = load_model(run, recipe)
    tokens = (
        np.fromfile(run.data / "validation.bin", np.dtype(trained.card.dtype).newbyteorder("<")).astype(int).tolist()
    )
    end = trained.card.document_end
    known, n_unscored = ([end, *tokens], 0) if end is not None else (tokens, 1)
    nats, n_targets = 0.0, len(known) - 1
    for start in range(0, n_targets, CONTEXT):
        inputs, targets = known[start : start + CONTEXT], known[start + 1 : start + CONTEXT + 1]
        cache = trained.model.new_cache(1)
        for token, target in zip(inputs, targets, strict=False):
            scores, cache = trained.model.decode(torch.tensor([[token]]), cache)
            nats -= float(scores[0].double().log_softmax(-1)[target])
    return nats, n_targets, sum(t != end for t in tokens) - n_unscored


def test_the_loss_is_that_of_a_plain_loop_over_single_targets(made: tuple[Recipe, RunFolder], scored: dict) -> None:
    nats, n_targets, n_bytes = plain_loss(*made)
    assert scored["n_targets"] == n_targets
    assert scored["metrics"]["loss"]["value"] == pytest.approx(nats / n_targets, rel=1e-5)
    assert scored["metrics"]["bits_per_byte"]["value"] == pytest.approx(nats / math.log(2) / n_bytes, rel=1e-5)
    assert f"{n_bytes:,} UTF-8 bytes" in " ".join(scored["notes"])


def test_scores_hold_all_that_the_report_needs(scored: dict) -> None:
    assert set(scored["baselines"]) == {"unigram", "ngram", "xz", "xz_with_train"}
    for metric in (scored["metrics"]["bits_per_byte"], scored["baselines"]["ngram"]["bits_per_byte"]):
        assert metric["low"] <= metric["value"] <= metric["high"]
        assert metric["unit"] == "bits/byte"
    assert (
        scored["baselines"]["ngram"]["bits_per_byte"]["value"]
        < scored["baselines"]["unigram"]["bits_per_byte"]["value"]
    )
    assert scored["beats_baselines"] is False  # weights at random
    assert scored["notes"][0].startswith("It does not beat")
    assert len(scored["samples"]) == 2
    assert all(sample["prompt"] and sample["settings"] for sample in scored["samples"])


def test_evaluating_again_gives_the_same_scores(made: tuple[Recipe, RunFolder], scored: dict) -> None:
    evaluate(*made, quiet)
    assert json.loads((made[1].evaluate / "scores.json").read_text(encoding="utf-8")) == scored


def test_measured_seed_noise_is_noted(made: tuple[Recipe, RunFolder], scored: dict, tmp_path: Path) -> None:
    recipe, run = made
    other = RunFolder(shutil.copytree(run.path, tmp_path / "run"))
    found = {
        "about": about(recipe, other),
        "seed": {"sd": 0.0123},
        "cost": {"runs": 5},
        "n_steps": 20,
        "planned_steps": 20,
    }
    result_path(other).parent.mkdir()
    write_json(result_path(other), found)
    notes = evaluate(recipe, other, quiet).notes
    said = "Another seed would change the loss by about 1.2% (sd over 5 runs of 20 steps, danlu noise)."
    assert [note for note in notes if note not in scored["notes"]] == [said]


def test_the_best_checkpoint_is_scored_not_the_newest(made: tuple[Recipe, RunFolder], scored: dict) -> None:
    assert load_model(made[1], made[0]).step == 5
    assert any("step 5" in note for note in scored["notes"])


def test_the_moving_average_is_used_when_there_is_one(made: tuple[Recipe, RunFolder], tmp_path: Path) -> None:
    recipe, run = made
    other = RunFolder(shutil.copytree(run.path, tmp_path / "run"))
    shutil.rmtree(other.checkpoints)
    save_weights(other, recipe, 5, best=True, ema=True)
    plain, averaged = load_model(run, recipe), load_model(other, recipe)
    for (name, p), q in zip(plain.model.named_parameters(), averaged.model.parameters(), strict=True):
        assert torch.equal(p * 0.5, q), name
    assert "moving average" in averaged.notes[-1]


def test_the_package_holds_the_model_and_an_honest_card(made: tuple[Recipe, RunFolder], scored: dict) -> None:
    from safetensors.torch import load_file

    folder = made[1].path / "package"
    weights = load_file(folder / "weights.safetensors")
    trained = load_model(made[1], made[0])
    assert all(torch.equal(weights[n], p) for n, p in trained.model.named_parameters())
    assert json.loads((folder / "scores.json").read_text(encoding="utf-8")) == scored
    assert {"card.json", "recipe.full.toml", "MODEL_CARD.md"} <= {p.name for p in folder.iterdir()}
    card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"| this model | {scored['metrics']['bits_per_byte']['value']:.4f} |" in card
    assert "does not clearly beat its baselines" in card
    assert "chosen on this same split" in card


def test_generate_streams_the_same_text_for_the_same_seed(made: tuple[Recipe, RunFolder]) -> None:
    recipe, run = made
    one, two = ("".join(generate(recipe, run, "for node", max_new_tokens=20, seed=3)) for _ in range(2))
    assert one == two
    with pytest.raises(UserError, match="temperature"):
        generate(recipe, run, "for", temperature=-1)
    with pytest.raises(UserError, match="is not a setting of generate"):
        generate(recipe, run, "for", temprature=1)


def test_predict_scores_each_text_alone(made: tuple[Recipe, RunFolder]) -> None:
    recipe, run = made
    rows = list(predict(recipe, run, ["for node in tree\n" * 3, "丹炉", ""]))
    assert load_model(run, recipe).card.document_end == 256
    assert [row["n_bytes"] for row in rows[:2]] == [51, 6]
    assert rows[0]["bits"] == pytest.approx(rows[0]["bits_per_byte"] * rows[0]["n_bytes"])
    assert rows[2]["bits_per_byte"] is None
    assert next(predict(recipe, run, ["丹炉"]))["bits"] == pytest.approx(rows[1]["bits"], rel=1e-6)


def test_a_split_that_is_not_there_is_told(made: tuple[Recipe, RunFolder], tmp_path: Path) -> None:
    other = RunFolder(shutil.copytree(made[1].path, tmp_path / "run"))
    card = read_json(other.data / "card.json")
    del card["splits"]["validation"]
    write_json(other.data / "card.json", card)
    with pytest.raises(UserError, match=r"data\.split\.validation must leave a validation split"):
        evaluate(made[0], other, quiet)


def test_a_run_without_a_checkpoint_is_told(made: tuple[Recipe, RunFolder], tmp_path: Path) -> None:
    other = RunFolder(shutil.copytree(made[1].path, tmp_path / "run"))
    shutil.rmtree(other.checkpoints)
    with pytest.raises(UserError, match="no good checkpoint"):
        load_model(other, made[0])


def test_the_verdict_is_of_the_difference_on_the_same_text() -> None:
    def rival(value: float, low: float, high: float, gap: float) -> dict[str, Metric]:
        return {"bits_per_byte": Metric(value, value, value), "behind": Metric(gap, low, high)}

    model = Metric(1.8, 1.5, 2.2)
    baselines = {"ngram": rival(2.0, 0.1, 0.3, 0.2), "xz": rival(2.5, 0.7, 0.7, 0.7)}
    beaten, said = compared(model, baselines, 50)
    assert beaten
    assert "beats every baseline" in said
    assert "ngram, needs 0.200 (0.100 to 0.300) more" in said
    beaten, said = compared(model, baselines | {"ngram": rival(1.9, -0.05, 0.25, 0.1)}, 50)
    assert not beaten
    assert "does not beat ngram:" in said
    assert (
        "ngram, needs 0.100 (0.050 to 0.200) less" in compared(model, {"ngram": rival(1.7, -0.2, -0.05, -0.1)}, 50)[1]
    )
    assert "too little text" in compared(model, baselines, 1)[1]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ('\n\n"""A module."""\nimport os', '"""A module."""'),
        ("x" * 100, "x" * 60),
        ("word " * 30, " ".join(["word"] * 12)),
        ("\n \n", ""),
        ("�\nline", "line"),
    ],
)
def test_prompts_are_first_words(text: str, want: str) -> None:
    assert first_words(text) == want


def test_the_final_loss_is_measured_where_it_was_predicted(made: tuple[Recipe, RunFolder]) -> None:
    recipe, run = made
    elsewhere = recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"on": "train"})})
    plan = read_json(run.plan)
    write_json(run.plan, plan | {"predictions": [forecast("final_loss", 3.0, "", "", "fit", sd=1.0).to_json()]})
    try:
        found = {}
        for settings in (recipe, elsewhere):
            scores = evaluate(settings, run, quiet)
            found[settings.evaluate.on] = read_json(run.evaluate / "scorecard.json")["scores"][0]["outcome"]
            if settings is recipe:
                assert found[recipe.evaluate.on] == scores.metrics["loss"].value
        assert found["train"] == pytest.approx(found["validation"], rel=1e-4)
    finally:
        write_json(run.plan, plan)
