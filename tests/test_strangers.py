"""A stranger's own table, folder of images and folder of sounds: `danlu init`, `danlu run`, `danlu predict`, no edit."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from danlu import cli


def a_table(folder: Path) -> tuple[str, str]:
    rng = np.random.default_rng(0)
    lines = ["customer_id;age;town;joined;left"]
    for i in range(400):
        age, town = rng.integers(18, 80), rng.choice(["Ulm", "Bonn", "Jena"])
        left = "yes" if age + 20 * (town == "Ulm") + rng.normal(0, 5) > 55 else "no"
        lines.append(f"{i};{age if i % 13 else ''};{town};{rng.integers(1, 29)}.03.2021;{left}")
    (folder / "customers.csv").write_text("\n".join(lines), encoding="utf-8")
    return "customers.csv", "customers.csv"


def some_images(folder: Path) -> tuple[str, str]:
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(42):
        name = ("stripes", "bars", "noise")[i % 3]
        pixels = rng.integers(0, 90, (16, 16, 3), np.uint8)
        pixels[::4] += np.uint8(120 * (name == "stripes"))
        pixels[:, ::4] += np.uint8(120 * (name == "bars"))
        (folder / "photos" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / "photos" / name / f"{i}.{'jpg' if i % 2 else 'png'}")
    return "photos", "photos/bars/1.jpg"


def some_sounds(folder: Path) -> tuple[str, str]:
    import soundfile

    rng = np.random.default_rng(0)
    for i in range(42):
        name, rate = ("low", "high")[i % 2], (8000, 16000)[i % 3 == 0]
        t = np.arange(int(rate * rng.uniform(0.1, 0.2))) / rate
        sound = 0.3 * np.sin(2 * np.pi * (300 if name == "low" else 1200) * t) + 0.02 * rng.normal(size=len(t))
        (folder / "calls" / name).mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / "calls" / name / f"{i}.wav", sound, rate)
    return "calls", "calls/high/1.wav"


@pytest.mark.parametrize("made", [a_table, some_images, some_sounds])
def test_own_data_train_without_an_edit(
    made: Callable[[Path], tuple[str, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    data, one = made(tmp_path)
    for words in (
        ["init", data, "--out", "r.toml"],
        ["run", "r.toml", "--out", "run", "--set", "train.threads=1"],
        ["predict", "run", one, "--out", "found"],
    ):
        with pytest.raises(SystemExit) as stopped:
            cli.main(words)
        said = capsys.readouterr()
        assert stopped.value.code == 0, said.err
    scores = json.loads(Path("run/evaluate/scores.json").read_text(encoding="utf-8"))
    assert scores["metrics"]["accuracy"]["value"] > 0.8
    assert Path("run/report.html").stat().st_size > 10_000
    with Path("found/predictions.csv").open(newline="", encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    assert [row["prediction"] for row in listed] == [json.loads(line)["prediction"] for line in said.out.splitlines()]
    first = json.loads(said.out.splitlines()[0])
    assert first["prediction"] in {"yes", "no", "stripes", "bars", "noise", "low", "high"}
