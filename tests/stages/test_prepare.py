import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from danlu.base.errors import UserError
from danlu.data import text_workers
from danlu.data.shards import open_split, read_card
from danlu.data.text import Text
from danlu.data.tokenizer import load
from danlu.stages.prepare import prepare_text

SILENT = lambda what, done, total: None  # noqa: E731
WORDS = [a + b + c for a in "bcdfghjklm" for b in "aeiou" for c in ("n", "r", "st", "lk", "p")]


def prose(rng, n_words):
    return " ".join(rng.choice(WORDS) for _ in range(n_words)) + "\n"


@pytest.fixture
def corpus(tmp_path):
    """JSONL with everything that can be dropped: 400 good rows, and duplicates, near-duplicates, empty, broken ones."""
    rng = random.Random(0)
    good = [prose(rng, 80) for _ in range(400)]
    near = [text.replace(text.split()[40], "changed", 1) for text in good[:30]]
    lines = [json.dumps({"text": text}) for text in good + good[:20] + near + ["", "\x00"]]
    lines += ["{broken", json.dumps({"other": 1}), json.dumps({"text": "lone \ud800 surrogate"})]
    rng.shuffle(lines)
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def files(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def texts_in(folder, card, split):
    shard, tokenizer = open_split(folder, split), load(card, folder)
    return [tokenizer.decode(shard.tokens[a:b].tolist()) for a, b in zip(shard.docs[:-1], shard.docs[1:], strict=True)]


def test_every_row_is_accounted_for(corpus, tmp_path):
    card = prepare_text(Text(path=str(corpus), tokenizer={"kind": "bpe", "vocab_size": 400}), tmp_path / "data", SILENT)
    n_lines = len(corpus.read_text().splitlines())
    assert card.rows_in == n_lines == card.rows_used + sum(card.rows_rejected.values())
    assert card.rows_used == 400
    assert card.rows_rejected["exact_duplicate"] == 20
    assert card.rows_rejected["near_duplicate"] == 30
    rejected = [json.loads(line) for line in (tmp_path / "data" / "rejected.jsonl").read_text().splitlines()]
    assert Counter(r["reason"] for r in rejected) == card.rows_rejected
    assert len({r["row"] for r in rejected}) == len(rejected)
    assert all(len(r["text"]) <= 200 for r in rejected)
    assert all(r["detail"].startswith("of corpus.jsonl:") for r in rejected if r["reason"] == "near_duplicate")
    by_name = {station.name: station for station in card.stations}
    n = by_name["read"].n_in
    for name in ("unicode", "exact_duplicates", "near_duplicates"):
        n -= sum(
            by_name[
                {"unicode": "read", "exact_duplicates": "unicode", "near_duplicates": "exact_duplicates"}[name]
            ].n_dropped.values()
        )
        if name == "near_duplicates" and "utf8" in by_name:
            n -= sum(by_name["utf8"].n_dropped.values())
        assert by_name[name].n_in == n
    assert sum(split.n_documents for split in card.splits.values()) == 400
    assert read_card(tmp_path / "data") == card


def test_what_goes_in_comes_out(corpus, tmp_path):
    """Every good text is in exactly one split, whole; bytes and tokens are counted exactly."""
    for i, tokenizer in enumerate(({"kind": "bpe", "vocab_size": 400}, {"kind": "bytes"}, {"kind": "characters"})):
        folder = tmp_path / f"data{i}"
        settings = Text(
            path=str(corpus),
            clean=[{"kind": "length", "min_characters": 100}],
            split={"validation": 0.2},
            tokenizer=tokenizer,
        )
        card = prepare_text(settings, folder, SILENT)
        found = [text for split in card.splits for text in texts_in(folder, card, split)]
        rows = [
            line for line in corpus.read_text().splitlines() if line.startswith('{"text": ') and "surrogate" not in line
        ]
        wanted = [json.loads(line)["text"] for line in rows]
        assert sorted(found) == sorted(text for text in wanted if len(text) > 100)
        token_bytes = np.fromfile(folder / "token_bytes.bin", dtype="<u2")
        for split, counts in card.splits.items():
            shard = open_split(folder, split)
            assert (
                token_bytes[shard.tokens].sum()
                == counts.n_bytes
                == sum(len(t.encode()) for t in texts_in(folder, card, split))
            )
            assert (shard.tokens[shard.docs[1:].astype(int) - 1] == card.document_end).all()


@pytest.mark.parametrize("tokenizer", [{"kind": "bpe", "vocab_size": 400}, {"kind": "bytes"}])
def test_the_files_are_the_same_for_any_number_of_workers(corpus, tmp_path, monkeypatch, tokenizer):
    monkeypatch.setattr(text_workers, "INLINE_BYTES", 0)
    monkeypatch.setattr("danlu.data.passes.BATCH_CHARACTERS", 5000)
    settings = Text(path=str(corpus), tokenizer=tokenizer)
    made = []
    for n_workers in (0, 1, 2, 3):
        prepare_text(settings, tmp_path / f"data{n_workers}", SILENT, n_workers)
        made.append(files(tmp_path / f"data{n_workers}"))
    prepare_text(settings, tmp_path / "data3", SILENT, 2)
    assert made[0] == made[1] == made[2] == made[3] == files(tmp_path / "data3")
    assert not [name for name in made[0] if name.startswith(".")]


def test_a_dead_worker_changes_nothing(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(text_workers, "INLINE_BYTES", 0)
    monkeypatch.setattr("danlu.data.passes.BATCH_CHARACTERS", 5000)
    settings = Text(path=str(corpus), tokenizer={"kind": "bpe", "vocab_size": 400})
    prepare_text(settings, tmp_path / "calm", SILENT, 0)
    ask, asked = text_workers._Worker.ask, Counter()

    def stormy(worker, texts):
        asked[worker] += 1
        if asked[worker] == 3:
            worker._process.send_signal(signal.SIGKILL)
        return ask(worker, texts)

    monkeypatch.setattr(text_workers._Worker, "ask", stormy)
    prepare_text(settings, tmp_path / "stormy", SILENT, 2)
    assert max(asked.values()) >= 3
    assert files(tmp_path / "stormy") == files(tmp_path / "calm")


def test_near_duplicates_never_cross_even_when_they_are_kept(corpus, tmp_path):
    settings = Text(
        path=str(corpus), clean=[{"kind": "unicode"}], split={"validation": 0.3}, tokenizer={"kind": "bytes"}
    )
    card = prepare_text(settings, tmp_path / "data", SILENT)
    found = {split: {text[:120] for text in texts_in(tmp_path / "data", card, split)} for split in card.splits}
    assert card.rows_used > 440
    assert not found["train"] & found["validation"]
    assert card.leakage["near_duplicates_in_train"] == 0
    ordered = settings.model_copy(update={"split": Text(path="x", split={"kind": "order", "validation": 0.3}).split})
    card = prepare_text(ordered, tmp_path / "ordered", SILENT)
    assert card.leakage["near_duplicates_in_train"] > 3
    assert "near-duplicate" in card.warnings[0]


def test_steps_after_near_duplicates_see_only_what_is_left(corpus, tmp_path):
    steps = [
        {"kind": "unicode"},
        {"kind": "near_duplicates"},
        {"kind": "pii"},
        {"kind": "length", "max_characters": 200},
    ]
    with pytest.raises(UserError, match="at least one row"):
        prepare_text(Text(path=str(corpus), clean=steps), tmp_path / "data", SILENT)
    steps[-1]["max_characters"] = 10_000
    card = prepare_text(Text(path=str(corpus), clean=steps, tokenizer={"kind": "bytes"}), tmp_path / "data", SILENT)
    by_name = {station.name: station for station in card.stations}
    assert (
        by_name["pii"].n_in
        == by_name["near_duplicates"].n_in - by_name["near_duplicates"].n_dropped["near_duplicate"]
        == 400
    )
    assert card.rows_used == 400


def test_one_file_in_order_as_nanogpt_cuts_it(tmp_path):
    text = prose(random.Random(1), 5000).strip()
    (tmp_path / "input.txt").write_text(text)
    settings = Text(
        path=str(tmp_path / "input.txt"), split={"kind": "order", "validation": 0.1}, tokenizer={"kind": "characters"}
    )
    card = prepare_text(settings, tmp_path / "data", SILENT)
    cut = int(0.9 * len(text))
    assert texts_in(tmp_path / "data", card, "train") == [text[:cut]]
    assert texts_in(tmp_path / "data", card, "validation") == [text[cut:]]
    assert card.vocab_size == len(set(text[:cut]))
    assert card.document_end is None
    assert (card.rows_in, card.rows_used) == (1, 1)


@pytest.mark.data
@pytest.mark.skipif("DANLU_DATA" not in os.environ, reason="needs DANLU_DATA to name a folder with the well-known sets")
def test_tiny_shakespeare_has_65_symbols(tmp_path):
    path = Path(os.environ["DANLU_DATA"]) / "tiny_shakespeare" / "input.txt"
    settings = Text(path=str(path), split={"kind": "order", "validation": 0.1}, tokenizer={"kind": "characters"})
    card = prepare_text(settings, tmp_path / "data", SILENT)
    assert card.vocab_size == 65
    assert card.dtype == "uint8"
    assert (card.splits["train"].n_tokens, card.splits["validation"].n_tokens) == (1_003_854, 111_540)


def test_preparing_again_with_other_text_uses_the_new_tokenizer(tmp_path):
    for symbols in ("abc d", "xyz wv"):
        text = (symbols * 600)[:3000]
        (tmp_path / "input.txt").write_text(text)
        settings = Text(
            path=str(tmp_path / "input.txt"),
            split={"kind": "order", "validation": 0.1},
            tokenizer={"kind": "characters"},
        )
        card = prepare_text(settings, tmp_path / "data", SILENT, 0)
        assert card.vocab_size == len(symbols)
        assert "".join(texts_in(tmp_path / "data", card, "train")) == text[: int(0.9 * len(text))]


def test_given_files(tmp_path):
    rng = random.Random(2)
    held = prose(rng, 50)
    (tmp_path / "held.txt").write_text(held)
    (tmp_path / "train.jsonl").write_text(
        "\n".join(json.dumps({"text": t}) for t in [prose(rng, 50), held, prose(rng, 50)])
    )
    settings = Text(
        path=str(tmp_path / "train.jsonl"),
        split={"kind": "given", "validation": str(tmp_path / "held.txt")},
        tokenizer={"kind": "bytes"},
    )
    card = prepare_text(settings, tmp_path / "data", SILENT)
    assert card.splits["validation"].n_documents == 1
    assert card.splits["train"].n_documents == 2  # the copy of what validates was dropped from training
    assert card.rows_rejected == {"exact_duplicate": 1}


def test_unseen_characters_are_refused_and_nothing_is_left(tmp_path):
    (tmp_path / "input.txt").write_text("plain words " * 90 + "漢字")
    settings = Text(
        path=str(tmp_path / "input.txt"), split={"kind": "order", "validation": 0.1}, tokenizer={"kind": "characters"}
    )
    with pytest.raises(UserError, match="2 of 2 kinds"):
        prepare_text(settings, tmp_path / "data", SILENT)
    assert "card.json" not in files(tmp_path / "data")
    assert not list((tmp_path / "data").glob(".*"))


KILLED = """
import sys, os, random
from danlu.data.text import Text
from danlu.stages.prepare import prepare_text
n = int(sys.argv[3])
calls = 0
def progress(what, done, total):
    global calls
    calls += 1
    if calls == n:
        os.kill(os.getpid(), 9)
prepare_text(Text(path=sys.argv[1], tokenizer={"kind": "bytes"}), __import__("pathlib").Path(sys.argv[2]), progress, 0)
print(calls)
"""


def test_a_killed_prepare_leaves_nothing_that_passes_for_whole(corpus, tmp_path):
    folder = tmp_path / "data"
    prepare_text(Text(path=str(corpus), tokenizer={"kind": "bytes"}), folder, SILENT, 0)
    whole = files(folder)
    for n in (1, 2, 3, 4, 5):
        done = subprocess.run([sys.executable, "-c", KILLED, str(corpus), str(folder), str(n)], check=False)
        assert done.returncode == -9
        assert not (folder / "card.json").exists()
        with pytest.raises(UserError):
            open_split(folder, "train")
    prepare_text(Text(path=str(corpus), tokenizer={"kind": "bytes"}), folder, SILENT, 0)
    assert files(folder) == whole


FULL = """
import resource, sys
from pathlib import Path
from danlu.base.errors import UserError
from danlu.data.text import Text
from danlu.stages.prepare import prepare_text
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    prepare_text(Text(path=sys.argv[1], tokenizer={"kind": "bpe", "vocab_size": 400}), Path(sys.argv[2]), print, 0)
except UserError as error:
    print(error)
    sys.exit(2)
"""


@pytest.mark.parametrize("room", [0, 1000, 20_000, 60_000, 120_000])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(corpus, tmp_path, room):
    folder = tmp_path / "data"
    command = [sys.executable, "-c", FULL, str(corpus), str(folder), str(room)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "cannot be written" in done.stdout.splitlines()[-1]
    assert done.stderr == ""
    assert "card.json" not in files(folder)
    assert not list(folder.glob(".*"))


def test_progress_is_told_and_memory_per_row_is_small(tmp_path):
    rng = random.Random(3)
    path = tmp_path / "many.jsonl"
    path.write_text("".join(json.dumps({"text": prose(rng, 8)}) + "\n" for _ in range(20_000)))
    seen = []
    began = time.perf_counter()
    card = prepare_text(
        Text(path=str(path), tokenizer={"kind": "bytes"}), tmp_path / "data", lambda *a: seen.append(a), 0
    )
    assert time.perf_counter() - began < 60
    assert card.rows_in == 20_000
    assert seen[-1][0] == "encoding"
    assert seen[-1][1] == seen[-1][2] == sum(split.n_bytes for split in card.splits.values())
