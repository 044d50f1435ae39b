"""Native kernels equal the plain operations: values and gradients, float32 tightly, bfloat16 to its rounding."""

import math

import pytest
import torch

from danlu.base import native
from danlu.models.layers import ACTIVATIONS, FusedAttention, Native, Plain, rotary_table

pytestmark = pytest.mark.skipif(native.load() is None, reason=f"no native kernels here: {native.reason()}")
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2}
SHAPES = [(2, 5, 3, 1, 8), (1, 64, 2, 2, 32), (3, 130, 4, 2, 16), (1, 257, 2, 1, 64)]  # B, T, N, K, H


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def both_ways(function, *inputs):
    """Outputs and input gradients of Plain and Native for the same inputs and the same output gradient."""
    results = []
    for operations in (Plain(), Native()):
        given = [x.detach().clone().requires_grad_() for x in inputs]
        out = function(operations, *given)
        out = out if isinstance(out, tuple) else (out,)
        torch.manual_seed(1)
        grads = [torch.randn(y.shape).to(y.dtype) for y in out]
        torch.autograd.backward(out, grads)
        results.append([y.detach() for y in out] + [x.grad for x in given])
    return zip(*results, strict=True)


def assert_same(pairs, dtype):
    for plain, fast in pairs:
        assert plain.shape == fast.shape
        error = (plain.float() - fast.float()).norm() / plain.float().norm().clamp(min=1e-6)
        assert error < TOLERANCE[dtype], f"relative error {error:.2e}"


def data(*shape, dtype, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("width", [3, 96, 384])
def test_norms(dtype, width):
    x, delta = data(7, 5, width, dtype=dtype), data(7, 5, width, dtype=dtype, seed=2)
    gain = data(width, dtype=torch.float32, seed=3)
    assert_same(both_ways(lambda o, a, g: o.rms_norm(a, g), x, gain), dtype)
    assert_same(both_ways(lambda o, a: o.rms_norm(a, None), x), dtype)
    assert_same(both_ways(lambda o, a, d, g: o.add_rms_norm(a, d, g), x, delta, gain), dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("norm", [True, False])
def test_heads(dtype, shape, norm):
    B, T, N, K, H = shape
    qkv, rotary = data(B, T, (N + 2 * K) * H, dtype=dtype), rotary_table(T, H, 10_000.0)
    assert_same(both_ways(lambda o, x: o.heads(x, N, K, rotary, norm), qkv), dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
def test_attention(dtype, shape):
    B, T, N, _, H = shape
    qkv = [data(B, N, T, H, dtype=dtype, seed=i) for i in range(3)]
    assert_same(both_ways(lambda o, *x: o.causal_attention(*x), *qkv), dtype)


fused = pytest.mark.skipif(not native.has_fused_attention(), reason="this CPU has no AVX512-BF16")


def attention_and_gradients(operations, *inputs, n_threads=1):
    torch.set_num_threads(n_threads)
    given = [x.detach().clone().requires_grad_() for x in inputs]
    out = operations.causal_attention(*given)
    out.backward(data(*out.shape, dtype=out.dtype, seed=9))
    return [out.detach(), *(x.grad for x in given)]


@fused
@pytest.mark.parametrize("T", [1, 5, 64, 130, 256, 257, 1024])
@pytest.mark.parametrize("H", [32, 64, 128])
def test_fused_attention(T, H):
    qkv = [data(1, 3, T, H, dtype=torch.bfloat16, seed=i) for i in range(3)]
    assert FusedAttention.covers(qkv[0])
    fast = attention_and_gradients(Native(), *qkv)
    exact = attention_and_gradients(Plain(), *(x.float() for x in qkv))
    scale = exact[3].norm()  # at T = 1 the gradients of q and k are 0
    for plain, found in zip(exact, fast, strict=True):
        assert (plain - found.float()).norm() < 1e-2 * plain.norm() + 1e-5 * scale


@fused
@pytest.mark.parametrize("T", [97, 600])
def test_fused_attention_is_causal_and_its_bits_never_change(T):
    qkv = [data(2, 3, T, 64, dtype=torch.bfloat16, seed=i) for i in range(3)]
    first, again, threaded = (attention_and_gradients(Native(), *qkv, n_threads=n) for n in (1, 1, 2))
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(first, again, threaded, strict=True))
    for cut in (1, 50, T - 1):
        later = [torch.cat([x[:, :, :cut], x[:, :, cut:] + 5.0], 2) for x in qkv]
        out = attention_and_gradients(Native(), *later)[0]
        assert torch.equal(out[:, :cut], first[0][:, :cut])
        assert not torch.equal(out[:, cut:], first[0][:, cut:])


@fused
@pytest.mark.parametrize("which", [0, 1, 2])
def test_fused_attention_passes_a_nan_on_and_bears_large_scores(which):
    qkv = [data(1, 2, 70, 32, dtype=torch.bfloat16, seed=i) for i in range(3)]
    qkv[which][0, 1, 40, 3] = float("nan")
    out, *grads = attention_and_gradients(Native(), *qkv)
    assert out[0, 40, 32:].isnan().any()
    assert not out[0, :, :32].isnan().any()
    assert all(g[0, 1].isnan().any() for g in grads[:2])
    large = [100 * data(1, 2, 70, 32, dtype=torch.bfloat16, seed=i) for i in range(3)]
    exact = attention_and_gradients(Plain(), *(x.float() for x in large))
    assert_same(zip(exact[:1], attention_and_gradients(Native(), *large)[:1], strict=True), torch.bfloat16)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations(dtype, kind):
    assert_same(both_ways(lambda o, x: o.activation(x, kind), 3 * data(5, 77, dtype=dtype)), dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_swiglu_and_linear(dtype):
    assert_same(both_ways(lambda o, x: o.swiglu(x), data(5, 4, 66, dtype=dtype)), dtype)
    weight = data(24, 66, dtype=torch.float32, seed=4)
    assert_same(both_ways(lambda o, x, w: o.linear(x, w), data(5, 4, 66, dtype=dtype), weight), dtype)


def test_attention_is_causal():
    q, k, v = (data(1, 2, 130, 16, dtype=torch.float32, seed=i) for i in range(3))
    before = Native().causal_attention(q, k, v)
    for x in (q, k, v):
        x[:, :, 100:] += 5.0
    after = Native().causal_attention(q, k, v)
    assert torch.equal(before[:, :100], after[:, :100])
    assert not torch.equal(before[:, 100:], after[:, 100:])


def test_nothing_depends_on_the_number_of_threads():
    x, gain = data(300, 96, dtype=torch.float32), data(96, dtype=torch.float32, seed=3)
    results = []
    for n_threads in (1, 2):
        torch.set_num_threads(n_threads)
        a, g = x.clone().requires_grad_(), gain.clone().requires_grad_()
        Native().rms_norm(a, g).square().sum().backward()
        results.append((a.grad, g.grad))
    assert all(torch.equal(p, q) for p, q in zip(*results, strict=True))


def test_a_nan_stays_a_nan_and_a_large_value_does_not_wrap():
    x = torch.tensor([float("nan"), 3e38, -3e38, 1.0]).to(torch.bfloat16)
    y = Native().activation(x, "relu")
    assert math.isnan(y[0])
    assert y[1] == x[1]
    assert y[2] == 0
    assert torch.isnan(Native().rms_norm(x[None], None)).any()
