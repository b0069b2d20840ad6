// Numbers of 8 bits and back: x ≈ code * scale, with codes in e4m3 and scales in float. A scale is the largest of its numbers
// over 448, the largest code. X: type of the numbers; VECTOR: how many a thread does at a time: 16, or 1 where rows do not
// begin at multiples of 16 bytes. Compute capability 8.9 and up.
#include "common.cuh"

namespace {

constexpr int THREADS = 256;
constexpr float LARGEST = 448.0f, TINY = 1.17549435e-38f;  // a scale below has too few bits to divide by

// NaN if one of the two is.
DEVICE float larger(float a, float b) {
    float y;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
    return y;
}

DEVICE float largest_of(const float (&values)[VECTOR], float largest) {
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) largest = larger(largest, fabsf(values[i]));
    return largest;
}

DEVICE float scale_of(float largest) {
    const float scale = largest / LARGEST;
    return scale < TINY ? 0.0f : scale;
}

DEVICE u32 code_pair(float first, float second) {
    u16 codes = 0;
#if __CUDA_ARCH__ >= 890
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(codes) : "f"(second), "f"(first));
#endif
    return codes;
}

DEVICE void write_codes(e4m3* to, const float (&values)[VECTOR], float scale) {
    const float divisor = scale == 0.0f ? infinity() : scale;
    if constexpr (VECTOR == 16) {
        u32 words[4];
#pragma unroll
        for (int i = 0; i < 4; ++i)
            words[i] = code_pair(values[4 * i] / divisor, values[4 * i + 1] / divisor) |
                       code_pair(values[4 * i + 2] / divisor, values[4 * i + 3] / divisor) << 16;
        *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
    } else {
        to->bits = static_cast<unsigned char>(code_pair(values[0] / divisor, 0.0f));
    }
}

}  // namespace

// One scale for each row of x: a block does a row of `width` numbers.
extern "C" __global__ void __launch_bounds__(THREADS)
    quantize_rows(e4m3* codes, float* scales, const X* x, i64 width, i64 distance) {
    next_may_start();
    wait_for_previous();
    __shared__ float partial[THREADS / 32];
    x += blockIdx.x * distance;
    codes += blockIdx.x * width;
    float values[VECTOR], largest = 0.0f;
    for (i64 i = threadIdx.x * VECTOR; i < width; i += THREADS * VECTOR) {
        read(values, x + i);
        largest = largest_of(values, largest);
    }
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) largest = larger(largest, __shfl_xor_sync(0xffffffffu, largest, step));
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = largest;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < THREADS / 32; ++i) largest = larger(largest, partial[i]);
    const float scale = scale_of(largest);
    if (threadIdx.x == 0) scales[blockIdx.x] = scale;
    for (i64 i = threadIdx.x * VECTOR; i < width; i += THREADS * VECTOR) {
        read(values, x + i);
        write_codes(codes + i, values, scale);
    }
}

#if VECTOR == 16
// One scale for each 128 columns of a row, which 8 threads do: scales (width / 128, distance `apart`). `total` threads.
extern "C" __global__ void __launch_bounds__(THREADS)
    quantize_groups(e4m3* codes, float* scales, const X* x, i64 total, i64 apart, i64 width, i64 distance) {
    next_may_start();
    wait_for_previous();
    const i64 at = static_cast<i64>(blockIdx.x) * THREADS + threadIdx.x;
    const u32 of_row = static_cast<u32>(width / VECTOR), number = static_cast<u32>(min(at, total - 1));
    const i64 row = number / of_row, column = static_cast<i64>(number % of_row) * VECTOR;
    float values[VECTOR];
    read(values, x + row * distance + column);
    float largest = largest_of(values, 0.0f);
#pragma unroll
    for (int step = 4; step > 0; step >>= 1) largest = larger(largest, __shfl_xor_sync(0xffffffffu, largest, step));
    if (at >= total) return;
    const float scale = scale_of(largest);
    if (threadIdx.x % 8 == 0) scales[column / 128 * apart + row] = scale;
    write_codes(codes + row * width + column, values, scale);
}
#endif

// Rows of codes (rows, width) by number, or all of them, one a block. Scales belong to 1 << shift rows and, if they lie
// `stride` > 1 apart, to 128 columns. There is no telling the caller of a number outside, so its row is NaN.
extern "C" __global__ void __launch_bounds__(THREADS)
    widen(X* out, const i64* ids, const e4m3* codes, const float* scales, i64 rows, i64 width, i64 shift, i64 stride) {
    next_may_start();
    wait_for_previous();
    const i64 id = ids ? ids[blockIdx.x] : blockIdx.x;
    const bool inside = id >= 0 && id < rows;
    float values[VECTOR];
    for (i64 i = threadIdx.x * VECTOR; i < width; i += THREADS * VECTOR) {
        const float scale = inside ? scales[(id >> shift) * stride + (stride > 1 ? i / 128 : 0)] : not_a_number();
        read(values, codes + (inside ? id * width + i : 0));
#pragma unroll
        for (int k = 0; k < VECTOR; ++k) values[k] *= scale;
        write(out + blockIdx.x * width + i, values);
    }
}
