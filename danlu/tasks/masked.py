"""Masked words: some tokens of a text are hidden and told from those around (BERT: Devlin et al. 2019, section 3.1).

Needs of the data: features vocab_size, mask_id, n_special (ids below it are no words); tensors tokens (B, T), lengths.
A prediction is (M, 1 + 2 K): nats of each hidden token, its K likeliest fillings, and their shares.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr

from danlu.base.contracts import Batch, DataCard, Output, Split
from danlu.base.errors import UserError
from danlu.tasks.samples import Panel, Predictions, SampleTask, Scorer, Words

if TYPE_CHECKING:
    from torch import Tensor, nn

Share = Annotated[float, Field(ge=0, le=1)]
N_BEST = 5
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
FACTORS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
SCORED_AT_ONCE = 1 << 24
"""Scores held together while fillings are looked for."""


class Masked(SampleTask):
    """Which words were hidden."""

    kind: Literal["masked"] = "masked"
    """Masked language modelling."""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of a text's words that are to be told; at least one."""
    hidden: Share = 0.8
    """Share of these that the mask token stands for."""
    replaced: Share = 0.1
    """Share of these in whose place stands another word: any of the vocabulary, or, where the data spell words, one of the
    same text. The rest are left as they are."""

    _ids: tuple[int, int, int] = PrivateAttr(default=(0, 0, 0))
    headline: ClassVar[str] = "nats_per_token"
    higher_is_better: ClassVar[bool] = False
    predicts_fast: ClassVar[bool] = False
    units: ClassVar[Mapping[str, str]] = {"nats_per_token": "nats"}

    def check(self, card: DataCard) -> None:
        """Needs a mask token. Keeps what ids mean for `change`."""
        if "mask_id" not in card.features:
            raise UserError("task.kind", "masked needs tokens and a mask token", got=f"{card.kind} data")
        if self.hidden + self.replaced > 1:
            raise UserError("task.hidden", "and task.replaced must be at most 1 together", got=self.hidden + self.replaced)  # fmt: skip
        self._ids = tuple(int(card.features[name]) for name in ("mask_id", "n_special", "vocab_size"))  # type: ignore[assignment]

    def asks(self, card: DataCard) -> dict[str, Any]:
        """A word at each position."""
        return {"per_position": True, "fills": True}

    def n_outputs(self, card: DataCard) -> int:
        """A score a word."""
        return int(card.features["vocab_size"])

    def change(self, batch: Batch, seeds: Words) -> Batch:
        """Hide words; each sample's follow from its own seed alone. A text with gaps of its own gets no others."""
        import torch

        mask, first, vocab_size = self._ids
        tokens = batch.tensors["tokens"].numpy()
        chosen, draw = self.chosen(tokens, seeds)
        replaced = chosen & (draw >= self.hidden) & (draw < self.hidden + self.replaced)
        gone = chosen & (draw < self.hidden)
        noise = words_at(seeds + GOLDEN, tokens.shape[1])
        spelled = "grams" in batch.tensors
        if spelled:
            lengths = np.maximum(batch.tensors["lengths"].numpy(), 1).astype(np.uint64)
            other = (noise % lengths[:, None]).astype(np.int64)
            words = np.take_along_axis(tokens, other, 1)
        else:
            words = (noise % np.uint64(max(1, vocab_size - first))).astype(np.int64) + first
        changed = dict(batch.tensors)
        changed["tokens"] = torch.from_numpy(np.where(gone, mask, np.where(replaced, words, tokens)))
        changed["targets"] = torch.from_numpy(np.where(chosen, tokens, -1))
        if spelled:
            grams = batch.tensors["grams"].numpy()
            theirs = np.take_along_axis(grams, other[..., None], 1)
            grams = np.where(gone[..., None], 0, np.where(replaced[..., None], theirs, grams))
            changed["grams"] = torch.from_numpy(grams)
        return Batch(changed, int(chosen.sum()), batch.ids)

    def chosen(self, tokens: NDArray[np.int64], seeds: Words) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """(B, T) which tokens are to be told, and (B, T) in 0..1 what becomes of each."""
        mask, first, _ = self._ids
        words = tokens >= first
        rank = (
            np.where(words, words_at(seeds, tokens.shape[1]) >> np.uint64(1), np.uint64(2**64 - 1))
            .argsort(1)
            .argsort(1)
        )
        n_words = words.sum(1)
        n_chosen = np.maximum(np.round(self.share * n_words).astype(np.int64), np.minimum(n_words, 1))
        n_chosen[(tokens == mask).any(1)] = 0
        draw = np.asarray((words_at(seeds + GOLDEN + GOLDEN, tokens.shape[1]) >> np.uint64(11)) * 2.0**-53, np.float64)
        return np.asarray(words & (rank < n_chosen[:, None]), bool), draw

    def loss_sum(self, output: Output, batch: Batch) -> Tensor:
        """Sum of nats over the hidden words; scores are made for these alone."""
        import torch.nn.functional as F

        from danlu.tasks.losses import chunked_cross_entropy

        targets = batch.tensors["targets"]
        asked = targets >= 0
        if output.scores is not None:
            return F.cross_entropy(output.scores[asked].float(), targets[asked], reduction="sum")
        if output.features is None or output.head_weight is None:
            raise UserError("model.kind", "must answer at each position for task masked", fix='set model.kind = "encoder"')  # fmt: skip
        return chunked_cross_entropy(output.features[asked], output.head_weight, targets[asked], output.head_scale)

    def predict(self, model: nn.Module, batch: Batch, card: DataCard) -> Predictions:
        """(M, 1 + 2 K) of each text: nats, fillings, shares; of its gaps, with NaN nats, where it came with some."""
        import torch

        output, targets = model(batch), batch.tensors["targets"]
        at = (targets >= 0) | (batch.tensors["tokens"] == self._ids[0])
        asked, features = targets[at], output.features
        n_best = min(N_BEST, self._ids[2])
        rows = (output.scores if features is None else features)[at]
        size = max(1, SCORED_AT_ONCE // self._ids[2])
        parts = []
        for first in range(0, len(rows), size):
            scores = rows[first : first + size].float()
            if features is not None:
                scores = output.head_scale * scores @ output.head_weight.float().t()
            logs, wanted = scores.log_softmax(-1), asked[first : first + size]
            nats = -logs.gather(1, wanted.clamp_min(0)[:, None])
            best = logs.topk(n_best, -1)
            parts.append(torch.cat([nats.masked_fill((wanted < 0)[:, None], torch.nan), best.indices, best.values.exp()], 1))  # fmt: skip
        found = torch.cat(parts).cpu().numpy() if parts else np.zeros((0, 1 + 2 * n_best))
        return np.split(found, np.cumsum(at.sum(1).cpu().numpy())[:-1])

    def truths(self, batch: Batch, card: DataCard) -> Predictions:
        """(M,) the hidden tokens of each text, then (M,) where they stood."""
        targets = batch.tensors["targets"].cpu().numpy()
        return [np.stack([row[row >= 0], np.flatnonzero(row >= 0)]) for row in targets]

    def scorer(self, predictions: Predictions, truths: Predictions, card: DataCard) -> Scorer:
        """Nats and whether the likeliest word was right."""
        return FillScorer(predictions, truths)

    def baselines(self, train: Split, split: Split, card: DataCard) -> dict[str, Predictions]:
        """How often words occur, alone and beside their neighbours: tasks/masked_rivals.py."""
        from danlu.tasks.masked_rivals import fill_rivals

        return dict(fill_rivals(train, split, self, card))

    def panels(self, predictions: Predictions, truths: Predictions, split: Split, card: DataCard) -> list[Panel]:
        """Texts with a gap filled in, and how sure the model was where it was right and where not."""
        from danlu.tasks.masked_panels import fill_panels

        return list(fill_panels(predictions, truths, split))

    def rows(self, predictions: Predictions, split: Split, card: DataCard) -> list[dict[str, Any]]:
        """{"name", "prediction": the text with its gaps filled, "fillings": [{word: share}] a gap}."""
        from danlu.tasks.masked_panels import filled

        return [filled(found, i, split, self._ids[0]) for i, found in enumerate(predictions)]


def words_at(seeds: Words, n: int) -> Words:
    """(B, n) 64 random bits for each sample and position: SplitMix's finaliser (Steele et al. 2014)."""
    x = seeds[:, None] + GOLDEN * np.arange(1, n + 1, dtype=np.uint64)
    x = (x ^ (x >> np.uint64(30))) * FACTORS[0]
    x = (x ^ (x >> np.uint64(27))) * FACTORS[1]
    found: Words = x ^ (x >> np.uint64(31))
    return found


def fixed_seeds(rows: NDArray[np.int64]) -> Words:
    """(B,) the seeds that these rows of a split are scored with, as the stages have them."""
    found: Words = words_at(rows.astype(np.uint64) * GOLDEN, 1)[:, 0]
    return found


class FillScorer:
    """Nats and rightness, summed a text."""

    def __init__(self, predictions: Predictions, truths: Predictions) -> None:
        kept = [i for i, truth in enumerate(truths) if truth.shape[1]]
        self.n = np.array([truths[i].shape[1] for i in kept], float)
        self.nats = np.array([predictions[i][:, 0].sum() for i in kept], float)
        self.right = np.array([(predictions[i][:, 1] == truths[i][0]).sum() for i in kept], float)

    @property
    def n_units(self) -> int:
        """Texts with a hidden word."""
        return len(self.n)

    def values(self, rows: NDArray[np.int64] | None = None) -> dict[str, float]:
        """nats_per_token, perplexity, accuracy."""
        of = slice(None) if rows is None else rows
        n = float(self.n[of].sum())
        nats = float(self.nats[of].sum()) / n if n else float("nan")
        return {
            "nats_per_token": nats,
            "perplexity": float(np.exp(min(nats, 700.0))),
            "accuracy": float(self.right[of].sum()) / n if n else float("nan"),
        }
