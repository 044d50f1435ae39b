"""Logs that grow by whole rows, never stop training, and can be cut back to a step when a run resumes."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu.base.durable import write_all
from danlu.base.errors import UserError

if TYPE_CHECKING:
    import numpy as np

_MAX_PENDING_BYTES = 64 << 20


class RowLog:
    """A file of whole rows. What cannot be written (full disk) waits in memory and is tried again with the next row.

    `sync()` raises while anything waits, so a checkpoint is never published that is ahead of its logs.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._fd = -1
        self._size = 0
        self._pending = bytearray()
        self._failing = False
        self._lock = threading.Lock()
        """Training appends while the checkpoint thread syncs."""

    def _append(self, row: bytes) -> str | None:
        """Write a row; the first failure in a row of them is returned as one sentence."""
        try:
            with self._lock:
                self._pending += row
                self._flush()
        except OSError as error:
            if len(self._pending) > _MAX_PENDING_BYTES:
                raise UserError(
                    str(self.path), f"cannot be written ({os.strerror(error.errno or 0)})", fix="free some disk space"
                ) from error
            if self._failing:
                return None
            self._failing = True
            reason = os.strerror(error.errno or 0)
            return f"{self.path.name} cannot be written now ({reason}); its rows are kept in memory and tried again."
        self._failing = False
        return None

    def _flush(self) -> None:
        if self._fd < 0:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            self._size = self._whole_size()
            os.ftruncate(self._fd, self._size)
        try:
            write_all(self._fd, bytes(self._pending))
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += len(self._pending)
        self._pending.clear()

    def _whole_size(self) -> int:
        """Bytes up to the end of the last whole row (the open file may end in a torn one)."""
        raise NotImplementedError

    def _cut(self, size: int) -> None:
        """Keep the first `size` bytes, durably."""
        self.close()
        self._pending.clear()
        with self.path.open("r+b") as file:
            file.truncate(size)
            os.fsync(file.fileno())

    def sync(self) -> None:
        """Everything appended so far survives a power cut; OSError while it cannot be written."""
        with self._lock:
            if self._pending:
                self._flush()
            if self._fd >= 0:
                os.fsync(self._fd)

    def close(self) -> None:
        """Let go of the file; rows that wait are tried once more by the next append or sync."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class MetricsLog(RowLog):
    """train/metrics.jsonl: one JSON object a line. Numbers that are not finite are written as null."""

    def append(self, row: dict[str, Any]) -> str | None:
        """Add a row. Never raises on a full disk: the sentence of the first failure is returned, to be shown."""
        text = json.dumps(_finite(row), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return self._append(text.encode("utf-8") + b"\n")

    def truncate_after(self, step: int) -> None:
        """Keep the rows up to and with `step` (a row with no step belongs to the one before it)."""
        if not self.path.exists():
            return
        size = 0
        with self.path.open("rb") as file:
            for line in file:
                row = _row(line)
                if row is None or row.get("step", 0) > step:
                    break
                size += len(line)
        self._cut(size)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rows in order; a torn last line is left out, a broken one before it is a UserError."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                row = _row(line)
                if row is None:
                    if file.read(1):
                        raise UserError(
                            f"{self.path}: line {number}", "is not a JSON object", fix="delete it, or resume the run"
                        )
                    return
                yield row

    def _whole_size(self) -> int:
        """Up to the last line end, found from the back."""
        end = os.fstat(self._fd).st_size
        while end:
            start = max(0, end - 65536)
            found = os.pread(self._fd, end - start, start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
        return 0


class SampleLog(RowLog):
    """train/sample_ids.bin: little-endian int64 rows (step, id, id, ...), the proof of the order of the data."""

    def __init__(self, path: Path, n_ids: int) -> None:
        super().__init__(path)
        self.n_ids = n_ids
        self._row_bytes = 8 * (1 + n_ids)

    def append(self, step: int, ids: Sequence[int] | np.ndarray) -> str | None:
        """Add the sample ids of the update that made `step`; the sentence of a first failure is returned."""
        import numpy as np

        if len(ids) != self.n_ids:
            raise ValueError(f"{len(ids)} sample ids at step {step}, but the log has {self.n_ids} a row")
        return self._append(np.concatenate(([step], ids)).astype("<i8").tobytes())

    def truncate_after(self, step: int) -> None:
        """Keep the rows up to and with `step`, by bisection."""
        import numpy as np

        if self.path.exists():
            self._cut(int(np.searchsorted(self.rows()[:, 0], step, side="right")) * self._row_bytes)

    def rows(self) -> np.ndarray:
        """(n_steps, 1 + n_ids) int64, mapped from the file; a torn last row is left out."""
        import numpy as np

        n_rows = self.path.stat().st_size // self._row_bytes if self.path.exists() else 0
        shape = (n_rows, 1 + self.n_ids)
        return np.memmap(self.path, dtype="<i8", mode="r", shape=shape) if n_rows else np.empty(shape, "<i8")

    def _whole_size(self) -> int:
        return os.fstat(self._fd).st_size // self._row_bytes * self._row_bytes


def _row(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value
