"""Check: what a run would be, before anything is written or read through.

The model is built on torch's meta device (shapes without memory) and one sample goes through it and its loss, so a
shape that does not fit is found now; what backward would keep is counted on the way. The data are looked into, not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from danlu.base.contracts import Batch
from danlu.base.settings import Settings
from danlu.base.units import parse_length, short_count
from danlu.build import is_samples, on_meta
from danlu.data.survey import estimate
from danlu.planning import hardware, priors, sizing
from danlu.planning.corpus import tokens_in, vocabulary
from danlu.planning.draft import EXPECTED_SHARE
from danlu.planning.ledger import Decision
from danlu.recipe import Recipe
from danlu.stages.check_samples import sample_rows


@dataclass
class Check:
    """A run foretold."""

    title: str
    n_parameters: int
    memory_bytes: int
    """Weights, gradients, optimizer state, and what backward keeps of one micro-batch (of one sample when auto)."""
    disk_bytes: int
    """Token files and checkpoints."""
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    """(setting, value, why)."""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Weights:
    """What the meta model weighs, in bytes."""

    n_parameters: int
    parameters: int
    optimizer: int
    kept_per_sample: int


def check(recipe: Recipe) -> Check:
    """Resolve, build on the meta device, pass one sample through, estimate."""
    recipe.check_scored()
    if is_samples(recipe):
        n_parameters, n_bytes, rows = sample_rows(recipe)
        disk = (recipe.checkpoint.keep + 1) * n_bytes
        notes = ["Memory is that of weights, gradients and optimizer; what backward keeps is measured by danlu plan."]
        return Check(f"{recipe.name}: what a run would be", n_parameters, n_bytes, disk, rows, notes)
    data: Any = recipe.data
    looked = estimate(data)
    n_vocabulary, vocabulary_why = vocabulary(data.tokenizer, looked)
    n_tokens = tokens_in(data.tokenizer, looked)
    recipe, why_size = with_size(recipe, n_vocabulary, n_tokens)
    model: Any = recipe.model
    shape = model.shape(n_vocabulary)
    weights = weigh(recipe, n_vocabulary)
    n_micro = recipe.train.micro_batch if isinstance(recipe.train.micro_batch, int) else 1
    memory = 2 * weights.parameters + weights.optimizer + n_micro * weights.kept_per_sample
    n_checkpoints = recipe.checkpoint.keep + 1
    disk = n_tokens * token_bytes(n_vocabulary) + n_checkpoints * (weights.parameters + weights.optimizer)
    found = Check(f"{recipe.name}: what a run would be", weights.n_parameters, memory, disk, notes=list(looked.notes))
    found.rows += [
        ("data", f"{looked.n_files:,} files, {size(looked.n_bytes)}", f"about {size(looked.n_text_bytes)} of text; looked into, not read"),
        ("vocabulary", f"{n_vocabulary:,}", vocabulary_why),
        ("tokens", f"about {short_count(n_tokens)}", "text bytes over bytes per token; prepare counts them"),
        ("parameters", f"{weights.n_parameters:,}", f"{short_count(shape.n_hidden_parameters)} beside embedding and head"),
        *why_size,
        *model_rows(model, shape),
        ("FLOPs per token", short_count(shape.flops_per_token()), "6 a parameter and causal attention (Kaplan et al. 2020)"),
        ("memory", f"about {size(memory)}", memory_why(weights, n_micro, recipe)),
        ("disk", f"about {size(disk)}", f"token files, and {n_checkpoints} checkpoints of {size(weights.parameters + weights.optimizer)}"),
        *open_rows(recipe, answers(recipe, shape, n_tokens)),
    ]  # fmt: skip
    return found


def with_size(recipe: Recipe, n_vocabulary: int, n_tokens: int) -> tuple[Recipe, list[tuple[str, str, str]]]:
    """The recipe with a size, by the law that plan will use, when it gives none; and the row that says so."""
    if not sizing.is_open(recipe.model):
        return recipe, []
    gflops = 0.0
    if recipe.train.length != "auto" and recipe.train.length.unit == "seconds":
        machine = hardware.look(recipe.train.device, recipe.train.threads)
        rate = hardware.matmul_rate(machine, "bf16" if machine.has_bf16 else "fp32", limit_s=0.05)
        gflops = EXPECTED_SHARE * rate.gflops
    flops = sizing.compute_of(recipe.train.length, n_tokens, gflops)
    model, decision = sizing.sized(recipe.model, n_vocabulary, max(1, n_tokens), flops)
    rows = [("model.size", f"about {short_count(model.size)}", f"{decision.origin}; plan counts and measures")]
    return recipe.model_copy(update={"model": model}), rows


def token_bytes(n_vocabulary: int) -> int:
    """Bytes of one token in the token files."""
    return 1 if n_vocabulary <= 2**8 else 2 if n_vocabulary <= 2**16 else 4


def weigh(recipe: Recipe, n_vocabulary: int) -> Weights:
    """Build model and optimizer on the meta device, pass one sample through model and loss; all sizes in bytes."""
    import torch

    settings: Any = recipe.model
    task: Any = recipe.task
    with on_meta():
        model = settings.build(n_vocabulary, recipe.seed).to("meta")
        tokens = torch.zeros(1, settings.context, dtype=torch.int64)
        with kept_bytes() as kept:
            task.loss_sum(
                model(Batch({"tokens": tokens, "targets": tokens}, settings.context)),
                Batch({"tokens": tokens, "targets": tokens}, settings.context),
            )
    parameters = list(model.parameters())
    return Weights(
        n_parameters=sum(p.numel() for p in parameters),
        parameters=sum(p.numel() * p.element_size() for p in parameters),
        optimizer=sum(t.numel() * t.element_size() for t in optimizer_tensors(recipe, model)),
        kept_per_sample=max(0, sum(kept.values()) - sum(kept.get(storage(p), 0) for p in parameters)),
    )


def optimizer_tensors(recipe: Recipe, model: Any) -> list[Any]:
    """The state that the update rule keeps, on the model's device; an auto setting does not change its size."""
    settings: Any = recipe.optimizer
    fill = {name: 1e-3 for name in ("lr", "weight_decay", "beta2") if getattr(settings, name, None) == "auto"}
    return list(settings.model_copy(update=fill).build(model).tensors().values())


