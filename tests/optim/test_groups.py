"""Who gets which rate and decay."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from danlu.base.errors import UserError
from danlu.optim import OPTIMIZERS
from danlu.optim.groups import group_parameters

torch.set_num_threads(1)


class Network(nn.Module):
    """Every role once, as a stranger writes a model."""

    def __init__(self, tie: bool = False) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 8)
        self.norm = nn.LayerNorm(8)
        self.inner = nn.Linear(8, 8)
        self.kernel = nn.Conv1d(8, 8, 3)
        self.head = nn.Linear(8, 10, bias=False)
        if tie:
            self.head.weight = self.table.weight


def roles(model: nn.Module, **settings: Any) -> dict[str, tuple[set[str], float, float, float]]:
    groups = group_parameters(model, OPTIMIZERS["adamw"](**settings))
    return {g.role: (set(g.names), g.lr_scale, g.weight_decay, g.eps_scale) for g in groups}


def test_roles_are_read_off_a_model_that_says_none() -> None:
    assert roles(Network(), weight_decay=0.1, embedding_lr_scale=3, head_lr_scale=0.5, vector_lr_scale=2) == {
        "embedding": ({"table.weight"}, 3.0, 0.1, 1.0),
        "head": ({"head.weight"}, 0.5, 0.1, 1.0),
        "hidden": ({"inner.weight", "kernel.weight"}, 1.0, 0.1, 1.0),
        "vector": ({"norm.weight", "norm.bias", "inner.bias", "kernel.bias"}, 2.0, 0.0, 1.0),
    }


def test_a_tied_matrix_is_one_embedding() -> None:
    found = roles(Network(tie=True), weight_decay=0.1)
    assert found["embedding"][0] == {"table.weight"}
    assert "head" not in found


def test_a_lone_matrix_is_hidden() -> None:
    assert roles(nn.Linear(3, 3), weight_decay=0.1)["hidden"][0] == {"weight"}


def test_decay_goes_where_it_is_sent() -> None:
    found = roles(Network(), weight_decay=0.1, decay_embeddings=False, decay_vectors=True)
    assert {role: decay for role, (_, _, decay, _) in found.items()} == {
        "embedding": 0.0,
        "head": 0.1,
        "hidden": 0.1,
        "vector": 0.1,
    }


def test_norms_and_biases_do_not_shrink() -> None:
    model = Network()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = OPTIMIZERS["adamw"](weight_decay=0.5).build(model)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step(0.1)
    for name, p in model.named_parameters():
        factor = 1.0 if name.endswith("bias") or "norm" in name else 0.95
        torch.testing.assert_close(p.detach(), before[name] * factor)


def test_frozen_parameters_are_left_out() -> None:
    model = Network()
    model.inner.weight.requires_grad_(False)
    assert roles(model, weight_decay=0.1)["hidden"][0] == {"kernel.weight"}


class Scaled(Network):
    """A model that says its own scales (muP)."""

    def lr_scales(self) -> dict[str, float]:
        return {"hidden": 0.25, "head": 0.25}

    def decay_scales(self) -> dict[str, float]:
        return {"hidden": 4.0}

    def eps_scales(self) -> dict[str, float]:
        return {"hidden": 0.125}


def test_the_models_scales_multiply_the_settings() -> None:
    found = roles(Scaled(), weight_decay=0.1, head_lr_scale=2)
    assert found["hidden"][1:] == (0.25, 0.4, 0.125)
    assert found["head"][1:] == (0.5, 0.1, 1.0)
    assert found["vector"][1:] == (1.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("kind", "settings", "hidden", "head"),
    [
        ("lion", {"weight_decay": 0.1}, 0.25, 0.25),
        ("muon", {"weight_decay": 0.1}, 0.5, 0.25),
        ("muon", {"weight_decay": 0.1, "scale": "spectral"}, 1.0, 0.25),
        ("adamh", {"adam_lr_ratio": 1.0}, 1.0, 0.25),
        ("sgd", {"weight_decay": 0.1}, 1.0, 1.0),
    ],
)
def test_scales_fit_the_rule(kind: str, settings: dict[str, Any], hidden: float, head: float) -> None:
    """Same decay per update for all: lr_scale * weight_decay of the hidden matrices is 0.25 * 4 * 0.1."""
    groups = {g["role"]: g for g in OPTIMIZERS[kind](**settings).build(Scaled()).groups}
    assert (groups["hidden"]["lr_scale"], groups["head"]["lr_scale"]) == (hidden, head)
    if kind != "adamh":
        assert groups["hidden"]["lr_scale"] * groups["hidden"]["weight_decay"] == pytest.approx(0.1)


def test_scales_reach_the_update() -> None:
    """Adam's first step has the length of the rate; a gradient at the scaled epsilon halves it."""
    model = Scaled()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = OPTIMIZERS["adamw"](weight_decay=0.0, eps=8e-3).build(model)
    for p in model.parameters():
        p.grad = torch.full_like(p, 1e-3)
    optimizer.step(0.1)
    moved = {name: float((before[name] - p.detach()).mean()) for name, p in model.named_parameters()}
    assert moved["inner.weight"] == pytest.approx(0.1 * 0.25 / 2, rel=1e-3)
    assert moved["head.weight"] == pytest.approx(0.1 * 0.25 / 9, rel=1e-3)
    assert moved["norm.bias"] == pytest.approx(0.1 / 9, rel=1e-3)


