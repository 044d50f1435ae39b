"""Evaluate: the best checkpoint on the whole split, against baselines on the same bytes, with intervals and samples.

Writes evaluate/scores.json and the package. Every number says how it was made in `notes`.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from danlu.base.contracts import Metric, Progress, Scores, SplitCard
from danlu.base.errors import UserError
from danlu.base.runfolder import RunFolder, write_json
from danlu.build import is_samples, open_text
from danlu.models.generate import generate
from danlu.models.sampling import Sampling
from danlu.package import write_package
from danlu.planning.noise_told import seed_note
from danlu.planning.prediction import FINAL_LOSS
from danlu.planning.scorecard import is_predicted, write_scorecard
from danlu.recipe import Recipe
from danlu.sections import Evaluate
from danlu.stages.evaluate_baselines import Resampling, baseline_metrics
from danlu.stages.evaluate_samples import evaluate_samples
from danlu.tasks.intervals import units
from danlu.tasks.language_scores import TokenText, validation_sums
from danlu.trained import Trained, load_model
from danlu.training.validation import open_validation

TOKENS_AT_ONCE = 16_384
"""Tokens that go through the model together."""
PROMPT_CHARACTERS = 60


def evaluate(recipe: Recipe, run: RunFolder, progress: Progress) -> Scores:
    """Score, compare, sample, write; then hold the plan's predictions against what came."""
    made = evaluate_samples if is_samples(recipe) else evaluate_text
    scores = made(recipe, run, progress)
    measured = {name: metric.value for name, metric in scores.metrics.items()}
    if is_predicted(run, FINAL_LOSS):
        measured |= final_loss(recipe, run, scores)
    write_scorecard(run, measured)
    return scores


def final_loss(recipe: Recipe, run: RunFolder, scores: Scores) -> dict[str, float]:
    """{"final_loss": of the scored weights on the whole validation split}; {} where there is none. A language model's is
    among its scores already."""
    if "loss" in scores.metrics and recipe.evaluate.on == "validation":
        return {FINAL_LOSS: scores.metrics["loss"].value}
    trained = load_model(run, recipe)
    split = trained.card.splits.get("validation", SplitCard())
    limits = {"during_tokens": max(1, split.n_tokens), "during_samples": max(1, split.n_samples)}
    whole = recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update=limits)})
    found = open_validation(whole, run, trained.card, trained.choices)(trained.model)
    return {FINAL_LOSS: found["loss"]} if "loss" in found else {}


