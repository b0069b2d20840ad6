// Attention of up to 256 queries to up to 208 keys, by the warpgroup products of compute capability 9.0: a block takes whole
// heads, so that the keys of each are brought, and turned, once, and there are two tiles of scores and no walk over keys.
// Without masks, for heads of 64 features and a scale above zero. Two warpgroups take 64 queries each at a time; the blocks of a
// multiprocessor hide each other's waiting. T: bf16 or f16, of everything. ROTARY: whether queries and keys, which are as many
// then, are turned by angles on their way in, pairs being half a head apart.
#include "warpgroup.cuh"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
namespace {

constexpr int HEAD = 64, CHUNKS = HEAD / 8, HALF = CHUNKS / 2;  // chunks: of 16 bytes in a row, which is one of a panel
constexpr int GROUPS = 2, THREADS = 128 * GROUPS, RESIDENT = 2, MOST_QUERIES = 256;
constexpr int KEYS = 112, LAST = 96, ALL_KEYS = KEYS + LAST;  // of the first tile, of the last
constexpr int KEY_BYTES = ALL_KEYS * 128;

DEVICE T* chunk_at(unsigned char* tile, int row, int chunk) {
    return reinterpret_cast<T*>(tile + swizzled(row, chunk));
}

// Two chunks half a head apart, in shared memory, of a row and of those some multiple of eight further on.
struct Pair {
    T *low, *high;

    DEVICE Pair(unsigned char* tile, int row, int chunk)
        : low(chunk_at(tile, row, chunk)), high(chunk_at(tile, row, chunk + HALF)) {}
    DEVICE void copy(int further, const T* from) const {
        copy_early(low + further * HEAD, from), copy_early(high + further * HEAD, from + HEAD / 2);
    }
    DEVICE void turn(int further, const float (&cosines)[8], const float (&sines)[8]) const {
        float x[8], y[8];
        read(x, low + further * HEAD), read(y, high + further * HEAD);
        rotate(x, y, cosines, sines);
        write(low + further * HEAD, x), write(high + further * HEAD, y);
    }
};

// Of two queries, in powers of two.
struct Softmax {
    float highest[2] = {-infinity(), -infinity()}, total[2] = {0.0f, 0.0f};  // total: of this thread's keys
    float less[2];  // what sums of before the last tile are to be multiplied by
};

// Makes weights of a tile's scores. Keys from `all_see` on may not be seen, from `visible` on they are not.
template <int N>
DEVICE void weigh(float (&scores)[N], Softmax& softmax, float factor, int first_key, int all_see, const int (&visible)[2]) {
    constexpr int COLUMNS = 2 * N, MAX = COLUMNS - 16;  // an image's patches leave less than 16 columns
    if (all_see < first_key + MAX)
        hide<0, COLUMNS>(scores, first_key, visible);
    else if (all_see < first_key + COLUMNS)
        hide<MAX, COLUMNS>(scores, first_key, visible);
    float most[4] = {softmax.highest[0], softmax.highest[0], softmax.highest[1], softmax.highest[1]};
#pragma unroll
    for (int i = 0; i < N; ++i) most[i % 4] = fmaxf(most[i % 4], scores[i]);
    float base[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const float highest = quad_max(fmaxf(most[2 * half], most[2 * half + 1]));
        base[half] = highest == -infinity() ? 0.0f : highest * factor;
        softmax.less[half] = power_of_two(fmaf(softmax.highest[half], factor, -base[half]));  // 0 where nothing was seen
        softmax.highest[half] = highest;
        softmax.total[half] *= softmax.less[half];
    }
#pragma unroll
    for (int i = 0; i < N; ++i) {
        scores[i] = power_of_two(fmaf(scores[i], factor, -base[i / 2 % 2]));
        softmax.total[i / 2 % 2] += scores[i];
    }
}

// What a warpgroup's thread works at, of 64 queries.
struct Work {
    u64 query, key, value;  // where these begin
    float factor;
    int all_see, visible[2];
    bool has_queries;  // the same in a warp
    Softmax softmax;
    float sums[HEAD / 2];

