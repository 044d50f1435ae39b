"""Which rows train, which validate, which test: decided once, by content, by order, or as given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from danlu.base.errors import UserError
from danlu.base.settings import Chosen, Settings

if TYPE_CHECKING:
    import numpy as np

    from danlu.data.near_duplicates import SignatureFile
    from danlu.data.spool import Spool, SpooledRow

SPLITS = ("train", "validation", "test")
TRAIN, VALIDATION, TEST, DROPPED = 0, 1, 2, 255
LEAKAGE_ROWS = 5000
"""Validation and test rows that the leakage check looks for in the training rows; more are sampled evenly."""
Fraction = Annotated[float, Field(ge=0, lt=1)]


class _Fractions(Settings):
    validation: Fraction = 0.05
    """Share that validates: what is measured while training and chosen by."""
    test: Fraction = 0.0
    """Share kept for the last score."""

    @model_validator(mode="after")
    def _leave_some_to_train(self) -> _Fractions:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together must leave something to train on (sum below 1)")
        return self


class ContentSplit(_Fractions):
    """By a hash of the text, so that the order of files does not matter and near-duplicates stay together.

    Rows that are near-duplicates of one another (linked by a chain) get one hash, the smallest of theirs. With
    fewer than `min_documents` rows hashes cannot give such shares: then the split is by order, and the card says so.
    """

    kind: Literal["content"] = "content"
    """By content: near-duplicates never cross."""
    threshold: Annotated[float, Field(ge=0.5, le=1.0)] = 0.8
    """Estimated Jaccard similarity from which two rows count as near-duplicates."""
    min_documents: Annotated[int, Field(ge=1)] = 20
    """Below this many rows the split is by order."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Another number gives another split; apart from the recipe's seed, so that runs that differ in it compare."""


class OrderSplit(_Fractions):
    """The first part trains, the next validates, the last tests, by characters of all texts laid end to end.

    The cut falls at exactly int((1 - validation - test) * characters), if need be inside a text.
    """

    kind: Literal["order"] = "order"
    """By order: the last part validates."""


class GivenSplit(Settings):
    """Files of their own for validation (and test), read like `data.path`, which is then for training alone."""

    kind: Literal["given"] = "given"
    """From separate files."""
    validation: str
    """Path or glob of the validation text."""
    test: str = ""
    """Path or glob of the test text; empty: none."""


SPLITTERS: dict[str, type[Settings]] = {"content": ContentSplit, "order": OrderSplit, "given": GivenSplit}
"""The ways to split that a recipe can name."""
SplitSetting = Annotated[Settings, Chosen(SPLITTERS, default="content")]


@dataclass(frozen=True)
class Assignment:
    """Where each row goes. By order, rows that a cut falls into go to two splits."""

    labels: np.ndarray
    """(n_rows,) uint8: TRAIN, VALIDATION, TEST or DROPPED; of a row that is cut, the split of its first character."""
    cuts: tuple[int, ...] = ()
    """By order: characters (of all kept texts laid end to end) before which train and validation end."""
    n_characters: int = 0
    """By order: characters of all kept texts."""
    warnings: tuple[str, ...] = ()
    """What a user should know."""

    @property
    def present(self) -> list[int]:
        """Numbers of the splits that get any text."""
        if not self.cuts:
            return [split for split in (TRAIN, VALIDATION, TEST) if (self.labels == split).any()]
        edges = (0, *self.cuts, self.n_characters)
        return [split for split in (TRAIN, VALIDATION, TEST) if edges[split + 1] > edges[split]]

    def pieces(self, rows: Iterable[SpooledRow]) -> Iterator[tuple[int, bytes]]:
        """(split number, text) of every row that is kept; `rows` from the first to the last."""
        position = 0
        for row in rows:
            if self.labels[row.number] == DROPPED:
                continue
            end = position + row.n_characters
            inside = [cut for cut in self.cuts if position < cut < end]
            if not inside:
                yield int(self.labels[row.number]), row.text
            else:
                text = row.text.decode("utf-8")
                for start, stop in zip([position, *inside], [*inside, end], strict=True):
                    if stop > start:
                        label = sum(start >= cut for cut in self.cuts)
                        yield label, text[start - position : stop - position].encode("utf-8")
            position = end


