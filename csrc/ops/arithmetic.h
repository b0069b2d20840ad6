// Elementwise functions of float32 for the tape; what is not recorded NumPy computes.
#pragma once

#include <cstdint>

namespace tallow {

constexpr int most_axes = 8;

// One operand, with the stride of each axis in elements: 0 where it is broadcast.
template <typename T>
struct ElementwiseOperand {
    const T* data;
    std::int64_t strides[most_axes];
};

// out[i] = f(x[i], y[i]). out is contiguous; operands may overlap each other, not it.
struct ElementwiseArgs {
    void* out;                       // float; bool for comparisons
    ElementwiseOperand<float> x, y;  // functions of one operand do not look at y
    ElementwiseOperand<std::uint8_t> condition;  // of `where` alone: whether to take x or y
    std::int64_t shape[most_axes];  // the last axis varies fastest; there is at least one
    int axes;
};

struct Elementwise {
    const char* name;  // of the operation in tallow.ops
    void (*run)(const ElementwiseArgs&);
    bool compares;
    bool has_condition = false;
};

// nullptr if there is no such function.
const Elementwise* elementwise(const char* name);

}  // namespace tallow
