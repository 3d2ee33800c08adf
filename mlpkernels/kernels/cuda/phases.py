"""The device function that runs one phase of a program, of whatever network: an `if` on each operation's code.

A phase's work is cut into pieces by the shapes alone, and every piece is one block's: the bits do not depend on how
many blocks there are, nor on whether a launch runs one phase or many steps.

Nothing here knows the grid: a phase is given its block's number and how many take part. So many small networks could
train at once, a block each, as block 0 of 1 on the arrays of its own and with `syncthreads` where the grid's barrier is
now; or a cluster each, with the cluster's barrier.
"""

from functools import cache
from typing import Any

import numpy as np

from .. import plan as p
from . import elements, losses, sums
from . import layout as y
from .driver import cuda
from .functions import finite, sqrt
from .image_phases import image_functions
from .pieces import gather, parts, rows_of, update_range
from .product import BIAS, DENSE, ROWS, SLOPE, STORE, Tile, product
from .sums import GROUP, THREADS, block_sum


@cuda.jit(device=True)
def _inputs_at(table, at, step):
    """Where a layer's inputs lie: the first one's alternate, so that the next batch can come early."""
    return table[at + y.IN_AT] + (step & 1) * table[at + y.FLIP]


@cuda.jit(device=True)
def _code_below(table, layer):
    """The activation that made a layer's inputs."""
    if layer == 0:
        return 0
    return table[(layer - 1) * y.FIELDS + p.ACTIVATION]


@cuda.jit(device=True)
def _batch_total(wide, doubles, head, step, first):
    """The sum of what `first` begins, a number of each row, the same in every block."""
    mine = 0.0
    for row in range(cuda.threadIdx.x, rows_of(head, step), THREADS):
        mine += doubles[first + row]
    return block_sum(wide, mine)


@cuda.jit(device=True)
def _write_totals(wide, doubles, head, settings, step, block, loss, correct):
    """The batch's loss with its penalty, which one block writes down with the correct count."""
    first = head[y.LOSSES_AT]
    found = _batch_total(wide, doubles, head, step, first)
    if head[y.PENALIZED] != 0:
        mine = 0.0
        for i in range(cuda.threadIdx.x, head[y.NORMS], THREADS):
            mine += doubles[head[y.PENALTY_AT] + i]
        found += 0.5 * settings[p.WEIGHT_DECAY] * block_sum(wide, mine)
    if block == 0:
        right = _batch_total(wide, doubles, head, step, first + head[y.ROOM])
        if cuda.threadIdx.x == 0:
            loss[step - head[y.FIRST_STEP]] = found
            correct[step - head[y.FIRST_STEP]] = np.int64(right)
    return found


@cuda.jit(device=True)
def _parameters(table, at):
    """The elements of a layer's weights and biases, padding and all."""
    return table[at + p.BIAS] + table[at + p.WEIGHT_STRIDE] - table[at + p.WEIGHT]


