"""Toy languages: the other language writes every word in capitals, in the opposite order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MODEL = {
    "kind": "seq2seq", "encoder_layers": 1, "decoder_layers": 1, "width": 32, "n_heads": 2, "hidden": 32, "dropout": 0.0,
}  # fmt: skip
TASK = {"kind": "translate", "beams": 2}


def toy_pairs(n: int, seed: int = 0) -> list[tuple[str, str]]:
    rng = np.random.default_rng(seed)
    words = ["ah", "be", "co", "du", "ei", "fo", "ga", "hu"]
    found = [[words[i] for i in rng.integers(0, len(words), rng.integers(2, 7))] for _ in range(n)]
    return [(" ".join(given), " ".join(word.upper() for word in given[::-1])) for given in found]


def words_from_tsv(folder: Path) -> dict[str, Any]:
    """Words of a joint vocabulary, with a row that has no translation."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pairs.tsv").write_text("\n".join(["lonely", *("\t".join(pair) for pair in toy_pairs(80))]))
    return {
        "data": {"kind": "pairs", "path": str(folder / "pairs.tsv"), "pieces": "words"},
        "model": MODEL, "task": TASK, "train": {"batch": 8},
    }  # fmt: skip


def pieces_from_two_files(folder: Path) -> dict[str, Any]:
    """Byte pairs, one vocabulary each, two files, given splits."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, n, seed in (("train", 60, 0), ("dev", 12, 1), ("test", 12, 2)):
        pairs = toy_pairs(n, seed)
        (folder / f"{name}.low").write_text("".join(f"{source}\n" for source, _ in pairs))
        (folder / f"{name}.high").write_text("".join(f"{target}\n" for _, target in pairs))
    held = {name: str(folder / f"{file}.{{low,high}}") for name, file in (("validation", "dev"), ("test", "test"))}
    return {
        "data": {
            "kind": "pairs", "path": str(folder / "train.{low,high}"), "vocab_size": 280, "joint": False,
            "split": {"kind": "given", **held},
        },
        "model": MODEL | {"tie": "none"}, "task": TASK | {"beams": 1, "label_smoothing": 0.0}, "train": {"batch": 6},
        "evaluate": {"on": "test"},
    }  # fmt: skip


CASES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "pairs of words": words_from_tsv,
    "pairs of pieces": pieces_from_two_files,
}
