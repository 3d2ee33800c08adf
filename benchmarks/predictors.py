"""Predicting with 784-128-128-10, ours and the peers': one sample at a time, and 10,000 images.

run("one", times) predicts a sample so often, run("many", times) all images; a system may have only one of the two, as
`calls` says. The answers are logits or, with `probabilities`, those. Ours are given the images' bytes as the data set
has them, the peers floats that were scaled beforehand.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from cases import NAMES
from data import Images

CASE = NAMES["adam-128"]
ROWS = 10_000
_ROUNDING = 1e-4  # of the largest logit: three layers in float32 stay far below
_CHUNK = 1000


class Predictor:
    """What the systems share: loops over two calls, and the check of what they return."""

    probabilities = False

    def __init__(self, one: Callable[[], Any] | None, many: Callable[[], Any] | None) -> None:
        self.calls = {"one": one, "many": many}

    def run(self, what: str, times: int) -> Any:
        """The answer (rows, 10) of "one" or "many", computed so often."""
        call = self.calls[what]
        assert call is not None
        for _ in range(times):
            answer = call()
        return answer

    def check(self, images: Images) -> None:
        """AssertionError where an answer is not that of NumPy in float64."""
        for what, call in self.calls.items():
            if call is None:
                continue
            wanted = expected(images.floats()[: 1 if what == "one" else ROWS])
            if self.probabilities:
                wanted = np.exp(wanted - wanted.max(axis=1, keepdims=True))
                wanted /= wanted.sum(axis=1, keepdims=True)
            apart = abs(np.asarray(self.run(what, 1)) - wanted).max()
            if not apart <= _ROUNDING * abs(wanted).max():
                raise AssertionError(f"{type(self).__name__}, {what}: answers are {apart} apart")


def expected(x: np.ndarray) -> np.ndarray:
    """The logits (N, 10) of x (N, 784) in float64."""
    x = x.astype(np.float64)
    layers = CASE.initial()
    for weights, biases in layers[:-1]:
        x = np.maximum(x @ weights + biases, 0)
    return x @ layers[-1][0] + layers[-1][1]


class Ours(Predictor):
    """Network.predict_logits, and with verb=True the kernel below it, into an array that is given."""

    def __init__(self, images: Images, threads: int, verb: bool = False) -> None:
        from peers import Kernels

        from mlpkernels import kernels

        network = Kernels(CASE, images, threads).network
        x, backend = images.x[:ROWS], kernels.load("cpu")
        if not verb:
            first = x[:1].copy()
            logits = partial(network.predict_logits, threads=threads)
            super().__init__(partial(logits, first), partial(logits, x))
            return
        source = network.rows_source(x, None, None)
        small, large = (backend.make_workspace(network.plan, rows, np.float32) for rows in (1, 1024))

        def predict(rows: int, work: Any, out: np.ndarray) -> np.ndarray:
            backend.predict(network.model, source, 0, rows, work, out, threads)
            return out

        outs = [np.empty((rows, CASE.kind.classes), np.float32) for rows in (1, len(x))]
        super().__init__(partial(predict, 1, small, outs[0]), partial(predict, len(x), large, outs[1]))


class Inside(Predictor):
    """`predict_one` in the caller's own @njit function: nothing allocated, no Python.

    Its inputs are the image's, of which four fifths are zero and skip their weights; or, `dense`, none are zero.
    """

    def __init__(self, images: Images, threads: int, dense: bool = False) -> None:
        from numba import njit
        from peers import Kernels

        from mlpkernels.compiled import predict_one

        @njit
        def loop(times, net, x, scratch, out):
            for _ in range(times):
                predict_one(net, x, scratch, out)

        super().__init__(lambda: self.run("one", 1), None)
        net = Kernels(CASE, images, threads).network.compiled()
        self.dense, self.out = dense, np.empty(CASE.kind.classes, np.float32)
        x = images.x[0].astype(np.float32)
        self.loop = partial(self._loop, loop, net, np.maximum(x, 1) if dense else x, net.scratch())

    def _loop(self, loop: Any, net: Any, x: np.ndarray, scratch: np.ndarray, times: int) -> None:
        loop(times, net, x, scratch, self.out)

    def run(self, what: str, times: int) -> Any:
        self.loop(times)
        return self.out[None]

    def check(self, images: Images) -> None:
        """As the others; of the image without zeros that an answer came."""
        if not self.dense:
            super().check(images)
        assert np.isfinite(self.run("one", 1)).all()


class Reading(Predictor):
    """No prediction: a compiled loop that reads the network's weights once, from whatever cache holds them."""

    def __init__(self, images: Images, threads: int) -> None:
        from numba import njit

        @njit(fastmath={"reassoc", "nsz"})
        def loop(times, values, sums):
            for time in range(times):
                total = np.float32(0)
                for i in range(values.size):
                    total += values[i]
                sums[time & 7] = total  # it might be among the values, so each sum is a new one

        super().__init__(lambda: None, None)
        self.values = np.concatenate([weights.ravel() for weights, _ in CASE.initial()])
        self.loop = partial(self._loop, loop)
        self.sums = np.zeros(8, np.float32)

    def _loop(self, loop: Any, times: int) -> None:
        loop(times, self.values, self.sums)

    def run(self, what: str, times: int) -> Any:
        self.loop(times)

    def check(self, images: Images) -> None:
        """The sum is right."""
        self.run("one", 1)
        bound = 1e-6 * abs(self.values).sum()
        if not abs(self.sums[0] - self.values.astype(np.float64).sum()) <= bound:
            raise AssertionError("the weights' sum is wrong")


