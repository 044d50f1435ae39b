"""Past scorecards on this machine, and what they say of the next intervals.

One JSON line a run in scorecards.jsonl under DANLU_HOME (else $XDG_DATA_HOME/danlu, else ~/.local/share/danlu):
{"run": .., "at": .., "machine": .., "cases": [{"name", "method", "log_error", "half80", "miss80", "miss95"}, ..]}.
It is only ever appended to, under a lock and in one write; a line torn by a crash is passed over by readers and ended by
the next writer.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import NormalDist
from typing import Any

from danlu.base.durable import fsync_folder, write_all
from danlu.planning.hardware import Machine
from danlu.planning.prediction import Z80, Z95, Prediction

PRIOR_CASES = 5.0
"""Cases that the stated interval itself counts for: with more than so many real ones the past outweighs it."""
MOST_CASES = 200
"""Latest cases that are looked at: methods and machines change."""


@dataclass(frozen=True)
class Case:
    """One prediction that was held against its outcome."""

    name: str
    """What was predicted."""
    method: str
    """Its origin."""
    log_error: float | None
    """log(outcome / predicted); None where that is no number."""
    half80: float | None
    """Half-width of its 80% interval as stated, towards the outcome; in logarithms where log_error is."""
    miss80: float
    """The error in half-widths of the 80% interval as stated (before recalibration), signed."""
    miss95: float
    """The same for the 95% interval."""


def case_of(prediction: Prediction, outcome: float) -> Case | None:
    """What the history keeps of a scored prediction; None where it has no interval to learn from."""
    stated = prediction.as_stated()
    at, (low, high) = stated.scale(stated.value or 0.0), map(stated.scale, stated.ends(80))
    error = stated.scale(outcome) - at
    half = high - at if error > 0 else at - low if error < 0 else max(high - at, at - low)
    misses = stated.miss(outcome, 80), stated.miss(outcome, 95)
    if not half > 0 or not all(map(math.isfinite, misses)):
        return None
    is_log = stated.is_logarithmic
    return Case(stated.name, stated.origin, error if is_log else None, half if is_log else None, *misses)


def machine_key(machine: Machine) -> str:
    """What counts as the same machine: its GPU or processor, and the cores in use."""
    return f"{machine.gpu or machine.cpu}, {machine.n_cores} cores"


def place() -> Path:
    """The file."""
    home = os.environ.get("DANLU_HOME")
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return (Path(home) if home else Path(data) / "danlu").expanduser() / "scorecards.jsonl"


def append(run: str, machine: str, cases: Iterable[Case]) -> None:
    """Add one run's line, durably. OSError where it cannot be written."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    row = {"run": run, "at": at, "machine": machine, "cases": [asdict(case) for case in cases]}
    line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"
    path = place()
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        end = os.fstat(fd).st_size
        if end and os.pread(fd, 1, end - 1) != b"\n":  # a writer died in the middle of its line
            line = b"\n" + line
        write_all(fd, line)
        os.fsync(fd)
    finally:
        os.close(fd)
    fsync_folder(path.parent)


def read(machine: str) -> list[Case]:
    """The cases of this machine, oldest first; of a run that was scored twice the later line counts. Lines that are not
    whole, or not ours, are passed over: a history that cannot be read is no reason not to plan."""
    try:
        text = place().read_bytes()
    except OSError:
        return []
    runs: dict[str, list[Case]] = {}
    for line in text.splitlines():
        found = _line(line, machine)
        if found is not None:
            runs.pop(found[0], None)
            runs[found[0]] = found[1]
    return [case for cases in runs.values() for case in cases]


def _line(line: bytes, machine: str) -> tuple[str, list[Case]] | None:
    try:
        row: Any = json.loads(line)
        if row["machine"] != machine:
            return None
        cases = [Case(**entry) for entry in row["cases"]]
        good = [case for case in cases if math.isfinite(case.miss80) and math.isfinite(case.miss95)]
        return str(row["run"]), good
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def recalibrated(prediction: Prediction, history: Sequence[Case]) -> Prediction:
    """The prediction with intervals widened or narrowed by how far past ones of the same name and method missed.

    Each past case says how many half-widths its outcome lay from the value, r = |error| / half-width. The new interval is
    q half-widths, q the level's quantile of the next r under a Dirichlet process (Ferguson 1973) whose prior is the stated
    normal error with the weight of m = PRIOR_CASES cases:

        (number of past r <= q) + m P(|N(0, 1)| <= q z) = level (n + m + n / (n + m)),   z = 1.2816 or 1.9600

    Without a past this is the stated interval, q = 1. With a long one it is split conformal prediction (Vovk, Gammerman &
    Shafer 2005; normalised by the stated width: Papadopoulos 2011, Romano 2019), which ranks the next r among the past
    ones, level (n + 1). Kuleshov 2018 recalibrates quantiles in the same way, without a prior.
    """
    past = [case for case in history if (case.name, case.method) == (prediction.name, prediction.origin)][-MOST_CASES:]
    if not past or not prediction.is_known:
        return prediction
    factor80 = quantile([abs(case.miss80) for case in past], 0.80, Z80)
    factor95 = quantile([abs(case.miss95) for case in past], 0.95, Z95)
    return prediction.widened(factor80, factor95, len(past))


def quantile(misses: Sequence[float], level: float, z: float) -> float:
    """The smallest q of recalibrated's equation for `misses` (half-widths) at a level in 0..0.95."""
    normal, n = NormalDist(), len(misses)
    total = level * (n + PRIOR_CASES + n / (n + PRIOR_CASES))
    ordered = sorted(misses)
    for n_below in range(len(ordered) + 1):
        lowest = ordered[n_below - 1] if n_below else 0.0
        above = ordered[n_below] if n_below < len(ordered) else math.inf
        share = max(0.0, (total - n_below) / PRIOR_CASES)  # what the prior must add once n_below cases lie below
        q = normal.inv_cdf((1 + share) / 2) / z if share < 1 else math.inf
        if max(q, lowest) < above:
            return max(q, lowest)
    raise AssertionError("with 5 prior cases and a level of at most 0.95 there is always such a q")
