"""The loader: what a sample holds, that nothing but (seed, step) decides it, and what it refuses."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from danlu.base.errors import UserError
from danlu.data.loader import Loader


@dataclass
class Shard:
    tokens: np.ndarray
    docs: np.ndarray


def counting(n: int, docs: tuple[int, ...] = ()) -> Shard:
    """Token i is i, so that a window says where it was cut."""
    return Shard(np.arange(n, dtype=np.uint32), np.array([0, *docs, n], np.uint64))


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def test_targets_are_the_tokens_after():
    batch = Loader(counting(1000), context=16, batch=4, seed=0).batch_at(0)
    tokens, targets = batch.tensors["tokens"], batch.tensors["targets"]
    assert tokens.shape == targets.shape == (4, 16)
    assert tokens.dtype == targets.dtype == torch.int64
    assert tokens.is_contiguous()
    assert targets.is_contiguous()
    assert torch.equal(targets, tokens + 1)
    assert torch.equal(tokens, tokens[:, :1] + torch.arange(16))
    assert batch.n_targets == 64
    assert batch.ids.tolist() == Loader(counting(1000), 16, 4, 0).ids_at(0).tolist()


def test_an_epoch_is_every_window_once_at_its_own_shift():
    loader = Loader(counting(1000), context=16, batch=1, seed=3)
    n = len(loader)
    shifts = []
    for number in range(12):
        starts = np.sort([int(loader.batch_at(number * n + i).tensors["tokens"][0, 0]) for i in range(n)])
        assert np.array_equal(np.diff(starts), np.full(n - 1, 16))
        shifts.append(starts[0])
    assert len(set(shifts)) > 4


@pytest.mark.parametrize("n_tokens", [17, 18, 31, 32, 33, 48, 50, 67])
def test_every_token_becomes_a_target_in_time(n_tokens):
    loader = Loader(counting(n_tokens), context=16, batch=8, seed=3)
    seen = {t for step in range(400) for t in loader.batch_at(step).tensors["targets"].flatten().tolist()}
    assert seen == set(range(1, n_tokens))


@pytest.mark.parametrize("n_tokens", [2, 16, 17, 18, 33, 50])
def test_in_order_covers_the_file_exactly_once(n_tokens):
    loader = Loader(counting(n_tokens), context=16, batch=2, seed=0, shuffle=False)
    targets, n_targets, seen = [], 0, 0
    for step in range(-(-len(loader) // 2)):
        batch = loader.batch_at(step)
        rows = min(2, len(loader) - seen)
        seen += rows
        targets += [t for t in batch.tensors["targets"][:rows].flatten().tolist() if t >= 0]
        n_targets += int((batch.tensors["targets"] >= 0).sum())
        assert batch.n_targets == int((batch.tensors["targets"] >= 0).sum())
    assert targets == list(range(1, n_tokens))


def test_documents_kept_apart():
    shard = counting(400, docs=(3, 4, 4, 20, 130, 399))
    bounds = shard.docs.astype(int)
    loader = Loader(shard, context=16, batch=4, seed=1, pack="separate")
    for step in range(60):
        batch = loader.batch_at(step)
        tokens, targets, documents = (batch.tensors[k] for k in ("tokens", "targets", "documents"))
        assert documents.dtype == torch.int32
        assert documents.shape == (4, 16)
        true = torch.from_numpy(np.searchsorted(bounds, tokens.numpy(), side="right"))
        assert torch.equal(documents[:, :, None] == documents[:, None, :], true[:, :, None] == true[:, None, :])
        starts_new = torch.isin(tokens + 1, torch.from_numpy(bounds))
        assert torch.equal(targets == -1, starts_new)
        assert torch.equal(targets[~starts_new], tokens[~starts_new] + 1)
        assert batch.n_targets == int((~starts_new).sum())


@pytest.mark.parametrize("pack", ["stream", "separate"])
@pytest.mark.parametrize("micro", [1, 2, 3, 4, 16, 100])
def test_micro_batches_are_the_batch(pack, micro):
    loader = Loader(counting(900, docs=(5, 300)), context=16, batch=16, seed=2, pack=pack)
    whole, pieces = loader.batch_at(5), loader.micro_batches(5, micro)
    assert len(pieces) == -(-16 // micro)
    for name, tensor in whole.tensors.items():
        assert torch.equal(torch.cat([p.tensors[name] for p in pieces]), tensor)
    assert sum(p.n_targets for p in pieces) == whole.n_targets
    assert np.concatenate([p.ids for p in pieces]).tolist() == whole.ids.tolist() == loader.ids_at(5).tolist()


@pytest.mark.parametrize("n_ranks", [1, 2, 3])
def test_ranks_share_the_batch(n_ranks):
    loader = Loader(counting(900), context=16, batch=8, seed=2)
    parts = [loader.for_rank(rank, n_ranks).batch_at(7) for rank in range(n_ranks)]
    assert torch.equal(torch.cat([p.tensors["tokens"] for p in parts]), loader.batch_at(7).tensors["tokens"])
    assert sum(p.n_targets for p in parts) == loader.batch_at(7).n_targets
    assert np.array_equal(loader.for_rank(0, n_ranks).ids_at(7), loader.ids_at(7))


@pytest.mark.parametrize("dtype", ["<u1", "<u2", "<u4"])
def test_every_stored_type(dtype, tmp_path):
    data = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, 500, dtype=dtype, endpoint=True)
    data.tofile(tmp_path / "train.bin")
    stored = Shard(np.memmap(tmp_path / "train.bin", dtype, "r"), np.array([0, 500], np.uint64))
    held = Shard(data, stored.docs)
    a, b = Loader(stored, 16, 4, 1).batch_at(9), Loader(held, 16, 4, 1).batch_at(9)
    assert torch.equal(a.tensors["targets"], b.tensors["targets"])
    assert int(a.tensors["tokens"].min()) >= 0


def test_too_little_data_is_refused():
    with pytest.raises(UserError, match=r"at least 17 tokens .* Got 16"):
        Loader(counting(16), context=16, batch=1, seed=0)
    with pytest.raises(UserError, match="at least 2 tokens"):
        Loader(counting(1), context=16, batch=1, seed=0, shuffle=False)
