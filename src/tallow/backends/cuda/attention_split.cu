// Attention of a few queries to many keys, as in decoding: it is bound by reading keys and values once, so the keys of a
// row are split among blocks, and the block that ends last joins what they found.
// T: type of queries and result; C: of keys and values. D: features of a head. THREADS of a block. Q: its queries, which are the
// heads of a group at the queries' positions: query j of a (row, kv_head) is head j % group at position j / group. PAGED:
// whether keys and values lie in pages, k_stride_b and v_stride_b apart; else these are the distances between rows.
// Within a block LANES threads read one key together, 16 bytes each, and keep a softmax of their own over the keys that
// they have met (Milakov and Gimelshein 2018); at the end these are joined, as are those of the blocks (Dao et al. 2023,
// "Flash-Decoding").
#include "common.cuh"

namespace {

constexpr int SIZE = Pack<C>::SIZE;
constexpr int LANES = D / SIZE;
constexpr int STREAMS = THREADS / LANES;
constexpr int AHEAD = 4;  // keys that a stream reads at a time
constexpr int LEAST = 128;  // keys of a block
constexpr int STEP = STREAMS * AHEAD;
static_assert(LANES <= 32 && D % SIZE == 0 && (LANES & (LANES - 1)) == 0, "a key is read by part of a warp");

DEVICE float lanes_sum(float x) {
#pragma unroll
    for (int step = LANES / 2; step > 0; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

// 2^(x - highest), 0 where there is nothing.
DEVICE float weight(float x, float highest) { return x == -infinity() ? 0.0f : power_of_two(x - highest); }

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS)
    attention_split(T* out, const T* q, const C* keys, const C* values, const i64* lengths, const float* mask,
                    const int* table, i64 table_stride, float* scratch, u32* tickets, i64 n, i64 heads, i64 kv_heads,
                    i64 m, i64 q_stride_b, i64 q_stride_n, i64 q_stride_h, i64 k_stride_b, i64 k_stride_h,
                    i64 k_stride_m, i64 v_stride_b, i64 v_stride_h, i64 v_stride_m, i64 mask_b, i64 mask_h, i64 mask_n,
                    i64 mask_m, i64 mask_rows, double scale, i64 causal, i64 window_) {
    next_may_start();
    const int lane = threadIdx.x % LANES, stream = threadIdx.x / LANES;
    const int window = static_cast<int>(window_);  // how many positions a query sees, its own included
    // Without splits and with all keys in the window, neither the length is waited for before keys are read, nor anything
    // before their pages are known: these are not what the kernel before writes.
    const bool whole = gridDim.x == 1 && window >= m;
    const int* const pages = table + static_cast<i64>(blockIdx.z) * table_stride;
    int page[AHEAD];  // of the keys that are read next
    const auto find_pages = [&](int base, int farthest) {
#pragma unroll
        for (int a = 0; a < AHEAD; ++a) page[a] = PAGED ? pages[min(base + a * STREAMS + stream, farthest) / PAGE] : 0;
    };
    if (whole) find_pages(0, static_cast<int>(m) - 1);
    wait_for_previous();
    const i64 row = blockIdx.z, kv_head = blockIdx.y % kv_heads, first = blockIdx.y / kv_heads * Q;
    const i64 group = heads / kv_heads, queries = n * group;
    const int length = static_cast<int>(lengths ? min(lengths[row], m) : m);
    const int left = max(length - static_cast<int>(n - 1) - window, 0);  // keys that no query sees any more
    const int splits = max(min(static_cast<int>(gridDim.x), (length - left + LEAST - 1) / LEAST), 1);
    if (blockIdx.x >= splits) return;
    const int share = (length - left + splits - 1) / splits;
    const int begin = left + static_cast<int>(blockIdx.x) * share, end = min(begin + share, length);

    const float factor = static_cast<float>(scale) * LOG2E;  // scores in powers of two
    float query[Q][SIZE], sums[Q][SIZE], highest[Q], totals[Q];
    int visible[Q];
#pragma unroll
    for (int j = 0; j < Q; ++j) {
        const i64 index = min(first + j, queries - 1), head = kv_head * group + index % group, at = index / group;
        const T* from = q + row * q_stride_b + at * q_stride_n + head * q_stride_h + lane * SIZE;
        visible[j] = causal ? length - static_cast<int>(n - 1 - at) : length;
        highest[j] = -infinity();
        totals[j] = 0.0f;
#pragma unroll
        for (int i = 0; i < SIZE; ++i) {
            query[j][i] = to_float(from[i]) * factor;
            sums[j][i] = 0.0f;
        }
    }
    const C* key_rows = keys + (PAGED ? 0 : row * k_stride_b) + kv_head * k_stride_h + lane * SIZE;
    const C* value_rows = values + (PAGED ? 0 : row * v_stride_b) + kv_head * v_stride_h + lane * SIZE;
    const int farthest = whole ? static_cast<int>(m) - 1 : end - 1;
    if (!whole && begin < end) find_pages(begin, farthest);
    for (int base = begin; base < end; base += STEP) {  // the same for all threads of a warp
        Pack<C> key[AHEAD], value[AHEAD];
#pragma unroll
        for (int a = 0; a < AHEAD; ++a) {
            const int at = min(base + a * STREAMS + stream, farthest), place = PAGED ? at % PAGE : at;
            key[a] = load_pack(key_rows + page[a] * k_stride_b + place * k_stride_m);
            value[a] = load_pack(value_rows + page[a] * v_stride_b + place * v_stride_m);
        }
        find_pages(base + STEP, farthest);
#pragma unroll
        for (int j = 0; j < Q; ++j) {
            float scores[AHEAD], most = highest[j];
#pragma unroll
            for (int a = 0; a < AHEAD; ++a) {
                const int at = base + a * STREAMS + stream;
                float score = 0.0f, features[SIZE];
                unpack(features, key[a]);
#pragma unroll
                for (int i = 0; i < SIZE; ++i) score = fmaf(query[j][i], features[i], score);
                score = lanes_sum(score);
                if (at >= end || at >= visible[j] || at < visible[j] - window) {
                    score = -infinity();
                } else if (mask) {
                    const i64 index = min(first + j, queries - 1);
                    const i64 head = kv_head * group + index % group;
                    score += LOG2E * mask[row % mask_rows * mask_b + head * mask_h + index / group * mask_n + at * mask_m];
                }
                scores[a] = score;
                most = fmaxf(most, score);
            }
            const float less = weight(highest[j], most);
            highest[j] = most;
            totals[j] *= less;
#pragma unroll
            for (int i = 0; i < SIZE; ++i) sums[j][i] *= less;
#pragma unroll
            for (int a = 0; a < AHEAD; ++a) {
                if (scores[a] == -infinity()) continue;  // whatever lies there must not reach the sum
                const float part = weight(scores[a], most);
                float features[SIZE];
                unpack(features, value[a]);
                totals[j] += part;
#pragma unroll
                for (int i = 0; i < SIZE; ++i) sums[j][i] = fmaf(part, features[i], sums[j][i]);
            }
        }
    }

    // Join the streams of the block: D sums of each query, then the highest score and the total.
    __shared__ float joined[Q][STREAMS][D + 2];
#pragma unroll
    for (int j = 0; j < Q; ++j) {
#pragma unroll
        for (int i = 0; i < SIZE; ++i) joined[j][stream][lane * SIZE + i] = sums[j][i];
        if (lane == 0) {
            joined[j][stream][D] = highest[j];
            joined[j][stream][D + 1] = totals[j];
        }
    }
    __syncthreads();
    const i64 slot = (row * gridDim.y + blockIdx.y) * gridDim.x;
    float* const found = scratch + slot * Q * (D + 2);
    for (int i = threadIdx.x; i < Q * D; i += THREADS) {
        const int j = i / D, feature = i % D;
        float most = -infinity(), sum = 0.0f, total = 0.0f;
#pragma unroll
        for (int s = 0; s < STREAMS; ++s) most = fmaxf(most, joined[j][s][D]);
#pragma unroll
        for (int s = 0; s < STREAMS; ++s) {
            const float part = weight(joined[j][s][D], most);
            sum = fmaf(part, joined[j][s][feature], sum);
            total = fmaf(part, joined[j][s][D + 1], total);
        }
        const i64 index = first + j;
        if (splits > 1) {
            float* const to = found + (blockIdx.x * Q + j) * (D + 2);
            to[feature] = sum;
            if (feature == 0) to[D] = most, to[D + 1] = total;
        } else if (index < queries) {
            out[((row * n + index / group) * heads + kv_head * group + index % group) * D + feature] =
                Rounded<T>::of(total > 0.0f ? sum / total : 0.0f);
        }
    }
    if (splits == 1) return;

    // Join the blocks: the last to come finds the work of all.
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) last = atomicInc(tickets + row * gridDim.y + blockIdx.y, splits - 1) == splits - 1;
    __syncthreads();
    if (!last) return;
    __threadfence();
    __shared__ float shares[32][Q];  // of each block in a query's result: there are at most 32
    for (int j = threadIdx.x / 32; j < Q; j += THREADS / 32) {
        const int s = threadIdx.x % 32;
        const float* part = found + (static_cast<i64>(s) * Q + j) * (D + 2) + D;
        const float score = s < splits ? __ldcg(part) : -infinity(), all = s < splits ? __ldcg(part + 1) : 0.0f;
        float most = score;
#pragma unroll
        for (int step = 16; step > 0; step >>= 1) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, step));
        const float own = weight(score, most), total = warp_sum(own * all);
        shares[s][j] = total > 0.0f ? own / total : 0.0f;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < Q * D; i += THREADS) {
        const int j = i / D;
        const i64 index = first + j;
        if (index >= queries) return;
        float sum = 0.0f;
#pragma unroll 4
        for (int s = 0; s < splits; ++s) sum = fmaf(shares[s][j], __ldcg(found + (s * Q + j) * (D + 2) + i % D), sum);
        out[((row * n + index / group) * heads + kv_head * group + index % group) * D + i % D] = Rounded<T>::of(sum);
    }
}
