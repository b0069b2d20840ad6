// Attention of many queries on the tensor cores, without ever writing the scores down (Dao 2023, "FlashAttention-2").
// A block has 64 queries of one head, 16 a warp, and walks over the keys in tiles of KEYS, the next of which is on its
// way from memory while this one is worked on. T: bf16 or f16, of everything. HEAD: features of a head, a multiple of 8.
// Rows of 16 bytes and more begin at multiples of 16 bytes. Runs on compute capability 8.0 and up.
#include "common.cuh"

namespace {

constexpr int D = (HEAD + 15) / 16 * 16;  // with zeros up to whole steps of the product
constexpr int KEYS = D > 128 ? 32 : 64;
constexpr int QUERIES = 64;
constexpr int THREADS = 128;
constexpr int PITCH = D + 8;  // numbers from one row to the next in shared memory: eight rows meet in no bank
constexpr float LOG2E = 1.4426950408889634f;

DEVICE u32 shared_address(const void* at) { return static_cast<u32>(__cvta_generic_to_shared(at)); }

// 16 bytes from memory to shared memory in the background; zeros where `there` is false.
DEVICE void copy_later(u16* to, const T* from, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
                 "r"(there ? 16 : 0));
}
DEVICE void copies_end() { asm volatile("cp.async.commit_group;"); }
template <int LEFT> DEVICE void wait_for_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(LEFT)); }

DEVICE void load_matrices(u32 (&r)[4], const u16* at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(at)));
}
DEVICE void load_transposed(u32 (&r)[4], const u16* at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(at)));
}

#define MMA(TYPE)                                                                                                     \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." TYPE "." TYPE ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, " \
                 "{%0,%1,%2,%3};"                                                                                     \
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                                     \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))

template <class A, class B> constexpr bool SAME = false;
template <class A> constexpr bool SAME<A, A> = true;

// c (16, 8) += a (16, 16) · b (16, 8)
DEVICE void add_product(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    if constexpr (SAME<T, bf16>)
        MMA("bf16");
    else
        MMA("f16");
}

// Rows [first, first + ROWS) of a matrix with HEAD columns, zeros from row `end` on and beyond HEAD.
template <int ROWS> DEVICE void load_tile(u16* tile, const T* from, i64 stride, i64 first, i64 end) {
    constexpr int CHUNKS = D / 8;
    for (int i = threadIdx.x; i < ROWS * CHUNKS; i += THREADS) {
        const int row = i / CHUNKS, column = i % CHUNKS * 8;
        const bool there = first + row < end && column < HEAD;
        copy_later(tile + row * PITCH + column, there ? from + (first + row) * stride + column : from, there);
    }
}

