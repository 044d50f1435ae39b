"""A run folder that looks like a real one (a 1M-parameter code model, 2,381 steps), made without training.

`write_run(folder)` writes every file that the report reads; the arguments make it long, unfinished or hostile.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

from danlu.planning.evidence import bars, lines, points, together
from danlu.planning.prediction import predict, unknown
from danlu.planning.scorecard import Score, Scorecard

PREDICTED = (
    predict("train_s", 171.0, "s", "2,381 steps of 71.8 ms each, 20 looks of 0.3 s", "timing", factor=1.05),
    predict("peak_bytes", 312e6, "bytes", "counted", "counted", factor=1.2),
    predict("n_steps", 2381, "steps", "train.length in steps", "counted", sd=0),
    unknown("step_s", "s", "not timed here"),
    predict("validation_loss", 2.2, "nats per target", "the law over parameters and tokens", "law", factor=1.06),
)
LAYERS = ["embedding"] + [f"blocks.{i}.{part}" for i in range(6) for part in ("attention", "mlp")] + ["head"]
HOSTILE = "</script><img src=x onerror=alert(1)>\"'&<b>\u202e\x00 <!-- ]]> ${x} {{verdict}}"

RECIPE = """\
# Every value of this run and where it came from.
name = "code-lm"  # given
seed = 0  # default

[data]
kind = "text"  # given
path = "python-stdlib"  # given
column = "text"  # default
max_document_bytes = 10000000  # default

[data.tokenizer]
kind = "bpe"  # default
vocab_size = 2048  # derived: the 1M size keeps a quarter of its parameters in the vocabulary

[model]
kind = "decoder"  # given
size = "1M"  # given
n_layers = 6  # derived: from size
width = 128  # derived: from size # and the head size of 32
n_heads = 4  # derived: from size
context = 256  # default

[task]
kind = "language"  # given

[optimizer]
kind = "adamw"  # default
lr = 0.0042  # measured: plan.json#optimizer.lr
weight_decay = 0.1  # default
betas = [0.9, 0.95]  # default

[schedule]
kind = "warmup_stable_decay"  # default
warmup = 0.02  # default
decay = 0.4  # default

[train]
length = "180 s"  # given
batch = 16  # derived: plan.json#train.batch
max_norm = 1.0  # default
on_nonfinite = "skip"  # default

