"""The laws against the numbers of their papers, and what they say of themselves."""

import dataclasses
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from danlu.base.units import parse_count, parse_length
from danlu.optim import OPTIMIZERS
from danlu.planning import priors
from danlu.planning.priors import Facts

BILLION = Facts(n_hidden=10**9, context=2048, n_unique=10**12, n_tokens=1e11)
SMALL = Facts(n_hidden=800_000, context=64, n_unique=1_000_000, n_tokens=1.6e7)


@pytest.mark.parametrize(
    ("n", "d", "lr", "batch_tokens"),
    [  # best of Lingle's grids of rates (steps of 2^0.5) and batches (steps of 2): lucaslingle.substack.com
        (46_006_272, 127_991_808, 0.001953, 32_768),
        (109_051_904, 127_991_808, 0.000977, 32_768),
        (46_006_272, 255_983_616, 0.001953, 65_536),
        (109_051_904, 255_983_616, 0.001381, 65_536),
        (46_006_272, 511_967_232, 0.002762, 65_536),
        (109_051_904, 511_967_232, 0.001953, 131_072),
        (109_051_904, 1_023_934_464, 0.001953, 131_072),
        (368_050_176, 1_023_934_464, 0.000977, 131_072),
    ],
)
def test_step_law_meets_an_independent_grid(n, d, lr, batch_tokens):
    facts = Facts(n_hidden=n, context=1, n_unique=10**11, n_tokens=d)
    found = priors.learning_rate(facts)
    assert found.in_range
    assert found.origin == "prior: step_law"
    assert found.low < lr < found.high
    assert 0.7 < found.value / lr < 1.5
    assert abs(math.log2(priors.batch(facts).value / batch_tokens)) <= 1


def test_step_law_at_a_billion():
    """1.79 N^-0.713 D^0.307 and 0.58 D^0.571, worked out by hand."""
    lr, batch = priors.learning_rate(BILLION), priors.batch(BILLION)
    assert lr.value == pytest.approx(10 ** (math.log10(1.79) - 0.713 * 9 + 0.307 * 11), rel=5e-3)
    assert lr.value == pytest.approx(1.63e-3, rel=0.01)
    assert batch.value * 2048 == 2**20
    assert lr.in_range
    assert batch.in_range


def test_outside_its_range_a_law_says_so_and_is_capped():
    found = priors.learning_rate(SMALL)
    assert found.value == 5.6e-3
    wide = dataclasses.replace(SMALL, batch=64)
    assert priors.learning_rate(wide).value == pytest.approx(5.6e-3 * 4**0.75, rel=5e-3)  # 4,096 tokens
    assert not found.in_range
    assert "outside the law's range" in found.why
    assert "N = 800k" in found.why
    assert "D = 16M" in found.why
    assert (found.low, found.high) == (found.value / 4, found.value * 4)


@pytest.mark.parametrize("kind", sorted(OPTIMIZERS))
@pytest.mark.parametrize("facts", [SMALL, BILLION])
def test_every_optimizer_gets_a_rate(kind, facts):
    found = priors.learning_rate(replace(facts, optimizer=kind, batch=64, settings=OPTIMIZERS[kind]()))
    assert 1e-5 < found.value <= 1
    assert found.low < found.value < found.high
    OPTIMIZERS[kind](lr=found.value)


def test_rates_of_other_rules():
    adamw = priors.learning_rate(SMALL).value
    assert priors.learning_rate(replace(SMALL, optimizer="lion")).value == pytest.approx(adamw / 5)
    for batch, rate in ((8, 6.5e-3 / 2**0.6), (16, 6.5e-3), (32, 6.5e-3 * 2**0.6), (1024, 1.2e-2)):  # of 64 tokens
        muon = priors.learning_rate(replace(SMALL, optimizer="muon", batch=batch))
        assert muon.value == pytest.approx(rate, rel=0.01)
    spectral = SimpleNamespace(scale="spectral")
    assert priors.learning_rate(replace(SMALL, optimizer="muon", settings=spectral)).value == 0.02
    momentum = SimpleNamespace(momentum=0.9)
    assert priors.learning_rate(replace(SMALL, optimizer="sgd", settings=momentum)).value == 0.1
    delphi = Facts(n_hidden=130_000_000, context=4096, n_unique=10**12, n_tokens=2.5e9, batch=64, optimizer="adamh")
    assert priors.learning_rate(delphi).value == 0.0063


