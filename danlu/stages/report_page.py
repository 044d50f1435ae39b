"""The sections of the page, top to bottom. Charts are empty figures here; report.js draws into them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from danlu.base.contracts import Metric
from danlu.base.units import short_count
from danlu.stages.report_alarm import alarm
from danlu.stages.report_arms import which_of_these
from danlu.stages.report_batch import batch
from danlu.stages.report_curves import N_EVENTS, SIGNALS, event_kind, shown_events
from danlu.stages.report_evidence import Evidence
from danlu.stages.report_html import Html, duration, fixed, join, number, percent, size, tag
from danlu.stages.report_noise import how_much_is_chance
from danlu.stages.report_panels import panels
from danlu.stages.report_scorecard import scorecard
from danlu.stages.report_tables import data, decisions, settings
from danlu.stages.report_verdict import Finding, findings, spread, unit_of, verdict

SIGNAL_TITLES = {
    "grad_norm": (
        "Gradient norm",
        "Even rows are healthy; rows that fade or glare name vanishing or exploding layers.",
    ),
    "update_ratio": (
        "Update / weight",
        "How far one update moves a layer, relative to its size. About 0.001 is usual.",
    ),
    "dead_frac": ("Dead units", "Share of units that gave zero for every input of the batch."),
}
PART_WORDS = {
    "data": "waiting for data",
    "forward": "forward",
    "backward": "backward",
    "optimizer": "update",
    "checkpoint": "checkpoint",
    "evaluate": "evaluate",
    "other": "other",
}
SAMPLE_LIMIT = 6000
"""Characters of a sample that are shown."""


def title(evidence: Evidence) -> str:
    """For the browser's tab."""
    if evidence.headline is None:
        return f"{evidence.name} · danlu"
    metric, score = evidence.headline
    return f"{evidence.name}: {fixed(score.value, score.value)} {unit_of(metric, score)} · danlu"


def body(evidence: Evidence) -> Html:
    """The whole page between <body> and </body>, without the data of the curves."""
    sections: list[tuple[str, str, Callable[[Evidence], Html | None]]] = [
        ("scorecard", "Predicted and measured", scorecard),
        ("learning", "Learning", learning),
        ("alarm", "Alarm", alarm),
        ("layers", "Inside the model", layers),
        ("time", "Where the time went", time_spent),
        ("samples", "Samples", samples),
        ("looked", "A closer look", panels),
        ("data", "Data", data),
        ("decisions", "How each number was found", decisions),
        ("arms", "Which of these?", lambda found: which_of_these(found.tune) if found.tune else None),
        ("noise", "How much is chance?", lambda found: how_much_is_chance(found.noise) if found.noise else None),
        ("batch", "How large may the batch be?", batch_size),
        ("events", "Events", events),
        ("settings", "Settings", settings),
        ("environment", "Environment", environment),
    ]
    drawn = [(key, words, content) for key, words, make in sections if (content := make(evidence)) is not None]
    links = [tag("li", tag("a", words, href=f"#{key}")) for key, words, _ in drawn]
    nav = tag("nav", tag("ol", *links), aria_label="Sections", class_="contents") if drawn else None
    blocks = [
        tag("section", tag("h2", words, id=f"{key}-title"), content, id=key, aria_labelledby=f"{key}-title")
        for key, words, content in drawn
    ]
    return join(top(evidence), tag("div", nav, tag("main", *blocks), class_="page"), bottom(evidence))


def top(evidence: Evidence) -> Html:
    """Name, verdict, the score against its baselines, the numbers, what stands out."""
    button = tag("button", "Dark", type="button", id="theme", class_="screen-only", hidden=True)
    brand = tag("p", tag("span", "丹炉", class_="seal", lang="zh", aria_hidden="true"), " danlu report", class_="brand")
    made = [str(s.get("finished", "")) for s in stages(evidence).values()]
    when = max(made, default="")
    return tag(
        "header",
        tag("div", brand, button, class_="bar"),
        tag("h1", evidence.name),
        tag("p", day(when), class_="when") if when else None,
        verdict(evidence),
        tag("div", score_bars(evidence), facts(evidence), class_="top"),
        stands_out(findings(evidence)),
    )


def day(stamp: str) -> str:
    """2026-03-02T09:41:00+00:00 -> "2 March 2026, 09:41 UTC"; anything else as it is."""
    try:
        at = datetime.fromisoformat(stamp)
    except ValueError:
        return stamp
    return f"{at.day} {at:%B %Y, %H:%M} {at.tzname() or ''}".strip()


def stands_out(every: list[Finding]) -> Html | None:
    """The findings as a list; tone is said by a word as well as by colour."""
    words = {"warn": "Look", "good": "Good", "plain": "Note"}
    items = [tag("li", tag("b", words[f.tone]), tag("span", f.text), class_=f.tone) for f in every]
    return tag("ul", *items, class_="findings", aria_label="What stands out") if items else None


