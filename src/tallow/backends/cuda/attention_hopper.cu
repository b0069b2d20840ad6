// Attention of many queries by the warpgroup products of compute capability 9.0 (Shah et al. 2024, "FlashAttention-3"). As
// attention_flash.cu, its portable sibling, but without masks, for heads of 64 or 128 features and a scale above zero.
// Each of GROUPS warpgroups has 64 queries in registers; a block walks over the keys in tiles, STAGES - 1 of which are on
// their way from memory. While the tensor cores mix the values of one tile, the softmax of the next is computed, and that of
// other warpgroups and of other blocks, RESIDENT on a multiprocessor. T: bf16 or f16, of everything. HEAD: features of a
// head. PAGED: whether keys and values lie in pages, k_stride_b and v_stride_b apart, a tile in each; else these are the
// distances between rows. WINDOWED: whether queries see no more than `window` positions, their own included. ROTARY:
// whether queries and keys are turned by angles on their way in, pairs being half a head apart.
#include "warpgroup.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
namespace {

constexpr int KEYS = 64;  // of a tile
constexpr int THREADS = 128 * GROUPS;
constexpr int QUERIES = 64 * GROUPS;
constexpr int CHUNKS = HEAD / 8;  // of 16 bytes in a row
constexpr int HALF = CHUNKS / 2;
constexpr int PANEL = KEYS * 128;  // of 64 features of a tile
constexpr int TILE = PANEL * HEAD / 64;

DEVICE int place_in_tile(int row, int chunk) { return chunk / 8 * PANEL + swizzled(row, chunk); }

// The assembler would wait for products as early as it may, and put off work that was to be done meanwhile. It does not move
// a wait across a store, so there is one, of what that work comes to, x >= 0, that never happens.
DEVICE void compute_before_waiting(float x, u32 anywhere) {
    asm volatile("{.reg .pred p; setp.lt.f32 p, %0, 0f00000000; @p st.volatile.shared.f32 [%1], %0;}" ::"f"(x),
                 "r"(anywhere)
                 : "memory");
}

// Two chunks of a row, half a head apart, turned by the angles (8,) of their pairs.
DEVICE void turn_by(Pack<T>& low, Pack<T>& high, const float* cosines, const float* sines) {
    float x[8], y[8], c[8], s[8];
    unpack(x, low), unpack(y, high);
    read(c, cosines), read(s, sines);
    rotate(x, y, c, s);
    low = pack(x, T{}), high = pack(y, T{});
}

// Brings keys or values tile after tile; LANES neighbouring threads bring a row.
template <int LANES> struct Rows {
    static constexpr int STEP = THREADS / LANES, STEPS = STEP < KEYS ? KEYS / STEP : 1;
    static_assert((KEYS % STEP == 0 || STEP % KEYS == 0) && STEP % 8 == 0, "threads have whole rows to bring, or none");
    const T* from;
    i64 stride;
    int row, chunk, left, skip;  // this thread's first row and chunk of a tile; rows from there to the end, and unseen ones

    DEVICE Rows(const T* rows, i64 distance, int begin, int end) : stride(distance) {
        row = threadIdx.x / LANES, chunk = threadIdx.x % LANES, left = end - row, skip = begin - row;
        from = rows + row * stride + chunk * 8;
    }
    // The next tile in the background, zeros before row `begin` and from row `end` on. `page`: where its page begins, in
    // numbers.
    DEVICE void load(u32 tile, i64 page) {
        if (STEP > KEYS && row >= KEYS) return;
#pragma unroll
        for (int i = 0; i < STEPS; ++i)
#pragma unroll
            for (int c = 0; c < CHUNKS; c += LANES)
                asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                                 tile + place_in_tile(row, chunk + c) + i * STEP * 128),
                             "l"(from + page + i * STEP * stride + c * 8),
                             "r"(i * STEP < left && (!WINDOWED || i * STEP >= skip) ? 16 : 0)
                             : "memory");
        if (!PAGED) from += KEYS * stride;
        left -= KEYS, skip -= KEYS;
    }
    // Turns what this thread has brought of a tile.
    DEVICE void turn(u32 tile, int first, int end, const float* cosines, const float* sines) const {
        if (STEP > KEYS && row >= KEYS) return;
#pragma unroll
        for (int i = 0; i < STEPS; ++i) {
            const i64 angles = static_cast<i64>(min(first + row + i * STEP, end - 1)) * (HEAD / 2) + chunk * 8;
            const u32 low_at = tile + place_in_tile(row, chunk) + i * STEP * 128;
            const u32 high_at = tile + place_in_tile(row, chunk + HALF) + i * STEP * 128;
            Pack<T> low = get(low_at), high = get(high_at);
            turn_by(low, high, cosines + angles, sines + angles);
            put(low_at, low), put(high_at, high);
        }
    }
    static DEVICE Pack<T> get(u32 at) {
        Pack<T> x;
        asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(x.bits.x), "=r"(x.bits.y), "=r"(x.bits.z), "=r"(x.bits.w)
                     : "r"(at)
                     : "memory");
        return x;
    }
    static DEVICE void put(u32 at, const Pack<T>& x) {
        asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(x.bits.x), "r"(x.bits.y), "r"(x.bits.z),
                     "r"(x.bits.w)
                     : "memory");
    }
};

