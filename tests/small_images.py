"""Images of MNIST's shape that are quickly learned, for tests of the experiments without MNIST."""

import numpy as np

from mlpkernels.datasets import Dataset, Part


def images(train: int = 400, test: int = 120) -> Dataset:
    """Ten classes of 28 x 28 bytes: noise around one blurred pattern a class."""
    random = np.random.default_rng(5)
    patterns = np.kron(random.integers(0, 200, (10, 7, 7)), np.ones((4, 4))).reshape(10, 784)

    def part(rows: int) -> Part:
        y = (np.arange(rows) % 10).astype(np.int32)
        x = patterns[y] + random.normal(20, 60, (rows, 784))
        return Part(np.clip(x, 0, 255).astype(np.uint8), y)

    return Dataset("images", part(train), part(test), tuple(range(10)), (1, 28, 28), 255.0, True, source="made up")