def assign(settings: Settings, spool: Spool, keep: np.ndarray, roots: np.ndarray | None) -> Assignment:
    """Carry out a split. `roots` (n_rows,): first row of each row's cluster of near-duplicates, for ContentSplit."""
    import numpy as np

    if isinstance(settings, GivenSplit):
        labels = np.array([row.split for row in spool.rows()], dtype=np.uint8)
        return _checked(Assignment(np.where(keep, labels, DROPPED).astype(np.uint8)), 1.0 if keep.any() else 0.0, 0)
    if isinstance(settings, OrderSplit):
        return _by_order(settings, spool, keep)
    if not isinstance(settings, ContentSplit):
        raise UserError("data.split", f"has no way to split named {type(settings).__name__}")
    n_rows = int(keep.sum())
    if n_rows < settings.min_documents:
        ordered = _by_order(OrderSplit(validation=settings.validation, test=settings.test), spool, keep)
        why = f"The text has {n_rows} documents, fewer than data.split.min_documents = {settings.min_documents}"
        note = f"{why}, so it was split by order, not by content: the last part validates."
        return replace(ordered, warnings=(note,))
    return _by_content(settings, spool.hashes, keep, np.arange(len(spool)) if roots is None else roots)


def _by_order(settings: OrderSplit, spool: Spool, keep: np.ndarray) -> Assignment:
    import numpy as np

    lengths = np.fromiter((row.n_characters for row in spool.rows()), dtype=np.int64, count=len(spool))
    lengths[~keep] = 0
    total = int(lengths.sum())
    cuts = (int((1 - settings.validation - settings.test) * total), int((1 - settings.test) * total))
    starts = np.cumsum(lengths) - lengths
    labels = (starts >= cuts[0]).astype(np.uint8) + (starts >= cuts[1])
    labels = np.where(keep, labels, DROPPED).astype(np.uint8)
    for name, share, size in (
        ("validation", settings.validation, cuts[1] - cuts[0]),
        ("test", settings.test, total - cuts[1]),
    ):
        if share > 0 and size == 0:
            raise _nothing(f"data.split.{name}", f"{total} characters of text")
    if not cuts[0]:
        raise _nothing("data.split", f"{total} characters of text")
    return Assignment(labels, cuts, total)


def _by_content(settings: ContentSplit, hashes: np.ndarray, keep: np.ndarray, roots: np.ndarray) -> Assignment:
    import numpy as np

    smallest = hashes.copy()
    smallest[~keep] = np.uint64(2**64 - 1)
    np.minimum.at(smallest, roots[keep], hashes[keep])
    mixed = smallest[roots] ^ (np.uint64(settings.seed * 0x9E3779B97F4A7C15 % 2**64))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # splitmix64, Steele et al. 2014
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    lot = np.where(keep, (mixed ^ (mixed >> np.uint64(31))) / 2.0**64, 2.0)
    labels = np.full(len(keep), TRAIN, dtype=np.uint8)
    labels[lot < settings.validation + settings.test] = TEST
    labels[lot < settings.validation] = VALIDATION
    for label, share in ((VALIDATION, settings.validation), (TEST, settings.test)):
        if share > 0 and not (labels == label).any():  # few rows: the one nearest to being drawn
            labels[lot == lot[labels == TRAIN].min(initial=2.0)] = label
    labels[~keep] = DROPPED
    return _checked(Assignment(labels), settings.validation, settings.test)


def _checked(made: Assignment, validation: float, test: float) -> Assignment:
    for label, share in ((TRAIN, 1.0), (VALIDATION, validation), (TEST, test)):
        if share > 0 and not (made.labels == label).any():
            raise _nothing(f"data.split ({SPLITS[label]})", f"{int((made.labels != DROPPED).sum())} rows in all")
    return made


def _nothing(where: str, got: str) -> UserError:
    return UserError(where, "must leave some text in every split", got=got, fix="give more text or other shares")


def leakage(made: Assignment, spool: Spool, signed: SignatureFile, threshold: float) -> dict[str, Any]:
    """Look for near-duplicates of the validation and test rows among the training rows.

    Found through the bands of their signatures, so a pair at the threshold is missed with probability below 1%.
    """
    import numpy as np

    from danlu.data.near_duplicates import pairs_between

    held = np.flatnonzero((made.labels == VALIDATION) | (made.labels == TEST))
    looked = held[np.linspace(0, len(held) - 1, min(len(held), LEAKAGE_ROWS)).astype(np.int64)] if len(held) else held
    pairs, shares = pairs_between(signed, looked, made.labels == TRAIN, threshold)
    examples = [
        {SPLITS[made.labels[a]]: spool.name_of(a), "train": spool.name_of(b), "similarity": round(float(share), 3)}
        for (a, b), share in list(zip(pairs.tolist(), shares, strict=True))[:5]
    ]
    n_found = len(np.unique(pairs[:, 0]))
    return {
        "threshold": threshold,
        "held_out_rows": len(held),
        "held_out_rows_looked_at": len(looked),
        "train_rows": int((made.labels == TRAIN).sum()),
        "near_duplicates_in_train": n_found,
        "examples": examples,
    }
