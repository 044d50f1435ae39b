"""Clips of a waveform by number: pieces of levels with what came before them, and clips that are yet to be made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from danlu.base.contracts import Batch
from danlu.base.errors import UserError
from danlu.data import mulaw
from danlu.data.order import GOLDEN, mixed

Ids = NDArray[np.int64]
SAMPLES_AT_ONCE = 1 << 18
"""Samples of sound that go through the model together while scoring."""
LOUDER, PLACE = np.uint64(0x5851F42D4C957F2D), np.uint64(0x14057B7EF767814F)


@dataclass(frozen=True)
class Cut:
    """Clips cut into pieces of like length, each at most a window: together every sample exactly once."""

    clip: Ids
    """(N,) clip of each piece."""
    start: Ids
    """(N,) its first sample within the clip."""
    n: Ids
    """(N,) its samples."""

    @classmethod
    def of(cls, lengths: Ids, window: int) -> Cut:
        """Cut clips of `lengths` (C,)."""
        pieces = np.maximum(1, -(-lengths // window))
        clip = np.repeat(np.arange(len(lengths)), pieces)
        k = np.arange(len(clip)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        start = k * lengths[clip] // pieces[clip]
        return cls(clip, start, (k + 1) * lengths[clip] // pieces[clip] - start)


class WaveformSplit:
    """Clips end to end, by pieces."""

    def __init__(
        self, arrays: Mapping[str, NDArray[Any]], features: Mapping[str, Any], window: int, gain_jitter: float
    ) -> None:
        self.samples, self.offsets, self.conditions = arrays["samples"], arrays["offsets"], arrays["conditions"]
        self.names = arrays["names"].tobytes().decode().split("\n")
        self.n_levels, self.context = int(features["levels"]), int(features["context"])
        self.gain_jitter, self.of_clip = gain_jitter, np.diff(self.offsets)
        self.cut = Cut.of(self.of_clip, window)
        self.lengths = self.cut.n
        longest = int(self.lengths.max(initial=1)) + (self.context if int(self.cut.start.max(initial=0)) else 0)
        self.at_once = max(1, SAMPLES_AT_ONCE // longest)
        self.levels = mulaw.encoded(np.arange(-32768, 32768) / 32767.0, self.n_levels)

    def __len__(self) -> int:
        return len(self.cut.clip)

    def batch(self, rows: Ids, seeds: NDArray[np.uint64] | None = None) -> Batch:
        """Each row: up to `context` levels before its piece, the piece, padding. With seeds a piece of a cut clip lies
        anywhere in it, and the gain is jittered."""
        import torch

        clip, start, n = self.cut.clip[rows], self.cut.start[rows], self.cut.n[rows]
        if seeds is not None:
            start = np.where(
                n < self.of_clip[clip], (share(seeds ^ PLACE) * (self.of_clip[clip] - n + 1)).astype(int), start
            )
        lead = np.minimum(start, self.context)
        at = np.arange(int((lead + n).max()))
        inside = at < (lead + n)[:, None]
        first = self.offsets[clip] + start - lead
        samples = self.samples[np.minimum(first[:, None] + at, len(self.samples) - 1)]
        if seeds is not None and self.gain_jitter:
            gain = 10 ** (self.gain_jitter * (2 * share(seeds ^ LOUDER) - 1) / 20)
            levels = mulaw.encoded(samples * (gain[:, None] / 32767.0), self.n_levels)
        else:
            levels = self.levels[samples.astype(np.int64) + 32768]
        levels[~inside] = self.n_levels // 2
        targets = np.where(inside & (at >= lead[:, None]), levels, -1)
        tensors = {
            "levels": levels, "targets": targets, "conditions": self.conditions[clip],
            "span": np.stack([start - lead, self.of_clip[clip]], 1), "clip": clip,
        }  # fmt: skip
        return Batch(
            {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in tensors.items()}, int(n.sum()), row_targets=n
        )

    def name(self, row: int) -> str:
        """7_jackson_32.wav, and from which sample where it is a later piece."""
        start = int(self.cut.start[row])
        return str(self.names[self.cut.clip[row]]) + (f"[{start}:]" if start else "")


class Wanted:
    """Clips to be made."""

    def __init__(self, names: list[str], rows: Mapping[str, NDArray[Any]]) -> None:
        self.names, self.rows = names, rows

    def __len__(self) -> int:
        return len(self.names)

    def batch(self, rows: Ids, seeds: NDArray[np.uint64] | None = None) -> Batch:
        """{"conditions" (B, C), "n_samples" (B,), "seeds" (B,)}: no levels yet."""
        import torch

        tensors = {name: torch.from_numpy(array[rows]) for name, array in self.rows.items()}
        return Batch(tensors, 0, row_targets=np.zeros(len(rows), np.int64))

    def name(self, row: int) -> str:
        """7-jackson."""
        return self.names[row]


def share(seeds: NDArray[np.uint64]) -> NDArray[np.float64]:
    """(B,) evenly in [0, 1), one from each seed."""
    return np.asarray((mixed(seeds + GOLDEN) >> np.uint64(11)) * 2.0**-53, np.float64)


def wanted(inputs: Sequence[Any], features: Mapping[str, Any]) -> Wanted:
    """What is asked for, one clip an input; the same input twice gives two clips."""
    names, conditions, n_samples, seeds = [], [], [], []
    for number, given in enumerate(inputs):
        asked = parsed(given, features)
        seed = whole(asked.pop("seed", "0"), "seed")
        rng = np.random.default_rng([seed, number])
        chosen = [
            known.index(asked[name]) if name in asked else int(rng.integers(len(known)))
            for name, known in zip(features["conditions"], features["values"], strict=True)
        ]
        quantiles = features["durations"][chosen[0] if chosen else 0]
        drawn = int(np.interp(rng.random(), np.linspace(0, 1, len(quantiles)), quantiles))
        seconds = asked.get("seconds")
        n_samples.append(drawn if seconds is None else round(positive(seconds) * features["rate"]))
        conditions.append(chosen)
        seeds.append(int(rng.integers(2**63)))
        words = [known[i] for i, known in zip(chosen, features["values"], strict=True)]
        names.append("-".join(words) or f"clip-{number}")
    rows = {
        "conditions": np.array(conditions, np.int64).reshape(len(names), len(features["conditions"])),
        "n_samples": np.maximum(1, np.array(n_samples, np.int64)),
        "seeds": np.array(seeds, np.int64),
    }
    return Wanted(names, rows)


def parsed(given: Any, features: Mapping[str, Any]) -> dict[str, str]:
    """{"digit": "7", ...} of an input; a bare word is the first condition that knows it."""
    names, values = list(features["conditions"]), features["values"]
    if isinstance(given, Mapping):
        pairs = [(str(k), str(v)) for k, v in given.items()]
    else:
        parts = [part.strip() for part in str(given).split(",")]
        pairs = [(k.strip(), v.strip()) for k, eq, v in (p.rpartition("=") for p in parts if p)]
    asked: dict[str, str] = {}
    for name, value in pairs:
        if not name:
            free = [n for n, known in zip(names, values, strict=True) if n not in asked and value in known]
            name = free[0] if free else (names[0] if names else "seconds")
        if name in names and value not in (known := values[names.index(name)]):
            raise UserError(f"predict: {name}", f"must be one of {', '.join(known[:30])}", got=value)
        if name not in (*names, "seconds", "seed"):
            raise UserError("predict", f"knows {', '.join((*names, 'seconds', 'seed'))}", got=name)
        asked[name] = value
    return asked


def positive(text: str) -> float:
    """Seconds of sound, at most an hour."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise UserError("predict: seconds", "must be above 0 and at most 3600", got=text)
    return seconds


def whole(text: str, name: str) -> int:
    """A number from 0."""
    if not text.isdecimal():
        raise UserError(f"predict: {name}", "must be a whole number from 0", got=text)
    return int(text)
