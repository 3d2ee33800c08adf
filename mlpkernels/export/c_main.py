"""The program that -DTEST makes of an exported source: it checks golden vectors and exits with 1 on a mismatch."""

from . import c_text as text
from .c_verbs import Verbs
from .golden import Golden


def test_main(vectors: Golden, ends: Verbs) -> str:
    """The template of `main` and its vectors, between #ifdef and #endif; see c_functions for its words."""
    asks = "probabilities" if ends.classes else "predict"
    return _MAIN.replace("@CHECK@", ends.check.strip("\n")).replace("@ASKS@", asks) % (
        text.numbers(vectors.x), text.numbers(vectors.logits), text.numbers(vectors.answers),
        text.number(vectors.tolerance, vectors.x.dtype), len(vectors.x), ends.answers,
    )  # fmt: skip


# No name here ends as a public one, NAME_logits, _probabilities, _predict or _classes: NAME may be golden.
_MAIN = """
#ifdef TEST
#include <stdio.h>

static const $real golden_x[] = {
%s
};
static const $real golden_outputs[] = {
%s
};
static const $real golden_answers[] = {
%s
};
static const $real golden_tolerance = %s;
enum { GOLDEN_ROWS = %d, GOLDEN_ANSWERS = %d };

/* How many of n values are further from the golden ones than rounding explains. */
static int mismatches(const $real *found, const $real *wanted, int n)
{
    int wrong = 0;
    for (int i = 0; i < n; i++)
        wrong += !(fabs$f(found[i] - wanted[i]) <= golden_tolerance * (1 + fabs$f(wanted[i])));
    return wrong;
}

int main(void)
{
    static $real scratch[${macro}_SCRATCH];
    int failures = 0;
    for (int row = 0; row < GOLDEN_ROWS; row++) {
        const $real *const x = golden_x + row * ${macro}_INPUTS;
        const $real *const answers = golden_answers + row * GOLDEN_ANSWERS;
        $real logits[${macro}_OUTPUTS], found[GOLDEN_ANSWERS];
        int wrong = 0;
        forward(x, scratch, logits);
        wrong += mismatches(logits, golden_outputs + row * ${macro}_OUTPUTS, ${macro}_OUTPUTS);
        ${name}_@ASKS@(x, scratch, found);
        wrong += mismatches(found, answers, GOLDEN_ANSWERS);
@CHECK@
        if (wrong)
            fprintf(stderr, "$name: golden vector %%d of %%d: %%d values differ\\n", row + 1, GOLDEN_ROWS, wrong);
        failures += wrong != 0;
    }
    printf("$name: %%d of %%d golden vectors agree\\n", GOLDEN_ROWS - failures, GOLDEN_ROWS);
    return failures != 0;
}
#endif
"""
