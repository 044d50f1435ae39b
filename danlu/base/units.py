"""Lengths, durations and sizes as a person writes them: "2B tokens", "3 epochs", "30 min", "80 GB"."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

SCALES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}
SECONDS = {"s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hour": 3600, "d": 86400, "day": 86400}
COUNTS = {"step": "steps", "epoch": "epochs", "token": "tokens", "sample": "samples"}
BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}
NUMBER = r"\s*([0-9][0-9_,]*\.?[0-9]*(?:e[+-]?[0-9]+)?|\.[0-9]+)\s*"
LengthUnit = Literal["steps", "epochs", "tokens", "samples", "seconds"]


@dataclass(frozen=True)
class Length:
    """An amount of training in one unit."""

    amount: float
    unit: LengthUnit

    def __str__(self) -> str:
        return f"{self.amount:g} s" if self.unit == "seconds" else f"{self.amount:g} {self.unit}"


def parse_length(value: Any) -> Length:
    """ "500 steps", "1.5 epochs", "2B tokens", "10k samples", "3 min" -> Length; ValueError says what is wanted."""
    if isinstance(value, Length):
        return value
    match = re.fullmatch(NUMBER + r"([kmbt]?)\s*([a-z]+)\s*", str(value).lower())
    if match:
        amount = float(match[1].replace(",", "").replace("_", "")) * SCALES[match[2]]
        word = match[2] + match[3] if not match[3] or (match[2] and match[2] + match[3] in SECONDS) else match[3]
        if match[2] and word == match[2] + match[3]:
            amount /= SCALES[match[2]]
        unit = word if word in SECONDS else word.rstrip("s")
        if 0 < amount < math.inf and unit in SECONDS:
            return Length(amount * SECONDS[unit], "seconds")
        if 0 < amount < math.inf and unit in COUNTS:
            return Length(amount, COUNTS[unit])  # type: ignore[arg-type]
    raise ValueError('must be an amount with a unit, such as "500 steps", "3 epochs", "2B tokens" or "30 min"')


def parse_bytes(value: Any) -> int:
    """ "80 GB", "512 MiB" or a plain number of bytes -> bytes."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    match = re.fullmatch(NUMBER + r"([a-z]+)\s*", str(value).lower())
    if match and match[2] in BYTES:
        return round(float(match[1].replace(",", "").replace("_", "")) * BYTES[match[2]])
    raise ValueError('must be a size such as "80 GB" or "512 MiB"')


def parse_count(value: Any) -> int:
    """ "1M", "124M", "1.5B" or a whole number -> int."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    match = re.fullmatch(NUMBER + r"([kmbt]?)\s*", str(value).lower()) if isinstance(value, str) else None
    if match and round(float(match[1].replace(",", "").replace("_", "")) * SCALES[match[2]]) > 0:
        return round(float(match[1].replace(",", "").replace("_", "")) * SCALES[match[2]])
    raise ValueError('must be a count such as 1000, "1M" or "1.5B"')


def short_count(n: float) -> str:
    """1234567 -> "1.23M"."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(n) >= size:
            return f"{n / size:.3g}{letter}"
    return f"{n:.3g}"


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
