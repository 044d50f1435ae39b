"""Tones of two pitches by two players, named like spoken digits, with files that cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from danlu.base.sound import wav_bytes

Sections = dict[str, Any]
RATE = 2000
NAMES = "(?P<pitch>[a-z]+)_(?P<player>[a-z]+)_[0-9]+"


def tones(folder: Path, n: int = 40) -> Path:
    """Clips of 60 to 120 samples; one file is no sound, one has another name."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(n):
        t = np.arange(60 + 3 * (i % 20)) / RATE
        pitch, player = ("low", "high")[i % 2], ("ada", "bob")[i // 2 % 2]
        sound = (0.5 if player == "ada" else 0.2) * np.sin(2 * np.pi * (120 if pitch == "low" else 400) * t)
        (folder / f"{pitch}_{player}_{i}.wav").write_bytes(wav_bytes(sound + 0.01 * rng.normal(size=len(t)), RATE))
    (folder / "low_ada_99.wav").write_bytes(b"not a sound")
    (folder / "noise.wav").write_bytes(wav_bytes(rng.normal(size=80), RATE))
    return folder


def waveform(**data: Any) -> Callable[[Path], Sections]:
    """A small WaveNet on them."""

    def made(folder: Path) -> Sections:
        path = str(tones(folder / "sounds"))
        source = {"kind": "waveform", "path": path, "rate": RATE, "levels": 32, "context": 16, "longest": 10}
        model = {"kind": "wavenet", "width": 12, "skip": 16, "cycles": 2, "dilations": 3, "knots": 4 if data else 0}
        return {
            "data": source | {"names": NAMES} | data,
            "model": model,
            "task": {"kind": "synthesize", "clips": 2},
            "train": {"batch": 6},
        }

    return made


CASES: dict[str, Callable[[Path], Sections]] = {
    "waveform": waveform(conditions=["pitch", "player"], window=64, gain_jitter=3.0),
    "waveform alone": waveform(),
}
EXACT = {"waveform"}
