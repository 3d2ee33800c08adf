"""The loops over mini-batch steps, as each member of a team runs them: its slots of every phase, then the barrier.

`functions` are addresses, of the loop itself and behind it of what `phases_at` gives: as functions, each would cost a
call 6 µs. A call on one thread is a team of one. What every member needs to know, it reckons itself from what all see
behind the barrier, in the same order and so with the same bits: a batch's loss, a clipped gradient's factor, a step's
number.
"""

from math import isfinite, sqrt

import numpy as np

from ..plan import CLIP_NORM, OUT, OUT_STRIDE, OUTPUTS, PENALTY, SEED, WEIGHT_DECAY, WEIGHT_SUM, OptimizerState
from .addresses import phases_at
from .borrow import borrow
from .clock import clock
from .halves import divided
from .held import Call, hold
from .jit import ONE, ZERO, inlined, inner
from .network import (
    DELTAS,
    FUSED_UPDATE,
    GRADIENT,
    HALVES,
    LOGITS,
    NORM,
    UPDATE,
    moments_phase,
    penalty,
    rows_share,
    rows_unit,
)
from .norm import copy, step_key
from .shares import HALVES_PHASE, MOST, NO_PHASE, OFTEN, PARAMS_PHASE, ROWS_PHASE, WHOLE, adapt, begin, settle, settled
from .simd import pointer_to
from .sparse import scaled_bytes
from .team import AHEAD, DUE, GROWN, LINE, REACHED, STEPS, STOP, WAITED, admit, claim, follow, grown, join, leave, meet


@inner
def _totals(work, rows):
    """Σ of the rows' losses, in order, and the correct count."""
    loss, correct = 0.0, 0
    for i in range(rows):
        loss += work.losses[i]
        correct += work.corrects[i]
    return loss, correct


@inner
def _clip_factor(work, limit):
    """What scales the gradient's norm down to the limit, as torch.nn.utils.clip_grad_norm_."""
    total = 0.0
    for i in range(work.norms.shape[0]):
        total += work.norms[i]
    return min(1.0, limit / (sqrt(total) + 1e-6))


@inner
def _divisor(settings, source, order, at, rows):
    """What a mini-batch's gradient is divided by: its rows or the sum of their weights, unless that is 0."""
    if settings[WEIGHT_SUM] == 0:
        return float(rows)
    total = 0.0
    for i in range(rows):
        total += source.weights[order[at + i]]
    return total if total != 0 else float(rows)


@inner
def _decay(model, settings, divisor):
    """A step's weight decay, and what the penalty that it stems from adds to the loss."""
    decay = settings[WEIGHT_DECAY]
    if settings[PENALTY] == 0 or decay == 0:
        return decay, 0.0
    return decay / divisor, decay * penalty(model, settings)


@inner
def _up_and_down(rows_phase, call, slots, team, rank, size, met, norms, at, rows, divisor, key):
    """A member's rows of a mini-batch from the data to the deltas; returns what `meet` does."""
    for stage in range(2 * norms + 1):
        for slot in range(rank, slots, size):
            rows_phase(call, DELTAS, stage, norms, slot, slots, at, rows, divisor, key)
        met = meet(team, rank, size, met, ROWS_PHASE)
        if stage < 2 * norms:
            for slot in range(rank, slots, size):
                moments_phase(call, stage, norms, slot, slots, rows)
            met = meet(team, rank, size, met, NO_PHASE)
    return met


@inner
def _in_halves(rows_phase, call, slots, rank, size, at, rows, divisor):
    """A member's share of a divided first layer's sums."""
    for slot in range(rank, slots, size):
        rows_phase(call, DELTAS, HALVES, 0, slot, slots, at, rows, divisor, 0)


@inner
def _measures(work, slots, rank, size):
    """Whether a member is the one that measures how long each has waited, each with one slot, to move the shares."""
    return rank == 0 and size > 1 and size == slots and work.shares.shape[0] > 0 and slots <= MOST


