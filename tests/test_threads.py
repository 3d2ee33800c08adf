"""Threads: how many a call takes, and that no launch aborts a process on any threading layer that is here."""

import importlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import numba
import numpy as np
import pytest
from problems import Run

from mlpkernels.affinity import cpu_count
from mlpkernels.kernels import cpu
from mlpkernels.kernels.cpu import threads

LAYERS = {"omp": "omppool", "tbb": "tbbpool", "workqueue": "workqueue"}
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


def present(layer):
    try:
        importlib.import_module(f"numba.np.ufunc.{LAYERS[layer]}")
    except ImportError:
        return False
    return True


def run_on(layer, name, count=4):
    """Run a case of parallel_cases.py on this layer with so many threads; fail unless it found all right."""
    done = subprocess.run(
        [sys.executable, Path(__file__).parent / "parallel_cases.py", name], capture_output=True, text=True,
        timeout=60, env={**os.environ, "NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": str(count)},
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == f"right {layer}\n"


@pytest.fixture(params=LAYERS)
def layer(request):
    if not present(request.param):
        pytest.skip(f"Numba finds no library for the threading layer {request.param}")
    return request.param


def test_python_threads_may_launch_at_once(layer):
    run_on(layer, "concurrent")


@posix
@pytest.mark.parametrize("case", ["forked", "forked_first", "forked_during_a_launch", "pool"])
def test_a_forked_child_gets_the_right_result(layer, case):
    run_on(layer, case)


def test_one_thread_needs_no_layer(layer):
    run_on(layer, "one_thread", 1)


def test_a_layer_that_is_not_there_means_one_thread():
    missing = [layer for layer in LAYERS if not present(layer)]
    if not missing:
        pytest.skip("every threading layer is here")
    run_on(missing[0], "no_layer")


# ---- how many


@pytest.fixture
def of_eight(monkeypatch):
    """A machine with eight threads on omp."""
    monkeypatch.setattr(threads, "available", lambda: 8)
    monkeypatch.setattr(threads, "layer", lambda: "omp")


def test_small_work_and_one_thread_take_the_serial_loop(of_eight, monkeypatch):
    assert threads.slots(4, 1e9) == 4
    assert threads.slots(4, 10.0) == 1
    assert threads.slots(1, 1e12) == threads.slots(0, 1e12) == threads.slots(-3, 1e12) == 1
    monkeypatch.setattr(threads, "layer", lambda: "workqueue")
    assert threads.slots(4, 3e6) == 1 and threads.slots(4, 1e9) == 4  # a launch costs 100 times as much


def test_a_child_forked_from_gnu_threads_takes_the_serial_loop(of_eight, monkeypatch):
    monkeypatch.setattr(threads, "_forked_after_launch", True)
    assert threads.slots(8, 1e12) == 1


def test_a_launch_leaves_the_callers_number_of_threads_as_it_was():
    before = numba.get_num_threads()
    with threads.launch(1):
        assert numba.get_num_threads() == 1
    assert numba.get_num_threads() == before
    with threads.launch(10_000):  # more than there are is no error
        assert numba.get_num_threads() == threads.available()
    with pytest.raises(KeyboardInterrupt), threads.launch(1):
        raise KeyboardInterrupt
    assert numba.get_num_threads() == before


def test_the_layer_and_the_cores_are_told():
    assert threads.layer() in LAYERS
    assert 1 <= cpu_count() <= (os.cpu_count() or 1)
    assert threads.available() >= 1


def test_ops_obey_numbas_number_of_threads(monkeypatch):
    """Within set_num_threads(1) a product of any size takes the serial kernel."""
    seen = []
    monkeypatch.setattr(threads, "slots", lambda count, work: seen.append(count) or 1)
    x = np.ones((3, 3), np.float32)
    with threads.launch(1):
        cpu.dense_forward(x, x, x[0].copy(), cpu.RELU, x.copy())
    assert seen == [1]


def test_networks_train_in_several_python_threads_at_once():
    """On whatever layer this machine chose: each its own network, each as if alone."""

    def train(seed, threads_):
        run = Run((50, 64, 10), "float32", "adam", rows=400, batch=64, seed=seed)
        assert run.train(cpu, threads=threads_) == run.steps
        return run.state()

    alone, together = [train(seed, 1) for seed in range(4)], {}
    workers = [threading.Thread(target=lambda seed=seed: together.update({seed: train(seed, 2)})) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [together[seed] for seed in range(4)] == alone
