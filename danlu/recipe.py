"""The recipe: all sections joined, checks that span sections, and where each value came from. No torch at import."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, PrivateAttr, ValidationError, model_validator

from danlu.base.durable import checked_name, fingerprint
from danlu.base.errors import UserError
from danlu.base.refusal import refusal
from danlu.base.settings import ALLOWED_CODE, Chosen, Settings
from danlu.base.toml import parse_set, put, read_toml, toml_key, toml_value
from danlu.data import SOURCES
from danlu.data.samples import SampleSource
from danlu.models import MODELS
from danlu.optim import OPTIMIZERS, SCHEDULES
from danlu.optim.schedules import parse_span
from danlu.sections import Checkpoint, Evaluate, Parallel, Plan, Train
from danlu.tasks import TASKS
from danlu.tasks.samples import SampleTask

DEFAULTS = {"data": "text", "model": "decoder", "task": "language", "optimizer": "muon", "schedule": "wsd"}
"""The kind of a section that names none."""
BY_ADAMW = frozenset({"mlp", "lenet", "vgg", "resnet", "nlinear", "dlinear", "recurrent", "deepspeech"})
"""Models that learn by AdamW where no optimizer is named. On small batches Muon's products took 1.2 to 9 times AdamW's step
on these and ended no lower; on language models, a ViT and a tagger it ended 1 to 25% lower (benchmarks/optimizers.md)."""
COOLED_LONG, LONG = frozenset({"lenet", "vgg", "resnet"}), "50%"
"""Models whose cool-down is this share of the run where none is named: LeNet ended 3 to 7% lower than with 20%, VGG 6% (nine pairs of
runs: 5%, two standard errors 4%), others the same or higher, Deep Speech lower or higher by its rate (benchmarks/cooldown.md)."""
SHELVES: dict[str, Mapping[str, type[Settings]]] = {
    "data": SOURCES,
    "model": MODELS,
    "task": TASKS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}
"""The sections picked by `kind`, each from its shelf's table."""
SYNONYMS = {
    "learning_rate": "optimizer.lr",
    "max_lr": "optimizer.lr",
    "weight_decay_rate": "optimizer.weight_decay",
    "lr_scheduler": "schedule.kind",
    "scheduler": "schedule.kind",
    "warmup_steps": "schedule.warmup",
    "batch_size": "train.batch",
    "epochs": 'train.length, such as "3 epochs"',
    "num_epochs": 'train.length, such as "3 epochs"',
    "max_steps": 'train.length, such as "500 steps"',
    "n_steps": 'train.length, such as "500 steps"',
    "max_iters": 'train.length, such as "500 steps"',
    "grad_clip": "train.max_norm",
    "max_grad_norm": "train.max_norm",
    "num_workers": "train.workers",
    "early_stopping": "train.patience",
    "eval_interval": 'evaluate.every, such as "100 steps"',
    "d_model": "model.width",
    "n_embd": "model.width",
    "hidden_size": "model.width",
    "n_layer": "model.n_layers",
    "num_layers": "model.n_layers",
    "n_head": "model.n_heads",
    "num_heads": "model.n_heads",
    "block_size": "model.context",
    "seq_len": "model.context",
    "max_seq_len": "model.context",
}
"""Names people bring from other tools, and what danlu calls them."""


def run_name(name: str) -> str:
    """A name that can be part of a path."""
    return checked_name("", name)


def with_usual_optimizer(raw: Any) -> Any:
    """The recipe's raw sections, with the kind of an optimizer that names none, where the model has a usual one of its own."""
    if not isinstance(raw, Mapping):
        return raw
    model, given = raw.get("model", {}), raw.get("optimizer", {})
    kind = model.get("kind") if isinstance(model, Mapping) else getattr(model, "kind", None)
    if not (isinstance(kind, str) and kind in BY_ADAMW and isinstance(given, Mapping)) or "kind" in given:
        return raw
    adamw, other = (set(OPTIMIZERS[name].model_fields) for name in ("adamw", DEFAULTS["optimizer"]))
    if set(given) & (other - adamw):  # a setting that only the other has names it
        return raw
    return {**raw, "optimizer": {"kind": "adamw", **given}}


def with_usual_cool_down(schedule: Any, model: str) -> Any:
    """The schedule, with the model's usual cool-down where it is the default's; a default too, so not among what is given."""
    if model not in COOLED_LONG or schedule.kind != DEFAULTS["schedule"] or "decay" in schedule.model_fields_set:
        return schedule
    usual = schedule.model_copy(update={"decay": parse_span(LONG)})
    usual.model_fields_set.discard("decay")
    return usual


