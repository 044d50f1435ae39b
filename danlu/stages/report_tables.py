"""The sections that are lists: the data's path, the plan's decisions, every setting."""

from __future__ import annotations

import math
from itertools import groupby

from danlu.base.contracts import DataCard, StationCard
from danlu.stages.report_drawings import drawing
from danlu.stages.report_evidence import Decision, Evidence, PlanRecord, SettingRow, Timing
from danlu.stages.report_html import Html, duration, join, number, percent, size, tag

STATION_WORDS = {"pii": "personal data", "unicode": "Unicode"}
SECTION_WORDS = {"": "the run"}


def data(evidence: Evidence) -> Html | None:
    """Rows in, what each station dropped and why, and the splits they ended in."""
    card = evidence.card
    if card is None:
        return None
    flow = [tag("li", *flow_row("rows read", card.rows_in, 0, card.rows_in), class_="source")]
    flow += [tag("li", *station(s, card.rows_in)) for s in card.stations]
    lead = tag(
        "p", "From ", tag("code", tag("bdi", card.source)), f", {card.kind}. The bars count rows.", class_="note"
    )
    return join(lead, tag("ol", *flow, class_="flow"), splits(card), facts(card))


def flow_row(name: str, kept: int, dropped: int, most: int) -> tuple[Html, Html, Html]:
    """Name, a bar of what went on and what was dropped, and the count that went on."""
    share = 100 / max(most, 1)
    bar = tag(
        "span",
        tag("span", style=f"width:{kept * share:.2f}%", class_="fill"),
        tag("span", style=f"width:{dropped * share:.2f}%", class_="lost") if dropped else None,
        class_="track",
    )
    lost = tag("small", f" −{dropped:,}") if dropped else None
    return tag("span", name, class_="name"), bar, tag("span", tag("b", f"{kept:,}"), lost, class_="value")


def station(card: StationCard, most: int) -> tuple[Html | None, ...]:
    """One station's row, its reasons, and examples to open."""
    dropped = sum(card.n_dropped.values())
    name = STATION_WORDS.get(card.name, card.name.replace("_", " "))
    row = flow_row(name, card.n_in - dropped, dropped, most)
    reasons = [f"{reason}: {n:,}" for reason, n in sorted(card.n_dropped.items(), key=lambda pair: -pair[1])]
    if card.n_changed:
        reasons.append(f"changed and passed on: {card.n_changed:,}")
    why = tag("span", "; ".join(reasons), class_="why") if reasons else None
    examples = [
        tag("li", tag("b", e.get("row", "")), " ", e.get("reason", ""), tag("pre", e.get("text", ""), dir="auto"))
        for e in card.examples
    ]
    count = f"{len(examples)} example" + ("s" if len(examples) > 1 else "")
    shown = tag("details", tag("summary", count), tag("ul", *examples)) if examples else None
    return (*row, why, shown)


def splits(card: DataCard) -> Html | None:
    """The used rows by split."""
    if not card.splits:
        return None
    if any(s.n_samples for s in card.splits.values()):
        return sample_splits(card)
    total = sum(s.n_tokens for s in card.splits.values()) or 1
    bar = [
        tag("span", style=f"width:{100 * s.n_tokens / total:.2f}%", class_=f"split-{i}")
        for i, s in enumerate(card.splits.values())
    ]
    rows = [
        tag(
            "tr",
            tag("th", tag("i", class_=f"split-{i}"), name, scope="row"),
            tag("td", f"{s.n_documents:,}"),
            tag("td", size(s.n_bytes)),
            tag("td", f"{s.n_tokens:,}"),
            tag("td", percent(s.n_tokens / total)),
        )
        for i, (name, s) in enumerate(card.splits.items())
    ]
    head = tag("tr", *(tag("th", h, scope="col") for h in ("split", "rows", "text", "tokens", "share")))
    table = tag("table", tag("thead", head), tag("tbody", *rows), class_="parts splits")
    whole = tag("div", *bar, class_="whole", role="img", aria_label="Tokens by split; the table has the numbers.")
    return join(tag("h3", "Splits"), whole, table)


