"""Are spoken digits that danlu makes recognised by danlu's own recogniser, which never heard them?

    DANLU_DATA=... python benchmarks/spoken_digits.py [--speech RUN] [--wavenet RUN] [--clips 20]

Trains recipes/fsdd-speech.toml and recipes/fsdd-wavenet.toml, or takes the runs that are named. The WaveNet makes 20 clips
of each digit, of speakers and durations drawn by the seed, none selected; the recogniser writes down what it hears. Right is
the digit's word and nothing else. Beside it stand the real test clips (recordings 0 to 4, which neither has learned from),
as they are and through the 256 levels that the WaveNet speaks in. Intervals: Wilson (1927), 95%; chance is one in ten.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

import danlu
from danlu.base.sound import wav_bytes
from danlu.data.mulaw import encoded, values
from danlu.data.samples import source_files
from danlu.pipeline import open_run

ROOT = Path(__file__).resolve().parents[1]
RESULT = Path(__file__).with_suffix(".md")
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
Z, CHANCE, RATE = 1.959964, 0.1, 8000


def wilson(n_right: int, n: int) -> tuple[float, float]:
    """95% interval of a share."""
    share = n_right / n
    middle, half = share + Z**2 / (2 * n), Z * sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return (middle - half) / (1 + Z**2 / n), (middle + half) / (1 + Z**2 / n)


def recognised(speech: Any, files: list[Path]) -> Counter[tuple[str, bool]]:
    """How often clips, whose names begin with their digit, are heard as such: (digit, right) -> times."""
    heard = [row["prediction"] for row in speech.predict([str(path) for path in files])]
    return Counter((path.name[0], text == WORDS[int(path.name[0])]) for path, text in zip(files, heard, strict=True))


def through_levels(files: list[Path], folder: Path) -> list[Path]:
    """The same clips with every sample at the nearest of 256 levels."""
    import soundfile

    folder.mkdir()
    for path in files:
        samples, rate = soundfile.read(path)
        (folder / path.name).write_bytes(wav_bytes(values(256)[encoded(samples, 256)], rate))
    return [folder / path.name for path in files]


def row_of(name: str, counts: Counter[tuple[str, bool]]) -> str:
    """One line of the table."""
    n, n_right = counts.total(), sum(k for (_, right), k in counts.items() if right)
    low, high = wilson(n_right, n)
    verdict = "above" if low > CHANCE else "not above"
    return f"| {name} | {n} | {n_right / n:.3f} | {low:.3f} to {high:.3f} | {verdict} |"


def main() -> None:
    """Train or open, make, listen, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speech", type=Path)
    parser.add_argument("--wavenet", type=Path)
    parser.add_argument("--clips", type=int, default=20)
    given = parser.parse_args()
    os.environ["DANLU_DATA"] = str(Path(os.environ["DANLU_DATA"]).resolve())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        runs = {}
        for name in ("speech", "wavenet"):
            path = getattr(given, name)
            recipe = ROOT / f"recipes/fsdd-{name}.toml"
            runs[name] = open_run(path) if path else danlu.run(recipe, folder / name)
        began = time.perf_counter()
        asked = [str(digit) for digit in range(10) for _ in range(given.clips)]
        made = [folder / "made" / row["file"] for row in runs["wavenet"].predict(asked, folder / "made")]
        seconds = time.perf_counter() - began
        real = source_files("$DANLU_DATA/fsdd/recordings/*_[0-4].wav")
        counts = {
            "made by the WaveNet": recognised(runs["speech"], made),
            "real test clips through 256 levels": recognised(runs["speech"], through_levels(real, folder / "real")),
            "real test clips": recognised(runs["speech"], real),
        }
        length = np.mean([(path.stat().st_size - 44) / 2 / RATE for path in made])
    ours = counts["made by the WaveNet"]
    rows = [row_of(name, found) for name, found in counts.items()]
    by_digit = [f"| {d} | {ours[str(d), True]} of {given.clips} |" for d in range(10)]
    head = runs["wavenet"].scores.metrics["nats_per_sample"]
    notes = (
        f"The WaveNet's test nats a sample: {head.value:.4f} ({head.low:.4f} to {head.high:.4f}). {len(made)} clips of "
        f"{length:.2f} s on average were made in {seconds:.0f} s."
    )
    text = [
        "# Spoken digits, made and recognised", "", (__doc__ or "").split("\n\n")[2].replace("\n", " ").strip(), "",
        "| clips | number | recognised | 95% | chance (0.1) |", "|---|---|---|---|---|", *rows, "", notes, "",
        "| digit made | recognised |", "|---|---|", *by_digit, "",
    ]  # fmt: skip
    RESULT.write_text("\n".join(text), encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
