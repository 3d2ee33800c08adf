"""Networks, data and optimisers for the tests of the kernels, and the same computed with error bounds."""

import itertools
import os

import numpy as np
from bounds import (
    Rounded,
    activate,
    binary_cross_entropy,
    constant,
    cross_entropy,
    gamma,
    over_root,
    poisson_loss,
    squared_error,
    through_slope,
)

from mlpkernels.kernels import plan as p
from mlpkernels.kernels.plan import IDENTITY, LOGISTIC, RELU, TANH, Model, OptimizerState, Source

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
    # An epsilon that counts beside the root, and a penalty that counts beside the loss.
    "sgd-weights": {p.RULE: p.SGD, p.WEIGHT_SUM: 1},
    "momentum-penalty": {p.RULE: p.SGD, p.MOMENTUM: 0.9, p.WEIGHT_DECAY: 3.0, p.PENALTY: 1, p.DECAY_BIAS: 1},
    "adam-hat": {p.RULE: p.ADAM, p.EPSILON: 0.01, p.EPSILON_HAT: 1},
    "adam-sklearn": {
        p.RULE: p.ADAM, p.EPSILON: 0.01, p.EPSILON_HAT: 1, p.WEIGHT_DECAY: 3.0, p.PENALTY: 1, p.WEIGHT_SUM: 1,
    },
    "adamw-penalty": {
        p.RULE: p.ADAMW, p.EPSILON: 0.01, p.EPSILON_HAT: 1, p.WEIGHT_DECAY: 3.0, p.PENALTY: 1, p.WEIGHT_SUM: 1,
        p.DECAY_BIAS: 1,
    },
}  # fmt: skip
ACTIVATIONS = {"relu": RELU, "tanh": TANH, "logistic": LOGISTIC}
LOSSES = {"cross-entropy": p.SOFTMAX, "binary": p.BINARY, "squared-error": p.SQUARED, "poisson": p.POISSON}
RATES = {"sgd": 0.1, "momentum": 0.05, "nesterov": 0.05, "adam": 0.002, "adamw": 0.002}


def rate(rule):
    """A learning rate that suits the rule."""
    return RATES[rule.split("-")[0]]


def model(sizes, dtype, seed=0, activation=RELU, loss=p.SOFTMAX):
    """A network of these widths, the activation between, with He's weights and small biases."""
    layers = [(i, o, activation) for i, o in itertools.pairwise(sizes)]
    layers[-1] = (*layers[-1][:2], IDENTITY)
    plan, count = p.build(layers, loss)
    params = p.zeros(count, dtype)
    random = np.random.default_rng(seed)
    for layer, (inputs, outputs, _) in enumerate(layers):
        weights = random.normal(0, np.sqrt(2 / inputs), (inputs, outputs))
        p.weight_view(plan, layer, params)[...] = weights
        p.bias_view(plan, layer, params)[...] = random.normal(0, 0.1, outputs)
    return Model(plan, params)


def targets(rows, outputs, dtype, loss, seed=0):
    """What a loss of targets is trained to: whole and broken numbers, and zeros; none for classes."""
    if loss == p.SOFTMAX:
        return np.zeros((0, 0), dtype)
    random = np.random.default_rng(seed + 2000)
    broken = random.random((rows, outputs)) < 0.2
    whole, parts = {
        p.BINARY: (random.integers(0, 2, broken.shape), random.random(broken.shape)),
        p.SQUARED: (random.integers(-2, 3, broken.shape), random.normal(0, 2, broken.shape)),
        p.POISSON: (random.poisson(1.5, broken.shape), random.uniform(0, 4, broken.shape)),
    }[loss]
    return np.where(broken, parts, whole).astype(dtype)


def source(rows, inputs, classes, dtype, seed=0, kind="rows", weighted=True, loss=p.SOFTMAX):
    """Rows of normal numbers, or of bytes that become [-1, 1]; weights around 1, labels or the loss's targets."""
    random = np.random.default_rng(seed + 1000)
    T = np.dtype(dtype).type
    empty_bytes, empty_rows = np.zeros((0, inputs), np.uint8), np.zeros((0, inputs), dtype)
    labels = random.integers(0, classes, rows).astype(np.int32)
    weights = random.uniform(0.25, 2, rows).astype(dtype) if weighted else np.ones(rows, dtype)
    if kind == "bytes":
        data = random.integers(0, 256, (rows, inputs)).astype(np.uint8)
        made = Source(data, empty_rows, T(2 / 255), T(-1), labels, weights)
    else:
        made = Source(empty_bytes, random.normal(0, 1, (rows, inputs)).astype(dtype), T(1), T(0), labels, weights)
    return made._replace(targets=targets(rows, classes, dtype, loss, seed))


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

    def __init__(
        self, sizes, dtype, rule="sgd", *, rows=100, batch=32, steps=None, kind="rows", clip=0.0, seed=0,
        activation=RELU, loss=p.SOFTMAX,
    ):  # fmt: skip
        self.dtype, self.batch = np.dtype(dtype), batch
        self.model = model(sizes, dtype, seed, activation, loss)
        self.optimizer = optimizer(rule, self.model.params, clip)
        self.source = source(rows, sizes[0], sizes[-1], dtype, seed, kind, loss=loss)
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
    """(weight · loss of each row, flat gradient, logits) of some rows, given Rounded flat parameters.

    divisor: a number, or Rounded in float64.
    """

    def view(get, layer):
        return Rounded(get(plan, layer, params.value), params.dtype, get(plan, layer, params.error))

    values = [bounded_inputs(source, rows, params.dtype)]
    for layer, row in enumerate(plan):
        out = values[-1] @ view(p.weight_view, layer) + view(p.bias_view, layer)
        values.append(activate(out, row[p.ACTIVATION]))
    losses, delta = _bounded_losses(plan[-1, p.LOSS], values[-1], source, rows, divisor)
    grad, error = np.zeros(len(params.value)), np.zeros(len(params.value))
    for layer in range(len(plan) - 1, -1, -1):
        dw, db = values[layer].T @ delta, delta.sum(axis=0)
        for flat, part in ((grad, "value"), (error, "error")):
            p.weight_view(plan, layer, flat)[...] = getattr(dw, part)
            p.bias_view(plan, layer, flat)[...] = getattr(db, part)
        if layer > 0:
            delta = delta @ view(p.weight_view, layer).T
            delta = through_slope(delta, values[layer], plan[layer - 1, p.ACTIVATION])
    return losses, Rounded(grad, params.dtype, error), values[-1]


