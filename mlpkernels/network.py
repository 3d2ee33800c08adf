"""The network: layers become a plan and flat arrays of parameters; it predicts, evaluates, saves and loads."""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from . import files, kernels, losses, seeds
from . import layers as architecture
from .arrays import (
    as_rows,
    check_dtype,
    check_shape,
    chunk_rows,
    for_kernels,
    mean_one,
    mostly_zero,
    scale_rows,
    thread_count,
)  # fmt: skip
from .errors import ModelFileError
from .kernels import plan as plans
from .kernels.plan import Model, Source
from .layers import Layer
from .losses import Answers
from .pace import Pace, pace_for
from .scaling import Scaling
from .tensors import Naming, check_dtypes, check_shapes
from .workspaces import FEW, MANY, Workspaces

if TYPE_CHECKING:
    from .compiled import CompiledNetwork, FewRows

# Of one compiled call: floating-point operations, for which Ctrl-C waits some 50 ms, and rows. 10,000 images in ten
# calls, each with its checks, took half as long again as in one.
_CALL_FLOPS, _CALL_ROWS = 2**32, 2**16


class Network:
    """A trained or untrained network.

    layers: of the kinds in `layers`, the last a Dense without activation (its K outputs are the logits). inputs: D,
    or the shape of a sample, (C, H, W) for images. loss: what it is trained to. "cross-entropy": one of K classes.
    "binary": yes or no, one of two classes (K = 1) or any number of K. "squared-error": K numbers, their error the mean
    over rows and outputs. "poisson": K rates of counts, whose logarithms are the logits, by half the deviance. classes:
    a label for each output, by default 0, 1, …; two where "binary" has one output; none for numbers. dtype: "float32"
    or "float64". init: initial values, one of `layers.INITS`, drawn from `seed`. scaling: what turns raw inputs into
    the network's, or None. ValueError or TypeError names an argument that does not fit.

    Attributes: layers, shape, inputs (D), outputs (K), loss (its name), classes (tuple), dtype, scaling, plan (the
    kernels' table), params, its flat array (P,), whose rows are padded with zeros: change parameters through
    `parameters()`, and buffers (S,) float64, the running statistics of batch norms, empty without: see `statistics()`.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        inputs: int | tuple[int, ...],
        *,
        loss: str = "cross-entropy",
        classes: Sequence[int | str] | None = None,
        dtype: Any = "float32",
        init: str = "he-normal",
        seed: int = 0,
        scaling: Scaling | None = None,
    ) -> None:
        self._build(layers, inputs, classes, dtype, init, scaling, loss)
        self._draw(seed)

    def _build(
        self, stack: Sequence[Layer], inputs: Any, classes: Sequence[int | str] | None, dtype: Any, init: str,
        scaling: Scaling | None, loss: str,
    ) -> None:  # fmt: skip
        """Everything but the initial values."""
        self.layers = tuple(stack)
        architecture.check_stack(self.layers)
        self.shape = check_shape(inputs)
        self.inputs = math.prod(self.shape)
        self._rows = rows = architecture.rows(self.layers, self.shape)
        self.outputs = rows[-1].weights[1]
        self._loss = losses.make(loss, self.outputs, classes)
        self.loss, self.classes = self._loss.name, self._loss.classes
        self.dtype = check_dtype(dtype)
        self.init = architecture.check_init(init)
        self.scaling = scaling  # checked, as whenever it is set
        self._plan, size = plans.build(rows, self._loss.code)
        self._params = plans.zeros(size, self.dtype)
        self._buffers = np.zeros(plans.buffer_size(self._plan))
        self._rates = np.array([row.rates for row in rows], np.float64)
        self._seed: int | None = None  # of initial values that may still be there
        self._naming = Naming(self.plan, architecture.module_numbers(self.layers, rows))
        for name, view in self.statistics().items():
            view[...] = name.endswith("running_var")
        self._workspaces = Workspaces(self._plan, self.dtype)
        self._paces: dict[int, Pace] = {}
        self._compiled: tuple[Scaling | None, CompiledNetwork] | None = None
        self._few: FewRows | None = None

    def _draw(self, seed: int) -> None:
        self._seed = seeds.check_seed(seed)
        for view, values in self._initial(self._seed):
            view[...] = values

    def _initial(self, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Each view of the parameters with the initial values that a seed draws for it."""
        generator = seeds.generator(seed, seeds.INITIAL_VALUES)
        for number, (layer, row) in enumerate(zip(self.layers, self._rows, strict=True)):
            if row.weights[1]:
                weights, biases = layer.initial(row, self.init, generator)
                yield plans.weight_view(self.plan, number, self.params), weights
                yield plans.bias_view(self.plan, number, self.params), biases

    # ---- parameters

    # The arrays stay the same ones: compiled code and C hold their addresses. What is in them may change.

    @property
    def plan(self) -> np.ndarray:
        """The table that the kernels take (L, COLUMNS), see kernels/plan.py."""
        return self._plan

    @property
    def params(self) -> np.ndarray:
        """All parameters (P,), rows padded with zeros; to be written into, params[...] = values, never replaced."""
        return self._params

    @property
    def buffers(self) -> np.ndarray:
        """The running statistics (S,) float64; see `statistics`."""
        return self._buffers

    @property
    def scaling(self) -> Scaling | None:
        """What turns raw inputs into the network's; ValueError for one fitted to another number of columns."""
        return self._scaling

    @scaling.setter
    def scaling(self, scaling: Scaling | None) -> None:
        if scaling is not None and scaling.width not in (None, self.inputs):
            raise ValueError(f"scaling: it was fitted to {scaling.width} columns, inputs are {self.inputs}")
        self._scaling = scaling

    def views(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        """Named views, as `parameters` has them, of a flat array (P,) laid out as params: a gradient, for instance."""
        return self._naming.views(flat)

    def parameters(self) -> dict[str, np.ndarray]:
        """The parameters as named views; what is written there counts.

        Weights are (I, O) of a Dense, (O, C, kh, kw) of a Conv2d, (C,) of a BatchNorm (its gamma); biases (O,). Names
        are those of the equal torch.nn.Sequential, where a ReLU is a module too, and a Flatten before a Dense that
        reads images: 0.weight, 2.weight, ….
        """
        return self.views(self.params)

    def statistics(self) -> dict[str, np.ndarray]:
        """The batch norms' running_mean, running_var (C,) and num_batches_tracked (1,) as named views, float64."""
        return self._naming.statistics(self.buffers)

    def tensors(self, flat: np.ndarray, buffers: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Named copies of a flat array (P,) laid out as params, and of buffers (S,), if given; see `state_dict`."""
        return self._naming.tensors(flat, buffers)

    def flatten(self, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        """The flat array (P,) of named tensors, weights (O, I); the reverse of `tensors` without buffers.

        ValueError names one that is missing, too many or of another shape. Values may be infinite, as an optimiser's
        memory is of gradients too large to square.
        """
        flat = plans.zeros(self.params.size, self.dtype)
        self._naming.write(tensors, flat, checked=True)
        return flat

    def flatten_all(self, tensors: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """The flat array (P,) and the buffers (S,) of tensors as `state_dict` gives them.

        ValueError as `flatten`, and for a value that is not finite.
        """
        flat, buffers = plans.zeros(self.params.size, self.dtype), np.zeros(self.buffers.size)
        self._naming.read(tensors, flat, buffers)
        return flat, buffers

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of parameters and running statistics, named and shaped as torch.nn.Sequential has them.

        Weights are (O, I) of a Dense, else as in `parameters`; num_batches_tracked is an int64 scalar.
        """
        return self.tensors(self.params, self.buffers)

    def finite_state_dict(self) -> dict[str, np.ndarray]:
        """`state_dict` for a file: ValueError where a value is not finite."""
        tensors = self.state_dict()
        for name, tensor in tensors.items():
            if not np.isfinite(tensor).all():
                raise ValueError(f"{name} holds a value that is not finite: a network that diverged is not saved")
        return tensors

    @property
    def finite(self) -> bool:
        """Whether all parameters and running statistics are finite: those of a training that diverged are not."""
        tensors = (*self.parameters().values(), *self.statistics().values())  # what pads them may hold anything
        return all(bool(np.isfinite(tensor).all()) for tensor in tensors)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what is named and shaped as in `state_dict`; all or, on a ValueError, nothing."""
        self.params[...], self.buffers[...] = self.flatten_all(state)
        self._seed = None

    @property
    def untrained(self) -> bool:
        """Whether all parameters are the initial values still, as `seed` drew them.

        They are no more once any is changed, by `fit` or by hand, or all are loaded, be it the same ones.
        """
        if self._seed is not None:
            pairs = self._initial(self._seed)
            if not all(np.array_equal(view, values.astype(self.dtype)) for view, values in pairs):
                self._seed = None  # once is enough: a network is saved again and again
        return self._seed is not None

    @property
    def parameter_count(self) -> int:
        """The number of weights and biases, a batch norm's gamma and beta among them."""
        return sum(view.size for view in self.parameters().values())

    @property
    def flops(self) -> int:
        """Floating-point operations of a sample's products, forward: two a weight, of a convolution at each pixel.

        Those of pools, batch norms and activations, few beside them, are not counted.
        """
        products = self.plan[np.isin(self.plan[:, plans.KIND], (plans.DENSE, plans.CONV))]
        factors = [plans.INPUTS, plans.OUTPUTS, plans.OUT_HEIGHT, plans.OUT_WIDTH]  # both 1 of a dense layer
        return 2 * int(products[:, factors].prod(axis=1).sum())

    @property
    def model(self) -> Model:
        """What kernels take: the plan, the parameters and the buffers, not copied."""
        return Model(self.plan, self.params, self.buffers, self._rates)

    # ---- inputs

    def source(self, x: Any, y: Any = None, weights: Any = None) -> Source:
        """Raw inputs, what they should give (None: class 0, or zeros) and weights (None: 1), for kernels.

        x (N, D) or (N, *shape): uint8 with one scale for all columns stays as it is, not copied; else it is
        scaled. y (N,) holds classes; for more than one yes or no (N, K) of 0 and 1; where numbers are predicted (N, K),
        of one output (N,) too. weights (N,) are taken as they are, times what makes a mean of the sum over outputs.
        DataError or TypeError names what does not fit.
        """
        rows = as_rows(x, self.shape)
        answers = None if y is None else self.answers(y, len(rows))
        if weights is not None:
            weights = np.ascontiguousarray(weights, self.dtype)
            if weights.shape != (len(rows),):
                raise ValueError(f"weights: shape ({len(rows)},) was wanted, not {weights.shape}")
        return self.rows_source(rows, answers, weights)

    def answers(self, y: Any, rows: int, name: str = "y") -> Answers:
        """y of so many rows, as in `source`, checked and converted; DataError or TypeError names what does not fit."""
        return self._loss.answers(y, rows, self.dtype, name)

    def rows_source(
        self,
        rows: np.ndarray,
        answers: Answers | None,
        weights: np.ndarray | None,
        name: str = "x",
        first: int = 0,
    ) -> Source:
        """A Source of rows from `arrays.as_rows`; errors use `name` and `first`, the first row's number."""
        scalar, count = self.dtype.type, len(rows)
        factor, offset = scalar(1), scalar(0)
        images, values = np.empty((0, self.inputs), np.uint8), np.empty((0, self.inputs), self.dtype)
        if self._as_they_are(rows):
            images = for_kernels(rows)
            if self.scaling is not None:
                factor, offset = scalar(self.scaling.factor), scalar(self.scaling.offset)
        else:
            values = for_kernels(scale_rows(rows, self.scaling, self.dtype, name, first))
        if answers is None:
            wide = (0, 0) if self.loss == "cross-entropy" else (count, self.outputs)
            answers = Answers(np.zeros(count, np.int32), np.zeros(wide, self.dtype))
        labels, targets = for_kernels(answers.labels), for_kernels(answers.targets.astype(self.dtype, copy=False))
        weights = self.loss_weights(np.ones(count, self.dtype) if weights is None else weights)
        return Source(images, values, factor, offset, labels, weights, mostly_zero(images), targets)

    def loss_weights(self, weights: np.ndarray) -> np.ndarray:
        """The rows' weights (N,) as kernels take them: they make the mean of a loss summed over outputs, too."""
        scale = self._loss.scale
        return for_kernels(weights) if scale == 1 else weights * self.dtype.type(scale)

    def accuracy(self, correct: int, rows: int) -> float:
        """The share of rows that are right; nan where numbers are predicted."""
        return self._loss.accuracy(correct, rows)

    # ---- predictions

    def predict_logits(self, x: Any, *, threads: int | None = None, backend: str = "cpu") -> np.ndarray:
        """The last layer's outputs (N, K) for raw inputs x (N, D) or (N, *shape), as the data set has them.

        x is checked, converted and scaled in chunks, and never modified; N = 0 is fine. threads None takes one or
        all cores, whichever was faster of late. DataError or TypeError names a wrong shape, dtype
        or a value that is not finite.
        """
        return self._predict(x, threads, backend)

    def predict_proba(self, x: Any, *, threads: int | None = None, backend: str = "cpu") -> np.ndarray:
        """The probability of each class (N, K); else as `predict_logits`. ValueError where numbers are predicted."""
        return self._probabilities(x, False, threads, backend)

    def predict_log_proba(self, x: Any, *, threads: int | None = None, backend: str = "cpu") -> np.ndarray:
        """The logarithm of each class's probability (N, K); else as `predict_proba`."""
        return self._probabilities(x, True, threads, backend)

    def predict(self, x: Any, *, threads: int | None = None, backend: str = "cpu") -> np.ndarray:
        """The most probable class of each row (N,), as in `classes`; else as `predict_logits`.

        Where a row may have any number of K classes, 0 or 1 for each (N, K); where numbers are predicted, those (N, K).
        """
        return self._loss.predictions(self._predict(x, threads, backend))

    def _probabilities(self, x: Any, logarithm: bool, threads: int | None, backend: str) -> np.ndarray:
        losses.check_has_classes(self._loss)
        logits = self._predict(x, threads, backend)
        if backend == "cpu" and len(logits) <= FEW and self.loss == "cross-entropy":
            return self._few_rows().softmax(logits, logarithm)  # without the public op's checks, 7 µs of 11
        return self._loss.probabilities(logits, kernels.load(backend), logarithm)

    def _predict(self, x: Any, threads: int | None, backend: str) -> np.ndarray:
        if type(x) is np.ndarray and x.ndim > 1 and len(x) <= FEW and backend == "cpu":
            if threads is not None:
                thread_count(threads)  # refuses what is none
            if (few := self._few_rows()(x)) is not None:
                return few
        compiled = kernels.load(backend)
        pace = pace_for(threads, self._paces)
        rows = as_rows(x, self.shape)
        out = np.empty((len(rows), self.outputs), self.dtype)
        step = len(rows) if self._as_they_are(rows) else chunk_rows(self.inputs)
        work = self._workspaces.take(compiled, self._workspaces.room(len(rows)))
        for first in range(0, len(rows), max(1, step)):
            source, chunk = self.rows_source(rows[first : first + step], None, None, first=first), out[first:]
            for start, stop in self._calls(len(source.labels), pace):
                predict = partial(compiled.predict, self.model, source, start, stop, work, chunk[start:stop])
                pace.call(stop - start, predict)
        self._workspaces.give(compiled, work)
        return out

    def _as_they_are(self, rows: np.ndarray) -> bool:
        """Whether kernels read rows without a scaled copy: bytes, scaled as they are gathered."""
        return rows.dtype == np.uint8 and (self.scaling is None or self.scaling.is_scalar)

    def _calls(self, rows: int, pace: Pace) -> Iterator[tuple[int, int]]:
        """(start, stop) of compiled calls that together do so many rows; short where `pace` tries a way."""
        most, start = max(FEW, min(_CALL_FLOPS // max(1, self.flops), _CALL_ROWS)), 0
        while start < rows:
            stop = min(start + pace.rows(most), rows)
            yield start, stop
            start = stop

    def compiled(self) -> "CompiledNetwork":
        """The network as a value for your own @njit functions, C or SciPy: see `mlpkernels.compiled`.

        It takes raw inputs, scales them as `scaling` now says, and sees every later change of parameters.
        """
        if self._compiled is None or self._compiled[0] is not self.scaling:
            from .compiled import compile_network

            self._compiled = self.scaling, compile_network(self)
        return self._compiled[1]

    def _few_rows(self) -> "FewRows":
        if self._few is None or self._few.scaling is not self.scaling:
            from .compiled import FewRows

            self._few = FewRows(self)
        return self._few

    def evaluate(
        self, x: Any, y: Any, sample_weight: Any = None, *, threads: int | None = None, backend: str = "cpu"
    ) -> tuple[float, float]:
        """(mean loss, share of right predictions) on raw inputs x and answers y as in `source`, N from 1.

        The share is nan where numbers are predicted. sample_weight (N,) weights the mean (Σ w l / Σ w), not the share.
        DataError or TypeError names what does not fit.
        """
        rows = as_rows(x, self.shape)
        if len(rows) == 0:
            raise ValueError("x has no rows: at least one was wanted")
        answers = self.answers(y, len(rows))
        weights = mean_one(sample_weight, len(rows), self.dtype)
        step = len(rows) if self._as_they_are(rows) else chunk_rows(self.inputs)
        chunks = (
            self.rows_source(
                rows[i : i + step], Answers(*(part[i : i + step] for part in answers)), weights[i : i + step], first=i
            )
            for i in range(0, len(rows), step)
        )
        loss, correct = self.evaluate_sources(chunks, kernels.load(backend), threads)
        return loss / len(rows), self.accuracy(correct, len(rows))

    def evaluate_sources(
        self, sources: Iterable[Source], compiled: ModuleType, threads: int | None
    ) -> tuple[float, int]:  # fmt: skip
        """(Σ weight · loss, correct count) over all rows of some sources, in their order."""
        pace = pace_for(threads, self._paces)
        loss, correct = 0.0, 0
        work = self._workspaces.take(compiled, self._workspaces.room(MANY))
        for source in sources:
            for start, stop in self._calls(len(source.labels), pace):
                part = pace.call(stop - start, partial(compiled.evaluate, self.model, source, start, stop, work))
                loss, correct = loss + part[0], correct + part[1]
        self._workspaces.give(compiled, work)
        return float(loss), int(correct)

    # ---- files, copies, words

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write model.safetensors: tensors as the equal torch.nn.Sequential has them, all else as metadata.

        Atomic: an OSError (no folder, disk full) leaves what was there. ValueError unless all weights and running
        statistics are finite.
        """
        tensors = self.finite_state_dict()
        seed = {"seed": str(self._seed)} if self.untrained else {}
        files.write_tensors(path, tensors, {"kind": "model", **self.describe(), **seed}, self.format_version)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Network":
        """The network of a file that `save` wrote. FileNotFoundError; ModelFileError says what is wrong."""
        tensors, metadata = files.read_tensors(path, "model")
        return cls.restore(tensors, metadata, path)

    @property
    def format_version(self) -> int:
        """The oldest format of files that tells all of it: before 2 there was no loss but cross-entropy."""
        return 1 if self.loss == "cross-entropy" else 2

    def describe(self) -> dict[str, str]:
        """Everything but the parameters, as texts for a file's metadata."""
        return {
            "architecture": json.dumps([layer.to_json() for layer in self.layers]),
            "init": self.init,
            "shape": json.dumps(self.shape),
            "classes": json.dumps(self.classes),
            "loss": self.loss,
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
            check_shapes(tensors, architecture.tensor_shapes(stack, shape))  # before anything is allocated
            dtype = check_dtype(description["dtype"])
            check_dtypes(tensors, dtype)
            scaling = json.loads(description["scaling"])
            network = cls.__new__(cls)
            network._build(
                stack, shape, json.loads(description["classes"]), dtype, description["init"],
                None if scaling is None else Scaling.from_json(scaling), description.get("loss", "cross-entropy"),
            )  # fmt: skip
            network.load_state_dict(tensors)
            network._seed = seeds.check_seed(int(description["seed"])) if "seed" in description else None
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
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
        arguments = (self.layers, self.shape, self.classes, self.dtype.name, self.init, self.scaling, self.loss)
        return type(self), arguments, self.state_dict(), self._seed

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, self._parts()  # unpadded: the padding may differ where it is unpickled

    def __repr__(self) -> str:
        shape = self.shape if len(self.shape) > 1 else self.inputs
        loss = "" if self.loss == "cross-entropy" else f", loss={self.loss!r}"
        return f"Network({list(self.layers)}, inputs={shape}{loss}, dtype='{self.dtype}')"

    def summary(self) -> str:
        """A table of the layers for people: what each makes of its input's shape, parameters, bytes, operations."""
        lines = [("layer", "shape", "parameters")]
        for layer, row in zip(self.layers, self._rows, strict=True):
            activation = getattr(layer, "activation", None)
            kind = type(layer).__name__ + (f" + {activation}" if activation else "")
            count = (row.weights[0] + 1) * row.weights[1]
            lines.append((kind, " → ".join(map(_size, (row.shape, row.out_shape))), f"{count:,}"))
        lines.append(("total", "", f"{self.parameter_count:,}"))
        first, second = (max(least, 2 + max(len(line[k]) for line in lines)) for k, least in ((0, 24), (1, 16)))
        table = [f"{kind:<{first}}{shape:<{second}}{count:>14}" for kind, shape, count in lines]
        size = self.parameter_count * self.dtype.itemsize
        return "\n".join([*table, f"{size:,} bytes of {self.dtype}, {self.flops:,} FLOPs a sample"])


def _size(shape: tuple[int, ...]) -> str:
    """A row's shape for people, a flat one's (C, 1, 1) as one number."""
    return " x ".join(map(str, shape if shape[1:] != (1, 1) else shape[:1]))


def _rebuild(
    kind: type[Network], arguments: tuple[Any, ...], tensors: dict[str, np.ndarray], seed: int | None = None
) -> Network:
    network = kind.__new__(kind)
    network._build(*arguments)
    network._seed = seed
    network._naming.write(tensors, network.params, network.buffers)  # unchecked: one that diverged can be copied too
    return network
