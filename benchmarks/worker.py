"""A process of its own for one system at one thread count: settings, caches and thread pools do not mix.

`Worker` is the parent's end; run as a script, this file is the child's. Requests and replies are pickles over pipes.
"""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from statistics import median
from typing import Any

# These would choose code paths for a library that it would not choose itself on this processor.
_FORCED = (
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY",
)
_COUNTS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_PAUSE = 0.2  # seconds: the threads of a system that has just finished may still spin for more work, OpenBLAS's for 0.1
# A quarter of another epoch is trained just before each that is timed: in training, epochs follow one another. Behind a
# pause steps take longer for 3 to 5 ms (Zen 5), and an epoch of 18 ms took 20.
_BEFORE = 1 / 4


def cpus() -> list[int]:
    """The processor's cores that this process may use; empty where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def bind(threads: int) -> None:
    """Let this process use as many cores only, where the system can do that."""
    if cpus():
        os.sched_setaffinity(0, cpus()[-threads:])


def set_aside() -> list[str]:
    """Remove what forces a library's kernels from the environment; returns what there was, NAME=value each.

    It helps workers, and this process as far as it has not loaded the library yet.
    """
    return [f"{name}={os.environ.pop(name)}" for name in _FORCED if name in os.environ]


class Worker:
    """A system in its process, bound to as many cores as it has threads. Close it, or use it in a `with`."""

    def __init__(self, system: str, threads: int) -> None:
        self.system, self.threads = system, threads
        environment = os.environ | dict.fromkeys(_COUNTS, str(threads)) | {"JAX_PLATFORMS": "cpu"}
        command = [sys.executable, __file__, system, str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)

    def call(self, method: str, *arguments: Any) -> Any:
        """What the session's method returns. RuntimeError with the child's traceback where it raised, or died."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            pickle.dump((method, arguments), self.process.stdin)
            self.process.stdin.flush()
            fine, reply = pickle.load(self.process.stdout)
        except (EOFError, BrokenPipeError):
            raise RuntimeError(f"{self}: its process ended with exit code {self.process.wait()}") from None
        if not fine:
            raise RuntimeError(f"{self}: {method} failed\n{reply}")
        return reply

    def close(self) -> None:
        """End the process."""
        self.process.terminate()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]
        self.process.wait()

    def __str__(self) -> str:
        return f"{self.system} on {self.threads} thread{'s' if self.threads > 1 else ''}"


def pause() -> None:
    """Let the threads of whatever ran last come to rest, before a timed request."""
    time.sleep(_PAUSE)


@contextlib.contextmanager
def crew(systems: list[str], threads: list[int]) -> Iterator[list[Worker]]:
    """A worker for every system and thread count, all closed at the end."""
    workers: list[Worker] = []
    try:
        for system in systems:
            for count in threads:
                workers.append(Worker(system, count))
        yield workers
    finally:
        for worker in workers:
            worker.close()


class Pool:
    """Workers that are started when they are first wanted and kept until the end; use it in a `with`."""

    def __init__(self) -> None:
        self.started: dict[tuple[str, int], Worker] = {}

    def hire(self, system: str, threads: int) -> Worker:
        """The worker of a system and a thread count."""
        if (system, threads) not in self.started:
            self.started[system, threads] = Worker(system, threads)
        return self.started[system, threads]

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: Any) -> None:
        for worker in self.started.values():
            worker.close()


# ---- the child


