"""Parallel launches that could abort a process, each to be run in one of its own: python parallel_cases.py CASE."""

import contextlib
import multiprocessing
import os
import sys
import threading
import time

import numba
import numpy as np
from problems import Run

from mlpkernels.kernels import cpu
from mlpkernels.kernels.cpu import threads

WORKERS, ROUNDS = 4, 12


def work(seed, count):
    """Some training and an evaluation on `count` threads, two products on Numba's: all they computed, as bytes."""
    run = Run((20, 33, 5), "float32", "adam", rows=70, batch=16, clip=1.0, seed=seed)
    assert run.train(cpu, threads=count) == run.steps
    loss, correct = cpu.evaluate(run.model, run.source, 0, 70, run.work, threads=count)
    random = np.random.default_rng(seed)
    x, w = random.normal(size=(40, 50)).astype("float32"), random.normal(size=(50, 30)).astype("float32")
    out, dw, db = np.zeros((40, 30), "float32"), np.zeros_like(w), np.zeros(30, "float32")
    cpu.dense_forward(x, w, db, cpu.RELU, out)
    cpu.dense_backward_params(x, out, dw, db)
    return b"".join([*run.state(), out.tobytes(), dw.tobytes(), db.tobytes()]), loss, correct


def expected():
    with threads.launch(1) if threads.layer() != "none" else contextlib.nullcontext():
        return [work(seed, 1) for seed in range(WORKERS)]


def check(count=3):
    """Everything once more on several threads, compared with what one thread computed."""
    for seed in range(WORKERS):
        assert work(seed, count) == SERIAL[seed], seed


def in_child(target):
    """The exit status of target() in a forked child, -signal where it was killed, None where it stood still."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            target()
            status = 0
        finally:
            os._exit(status)
    for _ in range(1000):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return None


def concurrent():
    """Several Python threads launch at once, in calls long and short."""
    wrong = []

    def target(seed):
        try:
            for i in range(ROUNDS):
                assert work(seed, 2 + i % 2) == SERIAL[seed]
        except BaseException as error:
            wrong.append(error)

    workers = [threading.Thread(target=target, args=(i,)) for i in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong, wrong


def forked():
    """A child, and a child of that, after a launch in the parent, which goes on after them."""

    def with_a_child():
        check()
        assert in_child(check) == 0

    check()
    assert in_child(check) == 0
    assert in_child(with_a_child) == 0
    check()


def forked_first():
    """A child launches before its parent ever did."""
    assert in_child(check) == 0
    check()
    assert in_child(check) == 0


def forked_during_a_launch():
    """Another Python thread is within a launch, or between two, when the child is made."""
    stop = threading.Event()

    def launch():
        while not stop.is_set():
            check()

    worker = threading.Thread(target=launch)
    worker.start()
    try:
        for _ in range(6):
            time.sleep(0.05)
            assert in_child(check) == 0
    finally:
        stop.set()
        worker.join()


def pool():
    """multiprocessing's own children, made by fork."""
    check()
    with multiprocessing.get_context("fork").Pool(2) as workers:
        assert workers.starmap(work, [(seed, 3) for seed in range(WORKERS)]) == SERIAL
    check()


def one_thread():
    """NUMBA_NUM_THREADS=1: no launch at all, whatever number of threads is asked for."""
    assert threads.available() == 1
    check(8)
    assert not numba.np.ufunc.parallel._is_initialized or threads.slots(8, 1e12) == 1
    assert threads.slots(8, 1e12) == 1


def no_layer():
    """The layer that was asked for is not there: one thread, and no error."""
    assert threads.layer() == "none" and threads.slots(8, 1e12) == 1
    check(8)


CASES = {
    case.__name__: case
    for case in (concurrent, forked, forked_first, forked_during_a_launch, pool, one_thread, no_layer)
}

if __name__ == "__main__":
    threads._WORTH = {layer: 0.0 for layer in threads._WORTH if layer != "none"} | {"none": float("inf")}
    SERIAL = expected()
    CASES[sys.argv[1]]()
    print("right", os.environ.get("NUMBA_THREADING_LAYER"), flush=True)
