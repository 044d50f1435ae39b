"""The development tasks of the planning benchmark, and their runs, kept one JSON line each.

    DANLU_DATA=../shared/data python benchmarks/planning_tasks.py grid [--only TASK ...]     the oracle's grid
    DANLU_DATA=../shared/data python benchmarks/planning_tasks.py time                       how long each task takes

Every run is found again by its settings in benchmarks/planning_runs.jsonl, so a benchmark that was stopped goes on where
it was. A run is one full training on a fixed number of samples D, whatever its batch: all runs of a task cost the same
compute. One thread each, so that two can run side by side.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import os
import random
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from danlu.base import native
from danlu.base.durable import fingerprint
from danlu.base.runfolder import RunFolder
from danlu.planning.choices import Choices
from danlu.planning.trials import Outcome, Trial
from danlu.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "benchmarks" / "planning_runs.jsonl"
WORK = Path(os.environ.get("DANLU_BENCH", "~/.cache/danlu/bench-planning")).expanduser()
"""Prepared data of the tasks."""
N_LOOKS, N_BINS = 20, 200
RATES = tuple(2.0**k for k in (-3, -2, -1, 0, 1, 2, 3))
"""Times the task's middle rate."""
BATCHES = (1.0, 0.5, 0.25, 2.0)
"""Times the task's usual batch, in the order in which they are run."""


class NotKeptError(Exception):
    """A run that is not kept, while nothing is to be trained."""


FROZEN = {"on": False}
"""Whether only kept runs are looked at, for the tables."""


@dataclass(frozen=True)
class Task:
    """A development task."""

    name: str
    recipe: dict[str, Any]
    n_samples: int
    """D: samples of a full run (windows of running text)."""
    batch: int
    """The middle of the grid."""
    lr: float
    """The middle of the grid."""
    precision: str = "bf16"
    abstain: str = ""
    """Why planning should abstain here, or nothing."""
    floor: float = 0.0
    """Known lowest loss."""
    n_looks: int = N_LOOKS
    """At the validation split, during a run."""
    kept: dict[str, Any] = field(default_factory=dict)


def text(path: str, tokenizer: dict[str, Any], model: dict[str, Any], **data: Any) -> dict[str, Any]:
    """A language task."""
    return {
        "data": {"kind": "text", "path": path, "tokenizer": tokenizer, "split": {"kind": "order", "validation": 0.1},
                 "clean": [], **data},
        "model": {"kind": "decoder", **model},
        "optimizer": {"kind": "adamw", "weight_decay": 0.1},
    }  # fmt: skip


