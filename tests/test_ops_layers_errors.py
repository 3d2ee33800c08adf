"""What the ops of convolutions, pools, batch norms and dropout refuse, and by which name; nothing is written then."""

import itertools

import numba
import numpy as np
import pytest
from op_cases import OPS, arguments, outcome, written
from op_inside import INSIDE
from problems import DTYPES

from mlpkernels.kernels.cpu import (
    batchnorm_backward,
    batchnorm_forward,
    batchnorm_inference,
    conv2d_backward_input,
    conv2d_backward_params,
    conv2d_forward,
    dropout,
    dropout_backward,
    maxpool2d_backward,
    maxpool2d_forward,
)

NORMS = (batchnorm_forward, batchnorm_inference, batchnorm_backward)


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


# ---- from Python

PAIRS = [(op, name) for op in INSIDE for name in ("kernel", "stride", "padding") if name in OPS[op]]


@pytest.mark.parametrize(("op", "name"), PAIRS, ids=[f"{op.__name__}-{name}" for op, name in PAIRS])
def test_a_pair_is_two_integers_in_range(op, name):
    given = arguments(op, "float32")
    assert outcome(op, {**given, name: list(given[name])}) == outcome(op, given)
    assert outcome(op, {**given, name: np.array(given[name])}) == outcome(op, given)
    for wrong in (1, None, (1,), (1, 1, 1), (1.0, 1), ("1", "1"), "11"):
        with pytest.raises(TypeError, match=rf"^{name} must be a pair of integers \(height, width\), got"):
            op(**{**given, name: wrong})
    for wrong in ((-1, 1), (1, -1), *([(0, 1)] if name != "padding" else [])):
        with pytest.raises(ValueError, match=f"^{name} must be a pair of integers of at least [01], got"):
            op(**{**given, name: wrong})


WRONG = [
    (conv2d_forward, {"padding": (2, 1)}, r"padding must be less than the kernel \(2, 3\), got \(2, 1\)"),
    (conv2d_forward, {"w": np.ones((4, 3, 9, 3))}, r"w must have a kernel no larger than the images \(5, 4\)"),
    (conv2d_forward, {"w": np.ones((4, 3, 0, 3))}, r"w must have a kernel of at least 1 x 1"),
    (conv2d_forward, {"w": np.ones((4, 2, 2, 3))}, r"w must have shape \(4, 3, 2, 3\), got \(4, 2, 2, 3\)"),
    (conv2d_forward, {"b": np.ones(1)}, r"b must have shape \(4,\), got \(1,\)"),  # no broadcasting
    (conv2d_forward, {"x": np.ones((2, 3, 9, 4))}, r"out must have shape \(2, 4, 5, 4\), the windows of x, got"),
    (conv2d_backward_params, {"dw": np.ones((4, 2, 2, 3))}, r"dw must have shape \(4, 3, 2, 3\), with the channels"),
    (conv2d_backward_params, {"delta": np.ones((2, 4, 3, 3))}, r"delta must have shape \(2, 4, 3, 4\), got"),
    (conv2d_backward_input, {"x": np.ones((2, 3, 4, 4))}, r"x must have shape \(2, 3, 5, 4\), got"),
    (maxpool2d_forward, {"padding": (2, 1)}, r"padding must be at most half the kernel \(2, 3\), got \(2, 1\)"),
    (maxpool2d_forward, {"kernel": (8, 3)}, r"kernel must be no larger than the images \(5, 4\) with padding \(1, 1\)"),
    (maxpool2d_forward, {"x": np.ones((2, 3, 0, 4))}, r"x must have images of 1 to 2\^31 pixels"),
    (maxpool2d_forward, {"x": np.ones((1, 3, 5, 4))}, r"out must have shape \(1, 3, 3, 2\), the windows of x"),
    (maxpool2d_forward, {"places": np.ones((2, 3, 3, 1), np.int32)}, r"places must have shape \(2, 3, 3, 2\), that of"),
    (maxpool2d_backward, {"places": np.full((2, 3, 3, 2), 20)}, r"places must be 0 … 19, got 20 … 20"),
    (maxpool2d_backward, {"places": np.full((2, 3, 3, 2), -1)}, r"places must be 0 … 19, got -1 … -1"),
    (maxpool2d_backward, {"places": np.full((2, 3, 3, 2), 2**32)}, r"places must be 0 … 19"),
    (maxpool2d_backward, {"places": np.zeros((2, 3, 2, 3), int)}, r"places must have shape \(2, 3, 3, 2\), that"),
    (batchnorm_forward, {"out": np.ones((2, 3, 4))}, r"out must be \(B, C\) or \(B, C, H, W\), got shape \(2, 3, 4\)"),
    (batchnorm_forward, {"mean": np.ones(4)}, r"mean must have shape \(3,\), the channels of out, got \(4,\)"),
    *((op, {"epsilon": wrong}, "epsilon must be above 0, got") for wrong in (0, -1.0, np.nan)
      for op in NORMS),
    *((op, {"p": wrong}, "p must be at least 0 and below 1, got") for wrong in (1, -0.1, np.nan)
      for op in (dropout, dropout_backward)),
    *((op, {name: wrong}, f"{name} must be 0 …") for op in (dropout, dropout_backward)
      for name, wrong in (("seed", -1), ("seed", 2**53), ("step", -1), ("step", 2**63), ("layer", -1))),
]  # fmt: skip


