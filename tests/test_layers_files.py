"""Networks of every layer: copies, files, damaged files, views that write, summaries."""

import copy
import json
import pickle

import numpy as np
import pytest
import stacks
from stacks import STACKS

from mlpkernels import BatchNorm, Conv2d, Dense, Dropout, MaxPool2d, Network, files, fit
from mlpkernels.errors import ModelFileError

# ---- copies


@pytest.mark.parametrize("duplicate", [
    Network.copy, copy.copy, copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network)),
])  # fmt: skip
@pytest.mark.parametrize("name", STACKS)
def test_copies_are_whole_and_independent(name, duplicate):
    net = stacks.network(name, "float32")
    x, y = stacks.rows(net, 10)
    list(fit(net, (x, y), epochs=1, batch_size=5, backend="reference"))
    other = duplicate(net)
    assert np.array_equal(other.params, net.params) and np.array_equal(other.buffers, net.buffers)
    assert other.layers == net.layers and not np.shares_memory(other.buffers, net.buffers)
    wanted = net.predict_logits(x, backend="reference")
    assert np.array_equal(other.predict_logits(x, backend="reference"), wanted)
    other.params[...], other.buffers[...] = 0, 1
    assert np.array_equal(net.predict_logits(x, backend="reference"), wanted)


# ---- files


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", STACKS)
def test_save_and_load(name, dtype, tmp_path):
    net = stacks.network(name, dtype)
    list(fit(net, stacks.rows(net, 10), epochs=1, batch_size=5, backend="reference"))
    net.save(tmp_path / "m.safetensors")
    loaded = Network.load(tmp_path / "m.safetensors")
    assert np.array_equal(loaded.params, net.params) and np.array_equal(loaded.buffers, net.buffers)
    assert loaded.layers == net.layers and loaded.shape == net.shape and repr(loaded) == repr(net)
    assert loaded.state_dict().keys() == net.state_dict().keys()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"4.running_mean": None}, "4.running_mean is missing"),
        ({"4.running_var": np.full(5, -1, np.float32)}, "4.running_var holds a negative value"),
        ({"4.running_var": np.full(5, np.inf, np.float32)}, "4.running_var holds a value that is not finite"),
        ({"4.num_batches_tracked": np.array(-1)}, "4.num_batches_tracked holds a negative value"),
        ({"4.num_batches_tracked": np.array([1])}, r"4.num_batches_tracked has shape \(1,\); \(\) was wanted"),
        (
            {"4.num_batches_tracked": np.array(1.5)},
            "4.num_batches_tracked is of float64 in a network of float32; int64",
        ),
        ({"0.weight": np.zeros((4, 1, 9), np.float32)}, r"0.weight has shape \(4, 1, 9\); \(4, 1, 3, 3\) was wanted"),
        ({"4.weight": np.zeros(5)}, "4.weight is of float64 in a network of float32"),
    ],
)
def test_wrong_tensors_are_named(change, words, tmp_path):
    net = Network([Conv2d(4, 3, activation="relu"), MaxPool2d(2), Conv2d(5, 1), BatchNorm(), Dense(3)], (1, 6, 6))
    state = {name: tensor for name, tensor in (net.state_dict() | change).items() if tensor is not None}
    files.write_tensors(tmp_path / "m.safetensors", state, {"kind": "model", **net.describe()})
    with pytest.raises(ModelFileError, match=words):
        Network.load(tmp_path / "m.safetensors")
    if " is of " not in words:  # from memory any dtype will do
        before = net.params.copy(), net.buffers.copy()
        with pytest.raises(ValueError, match=words):
            net.load_state_dict(state)
        assert np.array_equal(net.params, before[0]) and np.array_equal(net.buffers, before[1])


def test_architectures_that_cannot_be_are_model_file_errors(tmp_path):
    net = Network([Conv2d(4, 3), Dense(3)], (1, 6, 6))
    first, last = (layer.to_json() for layer in net.layers)
    for layer, shape, words in (
        ({**first, "kernel": [7, 7]}, [1, 6, 6], "its kernel, 7 x 7, is larger than what reaches it, 6 x 6"),
        (first, [36], "an image .* was wanted, and 36 flat values reach it"),
        ({**first, "kernel": "3"}, [1, 6, 6], "kernel='3'"),
        ({**first, "dilation": 2}, [1, 6, 6], "dilation"),
        ({"kind": "conv2d"}, [1, 6, 6], "channels"),
        ({"kind": ["conv2d"]}, [1, 6, 6], "does not describe a network"),
        ({**first, "channels": 10**15}, [1, 6, 6], r"0.weight has shape \(4, 1, 3, 3\)"),
    ):
        described = {**net.describe(), "architecture": json.dumps([layer, last]), "shape": json.dumps(shape)}
        files.write_tensors(tmp_path / "m.safetensors", net.state_dict(), {"kind": "model", **described})
        with pytest.raises(ModelFileError, match=words):
            Network.load(tmp_path / "m.safetensors")


def test_a_network_whose_statistics_diverged_is_not_saved(tmp_path):
    net = Network([BatchNorm(), Dense(3)], 5)
    net.statistics()["0.running_var"][1] = np.inf
    with pytest.raises(ValueError, match=r"0.running_var holds a value that is not finite"):
        net.save(tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir()) and np.isinf(net.copy().buffers).any()


# ---- views, words


def test_views_write_what_counts():
    net = Network([Conv2d(4, (3, 2)), BatchNorm(), Dense(3)], (2, 6, 6))
    named = net.parameters()
    assert {name: view.shape for name, view in named.items()} == {
        "0.weight": (4, 2, 3, 2), "0.bias": (4,), "1.weight": (4,), "1.bias": (4,), "3.weight": (80, 3), "3.bias": (3,),
    }  # fmt: skip
    assert all(np.shares_memory(view, net.params) for view in named.values())
    assert all(np.shares_memory(view, net.buffers) for view in net.statistics().values())
    for number, view in enumerate([*named.values(), *net.statistics().values()]):
        view[...] = number + 1
    assert [float(np.unique(tensor)[0]) for tensor in net.state_dict().values()] == [1, 2, 3, 4, 7, 8, 9, 5, 6]
    assert np.array_equal(net.params[net.params != 0], net.copy().params[net.params != 0])
    assert (net.params != 0).sum() == net.parameter_count == 4 * 12 + 4 + 8 + 240 + 3


def test_flops_and_summary():
    stack = [
        Conv2d(10, 5), MaxPool2d(2), Conv2d(20, 5, activation="relu"), BatchNorm("relu"), Dropout(0.5), MaxPool2d(2),
        Dense(50, "relu"), Dense(10),
    ]  # fmt: skip
    net = Network(stack, (1, 28, 28))
    assert net.flops == 2 * (25 * 10 * 24 * 24 + 250 * 20 * 8 * 8 + 320 * 50 + 500)
    assert net.parameter_count == 260 + 5020 + 40 + 16050 + 510
    lines = net.summary().splitlines()
    words = [" ".join(line.split()) for line in lines]
    assert words[1] == "Conv2d 1 x 28 x 28 → 10 x 24 x 24 260"
    assert words[4] == "BatchNorm + relu 20 x 8 x 8 → 20 x 8 x 8 40"
    assert words[6] == "MaxPool2d 20 x 8 x 8 → 20 x 4 x 4 0"
    assert words[7] == "Dense + relu 320 → 50 16,050"
    assert words[-2:] == ["total 21,880", "87,520 bytes of float32, 961,000 FLOPs a sample"]
    assert len({len(line) for line in lines[:-1]}) == 1
