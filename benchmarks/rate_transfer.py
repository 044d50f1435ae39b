"""Does the best rate of a small model carry over to a larger one? Over 8x in width and 4x in depth.

    python benchmarks/rate_transfer.py [--only NAME ...] [--table]

A byte-level language model on the Python standard library's top-level modules, no weight decay, 200 updates of 8 windows of
64 bytes at every size (the horizon is fixed), warm-up, stable, decay; rates by factors of 2 for each size. The loss is the
mean of the last fifth of the training losses; sizes of a ladder see the same data in the same order. The best rate is the
vertex of a parabola in log rate with one bend for all sizes of a ladder, fitted around the lowest point of the curve smoothed
over three rates, with weights that fall off as exp(-(distance / log 3)^2).
"Moves by" is the factor over the whole ladder along the line through log best rate against log size, up or down, with a 90%
interval: losses are drawn again 2,000 times with the noise that is left when size, rate and seed are taken out. Runs are
kept in benchmarks/rate_transfer.jsonl, so a benchmark that was stopped goes on where it was; --table trains nothing and leaves
out ladders that are not complete; the page is benchmarks/rate_transfer.md.
"""

from __future__ import annotations

import argparse
import json
import math
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from planning_tasks import WORK, NotKeptError

from danlu.base.contracts import Batch
from danlu.base.durable import fingerprint
from danlu.base.runfolder import RunFolder
from danlu.models.decoder_settings import Decoder
from danlu.optim import OPTIMIZERS
from danlu.planning.choices import Choices
from danlu.planning.trials import Trial
from danlu.recipe import Recipe
from danlu.tasks.language import Language
from danlu.training.coordinate_check import STREAM, check

ROOT = Path(__file__).resolve().parents[1]
KEPT, TABLE = ROOT / "benchmarks" / "rate_transfer.jsonl", ROOT / "benchmarks" / "rate_transfer.md"
N_STEPS, BATCH, CONTEXT = 200, 8, 64
NOISE = 0.03
"""Standard deviation of a tail loss, nats, where there is one seed: AdamW's in the ladders of width (0.026 and 0.031)."""
N_DRAWS, NEAR = 2000, math.log(3)


@dataclass(frozen=True)
class Ladder:
    """Sizes that differ in one way."""

    name: str
    parametrization: str
    shapes: tuple[tuple[int, int], ...]
    """(layers, width), from small to large."""
    optimizer: str = "adamw"
    middle: float = 4e-3
    """Rates are this times powers of 2."""
    powers: tuple[int, ...] = (-3, -2, -1, 0, 1, 2, 3)
    seeds: tuple[int, ...] = (0,)

    @property
    def rates(self) -> list[float]:
        """From low to high."""
        return [self.middle * 2.0**k for k in self.powers]

    @property
    def sizes(self) -> list[float]:
        """What grows: width or depth."""
        return [float(w if self.shapes[0][0] == self.shapes[-1][0] else n) for n, w in self.shapes]


WIDTHS = ((2, 32), (2, 64), (2, 128), (2, 256))
DEPTHS = ((2, 64), (4, 64), (8, 64))
HIGH = (-2, -1, 0, 1, 2, 3)
LADDERS = (
    Ladder("width, mup", "mup", WIDTHS, powers=(-1, 0, 1, 2, 3), seeds=(0, 1, 2)),
    Ladder("width, standard", "standard", WIDTHS, seeds=(0, 1)),
    Ladder("depth, completep", "completep", DEPTHS, seeds=(0, 1, 2)),
    Ladder("depth, standard", "standard", DEPTHS, seeds=(0, 1, 2)),
    Ladder("width, mup, Muon", "mup", WIDTHS, "muon", 0.01, HIGH, (0, 1)),
    Ladder("width, mup, AdamH", "mup", WIDTHS, "adamh", 0.02, HIGH[1:], (0, 1)),
    Ladder("depth, completep, Muon", "completep", DEPTHS, "muon", 0.01, HIGH, (0, 1)),
    Ladder("depth, standard, Muon", "standard", DEPTHS, "muon", 0.01, HIGH, (0, 1)),
    Ladder("width, standard, Muon", "standard", WIDTHS, "muon", 0.01, HIGH, (0, 1)),
    Ladder("depth, completep, AdamH", "completep", DEPTHS, "adamh", 0.02, HIGH[1:]),
)


