"""The public ops: what they convert, what they refuse and by which name."""

import numpy as np
import pytest
from bounds import Rounded
from op_cases import FORMS, INPUTS, OPS, OUTPUTS, B, I, O, arguments, outcome, read, read_only, strided, written
from problems import DTYPES

from mlpkernels.kernels import reference
from mlpkernels.kernels.cpu import (
    IDENTITY,
    LOGISTIC,
    RELU,
    TANH,
    adam_step,
    batchnorm_backward,
    batchnorm_forward,
    batchnorm_inference,
    binary_cross_entropy,
    conv2d_backward_params,
    dense_backward_input,
    dense_backward_params,
    dense_forward,
    dropout,
    dropout_backward,
    log_softmax,
    logistic,
    poisson_loss,
    sgd_step,
    softmax,
    softmax_cross_entropy,
    sparse_dense_forward,
    squared_error,
)

# Ops that may write where they read, element by element: op, what is written, what is read.
IN_PLACE = [
    (softmax, "out", "logits"),
    (log_softmax, "out", "logits"),
    (softmax_cross_entropy, "dlogits", "logits"),
    (binary_cross_entropy, "dlogits", "logits"),
    (squared_error, "doutputs", "outputs"),
    (poisson_loss, "doutputs", "outputs"),
    (logistic, "out", "z"),
    (batchnorm_forward, "out", "x"),
    (batchnorm_inference, "out", "x"),
    (batchnorm_backward, "dx", "delta"),
    (dropout, "out", "x"),
    (dropout_backward, "dx", "delta"),
]


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


def cases(pairs):
    return pytest.mark.parametrize(("op", "name"), pairs, ids=[f"{op.__name__}-{name}" for op, name in pairs])


def every(ops):
    return pytest.mark.parametrize("op", ops, ids=[op.__name__ for op in ops])


# ---- inputs are converted


@cases(INPUTS)
def test_inputs_of_any_form_are_converted_and_left_alone(op, name, dtype):
    wanted = outcome(op, arguments(op, dtype))
    for form, make in FORMS.items():
        given = arguments(op, dtype)
        given[name] = make(given[name])
        before = np.array(given[name])
        assert outcome(op, given) == wanted, form
        assert np.array_equal(np.array(given[name]), before), form


@every([op for op in OPS if "activation" in OPS[op] or op in (softmax, dense_backward_params, conv2d_backward_params)])
def test_true_and_false_are_numbers(op, dtype):
    ones, flags = arguments(op, dtype), arguments(op, dtype)
    for name in ones:
        if name in read(op):
            ones[name], flags[name] = np.ones_like(ones[name]), np.ones_like(ones[name], bool)
    assert outcome(op, ones) == outcome(op, flags)


@cases(INPUTS)
def test_an_input_of_another_shape_or_kind_is_refused_by_name(op, name, dtype):
    for wrong in (np.ones((2, 2, 2)), np.ones(()), 3.0, np.ones(B + I + O), np.ones((B + 1, I + 1))):
        with pytest.raises(ValueError, match=r"^\w+ (must|shares)"):
            op(**{**arguments(op, dtype), name: wrong})
    right = arguments(op, dtype)[name]
    for wrong in (right.astype(complex), right.astype(str), right.astype(object)):
        with pytest.raises(TypeError, match=f"^{name} must hold real numbers"):
            op(**{**arguments(op, dtype), name: wrong})


def test_the_shape_that_disagrees_is_named():
    given = arguments(dense_forward, "float32")
    with pytest.raises(ValueError, match=r"^w must have shape \(5, 3\), got \(6, 3\)"):
        dense_forward(**{**given, "w": np.ones((6, 3))})
    with pytest.raises(ValueError, match=r"^b must have shape \(3,\), got \(1,\)"):
        dense_forward(**{**given, "b": np.ones(1)})  # no broadcasting
    with pytest.raises(ValueError, match=r"^x must have shape \(7, 5\), got \(6, 5\)"):
        dense_forward(**{**given, "x": np.ones((6, 5))})


# ---- outputs are not


