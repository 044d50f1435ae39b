"""Say a sentence in another language: beam search, BLEU, chrF and nats per token, against rivals that know no grammar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from danlu.base.contracts import Batch, DataCard, Output, Split
from danlu.base.durable import write_text
from danlu.base.errors import UserError
from danlu.tasks.samples import Panel, Predictions, SampleTask, Scorer
from danlu.tasks.translate_scores import TextScorer, Translation

if TYPE_CHECKING:
    from torch import Tensor, nn

AT_ONCE = 64
"""Sentences of like length that are searched together."""
EXTRA, TIMES = 10, 2
"""A translation has at most TIMES as many tokens as its source, and EXTRA more."""
WORDS_SHOWN = 9
"""Words of the sentence whose attention is shown, about."""


class Translate(SampleTask):
    """Translation of sentences."""

    kind: Literal["translate"] = "translate"
    """Translation."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of each target token spread evenly over the vocabulary (Szegedy et al. 2016). In the training loss only."""
    beams: Annotated[int, Field(ge=1, le=256)] = 5
    """Translations that are followed at once; 1 takes the likeliest token each time."""
    length_penalty: Annotated[float, Field(ge=0, le=10)] = 1.0
    """alpha of Wu et al. (2016): log-probabilities are divided by ((5 + length) / 6)^alpha. 0 favours short ones."""
    bleu_tokenize: Literal["13a", "intl", "zh", "char", "none"] = "13a"
    """How sacrebleu cuts words before it counts them; the scores' name is incomplete without it."""
    bleu_lowercase: bool = False
    """Whether BLEU and chrF overlook case."""

    headline: ClassVar[str] = "bleu"
    predicts_fast: ClassVar[bool] = False
    units: ClassVar[Mapping[str, str]] = {"nats_per_token": "nats", "length_ratio": "written / wanted words"}

    def check(self, card: DataCard) -> None:
        """Needs pairs of texts."""
        if "target_vocab_size" not in card.features or "end_id" not in card.features:
            raise UserError("task.kind", "translate needs pairs of texts", got=f"{card.kind} data")

    def n_outputs(self, card: DataCard) -> int:
        """A score a token of the target's vocabulary."""
        return int(card.features["target_vocab_size"])

    def loss_sum(self, output: Output, batch: Batch) -> Tensor:
        """Nats over target tokens, smoothed while training."""
        import torch

        from danlu.tasks.losses import chunked_cross_entropy

        smoothing = self.label_smoothing if torch.is_grad_enabled() else 0.0
        return chunked_cross_entropy(*parts_of(output), batch.tensors["targets"], smoothing=smoothing)

    def predict(self, model: nn.Module, batch: Batch, card: DataCard) -> Predictions:
        """Translations, searched in groups of like length; with the reference's nats where there is one."""
        import torch

        f = card.features
        if not hasattr(model, "step"):
            raise UserError("model.kind", "must write one token at a time for task translate", fix='write "seq2seq"')
        source, lengths = batch.tensors["source"], batch.tensors["lengths"]
        found: list[Any] = [None] * len(source)
        nats = reference_nats(model, batch) if batch.n_targets else [0.0] * len(source)
        counts = (batch.tensors["targets"] >= 0).sum(1).tolist()
        for rows in torch.split(torch.argsort(lengths, stable=True), AT_ONCE):
            part, sizes = source[rows, : int(lengths[rows].max())], lengths[rows]
            written = self.written(model, part, sizes, f)
            for i, tokens in zip(rows.tolist(), written, strict=True):
                found[i] = Translation(spelled(tokens, f), nats[i], counts[i])
        return found

    def written(self, model: Any, source: Tensor, lengths: Tensor, f: Mapping[str, Any]) -> list[list[int]]:
        """The best tokens of each source (B, S), without the end."""
        from danlu.tasks.beam import Search, searched

        barred = f["pad_id"], f["begin_id"], f["unknown_id"]
        how = Search(self.beams, self.length_penalty, f["begin_id"], f["end_id"], barred)
        limits = (TIMES * lengths + EXTRA).clamp_max(int(f["context"]))
        return searched(model, source, lengths, limits, how)

    def truths(self, batch: Batch, card: DataCard) -> Predictions:
        """The reference as it stands in the file."""
        return [bytes(row).rstrip(b"\0").decode() for row in batch.tensors["reference"].cpu().numpy()]

    def scorer(self, predictions: Predictions, truths: Predictions, card: DataCard) -> Scorer:
        """See tasks/translate_scores.py."""
        return TextScorer(predictions, truths, self.bleu_tokenize, self.bleu_lowercase)

    def baselines(self, train: Split, split: Split, card: DataCard) -> dict[str, Predictions]:
        """A copy, the nearest training sentence's translation, word for word."""
        from danlu.tasks.translate_rivals import Dictionary, Nearest

        (sources, targets), (given, _) = texts_of(train), texts_of(split)
        nearest, dictionary = Nearest(sources, targets), Dictionary(sources, targets)
        return {
            "copy_of_source": [Translation(text) for text in given],
            "nearest_training_pair": [Translation(nearest.translate(text)) for text in given],
            "word_for_word": [Translation(dictionary.translate(text)) for text in given],
        }

    def panels(self, predictions: Predictions, truths: Predictions, split: Split, card: DataCard) -> list[Panel]:
        """Examples, BLEU by length."""
        from danlu.tasks.translate_panels import panels_of

        scorer = TextScorer(predictions, truths, self.bleu_tokenize, self.bleu_lowercase)
        return list(panels_of(predictions, truths, texts_of(split)[0], scorer))

    def panels_made(self, model: nn.Module, split: Split, card: DataCard) -> list[Panel]:
        """The attention of one translation."""
        import torch

        from danlu.tasks.translate_panels import looked_at

        if not hasattr(model, "attention"):
            return []
        sizes = [abs(len(source.split()) - WORDS_SHOWN) for source in texts_of(split)[0]]
        batch = split.batch(np.array([int(np.argmin(sizes))])).to(next(model.parameters()).device)
        source, lengths, f = batch.tensors["source"], batch.tensors["lengths"], card.features
        (tokens,) = self.written(model, source, lengths, f)
        inputs = torch.tensor([[f["begin_id"], *tokens]], device=source.device)
        with torch.no_grad():
            made = Batch({"source": source, "lengths": lengths, "inputs": inputs}, 0)
            attention = model.attention(made)[0].cpu().numpy().round(3)  # type: ignore[operator]
        return [looked_at(attention, source[0].tolist(), [*tokens, f["end_id"]], f)]

    def rows(self, predictions: Predictions, split: Split, card: DataCard) -> list[dict[str, Any]]:
        """{"name", "source", "prediction"}."""
        sources = texts_of(split)[0]
        return [{"name": split.name(i), "source": sources[i], "prediction": p.text} for i, p in enumerate(predictions)]

    def write(self, predictions: Predictions, split: Split, card: DataCard, out: Any) -> bool:
        """translations.txt: one line a line."""
        write_text(out / "translations.txt", "".join(f"{p.text}\n" for p in predictions))
        return True


