"""What an ONNX graph makes of its last layer: probabilities, labels and the classes that those are."""

from typing import Any, NamedTuple

import numpy as np

from ..errors import ModelFileError
from .flow import End, Flow, Value
from .operations import Activation, Affine, refuse
from .operators import Node

_PASSED = {  # operators that make labels or dictionaries of probabilities, and keep the order of the classes
    "ArgMax", "ArrayFeatureExtractor", "Cast", "Flatten", "Identity", "LabelEncoder", "Log", "ReduceMax", "Reshape",
    "Squeeze", "TopK", "Unsqueeze", "ZipMap",
}  # fmt: skip
_FIRST = {"ArgMax", "ReduceMax", "TopK", "ZipMap"}  # of a flow
_CHOOSING = {"ArgMax", "TopK"}  # which take one class of all, whatever function that keeps their order came before
_AXIS = {"ArgMax": 0, "TopK": -1}  # where none is given
_THRESHOLDS = {"Binarizer", "Greater", "GreaterOrEqual"}
_LOSSES = {"logistic": "binary", "exp": "poisson"}


class Result(NamedTuple):
    """The flow of the logits, and the loss that the graph's end belongs to, None where it tells none; labels: whether
    it ends with classes, whatever their loss."""

    flow: Flow
    loss: str | None
    labels: bool


def apply(node: Node, flow: Flow | End) -> End | None:
    """The end of the graph that a node makes of a flow or another end; None where it is none.

    ValueError where it makes something of the outputs that the network's own answers would not be.
    """
    if node.operator in _THRESHOLDS:
        return _threshold(node, flow)
    if node.operator in ("ReduceMax", *_CHOOSING):
        _check_greatest(node, flow)
    if isinstance(flow, End):
        if node.operator in _CHOOSING and flow.loss == "binary" and not flow.pair:
            raise ValueError("the first or greatest of several yes or no, which is no answer of a network here")
        if node.operator in ("ArrayFeatureExtractor", "Gather"):
            return _gathered(node, flow)
        return flow if node.operator in _PASSED else None
    if node.operator in ("Softmax", "LogSoftmax"):
        if node.attributes.get("axis", -1) not in (1, -1) or flow.places.ndim != 1:
            raise ValueError(f"over axis {node.attributes.get('axis', -1)} of {flow.places.shape}; over the outputs "
                             "was wanted")  # fmt: skip
        return End(flow, "cross-entropy")
    if node.operator == "Concat":
        return _pair(node)
    if node.operator in _CHOOSING and flow.places.size > 1 and (stripped := _stripped(flow))[1]:
        return End(stripped[0], "cross-entropy")
    return End(flow, None) if node.operator in _FIRST else None


def _check_greatest(node: Node, flow: Flow | End) -> None:
    """Refuse, by ValueError, what is not the greatest of a sample's outputs."""
    if node.operator == "ReduceMax":
        given = node.attributes.get("axes")
        axes = node.optional(1, "axes") if given is None else np.array(given)
        over = [] if axes is None else [int(axis) for axis in axes.reshape(-1)]
    else:
        over = [node.attributes.get("axis", _AXIS[node.operator])]
    if over not in ([1], [-1]) or (isinstance(flow, Flow) and flow.places.ndim != 1):
        shape = f" of {flow.places.shape}" if isinstance(flow, Flow) else ""
        raise ValueError(f"over axis {', '.join(map(str, over)) or 'all'}{shape}; over the outputs was wanted")
    if not node.attributes.get("largest", 1):
        raise ValueError("largest=0 takes the least; the greatest was wanted")


def _threshold(node: Node, flow: Flow | End) -> End:
    """Yes or no of each output: at 0.5 of a probability, at 0 of a logit."""
    value = node.attributes.get("threshold", 0.0) if node.operator == "Binarizer" else node.constant(1, "threshold")
    if isinstance(flow, End):
        kind, wanted = flow.loss, 0.5
    else:
        kind = _stripped(flow)[1]
        wanted = 0.5 if kind == "binary" else 0.0
    if kind not in ((None,) if wanted == 0 else ("binary",)) or (np.float32(value) != np.float32(wanted)).any():
        raise ValueError(f"a threshold of {np.unique(value).tolist()} behind {kind or 'a layer'}; 0 behind a layer, or "
                         "0.5 behind a Sigmoid was wanted")  # fmt: skip
    return End(flow.flow, flow.loss) if isinstance(flow, End) else End(flow, kind)


