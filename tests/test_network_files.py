"""Model files: they load to the same network, in torch too, and every damage is named."""

import json

import numpy as np
import pytest
from support import BACKENDS

from mlpkernels import Dense, Network, files
from mlpkernels.errors import ModelFileError
from mlpkernels.scaling import Scaling

UNIT = Scaling("unit", 1 / 255, 0.0)


def small(**options):
    return Network([Dense(5, "relu"), Dense(4), Dense(3)], 7, seed=1, **options)


def images(**options):
    return Network([Dense(6, "relu"), Dense(3)], (1, 4, 5), seed=2, scaling=UNIT, **options)


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def test_save_and_load(tmp_path):
    path = tmp_path / "model.safetensors"
    for network in (
        images(classes=["a", "b", "ü"]),
        small(
            dtype="float64",
            classes=[5, -3, 2**40],
            scaling=Scaling("standard", np.full(7, 1 / 3), np.zeros(7)),
        ),
        Network([Dense(1)], 1),
    ):
        network.save(path)
        loaded = Network.load(path)
        assert np.array_equal(loaded.params, network.params) and loaded.dtype == network.dtype
        for name in ("layers", "shape", "inputs", "classes", "scaling", "init"):
            assert getattr(loaded, name) == getattr(network, name), name


def test_a_network_that_diverged_is_not_saved(tmp_path):
    network = small()
    network.parameters()["2.bias"][1] = np.inf
    with pytest.raises(ValueError, match=r"2.bias holds a value that is not finite"):
        network.save(tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())
    assert np.isinf(network.copy().params).any()  # a copy is made all the same


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architecture": "[]"}, "at least one layer"),
        ({"architecture": "{"}, "does not describe a network"),
        ({"architecture": '[{"kind": "recurrent"}]'}, "kind 'recurrent', which this version does not have"),
        ({"architecture": '[{"kind": "dense", "outputs": 1000000000000}]'}, r"0.weight has shape \(5, 7\)"),
        ({"architecture": '[{"kind": "dense", "outputs": 5}]'}, "2.bias was not expected"),
        ({"architecture": "[5]"}, "does not describe a network"),
        ({"shape": "[8]"}, r"0.weight has shape \(5, 7\); \(5, 8\) was wanted"),
        ({"shape": "7"}, "does not describe"),
        ({"dtype": "float64"}, "is of float32 in a network of float64; float64 was wanted"),
        ({"dtype": "int8"}, "dtype='int8'"),
        ({"classes": "[1, 2]"}, "3 were wanted"),
        ({"scaling": '{"kind": "unit"}'}, "scaling is described by"),
        ({"scaling": '{"kind": "unit", "factor": NaN, "offset": 0}'}, "NaN or infinity"),
        ({"classes": None}, "'classes' is missing"),
    ],
)
def test_files_that_describe_no_network(tmp_path, change, words):
    path = tmp_path / "model.safetensors"
    network = small()
    metadata = {k: v for k, v in ({**network.describe(), **change}).items() if v is not None}
    files.write_tensors(path, network.state_dict(), {"kind": "model", **metadata})
    with pytest.raises(ModelFileError, match=words) as caught:
        Network.load(path)
    assert str(path) in str(caught.value)


def test_files_with_other_tensors(tmp_path):
    path = tmp_path / "model.safetensors"
    network = small()
    state = network.state_dict()
    state["0.bias"][0] = np.nan
    files.write_tensors(path, state, {"kind": "model", **network.describe()})
    with pytest.raises(ModelFileError, match=r"0.bias holds a value that is not finite"):
        Network.load(path)
    del state["0.bias"]
    files.write_tensors(path, state, {"kind": "model", **network.describe()})
    with pytest.raises(ModelFileError, match=r"0.bias is missing"):
        Network.load(path)


def test_metadata_is_readable(tmp_path):
    from safetensors import safe_open

    images(classes=["a", "b", "c"]).save(tmp_path / "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", framework="numpy") as file:
        metadata = file.metadata()
    assert metadata["format_version"] == "1" and json.loads(metadata["classes"]) == ["a", "b", "c"]
    assert json.loads(metadata["architecture"])[0]["outputs"] == 6 and json.loads(metadata["shape"]) == [
        1,
        4,
        5,
    ]


@pytest.mark.parametrize(("loss", "outputs"), [("cross-entropy", 3), ("binary", 1), ("binary", 3), ("poisson", 2)])
def test_a_reader_that_knows_no_losses_refuses_them(loss, outputs, tmp_path, monkeypatch):
    """It would take the three yes or no of a row for one class of three."""
    network = Network([Dense(outputs)], 4, loss=loss)
    network.save(tmp_path / "model.safetensors")
    assert Network.load(tmp_path / "model.safetensors").loss == loss
    monkeypatch.setattr(files, "FORMAT_VERSION", 1)
    if loss == "cross-entropy":
        assert Network.load(tmp_path / "model.safetensors").loss == loss
        return
    with pytest.raises(ModelFileError, match=r"model\.safetensors has format 2, this mlpkernels reads up to 1"):
        Network.load(tmp_path / "model.safetensors")


def test_torch_loads_the_file_unconverted(tmp_path, backend):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    network = small(init="pytorch")
    network.save(tmp_path / "model.safetensors")
    modules = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.ReLU(), torch.nn.Linear(5, 4), torch.nn.Linear(4, 3))
    modules.load_state_dict(load_file(tmp_path / "model.safetensors"))
    x = np.random.default_rng(0).normal(size=(20, 7)).astype(np.float32)
    with torch.no_grad():
        logits = modules(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(network.predict_logits(x, backend=backend), logits, rtol=1e-4, atol=1e-6)
    network.load_state_dict(modules.state_dict())
