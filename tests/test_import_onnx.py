"""ONNX files as PyTorch, Keras, scikit-learn and this library write them: equal predictions; the rest is named."""

import logging
import warnings

import numpy as np
import pytest
import stacks

from mlpkernels import BatchNorm, Conv2d, Dense, MaxPool2d, Scaling
from mlpkernels.errors import ModelFileError
from mlpkernels.export import to_onnx
from mlpkernels.export.golden import samples
from mlpkernels.foreign import Reading, from_onnx

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
from onnx_models import (  # noqa: E402
    BEHIND,
    CHANNELS,
    CONV,
    DENSE,
    IMAGE,
    LAYERS,
    POOL,
    TO_NCHW,
    TO_NHWC,
    answers,
    changed,
    model,
    same,
    saved,
    weights,
)  # fmt: skip

PLAIN = {
    "matmul and add": model(LAYERS, DENSE),
    "gemm": model([("Gemm", "x t b", "a", {"transB": 1}), ("Tanh", "a", "r"), ("Gemm", "r v", "y")],
                  DENSE | {"t": weights(5, 4)}),
    "alpha and beta": model([("Gemm", "x w s", "a", {"alpha": 2.0, "beta": 0.5}), *LAYERS[2:]],
                            DENSE | {"s": weights(1, 5)}),
    "alpha alone": changed(0, "Gemm", "x w", "m", {"alpha": -0.25, "beta": 3.0}),
    "beta 0": model([("Gemm", "x w s", "a", {"beta": 0.0}), *LAYERS[2:]], DENSE | {"s": np.float32([7])}),
    "one bias for all": changed(1, "Add", "m s", "a", more={"s": np.float32(0.3)}),
    "bias with a batch axis": changed(1, "Add", "m s", "a", more={"s": weights(1, 5)}),
    "logistic": changed(2, "Sigmoid", "a", "r"),
    "scaled": model([("Sub", "x o", "p"), ("Div", "p s", "q"), *[("MatMul", "q w", "m"), *LAYERS[1:]]],
                    DENSE | {"o": weights(4), "s": np.float32([1, 2, 3, 0.1])}),
    "turned round": model([("Sub", "o x", "q"), *[("MatMul", "q w", "m"), *LAYERS[1:]]], DENSE | {"o": weights(4)}),
    "scaler": model([("Scaler", "x", "q", {"offset": [1.0, 2, 3, 4], "scale": [0.5, 1, 2, 3]}),
                     *[("MatMul", "q w", "m"), *LAYERS[1:]]], DENSE),
    "affine between": model([*LAYERS[:3], ("Mul", "r s", "t"), ("Neg", "t", "u"), ("MatMul", "u v", "n"), LAYERS[4]],
                            DENSE | {"s": weights(5)}),
    "affine behind": model([*LAYERS[:4], ("Mul", "n c", "y")], DENSE),
    "batch norm": model([*LAYERS[:2], ("BatchNormalization", "a g h mean var", "q"), ("Relu", "q", "r"), *LAYERS[3:]],
                        DENSE | {"g": weights(5), "h": weights(5), "mean": weights(5), "var": weights(5) ** 2}),
    "batch norm behind": model([*LAYERS[:4], ("BatchNormalization", "n c c c var", "y")],
                               DENSE | {"var": weights(3) ** 2}),
    "transposed constant": model([("Transpose", "t", "w2", {"perm": [1, 0]}), ("MatMul", "x w2", "m"), *LAYERS[1:]],
                                 DENSE | {"t": weights(5, 4)}),
    "shapes computed": model([("Shape", "x", "s"), ("Gather", "s zero", "g"), ("Unsqueeze", "g first", "u"),
                              ("Concat", "u minus", "t", {"axis": 0}), ("Reshape", "x t", "q"),
                              ("MatMul", "q w", "m"), *LAYERS[1:]],
                             DENSE | {"zero": np.int64(0), "first": np.int64([0]), "minus": np.int64([-1])}),
    "axes": model([("Unsqueeze", "x one", "q"), ("Squeeze", "q one", "p"), ("MatMul", "p w", "m"), *LAYERS[1:]],
                  DENSE | {"one": np.int64([1])}),
    "no change": model([("Identity", "x", "p"), ("Dropout", "p", "q"), ("Cast", "q", "o", {"to": 1}),
                        ("MatMul", "o w", "m"), *LAYERS[1:]], DENSE),
    "further outputs that nothing uses": changed(2, "Dropout", "a p off", "r mask",
                                                 more={"p": np.float32(0.5), "off": np.bool_(False)}),
}  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_dense_layers_and_what_stands_between(name, tmp_path):
    x = np.random.default_rng(1).normal(size=(9, 4)).astype(np.float32)
    network = from_onnx(saved(PLAIN[name], tmp_path))
    assert network.inputs == 4 and network.classes == (0, 1, 2)
    same(network.predict_logits(x, backend="reference"), answers(PLAIN[name], x))


