import random

import numpy as np
import pytest

from danlu.data.near_duplicates import (
    SignatureFile,
    banding,
    clusters,
    compared,
    pairs_between,
    signatures,
    similarity,
)

WORDS = [f"{a}{b}{c}" for a in "bcdfghjk" for b in "aeiou" for c in "lmnprst"]


def prose(rng, n_words):
    return " ".join(rng.choice(WORDS) for _ in range(n_words)).encode()


def changed(rng, text, n_changes):
    data = bytearray(text)
    for _ in range(n_changes):
        data[rng.randrange(len(data))] = rng.randrange(97, 123)
    return bytes(data)


def jaccard(one, other, n=16):
    """Ten-line reference: Jaccard similarity of the sets of shingles."""
    sets = []
    for text in (one, other):
        data = compared(text)
        sets.append({data[i : i + n] for i in range(max(1, len(data) - n + 1))})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def test_estimate_is_unbiased_and_as_sharp_as_promised():
    rng, errors = random.Random(1), []
    for n_words in (30, 200, 3000):
        for _ in range(40):
            one = prose(rng, n_words)
            other = changed(rng, one, rng.randrange(1, 2 + n_words // 8))
            signature = signatures([one, other], 16, 128)
            errors.append(similarity(signature[:1], signature[1:])[0] - jaccard(one, other))
    assert abs(np.mean(errors)) < 0.015  # 120 pairs of standard error 0.044
    assert np.std(errors) < 0.06


def test_signature_depends_on_the_text_alone():
    """Not on its neighbours, its place, or how it falls into blocks."""
    rng = random.Random(2)
    texts = [b"", b"a", b"short text", prose(rng, 50), prose(rng, 300_000), b"ab" * 400_000, prose(rng, 2)]
    together = signatures(texts, 16, 128)
    for text, row in zip(texts, together, strict=True):
        assert (signatures([text], 16, 128)[0] == row).all()
    assert (signatures(texts[::-1], 16, 128)[::-1] == together).all()


def test_case_and_white_space_do_not_count():
    same = signatures([b"The quick brown fox jumps over", b"the  QUICK\nbrown fox\tjumps over "], 16, 64)
    assert (same[0] == same[1]).all()


@pytest.mark.parametrize("shingle_bytes", [8, 13, 16, 24, 40])
def test_a_change_beyond_the_shingle_is_seen(shingle_bytes):
    text = prose(random.Random(3), 400)
    other = text[:500] + b"###" + text[503:]
    signature = signatures([text, other], shingle_bytes, 1024)
    share = similarity(signature[:1], signature[1:])[0]
    assert share == pytest.approx(jaccard(text, other, shingle_bytes), abs=0.05)
    assert share < 1


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 1.0])
def test_banding_finds_pairs_at_the_threshold(threshold):
    bands, rows = banding(threshold, 128)
    assert bands * rows <= 128
    assert 1 - (1 - threshold**rows) ** bands >= 0.99


def signed(tmp_path, texts):
    file = SignatureFile(tmp_path / "signatures", 128)
    for text in texts:
        file.append(signatures([text], 16, 128))
    return file


def test_clusters_equal_comparing_all_pairs(tmp_path):
    rng = random.Random(4)
    originals = [prose(rng, 120) for _ in range(60)]
    copies = [changed(rng, rng.choice(originals), rng.choice([1, 2, 12])) for _ in range(90)]
    texts = originals + copies
    rng.shuffle(texts)
    file = signed(tmp_path, texts)
    matrix = file.rows(range(len(texts)))
    parent = list(range(len(texts)))
    for i in range(len(texts)):
        for j in range(i):
            if (matrix[i] == matrix[j]).mean() >= 0.8:
                parent = [min(parent[i], parent[j]) if p in (parent[i], parent[j]) else p for p in parent]
    found = clusters(file, 0.8)
    assert (found != np.arange(len(texts))).sum() > 30
    assert (found == np.array(parent)).mean() > 0.99  # each pair at the threshold is missed with p < 0.01
    pairs, shares = pairs_between(file, np.arange(0, 75), np.arange(150) >= 75, 0.8)
    assert {tuple(p) for p in pairs.tolist()} <= {
        (i, j) for i in range(75) for j in range(75, 150) if parent[i] == parent[j]
    }
    assert len(pairs) > 10
    assert shares.min() >= 0.8
    file.close()
    assert not file.path.exists()


def test_rows_left_out_link_nothing(tmp_path):
    text = prose(random.Random(5), 100)
    file = signed(tmp_path, [text, text, text])
    assert clusters(file, 0.8).tolist() == [0, 0, 0]
    assert clusters(file, 0.8, np.array([False, True, True])).tolist() == [0, 1, 1]
    file.close()
