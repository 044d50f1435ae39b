"""The two passes over a corpus: clean and sign into a spool; encode from the spool into shards."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from danlu.base.contracts import Progress, SplitCard
from danlu.base.durable import file_sha256
from danlu.base.errors import GateError
from danlu.base.settings import Settings
from danlu.data.clean import NearDuplicates, Row, Station, cleaned
from danlu.data.encoders import CharacterTokenizer, Tokenizer
from danlu.data.near_duplicates import SignatureFile, clusters
from danlu.data.shards import ShardWriter, dtype_for
from danlu.data.split import SPLITS, Assignment
from danlu.data.spool import Spool
from danlu.data.text_workers import Workers

BATCH_ROWS, BATCH_CHARACTERS = 4096, 1 << 20
ROUND_TRIPS = 16
"""Documents whose ids are turned back into text and compared; of all others the bytes are counted."""
LabelledRow = tuple[int, str, str]
"""(split number, row name, text)."""


@dataclass(frozen=True)
class Place:
    """Where the passes work, and with how much."""

    folder: Path
    n_workers: int
    progress: Progress
    stack: ExitStack
    """Closes and removes what is temporary, on every way out."""


@dataclass
class Kept:
    """Rows between the passes."""

    spool: Spool
    signed: SignatureFile
    keep: np.ndarray
    """(n_rows,) bool."""
    roots: np.ndarray | None = None
    """(n_rows,) first row of each row's cluster of near-duplicates, where it is known."""

    def rows(self) -> Iterator[LabelledRow]:
        """The rows that are kept."""
        return ((row.split, row.name, row.text.decode("utf-8")) for row in self.spool.rows(self.keep))


class Cleaning:
    """The first pass. Rows go through the steps up to a near_duplicates step, into a spool; then from that on."""

    def __init__(self, place: Place, new_station: Callable[[str], Station]) -> None:
        self._place, self._new_station = place, new_station
        self._n_spools = 0
        self._unwritable: Station | None = None

    def run(self, rows: Iterable[LabelledRow], steps: Iterable[Settings]) -> Kept:
        """Carry out all steps."""
        waiting: list[tuple[Settings, Station]] = []
        kept: Kept | None = None
        names: Counter[str] = Counter()
        for step in steps:
            kind = str(getattr(step, "kind", ""))
            names[kind] += 1
            station = self._new_station(kind if names[kind] == 1 else f"{kind}_{names[kind]}")
            if isinstance(step, NearDuplicates):
                kept = self._spooled(rows if kept is None else kept.rows(), waiting, step, kept)
                waiting = []
                self._drop_near_duplicates(kept, step, station)
            else:
                waiting.append((step, station))
        if kept is None or waiting:
            kept = self._spooled(rows if kept is None else kept.rows(), waiting, NearDuplicates(), kept)
        return kept

    def _spooled(
        self,
        rows: Iterable[LabelledRow],
        steps: list[tuple[Settings, Station]],
        how: NearDuplicates,
        before: Kept | None,
    ) -> Kept:
        self._n_spools += 1
        place = self._place
        spool = Spool(place.folder / f".spool.{self._n_spools}.tmp")
        place.stack.callback(spool.close)
        signed = SignatureFile(place.folder / f".signatures.{self._n_spools}.tmp", how.n_hashes)
        place.stack.callback(signed.close)
        job = {"job": "sign", "shingle_bytes": how.shingle_bytes, "n_hashes": how.n_hashes}
        workers = Workers(job, place.n_workers)
        place.stack.callback(workers.close)
        for (signature,) in workers.map(self._into(spool, rows, steps)):
            signed.append(signature)
        workers.close()
        if before is not None:
            before.spool.close()
            before.signed.close()
        return Kept(spool, signed, np.ones(len(spool), dtype=bool))

    def _into(
        self, spool: Spool, rows: Iterable[LabelledRow], steps: list[tuple[Settings, Station]]
    ) -> Iterator[list[bytes]]:
        through = cleaned(steps)
        n_bytes = 0
        for split, batch in batches(rows):
            texts = []
            for name, text in through(batch):
                data = self._utf8(name, text)
                if data is not None:
                    spool.add(name, data, len(text), split)
                    texts.append(data)
                    n_bytes += len(data)
            self._place.progress("reading and cleaning, bytes", n_bytes, 0)
            if texts:
                yield texts

    def _utf8(self, name: str, text: str) -> bytes | None:
        try:
            return text.encode("utf-8")
        except UnicodeEncodeError:
            self._unwritable = self._unwritable or self._new_station("utf8")
            self._unwritable.n_in += 1
            shown = text[:800].encode("utf-8", "backslashreplace").decode("utf-8")
            self._unwritable.drop(name, "lone_surrogate", shown)
            return None

    def _drop_near_duplicates(self, kept: Kept, step: NearDuplicates, station: Station) -> None:
        self._place.progress("looking for near-duplicates", 0, 0)
        roots = clusters(kept.signed, step.threshold)
        dropped = roots != np.arange(len(roots))
        station.n_in += len(roots)
        for row in kept.spool.rows(dropped):
            text = row.text[:800].decode("utf-8", "ignore")
            station.drop(row.name, "near_duplicate", text, f"of {kept.spool.name_of(int(roots[row.number]))}")
        kept.keep = ~dropped


