"""Make more sounds like these: the chance of every next sample is learned, and new clips are drawn from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from danlu.base.contracts import Batch, DataCard, Output, Split
from danlu.base.durable import write_bytes
from danlu.base.errors import UserError
from danlu.base.sound import wav_bytes
from danlu.tasks.panels import listing
from danlu.tasks.samples import Panel, Predictions, SampleTask

if TYPE_CHECKING:
    from torch import Tensor, nn

Count = Annotated[int, Field(ge=0, le=1000)]


class Truth(NamedTuple):
    """What a piece of a clip is."""

    clip: int
    n: int
    """Samples that are scored."""
    value: int
    """Of the first condition; -1 without one."""


class Synthesize(SampleTask):
    """Learn the chance of every next sample, and draw new clips."""

    kind: Literal["synthesize"] = "synthesize"
    """Synthesis of sound, sample by sample."""
    temperature: Annotated[float, Field(ge=0, le=10)] = 1.0
    """Of the draws: below 1 likely samples are drawn more often; 0 takes the likeliest."""
    clips: Count = 10
    """Clips to make for the report, one a value of the first condition in turn."""

    headline: ClassVar[str] = "nats_per_sample"
    higher_is_better: ClassVar[bool] = False
    predicts_fast: ClassVar[bool] = False
    units: ClassVar[Mapping[str, str]] = {"nats_per_sample": "nats", "bits_per_sample": "bits"}

    def check(self, card: DataCard) -> None:
        """Needs waveforms."""
        if "level_counts" not in card.features:
            fix = 'set data.kind = "waveform"'
            raise UserError("task.kind", "synthesize needs waveforms", got=f"{card.kind} data", fix=fix)

    def n_outputs(self, card: DataCard) -> int:
        """A score a level."""
        return int(card.features["levels"])

    def loss_sum(self, output: Output, batch: Batch) -> Tensor:
        """Nats over samples."""
        from danlu.tasks.losses import chunked_cross_entropy

        features, head = parts_of(output)
        return chunked_cross_entropy(features, head, batch.tensors["targets"])

    def predict(self, model: nn.Module, batch: Batch, card: DataCard) -> Predictions:
        """Nats of each piece; of what is to be made, its levels."""
        from danlu.tasks.losses import cross_entropy_per_target

        if "levels" not in batch.tensors:
            return self.made(model, *(batch.tensors[k] for k in ("conditions", "n_samples", "seeds")))
        features, head = parts_of(model(batch))
        nats = cross_entropy_per_target(features, head, batch.tensors["targets"])
        return [float(v) for v in nats.double().sum(1).cpu()]

    def made(self, model: Any, conditions: Tensor, n_samples: Tensor, seeds: Tensor) -> list[NDArray[np.int64]]:
        """New clips, as levels."""
        if not hasattr(model, "generate"):
            raise UserError("model.kind", "cannot make sounds", fix='set model.kind = "wavenet"')
        return list(model.generate(conditions, n_samples, seeds.cpu().numpy(), self.temperature))

    def truths(self, batch: Batch, card: DataCard) -> Predictions:
        """See Truth."""
        conditions, clips = batch.tensors["conditions"].cpu(), batch.tensors["clip"].tolist()
        values = conditions[:, 0].tolist() if conditions.shape[1] else [-1] * len(clips)
        counts = (batch.tensors["targets"] >= 0).sum(1).tolist()
        return [Truth(*row) for row in zip(clips, counts, values, strict=True)]

    def scorer(self, predictions: Predictions, truths: Predictions, card: DataCard) -> NatsScorer:
        """By clip."""
        return NatsScorer(predictions, truths)

    def baselines(self, train: Split, split: Split, card: DataCard) -> dict[str, Predictions]:
        """How often each level is, how often it follows another, and a linear predictor with errors of adaptive scale."""
        from danlu.tasks.synthesize_rivals import rivals

        return dict(rivals(train, split, card.features))

    def panels(self, predictions: Predictions, truths: Predictions, split: Split, card: DataCard) -> list[Panel]:
        """Nats by value of the first condition."""
        values = card.features["values"]
        if not values:
            return []
        rows = []
        for code, name in enumerate(values[0]):
            chosen = [i for i, truth in enumerate(truths) if truth.value == code]
            n = sum(truths[i].n for i in chosen)
            if n:
                nats = sum(predictions[i] for i in chosen) / n
                rows.append([name, len({truths[i].clip for i in chosen}), f"{n:,}", f"{nats:.4f}"])
        column = card.features["conditions"][0]
        return [listing(f"By {column}", [column, "clips", "samples", "nats a sample"], rows)]

    def panels_made(self, model: nn.Module, split: Split, card: DataCard) -> list[Panel]:
        """New clips to listen to, beside real ones that went through the same levels."""
        from danlu.tasks.synthesize_panels import clip_panels

        return clip_panels(self, model, split, card) if self.clips else []

    def rows(self, predictions: Predictions, split: Split, card: DataCard) -> list[dict[str, Any]]:
        """{"name", "seconds", "file"}: what was made."""
        rate = card.features["rate"]
        return [
            {"name": split.name(i), "seconds": round(len(levels) / rate, 4), "file": file_name(split, i)}
            for i, levels in enumerate(predictions)
        ]

    def write(self, predictions: Predictions, split: Any, card: DataCard, out: Path) -> bool:
        """A WAV file a clip."""
        for i, levels in enumerate(predictions):
            write_bytes(out / file_name(split, i), wav_of(levels, card))
        return True


class NatsScorer:
    """Sums of nats and samples of each clip."""

    def __init__(self, predictions: Predictions, truths: Predictions) -> None:
        _, unit = np.unique([truth.clip for truth in truths], return_inverse=True)
        self.n_units = int(unit.max(initial=-1)) + 1
        self.nats = np.bincount(unit, np.array(predictions, float), self.n_units)
        self.counts = np.bincount(unit, [truth.n for truth in truths], self.n_units)

    def values(self, rows: NDArray[np.int64] | None = None) -> dict[str, float]:
        """Nats and bits a sample, over clips `rows`."""
        w = np.ones(self.n_units) if rows is None else np.bincount(rows, minlength=self.n_units).astype(float)
        nats = float(w @ self.nats / (w @ self.counts))
        return {"nats_per_sample": nats, "bits_per_sample": nats / float(np.log(2))}


def wav_of(levels: NDArray[np.int64], card: DataCard) -> bytes:
    """Levels as a WAV file."""
    return wav_bytes(np.array(card.features["level_values"])[levels], int(card.features["rate"]))


def file_name(split: Split, row: int) -> str:
    """7-jackson-0003.wav, of letters that every file system takes."""
    plain = "".join(c if c.isalnum() or c in "-_." else "_" for c in split.name(row))
    return f"{plain[:80]}-{row:04}.wav"


def parts_of(output: Output) -> tuple[Tensor, Tensor]:
    """Features (B, T, D) and head (V, D) of a model that hands its head over."""
    if output.features is None or output.head_weight is None:
        raise UserError("model.kind", "must score every next sample", fix='set model.kind = "wavenet"')
    return output.features, output.head_weight
