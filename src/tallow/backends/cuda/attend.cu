// Attention of one new position of each row, which is appended to the cache on the way, as a kernel of its own: what
// program_attend.cuh does, for results that no wire brings.
#include "program_attend.cuh"

// `ended` counts the blocks that have ended, and is zero between kernels. The last one moves the ends of all rows.
extern "C" __global__ void __launch_bounds__(CONSUMERS) attend(const __grid_constant__ Attend in, u32* ended) {
    extern __shared__ __align__(16) u8 shared[];
    next_may_start();
    expect_keys(in, 0);  // of what this cache held before: nothing that runs now appends to it
    wait_for_previous();
    run_attend(in, 0, reinterpret_cast<float*>(shared), 0);
    if (!(in.flags & APPENDS)) return;
    __syncthreads();  // all threads have read the lengths
    if (threadIdx.x != 0) return;
    __threadfence();
    if (atomicInc(ended, gridDim.x - 1) == gridDim.x - 1)
        for (i64 row = 0; row < in.batch; ++row) ++in.lengths[row];
}