def batches(rows: Iterable[LabelledRow]) -> Iterator[tuple[int, list[Row]]]:
    """(split number, rows of that split), a bounded number of rows and characters at a time."""
    batch: list[Row] = []
    split, size = 0, 0
    for label, name, text in rows:
        if batch and (label != split or len(batch) >= BATCH_ROWS or size + len(text) > BATCH_CHARACTERS):
            yield split, batch
            batch, size = [], 0
        split = label
        batch.append((name, text))
        size += len(text)
    if batch:
        yield split, batch


@dataclass(frozen=True)
class Encoded:
    """What the second pass wrote."""

    splits: dict[str, SplitCard]
    hashes: dict[str, str]
    """SHA-256 of each split's tokens."""
    warnings: tuple[str, ...]


def encode(place: Place, kept: Kept, made: Assignment, tokenizer: Tokenizer, description: dict[str, Any]) -> Encoded:
    """The second pass: every kept row into the shard of its split, in order, checked on the way."""
    dtype = dtype_for(tokenizer.vocab_size)
    writers = {i: ShardWriter(place.folder, SPLITS[i], dtype, tokenizer.document_end) for i in made.present}
    for writer in writers.values():
        place.stack.callback(writer.abort)
    job = {"job": "encode", "tokenizer": description, "folder": str(place.folder)}
    workers = Workers(job | {"sha256": file_sha256(place.folder / description["file"])}, place.n_workers)
    place.stack.callback(workers.close)
    sent: deque[tuple[int, list[bytes]]] = deque()
    check = RoundTrip(tokenizer, is_exact=description["kind"] != "loaded")
    n_bytes: Counter[int] = Counter()
    total = int(kept.spool.sizes[kept.keep].sum())
    for ids, counts in workers.map(_by_split(made.pieces(kept.spool.rows(kept.keep)), sent)):
        split, texts = sent.popleft()
        check.look(texts, ids, counts)
        writers[split].append(ids, counts)
        n_bytes[split] += sum(map(len, texts))
        place.progress("encoding", n_bytes.total(), total)
    workers.close()
    hashes = {SPLITS[i]: writer.finish() for i, writer in writers.items()}
    splits = {
        SPLITS[i]: SplitCard(n_documents=w.n_documents, n_bytes=n_bytes[i], n_tokens=w.n_tokens)
        for i, w in writers.items()
    }
    return Encoded(splits, hashes, check.warnings())


def _by_split(pieces: Iterable[tuple[int, bytes]], sent: deque[tuple[int, list[bytes]]]) -> Iterator[list[bytes]]:
    """Texts gathered split by split; what is yielded is also put into `sent`, with its split."""
    gathered: dict[int, list[bytes]] = {}
    sizes: Counter[int] = Counter()
    for split, text in pieces:
        texts = gathered.setdefault(split, [])
        texts.append(text)
        sizes[split] += len(text)
        if sizes[split] >= BATCH_CHARACTERS or len(texts) >= BATCH_ROWS:
            sent.append((split, texts))
            del gathered[split], sizes[split]
            yield texts
    for split, texts in sorted(gathered.items()):
        sent.append((split, texts))
        yield texts


class RoundTrip:
    """Holds ids against the text they came from: a few in full, all by their bytes."""

    def __init__(self, tokenizer: Tokenizer, is_exact: bool) -> None:
        self._tokenizer, self._is_exact = tokenizer, is_exact
        self._left = ROUND_TRIPS
        self._n_looked = self._n_changed = self._n_bytes = self._n_token_bytes = 0
        unknown = tokenizer.unknown if isinstance(tokenizer, CharacterTokenizer) else None
        self._is_lossy = unknown is not None

    def look(self, texts: list[bytes], ids: np.ndarray, counts: np.ndarray) -> None:
        """Compare one batch. GateError when a tokenizer of ours is not exact: that would make every score wrong."""
        if self._is_lossy:
            return
        n_bytes, n_token_bytes = sum(map(len, texts)), int(self._tokenizer.token_bytes[ids].sum(dtype=np.int64))
        self._n_bytes += n_bytes
        self._n_token_bytes += n_token_bytes
        n_changed, start = 0, 0
        n_looked = min(self._left, len(texts))
        for text, count in zip(texts[:n_looked], counts[:n_looked].tolist(), strict=True):
            n_changed += self._tokenizer.decode(ids[start : start + count].tolist()).encode("utf-8") != text
            start += count
        self._left -= n_looked
        self._n_looked += n_looked
        self._n_changed += n_changed
        if self._is_exact and (n_changed or n_bytes != n_token_bytes):
            raise GateError(
                f"The tokenizer does not give its text back: {n_token_bytes} bytes of {n_bytes} in a batch."
            )

    def warnings(self) -> tuple[str, ...]:
        """What a loaded tokenizer loses."""
        found = []
        if self._n_changed:
            found.append(
                f"The loaded tokenizer changes the text: {self._n_changed} of {self._n_looked} texts looked at."
            )
        if self._n_bytes != self._n_token_bytes:
            what = f"its tokens stand for {self._n_token_bytes} bytes, the text has {self._n_bytes}"
            found.append(f"Bits per byte will not be exact with the loaded tokenizer: {what}.")
        return tuple(found)
