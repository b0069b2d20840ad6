// Layer norm (Ba et al. 2016) and RMS norm (Zhang and Sennrich 2019) over rows of floats.
#pragma once

#include <cstdint>

namespace tallow {

struct NormArgs {
    float* out;
    const float* x;
    const float* weight;  // (width), or nullptr for ones
    const float* bias;    // (width), or nullptr; layer norm only
    std::int64_t rows, width;
    std::int64_t out_stride, x_stride;  // floats from one row to the next
    std::int64_t inner, outer_stride;   // x's rows come in groups of `inner`, so many floats apart, such as heads of a token
    float eps;
};

}  // namespace tallow
