"""Named laws that answer "auto" before anything was measured. Each says its formula, source and range of validity.

A law outside its range still answers, says so, and widens its interval. N is the number of parameters without
embeddings and head, D the tokens a run sees (repeats counted), U the training tokens there are, B the batch in
tokens, S = D / B the updates, eta the peak learning rate. Torch-free; every law is a pure function of Facts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from danlu.base.units import Length, short_count
from danlu.planning.ledger import UNTESTED, Decision


@dataclass(frozen=True)
class Facts:
    """What the laws look at. Fill in what is known, in this order: length, batch, rate, decay."""

    n_hidden: int
    """N: parameters without embeddings and head."""
    context: int
    """Tokens of one sample."""
    n_unique: int
    """U: tokens of the training split."""
    n_tokens: float = 0.0
    """D: tokens the run will see."""
    batch: int = 0
    """Samples of one update."""
    optimizer: str = "adamw"
    """Its kind."""
    settings: Any = None
    """Its settings, for rules with variants (muon's scale, sgd's momentum)."""
    lr: float = 0.0
    """Peak learning rate."""

    @property
    def batch_tokens(self) -> int:
        """B: tokens of one update."""
        return self.batch * self.context

    @property
    def n_steps(self) -> float:
        """S: updates of the run."""
        return self.n_tokens / self.batch_tokens


@dataclass(frozen=True)
class Law:
    """A rule with a name that can be looked up and argued with."""

    name: str
    setting: str
    formula: str
    source: str
    valid: str

    def decide(
        self, value: Any, numbers: str, in_range: bool, low: float | None = None, high: float | None = None
    ) -> Decision:
        """A decision made by this law. `numbers` says what was put in and what came out."""
        outside = "" if in_range else f" This run lies outside the law's range ({self.valid}): treat it as a guess."
        why = f"{self.formula}: {numbers}.{outside}"
        return Decision(self.setting, value, f"prior: {self.name}", why, self.source, self.valid, in_range, low, high)


STEP_N, STEP_D = (4.6e7, 1.1e9), (1.27e8, 1e11)
"""Where Step Law's rate and batch were checked: its own grid (0.2 to 1.1B), and Lingle's independent one below it."""
SMALL_LR, SMALL_MUON_LR, MOST_MUON_LR = 5.6e-3, 6.5e-3, 1.2e-2
"""Highest rate that a small model is given: AdamW's in updates of 1,024 tokens, growing with the
batch to the 0.75th power (best rates at 512, 1,024 and 2,048 tokens: 3.4e-3, 5.6e-3, 9.3e-3; five tasks); Muon's to the
0.6th, up to its most (best rates at 512, 1,024 and 2,048 tokens: 4e-3, 7e-3, 1.2e-2; benchmarks/optimizers.md)."""
SMALL_N, SMALL_D, SMALL_SPREAD = (2e5, 6e5), (6e5, 1.6e6), 1.8
"""Where that was measured, and the factor either way that holds 80% of those tasks."""
MIN_UPDATES = 1600
"""Fewest updates of a run: in twice as many, a batch half as large was better by 0.3 to 2.8% of the loss on all five language
models of the development tasks, down to this (benchmarks/planning.md)."""
MAX_EPOCHS = 4
"""Repeats of the data that are about as good as new (Muennighoff 2023)."""
TAU = 1.084, -0.527
"""Bergsma 2025: tau = 1.084 (D/N)^-0.527."""
DECAY_RANGE = 0.01, 1.0
"""Weight decay is kept between these."""

LENGTH = Law(
    "chinchilla", "train.length", "D = min(20 N, 4 U)",
    "Hoffmann 2022, 2203.15556, section 3 (20 tokens a parameter); Muennighoff 2023, 2305.16264 (4 epochs)",
    "N from 7e7 to 1.6e10, at most 4 epochs",
)  # fmt: skip
SIZE = Law(
    "chinchilla_size", "model.size", "N = min(sqrt(C / 120), 4 U / 20)",
    "Hoffmann 2022, 2203.15556: C = 6 N D at D = 20 N; Muennighoff 2023, 2305.16264 (4 epochs)",
    "C from 6e18 to 3e21 FLOPs",
)  # fmt: skip
BATCH = Law(
    "step_law_batch", "train.batch", "B = 0.58 D^0.571 tokens, in at least 1600 updates, rounded to a power of two of samples",
    "Li 2025 (Step Law), 2503.04715, equation 1",
    "D from 1.3e8 to 1e11 tokens",
)  # fmt: skip
STEP_LAW = Law(
    "step_law", "optimizer.lr", "eta = min(1.79 N^-0.713 D^0.307, 5.6e-3 (B / 1024)^0.75)",
    "Li 2025 (Step Law), 2503.04715, equation 1; checked against Lingle's independent grid "
    "(lucaslingle.substack.com, 4.6e7 to 8.7e8 parameters); the cap for small models: best rates of five language models of "
    "0.3 to 1.7M parameters on 0.8M to 1.5M tokens in updates of 512 to 2,048 (benchmarks/planning.md)",
    "N from 4.6e7 to 1.1e9, D from 1.3e8 to 1e11 tokens, AdamW; below, N and D of the development tasks",
)  # fmt: skip
LION = Law(
    "step_law_lion", "optimizer.lr", "eta = min(1.79 N^-0.713 D^0.307, 5.6e-3 (B / 1024)^0.75) / 5",
    "Chen 2023 (Lion), 2302.06675, section 5: 3 to 10 times below AdamW's rate",
    "as AdamW's rate, within a factor of 2",
)  # fmt: skip
MUON = Law(
    "step_law_muon", "optimizer.lr", "eta = min(1.79 N^-0.713 D^0.307, 5.6e-3 (B / 1024)^0.75), or min(6.5e-3 (B / 1024)^0.6, 1.2e-2) "
    "below 4.6e7 parameters",
    "Liu 2025 (Moonlight), 2502.16982, section 2.2: with steps as large as AdamW's, AdamW's rate serves; below: "
    "tiny_shakespeare by characters, 600 steps of 64 x 64 tokens, best of a grid by factors of 2 at 0.15M and 0.8M "
    "parameters: 0.01 and 0.008; five language models in updates of 512 to 4,096 tokens (benchmarks/optimizers.md)",
    "N from 4e8 to 1.5e9 with matched steps; small models of 1.5e5 to 8e5 parameters in updates of 512 to 4,096 tokens",
)  # fmt: skip
MUON_SPECTRAL = Law(
    "jordan", "optimizer.lr", "eta = 0.02",
    "Jordan 2024, kellerjordan.github.io/posts/muon",
    "N near 1.2e8, original scale",
)  # fmt: skip
ADAMH = Law(
    "delphi", "optimizer.lr", "eta = min(0.0063 sqrt(B / 2.6e5) (2.5e9 / D)^0.3, 0.01), or 0.02 below 4.6e7 parameters",
    "Marin's Delphi, openathena.ai/blog/delphi; 0.02 for small models is a house rule, not measured yet",
    "N from 1.3e8 to 2.5e10",
)  # fmt: skip
RMSPROP = Law(
    "house_rmsprop", "optimizer.lr", "eta = min(1.79 N^-0.713 D^0.307, 5.6e-3 (B / 1024)^0.75) / 3",
    "house rule, not measured yet",
    UNTESTED,
)  # fmt: skip
SGD = Law(
    "house_sgd", "optimizer.lr", "eta = 1 - momentum",
    "house rule, not measured yet",
    UNTESTED,
)  # fmt: skip
DECAY = Law(
    "power_lines", "optimizer.weight_decay", "lambda = B / (eta D tau) with tau = 1.084 (D/N)^-0.527, within 0.01 and 1",
    "Bergsma 2025 (Power Lines), 2505.13738; Wang & Aitchison 2024, 2405.13698",
    "AdamW, N from 1.1e8 to 3.3e9, D/N from 20 to 320",
)  # fmt: skip
HALF_LIFE, HALF_LIFE_SHARE = 7.1e6, 1 / 30
"""Tokens over which Adam's second moment forgets half (0.95 at 512 samples of 1,024 tokens), and its most of a run."""
BETA2_RANGE = 0.9, 0.9999
"""beta2 is kept between these, as Delphi keeps it."""
BETA2 = Law(
    "token_half_life", "optimizer.beta2", "beta2 = 2^(-1/h), h = min(7.1e6 / B, S / 30) updates, within 0.9 and 0.9999",
    "Marek 2025, 2507.07101, section 3: the second moment's half-life stays the same in tokens, beta2 = beta2_0^(B/B_0), "
    "here from 0.95 at 5.2e5 tokens; the share of a short run is a house rule, no worse than 0.95 in docs/LOG.md",
    "AdamW, N from 3e7 to 1.3e9, B from 1 to 4,096 samples",
)  # fmt: skip
LAWS = (
    LENGTH, SIZE, BATCH, STEP_LAW, MUON, MUON_SPECTRAL, LION, ADAMH, RMSPROP, SGD, DECAY, BETA2
)  # fmt: skip
"""Every law, in the order in which a plan uses them."""


