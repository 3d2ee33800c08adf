"""Gradients that visit only a pool's largest pixels: the reference's numbers and those of the way over all pixels."""

import numba
import numpy as np
import pytest

from mlpkernels import BatchNorm, Conv2d, Dense, Dropout, MaxPool2d, Network
from mlpkernels.kernels import cpu, reference
from mlpkernels.kernels import plan as p
from mlpkernels.kernels.cpu import layout as at
from mlpkernels.kernels.cpu import peak_layout
from mlpkernels.kernels.cpu.jit import OPTIONS
from mlpkernels.kernels.cpu.peak_tiles import squeeze
from mlpkernels.kernels.cpu.simd import VECTOR_BYTES, pointer_to

CLASSES = 3
TOLERANCES = {"float32": 2e-6, "float64": 1e-13}


def conv(channels, kernel, **options):
    return Conv2d(channels, kernel, **{"activation": "relu", **options})


# name: layers, (C, H, W), batch. Chunks that are full and not, lines in bands, channels beyond a vector, tiles of every
# shape, borders, strides, layers between which all pixels have a gradient.
CASES = {
    "two layers": ([conv(10, 5), MaxPool2d(2), conv(20, 5), MaxPool2d(2)], (1, 28, 28), 37),
    "no relu": ([conv(7, 3, padding=1, activation=None), MaxPool2d(2), conv(5, 3), MaxPool2d(2)], (3, 13, 11), 150),
    "strides": (
        [conv(17, (3, 5), stride=(2, 1), padding=(1, 2)), MaxPool2d((3, 2)),
         conv(33, 3, stride=(1, 2), padding=1), MaxPool2d(2)],
        (4, 24, 19), 21,
    ),
    "bands": ([conv(6, 5, padding=2), MaxPool2d(2)], (1, 71, 67), 18),
    "many channels": ([conv(12, 3), conv(18, 3), MaxPool2d(2), conv(40, 3), MaxPool2d(3)], (16, 16, 16), 9),
    "behind others": (
        [BatchNorm(), conv(12, 3, padding=1), MaxPool2d(2), BatchNorm(), Dropout(0.2), conv(9, 7, padding=3),
         MaxPool2d(4)],
        (2, 16, 18), 19,
    ),
}  # fmt: skip


def gradient(network, backend, images, labels, threads=1, work=None):
    """(the loss, its gradient, the workspace)"""
    batch = len(images)
    work = backend.make_workspace(network.plan, batch, network.params.dtype) if work is None else work
    grad = np.zeros_like(network.params)
    source = network.source(images.reshape(batch, -1), labels)
    loss = backend.loss_and_gradient(network.model, source, np.arange(batch), batch, work, grad, threads)
    return loss, grad, work


def problem(name, dtype):
    layers, shape, batch = CASES[name]
    random = np.random.default_rng(3)
    network = Network([*layers, Dense(CLASSES)], shape, dtype=dtype, seed=1)
    # Half of the pixels are zero, and so are whole corners: windows without a pixel, and largest ones that are equal.
    images = random.standard_normal((batch, *shape)) * (random.random((batch, *shape)) < 0.5)
    images[::2, :, : shape[1] // 2, : shape[2] // 2] = 0
    return network, images.astype(dtype), random.integers(0, CLASSES, batch).astype(np.int32)


def peaked(network, work):
    """The layers whose gradients visit only the largest pixels."""
    return [layer for layer in range(len(network.plan)) if work.layout[layer * at.FIELDS + at.PEAKS]]


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", CASES)
def test_gradients_are_the_reference_s(name, dtype):
    network, images, labels = problem(name, dtype)
    wanted_loss, wanted, _ = gradient(network, reference, images, labels)
    loss, found, work = gradient(network, cpu, images, labels)
    assert peaked(network, work)
    assert loss == pytest.approx(wanted_loss, rel=1e-5)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCES[dtype] * abs(wanted).max())
    # What a call leaves in the workspace means nothing to the next, and neither does the number of threads.
    assert np.array_equal(gradient(network, cpu, images, labels, 2, work)[1], found)


@pytest.mark.parametrize("name", CASES)
def test_all_pixels_give_the_same(name, monkeypatch):
    network, images, labels = problem(name, "float64")
    _, found, _ = gradient(network, cpu, images, labels)
    monkeypatch.setattr(peak_layout, "pays", lambda *_: False)
    _, wanted, work = gradient(network, cpu, images, labels)
    assert not peaked(network, work)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-13 * abs(wanted).max())


def test_images_without_a_pixel():
    network, images, labels = problem("two layers", "float64")
    _, wanted, _ = gradient(network, reference, 0 * images, labels)
    _, found, work = gradient(network, cpu, 0 * images, labels)
    row = network.plan[0]
    weights = slice(row[p.WEIGHT], row[p.BIAS])
    assert peaked(network, work) and not found[weights].any()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-13)


def test_it_is_chosen_where_few_pixels_have_a_gradient():
    def chosen(*layers):
        network = Network([*layers, Dense(CLASSES)], (1, 28, 28))
        return peaked(network, cpu.make_workspace(network.plan, 8, np.float32))

    assert chosen(conv(10, 5), MaxPool2d(2), conv(20, 5), MaxPool2d(2)) == [0, 2]
    assert chosen(conv(10, 5), MaxPool2d(1), conv(20, 5), MaxPool2d((2, 1))) == []  # most pixels have one
    assert chosen(conv(10, 5), MaxPool2d(3, 2), conv(20, 5), BatchNorm(), MaxPool2d(2)) == []  # windows overlap


@numba.njit(**OPTIONS)
def squeezed(values, offsets, to_values, to_offsets):
    return squeeze(pointer_to(values, 0), pointer_to(offsets, 0), pointer_to(to_values, 0), pointer_to(to_offsets, 0))


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_a_list_keeps_what_is_not_zero_in_order(dtype):
    """For every mask of a vector of up to 8 lanes, and some of 16; -0 is a zero, a NaN is none."""
    lanes = VECTOR_BYTES // np.dtype(dtype).itemsize
    random = np.random.default_rng(5)
    masks = range(1 << lanes) if lanes <= 8 else [0, (1 << lanes) - 1, *random.integers(0, 1 << lanes, 500).tolist()]
    for mask in masks:
        lit = np.array([mask >> lane & 1 for lane in range(lanes)], bool)
        values = np.where(lit, random.standard_normal(lanes), [0.0, -0.0][mask % 2]).astype(dtype)
        if lit.any() and mask % 3 == 0:
            values[lit.argmax()] = np.nan
        offsets, found, at = random.standard_normal(lanes).astype(dtype), *np.full((2, lanes), 7, dtype)
        count = squeezed(values, offsets, found, at)
        assert count == lit.sum()
        np.testing.assert_array_equal(found[:count], values[lit])
        np.testing.assert_array_equal(at[:count], offsets[lit])
