"""The C functions that exported networks call: a layer of each kind, activations, and what ends a prediction.

Texts are string.Template: $real is float or double, $f the suffix of its constants and of math.h's names. Images lie
as (height, width, channels), so that every inner loop runs over the outputs and a row of taps is one run of memory.
"""

WINDOW = """
/* A kernel or pool that moves over images of height x width pixels, each of `channels` values. */
typedef struct {
    size_t height, width, channels, out_height, out_width;
    size_t kernel_height, kernel_width, stride_height, stride_width, padding_height, padding_width;
} window;

/* Those of a kernel's `extent` taps that lie inside of `size` pixels for output `place`: from *first up to *end. */
static void inside(size_t place, size_t stride, size_t padding, size_t extent, size_t size, size_t *first, size_t *end)
{
    const size_t start = place * stride;
    *first = start < padding ? padding - start : 0;
    *end = start + extent > size + padding ? size + padding - start : extent;
}
"""

ACCUMULATE = """
/* y[o] += x[0] w[0][o] + ... + x[inputs - 1] w[inputs - 1][o]; four inputs share a pass over y. */
static void accumulate(const $real *restrict x, const $real *restrict w, size_t inputs, size_t outputs,
                       $real *restrict y)
{
    const size_t fours = inputs - inputs % 4;
    for (size_t i = 0; i < fours; i += 4) {
        const $real x0 = x[i], x1 = x[i + 1], x2 = x[i + 2], x3 = x[i + 3];
        const $real *restrict w0 = w + i * outputs;
        const $real *restrict w1 = w0 + outputs;
        const $real *restrict w2 = w1 + outputs;
        const $real *restrict w3 = w2 + outputs;
        for (size_t o = 0; o < outputs; o++)
            y[o] = y[o] + x0 * w0[o] + x1 * w1[o] + x2 * w2[o] + x3 * w3[o];
    }
    for (size_t i = fours; i < inputs; i++) {
        const $real xi = x[i];
        const $real *restrict wi = w + i * outputs;
        for (size_t o = 0; o < outputs; o++)
            y[o] += xi * wi[o];
    }
}
"""

DENSE = """
/* y (outputs) = b + x (inputs) times w (inputs, outputs) */
static void dense(const $real *restrict x, const $real *restrict w, const $real *restrict b, size_t inputs,
                  size_t outputs, $real *restrict y)
{
    for (size_t o = 0; o < outputs; o++)
        y[o] = b[o];
    accumulate(x, w, inputs, outputs, y);
}
"""

CONV = """
/* y (out_height, out_width, outputs) = b + w (kernel_height, kernel_width, channels, outputs) moved over the image x */
static void conv2d(const $real *restrict x, const $real *restrict w, const $real *restrict b, const window *at,
                   size_t outputs, $real *restrict y)
{
    for (size_t row = 0; row < at->out_height; row++) {
        size_t top, bottom;
        inside(row, at->stride_height, at->padding_height, at->kernel_height, at->height, &top, &bottom);
        for (size_t column = 0; column < at->out_width; column++, y += outputs) {
            size_t left, right;
            inside(column, at->stride_width, at->padding_width, at->kernel_width, at->width, &left, &right);
            for (size_t o = 0; o < outputs; o++)
                y[o] = b[o];
            for (size_t tap = top; tap < bottom; tap++) {
                const size_t high = row * at->stride_height + tap - at->padding_height;
                const size_t across = column * at->stride_width + left - at->padding_width;
                accumulate(x + (high * at->width + across) * at->channels,
                           w + (tap * at->kernel_width + left) * at->channels * outputs,
                           (right - left) * at->channels, outputs, y);
            }
        }
    }
}
"""

POOL = """
/* y (out_height, out_width, channels) = the greatest value of each window of the image x */
static void maxpool2d(const $real *restrict x, const window *at, $real *restrict y)
{
    for (size_t row = 0; row < at->out_height; row++) {
        size_t top, bottom;
        inside(row, at->stride_height, at->padding_height, at->kernel_height, at->height, &top, &bottom);
        for (size_t column = 0; column < at->out_width; column++, y += at->channels) {
            size_t left, right;
            inside(column, at->stride_width, at->padding_width, at->kernel_width, at->width, &left, &right);
            for (size_t c = 0; c < at->channels; c++)
                y[c] = -(($real)INFINITY);
            for (size_t tap = top; tap < bottom; tap++) {
                const size_t high = row * at->stride_height + tap - at->padding_height;
                for (size_t next = left; next < right; next++) {
                    const size_t across = column * at->stride_width + next - at->padding_width;
                    const $real *restrict pixel = x + (high * at->width + across) * at->channels;
                    for (size_t c = 0; c < at->channels; c++)
                        y[c] = pixel[c] > y[c] ? pixel[c] : y[c];
                }
            }
        }
    }
}
"""

NORM = """
/* y (pixels, channels) = (x - mean) gain + shift, each (channels) */
static void normalise(const $real *restrict x, const $real *restrict mean, const $real *restrict gain,
                      const $real *restrict shift, size_t pixels, size_t channels, $real *restrict y)
{
    for (size_t p = 0; p < pixels; p++, x += channels, y += channels)
        for (size_t c = 0; c < channels; c++)
            y[c] = (x[c] - mean[c]) * gain[c] + shift[c];
}
"""

RELU = """
static void relu($real *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = y[i] > 0 ? y[i] : 0;
}
"""

TANH = """
static void hyperbolic_tangent($real *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = tanh$f(y[i]);
}
"""

LOGISTIC = """
static void logistic($real *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = 1 / (1 + exp$f(-y[i]));
}
"""

EXPONENTIAL = """
static void exponential($real *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = exp$f(y[i]);
}
"""

SOFTMAX = """
static void softmax($real *y, size_t n)
{
    $real greatest = y[0], sum = 0;
    for (size_t i = 1; i < n; i++)
        greatest = y[i] > greatest ? y[i] : greatest;
    for (size_t i = 0; i < n; i++) {
        y[i] = exp$f(y[i] - greatest);
        sum += y[i];
    }
    for (size_t i = 0; i < n; i++)
        y[i] /= sum;
}
"""

# In the order in which a source defines them.
ALL = (
    WINDOW, ACCUMULATE, DENSE, CONV, POOL, NORM, RELU, TANH, LOGISTIC, EXPONENTIAL, SOFTMAX,
)  # fmt: skip