def evaluate_text(recipe: Recipe, run: RunFolder, progress: Progress) -> Scores:
    """The same for a language model, whose text comes in windows."""
    settings = recipe.evaluate
    trained = load_model(run, recipe)
    recipe.check_scored(trained.card.splits)
    text, train = (open_text(recipe, run, trained.card, split) for split in (settings.on, "train"))
    batch = max(1, TOKENS_AT_ONCE // text.context)
    by_window, by_document = validation_sums(trained.model, recipe.task, text, batch, trained.device, None, progress)
    if not by_window.n_targets.sum():
        raise UserError(f"evaluate.on: the {settings.on} split", "holds nothing to score", fix="give it more text")
    chosen = units(len(by_document.nats), len(by_window.nats))
    resampling = Resampling(chosen, settings.bootstrap, recipe.seed)
    sums = by_document if chosen.by == "documents" else by_window
    metrics = {"bits_per_byte": resampling.bits_per_byte(sums), "loss": resampling.loss(sums)}
    progress("baselines", 0, 1)
    baselines, notes = baseline_metrics(train, text, trained.tokenizer.decode, resampling, sums)
    beaten, verdict = compared(metrics["bits_per_byte"], baselines, len(chosen.starts))
    progress("samples", 0, 1)
    scores = Scores(
        split=settings.on,
        metrics=metrics,
        baselines=baselines,
        beats_baselines=beaten,
        n_targets=int(by_window.n_targets.sum()),
        samples=samples(trained, text, settings),
        notes=(
            verdict,
            *trained.notes,
            denominators(text, sums.n_bytes.sum()),
            chosen.method,
            *seed_note(recipe, run),
            *notes,
        ),
    )
    run.evaluate.mkdir(parents=True, exist_ok=True)
    write_json(run.evaluate / "scores.json", dataclasses.asdict(scores))
    write_package(run, trained, scores)
    return scores


def compared(model: Metric, baselines: dict[str, dict[str, Metric]], n_units: int) -> tuple[bool, str]:
    """Whether every baseline is behind the model beyond doubt, and the sentence that says so.

    The doubt is that of the difference on the same resampled text, which is much smaller than that of each score:
    a hard document is hard for all. A size (xz) is compared on this very text.
    """
    not_behind = [name for name, metrics in baselines.items() if metrics["behind"].low <= 0]
    nearest = min(baselines, key=lambda name: baselines[name]["behind"].value)
    gap = baselines[nearest]["behind"]
    said = f"It does not beat {', '.join(not_behind)}" if not_behind else "It beats every baseline"
    doubt = "" if n_units > 1 else " There is too little text for an interval."
    side, ends = ("more", (gap.low, gap.high)) if gap.value >= 0 else ("less", (-gap.high, -gap.low))
    interval = f" ({ends[0]:.3f} to {ends[1]:.3f})" if gap.high > gap.low else ""
    return not not_behind, (
        f"{said}: {model.value:.3f} bits per byte ({model.low:.3f} to {model.high:.3f}), and the nearest, {nearest}, "
        f"needs {abs(gap.value):.3f}{interval} {side} on the same text.{doubt}"
    )


def denominators(text: TokenText, n_bytes: int) -> str:
    """What the losses are divided by."""
    if text.pack == "separate":
        unscored = "The first token of each document is context only."
    elif text.document_end is None:
        unscored = "The first token of the split is context only."
    else:
        unscored = "Every token is scored once."
    ends = " The loss of document ends counts; they add no bytes." if text.document_end is not None else ""
    return f"Bits per byte are over {int(n_bytes):,} UTF-8 bytes in windows of {text.context} tokens. {unscored}{ends}"


def samples(trained: Trained, text: TokenText, settings: Evaluate) -> tuple[dict[str, str], ...]:
    """Continuations of the given prompts, or of beginnings found in the split."""
    prompts = list(settings.prompts) or beginnings(trained, text, settings.samples)
    if not prompts:
        return ()
    sampling = Sampling(
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        top_k=settings.top_k or None,
        seed=trained.recipe.seed,
    )
    found = generate(trained.model, trained.tokenizer, prompts, sampling, trained.limits)
    return tuple({"prompt": c.prompt, "text": c.text, "settings": str(sampling)} for c in found)


def beginnings(trained: Trained, text: TokenText, n_prompts: int) -> list[str]:
    """First words of evenly spaced documents; inside a document, of a line, when there are fewer documents."""
    n_documents, n_tokens = len(text.documents) - 1, len(text.tokens)
    prompts = []
    for number in range(n_prompts):
        if n_documents >= n_prompts:
            start = int(text.documents[number * n_documents // n_prompts])
            piece = decoded(trained, text, start)
        else:
            piece = decoded(trained, text, number * n_tokens // n_prompts).partition("\n")[2]
        if words := first_words(piece):
            prompts.append(words)
    return prompts


def decoded(trained: Trained, text: TokenText, start: int) -> str:
    """About the next 200 tokens as text, up to a document end."""
    tokens: list[Any] = text.tokens[start : start + 200].tolist()
    if text.document_end in tokens:
        tokens = tokens[: tokens.index(text.document_end)]
    return str(trained.tokenizer.decode(tokens))


def first_words(text: str) -> str:
    """The first line with words, cut after a word at about PROMPT_CHARACTERS."""
    line = next((line.rstrip() for line in text.lstrip("�").splitlines() if re.search(r"\w", line)), "")
    return (
        line
        if len(line) <= PROMPT_CHARACTERS
        else re.sub(r"\s*\S*$", "", line[:PROMPT_CHARACTERS]) or line[:PROMPT_CHARACTERS]
    )
