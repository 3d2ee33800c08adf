"""An ONNX file of a plain network, from PyTorch, Keras or scikit-learn: its graph is walked once, node by node."""

import importlib
import json
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ModelFileError
from ..export.onnx import needed
from ..files import check_is_file
from ..network import Network
from . import ends, operators
from .assemble import Reading, assemble
from .flow import End, Flow, Value
from .operations import refuse
from .operators import Node

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

_BATCH = 1_000_003  # stands for the number of rows where a graph computes shapes: a prime that no size is
_DOMAINS = {"", "ai.onnx", "ai.onnx.ml"}
_OPSET = 7  # before, arithmetic broadcasts by an attribute, and dropout and batch norm may be those of training


def from_onnx(
    path: str | os.PathLike[str], *, shape: tuple[int, ...] | None = None, reading: Reading | None = None
) -> Network:
    """The network of an ONNX file whose graph is one row of layers, scalers before and a softmax or logistic behind.

    shape: a sample's, where the file does not tell it, or tells flat values that are an image's. Labels and the meaning
    of the outputs are the file's unless `reading` tells others. FileNotFoundError; ModelFileError names the node and
    what of it this library has not; UnavailableError where the package onnx is not installed.
    """
    name = os.fspath(path)
    try:
        return _network(name, read(name), shape, reading or Reading())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:  # in its names and texts, which nothing else checks
        raise ModelFileError(f"{name} is no ONNX file, or damaged ({error}){_REMEDY}") from None


@np.errstate(all="ignore")  # what then is not finite is named
def _network(path: str, model: "ModelProto", shape: tuple[int, ...] | None, reading: Reading) -> Network:
    walk = _Walk(path, model)
    value = _input(path, model.graph)
    walk.values[value.name] = _start(path, value, shape, _is_keras(model, value))
    for node in model.graph.node:
        walk.visit(node)
    found = ends.result(path, [(output.name, walk.value(output.name, "its outputs")) for output in model.graph.output])
    classes: Sequence[int | str] | None = walk.classes
    _check_loss(path, reading.loss, found)
    loss = reading.loss or found.loss
    if model.producer_name == "mlpkernels":
        texts = {entry.key: entry.value for entry in model.metadata_props}
        classes, loss = json.loads(texts.get("classes", "[]")), reading.loss or texts.get("loss", loss)
    elif model.producer_name == "skl2onnx":
        loss = loss or "squared-error"  # its classifiers end with labels, its regressors do not
    double = value.type.tensor_type.elem_type == walk.onnx.TensorProto.DOUBLE
    reading = reading._replace(
        classes=reading.classes or (_for_loss(loss, classes, found.flow) if classes else None),
        loss=loss,
        dtype="float64" if double else "float32",
    )
    return assemble(path, found.flow.operations, found.flow.inputs, reading)


def _check_loss(path: str, given: str | None, found: ends.Result) -> None:
    """Refuse a loss that would drop what the graph ends with."""
    fits = given == found.loss if found.loss else not found.labels or given not in ("squared-error", "poisson")
    if given is not None and not fits:
        end = _ENDS[found.loss or "labels"]
        raise ModelFileError(
            f"{path}: its graph ends with {end}, which loss {given} has not; without a loss it is read as it ends"
        )


_ENDS = {
    "cross-entropy": "a softmax (cross-entropy)", "binary": "a logistic function (binary)",
    "poisson": "an exponential (poisson)", "labels": "labels of classes",
}  # fmt: skip


def _for_loss(loss: str | None, classes: Sequence[int | str], flow: Flow) -> Sequence[int | str] | None:
    """The file's labels, if the network will have as many; scikit-learn's of several yes or no are none."""
    if loss in ("squared-error", "poisson"):
        return None
    outputs = int(np.prod(flow.shape))
    wanted = 2 if outputs == 1 else outputs
    return classes if len(classes) == wanted else None


