"""Frames against ten plain lines; augmentation as a pure function of each sample's seed."""

import math

import numpy as np
import pytest
import torch

from danlu.base.errors import UserError
from danlu.data.audio_augment import AudioAugment, Draws, at_speed, changed, later, masked, noises, noisy
from danlu.data.audio_features import FLOOR, Spectrum

RATE = 8000
RNG = np.random.default_rng(0)


def by_hand(wave: np.ndarray, spectrum: Spectrum) -> np.ndarray:
    """Log-mel or MFCC of one sound, frame by frame, without FFT."""
    window, hop, n_fft = spectrum.sizes(RATE)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    turn = np.exp(-2j * np.pi * np.outer(np.arange(n_fft // 2 + 1), np.arange(window)) / n_fft)
    mel, hertz = lambda f: 2595 * np.log10(1 + f / 700), lambda m: 700 * (10 ** (m / 2595) - 1)
    edges = hertz(np.linspace(mel(spectrum.low), mel(RATE / 2), spectrum.n_mels + 2))
    bins = np.arange(n_fft // 2 + 1) * RATE / n_fft
    padded, frames = np.pad(wave, window), []
    for t in range(len(wave) // hop + 1):
        first = window + t * hop - window // 2
        power = np.abs(turn @ (hann * padded[first : first + window])) ** 2 / window
        if spectrum.form == "log_spectrogram":
            frames.append(np.log(power + FLOOR))
            continue
        bands = [np.interp(bins, edges[m : m + 3], [0, 1, 0]) @ power for m in range(spectrum.n_mels)]
        frames.append(np.log(np.array(bands) + FLOOR))
    found = np.array(frames)
    if spectrum.form == "mfcc":
        from scipy.fft import dct

        found = dct(found, type=2, norm="ortho", axis=1)[:, : spectrum.n_coefficients]
    return found


@pytest.mark.parametrize("form", ["log_mel", "mfcc", "log_spectrogram"])
def test_frames_are_those_of_the_formula(form: str) -> None:
    pytest.importorskip("scipy")
    spectrum = Spectrum(form=form, n_mels=20, n_coefficients=8)  # type: ignore[arg-type]
    wave = RNG.normal(size=1500).astype(np.float32) * 0.1
    found = spectrum.frames(torch.from_numpy(wave)[None], RATE)[0].numpy()
    assert found.shape == (spectrum.n_frames(np.array([1500]), RATE)[0], spectrum.n_bins(RATE))
    assert np.abs(found - by_hand(wave, spectrum)).max() < 2e-3


def test_frames_do_not_depend_on_padding() -> None:
    spectrum, wave = Spectrum(), torch.from_numpy(RNG.normal(size=(1, 1234)).astype(np.float32))
    n = int(spectrum.n_frames(np.array([1234]), RATE)[0])
    short, long = spectrum.frames(wave, RATE), spectrum.frames(torch.nn.functional.pad(wave, (0, 999)), RATE)
    assert torch.equal(short[:, :n], long[:, :n])


def test_a_spectrum_that_cannot_be_is_refused() -> None:
    for wrong in ({"high": 5000.0}, {"low": 4000.0}, {"n_mels": 500}, {"form": "mfcc", "n_coefficients": 41}):
        with pytest.raises(UserError):
            Spectrum(**wrong).check(RATE)


HOW = AudioAugment(speed=0.2, shift=0.02, gain=6, noise=0.7, time_masks=2, frequency_masks=2)


def test_each_sample_is_changed_by_its_own_seed_alone() -> None:
    lengths = np.array([900, 1500, 1200])
    waves = np.where(np.arange(1500) < lengths[:, None], RNG.normal(size=(3, 1500)), 0).astype(np.float32)
    seeds = np.array([5, 6, 7], np.uint64)
    whole, n_whole = changed(waves, lengths, Draws(seeds), HOW, RATE)
    for i in range(3):
        one, n_one = changed(waves[i : i + 1, : lengths[i]], lengths[i : i + 1], Draws(seeds[i : i + 1]), HOW, RATE)
        assert n_one[0] == n_whole[i]
        assert np.allclose(one[0], whole[i, : n_one[0]], atol=1e-5)
        assert not whole[i, n_one[0] :].any()
    frames = torch.ones(3, 40, 10)
    n_frames = np.array([20, 40, 30])
    masks = masked(frames, n_frames, Draws(seeds), HOW)
    assert torch.equal(masks[1:2], masked(frames[1:2], n_frames[1:2], Draws(seeds[1:2]), HOW))
    assert 0 < int((masks == 0).sum()) < masks.numel()


def test_speed_moves_a_tone_and_its_end() -> None:
    wave = np.sin(2 * np.pi * 500 * np.arange(4000) / RATE).astype(np.float32)[None]
    found, n = at_speed(wave, np.array([4000]), np.array([1.25], np.float32))
    assert n[0] == math.floor(3999 / 1.25) + 1
    wanted = np.sin(2 * np.pi * 625 * np.arange(n[0]) / RATE)
    assert np.abs(found[0, 2 : n[0] - 2] - wanted[2:-2]).max() < 0.02
    same, n = at_speed(wave, np.array([4000]), np.array([1.0], np.float32))
    assert np.array_equal(same, wave)
    assert n[0] == 4000


def test_silence_before_and_after() -> None:
    waves = np.array([[1, 2, 3, 0], [4, 5, 0, 0]], np.float32)
    found, n = later(waves, np.array([3, 2]), np.array([1, 0]), np.array([0, 2]))
    assert n.tolist() == [4, 4]
    assert found.tolist() == [[0, 1, 2, 3], [4, 5, 0, 0]]


def test_noise_is_as_loud_as_asked() -> None:
    assert all(abs(float(np.square(noise).mean()) - 1) < 0.01 for noise in noises())
    wave = np.sin(np.arange(20_000) / 3).astype(np.float32)[None].repeat(4, 0)
    how = AudioAugment(noise=1.0, noise_level=(12.0, 12.0))
    added = noisy(wave, np.full(4, 20_000), Draws(np.arange(4, dtype=np.uint64)), how) - wave
    decibels = 10 * np.log10(np.square(wave).mean(1) / np.square(added).mean(1))
    assert np.abs(decibels - 12).max() < 1.5
