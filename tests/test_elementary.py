"""exp, log, tanh and the logistic function: accuracy everywhere, what has no ordinary value, and the same bits."""

import decimal
import itertools
import math

import numpy as np
import pytest
from bounds import EXP_ERROR, EXP_LOWEST, LOG_ULPS, LOGISTIC_ERROR, TANH_ERROR
from problems import DTYPES
from support import from_python

from mlpkernels.kernels.cpu import elementary, steps
from mlpkernels.kernels.plan import LOGISTIC, TANH


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


exp, log = from_python(elementary.exp), from_python(elementary.log)
exp.__name__, log.__name__ = "exp", "log"


def tanh(z):
    steps.get("activate", z.dtype)(z, TANH)


def logistic(z):
    steps.get("activate", z.dtype)(z, LOGISTIC)


FUNCTIONS = pytest.mark.parametrize("function", [exp, tanh, logistic], ids=lambda function: function.__name__)
WITH_LOG = pytest.mark.parametrize("function", [exp, log, tanh, logistic], ids=lambda function: function.__name__)


# ---- accuracy


def near(values, dtype):
    """These numbers and their three neighbours on each side."""
    return (np.reshape(values, (-1, 1)) * (1 + np.finfo(dtype).eps * np.arange(-3, 4))).ravel()


def arguments(function, dtype):
    """Numbers from 0 down to where exp may be 0, of the other two on both sides: all over, close to 0, close to where
    exp's reduction turns and where tanh does, and below the smallest normal number.
    """
    random, lowest, kind = np.random.default_rng(0), EXP_LOWEST[dtype], np.finfo(dtype)
    turns = near((np.arange(0, int(-lowest / math.log(2))) + 0.5) * math.log(2), dtype)
    small = np.exp(random.uniform(math.log(kind.tiny), 0, 2500))
    exact = np.array([0.0, 1.0, 2.0, 0.625, kind.tiny, kind.smallest_subnormal, *(kind.tiny * np.arange(8) / 8)])
    parts = [random.uniform(0, -lowest, 4000), random.uniform(0, 20, 3000), turns, turns / 2, small, exact]
    if function is tanh:
        parts += [near(0.625, dtype), random.uniform(0.6, 0.7, 3000)]
    x = -np.concatenate(parts).astype(dtype)
    x = x[x > lowest]
    return x if function is exp else np.concatenate([x, -x])


def exact(function, x):
    """The value for a number, as a Decimal: tanh of what is small by its series, the others by their definitions."""
    z = decimal.Decimal(float(x))
    if function is exp:
        return z.exp()
    small = (-abs(z)).exp()
    if function is logistic:
        return (1 if z >= 0 else small) / (1 + small)
    if abs(z) < decimal.Decimal("1e-4"):
        return z - z**3 / 3 + 2 * z**5 / 15
    return ((1 - small * small) / (1 + small * small)).copy_sign(z)


@FUNCTIONS
def test_a_function_is_accurate(function, dtype):
    x = arguments(function, dtype)
    z = x.copy()
    function(z)
    with decimal.localcontext() as context:
        context.prec, context.Emin = 40, -9999
        pairs = [(decimal.Decimal(float(got)), exact(function, at)) for at, got in zip(x, z, strict=True) if at != 0]
        worst = max(abs(got - wanted) / abs(wanted) for got, wanted in pairs)
    assert worst <= {exp: EXP_ERROR, tanh: TANH_ERROR, logistic: LOGISTIC_ERROR}[function][dtype], float(worst)


def positive(dtype):
    """Numbers above 0: all over, from 1/2 to 1000, close to 1, close to where log's reduction turns, below the smallest
    normal number, and the worst that were found among all of float32 and 60 million of float64.
    """
    random, kind = np.random.default_rng(0), np.finfo(dtype)
    turns = near(np.sqrt(0.5) * 2.0 ** np.arange(-60, 60), dtype)
    ones = np.concatenate([near(1.0, dtype), 1 + random.normal(0, 1, 2000) * 10 ** random.uniform(-9, -1, 2000)])
    small = kind.tiny * np.concatenate([np.arange(1, 8) / 8, random.uniform(0, 1, 500)])
    ends = [kind.smallest_subnormal, kind.tiny, kind.max, 2.0, 10.0]
    worst = [1.4054595, 0.36934766, 0.7009636664623008, 1.2736287578185004]
    everywhere = np.exp(random.uniform(np.log(kind.tiny), np.log(kind.max) - 1, 3000))
    x = np.concatenate([everywhere, np.exp(random.uniform(-0.7, 6.9, 5000)), ones, turns, small, ends, worst])
    return x.astype(dtype)


