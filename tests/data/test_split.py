import random

import numpy as np
import pytest

from danlu.base.errors import UserError
from danlu.data.near_duplicates import SignatureFile, clusters, signatures
from danlu.data.split import DROPPED, SPLITS, ContentSplit, GivenSplit, OrderSplit, assign, leakage
from danlu.data.spool import Spool


@pytest.fixture
def spooled(tmp_path):
    made = []

    def make(texts, splits=None):
        spool = Spool(tmp_path / f"spool-{len(made)}")
        for i, text in enumerate(texts):
            spool.add(f"row:{i}", text.encode(), len(text), splits[i] if splits else 0)
        made.append(spool)
        return spool, np.ones(len(texts), dtype=bool)

    yield make
    for spool in made:
        spool.close()


def by_split(made, spool, keep):
    found = {}
    for split, text in made.pieces(spool.rows(keep)):
        found.setdefault(SPLITS[split], []).append(text.decode())
    return found


def numbered(n):
    return [f"text number {i} " + "word " * (i % 50) for i in range(n)]


def test_spool_gives_back_what_it_was_given(spooled):
    texts = ["", "a", "é漢😀" * 100, "x" * 100_000]
    spool, _ = spooled(texts, [0, 1, 2, 0])
    rows = list(spool.rows())
    assert [row.text.decode() for row in rows] == texts
    assert [(row.number, row.split, row.name) for row in rows] == [
        (0, 0, "row:0"),
        (1, 1, "row:1"),
        (2, 2, "row:2"),
        (3, 0, "row:3"),
    ]
    assert [row.number for row in spool.rows(np.array([False, True, False, True]))] == [1, 3]
    assert spool.name_of(2) == "row:2"
    assert spool.sizes.tolist() == [len(t.encode()) for t in texts]


def test_order_cuts_one_text_exactly(spooled):
    """nanoGPT's cut: data[: int(n * 0.9)], data[int(n * 0.9) :]."""
    text = "".join(chr(0x4E00 + i % 5000) for i in range(11_153))
    spool, keep = spooled([text])
    made = assign(OrderSplit(validation=0.1), spool, keep, None)
    cut = int(len(text) * 0.9)
    assert by_split(made, spool, keep) == {"train": [text[:cut]], "validation": [text[cut:]]}
    assert made.present == [0, 1]


@pytest.mark.parametrize("sizes", [[100], [3, 97], [50, 40, 10], [10] * 10, [1, 1, 98], [90, 10], [80, 20, 0, 0]])
def test_order_gives_every_character_once(spooled, sizes):
    letters = "".join(chr(33 + i % 90) for i in range(sum(sizes)))
    texts = [letters[sum(sizes[:i]) : sum(sizes[: i + 1])] for i in range(len(sizes))]
    spool, keep = spooled(texts)
    made = assign(OrderSplit(validation=0.1, test=0.1), spool, keep, None)
    found = by_split(made, spool, keep)
    assert {split: "".join(parts) for split, parts in found.items()} == {
        "train": letters[:80], "validation": letters[80:90], "test": letters[90:]
    }  # fmt: skip
    assert [SPLITS[i] for i in made.present] == ["train", "validation", "test"]


def test_order_counts_only_rows_that_are_kept(spooled):
    spool, _ = spooled(["a" * 50, "b" * 1000, "c" * 50])
    keep = np.array([True, False, True])
    made = assign(OrderSplit(validation=0.2), spool, keep, None)
    assert by_split(made, spool, keep) == {"train": ["a" * 50, "c" * 30], "validation": ["c" * 20]}


def test_content_does_not_depend_on_order(spooled):
    texts = numbered(400)
    spool, keep = spooled(texts)
    one = by_split(assign(ContentSplit(validation=0.1, test=0.1), spool, keep, None), spool, keep)
    random.Random(0).shuffle(texts)
    spool, keep = spooled(texts)
    other = by_split(assign(ContentSplit(validation=0.1, test=0.1), spool, keep, None), spool, keep)
    assert {k: sorted(v) for k, v in one.items()} == {k: sorted(v) for k, v in other.items()}
    assert 20 < len(one["validation"]) < 70
    assert 20 < len(one["test"]) < 70


def test_content_keeps_clusters_together_and_rows_in_place_as_text_grows(spooled):
    texts = numbered(300)
    spool, keep = spooled(texts)
    roots = np.arange(300)
    roots[100:200] = 100
    labels = assign(ContentSplit(validation=0.3), spool, keep, roots).labels
    assert len(set(labels[100:200].tolist())) == 1
    alone = assign(ContentSplit(validation=0.3), spool, keep, None).labels
    bigger, keep_all = spooled(texts + [t + "more" for t in texts])
    assert (assign(ContentSplit(validation=0.3), bigger, keep_all, None).labels[:300] == alone).all()
    assert (assign(ContentSplit(validation=0.3, seed=1), spool, keep, None).labels != alone).any()


def test_content_never_leaves_a_wanted_split_empty(spooled):
    spool, keep = spooled(numbered(25))
    keep[3] = False
    for seed in range(30):
        made = assign(ContentSplit(validation=0.01, test=0.01, seed=seed), spool, keep, None)
        assert made.present == [0, 1, 2]
        assert made.labels[3] == DROPPED


def test_few_documents_are_split_by_order_and_it_is_said(spooled):
    spool, keep = spooled(["a" * 600, "b" * 400])
    made = assign(ContentSplit(validation=0.1), spool, keep, None)
    assert by_split(made, spool, keep) == {"train": ["a" * 600, "b" * 300], "validation": ["b" * 100]}
    assert "2 documents" in made.warnings[0]


def test_given(spooled):
    spool, keep = spooled(["v", "t", "a", "b"], [1, 2, 0, 0])
    made = assign(GivenSplit(validation="x", test="y"), spool, keep, None)
    assert by_split(made, spool, keep) == {"validation": ["v"], "test": ["t"], "train": ["a", "b"]}
    with pytest.raises(UserError, match="validation"):
        assign(GivenSplit(validation="x"), spool, np.array([False, True, True, True]), None)


def test_nothing_to_validate_on_is_refused(spooled):
    spool, keep = spooled(["a"])
    with pytest.raises(UserError, match="every split"):
        assign(OrderSplit(validation=0.1), spool, keep, None)


def test_leakage_is_found_and_named(spooled, tmp_path):
    rng = random.Random(0)
    base = [" ".join(str(rng.random()) for _ in range(60)) for _ in range(60)]
    texts = [*base, base[3] + " end", base[7].upper(), "something else entirely, long enough to be signed"]
    spool, keep = spooled(texts)
    signed = SignatureFile(tmp_path / "signatures", 128)
    signed.append(signatures([text.encode() for text in texts], 16, 128))
    tail = OrderSplit(validation=sum(map(len, texts[60:])) / sum(map(len, texts)) - 1e-9)
    found = leakage(assign(tail, spool, keep, None), spool, signed, 0.8)
    assert found["near_duplicates_in_train"] == 2
    assert {(e["validation"], e["train"]) for e in found["examples"]} == {("row:60", "row:3"), ("row:61", "row:7")}
    roots = clusters(signed, 0.8)
    made = assign(ContentSplit(validation=0.4), spool, keep, roots)
    assert leakage(made, spool, signed, 0.8)["near_duplicates_in_train"] == 0
    signed.close()
