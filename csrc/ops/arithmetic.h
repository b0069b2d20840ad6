// Elementwise functions of float32 for the tape; what is not recorded NumPy computes.
#pragma once

#include <cstdint>

namespace tallow {

constexpr int most_axes = 8;

// One operand, with the stride of each axis in floats: 0 where it is broadcast.
struct ElementwiseOperand {
    const float* data;
    std::int64_t strides[most_axes];
};

// out[i] = f(x[i], y[i]), or f(x[i]) where there is one operand. out is contiguous; operands may overlap each other, not it.
struct ElementwiseArgs {
    float* out;
    ElementwiseOperand x, y;
    std::int64_t shape[most_axes];  // the last axis varies fastest; there is at least one
    int axes;
    float scalar;  // what y is if y.data is null
};

using Elementwise = void (*)(const ElementwiseArgs&);

// The function of an operation of tallow.ops; nullptr if there is none.
Elementwise elementwise(const char* name);

}  // namespace tallow
