"""The public ops: what they convert, what they refuse and by which name, and the same ops inside @njit."""

import numba
import numpy as np
import pytest
from numba import njit
from problems import DTYPES

from mlpkernels.kernels import reference
from mlpkernels.kernels.cpu import (
    IDENTITY,
    RELU,
    adam_step,
    dense_backward_input,
    dense_backward_params,
    dense_forward,
    log_softmax,
    sgd_step,
    softmax,
    softmax_cross_entropy,
)
from mlpkernels.kernels.cpu.gemm import gemm

B, I, O = 7, 5, 3  # noqa: E741

# Every op with its arguments in order: an input's or output's shape, or a setting.
OPS = {
    dense_forward: {"x": (B, I), "w": (I, O), "b": (O,), "activation": RELU, "out": (B, O)},
    dense_backward_params: {"x": (B, I), "delta": (B, O), "dw": (I, O), "db": (O,)},
    dense_backward_input: {"delta": (B, O), "w": (I, O), "x": (B, I), "activation": RELU, "dx": (B, I)},
    softmax_cross_entropy: {"logits": (B, O), "labels": None, "weights": (B,), "divisor": 7.0, "dlogits": (B, O)},
    softmax: {"logits": (B, O), "out": (B, O)},
    log_softmax: {"logits": (B, O), "out": (B, O)},
    sgd_step: {"params": (I,), "grad": (I,), "velocity": (I,), "learning_rate": 0.1, "momentum": 0.9, "nesterov": True,
               "weight_decay": 0.01},
    adam_step: {"params": (I,), "grad": (I,), "m": (I,), "v": (I,), "learning_rate": 0.1, "beta1": 0.9, "beta2": 0.99,
                "epsilon": 1e-6, "weight_decay": 0.01, "decoupled": False, "step": 3},
}  # fmt: skip
WRITTEN = {"out", "dw", "db", "dx", "dlogits", "params", "velocity", "m", "v"}
READ = {"x", "w", "b", "delta", "logits", "weights", "grad"}
INPUTS = [(op, name) for op, wanted in OPS.items() for name in wanted if name in READ]
OUTPUTS = [(op, name) for op, wanted in OPS.items() for name in wanted if name in WRITTEN]


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


def arguments(op, dtype):
    """Small whole numbers, so that any number type holds them."""
    random, made = np.random.default_rng(0), {}
    for name, value in OPS[op].items():
        made[name] = value
        if name == "labels":
            made[name] = random.integers(0, O, B).astype(np.int32)
        elif isinstance(value, tuple):
            made[name] = random.integers(0 if name in ("v", "weights") else -3, 4, value).astype(dtype)
    return made


def outcome(op, given):
    """What the op returned and what it wrote."""
    returned = op(**given)
    return returned, {name: given[name].tobytes() for name in given if name in WRITTEN}


def cases(pairs):
    return pytest.mark.parametrize(("op", "name"), pairs, ids=[f"{op.__name__}-{name}" for op, name in pairs])


def every(ops):
    return pytest.mark.parametrize("op", ops, ids=[op.__name__ for op in ops])


# ---- inputs are converted


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def unaligned(array):
    raw = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    raw[...] = array
    return raw


def strided(array):
    wide = np.full([2 * n for n in array.shape], 77, array.dtype)
    part = wide[tuple(slice(0, None, 2) for _ in array.shape)]
    part[...] = array
    return part


FORMS = {
    "read-only": read_only,
    "Fortran-ordered": np.asfortranarray,
    "a list": lambda array: array.tolist(),
    "strided": strided,
    "backwards": lambda array: array[::-1].copy()[::-1],
    "unaligned": unaligned,
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "float16": lambda array: array.astype(np.float16),
    "float32": lambda array: array.astype(np.float32),
    "float64": lambda array: array.astype(np.float64),
    "long double": lambda array: array.astype(np.longdouble),
    "int8": lambda array: array.astype(np.int8),
    "int64": lambda array: array.astype(np.int64),
    "a subclass": lambda array: array.view(type("Mine", (np.ndarray,), {})),
}


@cases(INPUTS)
def test_inputs_of_any_form_are_converted_and_left_alone(op, name, dtype):
    wanted = outcome(op, arguments(op, dtype))
    for form, make in FORMS.items():
        given = arguments(op, dtype)
        given[name] = make(given[name])
        before = np.array(given[name])
        assert outcome(op, given) == wanted, form
        assert np.array_equal(np.array(given[name]), before), form


