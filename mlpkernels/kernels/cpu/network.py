"""The executor: compiled functions that run any plan, forward, backward and update.

A step is two phases with a barrier between them. `rows_phase` takes a share of the batch's rows from the data to
the loss and back to every layer's delta; `params_phase` takes a share of every layer's weights, sums their gradient
over the whole batch and updates them. A wide first layer goes forward in a phase of its own or, for the next batch, at
the end of the second (halves.py). Shares come from the number of slots and their speeds (shares.py); no sum is
ever cut by them, so the bits are the same for any. The loops that run steps are in loops.py.

A batch norm is where rows meet: it cuts the rows' phase into stages, first up and then down, and between two of them
its moments over the whole batch are taken. Kinds of layers are behind function pointers, so that a network
compiles none that it does not have.
"""

from ..plan import (
    ACTIVATION,
    BATCH_NORM,
    BIAS,
    BUFFER,
    CONV,
    DECAY_BIAS,
    DENSE,
    IMAGE,
    INPUTS,
    KIND,
    LOSS,
    MOMENTUM,
    OUT,
    OUT_STRIDE,
    OUTPUTS,
    RELU,
    RULE,
    SGD,
    SOFTMAX,
    TAKES,
    WEIGHT,
    WEIGHT_STRIDE,
)  # fmt: skip
from .curves import CURVE, SLOPE
from .gather import ask_for_answers, gather
from .gemm import DEPTH
from .halves import add_halves, divided, half, half_share, half_sums
from .held import held
from .jit import ONE, ZERO, inlined, inner
from .layout import BY_CHUNK, FIELDS, GROUP_SIZE, GROUPS, SUMS, UNIT
from .loss import row_losses
from .norm import BACK_MOMENTS, BACKWARD, ENTER, INFER, MOMENTS, TRAIN, update_statistics
from .optim import rests, scale, sum_of_squares, update
from .shares import PARAMS_PHASE, ROWS_PHASE, settled, share
from .simd import ADD_BIAS, ADD_BIAS_RELU, DESCEND, RELU_SLOPE, STORE, pointer_to
from .sparse import DESCENT, FORWARD, HALF
from .sparse import GRADIENT as ADDED
from .sparse_tiles import GROUP
from .sums import take_columns

LOGITS, LOSSES, DELTAS = range(3)  # how far rows_phase goes
HALVES = -1  # the stage before its others
GRADIENT, NORM, UPDATE, FUSED_UPDATE = range(4)  # what params_phase does

# Elements of a block of weight rows, updated while their gradient is still in the cache, the level-2 cache: 120 KB of
# float32. A fifth of it would fit the first, but each block's product packs the deltas anew: 6 % of that product.
BLOCK = 30720

# Weights of a layer that one slot takes whole: each would pack all deltas for its few rows of weights, and fetch those
# of the other slots' samples from their cores. On two threads an epoch of 8-128-32-2 takes 0.94 of the time.
SMALL = 2048


@inner
def rows_unit(plan, work):
    """The rows that are not divided among slots."""
    return work.layout[plan.shape[0] * FIELDS + UNIT] if work.layout.shape[0] > 0 else 2


@inner
def rows_share(plan, work, rows, slot, slots):
    """The rows start, stop of a mini-batch that a slot takes, and which of the batch's units they begin with."""
    unit = rows_unit(plan, work)
    start, stop = share(rows, ROWS_PHASE, slot, slots, work.shares, unit)
    return start, stop, start // unit


@inner
def _add(source, target):
    for j in range(source.shape[0]):
        target[j] += source[j]


@inner
def _clear(target):
    for j in range(target.shape[0]):
        target[j] = 0


@inner
def skips(source, plan):
    """Whether the first layer leaves out zeros: then nothing is gathered."""
    return source.skip_zeros and source.bytes.shape[0] > 0 and plan[0, KIND] == DENSE


