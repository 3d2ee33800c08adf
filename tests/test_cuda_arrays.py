"""Arrays on the GPU: those of other libraries, the data that stay there between calls, and what fails on a device."""

import threading
import types

import cuda_here
import numpy as np
import op_cases
import pytest
from problems import DTYPES, Run

from mlpkernels.kernels import cuda, reference
from mlpkernels.kernels.cuda import arrays, driver, executor, residency, verbs
from mlpkernels.kernels.plan import RELU

pytestmark = cuda_here.quiet


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


def on_gpu(run):
    """The same run with room on the GPU."""
    run.work = cuda.make_workspace(run.model.plan, run.batch, run.dtype)
    return run


# ---- of other libraries


class Borrowing:
    """An array of another library, as it says itself: by __cuda_array_interface__."""

    def __init__(self, read_only):
        self.__cuda_array_interface__ = {"data": (256, read_only), "shape": (7, 3), "typestr": "<f4", "version": 3}


def test_an_output_that_may_not_be_written_is_refused():
    """JAX's arrays never change, though their protocols do not say so."""
    jax = type("ArrayImpl", (Borrowing,), {"__module__": "jaxlib._jax"})
    for array in (Borrowing(True), jax(False)):
        with pytest.raises(ValueError, match=f"^out must be writeable: {type(array).__name__} on the GPU is read-only"):
            cuda.softmax(np.ones((7, 3), np.float32), array)


class ByInterface:
    """What CuPy and PyTorch show of an array, over the host's memory: the simulator's GPU."""

    def __init__(self, array):
        self.array, self.__cuda_array_interface__ = array, array.__array_interface__


