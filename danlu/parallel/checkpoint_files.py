"""What a checkpoint looks like on the disk, and how it is verified before it is believed.

    step-00000200/{model,optimizer,ema,rng}.safetensors  state.json  manifest.json
The manifest (size and SHA-256 of every file, and of itself) is written last, in a temporary folder that is renamed
when everything in it is on the disk. Data only: nothing in a checkpoint can run code.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from danlu.base.durable import NAME, fsync_folder
from danlu.base.errors import GateError, UserError
from danlu.base.runfolder import RunFolder
from danlu.parallel import tensorfile

_FOLDER = re.compile(r"step-(\d{8,})")
_MAX_MANIFEST_BYTES = 16 << 20
_MAX_STATE_BYTES = 256 << 20


@dataclass(frozen=True)
class Snapshot:
    """All that a run needs to go on, bit for bit, after `step` completed updates."""

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    """{"model": {name: tensor}, "optimizer": {...}, "ema": {...}, "rng": {...}}"""
    state: dict[str, Any] = field(default_factory=dict)
    """What is no tensor, as JSON (so tuples come back as lists): position, best metric, patience, fingerprints."""


def folder_name(step: int) -> str:
    """step-00000200"""
    return f"step-{step:08d}"


def steps_in(folder: Path) -> list[int]:
    """Steps of the checkpoints in a folder, newest first: by number, never by clock."""
    found = [_FOLDER.fullmatch(p.name) for p in Path(folder).iterdir()] if Path(folder).is_dir() else []
    return sorted((int(m[1]) for m in found if m and m[0] == folder_name(int(m[1]))), reverse=True)


def manifest_bytes(step: int, is_best: bool, files: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The manifest as it stands in the file: canonical JSON that ends with the SHA-256 of the rest."""
    body = {"format": 1, "step": step, "best": is_best, "files": dict(sorted(files.items()))}
    digest = hashlib.sha256(json.dumps(body).encode()).hexdigest()
    return (json.dumps(body | {"sha256": digest}) + "\n").encode()


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the checkpoint folder `path`. ValueError with the reason when it cannot be trusted."""
    file = path / "manifest.json"
    if not file.is_file() or file.is_symlink():
        raise ValueError("manifest.json is missing")
    if file.stat().st_size > _MAX_MANIFEST_BYTES:
        raise ValueError("manifest.json is too large")
    raw = file.read_bytes()
    try:
        found = json.loads(raw)
        files = {name: {"bytes": int(f["bytes"]), "sha256": str(f["sha256"])} for name, f in found["files"].items()}
        same = manifest_bytes(int(found["step"]), bool(found["best"]), files) == raw
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError("manifest.json is broken") from error
    if not same:
        raise ValueError("manifest.json is not as it was written")
    if folder_name(found["step"]) != path.name:
        raise ValueError(f"manifest.json is that of step {found['step']}")
    if not all(NAME.fullmatch(name) for name in files) or "state.json" not in files:
        raise ValueError("manifest.json names files that no checkpoint has")
    return dict(found)


def _check_files(path: Path, files: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Faults seen without reading: the exact set of plain files, each of its size."""
    faults, seen = [], set()
    for entry in os.scandir(path):
        seen.add(entry.name)
        if entry.name == "manifest.json":
            continue
        if entry.name not in files:
            faults.append(f"{entry.name} does not belong to it")
        elif not entry.is_file(follow_symlinks=False):
            faults.append(f"{entry.name} is not a plain file")
        elif entry.stat().st_size != files[entry.name]["bytes"]:
            faults.append(f"{entry.name} has {entry.stat().st_size} bytes, not {files[entry.name]['bytes']}")
    return faults + [f"{name} is missing" for name in sorted(set(files) - seen)]


