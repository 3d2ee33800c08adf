"""Convolutions in Winograd's form: the reference's numbers, the same bits however they are cut, ties as ever."""

from fractions import Fraction

import numpy as np
import pytest

from mlpkernels import BatchNorm, Conv2d, Dense, MaxPool2d, Network
from mlpkernels.kernels import cpu, reference
from mlpkernels.kernels.cpu import layout as at
from mlpkernels.kernels.cpu import winograd_layout

CLASSES = 3
TOLERANCES = {"float32": 4e-6, "float64": 1e-13}


def conv(channels, kernel, **options):
    return Conv2d(channels, kernel, **{"activation": "relu", **options})


# name: layers, (C, H, W), batch, the convolutions that have the form. Every width of kernels, tiles that overlap, lines
# that no tile fills, borders, blocks of lines with a rest, pools that leave lines, chunks that are full and not.
CASES = {
    "two layers": ([conv(10, 5), MaxPool2d(2), conv(20, 5), MaxPool2d(2)], (1, 28, 28), 37, [0, 2]),
    "widths": (
        [conv(7, (1, 2)), conv(9, (3, 4), activation=None), conv(3, (4, 3), padding=(0, 1))],
        (2, 11, 13), 18, [0, 1, 2],
    ),
    "pools": ([conv(6, 3), MaxPool2d(3), conv(33, 3, padding=1), MaxPool2d((5, 2))], (3, 23, 24), 9, [0, 2]),
    "overlapping pool": ([conv(6, 5, padding=2), MaxPool2d(3, 2), conv(5, 3)], (3, 15, 15), 20, [0, 2]),
    "strides": ([conv(6, 3, stride=(1, 2)), conv(6, 3, stride=(2, 1)), conv(4, 3)], (2, 17, 19), 5, [2]),
    "too wide or too narrow": ([conv(4, 6), conv(4, 3), conv(4, (1, 2))], (2, 12, 11), 3, [1]),
    "behind a norm": ([BatchNorm(), conv(8, 3, padding=1), BatchNorm(), conv(4, 3)], (2, 9, 10), 21, [1, 3]),
}  # fmt: skip


@pytest.fixture
def wherever_possible(monkeypatch):
    monkeypatch.setattr(winograd_layout, "pays", winograd_layout.possible)


def network(layers, shape, dtype):
    made = Network([*layers, Dense(CLASSES)], shape, dtype=dtype, seed=1)
    made.params[:] += np.random.default_rng(2).normal(0, 0.05, made.params.shape) * (made.params != 0)
    return made


def images(shape, batch, dtype, ground=0.0):
    """Noise, and of every other image a quarter without any, of one value."""
    found = np.random.default_rng(3).standard_normal((batch, *shape))
    found[::2, :, : shape[1] // 2 + 1, : shape[2] // 2 + 1] = ground
    return found.astype(dtype).reshape(batch, -1)


def gradient(made, backend, x, threads=1, work=None):
    """(the loss, its gradient, the workspace)"""
    batch = len(x)
    labels = (np.arange(batch) % CLASSES).astype(np.int32)
    work = backend.make_workspace(made.plan, batch, made.params.dtype) if work is None else work
    grad = np.zeros_like(made.params)
    loss = backend.loss_and_gradient(made.model, made.source(x, labels), np.arange(batch), batch, work, grad, threads)
    return loss, grad, work


def chosen(made, batch=8):
    """The layers that have the form."""
    layout = cpu.make_workspace(made.plan, batch, made.params.dtype).layout
    return [layer for layer in range(len(made.plan)) if layout[layer * at.FIELDS + at.WINOGRAD]]


@pytest.mark.parametrize("kernel", range(2, 6))
def test_transforms_are_exact(kernel):
    of_input, of_weights, of_output = winograd_layout.transforms(kernel)
    random = np.random.default_rng(0)
    pixels = [Fraction(int(n), 7) for n in random.integers(-99, 99, winograd_layout.PIXELS + kernel - 1)]
    weights = [Fraction(int(n), 11) for n in random.integers(-99, 99, kernel)]

    def times(matrix, vector):
        return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]

    products = [a * b for a, b in zip(times(of_weights, weights), times(of_input, pixels), strict=True)]
    wanted = [
        sum(w * x for w, x in zip(weights, pixels[i : i + kernel], strict=True)) for i in range(winograd_layout.PIXELS)
    ]
    assert times(of_output, products) == wanted


@pytest.mark.parametrize("ground", [0.0, 0.7])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", CASES)
def test_gradients_are_the_reference_s(name, dtype, ground, wherever_possible):
    layers, shape, batch, places = CASES[name]
    made, x = network(layers, shape, dtype), images(shape, batch, dtype, ground)
    assert chosen(made) == places
    wanted_loss, wanted, _ = gradient(made, reference, x)
    loss, found, work = gradient(made, cpu, x)
    assert loss == pytest.approx(wanted_loss, rel=1e-5)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCES[dtype] * abs(wanted).max())
    # What a call leaves in the workspace means nothing to the next, and neither does the number of threads.
    assert np.array_equal(gradient(made, cpu, x, 2, work)[1], found)


@pytest.mark.parametrize("name", CASES)
def test_bands_give_the_same_bits(name, wherever_possible, monkeypatch):
    layers, shape, batch, _ = CASES[name]
    made, x = network(layers, shape, "float32"), images(shape, batch, "float32")
    _, wanted, _ = gradient(made, cpu, x)
    monkeypatch.setattr(winograd_layout, "_NEAR", 1)
    assert np.array_equal(gradient(made, cpu, x, 2)[1], wanted)


@pytest.mark.parametrize("name", CASES)
def test_predictions_have_the_bits_of_one_chain(name, monkeypatch):
    """Those of a single sample, whose kernels know no other form."""
    layers, shape, batch, _ = CASES[name]
    made, x = network(layers, shape, "float32"), images(shape, batch, "float32")
    found = []
    for pays in (winograd_layout.possible, lambda _: False):
        monkeypatch.setattr(winograd_layout, "pays", pays)
        out = np.zeros((batch, CLASSES), np.float32)
        work = cpu.make_workspace(made.plan, batch, np.float32)
        cpu.predict(made.model, made.source(x, np.zeros(batch, np.int32)), 0, batch, work, out)
        found.append(out)
    assert np.array_equal(*found)


def test_digits_lost_are_few(wherever_possible):
    """Of many channels, a kernel of five: five times the error of one chain a sum, as winograd_layout.py says."""
    layers, shape = [conv(16, 5, activation=None)], (50, 12, 12)
    made, exact = network(layers, shape, "float32"), network(layers, shape, "float64")
    exact.params[:] = made.params
    x = np.random.default_rng(4).random((40, np.prod(shape))).astype(np.float32)
    found, wanted = gradient(made, cpu, x)[1], gradient(exact, cpu, x.astype(np.float64))[1]
    error = np.sqrt(np.square(found - wanted).mean() / np.square(wanted).mean())
    assert 0 < error < 2e-6


def test_it_is_chosen_where_it_saves_operations():
    def places(*layers, shape=(1, 28, 28)):
        return chosen(Network([*layers, Dense(CLASSES)], shape))

    assert places(conv(10, 5), MaxPool2d(2), conv(20, 5), MaxPool2d(2)) == [2]  # of one channel there is little to sum
    assert places(conv(32, 3), conv(32, 3, stride=2), shape=(16, 14, 14)) == [0]
    assert places(conv(32, 3), shape=(16, 5, 5)) == []  # three pixels a line
    assert places(conv(32, 7), shape=(16, 14, 14)) == []
