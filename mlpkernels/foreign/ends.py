"""What an ONNX graph makes of its last layer: probabilities, labels and the classes that those are."""

from typing import Any, NamedTuple

import numpy as np

from ..errors import ModelFileError
from .flow import End, Flow, Value
from .operations import Activation, Affine, refuse
from .operators import Node

_PASSED = {  # operators that make labels or dictionaries of probabilities, whatever way
    "ArgMax", "ArrayFeatureExtractor", "Binarizer", "Cast", "Concat", "Flatten", "Gather", "Greater", "GreaterOrEqual",
    "Identity", "LabelEncoder", "Less", "Log", "Not", "ReduceMax", "Reshape", "Squeeze", "Sub", "TopK", "Unsqueeze",
    "Where", "ZipMap",
}  # fmt: skip
_FIRST = {"ArgMax", "Binarizer", "Greater", "GreaterOrEqual", "Less", "ReduceMax", "TopK", "ZipMap"}  # of a flow
_LOSSES = {"logistic": "binary", "exp": "poisson"}


class Result(NamedTuple):
    """The flow of the logits, and the loss that the graph's end belongs to, None where it tells none."""

    flow: Flow
    loss: str | None


def apply(node: Node, flow: Flow | End) -> End | None:
    """The end of the graph that a node makes of a flow or another end; None where it is none."""
    if isinstance(flow, End):
        return flow if node.operator in _PASSED else None
    if node.operator in ("Softmax", "LogSoftmax"):
        if node.attributes.get("axis", -1) not in (1, -1) or flow.places.ndim != 1:
            raise ValueError(f"over axis {node.attributes.get('axis', -1)} of {flow.places.shape}; over the outputs "
                             "was wanted")  # fmt: skip
        return End(flow, "cross-entropy")
    if node.operator == "Concat":
        return _pair(node)
    return End(flow, None) if node.operator in _FIRST else None


def _pair(node: Node) -> End:
    """The two probabilities of a yes or no, 1 - p before p."""
    if len(node.inputs) == 2 and all(isinstance(value, Flow) for value in node.inputs):
        no, yes = node.inputs
        flow, kind = _stripped(yes)
        rest = no.operations[len(flow.operations) :]
        if kind == "binary" and no.operations[: len(flow.operations)] == flow.operations and _is_other(rest):
            return End(flow, "binary")
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
    for name, value in outputs:
        if isinstance(value, np.ndarray):
            raise refuse(path, f"output {name}", "it does not depend on the input")
        flow, loss = _stripped(value.flow if isinstance(value, End) else value)
        loss = (value.loss if isinstance(value, End) else None) or loss
        losses += [loss] if loss else []
        flows.append(flow)
        if (np.diff(flow.places.reshape(-1)) != 1).any():
            raise refuse(path, f"output {name}", "the outputs in another order than the last layer's")
    if not flows:
        raise ModelFileError(f"{path}: a graph without outputs")
    if any(flow.operations != flows[0].operations for flow in flows) or len(set(losses)) > 1:
        raise ModelFileError(f"{path}: its outputs {', '.join(name for name, _ in outputs)} come from different layers")
    return Result(flows[0], losses[0] if losses else None)


def classes(node: Node) -> list[int | str] | None:
    """The labels that a node knows: a ZipMap, a LabelEncoder of indices, or an extractor from a list of them."""
    given = node.attributes
    if node.operator == "ZipMap":
        return _plain(given.get("classlabels_int64s") or given.get("classlabels_strings"))
    if node.operator == "ArrayFeatureExtractor" and isinstance(node.inputs[0], np.ndarray):
        return _plain(node.inputs[0].reshape(-1).tolist())
    if node.operator == "LabelEncoder":
        keys = given.get("keys_int64s")
        labels = given.get("values_strings") or given.get("values_int64s")
        if keys is not None and list(keys) == list(range(len(keys))):
            return _plain(labels)
    return None


def _plain(labels: Any) -> list[int | str] | None:
    if not labels:
        return None
    made = [label.decode() if isinstance(label, bytes) else label for label in labels]
    return [int(label) if isinstance(label, float) and label.is_integer() else label for label in made]