def length(facts: Facts) -> Decision:
    """train.length, as "N tokens": compute-optimal, unless the data would be repeated too often."""
    wanted, most = 20.0 * facts.n_hidden, float(MAX_EPOCHS) * facts.n_unique
    n_tokens = min(wanted, most)
    epochs = n_tokens / facts.n_unique
    ends = f"20 N = {short_count(wanted)}, 4 U = {short_count(most)}, which is {epochs:.2g} epochs of the data"
    value = str(Length(float(f"{n_tokens:.3g}"), "tokens"))
    return LENGTH.decide(value, f"N = {short_count(facts.n_hidden)} gives {ends}", 7e7 <= facts.n_hidden <= 1.6e10)


def model_size(flops: float, n_unique: int) -> Decision:
    """model.size for a compute budget of `flops` and the training tokens there are."""
    n_parameters = max(1.0, min(math.sqrt(flops / 120), MAX_EPOCHS * n_unique / 20))
    numbers = f"C = {flops:.2g} and U = {short_count(n_unique)} give N = {short_count(n_parameters)}"
    return SIZE.decide(short_count(n_parameters), numbers, 6e18 <= flops <= 3e21, n_parameters / 3, n_parameters * 3)


def batch(facts: Facts) -> Decision:
    """train.batch, in samples: a power of two, at least 1 and at most what leaves MIN_UPDATES."""
    best = 0.58 * facts.n_tokens**0.571
    most = max(1.0, facts.n_tokens / facts.context / MIN_UPDATES)
    samples = int(2 ** round(math.log2(max(1.0, min(best / facts.context, most)))))
    numbers = (
        f"D = {short_count(facts.n_tokens)} gives {short_count(best)} tokens, {samples} samples of {facts.context}"
    )
    return BATCH.decide(samples, numbers, within(facts.n_tokens, STEP_D), samples / 2, samples * 2)