class Recipe(Settings):
    """One training run, whole: `Recipe.load("recipe.toml")`, or `Recipe(data={"path": "notes/*.md"})` in Python."""

    name: Annotated[str, AfterValidator(run_name)] = "run"
    """Name of the run; its folder is runs/<name>-<hash of the settings>."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Every random choice (split, order, initial weights, dropout, samples) follows from it."""
    data: Annotated[Settings, Chosen(SOURCES, DEFAULTS["data"])]
    """What to learn from."""
    model: Annotated[Settings, Chosen(MODELS, DEFAULTS["model"])] = Field(default_factory=MODELS[DEFAULTS["model"]])
    """What learns."""
    task: Annotated[Settings, Chosen(TASKS, DEFAULTS["task"])] = Field(default_factory=TASKS[DEFAULTS["task"]])
    """What is asked of it."""
    optimizer: Annotated[Settings, Chosen(OPTIMIZERS, DEFAULTS["optimizer"])] = Field(
        default_factory=OPTIMIZERS[DEFAULTS["optimizer"]]
    )
    """How the weights are updated."""
    schedule: Annotated[Settings, Chosen(SCHEDULES, DEFAULTS["schedule"])] = Field(
        default_factory=SCHEDULES[DEFAULTS["schedule"]]
    )
    """How the learning rate changes over the run."""
    train: Train = Train()
    """How long, in what pieces, under which guards."""
    checkpoint: Checkpoint = Checkpoint()
    """When and how training saves itself."""
    evaluate: Evaluate = Evaluate()
    """What is scored and sampled."""
    plan: Plan = Plan()
    """What planning may spend."""
    parallel: Parallel = Parallel()
    """How many processes train together."""

    _text: str = PrivateAttr("")
    _sets: frozenset[str] = PrivateAttr(frozenset())

    @classmethod
    def load(cls, path: Path | str, sets: Sequence[str] = (), allow_code: Iterable[str] = ()) -> Recipe:
        """Read a TOML file, lay `--set` values over it, check everything.

        `allow_code` names the packages that a `kind = "package.module:Class"` may be loaded from.
        """
        text, raw = read_toml(Path(path))
        keys = set()
        for item in sets:
            key, value = parse_set(item)
            put(raw, key, value)
            keys.add(".".join(key))

        def source(dotted: str) -> str:
            given = any(dotted == key or dotted.startswith((f"{key}.", f"{key}[")) for key in keys)
            return "--set" if given else str(path)

        token = ALLOWED_CODE.set(frozenset(allow_code))
        try:
            recipe = cls.model_validate(raw)
        except ValidationError as error:
            raise refusal(error, cls, with_usual_optimizer(raw), source, SYNONYMS) from None
        finally:
            ALLOWED_CODE.reset(token)
        recipe._text = "" if keys else text
        recipe._sets = frozenset(keys)
        return recipe

    @model_validator(mode="before")
    @classmethod
    def _usual_optimizer(cls, raw: Any) -> Any:
        """Before the sections are read."""
        return with_usual_optimizer(raw)

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        """Checks that span sections, and what one section takes from another."""
        self._kinds_fit()
        object.__setattr__(self, "schedule", with_usual_cool_down(self.schedule, getattr(self.model, "kind", "")))
        train, never = self.train, self.evaluate.every == "never"
        if isinstance(train.micro_batch, int) and isinstance(train.batch, int) and train.micro_batch > train.batch:
            raise UserError(
                "train.micro_batch", f"must be at most train.batch, which is {train.batch}", got=train.micro_batch,
                fix=f"write {train.batch} or less",
            )  # fmt: skip
        for name in ("patience", "target", "plateau"):
            if never and getattr(train, name) != "none":
                fix = 'set evaluate.every, such as "100 steps"'
                raise UserError(f"train.{name}", 'needs evaluations, and evaluate.every is "never"', fix=fix)
        for name in ("on_nonfinite", "on_spike"):
            if self.checkpoint.save_every == "never" and getattr(train, name) == "roll back":
                fix = 'set checkpoint.save_every, such as "5 min"'
                raise UserError(f"train.{name}", 'needs checkpoints, and checkpoint.save_every is "never"', fix=fix)
        return self

    def _kinds_fit(self) -> None:
        """Running text goes with language tasks, samples with the tasks on samples."""
        kinds = [getattr(part, "kind", "") for part in (self.data, self.model, self.task)]
        if isinstance(self.data, SampleSource) == isinstance(self.task, SampleTask):
            return
        fitting = [k for k, c in TASKS.items() if issubclass(c, SampleTask) == isinstance(self.data, SampleSource)]
        fix = f"set task.kind to one of {', '.join(fitting)}"
        raise UserError("task.kind", f"must suit data of kind {kinds[0]}", got=kinds[2], fix=fix)

    def check_scored(self, splits: Iterable[str] | None = None) -> None:
        """Refuse data that leave out the split to be scored, evaluate.on. `splits` are those there are; without them, those
        that running text will have, which its settings tell."""
        split, on = getattr(self.data, "split", None), self.evaluate.on
        if splits is None:
            if isinstance(self.data, SampleSource) or split is None:
                return
            splits = ["train", *(name for name in ("validation", "test") if getattr(split, name, ""))]
        known = list(splits)
        if on in known:
            return
        places = [(split, "data.split", on), (split, "data.split", f"{on}_share"), (self.data, "data", on)]
        held = [(f"{where}.{name}", getattr(of, name)) for of, where, name in places if hasattr(of, name)]
        setting, value = held[0] if held else ("data.split", ", ".join(known))
        instead = " or ".join(f'"{name}"' for name in known)
        if "on" in self.evaluate.model_fields_set:
            fix = f"change {setting}, or write {instead}"
            raise UserError("evaluate.on", f"must be a split of the data ({', '.join(known)})", got=on, fix=fix)
        fix = f"change it, give more data, or write evaluate.on = {instead}"
        raise UserError(setting, f"must leave a {on} split, which the run is scored on", got=value, fix=fix)

    def digest(self) -> str:
        """Fingerprint of every setting (16 hex digits); the run folder's name ends with its first 8."""
        return fingerprint(self.model_dump(mode="json"))

    def sparse_toml(self) -> str:
        """The recipe as given: the file's own text, or, after --set and from Python, the given values alone."""
        return self._text or "\n".join(written(self, {}, self._sets, sparse=True)) + "\n"

    def full_toml(self, decisions: Sequence[Mapping[str, Any]] = ()) -> str:
        """Every value with its origin; what `auto` came to is taken from the plan's decisions. Loads as a recipe."""
        head = f"# Every setting of this run and where it came from. Settings fingerprint: {self.digest()}."
        return "\n".join([head, *written(self, {d["name"]: d for d in decisions}, self._sets)]) + "\n"


