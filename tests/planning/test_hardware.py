"""What the machine is: plausible, refused when it is not there, and quick to measure."""

import json
import time

import pytest
import torch

from danlu.base.errors import UserError
from danlu.planning import hardware


def test_look_says_what_is_there():
    machine = hardware.look("cpu")
    assert machine.device == "cpu"
    assert 1 <= machine.n_cores == machine.threads
    assert machine.cpu
    assert 10**8 < machine.available_bytes <= machine.memory_bytes
    assert hardware.look("cpu", threads=3).threads == 3
    assert json.loads(json.dumps(machine.to_json()))["device"] == "cpu"
    assert machine.cpu in str(machine)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(UserError, match=r"train\.device"):
        hardware.look("cuda")
    assert hardware.look("auto").device == "cpu"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_matmul_rate(precision):
    torch.set_num_threads(1)
    began = time.perf_counter()
    rate = hardware.matmul_rate(hardware.look("cpu", threads=1), precision, limit_s=0.1)
    assert rate.precision == precision
    assert 0.05 < rate.low <= rate.gflops <= rate.high
    assert rate.n_repeats >= 3
    assert time.perf_counter() - began < 60  # without bf16 in hardware a product may take seconds


def test_two_threads_of_a_core_count_once(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(hardware, "siblings", lambda cpu: f"{cpu % 2},{cpu % 2 + 2}")
    monkeypatch.setattr(hardware, "cgroup_number", lambda _: None)
    assert hardware.usable_cores() == 2
    monkeypatch.setattr(hardware, "cgroup_number", lambda _: 1.5)
    assert hardware.usable_cores() == 1


def test_a_container_s_memory_limit_is_respected(monkeypatch):
    monkeypatch.setattr(hardware, "cgroup_number", {"memory.max": 3e8, "memory.current": 1e8}.get)
    assert hardware.memory() == (300_000_000, 200_000_000)
