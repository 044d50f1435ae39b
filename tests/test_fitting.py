"""danlu.fit: modules and arrays given in Python, trained, scored and brought back like everything else."""

import numpy as np
import pytest
import torch

import danlu
from danlu.base.errors import UserError

SHORT = {"length": "30 steps", "batch": 16, "precision": "fp32"}
ADAM = {"kind": "adam", "lr": 1e-2}


def classes(n, seed):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return (np.eye(4)[y] * 3 + rng.normal(size=(n, 4))).astype("f4"), y


def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.BatchNorm1d(16), torch.nn.Linear(16, 3)
    )


def test_a_module_learns_and_the_given_one_is_untouched(tmp_path):
    module = net()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    data = {"train": classes(120, 1), "test": classes(60, 2)}
    run = danlu.fit(module, data, "classify", tmp_path / "run", train=SHORT, optimizer=ADAM)
    assert run.scores.metrics["accuracy"].value > 0.8
    assert run.scores.split == "test"
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    trained = run.model
    x, _ = data["test"]
    shares = torch.softmax(trained(torch.from_numpy(x)), -1).detach().numpy()
    rows = run.predict(list(x))
    assert [row["prediction"] for row in rows] == [str(c) for c in shares.argmax(1)]
    assert rows[0]["share"] == pytest.approx(shares[0].max(), abs=1e-5)


def test_running_averages_are_kept_in_the_checkpoint(tmp_path):
    run = danlu.fit(net(), {"train": classes(120, 1)}, "classify", tmp_path / "run", train=SHORT, optimizer=ADAM)
    state = run.model.state_dict()
    assert int(state["2.num_batches_tracked"]) == 30
    assert not torch.equal(state["2.running_mean"], torch.zeros(16))


def test_it_is_the_same_as_a_plain_loop(tmp_path):
    """Full batches, plain gradient descent: our loop and ten lines of torch give the same weights."""
    x, y = classes(24, 3)
    module = torch.nn.Linear(4, 3)
    settings = {"length": "20 steps", "batch": 24, "precision": "fp32", "max_norm": "none"}
    run = danlu.fit(
        module, {"train": (x, y)}, "classify", tmp_path / "run", train=settings,
        optimizer={"kind": "sgd", "lr": 0.1, "momentum": 0.0}, schedule={"kind": "constant", "warmup": "0 steps"},
    )  # fmt: skip
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    for _ in range(20):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        optimizer.step()
    for name, tensor in run.model.state_dict().items():
        torch.testing.assert_close(tensor, module.state_dict()[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"test": classes(3, 0)}, "train"),
        ({"train": (np.zeros((3, 2), "f4"), np.zeros(2, int))}, "2 for 3"),
        ({"train": (np.full((3, 2), np.nan, "f4"), np.arange(3))}, "finite"),
    ],
)
def test_bad_arrays_are_refused(data, said):
    with pytest.raises(UserError, match=said):
        danlu.fit(net(), data, "classify")


def test_a_folder_without_its_module_says_so(tmp_path):
    from danlu.models.module_settings import Module

    run = danlu.fit(net(), {"train": classes(30, 1)}, "classify", tmp_path / "run", train=SHORT, optimizer=ADAM)
    kept = dict(Module.given)
    Module.given.clear()
    try:
        with pytest.raises(UserError, match=r"danlu\.fit with the same module"):
            _ = run.model
    finally:
        Module.given.update(kept)


def test_a_module_that_has_no_weights_yet_or_ends_with_softmax_is_refused():
    data = {"train": classes(30, 1)}
    with pytest.raises(UserError, match="not built yet"):
        danlu.fit(torch.nn.Sequential(torch.nn.LazyLinear(3)), data, "classify")
    with pytest.raises(UserError, match="a last softmax"):
        danlu.fit(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Softmax(-1)), data, "classify")
