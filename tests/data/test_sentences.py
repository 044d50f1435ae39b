"""Sentences: rows accounted for, words learned on train alone, spelled words, pieces, texts without classes."""

import json

import numpy as np
import pytest

from danlu.base.durable import read_json
from danlu.base.errors import UserError
from danlu.data.sentence_words import MASK, PAD, SPECIALS, START, UNKNOWN, gram_table, grams_of
from danlu.data.sentences import Sentences


def quiet(what, done, total):
    pass


def prepared(tmp_path, content, name="texts.tsv", **settings):
    (tmp_path / name).write_bytes(content)
    source = Sentences(path=str(tmp_path / name), **{"least_count": 1} | settings)
    folder = tmp_path / "data"
    folder.mkdir(exist_ok=True)
    return source, folder, source.prepare(folder, 0, quiet)


def lines(n=20, start=0):
    return [f"text number {i} is {'good' if i % 2 else 'bad'} !\t{i % 2}" for i in range(start, start + n)]


def reasons_of(folder):
    return [json.loads(line)["reason"] for line in (folder / "rejected.jsonl").read_text().splitlines()]


def test_a_dirty_labelled_file_is_accounted_row_by_row(tmp_path):
    dirty = ["no tab", "a\tb\tc", "\t1", "text without label\t", "   ", '"an open quote\t1', "trailing cr\t0\r"]
    content = b"\xef\xbb\xbf" + "\n".join([*lines(), *dirty]).encode()
    _, folder, card = prepared(tmp_path, content)
    assert card.rows_in == 26  # the blank line is none
    assert card.rows_used == 22
    assert card.rows_rejected == {
        "1 fields instead of text and label": 1,
        "3 fields instead of text and label": 1,
        "no text": 1,
        "no label": 1,
    }
    assert len(reasons_of(folder)) == 4
    assert card.features["classes"] == ["0", "1"]


def test_a_dirty_unlabelled_file_keeps_every_line_with_text(tmp_path):
    content = (
        b"one\ttwo\tthree\n\n   \n[MASK] is text like any other\n" + "caf\xe9 ol\xe9\n".encode("cp1252") * 3 + b"\x0c\n"
    )
    source, folder, card = prepared(
        tmp_path, content, "texts.txt", labelled=False, split={"validation": 0.2, "test": 0.2}
    )
    assert card.rows_in == card.rows_used == 5
    assert "classes" not in card.features
    assert any("cp1252" in warning for warning in card.warnings)
    opened = source.open(folder, card, "train")
    assert opened.batch(np.arange(len(opened))).n_targets == 0


def test_jsonl_without_labels_needs_only_texts(tmp_path):
    rows = [{"body": f"line {i}"} for i in range(9)] + [{"other": 1}]
    content = "\n".join([*map(json.dumps, rows), "{broken"]).encode()
    _, _, card = prepared(tmp_path, content, "t.jsonl", labelled=False, text="body")
    assert card.rows_in == 11
    assert card.rows_used == 9
    with pytest.raises(UserError, match=r"data\.label must be a key"):
        prepared(tmp_path, content, "t.jsonl", text="body")


def test_words_are_learned_on_train_alone(tmp_path):
    (tmp_path / "held.tsv").write_text("\n".join(f"secret{i} word\t{i % 2}" for i in range(6)))
    held = str(tmp_path / "held.tsv")
    source, folder, card = prepared(
        tmp_path, "\n".join(lines()).encode(), split={"kind": "given", "validation": held, "test": held}
    )
    vocabulary = read_json(folder / "preprocessing.json")["vocabulary"]
    assert tuple(vocabulary[:4]) == SPECIALS
    assert "good" in vocabulary
    assert not any(word.startswith("secret") for word in vocabulary)
    tokens = source.open(folder, card, "test").batch(np.array([0])).tensors["tokens"]
    assert (tokens == UNKNOWN).all()


def test_a_batch_is_padded_to_its_longest_and_told_its_lengths(tmp_path):
    content = b"a b c\t0\na\t1\nb c\t0\n" * 4
    source, folder, card = prepared(tmp_path, content, split={"validation": 0.1, "test": 0.0}, start=True)
    opened = source.open(folder, card, "train")
    batch = opened.batch(np.arange(len(opened)))
    tokens, lengths = batch.tensors["tokens"].numpy(), batch.tensors["lengths"].numpy()
    assert tokens.shape[1] == lengths.max() == 4
    assert (tokens[:, 0] == START).all()
    assert ((tokens != PAD).sum(1) == lengths).all()
    assert (opened.lengths == lengths).all()


