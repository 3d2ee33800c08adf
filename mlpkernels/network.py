"""The network: layers become a plan and one flat parameter array; it predicts, evaluates, saves and loads."""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from . import files, kernels, seeds
from . import layers as architecture
from .arrays import (
    as_rows,
    check_classes,
    check_dtype,
    check_shape,
    chunk_rows,
    class_indices,
    for_kernels,
    mean_one,
    scale_rows,
)  # fmt: skip
from .errors import ModelFileError
from .kernels import plan as plans
from .kernels.plan import Model, Source, Workspace
from .layers import Dense
from .pace import Pace, pace_for
from .scaling import Scaling

_FEW = 32  # rows of the small workspace, for one sample or a few
_MANY = 1024  # rows of the large one; fewer where they would take more than _ROOM
_ROOM = 2**25  # bytes


class Network:
    """A trained or untrained multi-layer perceptron.

    layers: the dense layers, the last without activation (its outputs are the logits). inputs: D, or the
    shape of a sample, (C, H, W) for images. classes: a label for each output, by default 0, 1, …. dtype:
    "float32" or "float64". init: initial values, one of `layers.INITS`, drawn from `seed`. scaling: what
    turns raw inputs into the network's, or None. ValueError or TypeError names an argument that does not
    fit.

    Attributes: layers, shape, inputs (D), classes (tuple), dtype, scaling, plan (the kernels' table) and
    params, its flat array (P,), whose rows are padded with zeros: change parameters through `parameters()`.
    """

    def __init__(
        self,
        layers: Sequence[Dense],
        inputs: int | tuple[int, ...],
        *,
        classes: Sequence[int | str] | None = None,
        dtype: Any = "float32",
        init: str = "he-normal",
        seed: int = 0,
        scaling: Scaling | None = None,
    ) -> None:
        self._build(layers, inputs, classes, dtype, init, scaling)
        self._draw(seed)

    def _build(
        self, stack: Sequence[Dense], inputs: Any, classes: Sequence[int | str] | None, dtype: Any, init: str,
        scaling: Scaling | None,
    ) -> None:  # fmt: skip
        """Everything but the initial values."""
        self.layers = tuple(stack)
        architecture.check_stack(self.layers)
        self.shape = check_shape(inputs)
        self.inputs = math.prod(self.shape)
        self.classes = check_classes(classes, self.layers[-1].outputs)
        self.dtype = check_dtype(dtype)
        self.init = architecture.check_init(init)
        self.scaling = scaling
        if scaling is not None and scaling.width not in (None, self.inputs):
            raise ValueError(f"scaling: it was fitted to {scaling.width} columns, inputs are {self.inputs}")
        sizes = [self.inputs, *(layer.outputs for layer in self.layers)]
        self.plan, size = plans.build(
            [(i, o, layer.code) for i, o, layer in zip(sizes, sizes[1:], self.layers, strict=False)]
        )
        self.params = plans.zeros(size, self.dtype)
        self._workspaces: dict[tuple[str, int], list[Workspace]] = {}
        self._paces: dict[int, Pace] = {}

    def _draw(self, seed: int) -> None:
        generator = seeds.generator(seed, seeds.INITIAL_VALUES)
        for layer, weights, biases in self._blocks(self.params):
            inputs, outputs = weights.shape
            start = architecture.initial_values(layer.init or self.init, inputs, outputs, generator)
            weights[...], biases[...] = start

    # ---- parameters

    def _blocks(self, flat: np.ndarray) -> Iterator[tuple[Dense, np.ndarray, np.ndarray]]:
        """Each layer with its weights (I, O) and biases (O,) as views of a flat array like params."""
        for row, layer in enumerate(self.layers):
            yield layer, plans.weight_view(self.plan, row, flat), plans.bias_view(self.plan, row, flat)

    def views(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        """Named views, weights (I, O), of a flat array (P,) laid out as params: a gradient, for instance."""
        named, module = {}, 0
        for layer, weights, biases in self._blocks(flat):
            named[f"{module}.weight"], named[f"{module}.bias"] = weights, biases
            module += layer.modules
        return named

    def parameters(self) -> dict[str, np.ndarray]:
        """The parameters as named views: weights (I, O) and biases (O,); what is written there counts.

        Names are those of the equal torch.nn.Sequential, where a ReLU is a module too: 0.weight, 2.weight, ….
        """
        return self.views(self.params)

    def tensors(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        """Named copies of a flat array (P,) laid out as params, unpadded and C-contiguous, weights (O, I)."""
        return {name: np.array(view.T, order="C", copy=True) for name, view in self.views(flat).items()}

    def flatten(self, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        """The flat array (P,) of named tensors, weights (O, I); the reverse of `tensors`.

        ValueError names one that is missing, too many, of another shape or not finite.
        """
        flat = plans.zeros(self.params.size, self.dtype)
        views = self.views(flat)
        _check_tensors(tensors, {name: view.T.shape for name, view in views.items()})
        for name, view in views.items():
            with np.errstate(over="ignore"):
                view[...] = np.asarray(tensors[name]).T
            if not np.isfinite(view).all():
                raise ValueError(f"{name} holds a value that is not finite in {self.dtype}; finite weights were wanted")
        return flat

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of the parameters as torch.nn.Sequential has them: weights (O, I), biases (O,)."""
        return self.tensors(self.params)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over parameters named and shaped as in `state_dict`; all or, on a ValueError, none."""
        self.params[...] = self.flatten(state)

    @property
    def parameter_count(self) -> int:
        """The number of weights and biases."""
        return sum(view.size for view in self.parameters().values())

    @property
    def flops(self) -> int:
        """Floating-point operations of a sample's forward pass: two for each weight."""
        return 2 * sum(weights.size for _, weights, _ in self._blocks(self.params))

    @property
    def model(self) -> Model:
        """What kernels take: the plan and the parameters, not copied."""
        return Model(self.plan, self.params)

    # ---- inputs

    def source(self, x: Any, y: Any = None, weights: Any = None) -> Source:
        """Raw inputs, labels (None: class 0) and weights (None: 1), checked and converted for kernels.

        x (N, D) or (N, *shape): uint8 with one scale for all columns stays as it is, not copied; else it is
        scaled. y (N,) holds classes; weights (N,) are taken as they are. DataError or TypeError names what
        does not fit.
        """
        rows = as_rows(x, self.shape)
        indices = None if y is None else class_indices(y, self.classes, len(rows))
        if weights is not None:
            weights = np.ascontiguousarray(weights, self.dtype)
            if weights.shape != (len(rows),):
                raise ValueError(f"weights: shape ({len(rows)},) was wanted, not {weights.shape}")
        return self.rows_source(rows, indices, weights)

    def rows_source(
        self,
        rows: np.ndarray,
        indices: np.ndarray | None,
        weights: np.ndarray | None,
        name: str = "x",
        first: int = 0,
    ) -> Source:
        """A Source of rows from `arrays.as_rows`; errors use `name` and `first`, the first row's number."""
        scalar, count = self.dtype.type, len(rows)
        factor, offset = scalar(1), scalar(0)
        images, values = np.empty((0, self.inputs), np.uint8), np.empty((0, self.inputs), self.dtype)
        if rows.dtype == np.uint8 and (self.scaling is None or self.scaling.is_scalar):
            images = for_kernels(rows)
            if self.scaling is not None:
                factor, offset = scalar(self.scaling.factor), scalar(self.scaling.offset)
        else:
            values = for_kernels(scale_rows(rows, self.scaling, self.dtype, name, first))
        labels = np.zeros(count, np.int32) if indices is None else for_kernels(indices)
        weights = np.ones(count, self.dtype) if weights is None else for_kernels(weights)
        return Source(images, values, factor, offset, labels, weights)

    # ---- predictions

    def predict_logits(self, x: Any, *, threads: int | None = None, backend: str = "cpu") -> np.ndarray:
        """The last layer's outputs (N, K) for raw inputs x (N, D) or (N, *shape), as the data set has them.

        x is checked, converted and scaled in chunks, and never modified; N = 0 is fine. threads None takes one or
        all cores, whichever was faster of late. DataError or TypeError names a wrong shape, dtype
        or a value that is not finite.
        """
        return self._predict(x, None, threads, backend)

    def predict_proba(self, x: Any, *, threads: int | None = None, backend: str = "cpu") -> np.ndarray:
        """The probability of each class (N, K); else as `predict_logits`."""
        return self._predict(x, "softmax", threads, backend)

    def predict_log_proba(self, x: Any, *, threads: int | None = None, backend: str = "cpu") -> np.ndarray:
        """The logarithm of each class's probability (N, K); else as `predict_logits`."""
        return self._predict(x, "log_softmax", threads, backend)

    def predict(self, x: Any, *, threads: int | None = None, backend: str = "cpu") -> np.ndarray:
        """The most probable class of each row (N,), as in `classes`; else as `predict_logits`."""
        return np.array(self.classes)[self._predict(x, None, threads, backend).argmax(axis=1)]

    def _predict(self, x: Any, op: str | None, threads: int | None, backend: str) -> np.ndarray:
        compiled = kernels.load(backend)
        pace = pace_for(threads, self._paces)
        rows = as_rows(x, self.shape)
        out = np.empty((len(rows), len(self.classes)), self.dtype)
        step = chunk_rows(self.inputs)
        work = self.take_workspace(compiled, len(rows))
        for first in range(0, len(rows), step):
            part, chunk = rows[first : first + step], out[first : first + step]
            source = self.rows_source(part, None, None, first=first)
            pace.call(len(part), partial(compiled.predict, self.model, source, 0, len(part), work, chunk))
            if op is not None:
                getattr(compiled, op)(chunk, chunk)
        self.give_workspace(compiled, work)
        return out

    def evaluate(
        self, x: Any, y: Any, sample_weight: Any = None, *, threads: int | None = None, backend: str = "cpu"
    ) -> tuple[float, float]:
        """(mean cross-entropy, share of right predictions) on raw inputs x and labels y (N,), N from 1.

        sample_weight (N,) weights the mean (Σ w l / Σ w), not the share. DataError or TypeError names what
        does not fit.
        """
        rows = as_rows(x, self.shape)
        if len(rows) == 0:
            raise ValueError("x has no rows: at least one was wanted")
        indices = class_indices(y, self.classes, len(rows))
        weights = mean_one(sample_weight, len(rows), self.dtype)
        step = chunk_rows(self.inputs)
        chunks = (
            self.rows_source(rows[i : i + step], indices[i : i + step], weights[i : i + step], first=i)
            for i in range(0, len(rows), step)
        )
        loss, correct = self.evaluate_sources(chunks, kernels.load(backend), threads)
        return loss / len(rows), correct / len(rows)

    def evaluate_sources(
        self, sources: Iterable[Source], compiled: ModuleType, threads: int | None
    ) -> tuple[float, int]:  # fmt: skip
        """(Σ weight · loss, correct count) over all rows of some sources, in their order."""
        pace = pace_for(threads, self._paces)
        loss, correct = 0.0, 0
        work = self.take_workspace(compiled, _MANY)
        for source in sources:
            rows = len(source.labels)
            step = chunk_rows(self.inputs)
            for first in range(0, rows, step):
                stop = min(first + step, rows)
                part = pace.call(stop - first, partial(compiled.evaluate, self.model, source, first, stop, work))
                loss, correct = loss + part[0], correct + part[1]
        self.give_workspace(compiled, work)
        return float(loss), int(correct)

    def take_workspace(self, compiled: ModuleType, rows: int) -> Workspace:
        """A workspace for many or few rows that no other thread uses: one given back, or a new one."""
        wide = int(self.plan[:, plans.OUT_STRIDE].sum()) * 2 + self.inputs
        batch = _FEW if rows <= _FEW else max(_FEW, min(_MANY, _ROOM // (wide * self.dtype.itemsize)))
        try:
            return self._workspaces[compiled.__name__, batch].pop()  # atomic, so threads need no lock
        except (KeyError, IndexError):
            return compiled.make_workspace(self.plan, batch, self.dtype)

    def give_workspace(self, compiled: ModuleType, work: Workspace) -> None:
        """Keep a workspace for the next call; one that an error kept from coming back is simply made anew."""
        self._workspaces.setdefault((compiled.__name__, len(work.losses)), []).append(work)

    # ---- files, copies, words

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write model.safetensors: tensors as the equal torch.nn.Sequential has them, all else as metadata.

        Atomic: an OSError (no folder, disk full) leaves what was there. ValueError unless all weights are
        finite.
        """
        tensors = self.state_dict()
        for name, tensor in tensors.items():
            if not np.isfinite(tensor).all():
                raise ValueError(f"{name} holds a value that is not finite: a network that diverged is not saved")
        files.write_tensors(path, tensors, {"kind": "model", **self.describe()})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Network":
        """The network of a file that `save` wrote. FileNotFoundError; ModelFileError says what is wrong."""
        tensors, metadata = files.read_tensors(path, "model")
        return cls.restore(tensors, metadata, path)

    def describe(self) -> dict[str, str]:
        """Everything but the parameters, as texts for a file's metadata."""
        return {
            "architecture": json.dumps([layer.to_json() for layer in self.layers]),
            "init": self.init,
            "shape": json.dumps(self.shape),
            "classes": json.dumps(self.classes),
            "dtype": self.dtype.name,
            "scaling": json.dumps(self.scaling.to_json() if self.scaling is not None else None),
        }

    @classmethod
    def restore(
        cls, tensors: Mapping[str, np.ndarray], description: Mapping[str, str], path: str | os.PathLike[str]
    ) -> "Network":
        """The network of `describe`'s texts and `state_dict`'s tensors; ModelFileError names the reason."""
        try:
            stack = [architecture.from_json(layer) for layer in json.loads(description["architecture"])]
            architecture.check_stack(stack)
            shape = check_shape(tuple(json.loads(description["shape"])))
            _check_tensors(tensors, architecture.tensor_shapes(stack, math.prod(shape)))  # before anything is allocated
            dtype = check_dtype(description["dtype"])
            strange = {tensor.dtype.name for tensor in tensors.values()} - {dtype.name}
            if strange:
                raise ValueError(f"tensors of {strange.pop()} in a network of {dtype}")
            scaling = json.loads(description["scaling"])
            network = cls.__new__(cls)
            network._build(
                stack, shape, json.loads(description["classes"]), dtype, description["init"],
                None if scaling is None else Scaling.from_json(scaling),
            )  # fmt: skip
            network.load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            raise ModelFileError(
                f"{os.fspath(path)} does not describe a network: {reason}; it is damaged or of another "
                "program: save it again with Network.save"
            ) from None
        return network

    def copy(self) -> "Network":
        """An independent copy."""
        return _rebuild(*self._parts())

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> "Network":
        return self.copy()

    def _parts(self) -> tuple[Any, ...]:
        arguments = (self.layers, self.shape, self.classes, self.dtype.name, self.init, self.scaling)
        return type(self), arguments, self.state_dict()

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, self._parts()  # unpadded: the padding may differ where it is unpickled

    def __repr__(self) -> str:
        shape = self.shape if len(self.shape) > 1 else self.inputs
        return f"Network({list(self.layers)}, inputs={shape}, dtype='{self.dtype}')"

    def summary(self) -> str:
        """A table of the layers for people: sizes, parameters, bytes, operations."""
        lines = [f"{'layer':<24}{'shape':<16}{'parameters':>14}"]
        for layer, weights, biases in self._blocks(self.params):
            kind = "Dense" if layer.activation is None else f"Dense + {layer.activation}"
            shape = " → ".join(map(str, weights.shape))
            lines.append(f"{kind:<24}{shape:<16}{weights.size + biases.size:>14,}")
        size = self.parameter_count * self.dtype.itemsize
        lines.append(f"{'total':<40}{self.parameter_count:>14,}")
        lines.append(f"{size:,} bytes of {self.dtype}, {self.flops:,} FLOPs a sample")
        return "\n".join(lines)


def _rebuild(kind: type[Network], arguments: tuple[Any, ...], tensors: dict[str, np.ndarray]) -> Network:
    network = kind.__new__(kind)
    network._build(*arguments)
    for name, view in network.parameters().items():
        view[...] = tensors[name].T  # unchecked: a network that diverged can be copied too
    return network


def _check_tensors(tensors: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse, by ValueError, tensors whose names or shapes are not those wanted."""
    for name, shape in shapes.items():
        if name not in tensors:
            raise ValueError(f"{name} is missing; {', '.join(shapes)} were wanted")
        if np.shape(tensors[name]) != shape:
            raise ValueError(f"{name} has shape {np.shape(tensors[name])}; {shape} was wanted")
    extra = sorted(set(tensors) - set(shapes))
    if extra:
        raise ValueError(f"{extra[0]} was not expected; {', '.join(shapes)} were wanted")
