"""Workers: same bytes as without them, a dead or stuck one is replaced, and none is left behind."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from danlu.base.errors import UserError
from danlu.data.loader import Loader
from danlu.data.workers import Prefetch


@dataclass
class Shard:
    tokens: np.ndarray
    docs: np.ndarray


@pytest.fixture
def shard(tmp_path):
    torch.set_num_threads(1)
    np.random.default_rng(0).integers(0, 60_000, 20_000).astype("<u2").tofile(tmp_path / "train.bin")
    np.array([0, 40, 41, 900, 15_000, 20_000], "<u8").tofile(tmp_path / "train.docs.bin")
    return Shard(np.memmap(tmp_path / "train.bin", "<u2", "r"), np.memmap(tmp_path / "train.docs.bin", "<u8", "r"))


@pytest.fixture
def loader(shard):
    loader = Loader(shard, 32, 8, seed=1, n_workers=Prefetch(2, stuck_after_s=1.0), pack="separate")
    yield loader
    loader.close()


def equal(a, b) -> bool:
    return a.n_targets == b.n_targets and all(torch.equal(a.tensors[k], b.tensors[k]) for k in a.tensors)


def started(loader) -> None:
    loader.batch_at(0)
    while not all(worker.is_ready for worker in loader.readers.workers):
        loader.readers.collect(0.05)


def pids(loader) -> list[int]:
    return [worker.process.pid for worker in loader.readers.workers]


@pytest.mark.parametrize(("n_workers", "pack"), [(1, "stream"), (3, "stream"), (3, "separate")])
def test_worker_count_changes_no_byte(shard, n_workers, pack):
    alone, helped = (Loader(shard, 32, 8, 1, n_workers=n, pack=pack) for n in (0, n_workers))
    try:
        for step in [*range(40), 7, 8, 10**9, 0, 1]:
            assert equal(alone.batch_at(step), helped.batch_at(step)), step
            assert np.array_equal(alone.ids_at(step), helped.ids_at(step))
        assert helped.events() == []
    finally:
        helped.close()


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_worker_is_replaced(shard, loader, kind):
    alone = Loader(shard, 32, 8, 1, pack="separate")
    started(loader)
    for worker in loader.readers.workers:
        os.kill(worker.process.pid, kind)
    lost, began = pids(loader), time.monotonic()
    for step in range(1, 40):
        assert equal(alone.batch_at(step), loader.batch_at(step)), step
    assert time.monotonic() - began < 20  # 1 s of patience, and the start of two processes on a busy machine
    why = "died" if kind == signal.SIGKILL else "gave no sign of life for 1 s"
    assert {f"loader worker {pid} {why} and was replaced" for pid in lost} <= set(loader.events())
    assert not any(psutil.pid_exists(pid) for pid in lost)


def test_nobody_waits_for_a_worker_lost_while_starting(shard, loader):
    alone = Loader(shard, 32, 8, 1, pack="separate")
    loader.readers.workers.append(loader.readers.start())
    os.kill(pids(loader)[0], signal.SIGSTOP)
    began = time.monotonic()
    for step in range(20):
        assert equal(alone.batch_at(step), loader.batch_at(step)), step
    assert time.monotonic() - began < 15


def test_what_was_done_is_told_once(loader):
    started(loader)
    pid = pids(loader)[0]
    os.kill(pid, signal.SIGKILL)
    for step in range(1, 20):
        loader.batch_at(step)
    assert loader.events() == [f"loader worker {pid} died and was replaced"]
    assert loader.events() == []


def test_time_between_batches_is_not_held_against_a_worker(loader):
    started(loader)
    before = pids(loader)
    time.sleep(1.5)  # training was busy for longer than stuck_after_s
    for step in range(1, 6):
        loader.batch_at(step)
    assert pids(loader) == before


def test_close_leaves_nobody(loader):
    loader.batch_at(0)
    found = pids(loader)
    os.kill(found[0], signal.SIGSTOP)
    loader.close()
    assert not any(psutil.pid_exists(pid) for pid in found)


def test_workers_end_with_a_killed_parent(shard):
    code = (
        "import sys, numpy as np, time\n"
        "from types import SimpleNamespace as S\n"
        "from danlu.data.loader import Loader\n"
        f"s = S(tokens=np.memmap({str(shard.tokens.filename)!r}, '<u2', 'r'), docs=np.zeros(1))\n"
        "l = Loader(s, 32, 8, 1, n_workers=2); l.readers.read(0)\n"
        "print(*[w.process.pid for w in l.readers.workers], flush=True); time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    found = [int(word) for word in parent.stdout.readline().split()]
    assert len(found) == 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in found) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in found)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_workers_load_no_torch(loader):
    loader.batch_at(0)
    for pid in pids(loader):
        assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()


def test_a_file_cut_short_is_one_sentence(shard, loader):
    loader.batch_at(0)
    os.truncate(shard.tokens.filename, 0)
    with pytest.raises(UserError, match=r"train.bin cannot be read"):
        list(map(loader.batch_at, range(1, 50)))


def test_tokens_in_memory_cannot_be_shared(shard):
    held = Shard(np.array(shard.tokens), shard.docs)
    with pytest.raises(UserError, match="n_workers"):
        Loader(held, 32, 8, 1, n_workers=1)
