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
    float eps;
};

}  // namespace tallow
