"""The public ops of convolutions, pools, batch norms and dropout: every size, from Python and inside @njit.

Sums of small whole numbers are exact, so what a convolution makes of them is compared bit by bit.
"""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from numba import njit
from op_cases import OPS, arguments, outcome, read_only, written
from op_inside import INSIDE
from problems import DTYPES

from mlpkernels.kernels import reference
from mlpkernels.kernels.cpu import (
    IDENTITY,
    RELU,
    batchnorm_backward,
    batchnorm_forward,
    batchnorm_inference,
    conv2d_backward_input,
    conv2d_backward_params,
    conv2d_forward,
    dropout,
    dropout_backward,
    maxpool2d_backward,
    maxpool2d_forward,
)
from mlpkernels.kernels.cpu.layout import lanes_of

# Channels, (H, W), outputs, kernel, stride, padding.
CONVOLUTIONS = [
    (1, (1, 1), 1, (1, 1), (1, 1), (0, 0)),
    (3, (5, 6), 7, (3, 2), (2, 1), (1, 1)),
    (2, (7, 5), 17, (5, 5), (1, 3), (4, 0)),
    (5, (4, 9), 1, (1, 4), (3, 2), (0, 3)),
    (2, (6, 6), 3, (2, 2), (3, 3), (1, 1)),
    (0, (3, 3), 2, (2, 2), (1, 1), (0, 0)),
    (2, (3, 3), 0, (2, 2), (1, 1), (0, 0)),
    (2, (0, 4), 3, (3, 3), (1, 1), (2, 1)),
]
# Channels, (H, W), kernel, stride, padding.
POOLS = [
    (1, (1, 1), (1, 1), (1, 1), (0, 0)),
    (2, (7, 6), (2, 2), (2, 2), (0, 0)),
    (3, (6, 9), (3, 4), (2, 1), (1, 2)),
    (2, (5, 5), (1, 2), (3, 3), (0, 1)),
    (0, (4, 4), (2, 2), (2, 2), (0, 0)),
]
NORMS = [(0, 3), (1, 3), (9, 1), (17, 5), (4, 0), (0, 2, 3, 4), (1, 1, 1, 1), (3, 2, 5, 7), (2, 3, 0, 4), (5, 3, 1, 1)]


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


def batches(dtype):
    lanes = lanes_of(dtype)
    return 0, 1, lanes - 1, lanes, lanes + 1, 2 * lanes + 3


def whole(random, *shape, dtype):
    return random.integers(-3, 4, shape).astype(dtype)


def unwritten(*shape, dtype):
    return np.full(shape, 77, dtype)


def after(size, kernel, stride, padding):
    return tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding, strict=True))


WAYS = pytest.mark.parametrize("way", [lambda op: op, INSIDE.get], ids=["from Python", "inside njit"])


# ---- every size


@WAYS
def test_convolutions_of_whole_numbers_are_exact(way, dtype):
    random = np.random.default_rng(0)
    for batch, shape, activation in itertools.product(batches(dtype), CONVOLUTIONS, (IDENTITY, RELU)):
        channels, size, outputs, kernel, *moves = shape
        x, w = (
            whole(random, batch, channels, *size, dtype=dtype),
            whole(random, outputs, channels, *kernel, dtype=dtype),
        )
        b = whole(random, outputs, dtype=dtype)
        delta = whole(random, batch, outputs, *after(size, kernel, *moves), dtype=dtype)
        calls = [
            (conv2d_forward, (x, w, b, activation, *moves), (delta,)),
            (conv2d_backward_params, (x, delta, *moves), (w, b)),
            (conv2d_backward_input, (delta, w, x, activation, *moves), (x,)),
        ]
        for op, given, like in calls:
            got, wanted = ([unwritten(*a.shape, dtype=dtype) for a in like] for _ in range(2))
            before = [np.array(a) for a in given]
            way(op)(*given, *got)
            getattr(reference, op.__name__)(*given, *wanted)
            assert all(map(np.array_equal, got, wanted)), (op.__name__, batch, shape, activation)
            assert all(map(np.array_equal, given, before)), (op.__name__, batch, shape)


@WAYS
def test_pools_choose_and_give_back_what_the_reference_does(way, dtype):
    random = np.random.default_rng(0)
    for batch, shape in itertools.product((0, 1, 2, 17), POOLS):
        channels, size, kernel, *moves = shape
        for special in ([0.0], [np.nan], [-np.inf, np.inf, np.nan]):
            x = whole(random, batch, channels, *size, dtype=dtype)
            x[random.random(x.shape) < 0.2] = random.choice(special)
            steps = after(size, kernel, *moves)
            results = []
            for op in (way(maxpool2d_forward), reference.maxpool2d_forward):
                out = unwritten(batch, channels, *steps, dtype=dtype)
                places = unwritten(*out.shape, dtype=np.int32)
                op(x, kernel, *moves, out, places)
                results.append((out, places))
            (out, places), wanted = results
            assert np.array_equal(out, wanted[0], equal_nan=True) and np.array_equal(places, wanted[1]), (batch, shape)
            delta = whole(random, *out.shape, dtype=dtype)
            for activation in (IDENTITY, RELU):
                dx, exact = unwritten(*x.shape, dtype=dtype), unwritten(*x.shape, dtype=dtype)
                way(maxpool2d_backward)(delta, places, x, activation, dx)
                reference.maxpool2d_backward(delta, places, x, activation, exact)
                assert np.array_equal(dx, exact), (batch, shape, activation)


