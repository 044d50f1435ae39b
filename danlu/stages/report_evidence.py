"""Everything the report may claim, read from one run folder. A part that is missing or broken is None, and noted."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

from danlu.base.contracts import DataCard, Metric, Scores
from danlu.base.errors import UserError
from danlu.base.runfolder import RunFolder, read_json
from danlu.base.settings import Chosen, Settings
from danlu.base.settings import meanings as docstrings
from danlu.stages.report_arms import TuneRecord
from danlu.stages.report_batch import BatchRecord
from danlu.stages.report_curves import Training, read_training
from danlu.stages.report_noise import NoiseRecord

Part = TypeVar("Part")
LOWER_IS_BETTER = ("loss", "bits", "perplexity", "error", "nats", "mse", "mae")
"""A metric whose name holds one of these is better when it is lower."""


RAN_WITH = ("device", "threads", "precision", "operations", "attention", "compile", "batch", "micro_batch")
"""What the plan settled about how the machine is used."""


OLD_UNITS = {"train_s": "s", "step_s": "s", "peak_bytes": "bytes"}
"""Predictions of plans that had no intervals, with their units."""


FORKS_NOTE = "Points: copies of the run that were cooled down and looked at; line: the looks to come, as expected then."


class Reading(BaseModel):
    """A part of a file of the run folder: what is not known here is left alone."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Decision(Reading):
    """One number of the plan, with its reason."""

    name: str
    value: Any = None
    origin: str = ""
    why: str = ""
    source: str = ""
    valid: str = ""
    in_range: bool = True
    low: float | None = None
    high: float | None = None
    if_wrong: str = ""
    evidence: dict[str, Any] = {}
    alternatives: tuple[dict[str, Any], ...] = ()


class Predicted(Reading):
    """One prediction of the plan."""

    name: str
    value: float | None = None
    unit: str = ""
    low80: float | None = None
    high80: float | None = None
    low95: float | None = None
    high95: float | None = None
    why: str = ""
    origin: str = ""
    calibration: dict[str, float] = {}


class Timing(Reading):
    """Seconds of one candidate."""

    name: str
    seconds: float


class ScoredRow(Predicted):
    """A prediction beside its outcome, where there is one yet."""

    made: str = "before training"
    outcome: float | None = None
    error: float | None = None
    is_relative: bool = True
    inside80: bool | None = None
    inside95: bool | None = None


class ScorecardRecord(Reading):
    """evaluate/scorecard.json."""

    finished: str = ""
    scores: tuple[ScoredRow, ...] = ()
    notes: tuple[str, ...] = ()


class ForecastRecord(Reading):
    """train/forecast.json: predictions made during the run."""

    step: int = 0
    predictions: tuple[Predicted, ...] = ()
    sentence: str = ""
    curve: list[list[float | None]] = []
    evidence: dict[str, Any] = {}

    def drawn(self) -> dict[str, Any]:
        """Its evidence, and where it holds cooled copies, those with the curve through them."""
        copies = [[c.get("step"), c.get("loss")] for c in self.evidence.get("forks", ()) if isinstance(c, dict)]
        if "plot" in self.evidence or not copies:
            return self.evidence
        axes = {"x": "step", "y": "validation loss"}
        picture = {"plot": "points", **axes, "points": copies, "curve": self.curve, "note": FORKS_NOTE}
        return {k: v for k, v in self.evidence.items() if k != "forks"} | {"parts": [picture]}


class PlanRecord(Reading):
    """plan.json, as far as the report shows it."""

    decisions: tuple[Decision, ...] = ()
    timings: dict[str, tuple[Timing, ...]] = {}
    predictions: tuple[Predicted, ...] = ()
    facts: dict[str, float | None] = {}
    cost: dict[str, float] = {}
    fingerprint: str = ""

    @model_validator(mode="before")
    @classmethod
    def of_older_version(cls, found: Any) -> Any:
        """Plans used to hold facts and predictions as one table of numbers, without intervals."""
        if isinstance(found, dict) and isinstance(found.get("predictions"), dict):
            old = found["predictions"]
            known = [{"name": n, "value": old[n], "unit": unit} for n, unit in OLD_UNITS.items() if n in old]
            return found | {"predictions": known, "facts": old}
        return found

    def number(self, name: str) -> float | None:
        """A prediction's value or a fact, by name; None where neither is known."""
        return next((p.value for p in self.predictions if p.name == name), self.facts.get(name))


