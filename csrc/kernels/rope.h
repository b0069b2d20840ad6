// Rotary embeddings (Su et al. 2021): pairs of features, half a head apart, turned by an angle each.
#pragma once

#include <cstdint>

namespace tallow {

struct RopeArgs {
    float* out;      // (b, n, heads, 2 · pairs) in C order
    const float* x;  // likewise, with strides in floats; features are side by side
    std::int64_t batch_stride, position_stride, head_stride;
    const float *cos, *sin;  // (b or 1, n, pairs) in C order
    std::int64_t angles_stride;  // from row to row: 0 where all rows of the batch have the same
    std::int64_t n, heads, pairs;
};

}  // namespace tallow