@cases(OUTPUTS)
def test_an_output_that_cannot_be_written_is_refused_by_name(op, name, dtype):
    right = arguments(op, dtype)[name]
    another = np.int64 if right.dtype.kind == "i" else np.int32
    wrong = {
        "a list": (TypeError, right.tolist()),
        "None": (TypeError, None),
        "integers": (TypeError, right.astype(another)),
        "float16": (TypeError, right.astype(np.float16)),
        "big-endian": (TypeError, right.astype(right.dtype.newbyteorder(">"))),
        "read-only": (ValueError, read_only(right)),
        "strided": (ValueError, strided(right)),
        "one dimension more": (ValueError, right[None].copy()),
    }
    if op in (dropout, dropout_backward, logistic):
        del wrong["one dimension more"]  # any number will do
        wrong["no dimension"] = (ValueError, np.zeros((), dtype))
    if right.ndim > 1:
        wrong["Fortran-ordered"] = (ValueError, np.asfortranarray(right))
    for form, (error, array) in wrong.items():
        before = np.array(array)
        with pytest.raises(error, match=f"^{name} must"):
            op(**{**arguments(op, dtype), name: array})
        assert array is None or np.array_equal(np.array(array), before), form


@every([dense_backward_params, conv2d_backward_params, batchnorm_backward, sgd_step, adam_step])
def test_outputs_of_two_dtypes_or_sizes_are_refused(op):
    for name in set(written(op)) - {"dw", "dx", "params"}:
        for wrong in (np.zeros(OPS[op][name], "float64"), np.zeros(OPS[op][name][0] + 1, "float32")):
            with pytest.raises(ValueError, match=f"^{name} must be"):
                op(**{**arguments(op, "float32"), name: wrong})


# ---- memory that is shared


def pairs_sharing():
    for op in OPS:
        for one in written(op):
            for other in [*written(op), *read(op, integers=True)]:
                if other != one:
                    yield op, one, other


@pytest.mark.parametrize(
    ("op", "one", "other"), list(pairs_sharing()), ids=lambda value: getattr(value, "__name__", value)
)
def test_an_output_that_lies_over_another_argument_is_refused(op, one, other, dtype):
    given = arguments(op, dtype)
    a, b = given[one], given[other]
    room = np.zeros(a.nbytes + b.nbytes, np.uint8)
    start = (a.nbytes - 1) // b.itemsize * b.itemsize  # the first element of one begins in the last of the other
    given[one] = room[: a.nbytes].view(a.dtype).reshape(a.shape)
    given[other] = room[start : start + b.nbytes].view(b.dtype).reshape(b.shape)
    given[one][...], given[other][...] = a, b
    with pytest.raises(ValueError, match="shares memory with"):
        op(**given)


@pytest.mark.parametrize(("op", "out", "name"), IN_PLACE, ids=[op.__name__ for op, *_ in IN_PLACE])
def test_an_output_may_be_the_input_but_not_lie_across_it(op, out, name, dtype):
    given = arguments(op, dtype)
    wanted = outcome(op, given)
    given = arguments(op, dtype)
    given[out] = given[name]
    assert outcome(op, given) == wanted
    size, row = given[name].size, given[name].size // len(given[name])
    for shift in (1, row, -row):
        given = arguments(op, dtype)
        room = np.zeros(size + 2 * row, dtype)
        middle, moved = room[row:-row], room[row + shift : row + shift + size]
        middle[:] = given[name].ravel()
        given[name], given[out] = middle.reshape(given[name].shape), moved.reshape(given[name].shape)
        with pytest.raises(ValueError, match="shares memory with"):
            op(**given)


# ---- settings


def test_labels_are_class_indices(dtype):
    given = arguments(softmax_cross_entropy, dtype)
    wanted = outcome(softmax_cross_entropy, dict(given))
    for kind in (np.int8, np.uint8, np.int64, np.uint64, ">i4"):
        assert outcome(softmax_cross_entropy, {**given, "labels": given["labels"].astype(kind)}) == wanted
    assert outcome(softmax_cross_entropy, {**given, "labels": given["labels"].tolist()}) == wanted
    assert outcome(softmax_cross_entropy, {**given, "labels": read_only(given["labels"])}) == wanted
    for wrong, error in (
        (np.full(B, O), "labels must be 0 … 2, got 3 … 3"),
        (np.full(B, -1), "labels must be 0 … 2, got -1 … -1"),
        (np.full(B, 2**32), "labels must be 0 … 2"),
        (np.full(B, 2**63, np.uint64), "labels must be 0 … 2"),
        (np.zeros(B + 1, int), r"labels must have shape \(7,\), got \(8,\)"),
        (np.zeros((B, 1), int), r"labels must have shape"),
    ):
        with pytest.raises(ValueError, match=error):
            softmax_cross_entropy(**{**given, "labels": wrong})
    for wrong in (np.zeros(B), np.zeros(B, bool), ["a"] * B):
        with pytest.raises(TypeError, match="labels must be integers"):
            softmax_cross_entropy(**{**given, "labels": wrong})


