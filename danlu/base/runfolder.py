"""The run folder: the one place where a run's stages meet, and the evidence that the report reads.

with RunFolder.create(None, "code-lm", digest).lock() as run:
    write_json(run.plan, plan)
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from danlu.base.durable import (
    checked_name,
    file_sha256,
    fingerprint,
    fsync_folder,
    read_json,
    write_all,
    write_bytes,
    write_json,
    write_text,
)
from danlu.base.errors import UserError
from danlu.base.logs import MetricsLog, SampleLog

__all__ = [
    "MetricsLog",
    "RunFolder",
    "SampleLog",
    "checked_name",
    "file_sha256",
    "fingerprint",
    "fsync_folder",
    "read_json",
    "write_bytes",
    "write_json",
    "write_text",
]

_held: set[int] = set()
"""Descriptors of locks this process holds; a forked child lets go of them, so that only the owner keeps the lock."""


class RunFolder:
    """Paths, lock and stage records of one run."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._identity: dict[str, str] = {}

    @classmethod
    def create(cls, out: Path | None, name: str, digest: str) -> RunFolder:
        """Make (or enter again) the folder `out`, by default runs/<name>-<first 8 of digest>.

        A folder that holds other things is refused, so that nothing of the user's is ever mixed or overwritten.
        """
        checked_name("name", name)
        run = cls(out if out is not None else Path("runs") / f"{name}-{digest[:8]}")
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            foreign = any(run.path.iterdir()) and not run._is_run()  # in this order: another process may be making it
        except OSError as error:
            raise UserError(
                str(run.path), f"cannot be used as a run folder ({error.strerror})", fix="choose another --out"
            ) from error
        if foreign:
            raise UserError(
                str(run.path),
                "must be an empty folder or a run of danlu's",
                got="a folder with other files in it",
                fix="choose another --out",
            )
        run._identity = {"name": name, "digest": digest}
        return run

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """An existing run."""
        run = cls(path)
        if not run.path.is_dir() or not run._is_run():
            raise UserError(
                str(path), "is not a run folder (it has no manifest.json)", fix="give a folder made by danlu run"
            )
        return run

    def _is_run(self) -> bool:
        return any(p.exists() for p in (self.manifest, self.path / "lock"))

    @property
    def recipe(self) -> Path:
        """The recipe as given."""
        return self.path / "recipe.toml"

    @property
    def full_recipe(self) -> Path:
        """The recipe with every value and its origin."""
        return self.path / "recipe.full.toml"

    @property
    def manifest(self) -> Path:
        """Which stages are done, from what inputs, with the hashes of what they wrote."""
        return self.path / "manifest.json"

    @property
    def data(self) -> Path:
        """Folder of the prepared data."""
        return self.path / "data"

    @property
    def plan(self) -> Path:
        """Decisions, evidence and predictions, written before training."""
        return self.path / "plan.json"

    @property
    def train(self) -> Path:
        """Folder of the training logs."""
        return self.path / "train"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.train / "checkpoints"

    @property
    def evaluate(self) -> Path:
        """Folder of the scores."""
        return self.path / "evaluate"

    @property
    def report(self) -> Path:
        """The page."""
        return self.path / "report.html"

    @contextmanager
    def lock(self) -> Iterator[RunFolder]:
        """Own the folder; whoever comes second is told the owner's process id. The kernel frees it on any death."""
        path = self.path / "lock"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            fix = "check its rights and the disk, or choose another --out"
            raise UserError(str(path), f"cannot be opened ({error.strerror})", fix=fix) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = _owner(fd)
            os.close(fd)
            raise UserError(
                str(self.path), f"is in use by {owner}", fix="wait for it, stop it, or choose another --out"
            ) from error
        _held.add(fd)
        try:
            os.ftruncate(fd, 0)
            with suppress(OSError):  # on a full disk the lock holds all the same, only without a name on it
                write_all(fd, json.dumps(_owner_record()).encode())
            try:
                self._write_identity()
            except OSError as error:
                fix = "free some disk space, or choose another --out"
                raise UserError(str(self.path), f"cannot be written ({error.strerror})", fix=fix) from error
            yield self
        finally:
            if fd in _held:  # not in a forked child
                _held.discard(fd)
                os.ftruncate(fd, 0)
                fcntl.flock(fd, fcntl.LOCK_UN)  # also for children that have not let go yet
                os.close(fd)

    def _write_identity(self) -> None:
        found = self._read_manifest()
        if not self.manifest.exists() or any(found.get(k) != v for k, v in self._identity.items()):
            write_json(self.manifest, found | self._identity)

    def _read_manifest(self) -> dict[str, Any]:
        if not self.manifest.exists():
            return {"format": 1, "stages": {}}
        found = read_json(self.manifest)
        if not isinstance(found, dict) or not isinstance(found.get("stages"), dict):
            raise UserError(str(self.manifest), "must be an object with stages", fix="start the run in a new folder")
        return found

    def stage_done(self, name: str, inputs: str) -> bool:
        """True when the stage finished from these inputs (a fingerprint) and what it recorded is still there."""
        record = self._read_manifest()["stages"].get(name)
        if record is None or record["inputs"] != inputs:
            return False
        return all(_size(self.path / file) == known["bytes"] for file, known in record["outputs"].items())

    def record_stage(self, name: str, inputs: str, seconds: float, outputs: Iterable[Path] = ()) -> None:
        """Note that a stage finished; `outputs` (files in this folder) get their size and SHA-256 noted."""
        checked_name("stage", name)
        files = {}
        for path in sorted(outputs):
            files[path.relative_to(self.path).as_posix()] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        manifest = self._read_manifest()
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        record = {"inputs": inputs, "seconds": seconds, "finished": finished, "outputs": files}
        manifest["stages"][name] = record
        write_json(self.manifest, manifest)

    def verify(self) -> list[str]:
        """One sentence for each recorded file that is missing or changed; empty when all is well."""
        faults = []
        for stage, record in self._read_manifest()["stages"].items():
            for file, known in record["outputs"].items():
                path = self.path / file
                if not path.is_file():
                    faults.append(f"{file} (written by {stage}) is missing.")
                elif path.stat().st_size != known["bytes"] or file_sha256(path) != known["sha256"]:
                    faults.append(f"{file} (written by {stage}) is not the file that was written.")
        told = {fault.partition(" ")[0] for fault in faults}
        for file in self._read_manifest().get("committed", {}):
            if file not in told and not self.is_as_committed(self.path / file):
                faults.append(f"{file} is not what it was when the run was committed to it.")
        return faults

    def commit(self, file: Path, step: int = 0) -> None:
        """Note in the manifest what a file holds before the outcome is known: its SHA-256, and after which step."""
        manifest, at = self._read_manifest(), datetime.now(UTC).isoformat(timespec="seconds")
        name = file.relative_to(self.path).as_posix()
        manifest.setdefault("committed", {})[name] = {"sha256": file_sha256(file), "step": step, "at": at}
        write_json(self.manifest, manifest)

    def committed(self, file: Path) -> dict[str, Any] | None:
        """What `commit` noted of a file: {"sha256", "step", "at"}; None where it never was."""
        found: dict[str, Any] = self._read_manifest().get("committed", {})
        return found.get(file.relative_to(self.path).as_posix())

    def is_as_committed(self, file: Path) -> bool:
        """Whether the run was committed to a file and it is still the same."""
        known = self.committed(file)
        return known is not None and file.is_file() and file_sha256(file) == known["sha256"]


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _owner_record() -> dict[str, Any]:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "boot": _boot_id(), "start": started}


def _boot_id() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""


def _owner(fd: int) -> str:
    """Who holds the lock. Just after it was taken the record is empty or a dead owner's: wait for the new one."""
    for _ in range(100):
        try:
            record = json.loads(os.pread(fd, 4096, 0))
        except ValueError:
            record = {}
        here = record.get("host") == socket.gethostname()
        if record and (not here or (record.get("boot") == _boot_id() and _alive(int(record["pid"])))):
            place = "" if here else f" on {record.get('host')}"
            return f"process {record['pid']}{place} since {record.get('start')}"
        time.sleep(0.01)
    return "another process"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _let_go_in_child() -> None:
    for fd in _held:
        os.close(fd)
    _held.clear()


os.register_at_fork(after_in_child=_let_go_in_child)
