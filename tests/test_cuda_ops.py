"""The ops of the CUDA backend: the suite of the other backends, and arrays that lie on the GPU."""

import inspect

import cuda_here
import numpy as np
import op_cases
import pytest
import test_backends
import test_backends_layers
import test_dropout
from problems import DTYPES
from test_backends import (
    test_a_nan_goes_through_products_and_relu,
    test_adam_step_of_every_small_size,
    test_dense_ops_of_every_small_shape,
    test_infinities_go_through_products_and_relu_as_numpy_sends_them,
    test_losses_of_targets_of_every_small_shape,
    test_relu_gives_no_negative_zero,
    test_sgd_step_of_every_small_size,
    test_softmax_and_its_logarithm_of_every_small_shape,
    test_softmax_cross_entropy_of_every_small_shape,
    test_the_logistic_function_of_every_small_shape,
)
from test_backends_layers import (
    test_a_closed_slope_stops_what_is_not_finite,
    test_a_nan_is_every_maximum_that_it_takes_part_in,
    test_batch_norms_give_their_gradient_back,
    test_batch_norms_of_many_shapes,
    test_batch_norms_of_running_statistics,
    test_convolutions_of_many_shapes,
    test_pools_choose_what_the_reference_chooses,
    test_pools_give_their_gradient_back,
    test_relu_of_a_convolution_gives_no_negative_zero,
    test_statistics_far_from_zero,
)
from test_dropout import (
    test_every_backend_draws_the_same_masks,
    test_the_gradient_has_the_mask_and_the_slope,
    test_what_is_dropped_is_zero_whatever_it_was,
)

from mlpkernels.kernels import cuda, reference
from mlpkernels.kernels.cuda import driver, product
from mlpkernels.kernels.plan import IDENTITY, RELU

pytestmark = cuda_here.quiet

__all__ = [
    "test_a_closed_slope_stops_what_is_not_finite", "test_a_nan_goes_through_products_and_relu",
    "test_a_nan_is_every_maximum_that_it_takes_part_in", "test_adam_step_of_every_small_size",
    "test_batch_norms_give_their_gradient_back", "test_batch_norms_of_many_shapes",
    "test_batch_norms_of_running_statistics", "test_convolutions_of_many_shapes", "test_dense_ops_of_every_small_shape",
    "test_every_backend_draws_the_same_masks", "test_infinities_go_through_products_and_relu_as_numpy_sends_them",
    "test_losses_of_targets_of_every_small_shape", "test_pools_choose_what_the_reference_chooses",
    "test_pools_give_their_gradient_back", "test_relu_gives_no_negative_zero",
    "test_relu_of_a_convolution_gives_no_negative_zero", "test_sgd_step_of_every_small_size",
    "test_softmax_and_its_logarithm_of_every_small_shape", "test_softmax_cross_entropy_of_every_small_shape",
    "test_statistics_far_from_zero", "test_the_gradient_has_the_mask_and_the_slope",
    "test_the_logistic_function_of_every_small_shape", "test_what_is_dropped_is_zero_whatever_it_was",
]  # fmt: skip

OPS = [pytest.param(op, id=op.__name__) for op in op_cases.OPS]


@pytest.fixture
def backend():
    return cuda


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


@pytest.fixture
def draw(dtype):
    """draw(*shape): normal numbers of the dtype, the same for every test."""
    random = np.random.default_rng(5)
    return lambda *shape: random.normal(size=shape).astype(dtype)


