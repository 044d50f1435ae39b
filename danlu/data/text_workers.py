"""Processes that sign and encode texts, fed through pipes. Results come back in the order of the batches.

A worker is `python -m danlu.data.text_workers`: it imports nothing of the caller's script, so no `__main__` guard is
needed. Both jobs are pure functions of their texts: any number of workers, also none, gives the same arrays, and the
batches of a worker that dies are done over in this process.
"""

from __future__ import annotations

import json
import os
import queue
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np

from danlu.data import tokenizer as tokenizers
from danlu.data.encoders import Tokenizer
from danlu.data.near_duplicates import signatures

INLINE_BYTES = 8 << 20
"""Text done in this process before others are started: small jobs never pay for a start."""
Job = Mapping[str, Any]
"""{"job": "sign", "shingle_bytes", "n_hashes"} or {"job": "encode", "tokenizer": card, "folder": path, "sha256"}."""
_loaded: dict[str, Tokenizer] = {}
_alone = threading.Lock()
"""A tokenizer's memo is for one thread at a time."""


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def perform(job: Job, texts: Sequence[bytes]) -> list[np.ndarray]:
    """[signatures (N, K) uint16], or [ids int32, counts int64]."""
    if job["job"] == "sign":
        return [signatures(list(texts), job["shingle_bytes"], job["n_hashes"])]
    key = json.dumps(job, sort_keys=True)
    with _alone:
        if key not in _loaded:
            _loaded.clear()
            _loaded[key] = tokenizers.load(job["tokenizer"], Path(job["folder"]))
        return list(_loaded[key].encode_many(texts))


class Workers:
    """A pool for one job."""

    def __init__(self, job: Job, n_workers: int) -> None:
        self._job, self._n_workers = job, n_workers
        self._inline_left = INLINE_BYTES
        self._idle: queue.SimpleQueue[_Worker | None] = queue.SimpleQueue()
        self._all: list[_Worker] = []
        self._threads: ThreadPoolExecutor | None = None

    def map(self, batches: Iterable[list[bytes]]) -> Iterator[list[np.ndarray]]:
        """The job's result for each batch, in order; at most two batches per worker wait at any time."""
        pending: deque[Future[list[np.ndarray]]] = deque()
        for texts in batches:
            if self._n_workers < 2 or self._inline_left > 0:
                self._inline_left -= sum(map(len, texts))
                yield perform(self._job, texts)
                continue
            pending.append(self._pool().submit(self._one, texts))
            if len(pending) > 2 * self._n_workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    def _pool(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._n_workers)
            self._all = [_Worker(self._job) for _ in range(self._n_workers)]
            for worker in self._all:
                self._idle.put(worker)
        return self._threads

    def _one(self, texts: list[bytes]) -> list[np.ndarray]:
        worker = self._idle.get()
        arrays = None if worker is None else worker.ask(texts)
        self._idle.put(None if arrays is None else worker)
        return perform(self._job, texts) if arrays is None else arrays

    def close(self) -> None:
        """End the processes."""
        for worker in self._all:
            worker.end()
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)


class _Worker:
    def __init__(self, job: Job) -> None:
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        environment = os.environ | {"PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "danlu.data.text_workers", json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )

    def ask(self, texts: list[bytes]) -> list[np.ndarray] | None:
        """The result, or None when the process is gone."""
        if self._process.stdin is None or self._process.stdout is None:
            return None
        try:
            _send(self._process.stdin, [np.array([len(text) for text in texts], dtype=np.int64)], b"".join(texts))
            received = _receive(self._process.stdout)
        except (OSError, ValueError):
            received = None
        if received is None:
            self.end()
        return None if received is None else received[0]

    def end(self) -> None:
        """Kill and wait: the process holds nothing that could be lost."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue  # unsent bytes for a process that is gone


def _send(pipe: IO[bytes], arrays: Sequence[np.ndarray], payload: bytes = b"") -> None:
    head = json.dumps({"arrays": [[a.dtype.str, a.shape] for a in arrays], "payload": len(payload)}).encode()
    pipe.write(struct.pack("<I", len(head)) + head)
    for a in arrays:
        pipe.write(a.tobytes())
    pipe.write(payload)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> tuple[list[np.ndarray], bytes] | None:
    """(arrays, payload), or None at the end or when the other side broke off."""
    size = pipe.read(4)
    if len(size) < 4:
        return None
    head = json.loads(pipe.read(struct.unpack("<I", size)[0]))
    arrays = []
    for dtype, shape in head["arrays"]:
        kind = np.dtype(dtype)
        data = pipe.read(kind.itemsize * int(np.prod(shape, dtype=np.int64)))
        arrays.append(np.frombuffer(data, dtype=kind).reshape(shape))
    payload = pipe.read(head["payload"])
    return (arrays, payload) if len(payload) == head["payload"] else None


def main() -> None:
    """Answer batches from standard input until it ends."""
    job = json.loads(sys.argv[1])
    while (received := _receive(sys.stdin.buffer)) is not None:
        (lengths,), payload = received
        ends = np.cumsum(lengths).tolist()
        texts = [payload[end - n : end] for end, n in zip(ends, lengths.tolist(), strict=True)]
        _send(sys.stdout.buffer, perform(job, texts))


if __name__ == "__main__":
    main()
