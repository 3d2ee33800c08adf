"""ONNX operators on the way from the input to the logits, each as operations of ours or as another order of values."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .flow import Flow
from .operations import Activation, Convolution, Normalisation, Pair, Pool, Product

NAMES = {"Relu": "relu", "Tanh": "tanh", "Sigmoid": "logistic", "Exp": "exp"}


class Node(NamedTuple):
    """A node: operator, what names it in errors, attributes, its inputs, None where left out, with their names, and its
    outputs' names, empty where left out."""

    operator: str
    where: str
    attributes: dict[str, Any]
    inputs: Sequence[Any]
    names: Sequence[str]
    outputs: Sequence[str]

    def constant(self, number: int, name: str) -> np.ndarray:
        """Input `number`, float64. ValueError where it is computed from the sample."""
        value = self.inputs[number]
        if not isinstance(value, np.ndarray):
            raise ValueError(f"its {name} {self.names[number]!r} is no constant, which was wanted")
        values = value.astype(np.float64)
        if not np.isfinite(values).all():
            raise ValueError(f"its {name} {self.names[number]!r} holds a value that is not finite")
        return values

    def optional(self, number: int, name: str) -> np.ndarray | None:
        """The same of an input that may be left out."""
        return self.constant(number, name) if len(self.inputs) > number and self.inputs[number] is not None else None

    def vector(self, number: int, name: str, size: int) -> np.ndarray:
        """The same of an input that must be (size,); ValueError names one that is not."""
        values = self.constant(number, name)
        if values.shape != (size,):
            raise ValueError(f"its {name} {self.names[number]!r} has shape {values.shape}; ({size},) was wanted")
        return values


def apply(node: Node, flow: Flow) -> Flow:
    """The flow behind a node. ValueError says what of it this library has not; KeyError: the operator itself."""
    return OPERATORS[node.operator](node, flow)


# ---- layers


def _gemm(node: Node, flow: Flow) -> Flow:
    """alpha · x @ weight + beta · bias."""
    if node.attributes.get("transA", 0):
        raise ValueError("transA=1 turns rows and columns of the samples round; 0 was wanted")
    _data_first(node)
    weights = node.constant(1, "weight")
    weights = weights.T if node.attributes.get("transB") else weights
    outputs = weights.shape[-1] if weights.ndim else 0
    bias = node.optional(2, "bias")
    if bias is None:
        bias = np.zeros(outputs)
    elif bias.ndim > 2 or bias.shape[-1:] not in ((), (1,), (outputs,)) or bias.shape[:-1] not in ((), (1,)):
        raise ValueError(f"its bias {node.names[2]!r} has shape {bias.shape}; ({outputs},) was wanted")
    alpha, beta = (float(node.attributes.get(name, 1.0)) for name in ("alpha", "beta"))
    return _product(node, flow, alpha * weights, beta * np.broadcast_to(bias.reshape(-1), outputs))


def _matmul(node: Node, flow: Flow) -> Flow:
    _data_first(node)
    weights = node.constant(1, "weight")
    return _product(node, flow, weights, np.zeros(weights.shape[-1] if weights.ndim else 0))


def _data_first(node: Node) -> None:
    if not isinstance(node.inputs[0], Flow):
        raise ValueError("weights times samples; samples times weights was wanted")


def _product(node: Node, flow: Flow, weights: np.ndarray, bias: np.ndarray) -> Flow:
    if weights.ndim != 2 or flow.places.ndim != 1 or len(weights) != flow.places.size:
        raise ValueError(f"a sample of shape {flow.places.shape} reaches its weight {node.names[1]!r} of shape "
                         f"{weights.shape}; (I,) and (I, O) were wanted")  # fmt: skip
    ordered = np.empty_like(weights)
    ordered[flow.places] = weights
    return flow.then(Product(node.where, ordered, bias), bias.shape)


def _conv(node: Node, flow: Flow) -> Flow:
    if node.attributes.get("group", 1) != 1:
        raise ValueError(f"group={node.attributes['group']}; 1 was wanted")
    weights, image = node.constant(1, "weight"), flow.as_image()
    if image is None or weights.ndim != 4 or weights.shape[1] != image.shape[0]:
        raise ValueError(f"a sample of shape {flow.places.shape} reaches its weight {node.names[1]!r} of shape "
                         f"{weights.shape}; (C, H, W) and (O, C, kh, kw) were wanted")  # fmt: skip
    kernel = (weights.shape[2], weights.shape[3])
    stride, padding, size = _window(node, image, kernel)
    given = node.optional(2, "bias") is not None
    bias = node.vector(2, "bias", len(weights)) if given else np.zeros(len(weights))
    return image.then(Convolution(node.where, weights, bias, stride, padding), (len(weights), *size))


def _max_pool(node: Node, flow: Flow) -> Flow:
    image = flow.as_image()
    kernel = tuple(node.attributes["kernel_shape"])
    if image is None or len(kernel) != 2:
        raise ValueError(f"a sample of shape {flow.places.shape} reaches it; an image (C, H, W) was wanted")
    stride, padding, size = _window(node, image, (kernel[0], kernel[1]))
    return image.then(Pool(node.where, (kernel[0], kernel[1]), stride, padding), (image.shape[0], *size))