def test_texts_are_cut_at_the_context_and_counted(tmp_path):
    content = "\n".join([*lines(), f"{'long ' * 50}\t1"]).encode()
    source, folder, card = prepared(
        tmp_path, content, context=8, start=True, grams=16, split={"validation": 0.1, "test": 0.0}
    )
    assert card.warnings == ("1 texts are longer than data.context and are cut.",)
    opened = source.open(folder, card, "train")
    tensors = opened.batch(np.arange(len(opened))).tensors
    assert tensors["tokens"].shape[1] == tensors["grams"].shape[1] == 8


def test_pieces_know_every_text_and_come_back(tmp_path):
    source, folder, card = prepared(
        tmp_path, "\n".join(lines(60)).encode(), pieces=300, split={"validation": 0.1, "test": 0.1}
    )
    assert card.vocab_size <= 4 + 300
    read = source.read(folder, card, ["Zebra ünïcode 你好 text number"])
    assert UNKNOWN not in read.row_tokens(0).tolist()
    opened = source.open(folder, card, "train")
    assert opened.shown(opened.row_tokens(0).tolist())[0] == "text"


def test_gaps_are_read_in_predict(tmp_path):
    for settings in ({}, {"pieces": 300}, {"grams": 32}):
        source, folder, card = prepared(tmp_path, "\n".join(lines(60)).encode(), **settings)
        split = source.read(folder, card, ["text [MASK] 3", "text"])
        assert (split.row_tokens(0) == MASK).sum() == 1
        assert MASK not in split.row_tokens(1)
    grams = split.batch(np.array([0])).tensors["grams"][0]
    assert (grams[1] == 0).all()
    assert (grams[0] > 0).any()


def test_grams_by_hand():
    import zlib

    wanted = [zlib.crc32(g.encode()) % 100 + 1 for g in ("<ab", "ab>", "<ab>")]
    assert grams_of("ab", 3, 5, 100) == wanted
    assert grams_of("a", 4, 5, 100) == [zlib.crc32(b"<a>") % 100 + 1]
    assert len(grams_of("x" * 400, 3, 5, 100)) == 48
    table = gram_table([["ab", "a"], ["ab", ""]], 3, 5, 100)
    assert table["spelled_as"].tolist() == [1, 2, 1, 0]
    assert table["spellings"][1].tolist()[:3] == wanted
    assert not table["spellings"][0].any()


def test_words_of_another_run(tmp_path):
    _, folder, card = prepared(tmp_path, "\n".join(lines()).encode(), split={"validation": 0.1, "test": 0.1})
    (tmp_path / "other").mkdir()
    content = b"quite other words\t0\nsome more of them\t1\n" * 8
    _, other, theirs = prepared(tmp_path / "other", content, vocabulary=str(tmp_path))
    assert theirs.vocab_size == card.vocab_size
    assert read_json(other / "preprocessing.json") == read_json(folder / "preprocessing.json")
    with pytest.raises(UserError, match=r"data\.lowercase must be as in the run"):
        prepared(tmp_path / "other", content, vocabulary=str(tmp_path), lowercase=False)
    with pytest.raises(UserError, match=r"data\.vocabulary must be"):
        prepared(tmp_path / "other", content, vocabulary=str(tmp_path / "none"))


@pytest.mark.parametrize("wrong", [{"pieces": 10}, {"pieces": 300, "grams": 8}, {"gram_lengths": [5, 3]}])
def test_settings_that_do_not_fit_are_refused(tmp_path, wrong):
    with pytest.raises(UserError):
        prepared(tmp_path, "\n".join(lines()).encode(), **wrong)


def test_a_label_outside_the_classes_is_left_out(tmp_path):
    _, _, card = prepared(tmp_path, "\n".join([*lines(), "odd\t7"]).encode(), classes=["1", "0"])
    assert card.rows_rejected == {"its label is not in data.classes": 1}
    assert card.features["classes"] == ["1", "0"]


def test_words_are_counted_once_a_training_text(tmp_path):
    content = b"good good film\t1\nbad film\t0\n" * 10
    _, folder, card = prepared(tmp_path, content, count_words=True, split={"validation": 0.2, "test": 0.0})
    at = {word: i for i, word in enumerate(read_json(folder / "preprocessing.json")["vocabulary"])}
    n = card.features["class_counts"]
    found = card.features["texts_with"]
    assert [found[c][at["good"]] for c in (0, 1)] == [0, n[1]]
    assert [found[c][at["film"]] for c in (0, 1)] == n
    assert sum(n) == card.splits["train"].n_samples
