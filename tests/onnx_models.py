"""ONNX graphs made for tests of the import: dense layers, convolutions, and what stands around them."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator


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


def changed(number, *node, more=None, **options):
    """The model of LAYERS with one node replaced, and more constants; options of `model`."""
    nodes = list(LAYERS)
    nodes[number] = node
    return model(nodes, DENSE | (more or {}), **options)


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
