"""Comparisons of arms (danlu tune) held to the truth: null comparisons, planted effects, a tie, an arm that is bad.

    python benchmarks/arms.py [--seconds 120]        goes on where it stopped; writes benchmarks/arms.md
Every run is a line of benchmarks/arms.jsonl: three small tasks on data made here, 0.1 to 0.5 s a run on one core. Null and
planted comparisons draw their pairs from a pool of runs, each seed at most once in a comparison, and go through the very
rule of `danlu tune` (budget, futility, validation split). A planted effect has a real cause (the same arm, trained for
fewer steps, the number of which is calibrated on other seeds) or is a shift of the loss. Its truth is the mean over the
whole pool.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

import danlu
from danlu.base.runfolder import RunFolder
from danlu.planning import paired
from danlu.planning.arms import Arm, Budget, Contest, Yardstick
from danlu.planning.arms_told import concluded
from danlu.planning.choices import Choices
from danlu.planning.trials import Look, Outcome, Trial
from danlu.recipe import Recipe
from danlu.stages.train import run_trial

HERE = Path(__file__)
RUNS, RESULT = HERE.with_suffix(".jsonl"), HERE.with_suffix(".md")
N_POOL, N_PLANTED, N_CALIBRATION = 100, 48, 12
"""Seeds of the null pool, of each planted arm, and of each point that the planted arms are calibrated on."""
N_COMPARED, N_PAIRS, N_REPEATS, N_CONFIRMED = 200, 12, 2, 40
"""Comparisons of each kind and task, the most pairs that the budget of one pays for, repeats of whole comparisons, and fresh pairs
that a decided tie is looked at with."""
RATES = {"classes": 0.008, "numbers": 0.004, "text": 0.02}
"""Learning rate of the pools, about the best; whole comparisons find their own."""
EFFECTS, SHARES = (0.003, 0.005, 0.01), (1.0, 0.93, 0.85)
"""Planted effects, as shares of the loss; shares of the steps that they are calibrated on."""


def rows_of_classes() -> Iterator[str]:
    """A table: three numbers and a colour decide on yes or no."""
    rng = random.Random(1)
    yield "a,b,c,color,y"
    for _ in range(4000):
        a, b, c, color = *(rng.gauss(0, 1) for _ in range(3)), rng.choice(["red", "blue", "green"])
        score = math.sin(2 * a) + b * c + (color == "red") + rng.gauss(0, 0.5)
        yield f"{a:.4f},{b:.4f},{c:.4f},{color},{'yes' if score > 0.3 else 'no'}"


def rows_of_numbers() -> Iterator[str]:
    """A table: five numbers make a sixth."""
    rng = random.Random(2)
    yield "a,b,c,d,e,y"
    for _ in range(4000):
        a, b, c, d, e = (rng.uniform(-1, 1) for _ in range(5))
        y = math.sin(math.pi * a * b) + 2 * (c - 0.5) ** 2 + d + 0.5 * e + rng.gauss(0, 0.3)
        yield f"{a:.4f},{b:.4f},{c:.4f},{d:.4f},{e:.4f},{y:.4f}"


def lines_of_text() -> Iterator[str]:
    """Sentences of made-up words: each word prefers a few successors (a random bigram grammar)."""
    rng = random.Random(3)
    words = [
        "".join(rng.choice("bdfgklmnprst") + rng.choice("aeiou") for _ in range(rng.randint(1, 3))) for _ in range(120)
    ]
    follows = [rng.sample(range(120), 6) for _ in words]
    for _ in range(4000):
        at, said = rng.randrange(120), []
        for _ in range(rng.randint(4, 12)):
            said.append(words[at])
            at = rng.choices(follows[at], [32, 16, 8, 4, 2, 1])[0] if rng.random() < 0.9 else rng.randrange(120)
        yield " ".join(said) + "."


HALF = {"kind": "random", "validation": 0.5, "test": 0.0}
MACHINE = {"threads": 1, "precision": "fp32", "compile": False}
TASKS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "classes": ("t.csv", rows_of_classes, {
        "data": {"kind": "table", "target": "y", "split": HALF}, "model": {"kind": "mlp", "layers": [64, 64], "activation": "gelu"},
        "task": {"kind": "classify"}, "optimizer": {"kind": "adamw"}, "train": {"length": "100 steps", "batch": 64, **MACHINE},
    }),
    "numbers": ("t.csv", rows_of_numbers, {
        "data": {"kind": "table", "target": "y", "split": HALF}, "model": {"kind": "mlp", "layers": [64, 32], "activation": "gelu"},
        "task": {"kind": "regress"}, "optimizer": {"kind": "adamw"}, "train": {"length": "100 steps", "batch": 64, **MACHINE},
    }),
    "text": ("t.txt", lines_of_text, {
        "data": {"kind": "text", "tokenizer": {"kind": "bytes"}, "split": {"kind": "order", "validation": 0.2}},
        "model": {"kind": "decoder", "n_layers": 1, "width": 32, "n_heads": 2, "context": 32, "activation": "gelu"},
        "task": {"kind": "language"}, "optimizer": {"kind": "adamw"}, "train": {"length": "80 steps", "batch": 16, **MACHINE},
        "evaluate": {"during_tokens": 8192},
    }),
}  # fmt: skip


class Paused(Exception):  # noqa: N818 - reads as what it says
    """The time of this call is over; the next goes on."""


@dataclass
class Runs:
    """Trainings by all that they depend on: from arms.jsonl, or run now and written there."""

    until: float
    folder: Path
    known: dict[str, dict[str, Any]] = field(default_factory=dict)
    prepared: dict[str, tuple[Recipe, RunFolder, Choices]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for line in RUNS.read_text(encoding="utf-8").splitlines() if RUNS.exists() else []:
            row = json.loads(line)
            self.known[row["key"]] = row

    def ready(self, task: str) -> tuple[Recipe, RunFolder, Choices]:
        """The task's recipe, its folder with the data, and its choices."""
        if task not in self.prepared:
            file, lines, sections = TASKS[task]
            place = self.folder / task
            place.mkdir()
            (place / file).write_text("\n".join(lines()) + "\n")
            data = sections["data"] | {"path": str(place / file)}
            recipe = Recipe(name=task, plan={"budget": "1 s"}, **(sections | {"data": data}))
            made = danlu.plan(recipe, place / "run")
            choices = Choices.read(made.folder)
            self.prepared[task] = (recipe, made.folder, choices)
        return self.prepared[task]

    def outcome(self, task: str, settings: Mapping[str, Any], lr: float, n_steps: int, seed: int) -> Outcome:
        """One training."""
        key = f"{task} {json.dumps(dict(settings), sort_keys=True)} {lr:.6g} {n_steps} {seed}"
        if key not in self.known:
            if time.monotonic() > self.until:
                raise Paused
            recipe, folder, choices = self.ready(task)
            choices = choices.model_copy(update={"n_steps": n_steps, "optimizer": {**choices.optimizer, "lr": lr}})
            made = run_trial(recipe, folder, Trial(choices, seed=seed, settings=settings))
            blocks = made.looks[-1].blocks if made.looks else ()
            self.known[key] = {
                "key": key, "sums": [float(f"{s:.7g}") for s, _ in blocks], "n": [n for _, n in blocks],
                "s": round(made.seconds, 3), "diverged": made.diverged,
            }  # fmt: skip
            with RUNS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(self.known[key], separators=(",", ":")) + "\n")
        row = self.known[key]
        blocks = tuple(zip(row["sums"], row["n"], strict=True))
        look = Look(n_steps, sum(row["sums"]) / max(1, sum(row["n"])), blocks)
        return Outcome((), (), () if row["diverged"] else (look,), row["s"], row["s"] / n_steps, row["diverged"])

    def pool(self, task: str, share: float, n: int, first: int) -> list[Outcome]:
        """The task's own arm, or the same for a share of the steps."""
        n_steps = round(share * int(TASKS[task][2]["train"]["length"].split()[0]))
        return [self.outcome(task, {}, RATES[task], n_steps, seed) for seed in range(first, first + n)]


