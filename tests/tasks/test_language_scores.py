"""Every target once, from the right tokens, with the right bytes: against a loop over single targets."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from danlu.base.contracts import Batch
from danlu.tasks.language_scores import TokenText, validation_sums, windows_of

torch.set_num_threads(1)
V, END = 11, 10
CPU = torch.device("cpu")


def text(
    pack: str = "stream", end: int | None = END, context: int = 4, lengths: tuple[int, ...] = (7, 1, 9, 2)
) -> TokenText:
    rng = np.random.default_rng(0)
    pieces = [np.append(rng.integers(0, 10, n), END) if end is not None else rng.integers(0, 10, n) for n in lengths]
    tokens = np.concatenate(pieces).astype(np.uint16)
    documents = np.cumsum([0, *map(len, pieces)]).astype(np.uint64)
    token_bytes = np.arange(1, V + 1, dtype=np.uint16)
    return TokenText(tokens, documents, token_bytes, context, end, pack)  # type: ignore[arg-type]


class Hashed(nn.Module):
    """The 'loss' of a target is a number made of every token of its window before it, and of itself."""

    def forward(self, batch: Batch) -> Tensor:
        assert not self.training
        tokens = batch.tensors["tokens"].double()
        return torch.cumsum(tokens + 1, 1) * 0.01


class Task:
    def loss_per_target(self, output: Tensor, batch: Batch) -> Tensor:
        targets = batch.tensors["targets"]
        assert batch.n_targets == int((targets >= 0).sum())
        return torch.where(targets >= 0, output + targets, 0.0).float()


def plain(text: TokenText) -> tuple[dict[int, float], dict[int, int]]:
    """{target position: loss} and {target position: bytes}, one target at a time."""
    tokens, losses, sizes = text.tokens.tolist(), {}, {}
    if text.pack == "separate":
        spans = [(int(a) + 1, int(b)) for a, b in zip(text.documents[:-1], text.documents[1:], strict=True)]
    else:
        spans = [(0 if text.document_end is not None else 1, len(tokens))]
    for start, end in spans:
        for p in range(start, end):
            first = start + (p - start) // text.context * text.context
            seen = [tokens[i - 1] if i else END for i in range(first, p + 1)]
            losses[p] = sum(t + 1 for t in seen) * 0.01 + tokens[p]
            sizes[p] = 0 if tokens[p] == text.document_end else int(text.token_bytes[tokens[p]])
    return losses, sizes


@pytest.mark.parametrize("pack", ["stream", "separate"])
@pytest.mark.parametrize("end", [END, None])
@pytest.mark.parametrize(("context", "batch"), [(4, 3), (1, 2), (64, 5)])
def test_every_target_once_with_its_loss_and_bytes(pack: str, end: int | None, context: int, batch: int) -> None:
    split = text(pack, end, context)
    losses, sizes = plain(split)
    model = Hashed().train()
    by_window, by_document = validation_sums(model, Task(), split, batch, CPU)
    assert model.training
    documents = np.searchsorted(split.documents, list(losses), side="right") - 1
    for sums in (by_window, by_document):
        assert sums.n_targets.sum() == len(losses)
        assert sums.n_bytes.sum() == sum(sizes.values())
        assert sums.nats.sum() == pytest.approx(sum(losses.values()))
        assert sums.loss == pytest.approx(np.mean(list(losses.values())))
        assert sums.bits_per_byte == pytest.approx(sum(losses.values()) / math.log(2) / sum(sizes.values()))
    want = np.bincount(documents, list(losses.values()), minlength=4)
    np.testing.assert_allclose(by_document.nats, want, rtol=1e-6)
    positions = np.array(list(losses))
    windows = windows_of(split)
    for first, n, nats in zip(windows.first, windows.length, by_window.nats, strict=True):
        inside = [losses[p] for p in positions if first <= p < first + n]
        assert (len(inside), sum(inside)) == (n, pytest.approx(nats))


def test_a_document_end_lets_the_whole_text_be_scored() -> None:
    sums, _ = validation_sums(Hashed(), Task(), text(), 3, CPU)
    bytes_of_text = sum(int(t) + 1 for t in text().tokens if t != END)
    assert sums.n_bytes.sum() == bytes_of_text


def test_a_quick_look_takes_evenly_spaced_windows() -> None:
    split = text(lengths=(400,))
    quick, _ = validation_sums(Hashed(), Task(), split, 8, CPU, n_targets=40)
    whole, _ = validation_sums(Hashed(), Task(), split, 8, CPU)
    assert len(quick.nats) == 10
    assert np.isin(quick.nats, whole.nats).all()
    more, _ = validation_sums(Hashed(), Task(), split, 8, CPU, n_targets=10**9)
    np.testing.assert_array_equal(more.nats, whole.nats)


def test_grouping_keeps_the_totals() -> None:
    sums, _ = validation_sums(Hashed(), Task(), text(), 3, CPU)
    grouped = sums.grouped(np.array([0, 2, 3]))
    assert len(grouped.nats) == 3
    assert grouped.loss == pytest.approx(sums.loss)
