"""Data that is samples by number: what every kind but running text shares. A kind's settings class derives from
`SampleSource` and says how its files become a prepared folder (`prepare`), and how that folder is opened again (`open`).

    folder/card.json               counts, `features` (what models must know), written last
    folder/preprocessing.json      what was fitted on the training split: means, categories, vocabularies, ...
    folder/<split>.<name>.npy      arrays (data/arrays.py)
    folder/rejected.jsonl          {"row", "reason", "text"} of every row left out
"""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from danlu.base.contracts import Batch, DataCard, Progress, Split
from danlu.base.durable import write_text
from danlu.base.errors import UserError
from danlu.base.settings import Settings
from danlu.data.catalog_sets import located
from danlu.data.order import GOLDEN, Bucketed, Ids, Joined, Order, hashed, mixed

Words = NDArray[np.uint64]
Change = Callable[[Batch, Words], Batch]
"""What a task does to a batch before the model sees it (mask tokens, ...), from one seed a sample."""


class SampleSource(Settings):
    """Base of the data kinds that are samples by number."""

    kind: str
    """Data kind."""
    path: str
    """A file, a folder, a glob, or a catalog name."""

    extra: ClassVar[str] = ""
    """The extra that reading it needs (pip install danlu[...]), or none."""

    def prepare(self, folder: Path, seed: int, progress: Progress) -> DataCard:
        """Read, clean, split, fit on train, write arrays and preprocessing, then the card. rows_in = used + rejected."""
        raise NotImplementedError

    def open(self, folder: Path, card: DataCard, split: str) -> Split:
        """A prepared split."""
        raise NotImplementedError

    def read(self, folder: Path, card: DataCard, inputs: Sequence[Any]) -> Split:
        """New samples for predict, without targets where they have none, under the fitted preprocessing. An input is a
        path (file or folder), a line of text, or a Python value natural to the kind (dict, array)."""
        raise NotImplementedError

    def files(self) -> list[Path]:
        """The source files, for the stamp that says whether they changed."""
        raise NotImplementedError

    def expected(self) -> dict[str, Any]:
        """`features` as far as they can be told without reading all data: what `danlu check` builds the model from."""
        raise NotImplementedError


class SampleLoader:
    """Batches by step: a pure function of (seed, step), for any number of reading threads and any micro-batch."""

    def __init__(
        self, split: Split, batch: int, seed: int, n_workers: int = 0, change: Change | None = None,
        augment: bool = True,
    ) -> None:  # fmt: skip
        self.split, self.seed, self.change, self.augment = split, seed, change, augment
        lengths = getattr(split, "lengths", None)
        plain = Order(len(split), batch, seed)
        self.order: Order | Bucketed | Joined = plain if lengths is None else Bucketed(plain, lengths)
        self.pool = ThreadPoolExecutor(n_workers) if n_workers else None
        self.ahead: dict[int, Future[Batch]] = {}
        self.n_ahead = 2 * n_workers

    def __len__(self) -> int:
        """Samples in one epoch."""
        return len(self.split)

    def ids_at(self, step: int) -> Ids:
        """(batch,) int64 sample ids of update `step` (0-based)."""
        return self.order.at(step)[0]

    def batch_at(self, step: int) -> Batch:
        """The batch of update `step`."""
        if self.pool is None:
            return self.read(step)
        for s in range(step, step + self.n_ahead):
            if s not in self.ahead:
                self.ahead[s] = self.pool.submit(self.read, s)
        self.ahead = {s: f for s, f in self.ahead.items() if s >= step}
        return self.ahead.pop(step).result()

    def read(self, step: int) -> Batch:
        """Samples, augmented by seeds of their own, then changed by the task."""
        ids, epochs = self.order.at(step)
        seeds = sample_seeds(self.seed, ids, epochs)
        batch = self.split.batch(ids, seeds if self.augment else None)
        if self.change is not None:
            batch = self.change(batch, mixed(seeds + GOLDEN))
        return Batch(batch.tensors, batch.n_targets, ids, batch.row_targets)

    def micro_batches(self, step: int, micro: int) -> list[Batch]:
        """The batch of update `step`, cut into pieces of `micro` samples."""
        whole = self.batch_at(step)
        n = self.order.batch
        return [whole] if micro >= n else [whole.rows(slice(i, min(n, i + micro))) for i in range(0, n, micro)]

    def events(self) -> list[str]:
        """Nothing to say: threads do not die alone."""
        return []

    def close(self) -> None:
        """Stop reading ahead."""
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=True)


