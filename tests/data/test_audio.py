"""Layouts, splits, units and rejections of sound data."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from danlu.base.contracts import DataCard
from danlu.base.errors import UserError
from danlu.base.runfolder import read_json
from danlu.base.sound import wav_bytes
from danlu.data import audio_split
from danlu.data.audio import Audio
from tests.contracts.case_audio import RATE, SPECTRUM, tone

pytest.importorskip("soundfile")


def write(path: Path, words: list[str], seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(wav_bytes(tone(words, seed), RATE))


def prepared(folder: Path, **settings: Any) -> tuple[Audio, DataCard]:
    folder.mkdir()
    data = Audio(**({"spectrum": SPECTRUM} | settings))
    card = data.prepare(folder, 0, lambda *_: None)
    assert card.rows_in == card.rows_used + sum(card.rows_rejected.values())
    assert sum(split.n_samples for split in card.splits.values()) == card.rows_used
    return data, card


def digits(folder: Path) -> None:
    for digit in "012":
        for speaker in "abc":
            for index in range(7):
                write(folder / f"{digit}_{speaker}_{index}.wav", [["low", "mid", "high"][int(digit)]], index)


NAMES = "(?P<text>[0-9])_(?P<speaker>[a-z])_[0-9]+"


def test_names_with_a_pattern_and_a_given_test_are_kept_apart(tmp_path: Path) -> None:
    digits(tmp_path / "in")
    (tmp_path / "in" / "odd name.wav").write_bytes(b"")
    split = {"kind": "given", "test": str(tmp_path / "in/*_[0-1].wav"), "validation_share": 0.2}
    data, card = prepared(
        tmp_path / "out", path=str(tmp_path / "in"), names=NAMES, spoken={"0": "zero"}, unit="words", split=split
    )
    assert card.rows_rejected == {"name does not match data.names": 1}
    assert {name: split.n_samples for name, split in card.splits.items()} == {"train": 36, "validation": 9, "test": 18}
    assert card.features["units"] == ["1", "2", "zero"]
    test = data.open(tmp_path / "out", card, "test")
    assert {test.name(i).split("_")[2] for i in range(18)} == {"0.wav", "1.wav"}
    rejected = json.loads((tmp_path / "out/rejected.jsonl").read_text())
    assert rejected["row"] == "odd name.wav"


def test_groups_stay_together(tmp_path: Path) -> None:
    digits(tmp_path / "in")
    split = {"kind": "group", "column": "speaker", "validation": 0.34, "test": 0.34}
    data, card = prepared(tmp_path / "out", path=str(tmp_path / "in"), names=NAMES, split=split)
    speakers = [
        {data.open(tmp_path / "out", card, side).name(i).split("_")[1] for i in range(card.splits[side].n_samples)}
        for side in ("train", "validation", "test")
    ]
    assert [len(s) for s in speakers] == [1, 1, 1]
    assert set.union(*speakers) == set("abc")


def test_folders_may_say_train_and_test(tmp_path: Path) -> None:
    for side, n in (("train", 10), ("test", 4)):
        for i in range(n):
            for name in ("low", "high"):
                write(tmp_path / "in" / side / name / f"{i}.wav", [name], i)
    _, card = prepared(tmp_path / "out", path=str(tmp_path / "in"))
    assert {name: s.n_samples for name, s in card.splits.items()} == {"train": 18, "validation": 2, "test": 8}
    assert card.features["classes"] == ["high", "low"]
    assert card.features["class_counts"] == [9, 9]


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "bare"])
def test_tables_of_paths(tmp_path: Path, form: str) -> None:
    for i in range(12):
        write(tmp_path / "wavs" / f"c{i}.wav", ["low", "mid"], i)
    said = [("wavs/c%d.wav" if form != "bare" else "c%d") % i for i in range(12)]
    rows = [(path, f"Low, MID's no {'ab'[i % 2]}!") for i, path in enumerate(said)] + [("wavs/no.wav", "low")]
    path, columns = tmp_path / f"t.{'csv' if form == 'bare' else form}", ()
    if form == "jsonl":
        path.write_text("\n".join(json.dumps({"path": a, "text": b}) for a, b in rows) + "\n{bad")
    elif form == "bare":
        columns = ("path", "text")  # type: ignore[assignment]
        path.write_text("\n".join("|".join(row) for row in rows))
    else:
        mark = {"csv": '"%s","%s"', "tsv": "%s\t%s"}[form]
        path.write_text("\n".join(mark % row for row in [("path", "text"), *rows]))
    data, card = prepared(tmp_path / "out", path=str(path), columns=columns, frames_per_unit=1.0)
    assert card.rows_used == 12
    assert card.rows_rejected["no such file"] == 1
    assert set("low mid's no") <= set(card.features["units"])
    batch = data.open(tmp_path / "out", card, "train").batch(np.arange(2))
    text = "".join(map(chr, batch.tensors["text"][0].tolist()))
    assert text in ("low mid's no a", "low mid's no b")
    assert batch.n_targets == 2 * len(text)


def test_a_transcript_longer_than_its_sound_is_rejected(tmp_path: Path) -> None:
    lines = ["path,text"]
    for i in range(8):
        write(tmp_path / f"{i}.wav", ["low"], i)
        lines.append(f"{i}.wav,{'x' * 60 if i == 5 else 'low'}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    data, card = prepared(tmp_path / "out", path=str(tmp_path / "t.csv"))
    assert card.rows_rejected == {"more text than sound": 1}
    assert card.features["frames_per_unit"] >= data.frames_per_unit


def test_units_that_training_never_had_stay_in_the_truth(tmp_path: Path) -> None:
    lines = ["path,text,split"]
    for i in range(12):
        write(tmp_path / f"{i}.wav", ["low"], i)
        lines.append(f"{i}.wav,{'low z' if i > 9 else 'low'},{'test' if i > 8 else 'train'}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    data, card = prepared(tmp_path / "out", path=str(tmp_path / "t.csv"))
    assert card.features["units"] == ["l", "o", "w"]
    batch = data.open(tmp_path / "out", card, "test").batch(np.arange(3))
    assert (batch.tensors["targets"] >= 0).sum(1).tolist() == [3, 3, 3]
    assert (batch.tensors["text"] >= 0).sum(1).tolist() == [3, 5, 5]


def test_frames_are_normalised_by_train_and_padding_is_zero(tmp_path: Path) -> None:
    digits(tmp_path / "in")
    data, card = prepared(tmp_path / "out", path=str(tmp_path / "in"), names=NAMES.replace("text", "label"))
    train = data.open(tmp_path / "out", card, "train")
    tensors = train.batch(np.arange(len(train))).tensors
    inside = np.arange(tensors["frames"].shape[1]) < tensors["lengths"].numpy()[:, None]
    frames = tensors["frames"].numpy()
    assert np.abs(frames[inside].mean(0)).max() < 1e-3
    assert np.abs(frames[inside].std(0) - 1).max() < 1e-3
    assert not frames[~inside].any()
    assert list(train.lengths) == tensors["lengths"].tolist()
    fitted = read_json(tmp_path / "out/preprocessing.json")
    assert len(fitted["mean"]) == card.features["n_bins"] == 12
    new = data.read(tmp_path / "out", card, [str(tmp_path / "in/0_a_1.wav"), (tone(["low"], 1), RATE)])
    one, other = (new.batch(np.array([i])).tensors["frames"] for i in (0, 1))
    assert float((one - other).abs().max()) < 0.2


def test_what_cannot_be_prepared_is_one_sentence(tmp_path: Path) -> None:
    digits(tmp_path / "in")
    (tmp_path / "t.csv").write_text("file,label\n0_a_1.wav,x\n")
    for settings, said in (
        ({"path": str(tmp_path / "in"), "names": "("}, "regular expression"),
        ({"path": str(tmp_path / "in"), "names": "(?P<speaker>.*)"}, "group"),
        ({"path": str(tmp_path / "t.csv")}, "data.file"),
        ({"path": str(tmp_path / "nowhere")}, "data.path"),
    ):
        with pytest.raises(UserError, match=said):
            Audio(**settings).prepare(tmp_path, 0, lambda *_: None)
    (tmp_path / "bad").mkdir()
    for i in range(4):
        (tmp_path / "bad" / f"{i}.wav").write_bytes(b"x")
    with pytest.raises(UserError, match="at least three sounds"):
        Audio(path=str(tmp_path / "bad")).prepare(tmp_path, 0, lambda *_: None)


def test_a_batch_in_pieces_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digits(tmp_path / "in")
    augment = {"speed": 0.2, "shift": 0.05, "noise": 1.0, "time_masks": 1, "frequency_masks": 1}
    data, card = prepared(tmp_path / "out", path=str(tmp_path / "in"), names=NAMES, augment=augment)
    train, rows = data.open(tmp_path / "out", card, "train"), np.arange(11)
    whole = train.batch(rows, rows.astype(np.uint64)).tensors
    monkeypatch.setattr(audio_split, "SAMPLES_AT_ONCE", 3000)
    pieces = train.batch(rows, rows.astype(np.uint64)).tensors
    assert torch.equal(whole["lengths"], pieces["lengths"])
    assert torch.allclose(whole["frames"], pieces["frames"], atol=1e-4)