def ruled(default: list[Outcome], other: list[Outcome]) -> dict[str, Any]:
    """A comparison by the rule of danlu tune, of runs that are there: the k-th pair is the k-th of both."""
    arms = [Arm(name, {}, CHOICES, rate_is_given=True) for name in ("default", "other")]
    runs = {"default": default, "other": other}
    contest = Contest(
        arms, Yardstick(), Budget(2 * len(default), "runs"), lambda arm, trial: runs[arm.name][trial.seed - 1],
        lambda *_: None,
    )  # fmt: skip
    contest.settle()
    return dict(concluded(contest)["comparisons"][0])


CHOICES = Choices(
    device="cpu", threads=1, precision="fp32", operations="plain", attention="fused", compile=False, batch=1,
    micro_batch=1, n_steps=1, model={}, optimizer={"lr": 1.0}, evaluate_every=None, signals_every=None,
    save_every_steps=None, save_every_s=None,
)  # fmt: skip
"""Of runs that are there already."""


def shifted(outcome: Outcome, by: float) -> Outcome:
    """The same run with a higher loss in every block."""
    look = outcome.looks[-1]
    return Outcome((), (), (Look(look.step, look.loss + by, tuple((s + by * n, n) for s, n in look.blocks)),), 1.0, 1.0)


