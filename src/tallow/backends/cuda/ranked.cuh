// What tells which of many numbers is the largest.
#pragma once
#include "common.cuh"

// A number and its place as one whole number, never 0: the larger of two is that of the larger number, or of the smaller
// place. A NaN is the largest.
DEVICE u64 ranked(float x, u32 place) {
    const u32 bits = __float_as_uint(x + 0.0f);  // -0 is 0
    const u32 order = x != x ? 0xffffffffu : bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return static_cast<u64>(order) << 32 | ~place;
}
DEVICE u32 place_of(u64 rank) { return ~static_cast<u32>(rank); }
DEVICE float number_of(u64 rank) {
    const u32 order = static_cast<u32>(rank >> 32);
    return __uint_as_float(order & 0x80000000u ? order & 0x7fffffffu : ~order);
}

// The largest that a thread of the block has.
template <int THREADS> DEVICE u64 block_max(u64 x) {
    __shared__ u64 found[THREADS / 32];
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) x = max(x, __shfl_xor_sync(0xffffffffu, x, step));
    if (threadIdx.x % 32 == 0) found[threadIdx.x / 32] = x;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < THREADS / 32; ++i) x = max(x, found[i]);
    __syncthreads();
    return x;
}