def small(n_layers: int, width: int, context: int, **model: Any) -> dict[str, Any]:
    """A decoder's shape."""
    return {"n_layers": n_layers, "width": width, "n_heads": max(1, width // 32), "context": context, **model}


def sampled(data: dict[str, Any], model: dict[str, Any], task: str, decay: float = 0.01, **more: Any) -> dict[str, Any]:
    """A task on samples."""
    optimizer = {"kind": "adamw", "weight_decay": decay}
    return {"data": data, "model": model, "task": {"kind": task, **more}, "optimizer": optimizer}


MNIST = {"kind": "image", "path": "$DANLU_DATA/mnist", "split": {"kind": "random", "validation": 0.1}}
ADULT = ["age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation", "relationship", "race",
         "sex", "capital_gain", "capital_loss", "hours_per_week", "native_country", "income"]  # fmt: skip
TITANIC = {"kind": "table", "path": "$DANLU_DATA/titanic/titanic.csv", "target": "Survived",
           "drop": ["PassengerId", "Name", "Ticket", "Cabin"], "types": {"Pclass": "category"},
           "split": {"kind": "random", "validation": 0.25}}  # fmt: skip
DIGITS = {
    str(i): w for i, w in enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
}


@cache
def tasks() -> dict[str, Task]:
    """Every development task by name."""
    shakespeare = "$DANLU_DATA/tiny_shakespeare/input.txt"
    made = [
        Task("bytes", text(shakespeare, {"kind": "bytes"}, small(3, 128, 64)), 13_000, 32, 4e-3),
        Task("characters", text("$DANLU_DATA/chinese_poetry", {"kind": "characters", "unseen": "replace"},
             small(2, 128, 64), pattern="*tang*.json", column="paragraphs"), 10_000, 32, 4e-3),
        Task("bpe", text("$DANLU_DATA/wikitext2_valid_test", {"kind": "bpe", "vocab_size": 1024}, small(3, 128, 64),
             pattern="*.txt"), 10_000, 32, 4e-3),
        Task("code", text(f"{sysconfig.get_paths()['stdlib']}/*.py", {"kind": "bpe", "vocab_size": 512},
             small(2, 128, 128)), 7_000, 16, 4e-3),
        Task("grammar", text(str(WORK / "grammar.txt"), {"kind": "bytes"}, small(2, 96, 128)), 12_000, 16, 4e-3),
        Task("image-cnn", sampled(MNIST, {"kind": "lenet"}, "classify"), 26_000, 64, 2e-3, "fp32"),
        Task("image-vit", sampled(MNIST, {"kind": "vit", "patch": 7, "width": 64, "n_layers": 3, "n_heads": 2}, "classify"),
             60_000, 64, 2e-3),
        Task("table-classify", sampled(
            {"kind": "table", "path": "$DANLU_DATA/adult/adult.data", "names": ADULT, "target": "income",
             "drop": ["fnlwgt"], "normalize": "quantile", "split": {"kind": "random", "validation": 0.2}},
            {"kind": "mlp", "layers": [1024, 512], "dropout": 0.3}, "classify"), 80_000, 128, 2e-3, "fp32"),
        Task("table-regress", sampled(
            {"kind": "table", "path": "$DANLU_DATA/bike_sharing/hour.csv", "target": "cnt", "target_transform": "log1p",
             "drop": ["instant", "dteday", "casual", "registered"], "split": {"kind": "random", "validation": 0.2},
             "types": dict.fromkeys(("hr", "mnth", "weekday", "season", "weathersit"), "category")},
            {"kind": "mlp", "layers": [1024, 1024]}, "regress"), 120_000, 128, 2e-3, "fp32"),
        Task("series", sampled(
            {"kind": "series", "path": "$DANLU_DATA/beijing_pm25", "time": ["year", "month", "day", "hour"],
             "targets": ["pm2.5"], "drop": ["No"], "history": 48, "horizon": 24, "calendar": True},
            {"kind": "recurrent", "cell": "gru", "width": 48}, "forecast", period=24), 50_000, 128, 2e-3, "fp32"),
        Task("speech", sampled(
            {"kind": "audio", "path": "$DANLU_DATA/fsdd/recordings", "spoken": DIGITS, "unit": "words",
             "names": "(?P<text>[0-9])_(?P<speaker>[a-z]+)_[0-9]+",
             "split": {"kind": "random", "validation": 0.4}},
            {"kind": "deepspeech", "channels": [32, 64], "kernels": [[5, 5], [3, 3]], "strides": [[2, 2], [2, 2]],
             "width": 64, "n_layers": 1}, "transcribe"), 8_000, 32, 4e-3, "fp32"),
        Task("tagging", sampled(
            {"kind": "protein", "path": "$DANLU_DATA/protein_sequences/flip_secondary_structure_splits.zip/splits/sequences.fasta",
             "labels": "sampled.fasta", "mask": "mask.fasta", "augment": {"crop": 128},
             "split": {"kind": "named", "column": "set", "validation_column": "validation"}},
            {"kind": "convtagger", "width": 48, "n_layers": 4, "kernel": 5}, "tag"), 8_000, 32, 2e-3, "fp32"),
        Task("tiny", sampled(TITANIC, {"kind": "mlp", "layers": [32]}, "classify"), 4_000, 32, 4e-3, "fp32",
             "a run of a second cannot pay for a measurement"),
        Task("grokking", sampled(
            {"kind": "table", "path": str(WORK / "modular.csv"), "target": "c", "types": dict.fromkeys("ab", "category"),
             "split": {"kind": "random", "validation": 0.5}},
            {"kind": "mlp", "layers": [256]}, "classify", 1.0), 1_200_000, 512, 4e-3, "fp32",
             "delayed generalisation: nothing early tells the end"),
    ]  # fmt: skip
    return {task.name: task for task in made}


def make_data() -> None:
    """The synthetic sets, from fixed seeds."""
    WORK.mkdir(parents=True, exist_ok=True)
    if not (WORK / "grammar.txt").is_file():
        (WORK / "grammar.txt").write_text(Grammar().sample(1_500_000), encoding="ascii")
    if not (WORK / "modular.csv").is_file():
        rows = [f"a{a},b{b},c{(a + b) % 59}" for a in range(59) for b in range(59)]
        random.Random(0).shuffle(rows)
        (WORK / "modular.csv").write_text("a,b,c\n" + "\n".join(rows) + "\n", encoding="ascii")


class Grammar:
    """A probabilistic context-free grammar whose alternatives begin with symbols of their own, so that a text has one
    derivation and the entropy of the text is that of its rules (Grenander 1976; Lari & Young 1990, section 2)."""

    N, ALTERNATIVES, LENGTH = 10, 4, 3

    def __init__(self, seed: int = 7) -> None:
        rng = np.random.default_rng(seed)
        letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
        self.rules: list[list[tuple[str, list[int]]]] = []
        self.weights = rng.dirichlet(np.full(self.ALTERNATIVES, 0.7), self.N)
        for _ in range(self.N):
            heads = rng.choice(letters, self.ALTERNATIVES, replace=False)
            counts = rng.permutation([0, 0, 1, 2])
            self.rules.append([(h, list(rng.integers(0, self.N, int(c)))) for h, c in zip(heads, counts, strict=True)])
        means = np.zeros((self.N, self.N))
        for i, rules in enumerate(self.rules):
            for w, (_, children) in zip(self.weights[i], rules, strict=True):
                for child in children:
                    means[i, child] += w
        radius = max(abs(np.linalg.eigvals(means)))
        shrink = min(1.0, 0.85 / radius)
        for i, rules in enumerate(self.rules):  # keep sentences finite: less weight where there are children
            w = np.array([x * (shrink ** len(c)) for x, (_, c) in zip(self.weights[i], rules, strict=True)])
            self.weights[i] = w / w.sum()

    def sample(self, n_bytes: int, seed: int = 11) -> str:
        """Sentences from symbol 0, each ending with a full stop, until there are n_bytes."""
        rng = random.Random(seed)
        parts: list[str] = []
        done = 0
        while done < n_bytes:
            stack, words = [0], []
            while stack:
                symbol = stack.pop()
                head, children = rng.choices(self.rules[symbol], list(self.weights[symbol]))[0]
                words.append(head)
                stack += reversed(children)
            parts.append("".join(words) + ".")
            done += len(words) + 1
        return "".join(parts)

    @property
    def entropy(self) -> float:
        """Nats a byte: entropy of a derivation over its expected length, the full stop counted."""
        means, own = np.zeros((self.N, self.N)), np.zeros(self.N)
        for i, rules in enumerate(self.rules):
            own[i] = -float((self.weights[i] * np.log(self.weights[i])).sum())
            for w, (_, children) in zip(self.weights[i], rules, strict=True):
                for child in children:
                    means[i, child] += w
        visits = np.linalg.solve(np.eye(self.N) - means.T, np.eye(self.N)[0])
        return float(visits @ own / (visits.sum() + 1))


def opened(task: Task) -> tuple[Recipe, RunFolder]:
    """The task's recipe and a folder with its prepared data."""
    from danlu.stages.prepare import prepare

    make_data()
    recipe = Recipe.model_validate({"name": task.name, "schedule": {"kind": "wsd", "decay": "20%"}, **task.recipe})
    folder = RunFolder(WORK / f"{task.name.partition('.')[0]}-{fingerprint(recipe.data.model_dump(mode='json'))[:8]}")
    folder.path.mkdir(parents=True, exist_ok=True)
    with (folder.path / "preparing").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder.data / "card.json").is_file():
            prepare(recipe, folder, lambda *_: None)
    return recipe, folder


def choices_of(task: Task, lr: float, batch: int, share: float = 1.0, threads: int = 1) -> Choices:
    """A run with nothing left open."""
    recipe: Any = Recipe.model_validate({"name": task.name, **task.recipe})
    decay = recipe.optimizer.weight_decay
    has_native = recipe.model.kind == "decoder" and native.load() is not None
    return Choices(
        device="cpu", threads=threads, precision=task.precision, attention="blocks",
        operations="native" if has_native else "plain", compile=False, batch=batch, micro_batch=batch,
        n_steps=max(1, round(share * task.n_samples / batch)), model={}, optimizer={"lr": lr, "weight_decay": decay},
        evaluate_every=None, signals_every=None, save_every_steps=None, save_every_s=None,
    )  # fmt: skip


def key_of(task: Task, lr: float, batch: int, seed: int, share: float, settings: dict[str, Any]) -> str:
    """What finds a run again."""
    asked = [task.recipe, task.n_samples, task.precision, f"{lr:.6g}", batch, seed, f"{share:.6g}", settings]
    return fingerprint(asked)


def kept_runs() -> dict[str, dict[str, Any]]:
    """Every kept run by its key."""
    return read_runs(KEPT, KEPT.stat().st_size) if KEPT.is_file() else {}


@lru_cache(1)
def read_runs(path: Path, n_bytes: int) -> dict[str, dict[str, Any]]:
    """The file's rows by key; read again when it has grown."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {row["key"]: row for row in rows}


def run(
    task: Task, lr: float, batch: int, seed: int = 0, share: float = 1.0, settings: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A full run (`share` of the task's samples), from the file or trained now."""
    from danlu.stages.train import run_trial

    settings = settings or {}
    key = key_of(task, lr, batch, seed, share, settings)
    if (found := kept_runs().get(key)) is not None:
        return found
    if FROZEN["on"]:
        raise NotKeptError(task.name)
    recipe, folder = opened(task)
    choices = choices_of(task, lr, batch, share)
    looks = tuple(sorted({max(1, round(choices.n_steps * i / task.n_looks)) for i in range(1, task.n_looks + 1)}))
    outcome = run_trial(recipe, folder, Trial(choices, seed, looks=looks, settings=settings))
    row = {"key": key, "task": task.name, "lr": lr, "batch": batch, "seed": seed, "share": share, "settings": settings,
           **described(outcome, choices.n_steps)}  # fmt: skip
    with KEPT.open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(row) + "\n")
    return row