def sample_splits(card: DataCard) -> Html:
    """Samples and targets by split."""
    total = sum(s.n_samples for s in card.splits.values()) or 1
    shares = [s.n_samples / total for s in card.splits.values()]
    bar = [tag("span", style=f"width:{100 * share:.2f}%", class_=f"split-{i}") for i, share in enumerate(shares)]
    rows = [
        tag(
            "tr",
            tag("th", tag("i", class_=f"split-{i}"), name, scope="row"),
            tag("td", f"{s.n_samples:,}"),
            tag("td", f"{s.n_targets or s.n_samples:,}"),
            tag("td", percent(s.n_samples / total)),
        )
        for i, (name, s) in enumerate(card.splits.items())
    ]
    head = tag("tr", *(tag("th", h, scope="col") for h in ("split", "samples", "targets", "share")))
    table = tag("table", tag("thead", head), tag("tbody", *rows), class_="parts splits")
    whole = tag("div", *bar, class_="whole", role="img", aria_label="Samples by split; the table has the numbers.")
    return join(tag("h3", "Splits"), whole, table)


def facts(card: DataCard) -> Html | None:
    """Vocabulary and the leakage check, as pairs."""
    pairs: list[tuple[str, str]] = []
    if card.vocab_size:
        kind = str(card.tokenizer.get("kind", ""))
        pairs.append(("vocabulary", f"{card.vocab_size:,} {kind} tokens".replace("  ", " ")))
    train = card.splits.get("train")
    if train and train.n_tokens:
        pairs.append(("bytes a token", number(train.n_bytes / train.n_tokens, 3)))
    for key, value in card.leakage.items():
        if isinstance(value, str | int | float):
            pairs.append((f"leakage check: {key.removeprefix('n_').replace('_', ' ')}", number(value)))
    rows = [tag("div", tag("dt", key), tag("dd", value)) for key, value in pairs]
    return tag("dl", *rows, class_="pairs") if rows else None


def decisions(evidence: Evidence) -> Html | None:
    """Each number of the plan with its reason, and the timings that chose."""
    plan = evidence.plan
    if plan is None or not (plan.decisions or plan.timings):
        return None
    computed = [d for d in plan.decisions if d.origin == "derived" and d.low is None and not d.evidence]
    cards = [decision(d) for d in plan.decisions if d not in computed]
    rows = [
        tag("tr", tag("th", tag("code", d.name), scope="row"), tag("td", tag("b", number(d.value))), tag("td", d.why))
        for d in computed
    ]
    rest = join(tag("h3", "Followed from these by arithmetic"), tag("table", tag("tbody", *rows), class_="computed"))
    timed = [timing(name, group) for name, group in plan.timings.items() if group]
    timings = join(tag("h3", "Timed on this machine, the fastest marked"), tag("div", *timed, class_="small-charts"))
    return join(
        spent(plan),
        tag("div", *cards, class_="decisions") if cards else None,
        timings if timed else None,
        rest if rows else None,
        foreseen(evidence),
    )


def spent(plan: PlanRecord) -> Html | None:
    """What planning cost."""
    seconds, share = plan.cost.get("planning_s"), plan.cost.get("share")
    if seconds is None:
        return None
    of_run = f", {percent(share)} of the predicted training time" if share is not None else ""
    return tag("p", f"Planning took {duration(seconds)}{of_run}.", class_="note")


def foreseen(evidence: Evidence) -> Html | None:
    """What the run itself showed of its end while it trained."""
    forecast = evidence.forecast
    drawn = drawing(forecast.drawn()) if forecast else None
    if forecast is None or drawn is None:
        return None
    said = tag("p", forecast.sentence) if forecast.sentence else None
    return join(tag("h3", f"The end of the run, foreseen at step {forecast.step:,}"), said, drawn)