def counted(found: list[dict[str, Any]]) -> dict[str, float]:
    """How comparisons ended, as shares, and the pairs they took."""
    ends = [row["found"] for row in found]
    return {name: ends.count(name) / len(ends) for name in ("better", "worse", "split too small")} | {
        "pairs": mean(row["n"] for row in found)
    }


def nulls(runs: Runs, task: str) -> dict[str, Any]:
    """The same arm twice, each run with a seed of its own; and the same with a shift that is found 80% of the time."""
    pool = runs.pool(task, 1.0, N_POOL, 1000)
    sd = math.sqrt(2) * stdev(o.loss for o in pool)
    shift = paired.smallest_effect(N_PAIRS) * sd
    null, moved = [], []
    for i in range(N_COMPARED):
        drawn = random.Random(f"{task} {i}").sample(pool, 2 * N_PAIRS)
        null.append(ruled(drawn[:N_PAIRS], drawn[N_PAIRS:]))
        moved.append(ruled(drawn[:N_PAIRS], [shifted(o, shift) for o in drawn[N_PAIRS:]]))
    base = mean(o.loss for o in pool)
    told = {"task": task, "sd": sd / base, "shift": shift / base, "n": len(null)}
    return told | {"null": counted(null), "shifted": counted(moved)}


def share_for(runs: Runs, task: str, effect: float) -> float:
    """The share of the steps that costs so much of the loss: a line through the calibration, on log steps."""
    pools = [runs.pool(task, share, N_CALIBRATION, 5000) for share in SHARES]
    losses = [mean(o.loss for o in pool) for pool in pools]
    slope = np.polyfit(np.log(SHARES), np.array(losses) / losses[0] - 1, 1)[0]
    n_steps = int(TASKS[task][2]["train"]["length"].split()[0])
    return min(float(round(math.exp(effect / slope), 3)), 1 - 1 / n_steps)  # one step fewer at least


