"""Losses against plain versions: values, gradients, chunks, unsupervised targets."""

import pytest
import torch

from danlu.base.contracts import Batch, Output
from danlu.tasks import losses
from danlu.tasks.language import Language, bits_per_byte


def example(V=50, dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(37, 24, generator=g).to(dtype)
    weight = torch.randn(V, 24, generator=g)
    targets = torch.randint(V, (37,), generator=g)
    targets[::5] = -1
    return rows, weight, targets


def with_gradients(function, rows, weight, targets, *more):
    a, w = rows.clone().requires_grad_(), weight.clone().requires_grad_()
    loss = function(a, w, targets, *more)
    (loss / 7).backward()
    return loss.detach(), a.grad, w.grad


@pytest.mark.parametrize("chunk_bytes", [200, 4000, 2**26])
@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_chunked_equals_plain(monkeypatch, chunk_bytes, factor):
    monkeypatch.setattr(losses, "CHUNK_BYTES", chunk_bytes)
    given = example()
    for mine, plain in zip(
        with_gradients(losses.chunked_cross_entropy, *given, factor),
        with_gradients(losses.plain_cross_entropy, *given, factor),
        strict=True,
    ):
        torch.testing.assert_close(mine, plain, rtol=1e-5, atol=1e-6)


def plain_smoothed(rows, weight, targets, factor, smoothing, z_loss):
    scores = factor * rows @ weight.t()
    kept = targets >= 0
    smooth = torch.nn.functional.cross_entropy(scores[kept], targets[kept], label_smoothing=smoothing, reduction="sum")
    return smooth + z_loss * scores[kept].logsumexp(1).square().sum()


@pytest.mark.parametrize("native", [True, False])
def test_smoothing_and_z_loss(monkeypatch, native):
    if not native:
        monkeypatch.setattr(losses.native, "load", lambda: None)
    given = example()
    for mine, plain in zip(
        with_gradients(losses.chunked_cross_entropy, *given, 0.5, 0.1, 0.01),
        with_gradients(plain_smoothed, *given, 0.5, 0.1, 0.01),
        strict=True,
    ):
        torch.testing.assert_close(mine, plain, rtol=1e-4, atol=1e-5)


def test_bfloat16_features_and_a_large_vocabulary(monkeypatch):
    monkeypatch.setattr(losses, "EXACT_VOCABULARY", 10)
    rows, weight, targets = example(dtype=torch.bfloat16)
    mine = with_gradients(losses.chunked_cross_entropy, rows, weight, targets)
    plain = with_gradients(losses.plain_cross_entropy, rows, weight, targets)
    for a, b in zip(mine, plain, strict=True):
        assert (a.float() - b.float()).norm() / b.float().norm() < 0.02


def test_per_target_losses_sum_to_the_loss():
    rows, weight, targets = example()
    batch = Batch({"targets": targets.view(1, -1)}, 29)
    output = Output(rows.view(1, 37, 24), weight)
    each = Language(label_smoothing=0.3).loss_per_target(output, batch)
    assert each.shape == (1, 37)
    assert (each[batch.tensors["targets"] < 0] == 0).all()
    torch.testing.assert_close(each.sum(), losses.plain_cross_entropy(rows, weight, targets))


def test_scores_never_fill_memory(monkeypatch):
    seen = []
    original = losses.score_rows
    monkeypatch.setattr(losses, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(losses, "score_rows", lambda s, *a: (seen.append(s.numel() * 4), original(s, *a))[1])
    with_gradients(losses.chunked_cross_entropy, *example())
    assert len(seen) > 5
    assert max(seen) <= 1000


def test_bits_per_byte():
    assert bits_per_byte(0.6931471805599453 * 8, 4) == pytest.approx(2.0)
