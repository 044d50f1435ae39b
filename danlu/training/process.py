"""What this process holds and what others use of the machine, as Linux tells it (proc(5))."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

HEAP_GROWTH, NEAR_LARGEST = 1.1, 0.9
"""Own memory over what the largest batch needs, above which the heap is trimmed; share of the largest batch's size, from which on
one starts on a trimmed heap."""
Pages = dict[tuple[str, str], NDArray[np.bool_]]
"""(file, offset) of each mapping of a file -> which of its pages this process holds."""


def memory_lines() -> dict[str, int]:
    """Bytes by name from /proc/self/status: VmHWM, VmRSS, VmData, RssAnon, RssFile, ...; {} where there is none."""
    path = Path("/proc/self/status")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {name: 1024 * int(rest.split()[0]) for name, _, rest in (s.partition(":") for s in lines) if "kB" in rest}


def file_pages(but: Path) -> Pages:
    """The pages of files that this process holds (proc(5), pagemap: bit 63 present, bit 61 of a file); not of those in
    the folder `but`. {} where the kernel does not say."""
    found: Pages = {}
    size = os.sysconf("SC_PAGE_SIZE")
    try:
        with Path("/proc/self/maps").open(encoding="utf-8") as maps, Path("/proc/self/pagemap").open("rb", 0) as pages:
            for line in maps:
                at, _, offset, _, inode, *path = line.split(maxsplit=5)
                if inode == "0" or not path or path[0].startswith(str(but)):
                    continue
                first, last = (int(word, 16) // size for word in at.split("-"))
                pages.seek(8 * first)
                entries = np.frombuffer(pages.read(8 * (last - first)), "<u8")
                found[path[0].strip(), offset] = (entries >> np.uint64(61)) & np.uint64(5) == 5
    except OSError:
        return {}
    return found


def new_bytes(before: Pages, now: Pages) -> int:
    """Bytes of the pages that are held now and were not before."""
    n = 0
    for name, pages in now.items():
        old = before.get(name)
        n += int((pages & ~old).sum() if old is not None and len(old) == len(pages) else pages.sum())
    return n * os.sysconf("SC_PAGE_SIZE")


@cache
def trimmer() -> Callable[[int], int] | None:
    """glibc's malloc_trim(3); None where the C library has none."""
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
    return found


def trim_heap() -> None:
    """Give the heap's free pages back to the system. Between batches of unlike shapes: what one of them frees seldom fits the
    next, so that the heap of a look at proteins grew to twice its largest batch. It costs 1 to 5% of such a look."""
    if (trim := trimmer()) is not None:
        trim(0)


class Heap:
    """Keeps the heap of a training on batches of unlike shapes near what its largest batch needs. What a batch frees seldom fits
    one of another shape: a tagger's own memory grew from 440 to 960 MB within 60 steps, and went on (docs/LOG.md)."""

    def __init__(self) -> None:
        self.largest, self.needed = 0, 0
        self.sizes: set[int] = set()
        """Of the batches since it was trimmed."""

    def before(self, n_elements: int) -> None:
        """A batch of so many elements comes: one near the largest, or larger, does not start among the pieces of others."""
        if n_elements >= NEAR_LARGEST * self.largest and self.sizes - {n_elements}:
            self.trim()
        if n_elements > self.largest:
            self.largest, self.needed = n_elements, 0
        self.sizes.add(n_elements)

    def after(self) -> None:
        """The step is over: trim where it holds more than the largest batch alone did."""
        own = memory_lines().get("RssAnon", 0)
        if len(self.sizes) == 1:
            self.needed = max(self.needed, own)
        if own > HEAP_GROWTH * self.needed > 0:
            self.trim()

    def trim(self) -> None:
        """Now."""
        trim_heap()
        self.sizes.clear()


def held(prefix: str, device: str) -> Mapping[str, int]:
    """Memory of this process now: its own, and of files (libraries, mapped data); of a GPU, what is given out there."""
    if device == "cuda":
        return {f"{prefix}own_bytes": torch.cuda.memory_allocated(), f"{prefix}file_bytes": 0}
    lines = memory_lines()
    own = lines.get("RssAnon", 0) + lines.get("RssShmem", 0)
    return {f"{prefix}own_bytes": own, f"{prefix}file_bytes": lines.get("RssFile", 0)}


class Busy:
    """Which share of the machine's processors others used since this was made (Linux)."""

    def __init__(self) -> None:
        self.at = self.now()

    @staticmethod
    def now() -> tuple[float, float, float]:
        """(busy seconds of all processors, seconds of all, own seconds)."""
        path = Path("/proc/stat")
        if not path.is_file():
            return 0.0, 0.0, 0.0
        ticks = [int(word) for word in path.read_text(encoding="ascii").partition("\n")[0].split()[1:9]]
        per_s = os.sysconf("SC_CLK_TCK")
        return (sum(ticks) - ticks[3] - ticks[4]) / per_s, sum(ticks) / per_s, time.process_time()

    def share(self) -> float:
        """0 (alone) to 1."""
        busy, whole, own = (b - a for a, b in zip(self.at, self.now(), strict=True))
        return min(1.0, max(0.0, (busy - own) / whole)) if whole > 0 else 0.0
