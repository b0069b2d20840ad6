// The log-probabilities of one number of each row and of its largest: see ops.top_logprobs. T: type of x (rows, width), rows
// without gaps between their numbers. A row is the work of gridDim.x blocks, at most as many as a block has threads: each
// finds the largest of its part, one after the other, and the last to end joins what they found.
#include "common.cuh"
#include "ranked.cuh"

namespace {

constexpr int THREADS = 256;

// exp(x) of all numbers together is exp(highest) · sum. The sum is NaN if a number is NaN or +inf, 0 if all are −inf.
struct Exponentials {
    float highest, sum;
};

DEVICE float block_largest(float x) { return number_of(block_max<THREADS>(ranked(x, 0))); }

// In an order that is always the same.
DEVICE float block_sum(float x) {
    __shared__ float sums[THREADS / 32];
#pragma unroll
    for (int step = 16; step > 0; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = x;
    __syncthreads();
    x = 0.0f;
#pragma unroll
    for (int i = 0; i < THREADS / 32; ++i) x += sums[i];
    __syncthreads();
    return x;
}

DEVICE Exponentials exponentials(const T* row, i64 begin, i64 end) {
    float highest = -infinity(), sum = 0.0f;
    for (i64 at = begin + threadIdx.x; at < end; at += THREADS) {
        const float x = to_float(row[at]);
        if (x > highest) highest = x;  // passes over NaN
    }
    highest = block_largest(highest);
    const float shift = highest > -infinity() ? highest : 0.0f;
    for (i64 at = begin + threadIdx.x; at < end; at += THREADS) sum += expf(to_float(row[at]) - shift);
    return {highest, block_sum(sum)};
}

// The largest of this thread's numbers below a rank; 0 if there is none.
DEVICE u64 next_below(const T* row, i64 begin, i64 end, u64 rank) {
    u64 best = 0;
    for (i64 at = begin + threadIdx.x; at < end; at += THREADS) {
        const u64 here = ranked(to_float(row[at]), static_cast<u32>(at));
        if (here < rank) best = max(best, here);
    }
    return best;
}

}  // namespace

// ids and values (rows, 1 + top); given (rows,); found (rows, blocks, most), where most is the smaller of top and the numbers
// of a block's part; sums (rows, blocks).
extern "C" __global__ void __launch_bounds__(THREADS)
    top_logprobs(i64* ids, float* values, const T* x, const i64* given, u64* found, Exponentials* sums, u32* tickets, i64 width,
                 i64 stride, i64 top, i64 most) {
    next_may_start();
    wait_for_previous();
    const T* const row = x + blockIdx.y * stride;
    const i64 size = (width + gridDim.x - 1) / gridDim.x;
    const i64 begin = min(blockIdx.x * size, width), end = min(begin + size, width);
    found += blockIdx.y * gridDim.x * most, sums += blockIdx.y * gridDim.x;

    const Exponentials own = exponentials(row, begin, end);
    u64 mine = most > 0 ? next_below(row, begin, end, ~0ull) : 0;
    for (i64 i = 0; i < most; ++i) {
        const u64 best = block_max<THREADS>(mine);
        if (threadIdx.x == 0) found[blockIdx.x * most + i] = best;
        if (best && best == mine) mine = next_below(row, begin, end, best);
    }
    __shared__ bool last;
    if (threadIdx.x == 0) {
        sums[blockIdx.x] = own;
        __threadfence();
        last = atomicInc(tickets + blockIdx.y, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last) return;
    __threadfence();

    // From here on a thread stands for a block.
    const bool stands = threadIdx.x < gridDim.x;
    const float part_highest = stands ? __ldcg(&sums[threadIdx.x].highest) : -infinity();
    const float part_sum = stands ? __ldcg(&sums[threadIdx.x].sum) : 0.0f;
    const float highest = block_largest(part_highest);
    const float sum = block_sum(part_sum == 0.0f ? 0.0f : part_sum * expf(part_highest - highest)), log_sum = logf(sum);
    const bool numbers = sum > 0.0f;  // neither NaN nor 0
    ids += blockIdx.y * (top + 1), values += blockIdx.y * (top + 1);
    if (threadIdx.x == 0) {
        const i64 at = given[blockIdx.y];
        ids[0] = at;
        values[0] = at >= 0 && at < width && numbers ? to_float(row[at]) - highest - log_sum : not_a_number();
    }
    const u64* const list = found + threadIdx.x * most;
    u64 head = stands && most > 0 ? __ldcg(list) : 0, next = stands && most > 1 ? __ldcg(list + 1) : 0;
    i64 read = 2;
    for (i64 i = 1; i <= top; ++i) {
        const u64 best = block_max<THREADS>(head);
        if (threadIdx.x == 0) {
            ids[i] = numbers ? place_of(best) : i - 1;
            values[i] = numbers ? number_of(best) - highest - log_sum : not_a_number();
        }
        if (best && best == head) {
            head = next, next = read < most ? __ldcg(list + read) : 0;
            ++read;
        }
    }
}