@inner
def _divide_anew(plan, work, team, slots, measures, rows, halves_time, rows_time, params_time):
    """Move the shares of the phases that are measured by what each member has waited; begin to count anew."""
    if measures:
        unit = rows_unit(plan, work)
        if divided(plan, rows) and not settled(slots, work.shares):
            adapt(work.shares, HALVES_PHASE, slots, 2 * slots, ONE, halves_time, team[WAITED + HALVES_PHASE :], LINE)
        adapt(work.shares, ROWS_PHASE, slots, rows, unit, rows_time, team[WAITED + ROWS_PHASE :], LINE)
        adapt(work.shares, PARAMS_PHASE, slots, WHOLE, ONE, params_time, team[WAITED + PARAMS_PHASE :], LINE)
        if divided(plan, rows):
            settle(work.shares, slots, params_time, team[WAITED + PARAMS_PHASE :], LINE)
    for member in range(slots):
        for phase in range(NO_PHASE):
            team[WAITED + LINE * member + phase] = 0


@inlined
def train(
    functions, slots, team, members, norms, model, optimizer, source, order, batch_size, first,
    last, learning_rates, x_stride, work, losses, corrects, seconds,
):  # fmt: skip
    """Steps first … last - 1, or as many as the time allows; team[REACHED] is the one that comes next.

    That of a batch whose loss is not finite is not taken, nor are those behind it. A member that comes late takes part
    from one of the steps on.
    """
    rank, size = join(team, members)
    met, late = ZERO, size == 0
    if late:
        rank, size, met = follow(team)
    if size == 0:
        return
    rows_phase, params_phase, kinds = phases_at(pointer_to(functions, 1), pointer_to(model.params, 0))
    model, source, work = borrow(model), borrow(source), borrow(work)
    order, learning_rates, team = borrow(order), borrow(learning_rates), borrow(team)
    T, settings, counter = model.params.dtype.type, borrow(optimizer.settings), borrow(optimizer.step)
    step = team[STEPS + LINE * rank : STEPS + LINE * rank + 1]  # a count of its own: nobody waits for it
    step[0] = counter[0]
    own = borrow(OptimizerState(optimizer.settings, step, optimizer.first, optimizer.second))
    like = pointer_to(model.params, 0)
    call = hold("Call", Call(kinds, model, source, order, work, x_stride), like)
    state = hold("OptimizerState", own, like)
    limit, until, reached = settings[CLIP_NORM], clock() + seconds, first
    measures, more = _measures(work, slots, rank, size), size
    halves_time, rows_time, params_time, ended = 0.0, 0.0, 0.0, clock()
    ahead = False  # whether a divided first layer's sums of the next batch are there
    if rank == 0:
        scaled_bytes(source.factor, work.scaled)
        begin(work.shares, slots)
    if late:
        reached, ahead = team[REACHED], team[AHEAD] != 0
        step[0] += reached - first
    else:
        met = meet(team, rank, size, met, NO_PHASE)
    while reached < last:
        at = reached * batch_size
        rows = min(batch_size, order.shape[0] - at)
        rate, divisor = learning_rates[reached], _divisor(settings, source, order, at, rows)
        decay, charge = _decay(model, settings, divisor)
        key = step_key(np.int64(settings[SEED]), step[0])
        if slots > 1 and divided(model.plan, rows) and not ahead:
            _in_halves(rows_phase, call, slots, rank, size, at, rows, T(divisor))
            met = meet(team, rank, size, met, HALVES_PHASE)
            if measures:
                begun = ended
                ended = clock()
                halves_time += ended - begun
        met = _up_and_down(rows_phase, call, slots, team, rank, size, met, norms, at, rows, T(divisor), key)
        if measures:
            begun = ended
            ended = clock()
            rows_time += ended - begun
        loss, correct = _totals(work, rows)
        loss += charge
        if rank == 0:
            losses[reached], corrects[reached] = loss, correct
        if not isfinite(loss):
            break
        factor = T(1)
        for number in range(2 if limit > 0 else 1):
            what = FUSED_UPDATE if limit <= 0 else NORM if number == 0 else UPDATE
            for slot in range(rank, slots, size):
                params_phase(call, state, what, slot, slots, at, rows, rate, decay, factor)
            if what != NORM:
                # Who has changed the first layer's weights of a half goes on with that half of the next batch.
                at += rows
                then = min(batch_size, order.shape[0] - at) if reached + 1 < last else 0
                ahead = divided(model.plan, rows) and divided(model.plan, then) and settled(slots, work.shares)
                if ahead:
                    _in_halves(rows_phase, call, slots, rank, size, at, then, T(divisor))
            if rank == 0:
                # A last, smaller batch, cut into other units than the rest, tells little.
                spent = halves_time + rows_time + params_time
                due = measures and spent > OFTEN and rows == min(batch_size, order.shape[0])
                stop = (ended if measures else clock()) > until  # one look at the clock less, 20 ns
                more = grown(team) if size < members and not stop else size
                team[STOP], team[DUE], team[GROWN] = np.int64(stop), np.int64(due or more > size), more
            met = meet(team, rank, size, met, PARAMS_PHASE)
            if what == NORM:
                factor = T(_clip_factor(work, limit))
        if measures:
            begun = ended
            ended = clock()
            params_time += ended - begun
        if team[DUE] != 0:
            met = meet(team, rank, size, met, NO_PHASE)  # what each has waited at the one before is written
            more = team[GROWN]
            if rank == 0:
                _divide_anew(model.plan, work, team, slots, measures, rows, halves_time, rows_time, params_time)
                halves_time, rows_time, params_time = 0.0, 0.0, 0.0
            met = meet(team, rank, size, met, NO_PHASE)
            if more > size:
                size = more
                if rank == 0:
                    team[REACHED], team[AHEAD] = reached + 1, np.int64(ahead)
                    measures, ended = _measures(work, slots, rank, size), clock()
                    admit(team, size, met)
        step[0] += 1
        reached += 1
        if team[STOP] != 0:
            break
    if rank == 0:
        team[REACHED], counter[0] = reached, step[0]
        leave(team)


