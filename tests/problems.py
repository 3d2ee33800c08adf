"""Networks, data and optimisers for the tests of the kernels, and the same computed with error bounds."""

import itertools
import os

import numpy as np
from bounds import Rounded, constant, cross_entropy, gamma, over_root

from mlpkernels.kernels import plan as p
from mlpkernels.kernels.plan import IDENTITY, RELU, Model, OptimizerState, Source

# Tests cut small calls into many slots. GNU's threads spin at each barrier by default: beside another busy program
# that makes 86 s of the 6 that test_a_new_architecture_compiles_nothing takes. libgomp reads it when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

DTYPES = ["float32", "float64"]
RULES = {
    "sgd": {p.RULE: p.SGD},
    "sgd-decay": {p.RULE: p.SGD, p.WEIGHT_DECAY: 0.01, p.DECAY_BIAS: 1},
    "momentum": {p.RULE: p.SGD, p.MOMENTUM: 0.9},
    "momentum-decay": {p.RULE: p.SGD, p.MOMENTUM: 0.9, p.WEIGHT_DECAY: 0.01},
    "nesterov": {p.RULE: p.SGD, p.MOMENTUM: 0.9, p.NESTEROV: 1, p.WEIGHT_DECAY: 0.01, p.DECAY_BIAS: 1},
    "adam": {p.RULE: p.ADAM},
    "adam-decay": {p.RULE: p.ADAM, p.WEIGHT_DECAY: 0.01, p.DECAY_BIAS: 1},
    "adamw": {p.RULE: p.ADAMW, p.WEIGHT_DECAY: 0.01},
}
RATES = {"sgd": 0.1, "momentum": 0.05, "nesterov": 0.05, "adam": 0.002, "adamw": 0.002}


def rate(rule):
    """A learning rate that suits the rule."""
    return RATES[rule.split("-")[0]]


def model(sizes, dtype, seed=0):
    """A network of these widths, ReLU between, with He's weights and small biases."""
    layers = [(i, o, RELU) for i, o in itertools.pairwise(sizes)]
    layers[-1] = (*layers[-1][:2], IDENTITY)
    plan, count = p.build(layers)
    params = p.zeros(count, dtype)
    random = np.random.default_rng(seed)
    for layer, (inputs, outputs, _) in enumerate(layers):
        weights = random.normal(0, np.sqrt(2 / inputs), (inputs, outputs))
        p.weight_view(plan, layer, params)[...] = weights
        p.bias_view(plan, layer, params)[...] = random.normal(0, 0.1, outputs)
    return Model(plan, params)


def source(rows, inputs, classes, dtype, seed=0, kind="rows", weighted=True):
    """Rows of normal numbers, or of bytes that become [-1, 1]; weights around 1."""
    random = np.random.default_rng(seed + 1000)
    T = np.dtype(dtype).type
    empty_bytes, empty_rows = np.zeros((0, inputs), np.uint8), np.zeros((0, inputs), dtype)
    labels = random.integers(0, classes, rows).astype(np.int32)
    weights = random.uniform(0.25, 2, rows).astype(dtype) if weighted else np.ones(rows, dtype)
    if kind == "bytes":
        data = random.integers(0, 256, (rows, inputs)).astype(np.uint8)
        return Source(data, empty_rows, T(2 / 255), T(-1), labels, weights)
    return Source(empty_bytes, random.normal(0, 1, (rows, inputs)).astype(dtype), T(1), T(0), labels, weights)


def optimizer(rule, params, clip_norm=0.0):
    """Settings of a rule of RULES and zeros for its memory."""
    settings = np.zeros(p.SETTINGS)
    settings[[p.BETA1, p.BETA2, p.EPSILON, p.CLIP_NORM]] = 0.9, 0.999, 1e-8, clip_norm
    for index, value in RULES[rule].items():
        settings[index] = value
    has_first = settings[p.RULE] != p.SGD or settings[p.MOMENTUM] != 0
    has_second = settings[p.RULE] != p.SGD
    first, second = (p.zeros(len(params) if has else 0, params.dtype) for has in (has_first, has_second))
    return OptimizerState(settings, np.zeros(1, np.int64), first, second)


