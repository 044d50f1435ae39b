"""The judgement on made-up records: each fault is named, its healthy counterpart is met with silence."""

import dataclasses
import json
import math

import numpy as np
import pytest

from danlu.trust.batches import label_numbers
from danlu.trust.diagnose import Diagnosis
from danlu.trust.findings import CAUSES, Finding
from danlu.trust.residual import forecast

N = 200


def healthy(n=N, seed=0):
    """Records of an ordinary run."""
    rng = np.random.default_rng(seed)
    records = []
    for step in range(1, n + 1):
        y = label_numbers(rng.integers(0, 4, 32))
        record = {
            "step": step, "loss": float(1.4 * math.exp(-step / 80) + 0.3 + 0.03 * rng.normal()), "norm": 1.0, "lr": 1e-3,
            "zero": [],
            "batch": {"n": 32, "repeat": 0.0, "held": 0, "n_held": 32, "mean": y.mean(0).tolist(),
                      "var": y.var(0, ddof=1).tolist(), "follows": 0.1},
        }  # fmt: skip
        if step == 1:
            record["start"] = {"n_steps": n, "epoch": 500.0, "first": 1.45, "blank": 1.386, "held_twins": 0.0}
            record["start"]["held_var"] = y.var(0, ddof=1).tolist()
        if step % 10 == 0:
            matrices = {f"{i}": [1.0, 0.3 + 0.1 * i, 0.003] for i in range(6)}
            record["layers"] = {"matrices": matrices, "still": [], "dead": {"1": 0.1}, "rows": 32}
        if step % 30 == 0:
            record["gain"] = [-0.02, -0.018]
            record["probe"] = [0.8, 0.79]
        if step == 33:
            record["pool"] = {"deciding": 0.3, "feature": "age", "shifts": {"0": 0.4, "1": 0.0}}
        records.append(record)
    return records


def judged(records):
    diagnosis = Diagnosis()
    return [finding for record in records for finding in diagnosis.see(record)]


def changed(change, first=1):
    records = healthy()
    for record in records[first - 1 :]:
        change(record)
    return records


def layers(**values):
    def change(record):
        if "layers" in record:
            record["layers"] = record["layers"] | values

    return change


def faded(factor):
    return layers(matrices={f"{i}": [1.0, factor if i < 3 else 1.0, 0.003] for i in range(6)})


def at(key, value):
    def change(record):
        if key in record:
            record[key] = record[key] | value if isinstance(value, dict) else value

    return change


def in_turn(record):
    y = label_numbers(np.full(32, record["step"] // 20 % 4))
    record["batch"] |= {"mean": y.mean(0).tolist(), "var": y.var(0).tolist()}


def given(**values):
    return lambda record: record.update(values)


FAULTS = [
    ("initial loss", at("start", {"first": 3.0})),
    ("cannot learn one batch", lambda r: r.update(one_batch={"first": 1.4, "last": 1.38, "constant": 1.3}) if r["step"] == 30 else None),
    ("missing gradient", given(zero=["blocks.0.weight"])),
    ("frozen weights", layers(still=["head.weight"])),
    ("duplicated batches", at("batch", {"repeat": 0.5})),
    ("unshuffled data", in_turn),
    ("unshuffled data", at("batch", {"follows": 0.97})),
    ("shifted labels", at("pool", {"shifts": {"0": 0.01, "1": 0.4}})),
    ("shifted labels", at("pool", {"offsets": {"0": 0.05, "1": 0.06, "2": 1.0}})),
    ("shifted labels", at("pool", {"moved": {"-1": 9.0, "1": -3.0}})),
    ("dead units", layers(dead={"1": 0.9})),
    ("vanishing gradient", faded(1e-4)),
    ("exploding gradient", faded(1e4)),
    ("exploding gradient", lambda r: r.update(norm=1.04 ** r["step"])),
    ("rate too high", at("gain", [-0.02, -0.005])),
    ("rate too low", at("gain", [-0.0002, -0.0002])),
    ("label noise", at("probe", [1.5, 0.7])),
    ("leakage", at("pool", {"deciding": 0.99})),
    ("leakage", at("batch", {"held": 5})),
]  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_a_healthy_run_is_met_with_silence(seed):
    assert judged(healthy(400, seed)) == []


@pytest.mark.parametrize(("name", "change"), FAULTS)
def test_a_fault_is_named(name, change):
    assert [f.name for f in judged(changed(change))] == [name]


def test_a_loss_that_leaves_its_curve_is_noticed_soon():
    found = judged(changed(lambda r: r.update(loss=r["loss"] + 0.6), first=141))
    assert [f.name for f in found] == ["off the curve"]
    assert 141 < found[0].step <= 165
    assert "standard deviations" in found[0].says


def test_one_hard_batch_and_a_falling_loss_are_no_departure():
    spike = healthy()
    spike[150]["loss"] += 5
    assert judged(spike) == []
    assert judged(changed(lambda r: r.update(loss=0.5 * r["loss"]), first=141)) == []


def test_what_moved_with_it_is_suspected():
    def change(record):
        record["loss"] += 0.6
        record["norm"] = 8.0

    assert "gradients that grew" in judged(changed(change, first=141))[0].sentence


def test_the_forecast_goes_on_in_a_line_and_never_up():
    assert forecast([5 - 0.5 * i for i in range(12)], 2) == pytest.approx([-1.0, -1.5])
    assert forecast([1 + 0.5 * i for i in range(4)], 2) == pytest.approx([1.75, 1.75])


def test_few_data_that_come_again_are_no_duplicates():
    records = changed(at("batch", {"repeat": 0.5}))
    records[0]["start"]["epoch"] = 6.0
    assert judged(records) == []


@pytest.mark.parametrize(("targets", "gain", "is_named"), [(512, 0.5, True), (8192, 0.5, False), (8192, 0.2, True)])
def test_in_larger_updates_a_well_set_rate_gains_less(targets, gain, is_named):
    records = changed(at("gain", [-0.02, -0.02 * gain]))
    records[0]["start"]["targets"] = targets
    assert [f.name for f in judged(records)] == ["rate too high"] * is_named


def test_it_goes_on_from_its_json_as_if_nothing_had_been():
    records = changed(lambda r: r.update(loss=r["loss"] + 0.6), first=141)
    whole = judged(records)
    diagnosis = Diagnosis()
    found = [f for record in records[:150] for f in diagnosis.see(record)]
    again = Diagnosis(**json.loads(json.dumps(dataclasses.asdict(diagnosis))))
    assert found + [f for record in records[150:] for f in again.see(record)] == whole


def test_every_finding_has_suspects_and_a_way_out():
    for name in CAUSES:
        sentence = Finding(name, 3, "seen").sentence
        assert sentence.startswith(f"alarm, {name} at step 3: seen. Suspects: ")
        assert " Fix: " in sentence
