"""Cleaning steps: each is a setting, each counts what it changed and what it dropped, with examples to look at.

Rows are (row name, text). A `RowStep` looks at one row alone. `ExactDuplicates` remembers 16 bytes per row it has
seen; `NearDuplicates` compares all rows with one another and so is carried out by near_duplicates.py.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from danlu.base.contracts import StationCard
from danlu.base.errors import UserError
from danlu.base.settings import Chosen, Settings

if TYPE_CHECKING:
    import numpy as np

N_EXAMPLES = 5
EXCERPT = 200
"""Characters of a row that an example shows."""
Row = tuple[str, str]
"""(row name such as "posts.jsonl:12", text)."""
OnReject = Callable[[dict[str, str]], None]
"""Takes {"row", "station", "reason", "text"} of each dropped row, for rejected.jsonl."""


class Station:
    """Counts for one station of the data's path; `card()` is what the report shows."""

    def __init__(self, name: str, on_reject: OnReject | None = None) -> None:
        self.name, self.on_reject = name, on_reject
        self.n_in = self.n_changed = 0
        self.n_dropped: Counter[str] = Counter()
        self.examples: list[dict[str, str]] = []

    def change(self, row: str, what: str, text: str) -> None:
        """Count a row that goes on, changed."""
        self.n_changed += 1
        self._example(row, what, text)

    def drop(self, row: str, reason: str, text: str, detail: str = "") -> None:
        """Count a row that ends here. `reason` is one of a few words; `detail` (of this row) is kept beside it."""
        self.n_dropped[reason] += 1
        self._example(row, f"{reason}: {detail}" if detail else reason, text)
        if self.on_reject is not None:
            record = {"row": row, "station": self.name, "reason": reason, "text": text[:EXCERPT]}
            self.on_reject(record | ({"detail": detail} if detail else {}))

    def _example(self, row: str, reason: str, text: str) -> None:
        if len(self.examples) < N_EXAMPLES:
            self.examples.append({"row": row, "reason": reason, "text": text[:EXCERPT]})

    def card(self) -> StationCard:
        """The counts, frozen."""
        return StationCard(
            name=self.name,
            n_in=self.n_in,
            n_changed=self.n_changed,
            n_dropped=dict(sorted(self.n_dropped.items())),
            examples=tuple(self.examples),
        )


class RowStep(Settings):
    """A step that looks at one row alone."""

    def edit(self, text: str) -> tuple[str, str]:
        """(text to go on with, reason to drop it or "")."""
        raise NotImplementedError

    def apply(self, rows: Iterable[Row], station: Station) -> list[Row]:
        """The rows that go on; counts every one."""
        kept = []
        for name, text in rows:
            station.n_in += 1
            cleaned, reason = self.edit(text)
            if reason:
                station.drop(name, reason, text)
                continue
            if cleaned is not text and cleaned != text:
                station.change(name, "changed", text)
            kept.append((name, cleaned))
        return kept


# C0 controls but tab and newline, delete, C1 controls, and the byte order mark inside a text
_CONTROLS = dict.fromkeys([*range(9), *range(11, 13), *range(14, 32), *range(127, 160), 0xFEFF])
_ASCII_CONTROLS = bytes(c for c in _CONTROLS if c < 128)
_ODD_CONTROL = re.compile("[\x80-\x9f\ufeff]")


class Unicode(RowStep):
    """One spelling for one text: Unicode normalisation, "\\n" line ends, no control characters.

    Removed are the C0 and C1 control characters but tab and newline (so also NUL, form feed, escape), delete, and
    the byte order mark; "\\r\\n" and a lone "\\r" become "\\n". A row with nothing left is dropped as empty.
    """

    kind: Literal["unicode"] = "unicode"
    """Unicode normalisation and control characters."""
    form: Literal["NFC", "NFKC", "none"] = "NFC"
    """Normal form (Unicode Annex 15). NFKC also folds look-alikes such as full-width letters; none leaves as is."""
    strip_controls: bool = True
    """Remove control characters and turn every line end into a newline."""

    def edit(self, text: str) -> tuple[str, str]:
        """Normalise, then strip."""
        if not text.isascii() and self.form != "none" and not unicodedata.is_normalized(self.form, text):
            text = unicodedata.normalize(self.form, text)
        if self.strip_controls:
            text = _without_controls(text)
        return text, "" if text else "empty"


