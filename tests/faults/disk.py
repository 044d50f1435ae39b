"""A disk that fails when told to: the n-th call is a crash, a torn write, a power cut, or an error number.

Every call of ours that changes the disk goes through os.open/write/fsync/mkdir/rename/replace/unlink/rmdir/ftruncate;
these are replaced while a `Disk` is entered, and count when they touch `root`. After a crash nothing gets through.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = ("open", "write", "fsync", "mkdir", "rename", "replace", "unlink", "rmdir", "ftruncate")
WRITING = os.O_CREAT | os.O_WRONLY | os.O_RDWR


class Crash(BaseException):
    """The process ends here: nothing catches it, and nothing done after it reaches the disk."""


class Disk:
    """Fails at counted call `at` (0-based): action "crash", "torn" (half of a write, then a crash) or an errno.

    `only` counts just these calls; an errno is given `n_errors` times in a row. With `die`, a crash ends the process.
    """

    def __init__(
        self,
        root: Path,
        at: float = math.inf,
        action: str | int = "crash",
        only: tuple[str, ...] = NAMES,
        n_errors: float = 1,
        die: bool = False,
    ) -> None:
        self.root, self.at, self.action, self.only = str(root), at, action, only
        self.n_errors, self.die = n_errors, die
        self.calls: list[str] = []
        self.crashed = False
        self.real: dict[str, Callable[..., Any]] = {}
        self.unsynced: dict[int, int] = {}
        """Inode of a file with bytes that are not on the disk -> a descriptor of our own to take them away."""
        self.names: list[tuple[str, str, str]] = []
        """Changes of names that are not on the disk: (what, from, to)."""

    def __enter__(self) -> Disk:
        self.real = {name: getattr(os, name) for name in NAMES}
        for name in NAMES:
            setattr(os, name, self._stand_in(name))
        return self

    def __exit__(self, *reason: object) -> None:
        for name, function in self.real.items():
            setattr(os, name, function)

    def _stand_in(self, name: str) -> Callable[..., Any]:
        real = self.real[name]

        def call(target: Any, *args: Any, **kwargs: Any) -> Any:
            path = self._path(target, kwargs.get("dir_fd"))
            reading = name == "open" and not args[0] & WRITING
            if not path.startswith(self.root) or reading:
                return real(target, *args, **kwargs)
            self._step(name, path, target, args)
            found = real(target, *args, **kwargs)
            self._note(name, path, found if name == "open" else target, args)
            return found

        return call

    def _path(self, target: Any, dir_fd: int | None) -> str:
        if isinstance(target, int):
            return os.readlink(f"/proc/self/fd/{target}")
        if dir_fd is not None:
            return os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), os.fspath(target))
        return os.fspath(target)

    def _step(self, name: str, path: str, target: Any, args: tuple[Any, ...]) -> None:
        if self.crashed:
            raise Crash
        if name not in self.only:
            return
        number = len(self.calls)
        self.calls.append(f"{name} {os.path.relpath(path, self.root)}")
        if isinstance(self.action, int):
            if self.at <= number < self.at + self.n_errors:
                raise OSError(self.action, os.strerror(self.action))
        elif number == self.at:
            if self.action == "torn" and name == "write":
                self.real["write"](target, args[0][: len(args[0]) // 2])
            if self.die:
                os._exit(99)
            self.crashed = True
            raise Crash

    def _note(self, name: str, path: str, target: Any, args: tuple[Any, ...]) -> None:
        """Keep account of what a power cut would take."""
        if name == "write":
            self.unsynced.setdefault(os.fstat(target).st_ino, os.dup(target))
        elif name == "fsync":
            kept = self.unsynced.pop(os.fstat(target).st_ino, None)
            if kept is not None:
                os.close(kept)
            self.names = [n for n in self.names if os.path.dirname(n[2]) != path]
        elif name in ("rename", "replace"):
            self.names.append(("rename", path, os.fspath(args[0])))
        elif name == "open" and args[0] & os.O_CREAT:
            self.names.append(("create", "", path))

    def cut_power(self, lost: Callable[[tuple[str, str, str]], bool], keep: float) -> None:
        """Take away what was not synced: of unsynced bytes the share `keep` stays, of unsynced names what is not `lost`.

        Names are given back latest first. (A name that was removed stays removed: the harder case for us.)
        """
        for fd in self.unsynced.values():
            os.truncate(f"/proc/self/fd/{fd}", int(os.fstat(fd).st_size * keep))
            os.close(fd)
        self.unsynced = {}
        for change in reversed(self.names):
            what, source, now = change
            if not lost(change) or not os.path.exists(now) or os.path.exists(source):
                continue
            if what == "rename":
                self.real["rename"](now, source)
            elif not os.path.isdir(now):
                self.real["unlink"](now)
