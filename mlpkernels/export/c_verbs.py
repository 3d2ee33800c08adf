"""What a caller in C can ask a network, by the loss it was trained to: declarations, code and golden check."""

from typing import NamedTuple

from ..network import Network
from . import c_functions as functions


class Verbs(NamedTuple):
    """Templates (see c_functions): an example and declarations for the header, their code, the check of a golden row.

    uses: the functions that the code calls. classes: how many the header names, 0 of a regression. answers: how many
    values a row of the golden answers has.
    """

    example: str
    declarations: str
    code: str
    check: str
    uses: tuple[str, ...]
    classes: int
    answers: int


def verbs(network: Network) -> Verbs:
    """The verbs of a network."""
    k = network.outputs
    if not network.classes:
        rates = network.loss == "poisson"
        code, uses = (_POISSON_C, (functions.EXPONENTIAL,)) if rates else (_VALUES_C, ())
        return Verbs(_VALUES, _VALUES_H, code, "", uses, 0, k)
    if network.loss == "binary" and k > 1:
        code, uses = _LOGITS_C + _LABELS_C, (functions.LOGISTIC,)
        return Verbs(_LABELS, _LOGITS_H + _LABELS_H, code, _LABELS_CHECK, uses, k, k)
    if network.loss == "binary":
        return Verbs(_CLASS, _LOGITS_H + _CLASS_H, _LOGITS_C + _TWO_C, _CLASS_CHECK, (), 2, 2)
    code, uses = _LOGITS_C + _CLASS_C, (functions.SOFTMAX,)
    return Verbs(_CLASS, _LOGITS_H + _CLASS_H, code, _CLASS_CHECK, uses, k, k)


_CLASS = "const char *name = ${name}_classes[${name}_predict(x, scratch)];"
_LABELS = "unsigned char labels[${macro}_CLASSES];\n *     ${name}_predict(x, scratch, labels);"
_VALUES = "$real outputs[${macro}_OUTPUTS];\n *     ${name}_predict(x, scratch, outputs);"

_LOGITS_H = """
/* The outputs of the last layer, before they become probabilities, into logits[${macro}_OUTPUTS]. */
void ${name}_logits(const $real *x, $real *scratch, $real *logits);
"""

_CLASS_H = """
/* The probability of each class, which sum to 1, into probabilities[${macro}_CLASSES]. */
void ${name}_probabilities(const $real *x, $real *scratch, $real *probabilities);

/* The most probable class, an index into ${name}_classes; the first of equals. */
int ${name}_predict(const $real *x, $real *scratch);
"""

_LABELS_H = """
/* The probability of each class, any number of which may be true at once, into probabilities[${macro}_CLASSES]. */
void ${name}_probabilities(const $real *x, $real *scratch, $real *probabilities);

/* 1 for each class that is more probable than not, else 0, into labels[${macro}_CLASSES]. */
void ${name}_predict(const $real *x, $real *scratch, unsigned char *labels);
"""

_VALUES_H = """
/* The predicted values, into outputs[${macro}_OUTPUTS]. */
void ${name}_predict(const $real *x, $real *scratch, $real *outputs);
"""

_LOGITS_C = """
void ${name}_logits(const $real *x, $real *scratch, $real *logits)
{
    forward(x, scratch, logits);
}
"""

_CLASS_C = """
void ${name}_probabilities(const $real *x, $real *scratch, $real *probabilities)
{
    forward(x, scratch, probabilities);
    softmax(probabilities, ${macro}_CLASSES);
}

int ${name}_predict(const $real *x, $real *scratch)
{
    $real *const logits = scratch + ${macro}_SCRATCH - ${macro}_OUTPUTS;
    int best = 0;
    forward(x, scratch, logits);
    for (int k = 1; k < ${macro}_OUTPUTS; k++)
        if (logits[k] > logits[best])
            best = k;
    return best;
}
"""

_TWO_C = """
void ${name}_probabilities(const $real *x, $real *scratch, $real *probabilities)
{
    $real logit;
    forward(x, scratch, &logit);
    probabilities[0] = 1 / (1 + exp$f(logit));
    probabilities[1] = 1 / (1 + exp$f(-logit));
}

int ${name}_predict(const $real *x, $real *scratch)
{
    $real logit;
    forward(x, scratch, &logit);
    return logit > 0;
}
"""

_LABELS_C = """
void ${name}_probabilities(const $real *x, $real *scratch, $real *probabilities)
{
    forward(x, scratch, probabilities);
    logistic(probabilities, ${macro}_CLASSES);
}

void ${name}_predict(const $real *x, $real *scratch, unsigned char *labels)
{
    $real *const logits = scratch + ${macro}_SCRATCH - ${macro}_OUTPUTS;
    forward(x, scratch, logits);
    for (int k = 0; k < ${macro}_OUTPUTS; k++)
        labels[k] = logits[k] > 0;
}
"""

_VALUES_C = """
void ${name}_predict(const $real *x, $real *scratch, $real *outputs)
{
    forward(x, scratch, outputs);
}
"""

_POISSON_C = """
void ${name}_predict(const $real *x, $real *scratch, $real *outputs)
{
    forward(x, scratch, outputs);
    exponential(outputs, ${macro}_OUTPUTS);
}
"""

# A class that is not the golden one passes where the two are equally probable but for rounding.
_CLASS_CHECK = """
        const int best = ${name}_predict(x, scratch);
        for (int k = 0; k < ${macro}_CLASSES; k++)
            wrong += !(answers[best] >= answers[k] - 4 * golden_tolerance);
"""

_LABELS_CHECK = """
        unsigned char labels[${macro}_CLASSES];
        ${name}_predict(x, scratch, labels);
        for (int k = 0; k < ${macro}_CLASSES; k++)
            wrong += (labels[k] ? ($real)0.5 - answers[k] : answers[k] - ($real)0.5) > golden_tolerance;
"""
