"""What tests share: the backend of the command line, real MNIST, and a compile cache of each worker's own."""

import atexit
import os
import random
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

# The kernels that tests of the command line train with: MLPK_TEST_BACKEND=reference needs no compiler.
BACKEND = os.environ.get("MLPK_TEST_BACKEND", "cpu")
_MNIST = "train-images-idx3-ubyte"


def _private_cache() -> None:
    """Give a test worker a copy of the compile cache that `mlpk warmup` filled: it writes to that alone.

    Two processes that compile at once can spoil an index. Here, at import, because Numba reads the variable once.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    shared = os.environ.get("NUMBA_CACHE_DIR")
    if worker is None or shared is None:
        return
    private = Path(tempfile.mkdtemp(prefix=f"mlpk-cache-{worker}-"))
    atexit.register(shutil.rmtree, private, ignore_errors=True)
    if Path(shared).is_dir():
        shutil.copytree(shared, private, dirs_exist_ok=True)
    os.environ["NUMBA_CACHE_DIR"] = str(private)


_private_cache()


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same random numbers in every test, whatever ran before."""
    random.seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """The folder with real MNIST that MLPK_DATA_DIR names; the test is skipped where there is none."""
    named = os.environ.get("MLPK_DATA_DIR")
    if not named:
        pytest.skip("MLPK_DATA_DIR is not set: it names the folder with the four MNIST files")
    for folder in (Path(named) / "mnist", Path(named)):
        if (folder / _MNIST).exists() or (folder / f"{_MNIST}.gz").exists():
            return folder
    pytest.skip(f"MLPK_DATA_DIR={named} has no {_MNIST}[.gz]")