    // A tile of N · 2 keys.
    template <int N> DEVICE void take(int first_key) {
        float scores[N];
        u32 part[N / 2];  // the weights, as the left operand
        products_may_begin();
#pragma unroll
        for (int i = 0; i < HEAD / 16; ++i) add_product(scores, query + i * 2, key + first_key * 8 + i * 2, i > 0);
        products_end();
        wait_for_products<0>(scores);
        if (has_queries) weigh(scores, softmax, factor, first_key, all_see, visible);
#pragma unroll
        for (int i = 0; i < N / 2; ++i) part[i] = packed<T>(scores[2 * i], scores[2 * i + 1]);
        if (first_key > 0) {
#pragma unroll
            for (int i = 0; i < HEAD / 2; ++i) sums[i] *= softmax.less[i / 2 % 2];
        }
        products_may_begin();
#pragma unroll
        for (int i = 0; i < N / 8; ++i)
            add_product<1>(sums, part[4 * i], part[4 * i + 1], part[4 * i + 2], part[4 * i + 3],
                           value + (first_key + i * 16) * 8, first_key + i > 0);
        products_end();
        wait_for_products<0>(sums);
    }
};

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT)
    attention_whole(T* out, const T* q, const T* keys, const T* values, const i64* lengths, const float* cosines,
                    const float* sines, i64 n, i64 heads_, i64 kv_heads, i64 m, i64 q_stride_b,
                    i64 q_stride_n, i64 q_stride_h, i64 k_stride_b, i64 k_stride_h, i64 k_stride_m, i64 v_stride_b,
                    i64 v_stride_h, i64 v_stride_m, double scale, i64 causal) {
    next_may_start();
    wait_for_previous();
    extern __shared__ __align__(1024) unsigned char shared[];
    const int heads = static_cast<int>(heads_), group = heads / static_cast<int>(kv_heads);
    const int row = blockIdx.x / heads, head = blockIdx.x % heads, kv_head = head / group, queries = static_cast<int>(n);
    const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32, quarter = lane % 4;
    const int length = static_cast<int>(lengths ? min(lengths[row], m) : m);
    unsigned char *const key_tile = shared, *const query_tiles = key_tile + 2 * KEY_BYTES;

    // Four lanes bring the pairs of a row; eight lanes that are served at once reach all banks.
    constexpr int STEP = THREADS / 4, STEPS = MOST_QUERIES / STEP, VALUE_STEP = THREADS / 8;
    const int first = warp * 8 + lane / 8 + (lane & 4);
    const Pair key_pair(key_tile, first, quarter), query_pair(query_tiles, first, quarter);
    const T* query_from = q + row * q_stride_b + head * q_stride_h + first * q_stride_n + quarter * 8;
    const T* key_from = keys + row * k_stride_b + kv_head * k_stride_h + first * k_stride_m + quarter * 8;
#pragma unroll
    for (int i = 0; i < STEPS; ++i) {
        if (first + i * STEP < queries) query_pair.copy(i * STEP, query_from);
        if (first + i * STEP < length) key_pair.copy(i * STEP, key_from);
        query_from += STEP * q_stride_n, key_from += STEP * k_stride_m;
    }
    copies_end();
    const int place = thread / 8, chunk = thread % 8;
    const T* value_from = values + row * v_stride_b + kv_head * v_stride_h + place * v_stride_m + chunk * 8;
    T* const value_to = chunk_at(key_tile + KEY_BYTES, place, chunk);
#pragma unroll
    for (int i = 0; i < ALL_KEYS; i += VALUE_STEP) {  // zeros where they do not count, lest they be no numbers
        if (i + VALUE_STEP <= ALL_KEYS || place + i < ALL_KEYS)
            copy_early(value_to + i * HEAD, value_from, place + i < length);
        value_from += VALUE_STEP * v_stride_m;
    }
    copies_end();

    if constexpr (ROTARY) {
        float c[STEPS][8], s[STEPS][8];
#pragma unroll
        for (int i = 0; i < STEPS; ++i) {
            const int at = (first + i * STEP) * (HEAD / 2) + quarter * 8;
            if (first + i * STEP < queries) read(c[i], cosines + at), read(s[i], sines + at);
        }
        wait_for_copies<1>();
#pragma unroll
        for (int i = 0; i < STEPS; ++i)
            if (first + i * STEP < queries) {
                query_pair.turn(i * STEP, c[i], s[i]);
                if (first + i * STEP < length) key_pair.turn(i * STEP, c[i], s[i]);
            }
    }
    wait_for_copies<0>();
    show_to_products();
    __syncthreads();

    const int in_tile = warp % 4 * 16;  // the first of this warp's queries
    const auto seen_by = [&](int query) { return causal ? min(length, length - (queries - 1 - query)) : length; };
    for (int tile = warp / 4; tile * 64 < queries; tile += GROUPS) {
        unsigned char* const own = query_tiles + tile * (64 * 128);
        const int at = tile * 64 + in_tile + lane / 4;
        Work work;
        work.query = descriptor(shared_address(own), 16);
        work.key = descriptor(shared_address(key_tile), 16);
        work.value = descriptor(shared_address(key_tile) + KEY_BYTES, 16);
        work.factor = static_cast<float>(scale) * LOG2E;
        work.all_see = seen_by(tile * 64), work.visible[0] = seen_by(at), work.visible[1] = seen_by(at + 8);
        work.has_queries = tile * 64 + in_tile < queries;
        work.take<KEYS / 2>(0);
        work.take<LAST / 2>(KEYS);
        meet_group(1 + warp / 4);  // all have read the queries, whose place is free for what comes out
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float total = quad_sum(work.softmax.total[half]);
            const float factor_out = total > 0.0f ? __fdividef(1.0f, total) : 0.0f;
#pragma unroll
            for (int chunk = 0; chunk < CHUNKS; ++chunk) {
                const float* const two = work.sums + chunk * 4 + half * 2;
                T* const to = chunk_at(own, in_tile + half * 8 + lane / 4, chunk);
                reinterpret_cast<u32*>(to)[quarter] = packed<T>(two[0] * factor_out, two[1] * factor_out);
            }
        }
        __syncwarp();
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int in_warp = in_tile + i * 4 + lane / 8, place = tile * 64 + in_warp, chunk = lane % 8;
            if (place < queries)
                store_pack(out + ((row * n + place) * heads + head) * HEAD + chunk * 8,
                           load_pack(chunk_at(own, in_warp, chunk)));
        }
    }
}
#else
extern "C" __global__ void attention_whole() {}
#endif
