// Exact search: inner products of vectors with queries, and the next score that is good enough.
//
// A product is summed in the lanes of one vector from front to back, and then the lanes, in an order that the width
// alone decides: a score is the same bits whatever queries and vectors stand beside it.
#include "kernels/search.h"

#include "kernels/simd.h"
#include "kernels/table.h"

namespace tallow::TALLOW_LEVEL {

namespace {

constexpr int rows_at_once = score_rows;
constexpr int queries_at_once = vector_registers == 32 ? 6 : 3;  // rows times queries, and what is read, fit in registers
constexpr int64_t cached_queries = 16384;  // bytes of queries that stay in the first cache while rows go by

TALLOW_INLINE F32 load_elements(const float* p) { return load(p); }
TALLOW_INLINE F32 load_elements(const uint16_t* p) { return load_f16(p); }
TALLOW_INLINE F32 load_elements(const int8_t* p) { return load_i8(p); }
TALLOW_INLINE F32 load_elements(const float* p, int64_t n) { return load_partial(p, n); }
template <typename T>
TALLOW_INLINE F32 load_elements(const T* p, int64_t n) {
    T lane[width] = {};
    for (int64_t i = 0; i < n; ++i) lane[i] = p[i];
    return load_elements(lane);
}

// Where scores go, and what they are multiplied with.
struct Tile {
    float* scores;
    int64_t stride;
    float scales[rows_at_once];
    int64_t rows;
};

template <int queries, typename T>
TALLOW_INLINE void score_tile(const float* query, int64_t n, const T* const* rows, const Tile& tile, int64_t first) {
    F32 sums[queries][rows_at_once];
    TALLOW_UNROLL
    for (int j = 0; j < queries; ++j) {
        TALLOW_UNROLL
        for (int r = 0; r < rows_at_once; ++r) sums[j][r] = set(0.0f);
    }
    int64_t i = 0;
    for (; i + width <= n; i += width) {
        F32 x[queries];
        TALLOW_UNROLL
        for (int j = 0; j < queries; ++j) x[j] = load(query + j * n + i);
        TALLOW_UNROLL
        for (int r = 0; r < rows_at_once; ++r) {
            const F32 v = load_elements(rows[r] + i);
            TALLOW_UNROLL
            for (int j = 0; j < queries; ++j) sums[j][r] = fma(x[j], v, sums[j][r]);
        }
    }
    if (i < n) {
        TALLOW_UNROLL
        for (int r = 0; r < rows_at_once; ++r) {
            const F32 v = load_elements(rows[r] + i, n - i);
            TALLOW_UNROLL
            for (int j = 0; j < queries; ++j) sums[j][r] = fma(load_partial(query + j * n + i, n - i), v, sums[j][r]);
        }
    }
    TALLOW_UNROLL
    for (int j = 0; j < queries; ++j) {
        float total[rows_at_once];
        sum4(sums[j], total);
        float* to = tile.scores + (first + j) * tile.stride;
        if (tile.rows == rows_at_once) {
            TALLOW_UNROLL
            for (int r = 0; r < rows_at_once; ++r) to[r] = total[r] * tile.scales[r];
        } else {
            for (int64_t r = 0; r < tile.rows; ++r) to[r] = total[r] * tile.scales[r];
        }
    }
}

template <typename T>
TALLOW_INLINE void score_queries(const ScoreArgs& args, int64_t begin, int64_t end, const T* const* rows, const Tile& tile) {
    const int64_t n = args.width;
    int64_t j = begin;
    for (; j + queries_at_once <= end; j += queries_at_once)
        score_tile<queries_at_once>(args.queries + j * n, n, rows, tile, j);
    for (; j < end; ++j) score_tile<1>(args.queries + j * n, n, rows, tile, j);
}

template <typename T>
TALLOW_INLINE void widen_row(const T* from, int64_t n, float* to) {
    int64_t i = 0;
    for (; i + width <= n; i += width) store(to + i, load_elements(from + i));
    if (i < n) store_partial(to + i, load_elements(from + i, n - i), n - i);
}

template <typename T>
void score_as(const ScoreArgs& args, int64_t begin, int64_t end, float* scratch) {
    const int64_t row_bytes = larger(args.width, 1) * 4;
    const int64_t group = larger(cached_queries / row_bytes / queries_at_once, 1) * queries_at_once;
    for (int64_t query = 0; query < args.query_count; query += group) {
        const int64_t query_end = smaller(query + group, args.query_count);
        for (int64_t row = begin; row < end; row += rows_at_once) {
            const T* rows[rows_at_once];
            const float* widened[rows_at_once];
            Tile tile{args.scores + row, args.score_stride, {}, smaller(end - row, rows_at_once)};
            for (int r = 0; r < rows_at_once; ++r) {
                const int64_t at = row + smaller(r, tile.rows - 1);  // the last one again where there are fewer
                rows[r] = static_cast<const T*>(args.vectors) + at * args.vector_stride;
                tile.scales[r] = args.scales[at * args.scale_stride];
            }
            if (sizeof(T) == sizeof(float) || query_end - query <= queries_at_once) {
                score_queries(args, query, query_end, rows, tile);
                continue;
            }
            for (int r = 0; r < rows_at_once; ++r) {
                widen_row(rows[r], args.width, scratch + r * args.width);
                widened[r] = scratch + r * args.width;
            }
            score_queries(args, query, query_end, widened, tile);
        }
    }
}

void score(const ScoreArgs& args, int64_t begin, int64_t end, float* scratch) {
    switch (args.element) {
        case Element::f32: return score_as<float>(args, begin, end, scratch);
        case Element::f16: return score_as<uint16_t>(args, begin, end, scratch);
        case Element::i8: return score_as<int8_t>(args, begin, end, scratch);
    }
}

int64_t next_above(const float* scores, int64_t begin, int64_t end, float threshold) {
    const F32 least = set(threshold);
    int64_t i = begin;
    while (i + width <= end && !any_less(least, load(scores + i))) i += width;
    while (i < end && !(scores[i] > threshold)) ++i;
    return i;
}

}  // namespace

void add_search_kernels(Kernels& table) {
    table.score = score;
    table.next_above = next_above;
}

}  // namespace tallow::TALLOW_LEVEL