def decision(d: Decision) -> Html:
    """One decision as a card."""
    outside = None if d.in_range else tag("strong", "outside its range: ", class_="outside")
    valid = tag("p", outside, "Holds for ", d.valid.rstrip("."), ".", class_="valid") if d.valid else None
    if d.valid == "" and not d.in_range:
        valid = tag("p", tag("strong", "outside its range", class_="outside"), class_="valid")
    drawn = drawing(d.evidence)
    others = [
        tag("li", "not ", tag("b", number(other.get("value"))), f": {other.get('why', '')}") for other in d.alternatives
    ]
    words = join(
        tag("h3", tag("code", d.name)),
        tag("p", tag("b", number(d.value)), origin(d.origin), class_="chosen"),
        interval(d),
        tag("p", d.why) if d.why else None,
        tag("p", f"If it is wrong: {d.if_wrong.rstrip('.')}.") if d.if_wrong else None,
        tag("ul", *others, class_="rejected") if others else None,
        valid,
        tag("p", d.source, class_="cite") if d.source else None,
    )
    return tag("article", tag("div", words), tag("div", drawn), class_="wide") if drawn else tag("article", words)


def interval(d: Decision) -> Html | None:
    """Where the value lies between its bounds; on a logarithmic line where they allow it."""
    value = d.value
    if d.low is None or d.high is None or isinstance(value, bool) or not isinstance(value, int | float):
        return None
    low, high, at = float(d.low), float(d.high), float(value)
    if min(low, at) > 0 and math.isfinite(high):
        low, high, at = math.log(low), math.log(high), math.log(at)
    if not high > low:
        return None
    place = 100 * max(0.0, min(1.0, (at - low) / (high - low)))
    return tag(
        "p",
        tag("span", number(d.low)),
        tag("span", tag("i", style=f"left:{place:.1f}%"), class_="line"),
        tag("span", number(d.high)),
        class_="interval",
        title="Plausible values",
    )


def timing(name: str, group: tuple[Timing, ...]) -> Html:
    """Candidates of one choice as bars, the fastest marked."""
    most = max(t.seconds for t in group) or 1.0
    least = min(t.seconds for t in group)
    rows = [
        tag(
            "li",
            tag("span", t.name, class_="name"),
            tag("span", tag("span", style=f"width:{100 * t.seconds / most:.1f}%", class_="fill"), class_="track"),
            tag("span", duration(t.seconds), class_="value"),
            class_="ours" if t.seconds == least else None,
        )
        for t in group
    ]
    return tag("figure", tag("figcaption", tag("b", name.replace("_", " "))), tag("ol", *rows, class_="scores"))


def origin(text: str) -> Html | None:
    """Where a value came from: a chip with its first word, and the rest beside it."""
    if not text:
        return None
    word, _, rest = text.partition(":")
    kind = word.strip().split(" ")[0].lower()
    chip = tag("span", word.strip(), class_=f"chip {kind if kind.isalpha() else ''}".strip())
    return join(" ", chip, tag("span", rest.strip(), class_="origin") if rest.strip() else None)


def settings(evidence: Evidence) -> Html | None:
    """Every setting by section: value, origin and meaning."""
    if not evidence.settings:
        return None
    n_given = sum(row.origin.startswith("given") for row in evidence.settings)
    filters = tag(
        "div",
        tag("label", "Find a setting", for_="find"),
        tag("input", type="search", id="find", autocomplete="off", placeholder="lr, batch, seed …"),
        tag("button", f"Only the {n_given} given", type="button", id="only-given", aria_pressed="false"),
        tag("span", id="found", aria_live="polite", class_="note"),
        class_="switches screen-only",
    )
    top = sorted(evidence.settings, key=lambda row: "." in row.name)  # stable: the sections keep their order
    groups = []
    for section, rows in groupby(top, key=lambda row: row.name.partition(".")[0] if "." in row.name else ""):
        items = [setting(row) for row in rows]
        groups.append(tag("div", tag("h3", SECTION_WORDS.get(section, section)), tag("dl", *items), class_="group"))
    return join(filters, tag("div", *groups, class_="settings"))


def setting(row: SettingRow) -> Html:
    """One setting."""
    short = row.name.partition(".")[2] or row.name
    value = tag("dd", tag("code", number(row.value) if row.value != "" else '""'), origin(row.origin))
    meaning = tag("dd", row.meaning, class_="meaning") if row.meaning else None
    given = "given" if row.origin.startswith("given") else None
    return tag("div", tag("dt", short), value, meaning, class_=given, data_name=row.name.lower())