def planted(runs: Runs, task: str, effect: float) -> dict[str, Any]:
    """The same arm for fewer steps, in pairs of the same seed."""
    share = share_for(runs, task, effect)
    whole, fewer = (runs.pool(task, s, N_PLANTED, 1000) for s in (1.0, share))
    d = [b.loss - a.loss for a, b in zip(whole, fewer, strict=True)]
    found = []
    for i in range(N_COMPARED):
        drawn = random.Random(f"{task} {effect} {i}").sample(range(N_PLANTED), N_PAIRS)
        found.append(ruled([whole[j] for j in drawn], [fewer[j] for j in drawn]))
    base = mean(o.loss for o in whole)
    told = {"task": task, "effect": effect, "share": share, "truth": mean(d) / base, "sd": stdev(d) / base}
    return told | {"stated": paired.chance(abs(mean(d)) / stdev(d), N_PAIRS), **counted(found)}


def whole(runs: Runs, task: str, name: str, arms: Mapping[str, Mapping[str, Any]], repeat: int) -> dict[str, Any]:
    """A whole comparison, rates included, on seeds of its own."""
    n_steps = int(TASKS[task][2]["train"]["length"].split()[0])
    choices = CHOICES.model_copy(update={"n_steps": n_steps, "optimizer": {"lr": RATES[task] / 2}})

    def run(arm: Arm, trial: Trial) -> Outcome:
        lr = float(f"{trial.choices.optimizer['lr']:.6g}")
        return runs.outcome(task, arm.settings, lr, n_steps, 10_000 * (repeat + 1) + trial.seed)  # a block of its own

    budget = Budget(5 * N_PAIRS, "runs")
    contest = Contest([Arm(k, v, choices) for k, v in arms.items()], Yardstick(), budget, run, lambda *_: None)
    contest.settle()
    result = concluded(contest)
    row = result["comparisons"][0]
    told = {"task": task, "name": name, "repeat": repeat, "verdict": result["verdict"], "winner": result["winner"]}
    if name == "GELU, SiLU" and result["is_measurable"]:  # a false winner or a true one? Fresh seeds at the same rates
        seeds = range(500, 500 + N_CONFIRMED)
        losses = [[run(s.arm, Trial(s.arm.choices, seed=seed)).loss for s in contest.standings] for seed in seeds]
        again = [a - b for a, b in losses]
        told["again"] = [mean(again) / row["base"], stdev(again) / math.sqrt(N_CONFIRMED) / row["base"]]
    return told | row


TIE = {"gelu": {"model.activation": "gelu"}, "silu": {"model.activation": "silu"}}
DEEP = {name: {"model.activation": name, "model.layers": [32] * 8} for name in ("relu", "sigmoid")}