@inlined
def _dense_forward(kinds, layer, plan, params, work, x_stride, start, stop):
    batch = work.losses.shape[0]
    inputs, width, stride = plan[layer, INPUTS], plan[layer, WEIGHT_STRIDE], plan[layer, OUT_STRIDE]
    source, source_at, source_stride = work.x, start * x_stride, x_stride
    if layer > 0:
        source_stride = plan[layer - 1, OUT_STRIDE]
        source, source_at = work.outputs, plan[layer - 1, OUT] * batch + start * source_stride
    epilogue = ADD_BIAS_RELU if plan[layer, ACTIVATION] == RELU else ADD_BIAS
    kinds.gemm(
        pointer_to(source, source_at), source_stride, 1, pointer_to(params, plan[layer, WEIGHT]), width, 1,
        pointer_to(work.outputs, plan[layer, OUT] * batch + start * stride), stride, stop - start, width, inputs, True,
        epilogue, pointer_to(params, plan[layer, BIAS]), 0,
    )  # fmt: skip


@inlined
def _half_forward(kinds, plan, params, work, x_stride, start, stop, first, last, number):
    """Those rows' sums over inputs first … last - 1, a half of them, from the gathered ones."""
    width = plan[0, WEIGHT_STRIDE]
    sums = pointer_to(work.grad, half_sums(plan, number) + start * width)
    kinds.gemm(
        pointer_to(work.x, start * x_stride + first), x_stride, 1,
        pointer_to(params, plan[0, WEIGHT] + first * width), width, 1, sums, width, stop - start, width,
        last - first, True, STORE, sums, 0,
    )  # fmt: skip


@inlined
def _dense_backward(kinds, layer, plan, params, work, start, stop):
    """The delta of the layer below."""
    batch = work.losses.shape[0]
    stride, below = plan[layer, OUT_STRIDE], plan[layer - 1, OUT_STRIDE]
    at, at_below = plan[layer, OUT] * batch + start * stride, plan[layer - 1, OUT] * batch + start * below
    epilogue = RELU_SLOPE if plan[layer - 1, ACTIVATION] == RELU else STORE
    kinds.gemm(
        pointer_to(work.deltas, at), stride, 1, pointer_to(params, plan[layer, WEIGHT]), 1, plan[layer, WEIGHT_STRIDE],
        pointer_to(work.deltas, at_below), below, stop - start, plan[layer, INPUTS], plan[layer, OUTPUTS], True,
        epilogue, pointer_to(work.outputs, at_below), below,
    )  # fmt: skip


@inner
def image_count(plan):
    """The number of image layers: they are the first."""
    count = 0
    while count < plan.shape[0] and plan[count, IMAGE] != 0:
        count += 1
    return count


@inner
def norm_at(plan, number):
    """The row of batch norm `number`, counted from 0; the number of layers where there are not so many."""
    for layer in range(plan.shape[0]):
        if plan[layer, KIND] == BATCH_NORM:
            if number == 0:
                return layer
            number -= 1
    return plan.shape[0]


@inlined
def _up(call, kinds, what, first, end, start, stop, slot, slots, rows, model, key, x_stride, work):
    """Layers first … end - 1 forward."""
    images = image_count(model.plan)
    if first < images:
        last = min(end, images) - 1
        kinds.image(call, what, first, last, start, stop, slot, slots, rows, key)
    for layer in range(max(first, images), end):
        if model.plan[layer, KIND] == DENSE:
            _dense_forward(kinds, layer, model.plan, model.params, work, x_stride, start, stop)
        else:
            kinds.flat(call, what, layer, layer, start, stop, slot, slots, rows, key)
        if model.plan[layer, ACTIVATION] > RELU:
            kinds.curve(call, CURVE, layer, start, stop)


@inlined
def _down(call, kinds, first, last, start, stop, slot, slots, rows, model, key, work):
    """Layers last … first backward, each leaving the delta of the one below; the network's inputs need none."""
    images = image_count(model.plan)
    for layer in range(last, max(first, images, 1) - 1, -1):
        if model.plan[layer, KIND] == DENSE:
            _dense_backward(kinds, layer, model.plan, model.params, work, start, stop)
        else:
            kinds.flat(call, BACKWARD, layer, layer, start, stop, slot, slots, rows, key)
        if model.plan[layer - 1, ACTIVATION] > RELU:  # the kernels above took it for none
            kinds.curve(call, SLOPE, layer - 1, start, stop)
    if images > 0:
        if first <= images <= last and work.layout[model.plan.shape[0] * FIELDS + BY_CHUNK]:
            kinds.image(call, ENTER, images - 1, images - 1, start, stop, slot, slots, rows, key)
        if first < images:
            top = min(last, images - 1)
            kinds.image(call, BACKWARD, first, top, start, stop, slot, slots, rows, key)


