"""The entry points that are compiled and cached: the phases, and the loops over mini-batch steps.

Phases are called through function pointers, and what runs on several threads calls the same machine code as what runs
on one: they have the same bits, and nothing is compiled into a parallel loop, where it would take three times as long.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable
from functools import cache as once
from typing import Any, NamedTuple

import numpy as np
from numba import prange, types
from numba.core.typing.typeof import typeof_impl
from numba.experimental.function_type import _get_wrapper_address

from ...affinity import cpu_count
from .. import beside
from . import c_entries, cache, curves, images, loops, network, norm, op_entries, single_entries, sparse, threads
from .addresses import entry_at
from .gemm import gemm as _gemm
from .held import held
from .loss import cross_entropy as _cross_entropy
from .loss import softmax_rows as _softmax_rows
from .loss import target_loss as _target_loss
from .loss import target_losses as _target_losses
from .optim import adam_update, sgd_update
from .shares import equal_share
from .signatures import Kinds, signatures
from .simd import TILE_ROWS, VECTORS, lanes, pointer_to, tile
from .sums import column_sums


def entry_points(sources: str) -> dict[str, Any]:
    """The functions to compile. `sources`, the kernel files' digest, is in each one's closure: the cache's key."""

    def gemm(a, a_row, a_k, b, b_k, b_j, c, c_row, m, n, k, padded, epilogue, aux, aux_row):
        sources  # noqa: B018
        _gemm(a, a_row, a_k, b, b_k, b_j, c, c_row, m, n, k, padded, epilogue, aux, aux_row)

    def no_layers(call, what, first, last, start, stop, slot, slots, rows, key):
        """What stands for kinds of layers that a network does not have."""
        sources  # noqa: B018

    def no_sparse_layer(call, what, at, rows, start, stop, grad_at, claims):
        """What stands for a first layer that leaves out nothing."""
        sources  # noqa: B018

    def no_curves(call, what, layer, start, stop):
        """What stands for activations that a network does not have."""
        sources  # noqa: B018

    def curved_layer(call, what, layer, start, stop):
        sources  # noqa: B018
        _, model, _, _, work, _ = held("Call", call)
        curves.curved_layer(what, layer, model.plan, start, stop, work)

    def no_targets(
        kind, outputs, deltas, at, stride, rows, width, targets, weights, order, first, divisor, losses, corrects
    ):
        """What stands for losses of targets in a network that has classes."""
        sources  # noqa: B018

    def target_losses(
        kind, outputs, deltas, at, stride, rows, width, targets, weights, order, first, divisor, losses, corrects
    ):
        sources  # noqa: B018
        _target_losses(
            kind, outputs, deltas, at, stride, rows, width, targets, weights, order, first, divisor, losses, corrects
        )

    def sparse_layer(call, what, at, rows, start, stop, grad_at, claims):
        sources  # noqa: B018
        _, model, source, order, work, _ = held("Call", call)
        sparse.first_layer(what, source, order, at, rows, start, stop, model, work, grad_at, claims)

    def flat_layers(call, what, first, last, start, stop, slot, slots, rows, key):
        sources  # noqa: B018
        _, model, _, _, work, x_stride = held("Call", call)
        norm.flat_layers(what, first, last, start, stop, slot, slots, rows, model, key, x_stride, work)

    def image_layers(call, what, first, last, start, stop, slot, slots, rows, key):
        sources  # noqa: B018
        _, model, _, _, work, x_stride = held("Call", call)
        images.image_layers(what, first, last, start, stop, slot, slots, rows, model, key, x_stride, work)

    def rows_phase(call, goal, stage, norms, slot, slots, at, rows, divisor, key):
        sources  # noqa: B018
        network.rows_phase(call, goal, stage, norms, slot, slots, at, rows, divisor, key)

    def params_phase(call, state, what, slot, slots, at, rows, learning_rate, decay, factor):
        sources  # noqa: B018
        network.params_phase(call, state, what, slot, slots, at, rows, learning_rate, decay, factor)

    def train(
        functions, slots, team, members, norms, model, optimizer, source, order, batch_size, first, last,
        learning_rates, x_stride, work, losses, corrects, seconds,
    ):  # fmt: skip
        sources  # noqa: B018
        loops.train(
            functions, slots, team, members, norms, model, optimizer, source, order, batch_size, first, last,
            learning_rates, x_stride, work, losses, corrects, seconds,
        )  # fmt: skip

    def train_parallel(
        functions, slots, team, members, norms, model, optimizer, source, order, batch_size, first, last,
        learning_rates, x_stride, work, losses, corrects, seconds,
    ):  # fmt: skip
        sources  # noqa: B018
        one = entry_at("train", functions[0], pointer_to(model.params, 0))
        for _ in prange(members):
            one(
                functions, slots, team, members, norms, model, optimizer, source, order, batch_size, first, last,
                learning_rates, x_stride, work, losses, corrects, seconds,
            )  # fmt: skip

    def differentiate(functions, slots, team, members, norms, model, optimizer, source, order, divisor, x_stride, work):
        sources  # noqa: B018
        loops.differentiate(
            functions, slots, team, members, norms, model, optimizer, source, order, divisor, x_stride, work
        )

    def differentiate_parallel(
        functions, slots, team, members, norms, model, optimizer, source, order, divisor, x_stride, work
    ):
        sources  # noqa: B018
        one = entry_at("differentiate", functions[0], pointer_to(model.params, 0))
        for _ in prange(members):
            one(functions, slots, team, members, norms, model, optimizer, source, order, divisor, x_stride, work)

    def infer(functions, slots, team, members, goal, model, source, order, x_stride, work, out, losses, corrects):
        sources  # noqa: B018
        loops.infer(functions, slots, team, members, goal, model, source, order, x_stride, work, out, losses, corrects)

    def infer_parallel(
        functions, slots, team, members, goal, model, source, order, x_stride, work, out, losses, corrects
    ):
        sources  # noqa: B018
        one = entry_at("infer", functions[0], pointer_to(model.params, 0))
        for _ in prange(members):
            one(functions, slots, team, members, goal, model, source, order, x_stride, work, out, losses, corrects)

    def product(
        gemm, a, a_at, a_row, a_k, b, b_at, b_k, b_j, c, c_at, c_row, m, n, k, padded, epilogue, aux, aux_at, aux_row,
    ):  # fmt: skip
        """gemm, an address, of flat arrays with an offset each."""
        sources  # noqa: B018
        one = entry_at("gemm", gemm, pointer_to(c, 0))
        one(
            pointer_to(a, a_at), a_row, a_k, pointer_to(b, b_at), b_k, b_j, pointer_to(c, c_at), c_row, m, n, k, padded,
            epilogue, pointer_to(aux, aux_at), aux_row,
        )  # fmt: skip

    def product_parallel(gemm, slots, a, a_row, a_k, b, b_k, b_j, c, m, n, k, epilogue, aux, aux_row):
        sources  # noqa: B018
        one = entry_at("gemm", gemm, pointer_to(c, 0))
        for slot in prange(slots):
            start, stop = equal_share(m, np.int64(slot), slots)
            if start < stop:
                one(
                    pointer_to(a, start * a_row), a_row, a_k, pointer_to(b, 0), b_k, b_j, pointer_to(c, start * n), n,
                    stop - start, n, k, False, epilogue, pointer_to(aux, start * aux_row), aux_row,
                )  # fmt: skip

    def column_sum(delta, out):
        sources  # noqa: B018
        column_sums(delta, 0, out.shape[0], delta.shape[0] // max(1, out.shape[0]), out)

    def cross_entropy(logits, labels, weights, divisor, dlogits):
        sources  # noqa: B018
        return _cross_entropy(logits, labels, weights, divisor, dlogits)

    def target_loss(kind, outputs, targets, weights, divisor, doutputs):
        sources  # noqa: B018
        return _target_loss(kind, outputs, targets, weights, divisor, doutputs)

    def activate(z, activation):
        sources  # noqa: B018
        curves.activate(z, activation)

    def slope(delta, x, activation):
        sources  # noqa: B018
        curves.slope(delta, x, activation)

    def softmax_rows(logits, out, logarithm):
        sources  # noqa: B018
        _softmax_rows(logits, out, logarithm)

    def sgd_step(params, grad, velocity, learning_rate, momentum, nesterov, weight_decay):
        sources  # noqa: B018
        sgd_update(params, grad, velocity, learning_rate, momentum, nesterov, weight_decay)

    def adam_step(params, grad, m, v, learning_rate, beta1, beta2, epsilon, weight_decay, decoupled, step):
        sources  # noqa: B018
        adam_update(params, grad, m, v, learning_rate, beta1, beta2, epsilon, weight_decay, decoupled, step)

    def fma_peak(a, b, c, k):
        sources  # noqa: B018
        tile(
            TILE_ROWS[0], VECTORS, pointer_to(a, 0), 1, 0, pointer_to(b, 0), 0, pointer_to(c, 0),
            VECTORS * lanes(c), k, False, 0, pointer_to(c, 0), 0,
        )  # fmt: skip

    executor = (
        gemm,
        no_layers,
        flat_layers,
        image_layers,
        no_sparse_layer,
        sparse_layer,
        no_curves,
        curved_layer,
        no_targets,
        target_losses,
        rows_phase,
        params_phase,
        train,
        train_parallel,
        differentiate,
        differentiate_parallel,
        infer,
        infer_parallel,
    )
    ops = (
        product, product_parallel, column_sum, cross_entropy, target_loss, activate, slope, softmax_rows, sgd_step,
        adam_step, fma_peak,
    )  # fmt: skip
    made = {function.__name__: function for function in (*executor, *ops)}
    for more in (op_entries, single_entries, c_entries):
        made |= more.entry_points(sources)
    return made


_entries = once(lambda: entry_points(cache.digest()))
_made: dict[tuple[str, str], Any] = {}

# Seconds that compiling takes, float32 or float64, where it is more than most: the longest are begun first.
_SECONDS = {
    "image_layers": 8.0, "convolve": 3.2, "train": 2.6, "params_phase": 2.1, "rows_phase": 2.0, "sparse_layer": 1.8,
    "gemm": 1.6, "flat_layers": 1.6, "sparse_product": 1.5, "single_layers": 1.1, "gradient": 1.1,
    "train_parallel": 0.9, "differentiate_parallel": 0.9, "infer_parallel": 0.9, "cross_entropy": 0.8,
    "norm_backward": 0.8, "norm_forward": 0.7, "differentiate": 0.7, "infer": 0.6, "target_loss": 0.6,
    "curved_layer": 0.4,
}  # fmt: skip
_OTHERS = 0.3
_lock = threading.RLock()


def _after_fork() -> None:
    """A lock that another thread held when the process forked would stay held for ever."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def get(name: str, dtype: Any) -> Any:
    """An entry point compiled for float32 or float64, on first use; from several threads at once, too."""
    key = (name, np.dtype(dtype).name)
    if key not in _made:
        with _lock:
            if key not in _made:
                _made[key] = _compiled(*_asked(*key))
    return _made[key]


def _compiled(*asked: Any) -> Any:
    """What is asked for, from the cache or, told to a command that waits, compiled."""
    made = cache.loaded(*asked)
    if made is None:
        beside.compiling()
        made = cache.compiled(*asked)
    return made


def _asked(name: str, dtype: str) -> tuple[Any, Any, bool]:
    """(function, signature, whether it is parallel), of which an entry point is compiled."""
    return _entries()[name], signatures(getattr(types, dtype))[name], name.endswith("_parallel")


def prepare(wanted: Iterable[tuple[str, str]], on_done: Callable[[str, float], None] | None = None) -> None:
    """Load entry points, (name, dtype) each, and compile what the cache has not: on several cores, if a command waits.

    on_done("gemm float32", seconds) is called after each. What another process compiled is loaded when it is asked for.
    """
    with _lock:
        costs = {}
        for key in wanted:
            began = time.perf_counter()
            made = _made.get(key) or cache.loaded(*_asked(*key))
            if made is None:
                costs[" ".join(key)] = _SECONDS.get(key[0], _OTHERS)
                continue
            _made[key] = made
            if on_done is not None:
                on_done(" ".join(key), time.perf_counter() - began)
        if costs:
            beside.compiling()
        kept = bool(costs) and cache.writable(*_asked(*next(iter(costs)).split())[:2])
        cores = min(cpu_count(), threads.available()) if kept and beside.expected() is not None else 1
        beside.share(costs, beside.helpers(costs.values(), cores), lambda item: get(*item.split()), on_done)


def names() -> list[str]:
    """The entry points that there are."""
    return list(_entries())


class Pointer(types.WrapperAddressProtocol):
    """A compiled entry point as a first-class function, its type and address known once and for all.

    Given the dispatcher itself, Numba makes the type and looks the address up at each call: 150 µs instead of 25, and
    under a lock of llvmlite's.
    """

    def __init__(self, entry: Any, signature: Any) -> None:
        self.entry = entry  # kept: the code lives as long as it does
        self.type = types.FunctionType(signature)
        self._signature, self._address = signature, _get_wrapper_address(entry, signature)

    def __wrapper_address__(self) -> int:
        return int(self._address)

    def signature(self) -> Any:
        return self._signature


@typeof_impl.register(Pointer)
def _type_of_pointer(pointer: Pointer, context: Any) -> Any:
    return pointer.type


@once
def pointer(name: str, dtype: str) -> Pointer:
    """An entry point to be passed to another."""
    return Pointer(get(name, dtype), signatures(getattr(types, dtype))[name])


class Uses(NamedTuple):
    """What a network has beside dense layers: flat others, image layers, a first one that leaves out zeros,
    activations other than ReLU, a loss of targets.
    """

    flat: bool = False
    image: bool = False
    sparse: bool = False
    curve: bool = False
    loss: bool = False


def _kinds(uses: Uses) -> tuple[str, ...]:
    """The entry points of `Kinds`; of kinds that a network does not use the stand-ins, which compile in no time."""
    return (
        "gemm", "flat_layers" if uses.flat else "no_layers", "image_layers" if uses.image else "no_layers",
        "sparse_layer" if uses.sparse else "no_sparse_layer", "curved_layer" if uses.curve else "no_curves",
        "target_losses" if uses.loss else "no_targets",
    )  # fmt: skip


def phases(dtype: Any, uses: Uses) -> tuple[Pointer, Pointer, Kinds]:
    """(rows_phase, params_phase, kinds), the pointers that the loops take first."""
    kind = np.dtype(dtype).name
    kinds = Kinds(*(pointer(name, kind) for name in _kinds(uses)))
    return pointer("rows_phase", kind), pointer("params_phase", kind), kinds


@once
def functions(dtype: Any, uses: Uses, loop: str) -> np.ndarray:
    """The addresses (F,) int64 that a loop takes first: its own, rows_phase's, params_phase's and those of kinds.

    "infer" calls no params_phase: its address is 0, and predicting in a fresh installation waits 5 s less.
    """
    kind, unused = np.dtype(dtype).name, ("params_phase",) if loop == "infer" else ()
    names, expected = (loop, "rows_phase", "params_phase", *_kinds(uses)), beside.expected()
    if expected is not None:
        prepare((name, kind) for name in dict.fromkeys((*names, *expected)) if name not in unused)
    return np.array([0 if name in unused else pointer(name, kind).__wrapper_address__() for name in names])