def learning_rate(facts: Facts) -> Decision:
    """optimizer.lr: the peak rate, by the law of the optimizer's kind."""
    kind, base = facts.optimizer, adamw_rate(facts)
    known = within(facts.n_hidden, STEP_N) and within(facts.n_tokens, STEP_D)
    if kind == "sgd":
        return rated(SGD, max(1e-3, 1.0 - float(getattr(facts.settings, "momentum", 0.0))), facts, False)
    if kind == "adamh":
        return rated(ADAMH, adamh_rate(facts), facts, within(facts.n_hidden, (1.3e8, 2.5e10)))
    if kind == "muon" and getattr(facts.settings, "scale", "") == "spectral":
        return rated(MUON_SPECTRAL, 0.02, facts, 3e7 <= facts.n_hidden <= 5e8)
    if kind == "muon":
        is_small, n_batch = facts.n_hidden < STEP_N[0], facts.batch_tokens or 1024
        known = (1.5e5 <= facts.n_hidden <= 8e5 and 512 <= n_batch <= 4096) or 4e8 <= facts.n_hidden <= 1.5e9
        small = min(SMALL_MUON_LR * (n_batch / 1024) ** 0.6, MOST_MUON_LR)
        return rated(MUON, small if is_small else base, facts, known)
    if kind == "lion":
        return rated(LION, base / 5, facts, known)
    if kind == "rmsprop":
        return rated(RMSPROP, base / 3, facts, False)
    is_small = within(facts.n_hidden, SMALL_N) and within(facts.n_tokens, SMALL_D) and facts.batch > 0
    factor = SMALL_SPREAD if is_small and kind in ("adam", "adamw") else 0.0
    return rated(STEP_LAW, base, facts, (known or is_small) and kind in ("adam", "adamw"), factor)


