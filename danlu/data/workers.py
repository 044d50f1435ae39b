"""Processes that read batches ahead of training, in strict order; a dead or stuck one is replaced, not waited for.

A worker is this file run as a program: it imports numpy and nothing heavier, and talks through its standard input
(8 bytes: a step) and output (a kind, a length, then the batch's arrays, one after the other). What a batch holds is a
pure function of its step, so neither a worker's death nor their number can change a byte of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import struct
import subprocess
import sys
import time
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from danlu.base.errors import UserError
from danlu.data.order import Order
from danlu.data.windows import Windows

WORD = struct.Struct("<q")
HEAD = struct.Struct("<Bq")
READY, DATA, ERROR = range(3)
START_S = 20.0
"""A worker may take this long to start, on a machine that has much else to do."""
AT_START = -1
"""Stands for the step of a worker that was lost before it was asked for one."""
STRIKES = 3
"""Workers lost on one step before it is given up."""
LOOK_S = 0.05
"""Longest sleep before the workers are looked at again."""
PIPE_BYTES = 1 << 20
Arrays = list[NDArray[Any]]


@dataclass(frozen=True)
class Prefetch:
    """How batches are read ahead."""

    n_workers: int
    ahead: int = 2
    """Batches each worker may be ahead."""
    stuck_after_s: float = 10.0
    """A worker that lets training wait this long for one batch is replaced."""


@dataclass
class Worker:
    """One process and what it owes."""

    process: subprocess.Popen[bytes]
    steps: list[int] = field(default_factory=list)
    """Steps asked for, in order of asking."""
    received: bytearray = field(default_factory=bytearray)
    is_ready: bool = False
    """Whether it has started."""
    waited_s: float = 0.0
    """Time that training has waited since this worker's last sign of life."""

    @property
    def output(self) -> int:
        """The file descriptor that answers come from."""
        return pipe(self.process.stdout).fileno()

    def ask(self, step: int) -> None:
        """Ask for a step; a dead worker is noticed when its answer is awaited."""
        self.steps.append(step)
        with contextlib.suppress(BrokenPipeError):
            os.write(pipe(self.process.stdin).fileno(), WORD.pack(step))

    def messages(self) -> Iterator[tuple[int, bytes]]:
        """(kind, bytes) of every whole message received."""
        while len(self.received) >= HEAD.size:
            kind, n_bytes = HEAD.unpack_from(self.received)
            end = HEAD.size + n_bytes
            if len(self.received) < end:
                return
            data = bytes(self.received[HEAD.size : end])
            del self.received[:end]
            yield kind, data


class Readers:
    """A set of workers over one token file. `read(step)` gives the arrays of any step; the next steps come fastest."""

    def __init__(self, windows: Windows, how: Prefetch) -> None:
        self.windows, self.how = windows, how
        self.job = described(windows)
        self.ready: dict[int, bytes] = {}
        self.strikes: dict[int, int] = {}
        self.said: list[str] = []
        self.workers: list[Worker] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self.finalizer = weakref.finalize(self, stop, self.processes, os.getpid())

    def read(self, step: int) -> Arrays:
        """The arrays of `step`, as Windows.read gives them."""
        while len(self.workers) < self.how.n_workers:
            self.workers.append(self.start())
        wanted = range(step, step + self.how.n_workers * self.how.ahead)
        self.ready = {s: data for s, data in self.ready.items() if s in wanted}
        self.ask(wanted)
        self.collect(0.0)
        while step not in self.ready:
            began = time.monotonic()
            self.collect(LOOK_S)
            self.replace_lost(min(time.monotonic() - began, 2 * LOOK_S))
            self.ask(wanted)
        self.strikes.pop(step, None)
        return unpacked(self.ready.pop(step), self.windows)

    def ask(self, wanted: Iterable[int]) -> None:
        """Ask the least busy of those that have started for every step that is neither here nor on its way."""
        started = [worker for worker in self.workers if worker.is_ready]
        known = {*self.ready, *(s for worker in started for s in worker.steps)}
        for step in wanted if started else ():
            if step not in known:
                min(started, key=lambda worker: len(worker.steps)).ask(step)

    def collect(self, patience_s: float) -> None:
        """Take in what the workers have sent, waiting at most `patience_s` for something."""
        with selectors.DefaultSelector() as selector:
            for worker in self.workers:
                selector.register(worker.output, selectors.EVENT_READ, worker)
            for key, _ in selector.select(patience_s):
                worker = key.data
                data = os.read(worker.output, PIPE_BYTES)
                worker.received += data
                worker.waited_s = 0.0 if data else worker.waited_s
                for kind, message in worker.messages():
                    self.take(worker, kind, message)
                if not data:
                    self.replace(worker, "died")

    def take(self, worker: Worker, kind: int, message: bytes) -> None:
        """One message: it has started, here is a batch, or this is why there is none."""
        if kind == READY:
            worker.is_ready = True
            self.strikes.pop(AT_START, None)
        elif kind == DATA:
            self.ready[worker.steps.pop(0)] = message
        else:
            path = self.job["tokens"]["path"]
            raise UserError(
                path, f"cannot be read: {message.decode()}", fix="check the disk, or prepare the data again"
            )

    def replace_lost(self, waited_s: float) -> None:
        """Count the wait against every worker that owes a step, or its start; replace those that are stuck."""
        for worker in list(self.workers):
            worker.waited_s = worker.waited_s + waited_s if worker.steps or not worker.is_ready else 0.0
            limit_s = self.how.stuck_after_s if worker.is_ready else max(START_S, self.how.stuck_after_s)
            if worker.waited_s > limit_s:
                self.replace(worker, f"gave no sign of life for {limit_s:g} s")

    def replace(self, worker: Worker, why: str) -> None:
        """Kill a worker and start another. What the first one owed is asked again, of whoever is least busy."""
        stop([worker.process], os.getpid())
        self.processes.remove(worker.process)
        self.said.append(f"loader worker {worker.process.pid} {why} and was replaced")
        step = worker.steps[0] if worker.steps else AT_START
        if worker.steps or not worker.is_ready:
            self.strikes[step] = self.strikes.get(step, 0) + 1
        if self.strikes.get(step, 0) >= STRIKES:
            at = "at their start" if step == AT_START else f"on step {step}"
            lost = f"cannot be read: {STRIKES} workers in a row were lost {at}, and the last one {why}"
            fix = "check the disk, or set train.workers to 0 to see the cause"
            raise UserError(self.job["tokens"]["path"], lost, fix=fix)
        self.workers[self.workers.index(worker)] = self.start()

    def start(self) -> Worker:
        """A new worker process, in a group of its own so that Ctrl-C reaches training alone."""
        package = str(Path(__file__).resolve().parents[2])
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from danlu.data.workers import work; work()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, process_group=0,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        self.processes.append(process)
        widen(pipe(process.stdout).fileno())
        text = json.dumps(self.job | {"parent": os.getpid()}).encode()
        with contextlib.suppress(BrokenPipeError):
            os.write(pipe(process.stdin).fileno(), WORD.pack(len(text)) + text)
        return Worker(process)

    def events(self) -> list[str]:
        """What happened to workers since the last call, in sentences."""
        said, self.said = self.said, []
        return said

    def close(self) -> None:
        """Stop all workers; none is left behind."""
        self.finalizer()
        self.workers, self.ready = [], {}


