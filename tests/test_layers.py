"""Layers: what they accept, the names torch gives them, and the initial values."""

import dataclasses
import json
import math

import numpy as np
import pytest

from mlpkernels import layers, seeds
from mlpkernels.kernels import plan
from mlpkernels.layers import BatchNorm, Conv2d, Dense, Dropout, MaxPool2d


def test_dense_is_a_value():
    assert Dense(3, "relu") == Dense(np.int64(3), activation="relu")
    assert type(Dense(np.int64(3)).outputs) is int
    assert repr(Dense(3)) == "Dense(3)"
    assert repr(Dense(3, "relu", "pytorch")) == "Dense(3, activation='relu', init='pytorch')"
    assert eval(repr(Dense(3, "relu")), {"Dense": Dense}) == Dense(3, "relu")
    assert Dense(3, "relu").code == plan.RELU and Dense(3).code == plan.IDENTITY
    assert Dense(3, "relu").modules == 2 and Dense(3).modules == 1


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((0,), ValueError, "outputs=0: an integer from 1"),
        ((-1,), ValueError, "outputs=-1"),
        ((True,), ValueError, "outputs=True"),
        ((1.5,), TypeError, "outputs=1.5"),
        (("10",), TypeError, "outputs='10'"),
        ((1, "sigmoid"), ValueError, "activation='sigmoid': 'relu', 'tanh', 'logistic' or None"),
        ((1, None, "zeros"), ValueError, "init='zeros': one of he-normal"),
    ],
)
def test_dense_refuses_by_name(arguments, error, words):
    with pytest.raises(error, match=words):
        Dense(*arguments)


EVERY = [
    Dense(3), Dense(4, "relu", "glorot-normal"), Conv2d(3, 2),
    Conv2d(np.int64(3), (3, 2), 2, (0, 1), "relu", "pytorch"), MaxPool2d(2), MaxPool2d((3, 2), 1, (1, 0)),
    Dropout(0.25), BatchNorm(), BatchNorm("relu", 0.5, 1e-3),
]  # fmt: skip


@pytest.mark.parametrize("layer", EVERY, ids=repr)
def test_layers_are_values(layer):
    assert eval(repr(layer)) == layer and hash(eval(repr(layer))) == hash(layer)
    assert layers.from_json(json.loads(json.dumps(layer.to_json()))) == layer
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(layer, dataclasses.fields(layer)[0].name, 1)


