"""Each update rule against a plain reference over 20 updates, in float32 and float64, and against torch.optim."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from danlu.optim import OPTIMIZERS
from danlu.optim.driver import N_BLOCK
from danlu.optim.muon import orthogonal, same_shape

torch.set_num_threads(1)
LR, DECAY, N_STEPS = 0.01, 0.1, 20
RATES = [LR * (1 + 0.3 * math.sin(t)) for t in range(N_STEPS)]
Reference = Callable[[Tensor, Tensor, dict[str, Any], int, float], Tensor]


def ref_sgd(p: Tensor, g: Tensor, s: dict[str, Any], t: int, lr: float) -> Tensor:
    g = g + DECAY * p
    s["b"] = 0.9 * s.get("b", 0) + (1 - 0.2) * g
    return p - lr * s["b"]


def ref_nesterov(p: Tensor, g: Tensor, s: dict[str, Any], t: int, lr: float) -> Tensor:
    s["b"] = 0.9 * s.get("b", 0) + g
    return p - lr * (g + 0.9 * s["b"])


def ref_rmsprop(p: Tensor, g: Tensor, s: dict[str, Any], t: int, lr: float) -> Tensor:
    g = g + DECAY * p
    s["v"] = 0.99 * s.get("v", 0) + 0.01 * g * g
    s["b"] = 0.5 * s.get("b", 0) + g / (s["v"].sqrt() + 1e-8)
    return p - lr * s["b"]


def direction(g: Tensor, s: dict[str, Any], t: int, beta2: float) -> Tensor:
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["v"] = beta2 * s.get("v", 0) + (1 - beta2) * g * g
    return (s["m"] / (1 - 0.9**t)) / ((s["v"] / (1 - beta2**t)).sqrt() + 1e-8)


def ref_adam(p: Tensor, g: Tensor, s: dict[str, Any], t: int, lr: float) -> Tensor:
    return p - lr * direction(g + DECAY * p, s, t, 0.999)


def ref_adamw(p: Tensor, g: Tensor, s: dict[str, Any], t: int, lr: float) -> Tensor:
    return p - lr * DECAY * p - lr * direction(g, s, t, 0.95)


def ref_lion(p: Tensor, g: Tensor, s: dict[str, Any], t: int, lr: float) -> Tensor:
    m = s.get("m", torch.zeros_like(p))
    s["m"] = 0.99 * m + 0.01 * g
    return p - lr * DECAY * p - lr * (0.9 * m + 0.1 * g).sign()


def ref_adamh(p: Tensor, g: Tensor, s: dict[str, Any], t: int, lr: float) -> Tensor:
    radius = s.setdefault("radius", p.norm())
    u = direction(g, s, t, 0.95)
    p = p - lr * radius * u / u.norm()
    return radius * p / p.norm()


def ref_muon(p: Tensor, g: Tensor, s: dict[str, Any], t: int, lr: float) -> Tensor:
    s["m"] = 0.95 * s.get("m", 0) + 0.05 * g
    x = 0.95 * s["m"] + 0.05 * g
    x = x / x.norm()
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return p - lr * DECAY * p - lr * 0.2 * math.sqrt(max(p.shape)) * x


CASES: list[tuple[str, dict[str, Any], Reference]] = [
    ("sgd", {"dampening": 0.2, "weight_decay": DECAY}, ref_sgd),
    ("sgd", {"nesterov": True}, ref_nesterov),
    ("sgd", {"momentum": 0.0}, lambda p, g, s, t, lr: p - lr * g),
    ("rmsprop", {"momentum": 0.5, "weight_decay": DECAY}, ref_rmsprop),
    ("adam", {"weight_decay": DECAY}, ref_adam),
    ("adamw", {"weight_decay": DECAY}, ref_adamw),
    ("lion", {"weight_decay": DECAY}, ref_lion),
    ("adamh", {}, ref_adamh),
    ("muon", {"weight_decay": DECAY, "ns_precision": "fp32"}, ref_muon),
]


class Matrices(torch.nn.Module):
    """Hidden matrices only, of shapes that Muon batches and transposes."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(7)
        shapes = [(12, 12), (24, 12), (12, 24), (12, 12)]
        self.w = torch.nn.ParameterList(torch.randn(s, generator=g, dtype=torch.float64).to(dtype) for s in shapes)

    def parameter_groups(self) -> dict[str, list[tuple[str, torch.nn.Parameter]]]:
        return {"hidden": list(self.named_parameters())}