// Of one query so far, in powers of two.
struct Softmax {
    float highest = -infinity(), total = 0.0f;  // total: of this thread's keys
    float less = 1.0f;                          // what sums of before the last tile are to be multiplied by
};

// Makes weights of the first COUNT scores of a tile; the others lie beyond all that is seen. Keys from `all_see` on may not
// be seen, from `visible` on they are not, nor, with a window, those that lie further back.
template <int COUNT>
DEVICE void weigh(float (&scores)[KEYS / 2], Softmax (&softmax)[2], float factor, int first_key, int all_see,
                  const int (&visible)[2], int all_from, int window) {
    if (first_key + COUNT > all_see) hide<0, COUNT>(scores, first_key, visible);
    if (WINDOWED && first_key < all_from) hide_left<0, COUNT>(scores, first_key, visible, window);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        Softmax& of = softmax[half];
        float most = of.highest, total = 0.0f;
#pragma unroll
        for (int i = 0; i < COUNT / 4; ++i) most = fmaxf(most, scores[i / 2 * 4 + half * 2 + i % 2]);
        most = quad_max(most);
        const float base = most == -infinity() ? 0.0f : most * factor;
        of.less = power_of_two(fmaf(of.highest, factor, -base));  // 0 where nothing has been seen
        of.highest = most;
#pragma unroll
        for (int i = 0; i < COUNT / 4; ++i) {
            float& x = scores[i / 2 * 4 + half * 2 + i % 2];
            x = power_of_two(fmaf(x, factor, -base));
            total += x;
        }
        of.total = fmaf(of.total, of.less, total);
    }
#pragma unroll
    for (int i = COUNT / 2; i < KEYS / 2; ++i) scores[i] = 0.0f;
}