@every([op for op in OPS if "activation" in OPS[op] or op in (softmax, dense_backward_params)])
def test_true_and_false_are_numbers(op, dtype):
    ones, flags = arguments(op, dtype), arguments(op, dtype)
    for name in ones:
        if name in READ:
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
    wrong = {
        "a list": (TypeError, right.tolist()),
        "None": (TypeError, None),
        "integers": (TypeError, right.astype(np.int32)),
        "float16": (TypeError, right.astype(np.float16)),
        "big-endian": (TypeError, right.astype(right.dtype.newbyteorder(">"))),
        "read-only": (ValueError, read_only(right)),
        "strided": (ValueError, strided(right)),
        "one dimension more": (ValueError, right[None].copy()),
    }
    if right.ndim == 2:
        wrong["Fortran-ordered"] = (ValueError, np.asfortranarray(right))
    for form, (error, array) in wrong.items():
        before = np.array(array)
        with pytest.raises(error, match=f"^{name} must"):
            op(**{**arguments(op, dtype), name: array})
        assert array is None or np.array_equal(np.array(array), before), form


@every([dense_backward_params, sgd_step, adam_step])
def test_outputs_of_two_dtypes_or_sizes_are_refused(op):
    for name in OPS[op]:
        if name in WRITTEN and name not in ("dw", "params"):
            for wrong in (np.zeros(OPS[op][name], "float64"), np.zeros(OPS[op][name][0] + 1, "float32")):
                with pytest.raises(ValueError, match=f"^{name} must be"):
                    op(**{**arguments(op, "float32"), name: wrong})


# ---- memory that is shared


def pairs_sharing():
    for op, wanted in OPS.items():
        for written in wanted:
            for other in wanted:
                both = written in WRITTEN and (other in WRITTEN or other in READ) and other != written
                allowed = {written, other} <= {"logits", "out", "dlogits"} and op not in (dense_forward,)
                if both and not allowed:
                    yield op, written, other


@pytest.mark.parametrize(
    ("op", "written", "other"), list(pairs_sharing()), ids=lambda value: getattr(value, "__name__", value)
)
def test_an_output_that_lies_over_another_argument_is_refused(op, written, other, dtype):
    given = arguments(op, dtype)
    a, b = given[written], given[other]
    room = np.zeros(a.size + b.size - 1, dtype)  # the last element of one is the first of the other
    given[written], given[other] = room[: a.size].reshape(a.shape), room[a.size - 1 :].reshape(b.shape)
    given[written][...], given[other][...] = a, b
    with pytest.raises(ValueError, match="shares memory with"):
        op(**given)


@every([softmax, log_softmax, softmax_cross_entropy])
def test_an_output_may_be_the_logits_but_not_lie_across_them(op, dtype):
    written = "dlogits" if op is softmax_cross_entropy else "out"
    given = arguments(op, dtype)
    wanted = outcome(op, given)
    given = arguments(op, dtype)
    given[written] = given["logits"]
    assert outcome(op, given) == wanted
    for shift in (1, O, -O):
        given = arguments(op, dtype)
        room = np.zeros((B + 2) * O, dtype)
        middle, moved = room[O:-O], room[O + shift : O + shift + B * O]
        middle[:] = given["logits"].ravel()
        given["logits"], given[written] = middle.reshape(B, O), moved.reshape(B, O)
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


def test_settings_out_of_range_are_refused_by_name(dtype):
    for op in (dense_forward, dense_backward_input):
        for wrong in (2, -1, 0.5, "relu", None):
            with pytest.raises(ValueError, match=r"activation must be IDENTITY \(0\) or RELU \(1\), got"):
                op(**{**arguments(op, dtype), "activation": wrong})
    for wrong in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="divisor must be positive"):
            softmax_cross_entropy(**{**arguments(softmax_cross_entropy, dtype), "divisor": wrong})
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="step counts from 1"):
            adam_step(**{**arguments(adam_step, dtype), "step": wrong})


def test_plain_sgd_needs_no_velocity(dtype):
    params, grad = np.ones(4, dtype), np.ones(4, dtype)
    sgd_step(params, grad, np.zeros(0, dtype), 0.5, 0.0, False, 0.0)
    sgd_step(params, grad, None, 0.5, 0.0, False, 0.0)
    assert not params.any()


# ---- inside the reader's own @njit function


def a_training_step(x, w, b, labels, weights, hidden, w2, b2, logits, dw, db, dw2, db2, dh, m, v):
    dense_forward(x, w, b, RELU, hidden)
    dense_forward(hidden, w2, b2, IDENTITY, logits)
    loss, correct = softmax_cross_entropy(logits, labels, weights, 7.0, logits)
    dense_backward_params(hidden, logits, dw2, db2)
    dense_backward_input(logits, w2, hidden, RELU, dh)
    dense_backward_params(x, dh, dw, db)
    sgd_step(b, db, db, 0.1, 0.0, False, 0.01)
    adam_step(b2, db2, m, v, 0.01, 0.9, 0.999, 1e-8, 0.01, True, 1)
    softmax(w2, w2)
    log_softmax(w, w)
    return loss, correct


