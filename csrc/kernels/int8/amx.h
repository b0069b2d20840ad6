// Blocks of up to 32 rows on AMX's tile registers: 16 rows of 64 bytes each, multiplied 16 x 16 x 64 at once.
//
// The packed panel is what TDPBSUD takes as its second operand: rows of 4 inputs by 16 features, 128 bytes apart.
#pragma once

#include "kernels/int8/arithmetic.h"

namespace tallow::TALLOW_LEVEL {

// Layout of the operand of LDTILECFG, palette 1.
struct alignas(64) TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t column_bytes[16] = {};
    uint8_t rows[16] = {};
};

// Tiles 0 to 3 hold the sums (two of rows by two of features), 4 and 5 the rows, 6 and 7 the weights.
constexpr TileConfig tile_config(int rows) {
    TileConfig config;
    const int upper = rows <= 16 ? rows : (rows + 1) / 2, lower = rows - upper;
    const int tile_rows[8] = {upper, upper, lower, lower, upper, lower, 16, 16};
    for (int i = 0; i < 8; ++i) {
        config.rows[i] = static_cast<uint8_t>(tile_rows[i]);
        config.column_bytes[i] = tile_rows[i] ? 64 : 0;
    }
    return config;
}

// The rows that this thread's tiles are configured for; 0 when they are released.
inline thread_local int configured_rows = 0;

TALLOW_INLINE void release_tiles() {
    if (configured_rows) _tile_release();
    configured_rows = 0;
}

template <int rows>
void tile_block(const unsigned char* x, Panels from, int32_t* sums, int64_t, int64_t steps, bool first) {
    alignas(64) static constexpr TileConfig config = tile_config(rows);
    constexpr bool two = rows > 16;
    constexpr int upper = two ? (rows + 1) / 2 : rows;
    constexpr int sums_stride = panel_width * 4;
    if (configured_rows != rows) {
        _tile_loadconfig(&config);
        configured_rows = rows;
    }
    int32_t* lower_sums = sums + upper * panel_width;
    if (first) {
        _tile_zero(0);
        _tile_zero(1);
        if constexpr (two) {
            _tile_zero(2);
            _tile_zero(3);
        }
    } else {
        _tile_loadd(0, sums, sums_stride);
        _tile_loadd(1, sums + 16, sums_stride);
        if constexpr (two) {
            _tile_loadd(2, lower_sums, sums_stride);
            _tile_loadd(3, lower_sums + 16, sums_stride);
        }
    }
    const unsigned char* weights = from.weights;
    for (int64_t i = 0; i < steps; i += 16) {  // inputs and weights are padded to whole tiles
        _tile_loadd(6, weights, sums_stride);
        _tile_loadd(7, weights + 64, sums_stride);
        _tile_loadd(4, x, row_bytes);
        _tile_dpbsud(0, 4, 6);
        _tile_dpbsud(1, 4, 7);
        if constexpr (two) {
            _tile_loadd(5, x + upper * row_bytes, row_bytes);
            _tile_dpbsud(2, 5, 6);
            _tile_dpbsud(3, 5, 7);
        }
        weights += 16 * sums_stride;
        x += 64;
    }
    _tile_stored(0, sums, sums_stride);
    _tile_stored(1, sums + 16, sums_stride);
    if constexpr (two) {
        _tile_stored(2, lower_sums, sums_stride);
        _tile_stored(3, lower_sums + 16, sums_stride);
    }
}

// Below so many rows a tile is mostly idle, and vectors do as well.
constexpr int least_tile_rows = 8;

template <int rows>
Block pick_tile_block(int64_t wanted_rows) {
    if constexpr (rows >= least_tile_rows) {
        if (wanted_rows != rows) return pick_tile_block<rows - 1>(wanted_rows);
        return tile_block<rows>;
    }
    return nullptr;
}

inline Block Bytes::pick(int64_t rows, int64_t panels) {
    return rows < least_tile_rows ? pick_block<Bytes, least_tile_rows - 1>(rows, panels) : pick_tile_block<block_rows>(rows);
}

}  // namespace tallow::TALLOW_LEVEL
