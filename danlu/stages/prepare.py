"""prepare: raw text to token files, in two streaming passes, every row accounted for.

    read -> clean -> spool on disk + signatures     once for each run of steps up to a near_duplicates step
    split -> leakage check -> fit the tokenizer     on numbers and a bounded sample
    spool -> encode -> token files -> card.json     the card is written last: without it there is no prepared data

Memory does not grow with the text, but for at most 90 bytes per row. The files are the same for any number of workers.
"""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from danlu.base.contracts import DataCard, Progress, Split
from danlu.base.durable import fingerprint, fsync_folder, write_bytes, write_json
from danlu.base.errors import UserError
from danlu.base.runfolder import RunFolder
from danlu.data import text as source
from danlu.data import tokenizer as tokenizers
from danlu.data.arrays import clear
from danlu.data.clean import NearDuplicates, Station
from danlu.data.near_duplicates import clusters
from danlu.data.passes import Cleaning, Encoded, Kept, LabelledRow, Place, encode
from danlu.data.samples import SampleSource
from danlu.data.shards import dtype_for, shard_files
from danlu.data.split import SPLITS, TEST, TRAIN, VALIDATION, Assignment, ContentSplit, GivenSplit, assign, leakage
from danlu.data.text_workers import available_cores
from danlu.tasks.regress import Regress, undone

if TYPE_CHECKING:
    from danlu.data.text import Text
    from danlu.recipe import Recipe

MAX_WORKERS = 16
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""What the system says when a disk takes no more."""
SAMPLE_CHARACTERS = 1 << 16
AT_ONCE = 256
"""Samples whose targets are looked at together."""
UNIGRAM_NOTE = (
    "Training a unigram tokenizer again gives slightly other scores (the library visits words in a random order); "
    'for equal runs keep data/tokenizer.json and use data.tokenizer.kind = "loaded".'
)


def prepare(recipe: Recipe, run: RunFolder, progress: Progress, n_workers: int | None = None) -> DataCard:
    """Make the run's data folder from recipe.data. `progress` gets bytes done; total 0 where it is not known."""
    if not isinstance(recipe.data, SampleSource):
        return prepare_text(recipe.data, run.data, progress, n_workers)  # type: ignore[arg-type]
    with told_when_full(run.data):
        clear(run.data)
        card = recipe.data.prepare(run.data, recipe.seed, progress)
    recipe.task.check(card)  # type: ignore[attr-defined]
    if isinstance(recipe.task, Regress):
        check_varied(recipe.data, recipe.data.open(run.data, card, "train"), card)
    return card


def check_varied(data: SampleSource, train: Split, card: DataCard) -> None:
    """Refuse number targets that are the same in all training samples. It reads only until two of them differ."""
    n = len(train)
    first = train.batch(np.arange(1)).tensors["targets"].numpy()
    for start in range(0, n, AT_ONCE):
        targets = train.batch(np.arange(start, min(n, start + AT_ONCE))).tensors["targets"].numpy()
        if n == 1 or (targets != first).any():
            return
    values = undone(first.astype(float), card.features["target_transform"])[0]
    got = ", ".join(f"{name} = {value:g}" for name, value in zip(card.features["targets"][:4], values[:4], strict=True))
    where = "data.target" if hasattr(data, "target") else "data"
    wanted = f"must hold different numbers, or there is nothing to learn: all {n:,} training samples have the same"
    raise UserError(where, wanted, got=got, fix="choose another target")


