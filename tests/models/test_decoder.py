"""The decoder: counts, causality, cache, documents kept apart, and settings that carry over to other widths."""

import pytest
import torch

from danlu.base.contracts import Batch
from danlu.base.errors import UserError
from danlu.models.decoder_settings import Decoder
from danlu.optim import OPTIMIZERS
from danlu.tasks.language import Language

STYLES = [
    {},
    {"style": "gpt2"},
    {"activation": "swiglu", "n_kv_heads": 1, "tied": True},
    {"activation": "gelu", "qk_norm": False, "parametrization": "completep", "base_layers": 1},
]


def tiny(**settings):
    return Decoder(**{"n_layers": 2, "width": 32, "n_heads": 2, "context": 16} | settings)


def randomised(model):
    """Zero-initialised outputs would hide mistakes: every weight random."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
    return model.eval()


def batch_of(tokens, **more):
    return Batch({"tokens": tokens, "targets": tokens, **more}, tokens.numel())


def scores(model, tokens, **more):
    out = model(batch_of(tokens, **more))
    return out.features.float() @ out.head_weight.float().t() * out.head_scale


@pytest.mark.parametrize("settings", STYLES)
def test_counts_are_what_is_built(settings):
    model = tiny(**settings).build(vocab_size=11)
    assert sum(p.numel() for p in model.parameters()) == model.shape.n_parameters


@pytest.mark.parametrize(
    ("n_layers", "width", "n_heads", "published"),
    [
        (12, 768, 12, 124_439_808),
        (24, 1024, 16, 354_823_168),
        (36, 1280, 20, 774_030_080),
        (48, 1600, 25, 1_557_611_200),
    ],
)
def test_gpt2_has_the_published_number_of_parameters(n_layers, width, n_heads, published):
    settings = Decoder(style="gpt2", n_layers=n_layers, width=width, n_heads=n_heads, context=1024)
    assert settings.shape(50_257).n_parameters == published


@pytest.mark.parametrize("settings", STYLES)
def test_no_token_sees_its_future(settings):
    model = randomised(tiny(**settings).build(11))
    tokens = torch.randint(11, (2, 16))
    changed = tokens.clone()
    changed[:, 9:] = (changed[:, 9:] + 1) % 11
    before, after = scores(model, tokens), scores(model, changed)
    torch.testing.assert_close(before[:, :9], after[:, :9])
    assert not torch.allclose(before[:, 9:], after[:, 9:])


@pytest.mark.parametrize("settings", STYLES)
def test_decoding_with_a_cache_equals_the_whole_pass(settings):
    model = randomised(tiny(**settings).build(11))
    tokens = torch.randint(11, (3, 12))
    whole = scores(model, tokens)
    cache = model.new_cache(3)
    first, cache = model.decode(tokens[:, :5], cache)
    torch.testing.assert_close(first, whole[:, 4], rtol=1e-4, atol=1e-4)
    for t in range(5, 12):
        last, cache = model.decode(tokens[:, t : t + 1], cache)
        torch.testing.assert_close(last, whole[:, t], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("attention", ["blocks", "fused"])
def test_documents_kept_apart_are_as_if_alone(attention):
    model = randomised(tiny(attention=attention).build(11))
    tokens = torch.randint(11, (1, 16))
    documents = torch.tensor([[0] * 6 + [1] * 10], dtype=torch.int32)
    together = scores(model, tokens, documents=documents)
    torch.testing.assert_close(together[:, :6], scores(model, tokens[:, :6]))
    torch.testing.assert_close(together[:, 6:], scores(model, tokens[:, 6:]), rtol=1e-4, atol=1e-4)


def test_initial_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    a = tiny().build(11, seed=7)
    torch.manual_seed(2)
    b, c = tiny().build(11, seed=7), tiny().build(11, seed=8)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.embedding.weight, c.embedding.weight)


def test_the_first_loss_is_that_of_a_guess():
    model, tokens = tiny().build(11), torch.randint(11, (2, 16))
    loss = Language().loss_sum(model(batch_of(tokens)), batch_of(tokens)) / tokens.numel()
    torch.testing.assert_close(loss, torch.tensor(11.0).log())


@pytest.mark.parametrize(
    "wrong", [{"width": 33, "n_heads": 2}, {"n_heads": 4, "n_kv_heads": 3}, {"width": 30, "n_heads": 10}]
)
def test_numbers_that_do_not_fit_are_refused(wrong):
    with pytest.raises(UserError, match="Fix"):
        tiny(**wrong).shape(11)


@pytest.mark.parametrize("size", ["1M", "10M", "124M", "1.5B"])
def test_size_is_met(size):
    shape = Decoder(size=size).shape(4096)
    assert 0.85 < shape.n_parameters / Decoder(size=size).size < 1.15


def hidden_update_growth(parametrization):
    """RMS change of a feed-forward layer's output after 3 Adam steps, width 512 over 64 (Yang et al. 2022, appendix D.1)."""
    sizes = []
    for width in (64, 512):
        settings = Decoder(
            n_layers=1, width=width, n_heads=4, context=16, parametrization=parametrization, base_width=64
        )
        model = settings.build(32, seed=1)
        with torch.no_grad():
            model.head.weight.normal_(std=0.1)
        tokens = torch.randint(32, (8, 16), generator=torch.Generator().manual_seed(3))
        optimizer, task, batch = OPTIMIZERS["adamw"](weight_decay=0.0).build(model), Language(), batch_of(tokens)
        x = torch.randn(4, 16, width, generator=torch.Generator().manual_seed(4))
        before = model.blocks[0].feed_forward(x, model).detach()
        for _ in range(3):
            (task.loss_sum(model(batch), batch) / tokens.numel()).backward()
            optimizer.step(0.01)
            optimizer.zero_grad()
        sizes.append(float((model.blocks[0].feed_forward(x, model).detach() - before).square().mean().sqrt()))
    return sizes[1] / sizes[0]


