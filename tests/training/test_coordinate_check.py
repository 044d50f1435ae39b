"""The coordinate check tells a parametrization that transfers from one that does not."""

from statistics import median

import pytest
import torch

from danlu.base.contracts import Batch
from danlu.models.decoder_settings import Decoder
from danlu.optim import OPTIMIZERS
from danlu.tasks.language import Language
from danlu.training.coordinate_check import STREAM, Moved, check

TOKENS = torch.randint(64, (8, 17), generator=torch.Generator().manual_seed(3))
BATCH = Batch({"tokens": TOKENS[:, :-1], "targets": TOKENS[:, 1:]}, TOKENS[:, 1:].numel())


def slopes(parametrization, optimizer):
    def build(width):
        shape = {"n_layers": 3, "width": width, "n_heads": 4, "context": 16, "base_width": 64}
        return Decoder(parametrization=parametrization, **shape).build(64, 1)

    return [m.slope for m in check(build, (64, 128, 256), BATCH, Language(), optimizer)]


@pytest.mark.parametrize(
    "optimizer",
    [
        OPTIMIZERS["adamw"](lr=0.01, weight_decay=0.0),
        OPTIMIZERS["muon"](lr=0.02, weight_decay=0.0, ns_precision="fp32"),
    ],
    ids=["adamw", "muon"],
)
def test_under_mup_nothing_grows_with_width_and_under_the_standard_everything_does(optimizer):
    ours, standard = slopes("mup", optimizer), slopes("standard", optimizer)
    assert len(ours) == 13
    assert median(abs(s) for s in ours) < 0.15
    assert max(abs(s) for s in ours) < 0.35
    assert median(standard) > 3 * median(abs(s) for s in ours)


def test_under_completep_the_residual_stream_does_not_move_further_with_depth():
    def moved(parametrization):
        def build(n_layers):
            shape = {"n_layers": n_layers, "width": 32, "n_heads": 1, "context": 16, "base_width": 32, "base_layers": 2}
            return Decoder(parametrization=parametrization, **shape).build(64, 1)

        optimizer = OPTIMIZERS["adamw"](lr=0.01, weight_decay=0.0)
        found = {m.module: m.slope for m in check(build, (2, 4, 8), BATCH, Language(), optimizer)}
        assert len(found) == 2 * 4 + 1
        return found[STREAM]

    assert abs(moved("completep")) < 0.15
    assert moved("standard") > 0.7


def test_the_slope_is_the_power_of_width():
    assert Moved("x", (64, 128, 256), (2.0, 4.0, 8.0)).slope == pytest.approx(1.0)