// Four neighbouring lanes exchange words: the i-th of lane j becomes the j-th of lane i.
DEVICE void transpose(u32 (&words)[4], int lane) {
#pragma unroll
    for (int bit = 1; bit < 4; bit *= 2)
#pragma unroll
        for (int k = 0; k < 2; ++k) {
            const int i = bit == 1 ? 2 * k : k, j = i + bit;
            const u32 got = __shfl_xor_sync(0xffffffffu, lane & bit ? words[i] : words[j], bit);
            if (lane & bit)
                words[i] = got;
            else
                words[j] = got;
        }
}

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
    attention_hopper(T* out, const T* q, const T* keys, const T* values, const i64* lengths, const int* table,
                     i64 table_stride, const float* cosines, const float* sines, i64 n, i64 heads, i64 kv_heads,
                     i64 m, i64 q_stride_b, i64 q_stride_n, i64 q_stride_h, i64 k_stride_b, i64 k_stride_h,
                     i64 k_stride_m, i64 v_stride_b, i64 v_stride_h, i64 v_stride_m, double scale, i64 causal, i64 window) {
    next_may_start();
    wait_for_previous();
    extern __shared__ __align__(1024) unsigned char shared[];
    const u32 key_tiles = shared_address(shared), value_tiles = key_tiles + STAGES * TILE;
    const int blocks = (static_cast<int>(n) + QUERIES - 1) / QUERIES, number = blockIdx.x;
    // Blocks of a head are neighbours, for they read the same keys; but where they differ in length the longest go first.
    const int head = causal ? number % static_cast<int>(heads) : number / blocks;
    const int block = causal ? blocks - 1 - number / static_cast<int>(heads) : number % blocks;
    const i64 row = blockIdx.y, kv_head = head / static_cast<int>(heads / kv_heads);
    const int first = block * QUERIES, lane = threadIdx.x % 32, quarter = lane % 4;
    const int length = static_cast<int>(lengths ? min(lengths[row], m) : m), queries = static_cast<int>(n);
    // Positions are counted from the tile in which the first query's window begins.
    const int reach = static_cast<int>(window), shown = length - (queries - 1 - first);
    const int before = WINDOWED ? max(shown - reach, 0) / KEYS * KEYS : 0;
    const auto seen_by = [&](int query) {
        return (causal ? min(length, length - (queries - 1 - query)) : length) - before;
    };
    const int end = max(seen_by(min(first + QUERIES, queries) - 1), 0), all_see = seen_by(first);
    const int tiles = (end + KEYS - 1) / KEYS;
    const int begin = WINDOWED ? all_see - reach : 0, all_from = WINDOWED ? end - reach : 0;  // where any, all begin to see

    const i64 lot = PAGED ? 0 : row, unseen = PAGED ? 0 : before;
    const T* const first_key = keys + lot * k_stride_b + kv_head * k_stride_h + unseen * k_stride_m;
    const T* const first_value = values + lot * v_stride_b + kv_head * v_stride_h + unseen * v_stride_m;
    Rows<ROTARY ? HALF : 8> key_rows(first_key, k_stride_m, begin, end);
    Rows<8> value_rows(first_value, v_stride_m, begin, end);
    const auto page_of = [&](int tile) { return PAGED && tile < tiles ? table[row * table_stride + before / KEYS + tile] : 0; };
    int page = page_of(0), page_before = 0;  // of the tile whose keys come next, and of the one before
    // Copies are waited for in groups: the keys of a tile, and the values of the one before.
    const auto load_group = [&](int tile, int key_place, int value_place) {
        if (tile < tiles) key_rows.load(key_tiles + key_place * TILE, page * k_stride_b);
        if (tile > 0 && tile <= tiles) value_rows.load(value_tiles + value_place * TILE, page_before * v_stride_b);
        page_before = page, page = page_of(tile + 1);
        copies_end();
    };
#pragma unroll
    for (int tile = 0; tile < STAGES - 1; ++tile) load_group(tile, tile, tile - 1);

    // Queries, as the left operand: the words of chunk c of rows lane / 4 and, 8 further, of that of the other half.
    int at[2];
    u32 query[2][CHUNKS];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        at[half] = first + static_cast<int>(threadIdx.x) / 32 * 16 + lane / 4 + half * 8;
        const i64 place = min(at[half], queries - 1);
        const T* from = q + row * q_stride_b + place * q_stride_n + head * q_stride_h + quarter * 8;
        Pack<T> parts[CHUNKS / 4];
#pragma unroll
        for (int i = 0; i < CHUNKS / 4; ++i) parts[i] = load_pack(from + i * 32);
        if constexpr (ROTARY) {
#pragma unroll
            for (int i = 0; i < HALF / 4; ++i) {
                const i64 angles = place * (HEAD / 2) + i * 32 + quarter * 8;
                turn_by(parts[i], parts[i + HALF / 4], cosines + angles, sines + angles);
            }
        }
#pragma unroll
        for (int i = 0; i < CHUNKS / 4; ++i) {
            u32 words[4] = {parts[i].bits.x, parts[i].bits.y, parts[i].bits.z, parts[i].bits.w};
            transpose(words, lane);
#pragma unroll
            for (int c = 0; c < 4; ++c) query[half][i * 4 + c] = words[c];
        }
    }

    float sums[HEAD / 2], scores[KEYS / 2];
    Softmax softmax[2];  // of this thread's queries
    const int visible[2] = {seen_by(at[0]), seen_by(at[1])};
    u32 part[KEYS / 4];  // the weights of a tile, as the left operand
    const float factor = static_cast<float>(scale) * LOG2E;
