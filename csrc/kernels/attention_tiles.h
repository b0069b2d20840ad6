// The two products of attention on register tiles, and the softmax between them.
//
// A query's result must not depend on what is computed beside it: every score is one chain of additions over the
// features, every output feature one chain over the keys, and the running softmax moves on at multiples of key_block.
#pragma once

#include <limits>

#include "kernels/attention.h"
#include "kernels/simd.h"

namespace tallow::TALLOW_LEVEL {

// Queries in a register tile, and the vectors of keys or features that fit beside r of them.
constexpr int tile_rows = query_rows;
constexpr int tile_vectors(int r) {
    const int registers = vector_registers == 32 ? 24 : 12;
    return registers / r >= 8 ? 8 : registers / r >= 4 ? 4 : 2;
}

template <typename T>
TALLOW_INLINE F32 load_as_float(const T* p) {
    if constexpr (sizeof(T) == 4)
        return load(p);
    else
        return load_f16(p);
}

// out[row][key] = q[feature][row] · keys[feature][key] for R rows and V vectors of keys, the first of them `first`.
template <int R, int V, typename T>
TALLOW_INLINE void scores_tile(float* out, const float* q, const T* keys, int64_t head_dim, int64_t first) {
    const T* at[V];
    for (int v = 0; v < V; ++v) {
        const int64_t key = first + v * width;
        at[v] = keys + key / key_panel * key_panel * head_dim + key % key_panel;
    }
    F32 acc[R][V];
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v) acc[r][v] = set(0.0f);
    for (int64_t i = 0; i < head_dim; ++i) {
        F32 k[V];
        for (int v = 0; v < V; ++v) k[v] = load_as_float(at[v] + i * key_panel);
        for (int r = 0; r < R; ++r) {
            const F32 x = set(q[i * R + r]);
            for (int v = 0; v < V; ++v) acc[r][v] = fma(x, k[v], acc[r][v]);
        }
    }
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v) store(out + r * key_block + first + v * width, acc[r][v]);
}

template <int R, int V, typename T>
TALLOW_INLINE void scores_rows(float* out, const float* q, const T* keys, int64_t head_dim, int64_t first, int64_t end) {
    for (; first + V * width <= end; first += V * width) scores_tile<R, V>(out, q, keys, head_dim, first);
    if constexpr (V > 1)
        if (first < end) scores_rows<R, V / 2>(out, q, keys, head_dim, first, end);
}

// The chain of p[row][key] · values[key][features] for R rows and keys [begin, end) in their order: added to `out` as a
// whole, or, with `go_on`, the continuation of the chain that is there.
template <int R, int V, typename T>
TALLOW_INLINE void mix_tile(float* out, const float* p, const T* values, int64_t padded, int64_t begin, int64_t end,
                            bool go_on) {
    F32 acc[R][V];
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v) acc[r][v] = go_on ? load(out + r * padded + v * width) : set(0.0f);
    for (int64_t key = begin; key < end; ++key) {
        F32 x[V];
        for (int v = 0; v < V; ++v) x[v] = load_as_float(values + key * padded + v * width);
        for (int r = 0; r < R; ++r) {
            const F32 weight = set(p[r * key_block + key]);
            for (int v = 0; v < V; ++v) acc[r][v] = fma(weight, x[v], acc[r][v]);
        }
    }
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v) {
            float* to = out + r * padded + v * width;
            store(to, go_on ? acc[r][v] : load(to) + acc[r][v]);
        }
}

template <int R, int V, typename T>
TALLOW_INLINE void mix_rows(float* out, const float* p, const T* values, int64_t padded, int64_t left, int64_t begin,
                            int64_t end, bool go_on) {
    for (; left >= V * width; left -= V * width, out += V * width, values += V * width)
        mix_tile<R, V>(out, p, values, padded, begin, end, go_on);
    if constexpr (V > 1)
        if (left) mix_rows<R, V / 2>(out, p, values, padded, left, begin, end, go_on);
}

