"""What a training uses: seconds and peak memory over all its processes, for the scorecard. Kept in train/usage.json.

Every checkpoint carries the counts so far, so a resume adds to them. Memory is the most that the process held since
training opened (Linux: VmHWM of /proc/self/status after a reset; what earlier stages still hold in the same process counts,
as it does for the machine), and on a GPU the most that PyTorch's allocator gave out there.
"""

from __future__ import annotations

import gc
import time
from contextlib import suppress
from pathlib import Path

import torch

from danlu.base import native
from danlu.base.runfolder import RunFolder, write_json
from danlu.training.state import Position


class Usage:
    """Counts one process's part of a training."""

    def __init__(self, run: RunFolder, device: torch.device) -> None:
        self.path, self.device, self.opened = run.train / "usage.json", device, time.perf_counter()
        self.can_reset = reset_peak(device)
        self.startup_s, self.peak_bytes, self.was_finished = 0.0, 0, False

    def start(self, position: Position) -> None:
        """Training is open and the first step comes next."""
        self.startup_s, self.peak_bytes = position.startup_s, position.peak_bytes
        self.was_finished = bool(position.finished)
        if not self.was_finished:
            self.startup_s += time.perf_counter() - self.opened

    def note(self, position: Position) -> None:
        """Bring the counts up to date, before a checkpoint takes them along. (A roll-back takes the position back, not
        what was used.)"""
        if self.can_reset:
            self.peak_bytes = max(self.peak_bytes, peak_bytes(self.device))
        position.startup_s, position.peak_bytes = self.startup_s, self.peak_bytes

    def close(self, position: Position, since_last_step_s: float) -> None:
        """Write usage.json; a run that was finished before is left as it was counted then."""
        if self.was_finished and self.path.is_file():
            return
        closing_s = 0.0 if self.was_finished else since_last_step_s
        self.note(position)
        used = {
            "train_s": position.startup_s + position.elapsed_s + closing_s,
            "startup_s": position.startup_s,
            "elapsed_s": position.elapsed_s,
            "closing_s": closing_s,
            "peak_bytes": position.peak_bytes or None,
            "step": position.step,
            "n_steps": position.n_steps,
            "finished": position.finished,
        }
        with suppress(OSError):  # a full disk: the checkpoints have said so, and this must not hide their word
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, used)


def reset_peak(device: torch.device) -> bool:
    """Forget the peak so far, and what earlier work left freed but not handed back; False where the system cannot."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    gc.collect()
    native.give_freed_memory_back()
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5): resets VmHWM
    except OSError:
        return False
    return True


def peak_bytes(device: torch.device) -> int:
    """The most memory in use since the reset, of the GPU or of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