def adamw_rate(facts: Facts) -> float:
    """Step Law, capped for small models, where it was never tested and runs off (0.02 at 0.5M parameters)."""
    cap = SMALL_LR * math.pow((facts.batch_tokens or 1024) / 1024, 0.75)
    return min(1.79 * math.pow(facts.n_hidden, -0.713) * math.pow(facts.n_tokens, 0.307), cap)


def adamh_rate(facts: Facts) -> float:
    """Delphi's rule from its reference point, 64 samples of 4,096 tokens and 2.5B tokens in all."""
    if facts.n_hidden < STEP_N[0]:
        return 0.02
    return min(0.0063 * math.sqrt(facts.batch_tokens / (64 * 4096)) * math.pow(2.5e9 / facts.n_tokens, 0.3), 0.01)


def rated(law: Law, lr: float, facts: Facts, in_range: bool, factor: float = 0.0) -> Decision:
    """A rate with its interval: a factor of 2 costs under 0.5% of loss where the law holds; elsewhere a factor of 4."""
    lr, factor = float(f"{lr:.3g}"), factor or (2.0 if in_range else 4.0)
    numbers = f"N = {short_count(facts.n_hidden)} and D = {short_count(facts.n_tokens)} give {lr:g}"
    return law.decide(lr, numbers, in_range, lr / factor, lr * factor)


def weight_decay(facts: Facts) -> Decision:
    """optimizer.weight_decay, from the time over which the weights average their updates. Needs batch and lr."""
    per_parameter = facts.n_tokens / facts.n_hidden
    tau = TAU[0] * per_parameter ** TAU[1]
    found = facts.batch_tokens / (facts.lr * facts.n_tokens * tau)
    value = float(f"{min(max(found, DECAY_RANGE[0]), DECAY_RANGE[1]):.3g}")
    numbers = f"D/N = {per_parameter:.3g} gives tau = {tau:.3g}, and B = {facts.batch_tokens:,}, eta = {facts.lr:g} give {value:g}"
    known = within(facts.n_hidden, (1.1e8, 3.3e9)) and 20 <= per_parameter <= 320 and facts.optimizer == "adamw"
    return DECAY.decide(value, numbers, known, value / 2, value * 2)


def beta2(facts: Facts) -> Decision:
    """optimizer.beta2, from the batch and the length: what a second moment remembers is counted in tokens, not updates."""
    updates = max(1.0, min(HALF_LIFE / facts.batch_tokens, HALF_LIFE_SHARE * facts.n_steps))
    value = round(min(max(0.5 ** (1 / updates), BETA2_RANGE[0]), BETA2_RANGE[1]), 4)
    numbers = f"B = {facts.batch_tokens:,} and S = {facts.n_steps:,.0f} give h = {updates:.3g} and {value:g}"
    known = within(facts.n_hidden, (3e7, 1.3e9)) and facts.optimizer in ("adam", "adamw")
    low, high = (min(max(0.5 ** (k / updates), BETA2_RANGE[0]), BETA2_RANGE[1]) for k in (4, 0.25))
    return BETA2.decide(value, numbers, known, low, high)


def within(value: float, ends: tuple[float, float]) -> bool:
    """Whether a value lies in a closed range."""
    return ends[0] <= value <= ends[1]
