"""Keras 3 models on the torch backend through danlu.fit. Needs keras (pip install keras); skips aloud without it.

Held to Keras's own training: the same first weights, the same batches, the same numbers.
"""

import os

import numpy as np
import pytest
import torch

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras", minversion="3.0", reason="keras 3 is not installed: nothing is known of it here")
if keras.backend.backend() != "torch":
    pytest.skip(f"keras runs on {keras.backend.backend()}, not on torch", allow_module_level=True)

import danlu  # noqa: E402
from danlu.base.errors import UserError  # noqa: E402
from danlu.data.order import Order  # noqa: E402
from danlu.data.random_rows import random_columns  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras on numpy 2
PLAIN = {"max_norm": "none", "precision": "fp32", "threads": 1}
EPS = 1e-12
"""So small that it does not matter that Keras adds it before the bias correction and torch after. At 1e-7 the weights of a
unit that rarely fires came to differ by 6e-4."""
STEADY = {"kind": "constant", "warmup": "0 steps"}


def rows(table, target):
    columns = random_columns(table)
    return np.stack([v for k, v in columns.items() if k.startswith("x")], 1), columns[target]


def trained_by_keras(model, x, y, n_steps, batch):
    order = Order(len(x), batch, 0)
    losses = []
    for step in range(n_steps):
        ids = order.at(step)[0]
        losses.append(float(np.ravel(model.train_on_batch(x[ids], y[ids]))[0]))
    return losses


def copy_of(model):
    found = keras.models.clone_model(model)
    found.set_weights(model.get_weights())
    return found


def test_listing_a_as_keras_trains_it(tmp_path):
    x, y = rows("random-classes", "label")
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((10,)), keras.layers.Dense(10, activation="relu"), keras.layers.Dense(1)],
    )
    theirs = copy_of(model)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    theirs.compile(optimizer=keras.optimizers.Adam(1e-3, epsilon=EPS), loss=loss)
    run = danlu.fit(
        model, {"train": (x, y)}, {"kind": "classify", "loss": "binary"}, tmp_path / "run", schedule=STEADY,
        optimizer={"kind": "adam", "lr": 1e-3, "eps": EPS}, train=PLAIN | {"length": "10 epochs", "batch": 32},
    )  # fmt: skip
    trained_by_keras(theirs, x, y.astype("f4")[:, None], 313, 32)
    for own, other in zip(run.model.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-5)


def test_listing_e_as_keras_trains_it(tmp_path):
    """Stochastic gradient descent with InverseTimeDecay and an L2 penalty on the kernels."""
    x, y = rows("random-numbers", "y")
    keras.utils.set_random_seed(1)

    def net(penalty):
        layer = keras.layers.Dense
        return keras.Sequential([
            keras.Input((10,)), layer(10, activation="relu", kernel_regularizer=penalty), layer(1, kernel_regularizer=penalty),
        ])  # fmt: skip

    model, theirs = net(None), net(keras.regularizers.L2(0.001))
    theirs.set_weights(model.get_weights())
    rate = keras.optimizers.schedules.InverseTimeDecay(0.01, decay_steps=1, decay_rate=1e-3)
    theirs.compile(optimizer=keras.optimizers.SGD(rate), loss="mse")
    run = danlu.fit(
        model, {"train": (x, y)}, "regress", tmp_path / "run", optimizer={"kind": "sgd", "lr": 0.01, "momentum": 0.0},
        schedule={"kind": "inverse_time", "rate": 1e-3, "every": "1 steps", "warmup": "0 steps"},
        train=PLAIN | {"length": "10 epochs", "batch": 32, "l2": 0.002},
    )  # fmt: skip
    trained_by_keras(theirs, x, y[:, None], 313, 32)
    for own, other in zip(run.model.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-5)


def deep():
    layers = keras.layers
    return keras.Sequential([
        keras.Input((10,)), layers.Dense(16, activation="relu"), layers.BatchNormalization(), layers.Dropout(0.3), layers.Dense(2),
    ])  # fmt: skip


def test_dropout_and_batch_norm_train_resume_and_predict(tmp_path):
    x, y = rows("random-classes", "label")
    held_x, held_y = rows("random-classes-test", "label")
    model = deep()
    before = [w.copy() for w in model.get_weights()]
    data = {"train": (x, y), "test": (held_x, held_y)}
    sections = {
        "optimizer": {"kind": "adam", "lr": 3e-3}, "train": PLAIN | {"length": "60 steps", "batch": 64, "signals": 10},
        "checkpoint": {"save_every": "20 steps"}, "evaluate": {"bootstrap": 100},
    }  # fmt: skip
    task = {"kind": "classify", "loss": "cross_entropy"}
    run = danlu.fit(model, data, task, tmp_path / "a", **sections)
    assert run.scores.metrics["accuracy"].value > 0.7
    assert all(
        np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)
    )  # the given one is untouched
    again = danlu.fit(model, data, task, tmp_path / "b", **sections)
    for own, other in zip(run.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(own, other)  # dropout of a copy draws what the given one would have
    moved = run.model.layers[1].get_weights()[2]
    assert np.abs(moved).max() > 0.01  # running means moved: it was trained as such
    shares = torch.softmax(torch.as_tensor(run.model.predict(held_x, verbose=0)), -1).numpy()
    said = [row["share"] for row in run.predict(list(held_x))]
    np.testing.assert_allclose(said, shares.max(1), atol=1e-5)
    run.model.save(tmp_path / "model.keras")
    back = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(back.predict(held_x, verbose=0), run.model.predict(held_x, verbose=0), atol=1e-6)


def test_a_keras_model_that_is_not_built_or_ends_with_softmax_is_refused():
    x, y = rows("random-classes", "label")
    with pytest.raises(UserError, match="not built yet"):
        danlu.fit(keras.Sequential([keras.layers.Dense(2)]), {"train": (x, y)}, "classify")
    ends = keras.Sequential([keras.Input((10,)), keras.layers.Dense(2, activation="softmax")])
    with pytest.raises(UserError, match="a last softmax"):
        danlu.fit(ends, {"train": (x, y)}, "classify")
