"""Bugs put in on purpose, one at a time, into a copy of danlu: the fault tests must find every one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUICK = [
    "tests/faults/test_crash_points.py",
    "tests/parallel/test_checkpoint.py",
    "tests/base/test_runfolder.py",
    "tests/faults/test_corruption.py",
    "tests/faults/test_lock_race.py",
]
LOOP = ["tests/faults/test_training_faults.py::test_killed_200_times"]
WRITER, FILES, TENSORS = "parallel/checkpoint.py", "parallel/checkpoint_files.py", "parallel/tensorfile.py"
FOLDER, LOGS, STATE = "base/runfolder.py", "base/logs.py", "training/state.py"
BUGS: dict[str, tuple[str, str, str]] = {
    "the name before the bytes": (WRITER, 'self.folder / f".tmp-{folder_name(step)}"', "self.folder / folder_name(step)"),
    "files not synced": (TENSORS, "        os.fsync(fd)\n", ""),
    "names of the files not synced": (WRITER, "        fsync_folder(temporary)\n", ""),
    "the new name not synced": (WRITER, "        fsync_folder(self.folder)\n", ""),
    "old ones removed first": (WRITER, "            self._check_space(len(state))\n", "            self._retire()\n"),
    "removed file by file": (WRITER, "        path.rename(gone)\n        shutil.rmtree(gone)", "        shutil.rmtree(path)"),
    "space not looked at": (WRITER, "            self._check_space(len(state))\n", ""),
    "left overs of a failed save stay": (WRITER, "            shutil.rmtree(temporary, ignore_errors=True)\n", ""),
    "copied too late": (WRITER, "slot.copy_(source, non_blocking=True)", "slot.set_(source)"),
    "logs not synced first": (WRITER, "if self._before_publish is not None:", "if False:"),
    "failures not counted": (WRITER, "self._n_failures += 1", "self._n_failures = 1"),
    "the best one retired": (WRITER, "wanted = len(kept) < self.keep or", "wanted = len(kept) < self.keep or False and"),
    "bad ones counted as kept": (WRITER, "elif self._is_good(step):", "elif True:"),
    "errors of the thread swallowed": (WRITER, "                self._error = error\n", "                del error\n"),
    "the manifest's own hash not checked": (FILES, "files) == raw", "files) is not None"),
    "hashes not checked": (FILES, 'if digest != known["sha256"]:', "if False:"),
    "extra files not seen": (FILES, "        if entry.name not in files:\n", "        if False:\n"),
    "missing files not seen": (FILES, "return faults + [", "return faults or [] and ["),
    "the folder's name not compared": (FILES, 'if folder_name(found["step"]) != path.name:', "if False:"),
    "a shard of another step": (FILES, "    if metadata != {", "    if metadata == {"),
    "ordered by clock": (FILES, "reverse=True)", "key=lambda s: (Path(folder) / folder_name(s)).stat().st_mtime, reverse=True)"),
    "ordered as text": (FILES, "reverse=True)", "key=str, reverse=True)"),
    "oldest first": (FILES, "reverse=True)", ")"),
    "a cut replacement not finished": (FILES, "    restore_replaced(folder)\n", ""),
    "tensors may overlap": (TENSORS, "if e.start != end:", "if False:"),
    "short files believed": (TENSORS, "if 8 + length + end != n_bytes:", "if False:"),
    "the lock is shared": (FOLDER, "fcntl.LOCK_EX", "fcntl.LOCK_SH"),
    "workers keep the lock": (FOLDER, "    for fd in _held:\n        os.close(fd)\n", ""),
    "an old owner is named": (FOLDER, 'and _alive(int(record["pid"]))', "and True"),
    "outputs not looked at": (FOLDER, "return all(_size", "return True or all(_size"),
    "one row too many is kept": (LOGS, 'row.get("step", 0) > step', 'row.get("step", 0) > step + 1'),
    "one id row too few is kept": (LOGS, 'side="right"', 'side="left"'),
    "torn rows stay": (LOGS, "            os.ftruncate(self._fd, self._size)\n            raise", "            raise"),
    "rows are lost on a full disk": (LOGS, "        except OSError:\n", "        except OSError:\n            self._pending.clear()\n"),
}  # fmt: skip
LOOP_BUGS: dict[str, tuple[str, str, str]] = {
    "the average is not restored": (STATE, 'value.copy_(saved.tensors["ema"][name])', "value.add_(0)"),
    "the optimizer is not restored": (STATE, 'optimizer.load(saved.tensors["optimizer"])', "optimizer.zero_grad()"),
    "the metrics are not cut back": (LOGS, "        self._cut(size)", "        return"),
    "the sample ids are not cut back": (LOGS, "            self._cut(int(", "            print(int("),
}


def found_by_tests(tmp_path: Path, bug: tuple[str, str, str], tests: list[str]) -> bool:
    """Whether any of the tests fails on a copy of danlu that has the bug."""
    file, right, wrong = bug
    for name in ("danlu", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    path = tmp_path / "danlu" / file
    text = path.read_text()
    assert right in text, f"{file} has changed: the bug has no place any more; write it anew"
    path.write_text(text.replace(right, wrong, 1))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode in (0, 1), done.stdout[-3000:] + done.stderr
    return done.returncode == 1


@pytest.mark.slow
def test_a_copy_without_a_bug_passes(tmp_path: Path) -> None:
    assert not found_by_tests(tmp_path, (WRITER, "import json", "import json"), QUICK + LOOP)


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_in_the_files_is_found(tmp_path: Path, bug: str) -> None:
    assert found_by_tests(tmp_path, BUGS[bug], QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("bug", LOOP_BUGS)
def test_a_bug_in_the_loop_is_found(tmp_path: Path, bug: str) -> None:
    assert found_by_tests(tmp_path, LOOP_BUGS[bug], LOOP)
