"""Run every op and verb on arrays that end, or start, where memory may not be touched. A script: a fault kills it."""

import ctypes
import mmap

import numpy as np
from problems import Run

from mlpkernels.kernels import cpu, plan
from mlpkernels.kernels.cpu import evaluate, loss_and_gradient, predict, train_steps, verbs

SHAPES = [(1, 1, 1), (2, 3, 5), (6, 16, 64), (7, 17, 65), (13, 130, 33), (24, 64, 128), (5, 300, 31)]
# With 16 registers, products in strips: of rows and of a transposed matrix, whole and partial; and flat, deep ones.
SHAPES += [(260, 133, 130), (133, 160, 263), (16, 4200, 50)]
NETWORKS = [(1, 1), (9, 17, 3), (33, 16, 16, 4), (130, 97, 10)]


class Guard:
    """Copies of arrays between pages without any access; they live as long as the guard."""

    def __init__(self, at_end):
        self.at_end, self.pages = at_end, []
        self.libc = ctypes.CDLL(None, use_errno=True)

    def __call__(self, values):
        values = np.ascontiguousarray(values)
        page, room = mmap.PAGESIZE, -(-max(values.nbytes, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
        pages = mmap.mmap(-1, room + 2 * page)
        base = ctypes.addressof(ctypes.c_char.from_buffer(pages))
        for wall in (base, base + page + room):
            assert self.libc.mprotect(ctypes.c_void_p(wall), ctypes.c_size_t(page), 0) == 0, ctypes.get_errno()
        start = page + (room - values.nbytes if self.at_end else 0)
        array = np.frombuffer(pages, values.dtype, values.size, start).reshape(values.shape)
        array[...] = values
        self.pages.append(pages)
        return array

    def tuple(self, made):
        """A named tuple of arrays; numbers stay numbers."""
        return type(made)(*(self(value) if isinstance(value, np.ndarray) else value for value in made))


def run_ops(guard, dtype, batch, inputs, outputs):
    random = np.random.default_rng(0)

    def make(*shape):
        return guard(random.normal(size=shape).astype(dtype))

    x, w, b, out = make(batch, inputs), make(inputs, outputs), make(outputs), make(batch, outputs)
    delta, dx, dw, db = make(batch, outputs), make(batch, inputs), make(inputs, outputs), make(outputs)
    pixels = guard(random.integers(0, 256, x.shape).astype(np.uint8))
    for activation in (plan.IDENTITY, plan.RELU, plan.TANH, plan.LOGISTIC):
        cpu.dense_forward(x, w, b, activation, out)
        cpu.dense_backward_input(delta, w, x, activation, dx)
        cpu.sparse_dense_forward(pixels, 0.01, 0.0, w, b, activation, out)
    cpu.dense_backward_params(x, delta, dw, db)
    cpu.softmax_cross_entropy(out, guard(np.zeros(batch, np.int32)), make(batch), 1.0, delta)
    cpu.softmax(out, delta)
    cpu.log_softmax(out, delta)
    cpu.logistic(out, delta)
    targets = guard(random.random(out.shape).astype(dtype))
    for loss in (cpu.binary_cross_entropy, cpu.squared_error, cpu.poisson_loss):
        loss(out, targets, make(batch), 1.0, delta)
    cpu.sgd_step(b, db, make(outputs), 0.1, 0.9, True, 0.1)
    cpu.adam_step(b, db, make(outputs), make(outputs) ** 2, 0.1, 0.9, 0.999, 1e-8, 0.1, False, 1)


def run_verbs(guard, dtype, sizes, slots):
    verbs._slots = lambda *_: slots
    for rule, kind, activation, loss in (
        ("adamw", "bytes", plan.RELU, plan.SOFTMAX),
        ("nesterov", "rows", plan.TANH, plan.BINARY),
        ("adam-sklearn", "bytes", plan.LOGISTIC, plan.SQUARED),
    ):
        run = Run(sizes, dtype, rule, rows=20, batch=7, kind=kind, clip=1.0, activation=activation, loss=loss)
        run.model, run.optimizer, run.source = map(guard.tuple, (run.model, run.optimizer, run.source))
        work, losses, corrects = guard.tuple(run.work), guard(run.losses), guard(run.corrects)
        model, order = run.model, guard(run.order)
        train_steps(model, run.optimizer, run.source, order, 7, 0, 3, guard(run.rates), work, losses, corrects, slots)
        evaluate(model, run.source, 3, 20, work, slots)
        predict(model, run.source, 0, 20, work, guard(np.zeros((20, sizes[-1]), dtype)), slots)
        loss_and_gradient(model, run.source, guard(order[:6]), 6.0, work, guard(np.zeros_like(model.params)), slots)


def main():
    for dtype in ("float32", "float64"):
        for at_end in (True, False):
            for shape in SHAPES:
                run_ops(Guard(at_end), dtype, *shape)
            for sizes in NETWORKS:
                for slots in (1, 3):
                    run_verbs(Guard(at_end), dtype, sizes, slots)
    print("inside")


if __name__ == "__main__":
    main()