[checkpoint]
save_every = "60 s"  # default
keep = 2  # default
"""


def write_run(folder: Path, n_steps: int = 2381, parts: str = "all", hostile: bool = False, seed: int = 0) -> Path:
    """Write the run; `parts` names what exists: all, or any of "recipe data plan train evaluate" in one string."""
    wanted = "recipe data plan train evaluate" if parts == "all" else parts
    for name in ("data", "train", "evaluate"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    if "recipe" in wanted:
        text = RECIPE.replace("python-stdlib", "x</script><b>") if hostile else RECIPE
        (folder / "recipe.full.toml").write_text(text, encoding="utf-8")
        (folder / "recipe.toml").write_text(text, encoding="utf-8")
        put(folder / "manifest.json", manifest())
    if "data" in wanted:
        put(folder / "data" / "card.json", card(hostile))
    if "plan" in wanted:
        put(folder / "plan.json", plan(hostile))
    if "train" in wanted:
        with (folder / "train" / "metrics.jsonl").open("w", encoding="utf-8") as f:
            for row in steps(n_steps, random.Random(seed), hostile):
                f.write(json.dumps(row) + "\n")
    if "evaluate" in wanted:
        put(folder / "evaluate" / "scores.json", scores(hostile))
        put(folder / "evaluate" / "scorecard.json", scorecard(hostile))
    return folder


def put(path: Path, value: Any) -> None:
    """Plain JSON."""
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def steps(n: int, rng: random.Random, hostile: bool) -> Any:
    """Rows of metrics.jsonl: warm-up, a stable stretch with one spike, one skipped update, a decay."""
    elapsed, peak, every = 0.0, 0.0042, max(n // 20, 1)
    wander = 0.0
    for s in range(1, n + 1):
        t = s / n
        shape = min(s / (0.02 * n + 1), 1.0) * (1.0 if t < 0.6 else (1 - t) / 0.4 * 0.98 + 0.02)
        wander = 0.97 * wander + rng.gauss(0, 0.012)
        loss = 2.05 + 5.5 * (s + 3) ** -0.42 - 0.28 * max(0.0, t - 0.6) + wander + rng.gauss(0, 0.06)
        spike = 0.9 * math.exp(-(s - 0.46 * n) / (0.006 * n)) if 0 <= s - 0.46 * n < 0.05 * n else 0.0
        norm = math.exp(rng.gauss(-0.35, 0.22)) * (1 + 3 * math.exp(-s / (0.01 * n + 1)) + 6 * spike)
        times = {k: abs(rng.gauss(v, v / 12)) for k, v in PART_S.items()}
        times["checkpoint"] = 0.045 if s % every == 0 else 0.0
        times["evaluate"] = 0.32 if s % every == 0 else 0.0
        step_s = sum(times.values())
        elapsed += step_s
        row: dict[str, Any] = {
            "step": s, "loss": loss + spike, "lr": peak * shape, "grad_norm": norm, "n_targets": 4096,
            "elapsed_s": elapsed, "per_s": 4096 / step_s, "times": times,
        }  # fmt: skip
        row["events"] = events_at(s, n, hostile)
        if s % every == 0:
            value = loss + 0.07 + rng.gauss(0, 0.008)
            row["validation"] = {"loss": value, "bits_per_byte": value / math.log(2) / 2.05}
        if s % max(n // 90, 1) == 0 or s == 1:
            row["layers"] = {name: layer_at(i, t, norm, rng) for i, name in enumerate(LAYERS)}
        yield {k: v for k, v in row.items() if v != []}


PART_S = {"data": 0.0011, "forward": 0.0213, "backward": 0.0422, "optimizer": 0.0049, "other": 0.0008}


def events_at(s: int, n: int, hostile: bool) -> list[str]:
    """Sentences the trainer would have written at this step."""
    out = []
    if s == max(round(0.46 * n), 1):
        out.append("Loss spike: 3.42, 14 standard deviations above the last 100 steps.")
    if s == max(round(0.3 * n), 1):
        out.append("Update skipped: the gradient of blocks.3.mlp was not finite (1 of 10 allowed in a row).")
    if s % max(n // 5, 1) == 0:
        out.append(f"Checkpoint step-{s:08d} saved (12.6 MB).")
    if s == max(round(0.71 * n), 1):
        out.append(f"Resumed from step-{s - 1:08d} after 4 min.")
    if hostile and s == 5:
        out.append("Spike " + HOSTILE)
    return out


def layer_at(i: int, t: float, norm: float, rng: random.Random) -> dict[str, float]:
    """Signals of one layer at progress t in 0..1."""
    depth = 0.35 * (1.0 + 0.9 * math.cos(i * 0.9)) * (0.75 + 0.5 * (i / len(LAYERS)))
    out = {
        "grad_norm": norm * depth * math.exp(rng.gauss(0, 0.12)) * (1.6 - t),
        "update_ratio": 2.4e-3 * (1.15 - t) * math.exp(rng.gauss(0, 0.1)) * (1 + 0.4 * math.sin(i)),
    }
    if "mlp" in LAYERS[i]:
        out["dead_frac"] = min(0.9, max(0.0, 0.015 * i + 0.09 * t * (i % 3) + rng.gauss(0, 0.004)))
    return out


def card(hostile: bool) -> dict[str, Any]:
    """data/card.json: 1,742 files of the standard library."""
    stations = [
        ("read", 1742, 0, {"not text: NUL bytes": 3, "empty": 21}),
        ("unicode", 1718, 37, {}),
        ("exact_duplicates", 1718, 0, {"same as an earlier document": 9}),
        ("near_duplicates", 1709, 0, {"near-duplicate (Jaccard at least 0.8)": 46}),
        ("length", 1663, 0, {"shorter than 64 characters": 31, "longer than 1,000,000 characters": 1}),
        ("repetition", 1631, 0, {"one line makes up more than 30%": 5}),
    ]
    examples = [
        {"row": "test/badsyntax_3131.py", "reason": "shorter than 64 characters", "text": "# -*- coding: utf-8 -*-\n€"},
        {
            "row": "encodings/aliases.py",
            "reason": "near-duplicate (Jaccard at least 0.8)",
            "text": '""" Encoding Aliases',
        },
    ]
    if hostile:
        examples.append({"row": HOSTILE, "reason": HOSTILE, "text": HOSTILE + "\ud800" + "x" * 300})
    rejected: dict[str, int] = {}
    for _, _, _, dropped in stations:
        rejected.update(dropped)
    return {
        "kind": "text", "source": HOSTILE if hostile else "python-stdlib",
        "rows_in": 1742, "rows_used": 1626, "rows_rejected": rejected,
        "stations": [
            {"name": n, "n_in": i, "n_changed": c, "n_dropped": d, "examples": examples if d else []}
            for n, i, c, d in stations
        ],
        "splits": {
            "train": {"n_documents": 1466, "n_bytes": 25431822, "n_tokens": 7823110},
            "validation": {"n_documents": 81, "n_bytes": 1391012, "n_tokens": 431220},
            "test": {"n_documents": 79, "n_bytes": 1402233, "n_tokens": 433871},
        },
        "vocab_size": 2048, "dtype": "uint16", "document_end": 0,
        "tokenizer": {"kind": "bpe", "vocab_size": 2048, "file": "tokenizer.json"},
        "leakage": {"n_checked": 160, "n_found": 0, "examples": []},
        "warnings": ["37 documents were Latin-1 and were re-encoded as UTF-8."], "fingerprint": "41c0ffee12345678",
    }  # fmt: skip


