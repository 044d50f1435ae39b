"""A tiny, learnable data set and the sections of a recipe for each kind: name -> function(folder) -> sections.

More of them are in case_<room>.py beside this file: CASES, and EXACT where a kind belongs there.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from danlu.data.given import Arrays
from danlu.models.module import settings_of

Sections = dict[str, Any]
EXACT = {"arrays", "image", "boxes", "series", "chat"}
"""Kinds whose features a bounded look knows exactly."""


def vectors(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 5) and which of three directions they lie in."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    centres = np.eye(5)[:3] * 3
    return (centres[labels] + rng.normal(size=(n, 5))).astype("f4"), labels


def module_on_arrays(folder: Path) -> Sections:
    """danlu.fit's form: a module and arrays given in Python."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(5, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    data = {"train": vectors(96, 1), "validation": vectors(30, 2), "test": vectors(30, 3)}
    return {"data": Arrays.of(data), "model": settings_of(net), "task": {"kind": "classify"}, "train": {"batch": 12}}


def conversations(folder: Path) -> Sections:
    """Counting up, with a line that is no conversation."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"after {i}?"},
                {"role": "assistant", "content": f"{i + 1} comes next"},
            ]
        }
        for i in range(80)
    ]
    text = "\n".join([*map(json.dumps, rows), "{broken", '{"messages": []}'])
    (folder / "chat.jsonl").write_text(text)
    return {
        "data": {"kind": "chat", "path": str(folder / "chat.jsonl"), "tokenizer": {"kind": "bytes"}, "context": 64},
        "model": {"kind": "decoder", "n_layers": 1, "width": 32, "context": 64},
        "task": {"kind": "chat"},
        "train": {"batch": 8},
    }


def table_rows(folder: Path, rows: int = 120) -> Path:
    """A CSV with numbers, categories, gaps, a date and a ragged row."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    lines = ["size,colour,day,weight,label,price"]
    for i in range(rows):
        x, c = rng.normal(), i % 3
        gap = "" if i % 11 == 0 else f"{x:.3f}"
        lines.append(
            f"{gap},{'rgb'[c]},2024-01-{i % 28 + 1:02},{rng.normal():.3f},{'yes' if c == 1 else 'no'},{3 * c + x:.3f}"
        )
    lines.insert(5, "1,2,3")
    (folder / "rows.csv").write_text("\n".join(lines))
    return folder / "rows.csv"


def table_classes(folder: Path) -> Sections:
    """Which label, from a table."""
    return {
        "data": {"kind": "table", "path": str(table_rows(folder)), "target": "label", "drop": ["price"]},
        "model": {"kind": "mlp", "layers": [16]},
        "task": {"kind": "classify"},
        "train": {"batch": 12},
    }


def table_numbers(folder: Path) -> Sections:
    """How much, from a table, by quantiles, with periodic numbers."""
    return {
        "data": {"kind": "table", "path": str(table_rows(folder)), "target": "price"},
        "model": {"kind": "mlp", "layers": [16], "numbers": "periodic", "norm": "layer"},
        "task": {"kind": "regress", "loss": "quantile"},
        "train": {"batch": 12},
    }


def pictures(model: Sections, lr: float = 3e-3) -> Callable[[Path], Sections]:
    """Bright or dark halves in class folders, with a broken file."""

    def made(folder: Path) -> Sections:
        from PIL import Image

        rng = np.random.default_rng(0)
        for i in range(60):
            name = ("left", "right", "top")[i % 3]
            pixels = rng.integers(0, 60, (16, 16), np.uint8)
            pixels[{"left": np.s_[:, :8], "right": np.s_[:, 8:], "top": np.s_[:8]}[name]] += 150
            (folder / "images" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / "images" / name / f"{i}.png")
        (folder / "images" / "left" / "broken.png").write_bytes(b"not a picture")
        return {
            "data": {"kind": "image", "path": str(folder / "images"), "augment": {"shift": 0.05, "mixup": 0.2}},
            "model": model,
            "task": {"kind": "classify", "loss": "cross_entropy"},
            "optimizer": {"kind": "adamw", "lr": lr, "weight_decay": 0.0},
            "train": {"batch": 6},
        }

    return made


CASES: dict[str, Callable[[Path], Sections]] = {
    "module": module_on_arrays,
    "chat": conversations,
    "table classes": table_classes,
    "table numbers": table_numbers,
    "lenet": pictures({"kind": "lenet", "dropout": 0.0}, lr=3e-4),  # at 3e-3 rounding alone moves a gradient by 17%
    "vgg": pictures({"kind": "vgg", "dropout": 0.0}),
    "resnet": pictures({"kind": "resnet", "blocks": 1, "width": 8}),
}
for file in sorted(Path(__file__).parent.glob("case_*.py")):
    more = importlib.import_module(f"tests.contracts.{file.stem}")
    CASES |= more.CASES
    EXACT |= getattr(more, "EXACT", set())