@contextmanager
def kept_bytes() -> Iterator[dict[int, int]]:
    """Bytes of every tensor storage that autograd keeps for backward, by storage."""
    import torch

    kept: dict[int, int] = {}
    held = []  # a storage that is freed could lend its address to the next

    def note(tensor: torch.Tensor) -> torch.Tensor:
        held.append(tensor)
        kept[storage(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield kept


def storage(tensor: Any) -> int:
    """What tells one storage from another, on the meta device too, where all addresses are 0."""
    return int(tensor.untyped_storage()._cdata)


def model_rows(model: Settings, shape: Any) -> list[tuple[str, str, str]]:
    """The model's dials, with what they came to."""
    rows = []
    wanted: Any = getattr(model, "size", "auto")
    derived = "derived" if wanted == "auto" else f"derived from size = {short_count(wanted)}"
    for name in ("n_layers", "width", "n_heads", "n_kv_heads", "hidden_width", "context"):
        given = name in model.model_fields_set
        why = "given" if given else "default" if name == "context" else derived
        rows.append((f"model.{name}", f"{getattr(shape, name):,}", why))
    return rows


def memory_why(weights: Weights, n_micro: int, recipe: Recipe) -> str:
    """What the memory is made of."""
    samples = "one sample" if n_micro == 1 else f"{n_micro} samples"
    micro = "" if isinstance(recipe.train.micro_batch, int) else "; plan chooses train.micro_batch"
    parts = f"weights and gradients {size(2 * weights.parameters)}, optimizer {size(weights.optimizer)}"
    return f"{parts}, kept for backward {size(n_micro * weights.kept_per_sample)} ({samples}, fp32{micro})"


def open_rows(recipe: Recipe, answered: Mapping[str, Decision]) -> list[tuple[str, str, str]]:
    """The main settings of training; those that are auto with what the laws say now."""
    shown = {
        "optimizer": ("kind", "lr", "weight_decay"),
        "schedule": ("kind",),
        "train": ("length", "batch", "micro_batch", "precision"),
    }
    rows = []
    for section, names in shown.items():
        settings = getattr(recipe, section)
        values = settings.model_dump(mode="json")
        for name in names:
            dotted, decision = f"{section}.{name}", answered.get(f"{section}.{name}")
            if name not in values:
                continue
            if values[name] != "auto":
                rows.append((dotted, str(values[name]), "given" if name in settings.model_fields_set else "default"))
            elif decision is not None:
                rows.append((dotted, f"about {decision.value}", f"{decision.origin}; {decision.source}"))
            else:
                rows.append((dotted, "auto", "measured by danlu plan"))
    return rows


def answers(recipe: Recipe, shape: Any, n_tokens: int) -> dict[str, Decision]:
    """What the prior laws say of settings that are auto, from the estimated number of tokens.

    A length in time says nothing here: how many tokens it comes to is measured by plan.
    """
    train, optimizer = recipe.train, recipe.optimizer
    facts = priors.Facts(shape.n_hidden_parameters, shape.context, max(1, n_tokens))
    facts = replace(facts, optimizer=getattr(optimizer, "kind", ""), settings=optimizer)
    found: dict[str, Decision] = {}
    if train.length == "auto":
        found["train.length"] = priors.length(facts)
    length = parse_length(found["train.length"].value if train.length == "auto" else train.length)
    per_unit: dict[str, float] = {"tokens": 1, "samples": shape.context, "epochs": n_tokens, "seconds": 0}
    per_unit["steps"] = train.batch * shape.context if train.batch != "auto" else 0
    facts = replace(facts, n_tokens=length.amount * per_unit[length.unit])
    if not facts.n_tokens:
        return found
    if train.batch == "auto":
        found["train.batch"] = priors.batch(facts)
    facts = replace(facts, batch=found["train.batch"].value if train.batch == "auto" else train.batch)
    given: Any = getattr(optimizer, "lr", "auto")
    if given == "auto":
        found["optimizer.lr"] = priors.learning_rate(facts)
    facts = replace(facts, lr=float(found["optimizer.lr"].value if given == "auto" else given))
    found["optimizer.weight_decay"] = priors.weight_decay(facts)
    return found


def size(n_bytes: float) -> str:
    """1234567 -> "1.2 MB"."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:.3g} {unit}"
    return f"{n_bytes:.0f} bytes"
