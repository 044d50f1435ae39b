"""Contracts held by every member of the table: resume is bitwise, settings are light, documented and strict."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from danlu.base.errors import UserError
from danlu.base.settings import meanings
from danlu.optim import OPTIMIZERS, SCHEDULES

torch.set_num_threads(1)


def network() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Embedding(11, 16), nn.LayerNorm(16), nn.Linear(16, 48), nn.Tanh(), nn.Linear(48, 11))


def settings(kind: str) -> Any:
    return OPTIMIZERS[kind](**({"weight_decay": 0.1} if "weight_decay" in OPTIMIZERS[kind].model_fields else {}))


def train(model: nn.Module, optimizer: Any, first: int, n_steps: int) -> list[float]:
    losses = []
    for t in range(first, first + n_steps):
        x = torch.randint(11, (8,), generator=torch.Generator().manual_seed(t))
        loss = nn.functional.cross_entropy(model(x), (3 * x + 1) % 11)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step(0.02 / (1 + t / 7))
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_it_learns(kind: str) -> None:
    model = network()
    losses = train(model, settings(kind).build(model), 0, 120)
    assert sum(losses[-5:]) / 5 < 0.75 * losses[0]


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_resume_is_bitwise(kind: str) -> None:
    model = network()
    whole = train(model, settings(kind).build(model), 0, 12)

    first = network()
    optimizer = settings(kind).build(first)
    train(first, optimizer, 0, 5)
    weights = {name: t.clone() for name, t in first.state_dict().items()}
    state = {name: t.clone() for name, t in optimizer.tensors().items()}
    train(first, optimizer, 90, 3)  # the copies must not follow

    second = network()
    resumed = settings(kind).build(second)
    second.load_state_dict(weights)
    resumed.load(state)
    assert train(second, resumed, 5, 7) == whole[5:]
    for name, t in model.state_dict().items():
        assert torch.equal(t, second.state_dict()[name]), name
    if kind != "sgd":
        assert {name.rsplit("/", 1)[0] for name in state} == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_parameter_without_gradient_stays(kind: str) -> None:
    model = network()
    optimizer = settings(kind).build(model)
    train(model, optimizer, 0, 2)
    before = model[4].weight.detach().clone()
    state = {n: t.clone() for n, t in optimizer.tensors().items() if n.startswith("4.weight/")}
    for name, p in model.named_parameters():
        p.grad = None if name == "4.weight" else torch.ones_like(p)
    moved = model[2].weight.detach().clone()
    optimizer.step(0.1)
    assert torch.equal(model[4].weight, before)
    assert all(torch.equal(optimizer.tensors()[n], t) for n, t in state.items())
    assert not torch.equal(model[2].weight, moved)


def test_state_of_another_model_is_refused_whole() -> None:
    model = network()
    optimizer = settings("adamw").build(model)
    state = {name: t.clone() for name, t in optimizer.tensors().items()}
    with pytest.raises(UserError, match="must belong to this model and optimizer"):
        optimizer.load({name: t for name, t in state.items() if name != "1.weight/mean"})
    wrong = {name: torch.full_like(t, 3) for name, t in state.items()} | {"4.bias/mean": torch.zeros(12)}
    with pytest.raises(UserError, match=r"optimizer state 4.bias/mean must be torch.float32 of shape \(11,\)"):
        optimizer.load(wrong)
    assert all(torch.equal(t, state[name]) for name, t in optimizer.tensors().items())


@pytest.mark.parametrize("kind", [*OPTIMIZERS, *SCHEDULES])
def test_every_setting_is_documented_and_serialisable(kind: str) -> None:
    cls = (OPTIMIZERS | SCHEDULES)[kind]
    assert cls.__doc__
    assert [n for n, meaning in meanings(cls).items() if not meaning] == []
    assert cls().kind == kind  # type: ignore[attr-defined]
    assert cls.model_validate(cls().model_dump(mode="json", exclude_unset=True)) == cls()
    assert cls.model_json_schema()["additionalProperties"] is False


WRONG: list[tuple[str, dict[str, Any], str]] = [
    *[(kind, {"learning_rate": 1.0}, "learning_rate is not a setting of") for kind in OPTIMIZERS],
    *[(kind, {"lr": -0.1}, "lr must be a number above 0") for kind in OPTIMIZERS],
    ("adamw", {"lr": "high"}, "auto"),
    ("adamw", {"beta1": 1.0}, "beta1 must be a number of at least 0 and below 1"),
    ("adamw", {"weight_decay": -1}, "weight_decay must be a number of at least 0"),
    ("adamw", {"lr": float("nan")}, "lr must be a number above 0"),
    ("sgd", {"nesterov": True, "momentum": 0.0}, "nesterov must go with a momentum above 0"),
    ("sgd", {"nesterov": True, "dampening": 0.5}, "nesterov must go with a momentum above 0"),
    ("muon", {"ns_precision": "fp8"}, 'must be one of "auto", "bf16", "fp32"'),
    ("muon", {"ns_steps": 0}, "ns_steps must be a whole number of at least 1"),
    ("adamh", {"weight_decay": 0.1}, "weight_decay is not a setting of adamh"),
]


@pytest.mark.parametrize(("kind", "given", "words"), WRONG)
def test_wrong_settings_are_refused(kind: str, given: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        OPTIMIZERS[kind](**given)


def test_tables_load_no_torch() -> None:
    made = "[c() for c in (o.OPTIMIZERS | o.SCHEDULES).values()]"
    code = f"import sys, danlu.optim as o; {made}; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_the_guide_names_every_member() -> None:
    guide = (Path(__file__).parents[2] / "docs/guides/optimizers.md").read_text(encoding="utf-8")
    assert [kind for kind in (*OPTIMIZERS, *SCHEDULES) if f"| `{kind}` |" not in guide] == []
