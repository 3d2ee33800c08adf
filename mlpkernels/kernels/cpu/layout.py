"""Where the compiled backend keeps images: a chunk of as many samples as a vector has lanes, sample by lane.

An image (C, H, W) of a chunk is C·H·W vectors in that order, lines and channels apart by what the layout says, with a
border of zeros where the convolution behind it pads. Workspace.images holds, one behind the other, every chunk's
images; every slot's or chunk's gradients; every slot's own room; every group's sums. Zeros that a border needs are
made with the workspace and never written.
"""

from typing import Any, NamedTuple

import numpy as np
from numba.extending import register_jitable

from .. import plan as p
from ..plan import Workspace
from . import peak_layout, shares, winograd_layout
from .simd import VECTOR_BYTES

# Columns of the layout, a row a layer; the last row, behind the layers', is the network's input.
# An image: where it begins in its chunk, its first pixel, and from channel to channel and line to line.
IMAGE, FIRST, PLANE, LINE = range(4)
# The same of the gradient by it; pixels and lines may lie further apart, with zeros between them.
DELTA, DELTA_FIRST, DELTA_PLANE, DELTA_LINE, DELTA_STEP = range(4, 9)
# Which of a pool's window was the largest; whether a convolution goes straight into the pool behind it; tables of
# offsets for its windows, forward and for the gradient of its input; its weights turned round; its sums in a group;
# the record by which its gradients visit only the pool's largest pixels, 0 where they visit all; that by which it goes
# forward in Winograd's form, 0 where it does not.
ARGMAX, FUSED, TABLE, BACK_TABLE, TURNED, SUMS, PEAKS, WINOGRAD = range(9, 17)
# In the last row only: elements of a chunk's images, where gradients begin and how long one is, slots' rooms, groups'
# sums, rows of a group, whether each chunk keeps its gradients, and where a slot keeps lines on their way into a pool
# and what the gradients of a pool's largest pixels need.
CHUNK, DELTAS, DELTAS_SIZE, ROOMS, ROOM_SIZE, GROUPS, GROUP_SIZE, UNIT, BY_CHUNK, LINES, PEAK_ROOM = range(9, 20)
FIELDS = 20

MOST_GROUPS = 16  # groups of chunks, whose gradients are summed apart; a slot takes whole groups


@register_jitable
def taken(plan: Any, layer: int) -> int:
    """Where the layout's row of the image that a layer takes begins: the layer's before, or the network's input's."""
    return (layer if layer > 0 else plan.shape[0] + 1) * FIELDS - FIELDS


class Chunks(NamedTuple):
    """How a batch is cut: lanes rows a chunk, unit rows a group of chunks."""

    lanes: int
    chunks: int
    unit: int
    groups: int


def lanes_of(dtype: Any) -> int:
    """Samples of a chunk."""
    return VECTOR_BYTES // np.dtype(dtype).itemsize