def norm_arguments(op, shape, dtype, activation):
    random = np.random.default_rng(1)
    channels = shape[1]
    big, small = (
        {name: random.normal(size=size).astype(dtype) for name in names}
        for names, size in ((("x", "delta", "out", "dx"), shape), (("gamma", "beta", "dgamma", "dbeta"), channels))
    )
    statistics = {"mean": random.normal(size=channels), "variance": random.uniform(size=channels)}
    known = {**big, **small, **statistics, "epsilon": 1e-3, "activation": activation}
    return {name: known[name] for name in OPS[op]}


@pytest.mark.parametrize("op", [batchnorm_forward, batchnorm_inference, batchnorm_backward], ids=lambda op: op.__name__)
def test_batch_norms_give_the_same_bits_inside_njit_and_no_values_have_statistics_of_0(op, dtype):
    for shape, activation in itertools.product(NORMS, (IDENTITY, RELU)):
        given = norm_arguments(op, shape, dtype, activation)
        wanted = outcome(op, given)
        again = norm_arguments(op, shape, dtype, activation)
        INSIDE[op](*again.values())
        assert wanted[1] == {name: again[name].tobytes() for name in written(op)}, shape
        if 0 in (shape[0], *shape[2:]):
            for name in set(written(op)) - {"out", "dx"}:
                assert not given[name].any(), (shape, name)


@WAYS
def test_dropout_of_any_number_of_dimensions(way, dtype):
    for shape in ((0,), (1,), (1000,), (7, 0), (3, 5), (2, 3, 4, 5), (1, 1, 1, 1, 1)):
        x = np.random.default_rng(0).normal(size=shape).astype(dtype)
        for seed, step, layer in ((0, 0, 0), (2**53 - 1, 10**12, 5)):
            out, wanted = unwritten(*shape, dtype=dtype), np.empty_like(x)
            way(dropout)(x, 0.3, seed, step, layer, out)
            reference.dropout(x, 0.3, seed, step, layer, wanted)
            assert np.array_equal(out, wanted), (shape, seed)
            for activation in (IDENTITY, RELU):
                way(dropout_backward)(x, 0.3, seed, step, layer, x, activation, out)
                reference.dropout_backward(x, 0.3, seed, step, layer, x, activation, wanted)
                assert np.array_equal(out, wanted), (shape, seed, activation)


@WAYS
def test_a_read_only_input_and_numbers_of_any_integer_type_will_do(way, dtype):
    for op in INSIDE:
        given = arguments(op, dtype)
        wanted = outcome(op, arguments(op, dtype))[1]
        for name, value in given.items():
            if isinstance(value, np.ndarray) and name not in written(op):
                given[name] = read_only(value)
            elif name in ("activation", "seed", "step", "layer"):
                given[name] = np.int32(value)
            elif name in ("stride", "padding", "kernel"):
                given[name] = tuple(map(np.int16, value))
        way(op)(*given.values())
        assert wanted == {name: given[name].tobytes() for name in written(op)}, op.__name__


def test_a_reader_may_write_constants_and_names():
    @njit
    def both(x, w, b, out, pooled, places):
        conv2d_forward(x, w, b, activation=RELU, stride=(2, 1), padding=(1, 1), out=out)
        maxpool2d_forward(out, (2, 2), (2, 2), (0, 0), out=pooled, places=places)
        dropout(pooled, 0, 1, 2, 3, pooled)

    given = arguments(conv2d_forward, "float32")
    x, w, b, out = (given[name] for name in ("x", "w", "b", "out"))
    pooled, places = np.zeros((2, 4, 1, 2), np.float32), np.zeros((2, 4, 1, 2), np.int32)
    both(x, w, b, out, pooled, places)
    wanted = arguments(conv2d_forward, "float32")
    conv2d_forward(**wanted)
    assert np.array_equal(out, wanted["out"])
    assert np.array_equal(pooled, out[:, :, :2].reshape(2, 4, 2, 2, 2).max(axis=(2, 4))[:, :, None])


def test_tiles_are_compiled_once():
    """A literal argument would be a type of its own: a second copy of all tiles, seconds of compiling."""
    code = (
        "import numpy as np\n"
        "from mlpkernels.kernels.cpu import conv, images, steps\n"
        "steps.get('convolve', np.float32)\n"
        "found = vars(conv) | vars(images)\n"
        "made = {name: len(f.signatures) for name, f in found.items() if hasattr(f, 'signatures')}\n"
        "print(made['windows'], *[name for name, count in made.items() if count > 1])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "MLPK_CACHE": "0"}, capture_output=True, text=True, check=True
    )
    assert run.stdout == "1\n"