IMAGES = {
    "convolution": model([CONV, *BEHIND], IMAGE, ("N", 2, 5, 6)),
    "padding and stride": model(
        [("Conv", "x k", "a", {"pads": [1, 0, 1, 0], "strides": [2, 1]}), *BEHIND], IMAGE, ("N", 2, 5, 6)),
    "same": model([("Conv", "x k kb", "a", {"auto_pad": "SAME_UPPER"}), *BEHIND], IMAGE, ("N", 2, 3, 4)),
    "relu behind pool": model(
        [CONV, ("MaxPool", "a", "p", POOL), ("Relu", "p", "r"), *BEHIND[1:]], IMAGE, ("N", 2, 8, 10)),
    "pool with padding": model(
        [CONV, ("MaxPool", "a", "p", {"kernel_shape": [3, 2], "pads": [1, 1, 1, 1], "strides": [2, 3]}),
         ("Relu", "p", "r"), *BEHIND[1:]], IMAGE, ("N", 2, 8, 11)),
    "bias of channels": model(
        [("Conv", "x k", "q"), ("Add", "q s", "a"), *BEHIND], IMAGE | {"s": CHANNELS}, ("N", 2, 5, 6)),
    "affine of pixels before dense": model(
        [CONV, BEHIND[0], ("Flatten", "r", "g"), ("Mul", "g s", "f"), *BEHIND[2:]], IMAGE | {"s": weights(72)},
        ("N", 2, 5, 6)),
    "affine of channels between": model(
        [CONV, ("Relu", "a", "e"), ("Mul", "e s", "q"), ("MaxPool", "q", "r", POOL), *BEHIND[1:]],
        IMAGE | {"s": CHANNELS - 0.5}, ("N", 2, 8, 10)),
    "batch norm of flat pixels": model(
        [CONV, ("Relu", "a", "r"), ("Flatten", "r", "g"), ("BatchNormalization", "g s t u v", "f"), *BEHIND[2:]],
        IMAGE | {"s": weights(72), "t": weights(72, seed=1), "u": weights(72, seed=2), "v": weights(72) ** 2},
        ("N", 2, 5, 6)),
    "scaled by pixel": model(
        [("Mul", "x s", "q"), ("Conv", "q k kb", "a"), *BEHIND], IMAGE | {"s": weights(2, 5, 6)}, ("N", 2, 5, 6)),
    "reshaped to an image": model(
        [("Reshape", "x i", "q"), ("Conv", "q k kb", "a"), *BEHIND], IMAGE | {"i": np.int64([0, 2, 5, 6])}, ("N", 60)),
}  # fmt: skip


