"""The checks: each looks at the memory and the newest record and returns a Finding or None."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import numpy as np

from danlu.trust.batches import between_batches, carried_over
from danlu.trust.findings import Finding, Memory, Record
from danlu.trust.residual import off_the_curve

Check = Callable[[Memory, Record], Finding | None]
INITIAL_RATIO, INITIAL_MORE = 1.5, 0.1
NOT_LEARNED = 0.8
NO_GRADIENT_STEPS, STILL_STEPS, DEAD_STEPS = 5, 2, 3
REPEATED, EPOCH_LEAST = 0.3, 32
IN_ORDER, SCORE, CARRIED, ALIKE, N_BATCHES = 0.7, 8.0, 4.3, 0.3, 16
SHIFT_MORE, SHIFT_SCORE = 0.1, 4.0
DECADES, DEPTH_STEP = 3.0, 20
GROWN = 30.0
NOISE_GAP, NOISE_SCORE, NOISE_PROBES = 0.3, 4.0, 3
N_GAINS, HIGH_GAIN, HIGH_EACH, LOW_GAIN, LOW_SHARE = 4, 0.55, 0.7, 0.993, 0.0015
MANY_TARGETS, LARGER = 1024, 0.4
"""Targets of an update up to which HIGH_GAIN holds, and the power by which it falls beyond: at 512, 4,096 and 16,384 tokens an update
a good rate had gains of 0.9, 0.75 and 0.45 to 0.8, one 30 times higher 0.55, 0.3 and 0.13 (AdamW and Muon, docs/LOG.md)."""
DECIDES, COPIES_SCORE, COPIES_LEAST = 0.95, 6.0, 256


def initial_loss(memory: Memory, record: Record) -> Finding | None:
    """The fresh model's loss against that of all-zero scores (ln V of a softmax, the mean square of a regression)."""
    start = record.get("start", {})
    if "first" not in start or not start["first"] > INITIAL_RATIO * start["blank"] + INITIAL_MORE:
        return None
    says = f"the first loss is {start['first']:.3g}; scores that are all 0 would have {start['blank']:.3g}"
    return Finding("initial loss", record["step"], says, "warn")


def one_batch(memory: Memory, record: Record) -> Finding | None:
    """A copy of the model trained on one batch alone stays at the best constant answer's loss."""
    tried = record.get("one_batch")
    if tried is None or tried["constant"] < 0.05 or not tried["last"] > NOT_LEARNED * tried["constant"]:
        return None
    says = (
        f"trained on one batch alone, the loss went from {tried['first']:.3g} to {tried['last']:.3g}; "
        f"the best constant answer has {tried['constant']:.3g}"
    )
    return Finding("cannot learn one batch", record["step"], says)


def missing_gradient(memory: Memory, record: Record) -> Finding | None:
    """Parameters whose gradient is missing or 0 several steps in a row."""
    names = [name for name, n in memory.zero.items() if n >= NO_GRADIENT_STEPS]
    if not names or record["step"] < 2 * NO_GRADIENT_STEPS:
        return None
    return Finding("missing gradient", record["step"], f"{listed(names)} got none for {NO_GRADIENT_STEPS} steps")


def frozen_weights(memory: Memory, record: Record) -> Finding | None:
    """Parameters that have a gradient and do not move."""
    names = [name for name, n in memory.still.items() if n >= STILL_STEPS]
    if not names:
        return None
    return Finding("frozen weights", record["step"], f"{listed(names)} did not move at all, though there is a gradient")


def duplicated(memory: Memory, record: Record) -> Finding | None:
    """Samples that were in the batches just before, beyond what copies in the data explain."""
    share = statistics.fmean(memory.repeats)
    usual = 2 * memory.facts.get("held_twins", 0.0)
    if len(memory.repeats) < 8 or memory.facts.get("epoch", 0) < EPOCH_LEAST or share < REPEATED + usual:
        return None
    says = f"{share:.0%} of the samples of the last {len(memory.repeats)} batches had been in the batches just before"
    return Finding("duplicated batches", record["step"], says)


def unshuffled(memory: Memory, record: Record) -> Finding | None:
    """Labels of a batch that are more alike than a random batch's, or windows that follow on one another."""
    step, n = record["step"], len(memory.means)
    if len(memory.follows) >= 8 and (share := statistics.fmean(memory.follows[-8:])) > IN_ORDER:
        return Finding("unshuffled data", step, f"{share:.0%} of the windows begin where the one before them ends")
    if n < N_BATCHES or step % 4:
        return None
    means, variances = np.array(memory.means), np.array(memory.variances)
    carried = carried_over(means)
    if carried > CARRIED:
        says = f"labels of a batch depend on the batch before (autocorrelation {carried / math.sqrt(n):.2f} of {n} batches)"
        return Finding("unshuffled data", step, says)
    if memory.facts.get("bucketed"):
        return None
    score = between_batches(means, variances, memory.sizes)
    if score > SCORE:
        says = f"batches' mean labels differ by {score:.0f} standard errors more than random batches' would"
        return Finding("unshuffled data", step, says)
    held = memory.facts.get("held_var")
    if held and sum(memory.sizes) >= 256 and float(variances.mean(0).sum()) < ALIKE * sum(held):
        says = f"labels within a batch vary {variances.mean(0).sum() / sum(held):.2f} times as much as those of the validation split"
        return Finding("unshuffled data", step, says)
    return None


