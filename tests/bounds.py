"""Running error analysis: float64 values beside a bound of what rounding in a dtype may have done to them.

Every operation adds its own rounding, unit · |result|, to what it inherits; a sum of n terms in any order adds
γₙ = n·unit / (1 - n·unit) times the sum of the terms' sizes (Higham, Accuracy and Stability, 3.1 and 4.2). So a test
asks for what floating-point arithmetic owes it and no tolerance is set by hand.
"""

import numpy as np

from mlpkernels.kernels.plan import LOGISTIC, RELU, TANH

# What the compiled functions owe, relative, and below which exponent exp and the logistic function may return 0:
# tests/test_elementary.py holds them to it.
EXP_ERROR = {"float32": 1.2e-7, "float64": 4e-16}
TANH_ERROR = {"float32": 1.6e-7, "float64": 4e-16}
LOGISTIC_ERROR = {"float32": 2.1e-7, "float64": 4e-16}
LOG_ULPS = {"float32": 0.84, "float64": 0.85}  # in units of the last place
EXP_LOWEST = {"float32": -87.0, "float64": -708.0}


def unit(dtype):
    """The unit roundoff of dtype, and beside it float64's: the reference rounds, too."""
    return np.finfo(dtype).eps / 2 + np.finfo(np.float64).eps / 2


def gamma(n, dtype):
    """The relative error of a sum of n products in any order, by the sum of their sizes."""
    return n * unit(dtype) / (1 - n * unit(dtype))