class Session:
    """What a worker does when asked. Compiled code is kept, and the trainer of one case with its progress."""

    def __init__(self, system: str, threads: int) -> None:
        self.system, self.threads = system, threads
        self.trainer: Any = None
        self.predictor: Any = None
        self.products: dict[Any, Any] = {}
        self.images: Any = None  # (what was asked for, the data)
        self.placed: Any = None  # the next epoch, and the part of another that is trained before it
        self.before: Any = None
        self.loops: Any = None

    def facts(self) -> dict[str, Any]:
        """Cores, BLAS and OpenMP libraries in use with their kernels' architecture and their threads."""
        import numpy  # noqa: F401 - so that its BLAS is loaded
        from threadpoolctl import threadpool_info

        wanted = ("internal_api", "version", "architecture", "num_threads")
        pools = [{key: pool.get(key) for key in wanted} for pool in threadpool_info()]
        return {"system": self.system, "threads": self.threads, "cpus": cpus(), "pools": pools}

    def machine(self) -> dict[str, Any]:
        """The processor, and its measured peak and bandwidth on one core."""
        from mlpkernels.kernels.cpu import machine

        return machine.measure()

    def digest(self) -> str:
        """A digest of the source that our kernels are compiled from."""
        from mlpkernels.kernels.cpu import cache

        return cache.digest()

    def prepare(self, case: Any, rows: int) -> str:
        """Make the case's trainer on so many rows, instead of the last one; returns where these came from."""
        import data
        from peers import TRAINERS

        self.trainer = self.placed = self.before = None  # its data may be hundreds of megabytes
        if self.images is None or self.images[0] != (case.data, rows):
            self.images = (case.data, rows), data.load(rows, case.data)
        self.trainer = TRAINERS[self.system](case, self.images[1], self.threads)
        return self.images[1].source

    def trial(self, order: Any) -> tuple[Any, Any]:
        """(the losses, the parameters) of training from the start over the rows of `order`.

        The first step's loss alone, and no parameters, of a network that has others than its peers.
        """
        trainer = self.trainer
        trainer.reset()
        if getattr(trainer, "one_output", False):
            order = order[: trainer.case.batch]
        return trainer.run(trainer.place(order)), trainer.parameters()

    def place(self, order: Any, before: Any) -> None:
        """Take the rows of the next epoch, what of it is not timed, and those of the one before it."""
        batch = self.trainer.case.batch
        self.before = self.trainer.place(before[: max(1, int(_BEFORE * len(before)) // batch) * batch])
        self.placed = self.trainer.place(order)

    def approach(self) -> None:
        """Train over a quarter of the epoch before the one that is timed."""
        self.trainer.run(self.before)

    def epoch(self) -> dict[str, float]:
        """Train on over the rows placed: seconds by the clock and of processor time, and the mean loss."""
        began, busy = time.perf_counter(), time.process_time()
        losses = self.trainer.run(self.placed)
        seconds, processor = time.perf_counter() - began, time.process_time() - busy
        return {"seconds": seconds, "processor_seconds": processor, "loss": float(losses.mean())}

    def prepare_predictor(self) -> list[str]:
        """Make the system's predictor and check its answers; returns what it has, of "one" and "many"."""
        import data
        from predictors import PREDICTORS, ROWS

        images = data.load(ROWS)
        self.predictor = PREDICTORS[self.system](images, self.threads)
        self.predictor.check(images)
        return [what for what, call in self.predictor.calls.items() if call is not None]

    def time_predictor(self, what: str, seconds: float, count: int) -> float:
        """Seconds a call, the median of `count` passes of about so many seconds each."""

        def took(times: int) -> float:
            began = time.perf_counter()
            self.predictor.run(what, times)
            return (time.perf_counter() - began) / times

        took(1)
        times = max(1, round(seconds / took(1)))
        return median(took(times) for _ in range(count))

    def prepare_product(self, product: Any) -> None:
        """Make a product ready and check it."""
        import products

        if self.loops is None:
            self.loops = products.Loops(self.system, self.threads)
        call, result = self.loops.make(product)
        call(1)
        product.check(result)
        self.products[product] = call

    def time_product(self, product: Any, seconds: float, count: int) -> list[float]:
        """Seconds a call in each of `count` passes of about so many seconds, after a call not counted."""
        import products

        call = self.products[product]
        call(1)
        return products.passes(call, products.calls(product, seconds), count)


def _serve(system: str, threads: int) -> None:
    """Answer requests until there are no more."""
    bind(threads)  # before any library counts the cores
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's: it ends this process
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get among the replies
    session = Session(system, threads)
    while True:
        try:
            method, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            reply = True, getattr(session, method)(*arguments)
        except Exception:
            reply = False, traceback.format_exc()
        pickle.dump(reply, replies)
        replies.flush()


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
