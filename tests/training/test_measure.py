"""Rehearsals: a real beginning of the run in a child, whose end harms nothing."""

import os
import signal
import sys

import numpy as np
import pytest
import torch

from danlu.planning.choices import Choices
from danlu.planning.footprint import OUT_OF_MEMORY
from danlu.stages.train import rehearse, train_steps
from danlu.training.child import in_child
from danlu.training.process import file_pages, memory_lines, new_bytes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork and /proc")


def raising():
    raise RuntimeError("no such kernel")


def test_a_child_gives_its_result_and_every_end_of_it_is_told():
    assert in_child(lambda: {"answer": 42}) == {"answer": 42}
    assert in_child(raising) == {"trouble": "RuntimeError: no such kernel"}
    assert in_child(lambda: os._exit(7)) == {"trouble": "ended with code 7"}
    assert in_child(lambda: os.kill(os.getpid(), signal.SIGKILL)) == {"trouble": OUT_OF_MEMORY}
    assert "longer than 0.2 s" in in_child(signal.pause, limit_s=0.2)["trouble"]


def test_more_memory_than_the_ceiling_is_a_result():
    def hungry():
        return {"sum": float(torch.ones(64 << 20).sum())}

    assert in_child(hungry, ceiling_bytes=1 << 30) == {"sum": float(64 << 20)}
    assert in_child(hungry, ceiling_bytes=64 << 20) == {"trouble": OUT_OF_MEMORY}


def test_threads_work_in_a_child_after_they_were_used_here():
    a = torch.randn(512, 512)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        here = float((a @ a).sum())
        assert in_child(lambda: {"sum": float((a @ a).sum())}, limit_s=20) == {"sum": here}
    finally:
        torch.set_num_threads(before)


def test_a_rehearsal_measures_every_part_and_leaves_nothing(tiny_run):
    recipe, run = tiny_run(train={"ema": 0.9})
    files = sorted(run.path.rglob("*"))
    held = memory_lines()["RssAnon"]
    found = rehearse(recipe, run, Choices.read(run), 3, 0.0, True, None)
    assert found.trouble == ""
    assert len(found.steps) == 2  # the first of the three is left out
    parts = (found.startup_s, found.first_s, found.look_s, found.closing_s, found.steps_bytes)
    assert all(part > 0 for part in parts), found
    assert found.own_bytes >= 0  # 0 where this process has freed enough for the child to live in
    assert found.peak_bytes >= found.steps_bytes
    assert sorted(run.path.rglob("*")) == files
    assert memory_lines()["RssAnon"] < held + (64 << 20)


def test_training_is_the_same_with_and_without_a_rehearsal_before(tiny_run):
    recipe, run = tiny_run("plain")
    plain = [r.loss for r in train_steps(recipe, run)]
    recipe, run = tiny_run("rehearsed")
    rehearse(recipe, run, Choices.read(run), 2, 0.0, True, None)
    assert [r.loss for r in train_steps(recipe, run)] == plain


@pytest.mark.parametrize("model", [{}, {"dropout": 0.2}, {"style": "gpt2"}])
def test_recomputed_blocks_train_bit_for_bit_the_same(tiny_run, model):
    curves = []
    for recompute in (False, True):
        sections = {"model": {"n_layers": 2, "width": 32, "n_heads": 2, "context": 16} | model}
        recipe, run = tiny_run(f"recompute-{recompute}", {"recompute": recompute, "micro_batch": 8}, **sections)
        curves.append([(r.loss, r.grad_norm) for r in train_steps(recipe, run)])
    assert curves[0] == curves[1]


def test_recomputing_takes_less_memory(tiny_run):
    sections = {"model": {"n_layers": 14, "width": 64, "n_heads": 2, "context": 128}}
    own = []
    for recompute in (False, True):
        recipe, run = tiny_run(f"r{recompute}", {"recompute": recompute, "batch": 24, "micro_batch": 24}, **sections)
        own.append(rehearse(recipe, run, Choices.read(run), 1, 0.0, False, None).steps_own_bytes)
    assert own[1] < 0.6 * own[0]


def test_pages_of_a_file_are_counted_once_they_are_touched(tmp_path):
    path = tmp_path / "numbers.npy"
    np.save(path, np.zeros(1 << 20, np.int8))
    before, mapped = file_pages(tmp_path / "elsewhere"), np.load(path, mmap_mode="r")
    assert int(mapped.sum()) == 0
    grown = new_bytes(before, file_pages(tmp_path / "elsewhere"))
    assert 1 << 20 <= grown <= 3 << 20
    assert new_bytes(before, file_pages(tmp_path)) <= grown - (1 << 20)
