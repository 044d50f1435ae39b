"""Tones in class folders, with broken files; and tones with transcripts, in a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from danlu.base.sound import wav_bytes

Sections = dict[str, Any]
RATE = 4000
TONES = {"low": 300.0, "mid": 700.0, "high": 1300.0}
SPECTRUM = {"n_mels": 12, "hop": 0.02, "window": 0.04}
MODEL = {
    "kind": "deepspeech", "channels": [4], "kernels": [[5, 5]], "strides": [[2, 2]], "width": 12, "n_layers": 1,
}  # fmt: skip


def tone(words: list[str], seed: int) -> np.ndarray:
    """A tone for each word, with silence between, in a little noise."""
    rng = np.random.default_rng(seed)
    parts = [np.zeros(200)]
    for word in words:
        n = int(rng.integers(600, 900))
        parts += [0.3 * np.sin(2 * np.pi * TONES[word] * np.arange(n) / RATE), np.zeros(200)]
    sound = np.concatenate(parts)
    return sound + 0.002 * rng.normal(size=len(sound))


def class_folders(folder: Path, n: int = 48) -> Path:
    """Sounds in a folder for each tone; one file is no sound, one is silent, one too short."""
    names = list(TONES)
    for i in range(n):
        place = folder / "sounds" / names[i % 3]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i}.wav").write_bytes(wav_bytes(tone([names[i % 3]], i), RATE))
    (folder / "sounds/low/broken.wav").write_bytes(b"not a sound")
    (folder / "sounds/low/silent.wav").write_bytes(wav_bytes(np.zeros(2000), RATE))
    (folder / "sounds/high/short.wav").write_bytes(wav_bytes(tone(["low"], 1)[:20], RATE))
    return folder / "sounds"


def spoken_table(folder: Path, n: int = 48) -> Path:
    """One to three tones a sound and their names, in a CSV with a path that is not there and an empty transcript."""
    (folder / "wavs").mkdir(parents=True, exist_ok=True)
    lines = ["path,text,speaker"]
    rng = np.random.default_rng(0)
    for i in range(n):
        words = [list(TONES)[k] for k in rng.integers(0, 3, 1 + i % 3)]
        (folder / "wavs" / f"{i}.wav").write_bytes(wav_bytes(tone(words, i), RATE))
        lines.append(f"wavs/{i}.wav,{' '.join(words).title()}!,{'abcdef'[i % 6]}")
    lines += ["wavs/none.wav,low,a", "wavs/1.wav,,a"]
    (folder / "clips.csv").write_text("\n".join(lines))
    return folder / "clips.csv"


def classes(folder: Path) -> Sections:
    """Which tone."""
    augment = {"shift": 0.05, "gain": 6, "noise": 0.5, "time_masks": 1, "frequency_masks": 1}
    return {
        "data": {"kind": "audio", "path": str(class_folders(folder)), "spectrum": SPECTRUM, "augment": augment},
        "model": MODEL,
        "task": {"kind": "classify"},
        "train": {"batch": 8},
    }


def transcripts(**model: Any) -> Callable[[Path], Sections]:
    """Which tones, one after another."""

    def made(folder: Path) -> Sections:
        split = {"kind": "group", "column": "speaker", "validation": 0.2, "test": 0.2}
        data = {"kind": "audio", "path": str(spoken_table(folder)), "spectrum": SPECTRUM, "split": split}
        return {
            "data": data | {"augment": {"speed": 0.1}, "unit": "words" if model else "characters"},
            "model": MODEL | model,
            "task": {"kind": "transcribe", "beam": 4 if model else 1},
            "train": {"batch": 8},
        }

    return made


CASES: dict[str, Callable[[Path], Sections]] = {
    "audio classes": classes,
    "transcribe characters": transcripts(),
    "transcribe words": transcripts(cell="rnn", directions="forward", lookahead=2, n_dense=1),
}
EXACT = {"audio"}