@inlined
def differentiate(
    functions, slots, team, members, norms, model, optimizer, source, order, divisor, x_stride,
    work,
):  # fmt: skip
    """The rows of `order` as one batch: their losses and the gradient, in the workspace."""
    rank, size = join(team, members)
    if size == 0:
        return
    rows_phase, params_phase, kinds = phases_at(pointer_to(functions, 1), pointer_to(model.params, 0))
    model, source, work = borrow(model), borrow(source), borrow(work)
    order, team = borrow(order), borrow(team)
    if rank == 0:
        scaled_bytes(source.factor, work.scaled)
    met = meet(team, rank, size, ZERO, NO_PHASE)
    rows, like = order.shape[0], pointer_to(model.params, 0)
    call = hold("Call", Call(kinds, model, source, order, work, x_stride), like)
    state = hold("OptimizerState", borrow(optimizer), like)
    if slots > 1 and divided(model.plan, rows):
        _in_halves(rows_phase, call, slots, rank, size, 0, rows, divisor)
        met = meet(team, rank, size, met, HALVES_PHASE)
    _up_and_down(rows_phase, call, slots, team, rank, size, met, norms, 0, rows, divisor, step_key(0, 0))
    for slot in range(rank, slots, size):
        params_phase(call, state, GRADIENT, slot, slots, 0, rows, 0.0, 0.0, divisor)


@inlined
def infer(functions, slots, team, members, goal, model, source, order, x_stride, work, out, losses, corrects):
    """The rows of `order`, in mini-batches as large as the workspace; no slot needs another's share of them.

    LOGITS: out (N, K). LOSSES: each row's weighted loss in losses (N,) and whether it is right in corrects (N,).
    All mini-batches have the same size, so that a slot keeps to its part of the workspace: the last one begins early,
    and a few rows are computed again.
    """
    rows_phase, _, kinds = phases_at(pointer_to(functions, 1), pointer_to(model.params, 0))
    model, source, work, order = borrow(model), borrow(source), borrow(work), borrow(order)
    plan, most, count = model.plan, work.losses.shape[0], order.shape[0]
    parts = (count + most - 1) // most
    rows = (count + parts - 1) // max(1, parts)
    last = plan.shape[0] - 1
    stride, outputs, T = plan[last, OUT_STRIDE], plan[last, OUTPUTS], model.params.dtype.type
    call = hold("Call", Call(kinds, model, source, order, work, x_stride), pointer_to(model.params, 0))
    slot = claim(team)
    while slot < slots:
        start, stop, _ = rows_share(plan, work, rows, slot, slots)
        for part in range(parts):
            at = min(part * rows, count - rows)
            rows_phase(call, goal, 0, 0, slot, slots, at, rows, T(1), 0)
            for i in range(start, stop):
                if goal == LOGITS:
                    logits = plan[last, OUT] * most + i * stride
                    copy(work.outputs[logits : logits + outputs], out[at + i])
                else:
                    losses[at + i], corrects[at + i] = work.losses[i], work.corrects[i]
        slot = claim(team)
