"""A tiny real training that is killed: forked from one parent that has loaded torch, thousands of times an hour.

    python tests/faults/harness.py kills FOLDER N_KILLS SEED      SIGKILL at random moments, also in recovery
    python tests/faults/harness.py calls FOLDER STRIDE OFFSET     a crash at every STRIDE-th call that changes the disk
    python tests/faults/harness.py signals FOLDER N SEED          SIGTERM and SIGINT: saved, exit 143 or 130, resumed
    python tests/faults/harness.py full FOLDER STRIDE OFFSET      no space at every STRIDE-th write
Each prints one JSON object: what was done, and whatever differed from the undisturbed run.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from disk import Disk

from danlu.base.contracts import DataCard, SplitCard
from danlu.base.errors import DanluError
from danlu.base.runfolder import MetricsLog, RunFolder, write_json
from danlu.data.shards import ShardWriter
from danlu.parallel.checkpoint import load_newest, verify_run
from danlu.planning.choices import Choices
from danlu.recipe import Recipe
from danlu.stages.train import train_steps

N_STEPS, BATCH, VOCAB = 24, 4, 31
MODEL = {"n_layers": 2, "width": 32, "n_heads": 2, "context": 12, "dropout": 0.1}
RECIPE = {
    "name": "tiny",
    "seed": 3,
    "data": {"path": "made-by-hand.txt"},
    "model": MODEL,
    "optimizer": {"kind": "adamw", "lr": 0.01},
    "train": {"length": f"{N_STEPS} steps", "batch": BATCH, "ema": 0.9},
    "checkpoint": {"save_every": "2 steps", "keep": 2},
}


def made_run(folder: Path) -> RunFolder:
    """A run folder that is prepared and planned: random tokens, a two-layer decoder, a checkpoint every two steps."""
    run = RunFolder.create(folder, "tiny", "0" * 16)
    run.data.mkdir()
    tokens, splits = np.random.default_rng(5), {}
    for split, n_documents in (("train", 20), ("validation", 4)):
        counts = tokens.integers(5, 40, n_documents)
        writer = ShardWriter(run.data, split, "uint8", None)
        writer.append(tokens.integers(0, VOCAB, int(counts.sum())), counts)
        writer.finish()
        splits[split] = SplitCard(n_documents=n_documents, n_bytes=int(counts.sum()), n_tokens=int(counts.sum()))
    np.ones(VOCAB, "<u2").tofile(run.data / "token_bytes.bin")
    card = DataCard(
        kind="text", source="made by hand", rows_in=24, rows_used=24, rows_rejected={},
        splits=splits, vocab_size=VOCAB, dtype="uint8", fingerprint="0123",
    )  # fmt: skip
    write_json(run.data / "card.json", card.model_dump(mode="json"))
    choices = Choices(
        device="cpu", threads=1, precision="fp32", operations="plain", attention="blocks", compile=False,
        batch=BATCH, micro_batch=2, n_steps=N_STEPS, model=MODEL, optimizer={"lr": 0.01, "weight_decay": 0.1},
        evaluate_every=6, signals_every=5, save_every_steps=2, save_every_s=None, ema=0.9,
    )  # fmt: skip
    write_json(run.plan, {"decisions": [], "choices": choices.model_dump(mode="json")})
    with run.lock():
        pass
    return run


def outcome(run: RunFolder) -> dict[str, str]:
    """Hashes of everything that must be equal to the bit: weights, optimizer, average, state, ids, curve."""
    snapshot, events = load_newest(run.checkpoints)
    if snapshot is None:
        return {"checkpoint": "none"}
    found = {"step": str(snapshot.step), "events": "; ".join([*events, *verify_run(run)])}
    for group, tensors in snapshot.tensors.items():
        digest = hashlib.sha256()
        for name, tensor in sorted(tensors.items()):
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        found[group] = digest.hexdigest()
    for machine_s_own in ("elapsed_s", "startup_s", "peak_bytes"):
        snapshot.state["position"].pop(machine_s_own)
    found["state"] = json.dumps(snapshot.state, sort_keys=True)
    found["sample ids"] = hashlib.sha256((run.train / "sample_ids.bin").read_bytes()).hexdigest()
    kept = ("step", "loss", "lr", "grad_norm", "n_targets", "validation")
    rows = [[row.get(k) for k in kept] for row in MetricsLog(run.train / "metrics.jsonl")]
    found["curve"] = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    found["left over"] = " ".join(sorted(p.name for p in run.checkpoints.iterdir() if not p.name.startswith("step-")))
    return found


class Child:
    """A forked training. `phases` tells how far it came: r (the lock is ours, recovery begins), s for each step, u at
    the end if the disk did not fail."""

    def __init__(self, run: RunFolder, disk: Callable[[], Disk] | None = None) -> None:
        self.run = run
        self.errors = run.path.with_name(run.path.name + ".stderr")
        self.reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.dup2(os.open(self.errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 2)
                code = self._train(writer, disk)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(writer)

    def _train(self, writer: int, disk: Callable[[], Disk] | None) -> int:
        recipe = Recipe(**RECIPE)
        try:
            with disk() if disk else Disk(self.run.path, only=()) as entered, self.run.lock():
                os.write(writer, b"r")
                for _ in train_steps(recipe, self.run):
                    os.write(writer, b"s")
                if len(entered.calls) <= entered.at:
                    os.write(writer, b"u")
        except DanluError as error:
            print(error, file=sys.stderr)
            return error.exit_code
        return 0

    def wait(self) -> tuple[int, str]:
        """(exit code, or minus the signal's number; phases)."""
        with os.fdopen(self.reader, "rb") as file:
            phases = file.read().decode()
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        if code == 1:
            raise RuntimeError(f"the training failed: {self.errors.read_text()}")
        return code, phases

    def wait_for(self, phase: str) -> None:
        """Until the child says so, or has ended."""
        while os.read(self.reader, 1) not in (phase.encode(), b""):
            pass


class Runs:
    """Fresh copies of one prepared run, and what the undisturbed one comes to."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.n = folder, 0
        self.first = made_run(folder / "first").path
        for _ in train_steps(Recipe(**RECIPE), self.fresh()):
            pass  # here, so that no child has to load what torch loads at its first step
        undisturbed = self.fresh()
        began = time.perf_counter()
        code, phases = Child(undisturbed).wait()
        self.run_s = time.perf_counter() - began
        self.wanted = outcome(undisturbed)
        if (code, phases) != (0, "r" + "s" * N_STEPS + "u") or self.wanted["events"]:
            raise RuntimeError(f"the undisturbed run ended with {code} after {phases}: {self.wanted}")

    def fresh(self) -> RunFolder:
        """A copy that nothing has happened to."""
        self.n += 1
        shutil.copytree(self.first, self.folder / f"run-{self.n}")
        return RunFolder.open(self.folder / f"run-{self.n}")

    def differences(self, run: RunFolder) -> list[str]:
        """What is not as in the undisturbed run; a good run's folder is removed."""
        found = outcome(run)
        wrong = [f"{run.path.name}: {k} differs" for k in self.wanted if found.get(k) != self.wanted[k]]
        if not wrong:
            shutil.rmtree(run.path)
        return wrong


def kills(runs: Runs, n_kills: int, seed: int) -> dict[str, Any]:
    """SIGKILL at random moments: any, early (so that recovery itself is hit), and when a save has begun."""
    rng = random.Random(seed)
    done = {"kills": 0, "in recovery": 0, "while saving": 0, "runs": 0}
    wrong: list[str] = []
    while done["kills"] < n_kills:
        run, code = runs.fresh(), -9
        while code != 0 and done["kills"] < n_kills:
            child, moment = Child(run), rng.choice(["any", "early", "saving"])
            if moment == "saving":
                wait_for_save(run, runs.run_s * (0.3 + rng.random()))
            time.sleep(rng.random() * {"any": runs.run_s, "early": 0.1 * runs.run_s, "saving": 0.002}[moment])
            os.kill(child.pid, signal.SIGKILL)
            code, phases = child.wait()
            if code not in (0, -signal.SIGKILL):
                wrong.append(f"{run.path.name}: exit {code}: {child.errors.read_text()}")
                code = 0
            done["kills"] += code != 0
            done["in recovery"] += code != 0 and phases in ("", "r")
            done["while saving"] += code != 0 and any(run.checkpoints.glob(".tmp-step-*"))
        if code != 0:
            Child(run).wait()
        wrong += runs.differences(run)
        done["runs"] += 1
    return done | {"wrong": wrong}


def wait_for_save(run: RunFolder, at_most_s: float) -> None:
    """Until the run begins to write a checkpoint."""
    end = time.monotonic() + at_most_s
    while time.monotonic() < end and not any(run.checkpoints.glob(".tmp-step-*")):
        time.sleep(0.0002)


def calls(runs: Runs, stride: int, offset: int) -> dict[str, Any]:
    """The process ends at the n-th call that changes the disk, for every stride-th n of a whole run; then it goes on."""
    wrong, n_crashes, at = [], 0, offset
    while True:
        run = runs.fresh()

        def disk(run: RunFolder = run, at: int = at) -> Disk:
            return Disk(run.path, at, "torn" if at % 2 else "crash", die=True)

        code, _ = Child(run, disk).wait()
        n_crashes += code == 99
        last = code == 0
        if not last:
            code, _ = Child(run).wait()
        wrong += [f"call {at}: {w}" for w in ([f"exit {code}"] if code else runs.differences(run))]
        if last:
            return {"calls": at, "crashes": n_crashes, "wrong": wrong}
        at += stride


def full(runs: Runs, stride: int, offset: int) -> dict[str, Any]:
    """No space from the n-th write on, for a while or for good: survives, or stops with one sentence; then goes on."""
    wrong, survived, stopped, at = [], 0, 0, offset
    while True:
        run, n_errors = runs.fresh(), [1, 5, 10**9][at // stride % 3]

        def disk(run: RunFolder = run, at: int = at, n_errors: int = n_errors) -> Disk:
            return Disk(run.path, at, errno.ENOSPC, only=("write",), n_errors=n_errors)

        child = Child(run, disk)
        code, phases = child.wait()
        if phases.endswith("u"):
            return {"writes": at, "survived": survived, "stopped": stopped, "wrong": wrong}
        said = child.errors.read_text()
        survived, stopped = survived + (code == 0), stopped + (code != 0)
        if code not in (0, 2, 3) or said.count("\n") != (code != 0):
            wrong.append(f"write {at}: exit {code} after {phases}: {said}")
        code, _ = Child(run).wait()
        wrong += [f"write {at}: {w}" for w in ([f"exit {code}"] if code else runs.differences(run))]
        at += stride


def signals(runs: Runs, n: int, seed: int) -> dict[str, Any]:
    """SIGTERM or SIGINT at a random moment of training: the step is finished and saved, the exit code says so."""
    rng, wrong, n_stopped = random.Random(seed), [], 0
    while n_stopped < n:
        run, code = runs.fresh(), -1
        while code != 0:
            number = rng.choice([signal.SIGTERM, signal.SIGINT])
            child = Child(run)
            child.wait_for("s")
            time.sleep(runs.run_s * rng.random() * 0.7)
            os.kill(child.pid, number)
            code, _ = child.wait()
            saved, _ = load_newest(run.checkpoints)
            if code != 128 + number and saved is not None and saved.state["position"]["finished"]:
                code = 0  # training was over, and the process on its way out
            if code not in (0, 128 + number):
                wrong.append(f"{run.path.name}: exit {code} for signal {number}: {child.errors.read_text()}")
                break
            n_stopped += code != 0
            rows = list(MetricsLog(run.train / "metrics.jsonl"))
            if code and (saved is None or saved.step != rows[-1]["step"]):
                wrong.append(f"{run.path.name}: the last step was not saved")
        wrong += runs.differences(run)
    return {"stopped": n_stopped, "wrong": wrong}


def main(what: str, folder: str, *numbers: str) -> None:
    """Run one of the experiments and print what it found."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        runs = Runs(Path(place))
        experiment = {"kills": kills, "calls": calls, "full": full, "signals": signals}[what]
        print(json.dumps({"run_s": round(runs.run_s, 3)} | experiment(runs, *map(int, numbers))))


if __name__ == "__main__":
    main(*sys.argv[1:])
