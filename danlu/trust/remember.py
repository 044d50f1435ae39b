"""Taking a record into a diagnosis' memory: short windows of what was seen, and what a step's arrays boil down to."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from danlu.trust.findings import WINDOW, Memory, Record

N_LOSSES, N_REPEATS, N_WATCHED, WARM = 64, 16, 5, 20
"""How much is kept; steps before the first gain that counts."""
DEAD = 0.6
"""Share of a layer's units that are the same on a whole batch."""


def remember(memory: Memory, record: Record) -> None:
    """Add a step."""
    memory.facts |= record.get("start", {})
    memory.losses = [*memory.losses, record["loss"]][-N_LOSSES:]
    memory.norms = [*memory.norms, record["norm"]][-N_LOSSES:]
    if record["step"] == N_REPEATS:
        memory.first_norm = statistics.median(memory.norms)
    memory.zero = {name: memory.zero.get(name, 0) + 1 for name in record["zero"]}
    remember_batch(memory, record["batch"])
    if "layers" in record:
        remember_layers(memory, record)
    if "gain" in record and record["step"] >= WARM and record["lr"] >= 0.5 * memory.facts.get("peak_lr", 0.0):
        memory.gains = [*memory.gains, list(record["gain"])][-N_WATCHED:]
    if "probe" in record:
        memory.probes = [*memory.probes, record["probe"]]
    memory.constant = record.get("constant", memory.constant)


def remember_batch(memory: Memory, batch: Record) -> None:
    """Labels, repeats, order and copies of validation samples."""
    if "mean" in batch:
        memory.means = [*memory.means, batch["mean"]][-WINDOW:]
        memory.variances = [*memory.variances, batch["var"]][-WINDOW:]
        memory.sizes = [*memory.sizes, batch["n"]][-WINDOW:]
    memory.repeats = [*memory.repeats, batch["repeat"]][-N_REPEATS:]
    memory.follows = [*memory.follows, batch.get("follows", 0.0)][-N_REPEATS:]
    memory.held = [memory.held[0] + batch.get("held", 0), memory.held[1] + batch.get("n_held", 0)]


def remember_layers(memory: Memory, record: Record) -> None:
    """What a watched step showed of the layers."""
    layers = record["layers"]
    without = set(record["zero"])
    still = [name for name in layers["still"] if name not in without and record["lr"] > 0]
    memory.still = {name: memory.still.get(name, 0) + 1 for name in still}
    dead = [name for name, share in layers["dead"].items() if share > DEAD]
    memory.dead = {name: memory.dead.get(name, 0) + 1 for name in dead}
    matrices: Mapping[str, Sequence[float]] = layers["matrices"]
    ratios = [change / weight for weight, _, change in matrices.values() if weight > 0]
    memory.updates = [*memory.updates, statistics.median(ratios) if ratios else 0.0][-N_WATCHED:]
    memory.depth = [*memory.depth, through_depth(matrices)][-N_WATCHED:]


def through_depth(matrices: Mapping[str, Sequence[float]]) -> list[float]:
    """[rise, fall]: the largest step, in decades, that the layers' sensitivities take at a cut through the depth (at
    least two on each side where there are four).

    A layer's sensitivity is |gradient| |weights|: how much the loss can change by a relative change of them. It does not
    depend on how a layer is scaled against the next, which the gradient alone does.
    """
    logs = [math.log10(w * g) for w, g, _ in matrices.values() if w > 0 and g > 0]
    if len(logs) < 3:
        return [0.0, 0.0]
    edge = 1 if len(logs) < 4 else 2
    steps = [statistics.median(logs[c:]) - statistics.median(logs[:c]) for c in range(edge, len(logs) - edge + 1)]
    return [round(max(0.0, *steps), 3), round(max(0.0, *(-s for s in steps)), 3)]
