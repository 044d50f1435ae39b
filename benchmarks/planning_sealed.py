"""The sealed tasks of the planning benchmark: named before any run of them, and nothing in danlu was changed after it.

    DANLU_DATA=../shared/data python benchmarks/planning.py --sealed [--only TASK ...] [--rivals NAME ...] [--seeds 1]

Data sets or models that no law, constant or default of the planner was chosen on; a full run takes 20 to 40 s on one core.
The twelve tasks of planning_tasks.py say how the planner does where it was made, these say how it does elsewhere.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from planning_tasks import MNIST, Task, sampled, small, text

N_LOOKS = 4
"""At the validation split during a run; each costs up to a second."""
SST2 = "$DANLU_DATA/sst2"
PAIRS = "$DANLU_DATA/multi30k_en_de"


@cache
def sealed_tasks() -> dict[str, Task]:
    """Every sealed task by name."""
    made = [
        Task("german", text(f"{PAIRS}/train.de.gz", {"kind": "bpe", "vocab_size": 2048}, small(4, 128, 64), format="text"),
             11_000, 32, 4e-3),
        Task("verse", text("$DANLU_DATA/chinese_poetry", {"kind": "characters", "unseen": "replace"}, small(3, 96, 96),
             pattern="ci*.json", column="paragraphs"), 9_000, 32, 4e-3),
        Task("translation", sampled(
            {"kind": "pairs", "path": f"{PAIRS}/train.{{en,de}}.gz", "vocab_size": 2000,
             "split": {"kind": "given", "validation": f"{PAIRS}/val.{{en,de}}.gz"}},
            {"kind": "seq2seq", "encoder_layers": 2, "decoder_layers": 2, "width": 96, "hidden": 192}, "translate"),
            20_000, 64, 2e-3),
        Task("resnet", sampled(MNIST, {"kind": "resnet", "blocks": 1, "width": 16, "stem_stride": 2}, "classify"),
             40_000, 64, 2e-3, "fp32"),
        Task("sentences", sampled(
            {"kind": "sentences", "path": f"{SST2}/train.tsv", "context": 48, "least_count": 1,
             "split": {"kind": "given", "validation": f"{SST2}/dev.tsv"}},
            {"kind": "recurrent", "cell": "lstm", "width": 96, "embedding": 96, "directions": "both", "pool": "max",
             "dropout": 0.5}, "classify"), 60_000, 64, 2e-3, "fp32"),
        Task("fitness", sampled(
            {"kind": "protein", "path": "$DANLU_DATA/protein_sequences/flip_gb1_splits.zip/splits/three_vs_rest.csv",
             "split": {"kind": "named", "column": "set", "validation_column": "validation"}},
            {"kind": "convtagger", "width": 48, "n_layers": 3, "dilations": [1, 3, 5], "kernel": 5, "pool": "max"},
            "regress"), 12_000, 32, 2e-3, "fp32"),
    ]  # fmt: skip
    return {task.name: replace(task, n_looks=N_LOOKS) for task in made}