DEVICE float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
DEVICE float quad_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS)
    attention_flash(T* out, const T* q, const T* keys, const T* values, const i64* lengths, const float* mask, i64 n,
                    i64 heads, i64 kv_heads, i64 m, i64 q_stride_b, i64 q_stride_n, i64 q_stride_h, i64 k_stride_b,
                    i64 k_stride_h, i64 k_stride_m, i64 v_stride_b, i64 v_stride_h, i64 v_stride_m, i64 mask_b,
                    i64 mask_h, i64 mask_n, i64 mask_m, double scale, i64 causal) {
    extern __shared__ __align__(16) u16 shared[];
    u16* const key_tiles = shared;                          // two tiles (KEYS, PITCH)
    u16* const value_tiles = shared + 2 * KEYS * PITCH;     // likewise; the queries pass through here first
    const i64 row = blockIdx.z, head = blockIdx.y, kv_head = head / (heads / kv_heads);
    const i64 first = static_cast<i64>(blockIdx.x) * QUERIES;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const i64 length = lengths ? min(lengths[row], m) : m;
    const i64 last_query = min(first + QUERIES, n) - 1;
    const i64 end = max(causal ? min(length, length - (n - 1 - last_query)) : length, 0ll);  // keys that any query sees
    const T* key_rows = keys + row * k_stride_b + kv_head * k_stride_h;
    const T* value_rows = values + row * v_stride_b + kv_head * v_stride_h;

    load_tile<QUERIES>(shared, q + row * q_stride_b + head * q_stride_h, q_stride_n, first, n);
    copies_end();
    wait_for_copies<0>();
    __syncthreads();
    u32 query[D / 16][4];
#pragma unroll
    for (int i = 0; i < D / 16; ++i)
        load_matrices(query[i], shared + (warp * 16 + lane % 16) * PITCH + i * 16 + lane / 16 * 8);
    __syncthreads();

    float sums[D / 8][4] = {};
    float highest[2] = {-infinity(), -infinity()}, totals[2] = {};
    i64 at[2], visible[2];  // of this thread's two queries
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        at[half] = first + warp * 16 + lane / 4 + half * 8;
        visible[half] = causal ? min(length, length - (n - 1 - at[half])) : length;
    }
    const float factor = static_cast<float>(scale) * LOG2E;
    const i64 tiles = (end + KEYS - 1) / KEYS;
    if (tiles > 0) {
        load_tile<KEYS>(key_tiles, key_rows, k_stride_m, 0, end);
        load_tile<KEYS>(value_tiles, value_rows, v_stride_m, 0, end);
    }
    copies_end();
    for (i64 tile = 0; tile < tiles; ++tile) {
        const int now = tile % 2, next = 1 - now;
        if (tile + 1 < tiles) {
            load_tile<KEYS>(key_tiles + next * KEYS * PITCH, key_rows, k_stride_m, (tile + 1) * KEYS, end);
            load_tile<KEYS>(value_tiles + next * KEYS * PITCH, value_rows, v_stride_m, (tile + 1) * KEYS, end);
        }
        copies_end();
        wait_for_copies<1>();
        __syncthreads();

        // Scores: for each 8 keys, this thread's 2 queries and 2 neighbouring keys.
        const u16* key_tile = key_tiles + now * KEYS * PITCH;
        float scores[KEYS / 8][4] = {};
#pragma unroll
        for (int i = 0; i < D / 16; ++i)
#pragma unroll
            for (int j = 0; j < KEYS / 16; ++j) {
                u32 key[4];
                load_matrices(key, key_tile + (j * 16 + lane / 16 * 8 + lane % 8) * PITCH + i * 16 + lane / 8 % 2 * 8);
                add_product(scores[2 * j], query[i], key[0], key[1]);
                add_product(scores[2 * j + 1], query[i], key[2], key[3]);
            }

        // Softmax so far, in powers of two.
        float most[2] = {highest[0], highest[1]};
#pragma unroll
        for (int j = 0; j < KEYS / 8; ++j)
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                const int half = c / 2;
                const i64 key = tile * KEYS + j * 8 + lane % 4 * 2 + c % 2;
                float score = scores[j][c] * factor;
                if (key >= visible[half])
                    score = -infinity();
                else if (mask && at[half] < n)
                    score += mask[row * mask_b + head * mask_h + at[half] * mask_n + key * mask_m] * LOG2E;
                scores[j][c] = score;
                most[half] = fmaxf(most[half], score);
            }
        float less[2], base[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            most[half] = quad_max(most[half]);
            base[half] = most[half] == -infinity() ? 0.0f : most[half];
            less[half] = exp2f(highest[half] - base[half]);  // 0 where nothing has been seen
            highest[half] = most[half];
            totals[half] *= less[half];
        }
#pragma unroll
        for (int j = 0; j < D / 8; ++j)
#pragma unroll
            for (int c = 0; c < 4; ++c) sums[j][c] *= less[c / 2];
#pragma unroll
        for (int j = 0; j < KEYS / 8; ++j)
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                scores[j][c] = exp2f(scores[j][c] - base[c / 2]);
                totals[c / 2] += scores[j][c];
            }

        // Values: the scores' layout is the left operand's.
        const u16* value_tile = value_tiles + now * KEYS * PITCH;
#pragma unroll
        for (int i = 0; i < KEYS / 16; ++i) {
            const u32 part[4] = {packed<T>(scores[2 * i][0], scores[2 * i][1]),
                                 packed<T>(scores[2 * i][2], scores[2 * i][3]),
                                 packed<T>(scores[2 * i + 1][0], scores[2 * i + 1][1]),
                                 packed<T>(scores[2 * i + 1][2], scores[2 * i + 1][3])};
#pragma unroll
            for (int j = 0; j < D / 16; ++j) {
                u32 value[4];
                load_transposed(value,
                                value_tile + (i * 16 + lane / 8 % 2 * 8 + lane % 8) * PITCH + j * 16 + lane / 16 * 8);
                add_product(sums[2 * j], part, value[0], value[1]);
                add_product(sums[2 * j + 1], part, value[2], value[3]);
            }
        }
        __syncthreads();  // this tile's memory is the one after next's
    }

#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const float total = quad_sum(totals[half]);
        if (at[half] >= n) continue;
        const float factor_out = total > 0.0f ? 1.0f / total : 0.0f;
        T* to = out + ((row * n + at[half]) * heads + head) * HEAD;
#pragma unroll
        for (int j = 0; j < D / 8; ++j) {
            const int column = j * 8 + lane % 4 * 2;
            if (column < HEAD)
                *reinterpret_cast<u32*>(to + column) =
                    packed<T>(sums[j][2 * half] * factor_out, sums[j][2 * half + 1] * factor_out);
        }
    }
}