def measured(runs: Runs) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every part of the table, one after the other."""
    for task in TASKS:
        for repeat in range(N_REPEATS):
            yield "tie", whole(runs, task, "GELU, SiLU", TIE, repeat)
    for task in ("classes", "numbers"):
        for repeat in range(N_REPEATS):
            yield "bad", whole(runs, task, "ReLU, sigmoid", DEEP, repeat)
    for task in TASKS:
        yield "null", nulls(runs, task)
    for task in TASKS:
        for effect in EFFECTS:
            yield "planted", planted(runs, task, effect)


def table(head: str, rows: list[list[str]]) -> str:
    """Markdown."""
    names = head.split(" | ")
    return "\n".join(f"| {' | '.join(row)} |" for row in [names, ["---"] * len(names), *rows]) + "\n"


def again(row: Mapping[str, Any]) -> str:
    """What fresh pairs say of a decided tie."""
    if "again" not in row:
        return ""
    effect, se = row["again"]
    return f" ({N_CONFIRMED} fresh pairs: {effect:+.2%} ± {1.96 * se:.2%})"


def page(found: list[tuple[str, dict[str, Any]]], runs: Runs) -> str:
    """benchmarks/arms.md."""
    of = {kind: [row for k, row in found if k == kind] for kind in ("null", "planted", "tie", "bad")}
    n_null = sum(row["n"] for row in of["null"])
    n_false = round(sum(row["n"] * (row["null"]["better"] + row["null"]["worse"]) for row in of["null"]))
    seconds = sum(row["s"] for row in runs.known.values())
    text = [
        "# Which of these? Comparisons of arms held to the truth", "",
        f"`python benchmarks/arms.py`: {len(runs.known):,} runs of 0.1 to 0.5 s, {seconds:.0f} s in all on one core (arms.jsonl).",
        f"At most {N_PAIRS} pairs a comparison, error rate {paired.LEVEL:.0%}, the rule of `danlu tune` with futility and the",
        f"validation split's own noise. A pool has {N_POOL} runs (null) or {N_PLANTED} pairs (planted): comparisons of one pool",
        "share runs, so their counts vary more than independent ones would. The stated power is that of a fixed number of pairs in",
        "either direction; giving up early (futility) takes a few points of it where it is low.", "",
        "## The same arm twice (no effect), and the same with a shift that 12 pairs are stated to find 80% of the time", "",
        f"False winners: {n_false} of {n_null} ({n_false / max(1, n_null):.1%}).", "",
        table(
            "task | sd of a difference | comparisons | false winners | pairs taken | shift | found | the wrong way",
            [
                [row["task"], f"{row['sd']:.2%}", str(row["n"]), f"{row['null']['better'] + row['null']['worse']:.1%}",
                 f"{row['null']['pairs']:.1f}", f"{row['shift']:.2%}", f"{row['shifted']['worse']:.1%}",
                 f"{row['shifted']['better']:.1%}"]
                for row in of["null"]
            ],
        ),
        "## Planted effects: the same arm for fewer steps, same seeds", "",
        table(
            "task | meant | share of the steps | true effect | sd of a difference | stated power | found | split too small | "
            "the wrong way | pairs taken",
            [
                [row["task"], f"{row['effect']:.1%}", f"{row['share']:.1%}", f"{row['truth']:.2%}", f"{row['sd']:.2%}",
                 f"{row['stated']:.0%}", f"{row['worse']:.0%}", f"{row['split too small']:.0%}", f"{row['better']:.0%}",
                 f"{row['pairs']:.1f}"]
                for row in of["planted"]
            ],
        ),
    ]  # fmt: skip
    for kind, words in (
        ("tie", "GELU against SiLU (a tie is expected)"),
        ("bad", "ReLU against sigmoid, 8 hidden layers"),
    ):
        rows = [
            [row["task"], row["found"] + again(row), f"{row['mean'] / row['base']:+.2%}" if row["mean"] is not None else "diverged",
             f"{row['low'] / row['base']:+.2%} to {row['high'] / row['base']:+.2%}" if row.get("low") is not None else "",
             str(row.get("n", "")), f"{row['smallest'] / row['base']:.2%}" if row.get("smallest") else "", row["verdict"]]
            for row in of[kind]
        ]  # fmt: skip
        head = "task | found | better by | interval | pairs | findable | verdict"
        text += [f"## {words}: whole comparisons, each arm at its own rate", "", table(head, rows)]
    return "\n".join(text)


def main() -> None:
    """Go on for so many seconds; write the page when all is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop after so long; the next call goes on")
    until = time.monotonic() + parser.parse_args().seconds
    found: list[tuple[str, dict[str, Any]]] = []
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(until, Path(folder))
        try:
            for kind, row in measured(runs):
                found.append((kind, row))
                print(
                    kind,
                    json.dumps({k: v for k, v in row.items() if k not in ("differences", "pairs_needed")}),
                    flush=True,
                )
            print("Finished.")
        except Paused:
            print(f"Paused with {len(runs.known):,} runs. Go on with the same command.")
        n_parts = (N_REPEATS + 1 + len(EFFECTS)) * len(TASKS) + 2 * N_REPEATS
        left = f"\nNot finished: {len(found)} of {n_parts} parts are here.\n" if len(found) < n_parts else ""
        RESULT.write_text(page(found, runs) + left, encoding="utf-8")


if __name__ == "__main__":
    main()
