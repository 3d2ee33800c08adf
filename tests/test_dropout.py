"""Dropout: exactly these masks, on every backend; their rate, their independence; nothing while predicting."""

import itertools
import math

import numpy as np
import pytest
import stacks
from problems import DTYPES
from support import BACKENDS

from mlpkernels import SGD, Dense, Dropout, Network, TrainingState, fit, kernels
from mlpkernels.kernels import plan as p
from mlpkernels.kernels import reference
from mlpkernels.kernels.plan import IDENTITY, RELU

DRAWN = 2**20
KEYS = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (2**53 - 1, 10**9, 7), (0, 2, 0), (2, 0, 0), (0, 0, 2)]


@pytest.fixture(params=BACKENDS)
def backend(request):
    return kernels.load(request.param)


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


def kept(seed=0, step=0, layer=0, rate=0.5, size=DRAWN):
    """The reference's mask (size,) of booleans."""
    ones = np.ones(size)
    reference.dropout(ones.copy(), rate, seed, step, layer, ones)
    return ones > 0


# ---- exactly these


def mix64(z):
    z = (z + 0x9E3779B97F4A7C15) & (2**64 - 1)
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return z ^ (z >> 31)


def mix32(h):
    h ^= h >> 16
    h = (h * 0x85EBCA6B) & 0xFFFFFFFF
    h ^= h >> 13
    h = (h * 0xC2B2AE35) & 0xFFFFFFFF
    return h ^ (h >> 16)


def bits(seed, step, layer, element):
    key = mix64(mix64(mix64(seed) ^ step) ^ layer)
    return mix32((mix32((element ^ key) & 0xFFFFFFFF) + (key >> 32)) & 0xFFFFFFFF)


def test_the_mixers_are_the_published_ones():
    assert [mix64(0), mix64(0x9E3779B97F4A7C15)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]  # SplitMix64 of seed 0
    assert [mix32(0), mix32(1)] == [0, 0x514E28B7]  # MurmurHash3's fmix32


def test_masks_are_a_function_of_seed_step_layer_and_element(backend, dtype):
    x = np.arange(1, 7 * 3 * 5 + 1, dtype=dtype).reshape(7, 3, 5)
    for (seed, step, layer), rate in itertools.product(KEYS, (0.0, 0.1, 0.5, 0.999, 1 - 2.0**-53)):
        wanted = [bits(seed, step, layer, e) >= math.floor(rate * 2**32) for e in range(x.size)]
        for shape in ((7, 3, 5), (7, 15), (105, 1)):  # what counts is the element's place in the batch
            out = np.full(shape, np.nan, dtype)
            backend.dropout(x.reshape(shape), rate, seed, step, layer, out)
            assert np.array_equal(out.ravel() != 0, wanted), (seed, step, layer, rate)
            scaled = x.ravel()[wanted].astype(float) / (1 - rate)
            np.testing.assert_allclose(out.ravel()[wanted], scaled, rtol=3 * np.finfo(dtype).eps)


def test_every_backend_draws_the_same_masks(backend, dtype):
    random = np.random.default_rng(0)
    for shape in ((1, 1), (1, 17), (33, 100), (64, 10, 5, 7), (3, 1, 1, 1)):
        x = random.normal(size=shape).astype(dtype)
        for seed, step, layer in KEYS:
            out, wanted = np.full(shape, np.nan, dtype), np.empty(shape)
            backend.dropout(x, 0.3, seed, step, layer, out)
            reference.dropout(x.astype(float), 0.3, seed, step, layer, wanted)
            np.testing.assert_allclose(out, wanted, rtol=3 * np.finfo(dtype).eps)


def test_the_gradient_has_the_mask_and_the_slope(backend, dtype):
    random = np.random.default_rng(0)
    delta, x = (random.normal(size=(9, 4, 3, 5)).astype(dtype) for _ in range(2))
    for activation in (IDENTITY, RELU):
        dx, masked = np.full(x.shape, np.nan, dtype), np.full(x.shape, np.nan, dtype)
        backend.dropout_backward(delta, 0.4, 5, 6, 7, x, activation, dx)
        backend.dropout(delta, 0.4, 5, 6, 7, masked)
        assert np.array_equal(dx, np.where(x > 0, masked, 0) if activation == RELU else masked)


def test_what_is_dropped_is_zero_whatever_it_was(backend, dtype):
    for value in (np.nan, np.inf, -np.inf):
        out = np.empty(1000, dtype).reshape(10, 100)
        backend.dropout(np.full((10, 100), value, dtype), 0.5, 1, 2, 3, out)
        assert np.array_equal(out == 0, ~kept(1, 2, 3, 0.5, 1000).reshape(10, 100))


