"""Runs stages in order inside one run folder, and skips a stage whose inputs are unchanged.

    run = danlu.run("recipe.toml")        prepare, plan, train, evaluate, report
    run.scores.metrics["bits_per_byte"]   run.card   run.path   run.generate("def ")

A stage is skipped when the fingerprint of what it reads is the one recorded in manifest.json. Once training has begun
its data and plan are kept as they are: a checkpoint belongs to them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu.base.contracts import DataCard, Metric, Progress, Scores, StepReport
from danlu.base.errors import GateError, UserError
from danlu.base.runfolder import RunFolder, fingerprint, read_json, write_text
from danlu.planning.layouts import MEMORY_SHARE, Bench
from danlu.planning.trials import Lab
from danlu.recipe import Recipe

if TYPE_CHECKING:
    from danlu.planning.cluster import Estimate
    from danlu.stages.check import Check

STAGES = ("prepare", "plan", "train", "evaluate", "report")
FORMAT = 2
"""Raised when a stage's output changes its meaning, so that older folders are made anew."""
SCORING_ONLY = ("on", "samples", "prompts", "max_new_tokens", "temperature", "top_k", "bootstrap")
"""Settings of [evaluate] that training does not see: they may change after it."""


def quiet(what: str, done: float, total: float) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Run:
    """A run folder, as Python sees it."""

    folder: RunFolder
    recipe: Recipe

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.folder.path

    @property
    def card(self) -> DataCard:
        """What prepare counted."""
        return DataCard.model_validate(read_json(self.folder.data / "card.json"))

    @property
    def scores(self) -> Scores:
        """What evaluate measured."""
        found: dict[str, Any] = read_json(self.folder.evaluate / "scores.json")
        found["metrics"] = metrics_of(found["metrics"])
        found["baselines"] = {name: metrics_of(of) for name, of in found["baselines"].items()}
        return Scores(**found | {name: tuple(found[name]) for name in ("samples", "notes")})

    @property
    def report(self) -> Path:
        """The page."""
        return self.folder.report

    @property
    def model(self) -> Any:
        """The trained network, in eval mode; of a module given to danlu.fit, a trained copy of that module."""
        from danlu.trained import load_model

        found = load_model(self.folder, self.recipe).model
        return getattr(found, "module", found)

    def generate(self, prompt: str = "", **sampling: Any) -> str:
        """Continue a text. `sampling`: max_new_tokens, temperature, top_k, top_p, min_p, stop, seed."""
        return "".join(self.stream(prompt, **sampling))

    def predict(self, inputs: Iterable[Any], out: Path | str | None = None) -> list[dict[str, Any]]:
        """One row an input: files, folders, lines of text, or values (a dict is a row of a table). With `out`, a
        folder, also files in the task's own form (WAV, PDB, boxes drawn on the image). A language model says how many
        bits it needs for each text."""
        from danlu.stages.predict import predict

        return list(predict(self.recipe, self.folder, inputs, Path(out) if out is not None else None))

    def stream(self, prompt: str = "", **sampling: Any) -> Iterator[str]:
        """The same, piece by piece as it comes."""
        from danlu.stages.generate import generate

        return generate(self.recipe, self.folder, prompt, **sampling)


def metrics_of(found: dict[str, Any]) -> dict[str, Metric]:
    """Metrics back from JSON."""
    return {name: Metric(**values) for name, values in found.items()}


def open_run(path: Path | str, allow_code: Iterable[str] = ()) -> Run:
    """An existing run folder."""
    folder = RunFolder.open(path)
    return Run(folder, Recipe.load(folder.recipe, allow_code=allow_code))


def run(
    recipe: Recipe | Path | str,
    out: Path | str | None = None,
    *,
    sets: Sequence[str] = (),
    allow_code: Iterable[str] = (),
    progress: Progress = quiet,
    until: str = "report",
) -> Run:
    """All stages up to `until`, each skipped when its inputs are unchanged. A killed run goes on where it was.

    `recipe` is a Recipe, a recipe file, or the folder of an earlier run.
    """
    with entered(recipe, out, sets, allow_code) as made:
        if until != "prepare":
            made.recipe.check_scored()
        for stage in STAGES[: STAGES.index(until) + 1]:
            try:
                run_stage(stage, made, progress)
            except GateError:
                run_stage("report", made, progress)  # the page shows what went wrong
                raise
    return made


def run_one(
    stage: str,
    recipe: Recipe | Path | str,
    out: Path | str | None = None,
    *,
    sets: Sequence[str] = (),
    allow_code: Iterable[str] = (),
    progress: Progress = quiet,
) -> Run:
    """One stage. prepare, plan and train first do what they need; evaluate and report need a training that ran."""
    if stage in ("prepare", "plan", "train"):
        return run(recipe, out, sets=sets, allow_code=allow_code, progress=progress, until=stage)
    with entered(recipe, out, sets, allow_code) as made:
        if stage == "evaluate" and not has_trained(made.folder):
            raise UserError(str(made.path), "has no checkpoint to evaluate", fix=f"run danlu train {made.path} first")
        run_stage(stage, made, progress)
    return made


