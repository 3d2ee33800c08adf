"""Networks as ONNX: the checker takes the graph, ONNX Runtime predicts what we predict, and no wrong file is left."""

import json
import sys

import numpy as np
import pytest
import stacks

from mlpkernels import Conv2d, Dense, Network, Scaling
from mlpkernels.errors import MlpkError, UnavailableError
from mlpkernels.export import to_onnx, write_onnx
from mlpkernels.export.golden import as_dtype, golden, samples

onnx = pytest.importorskip("onnx", reason="onnx is not installed")


def run(path, x):
    """{output: values} of a file by ONNX Runtime."""
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"input": x}), strict=True))


def agrees(found, wanted, network):
    assert found.dtype == wanted.dtype and found.shape == wanted.shape
    assert np.all(np.abs(found - wanted) <= golden(network).tolerance * (1 + np.abs(wanted)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", stacks.STACKS)
def test_the_runtime_predicts_what_we_do_for_any_batch(name, dtype, tmp_path):
    width = int(np.prod(stacks.STACKS[name][1]))
    scaling = Scaling("standard", 1 / np.linspace(0.1, 30, width), -np.linspace(-1e4, 1e4, width))
    network = stacks.network(name, dtype, scaling=scaling)
    path = write_onnx(network, tmp_path / "net.onnx")
    if any(isinstance(layer, Conv2d) for layer in network.layers):  # the runtime computes them in float32 alone
        network = as_dtype(network, np.float32)
    for count in (1, 3, 64):
        x = samples(network, count, seed=count)
        found = run(path, x.reshape(-1, *network.shape))
        agrees(found["logits"], network.predict_logits(x, backend="reference"), network)
        agrees(found["probabilities"], network.predict_proba(x, backend="reference"), network)


def test_the_checker_takes_it_and_the_metadata_tell_the_classes():
    model = to_onnx(stacks.made([Dense(4, "relu"), Dense(3)], 5, classes=["é", '"', "x\ny"]))
    onnx.checker.check_model(model, full_check=True)
    texts = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(texts["classes"]) == ["é", '"', "x\ny"] and texts["loss"] == "cross-entropy"
    values = [*model.graph.input, *model.graph.output]
    shapes = [[size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim] for value in values]
    assert shapes == [["N", 5], ["N", 3], ["N", 3]]
    assert [value.name for value in values] == ["input", "logits", "probabilities"]


def test_the_same_network_is_the_same_file(tmp_path):
    for name in ("a", "b"):
        write_onnx(stacks.made([Dense(4, "relu"), Dense(3)], 5, classes=["a", "b", "c"]), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_runtime_that_disagrees_is_an_error_and_leaves_no_file(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from mlpkernels.export import onnx as module

    network = stacks.made([Dense(4, "relu"), Dense(3)], 5)
    other = stacks.made([Dense(4, "relu"), Dense(3)], 5, seed=1)
    monkeypatch.setattr(module, "golden", lambda _: golden(other))
    with pytest.raises(MlpkError, match=r"ONNX Runtime .* gives logits that differ by .* nothing was written"):
        write_onnx(network, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_without_the_runtime_it_is_written_unchecked_by_it(tmp_path, monkeypatch):
    from mlpkernels.export import onnx as module

    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    assert module.compare(stacks.made([Dense(3)], 5), b"") is False


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UnavailableError, match=r"pip install 'mlpkernels\[onnx\]'"):
        to_onnx(stacks.made([Dense(3)], 5))


def test_an_existing_file_is_left_as_it_is(tmp_path):
    (tmp_path / "net.onnx").write_text("mine")
    with pytest.raises(FileExistsError, match=r"net\.onnx exists"):
        write_onnx(stacks.made([Dense(3)], 5), tmp_path / "net.onnx")
    assert (tmp_path / "net.onnx").read_text() == "mine"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_untrained_network_is_not_exported(dtype, tmp_path):
    with pytest.raises(ValueError, match="the network is untrained"):
        write_onnx(Network([Conv2d(2, 3), Dense(3)], (1, 5, 5), dtype=dtype), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite():
    network = stacks.made([Dense(3)], 5)
    network.parameters()["0.bias"][0] = np.inf
    with pytest.raises(ValueError, match=r"0\.bias holds a value that is not finite"):
        to_onnx(network)


def test_predictions_that_overflow_do_not_hinder_the_comparison(tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    network = stacks.made([Dense(1)], 2, loss="poisson")
    network.load_state_dict({"0.weight": np.float32([[60, 0]]), "0.bias": np.float32([80])})
    assert write_onnx(network, tmp_path / "net.onnx").exists()
    network.load_state_dict({"0.weight": np.float32([[0, 0]]), "0.bias": np.float32([100])})
    with pytest.raises(ValueError, match="no prediction for 8 usual inputs is a finite float32"):
        write_onnx(network, tmp_path / "other.onnx")
    assert not (tmp_path / "other.onnx").exists()