@pytest.mark.parametrize("name", IMAGES)
def test_images(name, tmp_path):
    made = IMAGES[name]
    shape = [size.dim_value for size in made.graph.input[0].type.tensor_type.shape.dim][1:]
    x = np.random.default_rng(1).normal(size=(5, *shape)).astype(np.float32)
    network = from_onnx(saved(made, tmp_path))
    assert len(network.shape) == 3
    same(network.predict_logits(x, backend="reference"), answers(made, x))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_images_with_channels_last_as_keras_has_them(channels, tmp_path):
    """tf2onnx: a Transpose before the first convolution, for one channel a Reshape; one more before the dense part."""
    constants = {
        "k": weights(6, channels, 3, 3), "kb": weights(6), "w": weights(54, 7), "b": weights(7), "v": weights(7, 3),
        "c": weights(3), "flat": np.int64([-1, 54]), "s": np.float32(1 / 255), "i": np.int64([-1, 1, 8, 8]),
    }  # fmt: skip
    first = ("Reshape", "q i", "t") if channels == 1 else ("Transpose", "q", "t", TO_NCHW)
    made = model(
        [("Mul", "x s", "q"), first, ("Conv", "t k kb", "a"), ("Relu", "a", "r"), ("MaxPool", "r", "p", POOL),
         ("Transpose", "p", "u", TO_NHWC), ("Reshape", "u flat", "f"), ("MatMul", "f w", "m"), ("Add", "m b", "d"),
         ("Tanh", "d", "e"), ("MatMul", "e v", "n"), ("Add", "n c", "z"), ("Softmax", "z", "y", {"axis": -1})],
        constants, ("N", 8, 8, channels),
    )  # fmt: skip
    x = np.random.default_rng(1).uniform(0, 255, (5, 8, 8, channels)).astype(np.float32)
    network = from_onnx(saved(made, tmp_path))
    assert network.shape == (channels, 8, 8) and network.scaling == Scaling("standard", float(np.float32(1 / 255)), 0.0)
    same(network.predict_proba(x.transpose(0, 3, 1, 2), backend="reference"), answers(made, x))


def test_keras_flatten_of_pictures(tmp_path):
    """(N, 28, 28) becomes one grey channel, (N, 8, 8, 3) three in their own planes where that is told."""
    for shape, wanted in (((6, 7), (1, 6, 7)), ((6, 7, 1), (1, 6, 7)), ((6, 7, 3), (3, 6, 7))):
        size = int(np.prod(shape))
        scale = weights(*shape[2:] or (1,)) + 2
        made = model(
            [("Mul", "x s", "q"), ("Reshape", "q i", "f"), ("MatMul", "f w", "m"), ("Softmax", "m", "y")],
            {"w": weights(size, 3), "i": np.int64([-1, size]), "s": scale}, ("N", *shape),
        )  # fmt: skip
        x = np.random.default_rng(1).normal(size=(5, *shape)).astype(np.float32)
        network = from_onnx(saved(made, tmp_path), shape=wanted)
        assert network.shape == wanted
        ours = x.transpose(0, 3, 1, 2) if len(shape) == 3 else x[:, None]
        same(network.predict_proba(ours, backend="reference"), answers(made, x))