# ---- their statistics


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.2, 0.5, 0.8, 0.99])
def test_the_rate(rate):
    for seed, step, layer in KEYS:
        dropped = 1 - kept(seed, step, layer, rate).mean()
        assert abs(dropped - rate) < 5 * math.sqrt(rate * (1 - rate) / DRAWN), (seed, step, layer)


def correlation(a, b):
    """In standard errors of what independent masks would have."""
    return abs(np.corrcoef(a, b)[0, 1]) * math.sqrt(len(a))


@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_neighbours_are_independent(rate):
    mask = kept(3, 4, 5, rate)
    for lag in (1, 2, 3, 4, 7, 8, 16, 32, 100, 128, 784, 1024, 65536):
        assert correlation(mask[lag:], mask[:-lag]) < 5, lag


@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_steps_layers_and_seeds_are_independent(rate):
    keys = [*KEYS, *((0, step, 0) for step in range(3, 12)), *((seed, 0, 0) for seed in range(3, 12))]
    masks = [kept(*key, rate) for key in keys]
    for (k, a), (m, b) in itertools.combinations(zip(keys, masks, strict=True), 2):
        assert correlation(a, b) < 5.5, (k, m)  # 325 pairs


def test_patterns_of_eight_are_equally_frequent():
    for key in KEYS:
        counts = np.bincount(np.packbits(kept(*key)), minlength=256)
        chi2 = ((counts - DRAWN / 8 / 256) ** 2 / (DRAWN / 8 / 256)).sum()
        assert abs(chi2 - 255) < 5 * math.sqrt(2 * 255), key


# ---- in networks


def test_predicting_and_evaluating_drop_nothing(backend):
    name = backend.__name__.rpartition(".")[2]
    stack = [Dropout(0.5), Dense(5, "relu"), Dropout(0.9), Dense(3)]
    net, plain = Network(stack, 7, seed=1), Network(stack[1::2], 7, seed=1)
    assert np.array_equal(net.params, plain.params)
    x, y = np.random.default_rng(0).normal(size=(40, 7)), np.arange(40) % 3
    assert np.array_equal(net.predict_logits(x, backend=name), plain.predict_logits(x, backend=name))
    assert net.evaluate(x, y, backend=name) == plain.evaluate(x, y, backend=name)


def test_dropout_of_nothing_changes_nothing(backend):
    name = backend.__name__.rpartition(".")[2]
    nets = [Network(stack, 7, seed=1) for stack in ([Dropout(0), Dense(5), Dense(3)], [Dense(5), Dense(3)])]
    data = np.random.default_rng(0).normal(size=(40, 7)), np.arange(40) % 3
    results = [list(fit(net, data, epochs=2, batch_size=8, backend=name)) for net in nets]
    assert results[0][-1].train_loss == results[1][-1].train_loss
    assert np.array_equal(nets[0].params, nets[1].params)


def test_the_mean_over_masks_is_what_predicting_gives():
    """Of a linear network: inverted dropout keeps every expectation."""
    net = Network([Dropout(0.4), Dense(3)], 50, dtype="float64", seed=1)
    x = np.random.default_rng(0).normal(size=(1, 50))
    weights = net.parameters()["1.weight"]
    sums = []
    for step in range(4000):
        masked = np.empty_like(x)
        reference.dropout(x, 0.4, 9, step, 0, masked)
        sums.append((masked @ weights)[0])
    error = np.std(sums, axis=0) / math.sqrt(len(sums))
    assert (np.abs(np.mean(sums, axis=0) - net.predict_logits(x, backend="reference")[0]) < 5 * error).all()


def test_seeds_and_steps_choose_the_masks(backend):
    name = backend.__name__.rpartition(".")[2]
    data = stacks.rows(stacks.network("dropout"), 30)

    def trained(seed):
        net, state = stacks.network("dropout"), TrainingState()
        results = list(
            fit(net, data, epochs=3, batch_size="full", optimizer=SGD(1e-30), seed=seed, state=state, backend=name)
        )
        return [result.train_loss for result in results], state.optimizer.settings[p.SEED]

    (one, drawn), (same, again), (other, drawn2) = trained(1), trained(1), trained(2)
    assert one == same and drawn == again and drawn != drawn2
    assert drawn == int(drawn) and 0 <= drawn < 2**53
    assert len({*one, *other}) == 6, "weights stay, masks change"
