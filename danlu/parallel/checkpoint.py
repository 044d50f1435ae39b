"""Checkpoints that survive: either whole or not there, verified before they are believed, newest good one first.

Written beside training: tensors are copied at once; a thread of its own hashes and writes them.

    writer = CheckpointWriter(run.checkpoints)
    writer.save(Snapshot(step, {"model": ..., "optimizer": ...}, {"best": 1.7}))
    snapshot, events = load_newest(run.checkpoints)
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from danlu.base.durable import checked_name, fsync_folder
from danlu.base.errors import DanluError, UserError
from danlu.parallel import tensorfile
from danlu.parallel.checkpoint_files import (
    Snapshot,
    folder_name,
    load,
    load_best,
    load_newest,
    manifest_bytes,
    read_manifest,
    restore_replaced,
    set_aside,
    steps_in,
    verify,
    verify_run,
)

__all__ = ["CheckpointWriter", "Snapshot", "load", "load_best", "load_newest", "steps_in", "verify", "verify_run"]


_MARGIN_BYTES = 16 << 20
_MAX_FAILURES = 3


@dataclass(frozen=True)
class _Group:
    """One file's tensors, and the buffer that its copies lie in."""

    entries: tuple[tensorfile.Entry, ...]
    data: Tensor
    slots: Mapping[str, Tensor]