ENDS = {
    "softmax": ([("Softmax", "y", "p")], "cross-entropy", (0, 1, 2)),
    "log softmax": ([("LogSoftmax", "y", "p", {"axis": 1})], "cross-entropy", (0, 1, 2)),
    "label": ([("Softmax", "y", "q"), ("ArgMax", "q", "p", {"axis": 1})], "cross-entropy", (0, 1, 2)),
    "names": ([("Softmax", "y", "q"), ("ArgMax", "q", "i", {"axis": 1}),
               ("LabelEncoder", "i", "p", {"keys_int64s": [0, 1, 2], "values_strings": ["a", "b", "c"]})],
              "cross-entropy", ("a", "b", "c")),
    "zipped": ([("Softmax", "y", "q"), ("ZipMap", "q", "p", {"classlabels_int64s": [7, 5, 6]})],
               "cross-entropy", (7, 5, 6)),
    "sigmoid": ([("Sigmoid", "y", "p")], "binary", (0, 1, 2)),
    "exponential": ([("Exp", "y", "p")], "poisson", ()),
    "names of indices in another order": (
        [("Softmax", "y", "q"), ("ArgMax", "q", "i", {"axis": 1}),
         ("LabelEncoder", "i", "p", {"keys_int64s": [2, 0, 1], "values_strings": ["c", "a", "b"]})],
        "cross-entropy", ("a", "b", "c")),
    "greatest": ([("Softmax", "y", "q"), ("TopK", "q top", "u p")], "cross-entropy", (0, 1, 2)),
    "nothing": ([("Identity", "y", "p")], "cross-entropy", (0, 1, 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_the_end_tells_the_loss_and_the_classes(name, tmp_path):
    nodes, loss, classes = ENDS[name]
    made = model([*LAYERS, *nodes], DENSE | {"top": np.int64([1])}, outputs=("p",))
    network = from_onnx(saved(made, tmp_path))
    assert (network.loss, network.classes) == (loss, classes)
    assert from_onnx(saved(made, tmp_path), reading=Reading(loss=loss)).loss == loss
    if name == "nothing":
        other = from_onnx(saved(made, tmp_path), reading=Reading(loss="squared-error"))
        assert (other.loss, other.classes) == ("squared-error", ())
        return
    for wrong in {"squared-error", "poisson"} - {loss}:
        with pytest.raises(ModelFileError, match=f"its graph ends with .*, which loss {wrong} has not"):
            from_onnx(saved(made, tmp_path), reading=Reading(loss=wrong))


def behind(*nodes, more=None, outputs=("p",)):
    """The model of LAYERS with more nodes behind it."""
    return model([*LAYERS, *nodes], DENSE | (more or {}), outputs=outputs)


PROBABLE, LIKELY = ("Softmax", "y", "q"), ("Sigmoid", "y", "q")
HALF = {"h": np.float32(0.5), "one": np.float32(1), "i": np.int64([2, 0, 1]), "all": np.int64([0, 1, 2])}
SHAPES = {"top": np.int64([1]), "group": np.int64([0, 1, 3])}
CHANGED = {
    "another order": ((PROBABLE, ("Gather", "q i", "p", {"axis": 1})), r"\(Gather\): .*changes their order"),
    "rows": ((PROBABLE, ("Gather", "q all", "p")), r"\(Gather\): it takes some"),
    "columns": ((PROBABLE, ("ArrayFeatureExtractor", "q i", "p")), r"\(ArrayFeatureExtractor\): .*order"),
    "the first of several": ((LIKELY, ("Greater", "q h", "r2"), ("ArgMax", "r2", "p", {"axis": 1})),
                             r"\(ArgMax\): the first or greatest of several yes or no"),
    "the opposite": ((PROBABLE, ("Sub", "one q", "p")), r"\(Sub\): it stands behind a softmax"),
    "threshold": ((LIKELY, ("Greater", "q nine", "p")), r"\(Greater\): a threshold of \[0.8999.*\] behind binary"),
    "of a softmax": ((PROBABLE, ("Greater", "q h", "p")), r"\(Greater\): a threshold of \[0.5\] behind cross-entropy"),
    "of a layer": (((("Greater", "y h", "p")),), r"\(Greater\): a threshold of \[0.5\] behind a layer"),
    "the lesser": ((LIKELY, ("Less", "q h", "p")), r"\(Less\): no layer here computes it"),
    "over rows": ((("ArgMax", "y", "p"),), r"\(ArgMax\): over axis 0"),
    "probabilities over rows": ((PROBABLE, ("ArgMax", "q", "p")), r"\(ArgMax\): over axis 0; over the outputs"),
    "over groups": ((("Reshape", "y group", "q"), ("ArgMax", "q", "p", {"axis": 1})),
                    r"\(ArgMax\): over axis 1 of \(1, 3\); over the outputs"),
    "a maximum of all rows": ((("ReduceMax", "y", "p"),), r"\(ReduceMax\): over axis all of \(3,\); over the outputs"),
    "the least": ((PROBABLE, ("TopK", "q top", "u p", {"largest": 0})), r"\(TopK\): largest=0 takes the least"),
    "several pairs": ((LIKELY, ("Sub", "one q", "no"), ("Concat", "no q", "p", {"axis": 1})),
                      r"\(Concat\): it joins what is no pair"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGED)
def test_what_changes_the_meaning_of_outputs_is_named(name, tmp_path):
    nodes, message = CHANGED[name]
    made = behind(*nodes, more=HALF | SHAPES | {"nine": np.float32(0.9)})
    with pytest.raises(ModelFileError, match=message):
        from_onnx(saved(made, tmp_path))


SAME_MEANING = {
    "all in order": ((PROBABLE, ("Gather", "q all", "p", {"axis": 1})), "cross-entropy", (0, 1, 2)),
    "a half": ((LIKELY, ("Greater", "q h", "p")), "binary", (0, 1, 2)),
    "the greatest of several yes or no": ((LIKELY, ("ArgMax", "q", "p", {"axis": 1})), "cross-entropy", (0, 1, 2)),
    "label of an index": ((PROBABLE, ("ArgMax", "q", "k", {"axis": 1}), ("Gather", "i k", "p")),
                          "cross-entropy", (2, 0, 1)),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME_MEANING)
def test_what_keeps_the_meaning_of_outputs_is_read(name, tmp_path):
    nodes, loss, classes = SAME_MEANING[name]
    network = from_onnx(saved(behind(*nodes, more=HALF), tmp_path))
    assert (network.loss, network.classes) == (loss, classes)


def test_a_yes_or_no_each_beside_one_class_of_all_is_named(tmp_path):
    """A label by ArgMax goes with a softmax, logistic outputs with any number of labels: no network has both."""
    made = behind(LIKELY, ("ArgMax", "q", "p", {"axis": 1}), outputs=("p", "q"))
    with pytest.raises(ModelFileError, match=r"its outputs p, q are of different losses, cross-entropy and binary: "):
        from_onnx(saved(made, tmp_path))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss", ["cross-entropy", "binary", "squared-error", "poisson"])
@pytest.mark.parametrize("name", stacks.STACKS)
def test_what_this_library_exports_comes_back(name, loss, dtype, tmp_path):
    classes = ["é", '"', "c"] if loss in ("cross-entropy", "binary") else None
    network = stacks.network(name, dtype, loss=loss, classes=classes, scaling=Scaling("unit", 1 / 16, 0.0))
    back = from_onnx(saved(to_onnx(network), tmp_path))
    assert (back.loss, back.classes, back.shape) == (network.loss, network.classes, network.shape)
    x = samples(network, 5)
    same(back.predict_logits(x, backend="reference"), network.predict_logits(x, backend="reference"), 2e-5)


COMING_BACK = {
    "channels last by its sizes": ([Dense(3)], (12, 8, 4)),
    "one column": ([Dense(3)], (12, 8, 1)),
    "batch norm before a pool": ([Conv2d(3, 3, activation="relu"), BatchNorm(), MaxPool2d(2, 1), Dense(3)], (1, 7, 7)),
    "batch norm first": ([BatchNorm("relu"), Dense(3)], (5,)),
    "batch norm of pixels first": ([BatchNorm("relu"), Dense(16, "relu"), Dense(3)], (1, 8, 8)),
    "batch norms of pixels first": ([BatchNorm("tanh"), BatchNorm("relu"), Dense(3)], (2, 3, 4)),
    "batch norm of an image first": ([BatchNorm("relu"), Conv2d(2, 3), Dense(3)], (3, 6, 5)),
}


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("name", COMING_BACK)
def test_exports_that_could_not_be_imported(name, scaled, tmp_path):
    layers, shape = COMING_BACK[name]
    size, random = int(np.prod(shape)), np.random.default_rng(0)
    scaling = Scaling("standard", random.uniform(1, 2, size), random.normal(size=size)) if scaled else None
    network = stacks.made(layers, shape, scaling=scaling)
    tensors = network.state_dict()
    for key, value in tensors.items():
        if value.ndim == 1:  # batch norms that do something
            tensors[key] = random.uniform(0.5, 2, value.shape).astype(value.dtype)
    network.load_state_dict(tensors)
    back = from_onnx(saved(to_onnx(network), tmp_path))
    assert back.shape == shape
    x = random.normal(size=(5, size))
    same(back.predict_logits(x, backend="reference"), network.predict_logits(x, backend="reference"), 2e-5)


def test_a_batch_norm_of_channels_before_dense_layers_alone_is_one_of_pixels(tmp_path):
    made = model(
        [("BatchNormalization", "x g h m v", "q"), ("Relu", "q", "r"), ("Flatten", "r", "f"), ("MatMul", "f w", "y")],
        {"g": weights(3), "h": weights(3, seed=1), "m": weights(3, seed=2), "v": weights(3) ** 2, "w": weights(60, 3)},
        ("N", 3, 4, 5),
    )  # fmt: skip
    network = from_onnx(saved(made, tmp_path))
    assert network.shape == (3, 4, 5) and network.layers == (BatchNorm("relu"), Dense(3))
    x = np.random.default_rng(1).normal(size=(5, 3, 4, 5)).astype(np.float32)
    same(network.predict_logits(x, backend="reference"), answers(made, x))


def test_sizes_alone_do_not_put_channels_last(tmp_path):
    """(12, 8, 4) from PyTorch, which has channels first, and from a program that says nothing."""
    made = model([("Flatten", "x", "f"), ("MatMul", "f w", "y")], {"w": weights(384, 3)}, ("N", 12, 8, 4))
    for producer in ("pytorch", ""):
        made.producer_name = producer
        network = from_onnx(saved(made, tmp_path))
        x = np.random.default_rng(1).normal(size=(5, 12, 8, 4)).astype(np.float32)
        assert network.shape == (12, 8, 4)
        same(network.predict_logits(x, backend="reference"), answers(made, x))
    with pytest.raises(ModelFileError, match="not of the given shape 8x12x4"):
        from_onnx(saved(made, tmp_path), shape=(8, 12, 4))


def test_a_scaling_of_channels(tmp_path):
    """A value a channel is each pixel's; what the file does by itself follows."""
    made = model(
        [("Mul", "x s", "q"), ("Conv", "q k kb", "a"), *BEHIND], IMAGE | {"s": np.float32(0.5)}, ("N", 2, 5, 6)
    )
    x = np.random.default_rng(1).normal(size=(5, 2, 5, 6)).astype(np.float32)
    given = Scaling("unit", np.array([2.0, 3.0]), np.array([0.5, -1.0]))
    network = from_onnx(saved(made, tmp_path), reading=Reading(given))
    scaled = x * np.float32([[[2]], [[3]]]) + np.float32([[[0.5]], [[-1]]])
    same(network.predict_logits(x, backend="reference"), answers(made, scaled))
    assert network.scaling.kind == "standard"
    with pytest.raises(ModelFileError, match="a scaling of 3 values; one for all, or one a channel or pixel of 2 x 5"):
        from_onnx(saved(made, tmp_path), reading=Reading(Scaling("unit", np.ones(3), np.ones(3))))


def test_one_yes_or_no_comes_back(tmp_path):
    network = stacks.made([Dense(4, "tanh"), Dense(1)], 5, loss="binary", classes=["no", "yes"])
    back = from_onnx(saved(to_onnx(network), tmp_path))
    assert (back.loss, back.classes, back.layers) == (network.loss, network.classes, network.layers)
    assert all(np.array_equal(back.state_dict()[name], value) for name, value in network.state_dict().items())


# ---- other libraries


def sklearn_models():
    """{name: (fitted, options of to_onnx)}"""
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

    random = np.random.default_rng(0)
    x = random.normal(size=(60, 4)) * [1, 10, 100, 0.1] + [0, 100, -1000, 1]
    kind = np.arange(60) % 3
    few = {"max_iter": 30, "random_state": 0}
    names = np.array(["a", "b", "c"])[kind]
    return x.astype(np.float32), {
        "multi": (MLPClassifier((5,), **few), kind),
        "strings": (MLPClassifier((5, 4), activation="tanh", **few), names),
        "binary": (MLPClassifier((5,), activation="logistic", **few), kind > 0),
        "yes and no": (MLPClassifier((5,), activation="identity", **few), np.where(kind > 0, "yes", "no")),
        "standard": (make_pipeline(StandardScaler(), MLPClassifier((5,), **few)), names),
        "min and max": (make_pipeline(MinMaxScaler(), MLPClassifier((5,), **few)), names),
        "robust": (make_pipeline(RobustScaler(), MLPClassifier((5,), **few)), kind + 5),
        "number": (make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(5,), **few)), kind * 1.5),
        "numbers": (MLPRegressor(hidden_layer_sizes=(5,), **few), x[:, :2]),
        "labels": (MLPClassifier((5,), **few), np.stack([kind > 0, kind > 1, kind == 1], 1).astype(int)),
    }


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "name",
    ["multi", "strings", "binary", "yes and no", "standard", "min and max", "robust", "number", "numbers", "labels"],
)
def test_scikit_learn_through_skl2onnx(name, zipped, tmp_path):
    skl2onnx = pytest.importorskip("skl2onnx", reason="skl2onnx is not installed")
    x, models = sklearn_models()
    estimator, y = models[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's of few iterations
        estimator.fit(x.astype(np.float64), y)
        options = {} if zipped or name.startswith("number") else {"zipmap": False}
        made = skl2onnx.to_onnx(estimator, x[:1].astype(np.float64), options=options)
    network = from_onnx(saved(made, tmp_path))
    assert network.dtype == np.float64
    # a Scaler of ONNX holds its numbers in float32
    if name.startswith("number"):
        same(network.predict(x, backend="reference"), estimator.predict(x), 1e-4)
        return
    assert np.array_equal(network.predict(x, backend="reference"), estimator.predict(x))
    same(network.predict_proba(x, backend="reference"), estimator.predict_proba(x), 1e-4)


@pytest.mark.parametrize("dynamo", [False, True])
def test_pytorch(dynamo, tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if dynamo:
        pytest.importorskip("onnxscript", reason="onnxscript, which torch.onnx needs, is not installed")
    from torch import nn

    class Viewed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm, self.last = nn.Linear(64, 5, bias=False), nn.BatchNorm1d(5), nn.Linear(5, 3)

        def forward(self, x):
            x = ((x - 0.5) / 0.25).view(x.size(0), -1)
            return torch.log_softmax(self.last(self.norm(torch.sigmoid(self.first(x)))), 1)

    torch.manual_seed(0)
    convolutions = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3),
        nn.MaxPool2d(2, 1), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.BatchNorm1d(5), nn.Linear(5, 6),
        nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3),
    )  # fmt: skip
    for module in (convolutions, Viewed()):
        module(torch.randn(32, 1, 8, 8))  # running statistics that are none of the first
        module.eval()
        x = torch.randn(8, 1, 8, 8)
        logging.disable(logging.WARNING)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            path = tmp_path / "net.onnx"
            if dynamo:
                rows = ({0: torch.export.Dim("n")},)
                torch.onnx.export(module, (x,), path, dynamo=True, dynamic_shapes=rows, verbose=False)
            else:
                axes = {"x": {0: "n"}}
                torch.onnx.export(module, (x,), path, dynamo=False, input_names=["x"], dynamic_axes=axes)
            wanted = module(x).softmax(1).numpy()
        logging.disable(logging.NOTSET)
        network = from_onnx(path)
        assert network.shape == (1, 8, 8)
        same(network.predict_proba(x.numpy(), backend="reference"), wanted)
