"""Does the best rate of a small model carry over to a larger one? Over 8x in width and 4x in depth.

    python benchmarks/rate_transfer.py [--only NAME ...] [--table]

A byte-level language model on the Python standard library's top-level modules, AdamW without decay, 200 updates of 8 windows
of 64 bytes, warm-up, stable, decay; 7 rates by factors of 2 for each size. The best rate is the vertex of a parabola through
the lowest loss (tail of the training loss) and its neighbours in log rate. Runs are kept in benchmarks/rate_transfer.jsonl, so
a benchmark that was stopped goes on where it was; the page is benchmarks/rate_transfer.md.
"""

from __future__ import annotations

import argparse
import json
import math
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from planning_tasks import WORK

from danlu.base.contracts import Batch
from danlu.base.durable import fingerprint
from danlu.base.runfolder import RunFolder
from danlu.models.decoder_settings import Decoder
from danlu.optim import OPTIMIZERS
from danlu.planning.choices import Choices
from danlu.planning.learning_rate import Point, fit
from danlu.planning.trials import Trial
from danlu.recipe import Recipe
from danlu.tasks.language import Language
from danlu.training.coordinate_check import check

ROOT = Path(__file__).resolve().parents[1]
KEPT, TABLE = ROOT / "benchmarks" / "rate_transfer.jsonl", ROOT / "benchmarks" / "rate_transfer.md"
RATES = tuple(4e-3 * 2.0**k for k in range(-3, 4))
N_STEPS, BATCH, CONTEXT, SEEDS = 200, 8, 64, (0,)


@dataclass(frozen=True)
class Ladder:
    """Sizes that differ in one way."""

    name: str
    parametrization: str
    shapes: tuple[tuple[int, int], ...]
    """(layers, width), from small to large."""


WIDTHS = ((2, 32), (2, 64), (2, 128), (2, 256))
DEPTHS = ((2, 64), (4, 64), (8, 64))
LADDERS = (
    Ladder("width, mup", "mup", WIDTHS),
    Ladder("width, standard", "standard", WIDTHS),
    Ladder("depth, completep", "completep", DEPTHS),
    Ladder("depth, standard", "standard", DEPTHS),
)


def recipe_of(parametrization: str, n_layers: int, width: int) -> Recipe:
    """The recipe of one size; base sizes are the smallest of each ladder."""
    model = {"kind": "decoder", "n_layers": n_layers, "width": width, "n_heads": max(1, width // 32), "context": CONTEXT,
             "parametrization": parametrization, "base_width": 64, "base_layers": 2}  # fmt: skip
    data = {"kind": "text", "path": f"{sysconfig.get_paths()['stdlib']}/*.py", "tokenizer": {"kind": "bytes"}, "clean": [],
            "split": {"kind": "order", "validation": 0.1}}  # fmt: skip
    raw = {"name": "transfer", "data": data, "model": model, "optimizer": {"kind": "adamw", "weight_decay": 0.0}}
    return Recipe.model_validate(raw | {"schedule": {"kind": "wsd"}})


def tail_loss(parametrization: str, shape: tuple[int, int], rate: float, seed: int) -> float:
    """Mean training loss of the last fifth, from the file or trained now; infinite when it diverged."""
    key = fingerprint([parametrization, shape, f"{rate:.6g}", seed, N_STEPS, BATCH, CONTEXT])
    for line in KEPT.read_text(encoding="utf-8").splitlines() if KEPT.is_file() else []:
        row = json.loads(line)
        if row["key"] == key:
            return math.inf if row["loss"] is None else float(row["loss"])
    from danlu.stages.prepare import prepare
    from danlu.stages.train import run_trial

    recipe = recipe_of(parametrization, *shape)
    folder = RunFolder(WORK / "rate-transfer")
    folder.path.mkdir(parents=True, exist_ok=True)
    if not (folder.data / "card.json").is_file():
        prepare(recipe, folder, lambda *_: None)
    choices = Choices(
        device="cpu", threads=1, precision="fp32", attention="blocks", operations="plain", compile=False, batch=BATCH,
        micro_batch=BATCH, n_steps=N_STEPS, model={}, optimizer={"lr": rate, "weight_decay": 0.0}, evaluate_every=None,
        signals_every=None, save_every_steps=None, save_every_s=None,
    )  # fmt: skip
    outcome = run_trial(recipe, folder, Trial(choices, seed, is_scored=False))
    loss = None if outcome.diverged else mean(outcome.tail())
    row = {"key": key, "parametrization": parametrization, "shape": shape, "rate": rate, "seed": seed, "loss": loss,
           "seconds": round(outcome.seconds, 1)}  # fmt: skip
    with KEPT.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)
    return math.inf if loss is None else loss


