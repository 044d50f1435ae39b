"""Proteins with a label a residue, a class and a number; texts with a tag a word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

Sections = dict[str, object]
LETTERS = "ACDEFGHIKLMNPQRSTVWY"


def sequences(n: int, seed: int = 0) -> list[str]:
    """Random proteins of 8 to 29 residues."""
    rng = np.random.default_rng(seed)
    return ["".join(LETTERS[i] for i in rng.integers(0, 20, 8 + i % 22)) for i in range(n)]


def residues(model: dict[str, object]) -> Callable[[Path], Sections]:
    """H where a residue is in the first half of the alphabet; a record without labels, one with a stop inside."""

    def made(folder: Path) -> Sections:
        folder.mkdir(parents=True, exist_ok=True)
        found, labels, mask = [], [], []
        for i, text in enumerate(sequences(60)):
            side = ("train", "train", "train", "validation", "test")[i % 5]
            found.append(f">p{i}\n{text.lower() if i % 7 == 0 else text}*")
            labels.append(f">p{i} SET={side}\n" + "".join("HEC"[LETTERS.index(c) // 7] for c in text))
            mask.append(f">p{i}\n0" + "1" * (len(text) - 1))
        found += [">lonely\nACDEFG", ">stopped\nAC*DEF"]
        for name, rows in (("x.fasta", found), ("labels.fasta", labels), ("mask.fasta", mask)):
            (folder / name).write_text("\n".join(rows) + "\n")
        return {
            "data": {"kind": "protein", "path": str(folder / "x.fasta"), "labels": "labels.fasta", "mask": "mask.fasta",
                     "split": {"kind": "named"}, "augment": {"hide": 0.05, "exchange": 0.05, "crop": 16}},
            "model": model,
            "task": {"kind": "tag", "label_smoothing": 0.02},
            "train": {"batch": 6},
        }  # fmt: skip

    return made


def whole(kind: str) -> Callable[[Path], Sections]:
    """A class or a number a protein, from its share of W."""

    def made(folder: Path) -> Sections:
        folder.mkdir(parents=True, exist_ok=True)
        rows = ["name,sequence,target"]
        for i, text in enumerate(sequences(60)):
            if i % 2:
                text = text[::2] + "W" * (len(text) // 2)
            label = f"{text.count('W') / len(text):.3f}" if kind == "regress" else ("few", "many")[i % 2]
            rows.append(f"p{i},{text},{label}")
        rows += ["bad,A1C,0.5", "empty,,0.1"]
        (folder / "x.csv").write_text("\n".join(rows) + "\n")
        pool = "attention" if kind == "regress" else "max"
        return {
            "data": {"kind": "protein", "path": str(folder / "x.csv")},
            "model": {"kind": "convtagger", "width": 16, "n_layers": 2, "dropout": 0.0, "unit": "plain", "pool": pool},
            "task": {"kind": kind},
            "train": {"batch": 6},
        }

    return made


def words(folder: Path) -> Sections:
    """Names in capitals after "mr", in columns; a sentence with a line without a tag."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    lines = ["-DOCSTART- O", ""]
    for _ in range(60):
        for word in rng.choice(["mr", "the", "sees", "old"], 6):
            lines += ["mr O", f"{rng.choice(['Smith', 'Jones'])} B-name"] if word == "mr" else [f"{word} O"]
        lines.append("")
    (folder / "x.conll").write_text("\n".join([*lines, "alone", "", "the O", "end O"]))
    return {
        "data": {"kind": "tagged", "path": str(folder / "x.conll")},
        "model": CONV,
        "task": {"kind": "tag", "class_weights": "balanced"},
        "train": {"batch": 6},
    }


CONV: dict[str, object] = {"kind": "convtagger", "width": 16, "n_layers": 2, "kernel": 3, "dropout": 0.0}
BOTH: dict[str, object] = {"kind": "recurrent", "cell": "gru", "width": 12, "embedding": 12, "directions": "both"}
CASES: dict[str, Callable[[Path], Sections]] = {
    "protein tags": residues(CONV),
    "protein tags, recurrent": residues(BOTH),
    "tagged words": words,
    "protein classes": whole("classify"),
    "protein numbers": whole("regress"),
}
EXACT = {"protein", "tagged"}
