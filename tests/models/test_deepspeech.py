"""Deep Speech 2: its cells against torch's own, and nothing that lies behind a sound's end touches it."""

import numpy as np
import pytest
import torch
from torch import nn

from danlu.base.contracts import Batch, DataCard
from danlu.base.errors import UserError
from danlu.models.deepspeech import Inside, Lookahead, Scan, SequenceNorm
from danlu.models.deepspeech_settings import Deepspeech
from danlu.models.scan import GruScan


def card_of(**features: object) -> DataCard:
    found = {"n_bins": 10, "units": ["a", "b"]} | features
    return DataCard(kind="audio", source="", rows_in=0, rows_used=0, rows_rejected={}, features=found)


def batch_of(lengths: list[int], pad: int = 0) -> Batch:
    width = max(lengths) + pad
    frames = torch.zeros(len(lengths), width, 10)
    for i, n in enumerate(lengths):
        frames[i, :n] = torch.from_numpy(np.random.default_rng(i).normal(size=(n, 10)))
    return Batch({"frames": frames, "lengths": torch.tensor(lengths)}, 1)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("directions", ["forward", "both"])
def test_cells_are_those_of_torch(cell: str, directions: str) -> None:
    """With the same matrices; both directions of ours see the input through one matrix."""
    settings = Deepspeech(cell=cell, width=6, directions=directions, batch_norm=False)  # type: ignore[arg-type]
    scan = Scan(settings, 5)
    other = getattr(nn, cell.upper())(5, 6, batch_first=True, bidirectional=directions == "both")
    with torch.no_grad():
        for number, ending in enumerate(["", "_reverse"][: len(scan.state)]):
            getattr(other, f"weight_ih_l0{ending}").copy_(swapped(scan.product.weight, cell))
            getattr(other, f"bias_ih_l0{ending}").copy_(swapped(scan.product.bias, cell))
            getattr(other, f"weight_hh_l0{ending}").copy_(swapped(scan.state[number].T, cell))
            getattr(other, f"bias_hh_l0{ending}").zero_()
    lengths = [7, 3]
    x, inside = torch.randn(2, 7, 5), Inside(torch.tensor(lengths), 7)
    found = scan(x, inside)
    packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), batch_first=True)
    wanted, _ = nn.utils.rnn.pad_packed_sequence(other(packed)[0], batch_first=True)
    wanted = wanted if directions == "forward" else wanted[..., :6] + wanted[..., 6:]
    for i, n in enumerate(lengths):
        assert torch.allclose(found[i, :n], wanted[i, :n], atol=1e-5)


def swapped(matrix: torch.Tensor, cell: str) -> torch.Tensor:
    """Our order of gates in torch's: (reset, update, new) and (input, forget, cell, output)."""
    parts = matrix.split(6)
    return matrix if cell == "gru" else torch.cat([parts[0], parts[1], parts[3], parts[2]])


@pytest.mark.parametrize("lengths", [[5, 5, 5], [5, 2, 3]])
def test_the_fast_scan_is_the_plain_one(lengths: list[int]) -> None:
    scan, n = Scan(Deepspeech(width=4), 3), 5
    mask = (torch.arange(n) < torch.tensor(lengths)[:, None]).T[:, None, :, None].double()
    held = None if min(lengths) == n else torch.cat([mask, mask.flip(0)], 1)
    x = torch.randn(n, 2, 3, 12, dtype=torch.double, requires_grad=True)
    state = scan.state.detach().double().requires_grad_()
    found, wanted = GruScan.apply(x, state, held), torch.stack(scan.steps(x, state, held))
    assert torch.allclose(found, wanted)
    weights = torch.randn_like(wanted)
    grads = [torch.autograd.grad((y * weights).sum(), (x, state)) for y in (found, wanted)]
    assert all(torch.allclose(a, b) for a, b in zip(*grads, strict=True))


def test_the_plain_cell_is_the_papers() -> None:
    scan = Scan(Deepspeech(cell="rnn", width=4, directions="forward", batch_norm=False), 3)
    x = torch.randn(1, 6, 3)
    h = torch.zeros(4)
    for t in range(6):
        h = (scan.product(x[0, t]) + h @ scan.state[0]).clamp(0, 20)
    assert torch.allclose(scan(x, Inside(torch.tensor([6]), 6))[0, -1], h, atol=1e-6)


def test_the_norm_is_over_frames_that_are_sound() -> None:
    norm, x = SequenceNorm(4), torch.randn(2, 5, 4) * 3 + 1
    inside = Inside(torch.tensor([5, 2]), 5)
    found = norm.normed(x, inside)
    held = torch.cat([x[0], x[1, :2]])
    wanted = (held - held.mean(0)) / (held.var(0, unbiased=False) + norm.eps).sqrt()
    assert torch.allclose(torch.cat([found[0], found[1, :2]]), wanted, atol=1e-5)
    assert not found[1, 2:].any()
    assert torch.allclose(norm.running_mean, 0.1 * held.mean(0), atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("more", [{}, {"cell": "rnn", "lookahead": 2, "directions": "forward", "n_dense": 1}])
def test_padding_changes_nothing(mode: str, more: dict[str, object]) -> None:
    settings = Deepspeech(channels=(3, 4), kernels=((5, 3), (3, 3)), strides=((2, 2), (1, 2)), width=8, **more)  # type: ignore[arg-type]
    lengths = [13, 6, 9]
    model = settings.build(card_of(), 3, 0).train(mode == "train")
    plain, padded = model(batch_of(lengths)), model(batch_of(lengths, 11))
    assert plain.lengths.tolist() == padded.lengths.tolist() == [7, 3, 5]
    assert padded.scores.shape == (3, 12, 3)
    for i, n in enumerate(plain.lengths.tolist()):
        assert torch.allclose(plain.scores[i, :n], padded.scores[i, :n], atol=1e-5)
    pooled = settings.build(card_of(classes=["x", "y"]), 2, 0).train(mode == "train")
    assert torch.allclose(pooled(batch_of(lengths)).scores, pooled(batch_of(lengths, 11)).scores, atol=1e-5)


def test_looking_ahead_is_a_row_convolution() -> None:
    ahead = Lookahead(3, 2)
    x, inside = torch.rand(2, 5, 3), Inside(torch.tensor([5, 3]), 5)
    held = torch.cat([x * inside.mask[..., None], torch.zeros(2, 2, 3)], 1)
    w = ahead.weights.weight[:, 0]
    wanted = torch.stack([sum(held[:, t + k] * w[:, k] for k in range(3)) for t in range(5)], 1)
    assert torch.allclose(ahead(x, inside), wanted.clamp(0, 20), atol=1e-6)


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match=r"model.strides.*at most 1.5"):
        Deepspeech().build(card_of(frames_per_unit=1.5), 3, 0)
    with pytest.raises(UserError, match="odd"):
        Deepspeech(kernels=((4, 3), (3, 3))).build(card_of(), 3, 0)
    with pytest.raises(UserError, match=r"model\.channels"):
        Deepspeech(channels=(3,)).build(card_of(), 3, 0)
    with pytest.raises(UserError, match="sound"):
        Deepspeech().build(card_of().model_copy(update={"features": {"n_numbers": 3}}), 3, 0)
