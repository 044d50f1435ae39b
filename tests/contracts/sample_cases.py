"""A tiny, learnable data set and the sections of a recipe for each kind: name -> function(folder) -> sections."""

from __future__ import annotations

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


CASES: dict[str, Callable[[Path], Sections]] = {
    "module": module_on_arrays,
    "chat": conversations,
}