@pytest.mark.parametrize(("op", "wrong", "message"), WRONG)
def test_what_does_not_fit_is_named(op, wrong, message, dtype):
    given = arguments(op, dtype)
    before = {name: np.array(given[name]) for name in written(op)}
    made = {name: a.astype(dtype) if name in ("dw", "out") else a for name, a in wrong.items()}
    with pytest.raises(ValueError, match=f"^{message}"):
        op(**{**given, **made})
    assert all(np.array_equal(given[name], before[name]) for name in before)


def test_settings_of_another_kind_are_refused_by_name():
    for op, name in itertools.product((dropout, dropout_backward), ("seed", "step", "layer")):
        for wrong in (1.0, "1", None):
            with pytest.raises(TypeError, match=f"^{name} must be an integer, got"):
                op(**{**arguments(op, "float32"), name: wrong})
    for wrong in (np.zeros((2, 3, 3, 2)), np.zeros((2, 3, 3, 2), bool)):
        with pytest.raises(TypeError, match=r"^places must be integers"):
            maxpool2d_backward(**{**arguments(maxpool2d_backward, "float32"), "places": wrong})
    for op, name, dtypes in (
        (batchnorm_forward, "mean", "float64"),
        (batchnorm_forward, "variance", "float64"),
        (maxpool2d_forward, "places", "int32"),
    ):
        with pytest.raises(TypeError, match=f"^{name} must be {dtypes}, got float32"):
            op(**{**arguments(op, "float32"), name: np.ones(OPS[op][name], np.float32)})


# ---- inside @njit

F = np.float32
WRONG_INSIDE = [
    (conv2d_forward, {"x": np.ones((1, 3, 5, 4), F)}, "disagree on B"),
    (conv2d_forward, {"x": np.ones((2, 2, 5, 4), F)}, "disagree on C"),
    (conv2d_forward, {"w": np.ones((5, 3, 2, 3), F)}, "disagree on O"),
    (conv2d_forward, {"b": np.ones(5, F)}, "disagree on O"),
    (conv2d_forward, {"activation": 2}, "activation must be"),
    (conv2d_forward, {"stride": (0, 1)}, "stride must be"),
    (conv2d_forward, {"padding": (2, 1)}, "padding must be"),
    (conv2d_forward, {"padding": (-1, 1)}, "padding must be"),
    (conv2d_forward, {"w": np.ones((4, 3, 9, 3), F)}, "kernel is larger"),
    (conv2d_forward, {"stride": (1, 1)}, "out .* must have H'"),
    (conv2d_backward_params, {"delta": np.ones((2, 4, 3, 3), F)}, "delta .* must have H'"),
    (conv2d_backward_params, {"db": np.ones(3, F)}, "disagree on O"),
    (conv2d_backward_params, {"dw": np.ones((4, 2, 2, 3), F)}, "dw .* disagree on C"),
    (conv2d_backward_input, {"dx": np.ones((2, 3, 4, 4), F)}, "x .* and dx .* disagree"),
    (conv2d_backward_input, {"activation": -1}, "activation must be"),
    (maxpool2d_forward, {"kernel": (0, 3)}, "kernel and stride"),
    (maxpool2d_forward, {"padding": (2, 1)}, "at most half"),
    (maxpool2d_forward, {"x": np.ones((2, 3, 0, 4), F)}, "1 to 2.31 pixels"),
    (maxpool2d_forward, {"kernel": (8, 3)}, "larger than the padded"),
    (maxpool2d_forward, {"x": np.ones((2, 3, 9, 4), F)}, "out must be"),
    (maxpool2d_forward, {"places": np.ones((2, 3, 3, 1), np.int32)}, "places and out"),
    (maxpool2d_backward, {"x": np.ones((2, 3, 4, 4), F)}, "x .* and dx"),
    (maxpool2d_backward, {"places": np.zeros((2, 3, 2, 2), np.int32)}, "delta .* places"),
    (maxpool2d_backward, {"places": np.full((2, 3, 3, 2), 20, np.int32)}, "places must be 0"),
    (maxpool2d_backward, {"places": np.full((2, 3, 3, 2), -1, np.int32)}, "places must be 0"),
    (maxpool2d_backward, {"activation": 2}, "activation must be"),
    *((op, {"gamma": np.ones(4, F)}, "gamma, mean") for op in NORMS),
    *((op, {"variance": np.ones(2)}, "gamma, mean") for op in NORMS),
    (batchnorm_backward, {"dbeta": np.ones(2, F)}, "gamma, mean"),
    *((op, {"activation": 2}, "activation must be") for op in NORMS),
    *((op, {"epsilon": 0.0}, "epsilon must be") for op in NORMS),
    (batchnorm_forward, {"x": np.ones((2, 3, 4, 5), F)}, "x and out disagree"),
    (batchnorm_inference, {"x": np.ones((6, 3), F)}, "x and out disagree"),
    (batchnorm_backward, {"x": np.ones((2, 3, 4, 5), F)}, "delta, x and dx disagree"),
    *((op, {"p": wrong}, "p must be") for op in (dropout, dropout_backward) for wrong in (1.0, -0.5, np.nan)),
    *((op, {name: wrong}, "seed must be") for op in (dropout, dropout_backward)
      for name, wrong in (("seed", -1), ("seed", 2**53), ("step", -1), ("layer", -1))),
    (dropout, {"x": np.ones((2, 3, 4, 5), F)}, "x and out disagree"),
    (dropout_backward, {"x": np.ones((2, 3, 4, 5), F)}, "delta, x and dx disagree"),
    (dropout_backward, {"activation": 2}, "activation must be"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "wrong", "message"), WRONG_INSIDE)
