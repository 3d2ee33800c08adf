"""The device function that runs one phase of a program, of whatever network: an `if` on each operation's code.

A phase's work is cut into pieces by the shapes alone, and every piece is one block's: the bits do not depend on how
many blocks there are, nor on whether a launch runs one phase or many steps.
"""

from functools import cache
from typing import Any

import numpy as np

from .. import plan as p
from . import elements, losses, sums
from . import layout as y
from .driver import cuda
from .functions import finite, scalar, sqrt
from .product import BIAS, CONV_FORWARD, CONV_INPUT, CONV_PARAMS, DENSE, ROWS, SLOPE, STORE, Tile, product
from .sums import GROUP, THREADS, block_sum


@cuda.jit(device=True)
def _parts(n, size):
    return (n + size - 1) // size


@cuda.jit(device=True)
def rows_of(head, step):
    """The rows of a step's batch: the last one's are fewer."""
    return max(0, min(head[y.BATCH], head[y.STOP] - head[y.START] - step * head[y.BATCH]))


@cache
def gather(dtype: str) -> Any:
    """Device function: rows start … stop - 1 of a step's batch into the inputs, bytes scaled on the way."""
    T = np.dtype(dtype).type

    @cuda.jit(device=True)
    def gather(mem, data, values, order, factor, offset, head, step, start, stop):
        width, sample = head[y.WIDTH], head[y.X_SAMPLE]
        to = head[y.X_AT] + (step & 1) * head[y.X_FLIP]
        at = head[y.START] + step * head[y.BATCH]
        for e in range(start * width + cuda.threadIdx.x, stop * width, THREADS):
            row = e // width
            column = e - row * width
            source = at + row
            if head[y.ORDERED] != 0:
                source = order[at + row]
            if head[y.FROM_BYTES] != 0:
                mem[to + row * sample + column] = T(data[source * width + column]) * factor + offset
            else:
                mem[to + row * sample + column] = values[source * width + column]

    return gather


@cache
def update_range(dtype: str) -> Any:
    """Device function: the optimiser's step for one parameter, given its gradient times `scale`."""
    T = np.dtype(dtype).type
    sgd, adam = scalar(dtype).sgd, scalar(dtype).adam

    @cuda.jit(device=True)
    def update_one(mem, i, head, settings, rates, at, is_bias, scale):
        g = mem[head[y.GRAD_AT] + i] * scale
        first, second = head[y.FIRST_AT] + i, head[y.SECOND_AT] + i
        decays = not is_bias or settings[p.DECAY_BIAS] != 0.0
        decay = settings[p.WEIGHT_DECAY] if decays else 0.0
        if settings[p.RULE] == p.SGD:
            rate = T(rates[at + y.LEARNING_RATE])
            sgd(mem, i, mem, first, g, rate, T(settings[p.MOMENTUM]), settings[p.NESTEROV] != 0.0, T(decay))
        else:
            keep = 1.0
            if settings[p.RULE] == p.ADAMW:
                keep = rates[at + y.KEEP] if decays else 1.0
                decay = 0.0
            beta1, beta2 = settings[p.BETA1], settings[p.BETA2]
            adam(
                mem, i, mem, first, mem, second, g, T(keep), T(decay), T(beta1), T(1.0 - beta1), T(beta2),
                T(1.0 - beta2), T(rates[at + y.ADAM_RATE]), T(rates[at + y.ADAM_SCALE]), T(settings[p.EPSILON]),
            )  # fmt: skip

    return update_one


