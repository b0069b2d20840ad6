// The index of the largest of each row, the first of equals; a NaN is the largest. T: type of x (rows, width), rows without
// gaps between their numbers. A row is the work of gridDim.x blocks, of which the last joins what they found.
#include "common.cuh"
#include "ranked.cuh"

namespace {

constexpr int THREADS = 256;

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS)
    argmax(i64* out, const T* x, u64* scratch, u32* tickets, i64 width, i64 stride) {
    next_may_start();
    wait_for_previous();
    const T* row = x + blockIdx.y * stride;
    u64 best = 0;
    for (i64 at = static_cast<i64>(blockIdx.x) * THREADS + threadIdx.x; at < width; at += gridDim.x * THREADS)
        best = max(best, ranked(to_float(row[at]), static_cast<u32>(at)));
    best = block_max<THREADS>(best);
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
    best = block_max<THREADS>(best);
    if (threadIdx.x == 0) out[blockIdx.y] = place_of(best);
}