@pytest.fixture(autouse=True)
def few_shapes(monkeypatch):
    """Under the simulator a product of 8 x 8 takes 20 ms: a few shapes at the tiles' edges."""
    if cuda_here.ON_A_GPU:
        return
    shapes = [(0, 3, 2), (1, 1, 1), (3, 0, 2), (2, 3, 0), (5, 9, 7), (4, 8, 8), (17, 5, 18), (3, 17, 33), (33, 2, 33)]
    monkeypatch.setattr(test_backends, "SHAPES", shapes)
    monkeypatch.setattr(test_backends, "ROWS", [(0, 3), (1, 1), (2, 5), (5, 3), (9, 4), (1, 33)])
    monkeypatch.setattr(test_backends, "SIZES", [0, 1, 5, 33])
    monkeypatch.setattr(test_backends_layers, "SHAPES", test_backends_layers.SHAPES[::25])
    monkeypatch.setattr(test_backends_layers, "POOLS", test_backends_layers.POOLS[:52:5])
    monkeypatch.setattr(test_backends_layers, "NORMS", [(2, 1), (3, 17), (1, 3, 4, 4), (7, 3, 1, 5)])
    monkeypatch.setattr(test_dropout, "KEYS", test_dropout.KEYS[3:6])


def test_a_tile_of_the_training_kernels(monkeypatch, draw, dtype):
    """The tiles of a GPU, 256 threads each, at an edge in every direction."""
    sizes = {"LARGE": product.Tile(128, 128, 8, 8, 8, 1), "SMALL": product.Tile(16, 16, 64, 4, 4, 16)}
    sizes = {"SMALL": sizes["SMALL"]} if dtype == "float64" else sizes
    for name, tile in sizes.items():
        monkeypatch.setattr(product, name, {dtype: tile})
        monkeypatch.setattr(product, "tile_for", lambda *_, tile=tile: tile)
        monkeypatch.setattr(cuda.ops, "tile_for", lambda *_, tile=tile: tile)
        test_backends.check_forward(cuda, draw, dtype, *{"LARGE": (9, 11, 129), "SMALL": (17, 65, 3)}[name])


# ---- the promise of one interface


def test_the_interface_is_the_references_and_a_stream():
    assert set(cuda.__all__) == set(reference.__all__)
    for name in reference.__all__:
        ours, theirs = getattr(cuda, name), getattr(reference, name)
        if not callable(theirs):
            assert ours == theirs, name
            continue
        assert inspect.getdoc(ours), name
        *got, last = inspect.signature(ours).parameters.values()
        wanted = inspect.signature(theirs).parameters.values()
        if name == "make_workspace":
            got.append(last)
        else:
            assert last.name == "stream" and last.default is None, name
        assert [(p.name, p.default) for p in got] == [(p.name, p.default) for p in wanted], name


# ---- what comes as an argument


def arguments(op, dtype):
    return op_cases.arguments(op, dtype)


def call(op, given):
    """What an op of this backend returned and wrote."""
    returned = getattr(cuda, op.__name__)(**given)
    return returned, {name: np.array(host(given[name])) for name in op_cases.written(op)}


def host(array):
    return array.copy_to_host() if hasattr(array, "copy_to_host") else array


def same(one, other):
    return one[0] == other[0] and all(np.array_equal(one[1][name], other[1][name]) for name in one[1])


@pytest.mark.parametrize("op", OPS)
def test_ops_agree_with_the_reference_by_the_same_call(op):
    ours, theirs = arguments(op, "float64"), arguments(op, "float64")
    getattr(cuda, op.__name__)(**ours)
    getattr(reference, op.__name__)(*theirs.values())
    for name in op_cases.written(op):
        np.testing.assert_allclose(ours[name], theirs[name], 1e-12, 1e-14, err_msg=name)


@pytest.mark.parametrize("op", OPS)
def test_arrays_on_the_gpu_are_used_where_they_lie(op, dtype, monkeypatch):
    wanted = call(op, arguments(op, dtype))
    given = arguments(op, dtype)
    on_host = {name: value for name, value in given.items() if isinstance(value, np.ndarray)}
    given |= {name: driver.cuda.to_device(value) for name, value in on_host.items()}
    nothing = arguments(op, dtype)
    call(op, nothing)  # tables of shapes are on the GPU by now
    moved = []
    monkeypatch.setattr(driver.cuda, "to_device", lambda array, stream=0: moved.append(array))
    returned = getattr(cuda, op.__name__)(**given)
    assert not moved, "copied to the GPU though it lies there"
    assert same((returned, {name: host(given[name]) for name in op_cases.written(op)}), wanted)


