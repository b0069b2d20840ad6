// Attention of many queries on the tensor cores, without ever writing the scores down (Dao 2023, "FlashAttention-2").
// A block has 64 TILES queries of one head, 16 TILES a warp, and walks over the keys in tiles of KEYS, the next of which is
// on its way from memory while this one is worked on. T: bf16 or f16, of everything. HEAD: features of a head, a multiple
// of 8. MASKED: whether there is a mask. WINDOWED: whether queries see no more than `window` positions, their own included.
// PAGED: whether keys and values lie in pages, k_stride_b and v_stride_b apart; else these are the distances between rows.
// Rows of 16 bytes and more begin at multiples of 16 bytes. Runs on compute capability 8.0 and up.
#include "common.cuh"

namespace {

constexpr int D = (HEAD + 15) / 16 * 16;  // with zeros up to whole steps of the product
constexpr int KEYS = D > 128 ? 32 : 64;  // the four tiles of keys and values hold the queries first
constexpr int QUERIES = 64 * TILES;
constexpr int THREADS = 128;
constexpr bool KEPT = D * TILES <= 128;  // whether queries stay in registers; else they are read again for each tile
constexpr bool AHEAD = MASKED && TILES == 1;  // whether there are registers to read the mask before the scores are made
constexpr int PITCH = D + 8;  // numbers from one row to the next in shared memory: eight rows meet in no bank

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

// c (16, 8) += a (16, 16) · b (16, 8)
DEVICE void add_product(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    if constexpr (SAME<T, bf16>)
        MMA("bf16");
    else
        MMA("f16");
}

// ROWS of a matrix with HEAD columns, zeros before row `begin`, from row `end` on and beyond HEAD.
template <int ROWS> DEVICE void load_tile(u16* tile, const T* from, i64 stride, i64 begin, i64 end) {
    constexpr int CHUNKS = D / 8;
    for (int i = threadIdx.x; i < ROWS * CHUNKS; i += THREADS) {
        const int row = i / CHUNKS, column = i % CHUNKS * 8;
        const bool there = row >= begin && row < end && column < HEAD;
        copy_early(tile + row * PITCH + column, there ? from + row * stride + column : from, there);
    }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS)
    attention_flash(T* out, const T* q, const T* keys, const T* values, const i64* lengths, const float* mask,
                    const int* table, i64 table_stride, i64 n, i64 heads, i64 kv_heads, i64 m, i64 q_stride_b,
                    i64 q_stride_n, i64 q_stride_h, i64 k_stride_b, i64 k_stride_h, i64 k_stride_m, i64 v_stride_b,
                    i64 v_stride_h, i64 v_stride_m, i64 mask_b, i64 mask_h, i64 mask_n, i64 mask_m, i64 mask_rows,
                    double scale, i64 causal, i64 window) {
    extern __shared__ __align__(16) u16 shared[];
    u16* const queries = shared;
    u16* const key_tiles = KEPT ? shared : shared + QUERIES * PITCH;  // two tiles (KEYS, PITCH); queries may lie there first
    u16* const value_tiles = key_tiles + 2 * KEYS * PITCH;            // likewise
    const i64 row = blockIdx.z, head = blockIdx.y, kv_head = head / (heads / kv_heads);
    const i64 first = static_cast<i64>(gridDim.x - 1 - blockIdx.x) * QUERIES;  // those that see most begin first
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const i64 length = lengths ? min(lengths[row], m) : m;
    const auto seen_by = [&](i64 query) {
        return static_cast<int>(causal ? min(length, length - (n - 1 - query)) : length);
    };
    const int end = max(seen_by(min(first + QUERIES, n) - 1), 0), all_see = seen_by(first);  // keys that any, all see
    const int from_key = WINDOWED ? max(all_see - static_cast<int>(window), 0) : 0;         // before it, none sees any
    const int all_from = WINDOWED ? end - static_cast<int>(window) : 0;                     // from it on, all see
    const auto load_keys = [&](int tile, int place) {
        const int begin = tile * KEYS, from = PAGED ? begin % PAGE : begin;
        const i64 lot = PAGED ? table[row * table_stride + begin / PAGE] : row;  // of rows that begin at one place
        const T* key_rows = keys + lot * k_stride_b + kv_head * k_stride_h + from * k_stride_m;
        const T* value_rows = values + lot * v_stride_b + kv_head * v_stride_h + from * v_stride_m;
        load_tile<KEYS>(key_tiles + place * KEYS * PITCH, key_rows, k_stride_m, from_key - begin, end - begin);
        load_tile<KEYS>(value_tiles + place * KEYS * PITCH, value_rows, v_stride_m, from_key - begin, end - begin);
    };

    load_tile<QUERIES>(queries, q + row * q_stride_b + head * q_stride_h + first * q_stride_n, q_stride_n, 0, n - first);
    copies_end();
    const auto load_query = [&](u32 (&to)[4], int t, int i) {
        load_matrices(to, queries + ((warp * TILES + t) * 16 + lane % 16) * PITCH + i * 16 + lane / 16 * 8);
    };
    u32 query[KEPT ? TILES : 1][KEPT ? D / 16 : 1][4];
    if constexpr (KEPT) {
        wait_for_copies<0>();
        __syncthreads();
#pragma unroll
        for (int t = 0; t < TILES; ++t)
#pragma unroll
            for (int i = 0; i < D / 16; ++i) load_query(query[t][i], t, i);
        __syncthreads();
    }

    float sums[TILES][D / 8][4] = {};
    float highest[TILES][2], totals[TILES][2] = {};
    i64 at[TILES][2];  // this thread's queries
#pragma unroll
    for (int t = 0; t < TILES; ++t)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            at[t][half] = first + (warp * TILES + t) * 16 + lane / 4 + half * 8;
            highest[t][half] = -infinity();
        }
    const float factor = static_cast<float>(scale) * LOG2E;
    const float* const masks = mask + row % mask_rows * mask_b + head * mask_h;
    const auto mask_at = [&](i64 query, int key) {
        return query < n && key < end ? masks[query * mask_n + key * mask_m] : 0.0f;
    };
    const int tiles = (end + KEYS - 1) / KEYS, first_tile = from_key / KEYS;
    if (first_tile < tiles) load_keys(first_tile, first_tile % 2);
    copies_end();
    for (int tile = first_tile; tile < tiles; ++tile) {
        const int now = tile % 2, next = 1 - now;
        if (tile + 1 < tiles) load_keys(tile + 1, next);
        copies_end();
        float added[AHEAD ? KEYS / 8 : 1][4];
        if constexpr (AHEAD) {
#pragma unroll
            for (int j = 0; j < KEYS / 8; ++j)
#pragma unroll
                for (int c = 0; c < 4; ++c) added[j][c] = mask_at(at[0][c / 2], tile * KEYS + j * 8 + lane % 4 * 2 + c % 2);
        }
        wait_for_copies<1>();
        __syncthreads();

        // Scores: for each 8 keys, 2 queries of a thread and 2 neighbouring keys.
        const u16* key_tile = key_tiles + now * KEYS * PITCH;
        float scores[TILES][KEYS / 8][4] = {};
#pragma unroll
        for (int i = 0; i < D / 16; ++i) {
            u32 again[TILES][4];
            if constexpr (!KEPT) {
#pragma unroll
                for (int t = 0; t < TILES; ++t) load_query(again[t], t, i);
            }
#pragma unroll
            for (int j = 0; j < KEYS / 16; ++j) {
                u32 key[4];
                load_matrices(key, key_tile + (j * 16 + lane / 16 * 8 + lane % 8) * PITCH + i * 16 + lane / 8 % 2 * 8);
#pragma unroll
                for (int t = 0; t < TILES; ++t) {
                    const u32(&a)[4] = KEPT ? query[KEPT ? t : 0][KEPT ? i : 0] : again[t];
                    add_product(scores[t][2 * j], a, key[0], key[1]);
                    add_product(scores[t][2 * j + 1], a, key[2], key[3]);
                }
            }
        }

#pragma unroll
        for (int t = 0; t < TILES; ++t) {
            // Softmax so far, in powers of two.
            float most[2] = {highest[t][0], highest[t][1]};
#pragma unroll
            for (int j = 0; j < KEYS / 8; ++j)
#pragma unroll
                for (int c = 0; c < 4; ++c) scores[t][j][c] *= factor;
            if (MASKED || (tile + 1) * KEYS > all_see || (WINDOWED && tile * KEYS < all_from)) {
                const int visible[2] = {seen_by(at[t][0]), seen_by(at[t][1])};
#pragma unroll
                for (int j = 0; j < KEYS / 8; ++j)
#pragma unroll
                    for (int c = 0; c < 4; ++c) {
                        const int half = c / 2, key = tile * KEYS + j * 8 + lane % 4 * 2 + c % 2;
                        if (key >= visible[half] || (WINDOWED && key < visible[half] - window))
                            scores[t][j][c] = -infinity();
                        else if (MASKED)
                            scores[t][j][c] += LOG2E * (AHEAD ? added[AHEAD ? j : 0][c] : mask_at(at[t][half], key));
                    }
            }
#pragma unroll
            for (int j = 0; j < KEYS / 8; ++j)
#pragma unroll
                for (int c = 0; c < 4; ++c) most[c / 2] = fmaxf(most[c / 2], scores[t][j][c]);
            float less[2], base[2];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                most[half] = quad_max(most[half]);
                base[half] = most[half] == -infinity() ? 0.0f : most[half];
                less[half] = power_of_two(highest[t][half] - base[half]);  // 0 where nothing has been seen
                highest[t][half] = most[half];
                totals[t][half] *= less[half];
            }
#pragma unroll
            for (int j = 0; j < D / 8; ++j)
#pragma unroll
                for (int c = 0; c < 4; ++c) sums[t][j][c] *= less[c / 2];
#pragma unroll
            for (int j = 0; j < KEYS / 8; ++j)
#pragma unroll
                for (int c = 0; c < 4; ++c) {
                    scores[t][j][c] = power_of_two(scores[t][j][c] - base[c / 2]);
                    totals[t][c / 2] += scores[t][j][c];
                }
        }