def plan(hostile: bool) -> dict[str, Any]:
    """plan.json: three decisions (one outside its range), timings, predictions."""
    return {
        "decisions": [
            {"name": "optimizer.lr", "value": 0.0042, "origin": "prior: step_law",
             "why": "1.79 * N^-0.713 * D^0.307 with N = 1.04M parameters and D = 9.8M tokens gives 0.0042.",
             "source": "Li et al. 2025, Predictable Scale: Part I", "valid": "N from 60M to 1B parameters",
             "in_range": False, "low": 0.0021, "high": 0.0084,
             "if_wrong": "twice or half of it costs about 0.4% of the loss",
             "alternatives": [{"value": 0.03, "why": HOSTILE if hostile else "it diverged"}],
             "evidence": points(
                 "learning rate", HOSTILE if hostile else "validation loss after 240 steps, nats per token",
                 [(0.001, 2.61, 0.02), (0.002, 2.535, 0.02), (0.004, 2.512, 0.02), (0.008, 2.55, 0.02), (0.03, math.inf)],
                 curve=[(x, y, y - 0.02, y + 0.02) for x in (0.001 * 1.1**i for i in range(24))
                        for y in [2.512 + 0.12 * math.log(x / 0.0042) ** 2 / 2]],
                 chosen=0.0042, log="x", note="Parabola in log rate; the cross diverged.",
             )},
            {"name": "train.batch", "value": 16, "origin": "derived",
             "why": "4,096 tokens an update fit the cache and give 2,400 updates in 3 minutes.",
             "source": "McCandlish et al. 2018", "valid": "up to the critical batch of about 40k tokens",
             "in_range": True, "low": 8, "high": 64,
             "evidence": together(
                 bars("ms a step", {"8": (41.0, 0.5), "16": (70.2, 1.1), "64": math.nan}, chosen="16"),
                 lines("samples a step", "loss", {"measured": [(4, 2.9), (8, 2.8), (16, 2.75)], "law": [(4, 3), (16, 2.7)]}),
             )},
            {"name": "model.attention", "value": HOSTILE if hostile else "flash", "origin": "measured",
             "why": "Fastest forward and backward at (16, 4, 256, 32).", "source": "timings",
             "valid": "this machine and shape", "in_range": True},
        ],
        "timings": {
            "attention": [{"name": "matmul", "seconds": 0.0093}, {"name": "flash", "seconds": 0.0061}],
            "compile": [{"name": "off", "seconds": 0.0702}, {"name": "on", "seconds": 0.0671}],
            "micro_batch": [
                {"name": "4", "seconds": 0.0921}, {"name": "8", "seconds": 0.0788}, {"name": "16", "seconds": 0.0702},
            ],
        },
        "predictions": [prediction.to_json() for prediction in PREDICTED],
        "facts": {"n_parameters": 1044736, "flops_per_token": 7.1e6},
        "cost": {"planning_s": 6.1, "share": 0.0357},
        "fingerprint": "a1b2c3d4e5f60718",
    }  # fmt: skip


