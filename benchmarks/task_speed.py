"""Every task's training step against the plain PyTorch loop that a user would write: same model, same data, same batch.

    DANLU_DATA=../shared/data python benchmarks/task_speed.py [--only RECIPE ...]

Plain: torch's DataLoader over samples (a TensorDataset where samples have one shape, padding to the batch's longest
where they have not), fp32, torch.optim.AdamW, clip_grad_norm_, loss.item() for the log. Ours: the run's own loader and
update, computing as its plan chose. Both are timed in turn, round by round; the ratio is of the medians over rounds. Counted
are supervised targets (samples, tokens, residues, boxes): where training cuts samples, a sample is not the same on both sides.
Augmentation is ours alone (a plain loop has none): it counts against us. The table is benchmarks/task_speed.md.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

import danlu
from danlu.build import build_model, set_machine
from danlu.planning.choices import Choices
from danlu.recipe import Recipe
from danlu.training.loop import make_parts, open_loader
from danlu.training.update import Clock

ROOT = Path(__file__).resolve().parents[1]
KEPT, TABLE = ROOT / "benchmarks" / "task_speed.json", ROOT / "benchmarks" / "task_speed.md"
RECIPES = (
    "mnist-lenet", "mnist-resnet", "listings/d", "adult", "titanic", "bike-sharing", "etth1", "beijing-pm25-lstm",
    "beijing-pm25-gru", "sst2-recurrent", "sst2-masked", "sst2-bert", "multi30k-en-de", "fsdd-speech", "fsdd-wavenet",
    "bccd", "secondary-structure", "fold",
)  # fmt: skip
ROUNDS, ROUND_S = 5, 2.0


class Samples(Dataset[dict[str, Any]]):
    """One sample at a time, as a user's data set gives them."""

    def __init__(self, split: Any) -> None:
        import numpy as np

        rows = np.arange(len(split))
        at_once = 512 if getattr(split, "lengths", None) is None else 1  # no padding but a batch's own
        pieces = [split.batch(rows[i : i + at_once]) for i in range(0, len(rows), at_once)]
        self.samples = [
            ({name: t[j] for name, t in piece.tensors.items()}, piece.rows(slice(j, j + 1)).n_targets)
            for piece in pieces
            for j in range(len(next(iter(piece.tensors.values()))))
        ]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]


def collated(samples: list[Any]) -> danlu.base.contracts.Batch:
    """Stacked where shapes agree, else padded to the largest."""
    tensors = {}
    for name in samples[0][0]:
        parts = [tensors_of[name] for tensors_of, _ in samples]
        if len({p.shape for p in parts}) > 1:
            shape = [len(parts), *(max(sizes) for sizes in zip(*(p.shape for p in parts), strict=True))]
            whole = torch.full(shape, -1 if name in ("targets", "labels") else 0, dtype=parts[0].dtype)
            for row, part in zip(whole, parts, strict=True):
                row[tuple(slice(n) for n in part.shape)] = part
        else:
            whole = torch.stack(parts)
        tensors[name] = whole
    return danlu.base.contracts.Batch(tensors, sum(n for _, n in samples))


def compared(recipe_file: Path) -> tuple[float, float, float]:
    """(targets a second ours, plain, ratio)."""
    from danlu.stages.train import train_step

    with tempfile.TemporaryDirectory() as folder:
        recipe = Recipe.load(recipe_file)
        run = danlu.plan(recipe, Path(folder) / "run")
        choices, card = Choices.read(run.folder), run.card
        set_machine(choices, recipe.train.deterministic)
        parts, loader = make_parts(recipe, card, choices), open_loader(recipe, run.folder, card, choices)
        plain = build_model(
            recipe, card, choices.model_copy(update={"precision": "fp32", "operations": "plain", "compile": False})
        ).train()
        optimizer = torch.optim.AdamW(plain.parameters(), 1e-4)
        data: Any = recipe.data
        task: Any = recipe.task
        feed = DataLoader(
            Samples(data.open(run.folder.data, card, "train")), choices.batch, shuffle=True, collate_fn=collated
        )
        stream = iter(feed)
        position = 0

        def ours() -> int:
            nonlocal position
            batches = loader.micro_batches(position, choices.micro_batch)
            train_step(parts, batches, 1e-4, lambda loss, norm: "update", Clock())
            position += 1
            return sum(batch.n_targets for batch in batches)

        def theirs() -> int:
            nonlocal stream
            batch = next(stream, None)
            if batch is None:
                stream = iter(feed)
                batch = next(stream)
            n = len(next(iter(batch.tensors.values())))
            batch = task.change(batch, torch.arange(n).numpy().astype("uint64"))
            optimizer.zero_grad()
            loss = task.loss_sum(plain(batch), batch) / max(1, batch.n_targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
            optimizer.step()
            loss.item()
            return batch.n_targets

        rates: dict[str, list[float]] = {"ours": [], "theirs": []}
        for _ in range(ROUNDS):
            for name, step in (("ours", ours), ("theirs", theirs)):
                step()
                began, n = time.perf_counter(), 0
                while time.perf_counter() - began < ROUND_S:
                    n += step()
                rates[name].append(n / (time.perf_counter() - began))
        loader.close()
        a, b = (median(rates[name]) for name in ("ours", "theirs"))
        return a, b, a / b


def main() -> None:
    """Time all, write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*")
    given = parser.parse_args()
    os.environ["DANLU_DATA"] = str(Path(os.environ["DANLU_DATA"]).resolve())
    kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.is_file() else {}
    for name in given.only or RECIPES:
        kept[name] = compared(ROOT / f"recipes/{name}.toml")
        print(name, *kept[name], flush=True)
        KEPT.write_text(json.dumps(kept, indent=1), encoding="utf-8")
        write_table(kept)


def write_table(kept: dict[str, tuple[float, float, float]]) -> None:
    """benchmarks/task_speed.md from what is kept."""
    cores = len(os.sched_getaffinity(0))
    found = {name: kept[name] for name in RECIPES if name in kept}
    ratios = [ratio for _, _, ratio in found.values()]
    text = [
        "# Training speed of every task",
        "",
        (__doc__ or "").split("\n\n")[2].strip(),
        "",
        f"On {cores} core{'s' if cores > 1 else ''} of a CPU with AVX-512 bf16, torch {torch.__version__}.",
        "",
        "| recipe | targets/s, danlu | plain loop | ratio |",
        "|---|---|---|---|",
        *(f"| `{name}` | {ours:,.0f} | {theirs:,.0f} | {ratio:.2f} |" for name, (ours, theirs, ratio) in found.items()),
        "",
        f"Median ratio {median(ratios):.2f}, lowest {min(ratios):.2f}, over {len(ratios)} tasks.",
        "",
    ]
    TABLE.write_text("\n".join(text), encoding="utf-8")


if __name__ == "__main__":
    main()
