"""Checkpoints: what is saved comes back bit for bit, what is bad is never believed, retention keeps the right ones."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from pathlib import Path

import pytest
import safetensors.torch
import torch

from danlu.base.errors import DanluError, GateError, UserError
from danlu.base.runfolder import RunFolder
from danlu.parallel import checkpoint, tensorfile
from danlu.parallel.checkpoint import (
    CheckpointWriter,
    Snapshot,
    load,
    load_best,
    load_newest,
    steps_in,
    verify,
    verify_run,
)
from danlu.parallel.checkpoint_files import folder_name, manifest_bytes


def snapshot(step: int, n: int = 10) -> Snapshot:
    torch.manual_seed(step)
    model = {
        "a.weight": torch.randn(n, 3).T,  # not contiguous
        "a.bias": torch.randn(n).bfloat16(),
        "half": torch.randn(3).half(),
        "empty": torch.empty(0, 4),
        "scalar": torch.tensor(1.5, dtype=torch.float64),
    }
    optimizer = {"a.weight/step": torch.tensor(step), "a.weight/sign": torch.tensor([True, False])}
    rng = {"cpu": torch.get_rng_state()}
    return Snapshot(step, {"model": model, "optimizer": optimizer, "ema": {}, "rng": rng}, {"best": 1 / 3, "丹": [1]})


def same(a: Snapshot, b: Snapshot) -> bool:
    def bits(s: Snapshot) -> dict[tuple[str, str], tuple[torch.dtype, torch.Size, bytes]]:
        flat = {(g, k): t for g, tensors in s.tensors.items() for k, t in tensors.items()}
        return {
            k: (t.dtype, t.shape, t.contiguous().view(-1).view(torch.uint8).numpy().tobytes()) for k, t in flat.items()
        }

    return (a.step, a.state, set(a.tensors), bits(a)) == (b.step, b.state, set(b.tensors), bits(b))


def saved(folder: Path, *steps: int, keep: int = 9) -> None:
    writer = CheckpointWriter(folder, keep=keep)
    for step in steps:
        writer.save(snapshot(step))
    writer.close()


@pytest.mark.parametrize("asynchronous", [True, False])
def test_what_is_saved_comes_back_bit_for_bit(tmp_path: Path, asynchronous: bool) -> None:
    writer = CheckpointWriter(tmp_path, asynchronous=asynchronous)
    taken, wanted = snapshot(200), snapshot(200)
    writer.save(taken)
    for tensors in taken.tensors.values():
        for tensor in tensors.values():
            tensor.zero_()  # training goes on at once
    writer.close()
    found, events = load_newest(tmp_path)
    assert found is not None
    assert same(found, wanted)
    assert events == writer.events() == verify(tmp_path / "step-00000200") == []
    assert writer.last_step == 200


def test_files_are_safetensors_both_ways(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    want = snapshot(1).tensors["model"]
    theirs = safetensors.torch.load_file(tmp_path / "step-00000001" / "model.safetensors")
    assert theirs.keys() == want.keys()
    assert all(torch.equal(theirs[k], want[k]) and theirs[k].dtype == want[k].dtype for k in want)
    path = tmp_path / "theirs.safetensors"
    safetensors.torch.save_file({k: t.contiguous() for k, t in want.items()}, path)
    ours = tensorfile.parse(tensorfile.read_file(path, path.stat().st_size)[0])[1]
    assert ours.keys() == want.keys()
    assert all(torch.equal(ours[k], want[k]) and ours[k].dtype == want[k].dtype for k in want)


def test_every_type_of_tensor(tmp_path: Path) -> None:
    tensors = {str(d): torch.arange(7).to(d) for d in tensorfile.DTYPES.values()}
    writer = CheckpointWriter(tmp_path)
    writer.save(Snapshot(1, {"model": tensors}))
    writer.close()
    found = load(tmp_path / "step-00000001").tensors["model"]
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].view(torch.uint8).equal(tensor.view(torch.uint8))
    with pytest.raises(TypeError, match=r"z: tensors of torch\.complex64"):
        writer.save(Snapshot(2, {"model": {"z": torch.zeros(1, dtype=torch.complex64)}}))


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xff" * 8,
        (2**40).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        *(
            len(h).to_bytes(8, "little") + h + b"\0" * 8
            for h in (
                b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}',
                b'{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}}',
                b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
                b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[4,0]}}',
                b'{"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}',
                b'{"a":{"dtype":"PY","shape":[2],"data_offsets":[0,8]}}',
                b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
                b'{"a":7}',
                b"{}",
                b"{",
            )
        ),
    ],
)
def test_insane_headers_are_refused(head: bytes) -> None:
    with pytest.raises(ValueError):
        tensorfile.parse(
            torch.frombuffer(bytearray(head), dtype=torch.uint8) if head else torch.empty(0, dtype=torch.uint8)
        )


def test_newest_is_by_step_never_by_clock(tmp_path: Path) -> None:
    saved(tmp_path, 9, 100, 99_999_999, 100_000_000)
    for i, step in enumerate(reversed(steps_in(tmp_path))):
        os.utime(tmp_path / folder_name(step), (10**9 - i, 10**9 - i))
    assert steps_in(tmp_path) == [100_000_000, 99_999_999, 100, 9]
    found, _ = load_newest(tmp_path)
    assert found is not None
    assert found.step == 100_000_000
    assert load_newest(tmp_path, at_most=5000)[0].step == 100  # type: ignore[union-attr]


def test_a_bad_one_is_set_aside_and_said(tmp_path: Path) -> None:
    for _ in range(2):
        saved(tmp_path, 100, 200)
        path = tmp_path / "step-00000200" / "model.safetensors"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        with pytest.raises(GateError, match=r"model\.safetensors: does not match its SHA-256"):
            load(tmp_path / "step-00000200")
        found, events = load_newest(tmp_path)
        assert found is not None
        assert same(found, snapshot(100))
        assert len(events) == 1
    assert events[0] == (
        "step-00000200 is set aside as step-00000200.bad-2 (model.safetensors: does not match its SHA-256); "
        "the one before it is used."
    )
    assert {p.name for p in tmp_path.iterdir()} == {"step-00000100", "step-00000200.bad-1", "step-00000200.bad-2"}


def test_a_checkpoint_of_another_step_is_not_believed(tmp_path: Path) -> None:
    saved(tmp_path, 100, 200)
    (tmp_path / "step-00000200").rename(tmp_path / "step-00000300")
    assert verify(tmp_path / "step-00000300") == ["step-00000300: manifest.json is that of step 200."]
    # even when whoever moved a file also wrote a manifest for it
    shutil.copy(tmp_path / "step-00000100" / "model.safetensors", tmp_path / "step-00000300" / "model.safetensors")
    files = {
        p.name: {"bytes": p.stat().st_size, "sha256": checkpoint.tensorfile.read_file(p, p.stat().st_size)[1]}
        for p in (tmp_path / "step-00000300").iterdir()
        if p.name != "manifest.json"
    }
    (tmp_path / "step-00000300" / "manifest.json").write_bytes(manifest_bytes(300, False, files))
    faults = verify(tmp_path / "step-00000300")
    assert any("model.safetensors: is that of another step or group" in f for f in faults)
    assert any("state.json: is that of another step" in f for f in faults)


def test_a_link_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, 100)
    path = tmp_path / "step-00000100" / "model.safetensors"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert verify(path.parent) == ["step-00000100: model.safetensors is not a plain file."]


def test_a_disk_that_cannot_read_is_a_fault_and_missing_rights_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, 100, 200)

    def broken(path: Path, size: int) -> None:
        raise OSError(number, os.strerror(number))

    number = errno.EACCES
    monkeypatch.setattr(tensorfile, "read_file", broken)
    with pytest.raises(UserError, match="cannot be read"):
        load_newest(tmp_path)
    assert steps_in(tmp_path) == [200, 100], "nothing is set aside for missing rights"
    number = errno.EIO
    found, events = load_newest(tmp_path)
    assert found is None
    assert len(events) == 2


def test_retention_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path, keep=2)
    for step in range(1, 8):
        writer.save(snapshot(step), is_best=step in (1, 3))
    writer.close()
    assert steps_in(tmp_path) == [7, 6, 3]
    best, _ = load_best(tmp_path)
    assert best is not None
    assert best.step == 3
    again = CheckpointWriter(tmp_path, keep=1)
    again.save(snapshot(8), is_best=True)
    again.close()
    assert steps_in(tmp_path) == [8]
    with pytest.raises(UserError, match=r"checkpoint\.keep"):
        CheckpointWriter(tmp_path, keep=0)


def test_retention_counts_good_ones_only(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2, 3)
    (tmp_path / "step-00000003" / "state.json").write_bytes(b"{}")
    writer = CheckpointWriter(tmp_path, keep=2)
    writer.save(snapshot(4))
    writer.wait()
    assert steps_in(tmp_path) == [4, 2]
    assert "step-00000003 is set aside" in writer.events()[0]


def test_old_ones_go_only_when_the_new_one_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, 1)
    order: list[str] = []
    real_sync, real_rename = os.fsync, os.rename

    def fsync(fd: int) -> None:
        order.append("fsync " + Path(os.readlink(f"/proc/self/fd/{fd}")).name)
        real_sync(fd)

    def rename(a: str, b: str, **kwargs: int) -> None:
        order.append(f"rename {Path(a).name} {Path(b).name}")
        real_rename(a, b, **kwargs)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    saved(tmp_path, 2, keep=1)
    files = ["model.safetensors", "optimizer.safetensors", "ema.safetensors", "rng.safetensors", "state.json"]
    assert order == [
        *(f"fsync {name}" for name in [*files, "manifest.json", ".tmp-step-00000002"]),
        "rename .tmp-step-00000002 step-00000002",
        f"fsync {tmp_path.name}",
        "rename step-00000001 .tmp-gone-step-00000001",
    ]


def test_the_same_step_again_replaces_it(tmp_path: Path) -> None:
    saved(tmp_path, 5)
    writer = CheckpointWriter(tmp_path)
    writer.save(Snapshot(5, {"model": {"x": torch.ones(1)}}, {"second": True}))
    writer.close()
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000005"]
    assert load(tmp_path / "step-00000005").state == {"second": True}
    (tmp_path / "step-00000005").rename(tmp_path / "step-00000005.old")  # a crash between the two renames
    assert load_newest(tmp_path)[0].state == {"second": True}  # type: ignore[union-attr]


def test_left_over_folders_are_cleaned(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    for name in (".tmp-step-00000002", ".tmp-gone-step-00000000", "step-00000001.old"):
        shutil.copytree(tmp_path / "step-00000001", tmp_path / name)
    CheckpointWriter(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def test_save_does_not_wait_for_the_disk_and_one_is_in_flight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, real = threading.Event(), tensorfile.write_file

    def slow(path: Path, parts: list[bytes | memoryview]) -> object:
        gate.wait(10)
        return real(path, parts)

    monkeypatch.setattr(tensorfile, "write_file", slow)
    writer = CheckpointWriter(tmp_path)
    writer.save(snapshot(1))
    assert steps_in(tmp_path) == [], "save() came back before a byte was written"
    second = threading.Thread(target=writer.save, args=(snapshot(2),))
    second.start()
    second.join(0.1)
    assert second.is_alive(), "the second waits for the first"
    gate.set()
    second.join()
    writer.close()
    assert steps_in(tmp_path) == [2, 1]
    assert same(load(tmp_path / "step-00000001"), snapshot(1))


def test_buffers_are_reused_and_follow_a_new_layout(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path, keep=9)
    n_bytes = writer.reserve(snapshot(1))
    where = {name: group.data.data_ptr() for name, group in writer._groups.items()}
    for step in (1, 2):
        writer.save(snapshot(step))
    writer.wait()
    assert {name: group.data.data_ptr() for name, group in writer._groups.items()} == where
    assert writer.reserve(snapshot(3, n=11)) > n_bytes
    writer.save(snapshot(3, n=11))
    writer.close()
    for step, n in ((1, 10), (2, 10), (3, 11)):
        assert same(load(tmp_path / folder_name(step)), snapshot(step, n))


def test_no_space_is_seen_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, 1)
    monkeypatch.setattr(checkpoint, "free_bytes", lambda folder: 1_000_000)
    monkeypatch.setattr(tensorfile, "write_file", lambda path, parts: pytest.fail("wrote all the same"))
    writer = CheckpointWriter(tmp_path)
    writer.save(snapshot(2))
    writer.wait()
    assert writer.events() == [
        "The checkpoint of step 2 could not be written (it needs 17 MB and 1 MB are free); the last good one is step 1."
    ]
    writer.save(snapshot(3))
    writer.save(snapshot(4))
    with pytest.raises(DanluError, match=r"3 checkpoints in a row .* Fix: free some space"):
        writer.close()
    assert steps_in(tmp_path) == [1]


def test_a_bug_in_the_thread_is_not_swallowed(tmp_path: Path) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    writer = CheckpointWriter(tmp_path, before_publish=broken)
    writer.save(snapshot(1))
    with pytest.raises(ZeroDivisionError):
        writer.save(snapshot(2))
    assert steps_in(tmp_path) == []


def test_without_a_thread_it_is_written_at_once_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    writer = CheckpointWriter(tmp_path)
    writer.save(snapshot(3))
    assert steps_in(tmp_path) == [3]
    assert writer.events() == ["training waited for a checkpoint: can't start new thread"]
    writer.close()


def test_a_checkpoint_is_never_ahead_of_its_logs(tmp_path: Path) -> None:
    def no_logs() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = CheckpointWriter(tmp_path, before_publish=no_logs)
    writer.save(snapshot(1))
    writer.wait()
    assert "No space left on device" in writer.events()[0]
    assert list(tmp_path.iterdir()) == []


def test_verify_run_names_every_fault(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "r", "r", "0" * 16)
    with run.lock():
        run.data.mkdir()
        (run.data / "card.json").write_text("{}")
        run.record_stage("prepare", "f", 0.0, [run.data / "card.json"])
        saved(run.checkpoints, 1, 2)
    assert verify_run(run) == []
    (run.data / "card.json").write_text("[]")
    (run.checkpoints / "step-00000001" / "rng.safetensors").unlink()
    assert verify_run(run) == [
        "data/card.json (written by prepare) is not the file that was written.",
        "step-00000001: rng.safetensors is missing.",
    ]