@pytest.mark.parametrize("op", OPS)
def test_inputs_of_any_form_are_converted_and_left_alone(op, dtype):
    wanted = call(op, arguments(op, dtype))
    forms = ("read-only", "Fortran-ordered", "a list", "strided", "big-endian", "int64", "float64")
    for name, form in zip(op_cases.read(op) * len(forms), forms, strict=False):  # of integers none
        given = arguments(op, dtype)
        given[name] = op_cases.FORMS[form](given[name])
        before = np.array(given[name])
        assert same(call(op, given), wanted), (name, form)
        assert np.array_equal(np.array(given[name]), before), (name, form)


@pytest.mark.parametrize("op", OPS)
def test_what_does_not_fit_is_refused_by_name(op, dtype):
    ours = getattr(cuda, op.__name__)
    for name in op_cases.read(op):
        with pytest.raises(ValueError, match=r"^\w+ (must|shares)"):
            ours(**{**arguments(op, dtype), name: np.ones((2, 2, 2))})
        with pytest.raises(TypeError, match=f"^{name} must hold real numbers"):
            ours(**{**arguments(op, dtype), name: arguments(op, dtype)[name].astype(complex)})
    for name in op_cases.written(op):
        right = arguments(op, dtype)[name]
        wrong = {"a list": right.tolist(), "float16": right.astype(np.float16), "strided": op_cases.strided(right)}
        for form, array in wrong.items():
            with pytest.raises((TypeError, ValueError), match=f"^{name} must"):
                ours(**{**arguments(op, dtype), name: array})
            assert np.array_equal(np.array(array), np.array(wrong[form])), form


@pytest.mark.parametrize("op", OPS)
def test_an_output_that_lies_over_another_argument_is_refused(op, dtype):
    for out in op_cases.written(op):
        for other in op_cases.read(op):
            given = arguments(op, dtype)
            if given[out].shape != given[other].shape or given[out].dtype != given[other].dtype or given[out].ndim < 2:
                continue
            room = np.zeros(given[out].size + 1, given[out].dtype)
            given[out] = room[1:].reshape(given[out].shape)
            given[other] = room[:-1].reshape(given[out].shape)
            with pytest.raises(ValueError, match="shares memory with"):
                getattr(cuda, op.__name__)(**given)


def test_arrays_on_the_gpu_are_not_converted():
    given = arguments(op_cases.dense_forward, "float32")
    for name, wrong, error in (
        ("x", np.ones((7, 5)), r"^x must be float32 on the GPU, got float64"),
        ("out", np.ones((7, 4), np.float32), r"^w must have shape \(5, 4\)"),
    ):
        with pytest.raises((TypeError, ValueError), match=error):
            cuda.dense_forward(**{**given, name: driver.cuda.to_device(wrong)})


def test_settings_out_of_range_are_refused_by_name(dtype):
    for op in op_cases.OPS:
        ours = getattr(cuda, op.__name__)
        if "activation" in op_cases.OPS[op]:
            for wrong in (9, -1, 0.5, "relu", None):
                with pytest.raises(ValueError, match=r"^activation must be IDENTITY \(0\), RELU \(1\)"):
                    ours(**{**arguments(op, dtype), "activation": wrong})
    with pytest.raises(ValueError, match=r"^divisor must be positive"):
        cuda.softmax_cross_entropy(**{**arguments(op_cases.softmax_cross_entropy, dtype), "divisor": 0.0})
    with pytest.raises(ValueError, match=r"^labels must be 0 … 2, got 3 … 3"):
        cuda.softmax_cross_entropy(**{**arguments(op_cases.softmax_cross_entropy, dtype), "labels": np.full(7, 3)})
    with pytest.raises(ValueError, match=r"^places must be 0 … 19, got 20 … 20"):
        places = np.full(op_cases.POOLED, 20)
        cuda.maxpool2d_backward(**{**arguments(op_cases.maxpool2d_backward, dtype), "places": places})
    with pytest.raises(ValueError, match=r"^step counts from 1"):
        cuda.adam_step(**{**arguments(op_cases.adam_step, dtype), "step": 0})
    with pytest.raises(ValueError, match=r"^p must be at least 0 and below 1"):
        cuda.dropout(**{**arguments(op_cases.dropout, dtype), "p": 1.0})
    with pytest.raises(TypeError, match=r"^stream must be a CUDA stream or its number, got str"):
        cuda.softmax(**arguments(op_cases.softmax, dtype), stream="first")