def described(outcome: Outcome, n_steps: int) -> dict[str, Any]:
    """An outcome as JSON: final loss (null: diverged), looks, the training curve in bins of equally many steps."""
    losses = np.array(outcome.losses)
    pieces = [p for p in np.array_split(np.arange(len(losses)), min(N_BINS, max(1, len(losses)))) if len(p)]
    return {
        "loss": outcome.loss if math.isfinite(outcome.loss) else None, "n_steps": n_steps,
        "metrics": dict(outcome.looks[-1].metrics) if outcome.looks else {},
        "looks": [[look.step, round(look.loss, 6)] for look in outcome.looks],
        "curve": [[int(p[-1]) + 1, round(float(losses[p].mean()), 5)] for p in pieces],
        "blocks": [[round(a, 4), n] for a, n in outcome.looks[-1].blocks] if outcome.looks else [],
        "seconds": round(outcome.seconds, 2), "step_s": round(outcome.step_s, 6), "diverged": outcome.diverged,
    }  # fmt: skip


def grid(task: Task) -> Iterator[tuple[float, int]]:
    """(rate, batch) of the oracle's grid."""
    for scale in BATCHES:
        for rate in RATES:
            yield float(f"{task.lr * rate:.4g}"), max(1, round(task.batch * scale))


def main() -> None:
    """Run what is asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["grid", "time"])
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--sealed", action="store_true")
    asked = parser.parse_args()
    from planning_sealed import sealed_tasks

    known = sealed_tasks() if asked.sealed else tasks()
    chosen = [t for t in known.values() if not asked.only or t.name in asked.only]
    if asked.what == "time":
        for task in chosen:
            row = run(task, task.lr, task.batch)
            print(f"{task.name:15} {row['seconds']:6.1f} s  {row['n_steps']:5d} steps  loss {row['loss']}", flush=True)
        return
    whole = [[(task, *cell) for cell in grid(task)] for task in chosen]
    for part in range(len(BATCHES)):
        for cells in whole:
            for task, lr, batch in cells[part * len(RATES) : (part + 1) * len(RATES)]:
                row = run(task, lr, batch)
                print(
                    f"{task.name:15} lr {lr:<8g} batch {batch:<4d} loss {row['loss']} in {row['seconds']} s", flush=True
                )


if __name__ == "__main__":
    main()