def test_batch_is_a_power_of_two_that_leaves_a_hundred_updates():
    for n_tokens in (1e3, 1e5, 1e6, 1e8, 1e10):
        for context in (8, 64, 1024):
            samples = priors.batch(replace(SMALL, n_tokens=n_tokens, context=context)).value
            assert samples & (samples - 1) == 0
            assert samples == 1 or samples * context <= n_tokens / 100 * 2**0.5
    assert not priors.batch(SMALL).in_range


def test_weight_decay_by_power_lines():
    """D/N = 20 gives tau = 1.084 * 20^-0.527 = 0.2236, and lambda = B / (eta D tau)."""
    facts = Facts(n_hidden=10**9, context=1, n_unique=10**12, n_tokens=2e10, batch=2**20, lr=1e-3)
    found = priors.weight_decay(facts)
    assert found.value == pytest.approx(2**20 / (1e-3 * 2e10 * 0.2236), rel=5e-3)
    assert found.in_range
    assert priors.weight_decay(replace(facts, lr=1e-9)).value == 1.0
    assert not priors.weight_decay(replace(facts, optimizer="lion")).in_range


def test_beta2_keeps_its_half_life_in_tokens():
    """0.95 at 512 samples of 1,024 tokens is 0.9999 at one sample (Marek 2025), and of a short run it is a share."""
    long = Facts(n_hidden=10**8, context=1024, n_unique=10**12, n_tokens=1e11, batch=512)
    assert priors.beta2(long).value == pytest.approx(0.95, abs=2e-4)
    for batch in (32, 64, 256, 1024):
        found = priors.beta2(replace(long, batch=batch))
        assert found.value == pytest.approx(max(0.9, 0.95 ** (batch / 512)), abs=2e-4)
        assert found.low <= found.value <= found.high
    assert priors.beta2(replace(long, batch=1)).value == pytest.approx(0.9999, abs=2e-4)
    assert priors.beta2(replace(long, batch=16384)).value == 0.9
    short = replace(SMALL, n_tokens=600 * 32 * 64, batch=32)
    assert priors.beta2(short).value == pytest.approx(0.5 ** (30 / 600), abs=1e-4)
    assert priors.beta2(replace(short, batch=4)).value == pytest.approx(0.5 ** (30 / 4800), abs=1e-4)


def test_length_is_twenty_tokens_a_parameter_until_data_repeat_too_often():
    plenty = priors.length(Facts(n_hidden=10**8, context=1, n_unique=10**12))
    assert parse_length(plenty.value).amount == 2e9
    assert plenty.in_range
    few = priors.length(Facts(n_hidden=10**6, context=1, n_unique=10**6))
    assert parse_length(few.value).amount == 4e6
    assert "4 epochs" in few.why


def test_size_from_compute_and_data():
    """Hoffmann 2022, table 3: 5.76e23 FLOPs train 67B parameters (exponent 0.5, 20 tokens a parameter)."""
    assert parse_count(priors.model_size(5.76e23, 10**14).value) == pytest.approx(67e9, rel=0.05)
    assert parse_count(priors.model_size(1e21, 10**6).value) == 200_000


def test_every_law_is_told_in_the_guide(request):
    guide = (request.config.rootpath / "docs" / "guides" / "planning.md").read_text(encoding="utf-8")
    for law in priors.LAWS:
        assert f"`{law.name}`" in guide
        assert law.formula in guide
    assert len({law.name for law in priors.LAWS}) == len(priors.LAWS)
