"""Layers: what they accept, the names torch gives them, and the initial values."""

import math

import numpy as np
import pytest

from mlpkernels import layers, seeds
from mlpkernels.kernels import plan
from mlpkernels.layers import Dense


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
        ((1, "tanh"), ValueError, "activation='tanh': 'relu' or None"),
        ((1, None, "zeros"), ValueError, "init='zeros': one of he-normal"),
    ],
)
def test_dense_refuses_by_name(arguments, error, words):
    with pytest.raises(error, match=words):
        Dense(*arguments)


def test_json_round_trip():
    for layer in (Dense(3), Dense(4, "relu", "glorot-normal")):
        assert layers.from_json(layer.to_json()) == layer
    with pytest.raises(ValueError, match="kind 'conv2d'"):
        layers.from_json({"kind": "conv2d", "outputs": 1})


def test_stacks_are_checked():
    with pytest.raises(ValueError, match="at least one layer"):
        layers.check_stack([])
    with pytest.raises(TypeError, match="10 is no layer"):
        layers.check_stack([10])
    with pytest.raises(ValueError, match="the last has activation 'relu'"):
        layers.check_stack([Dense(3, "relu")])


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
    assert layers.tensor_shapes(stack, 7) == wanted