def shifted_labels(memory: Memory, record: Record) -> Finding | None:
    """Targets that belong to another place: of the text, of the sequence, of the batch."""
    pool = record.get("pool", {})
    offsets = pool.get("offsets", {})
    others = {k: v for k, v in offsets.items() if k != "1"}
    if others and offsets["1"] < 0.9 and max(others.values()) > 0.9:
        at = max(others, key=others.__getitem__)
        says = f"targets are the tokens at offset {at} ({others[at]:.0%}), not at 1 ({offsets['1']:.0%})"
        return Finding("shifted labels", record["step"], says)
    moved = pool.get("moved", {})
    if moved and max(moved.values()) > SHIFT_SCORE:
        at = max(moved, key=moved.__getitem__)
        says = f"labels tell more of the token {at} places on than of their own ({moved[at]:.1f} standard errors)"
        return Finding("shifted labels", record["step"], says)
    shifts = pool.get("shifts", {})
    others = {k: v for k, v in shifts.items() if k != "0"}
    if others and max(others.values()) > shifts["0"] + SHIFT_MORE:
        at = max(others, key=others.__getitem__)
        says = f"a sample explains {others[at]:.0%} of the label {at} places on and {shifts['0']:.0%} of its own"
        return Finding("shifted labels", record["step"], says)
    return None


def dead_units(memory: Memory, record: Record) -> Finding | None:
    """Layers most of whose units give one and the same number for the whole batch."""
    names = [name for name, n in memory.dead.items() if n >= DEAD_STEPS]
    if not names or "layers" not in record:
        return None
    share = record["layers"]["dead"][names[0]]
    return Finding("dead units", record["step"], f"{share:.0%} of the units of {listed(names)} are constant on whole batches")  # fmt: skip


def gradient_scale(memory: Memory, record: Record) -> Finding | None:
    """Gradients that fade or blow up through the depth, or in time."""
    if len(memory.depth) >= 3 and record["step"] >= DEPTH_STEP:
        rise, fall = (min(d[i] for d in memory.depth[-3:]) for i in (0, 1))
        if max(rise, fall) > DECADES:
            name = "vanishing gradient" if rise > fall else "exploding gradient"
            way = "weaker" if rise > fall else "stronger"
            says = f"early layers feel the loss 10^{max(rise, fall):.1f} times {way} than late ones"
            return Finding(name, record["step"], says)
    if len(memory.norms) >= 48 and memory.first_norm > 0:
        ratio = statistics.median(memory.norms[-16:]) / memory.first_norm
        if ratio > GROWN:
            says = f"the gradient norm is {ratio:.0f} times that of the first steps"
            return Finding("exploding gradient", record["step"], says)
    return None


def rate(memory: Memory, record: Record) -> Finding | None:
    """The gain of updates at half the peak rate or more: by how much a batch's loss fell through its own update, over what
    its gradient promised. 1 where the loss is a plane as far as the step goes, 1/2 at the bottom of a parabola along it,
    below that where the step goes too far (the ratio of a trust region: Nocedal & Wright 2006, 4.1). In larger batches less of the
    gradient is noise, which a step always gains on its own batch, so well-set rates have lower gains there too."""
    gains = memory.gains[-N_GAINS:]
    if "gain" not in record or len(gains) < N_GAINS - 1:
        return None
    promised, had = sum(g[0] for g in gains), sum(g[1] for g in gains)
    high = HIGH_GAIN * min(1.0, (MANY_TARGETS / memory.facts.get("targets", 1)) ** LARGER)
    if not (promised < 0 and math.isfinite(had)):
        return None
    gain, share = had / promised, -promised / len(gains) / max(abs(record["loss"]), 1e-9)
    n_short = sum(g[1] > HIGH_EACH * g[0] for g in gains)
    if len(gains) == N_GAINS and gain < high and n_short >= N_GAINS - 1:
        says = f"updates lower their own batch's loss by {gain:.0%} of what the gradient promises"
        return Finding("rate too high", record["step"], says, "warn")
    if LOW_GAIN < gain < 2 - LOW_GAIN and share < LOW_SHARE:
        says = f"updates bring {gain:.1%} of what the gradient promises, which is {share:.2%} of the loss: longer steps would too"
        return Finding("rate too low", record["step"], says, "warn")
    return None


def label_noise(memory: Memory, record: Record) -> Finding | None:
    """Unseen training samples that are much harder than validation samples, both in evaluation mode."""
    if "probe" not in record or len(memory.probes) < NOISE_PROBES:
        return None
    gaps = [(t - v) / max(abs(v), 1e-9) for t, v in memory.probes[-4:]]
    middle, spread = statistics.fmean(gaps), statistics.stdev(gaps) / math.sqrt(len(gaps))
    if middle < NOISE_GAP or middle < NOISE_SCORE * spread:
        return None
    says = f"the loss on training samples not seen before is {middle:.0%} above that on validation samples"
    return Finding("label noise", record["step"], says, "warn")


def leakage(memory: Memory, record: Record) -> Finding | None:
    """A feature that is the answer; validation samples among the training samples."""
    pool = record.get("pool", {})
    if pool.get("deciding", 0.0) > DECIDES:
        says = f"{pool['feature']} alone explains {pool['deciding']:.1%} of the target"
        return Finding("leakage", record["step"], says, "warn")
    found, n = memory.held
    usual = 1.5 * memory.facts.get("held_twins", 0.0) + 0.002
    if n >= COPIES_LEAST and found - n * usual > COPIES_SCORE * math.sqrt(n * usual * (1 - min(usual, 1.0)) + 1):
        says = f"{found} of {n} training samples (stretches of a text) are copies of validation samples"
        return Finding("leakage", record["step"], says)
    return None


def listed(names: list[str]) -> str:
    """a, b and 3 more."""
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")


CHECKS: tuple[Check, ...] = (
    initial_loss, one_batch, missing_gradient, frozen_weights, duplicated, unshuffled, shifted_labels, dead_units,
    gradient_scale, rate, label_noise, leakage, off_the_curve,
)  # fmt: skip
"""In this order."""
