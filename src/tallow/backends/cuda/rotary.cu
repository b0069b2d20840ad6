// Rotary positions for heads of D features that LANES neighbouring threads hold, 16 bytes each. T: type of queries, keys
// and values; C: of the cache; G: of the gains of norms. Rows begin at multiples of 16 bytes.
#include "common.cuh"

namespace {

constexpr int SIZE = Pack<T>::SIZE;
constexpr int LANES = D / SIZE;
constexpr int THREADS = 128;
constexpr int HEADS = THREADS / LANES;  // of a block
static_assert(D % SIZE == 0 && LANES >= 2 && LANES <= 32 && (LANES & (LANES - 1)) == 0, "a head is part of a warp");

// Divides a head by its root mean square and multiplies it by a gain, rounding as an operation of its own would.
DEVICE void normalise(float (&x)[SIZE], const G* gain, int lane, float eps) {
    float squares = 0.0f, gains[SIZE];
    read(gains, gain + lane * SIZE);
#pragma unroll
    for (int i = 0; i < SIZE; ++i) squares = fmaf(x[i], x[i], squares);
#pragma unroll
    for (int step = LANES / 2; step > 0; step >>= 1) squares += __shfl_xor_sync(0xffffffffu, squares, step);
    const float inverse = 1.0f / sqrtf(squares / static_cast<float>(D) + eps);
#pragma unroll
    for (int i = 0; i < SIZE; ++i) x[i] = rounded<T>(x[i] * inverse * gains[i]);
}

// Turns pairs by angles whose cosines and sines (D / 2,) are given. All lanes of a warp take part.
DEVICE void rotate(float (&x)[SIZE], const float* cosines, const float* sines, int lane, bool interleaved) {
    if (interleaved) {
#pragma unroll
        for (int i = 0; i < SIZE; i += 2) {
            const int pair = (lane * SIZE + i) / 2;
            const float u = x[i], v = x[i + 1];
            x[i] = u * cosines[pair] - v * sines[pair];
            x[i + 1] = v * cosines[pair] + u * sines[pair];
        }
        return;
    }
    const int first = lane % (LANES / 2) * SIZE;
    const float sign = lane < LANES / 2 ? -1.0f : 1.0f;
    float c[SIZE], s[SIZE];
    read(c, cosines + first);
    read(s, sines + first);
#pragma unroll
    for (int i = 0; i < SIZE; ++i) {
        const float other = __shfl_xor_sync(0xffffffffu, x[i], LANES / 2);
        x[i] = x[i] * c[i] + sign * other * s[i];
    }
}

}  // namespace

// x (b, n, heads, D) turned by angles (b or 1, n, D / 2); `total` heads in all. `angle_stride`: numbers from one row's
// angles to the next, 0 if all share them.
extern "C" __global__ void __launch_bounds__(THREADS)
    rotate_heads(T* out, const T* x, const float* cosines, const float* sines, i64 total, i64 n, i64 heads,
                 i64 stride_b, i64 stride_n, i64 stride_h, i64 angle_stride, i64 interleaved) {
    next_may_start();
    wait_for_previous();
    const int lane = threadIdx.x % LANES;
    const i64 index = static_cast<i64>(blockIdx.x) * HEADS + threadIdx.x / LANES;
    const u32 number = static_cast<u32>(min(index, total - 1)), at_all = number / static_cast<u32>(heads);
    const u32 head = number % static_cast<u32>(heads), row = at_all / static_cast<u32>(n), at = at_all % static_cast<u32>(n);
    const i64 angles = row * angle_stride + static_cast<i64>(at) * (D / 2);
    float values[SIZE];
    read(values, x + row * stride_b + at * stride_n + head * stride_h + lane * SIZE);
    rotate(values, cosines + angles, sines + angles, lane, interleaved);
    if (index < total) write(out + index * D + lane * SIZE, values);
}

// What a decoder does with new queries, keys and values before it attends: queries and keys are normalised head by head
// (where there are gains) and turned; the queries are written to `out` (b, n, heads, D), keys and values at the ends of a
// cache's rows, as (page, head, position, D) and (page, head, position, value_width). The block that ends last moves the ends.
extern "C" __global__ void __launch_bounds__(THREADS)
    rotate_and_append(T* out, C* keys, C* values, const int* table, i64* lengths, const T* q, const T* k, const T* v,
                      const float* cosines, const float* sines, const G* q_gain, const G* k_gain, const i64* counts,
                      u32* ticket, i64 batch, i64 n, i64 heads, i64 kv_heads, i64 capacity, i64 value_width,
                      i64 q_stride_b, i64 q_stride_n, i64 q_stride_h, i64 k_stride_b, i64 k_stride_n, i64 k_stride_h,
                      i64 v_stride_b, i64 v_stride_n, i64 v_stride_h, i64 angle_stride, i64 interleaved, double eps) {
    next_may_start();
    if (q_gain && threadIdx.x < 2) prefetch(threadIdx.x ? k_gain : q_gain);
    wait_for_previous();
    const int lane = threadIdx.x % LANES, all = static_cast<int>(heads + 2 * kv_heads);
    const int index = blockIdx.y * HEADS + threadIdx.x / LANES;
    const i64 row = blockIdx.x / static_cast<u32>(n), at = blockIdx.x % static_cast<u32>(n);
    const i64 count = counts ? counts[row] : n;
    const i64 position = lengths[row] + at - (n - count);
    const bool kept = at >= n - count && position < capacity;
    const int head = min(index, all - 1);
    const int kind = head < heads ? 0 : head < heads + kv_heads ? 1 : 2;
    const int own = static_cast<int>(kind == 0 ? head : kind == 1 ? head - heads : head - heads - kv_heads);
    const T* from = kind == 0   ? q + row * q_stride_b + at * q_stride_n + own * q_stride_h
                    : kind == 1 ? k + row * k_stride_b + at * k_stride_n + own * k_stride_h
                                : v + row * v_stride_b + at * v_stride_n + own * v_stride_h;
    float numbers[SIZE], turned[SIZE];
    read(numbers, from + lane * SIZE);
    // Values go the same way and are put back, so that all lanes of a warp exchange numbers.
#pragma unroll
    for (int i = 0; i < SIZE; ++i) turned[i] = numbers[i];
    if (q_gain) normalise(turned, kind == 0 ? q_gain : k_gain, lane, static_cast<float>(eps));
    const i64 angles = row * angle_stride + at * (D / 2);
    rotate(turned, cosines + angles, sines + angles, lane, interleaved);
    if (index < all) {
        if (kind == 0) {
            write(out + ((row * n + at) * heads + own) * D + lane * SIZE, turned);
        } else if (kept) {
            const i64 place = place_of(table + row * pages_for(capacity), position, kv_heads, own);
#pragma unroll
            for (int i = 0; i < SIZE; ++i) turned[i] = rounded<T>(kind == 1 ? turned[i] : numbers[i]);
            write(kind == 1 ? keys + place * D + lane * SIZE : values + place * value_width + lane * SIZE, turned);
        }
    }
    __syncthreads();  // all threads have read the length
    if (threadIdx.x != 0) return;
    __threadfence();
    const u32 blocks = gridDim.x * gridDim.y;
    if (atomicInc(ticket, blocks - 1) == blocks - 1)
        for (i64 r = 0; r < batch; ++r) lengths[r] += counts ? counts[r] : n;
}
