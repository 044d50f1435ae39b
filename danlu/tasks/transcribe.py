"""What was said in a sound: connectionist temporal classification (Graves et al. 2006) over characters or words."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from danlu.base.contracts import Batch, DataCard, Output, Split
from danlu.base.errors import MissingExtra, UserError
from danlu.tasks.samples import Panel, Predictions, SampleTask, Scorer

if TYPE_CHECKING:
    from torch import Tensor, nn


class Transcribe(SampleTask):
    """The words that a sound holds."""

    kind: Literal["transcribe"] = "transcribe"
    """Transcription."""
    beam: Annotated[int, Field(ge=1, le=1000)] = 1
    """Prefixes that are kept while a transcript is searched for; 1: the likeliest unit of each frame (greedy)."""

    headline: ClassVar[str] = "word_error"
    higher_is_better: ClassVar[bool] = False
    units: ClassVar[Mapping[str, str]] = {"word_error": "of words", "character_error": "of characters"}

    @property
    def predicts_fast(self) -> bool:  # type: ignore[override]
        """A search costs more than a pass through the model."""
        return self.beam == 1

    def check(self, card: DataCard) -> None:
        """Needs transcripts, and jiwer, before training rather than after."""
        if not card.features.get("units"):
            fix = "name the transcripts by data.text"
            raise UserError("task.kind", "transcribe needs sounds with transcripts", got=f"{card.kind} data", fix=fix)
        if importlib.util.find_spec("jiwer") is None:
            raise MissingExtra("task.kind transcribe", "jiwer", "audio")

    def n_outputs(self, card: DataCard) -> int:
        """A score for the blank and for each unit."""
        return 1 + len(card.features["units"])

    def loss_sum(self, output: Output, batch: Batch) -> Tensor:
        """Nats of the transcripts, summed over sounds; the targets it is divided by are their units (data.unit). Counted
        on the CPU: CUDA's own gradient differs from run to run."""
        import torch.nn.functional as F

        scores, lengths = scores_of(output, batch)
        logs = F.log_softmax(scores.float(), -1).transpose(0, 1).cpu()
        targets = batch.tensors["targets"].cpu()
        n_units = (targets >= 0).sum(1)
        loss = F.ctc_loss(logs, (targets + 1).clamp_min(1), lengths.cpu(), n_units, blank=0, reduction="sum")
        return loss.to(scores.device)

    def predict(self, model: nn.Module, batch: Batch, card: DataCard) -> Predictions:
        """A text a sound."""
        from danlu.tasks.transcribe_decode import greedy, prefix_search

        scores, lengths = scores_of(model(batch), batch)
        logs = scores.float().log_softmax(-1).double().cpu().numpy()
        kept = [row[:n] for row, n in zip(logs, lengths.tolist(), strict=True)]
        found = [greedy(row) if self.beam == 1 else prefix_search(row, self.beam)[0] for row in kept]
        return [written(units, card) for units in found]

    def truths(self, batch: Batch, card: DataCard) -> Predictions:
        """The whole transcripts, also where they hold units that training never had."""
        return texts_of(batch)

    def scorer(self, predictions: Predictions, truths: Predictions, card: DataCard) -> Scorer:
        """See tasks/transcribe_scores.py."""
        from danlu.tasks.transcribe_scores import TranscriptScorer

        return TranscriptScorer(predictions, truths)

    def baselines(self, train: Split, split: Split, card: DataCard) -> dict[str, Predictions]:
        """The commonest transcript, and that of the most similar training sound."""
        from danlu.tasks.transcribe_rivals import rivals

        return dict(rivals(train, split))

    def panels(self, predictions: Predictions, truths: Predictions, split: Split, card: DataCard) -> list[Panel]:
        """Worst transcripts, what was heard for what, and sounds to listen to."""
        from danlu.tasks.transcribe_panels import transcript_panels

        return list(transcript_panels(list(predictions), list(truths), split))

    def rows(self, predictions: Predictions, split: Split, card: DataCard) -> list[dict[str, Any]]:
        """{"name", "prediction"}."""
        return [{"name": split.name(i), "prediction": text} for i, text in enumerate(predictions)]


def scores_of(output: Output, batch: Batch) -> tuple[Tensor, Tensor]:
    """(scores (B, T, K), lengths (B,)) of the frames that the model answers for."""
    if output.scores is None or output.scores.dim() != 3:
        raise UserError("model.kind", "must give scores of every frame for task transcribe", fix="choose deepspeech")
    return output.scores, batch.tensors["lengths"] if output.lengths is None else output.lengths


def written(units: list[int], card: DataCard) -> str:
    """Units as a text."""
    names = [card.features["units"][unit] for unit in units]
    return " ".join((" " if card.features["unit"] == "words" else "").join(names).split())


def texts_of(batch: Batch) -> list[str]:
    """The transcripts that came with a batch."""
    text = batch.tensors["text"].cpu().numpy()
    return ["".join(map(chr, row[row >= 0])) for row in np.asarray(text)]
