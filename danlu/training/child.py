"""A task in a child process: a fork with a memory ceiling, whose every end is a result.

Threads do not survive a fork, but OpenMP keeps a pool for each thread that opens a parallel region, so the child works in
a new thread, which gets a new pool.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import select
import signal
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from danlu.planning.footprint import OUT_OF_MEMORY
from danlu.training.process import memory_lines

LIMIT_S = 600.0
"""A child that takes longer is ended."""
M_ARENA_MAX = -8
"""mallopt(3): the child's new thread is to use the main heap, as the run's main thread does."""
PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a child gets when its parent dies."""


def in_child(task: Callable[[], dict[str, Any]], ceiling_bytes: int | None = None, limit_s: float = LIMIT_S) -> Any:
    """The task's result (JSON-able) from a forked child; {"trouble": why} when there is none."""
    reads, writes = os.pipe()
    parent = os.getpid()
    gc.collect(1)  # not all of it: that takes 0.14 s, and old garbage is there before and after
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads: see the file's header
        pid = os.fork()
    if pid == 0:
        os.close(reads)
        become_child(task, writes, ceiling_bytes, parent)
    os.close(writes)
    try:
        told = read_all(reads, limit_s)
    finally:
        os.close(reads)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if told is None:
        return {"trouble": f"took longer than {limit_s:g} s"}
    if told:
        return json.loads(told)
    return {"trouble": OUT_OF_MEMORY if code == -signal.SIGKILL else f"ended with code {code}"}


def become_child(task: Callable[[], dict[str, Any]], writes: int, ceiling_bytes: int | None, parent: int) -> None:
    """Do the task in a new thread, write its result, and end this process without any of the parent's clean-up."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        for number in (signal.SIGINT, signal.SIGTERM):  # a Ctrl-C reaches the parent, and its end ends the child
            signal.signal(number, signal.SIG_IGN)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if ceiling_bytes is not None:
            most = memory_lines()["VmData"] + ceiling_bytes
            resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
        gc.freeze()  # what the parent made is not looked through again, 0.1 s each time
        told: list[bytes] = []
        thread = threading.Thread(target=lambda: told.append(json.dumps(answer(task)).encode()))
        thread.start()
        thread.join()
        with os.fdopen(writes, "wb") as pipe:
            pipe.write(told[0] if told else b"")
        os._exit(0)
    finally:
        os._exit(1)


def answer(task: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The task's result, or its trouble."""
    try:
        return task()
    except MemoryError:
        return {"trouble": OUT_OF_MEMORY}
    except Exception as error:
        is_memory = "allocate memory" in str(error) or "Cannot allocate" in str(error)
        return {"trouble": OUT_OF_MEMORY if is_memory else f"{type(error).__name__}: {error}"}


def read_all(reads: int, limit_s: float) -> bytes | None:
    """What the child wrote until it closed the pipe; None when that takes too long."""
    told, deadline = b"", time.monotonic() + limit_s
    ready = select.poll()  # which, unlike select, takes file numbers above 1,023
    ready.register(reads, select.POLLIN | select.POLLHUP)
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not ready.poll(1000 * left):
            return None
        piece = os.read(reads, 1 << 16)
        if not piece:
            return told
        told += piece