def test_the_logarithm_is_within_a_unit_in_the_last_place(dtype):
    x = positive(dtype)
    z = x.copy()
    log(z)
    with decimal.localcontext() as context:
        context.prec = 40
        worst = 0
        for at, got in zip(x, z, strict=True):
            wanted = decimal.Decimal(float(at)).ln()
            ulp = np.spacing(np.abs(np.dtype(dtype).type(wanted)))
            worst = max(worst, abs(decimal.Decimal(float(got)) - wanted) / decimal.Decimal(float(ulp)))
    assert 0.8 < worst <= LOG_ULPS[dtype], float(worst)  # 0.8: that the worst known are among them


def test_the_worst_of_float32_are_no_worse_than_said():
    """Found by trying all numbers between 1/16384 and 90."""
    for function, at in ((tanh, 0.6335302), (tanh, 0.59904131), (logistic, -6.6790237), (logistic, -1.9273138)):
        z = np.full(1, at, np.float32)
        wanted = exact(function, z[0])
        function(z)
        error = abs(decimal.Decimal(float(z[0])) - wanted) / abs(wanted)
        assert error <= {tanh: TANH_ERROR, logistic: LOGISTIC_ERROR}[function]["float32"], (function, at, float(error))


def test_tanh_goes_up_from_one_branch_to_the_other(dtype):
    z = np.sort(near(0.625, dtype).astype(dtype))
    assert (z <= 0.625).any() and (z > 0.625).any()
    tanh(z)
    assert (np.diff(z) >= 0).all()


# ---- what has no ordinary value


def signed(values, dtype):
    """(the values as bits, so that -0 is not 0; a NaN of any bits is one)."""
    values = np.asarray(values, dtype)
    return [("nan" if np.isnan(v) else (float(v), bool(np.signbit(v)))) for v in values]


def test_exp_of_what_has_no_ordinary_exp(dtype):
    z = np.array([0, -0.0, -np.inf, np.nan, EXP_LOWEST[dtype] - 1, -1e30, -np.finfo(dtype).max], dtype)
    exp(z)
    assert signed(z, dtype) == signed([1, 1, 0, np.nan, 0, 0, 0], dtype)


def test_log_of_what_has_no_ordinary_log(dtype):
    kind = np.finfo(dtype)
    below = [-np.inf, -1, -kind.tiny, -kind.smallest_subnormal]
    z = np.array([1, 0, -0.0, np.inf, np.nan, *below], dtype)
    log(z)
    assert signed(z, dtype) == signed([0, -np.inf, -np.inf, np.inf, *[np.nan] * 5], dtype)


def test_tanh_of_what_has_no_ordinary_tanh(dtype):
    kind = np.finfo(dtype)
    small = [kind.smallest_subnormal, -kind.smallest_subnormal, kind.tiny / 2, -kind.tiny, kind.tiny]
    z = np.array([0, -0.0, np.inf, -np.inf, np.nan, kind.max, -kind.max, 1e30, -20, *small], dtype)
    tanh(z)
    assert signed(z, dtype) == signed([0, -0.0, 1, -1, np.nan, 1, -1, 1, -1, *small], dtype)


def test_the_logistic_function_of_what_has_no_ordinary_one(dtype):
    kind, lowest = np.finfo(dtype), EXP_LOWEST[dtype]
    small = [kind.smallest_subnormal, -kind.smallest_subnormal, kind.tiny, -kind.tiny]
    z = np.array([0, -0.0, np.inf, -np.inf, np.nan, kind.max, -kind.max, -lowest + 1, lowest - 1, *small], dtype)
    logistic(z)
    assert signed(z, dtype) == signed([0.5, 0.5, 1, 0, np.nan, 1, 0, 1, 0, *[0.5] * 4], dtype)


# ---- bits


@WITH_LOG
def test_the_bits_are_the_same_in_a_vector_and_in_what_is_left_of_a_loop(function, dtype):
    chosen = positive(dtype) if function is log else arguments(function, dtype)
    x = np.concatenate([chosen[:: max(1, len(chosen) // 37)], np.array([0, -0.0, -np.inf, np.nan], dtype)])
    alone = x.copy()
    for i in range(len(x)):
        function(alone[i : i + 1])
    for start, stop in itertools.combinations(range(0, len(x) + 1, 3), 2):
        z = x[start:stop].copy()
        function(z)
        assert z.tobytes() == alone[start:stop].tobytes(), (start, stop)


def test_slopes_are_those_of_what_the_functions_made(dtype):
    """tanh's is 1 - x², the logistic function's x · (1 - x), each operation rounded: NumPy's bits, at every length."""
    random, one = np.random.default_rng(0), np.dtype(dtype).type(1)
    for size in range(0, 40):
        delta, x = random.normal(size=size).astype(dtype), random.uniform(-1, 1, size).astype(dtype)
        for code in (TANH, LOGISTIC):
            got = delta.copy()
            steps.get("slope", dtype)(got, x, code)
            assert got.tobytes() == (delta * (one - x * x if code == TANH else x * (one - x))).tobytes(), (size, code)
