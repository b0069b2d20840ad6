// Activations, number by number, and softmax and the largest element, row by row.
#pragma once

#include <cstdint>

#include "kernels/matrix.h"

namespace tallow {

// out = activation(x), times `up` if there is one: SwiGLU (Shazeer 2020) where the activation is SiLU.
struct ActivationArgs {
    float* out;
    const float* x;
    const float* up;  // nullptr, or a matrix like x
    std::int64_t rows, width;
    std::int64_t out_stride, x_stride, up_stride;  // floats from one row to the next
    Activation activation;
};

struct SoftmaxArgs {
    float* out;
    const float* x;
    std::int64_t rows, width;
    std::int64_t out_stride, x_stride;
    bool log;  // of the result
};

struct ArgmaxArgs {
    std::int64_t* out;
    const float* x;
    std::int64_t rows, width;  // at least 1 wide
    std::int64_t x_stride;     // floats from one row to the next
};

struct LogprobArgs {
    std::int64_t* ids;         // out (rows, 1 + top)
    float* values;             // likewise
    const float* x;            // (rows, width)
    const std::int64_t* given;  // (rows,), a place in each row
    std::int64_t rows, width, top;  // top at most the width
    std::int64_t x_stride;     // floats from one row to the next
};

// exp(x) of all numbers together is exp(highest) · sum. The sum is NaN if a number is NaN or +inf, 0 if all are -inf.
struct Exponentials {
    float highest, sum;
};

// The largest of some numbers, the first of equals. NaN is larger than all others.
struct Largest {
    float value;
    std::int64_t index;
};

}  // namespace tallow