def sample_seeds(seed: int, ids: Ids, epochs: Ids) -> Words:
    """(B,) uint64: the randomness of each sample in each epoch, a pure function of (seed, epoch, id)."""
    of_epoch = hashed(seed, epochs[:1] if (epochs == epochs[0]).all() else epochs)
    return mixed(of_epoch ^ mixed(ids.astype(np.uint64) * GOLDEN + GOLDEN))


def fixed_seeds(ids: Ids) -> Words:
    """(B,) uint64 that never change: for scoring what needs randomness (masked tokens)."""
    return mixed(ids.astype(np.uint64) * GOLDEN + GOLDEN)


def in_pieces(split: Split, size: int, rows: Ids | None = None) -> list[list[Ids]]:
    """A split's samples (`rows` of them) for scoring: pieces of `size` in order, each as batches of places in `rows`.

    Where samples differ in length, the batches of a piece hold like ones, the longest first, and no more of them, padding
    counted, than `size` of the usual training length: neither time nor memory goes to padding.
    """
    rows = np.arange(len(split)) if rows is None else rows
    held: Any = split
    at_once, lengths = getattr(held, "at_once", size), whole_lengths(split)
    if lengths is None:
        step = max(1, min(size, at_once))
        return [[np.arange(i, min(i + step, len(rows)))] for i in range(0, len(rows), step)]
    most = min(size * float(np.mean(held.lengths)), at_once * float(lengths.max(initial=1)))
    return [alike(np.arange(i, min(i + size, len(rows))), lengths[rows], most) for i in range(0, len(rows), size)]


def alike(places: Ids, lengths: NDArray[np.int64], most: float) -> list[Ids]:
    """The places in batches, the longest first, each of at most `most` positions with its padding, or of one sample."""
    order, batches = places[np.argsort(-lengths[places], kind="stable")], []
    while len(order):
        n = max(1, int(most // max(1, lengths[order[0]])))
        batches.append(order[:n])
        order = order[n:]
    return batches


def whole_lengths(split: Split) -> NDArray[np.int64] | None:
    """(N,) lengths of samples that nothing crops, as they are scored; None where all are alike."""
    held: Any = split
    lengths = getattr(held, "lengths", None)
    if lengths is None or not len(lengths):
        return None
    is_cropped = len(getattr(held, "offsets", ())) == len(lengths) + 1
    return np.asarray(np.diff(held.offsets) if is_cropped else lengths, np.int64)


def write_rejected(folder: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """rejected.jsonl: every row left out, with its reason."""
    write_text(folder / "rejected.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


Features = Mapping[str, Any]


def source_files(path: str, endings: tuple[str, ...] = ()) -> list[Path]:
    """The files that a path means: itself, those in a folder with one of the endings, or a glob's. $NAMES of the
    environment are filled in, a known set in $DANLU_DATA is downloaded when it is not there. None at all is refused."""
    full = located(path)
    place = Path(full)
    if place.is_file():
        return [place]
    if place.is_dir():
        found = sorted(p for p in place.rglob("*") if p.is_file() and (not endings or p.name.lower().endswith(endings)))
    else:
        found = sorted(Path(p) for p in glob.glob(full, recursive=True) if Path(p).is_file())
    if not found:
        wanted = f"files that end in {', '.join(endings)}" if endings else "files"
        raise UserError("data.path", f"must name {wanted}", got=path, fix="check the path")
    return found
