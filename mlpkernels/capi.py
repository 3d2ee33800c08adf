"""Networks for C, Cython and SciPy: compiled functions behind a pointer, their prototypes and a header.

    handle = capi.network(net)      # keeps what the pointer leads to
    handle.address                  # an integer: mlpk_network_f32 *, or _f64
    python -m mlpkernels.capi > mlpkernels.h

C calls through the pointer, without Python and without the interpreter's lock, from any thread with a scratch of its
own; `header()` says how. What it points to lives as long as the handle does, the functions until the process ends.

Cython takes the same header: `cdef extern from "mlpkernels.h"` with the struct, and
`<mlpk_network_f32 *><uintptr_t>handle.address`. SciPy takes `low_level_callable`.
"""

import ctypes
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .compiled import CompiledNetwork
    from .network import Network

_NUMBERS = {"float32": ctypes.c_float, "float64": ctypes.c_double}
_SUFFIX = {"float32": "f32", "float64": "f64"}
_KINDS = {"integrand": "c_integrand", "filter": "c_filter"}

_HEADER = """\
/* mlpkernels.h: a trained network of the Python package mlpkernels, called from C.
 *
 * Python makes the network and hands over one pointer, mlpkernels.capi.network(net).address. It is valid as long as
 * that Python object lives. The functions take no lock and no Python state: call them from any thread, each with a
 * scratch of its own. Parameters that Python changes meanwhile are seen.
 *
 * x holds raw inputs, which are scaled as the network's scaling says; an image's in the order channel, line, pixel.
 * out receives the last layer's outputs: logits, or what the network's loss makes of them. scratch holds net->scratch
 * numbers of the network's type, whatever is in them. Arrays are contiguous and need no alignment beyond a number's.
 *
 * Returned are MLPK_OK; MLPK_NULL, a pointer is null; MLPK_OTHER, net is no network of that type, a float one that was
 * cast to a double one for instance; or MLPK_NEGATIVE, rows is. Only MLPK_OK writes to out.
 */
#ifndef MLPKERNELS_H
#define MLPKERNELS_H

#include <stdint.h>

enum { MLPK_OK = 0, MLPK_NULL = 1, MLPK_OTHER = 2, MLPK_NEGATIVE = 3 };
"""

_STRUCT = """
typedef struct mlpk_network_{suffix} mlpk_network_{suffix};

struct mlpk_network_{suffix} {{
    int64_t mark;    /* that it is one */
    int64_t inputs;  /* numbers of a sample */
    int64_t outputs; /* numbers of an answer */
    int64_t scratch; /* numbers of room that a call takes */
{others}
    /* x[inputs] -> out[outputs] */
    int32_t (*predict_one)(const mlpk_network_{suffix} *net, const {number} *x, {number} *scratch, {number} *out);

    /* x[rows][inputs] -> out[rows][outputs] */
    int32_t (*predict_rows)(const mlpk_network_{suffix} *net, int64_t rows, const {number} *x, {number} *scratch,
                            {number} *out);

    /* the same from and to double, whatever the network computes in */
    int32_t (*predict_doubles)(const mlpk_network_{suffix} *net, int64_t rows, const double *x, {number} *scratch,
                               double *out);

    /* what follows is the library's own */
}};
"""


def header() -> str:
    """The text of mlpkernels.h, C99: the structs of float and double networks, their functions and statuses."""
    structs = [_STRUCT.format(suffix=_SUFFIX[name], number=_C_NAMES[name], others=_OTHERS[name]) for name in _NUMBERS]
    return _HEADER + "".join(structs) + "\n#endif\n"


_C_NAMES = {"float32": "float", "float64": "double"}
_OTHERS = {"float32": "", "float64": "    void (*others[3])(void); /* a float network's functions */\n"}


