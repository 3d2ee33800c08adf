"""The types of the entry points that steps.py compiles: each has one signature for a floating type."""

from typing import Any, NamedTuple

from numba import types

from ..plan import Model, OptimizerState, Source, Workspace
from . import c_entries, op_entries, single_entries
from .held import Call


class Kinds(NamedTuple):
    """The kernels of each kind of layer, function pointers: a network compiles those that it has, else stand-ins."""

    gemm: Any
    flat: Any
    image: Any
    sparse: Any
    curve: Any
    loss: Any


def tuples(T: Any) -> dict[str, Any]:
    """Numba's types of the executor's tuples for a floating type, by their names."""

    def array(dtype: Any, dimensions: int = 1) -> Any:
        return types.Array(dtype, dimensions, "C")

    members = {
        Model: [array(types.int64, 2), array(T), array(types.float64), array(types.float64, 2)],
        OptimizerState: [array(types.float64), array(types.int64), array(T), array(T)],
        Source: [
            array(types.uint8, 2),
            array(T, 2),
            T,
            T,
            array(types.int32),
            array(T),
            types.boolean,
            array(T, 2),
        ],
        Workspace: [
            *[array(T)] * 4,
            array(types.float64),
            array(types.int64),
            array(types.float64),
            *[array(T)] * 2,
            array(types.int64),
            array(types.float64),
            array(types.int64),
        ],
    }
    found = {made.__name__: types.NamedTuple(kinds, made) for made, kinds in members.items()}
    kinds = types.NamedTuple([types.FunctionType(signature) for signature in _kinds(T)], Kinds)
    call = (kinds, found["Model"], found["Source"], array(types.int64), found["Workspace"], types.int64)
    return found | {"Kinds": kinds, "Call": types.NamedTuple(call, Call)}


def _kinds(T: Any) -> Kinds:
    """The signatures of what `Kinds` points to; `call` points to a held `Call`."""
    i, flat, order, call = types.int64, types.Array(T, 1, "C"), types.Array(types.int64, 1, "C"), types.CPointer(T)
    matrix, double = types.Array(T, 2, "C"), types.Array(types.float64, 1, "C")
    layers = types.void(call, *[i] * 9)
    return Kinds(
        gemm=types.void(call, i, i, call, i, i, call, i, i, i, i, types.boolean, i, call, i),
        flat=layers,
        image=layers,
        sparse=types.void(call, *[i] * 6, types.boolean),
        curve=types.void(call, *[i] * 4),
        loss=types.void(i, flat, flat, i, i, i, i, matrix, flat, order, i, T, double, order),
    )


def signatures(T: Any) -> dict[str, Any]:
    """The one signature each entry point is compiled for, given a floating type."""
    i, flat, order = types.int64, types.Array(T, 1, "C"), types.Array(types.int64, 1, "C")
    matrix, labels, d, flag = (
        types.Array(T, 2, "C"),
        types.Array(types.int32, 1, "C"),
        types.float64,
        types.boolean,
    )
    double, count, call = types.Array(types.float64, 1, "C"), types.Array(types.int64, 1, "C"), types.CPointer(T)
    made, kinds = tuples(T), _kinds(T)
    model, optimizer, source, work = (made[name] for name in ("Model", "OptimizerState", "Source", "Workspace"))
    rows = types.void(call, *[i] * 7, T, i)
    params = types.void(call, call, *[i] * 5, d, d, T)
    member = (count, i, count, i, i, model)
    train = types.void(*member, optimizer, source, order, i, i, i, double, i, work, double, count, d)
    differentiate = types.void(*member, optimizer, source, order, T, i, work)
    infer = types.void(*member, source, order, i, work, matrix, double, count)
    product = types.void(i, flat, i, i, i, flat, i, i, i, flat, i, i, i, i, i, flag, i, flat, i, i)
    product_parallel = types.void(i, i, flat, i, i, flat, i, i, flat, i, i, i, i, flat, i)
    return {
        "gemm": kinds.gemm,
        "no_layers": kinds.flat,
        "flat_layers": kinds.flat,
        "image_layers": kinds.image,
        "no_sparse_layer": kinds.sparse,
        "sparse_layer": kinds.sparse,
        "no_curves": kinds.curve,
        "curved_layer": kinds.curve,
        "no_targets": kinds.loss,
        "target_losses": kinds.loss,
        "rows_phase": rows,
        "params_phase": params,
        "train": train,
        "train_parallel": train,
        "differentiate": differentiate,
        "differentiate_parallel": differentiate,
        "infer": infer,
        "infer_parallel": infer,
        "product": product,
        "product_parallel": product_parallel,
        "column_sum": types.void(flat, flat),
        "cross_entropy": types.Tuple((d, i))(matrix, labels, flat, T, matrix),
        "target_loss": types.Tuple((d, i))(i, matrix, matrix, flat, T, matrix),
        "activate": types.void(flat, i),
        "slope": types.void(flat, flat, i),
        "softmax_rows": types.void(matrix, matrix, flag),
        "sgd_step": types.void(flat, flat, flat, d, d, flag, d),
        "adam_step": types.void(flat, flat, flat, flat, d, d, d, d, d, flag, i),
        "fma_peak": types.void(flat, flat, flat, i),
        **op_entries.signatures(T),
        **single_entries.signatures(T),
        **c_entries.signatures(T),
    }