def _gathered(node: Node, end: End) -> End:
    """The label of an index; or the outputs themselves, all of them in their order."""
    extractor = node.operator == "ArrayFeatureExtractor"  # which takes columns
    data = node.inputs[0]
    if isinstance(data, np.ndarray) and (extractor or data.ndim == 1):
        return end
    count = 2 if end.pair else end.flow.places.size
    columns = isinstance(data, End) and (extractor or node.attributes.get("axis", 0) in (1, -1))
    if columns and np.array_equal(node.constant(1, "indices").reshape(-1), np.arange(count)):
        return end
    raise ValueError(f"it takes some of the outputs or changes their order; all {count} in order were wanted")


def _pair(node: Node) -> End:
    """The two probabilities of a yes or no, 1 - p before p."""
    beside = node.attributes["axis"] in (1, -1) and all(
        isinstance(value, Flow) and value.places.shape == (1,) for value in node.inputs
    )
    if len(node.inputs) == 2 and beside:
        no, yes = node.inputs
        flow, kind = _stripped(yes)
        rest = no.operations[len(flow.operations) :]
        if kind == "binary" and no.operations[: len(flow.operations)] == flow.operations and _is_other(rest):
            return End(flow, "binary", pair=True)
    raise ValueError("it joins what is no pair 1 - p, p of probabilities")


def _is_other(operations: tuple[Any, ...]) -> bool:
    """Whether operations on a logit give 1 - p: logistic, then 1 - it; or logistic of its negative."""
    if len(operations) != 2:
        return False
    activation = next((op for op in operations if isinstance(op, Activation)), None)
    affine = next((op for op in operations if isinstance(op, Affine)), None)
    if activation is None or affine is None or activation.name != "logistic" or not (affine.factor == -1).all():
        return False
    return bool((affine.offset == (1 if operations[0] is activation else 0)).all())


def _stripped(flow: Flow) -> tuple[Flow, str | None]:
    """(the flow of logits, the loss) of one that may end with a logistic function or an exponential."""
    last = flow.operations[-1] if flow.operations else None
    if isinstance(last, Activation) and last.name in _LOSSES:
        return flow.without_last(), _LOSSES[last.name]
    return flow, None


def result(path: str, outputs: list[tuple[str, Value]]) -> Result:
    """What the graph's outputs have in common. ModelFileError where that is not one layer's outputs."""
    flows: list[Flow] = []
    losses: list[str] = []
    labels = False
    for name, value in outputs:
        if isinstance(value, np.ndarray):
            raise refuse(path, f"output {name}", "it does not depend on the input")
        labels = labels or isinstance(value, End)
        flow, loss = _stripped(value.flow if isinstance(value, End) else value)
        loss = (value.loss if isinstance(value, End) else None) or loss
        losses += [loss] if loss else []
        flows.append(flow)
        if (np.diff(flow.places.reshape(-1)) != 1).any():
            raise refuse(path, f"output {name}", "the outputs in another order than the last layer's")
    if not flows:
        raise ModelFileError(f"{path}: a graph without outputs")
    names = ", ".join(name for name, _ in outputs)
    if any(flow.operations != flows[0].operations for flow in flows):
        raise ModelFileError(f"{path}: its outputs {names} come from different layers")
    if len(kinds := dict.fromkeys(losses)) > 1:
        raise ModelFileError(
            f"{path}: its outputs {names} are of different losses, {' and '.join(kinds)}: the one class of all "
            "has probabilities by a softmax, a yes or no by a logistic function; export one of them alone"
        )
    return Result(flows[0], losses[0] if losses else None, labels)


def classes(node: Node) -> list[int | str] | None:
    """The labels that a node knows: a ZipMap, a LabelEncoder of indices, or an extractor from a list of them."""
    given = node.attributes
    if node.operator == "ZipMap":
        return _plain(given.get("classlabels_int64s") or given.get("classlabels_strings"))
    lookup = node.operator in ("ArrayFeatureExtractor", "Gather")
    if lookup and isinstance(node.inputs[0], np.ndarray) and isinstance(node.inputs[1], End):
        return _plain(node.inputs[0].reshape(-1).tolist())
    if node.operator == "LabelEncoder":
        keys = given.get("keys_int64s")
        labels = given.get("values_strings") or given.get("values_int64s")
        if keys is not None and labels and sorted(keys) == list(range(len(labels))):
            return _plain([label for _, label in sorted(zip(keys, labels, strict=True))])
    return None


def _plain(labels: Any) -> list[int | str] | None:
    if not labels:
        return None
    made = [label.decode() if isinstance(label, bytes) else label for label in labels]
    return [int(label) if isinstance(label, float) and label.is_integer() else label for label in made]
