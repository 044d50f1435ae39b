"""The order of samples: a permutation in every epoch, uniform over seeds, and a function of (seed, step) alone."""

import math

import numpy as np
import pytest

from danlu.data.order import Bucketed, Order, hashed, mixed, permuted, share


def epoch(n: int, seed: int, number: int = 0) -> np.ndarray:
    return permuted(np.arange(n), np.full(n, number), n, seed)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 9, 10, 63, 64, 65, 1000, 4097, 100_003])
def test_every_sample_comes_once_an_epoch(n):
    for seed, number in ((0, 0), (0, 1), (2**63 - 1, 10**9)):
        assert np.array_equal(np.sort(epoch(n, seed, number)), np.arange(n))


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 7])
def test_all_orders_of_few_samples_are_equally_likely(n):
    n_epochs = 10 * math.factorial(n) if n > 5 else 6000
    epochs = np.repeat(np.arange(n_epochs), n)
    orders = permuted(np.tile(np.arange(n), n_epochs), epochs, n, seed=3).reshape(n_epochs, n)
    counts = np.unique(orders @ n ** np.arange(n), return_counts=True)[1]
    df, expected = math.factorial(n) - 1, n_epochs / math.factorial(n)
    chi2 = ((counts - expected) ** 2 / expected).sum() + (df + 1 - len(counts)) * expected
    assert abs(chi2 - df) < 5 * math.sqrt(2 * df)


@pytest.mark.parametrize("n", [11, 100, 257])
def test_places_and_pairs_are_uniform(n):
    """Chi-square of where a sample lands, and of the distance between two neighbours after the shuffle."""
    n_epochs = 400_000 // n
    epochs = np.repeat(np.arange(n_epochs), n)
    orders = permuted(np.tile(np.arange(n), n_epochs), epochs, n, seed=1).reshape(n_epochs, n)
    df = n - 1
    for i in range(0, n, max(1, n // 7)):
        place = np.bincount(orders[:, i], minlength=n)
        assert abs(((place - n_epochs / n) ** 2 / (n_epochs / n)).sum() - df) < 5 * math.sqrt(2 * df)
    gaps = np.bincount(((orders[:, 1:] - orders[:, :-1]) % n).ravel(), minlength=n)[1:]
    expected = gaps.sum() / (n - 1)
    assert abs(((gaps - expected) ** 2 / expected).sum() - (df - 1)) < 6 * math.sqrt(2 * df)


def test_large_domains_have_no_order_left():
    n = 1_000_003
    found = permuted(np.arange(200_000), np.zeros(200_000, int), n, seed=5).astype(float)
    for lag in (1, 2, 3, 16, 1000):
        assert abs(np.corrcoef(found[lag:], found[:-lag])[0, 1]) < 5 / math.sqrt(len(found))
    other = permuted(np.arange(200_000), np.ones(200_000, int), n, seed=5).astype(float)
    assert abs(np.corrcoef(found, other)[0, 1]) < 5 / math.sqrt(len(found))
    assert abs(found.mean() / n - 0.5) < 5 / math.sqrt(12 * len(found))


def test_a_step_needs_no_history():
    order = Order(n_samples=1003, batch=16, seed=7)
    forwards = [order.at(step)[0].copy() for step in range(300)]
    other = Order(n_samples=1003, batch=16, seed=7)
    for step in (299, 3, 150, 0, 64):
        assert np.array_equal(other.at(step)[0], forwards[step])
    assert order.at(10**12)[0].shape == (16,)


def test_a_partial_batch_goes_on_into_the_next_epoch():
    order = Order(n_samples=10, batch=4, seed=1)
    ids = np.concatenate([order.at(step)[0] for step in range(5)])
    epochs = np.concatenate([order.at(step)[1] for step in range(5)])
    assert np.array_equal(np.sort(ids[:10]), np.arange(10))
    assert np.array_equal(np.sort(ids[10:]), np.arange(10))
    assert np.array_equal(epochs, np.repeat([0, 1], 10))
    assert len(Order(n_samples=3, batch=16, seed=1).at(0)[0]) == 16


def test_seeds_and_epochs_give_other_orders():
    seen = {tuple(epoch(50, seed, number)) for seed in range(20) for number in range(20)}
    assert len(seen) == 400


def test_in_order_counts_up():
    assert np.array_equal(Order(5, 3, seed=9, shuffle=False).at(1)[0], [3, 4, 0])


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 4, 7])
def test_ranks_share_every_batch(n_ranks):
    order = Order(n_samples=101, batch=12, seed=3)
    for step in (0, 8, 9):
        parts = [order.at(step, share(12, rank, n_ranks))[0] for rank in range(n_ranks)]
        assert np.array_equal(np.concatenate(parts), order.at(step)[0])


def test_the_order_is_the_same_on_every_machine_for_ever():
    """Fixed once: changing these numbers breaks the resume of every run in the world."""
    assert Order(1000, 8, seed=42).at(3)[0].tolist() == [459, 196, 350, 759, 747, 572, 116, 692]
    assert mixed(np.array([0x9E3779B97F4A7C15], np.uint64)).tolist() == [0xE220A8397B1DCDAF]  # SplitMix64, seed 0
    assert hashed(1, np.array([2])).tolist() == [16440613524573350002]


def test_like_lengths_come_together_and_every_sample_once_an_epoch():
    lengths = np.random.default_rng(0).integers(1, 100, 32 * 20 * 4)
    plain = Order(n_samples=len(lengths), batch=20, seed=3)
    order = Bucketed(plain, lengths)
    found = [order.at(step) for step in range(256)]
    ids, epochs = np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])
    for epoch_number in (0, 1):
        assert np.array_equal(np.sort(ids[epochs == epoch_number]), np.arange(len(lengths)))
    spread = np.mean([np.ptp(lengths[f[0]]) for f in found])
    assert spread < 0.2 * np.mean([np.ptp(lengths[plain.at(step)[0]]) for step in range(256)])
    means = np.array([lengths[f[0]].mean() for f in found])
    assert abs(np.corrcoef(means[1:], means[:-1])[0, 1]) < 0.25, "batches of a pool must not come in order of length"
    assert np.array_equal(Bucketed(plain, lengths).at(77)[0], found[77][0])
