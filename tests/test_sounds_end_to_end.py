"""From a folder of sounds to an answer: init writes a recipe that trains as it is, and predict reads files and folders."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

import danlu
from danlu.base.errors import UserError
from danlu.data.audio_propose import propose_listing, propose_sounds
from danlu.recipe import Recipe
from danlu.starter import write_starter
from tests.contracts.case_audio import RATE, class_folders, spoken_table, tone, transcripts

pytest.importorskip("soundfile")


def test_a_folder_of_sounds_trains_from_its_starter_recipe(tmp_path: Path) -> None:
    sounds = class_folders(tmp_path, 60)
    recipe = Recipe.load(write_starter(str(sounds), tmp_path / "mine.toml"))
    assert (
        "the folder a sound lies in is its class: low (22), high (21), mid (20)" in (tmp_path / "mine.toml").read_text()
    )
    run = danlu.run(recipe, tmp_path / "run")
    assert run.scores.metrics["accuracy"].value > 0.6
    assert run.card.rows_rejected == {
        "not a sound file that can be read": 1, "silent": 1, "shorter than data.shortest": 1,
    }  # fmt: skip
    rows = run.predict([str(sounds / "mid"), str(sounds / "low/0.wav"), (tone(["high"], 5), RATE)])
    assert [row["name"] for row in rows[-3:]] == ["7.wav", "0.wav", "input 2"]
    assert len(rows) == 22
    assert set(rows[0]["shares"]) == {"low", "mid", "high"}
    with pytest.raises(UserError, match=r"silent.wav cannot be used: silent"):
        run.predict([str(sounds / "low/silent.wav")])


def test_sounds_without_classes_are_one_sentence(tmp_path: Path) -> None:
    assert propose_sounds(tmp_path) is None
    class_folders(tmp_path)
    with pytest.raises(UserError, match="must hold a folder of sounds for each class"):
        write_starter(str(tmp_path / "sounds/mid"), tmp_path / "mine.toml")
    assert not (tmp_path / "mine.toml").exists()


def test_a_table_of_sounds_is_seen_as_one(tmp_path: Path) -> None:
    recipe = Recipe.load(write_starter(str(spoken_table(tmp_path)), tmp_path / "mine.toml"))
    assert (recipe.data.kind, recipe.task.kind, recipe.data.text) == ("audio", "transcribe", "text")  # type: ignore[attr-defined]
    assert danlu.check(recipe).n_parameters > 0
    (tmp_path / "labels.csv").write_text("file,class\nwavs/0.wav,a\nwavs/1.wav,b\n")
    found = propose_listing(tmp_path / "labels.csv")
    assert found is not None
    assert (found.task, found.data["file"], found.data["label"]) == ("classify", "file", "class")
    (tmp_path / "plain.csv").write_text("size,class\n1,a\n2,b\n")
    assert propose_listing(tmp_path / "plain.csv") is None


def test_transcripts_come_back_from_files(tmp_path: Path) -> None:
    sections = transcripts()(tmp_path) | {"train": {"length": "60 steps", "batch": 12, "precision": "fp32"}}
    recipe = Recipe(**sections, optimizer={"kind": "adamw", "lr": 1e-2}, plan={"budget": "1 s"})
    run = danlu.run(recipe, tmp_path / "run")
    assert run.scores.metrics["word_error"].value < 1
    rows = run.predict([str(tmp_path / "wavs"), tone(["low"], 3)])
    assert len(rows) == 49
    assert {row["name"] for row in rows} >= {"0.wav", "47.wav", "input 48" if len(rows) < 49 else "input 1"}
    assert all(set(row["prediction"]) <= set(" lowmidhigh") for row in rows)
    kept = json.loads((tmp_path / "run/evaluate/scores.json").read_text())
    assert [panel["form"] for panel in kept["panels"]] == ["listing", "listing", "clips"]


@pytest.mark.data
@pytest.mark.skipif("DANLU_DATA" not in os.environ, reason="needs DANLU_DATA to name a folder with the well-known sets")
def test_the_official_split_of_fsdd(tmp_path: Path) -> None:
    recipe = Recipe.load(Path(__file__).parents[1] / "recipes/fsdd-speech.toml", ["data.split.validation_share=0.1"])
    run = danlu.prepare(recipe, tmp_path / "run")
    assert {name: split.n_samples for name, split in run.card.splits.items()} == {
        "train": 378, "validation": 42, "test": 300,
    }  # fmt: skip
    split = recipe.data.open(run.folder.data, run.card, "test")  # type: ignore[attr-defined]
    assert {int(split.name(i).split("_")[2][:-4]) for i in range(300)} == set(range(5))
    assert np.isfinite(split.batch(np.arange(300)).tensors["frames"].numpy()).all()