// For a number of rows known when it runs.
template <typename T, int R = tile_rows>
void scores(int64_t rows, float* out, const float* q, const T* keys, int64_t head_dim, int64_t count) {
    if constexpr (R > 1)
        if (rows < R) return scores<T, R - 1>(rows, out, q, keys, head_dim, count);
    constexpr int most = static_cast<int>(key_block) / width;
    scores_rows<R, (tile_vectors(R) < most ? tile_vectors(R) : most)>(out, q, keys, head_dim, 0, count);
}

template <typename T, int R = tile_rows>
void mix(int64_t rows, float* out, const float* p, const T* values, int64_t padded, int64_t begin, int64_t end,
         bool go_on) {
    if constexpr (R > 1)
        if (rows < R) return mix<T, R - 1>(rows, out, p, values, padded, begin, end, go_on);
    mix_rows<R, tile_vectors(R)>(out, p, values, padded, padded, begin, end, go_on);
}

// e^x for x up to some 80, to 2e-7 of its value, and 0 below -87.7: cheaper than exp, since nothing can overflow.
TALLOW_INLINE F32 exp_of_score(F32 x) {
    x = max(set(-88.0f), x);
    // Adding 1.5 · 2^23 rounds to a whole number n, in the lowest bits; with 127 more they are the exponent of 2^n.
    const F32 shift = set(12582912.0f + 127.0f);
    const F32 t = fma(x, set(1.44269504f), shift);
    const F32 n = t - shift;
#if TALLOW_SIMD_SSE  // its fma rounds the product: ln 2 in two parts, the first with few bits
    const F32 r = fma(n, set(2.12194440e-4f), fma(n, set(-0.693359375f), x));
#else
    const F32 r = fma(n, set(-0.693147182f), x);
#endif
    F32 p = fma(set(0.00829030667f), r, set(0.0418979749f));
    p = fma(p, r, set(0.166676372f));
    p = fma(p, r, set(0.499991506f));
    p = fma(p, r, set(0.999999702f));
    p = fma(p, r, set(1.0f));
    return p * shift_left(t);
}

// A row's running softmax: what its weights so far are relative to, and their sum in parts.
struct Running {
    float highest;
    float sum[width];
};

constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

// Puts -inf where the row sees no key, which it does from `first` to `seen`, and adds the mask to the rest. `columns` is a
// multiple of the width.
TALLOW_INLINE void hide_keys(float* scores, int64_t columns, int64_t first, int64_t seen, const float* mask) {
    alignas(64) static constexpr float counting[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    for (int64_t i = 0; i < columns; i += width) {
        F32 s = load(scores + i);
        if (mask && i < seen) s = s + load_partial(mask + i, seen - i);
        s = if_less(load(counting), set(float(first - i)), set(minus_infinity), s);
        store(scores + i, if_less(load(counting), set(float(seen - i)), s, set(minus_infinity)));
    }
}

// Turns one row's scores of a block into weights. Scores may exceed `highest` by a little before it moves, which is
// rare then: what is summed up so far must be scaled to match.
TALLOW_INLINE void soften(float* scores, int64_t columns, Running& row, float* out, int64_t padded) {
    F32 top = set(minus_infinity);
    for (int64_t i = 0; i < columns; i += width) top = max(load(scores + i), top);  // passes over NaN
    if (any_less(set(row.highest + 8.0f), top)) {
        const float highest = largest(top);
        const F32 factor = exp_of_score(set(row.highest - highest));
        for (int64_t i = 0; i < padded; i += width) store(out + i, load(out + i) * factor);
        store(row.sum, load(row.sum) * factor);
        row.highest = highest;
    }
    const F32 base = set(row.highest == minus_infinity ? 0.0f : row.highest);
    F32 total = set(0.0f);
    for (int64_t i = 0; i < columns; i += width) {
        const F32 weight = exp_of_score(load(scores + i) - base);
        store(scores + i, weight);
        total = total + weight;
    }
    store(row.sum, load(row.sum) + total);
}

}  // namespace tallow::TALLOW_LEVEL
