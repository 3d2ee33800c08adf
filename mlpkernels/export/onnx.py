"""A network as an ONNX graph: raw inputs to logits and probabilities, its scaling and class names inside."""

import importlib.util
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MlpkError, UnavailableError
from ..kernels import plan as p
from ..network import Network
from .golden import as_dtype, golden
from .steps import Step, centred, check_trained, steps
from .writing import write_new

if TYPE_CHECKING:
    from onnx import ModelProto

INPUT, LOGITS, PROBABILITIES, PREDICTIONS = "input", "logits", "probabilities", "predictions"
_OPSET, _IR = 17, 8  # of ONNX 1.12, from 2022: what runtimes still in use can read
_ACTIVATIONS = {p.RELU: "Relu", p.TANH: "Tanh", p.LOGISTIC: "Sigmoid"}


def write_onnx(network: Network, path: str | os.PathLike[str]) -> Path:
    """Write `to_onnx`'s graph as a file, once it is found right; returns the path.

    onnx.checker has gone over it, and where ONNX Runtime is installed its answers to golden vectors, together and one
    by one, are this library's: MlpkError says where not, and leaves no file. FileExistsError where the file exists,
    OSError where it cannot be written; else errors as of `to_onnx`.
    """
    model = to_onnx(network)
    content = model.SerializeToString()
    compare(network, content)
    return write_new({Path(path): content})[0]


def to_onnx(network: Network) -> "ModelProto":
    """The network as a checked onnx.ModelProto, of opset 17.

    Input: `input` (N, D) or (N, C, H, W), any N, raw values of the network's dtype. Outputs: `logits` (N, K) and
    `probabilities` (N, classes), or of a regression `predictions` (N, K). Metadata: `classes`, a JSON list in the order
    of the probabilities, and `loss`. A float64 network with convolutions becomes float32, in which alone ONNX Runtime
    computes them. UnavailableError where the package onnx is not installed, ValueError for an untrained network and
    where a weight is not finite.
    """
    onnx = needed("onnx")
    check_trained(network)
    network = _computable(network)
    graph = _Graph(network.dtype)
    value = _body(graph, network)
    outputs = _ends(graph, network, value)
    kind = onnx.helper.np_dtype_to_tensor_dtype(network.dtype)

    def info(name: str, *shape: int) -> Any:
        return onnx.helper.make_tensor_value_info(name, kind, ["N", *shape])

    made = onnx.helper.make_graph(
        graph.nodes, "mlpkernels", [info(INPUT, *network.shape)],
        [info(name, width) for name, width in outputs.items()], graph.constants,
    )  # fmt: skip
    model = onnx.helper.make_model(
        made, opset_imports=[onnx.helper.make_opsetid("", _OPSET)], ir_version=_IR,
        producer_name="mlpkernels",
    )  # fmt: skip
    onnx.helper.set_model_props(model, {"classes": json.dumps(network.classes), "loss": network.loss})
    onnx.checker.check_model(model, full_check=True)
    return model


