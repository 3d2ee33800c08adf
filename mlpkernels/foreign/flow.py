"""What runs along the edges of an ONNX graph while it is read: a sample on its way through operations."""

from dataclasses import dataclass, replace

import numpy as np

from .operations import Affine, Operation


@dataclass(frozen=True, eq=False)
class Flow:
    """A sample of the graph's input after some operations.

    inputs: the input's shape, (C, H, W) or (D,). operations: those so far. shape: what the last of them gives. places:
    for each value of the tensor in the graph, in its own shape without the batch, its place in that shape laid flat: so
    Transpose, Reshape and Flatten, and images with their channels last, need no operation of ours.
    """

    inputs: tuple[int, ...]
    operations: tuple[Operation, ...]
    shape: tuple[int, ...]
    places: np.ndarray

    @classmethod
    def start(cls, given: tuple[int, ...], shape: tuple[int, ...]) -> "Flow":
        """The graph's input, of shape `given`, as a sample of `shape`: the same, (C, H, W) of an image (H, W, C), or
        its values in another shape."""
        places = np.arange(np.prod(shape))
        if len(given) == len(shape) == 3 and given != shape:
            return cls(shape, (), shape, places.reshape(shape).transpose(1, 2, 0))
        return cls(shape, (), shape, places.reshape(given))

    @property
    def ordered(self) -> bool:
        """Whether the graph's tensor is the operation's own, in shape and order."""
        return self.places.shape == self.shape and bool((np.diff(self.places.reshape(-1)) == 1).all())

    def moved(self, places: np.ndarray) -> "Flow":
        """The same values in another shape or order."""
        return replace(self, places=places)

    def then(self, operation: Operation, shape: tuple[int, ...] | None = None) -> "Flow":
        """After one more operation; shape: of what it gives, where it is another."""
        operations = (*self.operations, operation)
        if shape is None:
            return replace(self, operations=operations)
        return Flow(self.inputs, operations, shape, np.arange(np.prod(shape)).reshape(shape))

    def without_last(self) -> "Flow":
        """Before the last operation, which changed no shape."""
        return replace(self, operations=self.operations[:-1])

    def affine(self, where: str, factor: np.ndarray, offset: np.ndarray) -> "Flow":
        """After value · factor + offset, given in the graph's order, of any shape that broadcasts to the tensor's."""
        parts = []
        for values in (factor, offset):
            ordered = np.empty(self.places.size)
            ordered[self.places.reshape(-1)] = np.broadcast_to(values, self.places.shape).reshape(-1)
            parts.append(ordered.reshape(self.shape))
        return self.then(Affine(where, *parts))

    def as_image(self) -> "Flow | None":
        """With its tensor (C, H, W) in the operation's order: so it is, or no layer has seen it yet; None where not."""
        if self.places.ndim != 3:
            return None
        if self.ordered:
            return self
        if not all(isinstance(operation, Affine) for operation in self.operations):
            return None
        shape = self.places.shape
        order = self.places.reshape(-1)
        moved = tuple(
            Affine(op.where, *(part.reshape(-1)[order].reshape(shape) for part in (op.factor, op.offset)))
            for op in self.operations
            if isinstance(op, Affine)
        )
        return Flow(shape, moved, shape, np.arange(order.size).reshape(shape))


@dataclass(frozen=True, eq=False)
class End:
    """What a graph makes of the last layer's outputs: a loss's name, and the flow of logits that it belongs to;
    pair: of a yes or no, the probabilities of both."""

    flow: Flow
    loss: str | None
    pair: bool = False


Value = np.ndarray | Flow | End