def pipe(end: Any) -> BinaryIO:
    """An end that Popen was told to open."""
    return end  # type: ignore[no-any-return]


def widen(descriptor: int) -> None:
    """Let a pipe hold a whole batch, where the system allows it; a narrow one only costs speed."""
    import fcntl

    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def stop(processes: list[subprocess.Popen[bytes]], owner: int) -> None:
    """Kill and reap: a worker holds nothing worth saving, and a stopped one hears nothing gentler. A fork of the
    process that started them leaves them alone."""
    if os.getpid() != owner:
        return
    for process in processes:
        process.kill()
        for end in (process.stdin, process.stdout):
            pipe(end).close()
    for process in processes:
        process.wait()


def described(windows: Windows) -> dict[str, Any]:
    """All that another process needs to read the same windows, as JSON."""
    order, part = windows.order, windows.part or slice(None)
    return {
        "tokens": where(windows.tokens), "docs": where(windows.docs) if windows.pack == "separate" else None,
        "context": windows.context, "pack": windows.pack, "part": [part.start, part.stop],
        "order": [order.n_samples, order.batch, order.seed, order.shuffle],
    }  # fmt: skip


def where(array: NDArray[Any]) -> dict[str, Any]:
    """The file behind a memory map."""
    base: Any = array
    while not isinstance(base, np.memmap) and base is not None:
        base = base.base
    if base is None or base.shape != array.shape:
        raise UserError("Loader: n_workers", "needs tokens kept in a file (numpy.memmap)", fix="set n_workers to 0")
    return {"path": str(base.filename), "dtype": base.dtype.str, "offset": base.offset, "n": len(base)}


def opened(job: dict[str, Any]) -> Windows:
    """`described`, undone."""
    tokens, docs = (
        np.memmap(at["path"], at["dtype"], "r", at["offset"], (at["n"],)) if at else np.zeros(0, np.uint64)
        for at in (job["tokens"], job["docs"])
    )
    return Windows(tokens, docs, job["context"], Order(*job["order"]), job["pack"], slice(*job["part"]))


def unpacked(data: bytes, windows: Windows) -> Arrays:
    """Bytes of one answer -> the arrays that Windows.read gave in the worker."""
    part = windows.part or slice(None)
    shape = (len(range(windows.order.batch)[part]), windows.context + 1)
    n_bytes = shape[0] * shape[1] * windows.tokens.dtype.itemsize
    rows = np.frombuffer(data[:n_bytes], windows.tokens.dtype).reshape(shape)
    return [rows] if windows.pack == "stream" else [rows, np.frombuffer(data[n_bytes:], np.int32).reshape(shape)]


def work() -> None:
    """The worker's whole life: read a job, answer steps until the input ends or the parent is gone."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    job = json.loads(source.read(*WORD.unpack(source.read(WORD.size))))
    try:
        windows = opened(job)
        send(sink, READY, b"")
        while os.getppid() == job["parent"]:
            request = source.read(WORD.size)
            if len(request) < WORD.size:
                return
            arrays = windows.read(*WORD.unpack(request))
            send(sink, DATA, b"".join(np.ascontiguousarray(array).tobytes() for array in arrays))
    except BrokenPipeError:
        os._exit(0)  # the parent is gone
    except (OSError, ValueError, IndexError) as error:
        send(sink, ERROR, str(error).encode())


def send(sink: BinaryIO, kind: int, data: bytes) -> None:
    """One message."""
    sink.write(HEAD.pack(kind, len(data)) + data)
    sink.flush()
