"""What the terminal shows: live progress, tables, the end of a run. Plain lines when nobody watches."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu.base.contracts import DataCard, Progress, Scores
from danlu.base.errors import one_line

if TYPE_CHECKING:
    from danlu.pipeline import Run
    from danlu.planning.cluster import Estimate
    from danlu.planning.ledger import Decision
    from danlu.planning.prediction import Prediction
    from danlu.stages.check import Check

PLAIN_EVERY_S = 5.0
"""Seconds between two lines of one stage when the output is not a terminal."""
SEEDS_SHOWN = 10
"""Losses of danlu noise that are printed."""


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """A Progress that draws bars on a terminal and prints lines elsewhere.

    `what` is "stage: details"; further lines of it are events, which stay on the screen.
    """
    if not sys.stderr.isatty():
        yield Plain()
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = ("{task.fields[stage]}", "{task.fields[details]}")
    stage, details = (TextColumn(text, markup=False) for text in columns)
    eta = TimeRemainingColumn(compact=True)
    with Bars(stage, BarColumn(24), TimeElapsedColumn(), eta, details, console=Console(stderr=True)) as bars:
        rows: dict[str, int] = {}

        def progress(what: str, done: float, total: float) -> None:
            name, line, events = parts(what)
            if name not in rows:
                rows[name] = bars.add_task(name, total=None, stage=f"{name:9}", details="")
            bars.update(rows[name], completed=done, total=total or None, details=line)  # type: ignore[arg-type]
            for event in events:
                bars.console.print(f"{name}: {event}", markup=False, highlight=False)

        yield progress


class Plain:
    """Progress as lines: the first and last of a stage, one every few seconds between, and every event."""

    def __init__(self) -> None:
        self.stage, self.told_at, self.line = "", 0.0, ""

    def __call__(self, what: str, done: float, total: float) -> None:
        """Print when there is something new to say."""
        name, line, events = parts(what)
        now = time.monotonic()
        if name != self.stage or now - self.told_at >= PLAIN_EVERY_S or (total and done >= total and line != self.line):
            share = f" {100 * done / total:3.0f}%" if total else ""
            print(f"{name}{share}: {line}", file=sys.stderr, flush=True)
            self.stage, self.told_at, self.line = name, now, line
        for event in events:
            print(f"{name}: {event}", file=sys.stderr, flush=True)


def parts(what: str) -> tuple[str, str, list[str]]:
    """ "train: step 3\\nnew best" -> ("train", "step 3", ["new best"])."""
    first, *events = what.split("\n")
    name, _, line = first.partition(": ")
    return name, one_line(line), [one_line(event) for event in events]


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on standard output; the last column wraps."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        made.add_column(column, no_wrap=i == 0, overflow="fold")
    for row in rows:
        made.add_row(*(Text(one_line(cell)) for cell in row))
    width = None if sys.stdout.isatty() else 120
    Console(width=width, highlight=False).print(made)


def show_check(found: Check) -> None:
    """What a run would be."""
    table(found.title, ("setting", "value", "why"), found.rows)
    for note in found.notes:
        print(f"Note: {one_line(note)}")


def show_estimate(title: str, found: Estimate) -> None:
    """A training on machines that one does not have: layouts, then numbers with both intervals."""
    from danlu.planning.cluster import why_not

    ranks = ("best", "runner-up", "third")
    rows = [
        (rank, str(c.layout), f"{c.time.total:.3g} s a step" if rank == "best" else why_not(c, found.candidates[0]))
        for rank, c in zip(ranks, found.candidates, strict=False)
    ]
    if rows:
        table(f"{title}: layouts that fit", ("", "layout", "why"), rows)
    print(f"{'expected':26} {'value':>12}  {'80%':24} 95%")
    for prediction in found.predictions:
        print(prediction_line(prediction))
        if prediction.is_known:
            print(f"    {one_line(prediction.why)}")
    for note in found.notes:
        print(f"Note: {one_line(note)}")
    print("Nothing was run or written. How far such estimates are off is in benchmarks/published_runs.md.")


def show_scores(scores: Scores) -> None:
    """Scores with their intervals, and the baselines under them."""
    rows = []
    for name, metric in scores.metrics.items():
        rows.append(("this model", name, f"{metric.value:.4f}", f"{metric.low:.4f} to {metric.high:.4f}", metric.unit))
    for baseline, metrics in scores.baselines.items():
        for name, metric in metrics.items():
            interval = f"{metric.low:.4f} to {metric.high:.4f}"
            rows.append((baseline, name, f"{metric.value:.4f}", interval, metric.unit))
    table(
        f"Scores on the {scores.split} split ({scores.n_targets:,} targets)",
        ("what", "metric", "value", "95%", "unit"),
        rows,
    )
    verdict = "better than every baseline" if scores.beats_baselines else "NOT better than every baseline"
    print(f"The model is {verdict}.")
    for note in scores.notes:
        print(f"Note: {one_line(note)}")


def show_card(card: DataCard) -> None:
    """Every row accounted for, and the splits."""
    rejected = ", ".join(f"{n:,} {reason}" for reason, n in card.rows_rejected.items()) or "none"
    print(
        f"Rows: {card.rows_in:,} in = {card.rows_used:,} used + {sum(card.rows_rejected.values()):,} rejected ({rejected})."
    )
    for name, split in card.splits.items():
        if split.n_samples:
            print(f"{name}: {split.n_samples:,} samples, {split.n_targets:,} targets")
        else:
            print(f"{name}: {split.n_documents:,} documents, {split.n_bytes:,} bytes, {split.n_tokens:,} tokens")
    for warning in card.warnings:
        print(f"Note: {one_line(warning)}")


def show_tune(found: Mapping[str, Any]) -> None:
    """What a comparison of arms came to."""
    compared = {row["arm"]: row for row in found["comparisons"]}
    rows = []
    for arm in found["arms"]:
        row = compared.get(arm["name"], {})
        told = row.get("found", "default")
        none = "diverged" if told == "diverged" else "not run"
        mean = none if arm["mean"] is None else f"{arm['mean']:.4f}"
        effect = interval = ""
        if row.get("mean") is not None:
            effect = f"{row['mean'] / row['base']:+.2%}"
            interval = (
                "" if row["low"] is None else f"{row['low'] / row['base']:+.2%} to {row['high'] / row['base']:+.2%}"
            )
        speed = f"{arm['step_s'] * 1000:.3g} ms" if arm["step_s"] else ""
        rows.append((arm["name"], mean, effect, interval, str(len(arm["values"])), f"{arm['lr']:.3g}", speed, told))
    columns = ("arm", found["metric"], "better by", "interval", "seeds", "rate", "a step", "found")
    cost = found["cost"]
    table(f"{cost['runs']} runs of {found['n_steps']:,} steps, {cost['seconds']:.0f} s", columns, rows)
    for row in found["comparisons"]:
        print(one_line(row["sentence"]))
    for note in found["notes"]:
        print(f"Note: {one_line(note)}")
    print(one_line(found["verdict"]))
    print(f"Report: {Path(found['folder'], 'report.html').resolve()}")


def show_batch(found: Mapping[str, Any]) -> None:
    """What branches at growing batches came to."""
    rows = []
    for row in found["rows"]:
        cost = "diverged" if row["above"] is None else f"{row['above']:+.2%}"
        error = "" if not row["error"] else f"± {row['error']:.2%}"
        name = f"{row['batch']} (planned)" if row["batch"] == found["planned"] else str(row["batch"])
        rows.append((name, f"{row['rate']:.3g}", cost, error, f"{row['step_s'] * 1000:.3g} ms", f"{row['per_s']:,.0f}"))
    columns = ("batch", "rate", "loss above the smallest's", "", "an update", "samples/s")
    title = f"{found['n_samples']:,} samples in each, after {found['after']:,}; {found['cost']['seconds']:.0f} s"
    table(title, columns, rows)
    for said in (found["verdict"], *found["notes"]):
        print(one_line(said))
    print(f"Report: {Path(found['folder'], 'report.html').resolve()}")


def show_noise(found: Mapping[str, Any]) -> None:
    """What runs that differ in their seed came to."""
    from danlu.planning.noise_told import percent
    from danlu.stages.report_noise import NoiseRecord, sources

    record = NoiseRecord(**found)
    title = (
        f"{record.cost.runs:,} runs of {record.n_steps:,} steps that differ in their seed, {record.cost.seconds:.0f} s"
    )
    table(title, ("noise of", "relative sd", "95%"), sources(record))
    shown = [
        f"{'diverged' if row.loss is None else f'{row.loss:.4f}'} (seed {row.seed})"
        for row in record.losses[:SEEDS_SHOWN]
    ]
    more = len(record.losses) - len(shown)
    print(f"Losses: {', '.join(shown)}" + (f", and {more:,} more in noise/result.json" if more else ""))
    if record.seed.sd is not None:
        told = [(str(row.n), percent(row.same), percent(row.other)) for row in record.resolves]
        table("Differences that runs tell apart", ("runs an arm", "on this split", "on others too"), told)
    for note in record.notes:
        print(f"Note: {one_line(note)}")
    print(one_line(record.verdict))
    print(f"Report: {Path(found['folder'], 'report.html').resolve()}")


def show_plan(run: Run) -> None:
    """The plan on one screen."""
    print("\n".join(plan_lines(run)))


def plan_lines(run: Run, width: int = 100, height: int = 40) -> list[str]:
    """At most `height` lines of `width` columns: each decision with its interval, how it was found and what it costs to be
    wrong; predictions with their intervals; what planning cost. What has no room is named and stands in plan.json."""
    from danlu.base.runfolder import read_json
    from danlu.planning.ledger import read_decisions, read_predictions

    found, decided = read_json(run.folder.plan), read_decisions(run.folder)
    predictions, cost = [prediction_line(p) for p in read_predictions(found)], found.get("cost", {})
    if predictions:
        predictions = ["", f"{'predicted':26} {'value':>12}  {'80 of 100 runs':24} 95 of 100 runs", *predictions]
    share = f", {cost['share']:.1%} of the predicted training time" if "share" in cost else ""
    spent = [f"Planning took {cost['planning_s']:.1f} s{share}."] if "planning_s" in cost else []
    head = f"{'setting':22} {'value':>12}  {'between':20} how it was found"
    foot = [*predictions, "", *spent, f"Run folder: {run.path}"]
    lines = [head, *fitted(decided, height - 1 - len(foot)), *foot]
    return [cut(line, width) for line in lines]


def fitted(decided: Sequence[Decision], room: int) -> list[str]:
    """As much on the decisions as so many lines hold: all; without the reasons; without what was merely computed."""
    for has_reasons in (True, False):
        lines = [line for d in decided for line in decision_lines(d, has_reasons)]
        if len(lines) <= room:
            return lines
    told = [d for d in decided if d.origin != "derived"][: max(0, room - 1)]
    names = [d.name for d in decided if d not in told]
    return [*(decision_lines(d, False)[0] for d in told), f"and {len(names)} more: {', '.join(names)}"]


def decision_lines(decision: Decision, has_reasons: bool) -> list[str]:
    """Setting, value, interval and origin; below, where it was not merely computed, the reason and the cost of a miss."""
    from danlu.stages.report_html import number

    ends = [number(end, 3) for end in (decision.low, decision.high) if end is not None]
    first = f"{decision.name:22} {number(decision.value, 3):>12}  {' to '.join(ends) if len(ends) == 2 else '':20} "
    if decision.origin == "derived":
        return [f"{first}derived: {decision.why}"]
    first += decision.origin if decision.in_range else f"{decision.origin}, outside its range"
    why, _, unmeasured = decision.why.partition(" Not measured: ")
    why = f"not measured: {unmeasured} {why}" if unmeasured else why
    below = [why, f"if wrong: {decision.if_wrong}" if decision.if_wrong else ""] if has_reasons else []
    return [first, *(f"    {line}" for line in below if line)]


def prediction_line(prediction: Prediction) -> str:
    """Value and both intervals, or why nobody knows."""
    from danlu.stages.report_scorecard import named, shown

    name, value, nobody = named(prediction.name), prediction.value, "don't know"
    if value is None:
        return f"{name:26} {nobody:>12}  {prediction.why}"
    pairs = [prediction.ends(level) for level in (80, 95)]
    said = [
        " to ".join(shown(x, prediction.unit, value) for x in pair) if pair[0] < pair[1] else "exact" for pair in pairs
    ]
    return f"{name:26} {shown(value, prediction.unit, value):>12}  {said[0]:24} {said[1]}"


def cut(text: str, width: int) -> str:
    """One line of at most `width` characters."""
    line = one_line(text).rstrip()
    return line if len(line) <= width else line[: width - 1] + "…"


def show_scorecard(run: Run) -> None:
    """Predictions against outcomes, where the run was scored."""
    from danlu.base.runfolder import read_json
    from danlu.stages.report_evidence import ScorecardRecord
    from danlu.stages.report_scorecard import HEADS, error, interval, named, shown

    path = run.folder.evaluate / "scorecard.json"
    if not path.is_file():
        return
    card = ScorecardRecord(**read_json(path))
    rows = [
        (
            named(row.name), row.made, shown(row.value, row.unit, row.value), interval(row),
            shown(row.outcome, row.unit, row.value), error(row), "yes" if row.inside80 else "no",
        )
        for row in card.scores
        if row.value is not None and row.outcome is not None
    ]  # fmt: skip
    if rows:
        table("Predicted and measured", ("what", "when", *HEADS[:2], *HEADS[3:6]), rows)
    for note in card.notes:
        print(f"Note: {one_line(note)}")


def show_run(run: Run) -> None:
    """The end of a run: its rows, its scores, and where to look."""
    if (run.folder.data / "card.json").is_file():
        show_card(run.card)
    if (run.folder.evaluate / "scores.json").is_file():
        show_scores(run.scores)
    show_scorecard(run)
    print(f"Run folder: {run.path}")
    if run.report.is_file():
        print(f"Report: {run.report.resolve()}")
