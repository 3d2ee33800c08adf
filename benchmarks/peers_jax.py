"""JAX's trainer: the whole epoch one jitted lax.scan. See peers.py for what a trainer does."""

from typing import Any

import numpy as np
from cases import BETA1, BETA2, EPSILON, POOL, Case
from data import Images


class Jax:
    """JAX: the whole epoch one jitted lax.scan, parameters and optimiser state donated, the images on the device.

    stored "uint8" gathers bytes and scales the batch, "float32" gathers images scaled beforehand; which is faster
    depends on batch and threads, so both are run. One-hot labels and unrolled scans were measured: no faster.
    patches: a convolution is one product with the windows laid side by side instead of XLA's own, whose gradients are
    slow on CPUs: measured, 5 times as fast.
    """

    def __init__(self, case: Case, images: Images, threads: int, stored: str, patches: bool = False) -> None:
        import jax

        self.jax, self.case, self.stored, self.patches = jax, case, stored, patches
        x = images.x if stored == "uint8" else images.floats()
        self.x, self.y = jax.device_put(x), jax.device_put(images.y)
        self.epoch = jax.jit(self._epoch, donate_argnums=0)
        self.reset()

    def reset(self) -> None:
        put, zeros = self.jax.device_put, self.jax.numpy.zeros_like
        parameters = [(put(weights), put(biases)) for weights, biases in self.case.initial()]
        self.state: tuple[Any, ...] = (parameters,)
        if self.case.optimizer == "adam":
            tree = self.jax.tree.map
            moments = tree(zeros, parameters), tree(zeros, parameters)
            self.state += (*moments, self.jax.numpy.zeros((), "int32"))

    def place(self, order: np.ndarray) -> Any:
        return self.jax.block_until_ready(self.jax.device_put(order.astype(np.int32)))

    def run(self, placed: Any) -> np.ndarray:
        self.state, losses = self.epoch(self.state, self.x, self.y, placed)
        self.jax.block_until_ready((self.state, losses))
        return np.asarray(losses, np.float64)

    def parameters(self) -> list[np.ndarray]:
        return [np.array(array) for layer in self.state[0] for array in layer]

    def _epoch(self, state: Any, x: Any, y: Any, order: Any) -> tuple[Any, Any]:
        batch, numpy = self.case.batch, self.jax.numpy
        whole = len(order) // batch * batch

        def step(state: Any, rows: Any) -> tuple[Any, Any]:
            taken = x.at[rows].get(mode="promise_in_bounds")
            if self.stored == "uint8":
                taken = taken.astype(numpy.float32) * np.float32(1 / 255)
            loss, grad = self.jax.value_and_grad(self._loss)(state[0], taken, y[rows])
            return self._update(state, grad), loss

        state, losses = self.jax.lax.scan(step, state, order[:whole].reshape(-1, batch))
        if whole < len(order):  # the last, smaller batch
            state, last = step(state, order[whole:])
            losses = numpy.append(losses, last)
        return state, losses

    def _loss(self, parameters: Any, x: Any, y: Any) -> Any:
        count = len(self.case.convolutions)
        if count:
            x = x.reshape(-1, *self.case.kind.shape).transpose(0, 2, 3, 1)
            for weights, biases in parameters[:count]:
                x = self.jax.nn.relu(self._pool(self._convolve(x, weights) + biases))
            x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        for weights, biases in parameters[count:-1]:
            x = self.jax.nn.relu(x @ weights + biases)
        weights, biases = parameters[-1]
        logarithms = self.jax.nn.log_softmax(x @ weights + biases)
        return -self.jax.numpy.take_along_axis(logarithms, y[:, None], axis=1).mean()

    def _convolve(self, x: Any, weights: Any) -> Any:
        """x (B, H, W, C), weights (O, C, k, k) -> (B, H', W', O)."""
        outputs, channels, k, _ = weights.shape
        turned = weights.transpose(2, 3, 1, 0)
        if not self.patches:
            names = ("NHWC", "HWIO", "NHWC")
            return self.jax.lax.conv_general_dilated(x, turned, (1, 1), "VALID", dimension_numbers=names)
        height, width = x.shape[1] - k + 1, x.shape[2] - k + 1
        windows = [x[:, i : i + height, j : j + width] for i in range(k) for j in range(k)]
        return self.jax.numpy.concatenate(windows, axis=3) @ turned.reshape(k * k * channels, outputs)

    def _pool(self, x: Any) -> Any:
        """The maximum over two axes of a reshaped image: XLA's own, with its gradient, takes 1.6 times as long."""
        height, width = x.shape[1] // POOL, x.shape[2] // POOL
        windows = x[:, : POOL * height, : POOL * width].reshape(len(x), height, POOL, width, POOL, -1)
        return windows.max(axis=(2, 4))

    def _update(self, state: tuple[Any, ...], grad: Any) -> tuple[Any, ...]:
        rate, tree, numpy = self.case.learning_rate, self.jax.tree.map, self.jax.numpy
        if self.case.optimizer == "sgd":
            return (tree(lambda p, g: p - rate * g, state[0], grad),)
        parameters, first, second, count = state
        count = count + 1
        first = tree(lambda m, g: BETA1 * m + (1 - BETA1) * g, first, grad)
        second = tree(lambda v, g: BETA2 * v + (1 - BETA2) * (g * g), second, grad)
        rate = rate / (1 - BETA1**count)
        scale = 1 / numpy.sqrt(1 - BETA2**count)
        moved = tree(lambda p, m, v: p - rate * m / (numpy.sqrt(v) * scale + EPSILON), parameters, first, second)
        return moved, first, second, count