@cache
def phase_function(dtype: str, tile: Tile) -> Any:
    """run(…): phase `number` of step `step`, by block `block` of `blocks`; whether training may go on."""
    T = np.dtype(dtype).type
    rows_tile = ROWS[dtype]
    ROWS_EACH, ROWS_COLUMNS, BM, BN = rows_tile.rows, rows_tile.columns, tile.rows, tile.columns
    by_rows, by_tiles = product(dtype, rows_tile, DENSE), product(dtype, tile, DENSE)
    conv_up, conv_down = product(dtype, tile, CONV_FORWARD), product(dtype, tile, CONV_INPUT)
    conv_params = product(dtype, tile, CONV_PARAMS)
    gather_rows, update_one = gather(dtype), update_range(dtype)
    element, channel = elements.row_functions(dtype), sums.channel_sums(dtype)
    pool, pool_back, norm, norm_back = element.pool, element.pool_back, element.norm, element.norm_back
    drop, drop_back = element.drop, element.drop_back
    total, spread, products = channel.total, channel.spread, channel.products
    cross_entropy, column_sums = losses.row_functions(dtype).cross_entropy, sums.column_sums(dtype)
    one = T(1)

    @cuda.jit(device=True)
    def inputs_at(table, at, step):
        return table[at + y.IN_AT] + (step & 1) * table[at + y.FLIP]

    @cuda.jit(device=True)
    def code_below(table, layer):
        """The activation that made a layer's inputs."""
        if layer == 0:
            return 0
        return table[(layer - 1) * y.FIELDS + p.ACTIVATION]

    @cuda.jit(device=True)
    def rows_operation(
        code, layer, start, stop, step, shared, wide, mem, data, values, order, labels, weights, factor, offset, places,
        doubles, table, head, layer_rates, rates, keys, out,
    ):  # fmt: skip
        """An operation on rows start … stop - 1 of the batch, by this block alone."""
        at = layer * y.FIELDS
        x_at, x_sample = inputs_at(table, at, step), table[at + y.IN_SAMPLE]
        o_at, sample = table[at + y.OUT_AT], table[at + y.SAMPLE]
        d_at, below = table[at + y.DELTA_AT], table[at + y.DELTA_BELOW]
        activation, taken = table[at + p.ACTIVATION], code_below(table, layer)
        weight, stride, bias = table[at + p.WEIGHT], table[at + p.WEIGHT_STRIDE], table[at + p.BIAS]
        moments, pixels = table[at + y.MOMENTS_AT], table[at + p.HEIGHT] * table[at + p.WIDTH]
        local = step - head[y.FIRST_STEP]
        if code == y.GATHER:
            gather_rows(mem, data, values, order, factor, offset, head, step, start, stop)
        elif code == y.DENSE_UP:
            for column in range(0, table[at + p.OUTPUTS], ROWS_COLUMNS):
                by_rows(
                    shared, mem, x_at, x_sample, 1, mem, weight, 1, stride, mem, o_at, sample, stop,
                    table[at + p.OUTPUTS], table[at + p.INPUTS], start, column, BIAS, activation, mem, bias, 0, table,
                    at,
                )  # fmt: skip
        elif code == y.DENSE_DOWN:
            for column in range(0, table[at + p.INPUTS], ROWS_COLUMNS):
                by_rows(
                    shared, mem, d_at, sample, 1, mem, weight, stride, 1, mem, below, x_sample, stop,
                    table[at + p.INPUTS], table[at + p.OUTPUTS], start, column, SLOPE, taken, mem, x_at, x_sample,
                    table, at,
                )  # fmt: skip
        elif code == y.POOL_UP:
            pool(mem, x_at, x_sample, mem, o_at, sample, places, table[at + y.PLACES_AT], start, stop, table, at)
        elif code == y.POOL_DOWN:
            pool_back(
                mem, d_at, sample, places, table[at + y.PLACES_AT], mem, x_at, x_sample, taken, mem, below, x_sample,
                start, stop, table, at,
            )  # fmt: skip
        elif code == y.NORM_UP:
            norm(
                mem, x_at, x_sample, mem, weight, bias, doubles, moments + y.MEAN * stride, moments + y.SCALE * stride,
                activation, mem, o_at, sample, table[at + p.CHANNELS], pixels, start, stop,
            )  # fmt: skip
        elif code == y.NORM_DOWN:
            norm_back(
                mem, d_at, sample, mem, x_at, x_sample, mem, weight, doubles, moments + y.MEAN * stride,
                moments + y.SCALE * stride, moments + y.DELTA_SUM * stride, moments + y.PRODUCT_SUM * stride, taken,
                mem, below, x_sample, table[at + p.CHANNELS], pixels, rows_of(head, step) * pixels, start, stop,
            )  # fmt: skip
        elif code == y.DROP_UP or code == y.DROP_DOWN:
            key = 2 * (local * head[y.DROPS] + table[at + y.DROP])
            low, high = keys[key], keys[key + 1]
            keep = T(layer_rates[layer * y.LAYER_RATES + y.KEPT_FACTOR])
            limit = np.uint32(np.int64(layer_rates[layer * y.LAYER_RATES + y.DROP_LIMIT]))
            takes = table[at + p.TAKES]
            if code == y.DROP_DOWN:
                drop_back(
                    mem, d_at, sample, keep, low, high, limit, mem, x_at, x_sample, taken, mem, below, x_sample, takes,
                    start, stop,
                )  # fmt: skip
            else:
                if head[y.TRAINS] == 0:
                    keep = one
                    limit = np.uint32(0)
                drop(mem, x_at, x_sample, keep, low, high, limit, mem, o_at, sample, takes, start, stop)
        elif code == y.LOSS:
            cross_entropy(
                wide, mem, o_at, sample, mem, d_at, sample, start, stop, table[at + p.OUTPUTS], labels, weights, order,
                head[y.ORDERED], head[y.START] + step * head[y.BATCH], T(rates[local * y.RATE_COLUMNS + y.DIVISOR]),
                doubles, head[y.LOSSES_AT], doubles, head[y.LOSSES_AT] + head[y.ROOM],
            )  # fmt: skip
        else:  # COPY_OUT
            classes = table[at + p.OUTPUTS]
            for e in range(start * classes + cuda.threadIdx.x, stop * classes, THREADS):
                out[step * head[y.BATCH] * classes + e] = mem[o_at + e // classes * sample + e % classes]

    @cuda.jit(device=True)
    def items_of(code, layer, table, head, step):
        """The number of items that an operation is cut into."""
        at = layer * y.FIELDS
        rows = rows_of(head, step)
        across = _parts(table[at + p.OUTPUTS], BN)
        if code == y.DENSE_UP_TILES:
            return _parts(rows, BM) * across
        if code == y.DENSE_DOWN_TILES:
            return _parts(rows, BM) * _parts(table[at + p.INPUTS], BN)
        if code == y.CONV_UP:
            return _parts(rows * table[at + p.OUT_HEIGHT] * table[at + p.OUT_WIDTH], BM) * across
        if code == y.CONV_DOWN:
            return _parts(rows * table[at + p.HEIGHT] * table[at + p.WIDTH], BM) * _parts(table[at + p.CHANNELS], BN)
        if code == y.DENSE_PARAMS or code == y.CONV_PARAMS:
            return _parts(table[at + p.INPUTS], BM) * across
        if code == y.BIASES:
            return _parts(table[at + p.OUTPUTS], GROUP)
        if code == y.CHANNEL_BIASES or code == y.MOMENTS_UP or code == y.MOMENTS_DOWN:
            return table[at + p.OUTPUTS]
        if code == y.SQUARES or code == y.UPDATE:
            return _parts(table[at + p.BIAS] + table[at + p.WEIGHT_STRIDE] - table[at + p.WEIGHT], y.CHUNK)
        if code == y.GATHER_NEXT:
            if step + 1 < head[y.LAST_STEP]:
                return _parts(rows_of(head, step + 1), ROWS_EACH)
            return 0
        return 1

    @cuda.jit(device=True)
    def batch_total(wide, doubles, head, step, first):
        """The sum of what `first` begins, a number of each row, the same in every block."""
        mine = 0.0
        for row in range(cuda.threadIdx.x, rows_of(head, step), THREADS):
            mine += doubles[first + row]
        return block_sum(wide, mine)

    @cuda.jit(device=True)
    def write_totals(wide, doubles, head, step, block, loss, correct):
        """The batch's loss, which one block writes down with its correct count."""
        first = head[y.LOSSES_AT]
        found = batch_total(wide, doubles, head, step, first)
        if block == 0:
            right = batch_total(wide, doubles, head, step, first + head[y.ROOM])
            if cuda.threadIdx.x == 0:
                loss[step - head[y.FIRST_STEP]] = found
                correct[step - head[y.FIRST_STEP]] = np.int64(right)
        return found

    @cuda.jit(device=True)
    def update_tile(mem, weight, stride, row0, column0, m, n, head, settings, rates, at):
        cuda.syncthreads()
        for e in range(cuda.threadIdx.x, BM * BN, THREADS):
            row = row0 + e // BN
            column = column0 + e % BN
            if row < m and column < n:
                update_one(mem, weight + row * stride + column, head, settings, rates, at, False, one)

    @cuda.jit(device=True)
    def update_biases(mem, bias, first, stop, head, settings, rates, at):
        cuda.syncthreads()
        for column in range(first + cuda.threadIdx.x, stop, THREADS):
            update_one(mem, bias + column, head, settings, rates, at, True, one)

    @cuda.jit(device=True)
    def statistics(layer, at, rows, mem, doubles, table, layer_rates):
        """Move a batch norm's running statistics towards this batch's: see reference._track."""
        stride, running = table[at + p.WEIGHT_STRIDE], table[at + p.BUFFER]
        moments = table[at + y.MOMENTS_AT]
        count = rows * table[at + p.HEIGHT] * table[at + p.WIDTH]
        momentum = layer_rates[layer * y.LAYER_RATES + y.NORM_MOMENTUM]
        unbiased = np.float64(count) / np.float64(max(count - 1, 1))
        for c in range(cuda.threadIdx.x, table[at + p.OUTPUTS], THREADS):
            mean = (1.0 - momentum) * doubles[running + c] + momentum * doubles[moments + c]
            fresh = doubles[moments + y.VARIANCE * stride + c] * unbiased
            variance = (1.0 - momentum) * doubles[running + stride + c] + momentum * fresh
            doubles[running + c] = np.float64(T(mean))
            doubles[running + stride + c] = np.float64(T(variance))
        if cuda.threadIdx.x == 0:
            doubles[running + 2 * stride] += 1.0

    @cuda.jit(device=True)
    def moments_of(code, item, layer, at, rows, step, wide, mem, doubles, table, layer_rates):
        """What a batch norm needs of a channel's whole batch."""
        pixels, stride = table[at + p.HEIGHT] * table[at + p.WIDTH], table[at + p.WEIGHT_STRIDE]
        x_at, x_sample = inputs_at(table, at, step) + item * pixels, table[at + y.IN_SAMPLE]
        slot = table[at + y.MOMENTS_AT] + item
        if code == y.MOMENTS_UP:
            count = max(rows * pixels, 1)
            mean = total(wide, mem, x_at, x_sample, pixels, rows) / count
            variance = spread(wide, mem, x_at, x_sample, pixels, rows, mean) / count
            if cuda.threadIdx.x == 0:
                doubles[slot] = mean
                doubles[slot + y.VARIANCE * stride] = variance
                epsilon = layer_rates[layer * y.LAYER_RATES + y.EPSILON]
                doubles[slot + y.SCALE * stride] = 1.0 / sqrt(variance + epsilon)
        else:
            d_at, sample = table[at + y.DELTA_AT] + item * pixels, table[at + y.SAMPLE]
            mean, scale = doubles[slot], doubles[slot + y.SCALE * stride]
            summed = total(wide, mem, d_at, sample, pixels, rows)
            product_sum = products(wide, mem, d_at, sample, mem, x_at, x_sample, pixels, rows, mean, scale)
            if cuda.threadIdx.x == 0:
                doubles[slot + y.DELTA_SUM * stride] = summed
                doubles[slot + y.PRODUCT_SUM * stride] = product_sum

    @cuda.jit(device=True)
    def item_operation(
        code, layer, partial, item, step, block, shared, wide, mem, data, values, order, factor, offset, doubles, table,
        head, layer_rates, settings, rates, loss, correct,
    ):  # fmt: skip
        """One item of an operation that is cut into items."""
        at = layer * y.FIELDS
        rows = rows_of(head, step)
        x_at, x_sample = inputs_at(table, at, step), table[at + y.IN_SAMPLE]
        o_at, sample = table[at + y.OUT_AT], table[at + y.SAMPLE]
        d_at, below = table[at + y.DELTA_AT], table[at + y.DELTA_BELOW]
        activation, taken = table[at + p.ACTIVATION], code_below(table, layer)
        inputs, outputs = table[at + p.INPUTS], table[at + p.OUTPUTS]
        weight, stride, bias = table[at + p.WEIGHT], table[at + p.WEIGHT_STRIDE], table[at + p.BIAS]
        grad, fused = head[y.GRAD_AT], head[y.FUSED] != 0
        given, around = table[at + p.OUT_HEIGHT] * table[at + p.OUT_WIDTH], table[at + p.HEIGHT] * table[at + p.WIDTH]
        rate_at = (step - head[y.FIRST_STEP]) * y.RATE_COLUMNS
        across = _parts(outputs, BN)
        if code == y.DENSE_UP_TILES:
            by_tiles(
                shared, mem, x_at, x_sample, 1, mem, weight, 1, stride, mem, o_at, sample, rows, outputs, inputs,
                item // across * BM, item % across * BN, BIAS, activation, mem, bias, 0, table, at,
            )  # fmt: skip
        elif code == y.DENSE_DOWN_TILES:
            across = _parts(inputs, BN)
            by_tiles(
                shared, mem, d_at, sample, 1, mem, weight, stride, 1, mem, below, x_sample, rows, inputs, outputs,
                item // across * BM, item % across * BN, SLOPE, taken, mem, x_at, x_sample, table, at,
            )  # fmt: skip
        elif code == y.CONV_UP:
            conv_up(
                shared, mem, x_at, x_sample, 0, mem, weight, 1, stride, mem, o_at, sample, rows * given, outputs,
                inputs, item // across * BM, item % across * BN, BIAS, activation, mem, bias, 0, table, at,
            )  # fmt: skip
        elif code == y.CONV_DOWN:
            across = _parts(table[at + p.CHANNELS], BN)
            depth = outputs * table[at + p.KERNEL_H] * table[at + p.KERNEL_W]
            conv_down(
                shared, mem, d_at, sample, 0, mem, weight, 1, stride, mem, below, x_sample, rows * around,
                table[at + p.CHANNELS], depth, item // across * BM, item % across * BN, SLOPE, taken, mem, x_at,
                x_sample, table, at,
            )  # fmt: skip
        elif code == y.DENSE_PARAMS or code == y.CONV_PARAMS:
            row0, column0 = item // across * BM, item % across * BN
            if code == y.DENSE_PARAMS:
                by_tiles(
                    shared, mem, x_at, 1, x_sample, mem, d_at, 1, sample, mem, grad + weight, stride, inputs, outputs,
                    rows, row0, column0, STORE, 0, mem, 0, 0, table, at,
                )  # fmt: skip
            else:
                conv_params(
                    shared, mem, x_at, x_sample, 0, mem, d_at, 0, sample, mem, grad + weight, stride, inputs, outputs,
                    rows * given, row0, column0, STORE, 0, mem, 0, 0, table, at,
                )  # fmt: skip
            if fused:
                update_tile(mem, weight, stride, row0, column0, inputs, outputs, head, settings, rates, rate_at)
        elif code == y.BIASES:
            first = item * GROUP
            column_sums(wide, mem, d_at, sample, rows, outputs, first, mem, grad + bias)
            if fused:
                update_biases(mem, bias, first, min(first + GROUP, outputs), head, settings, rates, rate_at)
        elif code == y.CHANNEL_BIASES:
            summed = total(wide, mem, d_at + item * given, sample, given, rows)
            if cuda.threadIdx.x == 0:
                mem[grad + bias + item] = T(summed)
            if fused:
                update_biases(mem, bias, item, item + 1, head, settings, rates, rate_at)
        elif code == y.NORM_PARAMS:
            slot = table[at + y.MOMENTS_AT]
            for c in range(cuda.threadIdx.x, outputs, THREADS):
                mem[grad + weight + c] = T(doubles[slot + y.PRODUCT_SUM * stride + c])
                mem[grad + bias + c] = T(doubles[slot + y.DELTA_SUM * stride + c])
                if fused:
                    update_one(mem, weight + c, head, settings, rates, rate_at, False, one)
                    update_one(mem, bias + c, head, settings, rates, rate_at, True, one)
        elif code == y.MOMENTS_UP or code == y.MOMENTS_DOWN:
            moments_of(code, item, layer, at, rows, step, wide, mem, doubles, table, layer_rates)
        elif code == y.STATISTICS:
            statistics(layer, at, rows, mem, doubles, table, layer_rates)
        elif code == y.SQUARES:
            mine = 0.0
            first, stop = weight + item * y.CHUNK, min(weight + (item + 1) * y.CHUNK, bias + stride)
            for i in range(first + cuda.threadIdx.x, stop, THREADS):
                mine += np.float64(mem[grad + i]) * np.float64(mem[grad + i])
            squares = block_sum(wide, mine)
            if cuda.threadIdx.x == 0:
                doubles[head[y.NORMS_AT] + partial + item] = squares
        elif code == y.UPDATE:
            mine = 0.0
            for i in range(cuda.threadIdx.x, head[y.NORMS], THREADS):
                mine += doubles[head[y.NORMS_AT] + i]
            length = sqrt(block_sum(wide, mine))
            scale = T(min(1.0, settings[p.CLIP_NORM] / (length + 1e-6)))
            first, stop = weight + item * y.CHUNK, min(weight + (item + 1) * y.CHUNK, bias + stride)
            for i in range(first + cuda.threadIdx.x, stop, THREADS):
                update_one(mem, i, head, settings, rates, rate_at, i >= bias, scale)
        elif code == y.GATHER_NEXT:
            stop = min((item + 1) * ROWS_EACH, rows_of(head, step + 1))
            gather_rows(mem, data, values, order, factor, offset, head, step + 1, item * ROWS_EACH, stop)
        else:  # TOTALS
            write_totals(wide, doubles, head, step, 0, loss, correct)

    @cuda.jit(device=True)
    def run(
        number, step, block, blocks, shared, wide, mem, data, values, order, labels, weights, factor, offset, places,
        doubles, table, operations, phases, head, layer_rates, settings, rates, keys, loss, correct, out, state,
    ):  # fmt: skip
        at = number * y.PHASE
        begin, end = phases[at + y.BEGIN], phases[at + y.END]
        if phases[at + y.CHECKED] != 0 and not finite(write_totals(wide, doubles, head, step, block, loss, correct)):
            if block == 0 and cuda.threadIdx.x == 0:
                state[0] = step
            return False
        if phases[at + y.CHAINED] != 0:
            rows = rows_of(head, step)
            for piece in range(block, _parts(rows, ROWS_EACH), blocks):
                for i in range(begin, end):
                    rows_operation(
                        operations[i * y.OPERATION + y.CODE], operations[i * y.OPERATION + y.LAYER], piece * ROWS_EACH,
                        min((piece + 1) * ROWS_EACH, rows), step, shared, wide, mem, data, values, order, labels,
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
                    code, layer, operations[i * y.OPERATION + y.PARTIAL], item, step, block, shared, wide, mem, data,
                    values, order, factor, offset, doubles, table, head, layer_rates, settings, rates, loss, correct,
                )  # fmt: skip
                item += blocks
            item -= count
        return True

    return run