def read(path: str) -> "ModelProto":
    """The file's model, its local functions inlined. FileNotFoundError; ModelFileError where it is no valid ONNX."""
    check_is_file(path, "an ONNX file")
    onnx = needed("onnx")
    importlib.import_module("onnx.inliner")
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path)
        if not model.graph.node:
            raise ModelFileError(f"{path} is no ONNX file, or one without a graph{_REMEDY}")
        onnx.checker.check_model(model)
        version = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
        if version < _OPSET:
            raise ModelFileError(
                f"{path}: ONNX's opset {version}; {_OPSET} or later was wanted: onnx.version_converter converts it"
            )
        return onnx.inliner.inline_local_functions(model) if model.functions else model
    except DecodeError:
        raise ModelFileError(f"{path} is no ONNX file, or damaged{_REMEDY}") from None
    except (onnx.checker.ValidationError, ValueError) as error:
        raise ModelFileError(f"{path} is no valid ONNX file: {str(error).strip().splitlines()[0]}") from None


_REMEDY = (
    "; torch.onnx.export, tf2onnx and skl2onnx write ONNX; of PyTorch, what safetensors.torch.save_file("
    "model.state_dict(), FILE) writes is read too"
)


def _input(path: str, graph: "GraphProto") -> "ValueInfoProto":
    """The one input that is no weight."""
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs)
        raise ModelFileError(f"{path}: {len(inputs)} inputs ({names}); one array of samples was wanted")
    return inputs[0]


def _is_keras(model: "ModelProto", value: "ValueInfoProto") -> bool:
    """Whether the first thing done to images, but for scaling, is to move their channels from last to first.

    One channel is moved by a Reshape, for its values are in the same order either way. Otherwise sizes alone do not
    tell: (12, 8, 4) may be 12 channels. This library and PyTorch always have channels first.
    """
    if model.producer_name in ("mlpkernels", "pytorch"):
        return False
    sizes = [int(size.dim_value) for size in value.type.tensor_type.shape.dim]
    if len(sizes) == 4 and sizes[3] == 1:
        return True
    reached = {value.name}
    for node in model.graph.node:
        if not reached & set(node.input) or node.op_type == "Shape":
            continue
        if node.op_type not in ("Add", "Cast", "Div", "Dropout", "Identity", "Mul", "Neg", "Sub"):
            return node.op_type == "Transpose" and [list(entry.ints) for entry in node.attribute] == [[0, 3, 1, 2]]
        reached |= set(node.output)
    return False


def _start(path: str, value: "ValueInfoProto", shape: tuple[int, ...] | None, keras: bool) -> Flow:
    """The input as a flow: shape is the user's, and tells what the file does not; keras: images (H, W, C)."""
    where = f"input {value.name}"
    sizes = [int(size.dim_value) for size in value.type.tensor_type.shape.dim]
    given = tuple(sizes[1:])
    if not sizes or len(sizes) > 4 or (0 in given and shape is None):
        known = "x".join(str(size or "?") for size in sizes) or "nothing"
        raise refuse(path, where, f"its shape is {known}: rows of values or images were wanted; give the input shape")
    if shape is not None:
        if 0 in given or len(sizes) == 1:
            given = shape if len(given) == len(shape) else (math.prod(shape),)
        if math.prod(shape) != math.prod(given):
            raise refuse(path, where, f"samples of {given}, not of the given shape {'x'.join(map(str, shape))}")
        if len(given) == len(shape) == 3 and shape not in (given, (given[2], *given[:2])):
            raise refuse(path, where, f"images of {given}, with channels last at most; not of the given shape "
                         f"{'x'.join(map(str, shape))}")  # fmt: skip
    elif len(given) == 3 and keras:
        shape = (given[2], given[0], given[1])
    else:
        shape = (1, *given) if len(given) == 2 else given
    return Flow.start(given, shape)


