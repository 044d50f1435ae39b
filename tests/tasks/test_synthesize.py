"""Synthesis: rivals give proper chances and are fitted on train, nats are sums over clips, sounds are written."""

from types import SimpleNamespace

import numpy as np
import pytest

import danlu
from danlu.base.errors import UserError
from danlu.data import mulaw
from danlu.tasks.synthesize import NatsScorer, Synthesize, Truth, file_name
from danlu.tasks.synthesize_rivals import Linear, counted, fitted, rivals, running
from tests.contracts import case_wavenet
from tests.contracts.test_sample_contracts import recipe_of

V = 64
FEATURES = {"levels": V, "level_values": mulaw.values(V).tolist(), "level_borders": mulaw.borders(V).tolist()}


class Clips:
    """Whole clips as a split."""

    def __init__(self, clips):
        self.clips = clips

    def __len__(self):
        return len(self.clips)

    def batch(self, rows, seeds=None):
        import torch

        n = max(len(self.clips[i]) for i in rows)
        levels, targets = np.full((len(rows), n), V // 2), np.full((len(rows), n), -1)
        for place, i in enumerate(rows):
            levels[place, : len(self.clips[i])] = targets[place, : len(self.clips[i])] = self.clips[i]
        return SimpleNamespace(tensors={"levels": torch.from_numpy(levels), "targets": torch.from_numpy(targets)})


def resonance(n_clips, seed):
    """Noise through a resonance whose loudness changes: what a linear predictor is made for."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n_clips):
        x = np.zeros(402)
        loud = 0.02 * np.exp(1.5 * np.sin(np.arange(402) / 60 + rng.uniform(0, 6)))
        for t in range(2, 402):
            x[t] = 1.7 * x[t - 1] - 0.9 * x[t - 2] + loud[t] * rng.normal()
        made.append(mulaw.encoded(x[2:], V))
    return Clips(made)


def test_the_linear_predictor_finds_the_resonance_and_beats_counting():
    train, test = resonance(12, 1), resonance(6, 2)
    linear = fitted(train, FEATURES)
    assert abs(linear.weights[0] - 1.7) < 0.35
    found = rivals(train, test, FEATURES)
    nats = {name: sum(values) / sum(map(len, test.clips)) for name, values in found.items()}
    assert nats["linear predictor"] < nats["levels by the one before"] - 0.2
    assert nats["levels by the one before"] < nats["levels by frequency"] < np.log(V)
    assert all(len(values) == len(test) for values in found.values())


def test_chances_of_all_levels_sum_to_one():
    values, borders = (np.array(FEATURES[k]) for k in ("level_values", "level_borders"))
    linear = Linear(np.array([1.2, -0.4]), values, borders, 0.9, 0.5, 1e-3)
    before = np.array([40, 3, 60, 20])
    rows = np.stack([np.append(before, level) for level in range(V)])
    assert np.exp(-linear.nats(rows)[:, -1]).sum() == pytest.approx(1.0, abs=1e-9)
    unigram, bigram = counted(resonance(3, 0), V)
    assert np.exp(-unigram).sum() == pytest.approx(1.0)
    assert np.allclose(np.exp(-bigram).sum(1), 1.0)


def test_the_linear_predictor_does_not_see_what_it_predicts():
    values, borders = (np.array(FEATURES[k]) for k in ("level_values", "level_borders"))
    linear = Linear(np.array([1.2, -0.4, 0.1]), values, borders)
    levels = np.random.default_rng(0).integers(0, V, (1, 30))
    changed = levels.copy()
    changed[0, 12] = (changed[0, 12] + 9) % V
    a, b = linear.nats(levels)[0], linear.nats(changed)[0]
    assert (a[:12] == b[:12]).all()
    assert a[12] != b[12]
    made, errors = linear.errors(levels)
    x = np.concatenate([np.full(3, values[V // 2]), values[levels[0]]])
    assert np.allclose(made[0], [1.2 * x[t + 2] - 0.4 * x[t + 1] + 0.1 * x[t] for t in range(30)])
    assert np.allclose(running(np.abs(errors), 0.9, 0.5)[0, :2], [0.5, 0.9 * 0.5 + 0.1 * abs(errors[0, 0])])


def test_scores_are_sums_over_clips():
    truths = [Truth(4, 10, 0), Truth(4, 30, 0), Truth(7, 60, 1)]
    scorer = NatsScorer([20.0, 50.0, 130.0], truths)
    assert scorer.n_units == 2
    assert scorer.values()["nats_per_sample"] == pytest.approx(2.0)
    assert scorer.values(np.array([0, 0]))["nats_per_sample"] == pytest.approx(70 / 40)
    assert scorer.values()["bits_per_sample"] == pytest.approx(2 / np.log(2))


def test_clips_are_made_written_and_the_same_again(tmp_path):
    recipe = recipe_of(case_wavenet.CASES["waveform"], tmp_path)
    run = danlu.run(recipe, tmp_path / "run")
    forms = [panel["form"] for panel in run.scores.panels]
    assert forms == ["listing", "clips", "clips"]
    assert [len(panel["items"]) for panel in run.scores.panels[1:]] == [2, 2]
    made = []
    for out in ("a", "b"):
        rows = list(run.predict(["high, ada, seconds=0.04", "low"], tmp_path / out))
        assert rows[0] == {"name": "high-ada", "seconds": 0.04, "file": "high-ada-0000.wav"}
        made.append([(tmp_path / out / row["file"]).read_bytes() for row in rows])
    assert made[0] == made[1]
    assert len(made[0][0]) == 44 + 2 * 80
    with pytest.raises(UserError, match="must be one of"):
        list(run.predict(["middle"]))


def test_file_names_are_plain():
    assert file_name(SimpleNamespace(name=lambda row: "a/b: ü"), 3) == "a_b__ü-0003.wav"


def test_other_data_is_refused():
    card = SimpleNamespace(features={}, kind="table")
    with pytest.raises(UserError, match="waveforms"):
        Synthesize().check(card)
