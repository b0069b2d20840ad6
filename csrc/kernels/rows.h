// Reading rows of activations, which may be a convolution's windows.
#pragma once

#include "kernels/matrix.h"
#include "kernels/simd.h"

namespace tallow::TALLOW_LEVEL {

TALLOW_INLINE void copy_floats(float* to, const float* from, int64_t n) {
    int64_t i = 0;
    for (; i + width <= n; i += width) store(to + i, load(from + i));
    if (i < n) store_partial(to + i, load_partial(from + i, n - i), n - i);
}

TALLOW_INLINE void zero_floats(float* to, int64_t n) {
    int64_t i = 0;
    for (; i + width <= n; i += width) store(to + i, set(0.0f));
    if (i < n) store_partial(to + i, set(0.0f), n - i);
}

// Floats [begin, begin + n) of a line of `size`; zeros beyond its ends.
TALLOW_INLINE void copy_clipped(float* to, const float* line, int64_t size, int64_t begin, int64_t n) {
    const int64_t before = smaller(n, larger(0, -begin)), end = smaller(begin + n, size);
    const int64_t inside = larger(0, end - (begin + before));
    zero_floats(to, before);
    copy_floats(to + before, line + begin + before, inside);
    zero_floats(to + before + inside, n - before - inside);
}

// Taps of one line that lie side by side are copied at once.
inline void copy_window(const float* data, const Windows& w, int64_t row, int64_t begin, int64_t n, float* to) {
    const int64_t line = row / w.out_width, image = line / w.out_height;
    const int64_t top = line % w.out_height * w.step_y - w.padding_y, left = row % w.out_width * w.step_x - w.padding_x;
    const bool adjacent = w.pixel_stride == w.channels && w.dilation_x == 1;
    const int64_t run = adjacent ? w.kernel_width : 1;
    while (n > 0) {
        const int64_t tap = begin / (run * w.channels), offset = begin % (run * w.channels);
        const int64_t y = top + tap * run / w.kernel_width * w.dilation_y;
        const int64_t x = left + tap * run % w.kernel_width * w.dilation_x;
        const int64_t count = smaller(n, run * w.channels - offset);
        const float* pixels = data + image * w.image_stride + y * w.line_stride;
        if (y < 0 || y >= w.height || (!adjacent && (x < 0 || x >= w.width)))
            zero_floats(to, count);
        else if (adjacent)
            copy_clipped(to, pixels, w.width * w.channels, x * w.channels + offset, count);
        else
            copy_floats(to, pixels + x * w.pixel_stride + offset, count);
        to += count;
        begin += count;
        n -= count;
    }
}

// Copies columns [begin, begin + n) of a row.
TALLOW_INLINE void copy_row(const Rows& x, int64_t row, int64_t begin, int64_t n, float* to) {
    if (x.windowed)
        copy_window(x.data, x.windows, row, begin, n, to);
    else
        copy_floats(to, x.data + row * x.stride + begin, n);
}

}  // namespace tallow::TALLOW_LEVEL