def parts_of(output: Output) -> tuple[Tensor, Tensor]:
    """Features and output matrix."""
    if output.features is None or output.head_weight is None:
        raise UserError("model.kind", "must give features and an output matrix", fix='write "seq2seq"')
    return output.features, output.head_weight


def texts_of(split: Any) -> tuple[Sequence[str], Sequence[str]]:
    """Sources and references of a split."""
    if not hasattr(split, "sources"):
        raise UserError("data.kind", "must keep its texts for task translate", fix='write "pairs"')
    return split.sources, split.references


def spelled(tokens: Sequence[int], features: Mapping[str, Any]) -> str:
    """Pieces side by side; bytes that are no whole character become U+FFFD."""
    pieces, marks = features["target_pieces"], max(features[f"{m}_id"] for m in ("pad", "begin", "end", "unknown"))
    text = "".join(pieces[i] for i in tokens if i > marks).encode("latin-1").decode("utf-8", "replace")
    return " ".join(text.split())


def reference_nats(model: Any, batch: Batch) -> list[float]:
    """Nats of each reference."""
    from danlu.tasks.losses import cross_entropy_per_target

    features, matrix = parts_of(model(batch))
    found: list[float] = cross_entropy_per_target(features, matrix, batch.tensors["targets"]).sum(1).tolist()
    return found