def training_arguments(dtype):
    random = np.random.default_rng(0)
    shapes = dict(x=(B, I), w=(I, 4), b=(4,), labels=None, weights=(B,), hidden=(B, 4), w2=(4, O), b2=(O,),
                  logits=(B, O), dw=(I, 4), db=(4,), dw2=(4, O), db2=(O,), dh=(B, 4), m=(O,), v=(O,))  # fmt: skip
    made = {name: shape and np.abs(random.normal(size=shape)).astype(dtype) for name, shape in shapes.items()}
    made["labels"] = random.integers(0, O, B).astype(np.int32)
    return made


def test_the_ops_give_the_same_bits_inside_njit():
    compiled = njit(a_training_step)
    plain, inside = training_arguments("float32"), training_arguments("float32")
    plain["x"] = inside["x"] = read_only(plain["x"])  # an input may be read-only
    assert compiled(**inside) == a_training_step(**plain)
    for name in plain:
        assert inside[name].tobytes() == plain[name].tobytes(), name
    made = [signature for signature in gemm.signatures if signature[0].dtype == numba.float32]
    assert len(made) == 1, "a constant argument made a specialisation of its own: seconds of compiling each"


@njit
def forward(x, w, b, activation, out):
    dense_forward(x, w, b, activation, out)


@njit
def probabilities(logits, out):
    softmax(logits, out)


@njit
def cross_entropy(logits, labels, weights, divisor, dlogits):
    return softmax_cross_entropy(logits, labels, weights, divisor, dlogits)


@njit
def descend(params, grad, velocity):
    sgd_step(params, grad, velocity, 0.1, 0.9, False, 0.0)


def test_shapes_are_checked_inside_njit():
    x, w, b, out = (np.ones(shape, np.float32) for shape in ((B, I), (I, O), (O,), (B, O)))
    forward(x, w, b, RELU, out)
    assert (out == I + 1).all()
    for wrong, message in (
        ((x[:, :4].copy(), w, b, RELU, out), "disagree on I"),
        ((x, w, b[:2].copy(), RELU, out), "disagree on O"),
        ((x[:3], w, b, RELU, out), "disagree on B"),
        ((x, w, b, 5, out), "activation"),
    ):
        with pytest.raises(ValueError, match=f"dense_forward: .*{message}"):
            forward(*wrong)
    with pytest.raises(ValueError, match="softmax: logits"):
        probabilities(out, out[:2].copy())
    labels = np.zeros(B, np.int32)
    with pytest.raises(ValueError, match="a label is outside"):
        cross_entropy(out, labels + 3, np.ones(B, np.float32), 1.0, out)
    with pytest.raises(ValueError, match="a label is outside"):
        cross_entropy(out, labels - 1, np.ones(B, np.float32), 1.0, out)
    with pytest.raises(ValueError, match="divisor"):
        cross_entropy(out, labels, np.ones(B, np.float32), 0.0, out)
    with pytest.raises(ValueError, match="disagree on P"):
        descend(b, b.copy(), np.zeros(2, np.float32))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: (np.ones((4, 3)), np.ones((4, 3), np.float32)), "out"),
        (lambda: (np.ones((4, 3), np.int64), np.ones((4, 3))), "logits"),
        (lambda: (np.ones(3), np.ones((4, 3))), "logits"),
        (lambda: (np.ones((4, 6))[:, ::2], np.ones((4, 3))), "logits"),
        (lambda: (np.ones((4, 3)), np.asfortranarray(np.ones((4, 3)))), "out"),
        (lambda: (np.ones((4, 3)), read_only(np.ones((4, 3)))), "out"),
    ],
    ids=["two dtypes", "integers", "one dimension", "strided", "Fortran-ordered output", "read-only output"],
)
def test_types_are_checked_inside_njit(make, name):
    logits, out = make()
    before = out.copy()
    with pytest.raises(numba.TypingError, match=f"{name} must be"):
        probabilities(logits, out)
    assert np.array_equal(out, before)


@every(
    [dense_forward, dense_backward_params, dense_backward_input, softmax_cross_entropy, softmax, sgd_step, adam_step]
)
def test_a_read_only_output_is_refused_inside_njit(op):
    """Compiled code would write to it all the same."""

    @njit
    def call(*arguments):
        op(*arguments)

    for name in (name for name in OPS[op] if name in WRITTEN):
        given = arguments(op, "float32")
        given[name] = read_only(given[name])
        with pytest.raises(numba.TypingError, match=f"{name} must be"):
            call(*given.values())


def test_reference_and_compiled_ops_are_one_interface():
    """The same call, positional or by name, on both."""
    for op in OPS:
        ours, theirs = arguments(op, "float64"), arguments(op, "float64")
        op(**ours)
        getattr(reference, op.__name__)(*theirs.values())
        for name in ours:
            if name in WRITTEN:
                np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-12, err_msg=f"{op.__name__} {name}")
