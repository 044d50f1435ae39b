"""The translator: decoding from caches is the same as reading all at once, and padding is not seen."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from danlu.base.contracts import Batch, DataCard
from danlu.base.errors import UserError
from danlu.models.seq2seq_settings import Seq2Seq

FEATURES = {"source_vocab_size": 11, "target_vocab_size": 13, "joint": False, "context": 20}


def card(**features: Any) -> DataCard:
    return DataCard(kind="pairs", source="", rows_in=0, rows_used=0, rows_rejected={}, features=FEATURES | features)


def model(**settings: Any) -> Any:
    given = {"encoder_layers": 2, "decoder_layers": 2, "width": 16, "n_heads": 2, "dropout": 0.3}
    return Seq2Seq(**{**given, **settings}).build(card(), 13, 0).eval()


def batch() -> Batch:
    torch.manual_seed(0)
    tensors = {"source": torch.randint(0, 11, (3, 6)), "lengths": torch.tensor([6, 2, 4])}
    return Batch(tensors | {"inputs": torch.randint(0, 13, (3, 5))}, 0)


def scores(net: Any, given: Batch) -> torch.Tensor:
    output = net(given)
    return output.features @ output.head_weight.t()


@torch.no_grad()
def test_one_token_at_a_time_is_the_same() -> None:
    net, given = model(), batch()
    whole = scores(net, given)
    reading = net.start(given.tensors["source"], given.tensors["lengths"])
    for t in range(5):
        found = net.step(given.tensors["inputs"][:, t], reading)
        assert torch.allclose(found, whole[:, t], atol=1e-5)


@torch.no_grad()
def test_beams_and_samples_can_be_chosen() -> None:
    net, given = model(), batch()
    source, lengths, inputs = (given.tensors[name] for name in ("source", "lengths", "inputs"))
    reading = net.start(source, lengths)
    net.step(inputs[:, 0].repeat_interleave(2), reading)
    second = torch.stack([inputs[:, 1], inputs[:, 2]], 1)  # two beams of each sample
    net.step(second.flatten(), reading)
    reading.beams(torch.tensor([5, 4, 1, 1]))  # of samples 2 and 0
    reading.samples(torch.tensor([2, 0]))
    found = net.step(inputs[:2, 3].repeat_interleave(2), reading)
    for row, (sample, beam, last) in enumerate([(2, 1, 0), (2, 0, 0), (0, 1, 1), (0, 1, 1)]):
        written = torch.stack([inputs[sample, 0], second[sample, beam], inputs[last, 3]])[None]
        one = Batch(
            {"source": source[sample : sample + 1], "lengths": lengths[sample : sample + 1], "inputs": written}, 0
        )
        assert torch.allclose(found[row], scores(net, one)[0, -1], atol=1e-5)


@torch.no_grad()
def test_padding_is_not_seen() -> None:
    net, given = model(), batch()
    tensors = dict(given.tensors)
    tensors["source"] = tensors["source"].clone()
    tensors["source"][1, 2:] = 7
    assert torch.allclose(scores(net, given)[1], scores(net, Batch(tensors, 0))[1], atol=1e-6)
    assert not torch.allclose(scores(net, given)[2], scores(net, given)[1], atol=1e-3)


@torch.no_grad()
def test_attention_is_a_share_of_the_source() -> None:
    seen = model().attention(batch())
    assert seen.shape == (3, 5, 6)
    assert torch.allclose(seen.sum(2), torch.ones(3, 5), atol=1e-5)
    assert float(seen[1, :, 2:].max()) == 0


def test_matrices_are_tied_as_said() -> None:
    sizes = {
        tie: sum(p.numel() for p in Seq2Seq(width=16, tie=tie).build(card(joint=True, source_vocab_size=13), 13, 0).parameters())
        for tie in ("all", "output", "none")
    }  # fmt: skip
    assert sizes["output"] - sizes["all"] == sizes["none"] - sizes["output"] == 13 * 16
    with pytest.raises(UserError, match=r"model.tie can be all under a joint vocabulary only"):
        model(tie="all")
    with pytest.raises(UserError, match=r"model.n_heads must divide"):
        model(n_heads=3)


def test_every_parameter_has_a_role_and_a_gradient() -> None:
    net, given = model(tie="none"), batch()
    groups = net.parameter_groups()
    named = [name for members in groups.values() for name, _ in members]
    assert sorted(named) == sorted(name for name, _ in net.named_parameters())
    assert [name for name, _ in groups["embedding"]] == ["table.weight", "source_table.weight"]
    scores(net, given).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for name, p in net.named_parameters() if "key" not in name)
