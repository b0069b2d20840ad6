// Writes new keys and values at the ends of a cache's rows, and moves the ends.
// Keys lie as (page, head, position, d), values as (page, head, position, value_width). T: type of the new ones; C: of
// the cache. A block writes one position of one row; the block that ends last moves the ends of all rows.
#include "common.cuh"

extern "C" __global__ void kv_append(C* keys, C* values, const int* table, i64* lengths, const T* k, const T* v,
                                     const i64* counts, u32* ticket, i64 batch, i64 n, i64 heads, i64 d,
                                     i64 value_width, i64 capacity, i64 k_stride_b, i64 k_stride_n, i64 k_stride_h,
                                     i64 v_stride_b, i64 v_stride_n, i64 v_stride_h) {
    next_may_start();
    wait_for_previous();
    const i64 row = blockIdx.x / n, at = blockIdx.x % n;
    const i64 count = counts ? counts[row] : n;
    const i64 position = lengths[row] + at - (n - count);
    if (at >= n - count && position < capacity)
        for (i64 i = threadIdx.x; i < heads * d; i += blockDim.x) {
            const i64 head = i / d, feature = i % d;
            const i64 place = place_of(table + row * pages_for(capacity), position, heads, head);
            keys[place * d + feature] =
                Rounded<C>::of(to_float(k[row * k_stride_b + at * k_stride_n + head * k_stride_h + feature]));
            values[place * value_width + feature] =
                Rounded<C>::of(to_float(v[row * v_stride_b + at * v_stride_n + head * v_stride_h + feature]));
        }
    __syncthreads();  // all threads have read the length
    if (threadIdx.x != 0) return;
    __threadfence();
    if (atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1)
        for (i64 r = 0; r < batch; ++r) lengths[r] += counts ? counts[r] : n;
}
