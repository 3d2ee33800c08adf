"""Networks made elsewhere: PyTorch state dicts and ONNX files become networks of this library."""

from .assemble import Reading
from .onnx import from_onnx
from .state_dict import Windows, from_state_dict, module_order

__all__ = ["Reading", "Windows", "from_onnx", "from_state_dict", "module_order"]
