"""The run folder: durable files, names, the lock's owner, stage records, logs."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from danlu.base.errors import UserError
from danlu.base.logs import _MAX_PENDING_BYTES
from danlu.base.runfolder import (
    MetricsLog,
    RunFolder,
    SampleLog,
    checked_name,
    file_sha256,
    fingerprint,
    read_json,
    write_bytes,
    write_json,
    write_text,
)


def full(fd: int, data: bytes) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_write_replaces_whole_files_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"丹": [1, 2.5, None]})
    write_json(path, {"丹": 2})
    assert read_json(path) == {"丹": 2}
    write_text(tmp_path / "b.txt", "π")
    assert (tmp_path / "b.txt").read_bytes() == b"\xcf\x80"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "b.txt"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    write_bytes(path, b"old")
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_write_does_not_follow_a_link_planted_at_the_name(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("keep")
    (tmp_path / "a").symlink_to(tmp_path / "victim")
    write_text(tmp_path / "a", "new")
    assert (tmp_path / "victim").read_text() == "keep"
    assert not (tmp_path / "a").is_symlink()


@pytest.mark.parametrize("text", ["", "{", '{"a": NaN}', '{"a": 1, "a": 2}', "\xff", "[" * 100_000])
def test_broken_json_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"cannot be read as JSON") as caught:
        read_json(tmp_path / "a.json")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="is missing"):
        read_json(tmp_path / "none.json")


def test_not_a_number_is_never_written_as_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.json"):
        write_json(tmp_path / "a.json", {"x": math.nan})
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "é", "x" * 65, "a\n", "../x", "a\0"])
def test_names_that_are_no_names(name: str) -> None:
    with pytest.raises(UserError, match="1 to 64 letters"):
        checked_name("name", name)


def test_fingerprint_is_of_content_not_order() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert len(fingerprint({})) == 16


def test_create_open_and_foreign_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = RunFolder.create(None, "code-lm", "0123456789abcdef")
    assert run.path == Path("runs/code-lm-01234567")
    with pytest.raises(UserError, match="not a run folder"):
        RunFolder.open(run.path)
    with run.lock():
        pass
    assert RunFolder.open(run.path).checkpoints == run.path / "train" / "checkpoints"
    assert RunFolder.create(None, "code-lm", "0123456789abcdef").path == run.path
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="must be an empty folder"):
        RunFolder.create(tmp_path / "home", "x", "0" * 16)
    with pytest.raises(UserError, match="cannot be used"):
        RunFolder.create(tmp_path / "home" / "thesis.txt", "x", "0" * 16)


def test_the_second_owner_is_told_the_first(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "r", "r", "0" * 16).lock():
        again = RunFolder(tmp_path / "r").lock()
        with pytest.raises(UserError, match=rf"in use by process {os.getpid()} since"), again:
            pass
    with RunFolder(tmp_path / "r").lock():
        assert json.loads((tmp_path / "r" / "lock").read_text())["pid"] == os.getpid()


def test_a_killed_owner_frees_the_lock_though_its_worker_lives(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "r", "r", "0" * 16)
    ready, up = os.pipe()
    stay, end = os.pipe()
    owner = os.fork()
    if owner == 0:
        with run.lock():
            if os.fork() == 0:
                os.close(end)
                os.write(up, b"w")
                os.read(stay, 1)  # lives until the test is over
                os._exit(0)
            signal.pause()
    os.close(stay)
    assert os.read(ready, 1) == b"w"
    with pytest.raises(UserError, match=f"process {owner} "), run.lock():
        pass
    os.kill(owner, signal.SIGKILL)
    os.waitpid(owner, 0)
    with run.lock():
        pass
    os.close(end)


def test_a_dead_owner_is_not_named(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "r", "r", "0" * 16)
    gone = os.fork()
    if gone == 0:
        with run.lock():
            os._exit(0)  # dies with its record in the file
    os.waitpid(gone, 0)
    assert str(gone) in (run.path / "lock").read_text()
    with (run.path / "lock").open() as held:  # the next owner, before it has written its own record
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="is in use by another process"), run.lock():
            pass


def test_stage_records(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "r", "r", "0" * 16)
    with run.lock():
        assert not run.stage_done("prepare", "f1")
        write_bytes(run.path / "out.bin", b"12345")
        run.record_stage("prepare", "f1", 1.5, [run.path / "out.bin"])
        run.record_stage("plan", "f2", 0.1)
    again = RunFolder.open(run.path)
    assert again.stage_done("prepare", "f1")
    assert again.stage_done("plan", "f2")
    assert not again.stage_done("prepare", "other")
    assert again.verify() == []
    (run.path / "out.bin").write_bytes(b"12x45")
    assert again.verify() == ["out.bin (written by prepare) is not the file that was written."]
    (run.path / "out.bin").unlink()
    assert not again.stage_done("prepare", "f1")
    assert again.verify() == ["out.bin (written by prepare) is missing."]


def test_metrics_log_cuts_back_and_bears_a_torn_line(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "train" / "metrics.jsonl")
    for step in range(1, 6):
        assert log.append({"step": step, "loss": math.inf if step == 3 else 1 / 3}) is None
    log.append({"event": "between"})
    log.close()
    with log.path.open("ab") as file:
        file.write(b'{"step": 6, "lo')
    assert [r.get("step") for r in log] == [1, 2, 3, 4, 5, None]
    assert list(log)[2]["loss"] is None
    assert next(iter(log))["loss"] == 1 / 3
    log.append({"step": 6})  # the torn line is cut first
    assert [r.get("step") for r in log] == [1, 2, 3, 4, 5, None, 6]
    log.truncate_after(5)
    assert [r.get("step") for r in log] == [1, 2, 3, 4, 5, None]
    log.truncate_after(2)
    log.append({"step": 3})
    assert [r["step"] for r in log] == [1, 2, 3]
    log.truncate_after(0)
    assert log.path.read_bytes() == b""


def test_a_broken_line_in_the_middle_is_said(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_bytes(b'{"step": 1}\nrubbish\n{"step": 3}\n')
    with pytest.raises(UserError, match="line 2"):
        list(MetricsLog(tmp_path / "m.jsonl"))


def test_logs_survive_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, samples = MetricsLog(tmp_path / "m.jsonl"), SampleLog(tmp_path / "s.bin", 2)
    metrics.append({"step": 1})
    samples.append(1, [7, 8])
    real, calls = os.write, []

    def torn(fd: int, data: bytes) -> int:
        calls.append(fd)
        if len(calls) % 2:
            return real(fd, data[:3])  # a short write, then no space
        return full(fd, data)

    monkeypatch.setattr(os, "write", torn)
    said = [log for step in (2, 3) for log in (metrics.append({"step": step}), samples.append(step, [step, step]))]
    assert [s is None for s in said] == [False, False, True, True], "each log says it once"
    assert "No space left on device" in str(said[0])
    with pytest.raises(OSError, match="No space"):
        metrics.sync()
    assert [r["step"] for r in metrics] == [1], "no torn row is left"
    monkeypatch.undo()
    metrics.append({"step": 4})
    samples.sync()
    assert [r["step"] for r in metrics] == [1, 2, 3, 4], "nothing was lost"
    assert samples.rows().tolist() == [[1, 7, 8], [2, 2, 2], [3, 3, 3]]
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(UserError, match="cannot be written"):
        metrics.append({"step": 5, "text": "x" * _MAX_PENDING_BYTES})


def test_sample_log_cuts_back(tmp_path: Path) -> None:
    log = SampleLog(tmp_path / "s.bin", 3)
    log.truncate_after(0)
    for step in range(1, 50):
        log.append(step, np.arange(3) + 10 * step)
    log.close()
    with log.path.open("ab") as file:
        file.write(b"torn")
    assert log.rows().shape == (49, 4)
    log.truncate_after(30)
    log.append(31, [1, 2, 3])
    assert log.rows()[-2:].tolist() == [[30, 300, 301, 302], [31, 1, 2, 3]]
    assert log.path.stat().st_size == 31 * 32
    with pytest.raises(ValueError, match="2 sample ids"):
        log.append(32, [1, 2])


def test_file_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
