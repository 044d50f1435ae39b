"""The command line: one sub-command per verb. Heavy imports are inside each, so that --help is at once.

Exit codes: 0 done; 2 the recipe, data or command is wrong (one sentence on stderr); 3 a measured gate failed;
130 and 143 stopped by a signal, checkpoint saved, resumable.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from danlu.base.errors import INTERRUPTED, WRONG_INPUT, DanluError, UserError, near_names, one_line

app = typer.Typer(
    name="danlu",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Trains large models end to end: data in; a clean data set, a plan, a trained model, scores and a report out.",
    epilog="--debug after any command shows the full traceback of a mistake.",
)
SECTIONS = {"data", "model", "task", "optimizer", "schedule", "train", "checkpoint", "evaluate", "plan", "parallel"}
Target = Annotated[str, typer.Argument(metavar="RECIPE|RUN", help="A recipe file, or the folder of an earlier run.")]
RunPath = Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help='Change a setting: --set train.length="200 steps".'),
]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Run folder. Default: runs/NAME-HASH.")]
AllowCode = Annotated[
    list[str] | None,
    typer.Option("--allow-code", metavar="PACKAGE", help='Let the recipe load classes: kind = "package.module:Class".'),
]


def stages(verb: str, target: str, sets: list[str] | None, out: Path | None, allow: list[str] | None) -> None:
    """Run one stage, or all of them, and show how it ended."""
    from danlu import pipeline
    from danlu.console import show_plan, show_run, shown_progress

    options: dict[str, Any] = {"sets": sets or (), "allow_code": allow or ()}
    with shown_progress() as progress:
        if verb == "run":
            made = pipeline.run(target, out, progress=progress, **options)
        else:
            made = pipeline.run_one(verb, target, out, progress=progress, **options)
    show = show_plan if verb == "plan" else show_run
    show(made)


@app.command()
def run(target: Target, set: Set = None, out: Out = None, allow_code: AllowCode = None) -> None:
    """Prepare, plan, train, evaluate, report. What is done already, from the same inputs, is kept."""
    stages("run", target, set, out, allow_code)


@app.command()
def check(target: Target, set: Set = None, allow_code: AllowCode = None) -> None:
    """Say what a run would be: shapes, parameters, memory, disk. Writes nothing, reads no data through."""
    from danlu import pipeline
    from danlu.console import show_check

    show_check(pipeline.check(target, set or (), allow_code or ()))


@app.command()
def prepare(target: Target, set: Set = None, out: Out = None, allow_code: AllowCode = None) -> None:
    """Read, clean, split and encode the data, counting every row."""
    stages("prepare", target, set, out, allow_code)


@app.command()
def plan(
    target: Target,
    on: Annotated[
        str | None,
        typer.Option(
            "--on", metavar="MACHINES", help='Estimate on machines you do not have: "1024 x h100". Runs nothing.'
        ),
    ] = None,
    spend: Annotated[
        float | None, typer.Option(metavar="DOLLARS", help="With --on: the run's length as money at their usual price.")
    ] = None,
    set: Set = None,
    out: Out = None,
    allow_code: AllowCode = None,
) -> None:
    """Answer every "auto", with reasons; predict time, memory and loss with intervals."""
    if on is None and spend is not None:
        raise UserError("--spend", "needs the machines that have a price", fix='add --on "8 x h100"')
    if on is None:
        return stages("plan", target, set, out, allow_code)
    from danlu import pipeline
    from danlu.console import show_estimate

    show_estimate(*pipeline.plan_on(target, on, set or (), allow_code or (), spend))


@app.command()
def train(target: Target, set: Set = None, out: Out = None, allow_code: AllowCode = None) -> None:
    """Train, or go on from the newest good checkpoint."""
    stages("train", target, set, out, allow_code)


@app.command()
def evaluate(target: Target, set: Set = None, out: Out = None, allow_code: AllowCode = None) -> None:
    """Score the best checkpoint against the baselines, and write samples."""
    stages("evaluate", target, set, out, allow_code)


@app.command()
def tune(
    target: Target,
    tries: Annotated[
        list[str] | None,
        typer.Option("--try", metavar="KEY=A,B", help="What to compare: --try model.activation=gelu,silu."),
    ] = None,
    length: Annotated[str, typer.Option(help='Of each short run: "10%" of the planned one, steps, or a time.')] = "10%",
    metric: Annotated[str, typer.Option(help="What the arms are judged on: the validation loss, or a score.")] = "loss",
    budget: Annotated[str, typer.Option(help='What it may cost: "5 min", or "60 runs".')] = "5 min",
    write: Annotated[
        Path | None, typer.Option("--write", metavar="FILE", help="Write the recipe with the winner here.")
    ] = None,
    set: Set = None,
    out: Out = None,
    allow_code: AllowCode = None,
) -> None:
    """Compare settings by paired short runs: a winner with its effect, or "no measurable difference"."""
    from danlu import tuning
    from danlu.console import show_tune, shown_progress

    with shown_progress() as progress:
        found = tuning.tune(
            target, tries or (), out, sets=set or (), allow_code=allow_code or (), progress=progress, write=write,
            length=length, metric=metric, budget=budget,
        )  # fmt: skip
    show_tune(found)


@app.command()
def batch(
    target: Target,
    at: Annotated[str, typer.Option(help="Share of the run's samples after which the branches grow.")] = "10%",
    length: Annotated[str, typer.Option(help="Of each branch: a share of the run's samples.")] = "2%",
    set: Set = None,
    out: Out = None,
    allow_code: AllowCode = None,
) -> None:
    """Measure how large the batch may be: its price in loss, its speed, and the noise scale."""
    from danlu import batching
    from danlu.console import show_batch, shown_progress

    with shown_progress() as progress:
        found = batching.batch(
            target, out, sets=set or (), allow_code=allow_code or (), progress=progress, at=at, length=length
        )
    show_batch(found)


@app.command()
def noise(
    target: Target,
    seeds: Annotated[int, typer.Option(help="Runs that differ in nothing else, at least 2.")] = 5,
    length: Annotated[str, typer.Option(help='Of each run: "10%" of the planned one, steps, or a time.')] = "10%",
    set: Set = None,
    out: Out = None,
    allow_code: AllowCode = None,
) -> None:
    """Measure how much of a difference between two runs is chance, by short runs that differ in their seed."""
    from danlu import noising
    from danlu.console import show_noise, shown_progress

    with shown_progress() as progress:
        found = noising.noise(
            target, out, sets=set or (), allow_code=allow_code or (), progress=progress, seeds=seeds, length=length
        )
    show_noise(found)


@app.command()
def report(target: Target, allow_code: AllowCode = None) -> None:
    """Make the page again from the run folder."""
    stages("report", target, None, None, allow_code)


@app.command()
def resume(run: RunPath, allow_code: AllowCode = None) -> None:
    """Go on with a run that was stopped or killed."""
    from danlu.base.runfolder import RunFolder

    stages("run", str(RunFolder.open(run).path), None, None, allow_code)


@app.command()
def extend(
    run: RunPath,
    length: Annotated[
        str, typer.Option("--length", help='Of the whole longer run: "4000 steps", "6 epochs", "10 min".')
    ],
    out: Out = None,
    allow_code: AllowCode = None,
) -> None:
    """Train a finished run for longer: on from where its cool-down began, in a folder of its own."""
    from danlu import pipeline
    from danlu.console import show_run, shown_progress

    with shown_progress() as progress:
        made = pipeline.extend(run, length, out, allow_code=allow_code or (), progress=progress)
    show_run(made)


@app.command()
def generate(
    run: RunPath,
    prompt: Annotated[str, typer.Argument(help="Text to continue.")] = "",
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens to add.")] = 200,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token always.")] = 0.8,
    top_k: Annotated[int | None, typer.Option(help="Sample from the k likeliest tokens.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Sample from the likeliest tokens that reach probability p.")
    ] = None,
    stop: Annotated[list[str] | None, typer.Option(help="Text that ends the continuation; may be repeated.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same text.")] = 0,
) -> None:
    """Continue a text with a trained model, printing as it comes."""
    from danlu.models.sampling import Sampling
    from danlu.pipeline import open_run

    given: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
    given |= {"top_k": top_k, "top_p": top_p, "stop": tuple(stop or ())}
    Sampling(**given)
    pieces = open_run(run).stream(prompt, **given)
    sys.stdout.write(prompt)
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")


@app.command()
def predict(
    run: RunPath,
    text: Annotated[
        list[str] | None, typer.Argument(help="Inputs: files, folders or texts; none: one a line from standard input.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FOLDER", help="Where the rows go as CSV and JSONL, and pictures, sounds or structures."
        ),
    ] = None,
) -> None:
    """One JSON line an input: a class, a number, a translation, ...; for a language model, the bits each text needs."""
    import json

    from danlu.pipeline import open_run

    for row in open_run(run).predict(text or (line.rstrip("\n") for line in sys.stdin), out):
        print(json.dumps(row, ensure_ascii=False))


@app.command()
def verify(run: RunPath) -> None:
    """Check every recorded file and checkpoint of a run against its SHA-256."""
    from danlu.base.errors import GateError
    from danlu.base.runfolder import RunFolder
    from danlu.parallel.checkpoint import verify_run

    folder = RunFolder.open(run)
    faults = [*folder.verify(), *verify_run(folder)]
    for fault in faults:
        print(one_line(fault))
    if faults:
        raise GateError(f"{run}: {len(faults)} of its files are not as they were written.")
    print(f"{run}: every recorded file and checkpoint is as it was written.")


@app.command("list")
def list_(
    shelf: Annotated[str | None, typer.Argument(help="A shelf such as optimizer, or one kind on it.")] = None,
) -> None:
    """List what a recipe can name; with a kind, its settings."""
    from danlu.console import table
    from danlu.shelves import kinds_of, settings_of

    title, columns, rows = settings_of(shelf) if shelf else kinds_of()
    table(title, columns, rows)


@app.command()
def init(
    data: Annotated[str, typer.Argument(help="A file, folder, glob or catalog name to learn from.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The recipe to write.")] = Path("recipe.toml"),
) -> None:
    """Write a starter recipe by looking at the data."""
    from danlu.starter import write_starter

    print(f"Wrote {write_starter(data, out)}. Next: danlu check {out}")


@app.command()
def schema() -> None:
    """Print the JSON schema of a recipe, for editors."""
    import json

    from danlu.recipe import Recipe

    print(json.dumps(Recipe.model_json_schema(), indent=2, ensure_ascii=False))


def command_names() -> list[str]:
    """The sub-commands."""
    return [str(c.name or getattr(c.callback, "__name__", "")) for c in app.registered_commands]


def main(arguments: list[str] | None = None) -> None:
    """Entry point: whatever goes wrong by the user's hand is one sentence on stderr and an exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [word for word in given if word != "--debug"]
    try:
        code = run_command(given)
    except KeyboardInterrupt:
        sys.stderr.write("Stopped.\n")
        code = INTERRUPTED
    except BrokenPipeError:  # the reader left: nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except (DanluError, OSError) as error:
        if debug:
            raise
        sys.stderr.write(told(error, given[1:2]) + "\n")
        code = error.exit_code if isinstance(error, DanluError) else WRONG_INPUT
    sys.exit(code)


