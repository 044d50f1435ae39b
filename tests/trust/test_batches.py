"""What batches say of themselves: each statistic finds what it is made for, and is quiet on random data."""

import numpy as np
import pytest

from danlu.trust import batches as look


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_fingerprints_know_samples_again(rng):
    x = {"image": rng.normal(size=(40, 3, 9)).astype("f4"), "kind": rng.integers(0, 5, (40, 2))}
    rows = np.array([7, 7, 0])
    assert (look.fingerprints({n: a[rows] for n, a in x.items()}) == look.fingerprints(x)[rows]).all()
    assert len(np.unique(look.fingerprints(x))) == 40
    x["kind"][0, 1] += 1
    assert (
        look.fingerprints({n: a[:1] for n, a in x.items()})[0]
        != look.fingerprints({"image": x["image"][:1], "kind": x["kind"][:1] - [[0, 1]]})[0]
    )


def test_grams_find_a_stretch_wherever_it_is(rng):
    text = rng.integers(0, 20, 500)
    held = look.grams(text[None, 100:200], 1)
    windows = np.stack([text[i : i + 64] for i in (95, 300)])
    assert np.isin(look.grams(windows, look.GRAM), held).tolist() == [
        False,
        True,
        True,
        True,
        False,
        False,
        False,
        False,
    ]
    assert len(look.grams(text[None, :8], 1)) == 0


def test_words_among_known_ones_are_counted(rng):
    known, words = np.unique(rng.integers(0, 500, 200, np.uint64)), rng.integers(0, 500, 300, np.uint64)
    assert look.n_among(words, known) == int(np.isin(words, known).sum()) > 0


def test_normal_score_is_paulsons():
    # the 99.9% point of F(10, 100) is 3.30 (tables), that of a standard normal 3.09
    assert look.normal_score(3.30, 10, 100) == pytest.approx(3.09, abs=0.02)


def summed(y, size):
    parts = y.reshape(-1, size, y.shape[1])
    return parts.mean(1), parts.var(1, ddof=1), [size] * len(parts)


def test_sorted_labels_stand_out_and_random_ones_do_not(rng):
    y = look.label_numbers(np.sort(rng.integers(0, 10, 1024)))
    assert look.between_batches(*summed(y, 32)) > 20
    assert look.carried_over(summed(y, 32)[0]) > 4
    scores = []
    for _ in range(50):
        means, variances, sizes = summed(look.label_numbers(rng.integers(0, 10, 1024)), 32)
        scores.append((look.between_batches(means, variances, sizes), look.carried_over(means)))
    assert np.max(scores, 0) == pytest.approx([2.5, 2.5], abs=1.6)


def test_a_feature_that_decides_is_named(rng):
    y = rng.integers(0, 3, 600)
    features = {"a": rng.normal(size=600), "b": y + 0.01 * rng.normal(size=600), "c": rng.integers(0, 4, 600)}
    share, name = look.deciding(features, look.label_numbers(y))
    assert (name, share > 0.98) == ("b", True)
    del features["b"]
    assert look.deciding(features, look.label_numbers(y))[0] < 0.05


@pytest.mark.parametrize("shift", [0, 1, -2])
def test_the_shift_of_labels_is_found(rng, shift):
    x = rng.normal(size=(1000, 5))
    y = np.roll(x @ rng.normal(size=(5, 2)) + 0.5 * rng.normal(size=(1000, 2)), shift, 0)
    found = look.explained_at(look.reduced({f"x{i}": c for i, c in enumerate(x.T)}), y)
    assert max(found, key=found.__getitem__) == shift
    assert found[shift] > 0.6
    assert sum(found.values()) - found[shift] < 0.1


def test_offsets_of_a_language_task(rng):
    tokens = rng.integers(0, 50, (8, 33))
    assert look.agreement(tokens[:, :-1], tokens[:, 1:])[1] == 1
    assert look.agreement(tokens[:, :-1], tokens[:, :-1])[0] == 1


@pytest.mark.parametrize("shift", [0, 1, -1])
def test_moved_tags_are_found(rng, shift):
    tokens = rng.integers(0, 20, (200, 40))
    tags = np.roll((tokens % 3 + (rng.random(tokens.shape) < 0.3)) % 3, shift, 1)
    found = look.moved_labels(tokens, tags)
    if shift == 0:
        assert max(found.values()) < 0
    else:
        assert max(found, key=found.__getitem__) == -shift
        assert found[-shift] > 10


def test_windows_in_order(rng):
    text = rng.integers(0, 50, 321)
    rows = np.stack([text[i * 32 : i * 32 + 33] for i in range(10)])
    assert look.follows(rows[:, :-1], rows[:, 1:]) == 1
    shuffled = rows[rng.permutation(10)]
    assert look.follows(shuffled[:, :-1], shuffled[:, 1:]) < 0.4
