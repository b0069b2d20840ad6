// The index of the largest of each row, the first of equals; a NaN is the largest. T: type of x (rows, width), rows without
// gaps between their numbers. A row is the work of gridDim.x blocks, of which the last joins what they found.
#include "common.cuh"

namespace {

constexpr int THREADS = 256;

// A number and its place as one whole number: the larger of two is that of the larger number, or of the smaller place.
DEVICE u64 ranked(float x, u32 place) {
    const u32 bits = __float_as_uint(x + 0.0f);  // -0 is 0
    const u32 order = x != x ? 0xffffffffu : bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return static_cast<u64>(order) << 32 | ~place;
}

DEVICE u64 block_max(u64 x) {
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

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS)
    argmax(i64* out, const T* x, u64* scratch, u32* tickets, i64 width, i64 stride) {
    next_may_start();
    wait_for_previous();
    const T* row = x + blockIdx.y * stride;
    u64 best = 0;
    for (i64 at = static_cast<i64>(blockIdx.x) * THREADS + threadIdx.x; at < width; at += gridDim.x * THREADS)
        best = max(best, ranked(to_float(row[at]), static_cast<u32>(at)));
    best = block_max(best);
    __shared__ bool last;
    u64* const found = scratch + static_cast<i64>(blockIdx.y) * gridDim.x;
    if (threadIdx.x == 0) {
        found[blockIdx.x] = best;
        __threadfence();
        last = atomicInc(tickets + blockIdx.y, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last) return;
    __threadfence();
    best = 0;
    for (u32 i = threadIdx.x; i < gridDim.x; i += THREADS) best = max(best, __ldcg(found + i));
    best = block_max(best);
    if (threadIdx.x == 0) out[blockIdx.y] = static_cast<i64>(~static_cast<u32>(best));
}
