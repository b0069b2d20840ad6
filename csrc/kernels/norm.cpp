#include "kernels/norm.h"

#include "kernels/simd.h"
#include "kernels/table.h"

namespace tallow::TALLOW_LEVEL {

namespace {

// Sums with four accumulators, so that additions overlap; the order depends on the width alone.
template <typename F>
TALLOW_INLINE float sum_row(const float* x, int64_t n, F&& f) {
    F32 a = set(0), b = a, c = a, d = a;
    int64_t i = 0;
    for (; i + 4 * width <= n; i += 4 * width) {
        a = f(load(x + i), a);
        b = f(load(x + i + width), b);
        c = f(load(x + i + 2 * width), c);
        d = f(load(x + i + 3 * width), d);
    }
    for (; i + width <= n; i += width) a = f(load(x + i), a);
    float total = sum((a + b) + (c + d));
    if (i < n) {
        float lane[width];
        store(lane, f(load_partial(x + i, n - i), set(0)));
        for (int64_t j = 0; j < n - i; ++j) total += lane[j];
    }
    return total;
}

TALLOW_INLINE void scale_row(const NormArgs& args, float* out, const float* x, float shift, float scale) {
    const F32 shift_v = set(shift), scale_v = set(scale);
    for (int64_t i = 0; i < args.width; i += width) {
        const int64_t n = args.width - i;
        F32 y = (load_partial(x + i, n) - shift_v) * scale_v;
        if (args.weight) y = y * load_partial(args.weight + i, n);
        if (args.bias) y = y + load_partial(args.bias + i, n);
        store_partial(out + i, y, n);
    }
}

// Correctly rounded on every machine; the library's own sqrt may be inline and shared between levels.
TALLOW_INLINE float root(float x) {
    float lane[width];
    store(lane, sqrt(set(x)));
    return lane[0];
}

TALLOW_INLINE const float* row_at(const NormArgs& args, int64_t row) {
    return args.x + row / args.inner * args.outer_stride + row % args.inner * args.x_stride;
}

void layer_norm(const NormArgs& args, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
        const float* x = row_at(args, row);
        const float mean = sum_row(x, args.width, [](F32 v, F32 acc) { return acc + v; }) / float(args.width);
        const F32 mean_v = set(mean);
        const float variance = sum_row(x, args.width, [mean_v](F32 v, F32 acc) {
            const F32 d = v - mean_v;
            return fma(d, d, acc);
        }) / float(args.width);
        scale_row(args, args.out + row * args.out_stride, x, mean, 1.0f / root(variance + args.eps));
    }
}

void rms_norm(const NormArgs& args, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
        const float* x = row_at(args, row);
        const float square = sum_row(x, args.width, [](F32 v, F32 acc) { return fma(v, v, acc); }) / float(args.width);
        scale_row(args, args.out + row * args.out_stride, x, 0.0f, 1.0f / root(square + args.eps));
    }
}

}  // namespace

void add_norm_kernels(Kernels& table) {
    table.layer_norm = layer_norm;
    table.rms_norm = rms_norm;
}

}  // namespace tallow::TALLOW_LEVEL
