"""How every function here is compiled: without the GIL, without bounds checks, division as NumPy does it.

No fastmath: it would let the compiler assume that there is no NaN and reorder sums that reach a parameter.
error_model="numpy" leaves out division checks, without which a loop that divides does not vectorise.
"""

from typing import Any

from numba import njit

OPTIONS: dict[str, Any] = {"nogil": True, "boundscheck": False, "error_model": "numpy"}

jit: Any = njit(**OPTIONS)

# For what is called in one place. Of every step: a call passes each array as seven arguments, 0.1 µs for a few of them.
# By one entry point: what is compiled by itself is optimised and translated once more; sparse_layer took 5 s, now 2.5.
inlined: Any = njit(inline="always", **OPTIONS)
