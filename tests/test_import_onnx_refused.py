"""ONNX files that cannot be networks of this library, or are none: what of them is wrong is named in one line."""

import sys

import numpy as np
import pytest
import stacks

from mlpkernels import Network
from mlpkernels.errors import ModelFileError, UnavailableError
from mlpkernels.export import to_onnx
from mlpkernels.foreign import from_onnx

pytest.importorskip("onnx", reason="onnx is not installed")
from onnx import TensorProto, helper
from onnx_models import BEHIND, CONV, DENSE, IMAGE, LAYERS, POOL, changed, model, saved, weights


def gemm(bias, **more):
    """The model of LAYERS with its first layer as one Gemm of this bias."""
    return model([("Gemm", f"x w {bias}", "a"), *LAYERS[2:]], DENSE | more)


PLAIN = model(LAYERS, DENSE)
NORM = {"g": weights(5), "d": weights(5) ** 2}
TRAINING = {"p": np.float32(0.5), "on": np.bool_(True)}
INDEXED = [CONV, ("MaxPool", "a", "p i", POOL), ("Cast", "i", "r", {"to": 1}), *BEHIND[1:]]
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
    "training before opset 14": (changed(2, "BatchNormalization", "a g g g d", "r s t u e", more=NORM, opset=13),
                                 r"\(BatchNormalization\): it was exported while training; model.eval"),
    "training dropout": (changed(2, "Dropout", "a p on", "r", more=TRAINING), r"\(Dropout\): it was .*; model.eval"),
    "mask of a dropout": (model(
        [*LAYERS[:2], ("Dropout", "a", "e k"), ("Cast", "k", "r", {"to": 1}), *LAYERS[3:]], DENSE),
        r"node 'nr' \(Cast\): 'k' is a further output of its node, and only the first is read"),
    "indices of a pool": (model(INDEXED, IMAGE, ("N", 2, 8, 10)), r"node 'nr' \(Cast\): 'i' is a further output"),
    "indices as an output": (model(
        [CONV, ("MaxPool", "a", "r i", POOL), *BEHIND[1:]], IMAGE, ("N", 2, 8, 10), outputs=("y", "i")),
        r"net\.onnx: its outputs: 'i' is a further output"),
    "old opset": (changed(1, "Add", "m b", "a", {"axis": 1, "broadcast": 1}, opset=6), "ONNX's opset 6; 7 or later"),
    "division of whole numbers": (changed(0, "Div", "x two", "m", more={"two": np.int64(2)}, kind=TensorProto.INT64),
                                  r"\(Div\): its other operand 'two' is of whole numbers; floats were wanted"),
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
    flat = from_onnx(saved(PLAIN, tmp_path), shape=(1, 2, 2))
    assert flat.shape == (1, 2, 2)
    with pytest.raises(ModelFileError, match="not of the given shape 5"):
        from_onnx(saved(PLAIN, tmp_path), shape=(5,))


def test_an_operator_of_another_domain_is_none_of_onnx(tmp_path):
    for operator in ("Relu", "Softmax"):
        made = changed(2, operator, "a", "r")
        made.graph.node[2].domain = "org.other"
        made.opset_import.append(helper.make_opsetid("org.other", 1))
        with pytest.raises(ModelFileError, match=rf"\({operator}\): an operator of org\.other, which no layer here"):
            from_onnx(saved(made, tmp_path))


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
    whole = PLAIN.SerializeToString()
    for content in (b"", b"PK\x03\x04 a pickle", b"\x80\x04\x95 another", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match=r"no ONNX file|no valid ONNX file"):
            from_onnx(path)


def test_damaged_files_are_always_named(tmp_path):
    """Bytes changed at random: a named error, or a network, never another exception."""
    random = np.random.default_rng(0)
    files = [PLAIN.SerializeToString(), to_onnx(stacks.network("conv-relu")).SerializeToString()]
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
    path = saved(PLAIN, tmp_path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UnavailableError, match=r"pip install 'mlpkernels\[onnx\]'"):
        from_onnx(path)