def _without_controls(text: str) -> str:
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.isascii():
        data = text.encode("ascii")
        fewer = data.translate(None, _ASCII_CONTROLS)
        return text if len(fewer) == len(data) else fewer.decode("ascii")
    data = text.encode("utf-8", "surrogatepass")
    if len(data.translate(None, _ASCII_CONTROLS)) != len(data) or _ODD_CONTROL.search(text):
        return text.translate(_CONTROLS)
    return text


class ExactDuplicates(Settings):
    """Drops a row whose text was seen before, by 128-bit hash (XXH3); the first one stays. 16 bytes per row."""

    kind: Literal["exact_duplicates"] = "exact_duplicates"
    """Rows equal to an earlier one."""


class NearDuplicates(Settings):
    """Drops a row that is nearly the same as an earlier one: MinHash and banding (Broder 1997; Leskovec et al. 2014).

    Rows are compared as sets of overlapping byte strings of the lower-cased text without white space.
    Of rows linked by a chain of near-duplicates, the first one stays.
    """

    kind: Literal["near_duplicates"] = "near_duplicates"
    """Rows nearly equal to an earlier one."""
    threshold: Annotated[float, Field(ge=0.5, le=1.0)] = 0.8
    """Estimated Jaccard similarity from which two rows are near-duplicates."""
    shingle_bytes: Annotated[int, Field(ge=8, le=256)] = 16
    """Length of the overlapping byte strings that are compared."""
    n_hashes: Annotated[int, Field(ge=32, le=1024, multiple_of=32)] = 128
    """Numbers in a row's signature, 2 bytes each; the estimate's standard error is at most 0.5/sqrt(n_hashes)."""


class Length(RowStep):
    """Drops rows that are too short or too long."""

    kind: Literal["length"] = "length"
    """Too short or too long."""
    min_characters: Annotated[int, Field(ge=0)] = 1
    """Fewest characters, white space at the ends not counted."""
    max_characters: Annotated[int, Field(ge=1)] | None = None
    """Most characters; none: no limit."""

    @model_validator(mode="after")
    def _ordered(self) -> Length:
        if self.max_characters is not None and self.max_characters < self.min_characters:
            raise ValueError("max_characters must not be smaller than min_characters")
        return self

    def edit(self, text: str) -> tuple[str, str]:
        """Compare the length."""
        n = len(text.strip())
        if n < self.min_characters:
            return text, "too_short"
        return text, "too_long" if self.max_characters is not None and n > self.max_characters else ""


class Repetition(RowStep):
    """Drops rows made of repeated lines or phrases: the rules and limits of Gopher (Rae et al. 2021, table A1)."""

    kind: Literal["repetition"] = "repetition"
    """Repeated lines and phrases."""
    max_duplicate_line_frac: Annotated[float, Field(ge=0, le=1)] = 0.30
    """Share of the lines that repeat an earlier line."""
    max_top_2_gram_frac: Annotated[float, Field(ge=0, le=1)] = 0.20
    """Share of the characters inside the most frequent pair of words."""
    max_top_3_gram_frac: Annotated[float, Field(ge=0, le=1)] = 0.18
    """Share of the characters inside the most frequent three words."""
    max_top_4_gram_frac: Annotated[float, Field(ge=0, le=1)] = 0.16
    """Share of the characters inside the most frequent four words."""
    min_words: Annotated[int, Field(ge=0)] = 20
    """Rows with fewer words are let through: shares of so few mean little."""

    def edit(self, text: str) -> tuple[str, str]:
        """Measure the shares, cheapest first."""
        words = text.split()
        if len(words) < self.min_words:
            return text, ""
        lines = [line for line in (part.strip() for part in text.splitlines()) if line]
        if (len(lines) - len(set(lines))) / len(lines) > self.max_duplicate_line_frac:
            return text, "duplicate_lines"
        n_characters = sum(map(len, words))
        limits = {2: self.max_top_2_gram_frac, 3: self.max_top_3_gram_frac, 4: self.max_top_4_gram_frac}
        for n, limit in limits.items():
            gram, count = Counter(zip(*(words[i:] for i in range(n)), strict=False)).most_common(1)[0]
            if count > 1 and count * sum(map(len, gram)) > limit * n_characters:
                return text, f"top_{n}_gram"
        return text, ""