class Rounded:
    """A float64 array and how far the same computed in `dtype` may be from it."""

    def __init__(self, value, dtype, error=0.0):
        self.value = np.asarray(value, np.float64)
        self.dtype = np.dtype(dtype).name
        self.error = np.broadcast_to(np.asarray(error, np.float64), self.value.shape)

    def _rounded(self, value, inherited):
        """A result: what it inherits and one rounding, or half the smallest number where that is more."""
        own = unit(self.dtype) * (np.abs(value) + inherited) + np.finfo(self.dtype).smallest_subnormal
        return Rounded(value, self.dtype, inherited + own)

    def _other(self, other):
        return other if isinstance(other, Rounded) else constant(other, self.dtype)

    @property
    def size(self):
        """The largest size that the computed values may have."""
        return np.abs(self.value) + self.error

    def __getitem__(self, key):
        return Rounded(self.value[key], self.dtype, self.error[key])

    def __neg__(self):
        return Rounded(-self.value, self.dtype, self.error)

    def __abs__(self):
        return Rounded(np.abs(self.value), self.dtype, self.error)

    def __add__(self, other):
        other = self._other(other)
        return self._rounded(self.value + other.value, self.error + other.error)

    def __sub__(self, other):
        return self + -self._other(other)

    def __rsub__(self, other):
        return self._other(other) - self

    def __rtruediv__(self, other):
        return self._other(other) / self

    def __mul__(self, other):
        other = self._other(other)
        inherited = self.error * np.abs(other.value) + self.size * other.error
        return self._rounded(self.value * other.value, inherited)

    def __truediv__(self, other):
        other = self._other(other)
        least = np.abs(other.value) - other.error
        assert (least > 0).all(), "a divisor may be 0 within its bound"
        inherited = (self.error + np.abs(self.value / other.value) * other.error) / least
        return self._rounded(self.value / other.value, inherited)

    def __matmul__(self, other):
        n = self.value.shape[-1]
        inherited = 0.0  # most products are of what is exact
        if self.error.any() or other.error.any():
            inherited = self.error @ np.abs(other.value) + self.size @ other.error
        own = gamma(n, self.dtype) * (self.size @ other.size) + n * np.finfo(self.dtype).smallest_subnormal
        return Rounded(self.value @ other.value, self.dtype, inherited + own)

    @property
    def T(self):
        return Rounded(self.value.T, self.dtype, self.error.T)

    def sum(self, axis=None, keepdims=False):
        n = self.value.size if axis is None else self.value.shape[axis]
        own = gamma(n, self.dtype) * self.size.sum(axis=axis, keepdims=keepdims)
        value = self.value.sum(axis=axis, keepdims=keepdims)
        return Rounded(value, self.dtype, self.error.sum(axis=axis, keepdims=keepdims) + own)

    def sqrt(self):
        value = np.sqrt(self.value)
        least = np.sqrt(np.maximum(self.value - self.error, 0))
        return self._rounded(value, np.maximum(value - least, np.sqrt(self.value + self.error) - value))

    def exp(self):
        value = np.exp(self.value)
        close = value * np.expm1(np.minimum(self.error, 1))
        inherited = np.where(self.error < 1, close, np.exp(self.value + self.error))
        own = (EXP_ERROR[self.dtype] + 2 * unit(self.dtype)) * (value + inherited) + np.exp(EXP_LOWEST[self.dtype])
        return Rounded(value, self.dtype, inherited + own)

    def log(self):
        least = self.value - self.error
        assert (least > 0).all(), "a logarithm's argument may be 0 within its bound"
        value = np.log(self.value)  # a unit in the last place of a number is at most its size times epsilon
        own = LOG_ULPS[self.dtype] * np.finfo(self.dtype).eps * np.abs(value)
        return self._rounded(value, self.error / least + own)

    def log1p(self):
        least = 1 + self.value - self.error
        assert (least > 0).all(), "a logarithm's argument may be 0 within its bound"
        value = np.log1p(self.value)
        return self._rounded(value, self.error / least + unit(self.dtype) * np.abs(value))

    def tanh(self):
        value = np.tanh(self.value)
        steepest = 1 - np.tanh(np.maximum(np.abs(self.value) - self.error, 0)) ** 2
        inherited = self.error * (steepest + unit("float64"))
        own = (TANH_ERROR[self.dtype] + 2 * unit(self.dtype)) * (np.abs(value) + inherited)
        return Rounded(value, self.dtype, inherited + own + np.finfo(self.dtype).smallest_subnormal)

    def logistic(self):
        value = _logistic(self.value)
        steepest = _logistic(-np.maximum(np.abs(self.value) - self.error, 0))
        inherited = self.error * steepest * (1 - steepest)
        own = (LOGISTIC_ERROR[self.dtype] + 2 * unit(self.dtype)) * (value + inherited)
        return Rounded(value, self.dtype, inherited + own + np.exp(EXP_LOWEST[self.dtype]))

    def relu(self):
        error = np.where(self.value >= 0, self.error, np.maximum(self.value + self.error, 0))
        return Rounded(np.maximum(self.value, 0), self.dtype, error)

    def where_positive(self, other):
        """self where other > 0, else 0; where the sign of other is within its error, either of them."""
        doubtful = (np.abs(other.value) <= other.error) & (other.error > 0)
        kept = other.value > 0
        error = np.where(doubtful, self.size, np.where(kept, self.error, 0))
        return Rounded(np.where(kept, self.value, 0), self.dtype, error)

    def at_most(self, limit):
        return Rounded(np.minimum(self.value, limit), self.dtype, self.error)

    def to(self, dtype):
        """The same, to be computed with in another dtype from here on; rounded where that is coarser."""
        same = Rounded(self.value, dtype, self.error)
        return same if np.finfo(dtype).eps <= np.finfo(self.dtype).eps else same._rounded(self.value, self.error)

    def check(self, actual, wanted=None, note=""):
        """Fail unless actual is within the bound of wanted: the reference's result, here by default."""
        actual = np.asarray(actual, np.float64)
        wanted = np.asarray(self.value if wanted is None else wanted, np.float64)
        assert actual.shape == wanted.shape == self.value.shape, (note, actual.shape, wanted.shape, self.value.shape)
        wrong = ~(np.abs(actual - wanted) <= self.error)
        if wrong.any():
            at = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise AssertionError(
                f"{note}: {wrong.sum()} of {wrong.size} beyond the bound, first at {at}: got {actual[at]!r}, wanted "
                f"{wanted[at]!r}, bound {self.error[at]:.3g}, off by {abs(actual[at] - wanted[at]):.3g}"
            )