class CheckpointWriter:
    """At most one save is in flight. A failed save leaves the last good checkpoint, and training goes on.

    `keep` newest good checkpoints stay, the best one and that of step `pinned`; older ones go only when the new one is on
    the disk.
    `before_publish` runs just before a checkpoint gets its name (to sync the logs it must not be ahead of).
    """

    def __init__(
        self,
        folder: Path,
        keep: int = 2,
        asynchronous: bool = True,
        before_publish: Callable[[], None] | None = None,
        pinned: int | None = None,
    ) -> None:
        if keep < 1:
            raise UserError("checkpoint.keep", "must be at least 1", got=keep)
        self.folder, self.keep, self.asynchronous, self.pinned = Path(folder), keep, asynchronous, pinned
        self.last_step: int | None = None
        """Newest step that this writer has put safely on the disk."""
        self._before_publish = before_publish
        self._groups: dict[str, _Group] = {}
        self._good: set[int] = set()
        self._events: list[str] = []
        self._n_failures = 0
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self.folder.mkdir(parents=True, exist_ok=True)
        restore_replaced(self.folder)
        for left in [*self.folder.glob(".tmp-*"), *self.folder.glob("step-*.old")]:
            shutil.rmtree(left, ignore_errors=True)

    def reserve(self, snapshot: Snapshot) -> int:
        """Allocate the copy buffers now, so that the first save is as quick as the others; returns their bytes."""
        for name, tensors in snapshot.tensors.items():
            checked_name("checkpoint group", name)
            entries = tensorfile.layout(tensors)
            known = self._groups.get(name)
            if known is None or known.entries != entries:
                pinned = any(t.is_cuda for t in tensors.values())
                n_bytes = entries[-1].stop if entries else 0
                data = torch.zeros(n_bytes, dtype=torch.uint8, pin_memory=pinned)
                self._groups[name] = _Group(entries, data, tensorfile.views(data, entries))
        self._groups = {name: self._groups[name] for name in snapshot.tensors}
        return sum(group.data.numel() for group in self._groups.values())

    def save(self, snapshot: Snapshot, is_best: bool = False) -> None:
        """Copy the snapshot and write it. Waits only while an earlier save is still being written.

        Raises DanluError when three saves in a row have failed.
        """
        self.wait()
        self.reserve(snapshot)
        copied = _copy(self._groups, snapshot.tensors)
        state = json.dumps({"step": snapshot.step, "state": snapshot.state}).encode()

        def work() -> None:
            try:
                for event in copied:
                    event.synchronize()
                self._write(snapshot.step, state, is_best)
            except BaseException as error:
                self._error = error

        if not self.asynchronous:
            work()
            self.wait()
            return
        thread = threading.Thread(target=work, name="checkpoint")
        try:
            thread.start()
        except RuntimeError as error:  # no memory for its stack, or no more threads allowed
            self._events.append(f"training waited for a checkpoint: {error}")
            work()
            self.wait()
            return
        self._thread = thread

    def wait(self) -> None:
        """Until the save in flight, if any, is on the disk or has failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def close(self) -> None:
        """Wait, and free the copy buffers."""
        try:
            self.wait()
        finally:
            self._groups = {}

    def events(self) -> list[str]:
        """Sentences since the last call: a save that failed, a bad checkpoint set aside."""
        told, self._events = self._events, []
        return told

    def _write(self, step: int, state: bytes, is_best: bool) -> None:
        """One save from first byte to retention; a failing disk becomes an event, a third failure an error."""
        temporary = self.folder / f".tmp-{folder_name(step)}"
        try:
            self._check_space(len(state))
            self._fill(temporary, step, state, is_best)
            if self._before_publish is not None:
                self._before_publish()
            self._publish(temporary, self.folder / folder_name(step))
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            self._fail(step, error)
            return
        self._n_failures, self.last_step = 0, step
        self._good.add(step)
        try:
            self._retire()
        except OSError as error:
            self._events.append(f"Old checkpoints could not be removed ({error.strerror}).")

    def _check_space(self, state_bytes: int) -> None:
        needed = sum(group.data.numel() for group in self._groups.values()) + state_bytes + _MARGIN_BYTES
        free = free_bytes(self.folder)
        if free < needed:
            raise OSError(0, f"it needs {needed / 1e6:.0f} MB and {free / 1e6:.0f} MB are free")

    def _fill(self, temporary: Path, step: int, state: bytes, is_best: bool) -> None:
        """All files of the checkpoint, durable, the manifest last."""
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        files: dict[str, Any] = {}
        for name, group in self._groups.items():
            head = tensorfile.header(group.entries, {"step": str(step), "group": name, "format": "pt"})
            parts: list[bytes | memoryview] = [head, group.data.numpy().data]
            files[f"{name}.safetensors"] = tensorfile.write_file(temporary / f"{name}.safetensors", parts)
        files["state.json"] = tensorfile.write_file(temporary / "state.json", [state])
        tensorfile.write_file(temporary / "manifest.json", [manifest_bytes(step, is_best, files)])
        fsync_folder(temporary)

    def _publish(self, temporary: Path, final: Path) -> None:
        """Give the finished folder its name. One of the same step (after a roll back) makes way and goes last."""
        old = final.with_name(f"{final.name}.old")
        replacing = final.exists()
        if replacing:
            final.rename(old)
        temporary.rename(final)
        fsync_folder(self.folder)
        if replacing:
            shutil.rmtree(old, ignore_errors=True)

    def _fail(self, step: int, error: OSError) -> None:
        self._n_failures += 1
        with suppress(OSError):  # the next writer tries again
            restore_replaced(self.folder)
        good = next(filter(self._is_good, steps_in(self.folder)), None)
        last = "there is none before it" if good is None else f"the last good one is step {good}"
        reason = f"The checkpoint of step {step} could not be written ({error.strerror}); {last}."
        self._events.append(reason)
        if self._n_failures >= _MAX_FAILURES:
            raise DanluError(
                f"{self.folder}: {_MAX_FAILURES} checkpoints in a row could not be written. {reason} "
                "Fix: free some space or mend the disk, then danlu resume."
            ) from error

    def _retire(self) -> None:
        """Remove what is none of the newest good ones, the best one and the pinned one."""
        kept: list[int] = []
        for step in steps_in(self.folder):
            path = self.folder / folder_name(step)
            wanted = len(kept) < self.keep or (self._is_best(path) and not any(map(self._is_best_step, kept)))
            if not wanted and step != self.pinned:
                self._remove(path)
            elif self._is_good(step):
                kept.append(step)
            else:
                self._events.append(set_aside(path, verify(path)[0]))

    def _is_good(self, step: int) -> bool:
        """Verified once, or written by this writer."""
        if step not in self._good and not verify(self.folder / folder_name(step)):
            self._good.add(step)
        return step in self._good

    def _is_best_step(self, step: int) -> bool:
        return self._is_best(self.folder / folder_name(step))

    def _is_best(self, path: Path) -> bool:
        try:
            return bool(read_manifest(path)["best"])
        except ValueError:
            return False

    def _remove(self, path: Path) -> None:
        """First the name goes, at once, then the files: a crash leaves no half checkpoint."""
        gone = path.with_name(f".tmp-gone-{path.name}")
        path.rename(gone)
        shutil.rmtree(gone)


def free_bytes(folder: Path) -> int:
    """Bytes that we may still write on the file system of `folder`."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _copy(groups: Mapping[str, _Group], tensors: Mapping[str, Mapping[str, Tensor]]) -> list[torch.cuda.Event]:
    """Copy all tensors into the buffers. From a GPU this is only queued (pinned memory); the events tell its end."""
    devices = set()
    with torch.no_grad():
        for name, group in groups.items():
            for key, slot in group.slots.items():
                source = tensors[name][key]
                slot.copy_(source, non_blocking=True)
                if source.is_cuda:
                    devices.add(source.device)
    events = []
    for device in devices:
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(device))
        events.append(event)
    return events
