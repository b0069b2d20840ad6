// Numbers between the types that weights come in and are stored in.
#pragma once

#include "kernels/matrix.h"
#include "kernels/simd.h"

namespace tallow::TALLOW_LEVEL {

// Rounds to nearest, ties to even; NaN stays NaN.
TALLOW_INLINE uint16_t float_to_bf16(float value) {
    const uint32_t bits = as_bits(value);
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? (bits >> 16 | 0x40) : rounded);
}

template <Storage storage>
TALLOW_INLINE float widen(uint16_t value) {
    return storage == Storage::f16 ? f16_to_float(value) : bf16_to_float(value);
}

template <typename T, typename F>
TALLOW_INLINE void read_strided(const T* from, int64_t stride, int64_t n, float* to, F&& convert) {
    if (stride == 1)
        for (int64_t i = 0; i < n; ++i) to[i] = convert(from[i]);
    else
        for (int64_t i = 0; i < n; ++i) to[i] = convert(from[i * stride]);
}

// Columns [begin, begin + n) of a row of the matrix to be packed, in float32.
TALLOW_INLINE void read_floats(const PackArgs& args, int64_t row, int64_t begin, int64_t n, float* to) {
    const int64_t offset = row * args.row_stride + begin * args.column_stride;
    switch (args.from) {
        case Storage::f32:
            return read_strided(static_cast<const float*>(args.source) + offset, args.column_stride, n, to,
                                [](float v) { return v; });
        case Storage::f16:
            return read_strided(static_cast<const uint16_t*>(args.source) + offset, args.column_stride, n, to,
                                [](uint16_t v) { return f16_to_float(v); });
        case Storage::bf16:
            return read_strided(static_cast<const uint16_t*>(args.source) + offset, args.column_stride, n, to,
                                [](uint16_t v) { return bf16_to_float(v); });
        default: return;  // bytes are packed as they are
    }
}

}  // namespace tallow::TALLOW_LEVEL