class ByDlpack:
    """What JAX shows of an array."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __dlpack_device__(self):
        return 2, 0  # a CUDA device, its number

    def __dlpack__(self):
        return self.array.__dlpack__()


@pytest.mark.skipif(cuda_here.ON_A_GPU, reason="the arrays lie on the host")
@pytest.mark.parametrize("form", [ByInterface, ByDlpack])
def test_arrays_of_other_libraries_are_taken_where_they_lie(form, dtype, monkeypatch):
    def taken(value):
        lies = types.SimpleNamespace(__array_interface__=value.__cuda_array_interface__, owner=value)
        return type(driver.cuda.to_device(np.zeros(1)))(np.asarray(lies))

    monkeypatch.setattr(driver.cuda, "as_cuda_array", taken, raising=False)
    op = op_cases.dense_forward
    wanted = op_cases.arguments(op, dtype)
    cuda.dense_forward(**wanted)
    given = {name: form(v) if isinstance(v, np.ndarray) else v for name, v in op_cases.arguments(op, dtype).items()}
    assert cuda.dense_forward(**given) is None
    assert np.array_equal(given["out"].array, wanted["out"])
    with pytest.raises(ValueError, match=r"^out shares memory with x"):
        square = form(np.ones((3, 3), dtype))
        cuda.dense_forward(square, np.ones((3, 3), dtype), np.ones(3, dtype), RELU, square)


def test_streams_of_other_libraries_are_known_by_their_numbers(monkeypatch):
    monkeypatch.setattr(driver.cuda, "external_stream", lambda number: ("stream", number), raising=False)
    core = type("Core", (), {"__cuda_stream__": lambda self: (0, 44)})()
    torch, cupy, default = (types.SimpleNamespace(**one) for one in ({"cuda_stream": 11}, {"ptr": 22}, {"ptr": 0}))
    for stream, number in ((torch, 11), (cupy, 22), (33, 33), (core, 44)):
        assert driver.stream_of(stream) == ("stream", number)
    assert driver.stream_of(None) == driver.stream_of(0) == driver.stream_of(default) == 0


def test_an_empty_array_on_the_gpu_is_taken(dtype):
    given = {
        name: driver.cuda.to_device(np.zeros(shape, dtype)) for name, shape in (("logits", (0, 3)), ("out", (0, 3)))
    }
    cuda.softmax(**given)
    assert given["out"].copy_to_host().shape == (0, 3)


def test_an_array_of_another_gpu_is_refused(monkeypatch, dtype):
    monkeypatch.setattr(arrays, "SIMULATED", False)
    monkeypatch.setattr(arrays, "device_count", lambda: 2)
    monkeypatch.setattr(arrays, "_ordinal", lambda pointer: 1)
    there = driver.cuda.to_device(np.ones((7, 3), dtype))
    there.__dict__["__cuda_array_interface__"] = {"data": (1, False)}
    device = type("Device", (), {"id": 0})  # Numba's own simulator does not name it
    monkeypatch.setattr(driver.cuda, "get_current_device", lambda: device, raising=False)
    with pytest.raises(ValueError, match=r"^logits lies on GPU 1, the kernels run on GPU 0"):
        cuda.softmax(there, np.ones((7, 3), dtype))


# ---- what stays on the GPU, and what a call costs


@pytest.fixture
def uploads(monkeypatch):
    """The sizes of what is copied to the GPU."""
    seen, plain = [], driver.cuda.to_device

    def to_device(array, stream=0):
        seen.append(array.nbytes)
        return plain(array, stream=stream)

    monkeypatch.setattr(driver.cuda, "to_device", to_device)
    return seen


def test_data_are_uploaded_once(uploads):
    run = on_gpu(Run((37, 3), "float32", rows=60, batch=30, kind="bytes"))
    run.train(cuda, 0, 1)
    assert run.source.bytes.nbytes in uploads and run.order.nbytes in uploads
    uploads.clear()
    run.train(cuda, 1, 2)
    assert max(uploads) < 1000, uploads
    run.order = run.order.copy()  # another epoch's
    run.train(cuda, 0, 1)
    assert run.order.nbytes in uploads and run.source.bytes.nbytes not in uploads


def test_data_changed_in_place_are_noticed():
    for change in ("data", "labels", "order"):
        run = on_gpu(Run((7, 3), "float64", rows=12, batch=6))
        run.train(cuda)
        array = {"data": run.source.rows, "labels": run.source.labels, "order": run.order}[change]
        array[...] = array[::-1].copy()
        wanted = run.in_double()
        run.train(cuda)
        wanted.train(reference)
        np.testing.assert_allclose(run.model.params, wanted.model.params, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(run.losses, wanted.losses, rtol=1e-12)


def test_copies_go_with_the_arrays_they_came_from():
    residency.release()
    run = on_gpu(Run((7, 3), "float32", rows=12, batch=6))
    run.train(cuda)
    assert len(residency._held) == 6  # bytes, rows, labels, weights, order, and that there are no targets
    del run
    assert len(residency._held) == 1


@pytest.mark.parametrize("size", [1, 8, 31, 32, 33, 1000, 2**20, 2**20 + 1, 2**20 + 31, 2**20 + 32, 2**21 + 5])
def test_a_checksum_sees_every_byte(size):
    memory = np.random.default_rng(size).integers(0, 256, size + 1, dtype=np.uint8)
    for array in (memory[:-1], memory[1:]):  # the second does not lie on 8 bytes
        before = residency.checksum(array)
        assert before == residency.checksum(array.copy())
        for place in (0, size // 2, size - 1):
            array[place] ^= 128
            assert residency.checksum(array) != before
            array[place] ^= 128
    frozen = array.copy()
    frozen.flags.writeable = False
    assert residency.checksum(array) == residency.checksum(frozen) == before


def test_a_checksum_sees_changes_that_are_alike():
    """Such as the sign of every number."""
    array = np.random.default_rng(0).normal(size=200_000)  # 1.6 MB: two blocks
    sums = {residency.checksum(a) for a in (array, -array, array[::-1], np.roll(array, 4), array * 2, 0 * array)}
    assert len(sums) == 6 and residency.checksum(np.zeros(0)) == residency.checksum(np.zeros((3, 0)))


def test_a_thread_of_its_own_takes_the_device_for_itself(monkeypatch):
    taken = []
    monkeypatch.setattr(driver.cuda, "select_device", lambda number: taken.append(number))
    monkeypatch.setattr(driver, "_taken", driver._Taken())
    for _ in range(2):
        driver.require_device()
        other = threading.Thread(target=driver.require_device)
        other.start()
        other.join()
    assert taken == [0, 0, 0]


def test_more_steps_copy_and_wait_no_more(uploads, monkeypatch):
    waits = []
    monkeypatch.setattr(verbs, "fetch", lambda *a, fetch=verbs.fetch: (waits.append(1), fetch(*a))[1])
    counts = {}
    for steps in (1, 4):
        run = on_gpu(Run((7, 3), "float32", "adam", rows=24, batch=6, clip=1.0))
        run.train(cuda, 0, 1)  # its programs are there now
        uploads.clear(), waits.clear()
        run.train(cuda, 0, steps)
        counts[steps] = len(uploads), len(waits)
    assert counts[1] == counts[4]


def test_one_launch_runs_all_steps(monkeypatch):
    launches = []
    monkeypatch.setattr(
        driver, "launch", lambda kernel, *a, plain=driver.launch: (launches.append(1), plain(kernel, *a))
    )
    run = on_gpu(Run((7, 3), "float32", rows=24, batch=6))
    monkeypatch.setattr(executor, "mode", "one launch")
    run.train(cuda)
    assert len(launches) == 2  # the first batch is gathered by a launch of its own


@pytest.mark.parametrize("mode", ["phases", "one launch"])
def test_a_call_of_no_steps_makes_ready_and_changes_nothing(mode, uploads, monkeypatch):
    """The kernel is launched, so that it is compiled, and the data are there."""
    monkeypatch.setattr(executor, "mode", mode)
    run = on_gpu(Run((7, 3), "float32", "adam", rows=12, batch=6))
    before = run.state(), run.optimizer.step.copy()
    assert run.train(cuda, 1, 1) == 1 and run.train(cuda, 0, 0) == 0
    assert run.state() == before[0] and run.optimizer.step == before[1]
    uploads.clear()
    run.train(cuda)
    assert run.source.rows.nbytes not in uploads and run.order.nbytes not in uploads


# ---- what fails on a device


class CudaAPIError(Exception):
    """As the packages raise it."""


def test_memory_that_is_not_there_is_told_in_bytes(monkeypatch, dtype):
    def full(*_, **__):
        raise CudaAPIError("[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY")

    monkeypatch.setattr(driver.cuda, "to_device", full)
    context = types.SimpleNamespace(get_memory_info=lambda: (1234, 99999))
    monkeypatch.setattr(driver.cuda, "current_context", lambda: context, raising=False)
    given = op_cases.arguments(op_cases.dense_forward, dtype)
    with pytest.raises(
        MemoryError, match=rf"the GPU has 1,234 bytes free, {given['x'].nbytes:,} were needed: a smaller"
    ):
        cuda.dense_forward(**given)


def test_a_launch_that_fails_is_named(monkeypatch, dtype):
    class Broken:
        def __getitem__(self, configuration):
            raise CudaAPIError("[700] an illegal memory access")

    monkeypatch.setattr(cuda.ops, "product_kernel", lambda *_: Broken())
    with pytest.raises(driver.DeviceError, match=r"launching .* failed on the GPU: CudaAPIError: .*illegal"):
        cuda.dense_forward(**op_cases.arguments(op_cases.dense_forward, dtype))


@pytest.mark.parametrize(
    ("said", "wanted", "told"),
    [
        (
            "Failed to load CUDA library from binary data: no kernel image",
            driver.DeviceError,
            "RuntimeError: Failed to",
        ),
        ("Failed to load CUDA library from binary data: out of memory", MemoryError, "the GPU has .* bytes free"),
    ],
)
def test_a_kernel_that_cannot_be_loaded_is_named(monkeypatch, dtype, said, wanted, told):
    """numba-cuda-mlir says so by RuntimeError."""

    class Broken:
        def __getitem__(self, configuration):
            raise RuntimeError(said)

    monkeypatch.setattr(cuda.ops, "product_kernel", lambda *_: Broken())
    monkeypatch.setattr(driver, "SIMULATED", False)
    with pytest.raises(wanted, match=told):
        cuda.dense_forward(**op_cases.arguments(op_cases.dense_forward, dtype))


def test_a_launch_that_fails_later_is_named_where_it_is_waited_for(monkeypatch, dtype):
    def failed():
        raise CudaAPIError("[700] Call to cuCtxSynchronize results in CUDA_ERROR_ILLEGAL_ADDRESS")

    monkeypatch.setattr(driver.cuda, "synchronize", failed)
    with pytest.raises(driver.DeviceError, match=r"^a launch failed on the GPU: CudaAPIError: .*ILLEGAL_ADDRESS"):
        cuda.dense_forward(**op_cases.arguments(op_cases.dense_forward, dtype))


def test_a_capsule_of_another_library_is_read():
    """DLPack's own words, from NumPy's capsules: what is in them is the same on a GPU."""
    from mlpkernels.kernels.cuda.dlpack import Borrowed

    for array in (np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(8.0)[::2], np.zeros((0, 3), np.int32)):
        borrowed = Borrowed("x", array)
        ours, theirs = borrowed.__cuda_array_interface__, array.__array_interface__
        assert ours["shape"] == theirs["shape"] and ours["typestr"] == theirs["typestr"]
        assert array.size == 0 or ours["data"][0] == theirs["data"][0]
        assert ours["strides"] in (None, array.strides)
        del borrowed
    with pytest.raises(TypeError, match=r"^x must hold real numbers"):
        Borrowed("x", np.zeros(3, complex))
