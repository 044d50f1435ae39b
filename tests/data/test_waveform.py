"""Waveforms: levels by mu-law, every sample exactly once, pieces with what came before, dirty files."""

import io
import wave
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from danlu.base.errors import UserError
from danlu.base.sound import wav_bytes
from danlu.data import mulaw
from danlu.data.samples import in_pieces
from danlu.data.waveform import Waveform
from danlu.data.waveform_split import Cut
from tests.contracts.case_wavenet import NAMES, RATE, tones

QUIET = lambda what, done, total: None  # noqa: E731


def prepared(folder: Path, path: Path, **settings):
    source = Waveform(path=str(path), rate=RATE, **({"names": NAMES, "conditions": ("pitch", "player")} | settings))
    (folder / "data").mkdir()
    return source, source.prepare(folder / "data", 0, QUIET), folder / "data"


def compand(x: float, levels: int) -> int:
    """van den Oord et al. 2016, section 2.2, and rounding to the nearest level."""
    mu = levels - 1
    f = np.sign(x) * np.log(1 + mu * abs(x)) / np.log(1 + mu)
    return int(np.floor((f + 1) / 2 * mu + 0.5))


@pytest.mark.parametrize("levels", [4, 32, 255, 256])
def test_levels_are_those_of_the_formula(levels):
    x = np.concatenate([np.linspace(-1, 1, 301), [0.0, 1e-6, -1e-6, 3.0, -3.0]])
    assert mulaw.encoded(x, levels).tolist() == [compand(float(np.clip(v, -1, 1)), levels) for v in x]
    assert (mulaw.encoded(mulaw.values(levels), levels) == np.arange(levels)).all()
    edges = mulaw.borders(levels)
    assert (mulaw.encoded(edges - 1e-9, levels) == np.arange(levels - 1)).all()
    assert (mulaw.encoded(edges + 1e-9, levels) == np.arange(1, levels)).all()
    assert mulaw.encoded(np.zeros(1), levels)[0] == levels // 2


def test_pieces_hold_every_sample_once():
    lengths = np.array([1, 7, 8, 9, 40])
    cut = Cut.of(lengths, 8)
    for clip, n in enumerate(lengths):
        mine = cut.clip == clip
        at = np.concatenate([np.arange(s, s + k) for s, k in zip(cut.start[mine], cut.n[mine], strict=True)])
        assert (at == np.arange(n)).all()
    assert cut.n.max() <= 8


@pytest.mark.parametrize("window", [16, 50, 1000])
def test_scoring_covers_every_sample_of_every_clip_once(window, tmp_path):
    path = tones(tmp_path / "sounds")
    source, card, folder = prepared(tmp_path, path, window=window, context=20, levels=32)
    assert card.rows_in == card.rows_used + sum(card.rows_rejected.values()) == 42
    assert set(card.rows_rejected) == {"not a sound file that can be read", "name does not match data.names"}
    total = 0
    for side, counted in card.splits.items():
        split = source.open(folder, card, side)
        assert len(split) == counted.n_samples
        seen = {}
        for rows in chain.from_iterable(in_pieces(split, 7)):
            batch = split.batch(rows)
            tensors = {k: v.numpy() for k, v in batch.tensors.items()}
            for i in range(len(tensors["clip"])):
                inside = tensors["targets"][i] >= 0
                first = tensors["span"][i, 0]
                assert (tensors["levels"][i][inside] == tensors["targets"][i][inside]).all()
                for at in np.flatnonzero(inside):
                    key = (int(tensors["clip"][i]), int(first + at))
                    assert key not in seen
                    seen[key] = int(tensors["levels"][i, at])
                lead = int(np.argmax(inside))
                assert lead == min(20, first + lead)
        names = split.names
        for clip, name in enumerate(names):
            with wave.open(str(path / name)) as file:
                pcm = np.frombuffer(file.readframes(-1), "<i2")
            levels = mulaw.encoded(np.round(pcm / 32768 * 32767) / 32767, 32)
            assert [seen.pop((clip, t)) for t in range(len(levels))] == levels.tolist()
            total += len(levels)
        assert not seen
        assert counted.n_targets == sum(
            int((split.batch(rows).tensors["targets"] >= 0).sum()) for rows in chain.from_iterable(in_pieces(split, 9))
        )
    assert total > 0


