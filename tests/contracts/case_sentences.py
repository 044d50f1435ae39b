"""Contract cases of sentences: an encoder over words, over pieces, of hidden words, and spelled words in a recurrent one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Sections = dict[str, Any]
GOOD, BAD = ("fine", "warm", "bright", "lovely"), ("dull", "cold", "grey", "dreary")


def reviews(folder: Path, n: int = 72) -> Path:
    """Sentences of one mood each, with lines that are none."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(n):
        words = (GOOD, BAD)[i % 2]
        filler = " and ".join(words[(i // 2 + j) % 4] for j in range(1 + i % 3))
        lines.append(f"the film was {filler} , number {i % 7}\t{'good' if i % 2 == 0 else 'bad'}")
    lines[3:3] = ["no tab here", "\tgood", "a text without its label\t", "two\ttabs\there"]
    (folder / "reviews.tsv").write_text("\n".join(lines), encoding="utf-8")
    return folder / "reviews.tsv"


def of(data: Sections, model: Sections, task: str = "classify", batch: int = 8) -> Callable[[Path], Sections]:
    """A case over the same reviews."""

    def made(folder: Path) -> Sections:
        return {
            "data": {"kind": "sentences", "path": str(reviews(folder)), "context": 24, "least_count": 1} | data,
            "model": model,
            "task": {"kind": task},
            "train": {"batch": batch},
        }

    return made


SMALL: Sections = {"kind": "encoder", "n_layers": 1, "width": 16, "n_heads": 2, "dropout": 0.0}
CASES: dict[str, Callable[[Path], Sections]] = {
    "encoder as BERT": of(
        {"start": True, "classes": ["good", "bad"]},
        SMALL | {"norm": "post", "pool": "first", "pooler": True, "segments": 2},
    ),
    "encoder pieces": of({"pieces": 300}, SMALL | {"positions": "sinusoids", "pool": "max"}),
    "masked words": of({}, SMALL | {"width": 32}, "masked", batch=12),
    "masked spelled words": of({"grams": 64, "labelled": False}, SMALL | {"width": 32}, "masked", batch=12),
    "spelled words in a recurrent network": of(
        {"grams": 64, "gram_lengths": [2, 3], "count_words": True},
        {"kind": "recurrent", "width": 8, "embedding": 8, "n_layers": 2, "directions": "both", "pool": "max", "bag": "naive Bayes"}
        | {"bag_dropout": 0.0},
    ),
}  # fmt: skip