def optimum(ladder: Ladder, shape: tuple[int, int]) -> tuple[float, float]:
    """(best rate, lowest loss) of a size."""
    points = [Point(r, mean(tail_loss(ladder.parametrization, shape, r, s) for s in SEEDS), 0.01) for r in RATES]
    bowl = fit(points)
    best = min(points, key=lambda p: p.loss)
    return (math.exp(bowl.center), bowl.lowest) if bowl else (best.rate, best.loss)


def coordinate_rows() -> list[str]:
    """Slopes of the coordinate check, by parametrization and optimizer."""
    tokens = torch.randint(64, (16, 33), generator=torch.Generator().manual_seed(3))
    batch = Batch({"tokens": tokens[:, :-1], "targets": tokens[:, 1:]}, tokens[:, 1:].numel())
    lines = ["| parametrization | optimizer | median slope | lowest | highest |", "|---|---|---|---|---|"]
    for parametrization in ("standard", "mup"):
        for kind, given in {"adamw": {"lr": 0.01, "weight_decay": 0.0}, "adamh": {"lr": 0.02},
                            "muon": {"lr": 0.02, "weight_decay": 0.0, "ns_precision": "fp32"}}.items():  # fmt: skip

            def build(width: int, p: Any = parametrization) -> Any:
                shape: Any = {"n_layers": 4, "width": width, "n_heads": 4, "context": 32, "base_width": 64}
                return Decoder(parametrization=p, **shape).build(64, 1)

            settings: Any = OPTIMIZERS[kind](**given)
            found = [m.slope for m in check(build, (64, 128, 256, 512), batch, Language(), settings)]
            lines.append(
                f"| {parametrization} | {kind} | {median(found):+.2f} | {min(found):+.2f} | {max(found):+.2f} |"
            )
    return lines


def main() -> None:
    """Train what is missing, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[])
    asked = parser.parse_args()
    lines = ["# Does the best rate carry over?", "", *(__doc__ or "").splitlines()[4:], "", "## Best rates", "",
             "| ladder | sizes (layers x width) | best rates | lowest losses | moves by |", "|---|---|---|---|---|"]  # fmt: skip
    for ladder in LADDERS:
        if asked.only and ladder.name not in asked.only:
            continue
        found = [optimum(ladder, shape) for shape in ladder.shapes]
        rates = [rate for rate, _ in found]
        sizes = ", ".join(f"{n}x{w}" for n, w in ladder.shapes)
        told = f"{', '.join(f'{r:.2g}' for r in rates)} | {', '.join(f'{loss:.3f}' for _, loss in found)}"
        lines.append(f"| {ladder.name} | {sizes} | {told} | {max(rates) / min(rates):.2f}x |")
    lines += ["", "## Coordinate check", "", "d log RMS of a layer's change after 4 updates / d log width, widths 64 to 512, 16"
              " linear layers; 0 is wanted.", "", *coordinate_rows(), ""]  # fmt: skip
    TABLE.write_text("\n".join(lines), encoding="utf-8")
    print(f"Wrote {TABLE}.")


if __name__ == "__main__":
    main()