def _structure(dtype: str) -> Any:
    """The ctypes.Structure of a network of a dtype, as the header has it."""
    number = ctypes.POINTER(_NUMBERS[dtype])
    doubles, long, status = ctypes.POINTER(ctypes.c_double), ctypes.c_int64, ctypes.c_int32

    class Network(ctypes.Structure):
        pass

    net = ctypes.POINTER(Network)
    Network._fields_ = [
        ("mark", long),
        ("inputs", long),
        ("outputs", long),
        ("scratch", long),
        *([("others", ctypes.c_void_p * 3)] if dtype == "float64" else []),
        ("predict_one", ctypes.CFUNCTYPE(status, net, number, number, number)),
        ("predict_rows", ctypes.CFUNCTYPE(status, net, long, number, number, number)),
        ("predict_doubles", ctypes.CFUNCTYPE(status, net, long, doubles, number, doubles)),
    ]
    Network.__name__ = f"mlpk_network_{_SUFFIX[dtype]}"
    return Network


STRUCTURES = {dtype: _structure(dtype) for dtype in _NUMBERS}


class Handle:
    """A network for C: `address` is what C takes, `pointer` the same for ctypes. Both are valid as long as it lives."""

    def __init__(self, value: "CompiledNetwork") -> None:
        self.value = value
        self.address = value.with_c_functions()
        self.pointer = ctypes.cast(self.address, ctypes.POINTER(STRUCTURES[value.dtype.name]))

    def __reduce__(self) -> Any:
        raise TypeError("a capi.Handle is a pointer of this process: pickle the Network, and make another there")

    def __repr__(self) -> str:
        return f"Handle({self.address:#x}, {self.value!r})"


def network(net: "Network") -> Handle:
    """A handle of a network, as it is scaled now; compiles what C calls, a few seconds the first time of all.

    TypeError for what is no Network.
    """
    if not hasattr(net, "compiled"):
        raise TypeError(f"net must be a Network, got {type(net).__name__}")
    return Handle(net.compiled())


class _Call(ctypes.Structure):
    """What SciPy hands back to the function: a network, scratch and room for a number. The rest keeps them."""

    _fields_ = tuple((name, ctypes.c_int64) for name in ("network", "scratch", "result", "function"))


def low_level_callable(net: "Network", kind: str, dimensions: int = 1) -> Any:
    """A network of one output as a scipy.LowLevelCallable, which SciPy calls without Python; one thread at a time.

    kind "integrand", for scipy.integrate: the network's inputs are the point, of so many dimensions: 1 for quad, 2 for
    dblquad, 3 for tplquad, those of nquad's ranges, and one more for each of their args; where SciPy passes another
    number after all, which it has no way to refuse, the result is nan. "filter", for scipy.ndimage.generic_filter: the
    inputs are the footprint's values, and another number of them is a RuntimeError. Both give the last layer's output,
    as `predict_logits` does, in float64. ValueError for another kind, for a network of more outputs or of another
    number of inputs than dimensions; ImportError without SciPy.
    """
    if kind not in _KINDS:
        raise ValueError(f"kind={kind!r}: one of {', '.join(map(repr, _KINDS))} was wanted")
    if net.outputs != 1:
        raise ValueError(f"the network has {net.outputs} outputs: SciPy takes a function of one")
    if kind == "integrand" and net.inputs != dimensions:
        raise ValueError(
            f"the network has {net.inputs} inputs, the integral dimensions={dimensions}: say "
            f"dimensions={net.inputs} where dblquad, tplquad, nquad, or quad with args, passes as many numbers"
        )
    try:
        from scipy import LowLevelCallable
    except ImportError:
        raise ImportError("capi.low_level_callable needs SciPy: pip install scipy") from None
    from .kernels.cpu.value import address_of, function_address

    handle, scratch, result = network(net), net.compiled().scratch(), np.zeros(1)
    predict = function_address("c_predict_doubles", net.dtype.name)
    call = _Call(handle.address, address_of(scratch), address_of(result), predict)
    call.kept = handle, scratch, result
    doubles = ctypes.POINTER(ctypes.c_double)
    prototypes = {
        "integrand": ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_int, doubles, ctypes.c_void_p),
        "filter": ctypes.CFUNCTYPE(ctypes.c_int, doubles, ctypes.c_ssize_t, doubles, ctypes.c_void_p),
    }
    function = prototypes[kind](function_address(_KINDS[kind], "float64"))
    data = ctypes.cast(ctypes.pointer(call), ctypes.c_void_p)  # refers to the call, which refers to what it needs
    return LowLevelCallable(function, data)


if __name__ == "__main__":
    sys.stdout.write(header())
