"""A run made ready: inputs of any kind, wrong ones named, and what may not change on resume."""

import math

import numpy as np
import pytest
from support import BACKENDS, CLASSES, ROWS, WIDTH, StopHere, blobs, network, stopper, train

from mlpkernels import SGD, Adam, Dense, Network, TrainingState, fit
from mlpkernels.datasets import Part
from mlpkernels.errors import DataError, ResumeError
from mlpkernels.scaling import Scaling
from mlpkernels.schedules import Cosine, Step


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def test_inputs_of_any_kind_train_alike_and_are_not_modified(backend):
    part = blobs()
    labels = np.array(["ant", "bee", "cat"])
    read_only = part.x.copy()
    read_only.flags.writeable = False
    wanted = network()
    train(wanted, part, epochs=2, backend=backend)
    for x in (
        part.x,
        read_only,
        np.asfortranarray(part.x),
        part.x.astype(np.int64),
        part.x.astype(np.float32),
    ):
        net, before = network(classes=labels), np.array(x, copy=True)
        train(net, (x, labels[part.y]), epochs=2, backend=backend)
        np.testing.assert_allclose(net.params, wanted.params, rtol=1e-4, atol=1e-5)
        assert np.array_equal(x, before)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"batch_size": 0}, ValueError, "batch_size=0: an integer from 1 or 'full' was wanted"),
        ({"batch_size": 91}, ValueError, "batch_size=91: at most 90, the training rows, or 'full'"),
        ({"batch_size": "half"}, TypeError, "batch_size='half'"),
        ({"batch_size": 1.5}, TypeError, r"batch_size=1\.5"),
        ({"epochs": 0}, ValueError, "epochs=0"),
        ({"seed": -1}, ValueError, "seed=-1"),
        ({"threads": 0}, ValueError, "threads=0"),
        ({"skip_zeros": "never"}, TypeError, "skip_zeros='never': True, False or None"),
        ({"optimizer": "adam"}, TypeError, r"optimizer='adam': SGD\(…\), Adam\(…\) or AdamW\(…\) was wanted"),
        ({"optimizer": Adam}, TypeError, "optimizer=<class "),
        ({"schedule": "cosine"}, TypeError, "schedule='cosine': Constant"),
        ({"clip_norm": 0}, ValueError, "clip_norm=0"),
        ({"clip_norm": True}, TypeError, "clip_norm=True: a finite number above 0, or None, was wanted"),
        ({"clip_norm": "1"}, TypeError, "clip_norm='1'"),
        ({"clip_norm": math.nan}, ValueError, "clip_norm=nan"),
        ({"early_stopping": 3}, ValueError, "early_stopping: it watches validation data"),
        ({"early_stopping": 0, "validation": blobs()}, ValueError, "early_stopping=0"),
        ({"schedule": Cosine(warmup=10)}, ValueError, "warmup=10: fewer than the 10 epochs"),
        ({"class_weight": "even"}, ValueError, "class_weight='even'"),
        ({"sample_weight": [1.0]}, DataError, r"sample_weight: an array of shape \(90,\)"),
        ({"backend": "gpu"}, ValueError, "backend 'gpu'"),
        ({"train": blobs().x}, TypeError, r"train: a Part or a tuple \(x, y\) was wanted, not ndarray"),
        ({"train": (np.zeros((0, WIDTH)), [])}, DataError, "train: no rows"),
        ({"test": (np.zeros((0, WIDTH)), [])}, DataError, "test: no rows"),
        ({"train": (np.zeros((90, 5)), np.zeros(90))}, DataError, r"train: x: an array of shape \(N, 12\)"),
        ({"train": (blobs().x, np.zeros(89))}, DataError, r"train: y: an array of shape \(90,\)"),
        ({"train": (blobs().x, blobs().y + 1)}, DataError, "train: y: row 3 is 3, which is none of"),
        (
            {"train": Part(blobs().x, blobs().y + 1)},
            DataError,
            "train: y: row 3 is 3; the model has the classes 0 to 2",
        ),
        ({"validation": Part(blobs().x, blobs().y + 1)}, DataError, "validation: y: row 3 is 3"),
    ],
)
def test_wrong_input_is_named_before_training(options, error, words):
    net = network()
    before = net.params.copy()
    part = options.pop("train", blobs())
    with pytest.raises(error, match=words):
        fit(net, part, **{"backend": "reference", "batch_size": 32, **options})  # at the call, before the first result
    assert np.array_equal(net.params, before)


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_values_that_are_not_finite_are_refused(name):
    x = np.zeros((90, WIDTH), np.float32)
    x[70, 4] = np.nan
    data = {"train": blobs(), name: (x, np.zeros(90, int))}
    with pytest.raises(DataError, match=f"{name}: row 71, column 5 is nan"):
        fit(network(), data.pop("train"), batch_size=32, backend="reference", **data)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch_size": 15}, "batch_size was 16 and is now 15; resume with batch_size as it was"),
        ({"batch_size": "full"}, "batch_size was 16 and is now full"),
        (
            {"optimizer": Adam(0.1)},
            r"optimizer was Adam\(learning_rate=0.001.* and is now Adam\(learning_rate=0.1",
        ),
        ({"optimizer": SGD()}, r"optimizer was Adam.* and is now SGD"),
        ({"schedule": Step(2)}, r"schedule was Cosine\(.* and is now Step\(every=2"),
        ({"epochs": 5}, r"epochs was 4 and is now 5; Cosine\(.*\) depends on it: resume with epochs=4"),
        ({"epochs": 3}, "epochs was 4 and is now 3"),
        ({"seed": 1}, "seed was 0 and is now 1"),
        ({"class_weight": "balanced"}, "class_weight was None and is now 'balanced'"),
        ({"sample_weight": np.arange(ROWS)}, "sample_weight was None and is now given"),
        ({"clip_norm": 1.0}, "clip_norm was None and is now 1.0"),
        ({"eval_train": True}, "eval_train was False and is now True"),
        ({"early_stopping": 3}, "early_stopping was None and is now 3"),
        ({"train": blobs(80)}, "training data was 90 rows .* and is now 80 rows"),
        (
            {"train": blobs(seed=5)},
            r"training data was 90 rows \(checksum .*\) and is now 90 rows \(checksum",
        ),
        ({"validation": None}, "validation data was 30 rows .* and is now None"),
        ({"test": blobs(9)}, "test data was None and is now 9 rows"),
        ({"network": network("float64")}, "dtype was float32 and is now float64"),
        (
            {"network": Network([Dense(CLASSES)], WIDTH)},
            r"layers was 12 inputs, \[Dense\(8.* and is now 12 inputs",
        ),
        ({"network": network(classes=(5, 6, 7))}, "classes was"),
        ({"scaling": Scaling("unit", 1 / 254, 0.0)}, "scaling was unit"),
    ],
)
def test_contradictions_are_refused_by_name(change, words):
    options = {
        "epochs": 4,
        "batch_size": 16,
        "schedule": Cosine(),
        "validation": blobs(30, 1),
        "backend": "reference",
    }
    net, state = network(), TrainingState()
    with pytest.raises(StopHere):
        train(net, state=state, on_progress=stopper(2), **options)
    step = state.step
    change = dict(change)
    part, other = change.pop("train", blobs()), change.pop("network", net)
    if "scaling" in change:
        other.scaling = change.pop("scaling")
    with pytest.raises(ResumeError, match=words):
        fit(other, part, state=state, **{**options, **change})
    assert state.step == step and state.settings["batch_size"] == 16


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("row", [1, ROWS - 1])
def test_one_changed_value_anywhere_is_noticed(dtype, row):
    x = np.arange(ROWS * WIDTH).reshape(ROWS, WIDTH).astype(dtype)
    part = Part(x, blobs().y)
    net, state = network(), TrainingState()
    train(net, part, epochs=1, state=state, backend="reference")
    other = x.copy()
    other[row, WIDTH - 1] += 1
    with pytest.raises(ResumeError, match=r"training data was 90 rows .* and is now 90 rows"):
        train(net, Part(other, part.y), epochs=2, state=state, backend="reference")
    train(net, Part(np.asfortranarray(x), part.y), epochs=2, state=state, backend="reference")
    assert state.epoch == 2


@pytest.mark.parametrize(("rows", "batch"), [(90, 90), (127, 127), (128, 128), (300, 128)])
def test_a_mini_batch_is_128_rows_or_all_there_are(rows, batch):
    results = []
    for size in (None, batch):
        net, state = network(), TrainingState()
        list(fit(net, blobs(rows), epochs=1, batch_size=size, threads=1, state=state, backend="reference"))
        results.append((net.params.tobytes(), state.settings["batch_size"]))
    assert results[0] == results[1] == (results[1][0], batch)


def test_a_state_goes_with_the_network_that_it_trained(backend):
    net, state = network(), TrainingState()
    train(net, epochs=2, state=state, backend=backend)
    other = Network(net.layers, WIDTH, classes=net.classes, scaling=net.scaling, seed=5)
    with pytest.raises(ResumeError, match=r"the state has trained [0-9]+ steps, this network's weights are as they"):
        train(other, epochs=3, state=state, backend=backend)
    other.load_state_dict(net.state_dict())
    assert [result.epoch for result in train(other, epochs=3, state=state, backend=backend)] == [3]
