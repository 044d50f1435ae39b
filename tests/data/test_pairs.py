"""Parallel text: every row accounted for, nothing learned outside train, tensors as promised."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from danlu.base.contracts import DataCard
from danlu.base.durable import read_json
from danlu.base.errors import UserError
from danlu.data.pairs import Pairs, PairSplit
from danlu.data.pairs_pieces import BEGIN, END, UNKNOWN, Pieces, learned
from danlu.data.pairs_read import tidied
from danlu.tasks.translate import spelled

ROWS = [("a dog", "ein Hund"), ("a cat", "eine Katze"), ("two dogs", "zwei Hunde"), ("two cats", "zwei Katzen")]


def quiet(what: str, done: float, total: float) -> None:
    pass


def aligned(folder: Path, rows: list[tuple[str, str]], name: str = "train") -> str:
    for side, ending in enumerate(("en", "de")):
        (folder / f"{name}.{ending}").write_text("".join(f"{row[side]}\n" for row in rows), encoding="utf-8")
    return str(folder / f"{name}.{{en,de}}")


def prepared(folder: Path, path: str, **settings: Any) -> tuple[Pairs, DataCard]:
    given = {"split": {"kind": "random", "validation": 0.0, "test": 0.0}, "pieces": "words", "least_count": 1}
    data = Pairs(path=path, **{**given, **settings})
    (folder / "data").mkdir(exist_ok=True)
    card = data.prepare(folder / "data", 0, quiet)
    assert card.rows_in == card.rows_used + sum(card.rows_rejected.values())
    assert sum(split.n_samples for split in card.splits.values()) == card.rows_used
    return data, card


def texts(split: PairSplit) -> list[tuple[str, str]]:
    return sorted(zip(split.sources, split.references, strict=True))


def test_every_form_of_file_gives_the_same_pairs(tmp_path: Path) -> None:
    import polars as pl

    nested = [{"pair": {"en": source, "de": target}} for source, target in ROWS]
    (tmp_path / "p.tsv").write_text("\n".join(f"{i}\t{target}\t{source}" for i, (source, target) in enumerate(ROWS)))
    with gzip.open(tmp_path / "p.jsonl.gz", "wt") as file:
        file.write("\n".join(map(json.dumps, nested)))
    pl.DataFrame(nested).write_parquet(tmp_path / "p.parquet")
    names = {"source": "pair.en", "target": "pair.de"}
    forms = {
        aligned(tmp_path, ROWS): {}, str(tmp_path / "p.tsv"): {"columns": [3, 2]},
        str(tmp_path / "p.jsonl.gz"): names, str(tmp_path / "p.parquet"): names,
    }  # fmt: skip
    for path, settings in forms.items():
        data, card = prepared(tmp_path, path, **settings)
        assert texts(data.open(tmp_path / "data", card, "train")) == sorted(ROWS), path


def test_files_that_are_not_aligned_are_refused(tmp_path: Path) -> None:
    path = aligned(tmp_path, ROWS)
    (tmp_path / "train.de").write_text("eins\nzwei\n")
    with pytest.raises(UserError, match=r"train.de must have as many lines as train.en, which has 4. Got \"2\""):
        prepared(tmp_path, path)


def test_line_ends_are_newlines_alone(tmp_path: Path) -> None:
    rows = [(f"a\u2028dog {i}\r", f"ein\x85 Hund {i}\x0c") for i in range(4)]
    data, card = prepared(tmp_path, aligned(tmp_path, rows))
    assert texts(data.open(tmp_path / "data", card, "train"))[0] == ("a dog 0", "ein Hund 0")


def test_bad_rows_are_rejected_by_name_and_reason(tmp_path: Path) -> None:
    long = " ".join(["word"] * 60)
    bad = [("", "leer"), ("empty", " "), ("", ""), ROWS[0], ("x", long), (long, long)]
    _, card = prepared(tmp_path, aligned(tmp_path, ROWS + bad), context=50)
    assert card.rows_rejected == {
        "no source": 1, "no target": 1, "both sides empty": 1, "duplicate": 1,
        "one side over 6 times as long": 1, "too long": 1,
    }  # fmt: skip
    listed = [json.loads(line) for line in (tmp_path / "data/rejected.jsonl").read_text().splitlines()]
    assert {row["row"]: row["reason"] for row in listed}["train.en:8"] == "duplicate"
    assert card.rows_in == 10


def test_rows_of_jsonl_without_text_are_rejected(tmp_path: Path) -> None:
    lines = [json.dumps({"source": s, "target": t}) for s, t in ROWS]
    (tmp_path / "p.jsonl").write_text("\n".join([*lines, "{", '{"source": "x"}', '{"source": 1, "target": "y"}', "[]"]))
    _, card = prepared(tmp_path, str(tmp_path / "p.jsonl"))
    assert card.rows_rejected == {"not JSON": 1, "no text under target": 1, "no text under source": 2}


def test_a_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    import polars as pl

    pl.DataFrame({"en": ["a"] * 4, "de": ["b"] * 4}).write_parquet(tmp_path / "p.parquet")
    with pytest.raises(UserError, match=r"data.target must be a column of p.parquet"):
        prepared(tmp_path, str(tmp_path / "p.parquet"), source="en", target="dee")


def test_what_is_scored_is_not_cleaned_and_leaks_are_told(tmp_path: Path) -> None:
    test = aligned(tmp_path, [ROWS[0], ROWS[0], ("new", "neu"), ("x", "lang " * 30)], "test")
    split = {"kind": "given", "test": test, "validation_share": 0.0}
    data, card = prepared(tmp_path, aligned(tmp_path, ROWS), split=split, context=20)
    assert card.splits["test"].n_samples == 4
    assert card.leakage["n_held_out_copies_of_training_samples"] == 2
    assert "2 of 4 validation and test pairs" in card.warnings[0]
    held = data.open(tmp_path / "data", card, "test")
    assert held.references[3].count("lang") == 30  # its tokens are cut, its reference is whole
    assert int(held.n_target.max()) == 20
    assert "new" not in json.dumps(read_json(tmp_path / "data/preprocessing.json"))
    _, card = prepared(tmp_path, aligned(tmp_path, ROWS), split=split, context=20, leaks="drop")
    assert card.rows_rejected == {"in validation or test": 1}
    assert card.leakage["n_held_out_copies_of_training_samples"] == 0


def test_a_batch_is_shifted_and_padded(tmp_path: Path) -> None:
    data, card = prepared(tmp_path, aligned(tmp_path, [*ROWS, ("one more small dog", "ein")]))
    split = data.open(tmp_path / "data", card, "train")
    rows = np.arange(5)
    batch = split.batch(rows)
    source, lengths, inputs, targets = (batch.tensors[n].numpy() for n in ("source", "lengths", "inputs", "targets"))
    assert batch.n_targets == card.splits["train"].n_targets == (targets >= 0).sum()
    assert (inputs[:, 0] == BEGIN).all()
    for i in range(5):
        n = (targets[i] >= 0).sum()
        assert targets[i, n - 1] == END
        assert (inputs[i, 1:n] == targets[i, : n - 1]).all()
        assert source[i, lengths[i] - 1] == END
        assert (source[i, lengths[i] :] == 0).all()
        assert spelled(targets[i, : n - 1], card.features) == split.references[i]
        assert bytes(batch.tensors["reference"][i].numpy()).rstrip(b"\0").decode() == split.references[i]
    assert "reference" not in split.batch(rows, np.zeros(5, np.uint64)).tensors
    assert (np.argsort(split.lengths)[-1]) == split.sources.index("one more small dog")


@pytest.mark.parametrize("kind", ["bpe", "words", "characters"])
def test_pieces_give_the_text_back(kind: str) -> None:
    given = ["Zwei Männer (alt) gehen, zusammen!", "It's 5 o'clock.", "日本語 と 😀 ok", "Ein-Mann"]
    pieces = learned(kind, given, 400, 1)
    again = Pieces(json.loads(json.dumps(pieces.described)))
    features = {"target_pieces": again.pieces, "pad_id": 0, "begin_id": 1, "end_id": 2, "unknown_id": 3}
    for text, ids in zip(given, again.encode(given), strict=True):
        assert spelled(ids, features) == text
    unknown = again.encode(["ж"])[0]
    assert UNKNOWN not in unknown if kind == "bpe" else unknown == [UNKNOWN]


def test_case_and_spaces_are_tidied() -> None:
    assert tidied(" A\u00a0 b\tC\u0308 ", lowercase=True) == "a b c\u0308"
    assert tidied("U\u0308ber") == "Über"


def test_new_sentences_come_as_texts_or_files(tmp_path: Path) -> None:
    data, card = prepared(tmp_path, aligned(tmp_path, ROWS))
    (tmp_path / "new.txt").write_text("a dog\n\ntwo cats\n")
    split = data.read(tmp_path / "data", card, [str(tmp_path / "new.txt"), "a  cat", tmp_path / "new.txt", ""])
    assert split.sources == ["a dog", "", "two cats", "a cat", "a dog", "", "two cats", ""]
    assert split.name(2) == "new.txt:3"
    batch = split.batch(np.arange(8))
    assert batch.n_targets == 0
    assert batch.tensors["lengths"].tolist() == [3, 1, 3, 3, 3, 1, 3, 1]


def test_a_vocabulary_too_small_for_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.vocab_size must be at least 260"):
        prepared(tmp_path, aligned(tmp_path, ROWS), pieces="bpe", vocab_size=100)
