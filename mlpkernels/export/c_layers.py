"""Layers as C: their arrays, the calls that run them one behind the other, and where in the scratch each one writes."""

from collections.abc import Sequence
from itertools import pairwise
from string import Template

import numpy as np

from ..kernels import plan as p
from . import c_functions as functions
from . import c_text as text
from .steps import Centred, Step

_ACTIVATIONS = {
    p.RELU: ("relu", functions.RELU),
    p.TANH: ("hyperbolic_tangent", functions.TANH),
    p.LOGISTIC: ("logistic", functions.LOGISTIC),
}
_USES = {
    p.DENSE: (functions.ACCUMULATE, functions.DENSE),
    p.CONV: (functions.WINDOW, functions.ACCUMULATE, functions.CONV),
    p.POOL: (functions.WINDOW, functions.POOL),
    p.BATCH_NORM: (functions.NORM,),
}


def uses(steps: Sequence[Step]) -> set[str]:
    """The templates of the functions that the steps call."""
    made = {template for step in steps for template in _USES[step.kind]}
    return made | {_ACTIVATIONS[step.activation][1] for step in steps if step.activation != p.IDENTITY}


def needs_preparing(first: Step, scaling: Centred | None) -> bool:
    """Whether raw inputs go through `prepare`: there is a scaling, or an image of several channels to be turned."""
    return scaling is not None or (first.image and first.shape[0] > 1)


def prepare(first: Step, scaling: Centred | None, inputs: int) -> str:
    """The template of `prepare`: raw inputs scaled, an image's channels behind its pixels; empty without need."""
    if not needs_preparing(first, scaling):
        return ""
    channels = first.shape[0] if first.image else 1
    pixels = inputs // channels
    source = "i" if channels == 1 else f"c * {pixels} + p"
    value, arrays = _scaled(scaling, source)
    if channels == 1:
        loop = f"    for (size_t i = 0; i < {inputs}; i++)\n        y[i] = {value};"
    else:
        loop = (
            f"    for (size_t c = 0; c < {channels}; c++)\n        for (size_t p = 0; p < {pixels}; p++)\n"
            f"            y[p * {channels} + c] = {value};"
        )
    turned = "" if channels == 1 else ", as (height, width, channels)"
    return f"""{arrays}
/* y ({inputs}) = the raw inputs x{"" if scaling is None else ", scaled"}{turned} */
static void prepare(const $real *restrict x, $real *restrict y)
{{
{loop}
}}
"""


def _scaled(scaling: Centred | None, place: str) -> tuple[str, str]:
    """(the expression of one scaled value, the arrays that it reads)"""
    if scaling is None:
        return f"x[{place}]", ""
    fields = vars(scaling) if scaling.shifts else {"factor": scaling.factor}
    if scaling.factor.ndim == 0:
        words, arrays = {name: text.number(value.item(), value.dtype) for name, value in fields.items()}, ""
    else:
        words = {name: f"{name}[{place}]" for name in fields}
        arrays = "".join(array(name, value) for name, value in fields.items())
    if not scaling.shifts:
        return f"x[{place}] * {words['factor']}", arrays
    return f"(x[{place}] - {_bracketed(words['centre'])}) * {words['factor']} + {_bracketed(words['rest'])}", arrays


def _bracketed(word: str) -> str:
    return f"({word})" if word.startswith("-") else word


def array(name: str, values: np.ndarray) -> str:
    """The template of a constant array of all values, in their order."""
    return f"static const $real {name}[{values.size}] = {{\n{text.numbers(values)}\n}};\n"


def arrays(number: int, step: Step, before: Step | None) -> str:
    """The template of the constants of step `number`, laid out as its function reads them; before: the step that it
    reads, whose image lies as (height, width, channels)."""
    made = ""
    if step.kind in (p.CONV, p.POOL):
        sizes = (*step.shape[1:], step.shape[0], *step.out_shape[1:], *step.kernel, *step.stride, *step.padding)
        made = f"static const window window{number} = {{{', '.join(map(str, sizes))}}};\n"
    weights = step.weights
    if weights is None:
        return made
    if step.kind == p.CONV:
        weights = weights.transpose(2, 3, 1, 0)
    elif step.kind == p.DENSE and before is not None and before.image:
        weights = weights.reshape(*before.out_shape, -1).transpose(1, 2, 0, 3)
    assert step.bias is not None
    if step.mean is not None:
        made += array(f"mean{number}", step.mean)
    return made + array(f"weights{number}", np.ascontiguousarray(weights)) + array(f"bias{number}", step.bias)


class Places:
    """Where values lie between steps: from the bottom and from the top of the scratch in turn, so that a step never
    writes over what it reads, in as little room as its two largest neighbours take."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = sizes
        self.room = max([a + b for a, b in pairwise(sizes)], default=max(sizes, default=0))

    def __getitem__(self, k: int) -> str:
        start = 0 if k % 2 == 0 else self.room - self.sizes[k]
        return f"scratch + {start}" if start else "scratch"


def forward(steps: Sequence[Step], prepared: int) -> tuple[str, int]:
    """(the template of `forward`, how much scratch it needs); prepared: how many inputs go through `prepare`, or 0."""
    sizes = [prepared] * bool(prepared) + [int(np.prod(step.out_shape)) for step in steps[:-1]]
    places = Places(sizes)
    lines, source, k = [], "x", 0
    if prepared:
        lines.append(f"prepare(x, {places[0]});")
        source, k = places[0], 1
    for number, step in enumerate(steps, 1):
        target = "logits" if number == len(steps) else places[k]
        k += 1
        lines.append(_call(number, step, source, target))
        if step.activation != p.IDENTITY:
            lines.append(f"{_ACTIVATIONS[step.activation][0]}({target}, {int(np.prod(step.out_shape))});")
        source = target
    if not sizes:
        lines.append("(void)scratch;")
    return Template(_FORWARD).safe_substitute(body="\n    ".join(lines)), places.room


def _call(number: int, step: Step, source: str, target: str) -> str:
    """The call of a step's function."""
    channels, *image = step.out_shape
    if step.kind == p.POOL:
        return f"maxpool2d({source}, &window{number}, {target});"
    constants = f"weights{number}, bias{number}"
    if step.kind == p.DENSE:
        assert step.weights is not None
        return f"dense({source}, {constants}, {len(step.weights)}, {channels}, {target});"
    if step.kind == p.CONV:
        return f"conv2d({source}, {constants}, &window{number}, {channels}, {target});"
    return f"normalise({source}, mean{number}, {constants}, {image[0] * image[1]}, {channels}, {target});"


_FORWARD = """
/* The network: raw inputs x to the outputs of its last layer. */
static void forward(const $real *x, $real *scratch, $real *logits)
{
    $body
}
"""