def told(error: DanluError | OSError, target: list[str]) -> str:
    """An error as its one sentence; a setting that a stage refused is given its recipe's name."""
    if isinstance(error, DanluError):
        of_setting = isinstance(error, UserError) and error.where.partition(".")[0] in SECTIONS
        return one_line(f"{target[0]}: {error}" if of_setting and target else str(error))
    place = f"{error.filename}: " if error.filename else ""
    return one_line(f"{place}{error.strerror or error}.")


def run_command(given: list[str]) -> int:
    """Run a command line; UserError for what typer finds wrong with it."""
    try:
        "\0".join(given).encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            "danlu", "takes UTF-8 text", got=error.object[error.start : error.end], fix="retype it"
        ) from error
    known = command_names()
    if given and not given[0].startswith("-") and given[0] not in known:
        near = near_names(given[0], known)
        fix = " or ".join(f"danlu {name}" for name in near) if near else f"use one of {', '.join(known)}"
        raise UserError(f"danlu {given[0][:40]}", "is not a command", fix=fix)
    try:
        result = app(given, standalone_mode=False)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        raise usage_error(given, error) from error
    if result == INTERRUPTED:  # typer turned Ctrl-C into its exit code
        raise KeyboardInterrupt
    return result if isinstance(result, int) else 0


def usage_error(given: list[str], error: Any) -> UserError:
    """What typer says of a wrong command line, as our sentence, with the nearest option."""
    command = f"danlu {given[0]}" if given and not given[0].startswith("-") else "danlu"
    option = getattr(error, "option_name", None)
    context = getattr(error, "ctx", None)
    if option and hasattr(error, "possibilities") and context is not None:
        known = [name for p in context.command.params for name in p.opts if name.startswith("-")] + [
            "--help",
            "--debug",
        ]
        near = near_names(option, known)
        fix = f"write {' or '.join(near)}" if near else f"use {', '.join(known)}"
        return UserError(f"{command}: {option}", "is not an option", fix=fix)
    message = " ".join(error.format_message().split()) or "needs more"
    return UserError(f"{command}:", message[0].lower() + message[1:], fix=f"see {command} --help")