def written(
    settings: Settings,
    decided: Mapping[str, Mapping[str, Any]],
    sets: frozenset[str],
    path: tuple[str, ...] = (),
    sparse: bool = False,
) -> list[str]:
    """The lines of one section and of the sections inside it; `sparse` leaves the defaults out."""
    values = settings.model_dump(mode="json")
    lines, inner = [], []
    for name in type(settings).model_fields:
        value, dotted = getattr(settings, name), ".".join((*path, name))
        given = name in settings.model_fields_set
        if sparse and not given and name != "kind":
            continue
        if isinstance(value, Settings):
            inner += ["", f"[{'.'.join((*path, name))}]", *written(value, decided, sets, (*path, name), sparse)]
        elif value is None:
            lines += [] if sparse else [f"# {name} is not set  # default"]
        else:
            flagged = any(dotted == key or dotted.startswith(f"{key}.") or key.startswith(f"{dotted}.") for key in sets)
            origin = "given by --set" if flagged else "given" if given else "default"
            shown, origin = resolved(settings, name, values[name], origin, decided.get(dotted))
            lines.append(f"{toml_key(name)} = {toml_value(shown)}" + ("" if sparse else f"  # {origin}"))
    return lines + inner


def resolved(
    settings: Settings, name: str, value: Any, origin: str, decision: Mapping[str, Any] | None
) -> tuple[Any, str]:
    """The value that a decision gave to a setting, and the origin to write beside it."""
    if decision is None:
        return value, origin
    dotted, found = str(decision["name"]), decision["value"]
    kind, _, rest = str(decision["origin"]).partition(":")
    told = f"{kind.strip()}: plan.json#{dotted}" + (f" ({rest.strip()})" if rest.strip() else "")
    told = " ".join(told.split())
    try:
        type(settings).model_validate(settings.model_dump(mode="json") | {name: found})
    except ValidationError:
        return value, f"{told} = {toml_value(str(found))}"
    return found, told