@inlined
def _halves(call, slot, slots, at, rows):
    """A slot's share of a divided first layer's sums over the halves of its inputs, gathered so far if they must be."""
    kinds, model, source, order, work, x_stride = held("Call", call)
    for number in range(2):
        start, stop = half_share(number, rows, slot, slots, work.shares)
        if start < stop and skips(source, model.plan):
            kinds.sparse(call, HALF, at, rows, start, stop, number, False)
        elif start < stop:
            first, last = half(model.plan[0, INPUTS], number)
            gather(source, order, at, rows, start, stop, first, last, work.x, x_stride)
            _half_forward(kinds, model.plan, model.params, work, x_stride, start, stop, first, last, number)


@inlined
def rows_phase(call, goal, stage, norms, slot, slots, at, rows, divisor, key):
    """A slot's share of the batch order[at : at + rows], as far as `goal` says; `call` is a held one's.

    With `norms` batch norms to be trained, stage 0 … norms goes up to the next of them or to the loss, stage
    norms … 2 · norms down from one; else there is stage 0 alone. Where the first layer is divided (halves.py), several
    slots have a stage HALVES before; one slot does that at stage 0.
    """
    kinds, model, source, order, work, x_stride = held("Call", call)
    plan = model.plan
    sparse_first, in_halves = skips(source, plan), goal == DELTAS and divided(plan, rows)
    if stage == HALVES or (stage == 0 and in_halves and slots == 1):
        _halves(call, slot, slots, at, rows)
    if stage == HALVES:
        return
    start, stop, room = rows_share(plan, work, rows, slot, slots)
    if start >= stop:
        return
    if stage == 0:
        if goal == DELTAS:
            ask_for_answers(source, order, at + rows + start, at + rows + stop)
        if not sparse_first and not in_halves:
            gather(source, order, at, rows, start, stop, 0, plan[0, TAKES], work.x, x_stride)
    if stage <= norms:
        first = norm_at(plan, stage - 1) if stage > 0 else 0
        end = norm_at(plan, stage) if norms > 0 else plan.shape[0]
        what = TRAIN if goal == DELTAS else INFER
        if stage == 0 and (sparse_first or in_halves):
            first = 1
            if in_halves:
                add_halves(plan, model.params, work, start, stop)
            else:
                kinds.sparse(call, FORWARD, at, rows, start, stop, 0, False)
            if plan[0, ACTIVATION] > RELU:
                kinds.curve(call, CURVE, 0, start, stop)
        _up(call, kinds, what, first, end, start, stop, room, slots, rows, model, key, x_stride, work)
    if goal == LOGITS:
        return
    if stage == norms:
        last = plan.shape[0] - 1
        stride = plan[last, OUT_STRIDE]
        logits = plan[last, OUT] * work.losses.shape[0] + start * stride
        if plan[last, LOSS] == SOFTMAX:
            row_losses(
                work.outputs, work.deltas, logits, stride, stop - start, plan[last, OUTPUTS], source.labels,
                source.weights, order[at : at + rows], start, divisor, work.losses, work.corrects,
            )  # fmt: skip
        else:
            kinds.loss(
                plan[last, LOSS], work.outputs, work.deltas, logits, stride, stop - start, plan[last, OUTPUTS],
                source.targets, source.weights, order[at : at + rows], start, divisor, work.losses, work.corrects,
            )  # fmt: skip
    if goal == DELTAS and stage >= norms:
        number = 2 * norms - stage  # of the segment, as on the way up; its batch norm waits for the stage behind
        first = norm_at(plan, number - 1) + 1 if number > 0 else 0
        last = min(norm_at(plan, number), plan.shape[0] - 1) if norms > 0 else plan.shape[0] - 1
        _down(call, kinds, first, last, start, stop, room, slots, rows, model, key, work)


