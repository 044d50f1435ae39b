"""Raw JSONL to token files: danlu against Hugging Face datasets + tokenizers doing the same work, and peak memory.

python benchmarks/prepare_speed.py            prints the table and keeps it in benchmarks/prepare_speed.md
python benchmarks/prepare_speed.py --quick    a tenth of the text, once; keeps nothing

Both sides: read JSONL, NFC, drop exact duplicates, split off 5%, train byte-level BPE (8,192 tokens) on the same number
of bytes, encode every row on all cores, write flat uint16 token files. danlu also looks for near-duplicates so that
none crosses the split, checks for leakage, checks that ids give their text back, and accounts for every row; the other
side does none of that. The text is this Python's own standard library, its paragraphs dealt into new documents with one
word in fifty changed, 2% exact and 2% near-duplicates. The runs take turns; each is a fresh process.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
VOCAB, TRAIN_BYTES, VALIDATION = 8192, 20_000_000, 0.05
SPEED_BYTES, MEMORY_BYTES = 100_000_000, (100_000_000, 1_000_000_000)
REPEATS = 3
WANTED_RATIO, WANTED_MEMORY = 1.5, 1.3


def paragraphs() -> list[str]:
    """Paragraphs of the standard library, test suites included, in a fixed order."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py"))
    texts = (path.read_text(encoding="utf-8", errors="ignore") for path in files if "site-packages" not in path.parts)
    return [part for text in texts for part in text.split("\n\n") if 20 < len(part) < 4000]


def write_corpus(path: Path, n_bytes: int, pool: list[str], seed: int = 0) -> None:
    """JSONL of about `n_bytes` of text, documents of about 4 KB."""
    rng, written = random.Random(seed), 0
    recent: list[str] = []
    with path.open("w", encoding="utf-8") as file:
        while written < n_bytes:
            lot = rng.random()
            if recent and lot < 0.02:
                text = rng.choice(recent)
            elif recent and lot < 0.04:
                text = rng.choice(recent).replace("self", "this", 1) + "\n# end"
            else:
                words = "\n\n".join(rng.choices(pool, k=14)).split(" ")
                for at in rng.sample(range(len(words)), len(words) // 50):
                    words[at] += f"{rng.getrandbits(20):x}"
                text = " ".join(words)
                recent = [*recent[-500:], text]
            file.write(json.dumps({"text": text}) + "\n")
            written += len(text)


def danlu_side(corpus: Path, out: Path, everything: bool) -> dict[str, Any]:
    """danlu's prepare; `everything`: the default cleaning, with near-duplicates."""
    from danlu.data.text import Text
    from danlu.stages.prepare import prepare_text

    settings: dict[str, Any] = {
        "path": str(corpus),
        "split": {"kind": "content", "validation": VALIDATION},
        "tokenizer": {"kind": "bpe", "vocab_size": VOCAB, "train_bytes": TRAIN_BYTES},
    }
    if not everything:
        settings["clean"] = [{"kind": "unicode"}, {"kind": "exact_duplicates"}]
    began = time.perf_counter()
    card = prepare_text(Text.model_validate(settings), out, lambda *_: None)
    tokens = sum(split.n_tokens for split in card.splits.values())
    return {"seconds": time.perf_counter() - began, "rows": card.rows_used, "tokens": tokens}


def hugging_face_side(corpus: Path, out: Path, n_procs: int) -> dict[str, Any]:
    """The usual pipeline: load_dataset, map, filter, train_test_split, encode_batch in map, memory-mapped output."""
    import unicodedata

    import numpy as np
    from datasets import disable_progress_bars, load_dataset
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from xxhash import xxh3_128_digest

    disable_progress_bars()
    out.mkdir(parents=True)
    began = time.perf_counter()
    rows = load_dataset("json", data_files=str(corpus), split="train", cache_dir=str(out / "cache"))
    rows = rows.map(
        lambda b: {"text": [unicodedata.normalize("NFC", t) for t in b["text"]]}, batched=True, num_proc=n_procs
    )
    seen: set[bytes] = set()

    def first_seen(batch: dict[str, list[str]]) -> list[bool]:
        digests = [xxh3_128_digest(text.encode()) for text in batch["text"]]
        return [not (digest in seen or seen.add(digest)) for digest in digests]  # type: ignore[func-returns-value]

    parts = rows.filter(first_seen, batched=True).train_test_split(test_size=VALIDATION, seed=0)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, initial_alphabet=alphabet, show_progress=False)
    share = min(1.0, TRAIN_BYTES / corpus.stat().st_size)
    sample = parts["train"].select(range(int(len(parts["train"]) * share)))
    tokenizer.train_from_iterator((b["text"] for b in sample.iter(1000)), trainer)
    end = tokenizer.add_special_tokens(["<|document_end|>"]) and tokenizer.token_to_id("<|document_end|>")

    def encoded(batch: dict[str, list[str]]) -> dict[str, Any]:
        ids = [[*e.ids, end] for e in tokenizer.encode_batch_fast(batch["text"], add_special_tokens=False)]
        return {"ids": ids, "n": [len(i) for i in ids]}

    tokens = 0
    for name, part in parts.items():
        done = part.map(encoded, batched=True, num_proc=n_procs, remove_columns=["text"])
        done = done.with_format("numpy")
        flat = np.memmap(out / f"{name}.bin", dtype=np.uint16, mode="w+", shape=(int(done["n"][:].sum()),))
        at = 0
        for batch in done.select_columns(["ids"]).iter(1000):
            ids = np.concatenate(list(batch["ids"]))
            flat[at : at + len(ids)] = ids
            at += len(ids)
        flat.flush()
        tokens += at
    return {"seconds": time.perf_counter() - began, "rows": sum(map(len, parts.values())), "tokens": tokens}


