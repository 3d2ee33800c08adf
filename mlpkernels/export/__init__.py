"""Networks for other programs: C99 source and ONNX files that predict what the network predicts."""

from .c import CSource, c_source, write_c
from .onnx import to_onnx, write_onnx

__all__ = ["CSource", "c_source", "to_onnx", "write_c", "write_onnx"]