def constant(value, dtype):
    """A number that the computation rounds to dtype."""
    value = np.asarray(value, np.float64)
    return Rounded(value, dtype, unit(dtype) * np.abs(value))


def _logistic(z):
    small = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, small) / (1 + small)


def activate(z, activation):
    """z through an activation."""
    made = {RELU: Rounded.relu, TANH: Rounded.tanh, LOGISTIC: Rounded.logistic}
    return made[activation](z) if activation in made else z


def through_slope(delta, x, activation):
    """delta times the slope of the activation that made x."""
    one = Rounded(1.0, x.dtype)
    if activation == RELU:
        return delta.where_positive(x)
    if activation == TANH:
        return delta * (one - x * x)
    return delta * (x * (one - x)) if activation == LOGISTIC else delta


def over_root(m, v, scale, epsilon):
    """m / (sqrt(v) · scale + epsilon), Adam's slope; scale and epsilon may lie within bounds of their own.

    The divisor's bounds are taken apart: a v close to 0 may be 0 within its bound, the divisor stays above epsilon.
    """
    slack = 4 * unit(m.dtype)
    divisor = np.sqrt(v.value) * scale.value + epsilon.value
    least = np.sqrt(np.maximum(v.value - v.error, 0)) * (scale.value - scale.error) + epsilon.value - epsilon.error
    most = np.sqrt(v.value + v.error) * (scale.value + scale.error) + epsilon.value + epsilon.error
    least, most = least * (1 - slack), most * (1 + slack)
    turned = np.maximum(1 / least - 1 / divisor, 1 / divisor - 1 / most)
    return m._rounded(m.value / divisor, m.error / least + np.abs(m.value) * turned)


def softmax_parts(logits):
    """(z - max z, its exp, the sums of those) of rows of logits."""
    largest = logits.value.max(axis=1, keepdims=True)
    shifted = logits - Rounded(largest, logits.dtype)
    exps = shifted.exp()
    return shifted, exps, exps.sum(axis=1, keepdims=True)


def softmax(logits):
    _, exps, total = softmax_parts(logits)
    return exps * (Rounded(1.0, logits.dtype) / total)


def log_softmax(logits):
    shifted, _, total = softmax_parts(logits)
    return shifted - total.log()


def cross_entropy(logits, labels, weights, divisor):
    """(weight · loss of each row, gradient by the logits)."""
    rows, columns = np.arange(len(labels)), np.arange(logits.value.shape[1])
    shifted, exps, total = softmax_parts(logits)
    losses = weights * (total.log()[:, 0] - shifted[rows, labels])
    scale = (weights / divisor)[:, None]
    onehot = Rounded(columns == np.asarray(labels)[:, None], logits.dtype)
    return losses, exps * (scale / total) - onehot * scale


def binary_cross_entropy(logits, targets, weights, divisor):
    """(weight · loss of each row, gradient by the logits) of targets from 0 to 1."""
    losses = logits.relu() - logits * targets + (-abs(logits)).exp().log1p()
    return _of_targets(losses, logits.logistic() - targets, weights, divisor)


def squared_error(outputs, targets, weights, divisor):
    """(weight · loss of each row, gradient by the outputs)."""
    errors = outputs - targets
    return _of_targets(errors * errors / Rounded(2.0, outputs.dtype), errors, weights, divisor)


def poisson_loss(outputs, targets, weights, divisor):
    """(weight · loss of each row, gradient by the outputs) of exact targets from 0."""
    rates = outputs.exp()
    positive = Rounded(np.where(targets.value > 0, targets.value, 1), targets.dtype)
    least = targets * positive.log() - targets
    return _of_targets(rates - targets * outputs + least, rates - targets, weights, divisor)


def _of_targets(losses, gradient, weights, divisor):
    return weights * losses.sum(axis=1), gradient * (weights / divisor)[:, None]