@cache
def rows_function(dtype: str, images: bool) -> Any:
    """Device function: an operation on rows start … stop - 1 of the batch, by this block alone."""
    T, rows_tile = np.dtype(dtype).type, ROWS[dtype]
    COLUMNS = rows_tile.columns
    multiply, gather_rows = product(dtype, rows_tile, DENSE), gather(dtype)
    element, image_rows = elements.row_functions(dtype), image_functions(dtype, None).rows
    drop, drop_back, loss = element.drop, element.drop_back, losses.row_functions(dtype)
    cross_entropy, of_targets = loss.cross_entropy, loss.of_targets
    one = T(1)

    @cuda.jit(device=True)
    def dense(code, at, layer, x_at, start, stop, shared, mem, table):
        """A dense layer forward, or the delta of the layer below: one product, since each takes registers."""
        sample, x_sample, stride = table[at + y.SAMPLE], table[at + y.IN_SAMPLE], table[at + p.WEIGHT_STRIDE]
        a_at, a_row, b_column, b_k, c_at, c_row = x_at, x_sample, 1, stride, table[at + y.OUT_AT], sample
        n, k, epilogue, activation = table[at + p.OUTPUTS], table[at + p.INPUTS], BIAS, table[at + p.ACTIVATION]
        aux_at = table[at + p.BIAS]
        if code == y.DENSE_DOWN:
            a_at, a_row, b_column, b_k, c_at, c_row = table[at + y.DELTA_AT], sample, stride, 1, 0, x_sample
            c_at, n, k, epilogue, activation = table[at + y.DELTA_BELOW], k, n, SLOPE, _code_below(table, layer)
            aux_at = x_at
        for column in range(0, n, COLUMNS):
            multiply(
                shared, mem, a_at, a_row, 1, mem, table[at + p.WEIGHT], b_column, b_k, mem, c_at, c_row, stop, n, k,
                start, column, epilogue, activation, mem, aux_at, c_row, table, at,
            )  # fmt: skip

    @cuda.jit(device=True)
    def rows_operation(
        code, layer, start, stop, step, shared, wide, mem, data, values, order, labels, targets, weights, factor,
        offset, places, doubles, table, head, layer_rates, rates, keys, out,
    ):  # fmt: skip
        at = layer * y.FIELDS
        x_at, x_sample = _inputs_at(table, at, step), table[at + y.IN_SAMPLE]
        o_at, d_at, sample = table[at + y.OUT_AT], table[at + y.DELTA_AT], table[at + y.SAMPLE]
        local = step - head[y.FIRST_STEP]
        if code == y.GATHER:
            gather_rows(mem, data, values, order, factor, offset, head, step, start, stop)
        elif code == y.DENSE_UP or code == y.DENSE_DOWN:
            dense(code, at, layer, x_at, start, stop, shared, mem, table)
        elif code == y.DROP_UP or code == y.DROP_DOWN:
            key = 2 * (local * head[y.DROPS] + table[at + y.DROP])
            low, high = keys[key], keys[key + 1]
            keep = T(layer_rates[layer * y.LAYER_RATES + y.KEPT_FACTOR])
            limit = np.uint32(np.int64(layer_rates[layer * y.LAYER_RATES + y.DROP_LIMIT]))
            takes = table[at + p.TAKES]
            if code == y.DROP_DOWN:
                drop_back(
                    mem, d_at, sample, keep, low, high, limit, mem, x_at, x_sample, _code_below(table, layer), mem,
                    table[at + y.DELTA_BELOW], x_sample, takes, start, stop,
                )  # fmt: skip
            else:
                if head[y.TRAINS] == 0:
                    keep = one
                    limit = np.uint32(0)
                drop(mem, x_at, x_sample, keep, low, high, limit, mem, o_at, sample, takes, start, stop)
        elif code == y.LOSS:
            divisor = T(rates[local * y.RATE_COLUMNS + y.DIVISOR])
            if table[at + p.LOSS] == p.SOFTMAX:
                cross_entropy(
                    wide, mem, o_at, sample, mem, d_at, sample, start, stop, table[at + p.OUTPUTS], labels, weights,
                    order, head[y.ORDERED], head[y.START] + step * head[y.BATCH], divisor, doubles, head[y.LOSSES_AT],
                    doubles, head[y.LOSSES_AT] + head[y.ROOM],
                )  # fmt: skip
            else:
                of_targets(
                    wide, table[at + p.LOSS], mem, o_at, sample, mem, d_at, sample, start, stop, table[at + p.OUTPUTS],
                    targets, weights, order, head[y.ORDERED], head[y.START] + step * head[y.BATCH], divisor, doubles,
                    head[y.LOSSES_AT], doubles, head[y.LOSSES_AT] + head[y.ROOM],
                )  # fmt: skip
        elif code == y.COPY_OUT:
            classes = table[at + p.OUTPUTS]
            for e in range(start * classes + cuda.threadIdx.x, stop * classes, THREADS):
                out[step * head[y.BATCH] * classes + e] = mem[o_at + e // classes * sample + e % classes]
        elif images:
            image_rows(
                code, at, _code_below(table, layer), start, stop, rows_of(head, step), x_at, mem, places, doubles, table
            )

    return rows_operation


@cache
def items_function(dtype: str, tile: Tile, images: bool) -> Any:
    """(count, run): how many items an operation is cut into, and one of them."""
    T, BM, BN, EACH = np.dtype(dtype).type, tile.rows, tile.columns, ROWS[dtype].rows
    multiply, gather_rows, update_one = product(dtype, tile, DENSE), gather(dtype), update_range(dtype)
    column_sums = sums.column_sums(dtype)
    image = image_functions(dtype, tile)
    image_count, image_item = image.count, image.item
    one = T(1)

    @cuda.jit(device=True)
    def count(code, layer, table, head, step):
        at = layer * y.FIELDS
        rows = rows_of(head, step)
        if code == y.DENSE_UP_TILES:
            return parts(rows, BM) * parts(table[at + p.OUTPUTS], BN)
        if code == y.DENSE_DOWN_TILES:
            return parts(rows, BM) * parts(table[at + p.INPUTS], BN)
        if code == y.DENSE_PARAMS:
            return parts(table[at + p.INPUTS], BM) * parts(table[at + p.OUTPUTS], BN)
        if code == y.BIASES:
            return parts(table[at + p.OUTPUTS], GROUP)
        if code == y.SQUARES or code == y.UPDATE or code == y.PENALTY:
            return parts(_parameters(table, at), y.CHUNK)
        if code == y.GATHER_NEXT:
            return parts(rows_of(head, step + 1), EACH) if step + 1 < head[y.LAST_STEP] else 0
        if images:
            return image_count(code, at, rows, table)
        return 1

    @cuda.jit(device=True)
    def dense(code, item, at, layer, x_at, rows, shared, mem, table, grad):
        """A tile of a dense layer's outputs, of the delta below it or of its weights' gradient: one product for all."""
        sample, x_sample, stride = table[at + y.SAMPLE], table[at + y.IN_SAMPLE], table[at + p.WEIGHT_STRIDE]
        inputs, outputs, weight = table[at + p.INPUTS], table[at + p.OUTPUTS], table[at + p.WEIGHT]
        a_at, a_row, a_k, b_at, b_column, b_k = x_at, x_sample, 1, weight, 1, stride
        c_at, c_row, m, n, k = table[at + y.OUT_AT], sample, rows, outputs, inputs
        epilogue, activation, aux_at = BIAS, table[at + p.ACTIVATION], table[at + p.BIAS]
        if code == y.DENSE_DOWN_TILES:
            a_at, a_row, b_column, b_k = table[at + y.DELTA_AT], sample, stride, 1
            c_at, c_row, n, k = table[at + y.DELTA_BELOW], x_sample, inputs, outputs
            epilogue, activation, aux_at = SLOPE, _code_below(table, layer), x_at
        elif code == y.DENSE_PARAMS:
            a_row, a_k, b_at, b_k = 1, x_sample, table[at + y.DELTA_AT], sample
            c_at, c_row, m, k, epilogue = grad + weight, stride, inputs, rows, STORE
        across = parts(n, BN)
        multiply(
            shared, mem, a_at, a_row, a_k, mem, b_at, b_column, b_k, mem, c_at, c_row, m, n, k, item // across * BM,
            item % across * BN, epilogue, activation, mem, aux_at, c_row, table, at,
        )  # fmt: skip

    @cuda.jit(device=True)
    def update_tile(item, at, mem, table, head, settings, rates, rate_at):
        """The step of the weights whose gradient this block has just stored."""
        cuda.syncthreads()
        inputs, outputs, stride = table[at + p.INPUTS], table[at + p.OUTPUTS], table[at + p.WEIGHT_STRIDE]
        across = parts(outputs, BN)
        for e in range(cuda.threadIdx.x, BM * BN, THREADS):
            row = item // across * BM + e // BN
            column = item % across * BN + e % BN
            if row < inputs and column < outputs:
                i = table[at + p.WEIGHT] + row * stride + column
                update_one(mem, i, head, settings, rates, rate_at, False, one)

    @cuda.jit(device=True)
    def update_biases(first, stop, at, mem, table, head, settings, rates, rate_at):
        cuda.syncthreads()
        for column in range(first + cuda.threadIdx.x, stop, THREADS):
            update_one(mem, table[at + p.BIAS] + column, head, settings, rates, rate_at, True, one)

    @cuda.jit(device=True)
    def squares(code, item, partial, at, wide, mem, doubles, table, head, settings):
        """A part of the gradient's squared length, or of that of the parameters that decay."""
        first, mine = table[at + p.WEIGHT] + item * y.CHUNK, 0.0
        stop = min(first + y.CHUNK, table[at + p.WEIGHT] + _parameters(table, at))
        source, to = head[y.GRAD_AT], head[y.NORMS_AT]
        if code == y.PENALTY:
            source, to = 0, head[y.PENALTY_AT]
            if settings[p.DECAY_BIAS] == 0.0:
                stop = min(stop, table[at + p.BIAS])
        for i in range(source + first + cuda.threadIdx.x, source + stop, THREADS):
            mine += np.float64(mem[i]) * np.float64(mem[i])
        found = block_sum(wide, mine)
        if cuda.threadIdx.x == 0:
            doubles[to + partial + item] = found

    @cuda.jit(device=True)
    def clipped_update(item, at, wide, mem, doubles, table, head, settings, rates, rate_at):
        """The step of some parameters, their gradient cut to the length that the settings allow."""
        mine = 0.0
        for i in range(cuda.threadIdx.x, head[y.NORMS], THREADS):
            mine += doubles[head[y.NORMS_AT] + i]
        scale = T(min(1.0, settings[p.CLIP_NORM] / (sqrt(block_sum(wide, mine)) + 1e-6)))
        first = table[at + p.WEIGHT] + item * y.CHUNK
        stop = min(first + y.CHUNK, table[at + p.WEIGHT] + _parameters(table, at))
        for i in range(first + cuda.threadIdx.x, stop, THREADS):
            update_one(mem, i, head, settings, rates, rate_at, i >= table[at + p.BIAS], scale)

    @cuda.jit(device=True)
    def run(
        code, layer, partial, item, step, shared, wide, mem, data, values, order, factor, offset, doubles, table, head,
        layer_rates, settings, rates, loss, correct,
    ):  # fmt: skip
        at, rows = layer * y.FIELDS, rows_of(head, step)
        x_at, grad, fused = _inputs_at(table, at, step), head[y.GRAD_AT], head[y.FUSED] != 0
        rate_at = (step - head[y.FIRST_STEP]) * y.RATE_COLUMNS
        if code == y.DENSE_UP_TILES or code == y.DENSE_DOWN_TILES or code == y.DENSE_PARAMS:
            dense(code, item, at, layer, x_at, rows, shared, mem, table, grad)
        elif code == y.BIASES:
            column_sums(
                wide, mem, table[at + y.DELTA_AT], table[at + y.SAMPLE], rows, table[at + p.OUTPUTS], item * GROUP, mem,
                grad + table[at + p.BIAS],
            )  # fmt: skip
        elif code == y.SQUARES or code == y.PENALTY:
            squares(code, item, partial, at, wide, mem, doubles, table, head, settings)
        elif code == y.UPDATE:
            clipped_update(item, at, wide, mem, doubles, table, head, settings, rates, rate_at)
        elif code == y.GATHER_NEXT:
            stop = min((item + 1) * EACH, rows_of(head, step + 1))
            gather_rows(mem, data, values, order, factor, offset, head, step + 1, item * EACH, stop)
        elif code == y.TOTALS:
            _write_totals(wide, doubles, head, settings, step, 0, loss, correct)
        elif images:
            image_item(
                code, item, at, layer, _code_below(table, layer), x_at, rows, shared, wide, mem, doubles, table,
                layer_rates, grad,
            )  # fmt: skip
        if fused:
            if code == y.DENSE_PARAMS or code == y.CONV_PARAMS or code == y.NORM_PARAMS:
                update_tile(item, at, mem, table, head, settings, rates, rate_at)
            if code == y.BIASES or code == y.NORM_BIASES:
                stop = min((item + 1) * GROUP, table[at + p.OUTPUTS])
                update_biases(item * GROUP, stop, at, mem, table, head, settings, rates, rate_at)
            if images and code == y.CHANNEL_BIASES:
                update_biases(item, item + 1, at, mem, table, head, settings, rates, rate_at)

    return count, run


@cache
def phase_function(dtype: str, tile: Tile, images: bool) -> Any:
    """run(…): phase `number` of step `step`, by block `block` of `blocks`; whether training may go on.

    images: whether the network has layers other than dense ones and dropout.
    """
    EACH = ROWS[dtype].rows
    rows_operation, (items_of, item_operation) = rows_function(dtype, images), items_function(dtype, tile, images)

    @cuda.jit(device=True)
    def run(
        number, step, block, blocks, shared, wide, mem, data, values, order, labels, targets, weights, factor, offset,
        places, doubles, table, operations, phases, head, layer_rates, settings, rates, keys, loss, correct, out, state,
    ):  # fmt: skip
        at = number * y.PHASE
        begin, end = phases[at + y.BEGIN], phases[at + y.END]
        if phases[at + y.CHECKED] != 0 and not finite(
            _write_totals(wide, doubles, head, settings, step, block, loss, correct)
        ):
            if block == 0 and cuda.threadIdx.x == 0:
                state[0] = step
            return False
        if phases[at + y.CHAINED] != 0:
            rows = rows_of(head, step)
            for piece in range(block, parts(rows, EACH), blocks):
                for i in range(begin, end):
                    rows_operation(
                        operations[i * y.OPERATION + y.CODE], operations[i * y.OPERATION + y.LAYER], piece * EACH,
                        min((piece + 1) * EACH, rows), step, shared, wide, mem, data, values, order, labels, targets,
                        weights, factor, offset, places, doubles, table, head, layer_rates, rates, keys, out,
                    )  # fmt: skip
                    cuda.syncthreads()
            return True
        item = block
        for i in range(begin, end):
            code, layer = operations[i * y.OPERATION + y.CODE], operations[i * y.OPERATION + y.LAYER]
            count = items_of(code, layer, table, head, step)
            while item < count:
                item_operation(
                    code, layer, operations[i * y.OPERATION + y.PARTIAL], item, step, shared, wide, mem, data, values,
                    order, factor, offset, doubles, table, head, layer_rates, settings, rates, loss, correct,
                )  # fmt: skip
                item += blocks
            item -= count
        return True

    return run