prepare, plan, train, evaluate, report = (partial(run_one, stage) for stage in STAGES)
"""The verbs one by one, as `danlu.prepare(recipe, out)`; each gives the Run."""


def train_steps(
    recipe: Recipe | Path | str, out: Path | str | None = None, *, progress: Progress = quiet
) -> Iterator[StepReport]:
    """Train update by update: your code between two reports is the hook. Leaving the loop early saves and stops.

    for report in danlu.train_steps(recipe):
        print(report.step, report.loss)
    """
    with entered(recipe, out, (), ()) as made:
        for stage in ("prepare", "plan"):
            run_stage(stage, made, progress)
        from danlu.stages import train

        yield from train.train_steps(made.recipe, made.folder)


def extend(
    run: Path | str,
    length: str,
    out: Path | str | None = None,
    *,
    allow_code: Iterable[str] = (),
    progress: Progress = quiet,
) -> Run:
    """A longer run from the start of a run's cool-down, in a folder of its own: trained, scored, reported. `length` is
    that of the whole run: "4000 steps", "6 epochs"."""
    from danlu.training.extend import extended

    longer, folder = extended(RunFolder.open(run), length, Path(out) if out is not None else None, allow_code)
    return globals()["run"](longer, folder.path, allow_code=allow_code, progress=progress)  # type: ignore[no-any-return]


def check(recipe: Recipe | Path | str, sets: Sequence[str] = (), allow_code: Iterable[str] = ()) -> Check:
    """What a run would be: shapes, counts, memory, disk; nothing is written and the data are not read through."""
    found, _ = loaded(recipe, sets, allow_code)
    from danlu.stages.check import check as look

    return look(found)


def plan_on(
    recipe: Recipe | Path | str,
    on: str,
    sets: Sequence[str] = (),
    allow_code: Iterable[str] = (),
    spend: float | None = None,
) -> tuple[str, Estimate]:
    """(title, memory, layout, time and cost) on machines as in "1024 x h100"; `spend`: dollars that are the run's length, at the
    machines' usual price. Nothing is run or written."""
    from danlu.planning.accelerators import parse_cluster
    from danlu.planning.foretell import afforded, foretell

    machines = parse_cluster(on)
    found, _ = loaded(recipe, sets, allow_code)
    paid = found if spend is None else afforded(found, machines, spend)
    return f"{found.name} on {machines}", foretell(paid, machines, lambda recipe: check(recipe).n_parameters)


def loaded(
    recipe: Recipe | Path | str, sets: Sequence[str] = (), allow_code: Iterable[str] = ()
) -> tuple[Recipe, RunFolder | None]:
    """A recipe from wherever it is; with it the run folder, when that is where it was."""
    if isinstance(recipe, Recipe):
        return recipe, None
    path = Path(recipe)
    if not str(recipe):
        raise UserError("RECIPE|RUN", "must name a file or a folder", got="")
    try:
        is_folder = path.is_dir()
    except (OSError, ValueError) as error:
        raise UserError(str(path), "is not a file name", fix="check the name") from error
    if not is_folder:
        return Recipe.load(path, sets, allow_code), None
    folder = RunFolder.open(path)
    if sets:
        fix = f"copy {folder.recipe}, change it there, and run the copy"
        raise UserError("--set", "changes a recipe, and a run's settings are fixed", got=str(path), fix=fix)
    return Recipe.load(folder.recipe, allow_code=allow_code), folder


@contextmanager
def entered(
    recipe: Recipe | Path | str, out: Path | str | None, sets: Sequence[str], allow_code: Iterable[str]
) -> Iterator[Run]:
    """The run's folder, made or found, locked, with the recipe in it."""
    found, folder = loaded(recipe, sets, allow_code)
    if folder is not None and out is not None:
        raise UserError(
            "--out", "cannot be given with a run folder, which is where its output goes", fix="leave it out"
        )
    if folder is None:
        folder = RunFolder.create(Path(out) if out is not None else None, found.name, found.digest())
    with folder.lock():
        if has_trained(folder) and folder.recipe.is_file():
            refuse_change(Recipe.load(folder.recipe, allow_code=allow_code), found, folder)
        write_if_new(folder.recipe, found.sparse_toml())
        if not folder.full_recipe.is_file():
            write_text(folder.full_recipe, found.full_toml(decisions(folder)))
        yield Run(folder, found)


def refuse_change(before: Recipe, now: Recipe, folder: RunFolder) -> None:
    """A folder whose training has begun goes on with the same recipe; only how it is scored may change."""
    old, new = before.model_dump(mode="json"), now.model_dump(mode="json")
    for settings in (old, new):
        settings["evaluate"] = {k: v for k, v in settings["evaluate"].items() if k not in SCORING_ONLY}
    for key in differing(old, new):
        raise UserError(
            str(folder.path), f"holds a training with another {key}", fix="choose another --out, or undo the change"
        )


def differing(old: Any, new: Any, at: str = "") -> Iterator[str]:
    """Dotted keys whose values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            yield from differing(old.get(key), new.get(key), f"{at}.{key}" if at else key)
    elif old != new:
        yield at


def write_if_new(path: Path, text: str) -> None:
    """Write unless it is there already, word for word."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def decisions(folder: RunFolder) -> list[dict[str, Any]]:
    """The plan's decisions, or none yet."""
    return list(read_json(folder.plan)["decisions"]) if folder.plan.is_file() else []


