"""Sound files are looked at before they are decoded, resampled, and rejected by name and reason."""

import struct
from pathlib import Path

import numpy as np
import pytest

from danlu.base.errors import UserError
from danlu.base.sound import wav_bytes
from danlu.data.audio_read import Limits, as_samples, decoded, missing_bytes, resampled
from danlu.data.table_read import Intake

soundfile = pytest.importorskip("soundfile")
RATE = 8000
LIMITS = Limits(RATE, 0.05, 2.0)


def tone(hertz: float = 440.0, rate: int = RATE, seconds: float = 0.5) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)


def reason(path: Path, limits: Limits = LIMITS) -> str:
    intake = Intake()
    assert decoded(path, limits, intake) is None
    assert sum(intake.reasons.values()) == len(intake.rejected) == 1
    assert intake.rejected[0]["row"] == path.name
    return intake.rejected[0]["reason"]


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg"])
def test_formats_are_read_mixed_down_and_resampled(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"tone.{ending}"
    left = tone(440, 16_000)
    soundfile.write(path, np.stack([left, 0 * left], 1), 16_000)
    found = decoded(path, LIMITS, Intake())
    assert found is not None
    assert found.dtype == np.float32
    assert len(found) == 4000
    assert np.abs(found[200:-200] - tone()[200:-200] / 2).max() < 0.03


@pytest.mark.parametrize(("a", "b"), [(16_000, 8000), (8000, 11_025), (44_100, 16_000)])
def test_resampling_keeps_a_tone(a: int, b: int) -> None:
    found = resampled(tone(300, a).astype(np.float32), a, b)
    assert len(found) == -(-int(a * 0.5) * b // a)
    inner = slice(b // 20, len(found) - b // 20)
    assert np.abs(found[inner] - tone(300, b, 1.0)[: len(found)][inner]).max() < 5e-3


def test_files_that_cannot_be_used_are_rejected_by_reason(tmp_path: Path) -> None:
    made = {
        "empty": b"",
        "noise": b"not a sound at all" * 20,
        "no frames": wav_bytes(np.zeros(0), RATE),
        "silent": wav_bytes(np.zeros(4000), RATE),
        "short": wav_bytes(tone()[:100], RATE),
        "long": wav_bytes(tone(seconds=3), RATE),
        "cut": wav_bytes(tone(), RATE)[:3000],
    }
    wanted = {
        "empty": "empty", "noise": "not a sound file that can be read", "no frames": "empty", "silent": "silent",
        "short": "shorter than data.shortest", "long": "longer than data.longest", "cut": "truncated",
    }  # fmt: skip
    for name, data in made.items():
        (tmp_path / f"{name}.wav").write_bytes(data)
    assert {name: reason(tmp_path / f"{name}.wav") for name in made} == wanted
    broken = tone()
    broken[7] = np.nan
    soundfile.write(tmp_path / "nan.wav", broken, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "loud.wav", tone() * 1e8, RATE, subtype="FLOAT")
    assert reason(tmp_path / "nan.wav") == "not finite"
    assert reason(tmp_path / "loud.wav") == "values far beyond full scale"
    soundfile.write(tmp_path / "half.flac", np.random.default_rng(0).normal(size=8000) * 0.1, RATE)
    (tmp_path / "half.flac").write_bytes((tmp_path / "half.flac").read_bytes()[:4000])
    assert reason(tmp_path / "half.flac") in ("truncated", "not a sound file that can be read")
    assert reason(tmp_path / "none.wav") == "not a sound file that can be read"


def test_a_header_that_lies_costs_no_memory(tmp_path: Path) -> None:
    """64 channels at a rate of 1 MHz and two hours: refused by the header, and by what its data would take."""
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 0xFFFFFFFF, b"WAVE", b"fmt ", 16, 1, 64, 1_000_000,
                       128_000_000, 128, 16, b"data", 0xFFFFFFF0)  # fmt: skip
    path = tmp_path / "lie.wav"
    with path.open("wb") as file:
        file.write(head)
        file.truncate(1 << 30)  # a sparse file
    assert reason(path) == "longer than data.longest"
    assert reason(path, Limits(RATE, 0, 3600, max_bytes=1 << 28)) == "too large to decode"


def test_an_odd_or_endless_data_chunk_is_not_truncated(tmp_path: Path) -> None:
    whole = wav_bytes(tone(), RATE)
    path = tmp_path / "stream.wav"
    path.write_bytes(whole[:40] + b"\xff\xff\xff\xff" + whole[44:])
    assert missing_bytes(path) == 0
    path.write_bytes(whole[:36] + b"LIST" + struct.pack("<I", 3) + b"abc\0" + whole[36:])
    assert missing_bytes(path) == 0
    path.write_bytes(whole[:-10])
    assert missing_bytes(path) == 10


def test_values_from_python() -> None:
    whole = np.round(tone(seconds=0.25) * 32767).astype(np.int16)
    assert np.abs(as_samples(whole, LIMITS) - tone(seconds=0.25)).max() < 1e-4
    assert len(as_samples((tone(440, 16_000), 16_000), LIMITS)) == 4000
    with pytest.raises(UserError, match="silent"):
        as_samples(np.zeros(4000), LIMITS)
    with pytest.raises(UserError, match="array"):
        as_samples(np.array(["a"]), LIMITS)