def test_context_holds_what_came_before(tmp_path):
    source, card, folder = prepared(tmp_path, tones(tmp_path / "sounds"), window=32, context=24, levels=32)
    split = source.open(folder, card, "train")
    row = int(np.flatnonzero(split.cut.start > 24)[0])
    piece = split.batch(np.array([row])).tensors
    clip, start, n = split.cut.clip[row], split.cut.start[row], split.cut.n[row]
    whole = mulaw.encoded(split.samples[split.offsets[clip] : split.offsets[clip + 1]] / 32767, 32)
    assert (piece["levels"][0].numpy() == whole[start - 24 : start + n]).all()
    assert piece["span"][0].tolist() == [start - 24, len(whole)]


def test_training_pieces_follow_from_their_seed_alone(tmp_path):
    source, card, folder = prepared(tmp_path, tones(tmp_path / "sounds"), window=32, context=24, gain_jitter=6.0)
    split = source.open(folder, card, "train")
    seeds = np.arange(3, dtype=np.uint64) * np.uint64(2**50) + np.uint64(7)
    rows = np.array([4, 0, 9])
    one = split.batch(rows, seeds).tensors
    again = split.batch(rows[1:2], seeds[1:2]).tensors
    n = again["levels"].shape[1]
    assert (one["levels"][1, :n] == again["levels"][0]).all()
    assert (one["targets"][1] >= 0).sum() == split.cut.n[0]
    starts = {int(split.batch(rows[:1], np.array([s], np.uint64)).tensors["span"][0, 0]) for s in range(40)}
    assert len(starts) > 5


def test_what_is_fitted_comes_from_train_alone(tmp_path):
    path = tones(tmp_path / "sounds")
    (path / "squeak_eve_7.wav").write_bytes(wav_bytes(np.sin(np.arange(300.0)), RATE))
    given = {"kind": "given", "test": str(path / "squeak*.wav")}
    _, card, _ = prepared(tmp_path, path, split=given)
    assert card.features["values"] == [["high", "low"], ["ada", "bob"]]
    assert card.splits["test"].n_samples == 1
    assert sum(card.features["level_counts"]) == card.splits["train"].n_targets
    assert max(map(max, card.features["durations"])) < 300
    assert any("a value that training does not hold" in warning for warning in card.warnings)


def test_silence_is_trimmed_and_gain_evened(tmp_path):
    source = Waveform(path="x", rate=1000, trim=30.0, gain="peak")
    sound = np.concatenate([np.zeros(100), 0.1 * np.sin(np.arange(200)), np.full(95, 1e-4)]).astype(np.float32)
    found = source.cleaned(sound)
    assert len(found) == 200
    assert abs(np.abs(found).max() / 32767 - 0.95) < 1e-3


def test_a_clip_is_asked_for_in_words(tmp_path):
    source, card, folder = prepared(tmp_path, tones(tmp_path / "sounds"))
    asked = source.read(
        folder, card, ["low", "low", "low, bob, seconds=0.05", {"player": "ada", "pitch": "high", "seed": 3}]
    )
    assert [asked.name(2), asked.name(3)] == ["low-bob", "high-ada"]
    rows = asked.batch(np.arange(4)).tensors
    assert rows["n_samples"][2] == round(0.05 * RATE)
    assert rows["seeds"][0] != rows["seeds"][1]
    same = source.read(folder, card, ["low"]).batch(np.arange(1)).tensors
    assert all((same[k][0] == rows[k][0]).all() for k in rows)
    for wrong in ("middle", "low, seconds=0", "low, seconds=x", "low, seed=-1", "low, loudness=3"):
        with pytest.raises(UserError, match="predict"):
            source.read(folder, card, [wrong])


def test_wrong_settings_are_one_sentence(tmp_path):
    path = tones(tmp_path / "sounds")
    with pytest.raises(UserError, match=r"data\.conditions must be among pitch, player, folder"):
        Waveform(path=str(path), names=NAMES, conditions=("speaker",)).expected()
    with pytest.raises(UserError, match="regular expression"):
        Waveform(path=str(path), names="(?P<pitch")
    with pytest.raises(UserError, match="three sounds"):
        prepared(tmp_path, path, names="(?P<pitch>x)(?P<player>y)")


def test_a_clip_written_is_the_clip_read(tmp_path):
    levels = np.arange(256)
    data = wav_bytes(mulaw.values(256)[levels], 8000)
    with wave.open(io.BytesIO(data)) as file:
        pcm = np.frombuffer(file.readframes(-1), "<i2")
    assert (mulaw.encoded(pcm / 32767, 256) == levels).all()