def as_double(tuple_):
    """A copy of a named tuple of arrays with float64 in the place of every float32."""

    def convert(value):
        kind = np.asarray(value).dtype
        return np.array(value, np.float64 if kind == np.float32 else kind)[()]

    return type(tuple_)(*map(convert, tuple_))


def copied(tuple_):
    return type(tuple_)(*(np.array(value)[()] for value in tuple_))


def unpadded(network, flat):
    """The numbers of a flat array that belong to weights and biases, in the order of the layers."""
    parts = [get(network.plan, i, flat) for i in range(len(network.plan)) for get in (p.weight_view, p.bias_view)]
    return np.concatenate([part.ravel() for part in parts])


def padding(network, flat):
    """The numbers between them."""
    used = np.zeros(len(flat), bool)
    for i, get in itertools.product(range(len(network.plan)), (p.weight_view, p.bias_view)):
        get(network.plan, i, used)[...] = True
    return flat[~used]


class Run:
    """One network, its optimiser and data, and calls of train_steps over them."""

    def __init__(self, sizes, dtype, rule="sgd", *, rows=100, batch=32, steps=None, kind="rows", clip=0.0, seed=0):
        self.dtype, self.batch = np.dtype(dtype), batch
        self.model = model(sizes, dtype, seed)
        self.optimizer = optimizer(rule, self.model.params, clip)
        self.source = source(rows, sizes[0], sizes[-1], dtype, seed, kind)
        self.order = np.random.default_rng(seed + 1).permutation(rows).astype(np.int64)
        self.steps = -(-rows // batch) if steps is None else steps
        self.rates = rate(rule) * np.linspace(1, 0.5, self.steps)
        self.losses, self.corrects = np.full(self.steps, np.nan), np.full(self.steps, -1, np.int64)
        self.work = p.make_workspace(self.model.plan, batch, dtype)

    def train(self, backend, first=0, last=None, threads=1, seconds=float("inf")):
        return backend.train_steps(
            self.model, self.optimizer, self.source, self.order, self.batch, first,
            self.steps if last is None else last, self.rates, self.work, self.losses, self.corrects, threads, seconds,
        )  # fmt: skip

    def in_double(self):
        """The same at the same point, to be run by the reference in float64."""
        other = object.__new__(Run)
        other.__dict__ = dict(self.__dict__)
        other.model, other.optimizer = as_double(self.model), as_double(self.optimizer)
        other.source, other.dtype = as_double(self.source), np.dtype(np.float64)
        other.losses, other.corrects = self.losses.copy(), self.corrects.copy()
        other.work = p.make_workspace(self.model.plan, self.batch, np.float64)
        return other

    def state(self):
        """Every array that training changes, as bytes: equal bits compare equal, NaN too."""
        changed = (self.model.params, *self.optimizer[1:], self.losses, self.corrects)
        return tuple(array.tobytes() for array in changed)


# ---- the same with error bounds


def bounded_inputs(source, rows, dtype):
    """Rows of a source as the network's inputs, with their rounding."""
    if len(source.bytes) == 0:
        return Rounded(source.rows[rows], dtype)
    factor, offset = Rounded(source.factor, dtype), Rounded(source.offset, dtype)
    return Rounded(source.bytes[rows], dtype) * factor + offset


def bounded_gradient(plan, params, source, rows, divisor):
    """(weight · loss of each row, flat gradient, logits) of some rows, given Rounded flat parameters."""

    def view(get, layer):
        return Rounded(get(plan, layer, params.value), params.dtype, get(plan, layer, params.error))

    values = [bounded_inputs(source, rows, params.dtype)]
    for layer, row in enumerate(plan):
        out = values[-1] @ view(p.weight_view, layer) + view(p.bias_view, layer)
        values.append(out.relu() if row[p.ACTIVATION] == RELU else out)
    weights = Rounded(source.weights[rows], params.dtype)
    losses, delta = cross_entropy(values[-1], source.labels[rows], weights, constant(divisor, params.dtype))
    grad, error = np.zeros(len(params.value)), np.zeros(len(params.value))
    for layer in range(len(plan) - 1, -1, -1):
        dw, db = values[layer].T @ delta, delta.sum(axis=0)
        for flat, part in ((grad, "value"), (error, "error")):
            p.weight_view(plan, layer, flat)[...] = getattr(dw, part)
            p.bias_view(plan, layer, flat)[...] = getattr(db, part)
        if layer > 0:
            delta = delta @ view(p.weight_view, layer).T
            if plan[layer - 1, p.ACTIVATION] == RELU:
                delta = delta.where_positive(values[layer])
    return losses, Rounded(grad, params.dtype, error), values[-1]


def bounded_clip(grad, limit):
    wide = grad.to(np.float64)
    norm = (wide * wide).sum().sqrt()
    return grad * (constant(limit, np.float64) / (norm + 1e-6)).at_most(1.0).to(grad.dtype)


def bounded_sgd(params, grad, velocity, learning_rate, momentum, nesterov, weight_decay):
    """(params, velocity) after sgd_step; weight_decay may be an array."""
    g = grad + params * weight_decay
    if momentum:
        velocity = velocity * momentum + g
        g = g + velocity * momentum if nesterov else velocity
    return params - g * learning_rate, velocity


def bounded_adam(params, grad, m, v, learning_rate, beta1, beta2, epsilon, weight_decay, decoupled, step):
    """(params, m, v) after adam_step; weight_decay may be an array."""
    rest1, rest2 = (1 - _power(beta, step) for beta in (beta1, beta2))
    rate = (constant(learning_rate, np.float64) / rest1).to(params.dtype)
    scale = (1 / rest2.sqrt()).to(params.dtype)
    if decoupled:
        params, g = params * (1 - learning_rate * weight_decay), grad
    else:
        g = grad + params * weight_decay
    m = m * beta1 + g * (1 - beta1)
    v = v * beta2 + g * g * (1 - beta2)
    return params - over_root(m, v, scale, epsilon) * rate, m, v


def _power(base, exponent):
    """base ** exponent in float64: by squaring, two products a bit."""
    value = float(base) ** exponent
    return Rounded(value, np.float64, gamma(2 * exponent.bit_length(), np.float64) * value)


class BoundedStep:
    """What the next step of a run does to its parameters and its optimiser's memory, with bounds, and its loss.

    One step from where the run is: worst cases of several steps in a row would soon bound nothing.
    """

    def __init__(self, run, s):
        self.s, settings, plan = s, run.optimizer.settings, run.model.plan
        params, first, second = (
            Rounded(array, run.dtype) for array in (run.model.params, run.optimizer.first, run.optimizer.second)
        )
        decays = np.ones(run.model.params.size)
        for row in plan:
            decays[row[p.BIAS] : row[p.BIAS] + row[p.WEIGHT_STRIDE]] = settings[p.DECAY_BIAS]
        decay = settings[p.WEIGHT_DECAY] * decays
        rows = run.order[s * run.batch : (s + 1) * run.batch]
        losses, grad, _ = bounded_gradient(plan, params, run.source, rows, len(rows))
        self.loss = losses.to(np.float64).sum()
        if settings[p.CLIP_NORM]:
            grad = bounded_clip(grad, settings[p.CLIP_NORM])
        if settings[p.RULE] == p.SGD:
            self.params, self.first = bounded_sgd(
                params, grad, first, run.rates[s], settings[p.MOMENTUM], settings[p.NESTEROV], decay
            )
            self.second = second
        else:
            self.params, self.first, self.second = bounded_adam(
                params, grad, first, second, run.rates[s], settings[p.BETA1], settings[p.BETA2],
                settings[p.EPSILON], decay, settings[p.RULE] == p.ADAMW, int(run.optimizer.step[0]) + 1,
            )  # fmt: skip

    def check(self, actual, wanted, note=""):
        """Two runs that have taken the step agree within the bounds."""
        note = f"{note} step {self.s}"
        self.params.check(actual.model.params, wanted.model.params, f"{note}: parameters")
        self.first.check(actual.optimizer.first, wanted.optimizer.first, f"{note}: first")
        self.second.check(actual.optimizer.second, wanted.optimizer.second, f"{note}: second")
        self.loss.check(actual.losses[self.s], wanted.losses[self.s], f"{note}: loss")