#pragma unroll
    for (int i = 0; i < HEAD / 2; ++i) sums[i] = 0.0f;

    const auto score = [&](int place) {
        const u64 key = descriptor(key_tiles + place * TILE, 16);
#pragma unroll
        for (int i = 0; i < HEAD / 16; ++i)
            add_product<0>(scores, query[0][2 * i], query[1][2 * i], query[0][2 * i + 1], query[1][2 * i + 1],
                           key + (i / 4 * PANEL + i % 4 * 32 >> 4), i > 0);
        products_end();
    };
    const auto mix = [&](int place) {
        const u64 value = descriptor(value_tiles + place * TILE, PANEL);
#pragma unroll
        for (int i = 0; i < KEYS / 16; ++i)
            add_product<1>(sums, part[4 * i], part[4 * i + 1], part[4 * i + 2], part[4 * i + 3],
                           value + (i * 16 * 128 >> 4), true);
        products_end();
    };
    const bool has_queries = first + static_cast<int>(threadIdx.x) / 32 * 16 < queries;  // the same in a warp
    const auto weigh_tile = [&](int tile) {
        if (!has_queries) return;
        if (end - tile * KEYS <= KEYS / 4)
            weigh<KEYS / 4>(scores, softmax, factor, tile * KEYS, all_see, visible, all_from, reach);
        else
            weigh<KEYS>(scores, softmax, factor, tile * KEYS, all_see, visible, all_from, reach);
    };
    const auto round_weights = [&] {
#pragma unroll
        for (int i = 0; i < KEYS / 4; ++i) part[i] = packed<T>(scores[2 * i], scores[2 * i + 1]);
    };
    const auto arrive = [&](int tile, int place) {  // what this thread brought of a group is ready for the products
        wait_for_copies<STAGES - 2>();
        if constexpr (ROTARY)
            if (tile < tiles) key_rows.turn(key_tiles + place * TILE, before + tile * KEYS, before + end, cosines, sines);
        show_to_products();
    };

    if (tiles > 0) {
        arrive(0, 0);
        __syncthreads();
        load_group(STAGES - 1, STAGES - 1, STAGES - 2);
        products_may_begin();
        score(0);
        wait_for_products<0>(scores);
        weigh_tile(0);
        round_weights();
        int earlier = STAGES - 1, before = 0, now = 1;  // places of the last tiles and of this one
        arrive(1, now);
        for (int tile = 1; tile < tiles; ++tile) {
            __syncthreads();  // this group is there, and all are through with what gives place to the next
            load_group(tile + STAGES - 1, before, earlier);
            products_may_begin();
            score(now);
            mix(before);
            wait_for_products<1>(scores);
            weigh_tile(tile);
            compute_before_waiting(softmax[0].total + softmax[1].total, key_tiles);
            wait_for_products<0>(sums);
#pragma unroll
            for (int i = 0; i < HEAD / 2; ++i) sums[i] *= softmax[i / 2 % 2].less;
            round_weights();
            earlier = before, before = now, now = now + 1 < STAGES ? now + 1 : 0;
            arrive(tile + 1, now);
        }
        __syncthreads();
        products_may_begin();
        mix(before);
        wait_for_products<0>(sums);
    }

#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const float total = quad_sum(softmax[half].total), factor_out = total > 0.0f ? __fdividef(1.0f, total) : 0.0f;
        T* to = out + ((row * n + at[half]) * heads + head) * HEAD + quarter * 8;
#pragma unroll
        for (int i = 0; i < CHUNKS / 4; ++i) {
            u32 words[4];
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                const int j = (i * 4 + c) * 4 + half * 2;
                words[c] = packed<T>(sums[j] * factor_out, sums[j + 1] * factor_out);
            }
            transpose(words, lane);
            if (at[half] < queries) *reinterpret_cast<uint4*>(to + i * 32) = {words[0], words[1], words[2], words[3]};
        }
    }
}
#else
extern "C" __global__ void attention_hopper() {}
#endif
