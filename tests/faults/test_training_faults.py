"""The real training loop, killed, starved of disk and signalled: it always ends where the undisturbed run does, bit
for bit (weights, optimizer state, average, state, sample ids, loss curve). The experiments are in harness.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MEMORY = Path("/dev/shm")
"""A file system in memory: a killed process loses nothing of it either, and fsync costs nothing."""


def experiment(tmp_path: Path, what: str, *numbers: int, timeout_s: float = 590) -> dict[str, Any]:
    """What the harness found, in a process of its own (it forks, so it must not inherit threads)."""
    place = MEMORY if os.access(MEMORY, os.W_OK) else tmp_path
    command = [sys.executable, str(ROOT / "tests/faults/harness.py"), what, str(place), *map(str, numbers)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=timeout_s, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(what, {k: v for k, v in found.items() if k != "wrong"})
    assert found["wrong"] == []
    return found


def test_killed_200_times(tmp_path: Path) -> None:
    found = experiment(tmp_path, "kills", 200, 1)
    assert found["kills"] == 200
    assert found["in recovery"] >= 20
    assert found["while saving"] >= 20


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_killed_5000_times(tmp_path: Path) -> None:
    found = experiment(tmp_path, "kills", 5000, 2, timeout_s=7000)
    assert found["in recovery"] >= 500
    assert found["while saving"] >= 500


def test_crash_at_every_40th_call_of_a_run(tmp_path: Path) -> None:
    assert experiment(tmp_path, "calls", 40, 3)["crashes"] >= 8


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_crash_at_every_call_of_a_run(tmp_path: Path) -> None:
    assert experiment(tmp_path, "calls", 1, 0, timeout_s=7000)["crashes"] >= 300


def test_no_space_at_every_12th_write(tmp_path: Path) -> None:
    found = experiment(tmp_path, "full", 12, 0)
    assert found["survived"] >= 5
    assert found["stopped"] >= 1


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_no_space_at_every_write(tmp_path: Path) -> None:
    assert experiment(tmp_path, "full", 1, 0, timeout_s=7000)["writes"] >= 100


def test_sigterm_and_sigint_save_and_say_so(tmp_path: Path) -> None:
    assert experiment(tmp_path, "signals", 12, 1)["stopped"] >= 12


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_sigterm_and_sigint_500_times(tmp_path: Path) -> None:
    assert experiment(tmp_path, "signals", 500, 2, timeout_s=7000)["stopped"] >= 500
