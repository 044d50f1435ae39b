"""The package of a run: what one needs to use its model elsewhere, and a card that claims only what was measured.

package/weights.safetensors  card.json  tokenizer files  recipe.full.toml  scores.json  MODEL_CARD.md
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from safetensors.torch import save

from danlu.base.contracts import DataCard, Metric, Scores
from danlu.base.errors import one_line
from danlu.base.runfolder import RunFolder, write_bytes, write_json, write_text
from danlu.base.units import short_count
from danlu.trained import Trained
from danlu.training.state import kept

DATA_FILES = ("tokenizer.json", "token_bytes.bin", "preprocessing.json")


def write_package(run: RunFolder, trained: Trained, scores: Scores) -> None:
    """Write or replace every file of the package; each is either the old one or the new one."""
    folder = run.path / "package"
    folder.mkdir(exist_ok=True)
    weights = {name: p.detach().cpu().contiguous() for name, p in kept(trained.model).items()}
    write_bytes(folder / "weights.safetensors", save(weights, {"format": "pt", "step": str(trained.step)}))
    if hasattr(trained.model, "export"):
        trained.model.export(folder / "huggingface")
    write_json(folder / "card.json", trained.card.model_dump(mode="json"))
    for name in DATA_FILES:
        if (run.data / name).is_file():
            write_bytes(folder / name, (run.data / name).read_bytes())
    write_text(folder / "recipe.full.toml", run.full_recipe.read_text(encoding="utf-8"))
    write_json(folder / "scores.json", dataclasses.asdict(scores))
    write_text(folder / "MODEL_CARD.md", model_card(trained, scores))


def model_card(trained: Trained, scores: Scores) -> str:
    """Markdown: the model, its data, its scores, its limits; from the run folder's evidence alone."""
    parts = [
        f"# {trained.recipe.name}",
        described(trained),
        "## Data",
        *data_lines(trained.card),
        "## Scores",
        *score_table(scores),
        *(f"- {note}" for note in scores.notes),
        "## Limits",
        *(f"- {limit}" for limit in limits(trained, scores)),
        *sample_lines(scores),
    ]
    text = "\n".join(part if part.startswith(("- ", "|")) else f"\n{part}\n" for part in parts)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def described(trained: Trained) -> str:
    """One sentence on what it is."""
    n_parameters = sum(p.numel() for p in trained.model.parameters())
    if trained.card.kind != "text":
        kinds: list[Any] = [trained.recipe.model, trained.recipe.task, trained.recipe.optimizer]
        model, task, optimizer = (each.kind for each in kinds)
        return (
            f"A {model} model of {short_count(n_parameters)} parameters ({n_parameters:,}) for the task {task} on "
            f"{trained.card.kind} data. Its weights are those of step {trained.step:,} of a training with {optimizer}."
        )
    settings: Any = trained.model.settings
    return (
        f"A {settings.kind} language model of {short_count(n_parameters)} parameters ({n_parameters:,}): "
        f"{settings.n_layers} layers, {settings.width} wide, {settings.n_heads} heads, a context of "
        f"{settings.context} tokens, {trained.card.vocab_size:,} tokens of vocabulary. "
        f"Its weights are those of step {trained.step:,} of a training with {trained.recipe.optimizer.kind}."  # type: ignore[attr-defined]
    )


def data_lines(card: DataCard) -> list[str]:
    """Where the text came from and what became of it."""
    rejected = ", ".join(f"{n:,} {reason}" for reason, n in sorted(card.rows_rejected.items()) if n)
    lines = [f"- Source: {card.source} ({card.rows_in:,} rows read, {card.rows_used:,} used)."]
    lines += [f"- Left out: {rejected}."] if rejected else []
    for name, split in card.splits.items():
        counts = f"{split.n_documents:,} documents, {split.n_bytes:,} bytes, {split.n_tokens:,} tokens"
        counts = f"{split.n_samples:,} samples" if split.n_samples else counts
        lines.append(f"- {name}: {counts}.")
    return lines + [f"- Warning: {warning}" for warning in card.warnings]


def score_table(scores: Scores) -> list[str]:
    """Model and baselines on the same samples."""
    if scores.headline != "bits_per_byte":
        return sample_table(scores)
    rows = [f"| {scores.split} split | bits per byte | 95% interval |", "|---|---|---|"]
    rows.append(table_row("this model", scores.metrics["bits_per_byte"]))
    ranked = sorted(scores.baselines.items(), key=lambda pair: pair[1]["bits_per_byte"].value)
    rows += [table_row(name, metrics["bits_per_byte"]) for name, metrics in ranked]
    loss = scores.metrics["loss"]
    return [
        *rows,
        f"Loss: {loss.value:.4f} {loss.unit} ({loss.low:.4f} to {loss.high:.4f}), {scores.n_targets:,} targets.",
    ]


def sample_table(scores: Scores) -> list[str]:
    """The headline of model and baselines, then the model's other metrics."""
    head = scores.headline
    rows = [f"| {scores.split} split | {head.replace('_', ' ')} | 95% interval |", "|---|---|---|"]
    rows.append(table_row("this model", scores.metrics[head]))
    ranked = sorted(scores.baselines.items(), key=lambda p: p[1][head].value, reverse=scores.higher_is_better)
    rows += [table_row(name, found[head]) for name, found in ranked]
    others = [f"- {n.replace('_', ' ')}: {m.value:.4g} ({m.low:.4g} to {m.high:.4g}) {m.unit}".rstrip()
              for n, m in scores.metrics.items() if n != head]  # fmt: skip
    return [*rows, *others]


def table_row(name: str, metric: Metric) -> str:
    """One line of the table."""
    interval = "" if metric.low == metric.high else f"{metric.low:.4f} to {metric.high:.4f}"
    return f"| {name} | {metric.value:.4f} | {interval} |"


def limits(trained: Trained, scores: Scores) -> list[str]:
    """What the evidence does not show."""
    train = trained.card.splits["train"]
    if trained.card.kind != "text":
        found = [
            f"It has learned from {train.n_samples:,} samples of {trained.card.source} and from nothing else: what is "
            "unlike them may be answered wrongly, and without a warning.",
            f"It was scored on the {scores.split} split alone; fairness, privacy and attacks were not looked at.",
        ]
        return found + doubts(scores)
    found = [
        f"It has learned from {short_count(train.n_bytes)} bytes of {trained.card.source} and from nothing else: "
        "expect little of other text.",
        f"It sees at most {trained.limits.context} tokens at once.",
        f"It was scored on the {scores.split} split alone, by how well it predicts text; whether what it writes is "
        "true, safe or useful was not measured.",
        "It may repeat its training text word for word.",
    ]
    return found + doubts(scores)


def doubts(scores: Scores) -> list[str]:
    """What weakens the scores."""
    found = []
    if scores.split == "validation":
        found.append("The checkpoint was chosen on this same split, which favours it a little.")
    if scores.split == "train":
        found.append("It was scored on what it was trained on: nothing is known of new data.")
    if not scores.beats_baselines:
        found.append("It does not clearly beat its baselines.")
    return found


def sample_lines(scores: Scores) -> list[str]:
    """The first sample, as it came."""
    if not scores.samples:
        return []
    first = scores.samples[0]
    text = "\n".join(f"    {one_line(line)}" for line in (first["prompt"] + first["text"]).splitlines())
    return ["## Sample", f"First {len(first['prompt'])} characters given; {first['settings']}; not selected.", text]
