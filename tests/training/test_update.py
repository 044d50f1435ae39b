"""Clipping, penalty and norms against plain versions."""

import math

import pytest
import torch
from torch import nn

from danlu.base.contracts import Batch
from danlu.models.decoder_settings import Decoder
from danlu.tasks.language import Language
from danlu.training.signals import Watch, layer_of
from danlu.training.state import Average
from danlu.training.update import add_penalty, clip, clip_values, gradient_norms, norm_limit


@pytest.fixture
def model():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3))
    net(torch.randn(8, 4)).square().sum().backward()
    return net


def test_norms_and_clipping(model):
    norms = gradient_norms(model)
    total = math.hypot(*norms.values())
    plain = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters()))
    assert total == pytest.approx(plain, rel=1e-6)
    before = [p.grad.clone() for p in model.parameters()]
    clip(model, total, total * 2)
    assert all(torch.equal(p.grad, b) for p, b in zip(model.parameters(), before, strict=True))
    clip(model, total, 0.1)
    assert math.hypot(*gradient_norms(model).values()) == pytest.approx(0.1, rel=1e-4)
    clip_values(model, 0.01)
    assert max(float(p.grad.abs().max()) for p in model.parameters()) <= 0.01


def test_narrow_and_wide_models_of_one_parametrization_are_clipped_alike():
    """The first gradient's norm over the limit is the same at every width under muP, and grows under the standard one."""
    ratios = {}
    for parametrization in ("standard", "mup"):
        for width in (64, 256):
            shape = {"n_layers": 2, "width": width, "n_heads": 2, "context": 16, "base_width": 64}
            made = Decoder(parametrization=parametrization, **shape).build(64, 1)
            tokens = torch.randint(64, (8, 17), generator=torch.Generator().manual_seed(3))
            batch = Batch({"tokens": tokens[:, :-1], "targets": tokens[:, 1:]}, 128)
            (Language().loss_sum(made(batch), batch) / 128).backward()
            ratios[parametrization, width] = math.hypot(*gradient_norms(made).values()) / norm_limit(made, 1.0)
    assert ratios["mup", 256] == pytest.approx(ratios["mup", 64], rel=0.1)
    assert ratios["standard", 256] == pytest.approx(2 * ratios["standard", 64], rel=0.1)


def test_a_model_without_a_scale_is_clipped_as_asked(model):
    assert (norm_limit(model, 2.0), norm_limit(model, None)) == (2.0, None)


def test_clip_values_keeps_a_nan(model):
    model[0].weight.grad[0, 0] = math.nan
    clip_values(model, 0.01)
    assert math.isnan(model[0].weight.grad[0, 0])


def test_penalty_is_half_l2_times_squares_of_matrices(model):
    before = {n: p.grad.clone() for n, p in model.named_parameters()}
    value = add_penalty(model, 0.3)
    matrices = {n: p.detach() for n, p in model.named_parameters() if p.dim() == 2}
    assert value == pytest.approx(0.15 * sum(float(m.square().sum()) for m in matrices.values()), rel=1e-5)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, before[name] + 0.3 * matrices.get(name, torch.zeros(())))


def test_average_is_the_formula_and_swaps_back(model):
    average = Average(model, 0.9)
    first = [p.detach().clone() for p in model.parameters()]
    plain = [p.clone() for p in first]
    for step in range(1, 40):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.1)
        average.update(step)
        decay = min(0.9, step / (step + 9))
        plain = [decay * a + (1 - decay) * p.detach() for a, p in zip(plain, model.parameters(), strict=True)]
    for mine, wanted in zip(average.values, plain, strict=True):
        torch.testing.assert_close(mine, wanted)
    held = [p.detach().clone() for p in model.parameters()]
    average.swap()
    torch.testing.assert_close(next(model.parameters()).detach(), plain[0])
    average.swap()
    assert all(torch.equal(p, h) for p, h in zip(model.parameters(), held, strict=True))


def test_watch_measures_the_change(model):
    model.watched = False
    watch = Watch(model)
    watch.before()
    with torch.no_grad():
        model[0].weight.mul_(1.1)
        model[0].bias.mul_(1.1)
    layers = watch.after(gradient_norms(model))
    assert layers["0"]["update_ratio"] == pytest.approx(0.1, rel=1e-4)
    assert layers["1"]["update_ratio"] == 0
    assert model.watched is False


def test_layers_have_names():
    assert layer_of("blocks.3.attention.qkv.weight") == "blocks.3.attention"
    assert layer_of("embedding.weight") == "embedding"
