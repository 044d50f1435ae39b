"""danlu plan --on against published runs: fits the roofline's few constants, holds out one study at a time, and writes
published_runs.md with every row's error. Takes about a minute on one core; needs no data and no torch.

    python -m benchmarks.published_runs          writes benchmarks/published_runs.md and prints the fitted constants
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks.published_facts import FACTS, Fact
from danlu.planning import cluster as planning
from danlu.planning.accelerators import Cluster, accelerators
from danlu.planning.parallel_layouts import Job, device_memory
from danlu.planning.prediction import Z80
from danlu.planning.roofline import FITTED, Efficiency, step_time

OUT = Path(__file__).with_name("published_runs.md")
START = Efficiency(
    {"a100": 0.8, "h100": 0.65, "h200": 0.65, "b200": 0.65, "v100": 0.6, "tpu": 0.8},
    attention=0.5, memory=0.8, links=0.7, half_rows=512, half_sides=128, exposed=0.25, straggling=0.015,
)  # fmt: skip
"""Before fitting: round numbers from vendors' kernel timings. The fit is pulled towards them."""
NAMES = ("a100", "h100", "attention", "links", "half_rows", "exposed", "straggling")
"""What is fitted. The others cannot be told from these rows."""
PULL = 0.35
"""Standard deviation of a constant's logarithm about its start; rows have ERROR."""
ERROR = 0.15


def job_of(fact: Fact) -> Job:
    """What one of its updates computes."""
    return Job(fact.shape, fact.batch, attention=fact.attention)


def cluster_of(fact: Fact) -> Cluster:
    """Its devices."""
    return Cluster(accelerators()[fact.accelerator], fact.n_devices)


def log_error(fact: Fact, eff: Efficiency) -> float | None:
    """log(our tokens a second over theirs) under their layout; under ours where theirs is not known; None: nothing fits."""
    job, machine = job_of(fact), cluster_of(fact)
    if fact.layout is not None:
        seconds = step_time(job, fact.layout, machine, eff).total
    else:
        found = planning.search(job, machine, eff)
        if not found:
            return None
        seconds = found[0].time.total
    return math.log(job.tokens / seconds / fact.n_devices / fact.tokens_per_s)


def changed(eff: Efficiency, name: str, factor: float) -> Efficiency:
    """One constant times a factor; accelerators of H100's kind go with it."""
    if name in eff.matmul:
        kin = {"h100": ("h100", "h200", "b200"), "a100": ("a100", "v100", "tpu")}[name]
        return replace(eff, matmul={k: v * factor if k in kin else v for k, v in eff.matmul.items()})
    return replace(eff, **{name: getattr(eff, name) * factor})


def value_of(eff: Efficiency, name: str) -> float:
    """A constant by name."""
    return float(eff.matmul[name] if name in eff.matmul else getattr(eff, name))


def fit(facts: Sequence[Fact]) -> Efficiency:
    """Least squares of log errors over timed steps with a known layout, every study weighing alike, pulled to START.
    Coordinate search: one constant up or down by a shrinking factor."""
    rows = [fact for fact in facts if not fact.whole and fact.layout is not None]
    n_of = {run: sum(f.run == run for f in rows) for run in {f.run for f in rows}}

    def cost(eff: Efficiency) -> float:
        errors = sum(min(abs(log_error(f, eff) or 0.0), 0.5) ** 2 * n_of[f.run] ** -0.5 for f in rows) / ERROR**2
        pull = sum(math.log(value_of(eff, n) / value_of(START, n)) ** 2 for n in NAMES) / PULL**2
        return errors + pull

    return descend(cost, START)


def descend(cost: Callable[[Efficiency], float], start: Efficiency) -> Efficiency:
    """The minimum by coordinate search."""
    best, least, step = start, cost(start), 0.2
    while step > 0.01:
        moved = False
        for name in NAMES:
            for factor in (math.exp(step), math.exp(-step)):
                tried = changed(best, name, factor)
                if value_of(tried, name) < 1 or name == "half_rows":
                    found = cost(tried)
                    if found < least - 1e-9:
                        best, least, moved = tried, found, True
        step = step if moved else step / 2
    return best


def held_out(facts: Sequence[Fact]) -> dict[str, tuple[float | None, float]]:
    """Of each row: (log error with its whole study left out of the fit, log of what whole runs lose, fitted likewise)."""
    found: dict[str, tuple[float | None, float]] = {}
    for run in sorted({fact.run for fact in facts}):
        rest = [fact for fact in facts if fact.run != run]
        eff = fit(rest)
        lost = median_loss(rest, eff)
        for fact in facts:
            if fact.run == run:
                error = log_error(fact, eff)
                found[fact.name] = (None if error is None else error - lost * fact.whole, lost)
    return found


def median_loss(facts: Sequence[Fact], eff: Efficiency) -> float:
    """Median over whole runs of log(steps' speed over the run's)."""
    return median(e for f in facts if f.whole and (e := log_error(f, eff)) is not None)