def gradients(model: torch.nn.Module, step: int) -> list[Tensor]:
    g = torch.Generator().manual_seed(100 + step)
    return [torch.randn(p.shape, generator=g, dtype=torch.float64).to(p.dtype) for p in model.parameters()]


def test_every_rule_has_a_reference() -> None:
    assert {kind for kind, _, _ in CASES} == set(OPTIMIZERS)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 3e-5)])
@pytest.mark.parametrize(
    ("kind", "settings", "reference"), CASES, ids=[f"{k}-{i}" for i, (k, _, _) in enumerate(CASES)]
)
def test_rule_follows_its_reference(
    kind: str, settings: dict[str, Any], reference: Reference, dtype: torch.dtype, tolerance: float
) -> None:
    model = Matrices(dtype)
    optimizer = OPTIMIZERS[kind](**settings).build(model)
    expected = [p.detach().to(torch.float64) for p in model.parameters()]
    states: list[dict[str, Any]] = [{} for _ in expected]
    for t, lr in enumerate(RATES):
        for i, (p, g) in enumerate(zip(model.parameters(), gradients(model, t), strict=True)):
            p.grad = g
            expected[i] = reference(expected[i], g.to(torch.float64), states[i], t + 1, lr)
        optimizer.step(lr)
        optimizer.zero_grad()
    assert all(p.grad is None for p in model.parameters())
    for p, e in zip(model.parameters(), expected, strict=True):
        assert (p - e).abs().max() <= tolerance * e.abs().max()


TORCH: list[tuple[str, dict[str, Any], Callable[[Any], torch.optim.Optimizer]]] = [
    ("sgd", {"nesterov": True}, lambda p: torch.optim.SGD(p, LR, momentum=0.9, nesterov=True)),
    ("rmsprop", {"momentum": 0.5}, lambda p: torch.optim.RMSprop(p, LR, momentum=0.5)),
    ("adam", {"weight_decay": DECAY}, lambda p: torch.optim.Adam(p, LR, weight_decay=DECAY)),
    ("adamw", {"weight_decay": DECAY}, lambda p: torch.optim.AdamW(p, LR, betas=(0.9, 0.95), weight_decay=DECAY)),
    (
        "muon",
        {"weight_decay": DECAY, "ns_precision": "bf16"},
        lambda p: torch.optim.Muon(p, LR, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw"),
    ),
    (
        "muon",
        {"weight_decay": DECAY, "ns_precision": "bf16", "scale": "spectral"},
        lambda p: torch.optim.Muon(p, LR, weight_decay=DECAY, adjust_lr_fn="original"),
    ),
]


@pytest.mark.parametrize(("kind", "settings", "peer"), TORCH, ids=[f"{k}-{i}" for i, (k, _, _) in enumerate(TORCH)])
def test_rule_agrees_with_torch_optim(
    kind: str, settings: dict[str, Any], peer: Callable[[Any], torch.optim.Optimizer]
) -> None:
    ours, theirs = Matrices(torch.float32), Matrices(torch.float32)
    optimizer, other = OPTIMIZERS[kind](**settings).build(ours), peer(theirs.parameters())
    for t in range(N_STEPS):
        for p, q, g in zip(ours.parameters(), theirs.parameters(), gradients(ours, t), strict=True):
            p.grad, q.grad = g, g.clone()
        optimizer.step(LR)
        other.step()
    tolerance = 0.02 if kind == "muon" else 1e-5  # bf16 Newton-Schulz: another order of sums, eight bits
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert (p - q).abs().max() <= tolerance * q.abs().max()


@pytest.mark.parametrize("kind", ["lion", "rmsprop"])
def test_blocks_change_nothing(kind: str) -> None:
    """A tensor longer than a block, against the same numbers in tensors of a block's length."""
    g = torch.Generator().manual_seed(3)
    values, gradient = torch.randn(2 * N_BLOCK + 5, generator=g), torch.randn(2 * N_BLOCK + 5, generator=g)
    whole, parts = torch.nn.Module(), torch.nn.Module()
    whole.w = torch.nn.Parameter(values.clone())
    parts.w = torch.nn.ParameterList(values.clone().split(N_BLOCK))
    for model in (whole, parts):
        optimizer = OPTIMIZERS[kind](weight_decay=DECAY, decay_vectors=True).build(model)
        for _ in range(3):
            start = 0
            for p in model.parameters():
                p.grad = gradient[start : start + p.numel()]
                start += p.numel()
            optimizer.step(LR)
    assert torch.equal(whole.w, torch.cat(list(parts.w)))
    assert not torch.equal(whole.w, values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 16, 64)])
