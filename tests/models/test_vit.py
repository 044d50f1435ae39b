"""The vision transformer: patches as a strided convolution makes them, sizes that do not fit, branches passed by."""

import pytest
import torch

from danlu.base.contracts import Batch, DataCard
from danlu.base.errors import UserError
from danlu.models.vit_settings import Vit
from danlu.optim.muon import Muon


def card(channels=3, height=8, width=12):
    features = {"channels": channels, "height": height, "width": width}
    return DataCard(kind="image", source="", rows_in=0, rows_used=0, rows_rejected={}, features=features)


def batch(n=2, channels=3, height=8, width=12):
    x = torch.randn(n, channels, height, width, generator=torch.Generator().manual_seed(0))
    return Batch({"image": x}, n)


def test_patches_are_those_of_a_convolution():
    model = Vit(width=16, n_heads=2, n_layers=1).build(card(), 5, 0)
    x = batch().tensors["image"]
    kernel = model.embed.weight.view(16, 3, 4, 4)
    theirs = torch.nn.functional.conv2d(x, kernel, model.embed.bias, stride=4).flatten(2).transpose(1, 2)
    torch.testing.assert_close(model.embed(model.patches(x)), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pool", ["token", "mean"])
def test_it_answers_and_where_a_patch_lies_matters(pool):
    model = Vit(width=32, n_heads=2, n_layers=2, pool=pool).build(card(), 5, 0).eval()
    torch.nn.init.normal_(model.head.weight)
    x = batch()
    scores = model(x).scores
    assert scores.shape == (2, 5)
    turned = Batch({"image": x.tensors["image"].flip(-1)}, 2)
    assert not torch.allclose(scores, model(turned).scores, atol=1e-4)
    again = Vit(width=32, n_heads=2, n_layers=2, pool=pool).build(card(), 5, 0)
    assert all(torch.equal(a, b) for a, b in zip(model.blocks.parameters(), again.blocks.parameters(), strict=True))


def test_images_that_are_no_whole_number_of_patches_are_refused():
    with pytest.raises(UserError, match=r"5 for images of 8 x 12.*write 4"):
        Vit(patch=5).build(card(), 5, 0)
    with pytest.raises(UserError, match="n_heads"):
        Vit(n_heads=5).build(card(), 5, 0)
    with pytest.raises(UserError, match="reads images"):
        Vit().build(card().model_copy(update={"features": {}}), 5, 0)


def test_branches_are_passed_by_in_training_only():
    model = Vit(width=32, n_heads=2, n_layers=2, drop_path=0.9).build(card(), 5, 0)
    torch.nn.init.normal_(model.head.weight)
    assert [block.shape.drop_path for block in model.blocks] == [0.45, 0.9]
    model.train()
    one, other = model(batch()).scores, model(batch()).scores
    assert not torch.equal(one, other)
    model.eval()
    assert torch.equal(model(batch()).scores, model(batch()).scores)


def test_muon_turns_query_key_and_value_apart():
    model = Vit(width=32, n_heads=2, n_layers=1).build(card(), 5, 0)
    assert model.row_parts() == {"blocks.0.attention.qkv.weight": (32, 32, 32)}
    optimizer = Muon(lr=0.01, weight_decay=0.0, ns_precision="fp32").build(model)
    model(batch()).scores.square().sum().backward()
    optimizer.step(0.01)