def score_bars(evidence: Evidence) -> Html | None:
    """The score and its baselines as bars with intervals, on one scale from zero."""
    if evidence.headline is None or evidence.scores is None:
        return None
    metric, score = evidence.headline
    lower = evidence.lower_is_better(metric)
    rows: list[tuple[str, Metric, bool]] = [("this model", score, True)]
    rows += [(name, rival, False) for name, rival in evidence.rivals.items()]
    rows.sort(key=lambda row: row[1].value, reverse=not lower)
    most = max([abs(m.high) for _, m, _ in rows] + [abs(m.value) for _, m, _ in rows]) or 1.0
    bars = [score_bar(name, m, most, ours) for name, m, ours in rows]
    better = "lower is better" if lower else "higher is better"
    caption = tag("figcaption", tag("b", unit_of(metric, score)), f" on {evidence.scores.split}, {better}")
    others = [
        tag("li", tag("span", unit_of(n, m)), tag("b", fixed(m.value, m.value)), spread(m))
        for n, m in evidence.scores.metrics.items()
        if n != metric
    ]
    extra = tag("ul", *others, class_="others") if others else None
    notes = [tag("li", note) for note in evidence.scores.notes]
    how = tag("details", tag("summary", "How this was measured"), tag("ul", *notes), class_="notes note")
    return tag("figure", caption, tag("ol", *bars, class_="scores"), extra, how if notes else None, class_="score-card")


def score_bar(name: str, score: Metric, most: float, ours: bool) -> Html:
    """One bar: its length is the value, the whisker its interval."""
    left, right = (max(0.0, min(100.0, 100 * v / most)) for v in (score.low, score.high))
    whisker = tag("i", style=f"left:{left:.2f}%;width:{max(right - left, 0.0):.2f}%") if right > left else None
    width = max(0.0, min(100.0, 100 * score.value / most))
    track = tag("span", tag("span", style=f"width:{width:.2f}%", class_="fill"), whisker, class_="track")
    value = tag("span", tag("b", fixed(score.value, score.value)), tag("small", spread(score)), class_="value")
    return tag("li", tag("span", name, class_="name"), track, value, class_="ours" if ours else None)


def facts(evidence: Evidence) -> Html | None:
    """The numbers of the run as tiles."""
    tiles: list[tuple[str, str, str]] = []
    if evidence.n_parameters:
        tiles.append(("parameters", short_count(evidence.n_parameters), str(evidence.setting("model.kind") or "")))
    if training := evidence.training:
        tiles.append(("training time", duration(training.columns["elapsed_s"][-1]), f"{training.n_steps:,} steps"))
        seen = sum(v for v in training.columns["n_targets"] if math.isfinite(v))
        in_train = (
            (evidence.card.splits["train"].n_tokens or evidence.card.splits["train"].n_targets)
            if evidence.card and "train" in evidence.card.splits
            else 0
        )
        passes = f"{seen / in_train:.2g} times the training split" if in_train else ""
        tiles.append(("targets seen", short_count(seen), passes))
        took = training.columns["elapsed_s"][-1]
        if took > 0:
            tiles.append(("targets a second", short_count(seen / took), "over the whole run"))
        if training.best:
            tiles.append(("best validation loss", number(training.best[1]), f"at step {training.best[0]:,}"))
    spent = sum(float(s.get("seconds") or 0) for s in stages(evidence).values())
    if spent:
        tiles.append(("all stages", duration(spent), ", ".join(stages(evidence))))
    items = [
        tag("div", tag("dt", what), tag("dd", tag("b", value), tag("small", more) if more else None))
        for what, value, more in tiles
    ]
    return tag("dl", *items, class_="facts") if items else None


def stages(evidence: Evidence) -> Mapping[str, Mapping[str, Any]]:
    """Finished stages of the manifest."""
    found = evidence.manifest.get("stages")
    return {k: v for k, v in found.items() if isinstance(v, dict)} if isinstance(found, dict) else {}


def chart(name: str, words: str, note: str = "", class_: str = "chart") -> Html:
    """An empty figure for report.js, with a line for the values under the crosshair."""
    caption = tag("figcaption", tag("b", words), " ", tag("span", note) if note else None)
    readout = tag("p", Html("&nbsp;"), class_="readout", aria_live="polite")
    return tag("figure", caption, readout, tag("div", class_="plot"), class_=class_, data_chart=name)


def learning(evidence: Evidence) -> Html | None:
    """Loss, learning rate, gradient norm and speed over the run."""
    if evidence.training is None:
        return None
    switches = tag(
        "div",
        tag("button", "Logarithmic steps", type="button", id="log-x", aria_pressed="false"),
        tag("button", "By time", type="button", id="by-time", aria_pressed="false"),
        class_="switches screen-only",
    )
    small = [
        chart("lr", "Learning rate"),
        chart("norm", "Gradient norm", "before clipping"),
        chart("per_s", "Targets a second"),
    ]
    note = "units of the loss per target: smoothed training line, every step's value as a band, validation as points"
    return join(switches, chart("loss", "Loss", note, "chart large"), tag("div", *small, class_="small-charts"))


