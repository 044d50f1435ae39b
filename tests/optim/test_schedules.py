"""Each schedule against a plain reference, against torch.optim.lr_scheduler, and for its shape."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler as peers

from danlu.base.errors import UserError
from danlu.optim import SCHEDULES

N, W, PEAK = 200, 20, 3e-3
REFERENCES: list[tuple[str, dict[str, Any], Callable[[int], float]]] = [
    ("constant", {}, lambda s: 1.0),
    ("exponential", {"factor": 0.5, "every": "30 steps"}, lambda s: 0.5 ** ((s - W) / 30)),
    ("step", {"factor": 0.2, "at": ["60 steps", "75%"]}, lambda s: 1.0 if s < 60 else 0.2 if s < 150 else 0.04),
    ("step", {"factor": 0.2, "every": "25%"}, lambda s: 0.2 ** ((s - W) // 50)),
    ("linear", {"floor": 0.1}, lambda s: 0.1 + 0.9 * (N - s) / (N - W)),
    ("polynomial", {"power": 3, "floor": 0.1}, lambda s: 0.1 + 0.9 * ((N - s) / (N - W)) ** 3),
    ("cosine", {"floor": 0.1}, lambda s: 0.1 + 0.45 * (1 + math.cos(math.pi * (s - W) / (N - W)))),
    ("inverse_time", {"rate": 2, "every": "10 steps"}, lambda s: 1 / (1 + 2 * (s - W) / 10)),
    ("inverse_sqrt", {}, lambda s: math.sqrt((W + 1) / (s + 1))),
    ("one_cycle", {"floor": 0.1, "shape": "linear"}, lambda s: 0.1 + 0.9 * (N - s) / (N - W)),
    ("wsd", {"decay": "40 steps"}, lambda s: min(1.0, (N - s) / 40)),
    ("wsd", {"decay": "20%", "shape": "sqrt"}, lambda s: 1 - math.sqrt(max(0, s - 160) / 40)),
]
IDS = [f"{kind}-{i}" for i, (kind, _, _) in enumerate(REFERENCES)]


def test_every_schedule_has_a_reference() -> None:
    assert {kind for kind, _, _ in REFERENCES} == set(SCHEDULES)


@pytest.mark.parametrize(("kind", "settings", "share"), REFERENCES, ids=IDS)
def test_schedule_follows_its_formula(kind: str, settings: dict[str, Any], share: Callable[[int], float]) -> None:
    schedule = SCHEDULES[kind](warmup="20 steps", **settings)
    for s in range(N):
        wanted = PEAK * ((s + 1) / (W + 1) if s < W else share(s))
        if kind == "one_cycle" and s < W:
            wanted = PEAK * (0.04 + 0.96 * s / W)
        assert schedule.lr_at(s, N, PEAK) == pytest.approx(wanted, rel=1e-12), s


@pytest.mark.parametrize("n_steps", [1, 2, 7, 50, 1000])
@pytest.mark.parametrize("kind", SCHEDULES)
def test_defaults_fit_any_length(kind: str, n_steps: int) -> None:
    """Within 0 and the peak, rising then never rising again, and never a wasted update at rate 0."""
    schedule = SCHEDULES[kind]()
    rates = [schedule.lr_at(s, n_steps, PEAK) for s in range(n_steps)]
    top = schedule.n_warmup(n_steps)
    assert all(0 < r <= PEAK for r in rates)
    assert rates[top] == PEAK
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_auto_warmup_is_its_documented_rule() -> None:
    schedule = SCHEDULES["cosine"]()
    lengths = {1: 0, 50: 5, 100: 10, 500: 10, 2000: 40, 10**5: 2000, 10**6: 2000}
    assert {n: schedule.n_warmup(n) for n in lengths} == lengths


def test_the_reference_recipe_is_cosine_with_a_tenth() -> None:
    """nanoGPT's rule: (s + 1) / 101 for 100 steps, then a cosine to a tenth."""
    schedule = SCHEDULES["cosine"](warmup="100 steps")
    assert schedule.lr_at(0, 2000, 1e-3) == pytest.approx(1e-3 / 101)
    assert schedule.lr_at(100, 2000, 1e-3) == 1e-3
    assert schedule.lr_at(1050, 2000, 1e-3) == pytest.approx(5.5e-4)
    assert schedule.lr_at(2000, 2000, 1e-3) == pytest.approx(1e-4)
    assert schedule.lr_at(9999, 2000, 1e-3) == pytest.approx(1e-4)


PEERS: list[tuple[str, dict[str, Any], Callable[[Any], peers.LRScheduler]]] = [
    ("exponential", {"factor": 0.97, "every": "1 steps"}, lambda o: peers.ExponentialLR(o, 0.97)),
    ("step", {"factor": 0.3, "every": "30 steps"}, lambda o: peers.StepLR(o, 30, 0.3)),
    ("step", {"factor": 0.3, "at": ["30 steps", "70 steps"]}, lambda o: peers.MultiStepLR(o, [30, 70], 0.3)),
    ("linear", {"floor": 0.2}, lambda o: peers.LinearLR(o, 1.0, 0.2, N)),
    ("polynomial", {"power": 2}, lambda o: peers.PolynomialLR(o, N, 2)),
    ("cosine", {"floor": 0.1}, lambda o: peers.CosineAnnealingLR(o, N, eta_min=0.1 * PEAK)),
    (
        "one_cycle",
        {"warmup": "60 steps"},
        lambda o: peers.OneCycleLR(o, PEAK, total_steps=N + 1, pct_start=61 / (N + 1), final_div_factor=1e4),
    ),
]


@pytest.mark.parametrize(("kind", "settings", "peer"), PEERS, ids=[f"{k}-{i}" for i, (k, _, _) in enumerate(PEERS)])
def test_schedule_agrees_with_torch(
    kind: str, settings: dict[str, Any], peer: Callable[[Any], peers.LRScheduler]
) -> None:
    schedule = SCHEDULES[kind](**{"warmup": "0 steps", **settings})
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], PEAK)
    other = peer(optimizer)
    for s in range(N):
        assert schedule.lr_at(s, N, PEAK) == pytest.approx(other.get_last_lr()[0], rel=1e-6, abs=1e-12), s
        optimizer.step()
        other.step()


@pytest.mark.parametrize("given", [100, "100", "2 percent", "-5 steps", "150%", "1.5 steps", "", None, "auto%"])
def test_a_wrong_span_is_refused_in_one_sentence(given: Any) -> None:
    with pytest.raises(UserError, match='must be a number of steps such as "100 steps", or a share'):
        SCHEDULES["cosine"](warmup=given)


def test_spans_that_do_not_fit_the_run_are_refused() -> None:
    with pytest.raises(UserError, match=r'schedule.warmup must be shorter than the run, which has 50 steps. Got "50'):
        SCHEDULES["cosine"](warmup="50 steps").lr_at(0, 50, 1.0)
    with pytest.raises(UserError, match=r"schedule.decay and its warm-up of 10 steps must fit in the run"):
        SCHEDULES["wsd"](warmup="10 steps", decay="45 steps").lr_at(10, 50, 1.0)
    with pytest.raises(UserError, match="either at or every"):
        SCHEDULES["step"](at=["10 steps"], every="5 steps")
