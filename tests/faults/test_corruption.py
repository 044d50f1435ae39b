"""Two thousand damaged checkpoints: every one is seen, said, set aside, and the one before it is used."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from danlu.parallel.checkpoint import CheckpointWriter, Snapshot, load_newest, steps_in, verify

N_DAMAGED = 2000
Files = dict[str, bytes]
"""A checkpoint folder in memory."""


def snapshot(step: int) -> Snapshot:
    generator = torch.Generator().manual_seed(step)
    model = {f"blocks.{i}.weight": torch.randn(40, 41, generator=generator) for i in range(2)}
    optimizer = {f"{k}/m": torch.randn(40, 41, generator=generator) for k in model} | {"n": torch.tensor(step)}
    rng = {"cpu": torch.randint(0, 256, (5056,), dtype=torch.uint8, generator=generator)}
    return Snapshot(step, {"model": model, "optimizer": optimizer, "rng": rng}, {"best": step / 7, "position": step})


def flip_a_bit(files: Files, old: Files, rng: random.Random) -> None:
    name = rng.choice(sorted(files))
    data = bytearray(files[name])
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    files[name] = bytes(data)


def cut_short(files: Files, old: Files, rng: random.Random) -> None:
    name = rng.choice(sorted(files))
    files[name] = files[name][: rng.randrange(len(files[name]))]


def lengthen(files: Files, old: Files, rng: random.Random) -> None:
    name = rng.choice(sorted(files))
    files[name] += rng.choice([b"\0", b" ", b"\n", bytes(4096), files[name]])


def zero_a_page(files: Files, old: Files, rng: random.Random) -> None:
    name = rng.choice(sorted(files))
    size = len(files[name])
    start = rng.randrange(0, size, 4096)
    files[name] = files[name][:start] + bytes(min(4096, size - start)) + files[name][start + 4096 :]


def exchange_files(files: Files, old: Files, rng: random.Random) -> None:
    a, b = rng.sample(sorted(files), 2)
    files[a], files[b] = files[b], files[a]


def take_from_another_step(files: Files, old: Files, rng: random.Random) -> None:
    for name in rng.sample(sorted(files), rng.randint(1, len(files))):
        files[name] = old[name]


def lose_a_file(files: Files, old: Files, rng: random.Random) -> None:
    for name in rng.sample(sorted(files), rng.randint(1, len(files))):
        del files[name]


def add_a_file(files: Files, old: Files, rng: random.Random) -> None:
    files[rng.choice(["ema.safetensors", "a", ".hidden", "model.safetensors.bak", "manifest.json~"])] = rng.randbytes(9)


DAMAGES: list[Callable[[Files, Files, random.Random], None]] = [
    flip_a_bit,
    flip_a_bit,
    flip_a_bit,
    cut_short,
    lengthen,
    zero_a_page,
    exchange_files,
    take_from_another_step,
    lose_a_file,
    add_a_file,
]


def put(folder: Path, files: Files) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Files, Files]:
    """A folder with steps 100 and 200, and their files."""
    writer = CheckpointWriter(tmp_path / "run", keep=2)
    for step in (100, 200):
        writer.save(snapshot(step))
    writer.close()
    old, new = ({p.name: p.read_bytes() for p in (tmp_path / "run" / f"step-00000{n}").iterdir()} for n in (100, 200))
    return tmp_path / "run", old, new


def test_every_damage_is_seen_and_the_one_before_is_used(two: tuple[Path, Files, Files]) -> None:
    folder, old, new = two
    rng, wanted = random.Random(7), snapshot(100)
    for number in range(N_DAMAGED):
        damage = DAMAGES[number % len(DAMAGES)]
        files = dict(new)
        damage(files, old, rng)
        assert files != new
        put(folder / "step-00000200", files)
        found, events = load_newest(folder)
        assert found is not None
        assert found.step == 100, f"damage {number}: {damage.__name__} was not seen"
        assert found.state == wanted.state
        assert len(events) == 1
        assert events[0].startswith("step-00000200 is set aside as step-00000200.bad-1 (")
        assert "\n" not in events[0]
        shutil.rmtree(folder / "step-00000200.bad-1")
    for group, tensors in wanted.tensors.items():
        assert all(torch.equal(found.tensors[group][k], t) for k, t in tensors.items())


def test_no_false_alarms(two: tuple[Path, Files, Files]) -> None:
    folder, _, new = two
    for _ in range(100):
        put(folder / "step-00000200", new)
        found, events = load_newest(folder)
        assert found is not None
        assert (found.step, events) == (200, [])


@pytest.mark.parametrize("kind", ["a file", "a folder in it", "a folder for a file", "an empty folder", "a fifo"])
def test_things_that_are_no_checkpoints(two: tuple[Path, Files, Files], kind: str) -> None:
    import os

    folder, _, _ = two
    path = folder / "step-00000200"
    if kind in ("a file", "an empty folder"):
        shutil.rmtree(path)
        path.write_text("hello") if kind == "a file" else path.mkdir()
    elif kind == "a folder in it":
        (path / "more").mkdir()
    else:
        (path / "model.safetensors").unlink()
        (path / "model.safetensors").mkdir() if kind == "a folder for a file" else os.mkfifo(path / "model.safetensors")
    assert len(verify(path)) == 1
    found, events = load_newest(folder)
    assert found is not None
    assert (found.step, len(events), steps_in(folder)) == (100, 1, [100])


def test_when_all_are_bad_it_is_said_of_each(two: tuple[Path, Files, Files]) -> None:
    folder, _, _ = two
    for path in list(folder.iterdir()):
        (path / "state.json").write_text("{}")
    found, events = load_newest(folder)
    assert found is None
    assert [e.split()[0] for e in events] == ["step-00000200", "step-00000100"]