@dataclass(frozen=True)
class SettingRow:
    """One value of the full recipe."""

    name: str
    value: Any
    origin: str
    meaning: str = ""


@dataclass
class Evidence:
    """What the run folder holds."""

    name: str
    settings: list[SettingRow] = field(default_factory=list)
    card: DataCard | None = None
    plan: PlanRecord | None = None
    training: Training | None = None
    scores: Scores | None = None
    scorecard: ScorecardRecord | None = None
    forecast: ForecastRecord | None = None
    tune: TuneRecord | None = None
    batch: BatchRecord | None = None
    noise: NoiseRecord | None = None
    manifest: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    """Files that are there but could not be read, as sentences."""

    def setting(self, name: str) -> Any:
        """Value of a setting by its dotted name; None when the recipe has none."""
        return next((row.value for row in self.settings if row.name == name), None)

    @cached_property
    def n_parameters(self) -> float | None:
        """Parameters of the model, from the plan."""
        return self.plan.number("n_parameters") if self.plan else None

    @cached_property
    def predicted(self) -> tuple[ScoredRow, ...]:
        """Predictions with their outcomes, or what was predicted so far."""
        if self.scorecard is not None:
            return self.scorecard.scores
        sources = (
            ("before training", self.plan),
            (f"at step {self.forecast.step:,}" if self.forecast else "", self.forecast),
        )
        return tuple(
            ScoredRow(**p.model_dump(), made=made) for made, found in sources if found for p in found.predictions
        )

    @cached_property
    def headline(self) -> tuple[str, Metric] | None:
        """The metric that is compared: the first that a baseline has too, else the first."""
        if not self.scores or not self.scores.metrics:
            return None
        if self.scores.headline in self.scores.metrics:
            return self.scores.headline, self.scores.metrics[self.scores.headline]
        shared = [m for m in self.scores.metrics if any(m in b for b in self.scores.baselines.values())]
        name = (shared or list(self.scores.metrics))[0]
        return name, self.scores.metrics[name]

    @cached_property
    def rivals(self) -> dict[str, Metric]:
        """The baselines on the headline metric, best first."""
        if not self.headline or not self.scores:
            return {}
        name = self.headline[0]
        found = {rival: table[name] for rival, table in self.scores.baselines.items() if name in table}
        return dict(sorted(found.items(), key=lambda pair: pair[1].value, reverse=not self.lower_is_better(name)))

    def lower_is_better(self, metric: str) -> bool:
        """As the scores say of their headline, else by the metric's name."""
        if self.scores and metric == self.scores.headline:
            return not self.scores.higher_is_better
        return lower_is_better(metric)


def lower_is_better(metric: str) -> bool:
    """By the metric's name."""
    return any(word in metric for word in LOWER_IS_BETTER)


def gather(run: RunFolder) -> Evidence:
    """Read what there is."""
    evidence = Evidence(name=run.path.resolve().name)
    raw_manifest = part(evidence, run.manifest, TypeAdapter(dict[str, Any])) or {}
    raw_plan = part(evidence, run.plan, TypeAdapter(dict[str, Any])) or {}
    evidence.manifest = raw_manifest
    evidence.settings = read_settings(evidence, run.full_recipe)
    evidence.name = str(evidence.setting("name") or raw_manifest.get("name") or evidence.name)
    evidence.card = part(evidence, run.data / "card.json", TypeAdapter(DataCard))
    evidence.plan = part(evidence, run.plan, TypeAdapter(PlanRecord)) if raw_plan else None
    evidence.scores = part(evidence, run.evaluate / "scores.json", TypeAdapter(Scores))
    evidence.scorecard = part(evidence, run.evaluate / "scorecard.json", TypeAdapter(ScorecardRecord))
    evidence.forecast = part(evidence, run.train / "forecast.json", TypeAdapter(ForecastRecord))
    evidence.tune = part(evidence, run.path / "tune" / "result.json", TypeAdapter(TuneRecord))
    evidence.batch = part(evidence, run.path / "batch" / "result.json", TypeAdapter(BatchRecord))
    evidence.noise = part(evidence, run.path / "noise" / "result.json", TypeAdapter(NoiseRecord))
    evidence.training = read_training(run.train / "metrics.jsonl")
    evidence.environment = environment(raw_plan, raw_manifest)
    return evidence


