"""House rules that answer "auto" for samples by number. None is a law: each says that it is a guess, and widely so."""

from __future__ import annotations

import math
from typing import Any

from danlu.planning.ledger import Decision

SOURCE = "house rule, not measured yet"
RATES = {"sgd": 0.05, "rmsprop": 1e-3, "adam": 1e-3, "adamw": 1e-3, "lion": 2e-4, "muon": 5e-3, "adamh": 1e-2}
"""Peak learning rate by optimizer."""
DECAYS = {"sgd": 5e-4, "adamw": 0.01, "lion": 0.05, "muon": 0.01}
MIN_EPOCHS, MAX_EPOCHS, WANTED_SAMPLES = 5, 100, 600_000


def guess(setting: str, value: Any, why: str, low: float | None = None, high: float | None = None) -> Decision:
    """A decision by a house rule."""
    why = f"{why}. Treat it as a guess."
    return Decision(setting, value, "prior: house rule", why, SOURCE, "nowhere tested", False, low, high)


def batch(n_samples: int) -> Decision:
    """train.batch: about a hundredth of the training split, a power of two from 16 to 256."""
    value = 2 ** min(8, max(4, round(math.log2(max(1.0, n_samples / 100)))))
    value = min(value, max(1, n_samples))
    return guess("train.batch", value, f"about a hundredth of {n_samples:,} samples, from 16 to 256", value / 4, value * 4)  # fmt: skip


def epochs(n_samples: int) -> Decision:
    """train.length: as many epochs as show about 600,000 samples, from 5 to 100."""
    value = min(MAX_EPOCHS, max(MIN_EPOCHS, round(WANTED_SAMPLES / max(1, n_samples))))
    return guess("train.length", f"{value} epochs", f"{n_samples:,} samples seen about {WANTED_SAMPLES:,} times in all")


def learning_rate(kind: str, settings: Any) -> Decision:
    """optimizer.lr: the usual rate of the optimizer."""
    value = RATES.get(kind, 1e-3)
    if kind == "sgd" and not getattr(settings, "momentum", 0.0):
        value = 0.1
    return guess("optimizer.lr", value, f"the usual rate of {kind}", value / 4, value * 4)


def weight_decay(kind: str) -> Decision:
    """optimizer.weight_decay: the usual one of the optimizer."""
    value = DECAYS.get(kind, 0.0)
    return guess("optimizer.weight_decay", value, f"the usual decay of {kind}", value / 10, value * 10)