def test_muon_takes_hidden_matrices_only() -> None:
    optimizer = OPTIMIZERS["muon"](weight_decay=0.1, adam_lr_ratio=0.3, head_lr_scale=2).build(Network())
    assert {g["role"]: (g["rule"], g["lr_scale"], g["weight_decay"]) for g in optimizer.groups} == {
        "embedding": ("adamw", 0.3, 0.1),
        "head": ("adamw", 0.6, 0.1),
        "hidden": ("muon", 1.0, 0.1),
        "vector": ("adamw", 0.3, 0.0),
    }


class Wrong(nn.Module):
    def __init__(self, groups: dict[str, list[str]], scales: dict[str, float]) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
        self.given, self.scales = groups, scales

    def parameter_groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        return {role: [(n, getattr(self, n)) for n in names] for role, names in self.given.items()}

    def lr_scales(self) -> dict[str, float]:
        return self.scales


@pytest.mark.parametrize(
    ("given", "scales", "words"),
    [
        ({"vector": ["a"]}, {}, 'must name every trainable parameter. Got "b"'),
        ({"vector": ["a", "b"], "hidden": ["a"]}, {}, "must name each parameter once"),
        ({"vectors": ["a", "b"]}, {}, 'must use the roles embedding, head, hidden, vector. Got "vectors"'),
        ({"vector": ["a", "b"]}, {"vectors": 2.0}, "must give positive factors"),
        ({"vector": ["a", "b"]}, {"vector": 0.0}, "must give positive factors"),
    ],
)
def test_a_wrong_model_is_refused(given: dict[str, list[str]], scales: dict[str, float], words: str) -> None:
    with pytest.raises(UserError, match=words):
        OPTIMIZERS["sgd"]().build(Wrong(given, scales))


def test_a_model_without_parameters_is_refused() -> None:
    with pytest.raises(UserError, match="must have a parameter that can be trained"):
        OPTIMIZERS["sgd"]().build(nn.ReLU())


def test_auto_decay_must_be_answered_first() -> None:
    with pytest.raises(UserError, match=r"optimizer.weight_decay must be a number when the optimizer is built"):
        OPTIMIZERS["adamw"]().build(Network())


class Stacked(nn.Module):
    """Query, key and value in one matrix, or apart."""

    def __init__(self, apart: bool, rows: tuple[int, ...] = (8, 4, 4)) -> None:
        super().__init__()
        whole = torch.randn(16, 8, generator=torch.Generator().manual_seed(2))
        self.rows = rows
        self.w = nn.ParameterList([t.clone() for t in whole.split(rows)] if apart else [whole])

    def parameter_groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        return {"hidden": list(self.named_parameters())}

    def row_parts(self) -> dict[str, tuple[int, ...]]:
        return {"w.0": self.rows} if len(self.w) == 1 else {}


def test_muon_turns_stacked_matrices_apart() -> None:
    one, three = Stacked(apart=False), Stacked(apart=True)
    gradient = torch.randn(16, 8, generator=torch.Generator().manual_seed(4))
    for model in (one, three):
        optimizer = OPTIMIZERS["muon"](weight_decay=0.1, ns_precision="fp32").build(model)
        for p, g in zip(model.parameters(), gradient.split(model.rows) if model is three else [gradient], strict=True):
            p.grad = g.clone()
        optimizer.step(0.1)
    torch.testing.assert_close(one.w[0], torch.cat(list(three.w)))
    with pytest.raises(UserError, match="must cut the rows of a matrix, all 16 of them"):
        OPTIMIZERS["muon"](weight_decay=0.1).build(Stacked(apart=False, rows=(8, 4)))


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_channels_last_kernels_learn_the_same(kind: str) -> None:
    values, gradient = torch.randn(2, 6, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    results = []
    layouts = (torch.contiguous_format, torch.channels_last)
    for layout, of_gradient in ((layouts[0], layouts[0]), (layouts[1], layouts[1]), layouts):
        model = nn.Module()
        model.kernel = nn.Parameter(values.clone(memory_format=layout))
        settings = {"weight_decay": 0.1} if "weight_decay" in OPTIMIZERS[kind].model_fields else {}
        optimizer = OPTIMIZERS[kind](**settings, **({"ns_precision": "fp32"} if kind == "muon" else {})).build(model)
        for sign in (1, -2):
            model.kernel.grad = (sign * gradient).clone(memory_format=of_gradient)
            optimizer.step(0.1)
        results.append(model.kernel.detach())
    assert not torch.equal(results[0], values)
    torch.testing.assert_close(results[0], results[1])
    torch.testing.assert_close(results[0], results[2])
