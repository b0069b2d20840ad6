// What the files of the int8 family share: scales, and each other's functions.
#pragma once

#include "kernels/int8/arithmetic.h"
#include "kernels/matrix.h"

namespace tallow::TALLOW_LEVEL {

void quantize_rows(const LinearArgs& args, const QuantizedRows& to, int64_t row_begin, int64_t row_end, void* scratch);
// The same, in 8 bits at every level.
void quantize_to_bytes(const LinearArgs& args, const QuantizedRows& to, int64_t row_begin, int64_t row_end, void* scratch);
void pack_int8(const PackArgs& args, int64_t panel_begin, int64_t panel_end);
void unpack_int8(const PackedMatrix& matrix, int64_t row, float* out);

// The largest |x| as bits, which order as the numbers do, with infinity and then NaN above all others.
TALLOW_INLINE int32_t largest_bits(const float* x, int64_t n) {
    I32 a = set_i32(0), b = a;
    int64_t i = 0;
    for (; i + 2 * width <= n; i += 2 * width) {
        a = max(a, bits_of_abs(load(x + i)));
        b = max(b, bits_of_abs(load(x + i + width)));
    }
    for (; i < n; i += width) a = max(a, bits_of_abs(load_partial(x + i, n - i)));
    return largest(max(a, b));
}

struct Scale {
    float scale, inverse;
};

// x ≈ q · scale with |q| <= 127. All q are 0 where x is too small to divide by (scale 0), or not finite (scale NaN).
TALLOW_INLINE Scale scale_for(int32_t bits) {
    if (bits >= 0x7f800000) return {as_float(0x7fc00000), 0.0f};
    const float most = as_float(uint32_t(bits)), scale = most / 127.0f;
    if (scale < 1.17549435e-38f) return {0.0f, 0.0f};
    return {scale, 127.0f / most};
}

}  // namespace tallow::TALLOW_LEVEL
