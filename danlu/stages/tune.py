"""Tune: which of these? Arms (settings of a recipe) compared by paired short runs; planning/arms.py has the method.

    danlu tune recipe.toml --try model.activation=gelu,silu --metric accuracy --budget "5 min"

Every finished run is a line of tune/trials.jsonl, so a tune that was killed, or that comes back with a larger budget,
goes on where it was; tune/result.json has what was found.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import ValidationError

from danlu.base.contracts import Progress
from danlu.base.errors import UserError
from danlu.base.refusal import refusal
from danlu.base.runfolder import RunFolder, read_json, write_json
from danlu.base.toml import parse_set, parse_word, put, toml_value
from danlu.base.units import parse_length
from danlu.build import is_samples
from danlu.planning.arms import Arm, Budget, Contest, Yardstick
from danlu.planning.arms_told import concluded, edges
from danlu.planning.choices import Choices
from danlu.planning.trials import Outcome, Trial
from danlu.recipe import SYNONYMS, Recipe
from danlu.stages.report_evidence import lower_is_better
from danlu.stages.short_runs import Record, parse_short, steps_of
from danlu.stages.tune_data import judge_alike
from danlu.training.trial import varied

COMPARED = ("model", "task", "optimizer", "schedule", "data")
TRAIN_COMPARED = ("l1", "l2", "max_norm", "clip_value", "ema")
"""Sections, and settings of [train], that arms may differ in."""
SAME_QUESTION = ("task.kind", "data.kind", "data.target", "data.split")
"""What all arms must share to be judged by one metric on one split."""

Ready = Callable[[Mapping[str, Any]], tuple[RunFolder, Choices]]
"""An arm's settings -> the folder with its data, and its choices by the laws. From the pipeline."""
RunIn = Callable[[RunFolder, Trial], Outcome]
"""Runs a trial on the data of a folder. From the pipeline."""


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line."""

    tries: tuple[str, ...]
    """KEY=VALUE,VALUE,..."""
    length: str = "10%"
    """Of each short run: a share of the planned run, steps, or a time."""
    metric: str = "loss"
    """What the arms are judged on."""
    budget: str = "5 min"
    """A time, or a number of runs: "60 runs"."""

    def __post_init__(self) -> None:
        """Refuse what cannot be read before anything is prepared for it."""
        if not self.tries:
            raise UserError("danlu tune", "needs what to compare", fix="add --try model.activation=gelu,silu")
        for key, _ in self.parsed:
            check_key(key)
        parse_short(self.length)
        parse_budget(self.budget)

    @property
    def parsed(self) -> list[tuple[str, list[Any]]]:
        """(key, values) of each try."""
        return [parse_try(text) for text in self.tries]


def tune(
    recipe: Recipe, run: RunFolder, request: Request, ready: Ready, run_in: RunIn, progress: Progress
) -> dict[str, Any]:
    """Compare, write tune/result.json, and give its content."""
    card = read_json(run.data / "card.json")
    if "validation" not in card["splits"]:
        raise UserError(
            "data.split", "must leave a validation split to compare arms on", fix="set data.split.validation"
        )
    base = Choices.read(run)
    settings = arms_of(recipe, base, request.parsed)
    yardstick = yardstick_of(recipe, request.metric, {key for arm in settings.values() for key in arm})
    n_steps, budget = steps_of(request.length, base, run), parse_budget(request.budget)
    folders: dict[str, RunFolder] = {}
    arms = []
    for name, own in settings.items():
        folders[name], choices = ready(own)
        judge_alike(recipe, run, varied(recipe, own), folders[name], name, yardstick.name)
        chosen = {"n_steps": n_steps, "model": choices.model, "optimizer": choices.optimizer, "ema": choices.ema}
        is_given = recipe.optimizer.lr != "auto" or "optimizer.lr" in own  # type: ignore[attr-defined]
        arms.append(Arm(name, own, base.model_copy(update=chosen), is_given))
    for arm in arms:
        varied(recipe, arm.settings).schedule.lr_at(0, n_steps, 1.0)  # type: ignore[attr-defined]  # refuses what does not fit
    record = Record(recipe, run, run.path / "tune" / "trials.jsonl")

    def run_arm(arm: Arm, trial: Trial) -> Outcome:
        return record.outcome(trial, lambda: run_in(folders[arm.name], trial), arm=arm.name)

    contest = Contest(arms, yardstick, budget, run_arm, progress)
    contest.settle()
    record.log.close()
    result = concluded(contest) | {
        "notes": [*lone_values(request.parsed, next(iter(settings.values()))), *notes_of(recipe, contest)],
        "request": asdict(request) | {"tries": list(request.tries)},
    }
    write_json(run.path / "tune" / "result.json", result)
    return result


def parse_try(text: str) -> tuple[str, list[Any]]:
    """`model.activation=gelu,silu` -> ("model.activation", ["gelu", "silu"]). Commas inside brackets do not split."""
    key, equals, values = text.partition("=")
    parts = [part.strip() for part in re.split(r",(?![^\[{]*[\]}])", values)]
    found: list[Any] = []
    for part in parts:
        value = parse_word(part)
        if value not in found:
            found.append(value)
    if not equals or not key.strip() or "" in parts:
        fix = "write --try model.activation=gelu,silu"
        raise UserError("--try", "must be section.key=value,value", got=text, fix=fix)
    return ".".join(parse_set(f"{key}=0")[0]), found


def arms_of(recipe: Recipe, base: Choices | None, tries: Sequence[tuple[str, list[Any]]]) -> dict[str, dict[str, Any]]:
    """Arm name -> its settings, the default first: the recipe's own value of each key where it is listed or a single value
    is, else the first; every other value is an arm that differs from the default in that key alone. Without a plan (`base`) it
    refuses what the recipe alone can tell."""
    default: dict[str, Any] = {}
    for key, values in tries:
        checked(recipe, {key: values[0]})
        if key in default:
            raise UserError(f"--try {key}", "must be given once", fix="list its values with commas")
        own = resolved_value(recipe, base, key)
        if len(values) == 1 and own in (None, values[0]):
            wanted = "must list at least two different values, or one that is not the recipe's own"
            raise UserError(f"--try {key}", wanted, got=values, fix="add another")
        default[key] = own if own in values or len(values) == 1 else values[0]
    arms = {named(default): default}
    for key, values in tries:
        for value in [v for v in values if v != default[key]]:
            arm = default | {key: value}
            checked(recipe, arm)
            arms[named({key: value})] = arm
    return arms


def named(settings: Mapping[str, Any]) -> str:
    """ "activation gelu", "kind adamw, momentum 0.9"."""
    shown = {k: v if isinstance(v, str) else toml_value(v) for k, v in settings.items()}
    return ", ".join(f"{key.partition('.')[2]} {value}" for key, value in shown.items())


def check_key(key: str) -> None:
    """Refuse what cannot be compared so."""
    section, _, name = key.partition(".")
    if any(key == same or key.startswith(f"{same}.") for same in SAME_QUESTION):
        raise UserError(f"--try {key}", "cannot be compared: arms must be asked the same question on the same split")
    if section not in COMPARED and not (section == "train" and name in TRAIN_COMPARED):
        allowed = ", ".join([f"[{s}]" for s in COMPARED] + [f"train.{n}" for n in TRAIN_COMPARED])
        fix = f"danlu plan answers it; arms may differ in {allowed}"
        raise UserError(f"--try {key}", "is not a setting that arms are compared in", fix=fix)


def checked(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """The recipe of an arm; UserError for what is no setting of it."""
    try:
        return varied(recipe, settings)
    except ValidationError as error:
        raw = recipe.model_dump(mode="json")
        for key, value in settings.items():
            put(raw, key.split("."), value)
        raise refusal(error, Recipe, raw, "--try", SYNONYMS) from None


def resolved_value(recipe: Recipe, base: Choices | None, key: str) -> Any:
    """What the recipe comes to for a key, as --try writes it: its value, or the plan's where that is "auto"; None without any."""
    found: Any = recipe.model_dump(mode="json")
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    section, _, name = key.partition(".")
    if found == "auto" and base is not None and section in ("model", "optimizer"):
        return getattr(base, section).get(name, found)
    return found