def test_muon_step_is_orthogonal(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """All singular values near 1, with the singular vectors of the input."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    out = orthogonal(x, 5, dtype).float()
    assert (torch.linalg.svdvals(x).amin(-1) < 0.6 * torch.linalg.svdvals(x).amax(-1)).all()
    values = torch.linalg.svdvals(out)
    assert values.min() > 0.6
    assert values.max() < 1.3
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    inner = u.mT @ out @ v.mT
    off = inner - torch.diag_embed(inner.diagonal(dim1=-2, dim2=-1))
    assert off.abs().max() < (1e-4 if dtype == torch.float32 else 0.05)


def test_muon_batches_by_shape_within_a_size() -> None:
    shapes = [(4, 4), (4, 8), (4, 4), (4, 4), (4, 4), (4, 8), (4, 4)]
    matrices = [torch.zeros(s) for s in shapes]
    assert same_shape(matrices, 64) == [[0, 2, 3, 4], [1, 5], [6]]
    assert same_shape(matrices, 1) == [[0, 2], [1, 5], [3, 4], [6]]


def test_muon_survives_a_zero_gradient() -> None:
    assert torch.equal(orthogonal(torch.zeros(1, 4, 8), 5, torch.float32), torch.zeros(1, 4, 8))


def test_adamh_keeps_each_norm_and_turns_by_the_rate() -> None:
    model = Matrices(torch.float32)
    optimizer = OPTIMIZERS["adamh"]().build(model)
    start = [p.detach().norm() for p in model.parameters()]
    for t in range(200):
        before = [p.detach().clone() for p in model.parameters()]
        for p, g in zip(model.parameters(), gradients(model, t), strict=True):
            p.grad = g
        optimizer.step(0.02)
        for p, b, radius in zip(model.parameters(), before, start, strict=True):
            assert float(p.detach().norm() / radius) == pytest.approx(1, abs=2e-6)
            assert float((p.detach() - b).norm() / radius) < 0.0205
    before = [p.detach().clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    OPTIMIZERS["adamh"]().build(model).step(0.02)
    for p, b in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(p.detach(), b)


def test_adamh_gives_a_zero_matrix_to_adam() -> None:
    model = Matrices(torch.float32)
    with torch.no_grad():
        model.w[1].zero_()
    optimizer = OPTIMIZERS["adamh"](adam_lr_ratio=0.25).build(model)
    assert [(g["rule"], g["n_tensors"], g["lr_scale"]) for g in optimizer.groups] == [
        ("adamh", 3, 1.0),
        ("adam, starts at zero", 1, 0.25),
    ]
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step(0.04)
    torch.testing.assert_close(model.w[1].detach(), torch.full((24, 12), -0.01))