DENSE = [dense_forward, dense_backward_input, sparse_dense_forward]
CURVED = r"IDENTITY \(0\), RELU \(1\), TANH \(2\) or LOGISTIC \(3\)"


@every([op for op in OPS if "activation" in OPS[op]])
def test_an_activation_that_an_op_does_not_have_is_refused_by_name(op, dtype):
    allowed = CURVED if op in DENSE else r"IDENTITY \(0\) or RELU \(1\)"
    for wrong in (*(() if op in DENSE else (TANH, LOGISTIC)), 4, -1, 0.5, 2.5, "tanh", None):
        given = arguments(op, dtype)
        before = {name: given[name].copy() for name in written(op)}
        with pytest.raises(ValueError, match=f"^activation must be {allowed}, got {wrong!r}"):
            op(**{**given, "activation": wrong})
        assert all(np.array_equal(given[name], before[name]) for name in before)


@every(DENSE)
def test_dense_ops_take_every_activation_of_any_integer_type(op, dtype):
    made = set()
    for code in (IDENTITY, RELU, TANH, LOGISTIC):
        codes = [code, np.int8(code), np.uint64(code)]
        results = [outcome(op, {**arguments(op, dtype), "activation": given}) for given in codes]
        assert results[0] == results[1] == results[2]
        made.add(results[0][1][written(op)[0]])
    assert len(made) == 4


def test_settings_out_of_range_are_refused_by_name(dtype):
    for op in (op for op in OPS if "divisor" in OPS[op]):
        for wrong in (0.0, -1.0, np.nan):
            with pytest.raises(ValueError, match=r"^divisor must be positive"):
                op(**{**arguments(op, dtype), "divisor": wrong})
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="step counts from 1"):
            adam_step(**{**arguments(adam_step, dtype), "step": wrong})


@every([binary_cross_entropy, poisson_loss])
def test_targets_out_of_range_are_refused_with_what_came(op, dtype):
    wanted = {binary_cross_entropy: "0 … 1", poisson_loss: "at least 0"}[op]
    wrong = [(-0.5, "-0.5"), (-np.inf, "-inf"), (np.nan, "nan")]
    for value, got in [*wrong, *([(1.5, "0 … 1.5"), (255, "0 … 255")] if op is binary_cross_entropy else [])]:
        given = arguments(op, dtype)
        given["targets"][2, 1] = value
        with pytest.raises(ValueError, match=f"^targets must be {wanted}, got {got}"):
            op(**given)


def test_targets_of_a_squared_error_are_any_numbers(dtype):
    given = arguments(squared_error, dtype)
    given["targets"][3:5, 0] = -1e3, 1e3
    assert squared_error(**given) > 1e4


@pytest.mark.parametrize("shape", [(0,), (1,), (1000,), (3, 5), (7, 0), (2, 3, 4, 5), (1, 1, 1, 1, 1)], ids=str)
def test_the_logistic_function_of_any_number_of_dimensions(shape, dtype):
    z = np.random.default_rng(0).normal(0, 5, shape).astype(dtype)
    out, alone, wanted = np.full_like(z, 77), np.full(z.size, 77, dtype), np.empty(shape)
    logistic(z, out)
    logistic(z.ravel(), alone)
    assert out.tobytes() == alone.tobytes()
    reference.logistic(z.astype(float), wanted)
    Rounded(z, dtype).logistic().check(out, wanted)


def test_plain_sgd_needs_no_velocity(dtype):
    params, grad = np.ones(4, dtype), np.ones(4, dtype)
    sgd_step(params, grad, np.zeros(0, dtype), 0.5, 0.0, False, 0.0)
    sgd_step(params, grad, None, 0.5, 0.0, False, 0.0)
    assert not params.any()


def test_reference_and_compiled_ops_are_one_interface():
    """The same call, positional or by name, on both."""
    for op in OPS:
        ours, theirs = arguments(op, "float64"), arguments(op, "float64")
        op(**ours)
        getattr(reference, op.__name__)(*theirs.values())
        for name in written(op):
            np.testing.assert_allclose(ours[name], theirs[name], 1e-12, 1e-14, err_msg=f"{op.__name__} {name}")
