"""Eight processes start on one run folder at the same moment, twenty-five times: exactly one owns it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from danlu.base.errors import UserError
from danlu.base.runfolder import RunFolder

N_STARTERS, N_RACES = 8, 25


def starter(folder: Path, start: int, told: int, leave: int) -> None:
    """Wait for the start, try to own the folder, tell the outcome; an owner stays until it may leave."""
    os.read(start, 1)
    try:
        with RunFolder.create(folder, "race", "0" * 16).lock():
            os.write(told, f"owner {os.getpid()}\n".encode())
            os.read(leave, 1)
    except UserError as error:
        os.write(told, f"{error}\n".encode())
    os._exit(0)


def race(folder: Path, kill_owner: bool) -> None:
    start, go = os.pipe()
    heard, told = os.pipe()
    leave, free = os.pipe()
    children = []
    for _ in range(N_STARTERS):
        children.append(os.fork())
        if children[-1] == 0:
            os.close(go)
            os.close(free)
            try:
                starter(folder, start, told, leave)
            finally:
                os._exit(1)
    os.close(told)
    os.close(go)  # all at once
    with os.fdopen(heard) as lines:
        said = [lines.readline() for _ in range(N_STARTERS)]
        owners = [int(line.split()[1]) for line in said if line.startswith("owner ")]
        assert len(owners) == 1, said
        losers = [line for line in said if not line.startswith("owner ")]
        assert all(f"is in use by process {owners[0]} since " in line for line in losers), said
        if kill_owner:  # the lock of a killed owner is free at once, whatever its record says
            os.kill(owners[0], signal.SIGKILL)
        os.close(free)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes.count(0) == N_STARTERS - kill_owner
    for end in (start, leave):
        os.close(end)
    with RunFolder(folder).lock():
        pass


def test_exactly_one_owner(tmp_path: Path) -> None:
    for number in range(N_RACES):
        race(tmp_path / f"r{number % 5}", kill_owner=number % 2 == 1)