def _bounded_losses(loss, logits, source, rows, divisor):
    """(weight · loss of each row, gradient by the logits)."""
    weights = Rounded(source.weights[rows], logits.dtype)
    divisor = divisor.to(logits.dtype) if isinstance(divisor, Rounded) else constant(divisor, logits.dtype)
    if loss == p.SOFTMAX:
        return cross_entropy(logits, source.labels[rows], weights, divisor)
    of_targets = {p.BINARY: binary_cross_entropy, p.SQUARED: squared_error, p.POISSON: poisson_loss}
    return of_targets[loss](logits, Rounded(source.targets[rows], logits.dtype), weights, divisor)


def bounded_clip(grad, limit):
    wide = grad.to(np.float64)
    norm = (wide * wide).sum().sqrt()
    return grad * (constant(limit, np.float64) / (norm + 1e-6)).at_most(1.0).to(grad.dtype)


def bounded_sgd(params, grad, velocity, learning_rate, momentum, nesterov, weight_decay):
    """(params, velocity) after sgd_step; weight_decay may be an array, or Rounded in float64."""
    g = grad + params * _wide(weight_decay).to(params.dtype)
    if momentum:
        velocity = velocity * momentum + g
        g = g + velocity * momentum if nesterov else velocity
    return params - g * learning_rate, velocity


def bounded_adam(params, grad, m, v, learning_rate, beta1, beta2, epsilon, weight_decay, decoupled, step):
    """(params, m, v) after adam_step; weight_decay may be an array, it and epsilon Rounded in float64."""
    rest1, rest2 = (1 - _power(beta, step) for beta in (beta1, beta2))
    rate = (constant(learning_rate, np.float64) / rest1).to(params.dtype)
    scale = (1 / rest2.sqrt()).to(params.dtype)
    decay = _wide(weight_decay)
    if decoupled:
        params, g = params * (1 - decay * learning_rate).to(params.dtype), grad
    else:
        g = grad + params * decay.to(params.dtype)
    m = m * beta1 + g * (1 - beta1)
    v = v * beta2 + g * g * (1 - beta2)
    return params - over_root(m, v, scale, _wide(epsilon)) * rate, m, v


def _wide(number):
    """A setting, as it is before it is rounded to a network's dtype."""
    return number if isinstance(number, Rounded) else constant(number, np.float64)


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
        decay = Rounded(settings[p.WEIGHT_DECAY] * decays, np.float64)
        rows = run.order[s * run.batch : (s + 1) * run.batch]
        divisor = Rounded(len(rows), np.float64)
        if settings[p.WEIGHT_SUM]:
            divisor = Rounded(run.source.weights[rows], np.float64).sum()
        losses, grad, _ = bounded_gradient(plan, params, run.source, rows, divisor)
        self.loss = losses.to(np.float64).sum()
        if settings[p.PENALTY]:
            wide = params.to(np.float64)
            self.loss += (wide * wide * decay).sum() / 2
            decay = decay / divisor
        if settings[p.CLIP_NORM]:
            grad = bounded_clip(grad, settings[p.CLIP_NORM])
        if settings[p.RULE] == p.SGD:
            self.params, self.first = bounded_sgd(
                params, grad, first, run.rates[s], settings[p.MOMENTUM], settings[p.NESTEROV], decay
            )
            self.second = second
        else:
            step, epsilon = int(run.optimizer.step[0]) + 1, settings[p.EPSILON]
            if settings[p.EPSILON_HAT]:
                epsilon = constant(epsilon, np.float64) / (1 - _power(settings[p.BETA2], step)).sqrt()
            self.params, self.first, self.second = bounded_adam(
                params, grad, first, second, run.rates[s], settings[p.BETA1], settings[p.BETA2],
                epsilon, decay, settings[p.RULE] == p.ADAMW, step,
            )  # fmt: skip

    def check(self, actual, wanted, note=""):
        """Two runs that have taken the step agree within the bounds."""
        note = f"{note} step {self.s}"
        self.params.check(actual.model.params, wanted.model.params, f"{note}: parameters")
        self.first.check(actual.optimizer.first, wanted.optimizer.first, f"{note}: first")
        self.second.check(actual.optimizer.second, wanted.optimizer.second, f"{note}: second")
        self.loss.check(actual.losses[self.s], wanted.losses[self.s], f"{note}: loss")
