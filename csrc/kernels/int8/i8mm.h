// Blocks on SMMLA, which multiplies two rows of eight bytes by two features of eight bytes and adds to 2 x 2 sums.
#pragma once

#include "kernels/int8/arithmetic.h"

namespace tallow::TALLOW_LEVEL {

struct Bytes : IntegerSums {
    using Wide = Bytes;
    static constexpr int step_bytes = 8, vector_bytes = width * 8, block_rows = 6, most_panels = 1;
    static Block pick(int64_t rows, int64_t panels);
};

// Rows go in pairs; an odd last one stands for its missing neighbour too.
template <int rows>
void pair_block(const unsigned char* x, Panels from, int32_t* sums, int64_t, int64_t steps, bool first) {
    constexpr int row_pairs = (rows + 1) / 2, feature_pairs = panel_width / 2;
    int32x4_t acc[row_pairs][feature_pairs];
    TALLOW_UNROLL
    for (int r = 0; r < row_pairs; ++r) {
        const int32_t* upper = sums + 2 * r * panel_width;
        const int32_t* lower = 2 * r + 1 < rows ? upper + panel_width : upper;
        TALLOW_UNROLL
        for (int f = 0; f < feature_pairs; ++f)
            acc[r][f] = first ? vdupq_n_s32(0) : vcombine_s32(vld1_s32(upper + 2 * f), vld1_s32(lower + 2 * f));
    }
    const int8_t* weights = reinterpret_cast<const int8_t*>(from.weights);
    for (int64_t i = 0; i < steps; ++i) {
        int8x16_t a[row_pairs];
        TALLOW_UNROLL
        for (int r = 0; r < row_pairs; ++r) {
            const int8_t* upper = reinterpret_cast<const int8_t*>(x + 2 * r * row_bytes);
            a[r] = vcombine_s8(vld1_s8(upper), vld1_s8(2 * r + 1 < rows ? upper + row_bytes : upper));
        }
        TALLOW_UNROLL
        for (int f = 0; f < feature_pairs; ++f) {
            const int8x16_t w = vld1q_s8(weights + 16 * f);
            TALLOW_UNROLL
            for (int r = 0; r < row_pairs; ++r) acc[r][f] = vmmlaq_s32(acc[r][f], a[r], w);
        }
        weights += panel_width * 8;
        x += 8;
    }
    TALLOW_UNROLL
    for (int r = 0; r < row_pairs; ++r) {
        int32_t* upper = sums + 2 * r * panel_width;
        TALLOW_UNROLL
        for (int f = 0; f < feature_pairs; ++f) {
            vst1_s32(upper + 2 * f, vget_low_s32(acc[r][f]));
            if (2 * r + 1 < rows) vst1_s32(upper + panel_width + 2 * f, vget_high_s32(acc[r][f]));
        }
    }
}

inline Block Bytes::pick(int64_t rows, int64_t) {
    constexpr Block blocks[block_rows] = {pair_block<1>, pair_block<2>, pair_block<3>,
                                          pair_block<4>, pair_block<5>, pair_block<6>};
    return blocks[rows - 1];
}

}  // namespace tallow::TALLOW_LEVEL
