"""ONNX files as PyTorch, Keras, scikit-learn and this library write them: equal predictions; the rest is named."""

import logging
import sys
import warnings

import numpy as np
import pytest
import stacks

from mlpkernels import BatchNorm, Conv2d, Dense, MaxPool2d, Network, Scaling
from mlpkernels.errors import ModelFileError, UnavailableError
from mlpkernels.export import to_onnx
from mlpkernels.export.golden import samples
from mlpkernels.foreign import Reading, from_onnx

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402


def weights(*shape, seed=0):
    return (np.random.default_rng([seed, *shape]).normal(size=shape) / 2).astype(np.float32)


def model(nodes, constants, inputs=("N", 4), outputs=("y",), kind=TensorProto.FLOAT, opset=17):
    """A model of the input x, nodes as (operator, inputs, output, attributes) and constants by name."""
    made = []
    for operator, names, output, *rest in nodes:
        domain = "ai.onnx.ml" if operator in ("ArrayFeatureExtractor", "LabelEncoder", "Scaler", "ZipMap") else ""
        outs, attributes = output.split(), rest[0] if rest else {}
        made.append(helper.make_node(operator, names.split(), outs, f"n{outs[0]}", domain=domain, **attributes))
    graph = helper.make_graph(
        made, "test", [helper.make_tensor_value_info("x", kind, list(inputs))],
        [helper.make_tensor_value_info(name, kind, ["N", "K"]) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def saved(made, tmp_path):
    (tmp_path / "net.onnx").write_bytes(made.SerializeToString())
    return tmp_path / "net.onnx"


def answers(made, x):
    """The first output, by ONNX's own evaluator."""
    return ReferenceEvaluator(made).run(None, {made.graph.input[0].name: x})[0]


def same(found, wanted, tolerance=1e-5):
    assert np.allclose(found, np.asarray(wanted).reshape(found.shape), tolerance, tolerance)


DENSE = {"w": weights(4, 5), "b": weights(5), "v": weights(5, 3), "c": weights(3)}
LAYERS = [("MatMul", "x w", "m"), ("Add", "m b", "a"), ("Relu", "a", "r"), ("MatMul", "r v", "n"), ("Add", "c n", "y")]


def changed(number, *node, more=None):
    """The model of LAYERS with one node replaced, and more constants."""
    nodes = list(LAYERS)
    nodes[number] = node
    return model(nodes, DENSE | (more or {}))


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
}  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_dense_layers_and_what_stands_between(name, tmp_path):
    x = np.random.default_rng(1).normal(size=(9, 4)).astype(np.float32)
    network = from_onnx(saved(PLAIN[name], tmp_path))
    assert network.inputs == 4 and network.classes == (0, 1, 2)
    same(network.predict_logits(x, backend="reference"), answers(PLAIN[name], x))


IMAGE = {
    "k": weights(6, 2, 3, 3),
    "kb": weights(6),
    "w": weights(6 * 12, 3),
    "b": weights(3),
    "flat": np.int64([-1, 72]),
}
CONV = ("Conv", "x k kb", "a", {"kernel_shape": [3, 3]})
BEHIND = [("Relu", "a", "r"), ("Flatten", "r", "f"), ("MatMul", "f w", "m"), ("Add", "m b", "y")]
CHANNELS = (np.arange(6, dtype=np.float32) / 6).reshape(6, 1, 1)
POOL = {"kernel_shape": [2, 2], "strides": [2, 2]}
TO_NCHW, TO_NHWC = {"perm": [0, 3, 1, 2]}, {"perm": [0, 2, 3, 1]}
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
    "nothing": ([("Identity", "y", "p")], "cross-entropy", (0, 1, 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_the_end_tells_the_loss_and_the_classes(name, tmp_path):
    nodes, loss, classes = ENDS[name]
    made = model([*LAYERS, *nodes], DENSE, outputs=("p",))
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
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGED)
def test_what_changes_the_meaning_of_outputs_is_named(name, tmp_path):
    nodes, message = CHANGED[name]
    made = behind(*nodes, more=HALF | {"nine": np.float32(0.9)})
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


# ---- what is refused


def gemm(bias, **more):
    """The model of LAYERS with its first layer as one Gemm of this bias."""
    return model([("Gemm", f"x w {bias}", "a"), *LAYERS[2:]], DENSE | more)


GATES = {"k": weights(6, 1, 3, 3), "w": weights(6 * 12, 3), "b": weights(3)}
REFUSED = {
    "operator": (changed(2, "LeakyRelu", "a", "r"), r"node 'nr' \(LeakyRelu\): no layer here computes it; Gemm"),
    "two paths": (changed(2, "Add", "a a", "r"), r"node 'nr' \(Add\): two paths meet"),
    "shapes": (changed(3, "MatMul", "r w", "n"), r"shape \(5,\) reaches its weight 'w' of shape \(4, 5\)"),
    "broadcast": (changed(1, "Add", "m c", "a"), r"node 'na' \(Add\): the constant 'c' of shape \(3,\) meets"),
    "weights first": (changed(0, "MatMul", "w x", "m"), "weights times samples; samples times weights"),
    "transA": (changed(0, "Gemm", "x w", "m", {"transA": 1}), r"\(Gemm\): transA=1 .*; 0 was wanted"),
    "bias of gemm": (gemm("c"), r"node 'na' \(Gemm\): its bias 'c' has shape \(3,\); \(5,\) was wanted"),
    "bias of rows": (gemm("s", s=weights(5, 1)), r"\(Gemm\): its bias 's' has shape \(5, 1\); \(5,\) was wanted"),
    "bias of a batch": (gemm("s", s=weights(4, 5)), r"\(Gemm\): its bias 's' has shape \(4, 5\); \(5,\) was wanted"),
    "bias of convolutions": (model([("Conv", "x k b", "a"), *BEHIND], IMAGE, ("N", 2, 5, 6)),
                             r"node 'na' \(Conv\): its bias 'b' has shape \(3,\); \(6,\) was wanted"),
    "kernel": (model([("Conv", "x k kb", "a"), *BEHIND], IMAGE, ("N", 3, 5, 6)),
               r"\(Conv\): a sample of shape \(3, 5, 6\) reaches its weight 'k' of shape \(6, 2, 3, 3\)"),
    "batch norm": (changed(2, "BatchNormalization", "a b b c b", "r"),
                   r"\(BatchNormalization\): its mean 'c' has shape \(3,\); \(5,\) was wanted"),
    "columns of a batch norm": (changed(2, "BatchNormalization", "a c c c var", "r", more={"var": weights(3) ** 2}),
                                r"reaches its scale 'c' of shape \(3,\); as many channels were wanted"),
    "two activations": (changed(1, "Tanh", "m", "a"), r"node 'nr' \(Relu\): relu behind tanh: one activation"),
    "activation first": (model([("Relu", "x", "q"), ("MatMul", "q w", "y")], DENSE), "relu behind a layer was wanted"),
    "activation last": (model([*LAYERS, ("Relu", "y", "z")], DENSE, outputs=("z",)), "ends with a dense layer"),
    "no dense": (model([("Relu", "x", "y")], {}), "ends with a dense layer"),
    "softmax inside": (changed(2, "Softmax", "a", "r"), r"node 'nn' \(MatMul\): it stands behind a softmax"),
    "softmax of rows": (model([*LAYERS, ("Softmax", "y", "p", {"axis": 0})], DENSE, outputs=("p",)), "over axis 0"),
    "division by samples": (changed(1, "Div", "b m", "a"), "a division by samples or by 0"),
    "training": (changed(1, "BatchNormalization", "m b b b b", "a q s", {"training_mode": 1}), "model.eval"),
    "batch moved": (model([("Transpose", "x", "q"), ("MatMul", "q w", "y")], DENSE), "moves the batch"),
    "different layers": (model([*LAYERS], DENSE, outputs=("a", "y")), "outputs a, y come from different layers"),
    "constant output": (model([*LAYERS, ("Identity", "w", "z")], DENSE, outputs=("z",)), "does not depend on"),
    "group": (model([("Conv", "x k", "a", {"group": 2}), *BEHIND], GATES, ("N", 2, 5, 6)), "group=2; 1 was"),
    "dilations": (model([("Conv", "x k kb", "a", {"dilations": [2, 2]}), *BEHIND], IMAGE, ("N", 2, 7, 8)), "dilations"),
    "uneven padding": (model([("Conv", "x k kb", "a", {"pads": [0, 0, 1, 1]}), *BEHIND], IMAGE, ("N", 2, 4, 5)),
                       r"\[0, 0\] rows and columns of padding before and \[1, 1\] behind"),
    "ceiling": (model([CONV, ("MaxPool", "a", "p", {**POOL, "ceil_mode": 1}), ("Flatten", "p", "f"), *BEHIND[2:]],
                      IMAGE, ("N", 2, 7, 9)), "ceil_mode=1 with an incomplete last window"),
    "tanh of images": (model([CONV, ("Tanh", "a", "r"), *BEHIND[1:]], IMAGE, ("N", 2, 5, 6)), "activation='tanh'"),
    "size unknown": (model([CONV, *BEHIND], IMAGE, ("N", 2, "H", "W")), r"its shape is \?x2x\?x\?: .*input shape"),
    "shape of another rank": (model([("Reshape", "x f", "q")], {"f": np.int64([0, 0, 0])}, outputs=("q",)),
                              r"\(Reshape\): a sample of shape \(4,\) does not fill shape \[0, 0, 0\]"),
    "shape of nothing": (model([("Reshape", "x f", "q")], {"f": np.zeros(0, np.int64)}, outputs=("q",)),
                         r"shape \[\]; the batch and then a sample's shape"),
    "perm": (model([("Transpose", "x", "q", {"perm": [0, 2, 1]})], {}, outputs=("q",)), "is no order of 2 axes"),
    "squeezed": (model([("Squeeze", "x one", "q"), ("MatMul", "q w", "y")], DENSE | {"one": np.int64([1])}),
                 r"axes \[1\] of a sample of shape \(4,\) are not all of size 1"),
    "unsqueezed": (model([("Unsqueeze", "x far", "q"), ("MatMul", "q w", "y")], DENSE | {"far": np.int64([7])}),
                   r"axes \[7\]; different ones from -3 to 2 were wanted"),
    "constants": (model([("Gather", "w far", "u"), ("MatMul", "x u", "y")], DENSE | {"far": np.int64([7])}),
                  r"\(Gather\): it cannot be computed from its constants 'w' \(4, 5\), 'far' \(1,\): "),
    "variance": (changed(2, "BatchNormalization", "a b b b var", "r", more={"var": np.float32([1, 1, -1, 1, 1])}),
                 "its variance 'var' holds a negative value"),
    "infinite": (changed(1, "Add", "m i", "a", more={"i": np.full(5, np.inf, np.float32)}),
                 r"\(Add\): its other operand 'i' holds a value that is not finite"),
    "whole numbers": (model([("Cast", "x", "q", {"to": 7}), ("MatMul", "q w", "y")], DENSE), "floats were wanted"),
    "not finite": (changed(1, "Add", "m nan", "a", more={"nan": np.full(5, np.nan, np.float32)}), "not finite"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_this_library_has_not_is_named(name, tmp_path):
    made, message = REFUSED[name]
    with pytest.raises(ModelFileError, match=message) as caught:
        from_onnx(saved(made, tmp_path))
    assert "net.onnx: " in str(caught.value)


def test_the_size_of_images_may_be_given(tmp_path):
    made = model([CONV, *BEHIND], IMAGE, ("N", 2, "H", "W"))
    assert from_onnx(saved(made, tmp_path), shape=(2, 5, 6)).shape == (2, 5, 6)
    flat = from_onnx(saved(PLAIN["gemm"], tmp_path), shape=(1, 2, 2))
    assert flat.shape == (1, 2, 2)
    with pytest.raises(ModelFileError, match="not of the given shape 5"):
        from_onnx(saved(PLAIN["gemm"], tmp_path), shape=(5,))


def test_two_inputs_are_named(tmp_path):
    made = model(LAYERS, DENSE)
    made.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 3]))
    with pytest.raises(ModelFileError, match=r"2 inputs \(x, z\); one array of samples was wanted"):
        from_onnx(saved(made, tmp_path))


def test_files_that_are_none(tmp_path):
    path = tmp_path / "net.onnx"
    with pytest.raises(FileNotFoundError, match=r"net\.onnx: no such file"):
        from_onnx(path)
    with pytest.raises(ModelFileError, match="is a folder; an ONNX file was wanted"):
        from_onnx(tmp_path)
    whole = PLAIN["gemm"].SerializeToString()
    for content in (b"", b"PK\x03\x04 a pickle", b"\x80\x04\x95 another", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match=r"no ONNX file|no valid ONNX file"):
            from_onnx(path)


def test_damaged_files_are_always_named(tmp_path):
    """Bytes changed at random: a named error, or a network, never another exception."""
    random = np.random.default_rng(0)
    files = [PLAIN["batch norm"].SerializeToString(), to_onnx(stacks.network("conv-relu")).SerializeToString()]
    named = 0
    for k in range(300):
        content = bytearray(files[k % 2])
        for place in random.integers(0, len(content) if k % 3 else min(600, len(content)), 3):
            content[place] = random.integers(256)
        (tmp_path / "net.onnx").write_bytes(content)
        try:
            assert isinstance(from_onnx(tmp_path / "net.onnx"), Network)
        except ModelFileError as error:
            named += 1
            assert "net.onnx" in str(error)
    assert named > 100


def test_an_unsound_graph_is_named(tmp_path):
    made = model([("MatMul", "x nowhere", "y")], DENSE)
    with pytest.raises(ModelFileError, match=r"net\.onnx is no valid ONNX file: .*nowhere"):
        from_onnx(saved(made, tmp_path))


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    path = saved(PLAIN["gemm"], tmp_path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UnavailableError, match=r"pip install mlpkernels\[onnx\]"):
        from_onnx(path)