class _Walk:
    """The values of a graph by name, filled node by node: constants, the sample, and what is made of the outputs."""

    def __init__(self, path: str, model: "ModelProto") -> None:
        self.path, self.onnx = path, needed("onnx")
        self.opsets = {entry.domain: entry.version for entry in model.opset_import}
        self.values: dict[str, Value | None] = {tensor.name: self._array(tensor) for tensor in model.graph.initializer}
        self.classes: list[int | str] | None = None
        self.outputs = {output.name for output in model.graph.output}
        self.producer = model.producer_name

    def _array(self, tensor: "TensorProto") -> np.ndarray:
        try:
            return self.onnx.numpy_helper.to_array(tensor)
        except (KeyError, ValueError, TypeError) as error:
            raise refuse(self.path, f"weight {tensor.name!r}", f"damaged, or of an unknown type ({error})") from None

    def value(self, name: str, where: str) -> Value:
        """A value by name; ModelFileError where no node has given it, or it is none that is read."""
        found = self.values.get(name)
        if found is None:
            further = name in self.values
            reason = "is a further output of its node, and only the first is read"
            raise refuse(self.path, where, f"{name!r} {reason if further else 'is used before any node gives it'}")
        return found

    def visit(self, proto: "NodeProto") -> None:
        """Read one node."""
        name = proto.name or (proto.output[0] if proto.output else "")
        where = f"node {name!r} ({proto.op_type})"
        inputs = [self.value(name, where) if name else None for name in proto.input]
        attributes = {entry.name: self.onnx.helper.get_attribute_value(entry) for entry in proto.attribute}
        node = Node(proto.op_type, where, attributes, inputs, proto.input, proto.output)
        moving = [value for value in inputs if isinstance(value, (Flow, End))]
        try:
            if not moving:
                self._keep(proto, self._evaluated(proto, inputs))
                return
            self.classes = ends.classes(node) or self.classes
            made = self._moved(proto, node, moving)
            # All outputs of what ends a graph are ends, as values and indices of the greatest; a layer has but one.
            self._keep(proto, [made] * len(proto.output) if isinstance(made, End) else [made])
        except (ValueError, KeyError, TypeError, IndexError) as error:
            reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            raise refuse(self.path, where, reason) from None

    def _keep(self, proto: "NodeProto", values: Sequence[Any]) -> None:
        """The values of a node's outputs, None for those that have none."""
        for number, name in enumerate(proto.output):
            self.values[name] = values[number] if number < len(values) else None

    def _evaluated(self, proto: "NodeProto", inputs: Sequence[Any]) -> list[Any]:
        """What a node makes of constants."""
        from onnx.reference import ReferenceEvaluator

        feeds = {name: value for name, value in zip(proto.input, inputs, strict=True) if name}
        try:
            return list(ReferenceEvaluator(proto, opsets=self.opsets).run(None, feeds))
        except (RuntimeError, NotImplementedError, ValueError, KeyError, TypeError, IndexError) as error:
            given = ", ".join(f"{name!r} {np.shape(value)}" for name, value in feeds.items())
            raise ValueError(f"it cannot be computed from its constants {given}: {error}") from None

    def _moved(self, proto: "NodeProto", node: Node, moving: Sequence[Flow | End]) -> Value:
        """What a node makes of the sample."""
        flow = moving[0]
        if proto.domain not in _DOMAINS:
            raise ValueError(f"an operator of {proto.domain}, which no layer here computes; ONNX's own were wanted")
        if proto.op_type == "Shape" and isinstance(flow, Flow):
            sizes = np.array([_BATCH, *flow.places.shape])
            return sizes[node.attributes.get("start", 0) : node.attributes.get("end")]
        end = ends.apply(node, flow)
        if end is not None:
            return end
        if not isinstance(flow, Flow):
            raise ValueError("it stands behind a softmax or labels, where layers were wanted to have ended")
        if proto.op_type not in operators.OPERATORS:
            raise ValueError(f"no layer here computes it; {', '.join(operators.OPERATORS)} and Softmax are read")
        if self.producer == "skl2onnx" and proto.op_type == "Reshape" and self.outputs.issuperset(proto.output):
            return flow  # a regressor's (N, K), which it lays one below the other as (N·K, 1), whatever K is
        if len(moving) > 1:
            raise ValueError("two paths meet in it; layers one behind the other were wanted")
        return operators.apply(node, flow)
