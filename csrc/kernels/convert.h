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

// Weights come from mapped files, whose elements may lie at any address.
template <typename T>
TALLOW_INLINE T read_element(const unsigned char* from) {
    T value;
    std::memcpy(&value, from, sizeof(T));
    return value;
}

template <Storage storage>
TALLOW_INLINE void read_halves(const unsigned char* from, int64_t stride, int64_t n, float* to) {
    int64_t i = 0;
    if (stride == 1) {
        for (; i + width <= n; i += width) {
            uint16_t halves[width];
            std::memcpy(halves, from + i * 2, sizeof(halves));
            store(to + i, storage == Storage::f16 ? load_f16(halves) : load_bf16(halves));
        }
    }
    for (; i < n; ++i) to[i] = widen<storage>(read_element<uint16_t>(from + i * stride * 2));
}

// Columns [begin, begin + n) of a row of the matrix to be packed, in float32.
TALLOW_INLINE void read_floats(const PackArgs& args, int64_t row, int64_t begin, int64_t n, float* to) {
    const auto* source = static_cast<const unsigned char*>(args.source);
    const int64_t offset = row * args.row_stride + begin * args.column_stride;
    switch (args.from) {
        case Storage::f32:
            for (int64_t i = 0; i < n; ++i) to[i] = read_element<float>(source + (offset + i * args.column_stride) * 4);
            return;
        case Storage::f16: return read_halves<Storage::f16>(source + offset * 2, args.column_stride, n, to);
        case Storage::bf16: return read_halves<Storage::bf16>(source + offset * 2, args.column_stride, n, to);
        default: return;  // bytes are packed as they are
    }
}

}  // namespace tallow::TALLOW_LEVEL