def _window(node: Node, image: Flow, kernel: Pair) -> tuple[Pair, Pair, Pair]:
    """(stride, padding, (H', W')) of a window; ValueError where it is none of ours."""
    given = node.attributes
    if any(step != 1 for step in given.get("dilations", ())):
        raise ValueError(f"dilations={list(given['dilations'])}; 1 was wanted")
    stride = tuple(given.get("strides", (1, 1)))
    before, behind = _pads(given, image.shape[1:], kernel, stride)
    if before != behind:
        raise ValueError(f"{list(before)} rows and columns of padding before and {list(behind)} behind; the same on "
                         "both sides was wanted")  # fmt: skip
    spare = [n + 2 * pad - k for n, pad, k in zip(image.shape[1:], before, kernel, strict=True)]
    if min(spare) < 0:
        raise ValueError(
            f"an image of {image.shape[1]} x {image.shape[2]} reaches its window {kernel[0]} x {kernel[1]}"
        )
    if given.get("ceil_mode") and any(rest % step for rest, step in zip(spare, stride, strict=True)):
        raise ValueError("ceil_mode=1 with an incomplete last window; 0 was wanted")
    size = [rest // step + 1 for rest, step in zip(spare, stride, strict=True)]
    return (stride[0], stride[1]), before, (size[0], size[1])


def _pads(given: dict[str, Any], image: Sequence[int], kernel: Pair, stride: Sequence[int]) -> tuple[Pair, Pair]:
    """Rows and columns of padding (before, behind)."""
    way = given.get("auto_pad", b"NOTSET").decode()
    if way in ("NOTSET", "VALID"):
        pads = tuple(given.get("pads", (0, 0, 0, 0))) if way == "NOTSET" else (0, 0, 0, 0)
        return (pads[0], pads[1]), (pads[2], pads[3])
    whole = [max(0, (-(-n // s) - 1) * s + k - n) for n, k, s in zip(image, kernel, stride, strict=True)]
    less, more = (whole[0] // 2, whole[1] // 2), (whole[0] - whole[0] // 2, whole[1] - whole[1] // 2)
    return (less, more) if way == "SAME_UPPER" else (more, less)


_TRAINING = "it was exported while training; model.eval() first was wanted"


def _batch_norm(node: Node, flow: Flow) -> Flow:
    if node.attributes.get("training_mode") or any(node.outputs[1:]):  # which before opset 14 tell it alone
        raise ValueError(_TRAINING)
    channels = node.constant(1, "scale").size
    gamma, beta, mean, variance = (
        node.vector(k, name, channels) for k, name in enumerate(("scale", "bias", "mean", "variance"), 1)
    )
    if (variance < 0).any():
        raise ValueError(f"its variance {node.names[4]!r} holds a negative value")
    epsilon = float(str(np.float32(node.attributes.get("epsilon", 1e-5))))  # the number that was meant
    image = flow if flow.ordered else flow.as_image()
    if image is not None and image.places.ndim in (1, 3) and len(gamma) == image.shape[0]:
        return image.then(Normalisation(node.where, gamma, beta, mean, variance, epsilon))
    if flow.places.ndim != 1 or len(gamma) != flow.places.size:
        raise ValueError(f"a sample of shape {flow.places.shape} reaches its scale {node.names[1]!r} of shape "
                         f"{gamma.shape}; as many channels were wanted")  # fmt: skip
    factor = gamma / np.sqrt(variance + epsilon)
    return flow.affine(node.where, factor, beta - mean * factor)


def _activation(node: Node, flow: Flow) -> Flow:
    return flow.then(Activation(node.where, NAMES[node.operator]))


# ---- arithmetic with constants


def _arithmetic(node: Node, flow: Flow) -> Flow:
    first = isinstance(node.inputs[0], Flow)
    constant = _without_batch(node, 1 if first else 0, flow)
    if node.operator == "Add":
        return flow.affine(node.where, np.ones(()), constant)
    if node.operator == "Sub":
        return flow.affine(node.where, np.ones(()) if first else -np.ones(()), -constant if first else constant)
    if node.operator == "Mul":
        return flow.affine(node.where, constant, np.zeros(()))
    if not first or not constant.all():
        raise ValueError("a division by samples or by 0; samples divided by constants was wanted")
    return flow.affine(node.where, 1 / constant, np.zeros(()))


def _without_batch(node: Node, number: int, flow: Flow) -> np.ndarray:
    """Input `number`, a constant, without the axis of rows; ValueError where it does not broadcast to the sample."""
    constant = node.constant(number, "other operand")
    if node.inputs[number].dtype.kind in "iu":  # which wrap round, and whose quotients are cut off
        raise ValueError(f"its other operand {node.names[number]!r} is of whole numbers; floats were wanted")
    if constant.ndim == flow.places.ndim + 1 and len(constant) == 1:
        constant = constant[0]
    try:
        np.broadcast_to(constant, flow.places.shape)
    except ValueError:
        raise ValueError(f"the constant {node.names[number]!r} of shape {constant.shape} meets a sample of shape "
                         f"{flow.places.shape}, to which it does not broadcast") from None  # fmt: skip
    return constant


def _negative(node: Node, flow: Flow) -> Flow:
    return flow.affine(node.where, -np.ones(()), np.zeros(()))


def _scaler(node: Node, flow: Flow) -> Flow:
    """ai.onnx.ml's Scaler: (x - offset) · scale."""
    offset, scale = (np.asarray(node.attributes[name], np.float64) for name in ("offset", "scale"))
    for values in (offset, scale):
        if values.size not in (1, flow.places.size):
            raise ValueError(f"its offset and scale are of {values.size} columns; a sample of shape "
                             f"{flow.places.shape} reaches it")  # fmt: skip
    return flow.affine(node.where, scale, -offset * scale)


# ---- shape and order


def _same(node: Node, flow: Flow) -> Flow:
    return flow


def _dropout(node: Node, flow: Flow) -> Flow:
    training = node.optional(2, "training_mode")
    if training is not None and training.any():
        raise ValueError(_TRAINING)
    return flow


def _cast(node: Node, flow: Flow) -> Flow:
    kinds = {1: "float32", 11: "float64", 10: "float16"}
    if node.attributes["to"] not in kinds:
        raise ValueError("samples become whole numbers or text; floats were wanted")
    return flow


def _flatten(node: Node, flow: Flow) -> Flow:
    axis = node.attributes.get("axis", 1)
    if axis not in (1, -flow.places.ndim):
        raise ValueError(f"axis={axis}; 1 was wanted, so that the batch stays")
    return flow.moved(flow.places.reshape(-1))


def _reshape(node: Node, flow: Flow) -> Flow:
    target = [int(size) for size in node.constant(1, "shape").reshape(-1)]
    if not target or (target[0] == -1 and -1 in target[1:]):
        raise ValueError(f"shape {target}; the batch and then a sample's shape was wanted")
    try:
        rest = [flow.places.shape[k] if size == 0 and not node.attributes.get("allowzero") else size
                for k, size in enumerate(target[1:])]  # fmt: skip
        return flow.moved(flow.places.reshape(rest))
    except (ValueError, IndexError):
        raise ValueError(f"a sample of shape {flow.places.shape} does not fill shape {target}") from None


def _transpose(node: Node, flow: Flow) -> Flow:
    order = node.attributes.get("perm", tuple(range(flow.places.ndim, -1, -1)))
    if sorted(order) != list(range(flow.places.ndim + 1)):
        raise ValueError(f"perm={list(order)} is no order of {flow.places.ndim + 1} axes")
    if order[0] != 0:
        raise ValueError(f"perm={list(order)} moves the batch; 0 first was wanted")
    return flow.moved(flow.places.transpose([axis - 1 for axis in order[1:]]))


def _axes(node: Node, rank: int, more: bool = False) -> list[int]:
    """The axes that a node names, in order, of a tensor of that rank; more: of one that has them beside its own."""
    given = node.attributes.get("axes")
    axes = node.optional(1, "axes") if given is None else np.array(given)
    if axes is None:
        raise ValueError("without axes it may remove the batch; axes were wanted")
    rank += axes.size if more else 0
    named = [int(axis) for axis in axes.reshape(-1)]
    if any(not -rank <= axis < rank for axis in named) or len({axis % rank for axis in named}) < len(named):
        raise ValueError(f"axes {named}; different ones from {-rank} to {rank - 1} were wanted")
    return sorted(axis % rank for axis in named)


def _squeeze(node: Node, flow: Flow) -> Flow:
    axes = set(_axes(node, flow.places.ndim + 1))
    if 0 in axes:
        raise ValueError("it removes the batch")
    if any(flow.places.shape[axis - 1] != 1 for axis in axes):
        raise ValueError(f"axes {sorted(axes)} of a sample of shape {flow.places.shape} are not all of size 1")
    return flow.moved(flow.places.squeeze(tuple(axis - 1 for axis in axes)))


def _unsqueeze(node: Node, flow: Flow) -> Flow:
    places = _axes(node, flow.places.ndim + 1, more=True)
    if 0 in places:
        raise ValueError("it puts an axis before the batch")
    return flow.moved(np.expand_dims(flow.places, tuple(place - 1 for place in places)))


OPERATORS: dict[str, Callable[[Node, Flow], Flow]] = {
    "Gemm": _gemm, "MatMul": _matmul, "Conv": _conv, "MaxPool": _max_pool, "BatchNormalization": _batch_norm,
    **dict.fromkeys(NAMES, _activation),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _arithmetic), "Neg": _negative, "Scaler": _scaler,
    "Identity": _same, "Dropout": _dropout, "Cast": _cast, "Flatten": _flatten, "Reshape": _reshape,
    "Transpose": _transpose, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze,
}  # fmt: skip