@inner
def moments_phase(call, stage, norms, slot, slots, rows):
    """What a batch norm needs of the whole batch, behind a stage: a slot's share of the columns or channels."""
    kinds, model, _, _, _, _ = held("Call", call)
    layer = norm_at(model.plan, stage if stage < norms else 2 * norms - stage - 1)
    what = MOMENTS if stage < norms else BACK_MOMENTS
    if model.plan[layer, IMAGE] != 0:
        kinds.image(call, what, layer, layer, 0, rows, slot, slots, rows, 0)
    else:
        kinds.flat(call, what, layer, layer, 0, rows, slot, slots, rows, 0)


@inner
def penalty(model, settings):
    """Σ w² / 2 over the parameters that decay: what settings[PENALTY] adds to a batch's losses, by the decay."""
    total = 0.0
    for layer in range(model.plan.shape[0]):
        weight, bias, width = model.plan[layer, WEIGHT], model.plan[layer, BIAS], model.plan[layer, WEIGHT_STRIDE]
        total += sum_of_squares(model.params[weight:bias])
        if settings[DECAY_BIAS] != 0:
            total += sum_of_squares(model.params[bias : bias + width])
    return total / 2


@inner
def _finish(call, state, what, start, size, grad_at, norm_at, rows, learning_rate, decay, rest, factor):
    """What follows the gradient, at grad_at, of the parameters start … start + size - 1: `rows` rows of weights or
    one of biases.
    """
    _, model, _, _, work, _ = held("Call", call)
    grad = work.grad[grad_at : grad_at + size]
    if what == NORM:
        stride = size // rows
        for i in range(rows):
            work.norms[norm_at + i] = sum_of_squares(grad[i * stride : (i + 1) * stride])
    elif what == UPDATE:
        scale(grad, factor)
    if what in (UPDATE, FUSED_UPDATE):
        update(held("OptimizerState", state), model.params, grad, start, learning_rate, decay, rest)