        // Values: the scores' layout is the left operand's.
        const u16* value_tile = value_tiles + now * KEYS * PITCH;
#pragma unroll
        for (int i = 0; i < KEYS / 16; ++i) {
            u32 part[TILES][4];
#pragma unroll
            for (int t = 0; t < TILES; ++t)
#pragma unroll
                for (int c = 0; c < 4; ++c)
                    part[t][c] = packed<T>(scores[t][2 * i + c / 2][c % 2 * 2], scores[t][2 * i + c / 2][c % 2 * 2 + 1]);
#pragma unroll
            for (int j = 0; j < D / 16; ++j) {
                u32 value[4];
                load_transposed(value,
                                value_tile + (i * 16 + lane / 8 % 2 * 8 + lane % 8) * PITCH + j * 16 + lane / 16 * 8);
#pragma unroll
                for (int t = 0; t < TILES; ++t) {
                    add_product(sums[t][2 * j], part[t], value[0], value[1]);
                    add_product(sums[t][2 * j + 1], part[t], value[2], value[3]);
                }
            }
        }
        __syncthreads();  // this tile's memory is the one after next's
    }

#pragma unroll
    for (int t = 0; t < TILES; ++t)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float total = quad_sum(totals[t][half]);
            if (at[t][half] >= n) continue;
            const float factor_out = total > 0.0f ? 1.0f / total : 0.0f;
            T* to = out + ((row * n + at[t][half]) * heads + head) * HEAD;
#pragma unroll
            for (int j = 0; j < D / 8; ++j) {
                const int column = j * 8 + lane % 4 * 2;
                if (column < HEAD)
                    *reinterpret_cast<u32*>(to + column) =
                        packed<T>(sums[t][j][2 * half] * factor_out, sums[t][j][2 * half + 1] * factor_out);
            }
        }
}
