// The inner part of every product with a packed matrix, for any arithmetic.
//
// `block` holds the sums of a few rows and one or more panels in registers and walks the inputs: each step loads vectors
// of weights, one lane a feature, and multiplies them by the activations of each row in turn. Rows beyond one block's are
// taken block by block over a stretch of inputs so short that the panel's stretch stays in the first cache; sums wait in
// memory between stretches, unrounded, so the order of additions is always the same.
//
// An arithmetic A says what a step is:
//     Sum, Weights             vectors of sums (32-bit elements) and of weights
//     step_bytes               bytes of x that a step takes; a step is `unit` inputs
//     vector_bytes             bytes of stored weights in one vector
//     zero, load_sums, store_sums, load_weights, broadcast, multiply_add
//     Wide, widen              how weights look once widened, if they are: Wide is A itself if not
//     block_rows, most_panels  what a block takes at most
//     pick                     the block for so many rows and panels
#pragma once

#include "kernels/matrix.h"
#include "kernels/simd.h"

namespace tallow::TALLOW_LEVEL {

// What the registers hold: vectors in a panel, rows in a block, and the sums that must be under way to hide the latency
// of an addition.
#if TALLOW_SIMD_AVX512
constexpr int panel_vectors = 2, block_rows = 14, least_chains = 8;
#elif TALLOW_SIMD_AVX2
constexpr int panel_vectors = 2, block_rows = 6, least_chains = 8;
#elif TALLOW_SIMD_SSE
constexpr int panel_vectors = 2, block_rows = 5, least_chains = 8;
#else
constexpr int panel_vectors = 4, block_rows = 5, least_chains = 16;
#endif
constexpr int panel_width = panel_vectors * width;

// Rows of x stand `row_bytes` apart: not a power of two, or they would compete for the same cache sets.
constexpr int64_t stretch_bytes = 1024, row_bytes = stretch_bytes + 64;

struct Panels {
    const unsigned char* weights;
    int64_t bytes;  // from one panel to the next
    const unsigned char* ahead;  // what will be read after these, to be fetched meanwhile; or nullptr
    int64_t ahead_step;          // bytes of it for each step
};

// `sums` holds `panel_width` sums a row, and `panel_sums` from one panel to the next.
using Block = void (*)(const unsigned char* x, Panels panels, int32_t* sums, int64_t panel_sums, int64_t steps, bool first);

template <typename A, int rows, int panels>
void block(const unsigned char* x, Panels from, int32_t* sums, int64_t panel_sums, int64_t steps, bool first) {
    constexpr int vectors = panels * panel_vectors;
    typename A::Sum acc[rows][vectors];
    TALLOW_UNROLL
    for (int r = 0; r < rows; ++r) {
        TALLOW_UNROLL
        for (int v = 0; v < vectors; ++v) {
            const int64_t at = v / panel_vectors * panel_sums + r * panel_width + v % panel_vectors * width;
            acc[r][v] = first ? A::zero() : A::load_sums(sums + at);
        }
    }
    const unsigned char* weights = from.weights;
    for (int64_t i = 0; i < steps; ++i) {
        if constexpr (2 * rows >= A::block_rows)  // as blocks beside others have
            if (from.ahead) prefetch(from.ahead + i * from.ahead_step);
        typename A::Weights w[vectors];
        TALLOW_UNROLL
        for (int v = 0; v < vectors; ++v)
            w[v] = A::load_weights(weights + v / panel_vectors * from.bytes + v % panel_vectors * A::vector_bytes);
        TALLOW_UNROLL
        for (int r = 0; r < rows; ++r) {
            const auto a = A::broadcast(x + r * row_bytes);
            TALLOW_UNROLL
            for (int v = 0; v < vectors; ++v) acc[r][v] = A::multiply_add(a, w[v], acc[r][v]);
        }
        weights += panel_vectors * A::vector_bytes;
        x += A::step_bytes;
    }
    TALLOW_UNROLL
    for (int r = 0; r < rows; ++r) {
        TALLOW_UNROLL
        for (int v = 0; v < vectors; ++v) {
            const int64_t at = v / panel_vectors * panel_sums + r * panel_width + v % panel_vectors * width;
            A::store_sums(sums + at, acc[r][v]);
        }
    }
}

// Panels taken at once for few rows, so that enough sums are under way.
constexpr int most_panels_at_once = 4;

constexpr int panels_at_once(int64_t rows) {
    int panels = 1;
    while (rows * panels * panel_vectors < least_chains && panels < most_panels_at_once) panels *= 2;
    return panels;
}

template <typename A, int rows>
Block pick_block(int64_t wanted_rows, int64_t panels) {
    if constexpr (rows > 0) {
        if (wanted_rows != rows) return pick_block<A, rows - 1>(wanted_rows, panels);
        constexpr int most = panels_at_once(rows);
        if constexpr (most >= 4)
            if (panels >= 4) return block<A, rows, 4>;
        if constexpr (most >= 2)
            if (panels >= 2) return block<A, rows, 2>;
        return block<A, rows, 1>;
    }
    return nullptr;
}

// A stretch of inputs in a tile's product.
struct Stretch {
    int64_t first_step, steps;
    bool first, last;
};

// What a tile needs besides its operands.
struct Work {
    unsigned char* weights;  // a widened stretch of one panel
    int32_t* sums;           // of the tile, panel by panel
};

// One block of rows against the tile's panels, straight from the stored weights. finish(sums, row, rows, panel) is called
// for each panel after the last stretch; rows count from the tile's first.
template <typename A, typename Finish>
TALLOW_INLINE void multiply_few(const PackedMatrix& w, const Tile& tile, const unsigned char* x, const Work& work,
                                const Stretch& s, Finish&& finish) {
    const int64_t rows = tile.row_end - tile.row_begin, panel_sums = rows * panel_width;
    for (int64_t p = tile.panel_begin; p < tile.panel_end;) {
        int64_t panels = smaller(panels_at_once(rows), A::most_panels);
        while (panels > tile.panel_end - p) panels /= 2;
        int32_t* sums = work.sums + (p - tile.panel_begin) * panel_sums;
        const unsigned char* weights = w.panels + p * w.panel_bytes + s.first_step * panel_vectors * A::vector_bytes;
        const Panels from{weights, w.panel_bytes, nullptr, 0};
        A::pick(rows, panels)(x, from, sums, panel_sums, s.steps, s.first);
        for (int64_t i = 0; s.last && i < panels; ++i) finish(sums + i * panel_sums, 0, rows, p + i);
        p += panels;
    }
}

// Where a tile's product reads weights after a panel's stretch: in the next panel, or the next stretch. A step takes
// `step` bytes.
TALLOW_INLINE const unsigned char* weights_after(const PackedMatrix& w, const Tile& tile, int64_t panel, const Stretch& s,
                                                 int64_t step) {
    if (panel + 1 < tile.panel_end) return w.panels + (panel + 1) * w.panel_bytes + s.first_step * step;
    if (s.last) return w.panels + tile.panel_end * w.panel_bytes;  // the next tile, perhaps
    return w.panels + tile.panel_begin * w.panel_bytes + (s.first_step + s.steps) * step;
}

// Many blocks of rows: each panel's stretch is widened once, and then used by all. While it is, the next one is fetched:
// a model's weights come from memory, where the first block would wait for them.
template <typename A, typename Finish>
TALLOW_INLINE void multiply_many(const PackedMatrix& w, const Tile& tile, const unsigned char* x, const Work& work,
                                 const Stretch& s, Finish&& finish) {
    using Wide = typename A::Wide;
    constexpr int64_t step = panel_vectors * A::vector_bytes;
    const int64_t rows = tile.row_end - tile.row_begin, blocks = (rows + Wide::block_rows - 1) / Wide::block_rows;
    auto sums_of = [&](int64_t row, int64_t panel) {
        return work.sums + ((panel - tile.panel_begin) * rows + row) * panel_width;
    };
    auto each_block = [&](auto&& f) {
        for (int64_t b = 0, row = 0; b < blocks; ++b) {
            const int64_t count = rows / blocks + (b < rows % blocks);
            f(row, count);
            row += count;
        }
    };
    const int64_t part = (step + blocks - 1) / blocks;
    for (int64_t p = tile.panel_begin; p < tile.panel_end; ++p) {
        const unsigned char* weights = w.panels + p * w.panel_bytes + s.first_step * step;
        if constexpr (A::vector_bytes != Wide::vector_bytes) {
            for (int64_t i = 0; i < s.steps * panel_vectors; ++i)
                A::widen(weights + i * A::vector_bytes, work.weights + i * Wide::vector_bytes);
            weights = work.weights;
        }
        const unsigned char* ahead = weights_after(w, tile, p, s, step);
        each_block([&](int64_t row, int64_t count) {
            Wide::pick(count, 1)(x + row * row_bytes, {weights, 0, ahead, part}, sums_of(row, p), 0, s.steps, s.first);
            ahead += s.steps * part;
        });
    }
    // Only now, side by side along the rows: were each panel written as soon as it is ready, down all rows, then what rows
    // of 4 or 8 KB write would meet in few sets of the caches, which took a tenth of the time.
    if (!s.last) return;
    each_block([&](int64_t row, int64_t count) {
        for (int64_t p = tile.panel_begin; p < tile.panel_end; ++p) finish(sums_of(row, p), row, count, p);
    });
}

constexpr int64_t widened_bytes = stretch_bytes / 4 * panel_width * 4;  // a step takes 4 bytes of x, or 2

TALLOW_INLINE int64_t sums_bytes(const Tile& tile) {
    return (tile.row_end - tile.row_begin) * (tile.panel_end - tile.panel_begin) * panel_width * 4;
}

}  // namespace tallow::TALLOW_LEVEL