def has_trained(folder: RunFolder) -> bool:
    """Whether there is a checkpoint."""
    return folder.checkpoints.is_dir() and any(folder.checkpoints.glob("step-*"))


def run_stage(stage: str, made: Run, progress: Progress) -> None:
    """Do one stage, unless its inputs are unchanged and its outputs are there."""
    recipe, folder = made.recipe, made.folder

    def tell(what: str, done: float, total: float) -> None:
        progress(f"{stage}: {what}", done, total)

    if stage in ("prepare", "plan") and has_trained(folder):
        tell("kept as it is: training has begun on it", 1, 1)
        return
    inputs = inputs_of(stage, recipe, folder)
    is_lost = stage == "train" and not has_trained(folder)  # its checkpoints watch over themselves
    if stage != "report" and not is_lost and folder.stage_done(stage, inputs):
        tell("unchanged, kept as it is", 1, 1)
        return
    began = time.perf_counter()
    stage_function(stage)(recipe, folder, tell)
    folder.record_stage(stage, inputs, time.perf_counter() - began, outputs_of(stage, folder))
    if stage == "plan":
        write_text(folder.full_recipe, recipe.full_toml(decisions(folder)))


def stage_function(stage: str) -> Callable[[Recipe, RunFolder, Progress], Any]:
    """The verb, imported only now: most of them load torch. Plan is handed train's tools: stages know no others."""
    verb = getattr(import_module(f"danlu.stages.{stage}"), stage)
    if stage == "report":
        return lambda recipe, folder, tell: verb(folder)
    return partial(planned, verb) if stage == "plan" else verb


def planned(plan: Callable[..., Any], recipe: Recipe, folder: RunFolder, tell: Progress) -> Any:
    """Plan with train's tools; what was measured is kept until the plan is written."""
    lab = lab_of(recipe, folder, tell)
    choices = plan(recipe, folder, tell, lab)
    if lab.journal is not None:
        lab.journal.close()
    return choices


def lab_of(recipe: Recipe, folder: RunFolder, tell: Progress = lambda *_: None) -> Lab:
    """What plan measures with: train's stopwatch and its short runs, and what a killed plan measured before."""
    from danlu.planning import hardware, history
    from danlu.planning.journal import Journal
    from danlu.stages import train

    machine = hardware.look(recipe.train.device, recipe.train.threads)
    card = read_json(folder.data / "card.json")["fingerprint"]
    journal = Journal(
        folder.path / "planning.jsonl", [recipe.model_dump(mode="json"), card, history.machine_key(machine)], tell
    )
    most = int(MEMORY_SHARE * machine.available_bytes)
    bench = Bench(journal.rehearse(partial(train.rehearse, recipe, folder)), most)
    return Lab(bench.time_steps, journal.run_trial(partial(train.run_trial, recipe, folder)), bench, journal)


def inputs_of(stage: str, recipe: Recipe, folder: RunFolder) -> str:
    """Fingerprint of all that a stage reads."""
    read: list[Any] = [FORMAT, stage, recipe.seed]
    if stage == "prepare":
        read += [recipe.data, stamps(recipe)]
    if stage in ("plan", "train"):
        whole = recipe.model_dump(mode="json")
        whole["evaluate"] = {k: v for k, v in whole["evaluate"].items() if k not in SCORING_ONLY}
        read += [whole, read_json(folder.data / "card.json")["fingerprint"]]
    if stage == "plan":
        read += [recipe.evaluate.on]
    if stage == "train":
        read += [read_json(folder.plan)]
    if stage == "evaluate":
        from danlu.planning.noise_told import seed_note

        read += [recipe.evaluate, recipe.task, sorted(p.name for p in folder.checkpoints.glob("step-*"))]
        read += seed_note(recipe, folder)
    return fingerprint(read)


def stamps(recipe: Recipe) -> list[list[Any]]:
    """Name, size and time of every source file: when one changes, the data are prepared again."""
    from danlu.data.files import TextFile
    from danlu.data.samples import SampleSource
    from danlu.data.text import Text, find

    data = recipe.data
    if isinstance(data, SampleSource):
        return [[str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns] for p in data.files()]
    if not isinstance(data, Text):
        return []
    elsewhere = [
        path for name in ("validation", "test") if isinstance(path := getattr(data.split, name, None), str) and path
    ]
    items = [
        item for path in (data.path, *elsewhere) for item in find(data.model_copy(update={"path": path}), Counter())
    ]
    files = [item.path for item in items if isinstance(item, TextFile)]
    return [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def outputs_of(stage: str, folder: RunFolder) -> list[Path]:
    """The files whose loss would make a stage run again. Checkpoints watch over themselves."""
    places = {"prepare": folder.data, "evaluate": folder.evaluate}
    if stage in places:
        return [p for p in sorted(places[stage].rglob("*")) if p.is_file()]
    return [folder.plan] if stage == "plan" else []