def environment(plan: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The machine and the versions, and how the training ran on them, wherever a stage wrote them down."""
    found: dict[str, Any] = {}
    for source in (plan, manifest):
        for key in ("hardware", "machine", "environment"):
            if isinstance(source.get(key), Mapping):
                found |= source[key]
    choices = plan.get("choices")
    chosen = choices if isinstance(choices, Mapping) else {}
    return found | {key: chosen[key] for key in RAN_WITH if key in chosen}


def part(evidence: Evidence, path: Path, reader: TypeAdapter[Part]) -> Part | None:
    """One JSON file as its type; None where it is absent, and a fault where it is not what it should be."""
    if not path.is_file():
        return None
    try:
        return reader.validate_python(read_json(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(p) for p in first["loc"])
        fault = f"{path.name} is not what this version reads ({place}: {first['msg']}), so its part is left out."
    except UserError as error:
        fault = str(error)
    if fault not in evidence.faults:
        evidence.faults.append(fault)
    return None


def read_settings(evidence: Evidence, path: Path) -> list[SettingRow]:
    """recipe.full.toml as rows, with origins from its comments and meanings from the settings' own docstrings."""
    if not path.is_file():
        return []
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text)
    except (OSError, ValueError) as error:
        evidence.faults.append(f"{path.name} cannot be read ({error}), so its settings are left out.")
        return []
    origins = read_origins(text)
    known = meanings(values)
    return [SettingRow(name, value, origin_of(name, origins), known.get(name, "")) for name, value in flat(values)]


def origin_of(name: str, origins: Mapping[str, str]) -> str:
    """Of the setting, or of the list or table it stands in when that was written on one line."""
    while name not in origins and "." in name:
        name = name.rpartition(".")[0]
    return origins.get(name, "")


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested tables as dotted names; a list of tables is numbered: data.clean.0.kind."""
    out: list[tuple[str, Any]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            value = {str(i): item for i, item in enumerate(value)}
        out += flat(value, f"{name}.") if isinstance(value, dict) else [(name, value)]
    return out


def read_origins(text: str) -> dict[str, str]:
    """{"optimizer.lr": "measured: plan.json#lr"}: the comment that ends each line of a full recipe."""
    origins: dict[str, str] = {}
    section, counts = "", dict[str, int]()
    for line in text.splitlines():
        code, comment = split_comment(line)
        if code.startswith("[["):
            section = code.strip("[] ")
            counts[section] = counts.get(section, -1) + 1
            section += f".{counts[section]}"
        elif code.startswith("["):
            section = code.strip("[] ")
        elif "=" in code:
            key = code.partition("=")[0].strip().strip('"')
            origins[f"{section}.{key}" if section else key] = comment
    return origins


def split_comment(line: str) -> tuple[str, str]:
    """A line of TOML and its comment: the first "#" before which the line is whole (so not one inside a string)."""
    at = line.find("#")
    while at >= 0:
        try:
            tomllib.loads(line[:at])
        except tomllib.TOMLDecodeError:
            at = line.find("#", at + 1)
            continue
        return line[:at].strip(), line[at + 1 :].strip()
    return line.strip(), ""


def meanings(values: Mapping[str, Any]) -> dict[str, str]:
    """The docstring of every setting in `values`, by dotted name."""
    from danlu.recipe import Recipe

    return described(Recipe, values, "")


def described(cls: type[Settings], values: Mapping[str, Any], prefix: str) -> dict[str, str]:
    """Docstrings of one section's settings and of the sections inside it; what the class does not know is left out."""
    out: dict[str, str] = {}
    for key, value in values.items():
        field_ = cls.model_fields.get(key)
        if field_ is None:
            continue
        out[f"{prefix}{key}"] = " ".join(docstrings(cls).get(key, "").split())
        inner = value if isinstance(value, list) else [value]
        for i, item in enumerate(inner):
            section = section_class([*field_.metadata, field_.annotation], item) if isinstance(item, dict) else None
            if section is not None:
                place = f"{prefix}{key}.{i}." if isinstance(value, list) else f"{prefix}{key}."
                out |= described(section, item, place)
    return out


def section_class(hints: Iterable[Any], value: Mapping[str, Any]) -> type[Settings] | None:
    """The settings class that a section's values belong to, found in a field's annotation (tuples and unions too)."""
    for hint in hints:
        if isinstance(hint, Chosen):
            return hint.table.get(str(value.get("kind", hint.default)))
        if isinstance(hint, type) and issubclass(hint, Settings) and hint is not Settings:
            return hint
        inside = [*getattr(hint, "__metadata__", ()), *get_args(hint)]
        if inside and (found := section_class(inside, value)) is not None:
            return found
    return None
