"""Lengths, durations and sizes as a person writes them: "2B tokens", "3 epochs", "30 min", "80 GB"."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

LengthUnit = Literal["steps", "epochs", "tokens", "samples", "seconds"]
SCALES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}
SECONDS = {"s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hour": 3600, "d": 86400, "day": 86400}
COUNTS: dict[str, LengthUnit] = {"step": "steps", "epoch": "epochs", "token": "tokens", "sample": "samples"}
BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}
NUMBER = r"\s*([0-9][0-9_,]*\.?[0-9]*(?:e[+-]?[0-9]+)?|\.[0-9]+)\s*"


@dataclass(frozen=True)
class Length:
    """An amount of training in one unit."""

    amount: float
    unit: LengthUnit

    def __str__(self) -> str:
        amount = int(self.amount) if self.amount == int(self.amount) else self.amount
        return f"{amount} s" if self.unit == "seconds" else f"{amount} {self.unit}"


def parse_length(value: Any) -> Length:
    """ "500 steps", "1.5 epochs", "2B tokens", "10k samples", "3 min" -> Length; ValueError says what is wanted."""
    if isinstance(value, Length):
        return value
    match = re.fullmatch(NUMBER + r"([a-z][a-z ]*)", str(value).lower())
    digits, rest = match.groups() if match else ("0", "-")
    for scale, word in ((1, rest), (SCALES.get(rest[0], 0), rest[1:])):
        amount, unit = number(digits) * scale, unit_of(word.strip())
        if unit and 0 < amount < math.inf:
            return Length(amount * SECONDS.get(unit, 1), COUNTS.get(unit, "seconds"))
    raise ValueError('must be an amount with a unit, such as "500 steps", "3 epochs", "2B tokens" or "30 min"')


@dataclass(frozen=True)
class Budget:
    """What a measurement may take: a share of the run's time, a time, or nothing at all."""

    amount: float
    unit: Literal["%", "seconds", "prior"]

    def __str__(self) -> str:
        return {"%": f"{self.amount:g}%", "seconds": f"{self.amount:g} s", "prior": "prior"}[self.unit]

    def seconds(self, run_s: float) -> float:
        """Seconds allowed beside a run of `run_s`."""
        return {"%": self.amount / 100 * run_s, "seconds": self.amount, "prior": 0.0}[self.unit]


def parse_budget(value: Any) -> Budget:
    """ "8%", "20 s" or "prior" -> Budget; ValueError says what is wanted."""
    if isinstance(value, Budget):
        return value
    wanted = 'must be a share of the run such as "8%", a time such as "20 s", or "prior"'
    if value == "prior":
        return Budget(0.0, "prior")
    match = re.fullmatch(NUMBER + "%\\s*", value) if isinstance(value, str) else None
    if match and 0 < number(match[1]) <= 100:
        return Budget(number(match[1]), "%")
    try:
        length = parse_length(value)
    except ValueError:
        raise ValueError(wanted) from None
    if match or length.unit != "seconds":
        raise ValueError(wanted)
    return Budget(length.amount, "seconds")


def unit_of(word: str) -> str:
    """ "minutes" -> "minute"; "" for a word that is no unit."""
    return next((unit for unit in (word, word.removesuffix("s")) if unit in SECONDS or unit in COUNTS), "")


def number(digits: str) -> float:
    """ "1_000.5" or "1,000.5" -> 1000.5."""
    return float(digits.replace(",", "").replace("_", ""))


def parse_bytes(value: Any) -> int:
    """ "80 GB", "512 MiB" or a plain number of bytes -> bytes."""
    return scaled(value, BYTES, 'must be a size such as "80 GB" or "512 MiB"')


def parse_count(value: Any) -> int:
    """ "1M", "124M", "1.5B" or a whole number -> int."""
    return scaled(value, SCALES, 'must be a count such as 1000, "1M" or "1.5B"')


def scaled(value: Any, scales: Mapping[str, int], wanted: str) -> int:
    """A positive whole number, or text of a number and one of the scales -> int; ValueError says what is wanted."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    match = re.fullmatch(NUMBER + r"([a-z]*)\s*", value.lower()) if isinstance(value, str) else None
    amount = number(match[1]) * scales.get(match[2], 0) if match else 0.0
    if 0.5 < amount < 1e300:
        return round(amount)
    raise ValueError(wanted)


def short_count(n: float) -> str:
    """1234567 -> "1.23M"."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(n) >= size:
            return f"{n / size:.3g}{letter}"
    return f"{n:.3g}"


BudgetSetting = Annotated[
    Budget,
    BeforeValidator(parse_budget),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "examples": ["8%", "20 s", "prior"]}),
]
LengthSetting = Annotated[
    Length,
    BeforeValidator(parse_length),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "examples": ["500 steps", "3 epochs", "2B tokens", "30 min"]}),
]
"""A field holding an amount of training."""
BytesSetting = Annotated[int, BeforeValidator(parse_bytes), WithJsonSchema({"type": ["string", "integer"]})]
"""A field holding a size in bytes."""
CountSetting = Annotated[int, BeforeValidator(parse_count), WithJsonSchema({"type": ["string", "integer"]})]
"""A field holding a count."""