def recipe_of(ladder: Ladder, n_layers: int, width: int) -> Recipe:
    """The recipe of one size."""
    model = {"kind": "decoder", "n_layers": n_layers, "width": width, "n_heads": max(1, width // 32), "context": CONTEXT,
             "parametrization": ladder.parametrization, "base_width": 64, "base_layers": 2}  # fmt: skip
    data = {"kind": "text", "path": f"{sysconfig.get_paths()['stdlib']}/*.py", "tokenizer": {"kind": "bytes"}, "clean": [],
            "split": {"kind": "order", "validation": 0.1}}  # fmt: skip
    raw = {
        "name": "transfer",
        "data": data,
        "model": model,
        "optimizer": {"kind": ladder.optimizer, **decay_of(ladder)},
    }
    return Recipe.model_validate(raw | {"schedule": {"kind": "wsd"}})


def decay_of(ladder: Ladder) -> dict[str, float]:
    """No weight decay, for rules that have one."""
    return {} if ladder.optimizer == "adamh" else {"weight_decay": 0.0}


def tail_loss(ladder: Ladder, shape: tuple[int, int], rate: float, seed: int, is_frozen: bool) -> float:
    """Mean training loss of the last fifth, from the file or trained now; infinite when it diverged."""
    asked: list[Any] = [ladder.parametrization, shape, f"{rate:.6g}", seed, N_STEPS, BATCH, CONTEXT]
    key = fingerprint(asked if ladder.optimizer == "adamw" else [*asked, ladder.optimizer])
    for line in KEPT.read_text(encoding="utf-8").splitlines() if KEPT.is_file() else []:
        row = json.loads(line)
        if row["key"] == key:
            return math.inf if row["loss"] is None else float(row["loss"])
    if is_frozen:
        raise NotKeptError(ladder.name)
    from danlu.stages.prepare import prepare
    from danlu.stages.train import run_trial

    recipe = recipe_of(ladder, *shape)
    folder = RunFolder(WORK / "rate-transfer")
    folder.path.mkdir(parents=True, exist_ok=True)
    if not (folder.data / "card.json").is_file():
        prepare(recipe, folder, lambda *_: None)
    choices = Choices(
        device="cpu", threads=1, precision="fp32", attention="blocks", operations="plain", compile=False, batch=BATCH,
        micro_batch=BATCH, n_steps=N_STEPS, model={}, optimizer={"lr": rate, **decay_of(ladder)}, evaluate_every=None,
        signals_every=None, save_every_steps=None, save_every_s=None,
    )  # fmt: skip
    outcome = run_trial(recipe, folder, Trial(choices, seed, is_scored=False))
    loss = None if outcome.diverged else mean(outcome.tail())
    row = {"key": key, "parametrization": ladder.parametrization, "optimizer": ladder.optimizer, "shape": shape, "rate": rate,
           "seed": seed, "loss": loss, "seconds": round(outcome.seconds, 1)}  # fmt: skip
    with KEPT.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)
    return math.inf if loss is None else loss


@dataclass(frozen=True)
class Found:
    """Best rates of a ladder's sizes."""

    best: list[float]
    lowest: list[float]
    moves: tuple[float, float, float]
    """Factor over the ladder, and its 90% interval; below 1: the best rate falls with size."""


def measured(ladder: Ladder, is_frozen: bool) -> Found:
    """Best rates by size, and how far they move."""
    losses = np.array([
        [[tail_loss(ladder, shape, r, s, is_frozen) for s in ladder.seeds] for r in ladder.rates] for shape in ladder.shapes
    ])  # fmt: skip
    x = np.log(ladder.rates)
    sd = noise_of(losses) / math.sqrt(len(ladder.seeds))
    curves = losses.mean(2)
    rng = np.random.default_rng(0)
    drawn = [moved(ladder, vertices(x, curves + rng.normal(0, sd, curves.shape))) for _ in range(N_DRAWS)]
    centers = vertices(x, curves)
    low, high = np.quantile(drawn, [0.05, 0.95])
    return Found([math.exp(c) for c in centers], [float(c.min()) for c in curves], (moved(ladder, centers), low, high))


def noise_of(losses: NDArray[np.float64]) -> float:
    """Of one run, from (sizes, rates, seeds): what a seed leaves when its mean over the four best rates is taken out."""
    if losses.shape[2] < 2:
        return NOISE
    left = []
    for of_size in losses:
        near = of_size[np.argsort(of_size.mean(1))[:4]]
        left.append(near - near.mean(1, keepdims=True) - near.mean(0, keepdims=True) + near.mean())
    freedom = len(losses) * 3 * (losses.shape[2] - 1)
    return float(np.sqrt(np.sum(np.square(left)) / freedom))


