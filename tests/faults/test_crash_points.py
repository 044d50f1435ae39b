"""Every call of a save that changes the disk, as the last one before a crash or a power cut, or as one that fails."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from disk import Crash, Disk

from danlu.base.errors import DanluError
from danlu.parallel.checkpoint import CheckpointWriter, Snapshot, load_newest, steps_in


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk here is the stand-in; the machine's own need not be waited for."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def snapshot(step: int) -> Snapshot:
    generator = torch.Generator().manual_seed(step)
    weights = {f"w{i}": torch.randn(5, 7, generator=generator) for i in range(3)}
    rng = {"cpu": torch.randint(0, 256, (64,), dtype=torch.uint8, generator=generator)}
    return Snapshot(step, {"model": weights, "optimizer": {"w0/step": torch.tensor(step)}, "rng": rng}, {"at": step})


def is_step(found: Snapshot | None, step: int) -> bool:
    want = snapshot(step)
    return (
        found is not None
        and (found.step, found.state) == (step, want.state)
        and all(torch.equal(found.tensors[g][k], t) for g, group in want.tensors.items() for k, t in group.items())
    )


def save(folder: Path, step: int, keep: int = 1) -> CheckpointWriter:
    writer = CheckpointWriter(folder, keep=keep, asynchronous=False)
    writer.save(snapshot(step))
    return writer


def crashed_save(start: Path, folder: Path, at: int, action: str, step: int = 2) -> tuple[Disk, bool, bool]:
    """A save of `step` into a copy of `start` that crashes at call `at`: (disk, whether it crashed, was published)."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(start, folder)
    disk, writer = Disk(folder, at, action), None
    try:
        with disk:
            writer = CheckpointWriter(folder, keep=1, asynchronous=False)
            writer.save(snapshot(step))
    except Crash:
        pass
    return disk, disk.crashed, writer is not None and writer.last_step == step


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """A folder with steps 0 (to be retired) and 1, and what an earlier crash left behind."""
    folder = tmp_path / "start"
    save(folder, 0, keep=2)
    save(folder, 1, keep=2)
    shutil.copytree(folder / "step-00000000", folder / ".tmp-step-00000002")
    return folder


@pytest.mark.parametrize("action", ["crash", "torn"])
def test_a_crash_at_any_call_leaves_the_old_or_the_new(start: Path, tmp_path: Path, action: str) -> None:
    folder, at, outcomes = tmp_path / "run", 0, []
    while True:
        _, crashed, published = crashed_save(start, folder, at, action)
        if not crashed:
            break
        found, events = load_newest(folder)
        assert events == [], f"no half checkpoint may be seen (call {at})"
        assert is_step(found, 2 if published else found.step if found else -1), f"call {at}"
        assert found is not None
        assert found.step in (1, 2)
        outcomes.append(found.step)
        save(folder, 3)  # and the next process goes on, and cleans up
        assert [p.name for p in folder.iterdir()] == ["step-00000003"], f"call {at}"
        at += 1
    assert outcomes == sorted(outcomes), "once the new one is there, it stays"
    assert len(outcomes) > 30
    assert {1, 2} <= set(outcomes)


LOSSES: dict[str, Callable[[tuple[str, str, str]], bool]] = {
    "all names": lambda change: True,
    "no names": lambda change: False,
    "renames": lambda change: change[0] == "rename",
    "new files": lambda change: change[0] == "create",
    "the new name": lambda change: change[2].endswith("step-00000002") and change[0] == "rename",
}


@pytest.mark.parametrize("keep", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("losses", LOSSES)
def test_a_power_cut_at_any_call_leaves_the_old_or_the_new(
    start: Path, tmp_path: Path, losses: str, keep: float
) -> None:
    folder, at = tmp_path / "run", 0
    while True:
        disk, crashed, published = crashed_save(start, folder, at, "crash")
        disk.cut_power(LOSSES[losses], keep)
        found, events = load_newest(folder)
        assert events == [], f"call {at}: {disk.calls[-1]}"
        assert found is not None, f"call {at}: {disk.calls[-1]}"
        assert is_step(found, 2) or (is_step(found, 1) and not published), f"call {at}: {disk.calls[-1]}"
        if not crashed:
            break
        at += 1
    assert at > 30
    assert is_step(found, 2), "a save that came back is there for good"


def test_a_crash_while_a_step_is_replaced(tmp_path: Path) -> None:
    start, folder, at = tmp_path / "start", tmp_path / "run", 0
    old = CheckpointWriter(start, asynchronous=False)
    old.save(snapshot(1))
    old.save(Snapshot(2, {"model": {}}, {"given up": True}))
    while True:
        _, crashed, published = crashed_save(start, folder, at, "crash")
        found, events = load_newest(folder)
        assert events == []
        given_up = found is not None and found.state == {"given up": True}
        assert is_step(found, 2) or (given_up and not published), f"call {at}"
        if not crashed:
            break
        at += 1
    assert is_step(found, 2)


def test_a_crash_in_recovery(start: Path, tmp_path: Path) -> None:
    """Setting a bad one aside is itself killed at every call; the next recovery ends the same."""
    (start / "step-00000002").mkdir()
    folder, at = tmp_path / "run", 0
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(start, folder)
        disk = Disk(folder, at)
        try:
            with disk:
                load_newest(folder)
        except Crash:
            pass
        assert is_step(load_newest(folder)[0], 1)
        assert steps_in(folder) == [1, 0]
        assert (folder / "step-00000002.bad-1").exists()
        if not disk.crashed:
            break
        at += 1
    assert at >= 2


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EACCES, errno.EROFS])
@pytest.mark.parametrize("n_errors", [1, 10**9])
def test_a_call_that_fails_costs_one_save_at_most(start: Path, tmp_path: Path, number: int, n_errors: int) -> None:
    """Any error at any call: no exception, one sentence, the last good one loads, and the next save succeeds."""
    folder, at, told = tmp_path / "run", 0, 0
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(start, folder)
        writer = CheckpointWriter(folder, keep=1, asynchronous=False)
        with Disk(folder, at, number, n_errors=n_errors) as disk:
            writer.save(snapshot(2))
        events = writer.events()
        found, bad = load_newest(folder)
        assert bad == []
        assert is_step(found, 2) or (is_step(found, 1) and len(events) == 1), f"{disk.calls[at]}: {events}"
        assert all("\n" not in e and e.endswith(".") for e in events)
        told += len(events)
        if n_errors == 1 and writer.last_step != 2:
            assert not list(folder.glob(".tmp-*")), disk.calls[at]
        writer.save(snapshot(3))
        assert is_step(load_newest(folder)[0], 3)
        assert steps_in(folder) == [3]
        if len(disk.calls) <= at:
            break
        at += 1
    assert at > 30
    assert told > 20


def test_three_failed_saves_in_a_row_stop_with_one_sentence(start: Path) -> None:
    writer = CheckpointWriter(start, keep=1)
    with Disk(start, 0, errno.ENOSPC, only=("write",), n_errors=10**9):
        writer.save(snapshot(2))
        writer.save(snapshot(3))
        writer.save(snapshot(4))
        with pytest.raises(DanluError, match=r"No space left on device.*last good one is step 1.*Fix: ") as caught:
            writer.wait()
    assert "\n" not in str(caught.value)
    assert len(writer.events()) == 3
    assert is_step(load_newest(start)[0], 1)
    writer.save(snapshot(5))
    writer.close()
    assert is_step(load_newest(start)[0], 5)
