"""Disks that are really too small: a tmpfs of one megabyte where that is permitted, and a limit on file size."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, resource, signal, sys
from pathlib import Path
import torch
from danlu.base.errors import DanluError
from danlu.parallel import checkpoint
from danlu.parallel.checkpoint import CheckpointWriter, Snapshot, load_newest

folder, limit, look_ahead = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "True"
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
if not look_ahead:
    checkpoint.free_bytes = lambda folder: 10**15
writer, events, error = CheckpointWriter(folder / "checkpoints"), [], ""
try:
    for step in range(1, 8):
        n = 1000 if step < 3 else 300_000   # 4 kB, then 1.2 MB
        writer.save(Snapshot(step, {"model": {"w": torch.full((n,), float(step))}}))
        writer.wait()
        events += writer.events()
except DanluError as stopped:
    error = str(stopped)
found, bad = load_newest(folder / "checkpoints")
left = sorted(p.name for p in (folder / "checkpoints").iterdir())
print(json.dumps([events, error, found and found.step, bad, left, bool((found.tensors["model"]["w"] == found.step).all())]))
"""


def check(command: list[str]) -> tuple[list[str], str]:
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False
    )
    assert done.returncode == 0, done.stderr
    events, error, step, bad, left, whole = json.loads(done.stdout)
    assert (step, bad, whole) == (2, [], True), "the last good one loads"
    assert left == ["step-00000001", "step-00000002"], "nothing half-written stays"
    assert len(events) == 2
    assert "3 checkpoints in a row could not be written" in error
    assert "the last good one is step 2" in error
    return events, error


def test_a_limit_on_file_size(tmp_path: Path) -> None:
    _, error = check([sys.executable, "-c", SCRIPT, str(tmp_path), str(1 << 20), "True"])
    assert "File too large" in error


@pytest.mark.parametrize("look_ahead", [True, False])
def test_a_disk_of_one_megabyte(tmp_path: Path, look_ahead: bool) -> None:
    size = "17m" if look_ahead else "1m"  # looking ahead wants 16 MB to spare
    enter = ["unshare", "-Urm", "sh", "-c", f'mount -t tmpfs -o size={size} tmpfs "$0" && exec "$@"', str(tmp_path)]
    if shutil.which("unshare") is None or subprocess.run([*enter, "true"], capture_output=True, check=False).returncode:
        pytest.skip("SKIPPED ALOUD: this machine does not permit a tmpfs of one's own (unshare -Urm, mount)")
    _, error = check([*enter, sys.executable, "-c", SCRIPT, str(tmp_path), "0", str(look_ahead)])
    assert ("MB are free" if look_ahead else "No space left on device") in error
