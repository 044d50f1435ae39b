"""The classic listings: recipes/listings/*.toml give the numbers of the plain torch (or numpy) program on the same rows.

Each program is written as its users would, with torch.nn and torch.optim. It starts from the same weights and takes the
same batches: danlu's order goes on over the end of an epoch, where a DataLoader would give a short batch. Held to 1e-5 relative
(1e-6 absolute) after up to 3,125 updates in float32; listing D to as far as the program's own weights go apart when they start
one rounding step away, since processors round its products differently. Keras itself is held against in tests/test_keras.py: it
has the same formulas, but adds Adam's eps before the bias correction where torch adds it after.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import danlu
from danlu.build import build_model
from danlu.data.order import Order
from danlu.data.random_rows import random_columns
from danlu.planning.choices import Choices
from danlu.recipe import Recipe
from danlu.training.loop import seed_generators

LISTINGS = Path(__file__).resolve().parents[1] / "recipes/listings"
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def trained(listing, folder, *sets):
    """(losses of all updates, trained weights, initial weights) of a recipe."""
    recipe = Recipe.load(LISTINGS / f"{listing}.toml", sets=["train.threads=1", "plan.budget=1 s", *sets])
    run = danlu.plan(recipe, folder / "run")
    initial = [p.detach().clone() for p in build_model(recipe, run.card, Choices.read(run.folder)).parameters()]
    losses = [report.loss for report in danlu.train_steps(recipe, folder / "run")]
    return losses, list(run.model.parameters()), initial


def rows_of(table, target):
    """(x, y) float32 of a random table."""
    columns = random_columns(table)
    x = np.stack([v for k, v in columns.items() if k.startswith("x")], 1)
    return torch.from_numpy(x), torch.from_numpy(np.stack([columns[name] for name in target], 1).astype("f4"))


def plain(net, initial, batches, loss_of, optimizer, rate_at=None):
    """The loop that everybody has written: (losses, weights)."""
    with torch.no_grad():
        for p, start in zip(net.parameters(), initial, strict=True):
            p.copy_(start)
    optimizer, losses = optimizer(net.parameters()), []
    for step, (x, y) in enumerate(batches):
        for group in optimizer.param_groups if rate_at else ():
            group["lr"] = rate_at(step)
        optimizer.zero_grad()
        seed_generators(step, torch.device("cpu"))  # dropout draws the same numbers
        loss = loss_of(net(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, list(net.parameters())


def same(found, wanted, atol=CLOSE["atol"]):
    """Loss curve and final weights."""
    np.testing.assert_allclose(found[0], wanted[0], **CLOSE)
    for one, other in zip(found[1], wanted[1], strict=True):
        torch.testing.assert_close(one, other, rtol=CLOSE["rtol"], atol=atol)


def nudged(weights, seed):
    """Each number one rounding step up or down."""
    draws = torch.Generator().manual_seed(seed)
    return [torch.nextafter(w, (torch.rand(w.shape, generator=draws) - 0.5) * torch.inf) for w in weights]


def in_order(x, y, n_steps, batch):
    """Batches of the rows in danlu's order."""
    order = Order(len(x), batch, 0)
    return ((x[ids], y[ids]) for ids in (torch.from_numpy(order.at(step)[0].copy()) for step in range(n_steps)))


def test_a_two_classes_by_adam(tmp_path):
    found = trained("a", tmp_path)
    x, y = rows_of("random-classes", ["label"])
    net = nn.Sequential(nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 1), nn.Sigmoid())
    batches = in_order(x, y, 313, 32)
    wanted = plain(net, found[2], batches, nn.BCELoss(), lambda p: torch.optim.Adam(p, 1e-3, eps=1e-7))
    assert len(found[0]) == 313  # 10 epochs of 1,000 rows by 32, rounded up
    same(found, wanted)


def test_b_linear_regression_by_gradient_descent(tmp_path):
    found = trained("b", tmp_path)
    x, y = rows_of("random-lines", ["y0", "y1", "y2"])
    net = nn.Linear(2, 3)
    batches = ((x, y) for _ in range(1000))
    same(found, plain(net, found[2], batches, nn.MSELoss(), lambda p: torch.optim.SGD(p, 0.01)))