@contextmanager
def told_when_full(folder: Path) -> Iterator[None]:
    """A disk that takes no more, as one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise UserError(
            str(folder), f"cannot be written ({error.strerror})", fix="free some space or choose another --out"
        ) from error


def prepare_text(settings: Text, folder: Path, progress: Progress, n_workers: int | None = None) -> DataCard:
    """Make a data folder from text. `n_workers` processes (default: one per core), which change no byte of it."""
    n_workers = min(available_cores(), MAX_WORKERS) if n_workers is None else n_workers
    with told_when_full(folder):
        return _prepared(settings, folder, progress, n_workers)


def _prepared(settings: Text, folder: Path, progress: Progress, n_workers: int) -> DataCard:
    folder.mkdir(parents=True, exist_ok=True)
    _clear(folder)
    with ExitStack() as stack:
        station = _Stations(folder, stack)
        notes: Counter[str] = Counter()
        place = Place(folder, n_workers, progress, stack)
        kept = Cleaning(place, station.new).run(_rows(settings, station.arrival, notes), settings.clean)
        if not kept.keep.any():
            got = ", ".join(f"{n} {reason}" for reason, n in station.reasons.most_common(5)) or "no rows at all"
            raise UserError("data.path", "must give at least one row that can be used", got=got, fix="see data.clean")
        made, leaked, warnings = _split(settings, kept, progress)
        progress("fitting the tokenizer", 0, 0)
        ends = int(kept.keep.sum()) > 1 if settings.document_end == "auto" else settings.document_end
        described = tokenizers.fit(settings.tokenizer, _train_text(settings, kept, made), ends, folder)
        tokenizer = tokenizers.load(described, folder)
        wanted = getattr(settings.tokenizer, "vocab_size", tokenizer.vocab_size)
        if tokenizer.vocab_size < wanted:
            warnings += (f"The training text gave {tokenizer.vocab_size} tokens of the {wanted} asked for.",)
        if isinstance(settings.tokenizer, tokenizers.Unigram):
            warnings += (UNIGRAM_NOTE,)
        encoded = encode(place, kept, made, tokenizer, described)
        write_bytes(folder / "token_bytes.bin", tokenizer.token_bytes.astype("<u2").tobytes())
        station.finish()
        card = _card(settings, station, int(kept.keep.sum()), encoded).model_copy(
            update={
                "vocab_size": tokenizer.vocab_size,
                "dtype": dtype_for(tokenizer.vocab_size),
                "document_end": tokenizer.document_end,
                "tokenizer": described,
                "leakage": leaked,
                "warnings": (*warnings, *encoded.warnings, *source.told(notes)),
            }
        )
        write_json(folder / "card.json", card.model_dump(mode="json"))
    return card


def _clear(folder: Path) -> None:
    """Take away what an earlier or a killed run left: the card first, so that nothing half-made passes for whole."""
    names = ("card.json", "tokenizer.json", "token_bytes.bin", "rejected.jsonl")
    paths = [folder / name for name in names] + [path for split in SPLITS for path in shard_files(folder, split)]
    for path in [*paths, *folder.glob(".*.tmp"), *folder.glob(".*.tmp-*")]:
        path.unlink(missing_ok=True)
    fsync_folder(folder)


class _Stations:
    """The counters of all stations, and rejected.jsonl, which they write to."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._path = folder / "rejected.jsonl"
        self._temporary = folder / ".rejected.jsonl.tmp"
        self._file = self._temporary.open("w", encoding="utf-8", errors="backslashreplace")
        stack.callback(lambda: self._temporary.unlink(missing_ok=True))
        stack.callback(self._file.close)
        self.all: list[Station] = []
        self.arrival = self.new("read")

    def new(self, name: str) -> Station:
        """A station after those before it."""
        self.all.append(Station(name, self._write))
        return self.all[-1]

    def _write(self, record: dict[str, str]) -> None:
        self._file.write(json.dumps(record, ensure_ascii=False) + "\n")

    @property
    def reasons(self) -> Counter[str]:
        """Rows dropped at any station, by reason."""
        return sum((station.n_dropped for station in self.all), Counter())

    def finish(self) -> None:
        """Make rejected.jsonl durable under its name."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._temporary.replace(self._path)
        fsync_folder(self._path.parent)


def _rows(settings: Text, arrival: Station, notes: Counter[str]) -> Iterator[LabelledRow]:
    """All rows. Given splits: validation and test come first, so that training rows give way to them as duplicates."""
    split = settings.split
    paths: list[tuple[int, str | tuple[str, ...]]] = [(TRAIN, settings.path)]
    if isinstance(split, GivenSplit):
        held = [(number, path) for number, path in ((VALIDATION, split.validation), (TEST, split.test)) if path]
        paths = [*held, *paths]
    readers = [
        (number, source.read(settings.model_copy(update={"path": path}), arrival, notes)) for number, path in paths
    ]
    return ((number, name, text) for number, reader in readers for name, text in reader)


def _split(settings: Text, kept: Kept, progress: Progress) -> tuple[Assignment, dict[str, Any], tuple[str, ...]]:
    """(where each row goes, the leakage check, warnings)."""
    progress("splitting", 0, 0)
    split, last = settings.split, settings.clean[-1] if settings.clean else None
    threshold = split.threshold if isinstance(split, ContentSplit) else 0.8
    none_left = isinstance(last, NearDuplicates) and last.threshold <= threshold
    if isinstance(split, ContentSplit) and not none_left and kept.keep.sum() >= split.min_documents:
        kept.roots = clusters(kept.signed, threshold, kept.keep)
    made = assign(split, kept.spool, kept.keep, kept.roots)
    leaked = leakage(made, kept.spool, kept.signed, threshold)
    warnings = made.warnings
    if leaked["near_duplicates_in_train"]:
        warnings += (
            f"{leaked['near_duplicates_in_train']} of the {leaked['held_out_rows_looked_at']} validation and test rows "
            "looked at have a near-duplicate in the training text, so scores on them flatter; near_duplicates in "
            'data.clean, or data.split.kind = "content", prevents it.',
        )
    return made, leaked, warnings


def _train_text(settings: Text, kept: Kept, made: Assignment) -> Iterator[str]:
    """Training text in pieces: all of it, or for trained tokenizers `train_bytes` spread evenly over it."""
    limit = getattr(settings.tokenizer, "train_bytes", None)
    n_bytes = int(kept.spool.sizes[kept.keep].sum())
    share = 1.0 if limit is None or n_bytes <= limit else limit / n_bytes
    seen = taken = 0
    for split, data in made.pieces(kept.spool.rows(kept.keep)):
        if split != TRAIN:
            continue
        text = data.decode("utf-8")
        for start in range(0, len(text), SAMPLE_CHARACTERS):
            piece = text[start : start + SAMPLE_CHARACTERS]
            seen += len(piece)
            if share == 1 or taken + len(piece) <= seen * share:
                taken += len(piece)
                yield piece


def _card(settings: Text, station: _Stations, rows_used: int, encoded: Encoded) -> DataCard:
    """The part of the card that counts. Rows that do not add up are a fault of ours, and nothing is written then."""
    reasons = station.reasons
    if station.arrival.n_in != rows_used + reasons.total():
        raise RuntimeError(f"rows do not add up: {station.arrival.n_in} in, {rows_used} used, {dict(reasons)} rejected")
    return DataCard(
        kind=settings.kind,
        source=", ".join(settings.paths),
        rows_in=station.arrival.n_in,
        rows_used=rows_used,
        rows_rejected=dict(sorted(reasons.items())),
        stations=tuple(each.card() for each in station.all),
        splits=encoded.splits,
        fingerprint=fingerprint({"settings": settings.model_dump(mode="json"), "tokens": encoded.hashes}),
    )
