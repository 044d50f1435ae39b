"""Who trains together. One process is not a special case: its mesh sums to itself."""

from __future__ import annotations

from typing import Protocol, TypeVar

T = TypeVar("T")


class Mesh(Protocol):
    """The processes of a run, seen from one of them."""

    rank: int
    n_ranks: int

    def sum(self, x: T) -> T:
        """The sum of a number or tensor over all ranks."""


class Alone:
    """A mesh of one."""

    rank, n_ranks = 0, 1

    def sum(self, x: T) -> T:
        """x itself."""
        return x