def scorecard(hostile: bool) -> dict[str, Any]:
    """evaluate/scorecard.json: one prediction far off, one not measured."""
    came = {"train_s": 181.4, "peak_bytes": 513e6, "validation_loss": 2.09, "n_steps": 2381.0}
    scores = [Score(p, "before training", came.get(p.name)) for p in PREDICTED]
    scores.append(Score(predict("validation_loss", 2.11, "nats", "two forks", "fork", sd=0.02), "at step 238", 2.09))
    notes = ["plan.json was hashed only at step 5: its predictions prove little."] + ([HOSTILE] if hostile else [])
    return Scorecard(scores, notes, "all 2381 steps are done").to_json()


def manifest() -> dict[str, Any]:
    """manifest.json: who made the run, on what, when each stage ended."""
    seconds = {"prepare": 14.2, "plan": 6.1, "train": 181.4, "evaluate": 9.7}
    return {
        "format": 1, "name": "code-lm", "digest": "3fa9c1d2e4b5a697",
        "environment": {
            "danlu": "0.1.0", "python": "3.11.7", "torch": "2.13.0+cpu", "platform": "Linux-6.1-x86_64",
            "cpu": "AMD EPYC 9B14", "n_cores": 2, "n_threads": 2, "memory_bytes": 8317136896,
        },
        "stages": {
            name: {"inputs": f"{i}1c0ffee12345678", "seconds": s, "finished": f"2026-03-02T09:4{i}:00+00:00"}
            for i, (name, s) in enumerate(seconds.items())
        },
    }  # fmt: skip


def scores(hostile: bool) -> dict[str, Any]:
    """evaluate/scores.json: a model that beats its baselines."""

    def metric(value: float, half: float, unit: str) -> dict[str, Any]:
        return {"value": value, "low": value - half, "high": value + half, "unit": unit}

    code = (
        "        self._lock = threading.Lock()\n        self._waiters = []\n\n    def acquire(self, timeout=None):\n"
        '        """Acquire the lock.\n\n        If timeout is None, wait until it is released.\n        """\n'
        "        with self._lock:\n            if not self._waiters:\n                return True\n"
    )
    return {
        "split": "validation",
        "metrics": {
            "bits_per_byte": metric(1.4721, 0.0183, "bits/byte"),
            "loss": metric(2.0920, 0.0260, "nats/token"),
        },
        "baselines": {
            "unigram": {"bits_per_byte": metric(4.6312, 0.012, "bits/byte")},
            "5-gram": {"bits_per_byte": metric(1.8834, 0.021, "bits/byte")},
            "xz": {"bits_per_byte": metric(1.7422, 0.0, "bits/byte")},
        },
        "beats_baselines": True, "n_targets": 431139,
        "samples": [
            {"prompt": "class Event:\n    def __init__(self):\n", "text": code, "settings": "top-k 50"},
            {"prompt": "import ", "text": "os\nimport sys\nimport warnings\n\n__all__ = ['main', 'Option']\n\n"
             "def main(argv=None):\n    parser = argparse.ArgumentParser(description='Read a file.')\n",
             "settings": "greedy"},
        ] + ([{"prompt": HOSTILE, "text": HOSTILE * 3 + "W" * 400, "settings": HOSTILE}] if hostile else []),
        "notes": ["Intervals: 95%, bootstrap over 81 documents, 1,000 resamples."],
    }  # fmt: skip


if __name__ == "__main__":
    import sys

    print(write_run(Path(sys.argv[1])))