def layers(evidence: Evidence) -> Html | None:
    """One heat map a signal: layers down, steps across."""
    if evidence.training is None or not evidence.training.layers.items:
        return None
    present = {s for _, _, row in evidence.training.layers.items for signals in row.values() for s in signals}
    maps = [chart(f"map:{s}", *SIGNAL_TITLES[s], "chart map") for s in SIGNALS if s in present]
    return join(*maps) if maps else None


def batch_size(evidence: Evidence) -> Html | None:
    """What danlu batch found, and the gradient noise that training measured."""
    noises = evidence.training.noises.items if evidence.training is not None else []
    return batch(evidence.batch, [(step, entry) for step, _, entry in noises])


def time_spent(evidence: Evidence) -> Html | None:
    """Seconds by part: one bar of the whole, and how it went over the run."""
    if evidence.training is None:
        return None
    parts = evidence.training.seconds_by_part()
    total = sum(parts.values())
    if total <= 0:
        return None
    bar = [tag("span", style=f"width:{100 * t / total:.3f}%", class_=f"part-{name}") for name, t in parts.items()]
    legend = [
        tag(
            "tr",
            tag("th", tag("i", class_=f"part-{name}"), PART_WORDS[name], scope="row"),
            tag("td", percent(t / total)),
            tag("td", duration(t)),
            tag("td", f"{duration(t / evidence.training.n_steps)} a step"),
        )
        for name, t in parts.items()
    ]
    whole = join(
        tag("div", *bar, class_="whole", role="img", aria_label="Share of each part; the table has the numbers."),
        tag("table", tag("tbody", *legend), class_="parts"),
    )
    return tag(
        "div", tag("div", whole), chart("times", "Seconds a step", "rare slow steps run off the top"), class_="two"
    )


def samples(evidence: Evidence) -> Html | None:
    """Texts of the model: the prompt in bold, then what it wrote."""
    if not evidence.scores or not evidence.scores.samples:
        return None
    cards = []
    for sample in evidence.scores.samples:
        text = sample.get("text", "")
        cut = tag("em", " … cut here") if len(text) > SAMPLE_LIMIT else None
        prompt = tag("b", sample.get("prompt", ""))
        # tabindex: a scrolling box must be reachable by keyboard
        box = tag("pre", prompt, text[:SAMPLE_LIMIT], cut, tabindex="0", dir="auto")
        cards.append(tag("figure", box, tag("figcaption", sample.get("settings", "")), class_="sample"))
    return join(tag("p", "The prompt is bold; the rest is the model's.", class_="note"), *cards)


def events(evidence: Evidence) -> Html | None:
    """What happened, in order; the same marks as on the loss curve."""
    if evidence.training is None or not evidence.training.events:
        return None
    shown = shown_events(evidence.training)
    items = []
    for step, at, text in shown:
        kind = event_kind(text)
        where = tag("span", f"step {step:,}", tag("small", duration(at)), class_="step")
        items.append(tag("li", tag("i", class_=f"mark {kind}", aria_hidden="true"), where, tag("span", text)))
    left = len(evidence.training.events) - len(shown)
    more = tag("p", f"And {left:,} more in train/metrics.jsonl (the page shows {N_EVENTS}).", class_="note")
    return join(tag("ol", *items, class_="events"), more if left else None)


def environment(evidence: Evidence) -> Html | None:
    """Versions and machine, and what each stage took."""
    rows = [
        tag(
            "div",
            tag("dt", key.removeprefix("n_").removesuffix("_bytes").replace("_", " ")),
            tag("dd", shown_fact(key, v)),
        )
        for key, v in evidence.environment.items()
        if isinstance(v, str | int | float)
    ]
    timed = [
        tag(
            "tr",
            tag("th", name, scope="row"),
            tag("td", duration(float(record.get("seconds") or 0))),
            tag("td", str(record.get("finished", ""))[:16].replace("T", " ")),
            tag("td", tag("code", str(record.get("inputs", ""))[:8])),
        )
        for name, record in stages(evidence).items()
    ]
    head = tag("tr", *(tag("th", h, scope="col") for h in ("stage", "took", "finished", "inputs")))
    table = tag("table", tag("thead", head), tag("tbody", *timed), class_="stages") if timed else None
    listed = tag("dl", *rows, class_="pairs") if rows else None
    return tag("div", listed, table, class_="two") if listed or table else None


def shown_fact(key: str, value: str | int | float) -> str:
    """Bytes as a size, everything else as it is."""
    return size(value) if key.endswith("_bytes") and not isinstance(value, str) else number(value)


def bottom(evidence: Evidence) -> Html:
    """What is missing, and where the page came from."""
    parts = {
        "data/card.json": evidence.card,
        "plan.json": evidence.plan,
        "train/metrics.jsonl": evidence.training,
        "evaluate/scores.json": evidence.scores,
    }
    missing = [name for name, found in parts.items() if found is None]
    told = f"Not in this run yet: {', '.join(missing)}. " if missing else ""
    text = "Made by danlu from the run folder alone. The page needs no network."
    return tag("footer", tag("p", told, text))