_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}\.){1,8}[A-Za-z]{2,24}\b")
_PHONE = re.compile(
    r"(?<![\w.+/-])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){2,4}"
    r"|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[ -]\d{3}[ -]\d{4}|1[3-9]\d[ -]?\d{4}[ -]?\d{4})(?![\w-]|\.\d)"
)
_KEY = re.compile(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[\s\S]{1,8000}?-----END [A-Z ]{0,30}PRIVATE KEY-----"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36,255}\b|\bgithub_pat_[A-Za-z0-9_]{22,255}\b"
    r"|\bsk-[A-Za-z0-9_-]{20,200}\b|\bhf_[A-Za-z0-9]{30,60}\b|\bxox[abprs]-[A-Za-z0-9-]{10,200}\b"
    r"|\bAIza[A-Za-z0-9_-]{35}\b|\beyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{10,2000}"
)
_PERSONAL = {"email": (_EMAIL, "<EMAIL>", "@"), "phone": (_PHONE, "<PHONE>", ""), "key": (_KEY, "<KEY>", "")}


class Pii(RowStep):
    """Replaces e-mail addresses, phone numbers and key-like strings by <EMAIL>, <PHONE>, <KEY>.

    Patterns find the well-formed ones; they are no promise that nothing personal is left.
    """

    kind: Literal["pii"] = "pii"
    """Redact e-mail addresses, phone numbers, keys."""
    redact: tuple[Literal["email", "phone", "key"], ...] = ("key", "email", "phone")
    """What to look for, in this order."""

    def edit(self, text: str) -> tuple[str, str]:
        """Replace what the patterns find."""
        for name in self.redact:
            pattern, placeholder, needed = _PERSONAL[name]
            if needed in text:
                text = pattern.sub(placeholder, text)
        return text, ""


CLEANING: dict[str, type[Settings]] = {
    "unicode": Unicode,
    "exact_duplicates": ExactDuplicates,
    "near_duplicates": NearDuplicates,
    "length": Length,
    "repetition": Repetition,
    "pii": Pii,
}
"""The cleaning steps a recipe can name."""
CleaningStep = Annotated[Settings, Chosen(CLEANING, default="unicode")]
DEFAULT_CLEANING: tuple[Settings, ...] = (Unicode(), ExactDuplicates(), NearDuplicates())
"""What is done when the recipe says nothing; `clean = []` does nothing."""


class SeenTexts:
    """Which texts came before: sorted runs of 16-byte hashes that are merged as they grow (O(log n) runs)."""

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []

    def first_seen(self, digests: list[bytes]) -> list[bool]:
        """For each digest (16 bytes, in order): True if it never came before, in this list or earlier ones."""
        import numpy as np

        keys = np.frombuffer(b"".join(digests), dtype="S16")
        known = np.zeros(len(keys), dtype=bool)
        for run in self._runs:
            at = np.minimum(np.searchsorted(run, keys), len(run) - 1)
            known |= run[at] == keys
        fresh, first_at = np.unique(keys, return_index=True)
        is_first = np.zeros(len(keys), dtype=bool)
        is_first[first_at] = True
        run = fresh[~known[first_at]]
        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            run = np.sort(np.concatenate([self._runs.pop(), run]), kind="stable")
        if len(run):
            self._runs.append(run)
        first: list[bool] = (is_first & ~known).tolist()
        return first


def without_seen(rows: list[Row], station: Station, seen: SeenTexts) -> list[Row]:
    """The rows whose text did not come before."""
    from xxhash import xxh3_128_digest

    if not rows:
        return rows
    first = seen.first_seen([xxh3_128_digest(text.encode("utf-8", "surrogatepass")) for _, text in rows])
    station.n_in += len(rows)
    for (name, text), is_first in zip(rows, first, strict=True):
        if not is_first:
            station.drop(name, "exact_duplicate", text)
    return [row for row, is_first in zip(rows, first, strict=True) if is_first]


def cleaned(steps: Iterable[tuple[Settings, Station]]) -> Callable[[list[Row]], list[Row]]:
    """The steps in order as one function of a batch of rows. Near-duplicates need all rows and are not done here."""
    plan = [(step, station, SeenTexts()) for step, station in steps]

    def through(rows: list[Row]) -> list[Row]:
        for step, station, seen in plan:
            if isinstance(step, RowStep):
                rows = step.apply(rows, station)
            elif isinstance(step, ExactDuplicates):
                rows = without_seen(rows, station, seen)
            else:
                raise UserError("data.clean", "has a step that cannot be carried out row by row", got=station.name)
        return rows

    return through
