"""A network's place on the GPU: its flat arrays there, its programs, and what a call brings and fetches."""

from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from .. import plan as p
from ..plan import Model, OptimizerState
from . import executor
from . import layout as y
from .arrays import kept, nothing, room
from .driver import require_device
from .functions import dropout_key, dropout_limit


class Workspace:
    """Room on the GPU for one mini-batch of `losses.size` rows of one plan; what is in it means nothing between calls.

    losses (B,): as the other backends' workspaces have it. UnavailableError where there is no GPU, MemoryError where
    its memory is too small.
    """

    def __init__(self, plan: np.ndarray, batch: int, dtype: Any) -> None:
        require_device()
        self.plan, self.dtype, self.losses = plan.copy(), np.dtype(dtype), np.zeros(batch)
        self.layout = y.layout(plan, batch)
        self.parameters = int(self.layout.head[y.FIRST_AT])
        # zeros, since nothing writes the gradient's padding
        self.numbers = kept(np.zeros(self.layout.numbers, self.dtype))
        self.doubles = room(max(1, self.layout.doubles), np.float64)
        self.places = room(max(1, self.layout.places), np.int32)
        self.table = kept(self.layout.table.reshape(-1))
        widest = int(max(plan[:, p.OUTPUTS].max(), 1))
        images = not np.isin(plan[:, p.KIND], (p.DENSE, p.DROPOUT)).all()
        tile = executor.tile_of(self.dtype.name, batch, widest)
        self.kernels = executor.kernels(self.dtype.name, tile, bool(images))
        self._programs: dict[tuple[Any, ...], Any] = {}

    def check(self, model: Model, rows: int) -> None:
        """Raise ValueError where this is no place for a model's batches of `rows` rows."""
        if model.params.dtype != self.dtype or not np.array_equal(model.plan, self.plan):
            raise ValueError("work was made for another network, or by another backend: see make_workspace")
        if rows > len(self.losses):
            raise ValueError(f"work has room for {len(self.losses)} rows, {rows} are asked for: see make_workspace")

    def program(self, name: str, *settings: Any) -> Any:
        """(phases, operations, phases on the GPU) of one of layout's programs."""
        key = (name, *settings)
        if key not in self._programs:
            built = y.gathering() if name == "gathering" else getattr(y, name)(self.layout.table, *settings)
            operations, phases = built.tables()
            self._programs[key] = SimpleNamespace(
                count=len(phases), operations=kept(operations.reshape(-1)), phases=kept(phases.reshape(-1))
            )
        return self._programs[key]

    def bring(self, model: Model, optimizer: OptimizerState | None, stream: Any) -> None:
        """Upload parameters, running statistics and the optimiser's memory."""
        size = self.parameters
        self.numbers[:size].copy_to_device(model.params, stream=stream)
        if model.buffers.size:
            self.doubles[: model.buffers.size].copy_to_device(model.buffers, stream=stream)
        memory = () if optimizer is None else (optimizer.first, optimizer.second)
        for number, part in enumerate(memory, 1):
            if part.size:
                self.numbers[number * size : (number + 1) * size].copy_to_device(part, stream=stream)

    def fetch(self, model: Model, optimizer: OptimizerState, stream: Any) -> None:
        """Bring back what training changed."""
        size = self.parameters
        self.numbers[:size].copy_to_host(model.params, stream=stream)
        if model.buffers.size:
            self.doubles[: model.buffers.size].copy_to_host(model.buffers, stream=stream)
        for number, part in enumerate((optimizer.first, optimizer.second), 1):
            if part.size:
                self.numbers[number * size : (number + 1) * size].copy_to_host(part, stream=stream)

    def bring_running(self, model: Model, stream: Any) -> None:
        """Upload what batch norms predict with: their running means, and one over the root of the variances."""
        for layer, row in enumerate(self.layout.table):
            if row[p.KIND] == p.BATCH_NORM:
                mean, variance, _ = p.buffer_views(self.plan, layer, model.buffers)
                moments = np.zeros((y.MOMENTS, int(row[p.WEIGHT_STRIDE])))
                moments[y.MEAN, : mean.size] = mean
                moments[y.SCALE, : mean.size] = 1 / np.sqrt(variance + model.rates[layer, p.BN_EPSILON])
                at = int(row[y.MOMENTS_AT])
                self.doubles[at : at + moments.size].copy_to_device(moments.reshape(-1), stream=stream)


def make_workspace(plan: np.ndarray, batch: int, dtype: Any) -> Workspace:
    """Room on the GPU for mini-batches of up to `batch` rows through `plan`."""
    return Workspace(plan, batch, dtype)


# ---- tables of a call


def layer_rates(model: Model) -> np.ndarray:
    """(L, LAYER_RATES) float64: what the kernels need of Model.rates."""
    rates = np.zeros((len(model.plan), y.LAYER_RATES))
    for layer, row in enumerate(model.plan):
        if row[p.KIND] == p.DROPOUT:
            drop = float(model.rates[layer, p.DROP])
            rates[layer, [y.KEPT_FACTOR, y.DROP_LIMIT]] = 1 / (1 - drop), int(dropout_limit(drop))
        elif row[p.KIND] == p.BATCH_NORM:
            rates[layer, y.EPSILON] = model.rates[layer, p.BN_EPSILON]
            rates[layer, y.NORM_MOMENTUM] = model.rates[layer, p.BN_MOMENTUM]
    return rates


def step_rates(settings: np.ndarray, learning_rates: np.ndarray, updates: int, divisors: np.ndarray) -> np.ndarray:
    """(S, RATE_COLUMNS) float64: what each step's update needs that the host knows; `updates` were done before.

    divisors (S,): what each step's gradient is divided by.
    """
    count, decay = len(learning_rates), settings[p.WEIGHT_DECAY] / (divisors if settings[p.PENALTY] else 1)
    rates, number = np.zeros((count, y.RATE_COLUMNS)), updates + 1 + np.arange(count)
    rest1, rest2 = 1 - settings[p.BETA1] ** number, 1 - settings[p.BETA2] ** number
    rates[:, y.LEARNING_RATE] = learning_rates
    if settings[p.RULE] != p.SGD:
        rates[:, y.ADAM_RATE] = learning_rates / rest1
        rates[:, y.ADAM_SCALE] = 1 / np.sqrt(rest2)
    rates[:, y.ADAM_EPSILON] = settings[p.EPSILON] / (np.sqrt(rest2) if settings[p.EPSILON_HAT] else 1)
    rates[:, y.DECAY] = decay
    rates[:, y.KEEP] = 1 - learning_rates * decay
    rates[:, y.DIVISOR] = divisors
    return rates


def mask_keys(plan: np.ndarray, seed: int, steps: range) -> np.ndarray:
    """(S, dropout layers, 2) uint32: each step's keys; one zero without dropout."""
    layers = [layer for layer, row in enumerate(plan) if row[p.KIND] == p.DROPOUT]
    if not layers:
        return np.zeros(1, np.uint32)
    return np.array([[dropout_key(seed, step, layer) for layer in layers] for step in steps], np.uint32).reshape(-1)


@cache
def no_order() -> Any:
    """The order of rows that are taken as they lie."""
    return nothing("int64")
