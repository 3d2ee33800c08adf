"""The types of the entry points that steps.py compiles: each has one signature for a floating type."""

from typing import Any, NamedTuple

from numba import types

from ..plan import Model, OptimizerState, Source, Workspace
from . import c_entries, op_entries, single_entries


class Kinds(NamedTuple):
    """The kernels of each kind of layer, function pointers: a network compiles those that it has, else stand-ins."""

    gemm: Any
    flat: Any
    image: Any
    sparse: Any
    curve: Any
    loss: Any


def _named_tuples(T: Any) -> dict[str, Any]:
    """Numba's types of the executor's tuples for a floating type."""

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
    return {made.__name__: types.NamedTuple(kinds, made) for made, kinds in members.items()}


def signatures(T: Any) -> dict[str, Any]:
    """The one signature each entry point is compiled for, given a floating type."""
    i, flat, order = types.int64, types.Array(T, 1, "C"), types.Array(types.int64, 1, "C")
    plan = types.Array(types.int64, 2, "C")
    matrix, labels, d, flag = (
        types.Array(T, 2, "C"),
        types.Array(types.int32, 1, "C"),
        types.float64,
        types.boolean,
    )
    double, count = types.Array(types.float64, 1, "C"), types.Array(types.int64, 1, "C")
    made = _named_tuples(T)
    model, optimizer, source, work = (made[name] for name in ("Model", "OptimizerState", "Source", "Workspace"))
    gemm = types.void(flat, i, i, i, flat, i, i, i, flat, i, i, i, i, i, types.boolean, i, flat, i, i)
    gemm_pointer = types.FunctionType(gemm)
    layers = types.void(i, i, i, i, i, i, i, i, model, i, i, work)
    sparse_layer = types.void(i, source, order, i, i, i, i, model, work, i)
    curves = types.void(i, i, plan, i, i, work)
    losses = types.void(i, flat, flat, i, i, i, i, matrix, flat, order, i, T, double, count)
    members = (gemm, layers, layers, sparse_layer, curves, losses)
    kinds = types.NamedTuple([types.FunctionType(member) for member in members], Kinds)
    rows = types.void(kinds, *[i] * 5, model, source, order, i, i, T, i, i, work)
    params = types.void(kinds, i, i, i, model, optimizer, source, order, i, i, i, work, d, d, T)
    member = (count, i, count, i, i, model, optimizer, source, order)
    train = types.void(*member, i, i, i, double, i, work, double, count, d)
    differentiate = types.void(*member, T, i, work)
    data = (i, i, model, source, order, i, work, matrix, double, count)
    product = types.void(gemm_pointer, i, flat, i, i, flat, i, i, flat, i, i, i, i, flat, i)
    return {
        "gemm": gemm,
        "no_layers": layers,
        "flat_layers": layers,
        "image_layers": layers,
        "no_sparse_layer": sparse_layer,
        "sparse_layer": sparse_layer,
        "no_curves": curves,
        "curved_layer": curves,
        "no_targets": losses,
        "target_losses": losses,
        "rows_phase": rows,
        "params_phase": params,
        "train": train,
        "train_parallel": train,
        "differentiate": differentiate,
        "differentiate_parallel": differentiate,
        "infer": types.void(count, i, *data),
        "infer_parallel": types.void(count, *data),
        "product_parallel": product,
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