def test_what_does_not_fit_is_named_inside_njit(op, wrong, message):
    given = arguments(op, "float32")
    before = {name: np.array(given[name]) for name in written(op)}
    with pytest.raises(ValueError, match=f"^{op.__name__}: .*{message}"):
        INSIDE[op](*{**given, **wrong}.values())
    assert all(np.array_equal(given[name], before[name]) for name in before)


TYPES = [
    (conv2d_forward, {"x": np.ones((2, 3, 5, 4))}, "w must be float32 or float64 like the other arrays"),
    (conv2d_forward, {"b": np.ones(4)}, "b must be float32 or float64 like the other arrays"),
    (conv2d_forward, {"x": np.ones((3, 5, 4), F)}, "x must be a C-contiguous array of 4 dimensions"),
    (conv2d_forward, {"w": np.asfortranarray(np.ones((4, 3, 2, 3), F))}, "w must be a C-contiguous array of 4"),
    (conv2d_forward, {"stride": 2}, "stride must be a pair of integers"),
    (conv2d_forward, {"padding": (1, 1, 1)}, "padding must be a pair of integers"),
    (conv2d_backward_input, {"stride": (1.0, 1.0)}, "stride must be a pair of integers"),
    (conv2d_backward_input, {"activation": 1.0}, "activation must be an integer"),
    (maxpool2d_forward, {"places": np.ones((2, 3, 3, 2), np.int64)}, "places must be int32"),
    (maxpool2d_backward, {"places": np.ones((2, 3, 3, 2), F)}, "places must be int32"),
    (batchnorm_forward, {"x": np.ones((2, 3, 5), F)}, r"x must be \(B, C\) or \(B, C, H, W\)"),
    (batchnorm_forward, {"out": np.ones((2, 3), F)}, "out must be a C-contiguous array of 4 dimensions"),
    (batchnorm_forward, {"mean": np.ones(3, F)}, "mean must be float64"),
    (batchnorm_inference, {"epsilon": "1"}, "epsilon must be a number"),
    (dropout, {"seed": 1.0}, "seed must be an integer"),
    (dropout, {"x": np.ones((2, 3, 5, 4))}, "out must be float32 or float64 like the other arrays"),
    (dropout_backward, {"p": (0.5,)}, "p must be a number"),
]


@pytest.mark.parametrize(("op", "wrong", "message"), TYPES)
def test_types_that_do_not_fit_are_named_inside_njit(op, wrong, message):
    with pytest.raises(numba.TypingError, match=message):
        INSIDE[op](*{**arguments(op, "float32"), **wrong}.values())