def test_words():
    assert [repr(layer) for layer in EVERY[2:]] == [
        "Conv2d(3, 2)", "Conv2d(3, (3, 2), stride=2, padding=(0, 1), activation='relu', init='pytorch')",
        "MaxPool2d(2)", "MaxPool2d((3, 2), stride=1, padding=(1, 0))", "Dropout(0.25)", "BatchNorm()",
        "BatchNorm(activation='relu', momentum=0.5, epsilon=0.001)",
    ]  # fmt: skip
    assert Conv2d(3, [2, 2]) == Conv2d(3, 2) and Conv2d(3, 2).kernel == (2, 2) and MaxPool2d(3).stride == (3, 3)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Conv2d(0, 3), ValueError, "Conv2d: channels=0: an integer from 1"),
        (lambda: Conv2d("3", 3), TypeError, "Conv2d: channels='3'"),
        (lambda: Conv2d(1, 0), ValueError, r"kernel=0: an integer from 1 or a pair \(height, width\) was wanted"),
        (lambda: Conv2d(1, (3, 3, 3)), ValueError, r"kernel=\(3, 3, 3\)"),
        (lambda: Conv2d(1, (3, "3")), TypeError, r"kernel=\(3, '3'\)"),
        (lambda: Conv2d(1, 2.5), TypeError, r"kernel=2\.5"),
        (lambda: Conv2d(1, True), ValueError, "kernel=True"),
        (lambda: Conv2d(1, ()), ValueError, r"kernel=\(\)"),
        (lambda: Conv2d(1, 1, 2**31), ValueError, "stride=2147483648"),
        (lambda: Conv2d(1, 3, 0), ValueError, "stride=0: an integer from 1"),
        (lambda: Conv2d(1, 3, padding=-1), ValueError, "padding=-1: an integer from 0"),
        (lambda: Conv2d(1, (3, 1), padding=1), ValueError, r"padding=\(1, 1\): less than the kernel, \(3, 1\)"),
        (lambda: Conv2d(1, 3, activation="tanh"), ValueError, "Conv2d: activation='tanh': 'relu' or None"),
        (lambda: Conv2d(1, 3, init="zeros"), ValueError, "init='zeros'"),
        (lambda: MaxPool2d(0), ValueError, "MaxPool2d: kernel=0"),
        (lambda: MaxPool2d(None), TypeError, "MaxPool2d: kernel=None"),
        (lambda: MaxPool2d(2, 0), ValueError, "MaxPool2d: stride=0"),
        (lambda: MaxPool2d((2, 3), padding=(1, 2)), ValueError, r"padding=\(1, 2\): at most half the kernel, \(2, 3\)"),
        (lambda: Dropout(1), ValueError, "Dropout: p=1: a probability from 0 to below 1 was wanted"),
        (lambda: Dropout(-0.1), ValueError, r"p=-0\.1"),
        (lambda: Dropout(math.nan), ValueError, "p=nan"),
        (lambda: Dropout("0.5"), TypeError, r"p='0\.5'"),
        (lambda: BatchNorm("sigmoid"), ValueError, "BatchNorm: activation='sigmoid'"),
        (lambda: BatchNorm(momentum=1.1), ValueError, r"BatchNorm: momentum=1\.1: a number from 0 to 1"),
        (lambda: BatchNorm(momentum=None), TypeError, "momentum=None"),
        (lambda: BatchNorm(epsilon=0), ValueError, "BatchNorm: epsilon=0"),
    ],
)
def test_layers_refuse_by_name(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_ends_of_ranges_are_taken():
    assert BatchNorm(momentum=1).momentum == 1 and BatchNorm(momentum=0).momentum == 0 and Dropout(0).p == 0
    assert Conv2d(1, 2, padding=1).padding == (1, 1) and MaxPool2d(4, padding=2).padding == (2, 2)


def test_json_of_no_layer():
    with pytest.raises(ValueError, match="kind 'recurrent'"):
        layers.from_json({"kind": "recurrent", "outputs": 1})


def test_stacks_are_checked():
    with pytest.raises(ValueError, match="at least one layer"):
        layers.check_stack([])
    with pytest.raises(TypeError, match="10 is no layer"):
        layers.check_stack([10])
    with pytest.raises(ValueError, match="the last has activation 'relu'"):
        layers.check_stack([Dense(3, "relu")])
    for last in (Conv2d(3, 1), Dropout(0.5), BatchNorm(), MaxPool2d(1)):
        with pytest.raises(ValueError, match=r"layers: the last is .*; a Dense was wanted, since its outputs are"):
            layers.check_stack([Dense(3), last])


@pytest.mark.parametrize(
    ("stack", "shape", "words"),
    [
        ([Conv2d(3, 2)], (784,), r"layers\[0\], Conv2d\(3, 2\): an image \(C, H, W\) was wanted, and 784 flat values "
         r"reach it: give the network inputs=\(C, H, W\)"),
        ([Conv2d(3, 2)], (28, 28), r"784 flat values reach it: give the network inputs=\(1, 28, 28\)"),
        ([Dropout(0.5), MaxPool2d(2)], (9,), r"layers\[1\], MaxPool2d\(2\): .* give the network inputs"),
        ([Conv2d(3, 2), Dense(9), MaxPool2d(2)], (1, 4, 4), r"layers\[2\].*9 flat values.* put it before the first"),
        ([Dense(9), Conv2d(3, 2)], (1, 4, 4), "9 flat values reach it: put it before the first Dense"),
        ([Conv2d(3, (2, 5))], (1, 9, 4), r"layers\[0\], Conv2d.*its kernel, 2 x 5, is larger than .* it, 9 x 4"),
        ([Conv2d(3, 7, padding=1)], (1, 4, 4), "its kernel, 7 x 7, is larger than .* it, 6 x 6 with its padding"),
        ([MaxPool2d(2), MaxPool2d(2), MaxPool2d(2)], (1, 7, 7),
         r"layers\[2\], MaxPool2d\(2\): its window, 2 x 2, is larger than what reaches it, 1 x 1 .* leave nothing"),
    ],
)  # fmt: skip
def test_what_does_not_suit_its_input_is_named(stack, shape, words):
    with pytest.raises(ValueError, match=words):
        layers.rows([*stack, Dense(2)], shape)


def test_rows_of_a_plan():
    stack = [
        BatchNorm("relu"), Conv2d(5, (3, 2), (2, 1), (1, 0), "relu"), MaxPool2d(2, 1), Dropout(0.5), Dense(7),
        BatchNorm(), Dropout(0.1), Dense(3),
    ]  # fmt: skip
    rows = layers.rows(stack, (2, 7, 6))
    shapes = [(2, 7, 6), (2, 7, 6), (5, 4, 5), (5, 3, 4), (5, 3, 4), (7, 1, 1), (7, 1, 1), (7, 1, 1), (3, 1, 1)]
    assert [row.shape for row in rows] == [*shapes[:4], (60, 1, 1), *shapes[5:8]]
    assert [row.out_shape for row in rows] == shapes[1:]
    assert [row.image for row in rows] == [True] * 4 + [False] * 4
    assert [row.weights for row in rows] == [(1, 2), (12, 5), (0, 0), (0, 0), (60, 7), (1, 7), (0, 0), (7, 3)]
    assert [row.activation for row in rows] == [plan.RELU, plan.RELU, *[plan.IDENTITY] * 6]
    assert rows[1].kernel == (3, 2) and rows[1].stride == (2, 1) and rows[1].padding == (1, 0)
    assert rows[0].rates == (0, 0.1, 1e-5) and rows[3].rates == (0.5, 0, 0) and rows[1].rates == (0, 0, 0)
    # BatchNorm 0, ReLU 1, Conv2d 2, ReLU 3, pool 4, dropout 5, Flatten 6, Linear 7, BatchNorm 8, dropout 9, Linear 10
    assert layers.module_numbers(stack, rows) == (0, 2, 4, 5, 7, 8, 9, 10)


def test_images_are_flat_where_a_dense_reads_them():
    for before in ([], [Dropout(0.1)], [BatchNorm(), Dropout(0.2)]):
        stack = [*before, Dense(4), Dense(3)]
        assert not any(row.image for row in layers.rows(stack, (2, 3, 3)))
        assert layers.module_numbers(stack, layers.rows(stack, (2, 3, 3)))[len(before)] == len(before)  # no Flatten
        stack = [*before, MaxPool2d(2), Dense(4), Dense(3)]
        assert [row.image for row in layers.rows(stack, (2, 3, 3))] == [True] * (len(before) + 1) + [False] * 2


@pytest.mark.parametrize("init", layers.INITS)
def test_initial_values_have_their_distribution(init):
    inputs, outputs = 300, 500
    w, b = layers.initial_values(init, inputs, outputs, seeds.generator(1, seeds.INITIAL_VALUES))
    assert w.shape == (inputs, outputs) and b.shape == (outputs,) and w.dtype == b.dtype == np.float64
    fan = {"he": 2 / inputs, "glorot": 2 / (inputs + outputs), "pytorch": 1 / (3 * inputs)}
    variance = fan[init.split("-")[0]]
    # The estimate of a variance from n draws is off by about sqrt(2 / n) of it.
    assert w.var() == pytest.approx(variance, rel=5 * math.sqrt(2 / w.size))
    assert abs(w.mean()) < 5 * math.sqrt(variance / w.size)
    bound = math.sqrt(3 * variance)
    assert (abs(w).max() <= bound) == (not init.endswith("normal"))
    if init == "pytorch":
        assert b.any() and abs(b).max() <= bound
    else:
        assert not b.any()


def test_seeds_give_independent_streams():
    def draw(seed, stream):
        return seeds.generator(seed, stream).random(4)

    assert np.array_equal(draw(7, seeds.ORDER), draw(7, seeds.ORDER))
    drawn = [tuple(draw(s, t)) for s in (0, 7) for t in (seeds.INITIAL_VALUES, seeds.ORDER, seeds.DROPOUT)]
    assert len(set(drawn)) == 6
    child = np.random.SeedSequence(7).spawn(2)[seeds.ORDER]
    assert np.array_equal(np.random.Generator(np.random.PCG64(child)).random(4), draw(7, seeds.ORDER))
    assert seeds.masks_seed(7) == seeds.masks_seed(7) != seeds.masks_seed(8) and 0 <= seeds.masks_seed(7) < 2**53
    with pytest.raises(ValueError, match="seed=-1"):
        seeds.generator(-1, seeds.ORDER)
    with pytest.raises(TypeError, match=r"seed=1\.5"):
        seeds.generator(1.5, seeds.ORDER)


def test_names_and_shapes_are_those_of_torch():
    torch = pytest.importorskip("torch")
    stack = [Dense(5, "relu"), Dense(4), Dense(3, "relu"), Dense(2)]
    modules = torch.nn.Sequential(
        torch.nn.Linear(7, 5), torch.nn.ReLU(), torch.nn.Linear(5, 4),
        torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2),
    )  # fmt: skip
    wanted = {name: tuple(tensor.shape) for name, tensor in modules.state_dict().items()}
    assert layers.tensor_shapes(stack, (7,)) == wanted
