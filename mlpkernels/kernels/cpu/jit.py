"""How every function here is compiled: without the GIL, without bounds checks, division as NumPy does it.

No fastmath: it would let the compiler assume that there is no NaN and reorder sums that reach a parameter.
error_model="numpy" leaves out division checks, without which a loop that divides does not vectorise.
"""

from typing import Any

import numpy as np
from numba import njit

OPTIONS: dict[str, Any] = {"nogil": True, "boundscheck": False, "error_model": "numpy"}

jit: Any = njit(**OPTIONS)

# For what compiled code alone calls: without Numba's two wrappers for callers in Python and in C, a fifth of the time
# that image_layers took to compile. Called from Python, such a function ends the process.
inner: Any = njit(**OPTIONS | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True})

# A literal argument is a type of its own, and with it another copy of the callee to compile: numbers that are passed on
# have a type. It took all tiles of images twice, 8 of 24 s.
ZERO, ONE = np.int64(0), np.int64(1)

# For what is called in one place. Of every step: a call passes each array as seven arguments, 0.1 µs for a few of them.
# By one entry point: what is compiled by itself is optimised and translated once more; sparse_layer took 5 s, now 2.5.
inlined: Any = njit(inline="always", **OPTIONS)
