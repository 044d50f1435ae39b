"""Which rows train, which validate, which test: decided once, by content, by order, or as given."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from danlu.base.settings import Chosen, Settings

SPLITS = ("train", "validation", "test")
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