def needed(package: str) -> Any:
    """An optional package, imported. UnavailableError names what to install."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise UnavailableError(f"ONNX files need the package {package}: pip install 'mlpkernels[onnx]'") from None


def compare(network: Network, content: bytes) -> bool:
    """Whether ONNX Runtime, which must agree on golden vectors, is installed. MlpkError where it does not agree."""
    if importlib.util.find_spec("onnxruntime") is None:
        return False
    runtime = needed("onnxruntime")
    network = _computable(network)
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    vectors = golden(network)
    wanted = {LOGITS: vectors.logits, PROBABILITIES: vectors.answers}
    if not network.classes:
        wanted = {PREDICTIONS: vectors.answers}
    x = vectors.x.reshape(-1, *network.shape)
    for rows in (slice(None), *(slice(k, k + 1) for k in range(len(x)))):
        found = session.run(list(wanted), {INPUT: x[rows]})
        for (name, values), given in zip(wanted.items(), found, strict=True):
            worst = float((np.abs(given - values[rows]) / (1 + np.abs(values[rows]))).max())
            if not worst <= vectors.tolerance:
                raise MlpkError(
                    f"ONNX Runtime {runtime.__version__} gives {name} that differ by {worst:.2g} from this network's; "
                    f"at most {vectors.tolerance:.2g} was wanted: nothing was written; try another version of it"
                )
    return True


def _computable(network: Network) -> Network:
    """The network, or where ONNX Runtime has no kernels for it, in float32."""
    convolves = bool((network.plan[:, p.KIND] == p.CONV).any())
    return as_dtype(network, np.float32) if convolves and network.dtype != np.float32 else network


class _Graph:
    """Nodes and constants; every value is named after the node that gives it and its number."""

    def __init__(self, dtype: np.dtype) -> None:
        self.onnx = needed("onnx")
        self.dtype = dtype
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, values: np.ndarray) -> str:
        """The name of a new constant."""
        name = f"{name}{len(self.constants) + 1}"
        self.constants.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(values, self.dtype), name))
        return name

    def node(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """The name of a new node's output."""
        output = output or f"{operator.lower()}{len(self.nodes) + 1}"
        self.nodes.append(self.onnx.helper.make_node(operator, inputs, [output], **attributes))
        return output

    def affine(self, value: str, subtracted: np.ndarray, factor: np.ndarray, added: np.ndarray) -> str:
        """(value - subtracted) · factor + added, without what would change nothing."""
        for operator, name, values, neutral in (
            ("Sub", "centre", subtracted, 0), ("Mul", "factor", factor, 1), ("Add", "shift", added, 0),
        ):  # fmt: skip
            if np.any(values != neutral):
                value = self.node(operator, value, self.constant(name, values))
        return value


def _body(graph: _Graph, network: Network) -> str:
    """The name of the last layer's outputs."""
    layers, shape = steps(network), network.shape
    value, flat = INPUT, len(shape) == 1
    if not flat and not layers[0].image:
        value, flat, shape = graph.node("Flatten", value, axis=1), True, (network.inputs,)
    scaling = centred(network.scaling, network.dtype)
    if scaling is not None:
        parts = (scaling.centre, scaling.factor, scaling.rest)
        value = graph.affine(value, *(part.reshape(shape) if part.ndim else part for part in parts))
    for step in layers:
        if step.kind == p.DENSE and not flat:
            value, flat = graph.node("Flatten", value, axis=1), True
        value = _layer(graph, step, value)
        if step.activation != p.IDENTITY:
            value = graph.node(_ACTIVATIONS[step.activation], value)
    return value


def _layer(graph: _Graph, step: Step, value: str) -> str:
    """The name of what a step gives before its activation."""
    if step.kind == p.BATCH_NORM:
        assert step.mean is not None and step.weights is not None and step.bias is not None
        parts = (step.mean, step.weights, step.bias)
        return graph.affine(value, *(part[:, None, None] if step.image else part for part in parts))
    window: dict[str, Any] = {"kernel_shape": step.kernel, "strides": step.stride, "pads": step.padding * 2}
    if step.kind == p.POOL:
        return graph.node("MaxPool", value, **window)
    assert step.weights is not None and step.bias is not None
    names = graph.constant("weights", step.weights), graph.constant("bias", step.bias)
    return graph.node("Gemm", value, *names) if step.kind == p.DENSE else graph.node("Conv", value, *names, **window)


def _ends(graph: _Graph, network: Network, value: str) -> dict[str, int]:
    """{output: its width}; the last nodes are added."""
    kind, outputs = network.loss, network.outputs
    if not network.classes:
        graph.node("Exp" if kind == "poisson" else "Identity", value, output=PREDICTIONS)
        return {PREDICTIONS: outputs}
    graph.node("Identity", value, output=LOGITS)
    if kind != "binary":
        graph.node("Softmax", value, output=PROBABILITIES, axis=1)
    elif outputs > 1:
        graph.node("Sigmoid", value, output=PROBABILITIES)
    else:
        both = [graph.node("Sigmoid", graph.node("Neg", value)), graph.node("Sigmoid", value)]
        graph.node("Concat", *both, output=PROBABILITIES, axis=1)
        return {LOGITS: 1, PROBABILITIES: 2}
    return {LOGITS: outputs, PROBABILITIES: outputs}