def cut(batch: int, dtype: Any) -> Chunks:
    """How a batch of at most that many rows is cut: into groups of whole chunks, fixed by the batch alone."""
    lanes = lanes_of(dtype)
    chunks = -(-batch // lanes)
    each = max(1, -(-chunks // MOST_GROUPS))
    return Chunks(lanes, chunks, each * lanes, -(-chunks // each))


def has_images(plan: np.ndarray) -> bool:
    """Whether a plan has layers that need the layout."""
    return bool(plan[:, p.IMAGE].any())


def _goes_into_pool(plan: np.ndarray, layer: int) -> bool:
    """Whether a convolution is followed by a pool of windows side by side, so that its own output need not be kept."""
    if plan[layer, p.KIND] != p.CONV or layer + 1 == len(plan) or plan[layer + 1, p.KIND] != p.POOL:
        return False
    pool = plan[layer + 1]
    beside = pool[p.KERNEL_H] == pool[p.STRIDE_H] and pool[p.KERNEL_W] == pool[p.STRIDE_W]
    return bool(beside and pool[p.PADDING_H] == 0 and pool[p.PADDING_W] == 0)


# Where an image's pixels lie, and the tables of a convolution: called from Python for a network's plan, and compiled
# for a convolution by itself (conv_arrays.py).


@register_jitable
def _plane(lines: int, line: int, lanes: int) -> int:
    """Elements from a channel to the next: an odd number of vectors, or channels would share a few cache sets."""
    return (lines * line // lanes | 1) * lanes


@register_jitable
def within_border(height: int, width: int, border_h: int, border_w: int, lanes: int) -> tuple[int, int, int]:
    """(first pixel, plane, line) of an image within a border of zeros."""
    line = (width + 2 * border_w) * lanes
    return border_h * line + border_w * lanes, _plane(height + 2 * border_h, line, lanes), line


@register_jitable
def within_reach(
    height: int, width: int, kernel_h: int, kernel_w: int, padding_h: int, padding_w: int, lanes: int
) -> tuple[int, int, int]:
    """(first pixel, plane, line) of a convolution's gradient, among the zeros that a kernel turned round meets.

    height and width are those of the image that the convolution takes; lines and pixels lie its strides apart.
    """
    line = (width + kernel_w - 1) * lanes
    first = (kernel_h - 1 - padding_h) * line + (kernel_w - 1 - padding_w) * lanes
    return first, _plane(height + kernel_h - 1, line, lanes), line


@register_jitable
def window_offsets(table: Any, channels: int, high: int, wide: int, plane: int, line: int, step: int) -> None:
    """table[i] = where in an image a kernel's place is, in the order (channel, y, x)."""
    i = 0
    for channel in range(channels):
        for y in range(high):
            for x in range(wide):
                table[i] = channel * plane + y * line + x * step
                i += 1


@register_jitable
def turned_offsets(
    table: Any, channels: int, high: int, wide: int, stride: int, plane: int, line: int, step: int
) -> None:  # fmt: skip
    """The same of a kernel turned round, in the order (y, x, channel), of x those first that divide by stride, then
    those that leave 1, and so on: a pixel meets the places of one remainder, the others zeros between the gradient's.
    """
    i = 0
    for y in range(high):
        for remainder in range(stride):
            for x in range(remainder, wide, stride):
                for channel in range(channels):
                    table[i] = channel * plane - y * line - x * step
                    i += 1


def _shape(columns: np.ndarray) -> tuple[int, int, int]:
    """(C, H, W) of three columns of a plan."""
    channels, height, width = (int(n) for n in columns)
    return channels, height, width


class _Builder:
    """Places regions one behind the other and collects tables."""

    def __init__(self, plan: np.ndarray, lanes: int) -> None:
        self.plan, self.lanes = plan, lanes
        self.rows = np.zeros((len(plan) + 1, FIELDS), np.int64)
        self.tables: list[np.ndarray] = []
        self.table_at = self.rows.size
        self.chunk = self.deltas = self.room = self.sums = self.peak_room = 0

    def table(self, fill: Any, channels: int, *sizes: int) -> int:
        """A table of a convolution's windows, `sizes` from its height on; where it begins."""
        at, (high, wide) = self.table_at, sizes[:2]
        self.tables.append(np.zeros(channels * high * wide, np.int64))
        fill(self.tables[-1], channels, *sizes, self.lanes)
        self.table_at += len(self.tables[-1])
        return at

    def image(self, row: int, shape: tuple[int, int, int], border: tuple[int, int], kept: bool) -> None:
        channels, height, width = shape
        first, plane, line = within_border(height, width, *border, self.lanes)
        self.rows[row, [IMAGE, FIRST, PLANE, LINE]] = self.chunk, self.chunk + first, plane, line
        if kept:
            self.chunk += channels * plane

    def delta(self, layer: int) -> None:
        """The gradient by what a layer gives; a convolution's lies as the gradient of its input will read it."""
        if self.peaked(layer):
            return  # only what the pool behind it gives has one
        made = self.plan[layer]
        channels, height, width = _shape(made[p.OUT_CHANNELS : p.OUT_WIDTH + 1])
        first, plane, line = within_border(height, width, 0, 0, self.lanes)
        step = (1, 1)
        if made[p.KIND] == p.CONV and layer > 0:
            step = (int(made[p.STRIDE_H]), int(made[p.STRIDE_W]))
            first, plane, line = within_reach(
                int(made[p.HEIGHT]), int(made[p.WIDTH]), int(made[p.KERNEL_H]), int(made[p.KERNEL_W]),
                int(made[p.PADDING_H]), int(made[p.PADDING_W]), self.lanes,
            )  # fmt: skip
        places = self.deltas, self.deltas + first, plane, step[0] * line, step[1] * self.lanes
        self.rows[layer, DELTA : DELTA_STEP + 1] = places
        self.deltas += channels * plane

    def convolution(self, layer: int) -> None:
        made, source = self.plan[layer], self.rows[layer - 1]
        channels, outputs = int(made[p.CHANNELS]), int(made[p.OUTPUTS])
        row = self.rows[layer]
        kernel = int(made[p.KERNEL_H]), int(made[p.KERNEL_W])
        row[TABLE] = self.table(window_offsets, channels, *kernel, int(source[PLANE]), int(source[LINE]))
        if winograd_layout.pays(made):
            self.winograd(layer)
        row[SUMS] = self.sums
        self.sums += int(made[p.INPUTS] + 1) * int(made[p.WEIGHT_STRIDE])
        if self.peaked(layer):
            self.peaks(layer, source)
        elif layer > 0:
            line = int(row[DELTA_LINE]) // int(made[p.STRIDE_H])
            sizes = *kernel, int(made[p.STRIDE_W]), int(row[DELTA_PLANE]), line
            row[BACK_TABLE] = self.table(turned_offsets, outputs, *sizes)
            row[TURNED] = self.room
            self.room += outputs * int(made[p.KERNEL_H] * made[p.KERNEL_W]) * p.pad(channels)

    def winograd(self, layer: int) -> None:
        """The record of a convolution in Winograd's form, some four lines at once; whole windows of the pool behind."""
        high = int(self.plan[layer + 1, p.KERNEL_H]) if self.rows[layer, FUSED] else 1
        block = max(1, 4 // high) * high
        made = winograd_layout.Winograd(self.plan[layer], block, self.lanes, self.table_at, self.room)
        self.tables.append(made.numbers())
        self.rows[layer, WINOGRAD] = self.table_at
        self.table_at += len(self.tables[-1])
        self.room = made.room

    def peaked(self, layer: int) -> bool:
        """Whether a layer's gradients visit only the largest pixels of the pool behind it."""
        return bool(self.rows[layer, FUSED]) and peak_layout.pays(self.plan[layer], self.plan[layer + 1], self.lanes)

    def peaks(self, layer: int, source: np.ndarray) -> None:
        """A convolution's record, which its lists need, and its weights for the gradient of its input."""
        below = (source[DELTA_PLANE], source[DELTA_STEP]) if layer > 0 else (0, 0)
        places = peak_layout.Places(*(int(n) for n in (source[PLANE], source[LINE], *below)))
        made = peak_layout.Peaks(self.plan[layer], self.plan[layer + 1], places, self.lanes, self.table_at)
        self.tables.append(made.numbers())
        self.rows[layer, [PEAKS, TURNED]] = self.table_at, self.room
        self.table_at += len(self.tables[-1])
        self.room += int(made.record[peak_layout.TILES_ACROSS] * made.record[peak_layout.PLANE])
        self.peak_room = max(self.peak_room, made.room)

    def build(self) -> np.ndarray:
        plan, rows = self.plan, self.rows
        images = int(plan[:, p.IMAGE].sum())  # they are the first layers
        self.image(
            -1, _shape(plan[0, p.CHANNELS : p.WIDTH + 1]), self._border(0), True
        )  # the row of the network's input is the one before the first
        for layer in range(images):
            rows[layer, FUSED] = _goes_into_pool(plan, layer)
            self.image(
                layer,
                _shape(plan[layer, p.OUT_CHANNELS : p.OUT_WIDTH + 1]),
                self._border(layer + 1),
                not rows[layer, FUSED],
            )
            self.delta(layer)
            if plan[layer, p.KIND] == p.CONV:
                self.convolution(layer)
            elif plan[layer, p.KIND] == p.POOL:
                rows[layer, ARGMAX] = self.chunk
                self.chunk += int(plan[layer, p.GIVES]) * self.lanes
        rows[-1, LINES] = self.room
        fused = [plan[i] for i in range(images) if rows[i, FUSED]]
        lines = [6 * plan[i + 1, p.KERNEL_H] * plan[i, p.OUT_WIDTH] for i in range(images) if rows[i, FUSED]]
        self.room += int(max(lines)) * self.lanes if fused else 0
        rows[-1, PEAK_ROOM] = self.room
        self.room += self.peak_room
        return rows

    def _border(self, layer: int) -> tuple[int, int]:
        """The zeros around the image that this layer takes."""
        if layer < len(self.plan) and self.plan[layer, p.KIND] == p.CONV:
            return int(self.plan[layer, p.PADDING_H]), int(self.plan[layer, p.PADDING_W])
        return 0, 0


def make(plan: np.ndarray, batch: int, dtype: Any) -> tuple[np.ndarray, int]:
    """The layout of a plan's images, rows of FIELDS numbers and behind them tables, and the elements they take."""
    cuts = cut(batch, dtype)
    builder = _Builder(plan, cuts.lanes)
    rows = builder.build()
    last = rows[-1]
    by_chunk = bool(((plan[:, p.KIND] == p.BATCH_NORM) & (plan[:, p.IMAGE] == 1)).any())
    copies = cuts.chunks if by_chunk else cuts.groups
    sizes = builder.chunk, p.pad(builder.deltas), p.pad(builder.room), p.pad(builder.sums)
    chunk, deltas, room, sums = (-(-size // cuts.lanes) * cuts.lanes for size in sizes)
    last[CHUNK], last[DELTAS_SIZE], last[ROOM_SIZE], last[GROUP_SIZE] = chunk, deltas, room, sums
    last[DELTAS] = cuts.chunks * chunk
    last[ROOMS] = last[DELTAS] + copies * deltas
    last[GROUPS] = last[ROOMS] + cuts.groups * room
    last[UNIT], last[BY_CHUNK] = cuts.unit, by_chunk
    size = int(last[GROUPS]) + cuts.groups * sums
    return np.concatenate([rows.ravel(), *builder.tables]), size


def make_workspace(plan: np.ndarray, batch: int, dtype: Any) -> Workspace:
    """Room for mini-batches of up to `batch` rows through `plan`."""
    work = p.make_workspace(plan, batch, dtype)
    moments = np.zeros(2 * p.buffer_size(plan))
    if not has_images(plan):
        return work._replace(moments=moments, shares=shares.make())
    layout, size = make(plan, batch, dtype)
    return work._replace(images=p.zeros(size, dtype), layout=layout, moments=moments, shares=shares.make())
