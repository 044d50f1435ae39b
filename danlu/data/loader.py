"""Batches of a prepared token file: a pure function of (seed, step), for any number of workers and ranks.

loader = Loader(open_split(folder, "train"), context=256, batch=16, seed=0)
batch = loader.batch_at(step)             at any step, at once: nothing is replayed
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from danlu.base.contracts import Batch
from danlu.base.errors import UserError
from danlu.data.order import Ids, Order, share
from danlu.data.windows import Pack, Tokens, Windows, n_windows
from danlu.data.workers import Prefetch, Readers

if TYPE_CHECKING:
    from torch import Tensor

# B batch, T context


class Loader:
    """Gives the batch of any update. Samples are windows of `context` tokens (data/windows.py), `batch` an update.

    pack="stream": a window runs over document borders. pack="separate": batches also hold "documents", (B, T) int32
    (equal numbers may attend to one another), and the first token of a document is nobody's target.
    n_workers=0 reads in this process; more read ahead (a Prefetch says how far and how patiently).
    shuffle=False goes through the file from its start; the last window is padded with -1 targets.
    """

    def __init__(
        self, shard: Tokens, context: int, batch: int, seed: int,
        shuffle: bool = True, n_workers: int | Prefetch = 0, pack: Pack = "stream",
    ) -> None:  # fmt: skip
        n_tokens, n_least = len(shard.tokens), context + 1 if shuffle else 2
        if n_tokens < n_least:
            fix = "give more data, or a smaller model.context"
            raise UserError(
                "The data", f"must hold at least {n_least} tokens for windows of {context}", got=n_tokens, fix=fix
            )
        order = Order(n_windows(n_tokens, context, shuffle), batch, seed, shuffle)
        self.how = n_workers if isinstance(n_workers, Prefetch) else Prefetch(n_workers)
        self.windows = Windows(shard.tokens, shard.docs, context, order, pack)
        self.readers = Readers(self.windows, self.how) if self.how.n_workers else None

    def for_rank(self, rank: int, n_ranks: int) -> Loader:
        """The same loader, giving only this rank's fixed slice of every batch."""
        other = object.__new__(Loader)
        part = share(self.windows.order.batch, rank, n_ranks)
        own = self.windows
        other.how = self.how
        other.windows = Windows(own.tokens, own.docs, own.context, own.order, own.pack, part)
        other.readers = Readers(other.windows, self.how) if self.how.n_workers else None
        return other

    def __len__(self) -> int:
        """Samples in one epoch."""
        return self.windows.order.n_samples

    def ids_at(self, step: int) -> Ids:
        """(batch,) int64 sample ids of update `step` (0-based), over all ranks."""
        return self.windows.order.at(step)[0]

    def epoch_at(self, step: int) -> float:
        """Epochs of data seen before update `step`."""
        return step * self.windows.order.batch / len(self)

    def batch_at(self, step: int) -> Batch:
        """The batch of update `step`: tokens, targets (B, T) int64; -1 is not supervised."""
        import torch

        windows = self.windows
        read = self.readers.read(step) if self.readers else windows.read(step)
        targets = windows.targets(step, read)
        tensors = {"tokens": torch.from_numpy(read[0][:, :-1].astype("int64")), "targets": torch.from_numpy(targets)}
        if windows.pack == "separate":
            tensors["documents"] = torch.from_numpy(read[1][:, :-1].copy())
        return Batch(tensors, int((targets >= 0).sum()), windows.order.at(step, windows.part)[0])

    def micro_batches(self, step: int, micro: int) -> list[Batch]:
        """The batch of update `step` in order, cut into pieces of `micro` samples (the last may be smaller)."""
        whole = self.batch_at(step)
        return [cut(whole, slice(first, first + micro)) for first in range(0, len(whole.tensors["tokens"]), micro)]

    def events(self) -> list[str]:
        """Sentences on workers that were replaced since the last call."""
        return self.readers.events() if self.readers else []

    def close(self) -> None:
        """Stop the workers. They also stop when the loader is dropped or the program ends."""
        if self.readers:
            self.readers.close()


def cut(batch: Batch, rows: slice) -> Batch:
    """Some rows of a batch, with their own count of targets."""
    tensors: dict[str, Tensor] = {name: tensor[rows] for name, tensor in batch.tensors.items()}
    n_targets = int((tensors["targets"] >= 0).sum())
    return Batch(tensors, n_targets, None if batch.ids is None else batch.ids[rows])