def yardstick_of(recipe: Recipe, metric: str, keys: set[str]) -> Yardstick:
    """The metric, refused where the arms' values of it would not compare."""
    task: Any = recipe.task
    headline = getattr(task, "headline", "bits_per_byte")
    asked = sorted(key for key in keys if key.startswith("task."))
    if metric == "loss" and is_samples(recipe) and asked:
        wanted = f"must name a metric when arms differ in {asked[0]}, because their own losses do not compare"
        raise UserError("--metric", wanted, got=metric, fix=f"write --metric {headline}")
    if metric == "loss" and any(key.startswith("data.tokenizer") for key in keys):
        wanted = "must be bits_per_byte when arms differ in data.tokenizer, because nats per token do not compare"
        raise UserError("--metric", wanted, got=metric, fix="write --metric bits_per_byte")
    higher = bool(task.higher_is_better) if metric == headline and is_samples(recipe) else not lower_is_better(metric)
    return Yardstick(metric, higher)


def parse_budget(text: str) -> Budget:
    """ "60 runs" or "5 min"."""
    if match := re.fullmatch(r"\s*([0-9]+)\s*runs?\s*", text):
        return Budget(float(match[1]), "runs")
    try:
        found = parse_length(text)
    except ValueError:
        found = None
    if found is None or found.unit != "seconds":
        raise UserError("--budget", 'must be a time or a number of runs, such as "5 min" or "60 runs"', got=text)
    return Budget(found.amount, "seconds")


def lone_values(tries: Sequence[tuple[str, list[Any]]], default: Mapping[str, Any]) -> list[str]:
    """A note on each key that was given one value."""
    lone = [key for key, values in tries if len(values) == 1]
    return [f"{key} was given one value, held against the recipe's own: {named({key: default[key]})}." for key in lone]


def notes_of(recipe: Recipe, contest: Contest) -> list[str]:
    """What a reader should know."""
    notes = edges(contest)
    if recipe.optimizer.lr != "auto":  # type: ignore[attr-defined]
        notes.append(
            f"optimizer.lr = {recipe.optimizer.lr:g} is given, so all arms train at it; with "  # type: ignore[attr-defined]
            '"auto" each finds its own, and the arms are compared, not how well that rate fits them.'
        )
    if contest.yardstick.name != "loss":
        notes.append(
            "Intervals hold for this validation split: how a metric other than the loss would vary over other validation "
            "data is not in them."
        )
    return notes
