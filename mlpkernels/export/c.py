"""A network as C99: one header and one source that need nothing but math.h, allocate nothing and keep no state."""

import os
from pathlib import Path
from string import Template
from typing import NamedTuple

import numpy as np

from ..network import Network
from . import c_functions as functions
from . import c_text as text
from .c_layers import arrays, forward, needs_preparing, prepare, uses
from .c_main import test_main
from .c_verbs import verbs
from .golden import golden
from .steps import centred, check_trained, steps
from .writing import write_new


class CSource(NamedTuple):
    """The texts of NAME.h and NAME.c."""

    header: str
    source: str


def write_c(network: Network, folder: str | os.PathLike[str], name: str = "model") -> list[Path]:
    """Write `c_source` as NAME.h and NAME.c into a folder that exists; returns their paths.

    Both or neither: FileExistsError where one is there already, OSError where they cannot be written; ValueError as
    `c_source`.
    """
    header, source = c_source(network, name)
    folder = Path(folder)
    return write_new({folder / f"{name}.h": header.encode(), folder / f"{name}.c": source.encode()})


def c_source(network: Network, name: str = "model") -> CSource:
    """The network's prediction of one sample as C99, in its own dtype.

    Every name that the header declares begins with `name`; the header documents them. Inputs are raw, as the data set
    has them: the scaling is inside. Compiled with -DTEST, the source is a program that checks golden vectors. Calls
    may run in parallel, each with its own scratch. ValueError for a name that C cannot have, for an untrained network,
    for a weight that is not finite, for predictions that overflow and for class names that are no C strings.
    """
    try:
        text.check_name(name)
    except ValueError as error:
        raise ValueError(f"name={name!r}: {error}") from None
    check_trained(network)
    layers = steps(network)
    scaling = centred(network.scaling, network.dtype)
    code, room = forward(layers, network.inputs if needs_preparing(layers[0], scaling) else 0)
    ends = verbs(network)
    used = uses(layers).union(ends.uses)
    parts = [_OPENING, _classes(network) if ends.classes else "", *(part for part in functions.ALL if part in used)]
    parts.append(prepare(layers[0], scaling, network.inputs))
    for number, (step, before) in enumerate(zip(layers, [None, *layers[:-1]], strict=True), 1):
        parts.append(arrays(number, step, before))
    parts += [code, ends.code, test_main(golden(network), ends)]
    words = {
        "name": name, "macro": name.upper(), **_types(network.dtype),
        "inputs": network.inputs, "outputs": network.outputs, "scratch": room + network.outputs,
    }  # fmt: skip
    header = _HEADER
    images = " An image lies channel by\n * channel, each row by row." if len(network.shape) == 3 else ""
    for place, words_there in (
        ("EXAMPLE", ends.example), ("IMAGES", images), ("SIZES", _sizes(network, ends.classes)),
        ("VERBS", ends.declarations),
    ):  # fmt: skip
        header = header.replace(f"@{place}@", words_there)
    source = "\n".join(part.strip("\n") + "\n" for part in parts if part)
    return CSource(*(Template(part.lstrip("\n")).substitute(words) for part in (header, source)))


def _types(dtype: np.dtype) -> dict[str, str]:
    """The real type, and the suffix of its constants and of math.h's names."""
    return {"real": "float", "f": "f"} if dtype == np.float32 else {"real": "double", "f": ""}


def _sizes(network: Network, classes: int) -> str:
    """The header's template of sizes, classes and their names."""
    image = network.shape if len(network.shape) == 3 else ()
    sizes = dict(zip(("CHANNELS", "HEIGHT", "WIDTH"), image, strict=False))
    made = [f"#define ${{macro}}_{name} {size}" for name, size in sizes.items()]
    if classes:
        made += [f"#define ${{macro}}_CLASSES {classes}", "", "/* Their names, in UTF-8. */"]
        made.append("extern const char *const ${name}_classes[${macro}_CLASSES];")
    return "\n".join(made)


def _classes(network: Network) -> str:
    names = text.lines(text.string(str(label)) for label in network.classes).replace("$", "$$")
    return f"const char *const ${{name}}_classes[${{macro}}_CLASSES] = {{\n{names}\n}};\n"


_HEADER = """
/* $name: a neural network, exported from mlpkernels as C99. It predicts one sample a call, in $real:
 *
 *     $real scratch[${macro}_SCRATCH];
 *     @EXAMPLE@
 *
 * x is ${macro}_INPUTS raw values, as the network's training data had them: scaling is inside.@IMAGES@ x is only read.
 * scratch is ${macro}_SCRATCH values of the caller's: what is in it before and after a call means nothing. Nothing else
 * is written to, so calls with scratches of their own may run at the same time. No arrays may overlap.
 * Compile ${name}.c with -DTEST for a program that checks golden vectors; link with -lm.
 */
#ifndef ${macro}_H
#define ${macro}_H

#ifdef __cplusplus
extern "C" {
#endif

#define ${macro}_INPUTS $inputs
#define ${macro}_OUTPUTS $outputs
#define ${macro}_SCRATCH $scratch
@SIZES@
@VERBS@
#ifdef __cplusplus
}
#endif

#endif
"""

_OPENING = """
/* $name: see ${name}.h. Exported from mlpkernels. */
#include "${name}.h"

#include <math.h>
#include <stddef.h>
"""