def test_coordinate_check():
    """Under muP the size of a hidden layer's change does not grow with width; under the standard one it does."""
    assert hidden_update_growth("standard") > 3
    assert 0.3 < hidden_update_growth("mup") < 2.0


def groups_of(optimizer, **settings):
    """Role -> (rate's factor, weight decay, epsilon's factor) at width ratio 4 and depth ratio 3."""
    shape = {"n_layers": 6, "width": 64, "n_heads": 2, "context": 8, "base_width": 16, "base_layers": 2}
    built = optimizer.build(Decoder(**shape, **settings).build(11, 1))
    return {g["role"]: (g["lr_scale"], g["weight_decay"], pytest.approx(g["eps_scale"])) for g in built.groups}


def test_rates_decay_and_epsilon_follow_the_papers_tables():
    """Yang & Hu 2022 (2203.03466), table 8, Adam; Dey 2025 (2505.01618), table 1, alpha = 1."""
    adamw = OPTIMIZERS["adamw"](weight_decay=0.1)
    assert groups_of(adamw) == dict.fromkeys(("embedding", "head", "hidden"), (1, 0.1, 1)) | {"vector": (1, 0, 1)}
    mup = {
        "embedding": (1, 0.1, 1 / 4),
        "head": (1, 0.1, 1 / 4),
        "hidden": (1 / 4, 0.4, 1 / 4),
        "vector": (1, 0, 1 / 4),
    }
    assert groups_of(adamw, parametrization="mup") == mup
    deep = mup | {"hidden": (1 / 4, 0.4, 1 / 12), "vector": (1, 0, 1 / 12)}
    assert groups_of(adamw, parametrization="completep") == deep
    muon = OPTIMIZERS["muon"](weight_decay=0.1)
    assert groups_of(muon, parametrization="mup")["hidden"][:2] == (0.5, 0.2)  # root of 1/4; the same decay an update


def test_under_mup_the_gpt2_style_starts_with_narrower_matrices_in_a_wider_model():
    """Variance of hidden matrices 1 / width ratio, of the embedding unchanged."""
    found = {}
    for parametrization in ("standard", "mup"):
        settings = Decoder(
            n_layers=2, width=128, n_heads=4, context=8, style="gpt2", parametrization=parametrization, base_width=32
        )
        model = settings.build(97, 1)
        layer = model.blocks[0].attention
        weights = (layer.qkv.weight, layer.out.weight, model.embedding.weight)
        found[parametrization] = [float(w.detach().std()) for w in weights]
    ratios = [m / s for m, s in zip(found["mup"], found["standard"], strict=True)]
    assert ratios == pytest.approx([0.5, 0.5, 1.0])