def measured(side: str, corpus: Path, folder: Path) -> dict[str, Any]:
    """One run in a fresh process: what it reports, and the peak of the resident memory of it and its children."""
    import psutil

    out = folder / "out"
    offline = {"HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    command = [
        sys.executable,
        str(Path(__file__).resolve()),
        "--side",
        side,
        "--corpus",
        str(corpus),
        "--out",
        str(out),
    ]
    threads = {"TOKENIZERS_PARALLELISM": "false"} if side == "processes" else {"TOKENIZERS_PARALLELISM": "true"}
    environment = os.environ | offline | threads | {"PYTHONPATH": path}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environment)
        watched, peak = psutil.Process(process.pid), 0
        while process.poll() is None:
            family = [watched]
            try:
                family += watched.children(recursive=True)
            except psutil.NoSuchProcess:
                break
            peak = max(peak, sum(map(resident, family)))
            time.sleep(0.05)
        stdout, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{side} failed: {(folder / 'log').read_text()[-2000:]}")
    shutil.rmtree(out)
    found: dict[str, Any] = json.loads(stdout.decode().splitlines()[-1])
    return found | {"peak_bytes": peak}


def resident(process: Any) -> int:
    """Resident bytes of a process; 0 when it has just ended."""
    import psutil

    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


SIDES = {"danlu": "danlu", "threads": "datasets + tokenizers, threads", "processes": "datasets + tokenizers, processes"}


def speed_table(corpus: Path, folder: Path, repeats: int) -> list[str]:
    """Seconds and ratios; the two ways to use all cores on the other side are both tried, once, and the faster kept."""
    size = sum(len(json.loads(line)["text"]) for line in corpus.open(encoding="utf-8"))
    runs: dict[str, list[dict[str, Any]]] = {side: [measured(side, corpus, folder)] for side in SIDES}
    rival = min(("threads", "processes"), key=lambda side: runs[side][0]["seconds"])
    for _ in range(repeats - 1):
        for side in ("danlu", rival):
            runs[side].append(measured(side, corpus, folder))
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(runs["danlu"], runs[rival], strict=True)]
    lines = ["| side | runs | median s | MB/s | rows | tokens | peak MB |", "|---|---|---|---|---|---|---|"]
    for side, found in runs.items():
        seconds = statistics.median(run["seconds"] for run in found)
        peak = max(run["peak_bytes"] for run in found) / 1e6
        counts = f"{found[0]['rows']:,} | {found[0]['tokens']:,}"
        lines.append(
            f"| {SIDES[side]} | {len(found)} | {seconds:.1f} | {size / seconds / 1e6:.1f} | {counts} | {peak:.0f} |"
        )
    median = statistics.median(ratios)
    verdict = "kept" if median >= WANTED_RATIO else "MISSED"
    lines += [
        "",
        f"**danlu is {median:.2f} times as fast** as {SIDES[rival]} (median of {len(ratios)} pairs, "
        f"{min(ratios):.2f} to {max(ratios):.2f}; wanted {WANTED_RATIO}: {verdict}).",
    ]
    return lines


def memory_table(sizes: list[tuple[int, Path]], folder: Path) -> list[str]:
    """Peak memory of danlu with its default cleaning, by size of the text."""
    lines = ["| text MB | danlu with near-duplicates, s | MB/s | peak MB, all processes |", "|---|---|---|---|"]
    peaks = []
    for n_bytes, corpus in sizes:
        run = measured("everything", corpus, folder)
        peaks.append(run["peak_bytes"])
        speed = n_bytes / run["seconds"] / 1e6
        lines.append(f"| {n_bytes / 1e6:.0f} | {run['seconds']:.1f} | {speed:.1f} | {run['peak_bytes'] / 1e6:.0f} |")
    ratio = peaks[-1] / peaks[0]
    verdict = "kept" if ratio <= WANTED_MEMORY else "MISSED"
    times = sizes[-1][0] / sizes[0][0]
    return [
        *lines,
        "",
        f"**{times:.0f} times the text takes {ratio:.2f} times the memory** (wanted at most {WANTED_MEMORY}: {verdict}).",
    ]


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--corpus", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side in ("danlu", "everything"):
        return print(json.dumps(danlu_side(asked.corpus, asked.out, asked.side == "everything")))
    if asked.side:
        n_procs = len(os.sched_getaffinity(0)) if asked.side == "processes" else None
        return print(json.dumps(hugging_face_side(asked.corpus, asked.out, n_procs)))
    if importlib.util.find_spec("datasets") is None:
        raise SystemExit('The other side is not installed. Fix: pip install -c constraints.txt "danlu[bench]".')
    scale = 10 if asked.quick else 1
    with tempfile.TemporaryDirectory(prefix="prepare_speed-") as name:
        folder, pool = Path(name), paragraphs()
        sizes = [(n // scale, folder / f"corpus-{n // scale}.jsonl") for n in MEMORY_BYTES]
        for n_bytes, path in sizes:
            write_corpus(path, n_bytes, pool)
        lines = ["# Preparing text", "", *(__doc__ or "").split("\n\n", 2)[2].strip().splitlines(), ""]
        lines += speed_table(sizes[0][1], folder, 1 if asked.quick else REPEATS)
        lines += ["", *memory_table(sizes, folder)]
    from importlib.metadata import version

    versions = ", ".join(f"{package} {version(package)}" for package in ("datasets", "tokenizers"))
    cores = len(os.sched_getaffinity(0))
    lines += ["", f"{cores} cores, {platform.machine()}, Python {platform.python_version()}, {versions}."]
    text = "\n".join(lines) + "\n"
    print(text)
    if not asked.quick:
        (ROOT / "benchmarks" / "prepare_speed.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