def test_b_is_the_numpy_iteration_too(tmp_path):
    """Mean over rows and targets: the gradient of the weights is 2 / (n K) (x W' + b - y)' x."""
    losses, weights, initial = trained("b", tmp_path)
    x, y = (t.double().numpy() for t in rows_of("random-lines", ["y0", "y1", "y2"]))
    w, b = (t.double().numpy().copy() for t in initial)
    for loss in losses:
        error = x @ w.T + b - y
        assert loss == pytest.approx((error**2).mean(), rel=1e-5)
        w -= 0.01 * 2 / error.size * error.T @ x
        b -= 0.01 * 2 / error.size * error.sum(0)
    np.testing.assert_allclose(weights[0].detach(), w, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(weights[1].detach(), b, rtol=1e-5, atol=1e-6)


def test_c_a_small_network_by_gradient_descent(tmp_path):
    found = trained("c", tmp_path)
    x, y = rows_of("random-numbers", ["y"])
    net = nn.Sequential(nn.Linear(10, 5), nn.ReLU(), nn.Linear(5, 1))
    batches = ((x, y) for _ in range(1000))
    same(found, plain(net, found[2], batches, nn.MSELoss(), lambda p: torch.optim.SGD(p, 0.01)))


def test_d_digits_with_dropout(tmp_path):
    """The recipe on 300 made-up digits, where its 60,000 real ones would take too long (see the data test below)."""
    rng = np.random.default_rng(0)
    digits, labels = rng.integers(0, 256, (300, 28, 28), np.uint8), (np.arange(300) % 10).astype(np.uint8)
    for name, array, n_dims in (("train-images-idx3", digits, 3), ("train-labels-idx1", labels, 1)):
        sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
        (tmp_path / f"{name}-ubyte").write_bytes(bytes([0, 0, 8, n_dims]) + sizes + array.tobytes())
    found = trained("d", tmp_path, f"data.path={tmp_path}", "data.split.test=0.0", "evaluate.on=train")
    x, y = torch.from_numpy(digits[:, None]).float() / 255, torch.from_numpy(labels.astype("i8"))

    def program(initial):
        net = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))
        adam = lambda p: torch.optim.Adam(p, 1e-3, eps=1e-7)  # noqa: E731
        return plain(net, initial, in_order(x, y, 47, 32), F.cross_entropy, adam)

    wanted = program(found[2])
    reach = 0.0  # Adam makes much of a gradient that rounding alone makes
    for seed in range(3):
        _, weights = program(nudged(found[2], seed))
        reach = max(reach, *(float((p - q).detach().abs().max()) for p, q in zip(weights, wanted[1], strict=True)))
    assert reach < 5e-5
    same(found, wanted, atol=max(CLOSE["atol"], reach))
    assert all((b == 0).all() for b in found[2][1::2])  # Glorot's start, as Keras has it
    assert found[2][0].abs().max() <= (6 / (784 + 128)) ** 0.5


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif("DANLU_DATA" not in os.environ, reason="needs DANLU_DATA with mnist")
def test_d_reads_real_digits(tmp_path):
    run = danlu.run(LISTINGS / "d.toml", tmp_path / "run")
    assert run.scores.metrics["accuracy"].value >= 0.975


def test_e_mini_batches_with_decay_and_l2(tmp_path):
    found = trained("e", tmp_path)
    x, y = rows_of("random-numbers", ["y"])
    net = nn.Sequential(nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 1))

    def loss_of(answer, y):  # kernel_regularizer=l2(0.001)
        return F.mse_loss(answer, y) + 0.001 * sum((p**2).sum() for p in net.parameters() if p.dim() > 1)

    batches = in_order(x, y, 3125, 32)
    rate = lambda step: 0.01 / (1 + 1e-3 * step)  # noqa: E731
    same(found, plain(net, found[2], batches, loss_of, lambda p: torch.optim.SGD(p, 0.01), rate))


def test_random_tables_are_the_same_everywhere():
    columns = random_columns("random-numbers")
    assert list(columns) == [*(f"x{i}" for i in range(10)), "y"]
    assert len(columns["y"]) == 1000
    assert len(random_columns("random-numbers-test")["y"]) == 200
    assert float(columns["x0"][0]) == pytest.approx(float(random_columns("random-classes")["x0"][0]))
