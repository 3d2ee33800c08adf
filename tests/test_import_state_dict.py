"""PyTorch state dicts from safetensors files: predictions equal torch's, and what does not fit is named."""

from itertools import pairwise

import numpy as np
import pytest
from safetensors.numpy import save_file

from mlpkernels import BatchNorm, Dense, Network, Scaling, fit
from mlpkernels.errors import ModelFileError
from mlpkernels.foreign import Reading, Windows, from_state_dict, module_order
from mlpkernels.foreign.order import orders


def tensors(*widths, names=None, dtype=np.float32, seed=0):
    """Linear modules of these widths, numbered as in a Sequential with activations unless they have names."""
    random = np.random.default_rng(seed)
    made = {}
    for k, (inputs, outputs) in enumerate(pairwise(widths)):
        name = names[k] if names else 2 * k
        made[f"{name}.weight"] = random.normal(size=(outputs, inputs)).astype(dtype)
        made[f"{name}.bias"] = random.normal(size=outputs).astype(dtype)
    return made


def saved(tmp_path, content):
    save_file(content, tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def logits(content, names, x, activation=lambda v: np.maximum(v, 0)):
    for k, name in enumerate(names):
        x = x @ content[f"{name}.weight"].T + content[f"{name}.bias"]
        x = activation(x) if k + 1 < len(names) else x
    return x


def same(network, wanted, x, tolerance=1e-5):
    assert np.allclose(network.predict_logits(x, backend="reference"), wanted, tolerance, tolerance)


ACTIVATIONS = {
    "relu": lambda v: np.maximum(v, 0),
    "tanh": np.tanh,
    "logistic": lambda v: 1 / (1 + np.exp(-v)),
    None: lambda v: v,
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_linear_modules_with_any_activation(activation, dtype, tmp_path):
    content = tensors(4, 7, 6, 3, dtype=dtype)
    network = from_state_dict(saved(tmp_path, content), activation=activation)
    x = np.random.default_rng(1).normal(size=(9, 4))
    assert network.dtype == dtype and network.inputs == 4 and network.loss == "cross-entropy"
    same(network, logits(content, (0, 2, 4), x, ACTIVATIONS[activation]), x)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_halves_become_float32_as_they_are(dtype, tmp_path):
    content = tensors(4, 5, 2, dtype=dtype)
    network = from_state_dict(saved(tmp_path, content))
    assert network.dtype == np.float32
    assert np.array_equal(network.state_dict()["0.weight"], content["0.weight"].astype(np.float32))


@pytest.mark.parametrize(
    "names",
    [("0", "1", "2"), ("net.0", "net.2", "net.4"), ("fc1", "fc2", "fc10"), ("a.fc", "b.fc", "c.fc"), ("0", "2", "4")],
)
def test_names_of_modules(names, tmp_path):
    """Numbers without a gap, as in a ModuleList, and names: the program calls the activations itself."""
    content = tensors(4, 7, 6, 3, names=names)
    x = np.random.default_rng(1).normal(size=(9, 4))
    same(from_state_dict(saved(tmp_path, content)), logits(content, names, x), x)


def test_a_sequential_has_activations_where_a_number_is_missing(tmp_path):
    content = tensors(4, 7, 6, 3, names=("0", "1", "3"))
    x = np.random.default_rng(1).normal(size=(9, 4))
    one = x @ content["0.weight"].T + content["0.bias"]
    rest = {name: value for name, value in content.items() if not name.startswith("0")}
    same(from_state_dict(saved(tmp_path, content)), logits(rest, ("1", "3"), one), x)


def test_modules_in_an_order_that_is_given(tmp_path):
    names = ("inner", "hidden", "exit")
    content = tensors(4, 7, 6, 3, names=names)
    x = np.random.default_rng(1).normal(size=(9, 4))
    path = saved(tmp_path, content)
    same(from_state_dict(path, modules=names), logits(content, names, x), x)
    same(from_state_dict(path), logits(content, names, x), x)  # the only order that fits
    assert module_order(path) == list(names)
    with pytest.raises(ModelFileError, match=r"module hidden: 3 values reach it; its weight \(6, 7\) takes 7"):
        from_state_dict(path, modules=("exit", "hidden", "inner"))
    with pytest.raises(ModelFileError, match="modules inner, exit were given; it has exit, hidden, inner"):
        from_state_dict(path, modules=("inner", "exit"))


ORDERS = {  # {module: its weight's shape} and the order, None where two or more fit
    "equal widths": ({"input": (5, 5), "hidden": (5, 5), "output": (5, 5)}, None),
    "batch norm as wide as the inputs": ({"bn1": (5,), "fc1": (5, 5), "fc2": (3, 5)}, None),
    "batch norm": ({"bn1": (6,), "fc1": (6, 5), "fc2": (3, 6)}, "fc1 bn1 fc2"),
    "two batch norms": ({"bn1": (6,), "bn2": (7,), "fc1": (6, 5), "fc2": (7, 6), "out": (3, 7)}, "fc1 bn1 fc2 bn2 out"),
    "convolutions": ({"bn1": (8,), "bn2": (9,), "conv1": (8, 1, 3, 3), "conv2": (9, 8, 3, 3), "fc": (3, 36)},
                     "conv1 bn1 conv2 bn2 fc"),
    "convolutions as wide": ({"bn1": (8,), "bn2": (8,), "conv1": (8, 8, 3, 3), "conv2": (8, 8, 3, 3), "fc": (3, 8)},
                             None),
    "parts": ({"classifier.1": (3, 5), "features.0": (5, 4)}, "features.0 classifier.1"),
    "numbers": ({"fc2": (5, 5), "fc10": (5, 5), "fc1": (5, 5)}, "fc1 fc2 fc10"),
    "numbers within": ({"l.1.fc": (5, 5), "l.0.fc": (5, 5)}, "l.0.fc l.1.fc"),
    "nothing fits": ({"b": (3, 9), "a": (5, 4)}, "a b"),
    "many": ({f"{letter}.fc": (5, 5) for letter in "abcdefghijklmnop"}, None),
    "too many": ({f"{letter}.fc": (5, 5) for letter in "abcdefghijklmnop"} | {"z": (3, 9)}, None),
}  # fmt: skip


@pytest.mark.parametrize("name", ORDERS)
def test_an_order_is_certain_or_refused(name, tmp_path):
    shapes, wanted = ORDERS[name]
    found = orders(shapes)
    assert [" ".join(found[0])] == [wanted] if wanted else len(found) == 2 and found[0] != found[1]
    if wanted is None:
        content = {f"{module}.weight": np.ones(shape, np.float32) for module, shape in shapes.items()}
        content |= {f"{m}.{k}": np.ones(s, np.float32) for m, s in shapes.items() if len(s) == 1
                    for k in ("running_mean", "running_var")}  # fmt: skip
        with pytest.raises(ModelFileError, match=r"fit in more than one order, such as .*give the modules in order"):
            from_state_dict(saved(tmp_path, content), shape=(8, 9, 9) if "conv1" in shapes else None)


def test_the_inputs_may_tell_the_order():
    assert orders({"hidden": (4, 4), "out": (3, 4)}) == [["hidden", "out"]]
    assert len(orders({"a": (4, 2), "b": (2, 4), "c": (2, 2)})) == 2
    assert orders({"a": (4, 2), "b": (2, 4)}, (4,)) == [["b", "a"]]
    assert orders({"a": (4, 2), "b": (2, 4)}, (1, 2, 1)) == [["a", "b"]]


def test_a_missing_bias_is_zero(tmp_path):
    content = tensors(4, 7, 3)
    del content["0.bias"]
    network = from_state_dict(saved(tmp_path, content))
    assert not network.parameters()["0.bias"].any()


def test_what_the_file_does_not_tell(tmp_path):
    path = saved(tmp_path, tensors(4, 7, 1))
    with pytest.raises(ModelFileError, match=r"module 2: one output.*binary, squared-error or poisson"):
        from_state_dict(path)
    reading = Reading(Scaling("unit", 0.5, 0.0), ("no", "yes"), "binary")
    network = from_state_dict(path, reading=reading, shape=(1, 2, 2))
    assert (network.classes, network.loss, network.shape) == (("no", "yes"), "binary", (1, 2, 2))
    assert network.scaling == Scaling("unit", 0.5, 0.0)
    assert from_state_dict(path, reading=Reading(loss="poisson")).classes == ()


# ---- equal to torch


def torch_modules(nn):
    """{name: (torch.nn.Sequential, a sample's shape, options of from_state_dict)}"""
    return {
        "batch norm": (
            nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(),
                          nn.Linear(6, 5), nn.ReLU(), nn.BatchNorm1d(5), nn.Linear(5, 3)),
            (4,), {},
        ),
        "convolutions": (
            nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
                          nn.Conv2d(4, 5, (3, 2), stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(20, 6), nn.ReLU(),
                          nn.Linear(6, 3)),
            (2, 10, 11), {"windows": Windows(stride=(1, 2), padding=(1, 0), pool=(2, 0))},
        ),
        "no activation before Flatten": (
            nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(36, 5), nn.ReLU(), nn.Linear(5, 3)),
            (1, 5, 5), {},
        ),
        "pool alone between": (
            nn.Sequential(nn.Conv2d(1, 4, 2), nn.MaxPool2d(2), nn.Conv2d(4, 3, 2), nn.ReLU(), nn.Flatten(),
                          nn.Linear(3, 3)),
            (1, 5, 5), {"windows": Windows(pool=(2, 0))},
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["batch norm", "convolutions", "no activation before Flatten", "pool alone between"])
def test_predictions_equal_torch(name, tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from torch import nn

    torch.manual_seed(0)
    module, shape, options = torch_modules(nn)[name]
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
    module.eval()
    path = saved(tmp_path, {key: value.numpy() for key, value in module.state_dict().items()})
    x = torch.randn(7, *shape)
    with torch.no_grad():
        wanted = module(x).numpy()
    same(from_state_dict(path, shape=shape, **options), wanted, x.numpy())


# ---- what does not fit


def convolution(channels=2, size=3):
    return {"0.weight": np.ones((4, channels, size, size), np.float32), "3.weight": np.ones((3, 64), np.float32)}


REFUSED = {
    "layer norm": ({**tensors(4, 3), "1.weight": np.ones(3, np.float32)}, {}, "module 1: .* without running_mean"),
    "half a norm": ({**tensors(4, 3), "1.weight": np.ones(3, np.float32), "1.running_mean": np.ones(3, np.float32)}, {},
                    "module 1: a BatchNorm without running_var"),
    "a norm of rows": ({**tensors(4, 3), "0.running_var": np.ones(3, np.float32)}, {},
                       r"module 0: running_var, as BatchNorm has it, and a weight \(3, 4\); \(C,\) was wanted"),
    "pool of none": (tensors(4, 3), {"windows": Windows(pool=(2,))}, "pool: it goes with convolutions, and no module"),
    "stride of none": (tensors(4, 3), {"windows": Windows(stride=(1, 2))}, "stride: it goes with convolutions"),
    "recurrent": ({"0.weight_ih_l0": np.ones((4, 4), np.float32)}, {}, r"tensor 0\.weight_ih_l0: not one of bias"),
    "one dimension": ({"0.weight": np.ones((4, 2, 3), np.float32)}, {}, r"module 0: a weight \(4, 2, 3\)"),
    "scalar": ({"0.weight": np.array(2, np.float32)}, {}, r"module 0: a weight \(\); \(out, in\)"),
    "scaling": (tensors(4, 3), {"reading": Reading(Scaling("unit", np.ones(2), np.ones(2)))},
                "a scaling of 2 values; one for all, or one a column of 4 was wanted"),
    "bias": ({**tensors(4, 3), "0.bias": np.ones(5, np.float32)}, {}, r"tensor 0\.bias: shape \(5,\); \(3,\) was"),
    "bias alone": ({"0.bias": np.ones(5, np.float32)}, {}, "module 0: bias, and no weight"),
    "no size": (convolution(), {}, "module 0: .*give the input shape, such as 2x28x28"),
    "channels": (convolution(), {"shape": (3, 6, 6)}, "module 0: it takes images of 2 channels, not .* 3x6x6"),
    "values": (tensors(4, 3), {"shape": (5,)}, "module 0: it takes 4 values, not the given shape 5"),
    "too small": (convolution(), {"shape": (2, 2, 6)}, r"module 0: 24 values \(2 x 2 x 6\) .* smaller than its"),
    "flattened": (convolution(), {"shape": (2, 7, 7)}, r"module 3: 100 values \(4 x 5 x 5\) .* padding and pool"),
    "padding": (convolution(), {"shape": (2, 6, 6), "windows": Windows(padding=(1, 2))}, "padding: 2 values for 1"),
    "quantised": ({"0.weight": np.ones((4, 4), np.int8)}, {}, r"tensor 0\.weight: of int8; floats were wanted"),
    "not finite": ({"0.weight": np.full((4, 4), np.nan, np.float32)}, {}, r"0\.weight holds a value that is not"),
    "no dense end": ({"0.weight": np.ones((4, 2, 2, 2), np.float32)}, {"shape": (2, 2, 2)}, "ends with a dense layer"),
    "empty": ({}, {}, "no tensors in it"),
    "classes": (tensors(4, 3), {"reading": Reading(classes=("a", "b"))}, "classes: 3 were wanted"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_named(name, tmp_path):
    content, options, message = REFUSED[name]
    with pytest.raises(ModelFileError, match=message):
        from_state_dict(saved(tmp_path, content), **options)


def test_a_batch_norm_of_pixels_before_dense_layers_alone(tmp_path):
    """It has a mean a pixel, as a network with that shape has here, and none a channel."""
    network = Network([BatchNorm("relu"), Dense(5, "relu"), Dense(3)], (1, 8, 8), seed=0)
    random = np.random.default_rng(0)
    list(fit(network, (random.normal(size=(40, 64)), np.arange(40) % 3), epochs=1, backend="reference"))
    path = saved(tmp_path, network.state_dict())
    x = random.normal(size=(9, 64))
    for shape in ((1, 8, 8), (64,)):
        same(from_state_dict(path, shape=shape), network.predict_logits(x), x)
    with pytest.raises(ModelFileError, match="images of 64 channels"):
        from_state_dict(path, shape=(1, 8, 9))


def test_files_that_are_none(tmp_path):
    path = tmp_path / "net.safetensors"
    with pytest.raises(FileNotFoundError, match=r"net\.safetensors: no such file"):
        from_state_dict(path)
    for content in (b"", b"PK\x03\x04 a pickle", bytes(100), saved(tmp_path, tensors(4, 3)).read_bytes()[:-4]):
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match=r"no safetensors file, or damaged.*safetensors\.torch\.save_file"):
            from_state_dict(path)
    from mlpkernels import Dense

    Network([Dense(3)], 4).save(path)
    with pytest.raises(ModelFileError, match="a file of mlpkernels, which needs no import"):
        from_state_dict(path)


def test_bfloat16_is_named(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from safetensors.torch import save_file as save_torch

    save_torch({"0.weight": torch.ones(3, 4, dtype=torch.bfloat16)}, tmp_path / "net.safetensors")
    with pytest.raises(ModelFileError, match=r"a type NumPy has not.*\.float\(\)"):
        from_state_dict(tmp_path / "net.safetensors")