@inner
def _collect(plan, layer, work, rows, first, count, target):
    """count numbers, from `first` of the layer's on, of a gradient that the rows' phase made: into work.grad."""
    grad = work.grad[target : target + count]
    _clear(grad)
    if plan[layer, KIND] == CONV:
        end = plan.shape[0] * FIELDS
        unit, size = work.layout[end + UNIT], work.layout[end + GROUP_SIZE]
        for group in range((rows + unit - 1) // unit):
            at = work.layout[end + GROUPS] + group * size + work.layout[layer * FIELDS + SUMS] + first
            _add(work.images[at : at + count], grad)
    else:  # a batch norm: the gradient by beta is Σ delta, by gamma Σ delta · x̂
        T = grad.dtype.type
        at = 2 * plan[layer, BUFFER] + (2 if first > 0 else 3) * plan[layer, WEIGHT_STRIDE]
        for j in range(plan[layer, OUTPUTS]):
            grad[j] = T(work.moments[at + j])


@inlined
def params_phase(call, state, what, slot, slots, at, rows, learning_rate, decay, factor):
    """A slot's share of every layer's weights: their gradient over the batch's rows, then what `what` says.

    GRADIENT stops there, NORM adds the gradient's squares to work.norms, FUSED_UPDATE updates at once.
    UPDATE takes the gradient that NORM left, scales it by factor and updates. decay is the step's weight decay.
    `call` and `state` are a held call's and optimizer's.
    """
    kinds, model, source, _, work, x_stride = held("Call", call)
    optimizer = held("OptimizerState", state)
    plan, settings = model.plan, optimizer.settings
    batch = work.losses.shape[0]
    # The simplest rule fits into the product's store, and no gradient is written: 16.5 µs to 13.6 a step of 8 images.
    # A long sum is better cut.
    in_store = what == FUSED_UPDATE and settings[RULE] == SGD and settings[MOMENTUM] == 0 and rows <= DEPTH
    in_store = in_store and decay == 0
    sparse_first, rest = skips(source, plan), rests(settings, optimizer.step[0] + 1)
    # All slots have read the weights that one writes; two slots of a divided layer have read other weights.
    claims = what == FUSED_UPDATE and slots > (2 if divided(plan, rows) else 1)
    own_halves = divided(plan, rows) and settled(slots, work.shares)
    norm_at, whole = 0, 0  # whole: the layers so far of which one slot takes all
    for layer in range(plan.shape[0]):
        inputs, width, weight = plan[layer, INPUTS], plan[layer, WEIGHT_STRIDE], plan[layer, WEIGHT]
        if width == 0:
            norm_at += 1
            continue
        stride = plan[layer, OUT_STRIDE]
        delta_at = plan[layer, OUT] * batch
        dense = plan[layer, KIND] == DENSE
        x, x_at, stride_x = work.x, 0, x_stride
        if layer > 0:
            stride_x = plan[layer - 1, OUT_STRIDE]
            x, x_at = work.outputs, plan[layer - 1, OUT] * batch
        skipping = sparse_first and layer == 0
        delta = pointer_to(work.deltas, delta_at)
        small = slots > 1 and inputs * width <= SMALL
        has_biases = slots == 1 or slot == (whole if small else layer) % slots
        if layer == 0 and own_halves:
            first, last = half(inputs, slot)
        elif small:
            whole += 1
            first, last = ZERO, inputs if has_biases else ZERO
        else:
            first, last = share(inputs, PARAMS_PHASE, slot, slots, work.shares, GROUP if skipping else 2)
        blocks, unit, zero = 0, ONE, first
        if first < last and in_store and dense and not (skipping and rows > 64):
            grad_at = weight + first * width
            work.grad[grad_at] = learning_rate
            if skipping:
                kinds.sparse(call, DESCENT, at, rows, first, last, grad_at, claims)
            else:
                kinds.gemm(
                    pointer_to(x, x_at + first), 1, stride_x, delta, stride, 1, pointer_to(model.params, grad_at),
                    width, last - first, width, rows, True, DESCEND, pointer_to(work.grad, grad_at), 0,
                )  # fmt: skip
        elif first < last:
            # Blocks that the level-2 cache holds. Where zeros are skipped, of 64 inputs, whose bits are found at once,
            # or in larger batches, of 256, whose sums wait in that cache for each 64 rows: 6 % of an epoch of 1024.
            if skipping:
                unit, zero = 64 if rows <= 64 else 256, first // 64 * 64
            else:
                unit = max(6, BLOCK // width // 6 * 6)
            blocks = (last - zero + unit - 1) // unit
        for number in range(blocks):
            # Every other step from the end, to begin with what the one before has left in the cache: 3 % of an epoch.
            turned = blocks - 1 - number if optimizer.step[0] % 2 != 0 else number
            start = max(zero + turned * unit, first)
            count = min(zero + (turned + 1) * unit, last) - start
            # A gradient that is used at once and by nobody else goes where the block before it was: into the cache.
            grad_at = weight + (first if what == FUSED_UPDATE else start) * width
            if what != UPDATE and skipping:
                kinds.sparse(call, ADDED, at, rows, start, start + count, grad_at, claims)
            elif what != UPDATE and dense:
                grad = pointer_to(work.grad, grad_at)
                kinds.gemm(
                    pointer_to(x, x_at + start), 1, stride_x, delta, stride, 1, grad, width, count, width, rows, True,
                    STORE, grad, 0,
                )  # fmt: skip
            elif what != UPDATE:
                _collect(plan, layer, work, rows, start * width, count * width, grad_at)
            _finish(
                call, state, what, weight + start * width, count * width, grad_at, norm_at + start, count,
                learning_rate, decay, rest, factor,
            )  # fmt: skip
        if has_biases:
            bias = plan[layer, BIAS]
            if what != UPDATE and dense:
                target = model.params if in_store else work.grad
                take_columns(work.deltas, delta_at, stride, rows, target[bias : bias + width], in_store, learning_rate)
            elif what != UPDATE:
                _collect(plan, layer, work, rows, inputs * width, width, bias)
            if plan[layer, KIND] == BATCH_NORM and what in (UPDATE, FUSED_UPDATE):
                update_statistics(plan, layer, model.buffers, model.params, model.rates, work.moments, rows)
            if not (in_store and dense):
                _finish(
                    call, state, what, bias, width, bias, norm_at + inputs, ONE, learning_rate,
                    decay if settings[DECAY_BIAS] != 0 else 0.0, rest, factor,
                )  # fmt: skip
        norm_at += inputs + 1