def _read(path: Path, keep: bool = True) -> tuple[Snapshot, list[str]]:
    """Everything in a checkpoint, hashed before it is parsed, and what is wrong with it.

    Without `keep`, tensors are let go file by file.
    """
    try:
        manifest = read_manifest(path)
    except ValueError as error:
        return Snapshot(-1, {}), [str(error)]
    faults = _check_files(path, manifest["files"])
    tensors: dict[str, Mapping[str, Tensor]] = {}
    state: dict[str, Any] = {}
    for name, known in manifest["files"].items() if not faults else ():
        try:
            data, digest = tensorfile.read_file(path / name, known["bytes"])
            if digest != known["sha256"]:
                raise ValueError("does not match its SHA-256")
            if name == "state.json":
                state = _parse_state(data, manifest["step"])
            else:
                group = _parse_tensors(data, name, manifest["step"])
                tensors[name.removesuffix(".safetensors")] = group if keep else {}
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            faults.append(f"{name}: the disk cannot read it")
        except (ValueError, RecursionError) as error:
            faults.append(f"{name}: {error}")
    return Snapshot(manifest["step"], tensors, state), faults


def _parse_state(data: Tensor, step: int) -> dict[str, Any]:
    if data.numel() > _MAX_STATE_BYTES:
        raise ValueError("is too large")
    found = json.loads(data.numpy().tobytes())
    if not isinstance(found, dict) or found.get("step") != step or not isinstance(found.get("state"), dict):
        raise ValueError("is that of another step")
    return dict(found["state"])


def _parse_tensors(data: Tensor, name: str, step: int) -> dict[str, Tensor]:
    metadata, tensors = tensorfile.parse(data)
    if metadata != {"step": str(step), "group": name.removesuffix(".safetensors"), "format": "pt"}:
        raise ValueError("is that of another step or group")
    return tensors


def verify(path: Path) -> list[str]:
    """One sentence for each fault of a checkpoint folder; empty when every byte is as it was written."""
    path = Path(path)
    try:
        return [f"{path.name}: {fault}." for fault in _read(path, keep=False)[1]]
    except OSError as error:
        return [f"{path.name}: cannot be read ({error.strerror})."]


def load(path: Path) -> Snapshot:
    """The snapshot in a checkpoint folder (tensors on the CPU). GateError when it does not verify."""
    path = Path(path)
    try:
        snapshot, faults = _read(path)
    except OSError as error:
        raise UserError(str(path), f"cannot be read ({error.strerror})", fix="check the disk and the rights") from error
    if faults:
        raise GateError(f"{path} is not a good checkpoint: {'; '.join(faults)}.")
    return snapshot


def load_newest(folder: Path, at_most: int | None = None) -> tuple[Snapshot | None, list[str]]:
    """The newest good snapshot (None if there is none). Bad ones are set aside by name, one sentence each."""
    folder = Path(folder)
    restore_replaced(folder)
    events: list[str] = []
    for step in steps_in(folder):
        if at_most is not None and step > at_most:
            continue
        try:
            return load(folder / folder_name(step)), events
        except GateError as error:
            events.append(set_aside(folder / folder_name(step), str(error)))
    return None, events


def load_best(folder: Path) -> tuple[Snapshot | None, list[str]]:
    """The snapshot that was saved as the best so far; without one, the newest good one."""
    events: list[str] = []
    for step in steps_in(folder):
        path = Path(folder) / folder_name(step)
        try:
            if read_manifest(path)["best"]:
                return load(path), events
        except (ValueError, GateError) as error:
            events.append(f"{path.name} is passed over: {error}.")
    snapshot, more = load_newest(folder)
    return snapshot, events + more


def set_aside(path: Path, reason: str) -> str:
    """Rename a bad checkpoint to step-00000200.bad-1 (.bad-2, ...) and say so in a sentence."""
    number = 1
    while (aside := path.with_name(f"{path.name}.bad-{number}")).exists():
        number += 1
    reason = reason.removeprefix(f"{path} is not a good checkpoint: ").rstrip(".")
    try:
        path.rename(aside)
        fsync_folder(path.parent)
    except OSError as error:
        return f"{path.name} is passed over ({reason}); it could not be renamed ({error.strerror})."
    return f"{path.name} is set aside as {aside.name} ({reason}); the one before it is used."


def restore_replaced(folder: Path) -> None:
    """Finish a replacement that a crash cut in two: step-X.old without its step-X is put back."""
    for old in Path(folder).glob("step-*.old"):
        if not old.with_suffix("").exists():
            old.rename(old.with_suffix(""))


def verify_run(run: RunFolder) -> list[str]:
    """Faults of a whole run: every recorded file of every stage, every checkpoint. Empty when all is well."""
    faults = run.verify()
    for step in sorted(steps_in(run.checkpoints)):
        faults += verify(run.checkpoints / folder_name(step))
    return faults
