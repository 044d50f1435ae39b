"""House rules that answer "auto" for samples by number. None is a law: each says that it is a guess, and widely so."""

from __future__ import annotations

import math
from typing import Any

from danlu.planning.ledger import UNTESTED, Decision

SOURCE = "house rule, not measured yet"
MIDDLE, SPREAD, LARGE = 4e-3, 3.9, 1e6
"""AdamW's rate at 64 samples an update, the factor either way that holds 80% of tasks, and parameters above which it falls as
in Step Law (N^-0.4 from 0.3M to 100M parameters)."""
MEASURED_ON = (
    "best rates at the usual batch of seven tasks (images, tables, a series, speech, proteins) on grids by factors of 2, "
    "benchmarks/planning.md; the root of the batch: Malladi 2022, 2205.10287"
)
MEASURED_FOR = "AdamW, 1e4 to 1.1e6 parameters, 250 to 940 updates of 32 to 128 samples"
RATES = {"sgd": 0.05, "rmsprop": 1e-3, "adam": 1e-3, "adamw": 1e-3, "lion": 2e-4, "muon": 5e-3, "adamh": 1e-2}
"""Peak learning rate by optimizer."""
DECAYS = {"sgd": 5e-4, "adamw": 0.01, "lion": 0.05, "muon": 0.01}
MIN_UPDATES = 800
"""Fewest updates of a run: with fewer, smaller batches were as good or better on the seven tasks (benchmarks/planning.md)."""
MIN_EPOCHS, MAX_EPOCHS, WANTED_SAMPLES = 5, 100, 600_000


def guess(setting: str, value: Any, why: str, low: float | None = None, high: float | None = None) -> Decision:
    """A decision by a house rule."""
    why = f"{why}. Treat it as a guess."
    return Decision(setting, value, "prior: house rule", why, SOURCE, UNTESTED, False, low, high)


def batch(n_samples: int, n_seen: float = math.inf) -> Decision:
    """train.batch: about a hundredth of the training split, a power of two from 16 to 256; smaller where the run
    sees so few samples that it would have fewer than MIN_UPDATES."""
    value = 2 ** min(8, max(4, round(math.log2(max(1.0, n_samples / 100)))))
    if n_seen < MIN_UPDATES * value:
        value = 2 ** max(4, round(math.log2(max(1.0, n_seen / MIN_UPDATES))))
    value = min(value, max(1, n_samples))
    why = f"about a hundredth of {n_samples:,} samples, from 16 to 256, in about {MIN_UPDATES} updates at least"
    return guess("train.batch", value, why, value / 4, value * 4)


def epochs(n_samples: int) -> Decision:
    """train.length: as many epochs as show about 600,000 samples, from 5 to 100."""
    value = min(MAX_EPOCHS, max(MIN_EPOCHS, round(WANTED_SAMPLES / max(1, n_samples))))
    return guess("train.length", f"{value} epochs", f"{n_samples:,} samples seen about {WANTED_SAMPLES:,} times in all")


def learning_rate(kind: str, settings: Any, batch: int, n_parameters: int) -> Decision:
    """optimizer.lr: for Adam and AdamW the middle of what was best on seven development tasks, else the usual rate."""
    if kind in ("adam", "adamw"):
        large = min(1.0, (LARGE / max(1, n_parameters)) ** 0.4)
        value = float(f"{MIDDLE * math.sqrt(batch / 64) * large:.3g}")
        numbers = (
            f"{MIDDLE:g} sqrt(B / 64) min(1, (1e6 / N)^0.4) with B = {batch} and N = {n_parameters:,} gives {value:g}"
        )
        why = f"{numbers}. On seven tasks the best rate lay a factor of 2.9 around it (one standard deviation)"
        return Decision("optimizer.lr", value, "prior: sqrt batch", f"{why}.", MEASURED_ON, MEASURED_FOR, n_parameters <= LARGE,
                        value / SPREAD, value * SPREAD)  # fmt: skip
    value = RATES.get(kind, 1e-3)
    if kind == "sgd" and not getattr(settings, "momentum", 0.0):
        value = 0.1
    why = f"the usual rate of {kind}"
    if kind == "muon":
        why += "; on a ViT and a tagger half and twice of it ended within 3% (benchmarks/optimizers.md)"
    return guess("optimizer.lr", value, why, value / 4, value * 4)


def weight_decay(kind: str) -> Decision:
    """optimizer.weight_decay: the usual one of the optimizer."""
    value = DECAYS.get(kind, 0.0)
    return guess("optimizer.weight_decay", value, f"the usual decay of {kind}", value / 10, value * 10)