def spread(errors: Sequence[tuple[Fact, float]]) -> float:
    """Root mean square of log errors, every study weighing alike."""
    runs = {fact.run for fact, _ in errors}
    means = [sum(e * e for f, e in errors if f.run == run) / sum(f.run == run for f, _ in errors) for run in runs]
    return math.sqrt(sum(means) / len(means))


def sd_of(fact: Fact) -> float:
    """The standard deviation that danlu states for such a row."""
    factor = planning.STEP_FACTOR if fact.accelerator in planning.SEEN else planning.UNSEEN_FACTOR
    return math.log(factor) + (math.log(planning.RUN_FACTOR / planning.STEP_FACTOR) if fact.whole else 0.0)


def main() -> None:
    """Fit, hold out, write."""
    eff = fit(FACTS)
    print(
        {name: round(value_of(eff, name), 4) for name in NAMES},
        "median loss",
        round(math.exp(median_loss(FACTS, eff)), 3),
    )
    drift = max(abs(math.log(value_of(eff, name) / value_of(FITTED, name))) for name in NAMES)
    print(f"roofline.FITTED is off by at most {drift:.1%}")
    left = held_out(FACTS)
    known = [(fact, error) for fact in FACTS if (error := left[fact.name][0]) is not None]
    OUT.write_text("\n".join(page(eff, left, known)) + "\n", encoding="utf-8")
    for what in (False, True):
        rows = [(f, e) for f, e in known if f.whole == what and f.accelerator in planning.SEEN]
        print("whole runs" if what else "steps", len(rows), "rows, rms factor", round(math.exp(spread(rows)), 3))


def page(eff: Efficiency, left: dict[str, tuple[float | None, float]], known: list[tuple[Fact, float]]) -> list[str]:
    """published_runs.md."""
    inside = sum(abs(error) <= Z80 * sd_of(fact) for fact, error in known)
    studies = sorted({fact.run for fact, _ in known})
    by_study = [
        sum(abs(e) <= Z80 * sd_of(f) for f, e in known if f.run == run) / sum(f.run == run for f, _ in known)
        for run in studies
    ]
    lines = [
        "# danlu plan --on against published runs",
        "",
        "`python -m benchmarks.published_runs` writes this page. Error: our tokens a second over theirs, less 1. Fitted: constants "
        "fitted to all rows of timed steps with a known layout. Held out: fitted without any row of that study (the number to "
        "believe). Where the layout is not published, danlu's own best layout is taken. Whole runs are device-hours as reported, "
        "and our steps are divided by what other whole runs lost in the median.",
        "",
        f"{len(FACTS)} rows of {len(studies)} studies, none left out for its error. Held out, the median absolute error is "
        f"{absolute(known, False)} for timed steps, {absolute(known, True)} for whole runs. The stated 80% intervals hold "
        f"{inside} of {len(known)} rows ({inside / len(known):.0%}); with every study weighing alike, "
        f"{sum(by_study) / len(by_study):.0%}.",
        "",
        "Constants: " + ", ".join(f"{name} {value_of(eff, name):.3g}" for name in NAMES) + ".",
        f"Whole runs lose {math.expm1(median_loss(FACTS, eff)):.0%}.",
        "",
        "Not here: runs in fp8 and mixtures of experts, which danlu does not estimate. Rows share hardware and authors, so they are "
        "fewer than they look. Facts marked recalled were not read again while this was made.",
        "",
        "| run | devices | layout | reported | theirs, tokens/s a device | ours | fitted | held out | in 80% | memory, GB of | source |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    return lines + [row(fact, eff, left[fact.name]) for fact in FACTS]


def row(fact: Fact, eff: Efficiency, held: tuple[float | None, float]) -> str:
    """One run's line."""
    error, device = log_error(fact, eff), accelerators()[fact.accelerator]
    layout = str(fact.layout) if fact.layout else "ours"
    source = (
        f"{fact.source} ({'read' if fact.read else 'recalled'}{'; assumed: ' + fact.guessed if fact.guessed else ''})"
    )
    start = (
        f"| {fact.name} | {fact.n_devices:,} {fact.accelerator} | {layout} | {fact.reported} | {fact.tokens_per_s:,.5g}"
    )
    if error is None or held[0] is None:
        return f"{start} | don't know: no layout fits | | | | | {source} |"
    error -= median_loss(FACTS, eff) * fact.whole
    used = (
        f"{device_memory(job_of(fact), fact.layout).total / 1e9:.0f} of {device.memory / 1e9:.0f}"
        if fact.layout
        else ""
    )
    inside = "yes" if abs(held[0]) <= Z80 * sd_of(fact) else "NO"
    errors = f"{math.expm1(error):+.0%} | {math.expm1(held[0]):+.0%} | {inside}"
    return f"{start} | {fact.tokens_per_s * math.exp(error):,.5g} | {errors} | {used} | {source} |"


def absolute(known: list[tuple[Fact, float]], whole: bool) -> str:
    """Median absolute error with its n."""
    errors = [abs(math.expm1(error)) for fact, error in known if fact.whole == whole]
    return f"{median(errors):.1%} (n = {len(errors)})"


if __name__ == "__main__":
    main()