class Torch(Predictor):
    """PyTorch in inference mode, eager or compiled; the images all at once, or in chunks that stay in the caches."""

    def __init__(self, images: Images, threads: int, chunk: int = ROWS, compiled: bool = False) -> None:
        import peers
        import torch

        trainer = peers.Torch(CASE, images, threads, compiled)
        network, x = trainer.forward.eval(), trainer.x[:ROWS]
        first = x[:1].clone()

        def one() -> Any:
            with torch.inference_mode():
                return network(first)

        def many() -> Any:
            with torch.inference_mode():
                parts = [network(x[start : start + chunk]) for start in range(0, len(x), chunk)]
                return parts[0] if len(parts) == 1 else torch.cat(parts)

        super().__init__(one if chunk == ROWS else None, many)


class Jax(Predictor):
    """JAX: one jitted function, weights and images on the device."""

    def __init__(self, images: Images, threads: int) -> None:
        import jax

        layers = jax.device_put(CASE.initial())
        x = jax.device_put(images.floats()[:ROWS])
        first = jax.device_put(np.array(x[:1]))

        @jax.jit
        def predict(layers: Any, x: Any) -> Any:
            for weights, biases in layers[:-1]:
                x = jax.nn.relu(x @ weights + biases)
            return x @ layers[-1][0] + layers[-1][1]

        super().__init__(
            lambda: predict(layers, first).block_until_ready(), lambda: predict(layers, x).block_until_ready()
        )


class Sklearn(Predictor):
    """scikit-learn's MLPClassifier.predict_proba, which has no logits to give."""

    probabilities = True

    def __init__(self, images: Images, threads: int) -> None:
        import peers

        trainer = peers.Sklearn(CASE, images, threads)
        model, x, first = trainer.model, trainer.x[:ROWS], trainer.x[:1].copy()
        super().__init__(lambda: model.predict_proba(first), lambda: model.predict_proba(x))


class Onnx(Predictor):
    """ONNX Runtime on what `export.onnx` writes, without the probabilities."""

    def __init__(self, images: Images, threads: int) -> None:
        import onnx.utils
        import onnxruntime
        from peers import Kernels

        from mlpkernels.export.onnx import INPUT, LOGITS, to_onnx

        network = Kernels(CASE, images, 1).network
        network.scaling = None  # it is given floats, as the other peers are
        model = onnx.utils.Extractor(to_onnx(network)).extract_model([INPUT], [LOGITS])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        x = images.floats()[:ROWS].reshape(-1, *network.shape)
        first = x[:1].copy()
        super().__init__(lambda: session.run([LOGITS], {INPUT: first})[0], lambda: session.run([LOGITS], {INPUT: x})[0])


COMPILED = "PyTorch, compiled"
OURS, INSIDE, READING = "mlpkernels", "mlpkernels, inside @njit", "reading the weights once"
INSIDE_DENSE = "mlpkernels, inside @njit, no zeros"
PREDICTORS: dict[str, Callable[[Images, int], Predictor]] = {
    OURS: Ours,
    "mlpkernels, kernel with out given": partial(Ours, verb=True),
    INSIDE: Inside,
    INSIDE_DENSE: partial(Inside, dense=True),
    READING: Reading,
    "PyTorch, eager": Torch,
    f"PyTorch, eager by {_CHUNK:,}": partial(Torch, chunk=_CHUNK),
    COMPILED: partial(Torch, compiled=True),
    "JAX, jit": Jax,
    "scikit-learn": Sklearn,
    "ONNX Runtime": Onnx,
}
ONE_THREAD = {INSIDE, INSIDE_DENSE, READING}
_TRAINS_AS = {"JAX": "JAX jit + scan"}  # a family's name in peers.PACKAGES, where it is another


def installed(compiled: bool = False) -> list[str]:
    """The systems that can be run here; that of PyTorch's compiler only if wanted."""
    import peers

    missing = peers.absent()
    families = {name: peers.family(name) for name in PREDICTORS if compiled or name != COMPILED}
    return [system for system, family in families.items() if _TRAINS_AS.get(family, family) not in missing]