def vertex(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Log rate of the lowest point of one curve, as `vertices`."""
    return vertices(x, y[None])[0]


def vertices(x: NDArray[np.float64], curves: NDArray[np.float64]) -> list[float]:
    """Log rates of the lowest points of (sizes, rates): parabolas with one bend for all sizes, fitted around the lowest point
    of each smoothed curve, within the rates tried."""
    rows, values, lows = [], [], []
    for i, y in enumerate(curves):
        y = np.where(np.isfinite(y), y, np.max(y[np.isfinite(y)]))
        padded = np.pad(y, 1, mode="edge")
        lows.append(x[np.argmin(padded[:-2] + 2 * padded[1:-1] + padded[2:])])
        weight = np.exp(-(((x - lows[-1]) / NEAR) ** 2) / 2)
        columns = np.zeros((len(x), 1 + 2 * len(curves)))
        columns[:, 0], columns[:, 1 + 2 * i], columns[:, 2 + 2 * i] = x**2, x, 1
        rows.append(columns * weight[:, None])
        values.append(y * weight)
    bend, *lines = np.linalg.lstsq(np.concatenate(rows), np.concatenate(values), rcond=None)[0]
    if bend <= 0:
        return [float(low) for low in lows]
    return [float(np.clip(-slope / (2 * bend), x[0], x[-1])) for slope in lines[::2]]


def moved(ladder: Ladder, centers: Sequence[float]) -> float:
    """Factor by which the best rate moves over the ladder, along the line through (log size, log rate)."""
    size = np.log(ladder.sizes)
    return float(np.exp(np.polyfit(size, centers, 1)[0] * (size[-1] - size[0])))


CHECKED: dict[str, dict[str, Any]] = {
    "adamw": {"lr": 0.01, "weight_decay": 0.0},
    "adamh": {"lr": 0.02},
    "muon": {"lr": 0.02, "weight_decay": 0.0, "ns_precision": "fp32"},
}
"""Optimizers of the coordinate check."""
GROWN = {"width": ((64, 128, 256, 512), ("standard", "mup")), "depth": ((2, 4, 8, 16), ("standard", "completep"))}
"""What grows: sizes and parametrizations."""


def coordinate_rows() -> list[str]:
    """Slopes of the coordinate check, by what grows, optimizer and parametrization."""
    tokens = torch.randint(64, (8, 33), generator=torch.Generator().manual_seed(3))
    batch = Batch({"tokens": tokens[:, :-1], "targets": tokens[:, 1:]}, tokens[:, 1:].numel())
    lines = [
        "| grows | optimizer | parametrization | median | lowest | highest | residual stream |",
        "|---|---|---|---|---|---|---|",
    ]
    for grown, (sizes, parametrizations) in GROWN.items():
        for kind, given in CHECKED.items():
            for parametrization in parametrizations:

                def build(size: int, p: Any = parametrization, grown: str = grown) -> Any:
                    n_layers, width = (4, size) if grown == "width" else (size, 64)
                    shape: Any = {"n_layers": n_layers, "width": width, "n_heads": width // 32, "context": 32}
                    return Decoder(parametrization=p, base_width=64, base_layers=2, **shape).build(64, 1)

                settings: Any = OPTIMIZERS[kind](**given)
                slopes = {m.module: m.slope for m in check(build, sizes, batch, Language(), settings)}
                stream, layers = slopes.pop(STREAM), list(slopes.values())
                told = " | ".join(f"{x:+.2f}" for x in (median(layers), min(layers), max(layers), stream))
                lines.append(f"| {grown} | {kind} | {parametrization} | {told} |")
    return lines


def main() -> None:
    """Train what is missing, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    lines = ["# Does the best rate carry over?", "", *(__doc__ or "").splitlines()[4:], "", "## Best rates", "",
             "| ladder | sizes (layers x width) | best rates | lowest losses | seeds | moves by (90%) |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for ladder in LADDERS:
        if asked.only and ladder.name not in asked.only:
            continue
        try:
            found = measured(ladder, asked.table)
        except NotKeptError:
            continue
        sizes = ", ".join(f"{n}x{w}" for n, w in ladder.shapes)
        told = f"{', '.join(f'{r:.2g}' for r in found.best)} | {', '.join(f'{loss:.3f}' for loss in found.lowest)}"
        factor, low, high = found.moves
        lines.append(
            f"| {ladder.name} | {sizes} | {told} | {len(ladder.seeds)} | {factor:.2f} ({low:.2f} to {high:.2f}) |"
        )
    lines += ["", "## Coordinate check", "", "d log RMS of the change of a linear layer's output (and of the residual stream at its"
              " end) after 4 updates / d log size: widths 64 to 512 of 4 layers, depths 2 to 16 of width 64. 0 is wanted; under"
              " CompleteP an early layer's input changes less in a deeper model, the stream's end as much.", "",
              *coordinate_rows(), ""]  # fmt: skip
    TABLE.write_text("\n".join(lines), encoding="utf-8")
    print(f"Wrote {TABLE}.")


if __name__ == "__main__":
    main()
