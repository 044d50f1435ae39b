"""The heap of a training on batches of unlike shapes: when it is trimmed."""

from __future__ import annotations

import sys

import pytest

from danlu.training import process
from danlu.training.process import Heap, memory_lines, trim_heap


class Pieces:
    """A heap on which a batch takes 10 bytes an element, and 30% more once other sizes have left it in pieces."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.own, self.trims, self.last = 100, 0, 0
        monkeypatch.setattr(process, "memory_lines", lambda: {"RssAnon": self.own})
        monkeypatch.setattr(process, "trim_heap", self.trim)

    def trim(self) -> None:
        """Nothing is left but what is in use."""
        self.own, self.last = 100, 0
        self.trims += 1

    def step(self, heap: Heap, n: int) -> int:
        """Own bytes at the step's peak."""
        heap.before(n)
        grown = 3 * n if self.last not in (0, n) else 0
        self.own = peak = max(self.own, 100 + 10 * n) + grown
        self.last = n
        heap.after()
        return peak


def test_batches_of_one_size_are_never_trimmed(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces, heap = Pieces(monkeypatch), Heap()
    assert [pieces.step(heap, 50) for _ in range(9)] == [600] * 9
    assert pieces.trims == 0


def test_memory_stays_near_what_the_largest_batch_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [50, 20, 48, 31, 50, 22, 27, 35, 41, 39, 50, 18, 47, 30] * 3
    pieces, heap = Pieces(monkeypatch), Heap()
    with_heap = [pieces.step(heap, n) for n in sizes]
    assert max(with_heap) <= 1.25 * 600
    assert 0 < pieces.trims <= len(sizes) / 2
    alone, idle = Pieces(monkeypatch), Heap()
    monkeypatch.setattr(idle, "trim", lambda: None)
    assert max([alone.step(idle, n) for n in sizes]) > 3 * 600  # what it grows to when left alone


def test_a_step_that_needs_more_on_a_trimmed_heap_is_not_trimmed_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that grows for another reason (an alarm's copy of the model) is no reason to trim for ever."""
    pieces, heap = Pieces(monkeypatch), Heap()
    pieces.step(heap, 50)
    monkeypatch.setattr(process, "memory_lines", lambda: {"RssAnon": 900})
    for _ in range(9):
        pieces.step(heap, 50)
    assert pieces.trims <= 1


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc_trim")
def test_trimming_gives_memory_back() -> None:
    kept = [bytearray(100_000) for _ in range(500)]  # below the threshold from which on each is mapped by itself
    full = memory_lines()["RssAnon"]
    last = kept[-1]
    del kept
    trim_heap()
    assert memory_lines()["RssAnon"] < full - 30_000_000
    assert len(last) == 100_000
