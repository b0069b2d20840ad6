#include "kernels/rowwise.h"

#include <math.h>

#include "kernels/activation.h"
#include "kernels/simd.h"
#include "kernels/table.h"

namespace tallow::TALLOW_LEVEL {

namespace {

template <Activation activation>
void activate_span(float* out, const float* x, const float* up, int64_t count) {
    for (int64_t i = 0; i < count; i += width) {
        F32 y = activate<activation>(load_partial(x + i, count - i));
        if (up) y = y * load_partial(up + i, count - i);
        store_partial(out + i, y, count - i);
    }
}

void activate_row(const ActivationArgs& args, int64_t row, int64_t begin, int64_t end) {
    float* out = args.out + row * args.out_stride + begin;
    const float* x = args.x + row * args.x_stride + begin;
    const float* up = args.up ? args.up + row * args.up_stride + begin : nullptr;
    switch (args.activation) {
        case Activation::none: return activate_span<Activation::none>(out, x, up, end - begin);
        case Activation::gelu: return activate_span<Activation::gelu>(out, x, up, end - begin);
        case Activation::gelu_tanh: return activate_span<Activation::gelu_tanh>(out, x, up, end - begin);
        case Activation::silu: return activate_span<Activation::silu>(out, x, up, end - begin);
        case Activation::relu: return activate_span<Activation::relu>(out, x, up, end - begin);
    }
}

const float infinity = as_float(0x7f800000);

// A vector of which only the first n lanes come from memory; the others are -inf, which a maximum passes over and whose
// exponential is 0.
TALLOW_INLINE F32 load_or_least(const float* p, int64_t n) {
    if (n >= width) return load(p);
    float lane[width];
    for (int i = 0; i < width; ++i) lane[i] = i < n ? p[i] : -infinity;
    return load(lane);
}

// The result of each step is a vector, so its order depends on the width of a row alone.
TALLOW_INLINE void softmax_row(const float* x, float* out, int64_t n, bool log) {
    F32 most = set(-infinity);
    for (int64_t i = 0; i < n; i += width) most = max(load_or_least(x + i, n - i), most);  // passes over NaN
    const F32 shift = set(largest(most));
    F32 sums = set(0.0f);
    for (int64_t i = 0; i < n; i += width) {
        const F32 shifted = load_or_least(x + i, n - i) - shift, e = exp(shifted);
        sums = sums + e;
        store_partial(out + i, log ? shifted : e, n - i);
    }
    const float total = sum(sums);
    const F32 whole = set(log ? logf(total) : total);
    for (int64_t i = 0; i < n; i += width) {
        const F32 y = load_partial(out + i, n - i);
        store_partial(out + i, log ? y - whole : y / whole, n - i);
    }
}

void softmax(const SoftmaxArgs& args, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
        softmax_row(args.x + row * args.x_stride, args.out + row * args.out_stride, args.width, args.log);
}

Exponentials sum_exponentials(const float* x, int64_t n) {
    F32 most = set(-infinity);
    for (int64_t i = 0; i < n; i += width) most = max(load_or_least(x + i, n - i), most);  // passes over NaN
    const float highest = largest(most);
    const F32 shift = set(highest > -infinity ? highest : 0.0f);
    constexpr int64_t block = 32 * width;  // sums of sums: thousands of small numbers would each be lost in a large one
    F32 whole = set(0.0f);
    for (int64_t begin = 0; begin < n; begin += block) {
        F32 sums = set(0.0f);
        for (int64_t i = begin; i < smaller(begin + block, n); i += width)
            sums = sums + exp(load_or_least(x + i, n - i) - shift);
        whole = whole + sums;
    }
    return {highest, sum(whole)};
}

Largest first_largest(const float* x, int64_t count) {
    Largest found{x[0], 0};
    for (int64_t i = 1; i < count && found.value == found.value; ++i)
        if (x[i] > found.value || x[i] != x[i]) found = {x[i], i};
    return found;
}

// Block by block: only in blocks that hold something larger are numbers looked at one by one.
Largest argmax(const float* x, int64_t count) {
    constexpr int64_t block = 16 * width;
    Largest found{-infinity, 0};
    for (int64_t i = 0; i < count; i += block) {
        if (count - i >= block) {
            F32 most = load(x + i), strange = most - most;  // NaN where a number is infinite or NaN
            for (int64_t j = width; j < block; j += width) {
                const F32 y = load(x + i + j);
                most = max(y, most), strange = strange + (y - y);
            }
            if (sum(strange) == 0.0f && largest(most) <= found.value) continue;
        }
        const Largest in_block = first_largest(x + i, smaller(block, count - i));
        if (in_block.value != in_block.value) return {in_block.value, i + in_block.index};
        if (in_block.value > found.value) found = {in_block.value, i + in_block.index};
    }
    return found;
}

}  // namespace

void add_rowwise_kernels(Kernels& table) {
    table.activate = activate_row;
    table.softmax = softmax;
    table.argmax = argmax;
    table.sum_exponentials = sum_exponentials;
}

}  // namespace tallow::TALLOW_LEVEL