def test_activations_and_their_slopes(dtype):
    """Against differences of the activation itself."""
    x = np.linspace(-3, 3, 15).astype(dtype).reshape(5, 3)
    functions = {
        IDENTITY: lambda z: z, RELU: lambda z: np.maximum(z, 0), 2: np.tanh, 3: lambda z: 1 / (1 + np.exp(-z)),
    }  # fmt: skip
    none, one = np.zeros(3, dtype), np.eye(3, dtype=dtype)
    for code, function in functions.items():
        out, slopes = np.empty_like(x), np.empty_like(x)
        cuda.dense_forward(x, one, none, code, out)
        np.testing.assert_allclose(out, function(x.astype(float)), rtol=1e-6, atol=1e-7)
        cuda.dense_backward_input(np.ones_like(x), one, out, code, slopes)
        h, wide = 1e-6, x.astype(float)
        wanted = (function(wide + h) - function(wide - h)) / (2 * h)
        beside = np.abs(x) > h
        np.testing.assert_allclose(slopes[beside], wanted[beside], rtol=1e-5, atol=1e-6)


def test_targets_and_pixels_out_of_range_are_refused_by_name(dtype):
    for op, wrong, error in (
        (op_cases.binary_cross_entropy, 1.5, "^targets must be 0 … 1, got 1.5 … 1.5"),
        (op_cases.binary_cross_entropy, np.nan, "^targets must be 0 … 1, got nan"),
        (op_cases.poisson_loss, -0.5, "^targets must be at least 0, got -0.5"),
    ):
        for place in (np.array, driver.cuda.to_device):
            with pytest.raises(ValueError, match=error):
                getattr(cuda, op.__name__)(**{**arguments(op, dtype), "targets": place(np.full((7, 3), wrong, dtype))})
    with pytest.raises(TypeError, match=r"^pixels must be uint8, got int64"):
        given = arguments(op_cases.sparse_dense_forward, dtype)
        cuda.sparse_dense_forward(**{**given, "pixels": given["pixels"].astype(np.int64)})
    for name in ("factor", "offset"):
        with pytest.raises(ValueError, match=f"^{name} must be finite"):
            cuda.sparse_dense_forward(**{**arguments(op_cases.sparse_dense_forward, dtype), name: np.inf})


def test_plain_sgd_needs_no_velocity(dtype):
    params, grad = np.ones(4, dtype), np.ones(4, dtype)
    cuda.sgd_step(params, grad, np.zeros(0, dtype), 0.5, 0.0, False, 0.0)
    cuda.sgd_step(params, grad, None, 0.5, 0.0, False, 0.0)
    assert not params.any()


def test_windows_that_share_a_maximum_are_added_in_their_order(dtype):
    """More windows than a block has threads under the simulator, all of them with the same maximum, then with a few."""
    random = np.random.default_rng(0)
    delta, x = random.normal(size=(1, 2, 7, 9)).astype(dtype), np.ones((1, 2, 5, 6), dtype)
    for places in (np.full(delta.shape, 29), random.integers(0, 30, delta.shape)):
        dx, wanted = np.full_like(x, np.nan), np.zeros((2, 30), dtype)
        cuda.maxpool2d_backward(delta, places, x, IDENTITY, dx)
        for plane in range(2):
            for place, value in zip(places[0, plane].flat, delta[0, plane].flat, strict=True):
                wanted[plane, place] += value
        assert np.array_equal(dx.reshape(2, 30), wanted)
